"""Sweeps of tiny models, and an executor that trains in this process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from niblick.errors import NiblickError
from niblick.facts.scores import ScoreRecord
from niblick.run import prepared, scoring
from niblick.run.directory import Run
from niblick.sweeps.executors import Ended
from niblick.sweeps.job import Job, execute
from niblick.sweeps.sweep import Sweep, grid

TINY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.device=cpu"),
    *("train.dtype=float32", "train.seq_len=32", "train.batch_tokens=128", "train.micro_batch_tokens=128"),
    *("train.warmup_steps=0", "score.seq_len=64", "score.documents=1", "schedule.steps=8"),
    "train.sample_bytes=0",
]


def score_in_process(run: Run, name: str) -> ScoreRecord:
    """The official score without a fresh process."""
    return scoring.score_artifact(run.artifact(name), prepared.config_of(run).data.path, run=run)


class Here:
    """Executes jobs in this process, one by one; `kill_after` raises KeyboardInterrupt before that many-th job."""

    slots = 2

    def __init__(self, kill_after: int | None = None) -> None:
        self.jobs: list[Job] = []
        self.kill_after = kill_after
        self._ended: list[Ended] = []

    def submit(self, job: Job) -> None:
        if len(self.jobs) == self.kill_after:
            raise KeyboardInterrupt
        job.write()
        self.jobs.append(job)
        try:
            self._ended.append(Ended(job.run, execute(job), []))
        except NiblickError as error:
            self._ended.append(Ended(job.run, error.exit_code, ["before", str(error)]))

    def ended(self) -> list[Ended]:
        ended, self._ended = self._ended, []
        return ended

    def stop(self) -> None:
        pass


def tiny_sweep(data: Path, **changes: Any) -> Sweep:
    """Two target lengths by two learning rates, one seed."""
    values: dict[str, Any] = {
        "base": "hnet-small",
        "name": "tiny",
        "sets": [*TINY, f"data.path={json.dumps(str(data))}"],
        "axes": [grid({"model.levels.0.target_length": [4, 6], "optim.matrix_lr": [0.02, 0.04]})],
        "track": "fixed-step",
    }
    return Sweep(**(values | changes))
