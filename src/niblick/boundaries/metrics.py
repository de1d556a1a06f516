"""Figures about boundaries, each a pure function of a few arrays that can be counted by hand.

Shapes: N bytes of a text, C chunks.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.boundaries.references import Bools, whitespace_N
from niblick.facts.record import Record

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """How boundaries agree with the edges of a reference. Counts of several texts add up.

    By chance stands for as many boundaries drawn evenly among all the places where one could be.
    """

    hits: int = 0
    """Boundaries that are edges."""
    boundaries: int = 0
    edges: int = 0
    places: int = 0
    """Where a boundary could be: at every byte of a byte model, at token starts of a subword model."""
    reachable: int = 0
    """Edges that are such places."""

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(*(a + b for a, b in zip(self.counts(), other.counts(), strict=True)))

    def counts(self) -> tuple[int, ...]:
        """All counts, in the order of the fields."""
        return self.hits, self.boundaries, self.edges, self.places, self.reachable

    @property
    def precision(self) -> float | None:
        """Share of boundaries that are edges; None without boundaries."""
        return self.hits / self.boundaries if self.boundaries else None

    @property
    def recall(self) -> float | None:
        """Share of edges that are boundaries; None without edges."""
        return self.hits / self.edges if self.edges else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None without boundaries and edges."""
        total = self.boundaries + self.edges
        return 2 * self.hits / total if total else None

    @property
    def chance_f1(self) -> float | None:
        """F1 that as many boundaries are expected to have by chance."""
        total = self.boundaries + self.edges
        return 2 * self.boundaries * self.reachable / self.places / total if total and self.places else None

    @property
    def excess(self) -> float | None:
        """The share of the possible gain over chance that F1 reaches: 0 is chance, 1 complete agreement."""
        f1, chance = self.f1, self.chance_f1
        return None if f1 is None or chance is None or chance == 1 else (f1 - chance) / (1 - chance)

    def facts(self) -> AgreementFacts:
        """What files say of it."""
        return AgreementFacts(
            precision=self.precision,
            recall=self.recall,
            f1=self.f1,
            chance_f1=self.chance_f1,
            excess=self.excess,
            hits=self.hits,
            boundaries=self.boundaries,
            edges=self.edges,
            places=self.places,
        )


@dataclass(frozen=True, kw_only=True)
class AgreementFacts(Record):
    """The figures of an `Agreement`, worked out."""

    precision: float | None
    recall: float | None
    f1: float | None
    chance_f1: float | None
    excess: float | None
    hits: int
    boundaries: int
    edges: int
    places: int


@dataclass(frozen=True, kw_only=True)
class CutOff(Record):
    """What a cap on the number of chunks would cut off; None without boundaries, or without rows."""

    boundaries: float | None
    """The share of boundaries past the cap."""
    windows: float | None
    """The share of windows with any."""


@dataclass(frozen=True, kw_only=True)
class CommonChunk(Record):
    """A frequent chunk: its text, how often, and its share of all chunks."""

    text: str
    count: int
    share: float


def agreement(boundary_N: Bools, edge_N: Bools, place_N: Bools) -> Agreement:
    """Compare boundaries with edges; only boundaries at places where one could be count, and edges anywhere."""
    boundary_N = boundary_N & place_N
    return Agreement(
        int((boundary_N & edge_N).sum()),
        int(boundary_N.sum()),
        int(edge_N.sum()),
        int(place_N.sum()),
        int((edge_N & place_N).sum()),
    )


def beside_whitespace(data: bytes, boundary_N: Bools) -> int:
    """Count boundaries next to whitespace: the byte before or the byte at it is whitespace (study 1)."""
    space_N = whitespace_N(data)
    before_N = np.concatenate(([False], space_N[:-1]))[: len(space_N)]
    return int((boundary_N & (space_N | before_N)).sum())


def inside_characters(data: bytes, boundary_N: Bools) -> int:
    """Count boundaries inside a multi-byte character: at a byte that continues one (0x80 to 0xBF).

    In bytes that are no UTF-8 those count as well.
    """
    value_N = np.frombuffer(data, np.uint8)
    return int((boundary_N & (value_N >= 0x80) & (value_N < 0xC0)).sum())


def chunk_lengths(boundary_L: Bools) -> Integers:
    """Return the length of every chunk of a row, (C,): from each boundary to the next, the last to the row's end."""
    starts_C = np.flatnonzero(boundary_L)
    return np.diff(starts_C, append=len(boundary_L)).astype(np.int64)


def variation(length_C: npt.NDArray[Any]) -> float | None:
    """Coefficient of variation: standard deviation over mean (study 1); None without chunks."""
    return float(length_C.std() / length_C.mean()) if len(length_C) and length_C.mean() else None


def histogram(length_C: npt.NDArray[Any]) -> dict[int, int]:
    """Return how many chunks there are of each length, shortest first."""
    return dict(sorted(Counter(length_C.tolist()).items()))


def truncated(found: Sequence[int], seen: Sequence[int], divisor: int) -> CutOff:
    """Return what a cap of L // divisor chunks would cut off, of rows that saw `seen` positions each."""
    over = [max(0, count - max(1, length // divisor)) for count, length in zip(found, seen, strict=True)]
    total = sum(found)
    return CutOff(
        boundaries=sum(over) / total if total else None,
        windows=sum(o > 0 for o in over) / len(over) if over else None,
    )


def settled(steps: Sequence[int], agreements: Sequence[float], level: float) -> int | None:
    """Return the first of `steps` from which on every agreement is at least `level`; None if there is none."""
    first = None
    for step, value in zip(steps, agreements, strict=True):
        first = (step if first is None else first) if value >= level else None
    return first


def script(data: bytes) -> str:
    """Return the script that most letters of a text belong to, by the names of their characters; "none" for none."""
    letters = Counter(c for c in data.decode(errors="ignore") if c.isalpha())
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        name = unicodedata.name(letter, "unnamed").split()[0]
        scripts[name if name == "CJK" else name.capitalize()] += count
    return scripts.most_common(1)[0][0] if scripts else "none"


def common_chunks(texts: Iterable[bytes], most: int) -> list[CommonChunk]:
    """Return the most frequent chunks, the commonest first."""
    counted = Counter(texts)
    total = sum(counted.values())
    ranked = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:most]
    return [
        CommonChunk(text=text.decode(errors="backslashreplace"), count=count, share=count / total)
        for text, count in ranked
    ]
