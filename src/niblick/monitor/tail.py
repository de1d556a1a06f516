"""Following a file that grows: whole lines only, through rotation and truncation, in bounded memory.

Of a file that is already large, the beginning, evenly spread samples and the end are read, and only then what is
appended: a log of gigabytes takes as long as one of megabytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from niblick.errors import DataError
from niblick.files import decoded, regular

LARGE = 24 << 20
"""Bytes above which a file is not read whole."""
HEAD = 2 << 20
END = 4 << 20
SAMPLES = 256
SAMPLE = 16 << 10
CHUNK = 1 << 20
ONCE = 16 << 20
"""Bytes taken in by one poll at most; the rest waits for the next."""
LINE_MOST = 64 << 10
"""Longer lines are no log lines; they are left out."""
_ANCHOR = 64
_LOOK = 8192


def expect_text(path: Path) -> None:
    """Raise DataError if `path` is no readable text file."""
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a log: pass --runs for a folder of runs")
    try:
        with regular(path) as file:
            start = file.read(_LOOK)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        decoded(start[: len(start) // 2 * 2])
    except UnicodeError:
        raise DataError(
            f"{path} is a binary file, not a log: give a text file with the lines that training printed"
        ) from None


class Tail:
    """Reads a file from where it was left; `sampled` says that only parts of a large one were read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sampled = False
        self.size = 0
        self.modified = 0.0
        self._offset = 0
        self._pending = b""
        self._too_long = False
        self._anchor = b""
        self._identity: tuple[int, int] | None = None

    def poll(self) -> tuple[bool, Iterator[str]]:
        """Return whether the file began anew, and its new whole lines. Raises OSError if it is gone or no file."""
        file = regular(self.path)  # the iterator closes it
        try:
            facts = os.fstat(file.fileno())
            identity = (facts.st_dev, facts.st_ino)
            self.size, self.modified = facts.st_size, facts.st_mtime
            again = self._identity is not None and (
                identity != self._identity or facts.st_size < self._offset or not self._same_text(file)
            )
            first = self._identity is None or again
            self._identity = identity
            if again:
                self._offset, self._pending, self._anchor, self._too_long = 0, b"", b"", False
            lines = self._first(file) if first and facts.st_size > LARGE else self._grown(file)
        except BaseException:
            file.close()
            raise
        return again, lines

    @property
    def more(self) -> bool:
        """Whether the last poll left something for the next."""
        return self._offset < self.size

    def unfinished(self) -> str:
        """The last line so far, where its end of line is missing; "" if there is none."""
        return "" if self._too_long else _decoded(self._pending)

    def take_unfinished(self) -> None:
        """Count the unfinished line as taken; what comes after it on the same line is another one."""
        self._pending = b""

    def _same_text(self, file: BinaryIO) -> bool:
        """Whether what was read last still stands before the place where reading goes on."""
        file.seek(self._offset - len(self._anchor))
        return file.read(len(self._anchor)) == self._anchor

    def _grown(self, file: BinaryIO, most: int = ONCE) -> Iterator[str]:
        with file:
            file.seek(self._offset)
            left = min(most, self.size - self._offset)
            while left > 0 and (data := file.read(min(CHUNK, left))):
                left -= len(data)
                self._offset += len(data)
                self._anchor = (self._anchor + data)[-_ANCHOR:]
                yield from self._lines(data)

    def _first(self, file: BinaryIO) -> Iterator[str]:
        """The beginning, samples from between, and the end of a large file."""
        self.sampled = True
        end = self.size - END
        with file:
            yield from _whole(file.read(HEAD), first=True)
            step = (end - HEAD) // SAMPLES
            for i in range(SAMPLES):
                file.seek(HEAD + i * step)
                yield from _whole(file.read(min(SAMPLE, step)))
            file.seek(end)
            start = file.read(LINE_MOST)
            self._offset = end + start.find(b"\n") + 1
            self._anchor = start[: start.find(b"\n") + 1][-_ANCHOR:]
            yield from self._grown(file, END)

    def _lines(self, data: bytes) -> Iterator[str]:
        pieces = (self._pending + data).split(b"\n")
        self._pending = pieces.pop()
        for piece in pieces:
            if self._too_long:
                self._too_long = False
            elif len(piece) <= LINE_MOST:
                yield _decoded(piece)
        if len(self._pending) > LINE_MOST:
            self._pending, self._too_long = b"", True


def _whole(data: bytes, first: bool = False) -> Iterator[str]:
    """The lines of a piece of a file that are whole in it."""
    pieces = data.split(b"\n")
    for piece in pieces[0 if first else 1 : -1]:
        if len(piece) <= LINE_MOST:
            yield _decoded(piece)


def _decoded(data: bytes) -> str:
    """A line of a file. UTF-16, as PowerShell writes it, is read as the ASCII in it: lines of logs are nothing else."""
    return data.replace(b"\0", b"").decode("utf-8", errors="replace")


def last_lines(path: Path, count: int, most: int = 64 << 10) -> list[str]:
    """The last lines of a file, for people; none if it is gone."""
    try:
        with regular(path) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            pieces = file.read(most).split(b"\n")
    except OSError:
        return []
    if size > most:
        pieces = pieces[1:]
    return [_decoded(piece)[:2000] for piece in (pieces[:-1] if pieces[-1] == b"" else pieces)[-count:]]
