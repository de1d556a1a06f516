"""Reading events.jsonl of niblick's own runs into `Facts`."""

from __future__ import annotations

import json
import math
from typing import Any

from niblick.files import integer
from niblick.monitor.run_facts import MOST_LEVELS, Check, Facts, FinalScore, Note, Point
from niblick.monitor.timing import Pace


class EventReader:
    """Reads the events of one run into `facts`, and their times into `pace`. `config` is its config.json, or {}."""

    def __init__(self, config: dict[str, Any] | None = None, pace: Pace | None = None) -> None:
        self.facts = Facts()
        self.pace = pace or Pace()
        self.told_at: float | None = None
        """When the last event happened, where it says so."""
        self._validates = True
        self._readers = {
            "start": self._start,
            "warmup": self._warmup,
            "step": self._step,
            "validation": self._validation,
            "stop": self._stop,
            "export": self._export,
            "score": self._score,
            "failure": self._failure,
            "resume": self._resume,
            "import": self._import,
            "reserve": self._reserve,
            "audit": self._audit,
        }
        self._configure(config or {})

    def feed(self, line: str, at: float | None = None) -> None:
        """Take in one line; what is no event is left out. An event's own time counts, else `at`."""
        try:
            event = json.loads(line, parse_int=integer)
        except ValueError:
            return
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            return
        told = _number(event.get("time"))
        self.told_at = told if told is not None else self.told_at
        try:
            self._readers.get(event["event"], self._other)(event, told if told is not None else at)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            return  # of another version: what it says is unknown

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

    def finished(self, result: dict[str, Any], at: float | None) -> None:
        """Note that result.json is there, which is written last: whatever the events say, the run is done."""
        facts, bpb, name = self.facts, _number(result.get("bpb")), str(result.get("artifact", "score"))
        if bpb is not None and not facts.scores:
            facts.score(FinalScore(name, "roundtrip", bpb, _number(result.get("loss")), None, True, name))
        sizes = ("artifact_bytes", "code_bytes", "total_bytes")
        facts.weigh(name, **{key: result[key] for key in sizes if isinstance(result.get(key), int)})
        self.decided(result)
        facts.message = ""
        facts.enter("done", at)

    def decided(self, result: dict[str, Any]) -> None:
        """Note which artifact result.json calls the official one: artifacts may be added after it."""
        if isinstance(result.get("artifact"), str):
            self.facts.official = result["artifact"]

    def _configure(self, config: dict[str, Any]) -> None:
        levels = (config.get("model") or {}).get("levels") or []
        self.facts.targets = tuple(_number(level.get("target_length")) for level in levels[:MOST_LEVELS])
        self.facts.seed = config.get("seed") if isinstance(config.get("seed"), int) else None
        self._validates = bool((config.get("train") or {}).get("val_every", 1))

    def _start(self, event: dict[str, Any], at: float | None) -> None:
        facts = self.facts
        facts.parameters, facts.seed = event.get("parameters"), event.get("seed")
        facts.steps, facts.max_seconds = event.get("steps"), _number(event.get("max_seconds"))
        facts.batch_tokens, facts.bytes_per_token = event.get("batch_tokens"), _number(event.get("bytes_per_token"))
        known = {k: v for k, v in event.items() if isinstance(v, str | int | float) and k not in ("event", "time")}
        facts.settings = {key: str(value) for key, value in known.items()}
        facts.enter("warmup" if event.get("warmup_steps") else self._after_warmup(), at)

    def _after_warmup(self) -> str:
        return "initial_validation" if self._validates else "training"

    def _warmup(self, event: dict[str, Any], at: float | None) -> None:
        self.facts.warmup = (int(event["step"]), int(event["steps"]))
        self.facts.enter("warmup", at)
        if event["step"] >= event["steps"]:
            self.facts.enter(self._after_warmup(), at)

    def _clock(self, event: dict[str, Any]) -> float | None:
        facts = self.facts
        facts.step, facts.steps = int(event["step"]), event.get("steps", facts.steps)
        seconds = _number(event.get("train_seconds"))
        facts.train_seconds = seconds if seconds is not None else facts.train_seconds
        return seconds

    def _step(self, event: dict[str, Any], at: float | None) -> None:
        seconds = self._clock(event)
        rates = tuple(float(level["boundary_rate"]) for level in (event.get("levels") or [])[:MOST_LEVELS])
        if at is not None and seconds is not None:
            self.pace.observe(at, seconds)
        scale, norm, speed = (_number(event.get(key)) for key in ("lr_scale", "grad_norm", "tokens_per_second"))
        self.facts.enter("training", at)
        self.facts.curve.add(Point(int(event["step"]), seconds, float(event["loss"]), scale, norm, speed, rates))

    def _validation(self, event: dict[str, Any], at: float | None) -> None:
        seconds, facts = self._clock(event), self.facts
        facts.check(Check(int(event["step"]), seconds, _number(event.get("loss")), float(event["bpb"])))
        if event.get("final"):
            if seconds is not None:
                facts.took("training", seconds)
            facts.float_bpb = float(event["bpb"])
            facts.enter("packaging", at)
        else:
            facts.enter("training", at)

    def _stop(self, event: dict[str, Any], at: float | None) -> None:
        self._clock(event)
        reason = str(event.get("reason", ""))
        if reason.startswith("SIG"):
            self.facts.message = f"stopped by {reason}"
            self.facts.enter("stopped", at)
        self.facts.notes.append(Note("info", f"training stopped: {reason}", self.facts.step, at))

    def _export(self, event: dict[str, Any], at: float | None) -> None:
        facts, name = self.facts, str(event.get("name"))
        size = event.get("artifact_bytes")
        sizes = {key: event.get(key) for key in ("artifact_bytes", "code_bytes", "total_bytes")}
        facts.weigh(name, **sizes)
        facts.official = facts.official or name  # what training packs comes first
        if (seconds := _number(event.get("export_seconds"))) is not None:
            facts.took("packaging", seconds)
        facts.notes.append(Note("good", f"packed as {name}: {size:,} bytes", None, at))
        facts.enter("quantized_validation", at)

    def _score(self, event: dict[str, Any], at: float | None) -> None:
        facts, scorer = self.facts, event.get("scorer") or {}
        learns = bool((scorer.get("ttt") or {}).get("optimizer"))
        kind = "ttt" if learns else "sliding" if scorer.get("scorer") == "sliding" else "roundtrip"
        seconds = _number(event.get("seconds"))
        name = str(event.get("name", "score"))
        facts.score(FinalScore(name, kind, float(event["bpb"]), _number(event.get("loss")), seconds, True, name))
        if seconds is not None:
            facts.took("quantized_validation", seconds)
        if "total_bytes" in event:
            facts.weigh(name, total_bytes=event["total_bytes"])
        facts.notes.append(Note("good", f"scored from the artifact: {event['bpb']:.4f} BPB", None, at))
        facts.enter("done", at)

    def _audit(self, event: dict[str, Any], at: float | None) -> None:
        self.facts.notes.append(Note("info", _words(event), None, at))
        self.facts.enter("done" if self.facts.scores else "audit", at)

    def _failure(self, event: dict[str, Any], at: float | None) -> None:
        self.ended("failed", str(event.get("message", "failed")), at)

    def _resume(self, event: dict[str, Any], at: float | None) -> None:
        self.facts.message = ""
        self.pace.clear()  # the time in between is no part of it
        self.facts.enter("training", at)
        self.facts.notes.append(Note("info", f"resumed after step {event.get('step')}", event.get("step"), at))

    def _import(self, event: dict[str, Any], at: float | None) -> None:
        self.facts.notes.append(Note("info", f"imported from {event.get('file')}", None, at))
        self.facts.enter("done", at)

    def _reserve(self, event: dict[str, Any], at: float | None) -> None:
        seconds = _number(event.get("seconds"))
        if self.facts.max_seconds is not None and seconds is not None:
            self.facts.max_seconds -= seconds
        self.facts.notes.append(
            Note("info", f"{seconds or 0:.1f} s of the clock kept for what follows training", None, at)
        )

    def _other(self, event: dict[str, Any], at: float | None) -> None:
        kind = "warning" if event["event"] in ("warning", "rollback") else "info"
        text = str(event["message"]) if "message" in event else _words(event)
        self.facts.notes.append(Note(kind, text[:300], event.get("step"), at))


def _words(event: dict[str, Any]) -> str:
    """An event that has no words of its own, as words."""
    facts = (f"{k} {v}" for k, v in event.items() if k not in ("event", "time") and isinstance(v, str | int | float))
    return f"{event['event']}: {', '.join(facts)}"


def _number(value: Any) -> float | None:
    fits = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if fits else None
