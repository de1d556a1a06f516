"""Phases and ETA: which phase a run is in now, how long that phase still takes, and how long the whole run.

A run's own clock (`train_seconds`) stands still for validation, and a log may be replayed faster than it was written:
`Pace` measures how many seconds pass here for one of the run's. Silent phases are told by what they took before: in
earlier runs of the same kind, or in this one.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from niblick.monitor.run_facts import PHASES, Facts

ENDED = ("done", "failed", "stopped")
_WINDOW = 48
"""Lines that the pace is measured over."""
_RECENT = 8
"""Logged steps that the speed is measured over."""
_QUIET = 60.0
"""Seconds of silence in training that are never worth a word."""
_QUIET_PHASE = 900.0
"""The same outside training, where scripts compile, pack and score without a line."""


class Pace:
    """Seconds here for one second of the run's own clock: 1 until two lines have been seen to arrive."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque(maxlen=_WINDOW)

    def observe(self, at: float, train_seconds: float) -> None:
        """Note where the run's clock stood at a time."""
        if self._seen and (train_seconds < self._seen[-1][1] or at < self._seen[-1][0]):
            self.clear()  # it started anew
        if not self._seen or train_seconds > self._seen[-1][1]:
            self._seen.append((at, train_seconds))

    def clear(self) -> None:
        """Forget what was observed."""
        self._seen.clear()

    @property
    def value(self) -> float:
        """Seconds here for one of the run's."""
        if len(self._seen) < 2:
            return 1.0
        (at, clock), (at_last, clock_last) = self._seen[0], self._seen[-1]
        return (at_last - at) / (clock_last - clock) if at_last > at else 1.0

    @property
    def gap(self) -> float | None:
        """Usual seconds here between two lines."""
        times = [at for at, _ in self._seen]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        return statistics.median(gaps) if gaps else None


class Lengths:
    """How long silent phases take, learned from runs that are through them."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], dict[str, float]] = {}

    def learn(self, run: str, kind: str, facts: Facts) -> None:
        """Take in the phases of a run; `kind` is what runs share that take alike (a preset, a script)."""
        if facts.phase != "done":
            return
        for phase, seconds in phase_seconds(facts).items():
            if phase not in ("training", "done"):
                self._known.setdefault((kind, phase), {})[run] = seconds

    def expected(self, kind: str, phase: str, facts: Facts, run: str = "") -> float | None:
        """Seconds that a phase should take; None where nothing is known of it."""
        others = [s for r, s in self._known.get((kind, phase), {}).items() if r != run]
        if others:
            return statistics.median(others)
        if phase in ("final_validation", "quantized_validation"):
            own = phase_seconds(facts)
            return own.get("final_validation") or own.get("initial_validation")
        return None

    def follows(self, kind: str, phase: str) -> bool:
        """Whether runs of this kind usually have the phase."""
        done = len({run for (k, _), runs in self._known.items() if k == kind for run in runs})
        return len(self._known.get((kind, phase), {})) * 2 > done > 0


def phase_seconds(facts: Facts) -> dict[str, float]:
    """Seconds of each phase that is over and whose length is known, several stretches of one added up."""
    sums: dict[str, float] = {}
    for span in facts.spans:
        if span.seconds is not None and span.phase != "done":
            sums[span.phase] = sums.get(span.phase, 0.0) + span.seconds
    return sums


@dataclass(frozen=True)
class Timing:
    """What a run is doing at one moment."""

    phase: str
    """One of PHASES, `starting`, `failed`, `stalled` or `stopped`."""
    working: str
    """The phase that it is in, or was in when it went silent or ended."""
    share: float | None
    """Of the phase, between 0 and 1, where it can be told."""
    phase_eta: float | None
    """Seconds until the phase ends."""
    eta: float | None
    """Seconds until the run is done: of phases of which nothing is known, nothing."""
    age: float
    """Seconds since the last line."""
    guessed: bool = False
    """Whether no line says so: the run's clock must be at its end by now."""


def remaining_training(facts: Facts) -> float | None:
    """Seconds of training left, by the run's own clock: up to the cap or to the last step, whichever comes first."""
    if facts.train_seconds is None or facts.step is None:
        return None
    limits, each = [], _step_seconds(facts)
    if facts.max_seconds is not None:
        floor = max(0, facts.min_steps - facts.step) * (each or 0.0)
        limits.append(max(facts.max_seconds - facts.train_seconds, floor))
    if facts.steps is not None and each is not None:
        limits.append((facts.steps - facts.step) * each)
    return max(0.0, min(limits)) if limits else None


def _step_seconds(facts: Facts) -> float | None:
    """Seconds of a step: over the last logged ones, and not the first few, which prime caches."""
    points = [p for p in facts.curve.recent(_RECENT) if p.seconds is not None]
    if len(points) >= 2 and points[-1].step > points[0].step:
        return ((points[-1].seconds or 0.0) - (points[0].seconds or 0.0)) / (points[-1].step - points[0].step)
    if facts.step and facts.train_seconds is not None:
        return facts.train_seconds / facts.step
    return None


