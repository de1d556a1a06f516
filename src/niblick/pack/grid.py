"""The grid that weights are rounded to: scales of blocks of a matrix, and codes that count their steps.

Any tensor is seen as a matrix: its first dimension by all others. Scales form a smaller matrix, (1, 1) for the whole
tensor, (rows, 1) for a scale per row, (rows, groups) for groups in rows: each holds for one block of equal size (the
last ones may be smaller). The codes are computed with the scales as stored, not as they were before rounding to fp16.

Shapes: R rows, C columns, N blocks, K weights of a block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from niblick.artifact.dequantize import LOG_SCALES, block_size, log_scale_values
from niblick.pack.schemes import Scheme, kind_of

FINE_CLIPS = (0.999, 0.9995, 0.9999, 0.99999, 1.0)
"""Percentiles of |weight| that are tried as the largest code (study 2 searches this range)."""
COARSE_CLIPS = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, *FINE_CLIPS)
"""The same for schemes of few levels, which gain from clipping far more, and where columns matter unequally."""
FINE_LEVELS = 15
ENTROPY_SAMPLE = 1 << 18
"""The step of ecsq is found on so many weights, evenly spread."""
ENTROPY_TOLERANCE = 0.002
ENTROPY_BITS = 9.0
"""Up to here the entropy of codes can be measured on them; beyond, every bit more is a step half as long."""


@dataclass(frozen=True)
class Grid:
    """Scales of a matrix, as stored, and the largest code."""

    shape: tuple[int, int]
    scale: dict[str, np.ndarray]
    """Parts of the artifact: `scale`, and `scale_range` where it holds logarithms."""
    levels: int

    def step_RC(self) -> Tensor:
        """Return the scale of every weight, float32, broadcastable to (R, C)."""
        blocks = torch.from_numpy(scale_values(self.scale))
        for axis in (0, 1):
            count, size = blocks.shape[axis], self.shape[axis]
            if count not in (1, size):
                blocks = blocks.repeat_interleave(block_size(size, count), axis).narrow(axis, 0, size)
        return blocks

    def codes(self, weights_RC: Tensor) -> Tensor:
        """Round to the nearest codes, (R, C), float32 whole numbers in [-levels, levels]; blocks of scale 0 give 0."""
        step_RC = self.step_RC().to(weights_RC.device)
        codes_RC = weights_RC / torch.where(step_RC > 0, step_RC, torch.inf)
        return codes_RC.round_().clamp_(-self.levels, self.levels)

    def round(self, weights_RC: Tensor) -> Tensor:
        """Return the nearest values of the grid, (R, C) float32."""
        return self.codes(weights_RC) * self.step_RC().to(weights_RC.device)


def scale_values(parts: dict[str, np.ndarray]) -> np.ndarray:
    """Return the scales as float32, whichever way they are stored."""
    if "scale_range" in parts:
        return log_scale_values(parts["scale"], parts["scale_range"])
    return parts["scale"].astype(np.float32)


def fit_grid(weights_RC: Tensor, scheme: Scheme, weight_C: Tensor | None = None) -> Grid:
    """Return the grid of a scheme for a finite float32 matrix on any device; the grid is on the CPU.

    `weight_C` says how much an error in each column matters (the diagonal of a Hessian): clips and `auto` weigh by it,
    and the steps of `ecsq:column` are chosen so that every column costs the same (reverse water-filling). Raises
    ConfigError for a scheme without a grid.
    """
    return kind_of(scheme).fit(weights_RC, scheme, weight_C)


def clipped_grid(weights_RC: Tensor, scheme: Scheme, weight_C: Tensor | None) -> Grid:
    """`fit_grid` of int schemes, which clip."""
    if scheme.axis != "auto":
        return _clipped_grid(weights_RC, scheme, scheme.axis, weight_C)
    grids = [_clipped_grid(weights_RC, scheme, axis, weight_C) for axis in ("row", "column")]
    return min(grids, key=lambda grid: weighted_error(grid.round(weights_RC) - weights_RC, weight_C))


def weighted_error(error_RC: Tensor, weight_C: Tensor | None) -> float:
    """Sum of squared errors, each column weighted."""
    square_RC = error_RC.square()
    return float((square_RC if weight_C is None else square_RC * weight_C).sum(dtype=torch.float64))


def _clipped_grid(weights_RC: Tensor, scheme: Scheme, axis: str, weight_C: Tensor | None) -> Grid:
    """Scales that make the largest code stand for a percentile of each block: the one that costs least."""
    rows, columns = weights_RC.shape
    matter_RC = None if weight_C is None else weight_C.expand(rows, columns)
    if axis == "tensor":
        blocks_NK, matter_NK = weights_RC.reshape(1, -1), None if matter_RC is None else matter_RC.reshape(1, -1)
        layout = (1, 1)
    else:
        across = axis == "column"
        width = rows if across else columns
        count = math.ceil(width / block_size(width, math.ceil(width / scheme.group))) if scheme.group else 1
        blocks_NK = _blocks(weights_RC.t() if across else weights_RC, count)
        matter_NK = None if matter_RC is None else _blocks(matter_RC.t() if across else matter_RC, count)
        layout = (columns if across else rows, count)
    scale_N = _best_scales(blocks_NK, scheme.levels, matter_NK)
    scale = scale_N.view(layout)
    return Grid((rows, columns), _store(scale.t() if axis == "column" else scale, scheme.log_scales), scheme.levels)


def _blocks(x_RC: Tensor, count: int) -> Tensor:
    """Cut each row into `count` blocks of one size, the last filled up with zeros: (R·count, K)."""
    size = block_size(x_RC.shape[1], count)
    return torch.nn.functional.pad(x_RC, (0, count * size - x_RC.shape[1])).reshape(-1, size)


def _best_scales(blocks_NK: Tensor, levels: int, matter_NK: Tensor | None) -> Tensor:
    """Return for each block the scale of least squared error among those that the clips give, (N,)."""
    if not blocks_NK.numel():
        return blocks_NK.new_zeros(len(blocks_NK))
    rising_NK = _rising(blocks_NK.abs())
    held_N = (rising_NK > 0).sum(1)  # filled-up zeros are no weights; true zeros need no scale
    best_N, least_N = blocks_NK.new_zeros(len(blocks_NK)), blocks_NK.new_full((len(blocks_NK),), torch.inf)
    for clip in FINE_CLIPS if levels >= FINE_LEVELS and matter_NK is None else COARSE_CLIPS:
        at_N = ((1 - clip) * (held_N - 1).clamp_min(0)).long()
        scale_N = rising_NK.gather(1, rising_NK.shape[1] - 1 - at_N[:, None])[:, 0] / levels
        error_NK = blocks_NK / torch.where(scale_N > 0, scale_N, torch.inf)[:, None]
        error_NK = error_NK.round_().clamp_(-levels, levels).mul_(scale_N[:, None]).sub_(blocks_NK).square_()
        error_N = (error_NK if matter_NK is None else error_NK.mul_(matter_NK)).sum(1)
        better_N = error_N < least_N
        best_N, least_N = torch.where(better_N, scale_N, best_N), torch.where(better_N, error_N, least_N)
    return best_N


def _rising(x_NK: Tensor) -> Tensor:
    """Sort each row. On a processor by NumPy, which takes a 35th of torch's time."""
    return torch.from_numpy(np.sort(x_NK.numpy(), 1)) if x_NK.device.type == "cpu" else x_NK.sort(1).values


