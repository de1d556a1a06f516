"""From the stored parts of a tensor back to float32: one small function for each scheme.

The readers live here and not beside the quantizers, because a submission must read weights but never makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from niblick.errors import ArtifactError, expect_free, nearest

Shape = tuple[int, ...]
Dequantizer = Callable[[Shape, Mapping[str, np.ndarray]], np.ndarray]
"""(shape of the tensor, its parts by name) → a new float32 array of that shape; ArtifactError if they do not fit."""


@dataclass(frozen=True)
class EncodedTensor:
    """A tensor of `shape` as it is stored: the arrays in `parts` mean what `scheme` says."""

    scheme: str
    shape: Shape
    parts: dict[str, np.ndarray]

    @property
    def elements(self) -> int:
        """Number of weights it stands for."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts before the codec."""
        return sum(part.nbytes for part in self.parts.values())

    def dequantize(self) -> torch.Tensor:
        """Return the float32 tensor of `shape`; raise ArtifactError if scheme, shape and parts do not fit together."""
        values = np.asarray(get_dequantizer(self.scheme)(self.shape, self.parts))  # numpy makes numbers of 0-d arrays
        if values.shape != self.shape or values.dtype != np.float32:
            raise ArtifactError(
                f"the scheme {self.scheme!r} made {values.dtype} {list(values.shape)} where float32 "
                f"{list(self.shape)} was stored; correct its dequantizer"
            )
        return torch.from_numpy(values)


def expect_parts(
    scheme: str, parts: Mapping[str, np.ndarray], expected: Mapping[str, tuple[tuple[str, ...], tuple[Shape, ...]]]
) -> None:
    """Raise ArtifactError unless `parts` are exactly the expected ones: name → (allowed dtypes, allowed shapes)."""
    if parts.keys() != expected.keys():
        raise ArtifactError(
            f"a tensor of scheme {scheme} has the parts {sorted(parts)}, expected {sorted(expected)}; "
            "the file was not made by niblick, or is damaged"
        )
    for name, (dtypes, shapes) in expected.items():
        found = parts[name]
        if found.dtype.name not in dtypes or found.shape not in shapes:
            raise ArtifactError(
                f"part {name} of a tensor of scheme {scheme} is {found.dtype.name} {list(found.shape)}, expected "
                f"{' or '.join(dtypes)} of shape {' or '.join(str(list(s)) for s in shapes)}; "
                "the file was not made by niblick, or is damaged"
            )


