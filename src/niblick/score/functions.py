"""The score of any function from ids to log-probabilities: what `niblick.score(f, data)` calls.

Shapes: B batch, L positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from niblick.data.dataset import Dataset
from niblick.errors import ConfigError
from niblick.score.scorers import ReportProgress, Score, ScoreConfig, contiguous_losses

TOLERANCE = 1e-3
"""Probabilities of a position may miss a sum of one by so much."""


def score_function(
    f: Callable[[Tensor], Tensor],
    data: str | Path | Dataset,
    config: ScoreConfig | None = None,
    *,
    progress: ReportProgress | None = None,
) -> Score:
    """Score `f(ids_BL)` → log-probabilities_BLV of each next token, in nats, on the validation split of `data`.

    Windows, targets and bytes are those of a model's own score: `ids_BL` are int64 on the CPU, each row a window that
    starts afresh, and position t gives the distribution of the token after ids t. Whether `f` looks ahead in its
    window, nobody checks. Raises ConfigError if the shape is another, or if probabilities do not sum to one; DataError
    for data that cannot be read.
    """
    dataset = data if isinstance(data, Dataset) else Dataset.open(data)
    vocab_size = dataset.tokenizer.vocab_size

    def losses(ids_BL: Tensor, targets_BL: Tensor) -> Tensor:
        log_p_BLV = f(ids_BL)
        _check(log_p_BLV, (*ids_BL.shape, vocab_size))
        return -log_p_BLV.gather(2, targets_BL[:, :, None].to(log_p_BLV.device))[:, :, 0]

    return contiguous_losses(
        losses, vocab_size, dataset.val, dataset.tokenizer, config or ScoreConfig(), progress=progress
    )


def _check(log_p_BLV: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ConfigError unless these are log-probabilities of that shape."""
    if not isinstance(log_p_BLV, Tensor) or not log_p_BLV.is_floating_point() or log_p_BLV.shape != expected:
        found = f"{log_p_BLV.dtype} {tuple(log_p_BLV.shape)}" if isinstance(log_p_BLV, Tensor) else type(log_p_BLV)
        raise ConfigError(f"the function gave {found}, expected floating-point log-probabilities of shape {expected}")
    sums_BL = log_p_BLV.double().logsumexp(-1).exp()
    off_BL = (sums_BL - 1).abs()
    if not bool((off_BL <= TOLERANCE).all()):  # so that NaN is refused too
        row, place = divmod(int(off_BL.nan_to_num(torch.inf).argmax()), expected[1])
        raise ConfigError(
            f"the probabilities at position {place} of row {row} sum to {float(sums_BL[row, place]):.4g}, expected 1: "
            "give log-probabilities in nats, as of log_softmax"
        )
