"""Penalties that make weights cheaper to pack: steps add the gradient of one, on a few matrices drawn for the step.

    reconstruction   squared distance of weights to their rounded values, of the weights' energy
    grid             mean distance to the nearest point of the grid, in steps of it
    scales           variance of the logarithm of the rows' root mean squares, which their scales follow
    rank1            energy of the rounding error that a rank-1 correction would leave, of the weights' energy
    ternary          reconstruction with the scheme `ternary`
    outliers         mean kurtosis of the rows: what makes a scale large for the sake of few weights
    entropy          bits per code, by a soft histogram of the codes

Grids are those of the export. They are fitted to the weights of the moment and held fixed, but in `entropy`, where
scales follow the weights: else shrinking all of them would seem a gain. The first four and `ternary` are ideas of the
challenge's research sprint.

Shapes: R rows, C columns of the matrix that a tensor is seen as (first dimension by all others), S codes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from niblick.artifact.dequantize import matrix_shape
from niblick.errors import ConfigError, expect_free, nearest
from niblick.pack.export_config import ExportConfig
from niblick.pack.rounding import rounding_of
from niblick.pack.schemes import Scheme, fits, parse_scheme
from niblick.train.qat import rounded_parameters
from niblick.train.settings import PENALTY_NAMES, PenaltyConfig

TINY = 1e-15
"""Keeps logarithms and ratios of weights that are all zero finite; so does its square."""
POWER_ITERATIONS = 8
"""For the leading singular vectors of an error."""


class Penalties:
    """All penalties of a run. What they do depends on the weights and the step alone."""

    def __init__(self, model: nn.Module, configs: tuple[PenaltyConfig, ...], export: ExportConfig) -> None:
        """Raises ConfigError if a pattern, or the export's rules, leave a penalty no tensor."""
        self.configs = configs
        rounded = {n: found for n, found in rounded_parameters(model, export).items() if found[0].requires_grad}
        self.weights = [_meant(config, rounded, export) for config in configs]

    def add_gradients(self, step: int) -> dict[str, Tensor]:
        """Add the gradients of those due at step number `step` (from 0) to the parameters'. Returns their values."""
        facts = {}
        for i, (config, weights) in enumerate(zip(self.configs, self.weights, strict=True)):
            if step < config.start or (step - config.start) % config.interval:
                continue
            draw = torch.Generator().manual_seed(step)
            chosen = torch.randperm(len(weights), generator=draw)[: config.matrices or None].tolist()
            params = [weights[at][0] for at in chosen]
            schemes = [weights[at][1] for at in chosen]
            matrices = [p.view(matrix_shape(tuple(p.shape))) for p in params]
            value = torch.stack([PENALTIES[config.kind](m, s) for m, s in zip(matrices, schemes, strict=True)]).mean()
            # Not by `backward`: the hooks of DistributedDataParallel would take these for gradients of its own pass.
            for p, gradient in zip(params, torch.autograd.grad(config.weight * value, params), strict=True):
                if p.grad is None:
                    p.grad = gradient
                else:
                    p.grad.add_(gradient)
            facts[f"penalty_{i}_{config.kind}"] = value.detach()
        return facts


Rounded = tuple[nn.Parameter, Scheme]


def _meant(config: PenaltyConfig, rounded: dict[str, Rounded], export: ExportConfig) -> list[Rounded]:
    for pattern in config.patterns:
        if not any(fits(pattern, name) for name in rounded):
            raise ConfigError(
                f"penalty {config.kind}: no tensor that {export.name} rounds is named like {pattern!r}"
                f"{nearest(pattern, rounded)}"
            )
    if not rounded:
        raise ConfigError(
            f"penalty {config.kind} needs a grid, and of this model {export.name} keeps all tensors as floats: "
            "set export.scheme=int4, say"
        )
    return [r for n, r in rounded.items() if not config.patterns or any(fits(p, n) for p in config.patterns)]


def _energy(weights_RC: Tensor) -> Tensor:
    return weights_RC.detach().square().sum().clamp_min(TINY)


def _error(weights_RC: Tensor, scheme: Scheme) -> Tensor:
    """Weights without their rounded values, (R, C); the gradient pulls towards the grid as it stands."""
    held_RC = weights_RC.detach()
    return weights_RC - rounding_of(held_RC, scheme).round(held_RC)


