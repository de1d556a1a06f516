"""One tensor in stored form: floats, the published int8, codes on a grid."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from niblick.artifact.dequantize import EncodedTensor, matrix_shape
from niblick.errors import ArtifactError
from niblick.pack.grid import Grid, fit_grid
from niblick.pack.published import quantize_int8
from niblick.pack.schemes import Scheme


def as_floats(name: str, weights: Tensor, kind: str) -> EncodedTensor:
    """Return float32 weights as fp32, fp16 or bf16. Raises ArtifactError, naming the tensor, if they are too large."""
    if kind == "fp16":
        values = _array(_expect_finite(name, weights.half()))
    elif kind == "bf16":
        values = _array(_expect_finite(name, weights.bfloat16()).view(torch.int16)).view(np.uint16)
    else:
        values = _array(weights)
    return EncodedTensor(kind, tuple(weights.shape), {"values": values})


def as_published(name: str, weights: Tensor) -> EncodedTensor:
    """Return the published int8 codes and scales. Raises ArtifactError, naming the tensor, for scales past fp16."""
    codes, scale = quantize_int8(weights)
    _expect_finite(name, scale)
    return EncodedTensor("int8", tuple(weights.shape), {"codes": _array(codes), "scale": _array(scale)})


def rounded_to_grid(weights: Tensor, scheme: Scheme) -> EncodedTensor:
    """Return the nearest codes on the grid of a scheme."""
    weights_RC = weights.reshape(matrix_shape(tuple(weights.shape)))
    grid = fit_grid(weights_RC, scheme)
    return on_grid(grid, grid.codes(weights_RC), tuple(weights.shape))


def on_grid(grid: Grid, codes_RC: Tensor, shape: tuple[int, ...]) -> EncodedTensor:
    """Return the stored form of codes on a grid, whole numbers (R, C) of any dtype."""
    dtype = torch.int8 if grid.levels < 2**7 else torch.int16 if grid.levels < 2**15 else torch.int32
    codes = codes_RC.to(dtype).reshape(shape)
    return EncodedTensor("grid", shape, {"codes": _array(codes), **grid.scale})


def _expect_finite(name: str, halves: Tensor) -> Tensor:
    if not bool(torch.isfinite(halves).all()):
        raise ArtifactError(
            f"tensor {name!r} has values past what {str(halves.dtype).removeprefix('torch.')} can hold; "
            f"keep it as floats with a rule: export.rules='[\"{name}=fp32\"]'"
        )
    return halves


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy().copy()  # a copy: training may go on while the artifact is written
