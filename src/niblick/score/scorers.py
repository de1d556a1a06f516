"""Scorers: what every target of the held-out stream costs.

The official number is bits per byte (BPB): the bits the model needs for all targets of the split, over the UTF-8 bytes
those targets stand for by the challenge's rule (BOS is a token of 0 bytes).

`plan` says which windows are read. They are worked off in parts, in stream order: inside a part batches are made as
is fastest, and divided over the processes; then the cost of every target of the part is known everywhere, and sums are
taken in the order of the stream. So neither batches nor processes matter but by rounding inside a batch.

Shapes: B batch, L positions, T positions at the end whose targets are scored, V vocabulary, N targets.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import Tensor

from niblick.data.dataset import Split
from niblick.data.tokenizers import Tokenizer
from niblick.errors import ConfigError
from niblick.memory import tokens_at_once
from niblick.model.level import Level
from niblick.model.lm import LM
from niblick.model.loss import LOGIT_ELEMENTS
from niblick.model.plain_routers import Routing, ThresholdRouter
from niblick.score import sidecars
from niblick.score.plan import Batch, Windows, batches, document_starts, plan, read_batch
from niblick.score.score_config import ScoreConfig
from niblick.score.ttt import Adapter, Stretch

if TYPE_CHECKING:
    from niblick.score.known_text import KnownText

KNIFE_EDGE = 1e-6
"""Router decisions closer than this to their threshold may turn with rounding."""

_DOCUMENT_BATCHES = 8
"""Batches of windows of unlike length that are sorted together, so that little is filled up."""


class Progress(NamedTuple):
    """How far scoring is."""

    done: int
    """Targets scored."""
    total: int
    """All targets."""
    bpb: float
    """Bits per byte of those scored."""
    seconds: float
    eta_seconds: float


ReportProgress = Callable[[Progress], None]

Observe = Callable[[int, npt.NDArray[np.float64]], None]
"""Called with (stream position of a target, the nats of that target and of those after it), in stream order: every
target once."""

Sidecar = Callable[[int, Tensor, Tensor], Tensor]
"""Called with (stream position of a target, logits_NV of that target and of those after it, targets_N): returns the
adjusted log-probability of each of these targets, (N,). Called in stream order, every target once. What it makes of
row i may depend on targets before the i-th, not on later ones."""


@dataclass(frozen=True)
class Score:
    """What a scorer found on one split."""

    nats: float
    """Cost of all targets together."""
    tokens: int
    """Targets scored."""
    bytes: int
    """UTF-8 bytes that the targets stand for."""
    seconds: float
    document_nats: npt.NDArray[np.float64] | None = None
    """Cost of each document, in the order of the index: of all that is predicted from inside it, its tokens after the
    BOS and the BOS that ends it. None where there is no index."""
    knife_edges: int = 0
    """Router decisions within KNIFE_EDGE of their threshold, counted in every window that made them."""
    decisions: int = 0
    """Router decisions in all windows."""
    log: tuple[Stretch, ...] = ()
    """With test-time training: when each stretch was scored, and when learned."""

    @property
    def loss(self) -> float:
        """Nats per token."""
        return self.nats / self.tokens

    @property
    def bits(self) -> float:
        """Cost of all targets in bits."""
        return self.nats / math.log(2)

    @property
    def bpb(self) -> float:
        """Bits per byte."""
        return self.bits / self.bytes


class Losses(ABC):
    """Gives the cost of the targets of a batch; `edges` and `decisions` add up what its routers did."""

    pad = False
    """Whether rows may be filled up."""

    def __init__(self) -> None:
        self.edges, self.decisions = 0, 0

    @abstractmethod
    def __call__(self, batch: Batch) -> Tensor:
        """Return the nats of every target that is scored, (N,), row by row."""


class ModelLosses(Losses):
    """The cost by a model, on its device. With `skip`, nothing is computed that the scored targets do not need.

    Where windows do not overlap (not `slide`), there is nothing to skip.
    """

    def __init__(self, model: LM, sidecar: Sidecar | None = None, *, skip: bool = True, slide: bool = True) -> None:
        super().__init__()
        self.model, self.sidecar, self.skip, self.slide = model, sidecar, skip, slide
        self.device = next(model.parameters()).device
        # A divisor gives room by the length of the batch: rows that are filled up would have more.
        self.pad = all(not isinstance(level, Level) or level.config.divisor is None for level in model.body.levels)

    def __call__(self, batch: Batch) -> Tensor:
        """Return the nats of every target that is scored, (N,), row by row."""
        ids_BL = torch.from_numpy(batch.ids_BL).to(self.device)
        targets_BT = torch.from_numpy(batch.targets_BT).to(self.device)
        length_B = None if batch.length_B is None else torch.from_numpy(batch.length_B).to(self.device)
        last = targets_BT.shape[1]
        if self.skip:
            hidden_BTD, routings = self.model.hidden(
                ids_BL, length_B=length_B, last=last if self.slide and batch.first else None
            )
        else:
            hidden_BTD, routings = self.model.hidden(ids_BL)
            if length_B is None:
                nats_BL = self.model.token_losses(hidden_BTD, torch.cat((ids_BL[:, 1:], targets_BT[:, -1:]), 1))
                return nats_BL[:, -last:].flatten()
            hidden_BTD = hidden_BTD[:, -last:]
        self._count(routings)
        if length_B is None:
            hidden_ND, targets_N = hidden_BTD.flatten(0, 1), targets_BT.flatten()
        else:
            valid_BT = torch.from_numpy(np.array(batch.valid_BT())).to(self.device)
            hidden_ND, targets_N = hidden_BTD[valid_BT], targets_BT[valid_BT]
        if self.sidecar is None:
            return self.model.token_losses(hidden_ND[None], targets_N[None])[0]
        place, rows, parts = int(batch.place_N[0]), max(1, LOGIT_ELEMENTS // self.model.config.vocab_size), []
        for at in range(0, len(targets_N), rows):
            logits_NV = self.model.head(hidden_ND[at : at + rows])
            parts.append(-self.sidecar(place + at, logits_NV, targets_N[at : at + rows]))
        return torch.cat(parts)

    def _count(self, routings: list[Routing]) -> None:
        for level, routing in zip(self.model.body.levels, routings, strict=True):
            if isinstance(level, Level):
                near, made = knife_edges(level, routing)
                self.edges += near
                self.decisions += made


def knife_edges(level: Level, routing: Routing) -> tuple[int, int]:
    """Return how many decisions of a level are within KNIFE_EDGE of its threshold, and how many there are."""
    p_BL = routing.p_BL
    edge = torch.sigmoid(level.router.threshold) if type(level.router) is ThresholdRouter else 0.5
    near_BL = (p_BL - edge).abs() < KNIFE_EDGE
    if routing.length_B is None:
        return int(near_BL.sum()), p_BL.numel()
    near_BL = near_BL & (torch.arange(p_BL.shape[1], device=p_BL.device) < routing.length_B[:, None])
    return int(near_BL.sum()), int(routing.length_B.sum())


@contextlib.contextmanager
def room_for_chunks(model: LM, capacity: str) -> Iterator[None]:
    """Let all levels of `model` have another capacity for a while; "" leaves them alone.

    Packing is for the innermost level; the others are then bucketed. Raises ConfigError if the model has no levels or
    the capacity does not fit them.
    """
    if not capacity:
        yield
        return
    levels = [module for module in model.body.levels if isinstance(module, Level)]
    if not levels:
        raise ConfigError(f"score.capacity={capacity} is for models that cut chunks, and this one has no such level")
    before = [level.config for level in levels]
    for level in levels:
        outer = capacity == "packed" and level is not levels[-1]
        level.config = level.config.with_capacity("bucketed" if outer else capacity)
    try:
        yield
    finally:
        for level, config in zip(levels, before, strict=True):
            level.config = config


def on_its_device(config: ScoreConfig, model: LM) -> ScoreConfig:
    """Return the config with as many tokens at once as the model's device does well with."""
    device = next(model.parameters()).device
    return replace(config, batch_tokens=tokens_at_once(config.batch_tokens, model.config.width, device))


