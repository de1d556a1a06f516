"""All figures about the boundaries of a model over a sample of windows, level by level.

Shapes: L tokens of a row, N bytes of a document's part of one, C chunks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from niblick.boundaries.cuts import Row, row_chunks
from niblick.boundaries.metrics import (
    Agreement,
    AgreementFacts,
    CommonChunk,
    CutOff,
    Integers,
    agreement,
    beside_whitespace,
    chunk_lengths,
    common_chunks,
    histogram,
    inside_characters,
    script,
    truncated,
    variation,
)
from niblick.boundaries.references import Bools
from niblick.boundaries.sample import Piece, Sample
from niblick.boundaries.surprisal import Surprisal, surprisal
from niblick.facts.record import Record

DIVISORS = (2, 4, 8)
"""Caps of L // k chunks that are tried on what a level found."""
COMMON = 20
"""So many of the most frequent chunks are named."""


T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Both(Record, Generic[T]):
    """A figure about lengths, in tokens and in bytes."""

    tokens: T
    bytes: T


@dataclass(frozen=True, kw_only=True)
class Inside(Record):
    """Boundaries inside characters, and their share of all; None without boundaries."""

    count: int
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Agreements(Record):
    """How boundaries agree with whitespace, with characters, and with every reference."""

    whitespace_agreement: float | None
    inside_characters: Inside
    references: Mapping[str, AgreementFacts]


@dataclass(frozen=True, kw_only=True)
class Group(Record):
    """The main figures of one kind of text."""

    name: str
    bytes: int
    mean_length_bytes: float | None
    whitespace_agreement: float | None
    inside_characters: Inside
    f1: Mapping[str, float | None]
    excess: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Level(Record):
    """All figures of one level."""

    level: int
    boundaries_per_window: float
    boundaries_per_window_deviation: float
    mean_length: Both[float]
    variation: Both[float | None]
    histogram: Both[Mapping[int, int]]
    whitespace_agreement: float | None
    inside_characters: Inside
    references: Mapping[str, AgreementFacts]
    surprisal: Surprisal | None
    truncated: Mapping[str, float | CutOff]
    """`dropped`: the share of boundaries that were past the model's own cap. `L//k`: what such a cap would cut off."""
    common: tuple[CommonChunk, ...]
    sources: tuple[Group, ...]
    scripts: tuple[Group, ...]

    @property
    def dropped(self) -> float:
        """The share of boundaries that were past the model's own cap."""
        value = self.truncated["dropped"]
        assert isinstance(value, float | int)
        return value

    @property
    def caps(self) -> dict[str, CutOff]:
        """What caps that were tried would cut off, by their names."""
        return {name: each for name, each in self.truncated.items() if isinstance(each, CutOff)}


def measure(rows: Sequence[Row], sample: Sample) -> list[Level]:
    """Return what is to be said of each level, outermost first.

    Rows are the sample's windows, read by a model. The first position of a window and what follows a BOS are
    boundaries whatever a model does: they count as chunks, but not in agreement with anything.
    """
    return [level_facts(rows, sample, level) for level in range(len(rows[0].levels))]


def level_facts(rows: Sequence[Row], sample: Sample, level: int) -> Level:
    """Return the figures of one level."""
    decisions = [row.levels[level] for row in rows]
    counts = [int(d.boundary_L.sum()) for d in decisions]
    tokens_C = np.concatenate([chunk_lengths(d.boundary_L) for d in decisions])
    bytes_C = np.concatenate([_bytes_of_chunks(row, level) for row in rows])
    parts = list(_parts(rows, sample, level))
    found, seen = [d.found for d in decisions], [d.seen for d in decisions]
    agreements = _agreements(parts, sample)
    texts = (row.data[c.start : c.end] for row in rows for c in row_chunks(row, level))
    return Level(
        level=level,
        boundaries_per_window=float(np.mean(counts)),
        boundaries_per_window_deviation=float(np.std(counts)),
        mean_length=Both(tokens=float(tokens_C.mean()), bytes=float(bytes_C.mean())),
        variation=Both(tokens=variation(tokens_C), bytes=variation(bytes_C)),
        histogram=Both(tokens=histogram(tokens_C), bytes=histogram(bytes_C)),
        whitespace_agreement=agreements.whitespace_agreement,
        inside_characters=agreements.inside_characters,
        references=agreements.references,
        surprisal=surprisal(rows, level),
        truncated={
            "dropped": sum(d.dropped for d in decisions) / max(sum(found), 1),
            **{f"L//{k}": truncated(found, seen, k) for k in DIVISORS},
        },
        common=tuple(common_chunks(texts, COMMON)),
        sources=_groups(parts, sample, lambda piece, data: piece.source),
        scripts=_groups(parts, sample, lambda piece, data: script(data)),
    )


Part = tuple[Piece, bytes, Bools, Bools]
"""A document's part of a window: its bytes, where chunks start in it, and where they could."""


def _parts(rows: Sequence[Row], sample: Sample, level: int) -> Iterator[Part]:
    arrays = [(row.boundary_N(level), ~row.undecided_N()) for row in rows]
    for piece in sample.pieces:
        boundary_N, place_N = arrays[piece.window]
        here = slice(piece.begin, piece.end)
        yield piece, rows[piece.window].data[here], boundary_N[here], place_N[here]


def _bytes_of_chunks(row: Row, level: int) -> Integers:
    """Bytes of each chunk of a row; a chunk of control tokens alone has none and is left out."""
    start_C = np.flatnonzero(row.levels[level].boundary_L)
    length_C = np.diff(row.begin_L[start_C], append=len(row.data))
    return length_C[length_C > 0]


def _agreements(parts: list[Part], sample: Sample) -> Agreements:
    """Whitespace agreement, boundaries inside characters, and agreement with every reference."""
    decided = [(data, boundary_N & place_N) for _, data, boundary_N, place_N in parts]
    boundaries = sum(int(boundary_N.sum()) for _, boundary_N in decided)
    beside = sum(beside_whitespace(data, boundary_N) for data, boundary_N in decided)
    within = sum(inside_characters(data, boundary_N) for data, boundary_N in decided)
    names = sample.pieces[0].edges if sample.pieces else ()
    return Agreements(
        whitespace_agreement=beside / boundaries if boundaries else None,
        inside_characters=Inside(count=within, share=within / boundaries if boundaries else None),
        references={
            name: sum((agreement(b, piece.edges[name], p) for piece, _, b, p in parts), Agreement()).facts()
            for name in names
        },
    )


def _groups(parts: list[Part], sample: Sample, key: Callable[[Piece, bytes], str]) -> tuple[Group, ...]:
    """The main figures by some kind of text, the most bytes first."""
    groups: dict[str, list[Part]] = defaultdict(list)
    for part in parts:
        groups[key(part[0], part[1])].append(part)
    result = []
    for name, those in groups.items():
        size = sum(len(data) for _, data, _, _ in those)
        chunks = sum(int(boundary_N.sum()) for _, _, boundary_N, _ in those)
        facts = _agreements(those, sample)
        result.append(
            Group(
                name=name,
                bytes=size,
                mean_length_bytes=size / chunks if chunks else None,
                whitespace_agreement=facts.whitespace_agreement,
                inside_characters=facts.inside_characters,
                f1={name: each.f1 for name, each in facts.references.items()},
                excess={name: each.excess for name, each in facts.references.items()},
            )
        )
    return tuple(sorted(result, key=lambda group: -group.bytes))
