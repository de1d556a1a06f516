"""The paired bootstrap over documents against brute force, and how often its interval holds the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from niblick.errors import DataError
from niblick.score.statistics import paired_bootstrap, record_margin


def test_few_documents_against_all_resamples() -> None:
    """Four documents have 4⁴ resamples: all of them, one by one, give the shares that drawing comes near."""
    first, second = np.array([70.0, 20.0, 9.0, 31.0]), np.array([66.0, 20.5, 8.0, 31.2])
    size = np.array([40, 11, 6, 17])
    margin = 0.03
    every = []
    for chosen in itertools.product(range(4), repeat=4):
        bits = sum((second[d] - first[d]) / math.log(2) for d in chosen)
        every.append(bits / sum(size[d] for d in chosen))
    every_R = np.array(every)
    found = paired_bootstrap(first, second, size, margin=margin, resamples=40_000)
    assert found.difference == pytest.approx((second.sum() - first.sum()) / math.log(2) / size.sum())
    assert found.p == pytest.approx(2 * min((every_R >= 0).mean(), (every_R <= 0).mean()), abs=0.01)
    assert found.p_margin == pytest.approx((every_R > -margin).mean(), abs=0.01)
    for quantile, level in ((found.low, 0.025), (found.high, 0.975)):
        assert (every_R < quantile - 1e-9).mean() <= level + 0.01
        assert (every_R <= quantile + 1e-9).mean() >= level - 0.01


def test_against_scipys_bootstrap() -> None:
    """The same percentile interval as an independent implementation finds on its own draws."""
    draw = np.random.default_rng(5)
    size = np.exp(draw.normal(7, 0.8, 120)).astype(int) + 10
    first = 1.4 * size + draw.normal(0, 0.2, 120) * size
    second = first - 0.01 * size + draw.normal(0, 0.05, 120) * size
    found = paired_bootstrap(first, second, size)
    theirs = stats.bootstrap(
        (second - first, size),
        lambda nats, size, axis: nats.sum(axis=axis) / math.log(2) / size.sum(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        rng=np.random.default_rng(1),
    )
    width = found.high - found.low
    assert found.low == pytest.approx(theirs.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(theirs.confidence_interval.high, abs=0.05 * width)


def test_the_interval_holds_the_truth() -> None:
    """In 300 samples of 80 documents the 95% interval holds the true difference 91 to 99% of the time."""
    draw = np.random.default_rng(0)
    size = np.exp(draw.normal(7.5, 0.7, 100_000)).astype(int) + 20
    first = (1.4 + 0.3 * draw.standard_normal(100_000)) * size
    second = first + (-0.01 + 0.04 * draw.standard_normal(100_000)) * size
    truth = (second - first).sum() / math.log(2) / size.sum()
    held = 0
    for trial in range(300):
        chosen = draw.integers(0, len(size), 80)
        found = paired_bootstrap(first[chosen], second[chosen], size[chosen], resamples=400, seed=trial)
        held += found.low <= truth <= found.high
    assert 0.91 <= held / 300 <= 0.99


def test_no_difference_gives_even_p_values() -> None:
    """Where nothing sets them apart, p falls below 0.1 about every tenth time."""
    draw = np.random.default_rng(2)
    small = 0
    for trial in range(300):
        size = draw.integers(500, 3000, 60)
        first = 1.4 * size
        second = first + draw.normal(0, 0.05, 60) * size
        small += paired_bootstrap(first, second, size, resamples=400, seed=trial).p < 0.1
    assert 0.05 < small / 300 < 0.17


def test_pairing_takes_out_hard_documents() -> None:
    """Documents differ a hundred times more than the artifacts, and the difference still shows."""
    size = np.full(50, 1000)
    first = np.linspace(500, 3000, 50)
    second = first * 0.99
    found = paired_bootstrap(first, second, size)
    assert found.high < 0
    assert found.p < 0.001


def test_symmetry_offset_and_seed() -> None:
    draw = np.random.default_rng(3)
    size = draw.integers(100, 900, 40)
    first, second = 1.5 * size, 1.5 * size + draw.normal(0.01, 0.05, 40) * size
    found, turned = paired_bootstrap(first, second, size), paired_bootstrap(second, first, size)
    assert turned.difference == pytest.approx(-found.difference)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert turned.p == pytest.approx(found.p)
    shifted = paired_bootstrap(first, second, size, offset=0.25)
    assert shifted.low == pytest.approx(found.low + 0.25)
    assert shifted.difference == pytest.approx(found.difference + 0.25)
    assert paired_bootstrap(first, second, size) == found
    same = paired_bootstrap(first, first, size)
    assert (same.difference, same.p) == (0.0, 1.0)


def test_bad_input() -> None:
    one = np.ones(1)
    with pytest.raises(DataError, match="1 document"):
        paired_bootstrap(one, one, one)
    with pytest.raises(DataError, match="2 and 3 documents"):
        paired_bootstrap(np.ones(2), np.ones(3), np.ones(2))


def test_the_challenges_conversion() -> None:
    """0.005 nats per token of sp1024 are about 0.003 BPB: it has about 2.44 bytes a token on its validation text."""
    assert record_margin(1000, 2440) == pytest.approx(0.003, abs=5e-5)
    assert record_margin(1000, 1000) == pytest.approx(0.00721, abs=1e-5)
