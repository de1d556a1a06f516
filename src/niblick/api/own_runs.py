"""Runs and artifacts as objects: their score, their curve, their models; and finding them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from niblick.api.shown import Columns
from niblick.api.wording import edged
from niblick.arguments import Folder, PathLike
from niblick.config.run_config import RunConfig, to_dict
from niblick.drawing import page
from niblick.errors import ArtifactError, ConfigError
from niblick.facts.result import Result
from niblick.facts.scores import ScoreRecord
from niblick.ledger.ledger import Ledger
from niblick.ledger.rows import Row, read_run
from niblick.ledger.trash import remove_named
from niblick.recipes.presets import PRESETS
from niblick.recipes.targets import assignments, resolve
from niblick.reports.histories import read_history
from niblick.run import directory

if TYPE_CHECKING:
    import pandas

    from niblick.run.generate import Loaded


@edged
class Artifact:
    """One artifact of a run: a file that holds the packed weights. Every function that takes an artifact takes it."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """What it is called in its run, as `int6+range`."""
        return self.path.parent.name

    @property
    def bytes(self) -> int:
        """Size of the file. Raises ArtifactError if it is not there."""
        return self._there().stat().st_size

    @property
    def record(self) -> ScoreRecord:
        """Its first score, with all that made it. Raises ConfigError if it was never scored."""
        from niblick.compare.groups import read_records

        records = read_records(self._there().parent / "scores.jsonl")
        if not records:
            raise ConfigError(f"{self.path} was never scored: `niblick eval {self.path}` does that")
        return records[0]

    @property
    def score(self) -> float:
        """Bits per byte on the validation split. Raises ConfigError if it was never scored."""
        return self.record.bpb

    def load(self) -> Loaded:
        """Return its model, as `niblick.load`."""
        from niblick.run.generate import load

        return load(self._there())

    def _there(self) -> Path:
        if not self.path.is_file():
            raise ArtifactError(f"there is no artifact {self.path}: run.artifacts lists those of a run")
        return self.path

    def __repr__(self) -> str:
        return f"<Artifact {self.path}: {f'{self.bytes:,} bytes' if self.path.is_file() else 'not there'}>"


@edged
class Run:
    """One run directory. Every function that takes a run takes it; nothing of it is kept in memory."""

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def id(self) -> str:
        """Its name: `<preset>-<n>`, or `<sweep>/<point>-s<seed>`."""
        return directory.Run(self.path).id

    def _there(self) -> directory.Run:
        """The run directory. Raises ConfigError if there is none."""
        if not (self.path / "config.json").is_file():
            named = self.path.name or "latest"
            raise ConfigError(f"there is no run in {self.path}: nb.open_run({named!r}) looks one up by its name")
        return directory.Run(self.path)

    @property
    def row(self) -> Row:
        """The summary facts of it, as `niblick runs --json` prints them."""
        return read_run(str(self.path), self.path.name)[0]

    @property
    def status(self) -> str:
        """`done`, `running`, `stopped`, `failed`, `unfinished`, `imported` or `broken`."""
        return self.row.status

    @property
    def config(self) -> RunConfig:
        """The config it ran with, everything resolved. Raises ConfigError if there is no such run."""
        return self._there().config()

    @property
    def result(self) -> Result:
        """The official score with all that made it: text, scorer, machine, bytes, clocks, legality.

        Raises ConfigError for a run that has none: it is still running, or ended before.
        """
        found = self._there().result()
        if found is None:
            raise ConfigError(self._no_score())
        return found

    @property
    def score(self) -> float:
        """Bits per byte of the validation split, from the artifact. Raises ConfigError as `result`."""
        return self.result.bpb

    def _no_score(self) -> str:
        row = self.row
        why = f" ({row.message})" if row.message else ""
        if row.status == "running":
            return f"{self.path} has no score yet, it is running{why}: wait for its end"
        if row.status == "imported":
            return f"{self.path} is imported and has no score yet: `niblick eval {self.path}` makes one"
        if row.status == "broken":
            return f"{self.path} has no score, it is broken{why}: `niblick rm {self.path.name}` moves it away"
        return f"{self.path} has no score, it is {row.status}{why}: `niblick train --resume {self.path}` goes on"

    @property
    def curve(self) -> Columns:
        """How training went, as columns: a row for each logged step and each validation, about 1,000 at most.

        `step`; `seconds` of training; `bytes` of training text seen; `bpb`, the training loss in bits per byte, not
        smoothed; `validation_bpb` of the float weights; `lr_scale`, the learning rate as a share of its highest;
        `bytes_per_second`; `grad_norm`. None where nothing was told.
        """
        told = read_history(self._there().path)
        rows: dict[int, dict[str, float | None]] = {}
        names = ("seconds", "bytes", "bpb", "lr_scale", "bytes_per_second", "grad_norm")
        for i, step in enumerate(told.step):
            rows[step] = {name: getattr(told, name)[i] for name in names}
        for check in told.validations:
            row = rows.setdefault(check.step, {"seconds": check.seconds, "bytes": check.bytes})
            row["validation_bpb"] = check.bpb
        steps = sorted(rows)
        columns = Columns(step=list(steps))
        for name in ("seconds", "bytes", "bpb", "validation_bpb", *names[3:]):
            columns[name] = [rows[step].get(name) for step in steps]
        return columns

    @property
    def frame(self) -> pandas.DataFrame:
        """`curve` as a pandas table. Raises ConfigError where pandas is not installed."""
        try:
            import pandas
        except ImportError:
            raise ConfigError("run.frame needs pandas: pip install pandas, or take run.curve") from None
        return pandas.DataFrame(self.curve)

    @property
    def artifacts(self) -> list[Artifact]:
        """All artifacts that were made of its weights, the official one first."""
        run = self._there()
        official = found.artifact if (found := run.result()) else ""
        names = sorted(run.artifact_names(), key=lambda name: name != official)
        return [Artifact(run.artifact(name)) for name in names]

    def load(self) -> Loaded:
        """Return the model of its official artifact, as `niblick.load`."""
        from niblick.run.generate import load

        return load(self._there().path)

    def __repr__(self) -> str:
        if not self.path.is_dir():
            return f"<Run {self.path}: not there>"
        row = self.row
        score = f", {row.score.bpb:.4f} BPB" if row.score else f", {row.message}" if row.message else ""
        return f"<Run {self.path}: {row.status}{score}>"

    def _repr_html_(self) -> str:
        row = self.row
        facts = {"run": str(self.path), "status": row.status + (f": {row.message}" if row.message else "")}
        if found := directory.Run(self.path).result():
            facts["score"] = f"{found.bpb:.4f} bits per byte of {found.bytes:,} bytes held out"
            facts["artifact"] = f"{found.artifact}, {found.artifact_bytes:,} bytes"
        if row.step is not None:
            facts["step"] = f"{row.step:,}" + (f" of {row.steps:,}" if row.steps else "")
        lines = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
        return f"<table>{lines}</table>{self._picture()}"

    def _picture(self) -> str:
        from niblick.drawing.figures import training_curve

        told = read_history(self.path)
        points = [(s, b) for s, b in zip(told.seconds, told.bpb, strict=True) if s is not None and b is not None]
        if len(points) < 2:
            return ""
        return page.svg(training_curve(points, told.final), "bits per byte over seconds of training")


def open_run(target: PathLike = "latest", *, runs: Folder = "runs") -> Run:
    """Return a run by path, by id below the folder `runs`, or `latest`, the newest one that has something to show.

    Raises ConfigError if there is none of this name, with the nearest ones.
    """
    return Run(directory.open_run(os.fspath(target), Path(runs)).path)


def runs(folder: Folder = "runs") -> list[Run]:
    """Return all runs below a folder, newest first, those of sweeps too. Raises ConfigError if there is no folder."""
    rows = Ledger(Path(folder)).rows()
    return [Run(row.path) for row in sorted(rows, key=lambda row: row.started, reverse=True)]


def remove(*targets: PathLike, runs: Folder = "runs") -> list[Path]:
    """Move runs out of the way, to `.trash` in the folder of runs, and return where they are; nothing is deleted.

    Raises ConfigError for a name that is not there, and for a run that is being written.
    """
    return list(remove_named([os.fspath(target) for target in targets], Path(runs)).values())


def presets() -> dict[str, str]:
    """Return the presets by name, each with a sentence on it: names that `train` and `show` take."""
    return {name: (recipe.__doc__ or "").strip().splitlines()[0] for name, recipe in PRESETS.items()}


def show(target: PathLike, *, overrides: Mapping[str, object] | None = None, **settings: object) -> dict[str, object]:
    """Return the config of a preset or recipe file, nested: the keys that `train` overrides.

    `overrides` and further arguments are those of `train`. Raises ConfigError for an unknown preset, key or value.
    """
    config, _ = resolve(os.fspath(target), assignments({**(overrides or {}), **settings}))
    return to_dict(config)
