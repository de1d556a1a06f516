"""A run directory is the database: config, source, machine, events, log, checkpoints, weights, artifacts, result.

runs/<preset>-<n>/ by hand, runs/<sweep>/<name>-s<seed>/ in sweeps
  config.json            the resolved config          events.jsonl      one JSON object a line
  source.tar.zst         the code as it ran           train.log         the same, as the challenge writes it
  recipe.py              a user's recipe, if any      checkpoints/      resumable, written atomically
  env.json               machine and packages         model.safetensors the final weights
  artifacts/<name>/      artifact.nib, scores.jsonl,  result.json       written last
                         documents-<n>.npy            member.json       of which sweep, if of one
                                                      stopped.json      why a sweep stopped it early
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import json
import os
import platform
import re
import reprlib
import shlex
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import zstandard

import niblick
from niblick.challenge import rules
from niblick.config.run_config import RunConfig, run_config, to_dict
from niblick.data.shards import file_hash
from niblick.errors import ConfigError, StorageError, nearest
from niblick.facts.event_lines import read_events, written
from niblick.facts.events import Event
from niblick.facts.reading import SCHEMA, plain
from niblick.facts.result import ImportResult, Result, read_finished
from niblick.facts.scores import Machine
from niblick.facts.usable import newest
from niblick.files import append_line, copy_recipe, imported_beside, locked, read_json, write_bytes, write_json
from niblick.recipes.trust import trust

__all__ = [
    "Run",
    "append_line",
    "create_run",
    "environment",
    "is_run",
    "machine",
    "open_run",
    "read_json",
    "run_folders",
    "source_snapshot",
    "write_bytes",
    "write_json",
]

MEMBER, STOPPED = "member.json", "stopped.json"
"""What a sweep writes into its runs: whose they are, and why one was stopped early (it is then never ranked)."""

PACKAGES = ("torch", "numpy", "safetensors", "sentencepiece", "zstandard", "brotli", "constriction")


@dataclass(frozen=True)
class Run:
    """One run directory."""

    path: Path

    @property
    def name(self) -> str:
        """The run id."""
        return self.path.name

    @property
    def id(self) -> str:
        """What it is called below the folder of runs: `<preset>-<n>`, or `<sweep>/<name>-s<seed>`."""
        return f"{self.path.parent.name}/{self.name}" if (self.path / MEMBER).is_file() else self.name

    @property
    def weights(self) -> Path:
        """The final weights."""
        return self.path / "model.safetensors"

    @property
    def checkpoints(self) -> Path:
        """Folder of resumable checkpoints."""
        return self.path / "checkpoints"

    @property
    def recipe(self) -> Path:
        """Copy of the user's recipe file; there only if the run came from one."""
        return self.path / "recipe.py"

    def config(self) -> RunConfig:
        """Return the resolved config. Raises ConfigError if it cannot be read."""
        return run_config(read_json(self.path / "config.json"))

    def settings(self) -> rules.Config:
        """What config.json says, as it stands: nothing of the run's own code is needed to read it."""
        found = read_json(self.path / "config.json")
        if not isinstance(found, dict):
            raise ConfigError(f"{self.path}/config.json holds no settings: the run is damaged")
        return found

    def artifact(self, name: str) -> Path:
        """Path of the artifact called `name`."""
        return self.path / "artifacts" / name / "artifact.nib"

    def artifact_names(self) -> list[str]:
        """Names of the artifacts that are there."""
        return sorted(p.parent.name for p in self.path.glob("artifacts/*/artifact.nib"))

    def finished(self) -> Result | ImportResult | None:
        """What result.json says, or None while the run is not finished."""
        return read_finished(self.path / "result.json")

    def result(self) -> Result | None:
        """The result of a run that was scored, or None while it has none: an import has none at first."""
        found = self.finished()
        return found if isinstance(found, Result) else None

    def changed(self) -> list[str]:
        """Files that are not what result.json says they were when the run finished: changed by hand, or missing."""
        found = self.finished()
        recorded = found.files if found else {}
        paths = {self.path / name: digest for name, digest in recorded.items()}
        wrong = [p for p, digest in paths.items() if not p.is_file() or file_hash(p) != digest]
        return [p.relative_to(self.path).as_posix() for p in wrong]

    def writing(self) -> contextlib.AbstractContextManager[None]:
        """Be the only process that trains this run. Raises ConfigError, and says who does, if another one does."""
        return locked(self.path / "writer.lock", str(self.path))

    def log(self, event: Event) -> None:
        """Append an event to events.jsonl, with the time in seconds since 1970, and its rendering to train.log."""
        path = self.path / "events.jsonl"
        begun = path.is_file() and path.stat().st_size > 0
        version = {} if begun else {"schema": SCHEMA}  # on the first line
        append_line(path, json.dumps(version | written(replace(event, time=round(time.time(), 3)))))
        for line in rules.log_lines(event):
            append_line(self.path / "train.log", line)

    def rewind(self, count: int) -> None:
        """Forget all but the first `count` events, in the log as well: what was lost with a kill is told anew."""
        kept = list(self.events())[:count]
        write_bytes(self.path / "events.jsonl", "".join(json.dumps(written(event)) + "\n" for event in kept).encode())
        lines = [line for event in kept for line in rules.log_lines(event)]
        write_bytes(self.path / "train.log", "".join(line + "\n" for line in lines).encode())

    def events(self) -> Iterator[Event]:
        """Read the events; a last line that is not whole is left out."""
        return read_events(self.path / "events.jsonl")


