"""One level of an H-Net: encoder, router, residual projection and decoder around an inside that sees chunks.

    x ─ encoder ─┬─ residual ─────────────────────────────┬─ decoder ─▶
                 └─ router ─ select ─ inside ─ dechunk ───┘

The inside may be wider: chunk states are then padded by a learned vector, and cut again on the way up (paper, Section
2.3).

Shapes: B batch, L positions, C chunks, D width, S chunks of all rows; in steps R rows that take part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niblick.errors import ConfigError
from niblick.model.chunking import (
    P_EPS,
    binomial_loss,
    confidence,
    decay,
    entropy,
    expand,
    ratio_loss,
    scale_gradient,
    select,
    smooth,
    square_ratio_loss,
    straight_through,
)
from niblick.model.model_config import BlockConfig, LevelConfig, StageConfig
from niblick.model.plain_routers import Routing, SoftRouter, before, blend
from niblick.model.routers import ROUTERS, route, route_step
from niblick.model.stage import Packing, Passthrough, Stage, StageState
from niblick.model.varlen import available, make_segments

RATIO_LOSSES: dict[str, Callable[..., Tensor]] = {
    "paper": ratio_loss,
    "square": square_ratio_loss,
    "binomial": binomial_loss,
}


def level_loss(level: Level | SoftLevel, routing: Routing, aim: float, cost_BL: Tensor) -> tuple[Tensor, Tensor]:
    """Return a level's ratio loss, unweighted, and all that it adds to the training loss.

    `aim` is the chunk length that is asked for now; `cost_BL` is each position's part of the model's loss.
    """
    config = level.config
    router: Any = level.router
    ratio = RATIO_LOSSES[config.ratio](routing.p_BL, routing.boundary_BL, aim, routing.length_B)
    total = config.ratio_weight * ratio
    if config.entropy_weight:
        total = total - config.entropy_weight * entropy(routing.p_BL, routing.length_B)
    if hasattr(router, "loss"):
        total = total + config.router_weight * router.loss(routing, cost_BL, aim)
    return ratio, total


def inner_costs(level: Level | SoftLevel, routing: Routing, cost_BL: Tensor, inside: int) -> Tensor:
    """Return what the positions that a level's inside sees cost: the sum over each chunk, (B, inside)."""
    if isinstance(level, SoftLevel):
        return cost_BL
    chunk_BL = (kept(routing).cumsum(1) - 1).clamp_max(inside - 1)
    return cost_BL.new_zeros(len(cost_BL), inside).scatter_add(1, chunk_BL, cost_BL)


def at_starts(routing: Routing, x_BL: Tensor) -> Tensor:
    """Return the values of x at the positions that chunks start at in front, (B, L), and 0 behind them."""
    kept_BL = kept(routing)
    slot_BL = torch.where(kept_BL, kept_BL.cumsum(1) - 1, x_BL.shape[1])
    return F.pad(torch.zeros_like(x_BL), (0, 1)).scatter(1, slot_BL, x_BL)[:, :-1]


class Passage(NamedTuple):
    """Tensors that a level keeps on the way down for the way up."""

    encoded_BLD: Tensor
    routing: Routing
    start_BC: Tensor
    """Position each chunk starts at."""
    packed_BC: Tensor | None = None
    """Where each chunk stands in the packed sequence; None if rows are not packed."""

    def rows(self, chunks_BCD: Tensor) -> Tensor:
        """Return the inside's states row by row, (B, C, D), where they are packed."""
        return chunks_BCD if self.packed_BC is None else chunks_BCD[0, self.packed_BC]


@dataclass
class LevelState:
    """Inference state of a level: its stages, its router, and the state of the current chunk."""

    encoder: StageState
    decoder: StageState
    router: Any
    chunk_BD: Tensor
    """Dechunked state of the last position."""
    chunks_B: Tensor
    """Chunks started so far."""
    capacity: int | None
    """Chunks that a row may have."""
    smooth_BD: Tensor | None = None
    """The moving average over the level's own positions, where it runs over them."""


def _stage(config: StageConfig | None, block: BlockConfig) -> Stage | Passthrough:
    return Stage(config, block) if config else Passthrough()


