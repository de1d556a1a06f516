"""The budget of a run (steps, seconds) and the learning rate over it."""

from __future__ import annotations

from dataclasses import dataclass

from niblick.errors import ConfigError


@dataclass(frozen=True)
class ScheduleConfig:
    """How long a run lasts and when the learning rate falls. Constant, then linear warmdown to zero."""

    steps: int = 20_000
    """Optimizer steps at most."""
    max_seconds: float | None = None
    """Seconds of training at most, by the train clock (warmup and validation do not count)."""
    warmdown_steps: int = 1_200
    """Length of the warmdown in steps; under a time cap, in the time that many steps take."""
    warmdown_share: float | None = None
    """Length of the warmdown as a share of the whole budget instead, whichever cap rules it."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"schedule.steps={self.steps} must be at least 1")
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise ConfigError(f"schedule.max_seconds={self.max_seconds} must be positive")
        if self.warmdown_share is not None and not 0 <= self.warmdown_share <= 1:
            raise ConfigError(f"schedule.warmdown_share={self.warmdown_share} must lie between 0 and 1")
        if self.warmdown_steps < 0:
            raise ConfigError(f"schedule.warmdown_steps={self.warmdown_steps} must not be negative")

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget used after `step` steps and `seconds` of training, at most 1."""
        by_time = seconds / self.max_seconds if self.max_seconds else 0.0
        return min(max(step / self.steps, by_time), 1.0)

    def lr_scale(self, step: int, seconds: float) -> float:
        """Factor of the learning rates for the step after `step` steps and `seconds` of training (challenge baseline).

        Under a time cap the published rule looks at the clock alone, and takes the mean step so far as the measure.
        """
        if self.warmdown_share is not None:
            left = 1 - self.progress(step, seconds)
            return min(left / self.warmdown_share, 1.0) if self.warmdown_share else 1.0
        if not self.warmdown_steps:
            return 1.0
        if self.max_seconds is None:
            return min((self.steps - step) / self.warmdown_steps, 1.0)
        warmdown_seconds = self.warmdown_steps * seconds / max(step, 1)
        left_seconds = max(self.max_seconds - seconds, 0.0)
        return left_seconds / max(warmdown_seconds, 1e-9) if left_seconds <= warmdown_seconds else 1.0

    def finished(self, step: int, seconds: float) -> bool:
        """Whether the budget is used up."""
        return step >= self.steps or (self.max_seconds is not None and seconds >= self.max_seconds)
