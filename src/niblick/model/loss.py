"""Cross-entropy of softcapped logits without holding too many of them: slices of rows, forward and backward.

What is kept for the backward pass is one number per target; the logits of a slice are computed again there. The
element-wise halves are plain functions, so that a GPU can have each of them compiled into kernels that read logits in
the compute dtype and hold float32 in registers alone.

Shapes: N rows, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

LOGIT_ELEMENTS = 1 << 24
"""No more logits than this are held at once (64 MiB in float32)."""


def logits(z_NV: Tensor, softcap: float) -> Tensor:
    """Return softcap · tanh(z / softcap), or z for softcap 0; float32 or wider."""
    z_NV = _wide(z_NV)
    return softcap * torch.tanh(z_NV / softcap) if softcap else z_NV


def nats(z_NV: Tensor, targets_N: Tensor, softcap: float) -> tuple[Tensor, Tensor]:
    """Return −log softmax(softcap · tanh(z / softcap)) at the targets, and the logarithm of its denominator, (N,).

    Softcap 0: that of z as it is. Overwrites z where it is float32 or wider.
    """
    capped_NV = _tanh(z_NV, softcap).mul_(softcap) if softcap else _wide(z_NV)
    total_N = capped_NV.logsumexp(-1)
    return total_N - capped_NV.gather(-1, targets_N[:, None])[:, 0], total_N


def nats_gradient(z_NV: Tensor, targets_N: Tensor, total_N: Tensor, grad_N: Tensor, softcap: float) -> Tensor:
    """Return the gradient of z where that of the nats is `grad_N`; in the dtype of z. Overwrites z as `nats` does."""
    tanh_NV = _tanh(z_NV, softcap) if softcap else None
    capped_NV = _wide(z_NV) if tanh_NV is None else softcap * tanh_NV
    soft_NV = capped_NV.sub_(total_N[:, None]).exp_()
    soft_NV.scatter_add_(-1, targets_N[:, None], -torch.ones_like(total_N)[:, None])
    if tanh_NV is not None:
        soft_NV.mul_(tanh_NV.square_().neg_().add_(1))
    return soft_NV.mul_(grad_N[:, None]).to(z_NV.dtype)


def _tanh(z_NV: Tensor, softcap: float) -> Tensor:
    return _wide(z_NV).div_(softcap).tanh_()


def _wide(z_NV: Tensor) -> Tensor:
    return z_NV.to(torch.promote_types(z_NV.dtype, torch.float32))


class Halves(NamedTuple):
    """The element-wise parts of the loss, plain or compiled."""

    forward: Callable[..., Any] = nats
    backward: Callable[..., Any] = nats_gradient


PLAIN = Halves()


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, softcap: float, halves: Halves
    ) -> Tensor:
        pieces = [
            halves.forward(F.linear(hidden, weight_VD), targets, softcap)
            for hidden, targets in zip(_slices(hidden_ND, weight_VD), _slices(targets_N, weight_VD), strict=True)
        ]
        nats_N, total_N = (torch.cat(part) for part in zip(*pieces, strict=True))
        ctx.save_for_backward(hidden_ND, weight_VD, targets_N, total_N)
        ctx.softcap, ctx.halves = softcap, halves
        return nats_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, targets_N, total_N = ctx.saved_tensors
        wide = torch.promote_types(weight_VD.dtype, torch.float32)
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide)
        grads: list[Tensor] = []
        for hidden, *rest in zip(
            *(_slices(x, weight_VD) for x in (hidden_ND, targets_N, total_N, grad_N)), strict=True
        ):
            grad_z_NV = ctx.halves.backward(F.linear(hidden, weight_VD), *rest, ctx.softcap)
            grads.append(grad_z_NV @ weight_VD)
            grad_weight_VD += grad_z_NV.t() @ hidden
        return torch.cat(grads), grad_weight_VD.to(weight_VD.dtype), None, None, None


def _slices(x: Tensor, weight_VD: Tensor) -> tuple[Tensor, ...]:
    return x.split(max(1, LOGIT_ELEMENTS // len(weight_VD)))


def softcapped_nats(
    hidden_ND: Tensor, weight_VD: Tensor, targets_N: Tensor, softcap: float, halves: Halves = PLAIN
) -> Tensor:
    """Return each target's cross-entropy under the logits softcap · tanh(h W / softcap): nats, (N,), float32 or wider.

    Products are in the autocast dtype where one is set; nothing but them and the loss has the size of a slice.
    """
    device = hidden_ND.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        hidden_ND, weight_VD = hidden_ND.to(dtype), weight_VD.to(dtype)
    with torch.autocast(device, enabled=False):
        if halves is PLAIN and len(targets_N) * len(weight_VD) <= LOGIT_ELEMENTS:
            # Where all logits may be held, autograd is faster than computing them twice: 55 ms instead of 78 for
            # 8,192 × 260 of them on one core.
            logits_NV = logits(F.linear(hidden_ND, weight_VD), softcap)
            return F.cross_entropy(logits_NV, targets_N, reduction="none")
        return _Loss.apply(hidden_ND, weight_VD, targets_N, softcap, halves)
