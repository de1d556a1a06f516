"""Which of many runs `latest` stands for: the newest with something to show, read without torch."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from niblick.facts.event_lines import read_events
from niblick.facts.events import Event, Failure, Resume, Step, Stop, Validation

LIVE_SECONDS = 900.0
"""An unfinished run that has written nothing for so long is no longer called running."""


def newest(folders: Iterable[Path]) -> Path | None:
    """Return the newest run directory that is usable; where none is, the newest at all."""
    known = by_age(folders)
    return next(filter(usable, known), known[0] if known else None)


def by_age(folders: Iterable[Path]) -> list[Path]:
    """Return run directories in the order in which they were made, newest first."""
    return [path for _, path in sorted(((_made(path), path) for path in folders), reverse=True)]


def usable(folder: Path) -> bool:
    """Whether a run has something to show, or still may: it has not died before its first step."""
    if any((folder / name).is_file() for name in ("result.json", "model.safetensors")):
        return True
    last: Event | None = None
    for event in read_events(folder / "events.jsonl"):
        if isinstance(event, Step | Validation | Resume):
            return True
        last = event
    if isinstance(last, Failure | Stop):
        return False
    times = [path.stat().st_mtime for path in (folder / "events.jsonl", folder / "config.json") if path.is_file()]
    return time.time() - max(times, default=0.0) < LIVE_SECONDS


def _made(folder: Path) -> int:
    """When its config was written, which is when it was made."""
    try:
        return (folder / "config.json").stat().st_mtime_ns
    except OSError:
        return 0  # removed while we look
