"""Batches of training windows, in stream order or shuffled, whose whole state is one integer.

A window is seq_len tokens and their seq_len targets, that is seq_len + 1 tokens of the stream, of which neighbours
share one. `position` counts windows since the start of training; from it and the seed everything follows, so a run
that resumes at a position sees exactly what it would have seen.

- "stream": windows in the order of the stream, as the challenge reads it; after the last whole one the first again.
- "shuffle": each epoch visits every window once in an order of its own, and begins at an offset of its own, so that
  the cuts fall elsewhere. The order is a keyed permutation computed per window, so it costs no memory.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from niblick.data.dataset import Split
from niblick.errors import DataError

Order = Literal["stream", "shuffle"]


class Batches:
    """Endless batches of one split. `position` may be read for a checkpoint and set to resume."""

    def __init__(
        self,
        split: Split,
        *,
        vocab_size: int,
        seq_len: int,
        rows: int,
        order: Order = "stream",
        seed: int = 0,
        position: int = 0,
    ) -> None:
        """`rows` windows of `seq_len` a batch. Raises DataError if the split is shorter than one window."""
        if split.tokens < seq_len + 1:
            raise DataError(
                f"the {split.name} split has {split.tokens} tokens, but one window needs {seq_len + 1} "
                "(seq_len and one more); prepare more text or choose a shorter seq_len"
            )
        self.split = split
        self.vocab_size = vocab_size
        self.seq_len = seq_len
        self.rows = rows
        self.order = order
        self.seed = seed
        self.position = position
        # Shuffled epochs begin at any of `_phases` offsets, so they have to do with almost a window less.
        whole = (split.tokens - 1) // seq_len
        self.windows = whole if order == "stream" else max(1, (split.tokens - seq_len) // seq_len)
        """Windows in an epoch."""
        self._phases = min(seq_len, split.tokens - self.windows * seq_len)

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (ids_BL, targets_BL), int64, and move on by B windows.

        Raises DataError naming file and position of a token outside the vocabulary.
        """
        starts = self.starts(self.position, self.rows)
        length = self.seq_len
        if np.all(np.diff(starts) == length):  # neighbours: one read
            stream = self._read(int(starts[0]), self.rows * length + 1)
            window = torch.from_numpy(stream).as_strided((self.rows, length + 1), (length, 1))
        else:
            window = torch.from_numpy(np.stack([self._read(int(start), length + 1) for start in starts]))
        self.position += self.rows
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()

    def starts(self, position: int, count: int) -> npt.NDArray[np.int64]:
        """Return where in the stream windows `position` to `position + count` begin, shape (count,)."""
        epochs, inside = np.divmod(np.arange(position, position + count, dtype=np.int64), self.windows)
        if self.order == "stream":
            return inside * self.seq_len
        starts = np.empty(count, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = _key(self.seed, int(epoch))
            starts[here] = permute(inside[here], self.windows, key) * self.seq_len + key % self._phases
        return starts

    def _read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        tokens = self.split.slice(start, length)
        self.split.check_vocabulary(tokens, start, self.vocab_size)
        return tokens.astype(np.int64)


_MASK = (1 << 64) - 1
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ROUNDS = 6


def _key(seed: int, epoch: int) -> int:
    pair = _mix(np.array([seed & _MASK, epoch], np.uint64) + _ODD)
    return int(_mix(pair[:1] ^ (pair[1:] * _ODD))[0])


def permute(index: npt.NDArray[np.int64], size: int, key: int) -> npt.NDArray[np.int64]:
    """Map each index in [0, size) to its place in the pseudo-random permutation that `key` names.

    A Feistel network permutes the next power of four; where it leaves [0, size) it is applied again (cycle walking),
    fewer than four times on average.
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = _mix(np.uint64(key & _MASK) + np.arange(1, _ROUNDS + 1, dtype=np.uint64) * _ODD)
    result = index.astype(np.uint64)
    outside = np.ones(result.shape, bool)
    while outside.any():
        left, right = result[outside] >> np.uint64(half), result[outside] & mask
        for round_key in keys:
            left, right = right, left ^ (_mix(right + round_key) & mask)
        result[outside] = (left << np.uint64(half)) | right
        outside = result >= np.uint64(size)
    return result.astype(np.int64)


def _mix(value: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64: every bit of the result depends on every bit of `value`."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
