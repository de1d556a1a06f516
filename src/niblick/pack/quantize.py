"""From float weights to stored tensors, each by the scheme that the rules give it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from niblick.artifact.codecs import get_codec
from niblick.artifact.dequantize import EncodedTensor, matrix_shape
from niblick.errors import ArtifactError, ConfigError
from niblick.pack.grid import Grid, fit_grid
from niblick.pack.published import CONTROL_PATTERNS, KEEP_ELEMENTS, quantize_int8
from niblick.pack.schemes import FLOATS, PUBLISHED, Scheme, chosen_scheme, expect_matches, parse_rules, parse_scheme

SMALL_ELEMENTS = 2_048
"""Vectors, and matrices up to this many elements, are fp16 unless a rule names them."""


@dataclass(frozen=True)
class ExportConfig:
    """How weights become an artifact."""

    scheme: str = PUBLISHED
    """Of all large tensors; see `pack.schemes`."""
    rules: tuple[str, ...] = ()
    """PATTERN=SCHEME: tensors that are stored otherwise, small ones too; the last rule that fits holds."""
    codec: str = "zlib"
    prune: float = 0.0
    """Share of each quantized tensor, its smallest weights, that is set to zero first."""

    def __post_init__(self) -> None:
        parse_scheme(self.scheme)
        parse_rules(self.rules)
        get_codec(self.codec)
        if not 0 <= self.prune < 1:
            raise ConfigError(f"export.prune={self.prune} is a share: at least 0 and below 1")

    @property
    def name(self) -> str:
        """Name of the artifact inside its run, if nobody gives another."""
        mixed = "-mixed" if self.rules else ""
        return f"{self.scheme.replace(':', '.')}{mixed}+{self.codec}"


def pack(state: Mapping[str, Tensor], config: ExportConfig | None = None) -> dict[str, EncodedTensor]:
    """Return the tensors of `state` in stored form, in its order.

    Names that are one tensor in memory (tied weights) are stored once, under the first of them. Raises ArtifactError,
    naming the tensor, if it holds integers, infinities or NaN, or is too large for fp16; ConfigError for a rule that
    fits no tensor.
    """
    config = config or ExportConfig()
    schemes = schemes_of(state, config)
    return {name: quantize(name, state[name], scheme, config.prune) for name, scheme in schemes.items()}


def schemes_of(state: Mapping[str, Tensor], config: ExportConfig) -> dict[str, Scheme]:
    """Return the scheme of each tensor that is stored: all but further names of the same memory.

    By rule; else, with the published scheme: matrices of more than 65,536 elements int8, control tensors fp32, the
    rest fp16; with others: vectors and small matrices fp16 (fp32 if that is the scheme), all else `config.scheme`.
    """
    usual, rules = parse_scheme(config.scheme), parse_rules(config.rules)
    expect_matches(rules, state)
    schemes, seen = {}, set()
    for name, tensor in state.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        schemes[name] = chosen_scheme(name, rules) or _usual_scheme(name, tensor, usual)
    return schemes


def _usual_scheme(name: str, tensor: Tensor, usual: Scheme) -> Scheme:
    if usual.kind == PUBLISHED:
        if tensor.numel() > KEEP_ELEMENTS:
            return usual
        return Scheme("fp32" if any(pattern in name for pattern in CONTROL_PATTERNS) else "fp16")
    if usual.kind == "fp32" or (tensor.ndim >= 2 and tensor.numel() > SMALL_ELEMENTS):
        return usual
    return Scheme("fp16")


def quantize(name: str, tensor: Tensor, scheme: Scheme, prune: float = 0.0) -> EncodedTensor:
    """Return one tensor in stored form; raises as `pack` does."""
    weights = checked(name, tensor)
    if scheme.kind in FLOATS or not weights.numel():
        return _as_floats(name, weights, scheme.kind if scheme.kind in FLOATS else "fp16")
    if prune:
        weights = pruned(weights, prune)
    if scheme.kind == PUBLISHED:
        codes, scale = quantize_int8(weights)
        _expect_finite(name, scale)
        return EncodedTensor("int8", tuple(weights.shape), {"codes": _array(codes), "scale": _array(scale)})
    weights_RC = weights.reshape(matrix_shape(tuple(weights.shape)))
    grid = fit_grid(weights_RC, scheme)
    return on_grid(grid, grid.codes(weights_RC), tuple(weights.shape))


def on_grid(grid: Grid, codes_RC: Tensor, shape: tuple[int, ...]) -> EncodedTensor:
    """Return the stored form of codes on a grid, whole numbers (R, C) of any dtype."""
    dtype = torch.int8 if grid.levels < 2**7 else torch.int16 if grid.levels < 2**15 else torch.int32
    codes = codes_RC.to(dtype).reshape(shape)
    return EncodedTensor("grid", shape, {"codes": _array(codes), **grid.scale})


def pruned(weights: Tensor, share: float) -> Tensor:
    """Return a copy whose smallest `share` of values, by magnitude, is zero (study 2 prunes 3% of each matrix)."""
    count = int(share * weights.numel())
    smallest = weights.abs().flatten().topk(count, largest=False, sorted=False).indices
    kept = weights.flatten().clone()
    kept[smallest] = 0
    return kept.view_as(weights)


def checked(name: str, tensor: Tensor) -> Tensor:
    """Return the values as float32 on the CPU; raise ArtifactError, naming the tensor, for integers, ∞ or NaN."""
    if not tensor.is_floating_point():
        raise ArtifactError(f"tensor {name!r} is {tensor.dtype}, only floating-point weights are packed; leave it out")
    if not bool(torch.isfinite(tensor).all()):
        count = int((~torch.isfinite(tensor)).sum())
        raise ArtifactError(
            f"tensor {name!r} has {count:,} values that are infinite or NaN; pack an earlier checkpoint"
        )
    return tensor.detach().float().cpu()


def _as_floats(name: str, weights: Tensor, kind: str) -> EncodedTensor:
    if kind == "fp16":
        values = _array(_expect_finite(name, weights.half()))
    elif kind == "bf16":
        values = _array(_expect_finite(name, weights.bfloat16()).view(torch.int16)).view(np.uint16)
    else:
        values = _array(weights)
    return EncodedTensor(kind, tuple(weights.shape), {"values": values})


def _expect_finite(name: str, halves: Tensor) -> Tensor:
    if not bool(torch.isfinite(halves).all()):
        raise ArtifactError(
            f"tensor {name!r} has values past what {str(halves.dtype).removeprefix('torch.')} can hold; "
            f"keep it as floats with a rule: export.rules='[\"{name}=fp32\"]'"
        )
    return halves


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.contiguous().numpy().copy()  # a copy: training may go on while the artifact is written
