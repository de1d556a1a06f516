"""From the stored parts of a tensor back to float32: one small function for each scheme.

The readers live here and not beside the quantizers, because a submission must read weights but never makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from niblick.errors import ArtifactError, nearest

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


_DEQUANTIZERS: dict[str, Dequantizer] = {"int8": _int8, "fp16": _fp16, "fp32": _fp32}


def register_dequantizer(scheme: str, dequantizer: Dequantizer) -> None:
    """Make tensors of `scheme` readable; raise ArtifactError if another function already has that name."""
    if _DEQUANTIZERS.setdefault(scheme, dequantizer) is not dequantizer:
        raise ArtifactError(f"a scheme {scheme!r} is registered already; give yours another name")


def get_dequantizer(scheme: str) -> Dequantizer:
    """Return the function that reads `scheme`; raise ArtifactError with the nearest names if there is none."""
    if scheme not in _DEQUANTIZERS:
        raise ArtifactError(
            f"there is no scheme {scheme!r} here{nearest(scheme, _DEQUANTIZERS)}; "
            "name one of these, or register yours with register_dequantizer first"
        )
    return _DEQUANTIZERS[scheme]
