"""Documents, streamed from the text a user has: JSONL, Parquet, plain text, directories, or Python's own.

Reading is split in two so that it can be spread over processes: `read_blocks` moves raw bytes (a few megabytes at a
time, cut at line ends, never parsed), and a block turns itself into documents wherever it has been sent.
Everything that is wrong with the input is a DataError that names the file and the line.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import zstandard

from niblick.data.embedded import EMBEDDED, embedded_documents
from niblick.errors import DataError, nearest

BLOCK_BYTES = 2 << 20
"""What a block aims at: large enough that sending it costs nothing, small enough that dozens fit in memory."""

MAX_DOCUMENT_BYTES = 64 << 20
"""A document is held whole, several times over, while it is encoded; this keeps preparation under a gigabyte."""

JSONL_SUFFIXES = (".jsonl", ".jsonl.zst", ".jsonl.gz")
TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst", ".tex", ".html", ".py", ".c", ".h", ".cpp", ".js", ".ts", ".rs", ".go")
FORMS = "FILE.jsonl[.zst|.gz], FILE.parquet, FILE.txt, a directory of these, pydocs, pysource or challenge:docs"


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it comes from (a file, a collection): `source` groups scores, it identifies nothing."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class JsonLines:
    """Whole lines of a JSONL file, not yet parsed; `first_line` counts from 1."""

    data: bytes
    path: str
    first_line: int

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.data)

    def documents(self) -> Iterator[Document]:
        """Parse the lines; blank ones are skipped. Raises DataError naming file and line."""
        default = source_name(self.path)
        for number, line in enumerate(self.data.split(b"\n"), self.first_line):
            if line and not line.isspace():
                yield _parse_line(line, f"{self.path}, line {number}", default)


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents that are already text."""

    items: list[Document]
    size: int

    def documents(self) -> Iterator[Document]:
        """Give the documents."""
        return iter(self.items)


Block = JsonLines | Texts


def read_documents(source: str) -> Iterator[Document]:
    """Stream the documents of `source` in their order. Raises DataError if anything is unreadable or there are none."""
    empty = True
    for block in read_blocks(source):
        for document in block.documents():
            empty = False
            yield document
    if empty:
        raise no_documents(source)


def no_documents(source: str) -> DataError:
    """The error for a source that can be read and holds nothing."""
    return DataError(f"{source} holds no documents; give text as {FORMS}")


def count_documents(source: str, limit: int) -> int:
    """Count the documents of `source` without parsing them; stop at `limit`, so that the pass is short for any size."""
    count = 0
    for block in read_blocks(source):
        if isinstance(block, JsonLines):
            count += sum(1 for line in block.data.split(b"\n") if line and not line.isspace())
        else:
            count += len(block.items)
        if count >= limit:
            return limit
    return count


