"""How far a small change of the text reaches, and what routers do on unusual text.

Routers are causal, so a change can only move what follows it. Distances are in bytes, since an edit changes the tokens
of a subword model.

Shapes: N bytes of a text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from niblick.boundaries.cuts import Reader, Row
from niblick.boundaries.metrics import Agreement, AgreementFacts, agreement, chunk_lengths
from niblick.boundaries.references import WHITESPACE, word_starts
from niblick.facts.reading import merged
from niblick.facts.record import Record

REPEATED = (b"a", b" ", b"ab", b"0", b"\n")
"""What texts of one thing over and over are made of."""


@dataclass(frozen=True)
class Edit:
    """A text with one change in it."""

    text: str
    begin: int
    """First byte that differs, in both texts."""
    old_end: int
    """Byte from which on the old text goes on as before."""
    new_end: int
    """The same in the new text."""


@dataclass(frozen=True)
class Reach:
    """How far one edit reaches, on the bytes that both texts have."""

    flips: int
    """Bytes behind the edit that start a chunk in one text alone."""
    reach: int
    """Bytes from the edit to the last of them."""
    before: int
    """Flips in front of the edit: none for a model over bytes."""


@dataclass(frozen=True, kw_only=True)
class EditFacts(Record):
    """How far one kind of edit reaches, over several texts."""

    texts: int
    moved: float
    """The share of texts where it moves any boundary."""
    flips: float
    mean_reach: float
    median_reach: float
    largest_reach: int
    flips_before: int


@dataclass(frozen=True, kw_only=True)
class Repetition(Record):
    """How a text of one thing over and over is cut."""

    unit: str
    bytes: int
    boundaries: int
    longest: int
    """Bytes of its longest chunk."""


@dataclass(frozen=True, kw_only=True)
class WordStarts(AgreementFacts):
    """Agreement with the starts of words, and the mean length of chunks."""

    texts: int
    mean_length_bytes: float


@dataclass(frozen=True, kw_only=True)
class Spaces(Record):
    """Agreement with the starts of words in the text as it was, and without its spaces."""

    spaced: WordStarts
    spaceless: WordStarts


def _edit(text: str, at: int, taken: int, put: str) -> Edit:
    """Put `put` in the place of `taken` characters from character `at` on."""
    begin = len(text[:at].encode())
    old_end = begin + len(text[at : at + taken].encode())
    return Edit(text[:at] + put + text[at + taken :], begin, old_end, begin + len(put.encode()))


def _letters(text: str, count: int) -> list[int]:
    """Places of `count` ASCII letters side by side."""
    return [i for i in range(len(text) - count + 1) if all(c.isascii() and c.isalpha() for c in text[i : i + count])]


def _nearest_middle(places: Sequence[int], text: str) -> int | None:
    return min(places, key=lambda i: abs(i - len(text) // 2), default=None)


def change_letter(text: str, seed: int) -> Edit | None:
    """Put another letter of the same case in the place of the one nearest the middle; None if there is none."""
    at = _nearest_middle(_letters(text, 1), text)
    if at is None:
        return None
    others = [c for c in "abcdefghijklmnopqrstuvwxyz" if c != text[at].lower()]
    new = random.Random(seed).choice(others)
    return _edit(text, at, 1, new.upper() if text[at].isupper() else new)


def change_case(text: str, seed: int) -> Edit | None:
    """Turn the letter nearest the middle from small to capital or back."""
    at = _nearest_middle(_letters(text, 1), text)
    return None if at is None else _edit(text, at, 1, text[at].swapcase())


def double_space(text: str, seed: int) -> Edit | None:
    """Put a second space beside the one nearest the middle."""
    at = _nearest_middle([i for i, c in enumerate(text) if c == " "], text)
    return None if at is None else _edit(text, at + 1, 0, " ")


def swap_letters(text: str, seed: int) -> Edit | None:
    """Swap the two different letters side by side nearest the middle: a typo."""
    at = _nearest_middle([i for i in _letters(text, 2) if text[i] != text[i + 1]], text)
    return None if at is None else _edit(text, at, 2, text[at + 1] + text[at])


EDITS: dict[str, Callable[[str, int], Edit | None]] = {
    "a letter changed": change_letter,
    "its case changed": change_case,
    "a space doubled": double_space,
    "two letters swapped": swap_letters,
}


def reach(old: Row, new: Row, edit: Edit, level: int = 0) -> Reach:
    """Compare decisions before and after an edit."""
    old_N, new_N = old.boundary_N(level), new.boundary_N(level)
    behind_N = old_N[edit.old_end :] != new_N[edit.new_end :]
    flipped = np.flatnonzero(behind_N)
    return Reach(
        flips=len(flipped),
        reach=int(flipped[-1]) + 1 if len(flipped) else 0,
        before=int((old_N[: edit.begin] != new_N[: edit.begin]).sum()),
    )


def edits(reader: Reader, texts: Sequence[str], level: int = 0) -> dict[str, EditFacts | None]:
    """Change every text once in each way and say how far that reaches, in the mean, the median and at most.

    None for a way that no text offers a place for.
    """
    facts: dict[str, EditFacts | None] = {}
    for name, change in EDITS.items():
        changed = [(text, edit) for i, text in enumerate(texts) if (edit := change(text, i))]
        old = reader.read([reader.encode(text) for text, _ in changed])
        new = reader.read([reader.encode(edit.text) for _, edit in changed])
        found = [
            reach(a, b, edit, level)
            for (text, edit), a, b in zip(changed, old, new, strict=True)
            if a.data == text.encode() and b.data == edit.text.encode()
        ]
        facts[name] = _summary(found) if found else None
    return facts


def _summary(found: list[Reach]) -> EditFacts:
    reached = [each.reach for each in found]
    return EditFacts(
        texts=len(found),
        moved=sum(r > 0 for r in reached) / len(found),
        flips=float(np.mean([each.flips for each in found])),
        mean_reach=float(np.mean(reached)),
        median_reach=float(np.median(reached)),
        largest_reach=max(reached),
        flips_before=sum(each.before for each in found),
    )


def repeated(reader: Reader, length: int, level: int = 0) -> list[Repetition]:
    """Read one thing over and over, `length` bytes of it: boundaries, and the longest chunk in bytes."""
    facts = []
    for unit in REPEATED:
        text = (unit * length)[:length].decode()
        [row] = reader.read([reader.encode(text)])
        boundary_N = row.boundary_N(level)
        facts.append(
            Repetition(
                unit=unit.decode(),
                bytes=len(row.data),
                boundaries=int(boundary_N.sum()),
                longest=int(chunk_lengths(boundary_N).max()) if boundary_N.any() else len(row.data),
            )
        )
    return facts


def without_spaces(reader: Reader, texts: Sequence[str], level: int = 0) -> Spaces | None:
    """Take all whitespace out and see whether boundaries still find where words started; None without any."""
    spaced = _word_starts(reader, texts, level, squeeze=False)
    spaceless = _word_starts(reader, texts, level, squeeze=True) if spaced else None
    return Spaces(spaced=spaced, spaceless=spaceless) if spaced and spaceless else None


def _word_starts(reader: Reader, texts: Sequence[str], level: int, *, squeeze: bool) -> WordStarts | None:
    total, chunks, size, used = Agreement(), 0, 0, 0
    for text in texts:
        data = text.encode()
        start_N = word_starts(data)
        if squeeze:
            keep_N = ~np.isin(np.frombuffer(data, np.uint8), list(WHITESPACE))
            data, start_N = bytes(np.frombuffer(data, np.uint8)[keep_N]), start_N[keep_N]
        if not data:
            continue
        [row] = reader.read([reader.encode(data.decode())])
        if row.data != data:
            continue
        start_N = start_N & (np.arange(len(data)) > 0)
        boundary_N = row.boundary_N(level)
        total += agreement(boundary_N, start_N, ~row.undecided_N())
        chunks, size, used = chunks + int(boundary_N.sum()), size + len(data), used + 1
    return merged(WordStarts, total.facts(), texts=used, mean_length_bytes=size / chunks) if used else None
