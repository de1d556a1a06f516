"""What documents can say about two scores of one text: is one better, or was it lucky with these documents?

Every document is one draw from the kind of text that is held out. Two artifacts scored on the same documents are
compared on each, so that hard documents, which are hard for both, add no noise (a paired test). What seeds can say is
in `ledger.seeds`.

Shapes: D documents.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.challenge import rules
from niblick.errors import DataError

FEW_DOCUMENTS = 30
"""Below so many documents the interval is too narrow: with documents of log-normal lengths, simulated, the 95% interval
held the truth in 84% of cases for 5 documents, 90% for 20, 93% for 30 and for 1,000."""

_DRAWS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Bootstrap:
    """The difference of two scores, second minus first, in bits per byte: below zero where the second is better."""

    difference: float
    low: float
    """`level` of the resamples lie between `low` and `high`."""
    high: float
    level: float
    p: float
    """Two-sided: how easily documents alone would give a difference this far from zero."""
    p_margin: float
    """One-sided: share of the resamples where the better one is not better by the margin that was asked."""
    documents: int
    resamples: int


def paired_bootstrap(
    first_D: npt.NDArray[np.float64],
    second_D: npt.NDArray[np.float64],
    bytes_D: npt.NDArray[Any],
    *,
    margin: float = 0.0,
    offset: float = 0.0,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Resample documents and compare two scores of them: the paired percentile bootstrap (Efron 1979; Koehn 2004).

    `first_D` and `second_D` are the nats of each document, `bytes_D` its bytes of UTF-8. The score of a resample is
    all its bits over all its bytes, so that long documents count more, as they do in BPB. `margin` is in bits per
    byte. `offset` is added to every difference: what the second pays per byte in all documents alike, more than the
    first. Raises DataError for fewer than two documents, or arrays that do not go together.
    """
    if not (len(first_D) == len(second_D) == len(bytes_D)):
        raise DataError(
            f"costs of {len(first_D)} and {len(second_D)} documents and the bytes of {len(bytes_D)} do not go "
            "together: score both on the same data again"
        )
    documents = len(bytes_D)
    if documents < 2:
        raise DataError(f"the text is {documents} document: resampling needs at least two, better {FEW_DOCUMENTS}")
    bits_D = (np.asarray(second_D, np.float64) - np.asarray(first_D, np.float64)) / math.log(2)
    size_D = np.asarray(bytes_D, np.float64)
    draw = np.random.default_rng(seed)
    differences = np.empty(resamples)
    rows = max(1, _DRAWS_AT_ONCE // documents)
    for start in range(0, resamples, rows):
        chosen = draw.integers(0, documents, (min(rows, resamples - start), documents))
        differences[start : start + rows] = bits_D[chosen].sum(1) / size_D[chosen].sum(1)
    differences += offset
    difference = float(bits_D.sum() / size_D.sum()) + offset
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    gains = -differences if difference < 0 else differences
    return Bootstrap(
        difference,
        float(low),
        float(high),
        level,
        min(1.0, 2 * _share(min(int((differences <= 0).sum()), int((differences >= 0).sum())), resamples)),
        _share(int((gains < margin).sum()), resamples),
        documents,
        resamples,
    )


def _share(count: int, resamples: int) -> float:
    """A share that is never zero: the data itself is one more resample (Davison and Hinkley 1997, 4.2)."""
    return (count + 1) / (resamples + 1)


def record_margin(tokens: int, size: int) -> float:
    """What the challenge's 0.005 nats per token are in bits per byte, where `tokens` stand for `size` bytes."""
    return rules.RECORD_NATS / math.log(2) * tokens / size
