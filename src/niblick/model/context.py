"""What blocks are told besides values: rotary angles, masks, and where rows of a packed sequence lie.

Shapes: B batch, L positions, H heads, K head width; in steps R rows that take part (of B).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from niblick.model.varlen import Segments


class Rope(NamedTuple):
    """Cosines and sines of the rotary angles, in the dtype of the stream.

    Each of shape (L, K/2), or (R, 1, 1, K/2) in steps; fewer than K/2 where only a fraction of each head is turned.
    """

    cos: Tensor
    sin: Tensor


class Context(NamedTuple):
    """What a block knows of a sequence besides its values; the same for all blocks of a stage."""

    rope: Rope
    mask_LL: Tensor | None = None
    """True where the row's position may see the column's; None for plain causal attention, or that inside segments."""
    place_L: Tensor | None = None
    """Position inside its own row, where several rows are packed into one; None where that is 0…L−1."""
    segments: Segments | None = None
    """Where packed rows lie, if attention goes by that instead of a mask; only stages of `T`, `t`, `C` and `c` do."""
    last: int | None = None
    """Only so many outputs at the end are wanted; a block may return just these, or all. None: all are wanted."""


class StepContext(NamedTuple):
    """What a block knows of one step."""

    rope: Rope
    rows_R: Tensor
    """Rows of the state that take part."""
    place_R: Tensor
    """Position that each of them is at."""


def rope_table(place_L: Tensor, rotary_width: int, base: float, dtype: torch.dtype) -> Rope:
    """Return the rotary angles of positions `place_L`, in `dtype`."""
    wide = torch.float32
    rate = base ** (-torch.arange(0, rotary_width, 2, dtype=wide, device=place_L.device) / max(rotary_width, 1))
    angle = torch.outer(place_L.to(wide), rate)
    return Rope(angle.cos().to(dtype), angle.sin().to(dtype))


def rotate(x_BHLK: Tensor, rope: Rope) -> Tensor:
    """Turn the halves (x1, x2) of each head to (x1·cos + x2·sin, −x1·sin + x2·cos), as published.

    Where the table is narrower than half a head, only so many channels at its front are turned.
    """
    turned = 2 * rope.cos.shape[-1]
    if turned == 0:
        return x_BHLK
    if turned < x_BHLK.shape[-1]:
        return torch.cat((rotate(x_BHLK[..., :turned], rope), x_BHLK[..., turned:]), dim=-1)
    x1, x2 = x_BHLK.chunk(2, dim=-1)
    return torch.cat((x1 * rope.cos + x2 * rope.sin, x2 * rope.cos - x1 * rope.sin), dim=-1)
