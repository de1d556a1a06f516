"""Do boundaries stay where they are? Between windows that overlap, and between models that read the same tokens.

Shapes: L tokens of a row, N bytes of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from niblick.boundaries.cuts import Reader, Row
from niblick.boundaries.metrics import Agreement, agreement
from niblick.boundaries.references import whole_characters
from niblick.boundaries.sample import Sample
from niblick.data.dataset import Split
from niblick.facts.record import Record

NEAR_START = 16
"""A window's first positions, where a model knows least: flips among them are counted apart."""


@dataclass(frozen=True, kw_only=True)
class ShiftFlips(Record):
    """Decisions that change when a window begins `shift` tokens later; None where no window can."""

    shift: int
    windows: int
    flips_per_window: float | None
    share: float | None
    """Flips over the positions that were compared."""
    flips_near_start: float | None
    """The share of the flips that are among the window's first positions."""


@dataclass(frozen=True, kw_only=True)
class ModelFlips(Record):
    """How the decisions of two models over the same tokens differ."""

    windows: int
    flips_per_window: float
    share: float
    f1: float | None
    excess: float | None


@dataclass(frozen=True, kw_only=True)
class TokenAgreement(Record):
    """How the boundaries of two models over different tokens agree, byte by byte."""

    windows: int
    f1: float | None
    chance_f1: float | None
    excess: float | None


def shifts(length: int) -> list[int]:
    """Return the shifts that are tried on windows of `length` tokens."""
    return sorted({shift for shift in (1, 16, length // 4, length // 2) if 0 < shift < length})


def flips_between_windows(reader: Reader, split: Split, sample: Sample, level: int = 0) -> list[ShiftFlips]:
    """Compare decisions of windows with those of windows that begin a few tokens later (study 2).

    For each shift: flips per pair of windows, that is positions of both whose decisions differ, and their share. The
    later window's first position is left out: it is a boundary whatever a model does.
    """
    length = len(sample.windows[0])
    earlier = reader.read(sample.windows)
    facts = []
    for shift in shifts(length):
        pairs = [i for i, start in enumerate(sample.starts) if start + shift + length <= split.tokens]
        later = reader.read([split.slice(sample.starts[i] + shift, length).astype(np.int64) for i in pairs])
        flips, near, compared = 0, 0, 0
        for i, row in zip(pairs, later, strict=True):
            a_L = earlier[i].levels[level].boundary_L[shift + 1 :]
            b_L = row.levels[level].boundary_L[1 : length - shift]
            flips, compared = flips + int((a_L != b_L).sum()), compared + len(a_L)
            near += int((a_L != b_L)[: NEAR_START - 1].sum())
        facts.append(
            ShiftFlips(
                shift=shift,
                windows=len(pairs),
                flips_per_window=flips / len(pairs) if pairs else None,
                share=flips / compared if compared else None,
                flips_near_start=near / flips if flips else None,
            )
        )
    return facts


def flips_between_models(one: Sequence[Row], other: Sequence[Row], level: int = 0) -> ModelFlips:
    """Compare decisions of two models on the same windows of tokens: flips per window and the F1 of their boundaries.

    Every window's first position is left out.
    """
    pairs = [(a.levels[level].boundary_L[1:], b.levels[level].boundary_L[1:]) for a, b in zip(one, other, strict=True)]
    flips = sum(int((a_L != b_L).sum()) for a_L, b_L in pairs)
    total = sum((agreement(a_L, b_L, np.ones_like(a_L)) for a_L, b_L in pairs), Agreement())
    return ModelFlips(
        windows=len(pairs),
        flips_per_window=flips / len(pairs),
        share=flips / max(sum(len(a_L) for a_L, _ in pairs), 1),
        f1=total.f1,
        excess=total.excess,
    )


def agreement_across_tokens(one: Sequence[Row], reader: Reader, level: int = 0) -> TokenAgreement:
    """Compare boundaries with those of a model of other tokens that reads the same bytes, byte by byte.

    Bytes at a window's ends that are no whole character are left out, and windows that hold bytes of no character. F1
    and excess over chance are those of `one`'s boundaries, with the other's as edges.
    """
    total, windows = Agreement(), 0
    for row in one:
        begin, text = whole_characters(row.data)
        if not text or any("\udc80" <= c <= "\udcff" for c in text):
            continue
        [other] = reader.read([reader.encode(text)])
        here = slice(begin, begin + len(text.encode()))
        if other.data != row.data[here]:
            continue  # its tokenizer does not give this text back
        edge_N = other.boundary_N(level)
        place_N = ~row.undecided_N()[here]
        edge_N[0] = place_N[0] = False
        total += agreement(row.boundary_N(level)[here], edge_N, place_N)
        windows += 1
    return TokenAgreement(windows=windows, f1=total.f1, chance_f1=total.chance_f1, excess=total.excess)
