"""H-Net: levels of encoder, router and decoder around a main stage that sees chunks (study 1; paper, Section 2).

The body is a list, not a recursion: down through the levels, the main stage, up again. Inner levels may be wider than
outer ones, never narrower.

Shapes: B batch, L positions, D width; in steps R rows that take part.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from niblick.errors import ConfigError
from niblick.model.level import Level, LevelState, Passage, SoftLevel
from niblick.model.model_config import BlockConfig, LevelConfig, StageConfig, is_soft, level_widths
from niblick.model.plain_routers import Routing
from niblick.model.stage import Packing, Stage, StageState
from niblick.model.stepping import PLAIN, Steps

COMPILED_SHARES = (1 / 16, 1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
"""Chunk counts that compiled stages see, as shares of the outermost sequence: finest where chunk counts usually are."""


@dataclass
class HNetState:
    """Inference state of the body: each level's, outermost first, and the main stage's."""

    levels: list[LevelState]
    main: StageState


class HNet(nn.Module):
    """Levels from the outermost in, and the main stage. Without levels it is the main stage alone: a dense model."""

    def __init__(self, levels: tuple[LevelConfig, ...], main: StageConfig, model: BlockConfig) -> None:
        super().__init__()
        widths = level_widths(levels, main, model)
        self.levels = nn.ModuleList(
            (SoftLevel if is_soft(level.router) else Level)(level, model, inner)
            for level, inner in zip(levels, widths[1:], strict=True)
        )
        self.main = Stage(main, model)
        self.few_shapes = False
        """Whether chunk counts are rounded to COMPILED_SHARES of the sequence: for compiled stages."""

    def forward(
        self,
        x_BLD: Tensor,
        *,
        given_BL: Tensor | None = None,
        length_B: Tensor | None = None,
        last: int | None = None,
        aims: Sequence[float] = (),
    ) -> tuple[Tensor, list[Routing]]:
        """Return hidden states (B, L, D) and the routing of each level, outermost first.

        `given_BL` are the boundaries for an outermost router that takes them from outside; `length_B` counts the
        valid positions of rows that are filled up; with `last`, only so many states at the end are computed. In
        training `aims` are the chunk lengths that are asked for now, level by level.
        """
        packing: Packing | None = None
        passages: list[Passage] = []
        sizes = [max(1, round(share * x_BLD.shape[1])) for share in COMPILED_SHARES] if self.few_shapes else None
        for level, aim in itertools.zip_longest(self.each_level(), aims):
            x_BLD, packing, passage = level.down(x_BLD, length_B, given_BL, sizes, aim)
            passages.append(passage)
            if not isinstance(level, SoftLevel):
                length_B = passage.routing.chunks_B()
        wanted = None if last is None else self._wanted(passages, last)
        x_BLD = self.main(x_BLD, packing, last=wanted.pop() if wanted else None)
        routings: list[Routing] = []
        for level, passage in zip(reversed(list(self.each_level())), reversed(passages), strict=True):
            routing = passage.routing
            if aims and level.config.ahead_weight:
                routing = replace(routing, inside_BCD=passage.rows(x_BLD))
            routings.insert(0, routing)
            x_BLD = level.up(x_BLD, passage, wanted.pop() if wanted else None)
        return x_BLD, routings

    def _wanted(self, passages: list[Passage], last: int | None) -> list[int | None]:
        """Positions at the end that are needed of each level's output, and of the main stage's; None: all."""
        wanted = [last]
        for level, passage in zip(self.each_level(), passages, strict=True):
            wanted.append(level.inner_last(passage, wanted[-1]))
        return wanted

    def each_level(self) -> Iterator[Level | SoftLevel]:
        """The levels, outermost first."""
        for level in self.levels:
            assert isinstance(level, Level | SoftLevel)
            yield level

    def new_state(self, rows: int, like: Tensor, context: int | None = None) -> HNetState:
        """Return the state before the first position, for `rows` rows, in the dtype and on the device of `like`.

        `context` is the number of positions that capacities with a divisor refer to; None leaves them without bound.
        """
        states = []
        for level in self.each_level():
            states.append(level.new_state(rows, like, context))
            context = states[-1].capacity if states[-1].capacity is not None else context
        return HNetState(states, self.main.new_state(rows, like))

    def step(
        self, x_BD: Tensor, state: HNetState, given_B: Tensor | None = None, steps: Steps = PLAIN
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """One position of every row; updates `state` in place.

        Returns hidden states (B, D), and for each level that rows reached p and boundary of the outermost rows (levels
        further in are reached by some rows alone).
        """
        rows_R = torch.arange(len(x_BD), device=x_BD.device)
        x_RD, way = x_BD, []
        for level, own in zip(self.each_level(), state.levels, strict=True):
            encoded_RD, p_R, boundary_R, pooled_RD = steps.down(level, x_RD, own, rows_R, given_B)
            way.append((level, own, rows_R, encoded_RD, p_R, boundary_R, pooled_RD))
            x_RD, rows_R, given_B = *_starting(boundary_R, pooled_RD, rows_R), None
            if not len(rows_R):
                break
        if len(rows_R):
            x_RD = steps.inside(self.main, x_RD, state.main, rows_R)
        for level, own, outer_R, encoded_RD, p_R, boundary_R, pooled_RD in reversed(way):
            if len(x_RD) < len(outer_R):
                x_RD = pooled_RD.index_put((boundary_R,), x_RD) if len(x_RD) else pooled_RD
            x_RD = steps.up(level, x_RD, own, outer_R, encoded_RD, p_R, boundary_R)
        return x_RD, [(p_R, boundary_R) for *_, p_R, boundary_R, _ in way]


def _starting(boundary_R: Tensor, pooled_RD: Tensor, rows_R: Tensor) -> tuple[Tensor, Tensor]:
    """The states and rows in which a chunk starts: often all or none, which costs no indexing."""
    starts = boundary_R.tolist()
    if all(starts):
        return pooled_RD, rows_R
    if not any(starts):
        return pooled_RD[:0], rows_R[:0]
    return pooled_RD[boundary_R], rows_R[boundary_R]


Nested = list[Any]
"""A layout as in the paper's configs: ["T2", ["T9"], "T2"]; without levels ["T9"]."""


def read_nested(nested: Nested, template: LevelConfig | None = None) -> tuple[tuple[LevelConfig, ...], StageConfig]:
    """Read a nested layout. Returns the levels, outermost first, each like `template` but for its layouts, and main.

    Raises ConfigError that shows the part that is neither [main] nor [encoder, [inside], decoder].
    """
    template = template or LevelConfig()
    levels: list[LevelConfig] = []
    while not (len(nested) == 1 and isinstance(nested[0], str)):
        kinds = [type(part) for part in nested]
        if kinds != [str, list, str]:
            raise ConfigError(f"nested layout {nested!r} is neither [main] nor [encoder, [inside], decoder]")
        encoder, inside, decoder = nested
        levels.append(replace(template, encoder=_optional(encoder), decoder=_optional(decoder)))
        nested = inside
    return tuple(levels), StageConfig(nested[0])


def write_nested(levels: tuple[LevelConfig, ...], main: StageConfig) -> Nested:
    """Return the nested layout of levels and main stage."""
    nested: Nested = [main.layout]
    for level in reversed(levels):
        encoder, decoder = (stage.layout if stage else "" for stage in (level.encoder, level.decoder))
        nested = [encoder, nested, decoder]
    return nested


def _optional(layout: str) -> StageConfig | None:
    return StageConfig(layout) if layout else None
