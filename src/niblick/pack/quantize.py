"""From float weights to stored tensors, each by the scheme that the rules give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from niblick.artifact.dequantize import EncodedTensor, matrix_shape
from niblick.errors import ArtifactError, ConfigError
from niblick.pack.export_config import DAMPING, ExportConfig
from niblick.pack.gptq import Tell, column_weights, gptq_codes
from niblick.pack.grid import Grid, fit_grid
from niblick.pack.permute import permuted
from niblick.pack.published import CONTROL_PATTERNS, KEEP_ELEMENTS, quantize_int8
from niblick.pack.residuals import add_residuals
from niblick.pack.schemes import (
    FLOATS,
    PUBLISHED,
    Scheme,
    chosen_scheme,
    expect_matches,
    on_a_grid,
    parse_rules,
    parse_scheme,
)

SMALL_ELEMENTS = 2_048
"""Vectors, and matrices up to this many elements, are fp16 unless a rule names them."""


def pack(
    state: Mapping[str, Tensor],
    config: ExportConfig | None = None,
    *,
    hessians: Mapping[str, Tensor] | None = None,
    tell: Callable[[str, str], None] = lambda name, note: None,
) -> dict[str, EncodedTensor]:
    """Return the tensors of `state` in stored form, in its order.

    Names that are one tensor in memory (tied weights) are stored once, under the first of them. Tensors that have one
    of the `hessians` (`pack.hessians.calibrate`) are rounded by GPTQ; `tell(name, note)` hears of those that are to be
    and could not. Raises ArtifactError, naming the tensor, if it holds integers, infinities or NaN, or is too large
    for fp16; ConfigError for a rule that fits no tensor, and if GPTQ is wanted and there are no Hessians.
    """
    config = config or ExportConfig()
    if config.gptq != "off" and hessians is None:
        raise ConfigError(f"export.gptq={config.gptq} needs Hessians: collect them from training text, see docs/export")
    if config.permute:
        if hessians is not None:
            raise ConfigError("export.permute moves the inputs that Hessians are of: permute first, then collect them")
        state = permuted(state)
    packed = {}
    for name, scheme in schemes_of(state, config).items():
        hessian = (hessians or {}).get(name)
        if hessians is not None and hessian is None and on_a_grid(scheme):
            tell(name, "it has no Hessian: plain rounding")
        packed[name] = quantize(
            name,
            state[name],
            scheme,
            config.prune,
            hessian=hessian,
            damping=config.damping,
            tell=lambda note, name=name: tell(name, note),  # type: ignore[misc]
        )
    return add_residuals(packed, state, config.residual, hessians)


def schemes_of(state: Mapping[str, Tensor], config: ExportConfig) -> dict[str, Scheme]:
    """Return the scheme of each tensor that is stored: all but further names of the same memory.

    By rule; else, with the published scheme: matrices of more than 65,536 elements int8, control tensors fp32, the
    rest fp16; with others: vectors and small matrices fp16 (fp32 if that is the scheme), all else `config.scheme`.
    """
    rules = parse_rules(config.rules)
    expect_matches(rules, state)
    schemes, seen = {}, set()
    for name, tensor in state.items():
        place = (tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride())
        if tensor.numel() and place in seen and not tensor.is_meta:  # which all lie at the same place
            continue
        seen.add(place)
        schemes[name] = chosen_scheme(name, rules) or _usual_scheme(name, tensor, config)
    return schemes


def _usual_scheme(name: str, tensor: Tensor, config: ExportConfig) -> Scheme:
    usual = parse_scheme(config.scheme)
    if config.scheme == PUBLISHED:
        if tensor.numel() > KEEP_ELEMENTS:
            return usual
        return Scheme("fp32" if any(pattern in name for pattern in CONTROL_PATTERNS) else "fp16")
    if usual.kind == "fp32" or (tensor.ndim >= 2 and tensor.numel() > SMALL_ELEMENTS):
        return usual
    return Scheme("fp16")


def quantize(
    name: str,
    tensor: Tensor,
    scheme: Scheme,
    prune: float = 0.0,
    *,
    hessian: Tensor | None = None,
    damping: float = DAMPING,
    tell: Tell = lambda note: None,
) -> EncodedTensor:
    """Return one tensor in stored form, rounded by GPTQ where its Hessian is given; raises as `pack` does."""
    weights = checked(name, tensor)
    if scheme.kind in FLOATS or not weights.numel():
        return _as_floats(name, weights, scheme.kind if scheme.kind in FLOATS else "fp16")
    kept = pruned(weights, prune) if prune else weights
    if on_a_grid(scheme):
        return _gridded(weights, kept, scheme, bool(prune), hessian, damping, tell)
    codes, scale = quantize_int8(kept)
    _expect_finite(name, scale)
    return EncodedTensor("int8", tuple(weights.shape), {"codes": _array(codes), "scale": _array(scale)})


def _gridded(
    weights: Tensor, kept: Tensor, scheme: Scheme, prune: bool, hessian: Tensor | None, damping: float, tell: Tell
) -> EncodedTensor:
    """Round to a grid, by GPTQ where there is a Hessian; with `prune` what is zero in `kept` stays zero."""
    weights_RC, kept_RC = (w.reshape(matrix_shape(tuple(weights.shape))) for w in (weights, kept))
    if hessian is None:
        grid = fit_grid(kept_RC, scheme)
        return on_grid(grid, grid.codes(kept_RC), tuple(weights.shape))
    grid = fit_grid(kept_RC, scheme, column_weights(hessian, damping))
    zero_RC = (kept_RC == 0) if prune else None
    codes_RC = gptq_codes(weights_RC, grid, hessian, damping, zero_RC=zero_RC, tell=tell)
    return on_grid(grid, codes_RC, tuple(weights.shape))


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
