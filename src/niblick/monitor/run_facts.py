"""What is known of one run, from its events or from a log. Readers and views share it.

Readers fill a `Facts` line by line and never look at the clock; `phases` and `eta` add what time tells.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from niblick.drawing.charts import History, Level, Validation

PHASES = (
    "warmup",
    "initial_validation",
    "training",
    "final_validation",
    "packaging",
    "quantized_validation",
    "sliding",
    "ttt",
    "audit",
    "done",
)
"""In their order. Besides: `starting` before them, and `failed`, `stalled`, `stopped` at any time."""

MOST_POINTS = 4096
"""A curve keeps fewer points than this, however long the log."""
MOST_SETTINGS = 400
MOST_NOTES = 200
MOST_LEVELS = 8


@dataclass(frozen=True, slots=True)
class Point:
    """One logged training step."""

    step: int
    seconds: float | None
    """On the train clock."""
    loss: float
    """Nats per token."""
    lr_scale: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    rates: tuple[float, ...] = ()
    """Share of boundaries at each level."""


@dataclass(frozen=True, slots=True)
class Check:
    """One validation in the course of training, of float weights."""

    step: int
    seconds: float | None
    loss: float | None
    bpb: float


@dataclass(frozen=True, slots=True)
class FinalScore:
    """One score of the quantized model."""

    name: str
    """As the log calls it."""
    kind: str
    """`roundtrip`, `sliding` or `ttt`."""
    bpb: float
    loss: float | None
    seconds: float | None
    exact: bool
    artifact: str = ""
    """Which of the run's artifacts was scored."""


@dataclass(frozen=True, slots=True)
class Packed:
    """The bytes of one artifact, where they are known."""

    artifact_bytes: int | None = None
    code_bytes: int | None = None
    total_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """One stretch of one phase."""

    phase: str
    start: float | None
    """Seconds since 1970, where known."""
    seconds: float | None
    """How long it took, where known; None while it lasts."""


@dataclass(frozen=True, slots=True)
class Note:
    """Something worth a line in the list of events."""

    kind: str
    """`info`, `good` or `warning`."""
    text: str
    step: int | None = None
    at: float | None = None


class Curve:
    """Training steps in their order, thinned evenly when they become too many; the newest is always there."""

    def __init__(self) -> None:
        self._kept: list[Point] = []
        self._last: Point | None = None
        self._stride = 1
        self._count = 0

    def __len__(self) -> int:
        return len(self._kept) + (self._last is not None)

    def __iter__(self) -> Iterator[Point]:
        yield from self._kept
        if self._last is not None:
            yield self._last

    @property
    def last(self) -> Point | None:
        """The newest step."""
        return self._last or (self._kept[-1] if self._kept else None)

    def recent(self, count: int) -> list[Point]:
        """The newest kept points, oldest first."""
        tail = self._kept[-count:] + ([self._last] if self._last else [])
        return tail[-count:]

    def add(self, point: Point) -> None:
        """Take in the next step; a step that was there before takes the place of it and of all after it."""
        newest = self.last
        if newest is not None and point.step <= newest.step:
            self._forget_from(point.step)
        if self._count % self._stride == 0:
            self._kept.append(point)
            self._last = None
        else:
            self._last = point
        self._count += 1
        if len(self._kept) >= MOST_POINTS:
            self._last = self._last or self._kept[-1]
            self._kept = self._kept[::2]
            self._stride *= 2
            if self._last is self._kept[-1]:
                self._last = None

    def _forget_from(self, step: int) -> None:
        while self._kept and self._kept[-1].step >= step:
            self._kept.pop()
        self._last = None
        self._count = len(self._kept) * self._stride


