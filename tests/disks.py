"""Disks that fail while a verb runs in this process: full, read-only, renamed under its feet; by audit hook and limit.

A hook of Python's own sees every file that is opened, made, renamed or removed, whoever asks for it, so that no verb
need be patched, and the user who runs the tests may be root. What writes without Python, as safetensors does, meets the
limit on the size of files.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_ADDING = ("open", "os.mkdir")
"""What takes room; to rename and to remove a file takes none."""

_react: Callable[[str, str], None] | None = None
_hooked = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _react is None or event not in (*_ADDING, "os.rename", "os.remove", "os.rmdir"):
        return
    path = arguments[0]
    if event == "open" and not int(str(arguments[2] or 0)) & _WRITING:
        return
    if isinstance(path, str | bytes | os.PathLike):
        _react(event, os.path.abspath(os.fsdecode(path)))


@contextlib.contextmanager
def _reacting(react: Callable[[str, str], None]) -> Iterator[None]:
    global _react, _hooked
    if not _hooked:  # a hook stays for good
        sys.addaudithook(_hook)
        _hooked = True
    _react = react
    try:
        yield
    finally:
        _react = None


@contextlib.contextmanager
def failing(folder: Path, code: int, after: int = 0) -> Iterator[list[str]]:
    """Below `folder` nothing is opened for writing or made after the first so many; yields what was refused.

    Where `code` is EROFS nothing is renamed or removed, either.
    """
    seen, refused = 0, []

    def react(event: str, path: str) -> None:
        nonlocal seen
        if not path.startswith(f"{folder}/") or (event not in _ADDING and code != errno.EROFS):
            return
        seen += 1
        if seen > after:
            refused.append(path)
            raise OSError(code, os.strerror(code), path)

    with _reacting(react):
        yield refused


@contextlib.contextmanager
def renamed(folder: Path, to: Path) -> Iterator[None]:
    """Rename `folder` when something below it is first to be written."""

    def react(event: str, path: str) -> None:
        global _react
        if path.startswith(f"{folder}/"):
            _react = None
            folder.rename(to)

    with _reacting(react):
        yield


@contextlib.contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes: what is written then fails as on a full disk, whoever writes it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
