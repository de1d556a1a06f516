"""What training tells while it runs: events, as plain dictionaries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from niblick.train.checkpoint import (
    Progress,
)
from niblick.train.schedule import ScheduleConfig

Emit = Callable[[dict[str, Any]], None]


def progress_event(kind: str, progress: Progress, schedule: ScheduleConfig) -> dict[str, Any]:
    """Return an event of this kind that says how far the run is."""
    share = schedule.progress(progress.step, progress.train_seconds)
    eta = progress.train_seconds * (1 - share) / share if share else None
    return {
        "event": kind,
        "step": progress.step,
        "steps": schedule.steps,
        "train_seconds": progress.train_seconds,
        "progress": share,
        "eta_seconds": eta,
    }


def checkpoint_event(path: Path) -> dict[str, Any]:
    """Return the event that says that a checkpoint has been written."""
    return {"event": "checkpoint", "step": int(path.stem.removeprefix("step_")), "file": path.name}
