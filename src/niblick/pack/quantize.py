"""From float weights to stored tensors: the published `int8` export exactly, and plain fp16 and fp32.

Source: the challenge baseline's `int8+zlib` (tests/reference/int8_per_row.npz holds its codes and scales). What is easy
to get wrong: codes are computed with the float32 scale, which is rounded to fp16 only afterwards; the floor of 1/127
holds for rows of matrices alone; everything that is not a matrix has one scale, in float32 and without the floor; a
control tensor stays fp32 only while it is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from niblick.artifact.dequantize import EncodedTensor
from niblick.errors import ArtifactError, ConfigError, nearest

CLIP_QUANTILE = 0.9999984
"""A row is clipped at the 99.99984 percentile of its absolute values."""
KEEP_ELEMENTS = 65_536
"""Tensors up to this many elements are kept as floats."""
CONTROL_PATTERNS = ("attn_scale", "mlp_scale", "resid_mix", "q_gain", "skip_weights")
"""Small tensors with one of these in their name stay fp32, all other small ones become fp16."""


def pack(
    state: Mapping[str, torch.Tensor],
    scheme: str = "int8",
    *,
    keep_elements: int = KEEP_ELEMENTS,
    control_patterns: Sequence[str] = CONTROL_PATTERNS,
) -> dict[str, EncodedTensor]:
    """Return the tensors of `state` in stored form, in its order.

    `scheme` (int8, fp16, fp32) holds for tensors of more than `keep_elements` elements; smaller ones are fp16, or fp32
    where the name contains one of `control_patterns` or `scheme` is fp32. Names that are one tensor in memory (tied
    weights) are stored once, under the first of them. Raises ArtifactError, naming the tensor, if it holds integers,
    infinities or NaN, or is too large for fp16; ConfigError for an unknown scheme.
    """
    if scheme not in QUANTIZERS:
        raise ConfigError(f"there is no quantization scheme {scheme!r}{nearest(scheme, QUANTIZERS)}; name one of these")
    small = "fp32" if scheme == "fp32" else "fp16"
    packed, seen = {}, set()
    for name, tensor in state.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        if tensor.numel() > keep_elements:
            own = scheme
        else:
            own = "fp32" if any(pattern in name for pattern in control_patterns) else small
        packed[name] = QUANTIZERS[own](name, _checked(name, tensor))
    return packed


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


def _checked(name: str, tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_floating_point():
        raise ArtifactError(f"tensor {name!r} is {tensor.dtype}, only floating-point weights are packed; leave it out")
    if not bool(torch.isfinite(tensor).all()):
        count = int((~torch.isfinite(tensor)).sum())
        raise ArtifactError(
            f"tensor {name!r} has {count:,} values that are infinite or NaN; pack an earlier checkpoint"
        )
    return tensor.detach().float().cpu()


def _int8(name: str, weights: torch.Tensor) -> EncodedTensor:
    codes, scale = quantize_int8(weights)
    _expect_finite(name, scale)
    return EncodedTensor("int8", tuple(weights.shape), {"codes": _array(codes), "scale": _array(scale)})


def _fp16(name: str, weights: torch.Tensor) -> EncodedTensor:
    values = weights.half()
    _expect_finite(name, values)
    return EncodedTensor("fp16", tuple(weights.shape), {"values": _array(values)})


def _fp32(name: str, weights: torch.Tensor) -> EncodedTensor:
    return EncodedTensor("fp32", tuple(weights.shape), {"values": _array(weights)})


def _expect_finite(name: str, halves: torch.Tensor) -> None:
    if not bool(torch.isfinite(halves).all()):
        raise ArtifactError(
            f"tensor {name!r} has values past ±65,504, which fp16 cannot hold; keep it fp32 with control_patterns"
        )


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().numpy().copy()  # a copy: training may go on while the artifact is written


QUANTIZERS: dict[str, Callable[[str, torch.Tensor], EncodedTensor]] = {"int8": _int8, "fp16": _fp16, "fp32": _fp32}
"""(name of the tensor, its finite float32 values on the CPU) → its stored form."""