def score_split(
    model: LM,
    split: Split,
    tokenizer: Tokenizer,
    config: ScoreConfig,
    *,
    observe: Observe | None = None,
    sidecar: Sidecar | None = None,
    progress: ReportProgress | None = None,
    text: KnownText | None = None,
) -> Score:
    """Score every target of the split once, with `sidecar` or the one that the config names, which may know a text.

    The challenge drops what is left after the last whole window; here it is scored too, as a shorter window.
    Runs under the caller's autocast, on the model's device, over all processes of torch.distributed where that is
    set up; each returns the same score. The model comes back as it was, whatever it learned on the way. Raises
    DataError if the split is too short or holds a token outside the vocabulary, ConfigError if config and model do not
    fit or the time is too short.
    """
    config = on_its_device(config, model)
    rank, ranks = _ranks()
    if sidecar is None and config.sidecar.name:
        sidecar = sidecars.Sidecar(config.sidecar, model.config.vocab_size, tokenizer.bos_id, text)
    if sidecar is not None and ranks > 1:
        raise ConfigError(f"a sidecar reads the stream in order, and {ranks} processes do not: score in one process")
    adapter = None
    was_training = model.training
    model.eval()
    try:
        with room_for_chunks(model, config.capacity):
            if config.ttt.optimizer:
                reduce = dist.all_reduce if ranks > 1 else None
                adapter = Adapter(model, config.ttt, config.seq_len, reduce=reduce, rank=rank, ranks=ranks)
            return score_losses(
                ModelLosses(model, sidecar, slide=bool(config.stride)),
                model.config.vocab_size,
                split,
                tokenizer,
                config,
                adapter=adapter,
                ordered=sidecar is not None,
                observe=observe,
                progress=progress,
            )
    finally:
        if adapter is not None:
            adapter.restore()
        model.train(was_training)


