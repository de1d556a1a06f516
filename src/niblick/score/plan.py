"""How a split is scored: the config, the windows it is cut into, and the batches that these are read in.

One mechanism serves all scorers. A run of targets (the whole stream, or one document) is cut into windows of W
inputs that start at every multiple of the stride S. The first window scores all of its targets, every later one its
last S, which the windows before it did not reach; the last window is as short as what is left. With S = W that is
contiguous scoring, with S < W sliding scoring, as in the challenge's record scripts.

Shapes: N windows, B batch, L positions, T positions whose targets are scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from niblick.data.dataset import Split
from niblick.errors import DataError
from niblick.score.score_config import ScoreConfig

Integers = npt.NDArray[np.int64]


class Windows(NamedTuple):
    """Windows in stream order: window n reads the tokens from `start` on and scores what follows some of them."""

    start_N: Integers
    """Stream position of the first input."""
    length_N: Integers
    """Inputs read."""
    first_N: Integers
    """The first input whose target (the token after it) is scored; those from there on are."""

    def part(self, begin: int, end: int) -> Windows:
        """Return windows [begin, end)."""
        return Windows(*(column[begin:end] for column in self))

    def targets(self) -> tuple[int, int]:
        """Return the first target that these windows score, and the one after their last."""
        return int(self.start_N[0] + self.first_N[0] + 1), int(self.start_N[-1] + self.length_N[-1] + 1)


def plan(config: ScoreConfig, split: Split, bos_id: int) -> Windows:
    """Cut the targets 1…tokens−1 of `split` into windows: every target once, in ascending order.

    Documents begin where the index says, or without one at every `bos_id`; what follows the last token of a document,
    the BOS of the next, is predicted from inside it. Raises DataError if the split holds no target, or less than one
    window to slide.
    """
    targets = split.tokens - 1
    if targets < 1:
        raise DataError(f"the split holds {split.tokens} tokens, and a score needs at least 2: prepare more documents")
    if config.windows.overlap == "always" and targets < config.seq_len:
        raise DataError(
            f"the split holds {targets} targets, less than one window of score.seq_len={config.seq_len}: nothing can "
            "slide; take a shorter window or prepare more documents"
        )
    begin_D = document_starts(split, bos_id) if config.windows.by_document else np.zeros(1, np.int64)
    count_D = np.diff(begin_D, append=targets)
    return cut(begin_D[count_D > 0], count_D[count_D > 0], config.seq_len, config.step)


def document_starts(split: Split, bos_id: int) -> Integers:
    """Return the stream position that each document begins at, ascending from 0."""
    if split.index is not None:
        return split.index["offset"].astype(np.int64)
    piece = 1 << 24
    found = [np.zeros(1, np.int64)]
    for at in range(0, split.tokens, piece):
        tokens = split.slice(at, min(piece, split.tokens - at))
        found.append(at + np.flatnonzero(tokens == bos_id))
    return np.unique(np.concatenate(found))


def cut(begin_D: Integers, count_D: Integers, seq_len: int, stride: int) -> Windows:
    """Cut runs of `count` targets, whose inputs begin at `begin`, into windows."""
    context = seq_len - stride
    windows_D = 1 + np.maximum(0, -(-(count_D - seq_len) // stride))
    run_N = np.repeat(np.arange(len(begin_D)), windows_D)
    number_N = np.arange(len(run_N)) - np.repeat(np.cumsum(windows_D) - windows_D, windows_D)
    offset_N = number_N * stride
    length_N = np.minimum(seq_len, count_D[run_N] - offset_N)
    return Windows(begin_D[run_N] + offset_N, length_N, np.where(number_N == 0, 0, context))


class Batch(NamedTuple):
    """Windows read together. Shorter rows are filled up at their end with token 0, which nothing valid depends on."""

    ids_BL: Integers
    targets_BT: Integers
    """Of the inputs from `first` on."""
    length_B: Integers | None
    """Inputs of each row; None where all have L."""
    first: int
    """The first input whose target is scored; the same in every row."""
    place_N: Integers
    """Stream position of every target that is scored, row by row."""

    def valid_BT(self) -> npt.NDArray[np.bool_]:
        """Which targets are scored."""
        at_T = np.arange(self.first, self.ids_BL.shape[1])
        lengths = self.ids_BL.shape[1] if self.length_B is None else self.length_B[:, None]
        return np.broadcast_to(at_T < lengths, self.targets_BT.shape)


def batches(windows: Windows, batch_tokens: int, *, pad: bool, ordered: bool) -> Iterator[Windows]:
    """Bundle windows so that each bundle reads at most `batch_tokens` inputs, but at least one window.

    Only windows that score from the same input on come together, without `pad` only those of one length. With
    `ordered` the targets of all bundles follow the stream, else windows of like length come together.
    """
    if not ordered:
        windows = Windows(*(column[np.lexsort((windows.length_N, windows.first_N))] for column in windows))
    lengths, firsts = windows.length_N.tolist(), windows.first_N.tolist()
    begin, longest = 0, 0
    for n, (length, first) in enumerate(zip(lengths, firsts, strict=True)):
        longest = max(longest, length)
        alike = first == firsts[begin] and (pad or length == lengths[begin])
        if n > begin and not (alike and (n - begin + 1) * longest <= batch_tokens):
            yield windows.part(begin, n)
            begin, longest = n, length
    yield windows.part(begin, len(lengths))


def read_batch(windows: Windows, tokens: npt.NDArray[Any], offset: int) -> Batch:
    """Read windows that score from the same input on; `tokens` is the stream from position `offset` on."""
    length, first = int(windows.length_N.max()), int(windows.first_N[0])
    place_BL = windows.start_N[:, None] + np.arange(length + 1)
    padded = bool((windows.length_N < length).any())
    inside_BL = np.arange(length + 1) <= windows.length_N[:, None]
    stream_BL = np.where(inside_BL, tokens[np.where(inside_BL, place_BL - offset, 0)], 0).astype(np.int64)
    scored_BT = inside_BL[:, first + 1 :]
    ids_BL = np.where(inside_BL[:, 1:], stream_BL[:, :-1], 0)  # a last target is no input
    return Batch(
        ids_BL,
        stream_BL[:, first + 1 :],
        windows.length_N if padded else None,
        first,
        place_BL[:, first + 1 :][scored_BT],
    )
