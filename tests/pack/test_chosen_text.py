"""Which text goes into an artifact: as much as was asked for, whole documents, and those that help most."""

from __future__ import annotations

import numpy as np
import pytest

from niblick.data.dataset import Split
from niblick.data.index import RECORD
from niblick.data.tokenizers import ByteTokenizer
from niblick.pack import chosen_text as choosing
from niblick.pack.chosen_text import chosen_text
from niblick.score import mixing_kernels

TOKENIZER = ByteTokenizer()
pytestmark = pytest.mark.skipif(not mixing_kernels.COMPILED, reason="numba is not installed")
WORDS = ["the", "model", "reads", "what", "comes", "next", "and", "learns", "from", "every", "byte", "of", "text"]


def documents(count: int = 48) -> list[bytes]:
    """Every third document is noise; the others are sentences of the same words."""
    random = np.random.default_rng(0)
    found = []
    for number in range(count):
        words = " ".join(random.choice(WORDS, 40)).encode()
        found.append(bytes(random.integers(128, 250, len(words)).tolist()) if number % 3 == 0 else words)
    return found


def a_split(texts: list[bytes], indexed: bool = True) -> Split:
    tokens = [np.append(1, np.frombuffer(text, np.uint8).astype(np.uint16) + 4).astype(np.uint16) for text in texts]
    index = np.zeros(len(texts), RECORD)
    index["tokens"] = [len(t) for t in tokens]
    index["offset"] = np.cumsum(index["tokens"]) - index["tokens"]
    return Split("train", [], [np.concatenate(tokens)], index if indexed else None)


def told(tokens_N: np.ndarray) -> list[bytes]:
    """The documents that tokens stand for."""
    parts = np.split(tokens_N, np.flatnonzero(tokens_N == 1))[1:]
    return [TOKENIZER.decode(part.astype(np.uint16)) for part in parts]


@pytest.mark.parametrize("indexed", [True, False])
def test_all_of_it_where_there_is_room(indexed: bool) -> None:
    texts = documents(9)
    split = a_split(texts, indexed)
    tokens_N, count, number = chosen_text(split, TOKENIZER, 10**9)
    np.testing.assert_array_equal(tokens_N, split.slice(0, split.tokens))
    assert (count, number) == (sum(map(len, texts)), 9)


@pytest.mark.parametrize("size", [1, 100, 1000, 3000, 6000])
def test_as_much_as_was_asked_for(size: int) -> None:
    """Whole documents in their order, and the beginning of one more."""
    texts = documents()
    tokens_N, count, number = chosen_text(a_split(texts), TOKENIZER, size)
    found = told(tokens_N)
    assert count == sum(map(len, found)) == size and number == len(found)
    places = [next(n for n, text in enumerate(texts) if text.startswith(part)) for part in found]
    assert places == sorted(set(places))
    assert sum(part != texts[n] for n, part in zip(places, found, strict=True)) <= 1


def test_what_helps_comes_before_noise() -> None:
    texts = documents()
    tokens_N, _, _ = chosen_text(a_split(texts), TOKENIZER, 2500)
    noise = set(texts[::3])
    assert not [part for part in told(tokens_N) if any(text.startswith(part) for text in noise)]


def test_not_more_is_asked_than_there_is_time_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "ASKED", 1000)
    texts = documents()
    tokens_N, count, _ = chosen_text(a_split(texts), TOKENIZER, 400)
    assert count == 400 and told(tokens_N)
    again, _, _ = chosen_text(a_split(texts), TOKENIZER, 400)
    np.testing.assert_array_equal(tokens_N, again)


def test_a_split_without_text() -> None:
    tokens_N, count, number = chosen_text(Split("train", [], []), TOKENIZER, 100)
    assert (len(tokens_N), count, number) == (0, 0, 0)
