"""The challenge baseline's int8 export, code for code (scheme `int8-published`).

tests/reference/int8_per_row.npz holds its codes and scales. What is easy to get wrong: codes are computed with the
float32 scale, which is rounded to fp16 only afterwards; the floor of 1/127 holds for rows of matrices alone; everything
that is not a matrix has one scale, in float32 and without the floor; a control tensor stays fp32 only while small.
"""

from __future__ import annotations

import math

import torch

CLIP_QUANTILE = 0.9999984
"""A row is clipped at the 99.99984 percentile of its absolute values."""
KEEP_ELEMENTS = 65_536
"""Tensors up to this many elements are kept as floats."""
CONTROL_PATTERNS = ("attn_scale", "mlp_scale", "resid_mix", "q_gain", "skip_weights")
"""Small tensors with one of these in their name stay fp32, all other small ones become fp16."""


def quantize_int8(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the published int8 codes and scale(s) of a float tensor: weight ≈ codes·scale.

    Matrices: codes (rows, columns), scales fp16 (rows,). All others: one float32 scale, shape ().
    """
    weights = tensor.detach().float()
    if weights.ndim == 2:
        clip = clip_values(weights)[:, None]
        scale = (clip / 127).clamp_min(1 / 127)
        return _codes(weights, clip, scale), scale[:, 0].half()
    clip = clip_values(weights.reshape(1, -1))[0]
    # One division in double precision, as in the published script, where this clip is a Python number.
    scale = torch.tensor(clip.item() / 127 if clip > 0 else 1.0, device=weights.device)
    return _codes(weights, clip, scale), scale


def _codes(weights: torch.Tensor, clip: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    codes = torch.maximum(torch.minimum(weights, clip), -clip).div_(scale)
    return codes.round_().clamp_(-127, 127).to(torch.int8)


def clip_values(weights: torch.Tensor, quantile: float = CLIP_QUANTILE) -> torch.Tensor:
    """Return the `quantile` of |row| for each row of a float32 matrix (rows, columns), as torch.quantile does.

    Bit for bit the same (tests hold it), but so high a quantile needs only the largest few values of each row, not a
    sort, and has no limit of 16 million elements.
    """
    rows, columns = weights.shape
    if columns == 0:
        return weights.new_zeros(rows)
    last = columns - 1
    rank = min(float(torch.tensor(quantile, dtype=torch.float32) * last), last)  # in float32, as torch.quantile has it
    below, above = math.floor(rank), math.ceil(rank)
    largest = weights.abs().topk(last - below + 1, dim=1).values
    return largest[:, last - below].lerp(largest[:, last - above], rank - below)
