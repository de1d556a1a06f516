"""The budget of a run (steps, seconds) and the learning rate over it."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from niblick.errors import ConfigError


@dataclass(frozen=True)
class ScheduleConfig:
    """How long a run lasts and when the learning rate falls. Constant, then linear warmdown to zero."""

    steps: int = 20_000
    """Optimizer steps at most."""
    max_seconds: float | None = None
    """Seconds of training at most, by the train clock (warmup and validation do not count)."""
    min_steps: int = 0
    """Steps at least (of `steps`): where `max_seconds` are over before, training goes on to there."""
    warmdown_steps: int = 1_200
    """Length of the warmdown in steps; under a time cap, in the time that many steps take."""
    warmdown_share: float | None = None
    """Length of the warmdown as a share of the whole budget instead, whichever cap rules it."""
    reserve_seconds: float | None = None
    """Seconds of `max_seconds` kept free for what follows training (choosing an average, calibration, packing);
    null: as long as a rehearsal of that takes, on this machine and this model."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"schedule.steps={self.steps} must be at least 1")
        if self.min_steps < 0:
            raise ConfigError(f"schedule.min_steps={self.min_steps} must not be negative")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise ConfigError(f"schedule.max_seconds={self.max_seconds} must be positive")
        if self.warmdown_share is not None and not 0 <= self.warmdown_share <= 1:
            raise ConfigError(f"schedule.warmdown_share={self.warmdown_share} must lie between 0 and 1")
        if self.warmdown_steps < 0:
            raise ConfigError(f"schedule.warmdown_steps={self.warmdown_steps} must not be negative")
        if self.reserve_seconds is not None and not 0 <= self.reserve_seconds < (self.max_seconds or math.inf):
            raise ConfigError(
                f"schedule.reserve_seconds={self.reserve_seconds} must be at least 0 and less than "
                f"schedule.max_seconds={self.max_seconds}: it is the part of them kept free for the export"
            )

    @property
    def limit_seconds(self) -> float | None:
        """Seconds of the train clock after which no step may end: the cap without the reserve."""
        return None if self.max_seconds is None else self.max_seconds - (self.reserve_seconds or 0.0)

    @property
    def least_steps(self) -> int:
        """Steps that training takes whatever the clock says: `min_steps`, or all if those are fewer."""
        return min(self.min_steps, self.steps)

    def _limit(self, step: int, seconds: float) -> float:
        """`limit_seconds`, or when `min_steps` will be done at the pace so far, if that is later."""
        limit = math.inf if self.limit_seconds is None else self.limit_seconds
        return max(limit, self.least_steps * seconds / step) if 0 < step < self.least_steps else limit

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget used after `step` steps and `seconds` of training, at most 1."""
        return min(max(step / self.steps, seconds / self._limit(step, seconds)), 1.0)

    def lr_scale(self, step: int, seconds: float) -> float:
        """Factor of the learning rates for the step after `step` steps and `seconds` of training (challenge baseline).

        Under a time cap the published rule looks at the clock alone, and takes the mean step so far as the measure.
        """
        if self.warmdown_share is not None:
            left = 1 - self.progress(step, seconds)
            return min(left / self.warmdown_share, 1.0) if self.warmdown_share else 1.0
        if not self.warmdown_steps:
            return 1.0
        if self.limit_seconds is None:
            return min((self.steps - step) / self.warmdown_steps, 1.0)
        warmdown_seconds = self.warmdown_steps * seconds / max(step, 1)
        left_seconds = max(self._limit(step, seconds) - seconds, 0.0)
        return left_seconds / max(warmdown_seconds, 1e-9) if left_seconds <= warmdown_seconds else 1.0

    def finished(self, step: int, seconds: float, step_seconds: float = 0.0) -> bool:
        """Whether the budget is used up, or so nearly that a step of `step_seconds` would overshoot it."""
        if step >= self.steps or step < self.min_steps:
            return step >= self.steps
        limit = self._limit(step, seconds)
        return seconds >= limit or seconds + step_seconds > limit


class Clock:
    """A stopwatch that starts at `seconds` and can be paused. `now` is what it reads."""

    def __init__(self, seconds: float = 0.0, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._zero = now() - seconds

    def read(self) -> float:
        """Seconds so far."""
        return self._now() - self._zero

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still inside."""
        stopped = self._now()
        try:
            yield
        finally:
            self._zero += self._now() - stopped


class Pace:
    """How long the next step may take: the longest of the last few."""

    def __init__(self, steps: int = 8) -> None:
        self._recent: deque[float] = deque(maxlen=steps)

    def add(self, seconds: float) -> None:
        """Take in a step."""
        self._recent.append(seconds)

    @property
    def longest(self) -> float:
        """Seconds; 0 before the first step."""
        return max(self._recent, default=0.0)
