"""From a config to a score, top to bottom: train → pack → score, each step leaving files in the run directory.

A step whose file is there is not done again, so a run that was killed anywhere goes on by the same calls. Over several
ranks all train; rank 0 alone writes, packs and scores.

The official score is computed from the artifact file, read back by a fresh process, on the whole validation split.
"""

from __future__ import annotations

import contextlib
import errno
import statistics
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from niblick.config.run_config import (
    RunConfig,
)
from niblick.errors import ConfigError, NiblickError, StorageError
from niblick.facts.events import Checkpoint, Emit, Event, Export, Failure, Start, Step, Stop, Validation
from niblick.facts.reading import write_file
from niblick.facts.result import Result
from niblick.run.artifacts import digests
from niblick.run.directory import Run, check_name, create_run, expect_free
from niblick.run.ends import Interrupted, Stopped, resume_command
from niblick.run.packing import export
from niblick.run.prepared import Prepared, config_of, prepare
from niblick.run.scoring import official_score, result_of, scored, validate_weights
from niblick.run.training import train_run
from niblick.train.checkpoint import list_checkpoints
from niblick.train.distributed import SINGLE, RankLost, Ranks, is_lost
from niblick.train.telling import LogTimes, checkpoint_event


def run(
    config: RunConfig,
    runs: Path,
    listen: Emit,
    *,
    recipe: Path | None = None,
    ranks: Ranks = SINGLE,
    name: str = "",
    member: Mapping[str, object] | None = None,
    pause_after: int = 0,
) -> Result | None:
    """Train, pack and score a config in a new run directory. Returns its result; None on other ranks than 0.

    The directory is the next one of the preset, or `name`; `member` says which run of a sweep it is. `pause_after` is
    the trainer's. Raises Stopped if a signal or a pause ended it; a NiblickError before anything is written if config,
    track and data do not fit.
    """
    prepared = prepare(config, ranks)
    path = create_run(runs, prepared.config, recipe, name=name, member=member).path if ranks.main else None
    made = Run(ranks.share_path(path))
    with made.writing() if ranks.main else contextlib.nullcontext():
        return _carry_on(made, prepared, listen, ranks, pause_after)


def run_seeds(
    config: RunConfig,
    count: int,
    runs: Path,
    listen: Emit,
    *,
    recipe: Path | None = None,
    ranks: Ranks = SINGLE,
    name: str = "",
) -> list[Result]:
    """Run a config with the seeds s, s+1, …, one after another, and return the results, in that order.

    The order of the data follows the seed unless `data.seed` holds it. Of several the `name` goes on with the seed.
    """
    seeds = range(config.seed, config.seed + count)
    names = {seed: f"{name}-s{seed}" if name and count > 1 else name for seed in seeds}
    for each in filter(None, names.values()):
        check_name(each, "a run")
        expect_free(runs, each)
    results = [
        run(replace(config, seed=seed), runs, listen, recipe=recipe, ranks=ranks, name=names[seed]) for seed in seeds
    ]
    return [result for result in results if result is not None]


def spread(results: list[Result]) -> dict[str, float | None]:
    """Mean and standard deviation (of the sample) of the scores of several runs."""
    facts: dict[str, float | None] = {}
    columns: dict[str, list[float] | list[float | None]] = {
        "bpb": [r.bpb for r in results],
        "bpb_repaired": [r.bpb_repaired for r in results],
    }
    for key, column in columns.items():
        scores = [score for score in column if score is not None]
        known = len(column) > 1 and len(scores) == len(column)
        facts[f"{key}_mean"] = statistics.mean(scores) if known else None
        facts[f"{key}_deviation"] = statistics.stdev(scores) if known else None
    return facts


def resume(run: Run, listen: Emit, ranks: Ranks = SINGLE, *, pause_after: int = 0) -> Result | None:
    """Go on with a run that was stopped, paused or killed, wherever that was. Raises ConfigError if it is finished.

    What the log says of steps after the checkpoint is forgotten, and told anew as they are taken again.
    """
    if run.finished():
        raise ConfigError(f"{run.path} is finished already: `niblick show {run.path}` shows its result")
    prepared = prepare(config_of(run), ranks, settled=True)
    with run.writing() if ranks.main else contextlib.nullcontext():
        if ranks.main:
            _clear(run)
        ranks.barrier()
        return _carry_on(run, prepared, listen, ranks, pause_after)