def score_losses(
    losses: Losses,
    vocab_size: int,
    split: Split,
    tokenizer: Tokenizer,
    config: ScoreConfig,
    *,
    adapter: Adapter | None = None,
    ordered: bool = False,
    observe: Observe | None = None,
    progress: ReportProgress | None = None,
) -> Score:
    """`score_split` for whatever gives the cost of a batch; with `ordered` it sees the targets in stream order.

    This is where score comes first: the adapter is shown the tokens of a part after their cost is final, and gets
    nothing else.
    """
    clock, tally = _Clock(config), _Tally(split)
    total, done = split.tokens - 1, 0
    begun: tuple[int, float] | None = None
    windows = plan(config, split, tokenizer.bos_id)
    log: list[Stretch] = []
    for part in _parts(windows, config, split, tokenizer.bos_id):
        own = windows.part(part.begin, part.end)
        first, end = own.targets()
        offset = int(own.start_N[0])
        tokens = split.slice(offset, end - offset)
        split.check_vocabulary(tokens, offset, vocab_size)
        if adapter is not None and part.fresh:
            adapter.reset()
        nats_N = _part_nats(losses, own, tokens, config.batch_tokens, ordered=ordered)
        nats_N = tally.share(nats_N, losses, clock)
        if adapter is not None and not np.isfinite(nats_N).all():
            raise ConfigError(
                f"learning at score.ttt.lr={config.ttt.lr:g} ruined the model: near target {first} the cost is no "
                "number any more; take a smaller rate"
            )
        done += end - first
        clock.check(done, total)
        span = tokens[first - 1 - offset :]
        tally.add(first, nats_N, int(split.target_bytes(first, span, tokenizer).sum()))
        if observe is not None:
            observe(first, nats_N)
        if progress is not None and tally.bytes and (begun or done == total):
            progress(tally.progress(done, total, clock.now(), begun))
        begun = begun or (done, clock.now())
        if adapter is not None:
            scored_at, trained_at = clock.now(), None
            if part.learn and clock.may_learn(done, total):
                trained_at = clock.now()
                adapter.learn(span, part.share)
                clock.learned(trained_at)
            log.append(Stretch(first, end, scored_at, trained_at))
    return tally.score(total, clock.now(), log)


