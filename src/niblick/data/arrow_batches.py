"""The batches of an Arrow file before they are read: is the file whole, and how much does a batch want in memory?

pyarrow takes a stream that is cut between two batches for a shorter one, and decompresses a batch whole, whatever size
it declares. Both are seen in the messages of a file (the Arrow columnar format: encapsulated messages).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from niblick.errors import DataError

MOST_BATCH_BYTES = 1 << 30
"""The most that one compressed batch may hold: it is read whole. Batches that are not compressed are mapped."""

_END = b"\xff\xff\xff\xff\0\0\0\0"
_OLD_END = b"\0\0\0\0"
_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2
_DICTIONARIES, _RECORD_BATCHES = 2, 3
"""Fields of the footer."""


def stream_batches(source: Any, path: str) -> Iterator[Any]:
    """The batches of an Arrow stream from where `source` stands. Raises DataError if it has no end."""
    import pyarrow

    reader = pyarrow.ipc.open_stream(source)
    while True:
        before = source.tell()
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            break
        yield batch
    after = source.tell()
    source.seek(before)
    tail = source.read(after - before)
    if not tail.endswith(_END) and tail != _OLD_END:
        raise DataError(
            f"{path} is cut off: it ends without the mark that ends an Arrow stream; fetch or write it again"
        )
    if source.size() > after:
        raise DataError(
            f"{path} goes on for {source.size() - after:,} bytes behind the end of its Arrow stream; write one a file"
        )


def check_batches(source: Any, whole: bool, path: str) -> None:
    """Raise DataError if a compressed batch declares more than MOST_BATCH_BYTES. Only its headers are read.

    `whole` says that it is the file form, whose footer says where its batches lie, and not the stream.
    """
    number = 0
    for metadata, body in _of_footer(source) if whole else _of_stream(source):
        kind, size = _declared(metadata, body)
        if size > MOST_BATCH_BYTES:
            raise DataError(
                f"{path}: batch {number + 1} holds {size:,} bytes when it is decompressed, and at most "
                f"{MOST_BATCH_BYTES:,} are read at once; write it in smaller batches"
            )
        number += kind == _RECORD_BATCH


def _of_stream(source: Any) -> Iterator[tuple[bytes, Any]]:
    """Metadata and body of each message of a stream, as far as it can be read: what reads the batches says the rest."""
    import pyarrow

    source.seek(0)
    try:
        reader = pyarrow.ipc.MessageReader.open_stream(source)
        while True:
            message = reader.read_next_message()
            yield bytes(message.metadata), message.body
    except (StopIteration, pyarrow.ArrowInvalid, OSError):
        return


def _of_footer(source: Any) -> Iterator[tuple[bytes, Any]]:
    """The same of a file, by its footer: what stands before a batch, and between two, is nobody's business."""
    end = source.size() - 10  # the length of the footer and the magic number
    try:
        source.seek(end)
        length = int.from_bytes(source.read(4), "little")
        source.seek(end - length)
        footer = source.read(length)
        root = _table(footer, 0)
        blocks = []
        for field in (_DICTIONARIES, _RECORD_BATCHES):
            if place := _field(footer, root, field):
                vector = _table(footer, place)
                count = struct.unpack_from("<I", footer, vector)[0]
                blocks += [struct.unpack_from("<qi4xq", footer, vector + 4 + 24 * number) for number in range(count)]
    except (struct.error, IndexError, ValueError, OSError):
        return
    for offset, metadata, body in blocks:
        if min(offset, metadata, body) < 0 or offset + metadata + body > end:
            continue
        try:
            source.seek(offset)
            head = source.read(metadata)
            source.seek(offset + metadata)
            yield head[8 if head.startswith(b"\xff" * 4) else 4 :], source.read_buffer(body)
        except (ValueError, OSError):
            continue


def _declared(metadata: bytes, body: Any) -> tuple[int, int]:
    """The kind of a message, and the bytes that its compressed buffers declare; 0 where nothing is compressed."""
    kind = 0
    try:
        message = _table(metadata, 0)
        kind = metadata[_field(metadata, message, 1)]
        batch = _table(metadata, _field(metadata, message, 2))
        if kind == _DICTIONARY_BATCH:
            batch = _table(metadata, _field(metadata, batch, 1))
        elif kind != _RECORD_BATCH:
            return kind, 0
        if not _field(metadata, batch, 3):
            return kind, 0
        at = _table(metadata, _field(metadata, batch, 2))
        count = struct.unpack_from("<I", metadata, at)[0]
        total = 0
        for number in range(count):
            offset, length = struct.unpack_from("<qq", metadata, at + 4 + 16 * number)
            if length >= 8:
                total += max(struct.unpack("<q", bytes(body[offset : offset + 8]))[0], 0)
        return kind, total
    except (struct.error, IndexError):  # what reads the batches says what is wrong
        return kind, 0


def _table(data: bytes, at: int) -> int:
    """Where the table or vector begins whose offset stands at `at`."""
    return at + int(struct.unpack_from("<I", data, at)[0])


def _field(data: bytes, table: int, number: int) -> int:
    """Where a field of a flatbuffer's table stands; 0 if it is left out."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, fields)[0]
    if 4 + 2 * number >= size:
        return 0
    offset = int(struct.unpack_from("<H", data, fields + 4 + 2 * number)[0])
    return table + offset if offset else 0