def create_run(
    folder: Path,
    config: RunConfig,
    recipe: Path | None = None,
    *,
    name: str = "",
    member: Mapping[str, object] | None = None,
) -> Run:
    """Make the next run directory of this preset, or the one called `name`, with config, machine and source in it.

    `member` says which run of a sweep it is. What a kill left of the directory `name` is used; raises ConfigError if
    there is a run in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name if name else _next(folder, config.preset)
    if name:
        path.mkdir(exist_ok=True)
        expect_free(folder, name)
    try:
        write_json(path / "env.json", environment())
        if member is not None:
            write_json(path / MEMBER, member)
        if recipe:
            copy_recipe(recipe, path)
            with contextlib.suppress(OSError):  # of the list: it lies elsewhere, and this process knows
                trust(recipe)
        write_bytes(path / "source.tar.zst", source_snapshot(recipe))
        write_json(path / "config.json", to_dict(config))  # last: a folder without it is no run
    except OSError as error:
        raise StorageError(f"{path} cannot be written ({error.strerror}): make room, or give another --runs") from error
    return Run(path)


def check_name(name: str, what: str) -> None:
    """Raise ConfigError unless a run or an artifact may be called so; `what` is which, in words."""
    if not re.fullmatch(r"[\w.+=-]{1,100}", name) or name.startswith(".") or name == "latest":
        raise ConfigError(
            f"{reprlib.repr(name)} is no name of {what}: give letters, digits and any of . + = - _, at most 100"
        )


def expect_free(folder: Path, name: str) -> None:
    """Raise ConfigError if there is a run of this name."""
    path = folder / name
    if (path / "config.json").is_file():
        finished = (path / "result.json").is_file()
        see = f"`niblick show {path}` shows it" if finished else f"go on with it by `niblick train --resume {path}`"
        where = "" if folder == Path("runs") else f" --runs {shlex.quote(str(folder))}"
        raise ConfigError(
            f"{path} is a run already: {see}, move it away by `niblick rm {name}{where}`, or give this one another name"
        )


def _next(folder: Path, preset: str) -> Path:
    number = 1
    while True:
        path = folder / f"{preset}-{number}"
        try:
            path.mkdir()
            return path
        except FileExistsError:
            number += 1


def run_folders(folder: Path) -> list[Path]:
    """All run directories below a folder of runs: those made by hand, and those of its sweeps."""
    found = (*folder.glob("*/config.json"), *folder.glob("*/*/config.json"))
    return [path.parent for path in found if not path.relative_to(folder).parts[0].startswith(".")]


def is_run(name: str, folder: Path) -> bool:
    """Whether `open_run` would find it."""
    try:
        open_run(name, folder)
    except ConfigError:
        return False
    return True


def open_run(name: str, folder: Path) -> Run:
    """Find a run by path, by id inside `folder` (`quickstart-1`, `sweep/name-s1`), or as `latest`, the newest usable.

    Raises ConfigError if there is none.
    """
    for path in (folder / name, Path(name)):
        if (path / "config.json").is_file():
            return Run(path)
    known = run_folders(folder)
    if name == "latest" and (usable := newest(known)):
        return Run(usable)
    names = sorted(p.relative_to(folder).as_posix() for p in known)
    near = nearest(name, names) or f" (there: {', '.join(names[:8])}, …)"
    raise ConfigError(f"there is no run {name!r} in {folder}" + (near if names else ": `niblick train` makes one"))


def machine() -> Machine:
    """Describe what the run ran on, as far as speed depends on it."""
    cuda = torch.cuda.is_available()
    return Machine(
        system=platform.system(),
        processor=_processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if cuda else None,
        gpus=torch.cuda.device_count() if cuda else 0,
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, object]:
    """Machine, Python and the packages that a result may depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "niblick": niblick.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": plain(machine()),
        "packages": versions,
        "cuda": torch.version.cuda,
    }


def source_snapshot(recipe: Path | None) -> bytes:
    """Return niblick's own sources, and the recipe, as a zstd-compressed tar; the same sources give the same bytes."""
    root = Path(niblick.__file__).parent
    files = {f"niblick/{p.relative_to(root).as_posix()}": p for p in sorted(root.rglob("*.py"))}
    if recipe:
        files |= {"recipe.py": recipe, **imported_beside(recipe)}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, path in files.items():
            data = path.read_bytes()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return zstandard.ZstdCompressor(level=10).compress(buffer.getvalue())
