"""Multiply-adds of a scoring pass, counted as it runs: the bound on what skipping can gain.

What counts are the products of matrices: linear maps, attention (only pairs that may see each other), the dechunking
scan. Norms, gates and activations do not count, nor does memory traffic: a bound on the gain, not a forecast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from niblick.model.blocked import attend
from niblick.model.lm import LM
from niblick.score.plan import Batch
from niblick.score.scorers import ModelLosses


class Operations(NamedTuple):
    """Multiply-adds of the same batch, read in two ways."""

    full: int
    """All states of all windows, and logits of all of them."""
    skipping: int
    """What the scored targets need."""

    @property
    def bound(self) -> float:
        """How many times faster skipping can be at most, by counted operations."""
        return self.full / self.skipping


def count_operations(model: LM, batch: Batch) -> Operations:
    """Score a batch with and without skipping, and count the multiply-adds of both."""
    counted = []
    for skip in (False, True):
        with torch.no_grad():
            counted.append(multiply_adds(partial(ModelLosses(model, skip=skip), batch)))
    return Operations(*counted)


def multiply_adds(run: Callable[[], object]) -> int:
    """Return the multiply-adds of all that `run` computes forward."""
    with _Counter() as counter:
        run()
    return counter.multiply_adds


class _Counter(TorchFunctionMode):
    """Counts the products of matrices among the torch functions that are called under it."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = 0

    def __torch_function__(self, func: Any, types: Iterable[type], args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "linear":
            x, weight_OI = args[:2]
            self.multiply_adds += x.numel() * weight_OI.shape[0]
        elif name in ("bmm", "baddbmm", "baddbmm_"):
            left_BNM, right_BMP = args[-2:]
            self.multiply_adds += left_BNM.numel() * right_BMP.shape[-1]
        elif name == "scaled_dot_product_attention" or func is attend:
            q_BHQK, k_BGTK = args[:2]
            B, H, Q, K = q_BHQK.shape
            self.multiply_adds += 2 * B * H * K * _pairs(Q, k_BGTK.shape[2], args[3] if len(args) > 3 else None)
        return func(*args, **(kwargs or {}))


def _pairs(queries: int, keys: int, mask_QT: Tensor | None) -> int:
    """How many pairs of query and key there are where queries stand at the end of the keys."""
    if mask_QT is not None:
        return int(mask_QT.sum())
    return queries * keys - queries * (queries - 1) // 2
