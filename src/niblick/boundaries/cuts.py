"""What the routers decided on a text, level by level: as arrays over its tokens and its bytes, and as chunks.

Shapes: B batch, L tokens of a row, C positions that a level sees, N bytes of a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from niblick.boundaries.compute import position_costs
from niblick.data.tokenizers import ByteTokenizer, Tokenizer
from niblick.errors import ConfigError, DataError, kind_of
from niblick.model.level import kept
from niblick.model.lm import LM
from niblick.model.plain_routers import Routing

Bools = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PUBLISHED_SENTENCE = (
    "The quick brown fox jumps over the lazy dog. "
    "Natural language processing has made remarkable progress in recent years."
)
"""The sentence that study 1 shows before and after training."""

BATCH_TOKENS = 16_384
"""Tokens that a model reads at once."""


@dataclass(frozen=True)
class Chunk:
    """One chunk of a text."""

    text: str
    """Its bytes as text; bytes that are only part of a character, or of none, are shown escaped."""
    start: int
    """First byte in the text."""
    end: int
    """First byte after it."""
    p: float
    """Boundary probability at its first token."""
    level: int = 0
    """The level that cut it; 0 is the outermost."""


@dataclass(frozen=True)
class Decisions:
    """One level's decisions on one row."""

    boundary_L: Bools
    """True at the tokens where a chunk starts, as far as the level's capacity has room for it."""
    p_L: Floats
    """Boundary probability; NaN at tokens that the level does not see, which start no chunk of the level outside."""
    found: int
    """Boundaries before any capacity."""
    seen: int
    """Positions that the level sees."""

    @property
    def dropped(self) -> int:
        """Boundaries that the capacity has no room for."""
        return self.found - int(self.boundary_L.sum())


@dataclass(frozen=True)
class Row:
    """A row of tokens as a model read it."""

    ids_L: Integers
    data: bytes
    """The bytes that the tokens stand for."""
    begin_L: Integers
    """First byte of each token; where a control token stands, which has none."""
    size_L: Integers
    """Bytes of each token."""
    levels: tuple[Decisions, ...]
    nats_L: Floats | None = None
    """What each token cost, if that was asked for; NaN for the first, which nothing predicts."""
    spent_L: Floats | None = None
    """Multiply-adds that the model spends on each token, on its way to the next, if that was asked for."""

    def boundary_N(self, level: int = 0) -> Bools:
        """Return the bytes where chunks start. A chunk that starts with a control token starts at the byte after it."""
        at = self.begin_L[self.levels[level].boundary_L]
        boundary_N = np.zeros(len(self.data) + 1, bool)
        boundary_N[at] = True
        return boundary_N[:-1]

    def p_N(self, level: int = 0) -> Floats:
        """Return the boundary probability at the first byte of each token that the level sees; NaN elsewhere."""
        p_N = np.full(len(self.data), np.nan)
        real_L = self.size_L > 0
        p_N[self.begin_L[real_L]] = self.levels[level].p_L[real_L]
        return p_N

    def undecided_N(self) -> Bools:
        """Return the bytes where no decision was made: inside tokens, at the row's start, after control tokens."""
        decided_N = np.zeros(len(self.data) + 1, bool)
        decided_N[self.begin_L[self.size_L > 0]] = True
        decided_N[0] = False
        decided_N[self.begin_L[self.size_L == 0]] = False
        return ~decided_N[:-1]

    def documents(self) -> list[tuple[int, int]]:
        """Return the first byte of each document's part of the row, and the byte after it."""
        cuts = sorted({0, *self.begin_L[self.size_L == 0].tolist(), len(self.data)})
        return list(itertools.pairwise(cuts))


