"""Norms and MLPs: the branch that every block with a capital letter ends in.

Shapes: B batch, L positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niblick.model.fused import relu_squared, rms_norm
from niblick.model.model_config import BlockConfig


def _leaky_relu2(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.5).square()


def _swiglu(x: Tensor) -> Tensor:
    gate, value = x.chunk(2, dim=-1)
    return F.silu(gate) * value


MLPS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu2": relu_squared,
    "leaky_relu2": _leaky_relu2,
    "swiglu": _swiglu,
}
"""What may stand between the two maps of an MLP: relu² (baseline), leaky_relu(0.5)² (TinyHNet), SwiGLU."""


class Norm(nn.Module):
    """`rms_norm`, and with `weights` each channel times one of its own (the H-Net paper's blocks have them).

    `eps` is added to the mean square; None: the smallest that the dtype tells from 0 beside 1.
    """

    def __init__(self, width: int, weights: bool = False, eps: float | None = None) -> None:
        super().__init__()
        self.width, self.eps = width, eps
        self.weight = nn.Parameter(torch.ones(width)) if weights else None

    def forward(self, x_D: Tensor) -> Tensor:
        if self.weight is None:
            return rms_norm(x_D, self.eps)
        return F.rms_norm(x_D, (self.width,), self.weight.to(x_D.dtype), self.eps)


class MLP(nn.Module):
    """Two maps with a nonlinearity between them."""

    def __init__(self, width: int, hidden: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.up = nn.Linear(width, hidden * (2 if kind == "swiglu" else 1), bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.down(MLPS[self.kind](self.up(x_BLD)))


def new_norm(config: BlockConfig) -> Norm:
    """Return a norm of the stream."""
    return Norm(config.width, config.norm_weights, config.norm_eps)


def new_scale(config: BlockConfig) -> nn.Parameter | None:
    """Return the channel weights of a branch, all 1; None without."""
    return nn.Parameter(torch.ones(config.width)) if config.branch_scale else None


def new_mlp(config: BlockConfig) -> MLP:
    """Return an MLP."""
    return MLP(config.width, config.hidden, config.mlp)


def add_scaled(x_D: Tensor, branch_D: Tensor, scale_D: Tensor | None) -> Tensor:
    """Add a branch to the stream, scaled per channel where there are scales."""
    return x_D + branch_D if scale_D is None else torch.addcmul(x_D, branch_D, scale_D.to(x_D.dtype))


def add_mlp(
    x_D: Tensor, mlp: MLP | None, norm: Norm | None, scale_D: Tensor | None, read_D: Tensor | None = None
) -> Tensor:
    """Add the MLP's branch to the stream; without an MLP return the stream. It reads the stream, or `read_D`."""
    if mlp is None or norm is None:
        return x_D
    return add_scaled(x_D, mlp(norm(x_D if read_D is None else read_D)), scale_D)