def source_name(source: str) -> str:
    """The stem that names datasets and documents: `docs_selected` for `some/docs_selected.jsonl.zst`."""
    name = Path(source).resolve().name if source in (".", "..") else Path(source).name
    for suffix in sorted((*JSONL_SUFFIXES, *TEXT_SUFFIXES, ".parquet"), key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
            break
    return re.sub(r"[^\w.-]+", "_", name) or "data"


def read_blocks(source: str) -> Iterator[Block]:
    """Stream `source` as blocks of about BLOCK_BYTES (more only where one document is longer).

    Raises DataError if the source does not exist, has a form that niblick does not read, or is damaged.
    """
    if source in EMBEDDED:
        yield from grouped(Document(text, origin) for text, origin in embedded_documents(source))
        return
    path = Path(source)
    if path.is_dir():
        files = _files_below(path)
        if not files:
            raise DataError(f"the directory {source} holds no text files; give one with {FORMS}")
        yield from _merged(block for file, name in files for block in _file_blocks(file, name))
    elif path.is_file():
        if not _readable(path.name):
            raise DataError(f"{source} has a form that niblick does not read; give {FORMS}")
        yield from _file_blocks(path, source_name(source))
    else:
        raise DataError(f"there is no source {source!r}{nearest(source, EMBEDDED)}; give {FORMS}")


def _readable(name: str) -> bool:
    return name.lower().endswith((*JSONL_SUFFIXES, *TEXT_SUFFIXES, ".parquet"))


def _files_below(directory: Path) -> list[tuple[Path, str]]:
    """All readable files below `directory`, sorted by their path inside it; hidden ones (.git, .venv) are left out."""
    found = []
    for root, folders, names in os.walk(directory):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for name in names:
            if _readable(name) and not name.startswith("."):
                path = Path(root, name)
                found.append((path, path.relative_to(directory).as_posix()))
    return sorted(found, key=lambda item: item[1])


def _file_blocks(path: Path, name: str) -> Iterator[Block]:
    lowered = path.name.lower()
    try:
        if lowered.endswith(".parquet"):
            yield from grouped(_parquet_documents(path, name))
        elif lowered.endswith(JSONL_SUFFIXES):
            with open(path, "rb") as file:
                yield from line_blocks(_decompressed(file, lowered), str(path))
        else:
            document = _text_document(path, name)
            yield Texts([document], len(document.text))
    except (zstandard.ZstdError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged ({error}); fetch or compress it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _decompressed(file: BinaryIO, name: str) -> Iterator[bytes]:
    if name.endswith(".zst"):
        yield from _zstd_pieces(file)
        return
    stream = gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file
    while piece := stream.read(BLOCK_BYTES):
        yield piece


def _zstd_pieces(file: BinaryIO) -> Iterator[bytes]:
    # Not zstandard's stream_reader: it ends without a word where a frame is cut off. Small reads, because a few
    # compressed kilobytes can stand for many megabytes.
    frame = None
    while piece := file.read(8192):
        while piece:
            if frame is None:
                frame = zstandard.ZstdDecompressor().decompressobj()
            if text := frame.decompress(piece):
                yield text
            piece = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("the compressed stream ends too early")


def line_blocks(pieces: Iterator[bytes], path: str) -> Iterator[JsonLines]:
    """Cut JSONL that comes in pieces of any size into blocks of whole lines; `path` names it in errors."""
    waiting: list[bytes] = []
    size, line = 0, 1
    for number, piece in enumerate(pieces):
        if number == 0:
            piece = piece.removeprefix(b"\xef\xbb\xbf")  # what some Windows programs put before JSON
        end = piece.rfind(b"\n") + 1
        if end and size + end >= BLOCK_BYTES:
            data = b"".join([*waiting, piece[:end]])
            yield JsonLines(data, path, line)
            line += data.count(b"\n")
            waiting, size, piece = [], 0, piece[end:]
        waiting.append(piece)
        size += len(piece)
        if size > MAX_DOCUMENT_BYTES + BLOCK_BYTES:
            raise _too_long(f"{path}, after line {line - 1}")
    if size:
        yield JsonLines(b"".join(waiting), path, line)


def _too_long(where: str) -> DataError:
    return DataError(f"{where}: one document is longer than {MAX_DOCUMENT_BYTES >> 20} MiB; split it into documents")


def _parse_line(line: bytes, where: str, default: str) -> Document:
    try:
        text = line.decode("utf-8")
        record = json.loads(text)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8") from error
    except (ValueError, RecursionError) as error:
        message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{where}: not a JSON object ({message}); each line must be one, with a `text`") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: found a JSON {type(record).__name__}; each line must be an object with a `text`")
    body, source = record.get("text"), record.get("source")
    if not isinstance(body, str):
        found = ", ".join(map(repr, list(record)[:8])) or "nothing"
        raise DataError(f"{where}: found the keys {found}, but no string `text`; name the text of each object `text`")
    if source is not None and not isinstance(source, str):
        raise DataError(f"{where}: `source` is a {type(source).__name__}; make it a string or leave it out")
    if "\\u" in text:  # the only way for half a surrogate pair to come in
        for value in (body, source or ""):
            _refuse_surrogates(value, where)
    return Document(body, source or default)


def _refuse_surrogates(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise DataError(
            f"{where}: character {error.start + 1} is the lone surrogate \\u{code:04x}, which UTF-8 cannot hold; "
            "take it out or replace it by U+FFFD"
        ) from error


def _text_document(path: Path, name: str) -> Document:
    if path.stat().st_size > MAX_DOCUMENT_BYTES:
        raise _too_long(str(path))
    data = path.read_bytes()
    try:
        return Document(data.decode("utf-8"), name)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8") from error


def _parquet_documents(path: Path, name: str) -> Iterator[Document]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading Parquet needs pyarrow; run `pip install niblick[parquet]`") from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            kind = schema.field("text").type if "text" in schema.names else "no such column"
            if kind not in (pyarrow.string(), pyarrow.large_string()):
                found = ", ".join(schema.names[:8])
                raise DataError(f"{path}: needs a string column `text` ({kind}); found the columns {found}")
            columns = [column for column in ("text", "source") if column in schema.names]
            row = 0
            for batch in file.iter_batches(batch_size=256, columns=columns):
                for record in batch.to_pylist():
                    row += 1
                    yield _parquet_document(record, f"{path}, row {row}", name)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no readable Parquet file ({error}); write or fetch it again") from error


def _parquet_document(record: dict[str, object], where: str, name: str) -> Document:
    text, source = record["text"], record.get("source")
    if not isinstance(text, str):
        raise DataError(f"{where}: `text` is empty (null); every row needs a text")
    if len(text) > MAX_DOCUMENT_BYTES:
        raise _too_long(where)
    return Document(text, source if isinstance(source, str) and source else name)


def grouped(documents: Iterator[Document]) -> Iterator[Texts]:
    """Gather documents into blocks."""
    items: list[Document] = []
    size = 0
    for document in documents:
        items.append(document)
        size += len(document.text)
        if size >= BLOCK_BYTES:
            yield Texts(items, size)
            items, size = [], 0
    if items:
        yield Texts(items, size)


def _merged(blocks: Iterator[Block]) -> Iterator[Block]:
    """Join small text blocks, so that a directory of many files makes few of them; the order stays."""
    items: list[Document] = []
    size = 0
    for block in blocks:
        if isinstance(block, Texts):
            items += block.items
            size += block.size
        if items and (size >= BLOCK_BYTES or isinstance(block, JsonLines)):
            yield Texts(items, size)
            items, size = [], 0
        if isinstance(block, JsonLines):
            yield block
    if items:
        yield Texts(items, size)