def timing(
    facts: Facts, now: float, last_at: float, pace: Pace, lengths: Lengths, kind: str = "", run: str = ""
) -> Timing:
    """Say what a run does at `now`, whose last line came at `last_at`."""
    age = max(0.0, now - last_at)
    phase = facts.phase
    if phase in ENDED:
        before = next((s.phase for s in reversed(facts.spans) if s.phase not in ENDED), "starting")
        done = phase == "done"
        return Timing(phase, phase if done else before, 1.0 if done else _share(facts, 0.0), *_ended(done), age)
    left = remaining_training(facts) if phase == "training" else None
    left_here = left * pace.value - age if left is not None else None
    # Only the end that was near when the last line came: a run that went silent long before it has stalled.
    patience = _patience(facts, phase, pace, lengths, kind, run)
    near = left is not None and left <= 5 * _leap(facts) and left * pace.value <= patience
    guessed = near and left_here is not None and left_here <= 0
    if guessed:
        assert left_here is not None
        phase, since = "final_validation", -left_here
    else:
        start = facts.spans[-1].start if facts.spans else None
        since = max(0.0, now - start) if start is not None else age
    if phase == "training":
        phase_eta = left_here
        share = _share(facts, min(age / pace.value if pace.value else 0.0, _leap(facts)))
    else:
        known = _scaled(lengths.expected(kind, phase, facts, run), pace)
        phase_eta = max(0.0, known - since) if known is not None else None
        share = min(0.99, since / known) if known else _warmup_share(facts, phase)
    rest = [_scaled(lengths.expected(kind, p, facts, run), pace) for p in _after(phase, kind, lengths)]
    eta = None if phase_eta is None else phase_eta + sum(r for r in rest if r is not None)
    if phase in ("starting", "warmup", "initial_validation") and facts.max_seconds and eta is not None:
        eta += facts.max_seconds
    quiet = (since if guessed else age) > _patience(facts, phase, pace, lengths, kind, run)
    if quiet:
        return Timing("stalled", phase, share, None, None, age, guessed)
    return Timing(phase, phase, share, phase_eta, eta, age, guessed)


def _ended(done: bool) -> tuple[float | None, float | None]:
    return (0.0, 0.0) if done else (None, None)


def _share(facts: Facts, extra: float) -> float | None:
    """How far training is, by steps or by the clock, whichever is further; `extra` seconds of clock on top."""
    shares = []
    clock = (facts.train_seconds or 0.0) + extra
    if facts.max_seconds:
        share = clock / facts.max_seconds
        shares.append(min(share, (facts.step or 0) / facts.min_steps) if facts.min_steps else share)
    if facts.steps and facts.step is not None:
        each = _step_seconds(facts)
        shares.append((facts.step + (extra / each if each else 0.0)) / facts.steps)
    return min(1.0, max(shares)) if shares else None


def _gaps(facts: Facts) -> list[float]:
    """Seconds of the run's clock between the last logged steps."""
    points = [p.seconds for p in facts.curve.recent(_RECENT) if p.seconds is not None]
    return [b - a for a, b in itertools.pairwise(points)]


def _leap(facts: Facts) -> float:
    """Seconds of the run's clock that its bar may run ahead of the last line: the next should have come twice by then.

    A run that validates or hangs holds its bar, and lines that came all at once, which make a pace that never was, do
    not send it to the end.
    """
    return 2 * max(_gaps(facts), default=math.inf)


def _warmup_share(facts: Facts, phase: str) -> float | None:
    if phase != "warmup" or not facts.warmup:
        return None
    done, count = facts.warmup
    return done / count if count else None


def _after(phase: str, kind: str, lengths: Lengths) -> Iterable[str]:
    """The silent phases that come after this one, as far as runs of this kind have them."""
    place = PHASES.index(phase) if phase in PHASES else -1
    for later in PHASES[place + 1 : -1]:
        optional = later in ("sliding", "ttt", "audit")
        if later != "training" and (not optional or lengths.follows(kind, later)):
            yield later


def _scaled(seconds: float | None, pace: Pace) -> float | None:
    """A length by the run's clock, here: replays are faster, and validations do not slow each other down."""
    return None if seconds is None else seconds * min(1.0, pace.value)


def _patience(facts: Facts, phase: str, pace: Pace, lengths: Lengths, kind: str, run: str) -> float:
    """Seconds of silence after which a run is called stalled."""
    if phase != "training":
        known = lengths.expected(kind, phase, facts, run)
        return max(_QUIET_PHASE, 4 * known if known else 0.0)
    gaps = _gaps(facts)
    usual = max([pace.gap or 0.0, statistics.median(gaps) if gaps else 0.0])
    return max(_QUIET, 10 * usual) if usual else 5 * _QUIET
