"""Batches of training windows, in stream order or shuffled, whose whole state is one integer.

A window is seq_len tokens and their seq_len targets, that is seq_len + 1 tokens of the stream. `position` counts
windows since the start of training, over all ranks; from it and the seed everything follows, so a run that resumes at
a position sees exactly what it would have seen. A thread has the next batch ready while the current one is in use.

What the windows are (`packing`):

- "stream": the stream cut every seq_len tokens, wherever that falls, as the challenge does; neighbours share a token.
- "documents": the first window starts at the first document. Where a window ends inside the document that it started
  in, the next one goes on there; where it ends inside a later document, the next one starts with that document. So
  every document is seen from its start, and one that fits in a window is seen in one piece. Beginnings that a window
  cuts off are read twice.

In which order they come (`order`):

- "stream": as they lie in the shards; after the last the first again.
- "shuffle": each epoch visits every window of all shards once in an order of its own. The order is a keyed permutation
  computed per window, so it costs no memory. Under "stream" packing each epoch also begins at an offset of its own, so
  that the cuts fall elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from niblick.data.dataset import Split
from niblick.errors import DataError

Order = Literal["stream", "shuffle"]
Packing = Literal["stream", "documents"]
Batch = tuple[torch.Tensor, torch.Tensor]
Send = Callable[[Batch], Callable[[], Batch]]
"""Starts to bring a batch to its device; what it returns waits until it is there."""


class Batches:
    """Endless batches of one split. `position` may be read for a checkpoint and set to resume.

    Of several ranks, each takes its own part of every batch: `rows` windows of `rows` · `ranks` neighbours in the
    order, so that all ranks together read what one process with as many micro-batches reads.
    """

    def __init__(
        self,
        split: Split,
        *,
        vocab_size: int,
        seq_len: int,
        rows: int,
        order: Order = "stream",
        packing: Packing = "stream",
        seed: int = 0,
        position: int = 0,
        rank: int = 0,
        ranks: int = 1,
        send: Send | None = None,
    ) -> None:
        """`rows` windows of `seq_len` a batch; `send` is called in the thread that reads ahead.

        Raises DataError if the split is shorter than one window, or has no document index where packing needs one.
        """
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
        self.rank, self.ranks, self._send = rank, ranks, send
        self._starts: npt.NDArray[np.int64] | None = None
        if packing == "documents":
            self._starts = document_windows(split, seq_len)
            self.windows, self._phases = len(self._starts), 1
            """Windows in an epoch."""
        else:
            # Shuffled epochs begin at any of `_phases` offsets, so they have to do with almost a window less.
            whole = (split.tokens - 1) // seq_len
            self.windows = whole if order == "stream" else max(1, (split.tokens - seq_len) // seq_len)
            self._phases = min(seq_len, split.tokens - self.windows * seq_len)
        self._thread = ThreadPoolExecutor(1, "batches")
        self._ahead: tuple[int, Future[Callable[[], Batch]]] | None = None

    def next(self) -> Batch:
        """Return (ids_BL, targets_BL), int64, and move on by B windows of each rank.

        Raises DataError naming file and position of a token outside the vocabulary.
        """
        ready = self._ahead
        if ready is None or ready[0] != self.position:
            ready = self._read_ahead(self.position)
        batch = ready[1].result()()
        self.position += self.rows * self.ranks
        self._ahead = self._read_ahead(self.position)
        return batch

    def _read_ahead(self, position: int) -> tuple[int, Future[Callable[[], Batch]]]:
        return position, self._thread.submit(self._sent, position)

    def _sent(self, position: int) -> Callable[[], Batch]:
        batch = self._batch(position)
        return self._send(batch) if self._send else lambda: batch

    def _batch(self, position: int) -> Batch:
        starts = self.starts(position + self.rank * self.rows, self.rows)
        length = self.seq_len
        if np.all(np.diff(starts) == length):  # neighbours: one read
            stream = self._read(int(starts[0]), self.rows * length + 1)
            window = torch.from_numpy(stream).as_strided((self.rows, length + 1), (length, 1))
        else:
            window = torch.from_numpy(np.stack([self._read(int(start), length + 1) for start in starts]))
        return window[:, :-1].contiguous(), window[:, 1:].contiguous()

    def starts(self, position: int, count: int) -> npt.NDArray[np.int64]:
        """Return where in the stream windows `position` to `position + count` begin, shape (count,)."""
        epochs, inside = np.divmod(np.arange(position, position + count, dtype=np.int64), self.windows)
        if self.order == "stream":
            return inside * self.seq_len if self._starts is None else self._starts[inside]
        starts = np.empty(count, np.int64)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            key = _key(self.seed, int(epoch))
            drawn = permute(inside[here], self.windows, key)
            starts[here] = drawn * self.seq_len + key % self._phases if self._starts is None else self._starts[drawn]
        return starts

    def _read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        tokens = self.split.slice(start, length)
        self.split.check_vocabulary(tokens, start, self.vocab_size)
        return tokens.astype(np.int64)


def document_windows(split: Split, seq_len: int) -> npt.NDArray[np.int64]:
    """Return where the windows of "documents" packing start. Raises DataError if the split has no document index."""
    if split.index is None or not len(split.index):
        raise DataError(
            f"The {split.name} split has no document index, which data.packing=documents needs; make one with "
            "`niblick data prepare` or `niblick data convert`, or set data.packing=stream."
        )
    offsets = np.asarray(split.index["offset"], np.int64)
    ends = np.append(offsets[1:], split.tokens)
    last = split.tokens - seq_len - 1  # the last place where a whole window begins
    starts, document = [], 0
    while document < len(offsets) and offsets[document] <= last:
        start = int(offsets[document])
        inside = min(int(ends[document]) - 2, last)  # the last place in this document with something to predict
        starts.append(np.arange(start, max(inside, start) + 1, seq_len, dtype=np.int64))
        reached = int(starts[-1][-1]) + seq_len  # the last target
        unseen = int(np.searchsorted(ends, reached + 1, side="right"))  # the first document not seen to its end
        document = max(unseen, document + 1)
    return np.concatenate(starts) if starts else np.zeros(1, np.int64)


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
