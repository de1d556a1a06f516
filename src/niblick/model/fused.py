"""Element-wise steps whose gradient is written out: autograd's own takes two to four times as many passes over memory.

On a CPU such passes are bound by memory and make up a third of a small model's training step. Compilers fuse the plain
form by themselves, so that is what CUDA gets.

Shapes: D channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


class _ReluSquared(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.relu()
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (positive * grad).mul_(2)


def relu_squared(x: Tensor) -> Tensor:
    """max(x, 0)², element by element."""
    return F.relu(x).square() if _leave(x) else _ReluSquared.apply(x)


def _normed(x_D: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    wide_D = x_D.to(torch.promote_types(x_D.dtype, torch.float32))
    scale_1 = torch.linalg.vecdot(wide_D, wide_D)[..., None].div_(x_D.shape[-1]).add_(eps).rsqrt_()
    return (wide_D * scale_1).to(x_D.dtype), scale_1


class _RMSNorm(torch.autograd.Function):
    """y = x·r with r = (mean x² + ε)^−½; ∂x = r·(∂y − y·mean(∂y·y)). In float32 or wider inside."""

    @staticmethod
    def forward(ctx: Any, x_D: Tensor, eps: float) -> Tensor:
        y_D, scale_1 = _normed(x_D, eps)
        ctx.save_for_backward(y_D, scale_1)
        return y_D

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_D: Tensor) -> tuple[Tensor, None]:
        y_D, scale_1 = ctx.saved_tensors
        wide_D, y_D = grad_D.to(scale_1.dtype), y_D.to(scale_1.dtype)
        along_1 = torch.linalg.vecdot(wide_D, y_D)[..., None].div_(-y_D.shape[-1])
        return torch.addcmul(wide_D, y_D, along_1).mul_(scale_1).to(grad_D.dtype), None


def rms_norm(x_D: Tensor, eps: float | None = None) -> Tensor:
    """Divide by the root mean square over the last dimension.

    `eps` is added to the mean square; None stands for that of the dtype, of float32 at least.
    """
    if _leave(x_D):
        return F.rms_norm(x_D, (x_D.shape[-1],), eps=eps)
    wide = torch.promote_types(x_D.dtype, torch.float32)
    eps = torch.finfo(wide).eps if eps is None else eps
    return _RMSNorm.apply(x_D, eps) if torch.is_grad_enabled() else _normed(x_D, eps)[0]


def _leave(x: Tensor) -> bool:
    """Whether the plain form is better: where a compiler or a fused kernel takes it."""
    return x.device.type != "cpu" or torch.compiler.is_compiling()
