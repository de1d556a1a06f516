"""What seeds can say: is one recipe better than another, or was it lucky with its seeds? And how many more would tell?

Scores are those of runs that differ in their seeds alone; less is better. SciPy gives the distributions, nothing else.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from niblick.challenge import rules
from niblick.facts.record import Record

POWER = 0.8
"""`more_seeds` counts until so likely a test would find what was observed."""

MOST_SEEDS = 1000
"""More runs than this are not counted out."""


@dataclass(frozen=True)
class Welch:
    """Welch's t-test of first mean minus second mean against a margin."""

    t: float
    degrees: float
    """Degrees of freedom (Welch–Satterthwaite)."""
    p: float
    """One-sided: how likely a t this large is where the difference is only the margin."""
    error: float
    """Standard error of the difference."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return what the difference over the margin lies between, at this level."""
        from scipy.special import stdtrit

        reach = float(stdtrit(self.degrees, (1 + level) / 2)) * self.error
        excess = self.t * self.error
        return excess - reach, excess + reach


def deviation(scores: Sequence[float]) -> float | None:
    """Standard deviation of the sample; None for a single score."""
    return statistics.stdev(scores) if len(scores) > 1 else None


def welch(first: Sequence[float], second: Sequence[float], margin: float = 0.0) -> Welch | None:
    """Test whether the mean of `first` is above that of `second` by more than `margin` (Welch 1947).

    None where nothing can be said: a side of a single score, or no deviation on either.
    """
    if len(first) < 2 or len(second) < 2:
        return None
    return _test(
        statistics.mean(first) - statistics.mean(second) - margin,
        (statistics.variance(first), len(first)),
        (statistics.variance(second), len(second)),
    )


def _test(excess: float, first: tuple[float, int], second: tuple[float, int]) -> Welch | None:
    """`excess` is the difference over the margin; each side is (variance, count)."""
    from scipy.special import stdtr

    error, degrees = _error(first, second)
    if error == 0:
        return None
    t = excess / error
    return Welch(t, degrees, float(stdtr(degrees, -t)), error)


def _error(first: tuple[float, int], second: tuple[float, int]) -> tuple[float, float]:
    """Standard error of the difference of means, and its degrees of freedom."""
    parts = [variance / count for variance, count in (first, second)]
    total = sum(parts)
    if total == 0:
        return 0.0, math.inf
    degrees = total**2 / sum(p**2 / (count - 1) for p, (_, count) in zip(parts, (first, second), strict=True))
    return math.sqrt(total), degrees


def more_seeds(first: Sequence[float], second: Sequence[float], margin: float) -> int | None:
    """How many more runs each side needs before the test at p < 0.01 would find the observed difference.

    "Would find": with a probability of POWER, if the true means and deviations are the observed ones (the power of the
    noncentral t distribution). A side of one run is taken to deviate like the other. None where no number would do:
    the difference is not above the margin, nobody knows a deviation, or it takes more than MOST_SEEDS.
    """
    from scipy.special import nctdtr, stdtrit

    excess = statistics.mean(first) - statistics.mean(second) - margin
    known = [statistics.variance(side) for side in (first, second) if len(side) > 1]
    if excess <= 0 or not known:
        return None
    variances = [statistics.variance(side) if len(side) > 1 else known[0] for side in (first, second)]
    for more in range(MOST_SEEDS + 1):
        counts = (len(first) + more, len(second) + more)
        if min(counts) < 2:
            continue
        error, degrees = _error((variances[0], counts[0]), (variances[1], counts[1]))
        if error == 0:
            return more
        needed = stdtrit(degrees, 1 - rules.RECORD_P)
        if 1 - nctdtr(degrees, excess / error, needed) >= POWER:
            return more
    return None


@dataclass(frozen=True)
class Verdict:
    """Whether the better of two groups of runs beats the other as the challenge asks of a record."""

    better: int
    """0 or 1: the group with the lower mean."""
    unit: str
    gain: float
    margin: float
    p: float | None
    """That the gain is only the margin; None where it cannot be tested."""
    wins: bool | None
    """None: undecided, because too few runs say anything."""
    more: int | None
    """Runs that each group still needs, as `more_seeds` counts; 0 once it is decided."""
    reason: str
    """One sentence for people."""


@dataclass(frozen=True, kw_only=True)
class Ruling(Record):
    """A `Verdict` as files have it: the better group by its name."""

    better: str
    unit: str
    gain: float
    margin: float
    p: float | None
    wins: bool | None
    more: int | None
    reason: str


def verdict(first: Sequence[float], second: Sequence[float], margin: float, unit: str) -> Verdict:
    """Hold two groups of scores against the challenge's rule: better by `margin`, at p < 0.01 over seeds."""
    means = [statistics.mean(first), statistics.mean(second)]
    better = 0 if means[0] < means[1] else 1
    worse, best = (second, first) if better == 0 else (first, second)
    gain = abs(means[0] - means[1])
    test = welch(worse, best, margin)
    more = more_seeds(worse, best, margin)
    p = test.p if test else None
    if gain <= margin:
        wins, more, reason = False, None, f"the gain is below the {margin:g} {unit} that are asked: seeds do not help"
    elif test is None and min(len(first), len(second)) > 1:
        wins, more, reason = None, None, "the runs of each group are all the same: are their seeds different?"
    elif test is None and more is None:
        wins, reason = None, "one run each says nothing about seeds: train more (`niblick train … --seeds 3`)"
    elif test is None:
        wins, reason = None, f"a single run has no deviation; {_needed(more)}"
    elif test.p < rules.RECORD_P:
        wins, more, reason = True, 0, "sure enough"
    else:
        wins, reason = False, f"not yet sure; {_needed(more)}"
    return Verdict(better, unit, gain, margin, p, wins, more, reason)


def _needed(more: int | None) -> str:
    if more is None:
        return f"more than {MOST_SEEDS} more runs of each group would be needed"
    return f"with {more} more of each group, a gain like this would show in {POWER:.0%} of cases"
