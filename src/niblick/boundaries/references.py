"""Edges that boundaries are compared with: words, Unicode words and sentences, lines, tokens of SentencePiece models.

Each reference maps a text to the bytes where something starts, as an array over all of its bytes. Texts may begin and
end amid a character: bytes that are no whole character start nothing.

Shapes: N bytes of a text.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from niblick.data.subwords import SentencePieceTokenizer

Bools = npt.NDArray[np.bool_]
Reference = Callable[[bytes], Bools]
"""From a text's bytes to where something starts in it, (N,)."""

WHITESPACE = frozenset(b" \t\n\r\v\f")

CONTEXT_BYTES = 96
"""Bytes of a document on each side of a piece of it that a reference is given as well."""


def whitespace_N(data: bytes) -> Bools:
    """Return which bytes are ASCII whitespace."""
    return np.isin(np.frombuffer(data, np.uint8), list(WHITESPACE))


def word_starts(data: bytes) -> Bools:
    """Where a word starts: a byte that is no whitespace after one that is, or at the beginning."""
    space_N = whitespace_N(data)
    return ~space_N & np.concatenate(([True], space_N[:-1]))[: len(space_N)]


def word_ends(data: bytes) -> Bools:
    """Where a run of whitespace starts: the first byte after a word."""
    space_N = whitespace_N(data)
    return space_N & ~np.concatenate(([True], space_N[:-1]))[: len(space_N)]


def line_starts(data: bytes) -> Bools:
    """The byte after each line feed."""
    feed_N = np.frombuffer(data, np.uint8) == ord("\n")
    return np.concatenate(([False], feed_N[:-1]))[: len(feed_N)]


def unicode_words(data: bytes) -> Bools:
    """Word boundaries of Unicode's text segmentation (UAX 29), by uniseg."""
    from uniseg.wordbreak import word_boundaries

    return _by_character(data, word_boundaries)


def unicode_sentences(data: bytes) -> Bools:
    """Sentence boundaries of Unicode's text segmentation (UAX 29), by uniseg."""
    from uniseg.sentencebreak import sentence_boundaries

    return _by_character(data, sentence_boundaries)


def whole_characters(data: bytes) -> tuple[int, str]:
    """Return the first byte of the first whole character, and the text from there on without a cut one at the end.

    Where bytes inside are no UTF-8, each becomes one replacement character.
    """
    begin = 0
    while begin < min(3, len(data)) and 0x80 <= data[begin] < 0xC0:
        begin += 1
    end = len(data)
    for back in range(1, min(3, end - begin) + 1):
        lead = data[end - back]
        if lead >= 0xC0:
            end -= back if back < (2 + (lead >= 0xE0) + (lead >= 0xF0)) else 0
            break
        if lead < 0x80:
            break
    return begin, data[begin:end].decode(errors="surrogateescape")


def _by_character(data: bytes, boundaries: Callable[[str], Iterable[int]]) -> Bools:
    begin, text = whole_characters(data)
    # A byte that is no UTF-8 is one surrogate, and one byte.
    size = np.array([1 if "\udc80" <= c <= "\udcff" else len(c.encode()) for c in text], np.int64)
    first_C = begin + np.concatenate(([0], np.cumsum(size)))
    edge_N = np.zeros(len(data) + 1, bool)
    edge_N[first_C[list(boundaries(text))]] = True
    return edge_N[:-1]


def subword_edges(tokenizer: SentencePieceTokenizer) -> Reference:
    """Return the reference of where tokens of a SentencePiece model start in the same bytes."""

    def edges(data: bytes) -> Bools:
        begin, text = whole_characters(data)
        edge_N = np.zeros(len(data) + 1, bool)
        # Bytes that are no UTF-8 cannot be asked about; in their place stand bytes that can.
        edge_N[begin + tokenizer.starts(text.encode(errors="replace").decode())] = True
        return edge_N[:-1]

    return edges


def references(subwords: Iterable[Path] = ()) -> tuple[dict[str, Reference], list[str]]:
    """Return all references by name, and a sentence for each that is not at hand.

    Raises DataError for a file that is no SentencePiece model.
    """
    found: dict[str, Reference] = {"word starts": word_starts, "word ends": word_ends}
    missing = []
    if importlib.util.find_spec("uniseg"):
        found |= {"Unicode words": unicode_words, "Unicode sentences": unicode_sentences}
    else:
        missing.append("Unicode words and sentences are told by uniseg: pip install niblick[study]")
    found["line starts"] = line_starts
    for path in subwords:
        found[f"tokens of {path.stem}"] = subword_edges(SentencePieceTokenizer.read(path))
    return found, missing
