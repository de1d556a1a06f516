"""The score of any function from ids to log-probabilities: what `niblick.score(f, data)` calls.

Shapes: B batch, L positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from niblick.arguments import PathLike
from niblick.data.dataset import Dataset
from niblick.errors import ConfigError
from niblick.score.plan import Batch
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import Losses, ReportProgress, Score, score_losses

TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-3
"""Probabilities of a position may miss a sum of one by so much; the second where they come in half precision."""


def score_function(
    f: Callable[[Tensor], Tensor],
    data: PathLike | Dataset,
    config: ScoreConfig | None = None,
    *,
    progress: ReportProgress | None = None,
) -> Score:
    """Score `f(ids_BL)` → log-probabilities_BLV of each next token, in nats, on the validation split of `data`.

    Windows, targets and bytes are those of a model's own score: `ids_BL` are int64 on the CPU, each row a window that
    starts afresh, and position t gives the distribution of the token after ids t. Rows of a batch are of one length.
    Whether `f` looks ahead in its window, nobody checks. Raises ConfigError if the shape is another, or if
    probabilities do not sum to one, and for settings that only models have; DataError for data that cannot be read.
    """
    config = config or ScoreConfig()
    if config.capacity or config.ttt.optimizer:
        raise ConfigError("score.capacity and score.ttt are for models: a function can neither chunk nor learn")
    dataset = data if isinstance(data, Dataset) else Dataset.open(Path(data))
    vocab_size = dataset.tokenizer.vocab_size
    losses = FunctionLosses(f, vocab_size)
    return score_losses(losses, vocab_size, dataset.val, dataset.tokenizer, config, progress=progress)


class FunctionLosses(Losses):
    """The cost by a function from ids to log-probabilities."""

    def __init__(self, f: Callable[[Tensor], Tensor], vocab_size: int) -> None:
        super().__init__()
        self._f, self._vocab_size = f, vocab_size

    def __call__(self, batch: Batch) -> Tensor:
        ids_BL, targets_BT = torch.from_numpy(batch.ids_BL), torch.from_numpy(batch.targets_BT)
        log_p_BLV = self._f(ids_BL)
        _check(log_p_BLV, (*ids_BL.shape, self._vocab_size))
        log_p_BTV = log_p_BLV[:, batch.first :]
        return -log_p_BTV.gather(2, targets_BT[:, :, None].to(log_p_BTV.device)).flatten()


class NotNormalized(ConfigError):
    """What a function gives is no distribution."""


def sum_tolerance(dtype: torch.dtype) -> float:
    """How far the probabilities of a position may be from a sum of one, by rounding in this dtype."""
    return HALF_TOLERANCE if dtype in (torch.float16, torch.bfloat16) else TOLERANCE


def _check(log_p_BLV: Tensor, expected: tuple[int, ...]) -> None:
    """Raise ConfigError unless these are log-probabilities of that shape."""
    if not isinstance(log_p_BLV, Tensor) or not log_p_BLV.is_floating_point() or log_p_BLV.shape != expected:
        found = f"{log_p_BLV.dtype} {tuple(log_p_BLV.shape)}" if isinstance(log_p_BLV, Tensor) else type(log_p_BLV)
        raise ConfigError(f"the function gave {found}, expected floating-point log-probabilities of shape {expected}")
    sums_BL = log_p_BLV.double().logsumexp(-1).exp()
    off_BL = (sums_BL - 1).abs()
    if not bool((off_BL <= sum_tolerance(log_p_BLV.dtype)).all()):  # so that NaN is refused too
        row, place = divmod(int(off_BL.nan_to_num(torch.inf).argmax()), expected[1])
        raise NotNormalized(
            f"the probabilities at position {place} of row {row} sum to {float(sums_BL[row, place]):.4g}, expected 1: "
            "give log-probabilities in nats, as of log_softmax"
        )
