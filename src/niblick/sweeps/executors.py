"""Executors: where the runs of a sweep are executed. Each takes jobs and says which have ended, and with what code.

`LocalPool` has so many processes on this machine, one for each GPU or several on the CPU; `sweeps.ray_executor` is Ray.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import torch

from niblick.errors import ConfigError
from niblick.sweeps.job import Job

LAST_LINES = 12
"""Lines of a failed run's output that are kept for people."""

PATIENCE = 60.0
"""Seconds that a run has for its checkpoint when the sweep is stopped."""


@dataclass(frozen=True)
class Ended:
    """A job that has ended."""

    run: str
    code: int
    lines: list[str]
    """The last of what it printed."""
    note: str = ""
    """What people should know of how it was executed."""


class Executor(Protocol):
    """Where jobs are executed."""

    slots: int
    """Jobs at once."""

    def submit(self, job: Job) -> None:
        """Start a job; there is a free slot."""

    def ended(self) -> list[Ended]:
        """Return the jobs that have ended since the last call, without waiting."""

    def stop(self) -> None:
        """Make all jobs stop with a checkpoint where they can, and wait until they have."""


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    log: Path
    gpu: int | None


class LocalPool:
    """Processes on this machine: one for each GPU, or as many as cores allow."""

    def __init__(self, threads: int = 1, workers: int | None = None) -> None:
        """`workers` is the number of jobs at once; None: one for each GPU, or one for every `threads` cores."""
        gpus = torch.cuda.device_count()
        cores = os.cpu_count() or 1
        if workers is not None and workers < 1:
            raise ConfigError(f"--workers {workers} is no number of runs at once: give at least 1")
        self.slots = workers or gpus or max(1, cores // threads)
        self._free_gpus: list[int | None] = [i % gpus if gpus else None for i in range(self.slots)]
        self._running: dict[str, _Running] = {}

    def submit(self, job: Job) -> None:
        """Start a job in a process of its own; what it prints goes to jobs/<run>.log."""
        gpu = self._free_gpus.pop(0)
        file = job.write()
        log = file.with_name(f"{job.run}.log")
        output = open(log, "wb")  # noqa: SIM115 (closed when the job has ended)
        process = start(file, job.threads, output, gpu)
        self._running[job.run] = _Running(process, output, log, gpu)

    def ended(self) -> list[Ended]:
        """Return the jobs that have ended since the last call."""
        done = [run for run, each in self._running.items() if each.process.poll() is not None]
        return [self._collect(run) for run in done]

    def _collect(self, run: str) -> Ended:
        each = self._running.pop(run)
        each.output.close()
        self._free_gpus.append(each.gpu)
        return Ended(run, each.process.wait(), last_lines(each.log))

    def stop(self) -> None:
        """Send all jobs SIGTERM, at which they write a checkpoint, and wait; who does not end is killed."""
        for each in self._running.values():
            each.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for run, each in list(self._running.items()):
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.process.wait(max(0.1, deadline - time.monotonic()))
            each.process.kill()
            self._collect(run)


def start(job: Path, threads: int, output: IO[bytes], gpu: int | None = None) -> subprocess.Popen[bytes]:
    """Start the process of a job file. It ends when this process does: then its standard input closes."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = _visible(gpu)
    command = [sys.executable, "-m", "niblick.sweeps.job", str(job)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment)


def niceness() -> int | None:
    """How far this process gives way to others (0: not at all, 19: most); None where there is no such thing."""
    return os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else None


def _visible(gpu: int) -> str:
    """The name of this process's GPU number `gpu`, where only some of the machine's are visible to it."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return names.split(",")[gpu] if names else str(gpu)


def last_lines(log: Path) -> list[str]:
    """Return the last lines that a job printed, empty ones left out."""
    if not log.is_file():
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.strip()][-LAST_LINES:]
