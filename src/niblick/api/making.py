"""Making data and runs: prepare, train, resume, sweep."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from niblick.api.own_runs import Run
from niblick.api.shown import Shown
from niblick.api.wording import edged
from niblick.arguments import Count, Folder, NewFolder, PathLike, Source, checked
from niblick.config.run_config import RunConfig
from niblick.console import RunConsole
from niblick.data import prepare as preparing
from niblick.data.dataset import Dataset
from niblick.data.documents import Reading
from niblick.errors import ConfigError, NiblickError, nearest
from niblick.recipes.targets import assignments, resolve, with_settings
from niblick.reports.tables import print_sweep
from niblick.run import directory, pipeline
from niblick.sweeps.executors import LocalPool
from niblick.sweeps.running import State, SweepFolder, run_sweep
from niblick.sweeps.sweep import Sweep, grid, load_sweep


@edged
class Data:
    """A folder of token shards that `prepare` made. Every function that takes data takes it."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def dataset(self) -> Dataset:
        """The open dataset: tokenizer, manifest, and the splits `train` and `val` with their tokens and documents."""
        return Dataset.open(self.path)

    def __repr__(self) -> str:
        try:
            dataset = self.dataset
        except NiblickError as error:
            return f"<Data {self.path}: {error}>"
        splits = dataset.manifest.get("niblick", {}).get("splits", {})
        counts = (f"{name} {s['documents']:,} documents, {s['bytes']:,} bytes" for name, s in splits.items())
        return f"<Data {self.path}: {dataset.tokenizer.name}; {'; '.join(counts) or 'shards'}>"


def prepare(
    source: Source,
    out: NewFolder,
    *,
    tokenizer: PathLike | None = None,
    val_share: float | None = None,
    max_docs: Count | None = None,
    text_key: str = "text",
    separator: str = "",
    **more: Any,
) -> Data:
    """Turn text into token shards in the folder `out`, and return them; `train` takes that, or the folder.

    `source` is a file (.txt, .jsonl, .csv, .tsv, .parquet, .arrow; compressed, too), a folder of such, `pydocs` (the
    documentation that comes with Python), the challenge's `challenge:docs` and `challenge:sp1024`, a dataset of the hub
    (`hf:REPO[@REVISION][:CONFIG][:SPLIT][#COLUMN]`), or rows at hand: strings, mappings, a table or a column of
    pyarrow, pandas or polars. `tokenizer` is `byte260` (the default), FILE.model, a byte-level `tokenizer.json`, or
    `sp:VOCAB`, trained on this text. `val_share` of the documents are held out (0.05 by default); one text is cut for
    that at the ends of paragraphs. `max_docs` are read in all. `text_key` is the key or column of the text; `separator`
    cuts text files into documents. Further arguments are those of `niblick.data.prepare.prepare`, such as `val_docs`
    and `workers`, and of its `Reading`, such as `skip_empty`. An `out` that was made in the same way stays as it is.
    Raises DataError for text that is not there, too short or unreadable, and for an `out` in use otherwise.
    """
    known = {*inspect.signature(preparing.prepare).parameters, *(field.name for field in fields(Reading))}
    for name in more.keys() - known:
        raise ConfigError(f"prepare has no argument {name!r}{nearest(name, known)}")
    read = {name: more.pop(name) for name in more.keys() & {field.name for field in fields(Reading)}}
    more = {name: value for name, value in more.items() if value is not None}
    if "reading" in more and (read or text_key != "text" or separator):
        raise ConfigError("reading= says how files are read: leave text_key=, separator= and the like out beside it")
    more.setdefault("reading", checked(Reading)(text_key, separator, **read))
    with RunConsole() as console:
        more.setdefault("progress", lambda count, size: console.preparing("documents", count, size))
        preparing.prepare(
            source,
            None if tokenizer is None else os.fspath(tokenizer),
            out,
            val_share=val_share,
            max_docs=max_docs,
            **more,
        )
    return Data(out)


