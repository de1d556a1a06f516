"""A stage: a stack of blocks at one resolution, between two norms, with U-net skips, written as a layout string.

Shapes: B batch, L positions, D width; in steps R rows that take part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from niblick.errors import ConfigError
from niblick.model.context import Context, Rope, StepContext, rope_table
from niblick.model.layers import BLOCKS
from niblick.model.mlp import new_norm
from niblick.model.model_config import BlockConfig, StageConfig, parse_layout
from niblick.model.varlen import Segments, fits


class Packing(NamedTuple):
    """Several rows packed into one: which row each position belongs to, and where in that row it stands."""

    row_L: Tensor
    place_L: Tensor
    segments: Segments | None = None
    """Where the rows lie, if there is a kernel that goes by that; None: attention under a dense mask."""


@dataclass
class StageState:
    """State of every block (those that share weights have one each), and the position each row is at."""

    blocks: list[Any]
    place_B: Tensor


class Stage(nn.Module):
    """norm → blocks → norm. The first ⌊n/2⌋ blocks push their output, the others add what was pushed, last first."""

    def __init__(self, config: StageConfig, model: BlockConfig) -> None:
        super().__init__()
        block = config.block_config(model)
        letters = parse_layout(config.layout)
        self.layout, self.width = letters, block.width
        self.blocks = nn.ModuleList(BLOCKS[letter](block) for letter in letters[: config.unique or None])
        self.skips = len(letters) // 2 if config.skips else 0
        self.skip_weights = nn.Parameter(torch.ones(self.skips, block.width)) if self.skips else None
        self.window, self.rotary_width, self.rope_base = block.window, block.rotary_width, block.rope_base
        self.norm = new_norm(block) if config.norm_in else None
        self.norm_out = new_norm(block)
        self.head_width = block.width // block.heads

    def forward(
        self, x_BLD: Tensor, packing: Packing | None = None, *, last: int | None = None, start: int = 0
    ) -> Tensor:
        """Return the outputs, (B, L, D), or the last `last` of them: then nothing is computed that they do not need.

        `start` is the place of the first input in its row, where inputs that nothing needs were left out.
        """
        if last is None or packing is not None:
            context = self._context(x_BLD, packing, start)
            out_BLD = self._run(x_BLD, lambda i, x_BLD, x0_BLD: self._block(i)(x_BLD, x0_BLD, context))
            return out_BLD if last is None else out_BLD[:, -last:]
        wanted = self._wanted(x_BLD.shape[1], last)
        start, x_BLD = start + x_BLD.shape[1] - wanted[0], x_BLD[:, -wanted[0] :]
        context = self._context(x_BLD, None, start, always_mask=wanted[0] != last)

        def apply(i: int, x_BLD: Tensor, x0_BLD: Tensor) -> Tensor:
            before, after = x_BLD.shape[1], wanted[i + 1]
            return self._block(i)(x_BLD, x0_BLD, self._ending(context, before, after))[:, -after:]

        return self._run(x_BLD, apply)

    def needs(self, length: int, last: int) -> int:
        """Return how many of `length` inputs, at the end, the last `last` outputs depend on."""
        return self._wanted(length, last)[0]

    def _wanted(self, length: int, last: int) -> list[int]:
        """How many positions at the end are needed of the input of each block, and of the output of the last."""
        wanted = [last]
        for i in reversed(range(len(self.layout))):
            reach = getattr(self._block(i), "reach", None)
            wanted.append(length if reach is None else min(length, wanted[-1] + reach))
        return wanted[::-1]

    def _run(self, x_D: Tensor, apply: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """Norms, blocks and skips: the same for sequences and steps."""
        if self.norm is not None:
            x_D = self.norm(x_D)
        x0_D = x_D
        pushed: list[Tensor] = []
        for i in range(len(self.layout)):
            if i >= self.skips and pushed:
                assert self.skip_weights is not None
                skipped_D = pushed.pop()[..., -x_D.shape[-2] :, :]  # positions that nobody needs any more are left out
                x_D = torch.addcmul(x_D, skipped_D, self.skip_weights[i - self.skips].to(x_D.dtype))
            x_D = apply(i, x_D, x0_D[..., -x_D.shape[-2] :, :])
            if i < self.skips:
                pushed.append(x_D)
        return self.norm_out(x_D)

    def _by_segments(self) -> bool:
        """Whether attention can go by segments; blocks of one's own may need the mask."""
        return fits(self.head_width) and all(getattr(own, "by_segments", False) for own in self.blocks)

    def _block(self, i: int) -> nn.Module:
        return self.blocks[i % len(self.blocks)]

    def _context(self, x_BLD: Tensor, packing: Packing | None, start: int, *, always_mask: bool = False) -> Context:
        index_L = torch.arange(x_BLD.shape[1], device=x_BLD.device)
        place_L = index_L + start if packing is None else packing.place_L
        rope = rope_table(place_L, self.rotary_width, self.rope_base, x_BLD.dtype)
        if packing is None and not self.window and not always_mask:
            return Context(rope)
        if packing is not None and packing.segments is not None and self._by_segments():
            return Context(rope, None, place_L, packing.segments)
        back_LL = index_L[:, None] - index_L
        mask_LL = back_LL >= 0
        if self.window:
            mask_LL &= back_LL < self.window
        if packing is not None:
            mask_LL &= packing.row_L[:, None] == packing.row_L
        return Context(rope, mask_LL, None if packing is None else place_L)

    def _ending(self, context: Context, length: int, last: int) -> Context:
        """What a block knows of the last `length` positions, where the last `last` outputs are wanted."""
        rope = Rope(context.rope.cos[-length:], context.rope.sin[-length:])
        if length == last and not self.window:
            return Context(rope)  # plain causal attention: queries stand where keys stand
        assert context.mask_LL is not None
        return Context(rope, context.mask_LL[-length:, -length:], last=None if length == last else last)

    def new_state(self, rows: int, like: Tensor) -> StageState:
        """Return the state before the first position. Raises ConfigError for a block that has no `step`."""
        for letter, block in zip(self.layout, self.blocks, strict=False):
            if not all(callable(getattr(block, face, None)) for face in ("step", "new_state")):
                raise ConfigError(
                    f"block {letter!r} has no `new_state` and `step`: it trains and scores, but cannot step"
                )
        blocks: list[Any] = [self._block(i) for i in range(len(self.layout))]
        place_B = torch.zeros(rows, dtype=torch.long, device=like.device)
        return StageState([block.new_state(rows, like) for block in blocks], place_B)

    def step(self, x_RD: Tensor, state: StageState, rows_R: Tensor) -> Tensor:
        """One position of the rows `rows_R`; updates their part of `state` in place. Returns (R, D)."""
        place_R = state.place_B[rows_R]
        rope = rope_table(place_R, self.rotary_width, self.rope_base, x_RD.dtype)
        context = StepContext(Rope(rope.cos[:, None, None], rope.sin[:, None, None]), rows_R, place_R)
        state.place_B[rows_R] = place_R + 1
        blocks = state.blocks
        return self._run(x_RD, lambda i, x_RD, x0_RD: self._block(i).step(x_RD, x0_RD, blocks[i], context))  # type: ignore[operator]


class Passthrough(nn.Module):
    """Where a level has no stage: what comes in goes out."""

    def forward(
        self, x_BLD: Tensor, packing: Packing | None = None, *, last: int | None = None, start: int = 0
    ) -> Tensor:
        return x_BLD if last is None else x_BLD[:, -last:]

    def needs(self, length: int, last: int) -> int:
        """Return `last`."""
        return last

    def new_state(self, rows: int, like: Tensor) -> StageState:
        """Return a state without blocks."""
        return StageState([], torch.zeros(rows, dtype=torch.long, device=like.device))

    def step(self, x_RD: Tensor, state: StageState, rows_R: Tensor) -> Tensor:
        """Return the input."""
        return x_RD
