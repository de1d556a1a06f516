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
class Compute(Record):
    """Multiply-adds for each bit of surprisal: those spent on some tokens, over the bits of the tokens after them.

    Where a chunk starts, the inside runs as well. None where there are no such tokens, or they cost nothing.
    """

    all: float | None
    boundary: float | None
    """Of tokens that start a chunk."""
    inside: float | None
    """Of the others."""


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
    compute: Compute | None = None
    """What is spent for a bit; None where the model was not asked."""


def surprisal(rows: Sequence[Row], level: int) -> Surprisal | None:
    """Return what tokens cost that start a chunk and those inside one, in bits; None where costs were not asked for.

    Only tokens that stand for bytes count, and no window's first.
    """
    if any(row.nats_L is None for row in rows):
        return None
    bits, start, size, kind, after, spent = (
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
        compute=None if any(row.spent_L is None for row in rows) else _compute(spent, bits, after),
    )


def told(found: Surprisal | None) -> str:
    """The figures that stand beside a length of chunks: enrichment, and compute for a bit; empty without any."""
    if found is None or found.enrichment is None:
        return ""
    after = "" if found.enrichment_next is None else f" ({found.enrichment_next:.2f} at the token after)"
    spent = found.compute and found.compute.all
    return f"B {found.enrichment:.2f}{after}" + (f", {spent:,.0f} multiply-adds a bit" if spent else "")


def _compute(spent: Floats, bits: Floats, after: Bools) -> Compute:
    def a_bit(chosen: Bools) -> float | None:
        total = float(bits[chosen].sum())
        return float(spent[chosen].sum()) / total if total else None

    return Compute(all=a_bit(after | ~after), boundary=a_bit(after), inside=a_bit(~after))


def _row(row: Row, level: int) -> tuple[Floats, Bools, Integers, Integers, Bools, Floats]:
    """Of the tokens that count: bits, whether they start a chunk, bytes, class of their first byte; and of the tokens
    before them whether they start a chunk, and what is spent on them.
    """
    assert row.nats_L is not None
    counts_L = (row.size_L > 0) & ~np.isnan(row.nats_L)
    start_L = row.levels[level].boundary_L
    after_L = np.concatenate(([False], start_L[:-1]))
    first_L = np.frombuffer(row.data + b" ", np.uint8)[row.begin_L]
    bits_L = row.nats_L / math.log(2)
    spent_L = np.zeros(len(row.ids_L)) if row.spent_L is None else np.concatenate(([0.0], row.spent_L[:-1]))
    c = counts_L
    return bits_L[c], start_L[c], row.size_L[c], _OF_BYTE[first_L][c], after_L[c], spent_L[c]


def _cost(bits: Floats, size: Integers) -> Cost:
    total, tokens, count = float(bits.sum()), len(bits), int(size.sum())
    return Cost(
        bits=total,
        tokens=tokens,
        bits_per_token=total / tokens if tokens else None,
        bits_per_byte=total / count if count else None,
    )
