"""What a challenge log claims: scores, tokens, sizes, steps and clocks of each run in it, with their line numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

from niblick.challenge.log_line import (
    LimitLine,
    Line,
    Runs,
    ScoreLine,
    ScoringTimeLine,
    SeedLine,
    SettingsLine,
    SizeLine,
    StepLine,
    StopLine,
    SummaryLine,
    TokensLine,
    TrainFilesLine,
    clean,
    read_line,
)


@dataclass(frozen=True)
class Claim:
    """A score in bits per byte, and the loss in nats per token that implies a byte count; texts keep their digits."""

    line: int
    name: str
    loss: str | None
    bpb: str
    step: int | None = None
    """Of a validation in the course of training; None for the scores after it."""
    kind: str = ""
    artifact: int = 0
    """Which of the run's artifacts it is a score of, counted in their order."""
    seconds: float | None = None

    @property
    def base(self) -> str:
        """The name without `_exact`."""
        return self.name.removesuffix("_exact")


@dataclass(frozen=True)
class Clock:
    """A step, the milliseconds of training up to it, and those per step where the line says them."""

    line: int
    step: int
    milliseconds: float
    slack: float
    """Milliseconds that the printed digits leave open."""
    average: float | None


@dataclass(frozen=True)
class Sized:
    """A size that a line states, of one of the run's artifacts."""

    line: int
    artifact: int
    said: SizeLine


@dataclass
class ChallengeLog:
    """What one run of a log claims."""

    first_line: int = 1
    tokens: int | None = None
    tokens_line: int = 0
    dataset: str = ""
    """The data set of the validation tokens, where the log names it."""
    claims: list[Claim] = field(default_factory=list)
    clocks: list[Clock] = field(default_factory=list)
    losses: list[tuple[int, int, str]] = field(default_factory=list)
    """Line, step and training loss."""
    stop: tuple[int, StopLine] | None = None
    sizes: list[Sized] = field(default_factory=list)
    summary: dict[str, tuple[int, str]] = field(default_factory=dict)
    """`val_bpb` and `artifact_bytes` at the end, where a script repeats them."""
    scoring_times: list[tuple[int, str, float]] = field(default_factory=list)
    """Line, what was scored, and seconds: those that stand elsewhere than with a score."""
    limits: list[tuple[int, LimitLine]] = field(default_factory=list)
    seeds: list[tuple[int, SeedLine]] = field(default_factory=list)
    trained_on: tuple[int, TrainFilesLine] | None = None
    settings: dict[str, tuple[int, str]] = field(default_factory=dict)
    averages: bool = False
    """Whether the log says that weights are averaged."""
    lines: int = 0
    """The last line of the run."""

    def number(self, name: str) -> float | None:
        """The value of a setting, where it is a number."""
        try:
            return float(self.settings[name][1].replace(",", ""))
        except (KeyError, ValueError):
            return None

    @property
    def finals(self) -> list[Claim]:
        """The scores after training."""
        return [
            claim
            for claim in self.claims
            if claim.step is None and claim.kind not in ("", "float") and math.isfinite(float(claim.bpb))
        ]

    @property
    def best(self) -> Claim | None:
        """The score that counts: the best one of the run, with all its digits where it is printed twice."""
        finals = self.finals
        exact = {(claim.artifact, claim.base) for claim in finals if claim.name.endswith("_exact")}
        sharp = [c for c in finals if c.name.endswith("_exact") or (c.artifact, c.base) not in exact]
        return min(sharp, key=lambda claim: (float(claim.bpb), claim.line), default=None)

    @property
    def empty(self) -> bool:
        """Whether no line of it makes a claim."""
        sized = any(size.said.what != "part" for size in self.sizes)
        return not (self.claims or self.clocks or sized or self.stop)

    def size(self, what: str) -> SizeLine | None:
        """The newest stated size of the artifact whose score counts."""
        artifact = self.best.artifact if self.best else None
        stated = [s.said for s in self.sizes if s.said.what == what and artifact in (None, s.artifact)]
        return stated[-1] if stated else None


def read_log(text: str) -> ChallengeLog:
    """Read the last run of a log."""
    return read_runs(text)[-1]


def read_runs(text: str) -> list[ChallengeLog]:
    """Read all runs of a log, oldest first; one that claims nothing if there is none."""
    runs, splitter, current = [], Runs(), _Reader(1)
    for number, raw in enumerate(text.split("\n"), 1):
        line = clean(raw)
        said = read_line(line)
        head = splitter.feed(number, line, said)
        if head is not None:
            runs.append(current.log)
            current = _Reader(head[0][0] if head else number)
            for place, earlier in head[:-1]:
                current.feed(place, earlier, read_line(earlier))
        current.feed(number, line, said)
    runs = [run for run in [*runs, current.log] if not run.empty]
    for run, following in pairwise(runs):
        run.lines = following.first_line - 1
    return runs or [ChallengeLog()]


class _Reader:
    """Puts the lines of one run together."""

    def __init__(self, first_line: int) -> None:
        self.log = ChallengeLog(first_line)
        self._artifact = 0
        self._scored = False

    def feed(self, number: int, text: str, said: tuple[Line, ...]) -> None:
        log = self.log
        log.lines = number
        low = text[:60].lower()
        log.averages |= low.startswith(("ema:", "swa:", "lawa:", "applying ema", "applying swa", "ema ", "swa "))
        for line in said:
            self._take(number, line)

    def _take(self, number: int, line: Line) -> None:
        log = self.log
        if isinstance(line, StepLine):
            self._step(number, line)
        elif isinstance(line, ScoreLine):
            self._scored |= line.kind not in ("", "float")
            log.claims.append(
                Claim(number, line.name, line.loss, line.bpb, None, line.kind, self._artifact, line.seconds)
            )
        elif isinstance(line, SizeLine):
            if line.what == "model" and self._scored:  # another export of the same weights
                self._artifact, self._scored = self._artifact + 1, False
            log.sizes.append(Sized(number, self._artifact, line))
        elif isinstance(line, StopLine):
            log.stop = (number, line)
        elif isinstance(line, TokensLine):
            log.tokens, log.tokens_line, log.dataset = line.tokens, number, line.dataset or log.dataset
        elif isinstance(line, TrainFilesLine):
            log.trained_on = (number, line)
            log.dataset = log.dataset or line.dataset
        elif isinstance(line, ScoringTimeLine):
            log.scoring_times.append((number, line.what, line.seconds))
        elif isinstance(line, LimitLine):
            log.limits.append((number, line))
        elif isinstance(line, SeedLine):
            log.seeds.append((number, line))
        elif isinstance(line, SummaryLine):
            log.summary[line.name] = (number, line.text)
        elif isinstance(line, SettingsLine):
            log.settings |= {name.lower(): (number, value) for name, value in line.pairs}

    def _step(self, number: int, line: StepLine) -> None:
        log, loss, bpb = self.log, line.fields.get("val_loss"), line.fields.get("val_bpb")
        if bpb is not None:
            log.claims.append(Claim(number, "validation", loss.text if loss else None, bpb.text, line.step, "float"))
        if line.loss is not None:
            log.losses.append((number, line.step, line.loss.text))
        if (clock := line.clock) is not None:
            average = line.first("step_avg")
            log.clocks.append(Clock(number, line.step, 1000 * clock.seconds, 1000 * clock.slack, average))