class Reader:
    """A model with a router and its tokenizer, in evaluation mode: reads rows of tokens and tells its decisions."""

    def __init__(self, model: LM, tokenizer: Tokenizer) -> None:
        """Raises ConfigError for a model without a router."""
        if not model.config.levels:
            raise ConfigError("this model is dense: it has no router, so it has no chunks")
        if model.config.levels[0].router == "soft":
            raise ConfigError("this model's router is soft: it blends neighbours and cuts no chunks")
        self.model, self.tokenizer = model.eval(), tokenizer
        self.pieces = tokenizer.pieces()
        self.device = next(model.parameters()).device
        self.costs = position_costs(model)

    def encode(self, text: str | bytes) -> Integers:
        """Return the tokens of a text after BOS. Bytes need not be UTF-8 where tokens are bytes.

        Raises DataError for an empty text, and for one that the tokenizer cannot read.
        """
        return encode_text(text, self.tokenizer)

    def read(self, rows: Sequence[npt.NDArray[Any]], *, costs: bool = False) -> list[Row]:
        """Read rows of tokens, each by itself; `costs` asks for what each token costs as well."""
        found: list[Row] = []
        longest = max(map(len, rows), default=1)
        at_once = max(1, BATCH_TOKENS // longest)
        for begin in range(0, len(rows), at_once):
            found += self._batch([np.asarray(row, np.int64) for row in rows[begin : begin + at_once]], costs)
        return found

    @torch.no_grad()
    def _batch(self, rows: list[Integers], costs: bool) -> list[Row]:
        lengths = [len(row) for row in rows]
        ids_BL = torch.zeros(len(rows), max(lengths), dtype=torch.long)
        for i, row in enumerate(rows):
            ids_BL[i, : len(row)] = torch.from_numpy(row)
        ids_BL = ids_BL.to(self.device)
        length_B = torch.tensor(lengths, device=self.device) if len({*lengths}) > 1 else None
        hidden_BLD, routings = self.model.hidden(ids_BL, length_B=length_B)
        nats_BL = None
        if costs and ids_BL.shape[1] > 1:
            nats_BL = self.model.token_losses(hidden_BLD[:, :-1], ids_BL[:, 1:]).double().cpu().numpy()
        spread = _spread(routings, ids_BL.shape[1])
        return [self._row(row, i, spread, nats_BL) for i, row in enumerate(rows)]

    def layout(self, ids_L: Integers) -> Row:
        """Return a row of tokens with its bytes, without asking the model: it has no levels."""
        texts = [self.pieces[token] for token in ids_L.tolist()]
        for t in range(1, len(ids_L)):
            if not self.pieces[ids_L[t - 1]] and texts[t]:
                texts[t] = self.tokenizer.decode(ids_L[t : t + 1])  # may lose its space after a control token
        size_L = np.array([len(text) for text in texts], np.int64)
        return Row(ids_L, b"".join(texts), np.cumsum(size_L) - size_L, size_L, ())

    def _row(self, ids_L: Integers, i: int, spread: list[tuple[Any, ...]], nats_BL: Any) -> Row:
        L = len(ids_L)
        levels = tuple(
            Decisions(boundary_BL[i, :L], p_BL[i, :L].astype(np.float64), int(found_B[i]), int(seen_B[i]))
            for boundary_BL, p_BL, found_B, seen_B in spread
        )
        nats_L = np.concatenate(([np.nan], nats_BL[i, : L - 1])) if nats_BL is not None else None
        spent_L = None
        if nats_BL is not None:
            first, *inside = self.costs
            spent_L = np.full(L, float(first))
            for cost, decisions in zip(inside, levels, strict=True):
                spent_L += cost * decisions.boundary_L
        return replace(self.layout(ids_L), levels=levels, nats_L=nats_L, spent_L=spent_L)


def _spread(routings: list[Routing], length: int) -> list[tuple[Any, ...]]:
    """Bring the decisions of all levels back to tokens: boundary_BL, p_BL, found_B and seen_B of each.

    A level's positions are the chunks of the level outside it, in their order.
    """
    result = []
    rows = len(routings[0].p_BL)
    place_BC = torch.arange(length).expand(rows, length)  # token that each position of the level stands at
    count_B = torch.full((rows,), length)
    if routings[0].length_B is not None:
        count_B = routings[0].length_B.cpu()
    for routing in routings:
        kept_BC, p_BC = kept(routing).cpu(), routing.p_BL.float().cpu()
        most = min(place_BC.shape[1], p_BC.shape[1])
        valid_BC = torch.arange(most) < count_B[:, None]
        kept_BC, p_BC, here_BC = kept_BC[:, :most] & valid_BC, p_BC[:, :most], place_BC[:, :most]
        boundary_BL = torch.zeros(rows, length, dtype=torch.bool).scatter(1, here_BC, kept_BC & valid_BC)
        p_BL = torch.full((rows, length + 1), float("nan"))
        p_BL.scatter_(1, torch.where(valid_BC, here_BC, length), p_BC)  # what fills up goes where nobody looks
        result.append(
            (boundary_BL.numpy(), p_BL[:, :-1].numpy(), routing.boundary_BL.sum(1).cpu().numpy(), count_B.numpy())
        )
        place_BC, count_B = _starts(boundary_BL), boundary_BL.sum(1)
    return result


def _starts(boundary_BL: Tensor) -> Tensor:
    """Tokens where chunks start, ascending in each row, in front; what fills up is distinct and of no account."""
    return torch.argsort((~boundary_BL).to(torch.uint8), dim=1, stable=True)


def encode_text(text: str | bytes, tokenizer: Tokenizer) -> Integers:
    """Return BOS and the tokens of a text, int64 (1 + L,). Bytes need not be UTF-8 where tokens are bytes.

    Raises ConfigError for what is no text, DataError for an empty one and for one that the tokenizer cannot read.
    """
    if not isinstance(text, str | bytes):
        raise ConfigError(f"{kind_of(text)} is no text: give str or bytes")
    if not text:
        raise DataError("the text is empty: give at least one character")
    if isinstance(text, bytes) and isinstance(tokenizer, ByteTokenizer):
        tokens = tokenizer.encode_bytes(text).astype(np.int64)
    else:
        tokens = tokenizer.encode_batch([_decoded(text, tokenizer.name)])[0].astype(np.int64)
    return np.concatenate(([tokenizer.bos_id], tokens))


def _decoded(text: str | bytes, name: str) -> str:
    try:
        if isinstance(text, bytes):
            return text.decode()
        text.encode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start} of the text is no UTF-8, and {name} reads text alone: give UTF-8, or ask a byte model"
        ) from error
    except UnicodeEncodeError as error:
        raise DataError(
            f"character {error.start + 1} of the text is {text[error.start]!r}, which UTF-8 cannot hold: take it out"
        ) from error
    return text