def _int8(shape: Shape, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """codes·scale: a scale for each row of a matrix, or one for the whole tensor (study 1's `int8+zlib`)."""
    per_row = (shape[:1],) if len(shape) == 2 else ()
    expect_parts("int8", parts, {"codes": (("int8",), (shape,)), "scale": (("float16", "float32"), ((), *per_row))})
    scale = parts["scale"].astype(np.float32)
    with np.errstate(all="ignore"):  # a scale that is not finite gives weights that are not: for the caller to judge
        return np.multiply(parts["codes"], scale[:, None] if scale.ndim else scale, dtype=np.float32)


def _fp16(shape: Shape, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    expect_parts("fp16", parts, {"values": (("float16",), (shape,))})
    with np.errstate(all="ignore"):
        return parts["values"].astype(np.float32)


def _fp32(shape: Shape, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    expect_parts("fp32", parts, {"values": (("float32",), (shape,))})
    return parts["values"].astype(np.float32)


def _bf16(shape: Shape, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """The upper half of a float32, stored as uint16."""
    expect_parts("bf16", parts, {"values": (("uint16",), (shape,))})
    return (parts["values"].astype(np.uint32) << 16).view(np.float32)


LOG_SCALES = 255
"""Steps of a ladder of logarithmic scales; code 0 is the scale 0."""


def log_scale_values(code: np.ndarray, ladder: np.ndarray) -> np.ndarray:
    """Return float32 scales of uint8 codes: code c > 0 is 2^(ladder[0] + (c − 1)·ladder[1])."""
    with np.errstate(all="ignore"):
        table = np.exp2(float(ladder[0]) + np.arange(LOG_SCALES) * float(ladder[1]))
        return np.concatenate(([0.0], table)).astype(np.float32)[code]


def block_size(size: int, count: int) -> int:
    """Length of each of `count` equal blocks that cover `size` (the last may be shorter)."""
    return -(-size // max(count, 1))


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """The matrix that a tensor of `shape` is seen as: first dimension by all others."""
    return (shape[0], math.prod(shape[1:])) if shape else (1, 1)


_FACTORS = ("left", "right")


def _grid(shape: Shape, parts: Mapping[str, np.ndarray]) -> np.ndarray:
    """codes·scale, a scale for each block of the matrix, plus left·right where a low-rank residual is stored.

    `scale` (R', C') holds for blocks of ⌈R/R'⌉ × ⌈C/C'⌉ weights: fp16, float32, or uint8 logarithms with `scale_range`.
    `left` (R, r) and `right` (r, C) are fp16, or int8 with one scale per rank in `left_scale` and `right_scale`.
    """
    rows, columns = matrix_shape(shape)
    scale = parts.get("scale")
    fits = scale is not None and scale.ndim == 2
    blocks: Shape = scale.shape if scale is not None and fits else (1, 1)
    for size, count in ((rows, blocks[0]), (columns, blocks[1])):
        fits = fits and 1 <= count <= size and -(-size // block_size(size, count)) == count
    if not fits:
        raise ArtifactError(
            f"a grid of shape {list(shape)} has scales of shape {list(scale.shape) if scale is not None else 'none'}, "
            "which do not divide it into blocks; the file was not made by niblick, or is damaged"
        )
    log = "scale_range" in parts
    expected: dict[str, tuple[tuple[str, ...], tuple[Shape, ...]]] = {
        "codes": (("int8", "int16", "int32"), (shape,)),
        "scale": (("uint8",) if log else ("float16", "float32"), (blocks,)),
    }
    if log:
        expected["scale_range"] = (("float32",), ((2,),))
    rank = parts["left"].shape[-1] if "left" in parts and parts["left"].ndim == 2 else 0
    for name, factor in zip(_FACTORS, ((rows, rank), (rank, columns)), strict=True):
        if "left" in parts:
            short = f"{name}_scale" in parts
            expected[name] = (("int8",) if short else ("float16",), (factor,))
            if short:
                expected[f"{name}_scale"] = (("float16", "float32"), ((rank,),))
    expect_parts("grid", parts, expected)
    with np.errstate(all="ignore"):
        steps = log_scale_values(parts["scale"], parts["scale_range"]) if log else parts["scale"].astype(np.float32)
        for axis, size in ((0, rows), (1, columns)):
            if steps.shape[axis] not in (1, size):
                steps = steps.repeat(block_size(size, steps.shape[axis]), axis).take(range(size), axis)
        values = np.multiply(parts["codes"].reshape(rows, columns), steps, dtype=np.float32)
        if rank:
            left, right = (_factor(parts, name, axis) for name, axis in zip(_FACTORS, (0, 1), strict=True))
            for r in range(rank):  # one outer product after another: the same sums on every machine
                values += left[:, r, None] * right[r]
    return values.reshape(shape)


def _factor(parts: Mapping[str, np.ndarray], name: str, axis: int) -> np.ndarray:
    """One side of a low-rank residual in float32; its ranks lie along the other axis than `axis`."""
    values = parts[name].astype(np.float32)
    if f"{name}_scale" in parts:
        values *= np.expand_dims(parts[f"{name}_scale"].astype(np.float32), axis)
    return values


_DEQUANTIZERS: dict[str, Dequantizer] = {
    "int8": _int8,
    "fp16": _fp16,
    "fp32": _fp32,
    "bf16": _bf16,
    "grid": _grid,
}


def register_dequantizer(scheme: str, dequantizer: Dequantizer) -> None:
    """Make tensors of `scheme` readable; raise ArtifactError if another function already has that name."""
    expect_free("scheme", _DEQUANTIZERS, scheme, dequantizer, ArtifactError)
    _DEQUANTIZERS[scheme] = dequantizer


def get_dequantizer(scheme: str) -> Dequantizer:
    """Return the function that reads `scheme`; raise ArtifactError with the nearest names if there is none."""
    if scheme not in _DEQUANTIZERS:
        raise ArtifactError(
            f"there is no scheme {scheme!r} here{nearest(scheme, _DEQUANTIZERS)}; "
            "name one of these, or register yours with register_dequantizer first"
        )
    return _DEQUANTIZERS[scheme]
