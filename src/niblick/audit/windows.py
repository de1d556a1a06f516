"""Whole windows as they are really scored, held against the same rows asked alone by something that has seen nothing.

Some batches of the real scoring, spread over the stream, are kept with what each target cost there: at the scorer's
batch size, window length and dtype, and again after many more tokens. A fresh copy is then asked about single rows, and
about rows that end before the target, which leaves nothing to look ahead at. Both must give every target the same cost.

Shapes: N targets, B batch, L positions, T positions whose targets are scored, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from niblick.audit.checks import Check, failed, passed
from niblick.data.dataset import Split
from niblick.score.any_function import FunctionLosses, NotNormalized
from niblick.score.plan import Batch, plan, read_batch
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import Losses, batches_of

Floats = npt.NDArray[np.float64]
Function = Callable[[Tensor], Tensor]

EXACT, HALF = 1e-4, 2.0**-6
"""Nats (and share of larger costs) by which a target's cost may differ by rounding: in float32, in half precision."""
MEAN_HALF = 2e-3
"""Nats by which the mean cost may differ in half precision."""
MOST_WARM = 1 << 20
"""Tokens that are read before rows are asked about once more."""
BATCHES, ROWS = 4, 2
"""Batches that are kept, and rows of each that are asked about alone."""
_CUTS = (1, 129, 201, 257, 513, 769)


@dataclass(frozen=True)
class Row:
    """A row of a batch as it was scored, and the places whose targets are asked about with nothing behind them."""

    ids_L: Tensor
    targets_T: Tensor
    first: int
    begin: int
    """Where its targets stand among those of the batch."""
    ends: tuple[int, ...]
    """Positions, among those scored."""


@dataclass(frozen=True)
class Apart:
    """The target whose cost differs most, and the mean difference of all."""

    way: str
    worst: float
    target: int
    nats: tuple[float, float]
    mean: float


