"""Muon for matrices, Adam for the rest, exactly as published; and a place for optimizers of one's own.

torch's own Muon differs from the published one in momentum and weight decay, so this one is ours. Matrices of equal
shape are orthogonalized together, as one batched product. Over several ranks each orthogonalizes its share of the
matrices and the updates are summed over the ranks, as in the challenge's script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn

from niblick.errors import ArtifactError, ConfigError, TrainingError, expect_free
from niblick.model.level import Level, SoftLevel
from niblick.train.distributed import SINGLE, Ranks
from niblick.train.settings import OPTIMIZER_NAMES, OptimConfig

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that pushes singular values towards 1 (Jordan et al., Muon, 2024)."""


TILE = 128
"""Rows of a tile of a symmetric product; a processor makes them so for matrices of four tiles and more."""


def orthogonalize(update_NRC: Tensor, iterations: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Push the singular values of each matrix of a stack (N, rows, columns) towards 1; published in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = update_NRC.to(dtype)
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if x.device.type == "cpu" and x.shape[1] >= 4 * TILE:
        for one in x:
            one.copy_(_by_symmetry(one, iterations))
        iterations = 0
    for _ in range(iterations):
        gram = torch.bmm(x, x.transpose(1, 2))
        x = a * x + torch.bmm(b * gram + torch.bmm(c * gram, gram), x)  # rounded in the published order
    return x.transpose(1, 2) if tall else x


def _by_symmetry(x_RC: Tensor, iterations: int) -> Tensor:
    """The same for one matrix. Two of its products are symmetric: of those only tiles from the diagonal on are made.

    In bfloat16 it is rounded less often than as published, and nearer to exact.
    """
    a, b, c = NEWTON_SCHULZ
    gram_RR, square_RR = x_RC.new_empty(2, len(x_RC), len(x_RC))
    for _ in range(iterations):
        for out_RR, factor, beta, alpha in ((gram_RR, x_RC, 0, 1), (square_RR, gram_RR, b, c)):
            for i in range(0, len(x_RC), TILE):
                rows, right = slice(i, i + TILE), slice(i, None)
                base, out = gram_RR[rows, right], out_RR[rows, right]
                torch.addmm(base, factor[rows], factor[right].t(), beta=beta, alpha=alpha, out=out)
                out_RR[i + TILE :, rows] = out[:, TILE:].t()
        x_RC = torch.addmm(x_RC, square_RR, x_RC, beta=a)
    return x_RC


Group = dict[str, Any]
"""Weights that are updated alike, as torch's optimizers take them: `params`, `lr` and what each optimizer adds."""


class Adam(torch.optim.Adam):
    """torch's, without the decorators that load torch's compiler for nothing: a second, and 70 MB."""

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    step = torch.no_grad()(unwrap(torch.optim.Adam.step))


class Muon(torch.optim.Optimizer):
    """Momentum with Nesterov's look-ahead, orthogonalized, scaled by √max(1, rows/columns) (challenge baseline)."""

    ranks: Ranks = SINGLE
    """Those that share the work; all have the same gradients."""
    dtype: torch.dtype = torch.bfloat16
    """Of the orthogonalization."""
    add_param_group = Adam.add_param_group

    def __init__(
        self, params: list[Group], lr: float, momentum: float, iterations: int, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})
        self.iterations, self.weight_decay = iterations, weight_decay

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every matrix that has a gradient, after `closure` has made them, if it is given; return its loss."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for params, update_NRC, group in self._orthogonalized():
            rows, columns = update_NRC.shape[1:]
            scale = max(1.0, rows / columns) ** 0.5
            update_NRC = update_NRC.to(params[0].dtype)
            if self.weight_decay:
                torch._foreach_mul_(params, 1 - group["lr"] * self.weight_decay)
            torch._foreach_add_(params, list(update_NRC.unbind()), alpha=-group["lr"] * scale)
        return loss

    def _stacks(self) -> Iterator[tuple[list[Tensor], Tensor, Group]]:
        """Take in the gradients: matrices of one shape, their momenta with Nesterov's look-ahead, and their group."""
        for group in self.param_groups:
            shapes: dict[torch.Size, list[tuple[Tensor, Tensor]]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(p.shape, []).append((p, p.grad))
            for pairs in shapes.values():
                params, grads = [p for p, _ in pairs], [grad for _, grad in pairs]
                momenta = [self._momentum(p) for p in params]
                torch._foreach_mul_(momenta, group["momentum"])
                torch._foreach_add_(momenta, grads)
                update_NRC = torch.stack(grads)
                torch._foreach_add_(list(update_NRC.unbind()), momenta, alpha=group["momentum"])
                yield params, update_NRC, group

    def _orthogonalized(self) -> Iterator[tuple[list[Tensor], Tensor, Group]]:
        """Orthogonalize the stacks, one after the other so that only one is held.

        Over several ranks matrix number i, counted through all stacks, is the work of rank i mod N.
        """
        if self.ranks.size == 1:
            for params, update_NRC, group in self._stacks():
                yield params, orthogonalize(update_NRC, self.iterations, self.dtype), group
            return
        stacks = list(self._stacks())
        if not stacks:
            return
        sizes = [update_NRC.numel() for _, update_NRC, _ in stacks]
        flat = torch.zeros(sum(sizes), dtype=self.dtype, device=stacks[0][1].device)
        shared = [part.view_as(update_NRC) for part, (_, update_NRC, _) in zip(flat.split(sizes), stacks, strict=True)]
        count = 0
        for (_, update_NRC, _), out_NRC in zip(stacks, shared, strict=True):
            own = slice((self.ranks.rank - count) % self.ranks.size, None, self.ranks.size)
            if len(update_NRC[own]):
                out_NRC[own] = orthogonalize(update_NRC[own], self.iterations, self.dtype)
            count += len(update_NRC)
        self.ranks.sum_(flat)
        for (params, _, group), out_NRC in zip(stacks, shared, strict=True):
            yield params, out_NRC, group

    def _momentum(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(p)
        return state["momentum"]


class Optimizers:
    """The optimizers of one model as one object: a step at a scaled rate, and state as named tensors."""

    def __init__(
        self, model: nn.Module, config: OptimConfig, ranks: Ranks = SINGLE, dtype: torch.dtype = torch.bfloat16
    ) -> None:
        """Muon multiplies in `dtype`. Raises ConfigError if the optimizer leaves a weight out or has it twice, or
        refuses what the model has, such as none of the weights that it is for.
        """
        self.config = config
        self.names = {p: name for name, p in model.named_parameters()}
        try:
            self.parts = OPTIMIZERS[config.name](model, config)
        except ValueError as error:
            raise ConfigError(f"the optimizer {config.name!r} does not fit this model: {error}") from error
        self._expect_each_once()
        for optimizer, group in self._groups():
            group.setdefault("base_lr", group["lr"])
            if isinstance(optimizer, Muon):
                optimizer.ranks, optimizer.dtype = ranks, dtype

    def _expect_each_once(self) -> None:
        held = [p for _, group in self._groups() for p in group["params"]]
        for weight, name in self.names.items():
            count = sum(weight is other for other in held)
            if count > 1 or (weight.requires_grad and not count):
                times = "twice" if count else "not at all"
                raise ConfigError(
                    f"the optimizer {self.config.name!r} has the weight {name} {times}: it must have it once"
                )

    def _groups(self) -> Iterator[tuple[torch.optim.Optimizer, Group]]:
        for optimizer in self.parts:
            for group in optimizer.param_groups:
                yield optimizer, group

    def step(self, step: int, lr_scale: float) -> None:
        """Update the weights from their gradients; `step` counts from 0 and sets Muon's momentum."""
        c = self.config
        share = min(step / c.muon_momentum_steps, 1.0) if c.muon_momentum_steps else 1.0
        for optimizer, group in self._groups():
            group["lr"] = group["base_lr"] * lr_scale
            if isinstance(optimizer, Muon):
                group["momentum"] = (1 - share) * c.muon_momentum_start + share * c.muon_momentum
        for optimizer in self.parts:
            optimizer.step()

    def clip(self) -> Tensor:
        """Return the norm of all gradients together, and shorten them to `grad_clip` where that is set."""
        grads = [p.grad for p in self.names if p.grad is not None]
        norm = nn.utils.get_total_norm(grads)
        if self.config.grad_clip > 0:
            nn.utils.clip_grads_with_norm_(list(self.names), self.config.grad_clip, norm)
        return norm

    def state_tensors(self) -> dict[str, Tensor]:
        """Return the state as tensors named `<parameter>/<entry>`. Raises TrainingError for what is no tensor."""
        tensors = {}
        for optimizer, group in self._groups():
            for p in group["params"]:
                for key, value in optimizer.state[p].items():
                    if not isinstance(value, Tensor):
                        raise TrainingError(
                            f"the optimizer {self.config.name!r} keeps {key!r} as {type(value).__name__}, and "
                            "checkpoints hold tensors: keep it as one"
                        )
                    tensors[f"{self.names[p]}/{key}"] = value
        return tensors

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state_tensors` gave. Raises ArtifactError for a tensor of a parameter that is not here."""
        places = {self.names[p]: (o, group, p) for o, group in self._groups() for p in group["params"]}
        for optimizer in self.parts:
            optimizer.state.clear()
        for full, value in tensors.items():
            name, _, key = full.rpartition("/")
            if name not in places:
                raise ArtifactError(f"the checkpoint has optimizer state for {name!r}, which this model does not have")
            optimizer, group, p = places[name]
            on_host = key == "step" and not group.get("fused")  # torch counts steps on the CPU, but in fused kernels
            optimizer.state[p][key] = value.clone() if on_host else value.to(p.device, copy=True)


Builder = Callable[[nn.Module, OptimConfig], list[torch.optim.Optimizer]]
"""From a model and the config to optimizers that hold each weight once, with the `lr` each group has at scale 1."""


def muon_adam(model: nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
    """Muon for the weights of linear maps inside the body, Adam for everything else (challenge baseline)."""
    groups = rated_groups(model, config)
    adam = Adam(
        [group for kind in ("vector", "embed", "head") for group in groups[kind]],
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )
    if not any(group["params"] for group in groups["matrix"]):  # convolutions alone
        return [adam]
    muon = Muon(
        groups["matrix"], config.matrix_lr, config.muon_momentum_start, config.muon_iterations, config.weight_decay
    )
    return [muon, adam]


OPTIMIZERS: dict[str, Builder] = {
    "muon+adam": muon_adam,
}
"""What `optim.name` may name."""


def register_optimizer(name: str, builder: Builder) -> None:
    """Make `name` available as `optim.name`. Its state must be tensors, which checkpoints keep.

    Raises ConfigError if the name is taken by another optimizer.
    """
    expect_free("optimizer", OPTIMIZERS, name, builder, ConfigError)
    OPTIMIZERS[name] = builder
    OPTIMIZER_NAMES.add(name)


def rated_groups(model: nn.Module, config: OptimConfig) -> dict[str, list[Group]]:
    """Optimizer groups by kind (see `parameter_groups`), each with the kind's learning rate times its level's."""
    rates = {
        "matrix": config.matrix_lr,
        "vector": config.vector_lr,
        "embed": config.embed_lr,
        "head": config.head_lr,
    }
    mult = {
        p: module.config.lr_mult
        for module in model.modules()
        if isinstance(module, Level | SoftLevel)
        for p in module.parameters()
    }
    groups: dict[str, list[Group]] = {}
    for kind, params in parameter_groups(model).items():
        by_rate: dict[float, list[nn.Parameter]] = {}
        for p in params:
            by_rate.setdefault(rates[kind] * mult.get(p, 1.0), []).append(p)
        groups[kind] = [{"params": same, "lr": rate} for rate, same in by_rate.items()]
    return groups


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Sort parameters into `matrix` (weights of linear maps), `embed`, `head` and `vector` (all others).

    A linear map named `unembed` is the head; everything that is no weight of a linear map or an embedding is a vector,
    whatever its shape.
    """
    kind: dict[Tensor, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            kind[module.weight] = "head" if name == "unembed" else "matrix"
        elif isinstance(module, nn.Embedding):
            kind[module.weight] = "embed"
    groups: dict[str, list[nn.Parameter]] = {"matrix": [], "vector": [], "embed": [], "head": []}
    for p in model.parameters():
        groups[kind.get(p, "vector")].append(p)
    return groups
