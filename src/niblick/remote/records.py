"""What home knows of machines and remote runs: plain files, never a secret.

runs/<run id>/remote.json           where a run is, since when, at what price, and whether all of it is here
runs/.remote/machines/<name>.json   a machine
runs/.remote/<run id>/              job.json as sent, files.json (what must come home), output.log, pull.log
"""

from __future__ import annotations

import contextlib
import fcntl
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from typing_extensions import TypedDict

from niblick.errors import ConfigError, nearest
from niblick.facts.reading import typed
from niblick.files import read_json, write_json
from niblick.remote.address import Address

LAUNCHING, RUNNING, DONE, STOPPED, FAILED = "launching", "running", "done", "stopped", "failed"
ABANDONED, INCOMPLETE = "abandoned", "incomplete"
ENDED = (DONE, STOPPED, FAILED, ABANDONED)
"""States of a run of which nothing more is to come."""
UP, HALTED, DOWN = "up", "stopped", "down"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(name: str, what: str) -> str:
    """Return the name. Raises ConfigError if it could be no folder, here or there."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a {what}: letters, digits, dots, dashes; a letter or digit first")
    return name


@dataclass(frozen=True)
class Machine:
    """A machine that runs are sent to."""

    name: str
    backend: str
    """ssh, or sky."""
    address: Address
    directory: str = "niblick-remote"
    """Folder there; from the home folder if it is relative."""
    python: str = ""
    """An interpreter there with all packages; empty: an environment is made."""
    price_per_hour: float = 0.0
    since: float = 0.0
    """Unix time since which it costs money."""
    state: str = UP
    shape: str = ""
    """Of a rented machine: `1x`, `h100x8`."""
    cloud: str = ""
    """Where to rent it: runpod, aws/us-east-1 …; empty: wherever it is cheapest."""
    ended: float | None = None
    """Unix time at which it was stopped or given back."""


class Ready(TypedDict, total=False):
    """What a machine says of itself before the start."""

    python: str
    torch: str
    gpus: list[str]
    free_bytes: int
    now: float


@dataclass(frozen=True)
class RemoteRun:
    """What remote.json holds."""

    run: str
    machine: str
    state: str
    folder: str
    """Absolute path of the run's folder there (see `far`)."""
    python: str
    launched: float
    price_per_hour: float = 0.0
    budget: float | None = None
    """Dollars; None: no limit."""
    ended: float | None = None
    pulled: float | None = None
    """Unix time of the last pull that went through."""
    missing: tuple[str, ...] = ()
    """Files that are not at home as they are there, once the run has ended."""
    lines: tuple[str, ...] = ()
    """Why it ended as it did, or what keeps it from coming home."""
    ready: Ready = field(default_factory=Ready)
    """What the machine said of itself before the start: packages, GPUs, disk, clock."""

    @property
    def home(self) -> bool:
        """Whether all that it gave is here, compared digest by digest; only then may it be deleted there."""
        return self.state in (DONE, STOPPED, FAILED)


class Records:
    """The records below a folder of runs."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.folder = runs / ".remote"

    def machines(self) -> list[Machine]:
        """All machines that were ever used, by name."""
        files = sorted((self.folder / "machines").glob("*.json"))
        return [_machine(read_json(path)) for path in files]

    def machine(self, name: str) -> Machine:
        """Return a machine. Raises ConfigError if there is none of that name."""
        known = {machine.name: machine for machine in self.machines()}
        if name not in known:
            hint = nearest(name, known) or ": `niblick remote ls` lists them"
            raise ConfigError(f"there is no machine {name!r}{hint if known else ': `niblick remote up` names one'}")
        return known[name]

    def save_machine(self, machine: Machine) -> Machine:
        """Write a machine down."""
        path = self.folder / "machines" / f"{check_name(machine.name, 'machine')}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(machine))
        return machine

    def all(self) -> list[RemoteRun]:
        """All remote runs, newest first."""
        found = [_run(read_json(path)) for path in self.runs.glob("*/remote.json")]
        return sorted(found, key=lambda run: -run.launched)

    def run(self, name: str) -> RemoteRun:
        """Return a remote run by id, or `latest`. Raises ConfigError if there is none."""
        runs = {run.run: run for run in self.all()}
        name = next(iter(runs), name) if name == "latest" else Path(name).name
        if name not in runs:
            local = (self.runs / name / "config.json").is_file()
            why = " (it ran here)" if local else nearest(name, runs) if runs else ": `niblick remote launch` starts one"
            raise ConfigError(f"there is no remote run {name!r} in {self.runs}{why}")
        return runs[name]

    def save(self, run: RemoteRun) -> RemoteRun:
        """Write a run's remote.json."""
        write_json(self.runs / run.run / "remote.json", asdict(run))
        return run

    def beside(self, run: str) -> Path:
        """Folder for what home keeps of a remote run that is no part of the run."""
        path = self.folder / run
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def locked(self, run: str) -> Iterator[int]:
        """One pull of a run at a time; waits for another. Yields the descriptor that holds the lock."""
        with open(self.beside(run) / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock.fileno()


def _machine(data: object) -> Machine:
    return typed(Machine, data, "the record of a machine")


def _run(data: object) -> RemoteRun:
    return typed(RemoteRun, data, "the record of a remote run")
