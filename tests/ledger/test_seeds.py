"""Welch's test, the count of further seeds and the challenge's verdict, against SciPy and simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from niblick.ledger.seeds import POWER, deviation, more_seeds, verdict, welch

UNIT = "nats per token"


@pytest.mark.parametrize("margin", [0.0, 0.005, -0.1])
@pytest.mark.parametrize(("m", "n"), [(3, 3), (2, 7), (5, 4)])
def test_welch_against_scipy(m: int, n: int, margin: float) -> None:
    draw = np.random.default_rng(m * 10 + n)
    first, second = draw.normal(1.30, 0.004, m).tolist(), draw.normal(1.29, 0.009, n).tolist()
    ours = welch(first, second, margin)
    theirs = stats.ttest_ind(np.array(first) - margin, second, equal_var=False, alternative="greater")
    assert ours is not None
    assert (ours.t, ours.degrees, ours.p) == pytest.approx((theirs.statistic, theirs.df, theirs.pvalue), rel=1e-9)
    both = stats.ttest_ind(np.array(first) - margin, second, equal_var=False).confidence_interval(0.95)
    assert ours.interval() == pytest.approx((both.low, both.high), rel=1e-9)


def test_what_cannot_be_tested() -> None:
    assert welch([1.0], [1.1, 1.2]) is None
    assert welch([1.1, 1.1], [1.0, 1.0]) is None
    assert deviation([1.0]) is None
    assert deviation([1.0, 3.0]) == pytest.approx(2**0.5)


def simulated_power(gap: float, deviations: tuple[float, float], counts: tuple[int, int], margin: float) -> float:
    """How often SciPy's own test finds a gap of this size, in 4,000 pairs of drawn groups."""
    draw = np.random.default_rng(11)
    first = draw.normal(gap - margin, deviations[0], (4000, counts[0]))
    second = draw.normal(0, deviations[1], (4000, counts[1]))
    found = stats.ttest_ind(first, second, axis=1, equal_var=False, alternative="greater")
    return float((found.pvalue < 0.01).mean())


@pytest.mark.parametrize("gap", [0.007, 0.010, 0.014])
def test_more_seeds_reaches_its_power_and_no_sooner(gap: float) -> None:
    """With so many more, groups that deviate as observed are told apart in 80% of simulations; with one less, not."""
    first, second = [gap - 0.002, gap, gap + 0.002], [-0.003, 0.0, 0.003]
    more = more_seeds(first, second, 0.005)
    assert more is not None
    assert more > 0
    deviations = (0.002, 0.003)
    assert simulated_power(gap, deviations, (3 + more, 3 + more), 0.005) >= POWER - 0.03
    assert simulated_power(gap, deviations, (2 + more, 2 + more), 0.005) < POWER + 0.03


def test_more_seeds_has_no_answer() -> None:
    assert more_seeds([1.304, 1.304], [1.3, 1.3], 0.005) is None  # below the margin
    assert more_seeds([1.4], [1.3], 0.005) is None  # no deviation known
    assert more_seeds([2.0, 1.0], [1.494 - 0.5, 1.494 + 0.5], 0.005) is None  # more than can be counted
    assert more_seeds([1.40], [1.30, 1.31], 0.005) is not None  # the other's deviation is taken


CLEAR, NOISY = 0.0005, 0.01


@pytest.mark.parametrize(
    ("gap", "noise", "counts", "wins", "words"),
    [
        (0.010, CLEAR, (3, 3), True, "sure enough"),
        (0.010, NOISY, (3, 3), False, "not yet sure; with"),
        (0.004, CLEAR, (3, 3), False, "below the 0.005"),
        (0.004, NOISY, (3, 3), False, "seeds do not help"),
        (0.000, CLEAR, (3, 3), False, "below the 0.005"),
        (0.010, CLEAR, (1, 3), None, "a single run has no deviation; with"),
        (0.010, CLEAR, (1, 1), None, "one run each says nothing about seeds"),
        (0.004, CLEAR, (1, 1), False, "below the 0.005"),
        (0.010, 0.0, (3, 3), None, "are their seeds different?"),
    ],
)
def test_verdict(gap: float, noise: float, counts: tuple[int, int], wins: bool | None, words: str) -> None:
    """What the challenge would say; the order of the two groups changes nothing but their numbers."""
    spread = {1: [0.0], 3: [-noise, 0.0, noise]}
    worse, better = [1.3 + gap + e for e in spread[counts[0]]], [1.3 + e for e in spread[counts[1]]]
    found, turned = verdict(worse, better, 0.005, UNIT), verdict(better, worse, 0.005, UNIT)
    assert found.wins is wins
    assert words in found.reason
    assert found.gain == pytest.approx(gap)
    if gap:
        assert (found.better, turned.better) == (1, 0)
    assert (turned.wins, turned.p, turned.more, turned.reason) == (found.wins, found.p, found.more, found.reason)
    if wins:
        assert found.p is not None
        assert found.p < 0.01
        assert found.more == 0
    elif "with" in words:
        assert found.more is not None
        assert found.more > 0
    else:
        assert found.more is None


def test_the_verdict_is_rarely_wrong() -> None:
    """Where the true gain is just the margin, no more than about 1% of comparisons are won."""
    draw = np.random.default_rng(4)
    won = 0
    for _ in range(1000):
        worse, better = draw.normal(1.305, 0.002, 4).tolist(), draw.normal(1.300, 0.002, 4).tolist()
        won += verdict(worse, better, 0.005, UNIT).wins is True
    assert won <= 22  # three deviations above 10


def test_more_gain_never_asks_for_more_seeds() -> None:
    counts = [more_seeds([g - 0.002, g + 0.002], [-0.003, 0.003], 0.005) for g in (0.007, 0.009, 0.012, 0.02, 0.1)]
    known = [c for c in counts if c is not None]
    assert len(known) == len(counts)
    assert all(a >= b for a, b in itertools.pairwise(known))