def _clear(run: Run) -> None:
    """Take away what a kill left, and what the log says of steps that will be taken again."""
    for left in run.path.rglob("*.tmp"):
        left.unlink()
    run.rewind(_told(run))
    newest = [] if run.weights.is_file() else list_checkpoints(run.checkpoints)[-1:]
    if newest and not any(isinstance(e, Checkpoint) and e.file == newest[0].name for e in run.events()):
        run.log(checkpoint_event(newest[0]))  # killed before it was told


def _told(run: Run) -> int:
    """How many events of the log stand when a run goes on: those up to its newest checkpoint or finished step."""
    events = [event for event in run.events() if not isinstance(event, Failure)]
    if run.weights.is_file():
        after = Export if any(map(_final, events)) else Stop | Export
        return next((i for i, e in enumerate(events) if isinstance(e, after)), len(events))
    checkpoints = list_checkpoints(run.checkpoints)
    if not checkpoints:
        return 0
    newest = checkpoints[-1].name
    saved = [i for i, e in enumerate(events) if isinstance(e, Checkpoint) and e.file == newest]
    return saved[-1] + 1 if saved else len(events)  # nothing came after it


def _final(event: Event) -> bool:
    """Whether this is the score of the final weights."""
    return isinstance(event, Validation) and event.final


FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _carry_on(run: Run, prepared: Prepared, listen: Emit, ranks: Ranks = SINGLE, pause_after: int = 0) -> Result | None:
    """Do what is left to do; a failure is told in the events, for those who look at the run from outside."""
    try:
        return _finish(run, prepared, listen, ranks, pause_after)
    except (Stopped, Interrupted):
        raise
    except Exception as error:
        if ranks.main:
            words = str(error) if isinstance(error, NiblickError) else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):
                run.log(Failure(message=words))
        raise


class Journal:
    """Writes down what a run tells: of its steps those that are due, and the last one before anything else happens."""

    def __init__(self, run: Run, every: int) -> None:
        self.run, self.times = run, LogTimes(every)
        self._held: Step | None = None

    def __call__(self, event: Event) -> None:
        """Take in the next event."""
        if isinstance(event, Step) and not self.times.due(event.step, event.train_seconds or 0.0):
            self._held = event
            return
        if self._held and not isinstance(event, Step):
            self.run.log(self._held)
        self._held = None
        known = isinstance(event, Start) and any(True for _ in self.run.events())  # told before it was killed
        if not known:
            self.run.log(event)


def _finish(run: Run, prepared: Prepared, listen: Emit, ranks: Ranks, pause_after: int) -> Result | None:
    config = prepared.config

    journal = Journal(run, config.train.log_every)

    def emit(event: Event) -> None:
        if not ranks.main:
            return
        journal(event)
        listen(replace(event, run=str(run.path)))

    go_on = f"go on with: {resume_command(run, ranks)}"
    try:
        if not run.weights.is_file():
            train_run(run, prepared, emit, ranks, pause_after)
        if not ranks.main:
            return None
        if not any(map(_final, run.events())):
            validate_weights(run, config, prepared.dataset, emit)
        name = config.export.name
        packed = export(run, config, prepared.dataset, emit)
        record = official_score(run, name)
        emit(scored(record, name))
        result = result_of(run, name, packed, record, files=digests(run))
        write_file(run.path / "result.json", result)
    except KeyboardInterrupt:
        if ranks.main and not run.weights.is_file():
            run.log(Stop(reason="SIGINT"))
        raise Interrupted(run) from None
    except (StorageError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        kept = list_checkpoints(run.checkpoints)
        last = f"the last good checkpoint is {kept[-1]}" if kept else "there is no checkpoint yet"
        what = str(error)
        if isinstance(error, OSError):
            what = f"{error.filename or run.path} cannot be written ({error.strerror})"
        raise StorageError(f"{what}; {last}: make room and {go_on}") from error
    except RuntimeError as error:
        if ranks.size == 1 or not is_lost(error):
            raise
        raise RankLost(
            f"rank {ranks.rank} of {ranks.size} lost another one, which has died: all ranks stop; {go_on}"
        ) from error
    return result