def even_grid(weights_RC: Tensor, scheme: Scheme, weight_C: Tensor | None) -> Grid:
    """`fit_grid` of ecsq schemes: such that codes hold `scheme.bits` bits.

    There is one step for all weights, or steps in a fixed proportion over rows or columns.
    """
    rows, columns = weights_RC.shape
    profile = weights_RC.new_ones(1, 1)
    if scheme.axis == "row":
        profile = weights_RC.square().mean(1, keepdim=True).sqrt()
    elif scheme.axis == "column":
        profile = (weights_RC.square().mean(0) if weight_C is None else 1 / weight_C.clamp_min(1e-30)).sqrt()[None]
    profile = profile / profile.mean() if profile.numel() and float(profile.mean()) > 0 else torch.ones_like(profile)
    floor = 1e-3  # of the mean: what hardly matters needs no finer step than that
    profile = profile.clamp_min(floor)
    relative = (weights_RC / profile).flatten()
    sample = relative[:: max(1, len(relative) // ENTROPY_SAMPLE)]
    spread = float(sample.square().mean().sqrt()) if len(sample) else 0.0
    if spread == 0:
        return Grid((rows, columns), _store(profile * 0, scheme.log_scales), 1)
    target = min(scheme.bits, ENTROPY_BITS)
    low, high, step = spread * 2.0**-14, spread * 16.0, spread * 2 ** (2 - target)
    for _ in range(24):
        found = code_entropy(sample / step)
        if abs(found - target) < ENTROPY_TOLERANCE:
            break
        low, high = (step, high) if found > target else (low, step)
        guess = step * 2 ** (found - target)  # one bit less for a step twice as long: true for fine steps
        step = guess if low < guess < high else math.sqrt(low * high)
    scale = _store(profile * step * 2 ** (target - scheme.bits), scheme.log_scales)
    largest = weights_RC.abs() / torch.from_numpy(scale_values(scale)).to(weights_RC.device)
    return Grid((rows, columns), scale, max(1, min(2**30, int(largest.max().round()))))


def code_entropy(values: Tensor) -> float:
    """Bits per value of the order-0 entropy of `values` rounded to whole numbers."""
    if not values.numel():
        return 0.0
    whole = values.round().long()
    counts = torch.bincount(whole - whole.min())
    share = counts[counts > 0].double() / values.numel()
    return float(-(share * share.log2()).sum())


def _store(scale: Tensor, log: bool) -> dict[str, np.ndarray]:
    """Return the parts that hold these block scales: fp16, float32 where fp16 has too little range, or logarithms."""
    if log:
        return _log_scales(scale.double().cpu().numpy())
    held = scale[scale > 0]
    fits_half = not held.numel() or (float(held.min()) >= 2.0**-14 and float(held.max()) <= 65504)
    return {"scale": scale.contiguous().cpu().numpy().astype(np.float16 if fits_half else np.float32)}


def _log_scales(scale: np.ndarray) -> dict[str, np.ndarray]:
    """0 stands for a scale of 0, 1 … 255 for an even ladder of logarithms from the smallest scale to the largest."""
    held = np.log2(scale[scale > 0])
    low, high = (float(held.min()), float(held.max())) if held.size else (0.0, 0.0)
    ladder = np.array([low, (high - low) / (LOG_SCALES - 1)], np.float32)
    step = float(ladder[1]) or 1.0
    with np.errstate(divide="ignore"):
        code = np.rint((np.log2(scale) - float(ladder[0])) / step)
    code = np.where(scale > 0, code.clip(0, LOG_SCALES - 1) + 1, 0)
    return {"scale": code.astype(np.uint8), "scale_range": ladder}
