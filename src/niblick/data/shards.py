"""The challenge's `.bin` shards: a header of 256 little-endian int32, then uint16 tokens.

Shards are read as memory maps and never trusted: the header and the exact size are checked when one is opened.
They are written under another name and renamed when complete. Writing and hashing go on in threads, because both let go
of the interpreter: reading and encoding then cost nothing of their time.
"""

from __future__ import annotations

import hashlib
import os
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.challenge import rules
from niblick.data.beginnings import refuse_pointer
from niblick.errors import DataError
from niblick.files import regular

HEADER_BYTES = 4 * rules.SHARD_HEADER_INTS
_WRITE_BYTES = 1 << 20
"""Written at once: for more, Linux looks for memory in larger pieces, which took up to seven times as long."""


def shard_header(tokens: int) -> bytes:
    """Return the header of a shard with so many tokens."""
    header = np.zeros(rules.SHARD_HEADER_INTS, "<i4")
    header[:3] = rules.SHARD_MAGIC, rules.SHARD_VERSION, tokens
    return header.tobytes()


def shard_files(directory: Path, split: str) -> list[Path]:
    """The shards of a split in stream order: their names end in a number, and no other files of the name are tokens."""
    name = re.compile(rf"fineweb_{split}_\d+\.bin")
    return sorted(path for path in directory.glob("fineweb_*.bin") if name.fullmatch(path.name))


def read_shard(path: Path) -> npt.NDArray[np.uint16]:
    """Map the tokens of a shard, shape (tokens,), read-only. Raises DataError if it is foreign, damaged or cut off."""
    try:
        with regular(path) as file:
            size, head = os.fstat(file.fileno()).st_size, file.read(HEADER_BYTES)
    except OSError as error:
        raise DataError(f"the shard {path} cannot be read: {error.strerror}; fetch or prepare it again") from error
    refuse_pointer(head, str(path))
    if len(head) < HEADER_BYTES:
        raise DataError(f"{path} has {size} bytes, less than the header of a shard ({HEADER_BYTES}); fetch it again")
    header = np.frombuffer(head, "<i4")
    magic, version, tokens = (int(value) for value in header[:3])
    if (magic, version) != (rules.SHARD_MAGIC, rules.SHARD_VERSION) or header[3:].any() or tokens < 0:
        raise DataError(
            f"{path} is no token shard: its header is {magic}, {version}, {tokens} and "
            f"{'other numbers' if header[3:].any() else 'zeros'}, where {rules.SHARD_MAGIC}, {rules.SHARD_VERSION}, "
            "the number of tokens and zeros belong; fetch or prepare it again"
        )
    expected = HEADER_BYTES + 2 * tokens
    if size != expected:
        raise DataError(
            f"{path} has {size} bytes where its header promises {tokens} tokens, that is {expected} bytes; "
            "it is cut off or overwritten: fetch or prepare it again"
        )
    if tokens == 0:
        return np.zeros(0, "<u2")
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(tokens,))


class ShardWriter:
    """Writes one split's token stream as shards of exactly `shard_tokens` (the last may be shorter).

    After `close`, `files` lists them (name, tokens, bytes, sha256) and `stream_hash` is the SHA-256 of all tokens.
    """

    def __init__(self, directory: Path, split: str, shard_tokens: int) -> None:
        self.directory = directory
        self.split = split
        self.shard_tokens = shard_tokens
        self.tokens = 0
        self.files: list[dict[str, Any]] = []
        self.stream_hash = ""
        self._stream = hashlib.sha256()
        self._threads = ThreadPoolExecutor(2, "hash")
        self._appended: Future[None] | None = None
        self._file_hashes: list[Future[str]] = []
        self._file: Any = None
        self._filled = 0

    def write(self, tokens: npt.NDArray[np.uint16]) -> None:
        """Append tokens, shape (n,), in the background. Raises OSError if that, or what was appended before, fails."""
        if self._appended is not None:
            self._appended.result()  # in order, and never more than one piece waiting
        self.tokens += len(tokens)
        self._appended = self._threads.submit(self._append, np.ascontiguousarray(tokens, "<u2"))

    def _append(self, tokens: npt.NDArray[np.uint16]) -> None:
        self._stream.update(tokens.view(np.uint8).data)
        while len(tokens):
            if self._file is None:
                self._file = open(self._path(".partial"), "wb")  # noqa: SIM115 (stays open between calls)
                self._file.write(shard_header(0))
            taken = tokens[: self.shard_tokens - self._filled]
            data = taken.view(np.uint8).data
            for start in range(0, len(data), _WRITE_BYTES):
                self._file.write(data[start : start + _WRITE_BYTES])
            self._filled += len(taken)
            tokens = tokens[len(taken) :]
            if self._filled == self.shard_tokens:
                self._finish_shard()

    def close(self) -> None:
        """Finish the last shard and wait for the hashes."""
        if self._appended is not None:
            self._appended.result()
        if self._file is not None:
            self._finish_shard()
        self._threads.shutdown()
        for file, sha256 in zip(self.files, self._file_hashes, strict=True):
            file["sha256"] = sha256.result()
        self.stream_hash = self._stream.hexdigest()

    def abandon(self) -> None:
        """Close the open file as it is: its directory is about to go, and Windows keeps files that are open."""
        self._threads.shutdown(cancel_futures=True)
        if self._file is not None:
            self._file.close()
            self._file = None

    def _path(self, suffix: str = "") -> Path:
        return self.directory / (rules.shard_name(self.split, len(self.files)) + suffix)

    def _finish_shard(self) -> None:
        self._file.seek(0)
        self._file.write(shard_header(self._filled))
        self._file.close()
        self._file = None
        path = self._path()
        os.replace(self._path(".partial"), path)
        size = HEADER_BYTES + 2 * self._filled
        self.files.append({"name": path.name, "tokens": self._filled, "bytes": size})
        self._file_hashes.append(self._threads.submit(file_hash, path))
        self._filled = 0


_DIGESTS: dict[tuple[str, int, int], str] = {}
"""SHA-256 of files by path, size and time: each is read once in a process."""


def expect_digest(path: Path, digest: str) -> None:
    """Hold a file against the digest that the manifest has of it. Raises DataError, naming it, if it is another."""
    try:
        facts = path.stat()
        key = (str(path), facts.st_size, facts.st_mtime_ns)
        if key not in _DIGESTS:
            _DIGESTS[key] = file_hash(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not isinstance(digest, str):
        raise DataError(f"the manifest records {digest!r} as the SHA-256 of {path}; prepare or fetch the data again")
    if _DIGESTS[key] != digest:
        raise DataError(
            f"{path} is not what the manifest says (SHA-256 {_DIGESTS[key][:16]}…, recorded is {digest[:16]}…): it was "
            "changed or damaged; prepare or fetch the data again"
        )


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a regular file. Raises OSError if it is none."""
    with regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
