"""One step of training: gradients of its micro-batches over all ranks, and what makes a model ready for them.

Shapes: B batch, L positions.
"""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from niblick.data.loader import Batches
from niblick.facts.events import Compile, Emit, Warmup
from niblick.model.lm import LM, Losses
from niblick.model.loss import Halves
from niblick.model.plain_routers import Routing
from niblick.model.stage import Stage
from niblick.train.distributed import Ranks, local_gradients
from niblick.train.guides import Guide
from niblick.train.optim import Optimizers
from niblick.train.precision import autocast
from niblick.train.qat import QAT
from niblick.train.settings import TrainConfig


class TrainingLoss(nn.Module):
    """A model's loss as one forward pass, which DistributedDataParallel can wrap: only the total has a gradient."""

    def __init__(self, model: LM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids_BL: Tensor, targets_BL: Tensor, *, guide_BL: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Routing]]:
        """Return the total to minimize, all terms of it (loss, total, ratio losses …), and what the routers did."""
        losses, routings = self.model(ids_BL, targets_BL, guide_BL=guide_BL)
        assert isinstance(losses, Losses)
        terms = torch.stack((losses.lm, losses.total, *losses.ratio)).detach()
        return losses.total, terms, [replace(r, p_BL=r.p_BL.detach()) for r in routings]


@dataclass(frozen=True)
class Rig:
    """What steps run on."""

    model: LM
    forward: nn.Module
    """Its loss, wrapped for all ranks."""
    batches: Batches
    config: TrainConfig
    device: torch.device
    ranks: Ranks
    qat: QAT | None = None

    @property
    def passes(self) -> int:
        """Micro-batches of this rank in a step."""
        return self.config.passes(self.ranks.size)

    def draw(self) -> int:
        """The seed of what the next pass draws: of the data's seed and the pass's first window alone.

        So a run that was resumed draws as one that was not, several ranks as one, and no two passes alike.
        """
        window = self.batches.position + self.ranks.rank * self.batches.rows
        return (self.batches.seed * 0x9E3779B97F4A7C15 + window * 0xBF58476D1CE4E5B9) % 2**63


def gradients(rig: Rig, guide: Guide | None = None) -> tuple[Tensor, list[Routing]]:
    """Forward and backward over the micro-batches of one step. Returns loss terms, still on the device: `read` has them
    in numbers; and the last routings.

    Gradients are means over all passes of all ranks, loss terms over this rank's passes, routings those of its last.
    """
    sums: list[Tensor] = []
    routings: list[Routing] = []
    forward, device, qat, passes = rig.forward, rig.device, rig.qat, rig.passes
    for i in range(passes):
        torch.manual_seed(rig.draw())
        ids_BL, targets_BL = (t.to(device, non_blocking=True) for t in rig.batches.next())
        more = i + 1 < passes
        with (
            local_gradients(forward) if more else contextlib.nullcontext(),
            qat.in_place() if qat else contextlib.nullcontext(),
        ):
            with autocast(device, rig.config.dtype):
                total, terms, routings = (
                    forward(ids_BL, targets_BL, guide_BL=guide(ids_BL)) if guide else forward(ids_BL, targets_BL)
                )
            (total / (passes * rig.ranks.size)).backward()
        sums.append(terms)
    share_edges(rig.model, rig.ranks)
    return torch.stack(sums).mean(0), routings


def read(terms: Tensor, others: dict[str, Tensor], ranks: Ranks) -> dict[str, float]:
    """Return a step's loss terms, as means over all ranks, and the other scalars, by name.

    All of them in one copy: the host waits for its device once.
    """
    values = torch.stack([*terms, *others.values()]).tolist()
    lm, total, *ratio = [value / ranks.size for value in ranks.sum(values[: len(terms)])]
    losses = {"loss": lm, "total": total} | {f"ratio_loss_{i}": r for i, r in enumerate(ratio)}
    return losses | dict(zip(others, values[len(terms) :], strict=True))


def share_edges(model: LM, ranks: Ranks) -> None:
    """Give the running quantiles of routers the mean of all ranks."""
    routers: list[Any] = [level.router for level in model.body.each_level()]
    edges: list[Tensor] = [router.edge for router in routers if hasattr(router, "edge")]
    if edges and ranks.size > 1:
        for edge, total in zip(edges, ranks.sum(torch.stack(edges).tolist()), strict=True):
            edge.fill_(total / ranks.size)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def has_unused(model: LM, config: TrainConfig, device: torch.device, guide: Guide | None) -> bool:
    """Whether some weight gets no gradient, by trying it on one row: DistributedDataParallel must know."""
    torch.manual_seed(0)
    ids_BL = (torch.arange(config.seq_len, device=device) % model.config.vocab_size)[None]
    for target_BL in (None, guide(ids_BL)) if guide else (None,):
        tried = copy.deepcopy(model)  # routers remember what they see in training
        with autocast(device, config.dtype):
            losses, _ = tried(ids_BL, ids_BL, guide_BL=target_BL)
        losses.total.backward()
        if any(p.requires_grad and p.grad is None for p in tried.parameters()):
            return True
    return False


def prime(rig: Rig, optimizers: Optimizers, emit: Emit, stopped: Callable[[], bool]) -> None:
    """Take `warmup_steps` real steps, which compile and allocate, unless `stopped`; then put everything back."""
    model, batches, steps = rig.model, rig.batches, rig.config.warmup_steps
    position = batches.position
    before = copy.deepcopy((model.state_dict(), [optimizer.state_dict() for optimizer in optimizers.parts]))
    model.train()
    with torch.random.fork_rng([rig.device] if rig.device.type == "cuda" else []):
        for i in range(steps):
            if stopped():
                break
            started = time.perf_counter()
            gradients(rig)
            optimizers.step(i, 1.0)
            model.zero_grad(set_to_none=True)
            synchronize(rig.device)
            emit(Warmup(step=i + 1, steps=steps, step_seconds=time.perf_counter() - started))
    model.load_state_dict(before[0])
    for optimizer, state in zip(optimizers.parts, before[1], strict=True):
        optimizer.load_state_dict(state)
    batches.position = position


def compile_stages(model: LM, when: str, device: torch.device, emit: Emit, backend: Any = "inductor") -> None:
    """Compile the loss and every stage by itself, in place: a new number of chunks touches the inner stage alone.

    From then on levels round their chunk counts to a few shares of the sequence, so that no stage sees more than
    len(COMPILED_SHARES) shapes.
    """
    if when == "never" or (when == "auto" and device.type != "cuda"):
        return
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for module in model.modules():
        if isinstance(module, Stage):
            module.compile(dynamic=False, backend=backend)
    model.body.few_shapes = True
    forward, backward = (torch.compile(half, dynamic=False, backend=backend) for half in model.halves)
    model.halves = Halves(forward, backward)
    emit(Compile(stages=sum(isinstance(m, Stage) for m in model.modules())))
