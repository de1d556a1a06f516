"""What training tells while it runs: the moments of its events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from niblick.facts.events import Checkpoint, Moment
from niblick.train.checkpoint import (
    Progress,
)
from niblick.train.schedule import ScheduleConfig

M = TypeVar("M", bound=Moment)


class LogTimes:
    """Which steps are written down: the first ten, every so many, and some by time, so that few steps give a curve."""

    def __init__(self, every: int) -> None:
        self.every = every
        self._last = 0.0

    def due(self, step: int, seconds: float) -> bool:
        """Whether this step is, at so many seconds of the train clock: one in a second, later one in 1% of the time."""
        due = step <= 10 or step % self.every == 0 or not 0 <= seconds - self._last < max(1.0, seconds / 100)
        if due:
            self._last = seconds
        return due


def moment(kind: Callable[..., M], progress: Progress, schedule: ScheduleConfig, **facts: Any) -> M:
    """Return an event of this kind that says how far the run is, with the facts of its kind."""
    share = schedule.progress(progress.step, progress.train_seconds)
    eta = progress.train_seconds * (1 - share) / share if share else None
    return kind(
        step=progress.step,
        steps=schedule.steps,
        train_seconds=progress.train_seconds,
        progress=share,
        eta_seconds=eta,
        **facts,
    )


def checkpoint_event(path: Path) -> Checkpoint:
    """Return the event that says that a checkpoint has been written."""
    return Checkpoint(step=int(path.stem.removeprefix("step_")), file=path.name)