def spread(config: ScoreConfig, split: Split, bos_id: int, tokens: int, *, pad: bool) -> list[Batch]:
    """Return whole batches as the scorer reads them: the first, the last and some between, at most `tokens` in all."""
    every = batches_of(plan(config, split, bos_id), config, split, bos_id, pad=pad)
    order = [0, len(every) - 1, len(every) // 2, len(every) // 4, 3 * len(every) // 4]
    largest = max(range(len(every)), key=lambda n: len(every[n].start_N))
    chosen: list[int] = []
    for number in dict.fromkeys([largest, *order]):
        size = sum(int(every[n].length_N.sum()) for n in [*chosen, number])
        if len(chosen) < BATCHES and (not chosen or size <= tokens):
            chosen.append(number)
    found = []
    for own in (every[number] for number in sorted(chosen)):
        offset, end = int(own.start_N.min()), int((own.start_N + own.length_N).max()) + 1
        found.append(read_batch(own, split.slice(offset, end - offset), offset))
    return found


def rows_of(batch: Batch, seed: int = 0) -> list[Row]:
    """Return some rows of a batch, the first and the last among them."""
    random = np.random.default_rng(seed)
    count, length = batch.ids_BL.shape
    lengths = [length] * count if batch.length_B is None else batch.length_B.tolist()
    begin = np.concatenate(([0], np.cumsum(np.array(lengths) - batch.first)))
    found = []
    for row in sorted({0, count - 1})[:ROWS]:
        scored = lengths[row] - batch.first
        cuts = [0, *_CUTS, scored // 2, scored - 2, scored - 1, *random.integers(0, scored, 4).tolist()]
        ends = tuple(sorted({cut for cut in cuts if 0 <= cut < scored}))
        ids_L = torch.from_numpy(batch.ids_BL[row, : lengths[row]])
        targets_T = torch.from_numpy(batch.targets_BT[row, :scored])
        found.append(Row(ids_L, targets_T, batch.first, int(begin[row]), ends))
    return found


@torch.no_grad()
def alone(f: Function, row: Row) -> Floats:
    """The cost of every scored target of a row that is asked by itself."""
    log_p_TV = f(row.ids_L[None])[0, row.first :].double().cpu()
    return -log_p_TV.gather(1, row.targets_T[:, None])[:, 0].numpy()


@torch.no_grad()
def with_nothing_behind(f: Function, row: Row) -> Floats:
    """The cost of the targets at the row's `ends`, each asked of the row up to there."""
    found = []
    for end in row.ends:
        log_p_V = f(row.ids_L[None, : row.first + end + 1])[0, -1].double().cpu()
        found.append(-float(log_p_V[int(row.targets_T[end])]))
    return np.array(found)


def difference(way: str, scored: Floats, asked: Floats, batch: Batch, places: Sequence[int]) -> Apart:
    """How far costs as scored are from costs as asked; `places` are their targets among those of the batch."""
    apart_N = np.nan_to_num(np.abs(scored - asked), nan=np.inf, posinf=np.inf)
    apart_N = np.where(scored == asked, 0.0, apart_N)  # both infinite
    share_N = apart_N / np.maximum(1.0, np.minimum(np.abs(asked), np.abs(scored)))
    worst = int(share_N.argmax())
    mean = float(np.nan_to_num(np.where(scored == asked, 0.0, scored - asked), nan=np.inf).mean())
    target = int(batch.place_N[places[worst]])
    return Apart(way, float(share_N[worst]), target, (float(scored[worst]), float(asked[worst])), mean)


def beyond(found: Apart, *, half: bool) -> bool:
    """Whether rounding does not explain a difference."""
    if half:
        return not (found.worst <= HALF and abs(found.mean) <= MEAN_HALF)
    return not found.worst <= EXACT


def told(found: Apart, half: bool) -> Check:
    """The check that fails with this difference."""
    scored, asked = found.nats
    return failed(
        "scored windows",
        f"target {found.target} costs {scored:.4f} nats as it is scored and {asked:.4f} {found.way}; rounding in "
        f"{'half precision' if half else 'float32'} explains {HALF if half else EXACT:.1g}",
        target=found.target,
        nats=[scored, asked],
        way=found.way,
        mean=found.mean,
    )


class _Dtypes(TorchDispatchMode):
    """Sees in which dtypes something computes."""

    def __init__(self) -> None:
        super().__init__()
        self.half = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16):
                self.half = True
        return out


@torch.no_grad()
def computes_in_half(f: Function, ids_BL: Tensor) -> bool:
    """Whether a function computes in float16 or bfloat16 anywhere."""
    with _Dtypes() as seen:
        f(ids_BL)
    return seen.half


def function_windows(load: Callable[[], Function], split: Split, bos_id: int, vocab_size: int, tokens: int) -> Check:
    """A function as it is scored, against a copy that is loaded anew and asked about rows alone."""
    try:
        return _function_windows(load, split, bos_id, vocab_size, tokens)
    except NotNormalized as error:
        return failed("scored windows", f"as it is scored, {error}")


def _function_windows(load: Callable[[], Function], split: Split, bos_id: int, vocab_size: int, tokens: int) -> Check:
    config = ScoreConfig()
    kept = spread(config, split, bos_id, tokens, pad=False)
    scorer, warm = FunctionLosses(load(), vocab_size), min(8 * tokens, MOST_WARM)
    with torch.no_grad():
        first = [costs(scorer, batch) for batch in kept]
        read = sum(batch.ids_BL.size for batch in kept)
        while read < warm:
            for batch in kept:
                scorer(batch)
                read += batch.ids_BL.size
        later = [costs(scorer, batch) for batch in kept]
    fresh = load()
    half = computes_in_half(fresh, torch.from_numpy(kept[0].ids_BL[:1, :8]))
    targets = 0
    for batch, *nats in zip(kept, first, later, strict=True):
        for row in rows_of(batch):
            everywhere = range(row.begin, row.begin + len(row.targets_T))
            some = [row.begin + end for end in row.ends]
            asked, cut = alone(fresh, row), with_nothing_behind(fresh, row)
            for own, when in zip(nats, ("", f" (after {read:,} tokens)"), strict=True):
                for way, other, places in (
                    ("with nothing behind it", cut, some),
                    ("in a row alone", asked, everywhere),
                ):
                    found = difference(way + when, own[list(places)], other, batch, places)
                    if beyond(found, half=half):
                        return told(found, half)
            targets += len(everywhere)
    rows, length = kept[0].ids_BL.shape
    return passed(
        "scored windows",
        f"{targets:,} targets in batches of up to {rows} windows of {length} tokens cost what they cost in rows alone, "
        f"at first and after {read:,} tokens",
        targets=targets,
        tokens=read,
        half=half,
    )


def costs(losses: Losses, batch: Batch) -> Floats:
    """What the targets of a batch cost, row by row."""
    return losses(batch).double().cpu().numpy()