@dataclass
class Facts:
    """Everything read of one run so far."""

    settings: dict[str, str] = field(default_factory=dict)
    parameters: int | None = None
    seed: int | None = None
    steps: int | None = None
    max_seconds: float | None = None
    """Cap of the train clock, less what is reserved for after it."""
    min_steps: int = 0
    """Steps at least, whatever the clock says."""
    batch_tokens: int | None = None
    bytes_per_token: float | None = None
    warmup: tuple[int, int] | None = None
    """Warmup steps done, of how many."""
    step: int | None = None
    train_seconds: float | None = None
    curve: Curve = field(default_factory=Curve)
    checks: list[Check] = field(default_factory=list)
    float_bpb: float | None = None
    """Of the weights that are packed, where it was measured apart from the last validation (after averaging)."""
    scores: list[FinalScore] = field(default_factory=list)
    packed: dict[str, Packed] = field(default_factory=dict)
    """The run's artifacts, in their order; logs do not name theirs, so they are counted."""
    official: str | None = None
    """The artifact whose score is the run's, where it says so."""
    phase: str = "starting"
    spans: list[Span] = field(default_factory=list)
    notes: deque[Note] = field(default_factory=lambda: deque(maxlen=MOST_NOTES))
    message: str = ""
    """Why it failed or stopped."""
    targets: tuple[float | None, ...] = ()
    """Target chunk length of each level."""

    def enter(self, phase: str, at: float | None, seconds: float | None = None) -> None:
        """Note that `phase` begins at `at`. `seconds` is what the phase before took, where the log says so."""
        if phase == self.phase:
            return
        if self.spans and self.spans[-1].phase == "done":
            self.spans.pop()  # something came after all
        elif self.spans:
            last = self.spans[-1]
            known = at - last.start if at is not None and last.start is not None else None
            told = seconds if seconds is not None else last.seconds
            self.spans[-1] = Span(last.phase, last.start, told if told is not None else known)
        self.phase = phase
        self.spans.append(Span(phase, at, 0.0 if phase in ("done", "failed", "stopped") else None))

    def took(self, phase: str, seconds: float) -> None:
        """Note how long the newest stretch of a phase took, by the log's own clock."""
        for i in range(len(self.spans) - 1, -1, -1):
            if self.spans[i].phase == phase:
                self.spans[i] = Span(phase, self.spans[i].start, seconds)
                return

    def check(self, check: Check) -> None:
        """Take in a validation; one of a step that was there before takes the place of it and all after it."""
        while self.checks and self.checks[-1].step > check.step:
            self.checks.pop()
        self.checks.append(check)
        if len(self.checks) >= MOST_POINTS:
            del self.checks[1:-1:2]
        if check.loss and check.bpb and self.bytes_per_token is None:
            self.bytes_per_token = check.loss / math.log(2) / check.bpb

    def score(self, new: FinalScore) -> None:
        """Take in a final score; the exact number takes the place of the rounded one."""
        base = new.name.removesuffix("_exact")
        for i, old in enumerate(self.scores):
            if old.artifact != new.artifact:
                continue
            if old.name.removesuffix("_exact") == base:
                if new.exact or not old.exact:
                    loss, seconds = new.loss or old.loss, new.seconds or old.seconds
                    self.scores[i] = replace(new, loss=loss, seconds=seconds)
                return
            if new.kind == "roundtrip" and old.kind != "roundtrip" and new.bpb == old.bpb:
                return  # some logs repeat their last score under the name that the challenge's checker looks for
        self.scores.append(new)

    @property
    def final(self) -> FinalScore | None:
        """The score that counts: the best one of the official artifact, or of all where none is called so."""
        mine = [score for score in self.scores if score.artifact == self.official]
        known = [score for score in mine or self.scores if math.isfinite(score.bpb)]
        return min(known, key=lambda score: score.bpb, default=None)

    @property
    def bytes(self) -> Packed:
        """What the artifact weighs whose score counts; the newest one's before there is a score."""
        newest = next(reversed(self.packed), "")
        name = self.final.artifact if self.final else self.official or newest
        return self.packed.get(name, Packed())

    def weigh(self, artifact: str, **sizes: int | None) -> None:
        """Note what is told of an artifact's `artifact_bytes`, `code_bytes` and `total_bytes`."""
        self.packed[artifact] = replace(self.packed.get(artifact, Packed()), **sizes)

    @property
    def val_bpb(self) -> float | None:
        """The last validation in the course of training."""
        return self.checks[-1].bpb if self.checks else None

    @property
    def train_loss(self) -> float | None:
        """The last logged training loss, nats per token."""
        return self.curve.last.loss if self.curve.last else None

    @property
    def train_bpb(self) -> float | None:
        """The last logged training losses in bits per byte, averaged over a few lines."""
        return self._bpb(self._mean_loss())

    @property
    def tokens_per_second(self) -> float | None:
        """Speed over the last logged steps."""
        points = [p for p in self.curve.recent(6) if p.seconds is not None]
        if points and points[-1].tokens_per_second is not None:
            known = [p.tokens_per_second for p in points if p.tokens_per_second is not None]
            return sum(known) / len(known)
        if len(points) < 2 or not self.batch_tokens:
            return None
        seconds = (points[-1].seconds or 0.0) - (points[0].seconds or 0.0)
        return (points[-1].step - points[0].step) * self.batch_tokens / seconds if seconds > 0 else None

    @property
    def bytes_per_second(self) -> float | None:
        """The same in bytes of text."""
        speed, size = self.tokens_per_second, self.bytes_per_token
        return speed * size if speed is not None and size else None

    def history(self, name: str) -> History:
        """Return what the shared figures draw."""
        points = list(self.curve)
        per_step = self.batch_tokens * self.bytes_per_token if self.batch_tokens and self.bytes_per_token else None

        def seen(step: int) -> float | None:
            return step * per_step if per_step else None

        levels = []
        for number in range(max((len(p.rates) for p in points), default=0)):
            those = [p for p in points if len(p.rates) > number]
            target = self.targets[number] if number < len(self.targets) else None
            levels.append(Level([p.step for p in those], [p.rates[number] for p in those], target))
        size = self.bytes_per_token
        return History(
            name=name,
            step=[p.step for p in points],
            seconds=[p.seconds for p in points],
            bytes=[seen(p.step) for p in points],
            bpb=[self._bpb(p.loss) for p in points],
            lr_scale=_where_any([p.lr_scale for p in points]),
            bytes_per_second=_where_any([s * size if s and size else None for s in self._speeds(points)]),
            grad_norm=_where_any([p.grad_norm for p in points]),
            validations=[Validation(c.step, c.seconds, seen(c.step), c.bpb) for c in self.checks],
            levels=levels,
            final=self.final.bpb if self.final else None,
        )

    def _speeds(self, points: Sequence[Point]) -> list[float | None]:
        """Tokens a second at each point: as logged, else from the point before."""
        speeds: list[float | None] = []
        for i, point in enumerate(points):
            speed = point.tokens_per_second
            before = points[i - 1] if i else None
            if speed is None and before and self.batch_tokens and None not in (point.seconds, before.seconds):
                seconds = (point.seconds or 0.0) - (before.seconds or 0.0)
                speed = (point.step - before.step) * self.batch_tokens / seconds if seconds > 0 else None
            speeds.append(speed)
        return speeds

    def _mean_loss(self) -> float | None:
        losses = [p.loss for p in self.curve.recent(5) if math.isfinite(p.loss)]
        return sum(losses) / len(losses) if losses else None

    def _bpb(self, loss: float | None) -> float | None:
        size = self.bytes_per_token
        return loss / math.log(2) / size if loss is not None and math.isfinite(loss) and size else None


def _where_any(values: list[Any]) -> list[Any]:
    """The values, or nothing where none is known: an empty figure is not drawn."""
    return values if any(v is not None for v in values) else []
