"""Real processes that start at once: forked from one that has imported torch, which takes seconds each time.

They are what a test of processes needs: they can be killed, have their own folder and variables, and know nothing of
niblick before they import it.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

LIBRARIES = ["torch", "numpy", "sentencepiece", "constriction", "zstandard", "brotli"]
"""What the processes share."""


@functools.cache
def _context() -> Any:
    """The server, on one thread as the tests are."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LIBRARIES)
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        os.environ.pop("OMP_NUM_THREADS")
        if before is not None:
            os.environ["OMP_NUM_THREADS"] = before
    return context


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Forked:
    """A process on its way."""

    process: BaseProcess
    prints: tuple[Path, Path]

    def ended(self, timeout: float = 300) -> Ended:
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            raise TimeoutError(f"{self.process.name} has not ended after {timeout:g} s: {self.prints[1].read_text()}")
        printed = [path.read_text() for path in self.prints]
        shutil.rmtree(self.prints[0].parent)
        return Ended(self.process.exitcode, *printed)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


def start(command: Sequence[object], folder: Path | None = None, variables: Mapping[str, str] | None = None) -> Forked:
    """Start `python COMMAND` in a folder, where COMMAND is `-m MODULE …`, `-c CODE …` or `FILE …`.

    The folder is the one of now, and the variables those of now, unless told.
    """
    words, place = [*map(str, command)], Path(tempfile.mkdtemp(prefix="forked-"))
    prints = place / "out", place / "err"
    for path in prints:
        path.write_text("")
    own = dict(os.environ if variables is None else variables)
    process = _context().Process(target=_run, args=(words, folder or Path.cwd(), prints, own))
    process.start()
    return Forked(process, prints)


def run(command: Sequence[object], folder: Path | None = None, variables: Mapping[str, str] | None = None) -> Ended:
    """`start`, to its end."""
    return start(command, folder, variables).ended()


def _run(words: list[str], folder: Path, prints: tuple[Path, Path], variables: dict[str, str]) -> None:
    for number, path in enumerate(prints, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    kind, rest = words[0], words[1:]
    sys.path.insert(0, str(folder))
    sys.argv = rest if kind in ("-m", "-c") else words
    if kind == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(compile(rest[0], "-c", "exec"), {"__name__": "__main__"})
    else:
        runpy.run_path(kind, run_name="__main__")
