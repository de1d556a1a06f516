"""Causal convolution of each channel by itself, as a sum of shifted copies.

On the CPU that is faster than a grouped convolution in bfloat16, and packed rows can be kept apart.

Shapes: B batch, L positions, D channels; in steps R rows that take part (of B), J inputs that are still needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class ConvState:
    """The last inputs of a convolution, oldest first."""

    x_BJD: Tensor


class CausalConv(nn.Conv1d):
    """Position t sees the inputs t − kernel + 1 … t of its channel; before the first there are zeros."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__(channels, channels, kernel, groups=channels)

    def forward(self, x_BLD: Tensor, place_L: Tensor | None = None) -> Tensor:
        """Convolve; `place_L` tells where each position stands in its own row, where rows are packed into one."""
        tap_JD = self.weight[:, 0].t().to(x_BLD.dtype)
        y_BLD = torch.addcmul(self._bias(x_BLD), x_BLD, tap_JD[-1])
        for back in range(1, min(len(tap_JD), x_BLD.shape[1])):
            past_BLD = F.pad(x_BLD[:, :-back], (0, 0, back, 0))
            if place_L is not None:
                past_BLD = past_BLD * (place_L >= back)[:, None]
            y_BLD = torch.addcmul(y_BLD, past_BLD, tap_JD[-1 - back])
        return y_BLD

    def _bias(self, like: Tensor) -> Tensor:
        assert self.bias is not None
        return self.bias.to(like.dtype)

    def new_state(self, rows: int, like: Tensor) -> ConvState:
        """Return the state before the first position."""
        return ConvState(like.new_zeros(rows, self.kernel_size[0] - 1, self.in_channels))

    def step(self, x_RD: Tensor, state: ConvState, rows_R: Tensor) -> Tensor:
        """One position of the rows `rows_R`; updates `state` in place."""
        seen_RJD = torch.cat((state.x_BJD[rows_R], x_RD[:, None]), 1)
        state.x_BJD[rows_R] = seen_RJD[:, 1:]
        return (seen_RJD * self.weight[:, 0].t().to(x_RD.dtype)).sum(1) + self._bias(x_RD)