def _part_nats(
    losses: Losses, windows: Windows, tokens: npt.NDArray[np.uint16], batch_tokens: int, *, ordered: bool
) -> npt.NDArray[np.float64]:
    """Return the cost of the targets of a part; where another process has the batch, 0."""
    first, end = windows.targets()
    rank, ranks = _ranks()
    nats_N = np.zeros(end - first)
    offset = int(windows.start_N[0])
    with torch.no_grad():
        for number, own in enumerate(batches(windows, batch_tokens, pad=losses.pad, ordered=ordered)):
            if number % ranks == rank:
                batch = read_batch(own, tokens, offset)
                nats_N[batch.place_N - first] = losses(batch).double().cpu().numpy()
    return nats_N


_alone = ContextVar("alone", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Inside, this process scores by itself, though others are there: they are busy elsewhere."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def _ranks() -> tuple[int, int]:
    """This process's number, and how many there are that share the scoring."""
    shared = dist.is_initialized() and not _alone.get()
    return (dist.get_rank(), dist.get_world_size()) if shared else (0, 1)


def batches_of(windows: Windows, config: ScoreConfig, split: Split, bos_id: int, *, pad: bool) -> list[Windows]:
    """All batches in which one process reads these windows when nothing rides along, in their order."""
    parts = _parts(windows, config, split, bos_id)
    return [
        own
        for part in parts
        for own in batches(windows.part(part.begin, part.end), config.batch_tokens, pad=pad, ordered=False)
    ]


class _Part(NamedTuple):
    """Windows [begin, end), worked off together."""

    begin: int
    end: int
    fresh: bool = False
    """What was learned before is to be forgotten."""
    learn: bool = False
    """There is something to score after it that may profit."""
    share: float = 0.0
    """Share of the stretches that come before, 0 at the first and 1 at the last; 0 in a document, whose end is not
    known before it is read: a rate that falls towards it would tell what comes."""


def _parts(windows: Windows, config: ScoreConfig, split: Split, bos_id: int) -> Iterator[_Part]:
    """Cut the windows into parts: stretches of test-time training, or a few batches for every process."""
    c, count = config.ttt, len(windows.start_N)
    if not c.optimizer:
        rows = max(1, config.batch_tokens // config.seq_len) * _ranks()[1]
        if config.windows.by_document:
            tokens_N = np.cumsum(windows.length_N) - windows.length_N
            key_N = tokens_N // (_DOCUMENT_BATCHES * rows * config.seq_len)
        else:
            key_N = np.arange(count) // rows
        yield from (_Part(begin, end) for begin, end in _runs(key_N))
        return
    scored_N = windows.start_N + windows.first_N
    scopes = [(0, count)]
    if c.reset == "document":
        scopes = _runs(np.searchsorted(document_starts(split, bos_id), windows.start_N, "right"))
    for begin, end in scopes:
        chunks = _runs((scored_N[begin:end] - scored_N[begin]) // c.chunk_tokens)
        for i, (low, high) in enumerate(chunks):
            last = len(chunks) - 1
            fresh, share = (i == 0, 0.0) if c.reset == "document" else (False, i / max(1, last))
            yield _Part(begin + low, begin + high, fresh, i < last, share)


def _runs(key_N: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return where runs of equal keys begin and end."""
    edges = [0, *(np.flatnonzero(np.diff(key_N)) + 1).tolist(), len(key_N)]
    return list(itertools.pairwise(edges))


class _Tally:
    """Sums in stream order."""

    def __init__(self, split: Split) -> None:
        self.nats, self.bytes, self.edges, self.decisions = 0.0, 0, 0, 0
        self._begin_D = None if split.index is None else document_starts(split, 0)
        self._document_nats = None if split.index is None else np.zeros(len(split.index))

    def share(self, nats_N: npt.NDArray[np.float64], losses: Losses, clock: _Clock) -> npt.NDArray[np.float64]:
        """Put together what the processes found in a part, and the first one's clock, so that all decide alike."""
        rank, ranks = _ranks()
        times = clock.times() if rank == 0 else (0.0, 0.0, 0.0)
        all_N = torch.from_numpy(np.concatenate((nats_N, (losses.edges, losses.decisions, *times))))
        losses.edges = losses.decisions = 0
        if ranks > 1:
            all_N = all_N.to("cuda" if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(all_N)
        found_N = all_N.cpu().numpy()
        edges, decisions, *times = found_N[-5:].tolist()
        self.edges, self.decisions = self.edges + int(edges), self.decisions + int(decisions)
        clock.set(*times)
        return found_N[:-5]

    def add(self, first: int, nats_N: npt.NDArray[np.float64], count: int) -> None:
        """Add the targets from `first` on, which stand for `count` bytes."""
        self.nats += float(nats_N.sum())
        self.bytes += count
        if self._begin_D is not None and self._document_nats is not None:
            document_N = np.searchsorted(self._begin_D, np.arange(first - 1, first - 1 + len(nats_N)), "right") - 1
            low = int(document_N[0])
            sums = np.bincount(document_N - low, nats_N)
            self._document_nats[low : low + len(sums)] += sums

    def progress(self, done: int, total: int, seconds: float, begun: tuple[int, float] | None) -> Progress:
        """How far this is; `begun` are the targets and the seconds of the first part, which may have read a text."""
        bpb, (before, since) = self.nats / math.log(2) / self.bytes, begun or (0, 0.0)
        return Progress(done, total, bpb, seconds, (seconds - since) * (total - done) / (done - before))

    def score(self, tokens: int, seconds: float, log: list[Stretch]) -> Score:
        """The score, when all targets are in."""
        return Score(
            nats=self.nats,
            tokens=tokens,
            bytes=self.bytes,
            seconds=seconds,
            document_nats=self._document_nats,
            knife_edges=self.edges,
            decisions=self.decisions,
            log=tuple(log),
        )


class _Clock:
    """Seconds since scoring began, and whether they are enough. Decisions follow the first process's clock."""

    def __init__(self, config: ScoreConfig) -> None:
        self._limit, self._learning_limit = config.max_seconds, config.ttt.max_seconds
        # A forward and a backward pass cost three forward passes, and scoring reads each token seq_len / step times.
        self._learning_cost = 3 * config.ttt.epochs * config.step / config.seq_len
        self._start = time.perf_counter()
        self._own_learning = self._own_longest = 0.0
        self._now = self._learning = self._longest = self._part = 0.0

    def now(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._start

    def learned(self, since: float) -> None:
        """Learning from a stretch is done."""
        seconds = self.now() - since
        self._own_learning += seconds
        self._own_longest = max(self._own_longest, seconds)

    def times(self) -> tuple[float, float, float]:
        """This process's seconds: now, spent on learning, and on the longest stretch."""
        return self.now(), self._own_learning, self._own_longest

    def set(self, now: float, learning: float, longest: float) -> None:
        """Take over the first process's `times` at the end of a part."""
        self._part = (now - learning) - (self._now - self._learning)
        self._now, self._learning, self._longest = now, learning, longest

    def check(self, done: int, total: int) -> None:
        """Raise ConfigError if there is no time left to score the rest."""
        if self._limit is None:
            return
        left = self._limit - self._now
        if left < 0 or (self._now > 0.5 * self._limit and self._rest(done, total) > 1.1 * left):
            scoring = self._now - self._learning
            raise ConfigError(
                f"score.max_seconds={self._limit:g} is too little to score once: {done / total:.0%} of the targets "
                f"took {scoring:.1f} s, all would take about {scoring * total / done:.1f} s; give more time, a larger "
                "stride or a faster device"
            )

    def may_learn(self, done: int, total: int) -> bool:
        """Whether there is time to learn once more, and to score the rest after it."""
        stretch = self._longest or self._learning_cost * self._part
        if self._learning_limit is not None and self._learning + stretch > self._learning_limit:
            return False
        # Times vary: a part and a tenth more are kept back.
        rest = 1.1 * (self._rest(done, total) + self._part)
        return self._limit is None or self._now + 1.1 * stretch + rest <= self._limit

    def _rest(self, done: int, total: int) -> float:
        """Seconds that scoring the rest will take, as far as one can tell."""
        return (self._now - self._learning) * (total - done) / done