def reconstruction(weights_RC: Tensor, scheme: Scheme) -> Tensor:
    """Squared distance to the rounded values, of the weights' energy."""
    return _error(weights_RC, scheme).square().sum() / _energy(weights_RC)


def ternary(weights_RC: Tensor, scheme: Scheme) -> Tensor:
    """The same with the values −s, 0, s, a scale s per row, whatever the export's scheme."""
    return reconstruction(weights_RC, parse_scheme("ternary"))


def grid_distance(weights_RC: Tensor, scheme: Scheme) -> Tensor:
    """Mean distance to the nearest grid point, in steps: a quarter for weights that do not care, 0 for those on it."""
    rounding = rounding_of(weights_RC.detach(), scheme)
    return ((weights_RC / rounding.divide_RC) - rounding.codes(weights_RC.detach())).abs().mean()


def scale_spread(weights_RC: Tensor, scheme: Scheme) -> Tensor:
    """Variance of the logarithm of each row's root mean square (column's, where columns share scales)."""
    square_N = weights_RC.square().mean(0 if scheme.axis == "column" else 1)
    floor = 1e-6 * square_N.detach().mean() + TINY
    return (0.5 * (square_N + floor).log()).var(correction=0)


def rank1_residual(weights_RC: Tensor, scheme: Scheme) -> Tensor:
    """Energy of the rounding error without its leading singular value, of the weights' energy."""
    error_RC = _error(weights_RC, scheme)
    held_RC = error_RC.detach()
    right_C = held_RC[held_RC.square().sum(1).argmax()]
    for _ in range(POWER_ITERATIONS):
        left_R = _unit(held_RC @ right_C)
        right_C = _unit(held_RC.t() @ left_R)
    leading = left_R @ error_RC @ right_C
    return (error_RC.square().sum() - leading.square()) / _energy(weights_RC)


def _unit(x: Tensor) -> Tensor:
    return x / x.norm().clamp_min(TINY)


def outliers(weights_RC: Tensor, scheme: Scheme) -> Tensor:
    """Mean kurtosis of the rows: 3 for normal weights, 1.8 for evenly spread ones, 1 if all have one magnitude."""
    square_RC = weights_RC.square()
    floor = 1e-6 * square_RC.detach().mean() + TINY
    return (square_RC.square().mean(1) / (square_RC.mean(1) + floor).square()).mean()


def code_bits(weights_RC: Tensor, scheme: Scheme) -> Tensor:
    """Bits per code: order-0 entropy of a histogram in which each weight is shared by the two codes beside it.

    The scales grow and shrink with the root mean square of the weights that share them.
    """
    rounding = rounding_of(weights_RC.detach(), scheme)
    shared = [axis for axis in (0, 1) if rounding.divide_RC.shape[axis] == 1] or [1]
    spread = (weights_RC.square().mean(shared, keepdim=True) + TINY).sqrt()
    limit = int(rounding.limit_RC.max())
    divide_RC = torch.where(rounding.divide_RC.isinf(), 1.0, rounding.divide_RC)  # blocks of zeros have code 0 anyway
    codes_RC = weights_RC / (divide_RC * (spread / spread.detach()))
    place = codes_RC.clamp(-limit, limit).flatten() + limit
    below = place.detach().floor()
    above_share = place - below
    count_S = place.new_zeros(2 * limit + 2)
    count_S = count_S.index_add(0, below.long(), 1 - above_share).index_add(0, below.long() + 1, above_share)
    share_S = count_S / place.numel()
    return -torch.where(share_S > 0, share_S * share_S.clamp_min(TINY).log2(), 0.0).sum()


Penalty = Callable[[Tensor, Scheme], Tensor]
"""(weights_RC, how the export stores them) → a scalar to be made small."""

PENALTIES: dict[str, Penalty] = {
    "reconstruction": reconstruction,
    "grid": grid_distance,
    "scales": scale_spread,
    "rank1": rank1_residual,
    "ternary": ternary,
    "outliers": outliers,
    "entropy": code_bits,
}
"""What `train.penalties` may name."""


def register_penalty(name: str, penalty: Penalty) -> None:
    """Make `name` available in `train.penalties`. Raises ConfigError if it is taken by another penalty."""
    expect_free("penalty", PENALTIES, name, penalty, ConfigError)
    PENALTIES[name] = penalty
    PENALTY_NAMES.add(name)
