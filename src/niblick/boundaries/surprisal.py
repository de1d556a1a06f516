"""What tokens cost where chunks start, and how strongly chunks start where text is dear.

Shapes: L tokens of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from niblick.boundaries.cuts import Bools, Floats, Integers, Row
from niblick.facts.record import Record

CLASSES = ("letter", "digit", "space", "other ASCII", "start of a character", "inside a character")
"""Kinds of bytes; the last two are of characters of several bytes."""
_OF_BYTE = np.array(
    [
        5 if 0x80 <= b < 0xC0 else 4 if b >= 0x80 else 0 if chr(b).isalpha() else 1 if chr(b).isdigit()
        else 2 if chr(b).isspace() else 3
        for b in range(256)
    ]
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Cost(Record):
    """What some tokens cost; None where there are none."""

    bits: float
    tokens: int
    bits_per_token: float | None
    bits_per_byte: float | None


@dataclass(frozen=True, kw_only=True)
class ByteClass(Record):
    """Chunks that start with a byte of one class."""

    name: str
    boundaries: float
    """Their share of all chunks."""
    bits: float
    """Their share of all bits that first tokens of chunks take."""
    enrichment: float
    """Mean surprisal of their first tokens over that of all tokens."""


@dataclass(frozen=True, kw_only=True)
class Surprisal(Record):
    """What tokens cost that start a chunk, and those inside one."""

    boundary: Cost
    inside: Cost
    share_of_bits: float | None
    """The share of all bits that boundaries take."""
    enrichment: float | None = None
    """B: mean surprisal of the tokens that chunks start with, over that of all tokens; 1 by chance."""
    enrichment_next: float | None = None
    """The same of the tokens after them, which are predicted where chunks start (as Sombrero counts)."""
    classes: tuple[ByteClass, ...] = ()
    """By the first byte of chunks, most chunks first."""


def surprisal(rows: Sequence[Row], level: int) -> Surprisal | None:
    """Return what tokens cost that start a chunk and those inside one, in bits; None where costs were not asked for.

    Only tokens that stand for bytes count, and no window's first.
    """
    if any(row.nats_L is None for row in rows):
        return None
    bits, start, size, kind, after = (
        np.concatenate(part) for part in zip(*(_row(r, level) for r in rows), strict=True)
    )
    boundary, inside = _cost(bits[start], size[start]), _cost(bits[~start], size[~start])
    total, mean = float(bits.sum()), float(bits.mean()) if len(bits) else 0.0

    def over_mean(chosen: Bools) -> float | None:
        return float(bits[chosen].mean()) / mean if mean and chosen.any() else None

    classes = []
    for number, name in enumerate(CLASSES):
        here = start & (kind == number)
        if here.any() and mean and boundary.bits:
            share = float(bits[here].sum()) / boundary.bits
            b = float(bits[here].mean()) / mean
            classes.append(ByteClass(name=name, boundaries=here.sum() / start.sum(), bits=share, enrichment=b))
    return Surprisal(
        boundary=boundary,
        inside=inside,
        share_of_bits=boundary.bits / total if total else None,
        enrichment=over_mean(start),
        enrichment_next=over_mean(after),
        classes=tuple(sorted(classes, key=lambda each: -each.boundaries)),
    )


def _row(row: Row, level: int) -> tuple[Floats, Bools, Integers, Integers, Bools]:
    """Of the tokens that count: bits, whether they start a chunk, bytes, class of their first byte, and whether the
    token before them starts a chunk.
    """
    assert row.nats_L is not None
    counts_L = (row.size_L > 0) & ~np.isnan(row.nats_L)
    start_L = row.levels[level].boundary_L
    after_L = np.concatenate(([False], start_L[:-1]))
    first_L = np.frombuffer(row.data + b" ", np.uint8)[row.begin_L]
    bits_L = row.nats_L / math.log(2)
    return bits_L[counts_L], start_L[counts_L], row.size_L[counts_L], _OF_BYTE[first_L][counts_L], after_L[counts_L]


def _cost(bits: Floats, size: Integers) -> Cost:
    total, tokens, count = float(bits.sum()), len(bits), int(size.sum())
    return Cost(
        bits=total,
        tokens=tokens,
        bits_per_token=total / tokens if tokens else None,
        bits_per_byte=total / count if count else None,
    )
