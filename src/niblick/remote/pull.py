"""Bringing a run home: a little while it runs, all of it when it has ended; nothing is believed without digests."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from niblick.data.shards import file_hash
from niblick.files import parse_json
from niblick.remote import records as at
from niblick.remote.address import Incomplete, RemoteError, Unreachable
from niblick.remote.far import Status
from niblick.remote.records import Machine, Records, RemoteRun
from niblick.run.directory import Run, read_json, write_bytes, write_json

Say = Callable[[str], None]

LIVE = ("config.json", "env.json", "source.tar.zst", "recipe.py", "events.jsonl", "train.log", "result.json")
"""What comes home while the run goes on, beside the newest checkpoint."""
EVERY = 15.0
"""Seconds between pulls in the background; after a lost connection twice as many each time, up to SLOWEST."""
SLOWEST = 300.0
STATUS_SECONDS = 120.0
PATIENCE = 300.0
"""Seconds that a run has for its checkpoint, or for its export, when it is stopped."""


def far(machine: Machine, run: RemoteRun, verb: str, *arguments: str) -> Status:
    """Ask the far side (see `niblick.remote.far`). {"exists": False} if the folder of the run is not there.

    Raises Unreachable or RemoteError.
    """
    return _answer(machine, run, verb, *arguments)


def _answer(machine: Machine, run: RemoteRun, verb: str, *arguments: str) -> Any:
    folder = shlex.quote(run.folder)
    words = shlex.join([run.python, "-m", "niblick.remote.far", verb, run.folder, *arguments])
    missing = f"test -d {folder}/source || {{ echo '{{\"exists\": false}}'; exit 0; }}"
    said = machine.address.run(f"{missing}; cd {folder} && PYTHONPATH={folder}/source {words}", seconds=STATUS_SECONDS)
    try:
        return parse_json(said.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise RemoteError(f"{machine.address} answered {said[:80]!r} instead of JSON: is {run.python} right?") from None


def pull(records: Records, run_id: str) -> RemoteRun:
    """Bring home what there is, and note how far that is. Goes on where the last pull stopped.

    A run that has ended is `done`, `stopped` or `failed` only when every file is here with the digest it has there;
    until then it is `incomplete`, and `missing` names the files. Raises Unreachable if the machine does not answer.
    """
    with records.locked(run_id) as lock:
        run = records.run(run_id)
        if run.state == at.ABANDONED or (run.home and not lost_at_home(records, run)):
            return run
        machine = records.machine(run.machine)
        status = far(machine, run, "status")
        if not status["exists"]:
            gone = (f"{run.folder} is not there any more on {machine.address}: nothing more can come home",)
            return records.save(replace(run, state=at.INCOMPLETE, missing=_all_missing(records, run), lines=gone))
        if "phase" not in status:
            raise RemoteError(
                f"{run_id} was sent to {machine.address} but never started: give it up with `niblick remote down "
                f"{machine.name} --abandon {run_id}` and launch it anew"
            )
        keep = _Transfer(records, run, machine, lock)
        if run.home:
            keep.again(lost_at_home(records, run))
            lost = tuple(lost_at_home(records, run))
            return records.save(replace(run, state=at.INCOMPLETE if lost else run.state, missing=lost))
        if status["phase"] == at.RUNNING:
            if status["begun"]:
                keep.live(status["checkpoints"])
            return records.save(replace(run, state=at.RUNNING, pulled=time.time(), lines=()))
        missing = keep.everything()
        offset = status["now"] - time.time()
        ended = status.get("ended", status["now"]) - offset
        state = at.INCOMPLETE if missing else status["phase"]
        lines = tuple(status.get("lines") or ())
        if missing:
            lines = (f"{len(missing)} files came home damaged or not at all: pull again", *lines)
        run = replace(run, state=state, ended=ended, pulled=time.time(), missing=tuple(missing), lines=lines)
        return records.save(run)


def missing_at_home(records: Records, run: RemoteRun) -> list[str]:
    """Files that are not here as the far side had them when the run ended."""
    path = records.beside(run.run) / "files.json"
    if not path.is_file():
        return ["(the list of its files)"]
    folder = records.runs / run.run
    listed = read_json(path)
    wrong = [name for name, facts in listed.items() if _digest(folder / name) != facts["sha256"]]
    own = Run(folder)
    return wrong + [name for name in own.changed() if name not in wrong]


def lost_at_home(records: Records, run: RemoteRun) -> list[str]:
    """Files of a run that was whole here which are gone since, or were changed after they were finished.

    Scores and the like may have grown here, and are not what this is about.
    """
    folder = records.runs / run.run
    listed = read_json(records.beside(run.run) / "files.json")
    gone = [name for name in listed if not (folder / name).is_file()]
    return gone + [name for name in Run(folder).changed() if name not in gone]


def _all_missing(records: Records, run: RemoteRun) -> tuple[str, ...]:
    return tuple(missing_at_home(records, run))


def _digest(path: Path) -> str:
    return file_hash(path) if path.is_file() else ""


PARTS = ".rsync-partial"
"""What rsync has not finished lies in folders of this name, beside where it goes; an absolute one fails when it is
gone on with, by some versions of rsync."""


class _Transfer:
    """Copies of one run. What rsync has not finished lies apart, under another name."""

    def __init__(self, records: Records, run: RemoteRun, machine: Machine, lock: int) -> None:
        self.records, self.run, self.machine, self.lock = records, run, machine, lock
        self.home = records.runs / run.run
        self.source = f"{run.folder}/runs/{run.run}"
        beside = records.beside(run.run).resolve()
        temporary = beside / "temporary"
        shutil.rmtree(temporary, ignore_errors=True)  # of an rsync that was killed
        temporary.mkdir()
        self.options = [f"--temp-dir={temporary}", f"--partial-dir={PARTS}", "--exclude=*.tmp", "--exclude=*.lock"]

    def live(self, checkpoints: list[str]) -> None:
        """Config, events, log and the newest checkpoint; those before it are then dropped here as they are there."""
        newest = [_safe(name) for name in checkpoints[-1:]]
        wanted = [*LIVE, "checkpoints/", *(f"checkpoints/{name}" for name in newest)]
        self._fetch([*(f"--include=/{name}" for name in wanted), "--exclude=*"])
        self._drop_checkpoints(newest)

    def everything(self) -> list[str]:
        """Bring all files of a run that has ended. Returns those that differ from the far side after two tries."""
        listed = _answer(self.machine, self.run, "files")
        self._check(listed)
        write_json(self.records.beside(self.run.run) / "files.json", listed)
        self._fetch([])
        if wrong := missing_at_home(self.records, self.run):
            for name in wrong:  # rsync would take a damaged file of the same size and time for the right one
                (self.home / name).unlink(missing_ok=True)
            self._drop_parts()
            self._fetch(["--checksum"])
            wrong = missing_at_home(self.records, self.run)
        if not wrong:
            self._drop_checkpoints([PurePosixPath(n).name for n in listed if n.startswith("checkpoints/")])
            self._drop_parts()
        log = self.machine.address.run(f"tail -c 1000000 -- {shlex.quote(self.run.folder + '/output.log')}")
        write_bytes(self.records.beside(self.run.run) / "output.log", log.encode())
        return wrong

    def _check(self, listed: Mapping[str, object]) -> None:
        """Raise RemoteError for a list of files that is none, or that there is no room for here."""
        total = 0
        for name, facts in listed.items():
            _safe(name)
            size, digest = (facts.get("bytes"), facts.get("sha256")) if isinstance(facts, dict) else (None, None)
            if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
                raise RemoteError(f"{self.machine.address} lists {name[:200]!r} without a digest: nothing was fetched")
            if type(size) is not int or size < 0:
                raise RemoteError(f"{self.machine.address} lists {name[:200]!r} without a size: nothing was fetched")
            total += size
        here = sum(path.stat().st_size for path in self.home.rglob("*") if path.is_file())
        if (free := shutil.disk_usage(self.home.parent).free) + here < total:
            raise RemoteError(f"{self.run.run} takes {total:,} bytes, and {free:,} are free here: make room")

    def again(self, names: list[str]) -> None:
        """These files once more; whatever else is here stays as it is."""
        for name in names:
            (self.home / name).unlink(missing_ok=True)
        self._fetch(["--ignore-existing"])

    def _fetch(self, options: list[str]) -> None:
        options = [*self.options, *options]
        try:
            self.machine.address.fetch(self.source, self.home, options, holding=self.lock)
        except Incomplete:  # what came of a file may be what keeps the rest from coming
            self._drop_parts()
            self.machine.address.fetch(self.source, self.home, options, holding=self.lock)

    def _drop_parts(self) -> None:
        for parts in [*self.home.rglob(PARTS)]:
            shutil.rmtree(parts, ignore_errors=True)

    def _drop_checkpoints(self, kept: list[str]) -> None:
        for path in (self.home / "checkpoints").glob("*.safetensors") if kept else ():
            if path.name not in kept:
                path.unlink()


def _safe(name: str) -> str:
    """Return a relative name. Raises RemoteError for one that leads out of the folder: machines may be bad."""
    path = PurePosixPath(name)
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in name
        or name != path.as_posix()
        or any(c in name for c in "*?[")
    ):
        raise RemoteError(f"the far side names a file {name!r}, which is none of a run: nothing was fetched")
    return name


def follow(records: Records, run_id: str, say: Say, every: float = EVERY) -> RemoteRun:
    """Pull again and again until the run has ended and is here. A machine that is silent is asked ever more rarely.

    Raises RemoteError if a file stays damaged or missing after several pulls.
    """
    wait, wrong = every, 0
    while True:
        try:
            run = pull(records, run_id)
        except Unreachable as error:
            say(f"{error} (next try in {wait:.0f} s)")
            records.save(replace(records.run(run_id), lines=(str(error),)))
            time.sleep(wait)
            wait = min(2 * wait, SLOWEST)
            continue
        if run.state in at.ENDED:
            return run
        if run.state == at.INCOMPLETE:
            wrong += 1
            if wrong == 3:
                raise RemoteError(f"{run_id} is not whole at home: {_names(run.missing)}; the machine must be kept")
        wait = every
        time.sleep(wait)


def _names(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") + " missing"


def not_home(run: RemoteRun) -> str:
    """What keeps a run from being deleted on its machine, in words; empty if nothing does."""
    if run.home or run.state == at.ABANDONED:
        return ""
    if run.state == at.INCOMPLETE:
        return f"{run.run} is not whole at home ({_names(run.missing)})"
    return f"{run.run} is {run.state} there, and its result is not here"


def follow_in_background(records: Records, run_id: str, every: float = EVERY) -> int:
    """Start a process that follows the run and outlives this one. Returns its id."""
    log = records.beside(run_id) / "pull.log"
    command = [sys.executable, "-m", "niblick", "remote", "pull", run_id, "--follow"]
    command += ["--every", str(every), "--runs", str(records.runs.resolve())]
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    return process.pid
