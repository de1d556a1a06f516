"""Windows of a text, and the facts about them that no model changes: documents, sources, edges of references.

Made once and used for every model that reads the same tokens, since Unicode's sentences take longer than a model.

Shapes: L tokens of a window, N bytes of a document's part of it, D documents.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from niblick.boundaries.cuts import Integers, Reader, Row
from niblick.boundaries.references import CONTEXT_BYTES, Bools, Reference
from niblick.data.dataset import Split
from niblick.errors import DataError


@dataclass(frozen=True)
class Piece:
    """A document's part of a window."""

    window: int
    begin: int
    """First byte in the window's bytes."""
    end: int
    source: str
    """Where the document comes from; empty if nobody recorded it."""
    edges: dict[str, Bools] = field(repr=False)
    """Edges of each reference, (N,). The first byte is none: every model starts a chunk there."""


@dataclass(frozen=True)
class Sample:
    """Windows of a stream of tokens."""

    starts: tuple[int, ...]
    """Stream position of each."""
    windows: tuple[Integers, ...]
    pieces: tuple[Piece, ...]


def window_starts(tokens: int, count: int, length: int) -> list[int]:
    """Return the stream positions of `count` windows, of those that contiguous scoring makes, spread evenly.

    Raises DataError if one window is longer than the stream; there may be fewer windows than asked for.
    """
    whole = tokens // length
    if not whole:
        raise DataError(
            f"a window of {length:,} tokens is longer than the data, which has {tokens:,}: "
            "make --window shorter or prepare more documents"
        )
    chosen = np.linspace(0, whole - 1, min(count, whole)).round().astype(int)
    return (length * np.unique(chosen)).tolist()


def make_sample(
    reader: Reader,
    split: Split,
    count: int,
    length: int,
    references: Mapping[str, Reference],
    sources: list[str] | None = None,
) -> Sample:
    """Take `count` windows of `length` tokens and find the edges in them. `sources` are the manifest's.

    Raises DataError for a split shorter than a window.
    """
    starts = window_starts(split.tokens, count, length)
    windows = [split.slice(start, length).astype(np.int64) for start in starts]
    pieces = []
    for number, (start, row) in enumerate(zip(starts, map(reader.layout, windows), strict=True)):
        parts = row.documents()
        for place, (begin, end) in enumerate(parts):
            before = _before(reader, split, start) if place == 0 and row.size_L[0] else b""
            after = _after(reader, split, start + length) if place == len(parts) - 1 else b""
            whole, first = before + row.data[begin:end] + after, len(before)
            edges = {name: edge(whole)[first : first + end - begin].copy() for name, edge in references.items()}
            for edge_N in edges.values():
                edge_N[:1] = False
            pieces.append(Piece(number, begin, end, _source(split, start, row, begin, sources or []), edges))
    return Sample(tuple(starts), tuple(windows), tuple(pieces))


def _before(reader: Reader, split: Split, start: int) -> bytes:
    """The end of the document that goes on at `start`, at most CONTEXT_BYTES tokens of it."""
    tokens = split.slice(max(0, start - CONTEXT_BYTES), min(start, CONTEXT_BYTES))
    texts = [reader.pieces[token] for token in tokens.tolist()]
    controls = [i for i, text in enumerate(texts) if not text]
    return b"".join(texts[controls[-1] + 1 :] if controls else texts)


def _after(reader: Reader, split: Split, end: int) -> bytes:
    """How the document goes on at `end`, at most CONTEXT_BYTES tokens of it."""
    texts = [reader.pieces[token] for token in split.slice(end, min(CONTEXT_BYTES, split.tokens - end)).tolist()]
    return b"".join(texts[: texts.index(b"")] if b"" in texts else texts)


def _source(split: Split, start: int, row: Row, begin: int, sources: list[str]) -> str:
    """Source of the document that holds byte `begin` of the row."""
    if split.index is None:
        return ""
    real = np.flatnonzero((row.begin_L >= begin) & (row.size_L > 0))
    position = start + (int(real[0]) if len(real) else 0)
    document = int(np.searchsorted(split.index["offset"], position, "right")) - 1
    number = int(split.index["source"][document])
    return sources[number] if number < len(sources) else "other sources"
