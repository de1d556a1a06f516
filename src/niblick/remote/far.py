"""The far side of a remote run: `python -m niblick.remote.far start|status|ask|files FOLDER` there, through ssh.

The folder of a run holds all of it but data and environment:

  job.json      what to do                   far.json     how it goes, written by the watcher alone
  source/       niblick as shipped           output.log   what the run prints
  runs/<id>/    the run directory            files.json   bytes and SHA-256 of every file of it, once it has ended
  data/ …       links to what it reads       lock         held by the watcher as long as it lives
  contact       its time is when home last asked
  ask-stop, ask-finish                       wishes of home

The watcher belongs to no connection. It starts the run, ends it in time for the budget, and when home has been silent
for long after the end, it stops the machine, whose disk stays. Nothing heavy is imported: it answers in a moment.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NotRequired, TypedDict

from niblick.errors import DataError
from niblick.files import json_lines, parse_json, read_json

POLL = 0.5
PATIENCE = 60.0
"""Seconds that a new watcher has to write down that it started."""
RUNNING, DONE, STOPPED, FAILED = "running", "done", "stopped", "failed"
LAST_LINES = 12


class Data(TypedDict, total=False):
    """What a run reads: files by their SHA-256, or how to prepare them there."""

    files: dict[str, str]
    prepare: str
    tokenizer: str | None
    text_hashes: dict[str, str | None] | None


class Job(TypedDict):
    """job.json. What a launch asks for besides stands in it, too."""

    run: str
    config: dict[str, object]
    devices: int
    gpus: int
    reserve: float
    stop_machine: str
    stop_machine_after: float
    data: dict[str, Data]
    """By the places where the config has it."""
    source_sha256: str
    needs_bytes: int
    stop_after_seconds: NotRequired[float | None]


class Far(TypedDict, total=False):
    """far.json: how a run goes, by its watcher."""

    phase: str
    started: float
    ended: float
    code: int
    reason: str
    lines: list[str]


class Status(Far, total=False):
    """The answer to home: that, and what can be seen now."""

    exists: bool
    begun: bool
    alive: bool
    now: float
    free_bytes: int
    checkpoints: list[str]
    gpu_busy: list[int]


class Listed(TypedDict):
    """A file of a run that has ended."""

    bytes: int
    sha256: str


def start(folder: Path) -> Status:
    """Start the watcher unless it is there already: asking twice, after a lost connection, starts one."""
    before = _read(folder / "far.json").get("started")
    if not _alive(folder):
        with open(folder / "output.log", "ab") as output:
            watcher = subprocess.Popen(
                [sys.executable, "-m", "niblick.remote.far", "watch", str(folder)],
                start_new_session=True,  # no hangup, no Ctrl-C, no end of a connection reaches it
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + PATIENCE
        while _read(folder / "far.json").get("started") == before and time.monotonic() < deadline:
            if watcher.poll():
                break  # it says why in output.log
            time.sleep(0.05)
    return status(folder)


def status(folder: Path) -> Status:
    """How the run goes: phase, times, checkpoints, free disk, use of the GPUs. Notes that home has asked."""
    with contextlib.suppress(OSError):  # a full disk keeps nobody from asking
        (folder / "contact").touch()
    far: Far = _read(folder / "far.json")
    job = _read(folder / "job.json")
    alive = _alive(folder)
    if far.get("phase") == RUNNING and not alive:
        far["phase"] = FAILED
        far["lines"] = ["the machine was restarted, or its watcher killed, while the run went on"]
    run = folder / "runs" / job.get("run", "-")
    checkpoints = sorted(p.name for p in (run / "checkpoints").glob("*.safetensors"))
    return {
        **far,
        "exists": True,
        "begun": run.is_dir(),
        "alive": alive,
        "now": time.time(),
        "free_bytes": shutil.disk_usage(folder).free,
        "checkpoints": checkpoints,
        "gpu_busy": _gpu_busy(),
    }


def ask(folder: Path, wish: str) -> Status:
    """Ask the watcher to stop the run with a checkpoint, or to finish: export and score what there is."""
    (folder / f"ask-{wish}").touch()
    return status(folder)


def files(folder: Path) -> dict[str, Listed]:
    """Bytes and SHA-256 of every file of a run that has ended."""
    if not (folder / "files.json").is_file():
        if _alive(folder):
            raise SystemExit("the run has not ended yet")
        _list_files(folder)  # the watcher died before it could
    return read_json(folder / "files.json")


def watch(folder: Path) -> None:
    """Be the watcher: run, end in time, list the files, then wait for home or stop the machine."""
    lock = open(folder / "lock", "w")  # noqa: SIM115  (held until this process ends)
    if not _take(lock):
        return  # another one was quicker
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for left in ("files.json", "ask-stop", "ask-finish"):
        (folder / left).unlink(missing_ok=True)
    job: Job = _read(folder / "job.json")
    far: Far = {"phase": RUNNING, "started": time.time()}
    _write(folder / "far.json", far)
    try:
        code, why = _run(folder, job)
        run = folder / "runs" / job["run"]
        if code == 0 and why:
            _mark(run, why)
        far["phase"] = DONE if code == 0 else STOPPED if why or code in (130, 143) else FAILED
        far["code"], far["reason"] = code, why
        far["lines"] = _last_lines(folder / "output.log") if code else []
        _list_files(folder)
    except Exception as error:  # whatever it is, home must hear of it
        far["phase"], far["lines"] = FAILED, [f"the watcher failed: {error}"]
    far["ended"] = time.time()
    _write(folder / "far.json", far)
    if job.get("stop_machine"):
        _stop_machine(folder, job)


def _take(lock: IO[str]) -> bool:
    """Take the lock; who only looks whether it is held, holds it for a moment."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.1)
    return False


