"""Signals that stop a training after its step, and how trainings end."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from niblick.errors import ENDING
from niblick.train.checkpoint import (
    Progress,
)
from niblick.train.distributed import ignore_termination, is_lost

PAUSED = "pause"
"""How a run ends that was to stop after some step."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    progress: Progress
    stopped: str | None
    """Name of the signal that ended it early, PAUSED, or None."""
    checkpoint: Path | None
    """The checkpoint that was written on the way out."""
    average: str = "raw"
    """Which weights the model has now: raw, ema or swa."""


class StopSignals:
    """Turns SIGINT, SIGTERM and SIGHUP into a wish to stop after the step; a second one of them acts as usual.

    SIGHUP is what a terminal sends that goes away; under `nohup` it is ignored, and stays so.
    """

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])

    def __enter__(self) -> StopSignals:
        for number in ENDING:
            # Handlers can be set from the main thread alone; elsewhere signals keep their meaning.
            with contextlib.suppress(ValueError):
                if number not in (signal.SIGINT, signal.SIGTERM) and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is not None and is_lost(error):
            ignore_termination()
