"""From float weights to stored tensors, each by the scheme that the rules give it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from niblick.artifact.dequantize import EncodedTensor
from niblick.errors import ArtifactError, ConfigError
from niblick.pack.export_config import DAMPING, ExportConfig
from niblick.pack.gptq import Tell, by_gptq
from niblick.pack.permute import permuted
from niblick.pack.residuals import add_residuals
from niblick.pack.schemes import (
    Scheme,
    chosen_scheme,
    expect_matches,
    kind_of,
    on_a_grid,
    parse_rules,
    parse_scheme,
)


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
            tell=partial(tell, name),
        )
    return add_residuals(packed, state, config.residual, hessians) if config.residual.bytes else packed


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
    small = kind_of(usual).instead(name, tensor)
    return Scheme(small) if small else usual


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
    kind = kind_of(scheme)
    if not kind.floats and not weights.numel():  # of no weights there are no scales
        scheme = Scheme("fp16")
        kind = kind_of(scheme)
    kept = pruned(weights, prune) if prune and not kind.floats else weights
    if kind.on_grid and hessian is not None:
        return by_gptq(weights, kept, scheme, hessian, damping, tell)
    return kind.write(name, kept, scheme)


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