class Level(nn.Module):
    """Encoder, router, residual projection and decoder of one level. `down` and `up` are the two halves of its work."""

    def __init__(self, config: LevelConfig, model: BlockConfig, inner_width: int) -> None:
        super().__init__()
        self.config = config
        block = config.block_config(model)
        self.width = block.width
        self.encoder = _stage(config.encoder, block)
        self.router = ROUTERS[config.router](self.width, config.target_length)
        self.residual = nn.Linear(self.width, self.width, bias=config.residual_bias)
        self.decoder = _stage(config.decoder, block)
        self.pad = nn.Parameter(torch.zeros(inner_width - self.width)) if inner_width > self.width else None
        self.decay = nn.Parameter(torch.zeros(self.width)) if config.dechunk == "decay" else None
        nn.init.zeros_(self.residual.weight)
        if config.residual_bias:
            nn.init.zeros_(self.residual.bias)

    def down(
        self,
        x_BLD: Tensor,
        length_B: Tensor | None,
        given_BL: Tensor | None = None,
        sizes: list[int] | None = None,
        aim: float | None = None,
    ) -> tuple[Tensor, Packing | None, Passage]:
        """Encode and chunk. Returns the chunks (B, C, D), or (1, S, D) with how they are packed, and the passage.

        `sizes`, ascending, are the numbers of chunks a row may be given room for; None for multiples of the bucket.
        In training `aim` is the chunk length that is asked for now.
        """
        encoded_BLD = self.encoder(x_BLD)
        routing = route(self.router, encoded_BLD, length_B, given_BL, aim)
        L, divisor = x_BLD.shape[1], self.config.divisor
        packing: Packing | None = None
        if self.config.capacity == "packed":
            chunks_BCD, packing, passage = self._pack(encoded_BLD, routing, sizes)
        else:
            if divisor is not None:
                chunks = max(1, L // divisor)
                routing = Routing(routing.p_BL, routing.boundary_BL, length_B, chunks)
            else:
                chunks = self._rounded(int(routing.chunks_B().max()), L, sizes)
            chunks_BCD, start_BC = select(self._pooled(encoded_BLD, routing), routing.boundary_BL, chunks)
            passage = Passage(encoded_BLD, routing, start_BC)
        return self._widen(scale_gradient(chunks_BCD, 1 / self.config.lr_diff)), packing, passage

    def _pooled(self, encoded_BLD: Tensor, routing: Routing) -> Tensor:
        """Return what chunks are selected from: states as they are, or their average weighed by confidence."""
        if self.config.dechunk != "input":
            return encoded_BLD
        return smooth(encoded_BLD, confidence(routing.p_BL, routing.boundary_BL)).to(encoded_BLD.dtype)

    def _rounded(self, chunks: int, most: int, sizes: list[int] | None) -> int:
        bucket = self.config.bucket
        room = -(-chunks // bucket) * bucket if sizes is None else next((s for s in sizes if s >= chunks), most)
        return min(room, most)

    def _widen(self, x_D: Tensor) -> Tensor:
        """Pad states by the learned vector where the inside is wider."""
        if self.pad is None:
            return x_D
        return torch.cat((x_D, self.pad.to(x_D.dtype).expand(*x_D.shape[:-1], -1)), -1)

    def _pack(self, encoded_BLD: Tensor, routing: Routing, sizes: list[int] | None) -> tuple[Tensor, Packing, Passage]:
        """Put all rows' chunks one behind the other, as one row (1, S, D)."""
        B, L, D = encoded_BLD.shape
        count_B = routing.chunks_B()
        end_B = count_B.cumsum(0)
        most, total = torch.stack((count_B.max(), end_B[-1])).tolist()  # in one copy: the host waits once
        chunks = self._rounded(most, L, sizes)
        size = self._rounded(total, B * L, [size * B for size in sizes] if sizes else None)
        pooled_BLD = self._pooled(encoded_BLD, routing)
        packed_1SD, start_1S = select(pooled_BLD.reshape(1, B * L, D), routing.boundary_BL.reshape(1, -1), size)
        index_S = torch.arange(size, device=encoded_BLD.device)
        row_S = torch.searchsorted(end_B, index_S, right=True)  # what fills up the bucket is a row B of its own
        first_B = F.pad(end_B, (1, 0))
        slot_BC = first_B[:-1, None] + torch.arange(chunks, device=encoded_BLD.device)
        slot_BC = slot_BC.clamp_max(size - 1)  # of chunks that a row does not have; nothing is read there
        passage = Passage(encoded_BLD, routing, start_1S[0, slot_BC] % L, slot_BC)
        longest = sizes[-1] if sizes else L  # sizes end in the whole sequence, the same for every batch
        segments = make_segments(end_B, size, longest) if available(encoded_BLD) else None
        return packed_1SD, Packing(row_S, index_S - first_B[row_S], segments), passage

    def up(self, chunks_BCD: Tensor, passage: Passage, last: int | None = None) -> Tensor:
        """Dechunk, add the encoder's output through the residual projection, decode. Returns (B, L, D).

        With `last`, only so many positions at the end, and nothing is computed that they do not need.
        """
        encoded_BLD, routing = passage.encoded_BLD, passage.routing
        chunks_BCD = passage.rows(chunks_BCD)
        length = encoded_BLD.shape[1]
        needed = None if last is None else self.decoder.needs(length, last)
        if needed is not None:
            encoded_BLD = encoded_BLD[:, -needed:]
        spread_BLD = self.dechunk(chunks_BCD[..., : self.width], passage.start_BC, routing, needed)
        if self.config.confidence:
            gate_BL1 = straight_through(confidence(routing.p_BL, routing.boundary_BL))[:, -(needed or 0) :, None]
            spread_BLD = gate_BL1 * spread_BLD
        x_BLD = spread_BLD.to(encoded_BLD.dtype) + self.residual(encoded_BLD)
        x_BLD = scale_gradient(x_BLD, self.config.lr_diff)
        return self.decoder(x_BLD, last=last, start=0 if needed is None else length - needed)

    def inner_last(self, passage: Passage, last: int | None) -> int | None:
        """Return how many chunks at the end are needed where `last` positions at the end are wanted; None: all.

        The moving average takes in every chunk before a position; without it a position has its own chunk alone.
        """
        length = passage.encoded_BLD.shape[1]
        if last is None or self.config.dechunk == "smooth" or passage.packed_BC is not None:
            return None
        needed = self.decoder.needs(length, last)
        first_B = kept(passage.routing).cumsum(1)[:, length - needed] - 1
        return passage.start_BC.shape[1] - int(first_B.min())

    def dechunk(self, chunks_BCD: Tensor, start_BC: Tensor, routing: Routing, last: int | None = None) -> Tensor:
        """Give each position, or the last `last`, its chunk's state, as `dechunk` says: (B, C, D) to (B, L, D)."""
        if self.config.dechunk == "smooth":
            p_BC = routing.p_BL.gather(1, start_BC)
            return expand(smooth(chunks_BCD, p_BC), routing.boundary_BL, last)
        kept_BL, left_out = kept(routing), start_BC.shape[1] - chunks_BCD.shape[1]
        spread_BLD = expand(chunks_BCD, kept_BL, last, left_out)
        return spread_BLD if self.decay is None else decay(spread_BLD, kept_BL, F.logsigmoid(self.decay))

    def new_state(self, rows: int, like: Tensor, context: int | None) -> LevelState:
        """Return the state before the first position; `context` is the L that a divisor's capacity is taken from."""
        divisor = self.config.divisor
        return LevelState(
            self.encoder.new_state(rows, like),
            self.decoder.new_state(rows, like),
            _router_state(self.router, self.config.router, rows, like),
            like.new_zeros(rows, self.width),
            torch.zeros(rows, dtype=torch.long, device=like.device),
            None if divisor is None or context is None else max(1, context // divisor),
            like.new_zeros(rows, self.width) if self.config.dechunk == "input" else None,
        )

    def step_down(
        self, x_RD: Tensor, state: LevelState, rows_R: Tensor, given_R: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One position down. Returns the encoder's output, p and boundary of each row, and what the inside would see.

        The last is (R, D) whether a chunk starts or not, so that no shape depends on what was decided.
        """
        encoded_RD = self.encoder.step(x_RD, state.encoder, rows_R)
        p_R, boundary_R = route_step(self.router, encoded_RD, state.router, rows_R, given_R)
        pooled_RD = encoded_RD
        if state.smooth_BD is not None:
            c_R1 = confidence(p_R, boundary_R).to(encoded_RD.dtype).clamp(P_EPS, 1 - P_EPS)[:, None]
            c_R1 = torch.where(state.chunks_B[rows_R, None] == 0, 1.0, c_R1)  # every row starts with a chunk
            pooled_RD = c_R1 * encoded_RD + (1 - c_R1) * state.smooth_BD[rows_R]
            state.smooth_BD[rows_R] = pooled_RD
        if state.capacity is not None:
            boundary_R = boundary_R & (state.chunks_B[rows_R] < state.capacity)
        return encoded_RD, p_R, boundary_R, self._widen(pooled_RD)

    def step_up(
        self, inside_RD: Tensor, state: LevelState, rows_R: Tensor, encoded_RD: Tensor, p_R: Tensor, boundary_R: Tensor
    ) -> Tensor:
        """One position up: take in what came from the inside where chunks start, decode. Returns (R, D)."""
        before_RD = state.chunk_BD[rows_R]
        chunk_RD = inside_RD[:, : self.width].to(before_RD.dtype)
        if self.decay is not None:
            before_RD = before_RD * torch.sigmoid(self.decay)
        elif self.config.dechunk == "smooth":
            p_R1 = p_R.to(chunk_RD.dtype).clamp(P_EPS, 1 - P_EPS)[:, None]
            p_R1 = torch.where(state.chunks_B[rows_R, None] == 0, 1.0, p_R1)
            chunk_RD = p_R1 * chunk_RD + (1 - p_R1) * before_RD
        chunk_RD = torch.where(boundary_R[:, None], chunk_RD, before_RD)
        state.chunk_BD[rows_R] = chunk_RD
        state.chunks_B[rows_R] += boundary_R
        return self.decoder.step(chunk_RD.to(encoded_RD.dtype) + self.residual(encoded_RD), state.decoder, rows_R)


def kept(routing: Routing) -> Tensor:
    """Return the boundaries that the capacity has room for, (B, L)."""
    if routing.capacity is None:
        return routing.boundary_BL
    return routing.boundary_BL & (routing.boundary_BL.cumsum(1) <= routing.capacity)


def _router_state(router: Any, name: str, rows: int, like: Tensor) -> Any:
    if not hasattr(router, "step"):
        raise ConfigError(f"router {name!r} has no `new_state` and `step`: it trains and scores, but cannot step")
    return router.new_state(rows, like)


class SoftLevel(nn.Module):
    """A level that cuts nothing: each position blends with the one before it, then a linear map (the soft chunker).

    The inside has as many positions as the outside; there is nothing to dechunk.
    """

    def __init__(self, config: LevelConfig, model: BlockConfig, inner_width: int) -> None:
        super().__init__()
        self.config = config
        block = config.block_config(model)
        self.width = block.width
        self.encoder = _stage(config.encoder, block)
        self.router = cast(SoftRouter, ROUTERS[config.router](self.width, config.target_length))
        self.mixer = nn.Linear(self.width, self.width)
        self.decoder = _stage(config.decoder, block)

    def down(
        self,
        x_BLD: Tensor,
        length_B: Tensor | None,
        given_BL: Tensor | None = None,
        sizes: list[int] | None = None,
        aim: float | None = None,
    ) -> tuple[Tensor, Packing | None, Passage]:
        """Encode, blend, mix. Returns what the inside sees, no packing, and the passage."""
        x_BLD = self.encoder(x_BLD)
        before_BLD = before(x_BLD)
        b_BL = self.router.probability(before_BLD, x_BLD)
        routing = Routing(b_BL, (b_BL >= 0.5), length_B)
        start_BL = torch.arange(x_BLD.shape[1], device=x_BLD.device).expand(b_BL.shape)
        return self.mixer(blend(x_BLD, before_BLD, b_BL)), None, Passage(x_BLD, routing, start_BL)

    def inner_last(self, passage: Passage, last: int | None) -> int | None:
        """Return how many positions at the end of the inside are needed where `last` are wanted; None: all."""
        return None if last is None else self.decoder.needs(passage.encoded_BLD.shape[1], last)

    def up(self, x_BLD: Tensor, passage: Passage, last: int | None = None) -> Tensor:
        """Decode what comes from the inside. Where only the `last` positions are wanted, only those are computed."""
        return self.decoder(x_BLD, last=last, start=passage.encoded_BLD.shape[1] - x_BLD.shape[1])

    def new_state(self, rows: int, like: Tensor, context: int | None) -> LevelState:
        """Return the state before the first position."""
        return LevelState(
            self.encoder.new_state(rows, like),
            self.decoder.new_state(rows, like),
            self.router.new_state(rows, like),
            like.new_zeros(rows, self.width),
            torch.zeros(rows, dtype=torch.long, device=like.device),
            None,
        )

    def step_down(
        self, x_RD: Tensor, state: LevelState, rows_R: Tensor, given_R: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """One position down; every row goes on to the inside."""
        x_RD = self.encoder.step(x_RD, state.encoder, rows_R)
        first_R1 = state.router.place_B[rows_R, None] == 0
        before_RD = torch.where(first_R1, x_RD, state.router.past_BKD[rows_R, 0])
        state.router.past_BKD[rows_R, 0] = x_RD
        state.router.place_B[rows_R] += 1
        b_R = self.router.probability(before_RD, x_RD)
        return x_RD, b_R, torch.ones_like(rows_R, dtype=torch.bool), self.mixer(blend(x_RD, before_RD, b_R))

    def step_up(
        self, x_RD: Tensor, state: LevelState, rows_R: Tensor, encoded_RD: Tensor, p_R: Tensor, boundary_R: Tensor
    ) -> Tensor:
        """One position up."""
        return self.decoder.step(x_RD, state.decoder, rows_R)
