"""Finds copies of some texts in others: whole runs of them, also where single bytes were changed here and there.

Texts are compared in a normal form, in which case, line ends and wrapping make no difference.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

RUN = 200
"""Bytes of a validation document that must not stand in training text, beyond what the source repeats."""

_SHINGLE, _EVERY = 48, 24
"""Bytes of a piece that must stand there unchanged, and how far apart pieces of a known text begin."""
_JUMP, _AGAIN = 8, 16
"""Bytes that may differ between two pieces, and bytes that must agree again after them."""
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so it has an inverse modulo 2**64
_INVERSE = np.uint64(pow(int(_BASE), -1, 1 << 64))
_FILTER = 24
"""Bits of the table that most places are ruled out by."""
_MOST_PLACES = 64
"""Known places of one piece that are looked at."""
_JUMPS = sorted(
    ((one, other) for one in range(_JUMP + 1) for other in range(_JUMP + 1) if one or other),
    key=lambda jump: (max(jump), abs(jump[0] - jump[1])),
)


class Copy(NamedTuple):
    """A run of a known text that was found in another."""

    at: int
    """Where it stands in the other."""
    document: int
    begin: int
    """Where it stands in the known text, and its bytes there."""
    length: int
    changes: int
    """Places inside it where the two differ."""


def normal(text: bytes) -> bytes:
    """The text in lower case, with one space for whatever stands between words."""
    return re.sub(rb"\s+", b" ", text.lower()).strip()


class Matches:
    """Finds runs of RUN bytes or more of some texts in other texts.

    Pieces of the known texts are hashed; the other text's hashes are computed at every place, as differences of running
    sums modulo 2**64. From each piece that is found, a run grows both ways, over single changes too.
    """

    def __init__(self, texts: list[bytes]) -> None:
        self._texts = texts
        hashes, places = [], []
        for number, text in enumerate(texts):
            at = np.arange(0, len(text) - _SHINGLE + 1, _EVERY)
            hashes.append(_hashes(text, _SHINGLE)[at])
            places.append(np.stack((np.full(len(at), number), at), 1))
        hash_N = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
        order = np.argsort(hash_N, kind="stable")
        self._hash_N, self._place_N2 = hash_N[order], np.concatenate(places)[order]
        self._maybe = np.zeros(1 << _FILTER, bool)
        self._maybe[self._hash_N >> np.uint64(64 - _FILTER)] = True

    def runs(self, text: bytes) -> Iterator[Copy]:
        """Give each run of `text` that is one of a known text, none twice."""
        hash_L = _hashes(text, _SHINGLE)
        maybe_N = np.flatnonzero(self._maybe[hash_L >> np.uint64(64 - _FILTER)])
        low_N = np.searchsorted(self._hash_N, hash_L[maybe_N])
        end = 0
        for at, low in zip(maybe_N.tolist(), low_N.tolist(), strict=True):
            if at < end or low >= len(self._hash_N) or self._hash_N[low] != hash_L[at]:
                continue
            copy, stop = max(self._candidates(text, at, low), key=lambda found: found[0].length)
            if copy.length >= RUN:
                yield copy
                end = stop
            else:
                end = max(end, at + 1)

    def _candidates(self, text: bytes, at: int, low: int) -> Iterator[tuple[Copy, int]]:
        """The runs around a piece and where they end, of every known place that has it (of very many the first)."""
        for k in range(low, min(low + _MOST_PLACES, len(self._hash_N))):
            if self._hash_N[k] != self._hash_N[low]:
                return
            number, place = self._place_N2[k].tolist()
            other = self._texts[number]
            if text[at : at + _SHINGLE] != other[place : place + _SHINGLE]:
                yield Copy(at, number, place, 0, 0), at
                continue
            stop, known_stop, later = _grown(text, at + _SHINGLE, other, place + _SHINGLE)
            back, known_back, earlier = _grown(_turned(text), len(text) - at, _turned(other), len(other) - place)
            begin, known = len(text) - back, len(other) - known_back
            yield Copy(begin, number, known, known_stop - known, later + earlier), stop


@functools.lru_cache(maxsize=64)
def _turned(text: bytes) -> bytes:
    """The text from its end to its beginning."""
    return text[::-1]


def _grown(text: bytes, at: int, other: bytes, place: int) -> tuple[int, int, int]:
    """How far both texts agree from there on, over small changes: (end in `text`, end in `other`, changes)."""
    changes = 0
    while True:
        same = _same(text, at, other, place)
        at, place = at + same, place + same
        again = text[at : at + _JUMP + _AGAIN], other[place : place + _JUMP + _AGAIN]
        for one, two in _JUMPS:
            ahead = again[0][one : one + _AGAIN]
            if len(ahead) == _AGAIN and ahead == again[1][two : two + _AGAIN]:
                at, place, changes = at + one, place + two, changes + 1
                break
        else:
            return at, place, changes


def _same(text: bytes, at: int, other: bytes, place: int) -> int:
    """The number of bytes that agree from there on."""
    most = min(len(text) - at, len(other) - place)
    step, done = 64, 0
    while done < most:
        width = min(step, most - done)
        if text[at + done : at + done + width] == other[place + done : place + done + width]:
            done, step = done + width, 2 * step
            continue
        if width == 1:
            break
        step = max(1, width // 2)
    return done


def _hashes(text: bytes, width: int) -> npt.NDArray[np.uint64]:
    """A hash of the `width` bytes at every place of `text`."""
    if len(text) < width:
        return np.zeros(0, np.uint64)
    data = np.frombuffer(text, np.uint8).astype(np.uint64) + np.uint64(1)
    powers, inverse = _powers(1 << len(text).bit_length())
    power = powers[: len(text)]
    sums = np.concatenate(([np.uint64(0)], np.cumsum(data * power, dtype=np.uint64)))
    hashed = (sums[width:] - sums[:-width]) * inverse[: len(text) - width + 1]
    return hashed ^ (hashed << np.uint64(31))


@functools.lru_cache(maxsize=32)
def _powers(count: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The first powers of the base and of its inverse."""
    ones = np.ones(count, np.uint64)
    power, inverse = ones * _BASE, ones * _INVERSE
    power[0] = inverse[0] = np.uint64(1)
    return np.cumprod(power, dtype=np.uint64), np.cumprod(inverse, dtype=np.uint64)