def _run(folder: Path, job: Job) -> tuple[int, str]:
    """Run the worker to its end. Returns its exit code, and why it was ended early, if it was."""
    limit = job.get("stop_after_seconds")
    deadline = time.monotonic() + limit if limit is not None else None
    run = folder / "runs" / job["run"]
    process, why = _worker(folder, job), ""
    while process.poll() is None:
        time.sleep(POLL)
        if why or (run / "model.safetensors").is_file():
            continue  # asked already, or exporting: nothing is to be gained by stopping that
        if (folder / "ask-stop").exists():
            process.terminate()
            process.wait()
            return process.returncode, "home asked it to stop" if process.returncode else ""
        if (folder / "ask-finish").exists() or (deadline is not None and time.monotonic() > deadline):
            process.terminate()
            why = "home asked it to finish" if (folder / "ask-finish").exists() else "its budget was used up"
            process.wait()
            if not _finish_here(run):
                return process.returncode, f"{why} before there was a checkpoint"
            process = _worker(folder, job)
    return process.returncode, why


def _worker(folder: Path, job: Job) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "niblick", "remote", "work", str(folder)]
    command += ["--devices", str(job["devices"])] if job["devices"] > 1 else []
    if (folder / "runs" / job["run"] / "config.json").is_file():
        command.append("--resume")
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, cwd=folder)


def _finish_here(run: Path) -> bool:
    """Give the run no more time than it has had, so that going on with it means to export. False: no checkpoint."""
    stops = [seconds for event, seconds in _events(run) if event == "stop"]
    if not stops or not any((run / "checkpoints").glob("*.safetensors")):
        return False
    config = _read(run / "config.json")
    config["schedule"] |= {"max_seconds": max(stops[-1], 1e-3), "reserve_seconds": 0.0, "min_steps": 0}
    _write(run / "config.json", config)
    return True


def _mark(run: Path, why: str) -> None:
    """Note that a run did not get its full time, so that it is never ranked with runs that did."""
    result = _read(run / "result.json")
    facts = {"rule": "remote", "step": result.get("step"), "bpb": result.get("bpb"), "reason": why}
    _write(run / "stopped.json", facts)


def _events(run: Path) -> Iterator[tuple[str, float]]:
    """The kinds of events, and the train clock then."""
    with contextlib.suppress(OSError, ValueError):
        for line in json_lines(run / "events.jsonl"):
            event = parse_json(line, lenient=True)
            yield event["event"], event.get("train_seconds") or 0.0


def _list_files(folder: Path) -> None:
    run = folder / "runs" / _read(folder / "job.json")["run"]
    listed: dict[str, Listed] = {}
    for path in sorted(run.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.suffix not in (".tmp", ".lock"):
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            listed[path.relative_to(run).as_posix()] = {"bytes": path.stat().st_size, "sha256": digest}
    _write(folder / "files.json", listed)


def _stop_machine(folder: Path, job: Job) -> None:
    """When home has not asked for so long, stop the machine. The command is the user's; the disk stays."""
    quiet = time.time()
    while folder.is_dir():
        with contextlib.suppress(OSError):
            quiet = max(quiet, (folder / "contact").stat().st_mtime)
        if time.time() - quiet > job["stop_machine_after"]:
            subprocess.run(job["stop_machine"], shell=True, cwd=folder, stdin=subprocess.DEVNULL, check=False)
            return
        time.sleep(POLL)


def _alive(folder: Path) -> bool:
    """Whether a watcher holds the lock. Nothing but a living process can."""
    try:
        with open(folder / "lock", "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _gpu_busy() -> list[int]:
    """Percent that each GPU is busy; empty without nvidia-smi."""
    if not shutil.which("nvidia-smi"):
        return []
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split() if word.isdigit()]


def _last_lines(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-LAST_LINES:]


def _read(path: Path) -> Any:
    """A JSON object; empty if there is none, or it cannot be read."""
    try:
        return read_json(path)
    except DataError:
        return {}


def _write(path: Path, data: Mapping[str, object]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def main(arguments: list[str]) -> None:
    """Do one thing and print one JSON object."""
    verb, folder = arguments[0], Path(arguments[1])
    if verb == "watch":
        watch(folder)
        return
    if verb == "files":
        print(json.dumps(files(folder)))
        return
    answers = {"start": start, "status": status}
    print(json.dumps(ask(folder, arguments[2]) if verb == "ask" else answers[verb](folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
