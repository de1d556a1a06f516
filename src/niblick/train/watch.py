"""Notices what goes wrong while a model trains: loss spikes, routers that have died, steps that are slow."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from niblick.train.routing import CollapseWatch

if TYPE_CHECKING:
    from niblick.train.checkpoint import WatchState
    from niblick.train.schedule import ScheduleConfig

WINDOW = 64
"""Steps that a spike or a slow step is compared with."""
FIRST = 16
"""Steps before anything is compared."""
SPIKE_DEVIATIONS = 8.0
"""A spike is so many (robust) standard deviations above the median of the window,"""
SPIKE_SHARE = 0.1
"""and above it by at least this share of it."""
SLOW = 2.0
"""A step is slow where it takes so many times the median of the window,"""
SLOW_STEPS = 5
"""and worth a warning after so many in a row."""


class Watch:
    """Compares each step with those before it. What it remembers of losses and routers goes through checkpoints."""

    def __init__(self, state: WatchState | None = None) -> None:
        state = state or {}
        self.routers = CollapseWatch(state.get("routers"))
        self._losses: list[float] = list(state.get("losses", []))
        self._in_spike: bool = state.get("in_spike", False)
        self._seconds: list[float] = []
        self._slow = 0
        self._late = False

    def state(self) -> WatchState:
        """Return what is remembered, as plain data. Speed is not: it belongs to the machine."""
        return {"routers": self.routers.state(), "losses": list(self._losses), "in_spike": self._in_spike}

    def spike(self, loss: float) -> str | None:
        """Take in a loss. Returns what is wrong with it, once for a spike that lasts; None if nothing is."""
        before, self._losses = self._losses, [*self._losses, loss][-WINDOW:]
        if not math.isfinite(loss):
            self._losses = before
            return f"the loss is {loss}"
        middle = statistics.median(before) if before else loss
        spread = 1.4826 * statistics.median(abs(x - middle) for x in before) if before else 0.0
        high = len(before) >= FIRST and loss > middle + max(SPIKE_DEVIATIONS * spread, SPIKE_SHARE * abs(middle))
        first, self._in_spike = high and not self._in_spike, high
        return f"the loss jumped to {loss:.4f}, from {middle:.4f} (median of {len(before)} steps)" if first else None

    def slow(self, seconds: float, tokens: int) -> str | None:
        """Take in the time of a step of so many tokens. Returns a warning when steps have become slow, once."""
        usual = statistics.median(self._seconds) if len(self._seconds) >= FIRST else math.inf
        if seconds <= SLOW * usual:
            self._seconds, self._slow = [*self._seconds, seconds][-WINDOW:], 0
            return None
        self._slow += 1
        if self._slow == WINDOW:  # this is the usual speed now
            self._seconds, self._slow = [], 0
        if self._slow != SLOW_STEPS:
            return None
        return f"throughput fell to {tokens / seconds:,.0f} tokens/s, from {tokens / usual:,.0f}"

    def late(self, schedule: ScheduleConfig, step: int, seconds: float, step_seconds: float) -> str | None:
        """Say that the time of the schedule is over before its `min_steps` are done, and how long they take.

        Once in a process: where training ends but for them, since another step of `step_seconds` would be too long.
        """
        limit, least = schedule.limit_seconds, schedule.least_steps
        if self._late or limit is None or seconds + step_seconds <= limit or step >= least:
            return None
        self._late, left = True, (least - step) * seconds / step
        kept = f" less {schedule.reserve_seconds:.3g} s for what follows" if schedule.reserve_seconds else ""
        return (
            f"schedule.max_seconds={schedule.max_seconds:g}{kept} is used up after step {step}, by a slow machine or "
            f"one with other work: going on to schedule.min_steps={least}, about {left:.0f} s more at this pace"
        )
