"""One run of a sweep in a process of its own: `python -m niblick.sweeps.job JOB.json`, started by an executor.

The job file says all of it, so that the same job gives the same run wherever it is executed. Whatever of the run is
there already is gone on with. Standard input stays open as long as the sweep lives; when it closes, so does the job.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from niblick.challenge.rules import Config
from niblick.facts.events import Event, Validation
from niblick.facts.reading import typed
from niblick.run.directory import read_json, write_json

DONE, PAUSED, STOPPED = 0, 75, 76
"""Exit codes of a job that did what it should: the run is finished, waits at a rung, or was stopped as a loser."""
ORPHANED = 77
"""Exit code of a job whose sweep was killed."""
GRACE = 4.0
"""Seconds that such a job has for a checkpoint: less than another sweep waits before it takes the directory over."""


@dataclass(frozen=True)
class Job:
    """What a job file holds."""

    run: str
    """Id of the run inside its sweep."""
    folder: str
    """Absolute path of the sweep's directory."""
    config: Config
    recipe: str | None
    """The source of the recipe file, if the config came from one."""
    member: Mapping[str, object]
    threads: int
    pause_after: int = 0
    """Step of the rung to stop at; 0: go to the end."""
    limits: list[list[float]] | None = None
    """(step, highest BPB): a validation above that stops the run."""
    workdir: str = ""
    """Where paths of the config count from."""

    @property
    def place(self) -> Path:
        """The run directory."""
        return Path(self.folder) / self.run

    @property
    def file(self) -> Path:
        """Where the job is written."""
        return Path(self.folder) / "jobs" / f"{self.run}.json"

    def write(self) -> Path:
        """Write the job file and return its path."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.file, asdict(self))
        return self.file


class Lost(Exception):
    """The run is behind its reference: it stops here."""

    def __init__(self, step: int, bpb: float, limit: float) -> None:
        self.step, self.bpb, self.limit = step, bpb, limit


def execute(job: Job) -> int:
    """Start the run, or go on with it. Returns the exit code; raises what the pipeline raises, but for pauses."""
    from niblick.console import RunConsole
    from niblick.run import ends, pipeline
    from niblick.run.directory import STOPPED as STOPPED_FILE
    from niblick.run.directory import Run

    run = Run(job.place)
    if (job.place / STOPPED_FILE).is_file():
        return STOPPED
    if run.finished():
        return DONE
    with RunConsole() as console:

        def listen(event: Event) -> None:
            console(event)
            if isinstance(event, Validation) and not event.final:
                limit = limits.get(event.step)
                if limit is not None and event.bpb > limit:
                    raise Lost(event.step, event.bpb, limit)

        limits = {int(step): limit for step, limit in job.limits or []}
        try:
            if (job.place / "config.json").is_file():
                pipeline.resume(run, listen, pause_after=job.pause_after)
            else:
                _begin(job, listen)
        except ends.Stopped as stop:
            if not stop.paused:
                raise
            return PAUSED
        except Lost as lost:
            reason = f"{lost.bpb:.4f} BPB after step {lost.step}, and the reference allows {lost.limit:.4f}"
            facts = {"rule": "reference", "step": lost.step, "bpb": lost.bpb, "limit": lost.limit, "reason": reason}
            write_json(job.place / STOPPED_FILE, facts)
            return STOPPED
    return DONE


def _begin(job: Job, listen: Any) -> None:
    from niblick.config.run_config import run_config
    from niblick.recipes.presets import load_recipe
    from niblick.run import pipeline

    recipe = None
    if job.recipe is not None:
        recipe = job.file.with_name(f"{job.run}.recipe.py")
        recipe.write_text(job.recipe, encoding="utf-8")
        load_recipe(recipe)
    config = run_config(job.config)
    folder = Path(job.folder)
    pipeline.run(config, folder, listen, recipe=recipe, name=job.run, member=job.member, pause_after=job.pause_after)


def _leave_with_the_sweep() -> None:
    """When standard input closes, stop as at SIGTERM, and soon in any case: nothing is ever half-written."""

    def watch() -> None:
        while os.read(0, 1):  # a buffered reader would hold a lock when the process ends
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(ORPHANED)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)  # so that a scoring process is ended too; the trainer has its own way
    threading.Thread(target=watch, daemon=True).start()


def read_job(path: Path) -> Job:
    """Read a job file. Raises DataError if it is none."""
    return typed(Job, read_json(path), str(path))


def main(path: Path) -> int:
    """Execute a job file. Returns the exit code; a NiblickError becomes one sentence on stderr."""
    from niblick.errors import NiblickError

    _leave_with_the_sweep()
    try:
        job = read_job(path)
        if job.workdir and Path(job.workdir).is_dir():
            os.chdir(job.workdir)
        return execute(job)
    except NiblickError as error:
        print(f"niblick: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
