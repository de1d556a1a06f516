"""Figures about boundaries against examples that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from niblick.boundaries.metrics import (
    Agreement,
    CommonChunk,
    CutOff,
    agreement,
    beside_whitespace,
    chunk_lengths,
    common_chunks,
    histogram,
    inside_characters,
    script,
    settled,
    truncated,
    variation,
)
from niblick.boundaries.references import Bools, line_starts, unicode_sentences, unicode_words, word_ends, word_starts


def at(places: list[int], size: int) -> Bools:
    found = np.zeros(size, bool)
    found[places] = True
    return found


def places(found: Bools) -> list[int]:
    return np.flatnonzero(found).tolist()


def test_agreement_counted_by_hand() -> None:
    """`the cat sat`: words start at 4 and 8; boundaries at 3, 4 and 10; every byte but the first may hold one."""
    found = agreement(at([0, 3, 4, 10], 11), at([4, 8], 11), at(list(range(1, 11)), 11))
    assert found == Agreement(hits=1, boundaries=3, edges=2, places=10, reachable=2)
    assert found.precision == pytest.approx(1 / 3)
    assert found.recall == pytest.approx(1 / 2)
    assert found.f1 == pytest.approx(2 / 5)
    # Three boundaries among ten places hit 3 · 2/10 edges by chance.
    assert found.chance_f1 == pytest.approx(2 * 0.6 / 5)
    assert found.excess == pytest.approx((0.4 - 0.24) / (1 - 0.24))


def test_chance_is_what_random_boundaries_get() -> None:
    random = np.random.default_rng(0)
    edge, place = at([2, 5, 9, 17, 30, 31], 40), at(list(range(1, 40, 2)), 40)
    f1 = []
    for _ in range(4000):
        boundary = at(random.choice(np.flatnonzero(place), 7, replace=False).tolist(), 40)
        found = agreement(boundary, edge, place)
        assert found.f1 is not None
        f1.append(found.f1)
    assert np.mean(f1) == pytest.approx(found.chance_f1, abs=0.01)


def test_agreement_at_its_ends() -> None:
    everywhere = np.ones(8, bool)
    edge = at([2, 6], 8)
    complete = agreement(edge, edge, everywhere)
    assert (complete.precision, complete.recall, complete.f1, complete.excess) == (1, 1, 1, 1)
    nothing = agreement(at([], 8), at([], 8), everywhere)
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.excess) == (None, None, None, None)
    assert agreement(everywhere, everywhere, everywhere).excess is None  # chance does as well
    assert complete + nothing == Agreement(2, 2, 2, 16, 2)


def test_beside_whitespace_is_either_side() -> None:
    """`a bc\\nd`: before the space, after it, amid a word, at the line feed and after it."""
    data = b"a bc\nd"
    assert [beside_whitespace(data, at([i], 6)) for i in range(6)] == [0, 1, 1, 0, 1, 1]
    assert beside_whitespace(data, at([1, 3, 4], 6)) == 2


def test_inside_characters() -> None:
    data = "aé€x".encode()  # 1 + 2 + 3 + 1 bytes
    assert [inside_characters(data, at([i], 7)) for i in range(7)] == [0, 0, 1, 0, 1, 1, 0]


def test_lengths() -> None:
    """Chunks of 3, 2 and 5: mean 10/3, variance (1/9 + 16/9 + 25/9)/3."""
    lengths = chunk_lengths(at([0, 3, 5], 10))
    assert lengths.tolist() == [3, 2, 5]
    assert variation(lengths) == pytest.approx((14 / 9) ** 0.5 / (10 / 3))
    assert histogram(np.array([3, 2, 5, 2])) == {2: 2, 3: 1, 5: 1}
    assert variation(np.array([])) is None


def test_truncated_by_a_cap() -> None:
    """Rows of 8 positions, cap 8 // 4 = 2: of 5, 2 and 1 boundaries three are over."""
    assert truncated([5, 2, 1], [8, 8, 8], 4) == CutOff(boundaries=3 / 8, windows=1 / 3)
    assert truncated([], [], 4) == CutOff(boundaries=None, windows=None)


@pytest.mark.parametrize(
    ("values", "step"),
    [([0.2, 0.95, 0.99, 1], 1), ([0.95, 0.5, 0.92, 1], 2), ([0.1, 0.2, 0.3, 1], 3), ([0.1] * 4, None)],
)
def test_settled_means_it_stays(values: list[float], step: int | None) -> None:
    assert settled([0, 1, 2, 3], values, 0.9) == step


def test_script_and_common_chunks() -> None:
    assert script("Ω μέγα, ok".encode()) == "Greek"
    assert script("日本 語x".encode()) == "CJK"
    assert script(b"12 . \xff") == "none"
    assert common_chunks([b"a ", b"b", b"a ", b"\xc3"], 2) == [
        CommonChunk(text="a ", count=2, share=0.5),
        CommonChunk(text="b", count=1, share=0.25),
    ]


def test_edges_of_words_and_lines() -> None:
    data = b" Two  words.\nEnd"
    assert places(word_starts(data)) == [1, 6, 13]
    assert places(word_ends(data)) == [4, 12]
    assert places(line_starts(data)) == [13]
    assert not word_starts(b"").size and not word_ends(b"").size and not line_starts(b"").size


def test_unicode_edges_are_in_bytes() -> None:
    pytest.importorskip("uniseg", reason="the extra `study` is not installed")
    data = "Né à 3.5 m. Ça va?".encode()
    # N é(2) | space | à(2) | space | 3.5 | space | m | . | space | Ç(2) a | space | va | ?
    assert places(unicode_words(data)) == [0, 3, 4, 6, 7, 10, 11, 12, 13, 14, 17, 18, 20]
    assert places(unicode_sentences(data)) == [0, 14]
    cut = data[2:]  # amid é
    assert places(unicode_words(cut))[:3] == [1, 2, 4]
    assert places(unicode_words(b"ab\xff cd")) == [0, 2, 3, 4]