def train(
    target: PathLike | RunConfig,
    data: PathLike = "",
    *,
    name: str = "",
    track: str = "",
    runs: Folder = "runs",
    overrides: Mapping[str, object] | None = None,
    **settings: object,
) -> Run:
    """Train, pack and score, and return the run: its directory lies below the folder `runs`.

    `target` is a preset (`niblick.presets()` lists them), a recipe file, or a RunConfig. `data` is what `prepare` made,
    or its folder. `name` is that of the run, by default `<preset>-<n>`; `track` names rules, as `smoke` does.

    Any key of the config can be set, as keyword with two underscores for a dot (`model__width=64, seed=2`) or in
    `overrides` (`{"model.width": 64}`); `niblick.show(target)` has them all. Interrupting writes a checkpoint, and
    `resume` goes on. Raises a NiblickError before anything is written if preset, key, value or data do not fit, or if
    the name is taken; Stopped if a signal ended the training.
    """
    given = assignments({**(overrides or {}), **settings})
    recipe = None
    if isinstance(target, RunConfig):
        config = with_settings(target, given, track=track, data=os.fspath(data))
    else:
        config, recipe = resolve(os.fspath(target), given, track=track, data=os.fspath(data))
    with RunConsole() as console:
        [result] = pipeline.run_seeds(config, 1, Path(runs), console, recipe=recipe, name=name)
    return Run(result.run)


def resume(target: PathLike = "latest", *, runs: Folder = "runs") -> Run:
    """Go on with a run that was stopped, interrupted or killed, to its score. Raises ConfigError if it is finished."""
    run = directory.open_run(os.fspath(target), Path(runs))
    with RunConsole() as console:
        pipeline.resume(run, console)
    return Run(run.path)


@edged
class SweepResult(Shown):
    """The runs of a sweep after it has come to its end: points with mean and deviation over seeds."""

    def __init__(self, folder: Path, states: Sequence[State]) -> None:
        self.path, self.states = folder, list(states)

    @property
    def runs(self) -> list[Run]:
        """Its finished runs, point by point."""
        return [Run(self.path / state.member.id) for state in self.states if state.kind == "done"]

    def paint(self, console: Console) -> None:
        """Show a line for each point, and what failed."""
        print_sweep(self.states, console)


def sweep(
    target: Sweep | PathLike,
    axes: Mapping[str, Any] | None = None,
    data: PathLike = "",
    *,
    name: str = "",
    seeds: Sequence[int] = (1337,),
    runs: Folder = "runs",
    workers: Count | None = None,
    **settings: object,
) -> SweepResult:
    """Train every combination of the values of `axes` with every seed, each in a process of its own; done ones stay.

    `target` is a preset or recipe file, `axes` a mapping such as `{"model.width": [64, 96]}`, `name` that of the sweep;
    `settings` are for all runs, as in `train`. Or `target` is a whole `niblick.Sweep`, or a sweep file, and says all of
    that itself; `name` may name it. `workers` run at once (default: one for each GPU, or one a core). A failed run is
    shown and ends no other; calling again tries it again. Raises ConfigError before anything starts if values or data
    do not fit.
    """
    if isinstance(target, Sweep) or (axes is None and os.fspath(target).endswith(".py")):
        if axes is not None or os.fspath(data) or settings:
            raise ConfigError("a whole sweep says its axes, data and settings itself: leave them out beside it")
        whole = target if isinstance(target, Sweep) else load_sweep(Path(target))
        asked = replace(whole, name=name or whole.name)
    else:
        named = {"data__path": os.fspath(data)} if data else {}
        sets = assignments({**named, **settings})
        axis = [grid(axes)] if axes else []
        asked = Sweep(os.fspath(target), axis, name, sets, tuple(seeds))
    if not asked.name:
        raise ConfigError("the sweep has no name: give name=…, which becomes the folder of its runs")
    with RunConsole() as console:
        states = run_sweep(asked, Path(runs), LocalPool(asked.cpus, workers), retry=True, say=console.say)
    return SweepResult(SweepFolder(asked, Path(runs)).path, states)
