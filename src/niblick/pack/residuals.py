"""Low-rank corrections of the quantization error, bought where a byte removes most of it.

After rounding, a matrix W is stored as Q; the largest singular pairs of W − Q, kept beside the codes, take away the
most squared error that any correction of that rank can. With a Hessian H of the layer's inputs the error that counts
is tr((W − Q) H (W − Q)ᵀ), and the pairs are those of (W − Q)·H^½. The sprint's targeted residuals are rank 1, fp16,
without Hessian, on the groups below.

Shapes: R rows, C columns, r ranks.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from niblick.artifact.dequantize import EncodedTensor, matrix_shape
from niblick.errors import ConfigError
from niblick.pack.export_config import ResidualConfig
from niblick.pack.schemes import fits

MAX_RANK = 16
"""Pairs of one matrix at most: each is an outer product to add at reading."""
DAMPING = 0.01
"""Share of a Hessian's mean diagonal that is added to it, so that it has an inverse."""


GROUPS = {
    "all": ("*",),
    "mlp-out": ("*mlp.down.weight",),
    "early-mlp-out": ("*mlp.down.weight",),
    "attn-out": ("*attn.out.weight",),
    "out": ("*mlp.down.weight", "*attn.out.weight"),
}


def group_names(group: str, names: Iterable[str]) -> list[str]:
    """Return the names that a group of `ResidualConfig` means. Raises ConfigError if it means none."""
    known = list(names)
    found = [name for name in known if any(fits(pattern, name) for pattern in GROUPS.get(group, (group,)))]
    if group.startswith("early-"):
        # By the numbers of blocks, in whatever order a file lists them: 10 comes after 9.
        found.sort(
            key=lambda name: [(word.isdigit(), int(word) if word.isdigit() else word) for word in name.split(".")]
        )
        found = found[: (len(found) + 1) // 2]
    if not found:
        raise ConfigError(f"residual.group={group!r} names no quantized matrix; groups are {', '.join(GROUPS)}")
    return found


def add_residuals(
    encoded: Mapping[str, EncodedTensor],
    state: Mapping[str, Tensor],
    config: ResidualConfig,
    hessians: Mapping[str, Tensor] | None = None,
) -> dict[str, EncodedTensor]:
    """Return `encoded` with corrections for tensors on a grid, chosen one pair at a time by error removed per byte.

    Error is squared weight error, or the Hessian's where `hessians` (C, C) has the name. Raises ConfigError if the
    group names no tensor on a grid.
    """
    if not config.bytes:
        return dict(encoded)
    grids = [name for name, tensor in encoded.items() if tensor.scheme == "grid" and "left" not in tensor.parts]
    pairs = {
        name: _pairs(encoded[name], state[name], None if hessians is None else hessians.get(name))
        for name in group_names(config.group, grids)
    }
    chosen, left = dict.fromkeys(pairs, 0), config.bytes
    heap = [(-float(p.removed_r[0]) / _bytes(p, config.dtype), name) for name, p in pairs.items() if len(p.removed_r)]
    heapq.heapify(heap)
    while heap:
        _, name = heapq.heappop(heap)
        pair, cost = pairs[name], _bytes(pairs[name], config.dtype)
        if cost > left:
            continue
        left -= cost
        chosen[name] += 1
        if chosen[name] < len(pair.removed_r):
            heapq.heappush(heap, (-float(pair.removed_r[chosen[name]]) / cost, name))
    return {
        name: replace(tensor, parts=tensor.parts | _factors(pairs[name], chosen[name], config.dtype))
        if chosen.get(name)
        else tensor
        for name, tensor in encoded.items()
    }


@dataclass(frozen=True)
class _Pairs:
    """Singular pairs of one error: left·right adds up to it, best first."""

    left_Rr: Tensor
    right_rC: Tensor
    removed_r: Tensor
    """Error that each takes away."""


def _pairs(tensor: EncodedTensor, weights: Tensor, hessian_CC: Tensor | None) -> _Pairs:
    rows, columns = matrix_shape(tensor.shape)
    error_RC = (weights.detach().float().cpu() - tensor.dequantize()).reshape(rows, columns).double()
    root_CC = inverse_CC = None
    if hessian_CC is not None:
        values_C, vectors_CC = torch.linalg.eigh(hessian_CC.double())
        values_C = values_C.clamp_min(0) + DAMPING * float(values_C.mean()) + 1e-30
        root_CC = vectors_CC * values_C.sqrt()
        inverse_CC = (vectors_CC / values_C.sqrt()).t()
        error_RC = error_RC @ root_CC
    u_Rr, size_r, v_rC = torch.linalg.svd(error_RC, full_matrices=False)
    u_Rr, size_r, v_rC = u_Rr[:, :MAX_RANK], size_r[:MAX_RANK], v_rC[:MAX_RANK]
    right_rC = v_rC if inverse_CC is None else v_rC @ inverse_CC
    # Both sides of one size, so that both fit fp16 as well as they can.
    balance_r = (size_r / right_rC.norm(dim=1).clamp_min(1e-30)).sqrt()
    return _Pairs(u_Rr * (size_r / balance_r.clamp_min(1e-30)), right_rC * balance_r[:, None], size_r.square())


def _bytes(pairs: _Pairs, dtype: str) -> int:
    """Bytes of one more pair, before coding."""
    numbers = pairs.left_Rr.shape[0] + pairs.right_rC.shape[1]
    return 2 * numbers if dtype == "fp16" else numbers + 8  # and a float32 scale for each vector


def _factors(pairs: _Pairs, rank: int, dtype: str) -> dict[str, np.ndarray]:
    """Return the parts of the artifact that hold the first `rank` pairs."""
    left, right = pairs.left_Rr[:, :rank].numpy(), pairs.right_rC[:rank].numpy()
    if dtype == "fp16":
        return {"left": left.astype(np.float16), "right": right.astype(np.float16)}
    parts = {}
    for name, factor, axis in (("left", left, 0), ("right", right, 1)):
        scale = (np.abs(factor).max(axis) / 127).astype(np.float32)
        steps = np.expand_dims(np.where(scale > 0, scale, np.inf), axis)
        parts[name] = np.rint(factor / steps).clip(-127, 127).astype(np.int8)
        parts[f"{name}_scale"] = scale
    return parts
