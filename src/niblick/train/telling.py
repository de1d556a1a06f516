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