def read_text(reader: Reader, text: str | bytes, context: int | None = None, *, costs: bool = False) -> Row:
    """Read a text of any length. What is longer than `context` tokens is read in windows that overlap by half.

    Every decision past the first window then has at least half a context before it. Raises as `Reader.encode`.
    """
    ids_L = reader.encode(text)
    if context is None or len(ids_L) <= context:
        return reader.read([ids_L], costs=costs)[0]
    step = max(1, context // 2)
    begins = list(range(0, len(ids_L) - context + step, step))
    rows = reader.read([ids_L[begin : begin + context] for begin in begins], costs=costs)
    new = [0, *(context - step for _ in begins[1:])]  # what the window before has decided

    def joined(parts: Iterable[Any]) -> Any:
        return np.concatenate([part_L[n:] for part_L, n in zip(parts, new, strict=True)])

    levels = []
    for level in range(len(rows[0].levels)):
        boundary_L = joined(row.levels[level].boundary_L for row in rows)
        p_L = joined(row.levels[level].p_L for row in rows)
        levels.append(Decisions(boundary_L, p_L, int(boundary_L.sum()), int((~np.isnan(p_L)).sum())))
    size_L = joined(row.size_L for row in rows)
    nats_L, spent_L = (
        joined(x) if costs else None for x in zip(*((row.nats_L, row.spent_L) for row in rows), strict=True)
    )
    # A window that begins amid a text has no BOS before it, so sizes and bytes are those of the whole.
    data = reader.tokenizer.decode(ids_L)
    return Row(ids_L, data, np.cumsum(size_L) - size_L, size_L, tuple(levels), nats_L, spent_L)


def row_chunks(row: Row, level: int = 0) -> list[Chunk]:
    """Return the chunks of one level of a row; a control token alone makes none."""
    if not row.data:
        return []
    starts = np.flatnonzero(row.boundary_N(level) | (np.arange(len(row.data)) == 0)).tolist()
    p_N, decided = row.p_N(level), row.levels[level]
    for t in np.flatnonzero(decided.boundary_L)[::-1].tolist():  # where the byte's own token was not asked
        if row.begin_L[t] < len(row.data) and np.isnan(p_N[row.begin_L[t]]):
            p_N[row.begin_L[t]] = decided.p_L[t]
    return [
        Chunk(row.data[begin:end].decode("utf-8", errors="backslashreplace"), begin, end, float(p_N[begin]), level)
        for begin, end in zip(starts, [*starts[1:], len(row.data)], strict=True)
    ]


def chunks(model: LM, tokenizer: Tokenizer, text: str | bytes, context: int | None = None) -> list[Chunk]:
    """Cut `text` as the routers do after a BOS, which itself is no part of a chunk.

    Returns the chunks of the outermost level, then those of the levels inside it. Offsets are bytes of the text as the
    tokenizer gives it back. Raises ConfigError for a model without a router, DataError for a text that is empty or
    that the tokenizer cannot read.
    """
    row = read_text(Reader(model, tokenizer), text, context)
    return [chunk for level in range(len(row.levels)) for chunk in row_chunks(row, level)]
