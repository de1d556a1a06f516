"""How a run ends before its result is there: by a signal, by a pause, or interrupted after training."""

from __future__ import annotations

import signal

from niblick.errors import NiblickError
from niblick.run.directory import Run
from niblick.train.distributed import Ranks
from niblick.train.signals import PAUSED, Outcome


class Stopped(NiblickError):
    """A run ended by a signal, with a checkpoint to go on from."""

    def __init__(self, run: Run, outcome: Outcome, ranks: Ranks) -> None:
        self.paused = outcome.stopped == PAUSED
        self.exit_code = 128 + (signal.SIGTERM if self.paused else signal.Signals[outcome.stopped or "SIGTERM"])
        step, command = outcome.progress.step, resume_command(run, ranks)
        super().__init__(f"stopped by {outcome.stopped} after step {step}; resume with: {command}")


class Interrupted(NiblickError):
    """A run interrupted at once: after training, when its weights are there, or in it, without a new checkpoint."""

    exit_code = 130

    def __init__(self, run: Run) -> None:
        when = "after" if run.weights.is_file() else "in"
        super().__init__(f"interrupted {when} training; go on with: niblick train --resume {run.path}")


def resume_command(run: Run, ranks: Ranks) -> str:
    return f"niblick train --resume {run.path}" + (f" --devices {ranks.size}" if ranks.size > 1 else "")
