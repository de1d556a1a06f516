"""The runs of a sweep on a Ray cluster (extra `niblick[ray]`): the same jobs, so the same run ids and results.

A node that sees the sweep's directory writes into it, as on a shared file system. On any other the run is made in a
folder of its own and brought back whole, checkpoints and all, when it ends, whatever its end. A job whose worker or
node dies is executed again elsewhere; one that ends by itself, however it does, is not. The nodes need niblick, and the
data under the path that the config names.

Ray starts its workers with nice +15, so that a run with a budget in seconds would do less on a busy machine than the
same run in the local pool. Here jobs are as nice as the process that started the sweep.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import socket
import subprocess
import tarfile
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from niblick.errors import ConfigError
from niblick.run.directory import write_bytes
from niblick.sweeps.executors import Ended, last_lines, niceness, start
from niblick.sweeps.job import Job

RETRIES = 5
"""Times that a job is executed again after its worker or node has died."""
ANSWER_SECONDS = 5.0
LAST = ("result.json", "stopped.json")
"""Files that say a run has ended: brought back after all others."""


class RayExecutor:
    """Jobs as Ray tasks. `bring_back` treats all nodes as if they did not see the sweep's directory."""

    def __init__(
        self, threads: int = 1, gpus: float | None = None, address: str = "", bring_back: bool = False
    ) -> None:
        """Connect to the cluster at `address`, or start one on this machine.

        Raises ConfigError if Ray is not installed, if nothing answers at the address, or if no node can ever run a job.
        """
        self._ray = _connect(address)
        found = self._ray.cluster_resources()
        gpus = gpus if gpus is not None else float(found.get("GPU", 0) > 0)
        for name, wanted in (("CPU", threads), ("GPU", gpus)):
            most = max((node["Resources"].get(name, 0) for node in self._ray.nodes() if node["Alive"]), default=0)
            if wanted > most:
                raise ConfigError(
                    f"a run wants {wanted:g} {name}s, and no node of the Ray cluster has more than {most:g}"
                )
        cpu_slots = int(found.get("CPU", 1) // threads)
        self.slots = max(1, min(cpu_slots, int(found["GPU"] // gpus)) if gpus else cpu_slots)
        self._bring_back = bring_back
        self._task = self._ray.remote(_execute).options(
            num_cpus=threads, num_gpus=gpus, max_retries=RETRIES, name="niblick"
        )
        self._running: dict[Any, Job] = {}

    def submit(self, job: Job) -> None:
        """Send a job to the cluster, with what there is of its run."""
        job.write()
        token = b"" if self._bring_back else (Path(job.folder) / "sweep.json").read_bytes()
        there = _packed(job.place) if job.place.is_dir() else b""
        self._running[self._task.remote(job, hashlib.sha256(token).hexdigest(), there, niceness())] = job

    def ended(self) -> list[Ended]:
        """Return the jobs that have ended since the last call; what they made is here then."""
        if not self._running:
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._collect(reference) for reference in done]

    def _collect(self, reference: Any) -> Ended:
        job = self._running.pop(reference)
        try:
            code, made, log, note = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            return Ended(job.run, 1, [f"Ray gave up: {type(error).__name__}", *said[-3:]])
        write_bytes(job.file.with_name(f"{job.run}.log"), log)
        if made:
            _unpack(made, job.place)
        return Ended(job.run, code, last_lines(job.file.with_name(f"{job.run}.log")), note)

    def stop(self) -> None:
        """Cancel all jobs. Runs in a shared directory keep their checkpoints; others are as they were last sent."""
        for reference in self._running:
            self._ray.cancel(reference)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=20)
        self._running.clear()

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()


def _connect(address: str) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anyone
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # more than the node's own; of a cluster that starts here
    try:
        import ray
    except ImportError as error:
        raise ConfigError("Ray is not installed: `pip install niblick[ray]`, or leave --executor ray away") from error
    if ray.is_initialized():
        return ray
    if address and address != "auto":
        _expect_answer(address)
    begin = partial(ray.init, log_to_driver=False, logging_level=logging.ERROR)
    try:
        if address:
            begin(address=address)
        else:
            begin(address="local", include_dashboard=False, _node_ip_address="127.0.0.1")
    except Exception as error:  # whatever Ray raises where nobody, or something else, answers
        at = f"at {address}" if address else "on this machine"
        first = str(error).strip().splitlines()[:1]
        raise ConfigError(f"no Ray cluster answers {at} ({''.join(first)}): `ray start --head` starts one") from error
    return ray


def _expect_answer(address: str) -> None:
    """Raise ConfigError unless something listens at HOST:PORT; Ray itself would try for a long time."""
    place = urlsplit(address if "://" in address else f"//{address}")
    try:
        host, port = place.hostname, place.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ConfigError(f"--address {address!r} is no address of a Ray cluster: write HOST:PORT, as in 10.0.0.1:6379")
    try:
        socket.create_connection((host, port), ANSWER_SECONDS).close()
    except OSError as error:
        raise ConfigError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): `ray start --head` on that machine "
            "starts one, and prints its address"
        ) from error


def _execute(job: Job, token: str, there: bytes, nice: int | None) -> tuple[int, bytes, bytes, str]:
    """Execute a job on a node, at the niceness `nice`.

    Returns its exit code, its run as a tar (empty where it is there already), its log, and what people should know.
    """
    note = _be_as_nice(nice)
    here = Path(job.folder) / "sweep.json"
    if here.is_file() and hashlib.sha256(here.read_bytes()).hexdigest() == token:
        log = job.file.with_name(f"{job.run}.log")
        return _attend(job, log), b"", log.read_bytes(), note
    with tempfile.TemporaryDirectory(prefix="niblick-") as scratch:
        job = replace(job, folder=scratch)
        job.write()
        if there:
            _unpack(there, job.place)
        code = _attend(job, Path(scratch) / "log")
        return code, _packed(job.place) if job.place.is_dir() else b"", (Path(scratch) / "log").read_bytes(), note


def _be_as_nice(wanted: int | None) -> str:
    """Set the niceness of this thread, which what it starts inherits. Returns what to say if it may not."""
    found = niceness()
    if wanted is None or found is None or found == wanted:
        return ""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, wanted)
    except OSError:
        return (
            f"on {socket.gethostname()} Ray's workers have niceness {found}, not the sweep's {wanted}: runs with a "
            "budget in seconds do less there while the machine is busy; start its nodes with "
            "RAY_worker_niceness=0 ray start"
        )
    return ""


def _attend(job: Job, log: Path) -> int:
    """Start the job's process and wait for it; if this worker is cancelled, the job stops with a checkpoint.

    Whatever way it ends is its exit code: Ray runs a task again whose own process exits, also with code 0.
    """
    with open(log, "wb") as output:
        process = start(job.file, job.threads, output)
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


def _packed(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix not in (".tmp", ".lock"):
                tar.add(path, path.relative_to(folder).as_posix())
    return buffer.getvalue()


def _unpack(data: bytes, folder: Path) -> None:
    """Write the files of a run, each whole. The files that say the run has ended come last."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = sorted((info for info in tar if info.isfile()), key=lambda info: info.name in LAST)
        for info in files:
            path = folder / info.name
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ConfigError(f"a run came back with the file {info.name!r}, outside its directory: refused")
            path.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(info)
            assert content is not None
            write_bytes(path, content.read())
