"""Reading events.jsonl of niblick's own runs into `Facts`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from niblick.facts.event_lines import KINDS, parsed, written
from niblick.facts.events import (
    Event,
    Export,
    Failure,
    Import,
    Moment,
    Reserve,
    Resume,
    Rollback,
    Scored,
    Start,
    Step,
    Stop,
    Trouble,
    Unknown,
    Validation,
    Warmup,
)
from niblick.facts.result import Finished, Result
from niblick.monitor.run_facts import MOST_LEVELS, Check, Facts, FinalScore, Note, Point
from niblick.monitor.timing import Pace

SIZES = ("artifact_bytes", "code_bytes", "total_bytes")
_LAST = 2.0**33
"""Seconds since 1970 that are no time of a run: in the year 2242."""


class EventReader:
    """Reads the events of one run into `facts`, and their times into `pace`. `config` is its config.json, or {}."""

    def __init__(self, config: Mapping[str, Any] | None = None, pace: Pace | None = None) -> None:
        self.facts = Facts()
        self.pace = pace or Pace()
        self.told_at: float | None = None
        """When the last event happened, where it says so."""
        self._validates = True
        self._configure(config or {})

    def feed(self, line: str, at: float | None = None) -> None:
        """Take in one line; what is no event is left out. An event's own time counts, else `at`."""
        event = parsed(line)
        if event is None:
            return
        told = _moment(event.time)
        self.told_at = told if told is not None else self.told_at
        self._take(event, told if told is not None else at)

    def _take(self, event: Event, at: float | None) -> None:
        """Take in an event; of one of a known kind in the form of another version, nothing is known."""
        match event:
            case Start():
                self._start(event, at)
            case Warmup():
                self._warmup(event, at)
            case Step():
                self._step(event, at)
            case Validation():
                self._validation(event, at)
            case Stop():
                self._stop(event, at)
            case Export():
                self._export(event, at)
            case Scored():
                self._score(event, at)
            case Failure():
                self.ended("failed", event.message, at)
            case Resume():
                self._resume(event, at)
            case Import():
                self.facts.notes.append(Note("info", f"imported from {event.file}", None, at))
                self.facts.enter("done", at)
            case Reserve():
                self._reserve(event, at)
            case Unknown(kind="audit"):
                self.facts.notes.append(Note("info", _words(event), None, at))
                self.facts.enter("done" if self.facts.scores else "audit", at)
            case Unknown() if event.kind in KINDS:
                pass
            case _:
                self._other(event, at)

    def weights_written(self, at: float) -> None:
        """Note that the final weights are there: training is over."""
        if self.facts.phase in ("starting", "warmup", "initial_validation", "training"):
            if self.facts.train_seconds is not None:
                self.facts.took("training", self.facts.train_seconds)
            self.facts.enter("final_validation", at)

    def ended(self, phase: str, message: str, at: float | None) -> None:
        """Note that the run has `failed` or was `stopped`, and why."""
        self.facts.message = message[:500]
        self.facts.enter(phase, at)
        self.facts.notes.append(Note("warning", self.facts.message, self.facts.step, at))

    def finished(self, result: Finished | None, at: float | None) -> None:
        """Note that result.json is there, which is written last: whatever the events say, the run is done."""
        facts = self.facts
        if isinstance(result, Result) and not facts.scores:
            name = result.artifact
            facts.score(FinalScore(name, "roundtrip", result.bpb, _finite(result.loss), None, True, name))
        if result is not None:
            known = {key: getattr(result, key) for key in SIZES if getattr(result, key) is not None}
            facts.weigh(result.artifact, **known)
        self.decided(result)
        facts.message = ""
        facts.enter("done", at)

    def decided(self, result: Finished | None) -> None:
        """Note which artifact result.json calls the official one: artifacts may be added after it."""
        if result is not None:
            self.facts.official = result.artifact

    def _configure(self, config: Mapping[str, Any]) -> None:
        model, train = (part if isinstance(part := config.get(key), dict) else {} for key in ("model", "train"))
        levels = levels if isinstance(levels := model.get("levels"), list) else []
        self.facts.targets = tuple(
            _number(level.get("target_length")) if isinstance(level, dict) else None for level in levels[:MOST_LEVELS]
        )
        self.facts.seed = config.get("seed") if isinstance(config.get("seed"), int) else None
        schedule = part if isinstance(part := config.get("schedule"), dict) else {}
        self.facts.min_steps = least if isinstance(least := schedule.get("min_steps"), int) else 0
        self._validates = bool(train.get("val_every", 1))

    def _start(self, event: Start, at: float | None) -> None:
        facts = self.facts
        facts.parameters, facts.seed = event.parameters, event.seed
        facts.steps, facts.max_seconds = event.steps, _finite(event.max_seconds)
        facts.batch_tokens, facts.bytes_per_token = event.batch_tokens, _finite(event.bytes_per_token)
        facts.settings = dict(_plainly(event))
        facts.enter("warmup" if event.warmup_steps else self._after_warmup(), at)

    def _after_warmup(self) -> str:
        return "initial_validation" if self._validates else "training"

    def _warmup(self, event: Warmup, at: float | None) -> None:
        self.facts.warmup = (event.step, event.steps)
        self.facts.enter("warmup", at)
        if event.step >= event.steps:
            self.facts.enter(self._after_warmup(), at)

    def _clock(self, event: Moment | Stop) -> float | None:
        facts = self.facts
        facts.step = facts.step if event.step is None else event.step
        facts.steps = facts.steps if event.steps is None else event.steps
        seconds = _finite(event.train_seconds)
        facts.train_seconds = seconds if seconds is not None else facts.train_seconds
        return seconds

    def _step(self, event: Step, at: float | None) -> None:
        seconds = self._clock(event)
        rates = tuple(level.get("boundary_rate", math.nan) for level in event.levels[:MOST_LEVELS])
        if at is not None and seconds is not None:
            self.pace.observe(at, seconds)
        scale, norm, speed = (_finite(v) for v in (event.lr_scale, event.grad_norm, event.tokens_per_second))
        self.facts.enter("training", at)
        self.facts.curve.add(Point(event.step, seconds, event.loss, scale, norm, speed, rates))

    def _validation(self, event: Validation, at: float | None) -> None:
        seconds, facts = self._clock(event), self.facts
        facts.check(Check(event.step, seconds, _finite(event.loss), event.bpb))
        if event.final:
            if seconds is not None:
                facts.took("training", seconds)
            facts.float_bpb = event.bpb
            facts.enter("packaging", at)
        else:
            facts.enter("training", at)

    def _stop(self, event: Stop, at: float | None) -> None:
        self._clock(event)
        reason = event.reason
        if reason.startswith("SIG"):
            self.facts.message = f"stopped by {reason}"
            self.facts.enter("stopped", at)
        self.facts.notes.append(Note("info", f"training stopped: {reason}", self.facts.step, at))

    def _export(self, event: Export, at: float | None) -> None:
        facts = self.facts
        facts.weigh(event.name, **{key: getattr(event, key) for key in SIZES})
        facts.official = facts.official or event.name  # what training packs comes first
        if (seconds := _finite(event.export_seconds)) is not None:
            facts.took("packaging", seconds)
        facts.notes.append(Note("good", f"packed as {event.name}: {event.artifact_bytes:,} bytes", None, at))
        facts.enter("quantized_validation", at)

    def _score(self, event: Scored, at: float | None) -> None:
        facts, scorer = self.facts, event.scorer
        learns = bool((scorer.get("ttt") or {}).get("optimizer"))
        kind = "ttt" if learns else "sliding" if scorer.get("scorer") == "sliding" else "roundtrip"
        seconds = _finite(event.seconds)
        facts.score(FinalScore(event.name, kind, event.bpb, _finite(event.loss), seconds, True, event.name))
        if seconds is not None:
            facts.took("quantized_validation", seconds)
        if event.total_bytes is not None:
            facts.weigh(event.name, total_bytes=event.total_bytes)
        facts.notes.append(Note("good", f"scored from the artifact: {event.bpb:.4f} BPB", None, at))
        facts.enter("done", at)

    def _resume(self, event: Resume, at: float | None) -> None:
        self.facts.message = ""
        self.pace.clear()  # the time in between is no part of it
        self.facts.enter("training", at)
        self.facts.notes.append(Note("info", f"resumed after step {event.step}", event.step, at))

    def _reserve(self, event: Reserve, at: float | None) -> None:
        seconds = _finite(event.seconds)
        if self.facts.max_seconds is not None and seconds is not None:
            self.facts.max_seconds -= seconds
        self.facts.notes.append(
            Note("info", f"{seconds or 0:.1f} s of the clock kept for what follows training", None, at)
        )

    def _other(self, event: Event, at: float | None) -> None:
        kind = "warning" if isinstance(event, Trouble | Rollback) else "info"
        facts = written(event)
        text = str(facts["message"]) if "message" in facts else _words(event)
        step = facts.get("step")
        self.facts.notes.append(Note(kind, text[:300], step if isinstance(step, int) else None, at))


def _words(event: Event) -> str:
    """An event that has no words of its own, as words."""
    return f"{written(event)['event']}: {', '.join(f'{key} {value}' for key, value in _plainly(event))}"


def _plainly(event: Event) -> Iterator[tuple[str, str]]:
    """The facts of an event that are single values."""
    for key, value in written(event).items():
        if isinstance(value, str | int | float) and key not in ("event", "time", "schema"):
            yield key, str(value)


def _moment(seconds: float | None) -> float | None:
    """Seconds since 1970; None for what no clock has shown, which no calendar has a day for."""
    return seconds if seconds is not None and 0 <= seconds < _LAST else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
