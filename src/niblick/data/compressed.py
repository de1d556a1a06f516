"""Compressed files as streams of plain bytes: zstd, gzip, xz and bzip2, in bounded memory, never silently cut off."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shlex
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import zstandard

from niblick.errors import DataError

COMPRESSIONS = (".zst", ".gz", ".xz", ".bz2")

MAX_WINDOW = 1 << 31
"""The largest window of a `.zst` that can be read: `zstd --long=31`, which holds 2 GiB in memory while it is read."""

MIN_WINDOW = 1 << 20

DAMAGED = (zstandard.ZstdError, zlib.error, lzma.LZMAError, EOFError, gzip.BadGzipFile)
"""What `decompressed` raises for a file that is damaged."""

PIECE = 2 << 20

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BEGINS = {
    ".zst": (_ZSTD_MAGIC, *(bytes([0x50 + number]) + b"\x2a\x4d\x18" for number in range(16))),  # or skippable frames
    ".gz": (b"\x1f\x8b",),
    ".xz": (b"\xfd7zXZ", b"\x5d\0\0"),  # or what older versions wrote
    ".bz2": (b"BZh",),
}
_UNPACKERS = {".zst": "zstd -dc --long=31", ".gz": "gzip -dc", ".xz": "xz -dc", ".bz2": "bzip2 -dc"}


def decompressed(file: BinaryIO, name: str, max_window: int = MAX_WINDOW) -> Iterator[bytes]:
    """Give the bytes of `file` in pieces, decompressed as the end of its `name` says.

    Raises DataError for a file of another form than its name says and for a `.zst` whose window is larger than
    `max_window` bytes, and one of DAMAGED for damage.
    """
    suffix = name[name.rfind(".") :].lower()
    if suffix in _BEGINS:
        _check_beginning(file, name, suffix)
    if suffix == ".zst":
        yield from _zstd_pieces(file, name, max_window)
        return
    if suffix in (".xz", ".bz2"):
        yield from _stream_pieces(file, lzma.LZMADecompressor if suffix == ".xz" else bz2.BZ2Decompressor)
        return
    stream: BinaryIO = gzip.GzipFile(fileobj=file) if suffix == ".gz" else file  # type: ignore[assignment]
    while piece := stream.read(PIECE):
        yield piece


def unpacking(name: str) -> tuple[str, str]:
    """The command that writes the bytes of a file to its standard output, and the name without the compression."""
    suffix = name[name.rfind(".") :].lower()
    return (_UNPACKERS[suffix], name[: -len(suffix)]) if suffix in _UNPACKERS else ("cat", name)


def _check_beginning(file: BinaryIO, name: str, suffix: str) -> None:
    begin = file.read(8)
    file.seek(0)
    if not begin or any(begin.startswith(known[: len(begin)]) for known in _BEGINS[suffix]):
        return
    other = next((known for known, all_ in _BEGINS.items() if begin.startswith(all_)), "")
    what = f"it is a {other}" if other else f"it begins with {begin[:4]!r}"
    raise DataError(f"{name} is not compressed as {suffix}: {what}; give it the suffix of what it is")


def _stream_pieces(file: BinaryIO, new: Callable[[], lzma.LZMADecompressor | bz2.BZ2Decompressor]) -> Iterator[bytes]:
    # Not LZMAFile and BZ2File: they take damage at the beginning of a further stream for rubbish behind the last one.
    stream, streams, zeros = None, 0, 0
    while piece := file.read(65_536):
        while piece:
            if stream is None:
                if streams and new is lzma.LZMADecompressor:  # zeros may stand between streams, four at a time
                    zeros += len(piece) - len(piece := piece.lstrip(b"\0"))
                    if not piece:
                        break
                if zeros % 4:
                    raise EOFError(f"{zeros} zero bytes stand between its streams")
                stream, streams, zeros = new(), streams + 1, 0
            yield from _pieces(stream, piece)
            piece = stream.unused_data
            if stream.eof:
                stream = None
    if stream is not None or not streams or zeros % 4:
        raise EOFError("the compressed stream ends too early")


def _pieces(stream: lzma.LZMADecompressor | bz2.BZ2Decompressor, data: bytes) -> Iterator[bytes]:
    """What `data` stands for, PIECE by PIECE."""
    try:
        yield stream.decompress(data, PIECE)
        while not stream.eof and not stream.needs_input:
            yield stream.decompress(b"", PIECE)
    except OSError as error:  # bz2 says so that data is invalid
        raise EOFError(str(error)) from error


def _zstd_pieces(file: BinaryIO, name: str, max_window: int) -> Iterator[bytes]:
    # Not zstandard's stream_reader: it ends without a word where a frame is cut off. Small reads, because a few
    # compressed kilobytes can stand for many megabytes.
    frame = None
    while piece := file.read(8192):
        while piece:
            if frame is None:
                if len(piece) < 18:  # no header of a frame is longer
                    piece += file.read(8192)
                _check_frame(piece, name, max_window)
                frame = zstandard.ZstdDecompressor(max_window_size=max_window).decompressobj()
            if text := frame.decompress(piece):
                yield text
            piece = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("the compressed stream ends too early")


def _check_frame(head: bytes, name: str, max_window: int) -> None:
    """Raise DataError for a frame that cannot be read: one that wants a dictionary, or too large a window."""
    if number := _dictionary(head):
        raise DataError(
            f"{name} was compressed with a dictionary (number {number}), which is not in the file; decompress it with "
            f"that, as by `zstd -dc -D DICTIONARY {shlex.quote(name)}`"
        )
    window = _window(head)
    if window is None or window <= max_window:
        return
    how = (
        f"compress it again without --long, or with --long={MAX_WINDOW.bit_length() - 1} at most"
        if window > MAX_WINDOW
        else f"reading it takes that much memory: allow it with --max-window {-(-window >> 20)}"
    )
    raise DataError(
        f"{name} was compressed with a window of {window >> 20:,} MiB, and {max_window >> 20:,} MiB are allowed; {how}"
    )


def _dictionary(head: bytes) -> int:
    """The number of the dictionary that the zstd frame beginning with `head` was made with; 0 if it names none."""
    if len(head) < 6 or not head.startswith(_ZSTD_MAGIC):
        return 0
    start, size = (5 if head[4] & 0x20 else 6), (0, 1, 2, 4)[head[4] & 3]
    return int.from_bytes(head[start : start + size], "little")


def _window(head: bytes) -> int | None:
    """The bytes that the zstd frame beginning with `head` wants to look back (RFC 8878, 3.1.1.1); None if none does."""
    if len(head) < 6 or not head.startswith(_ZSTD_MAGIC):
        return None
    descriptor = head[4]
    if not descriptor & 0x20:
        exponent, mantissa = head[5] >> 3, head[5] & 7
        return (1 << 10 + exponent) * (8 + mantissa) // 8
    start = 5 + (0, 1, 2, 4)[descriptor & 3]  # a single segment: the window is the content
    size = (1, 2, 4, 8)[descriptor >> 6]
    content = int.from_bytes(head[start : start + size], "little")
    return content + 256 if size == 2 else content
