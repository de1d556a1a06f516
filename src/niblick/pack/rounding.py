"""What a scheme does to weights, as plain arithmetic on tensors: for training that takes the export into account.

`rounding_of(weights, scheme).round(weights)` is bit for bit what the artifact gives back for them; for weights that
have moved since, it rounds on the same scales.

Shapes: R rows, C columns of the matrix that a tensor is seen as (first dimension by all others).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from niblick.artifact.dequantize import matrix_shape
from niblick.pack.grid import fit_grid
from niblick.pack.published import clip_values, quantize_int8
from niblick.pack.quantize import pruned
from niblick.pack.schemes import Scheme, kind_of


@dataclass(frozen=True)
class Rounding:
    """Code = weight / divide, to the nearest whole number within ±limit; value = code · step. All float32."""

    divide_RC: Tensor
    """(R or 1, C or 1); infinite where the step is 0, so that the code is 0."""
    step_RC: Tensor
    """(R or 1, C or 1). Only `int8-published` divides by something else: the scale before it is stored as fp16."""
    limit_RC: Tensor
    """(R or 1, C or 1), whole numbers."""
    floor: float
    """Weights no larger than this are pruned; negative where none is."""

    def codes(self, weights_RC: Tensor, out_RC: Tensor | None = None) -> Tensor:
        """Return the codes, (R, C) whole numbers in float32."""
        codes_RC = torch.div(weights_RC, self.divide_RC, out=out_RC).round_()
        return torch.clamp(codes_RC, -self.limit_RC, self.limit_RC, out=codes_RC)

    def round(self, weights: Tensor, out: Tensor | None = None) -> Tensor:
        """Return what the artifact would hold for float32 weights of any shape; `out` takes it, if given."""
        out = torch.empty_like(weights) if out is None else out
        weights_RC, out_RC = (x.view(matrix_shape(tuple(weights.shape))) for x in (weights, out))
        self.codes(weights_RC, out_RC).mul_(self.step_RC)
        if self.floor >= 0:
            out_RC.masked_fill_(weights_RC.abs() <= self.floor, 0.0)
        return out

    def tensors(self) -> dict[str, Tensor]:
        """Return the fields by name."""
        return {
            "divide": self.divide_RC,
            "step": self.step_RC,
            "limit": self.limit_RC,
            "floor": torch.tensor(self.floor),
        }


def is_rounded(scheme: Scheme, weights: Tensor) -> bool:
    """Whether a tensor stored by `scheme` is rounded, not kept as floats."""
    return not kind_of(scheme).floats and weights.numel() > 0


@torch.no_grad()
def rounding_of(weights: Tensor, scheme: Scheme, prune: float = 0.0) -> Rounding:
    """Return how a finite float32 tensor is rounded by a scheme, on the tensor's device.

    `prune` is the share of its smallest weights that export sets to zero. Raises ConfigError for a scheme of floats.
    """
    floor = -1.0
    if count := int(prune * weights.numel()):
        floor = float(weights.abs().flatten().kthvalue(count).values)
        weights = pruned(weights, prune)
    return kind_of(scheme).rounding(weights, scheme, floor)


def grid_rounding(weights: Tensor, scheme: Scheme, floor: float) -> Rounding:
    """Return the rounding to the grid of a scheme."""
    grid = fit_grid(weights.reshape(matrix_shape(tuple(weights.shape))).float(), scheme)
    step_RC = grid.step_RC().to(weights.device)
    divide_RC = torch.where(step_RC > 0, step_RC, torch.inf)
    return Rounding(divide_RC, step_RC, step_RC.new_tensor(float(grid.levels)).view(1, 1), floor)


def published_rounding(weights: Tensor, floor: float) -> Rounding:
    """Return the rounding of the published export."""
    rows_RC = weights if weights.ndim == 2 else weights.reshape(1, -1)
    _, stored = quantize_int8(weights)
    clip_R1 = clip_values(rows_RC)[:, None]
    divide_R1 = (clip_R1 / 127).clamp_min(1 / 127) if weights.ndim == 2 else stored.view(1, 1)
    step_R1 = stored.float().view(-1, 1)
    limit_R1 = (clip_R1 / divide_R1).round().clamp(0, 127)
    return Rounding(divide_R1, step_R1, limit_R1, floor)
