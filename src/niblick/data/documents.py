"""Documents, streamed from the text a user has: JSON lines, Parquet, Arrow, plain text, folders, or Python's own.

Reading is split in two so that it can be spread over processes: `read_blocks` moves raw bytes (a few megabytes at a
time, cut at line ends, never parsed), and a block turns itself into documents wherever it has been sent.
Everything that is wrong with the input is a DataError that names the file and the line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from niblick.data.columns import TABLES, table_texts
from niblick.data.compressed import COMPRESSIONS, DAMAGED, MAX_WINDOW, MIN_WINDOW, decompressed
from niblick.data.embedded import EMBEDDED, embedded_documents
from niblick.errors import ConfigError, DataError, nearest
from niblick.files import parse_json

BLOCK_BYTES = 2 << 20
"""What a block aims at: large enough that sending it costs nothing, small enough that dozens fit in memory."""

MAX_DOCUMENT_BYTES = 64 << 20
"""A document is held whole, several times over, while it is encoded; this keeps preparation under a gigabyte."""


def _and_compressed(suffixes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(suffix + packed for suffix in suffixes for packed in ("", *COMPRESSIONS))


LINES = _and_compressed((".jsonl", ".ndjson", ".json"))
TEXTS = _and_compressed(
    (".txt", ".text", ".md", ".rst", ".tex", ".html", ".py", ".c", ".h", ".cpp", ".js", ".ts", ".rs", ".go")
)
UNREAD = {
    (".csv", ".tsv"): "write its text column as JSON lines or Parquet first",
    (".warc", ".wet", ".wat"): "it is a web archive: take the text out of it first",
    (".tar", ".zip", ".tgz", ".7z"): "unpack it first",
    (".bin", ".npy", ".idx", ".npz"): "token shards go with their folder to `niblick data convert`",
    (".mds",): "it holds samples of MosaicML's streaming: write their texts as JSON lines first",
    (".pkl", ".pickle", ".pt"): "pickles of strangers are not opened",
}
"""What to do about forms of others."""
FORMS = (
    "FILE.jsonl, FILE.ndjson, FILE.json or FILE.txt (also .zst, .gz, .xz, .bz2), FILE.parquet, FILE.arrow, "
    "a directory of these, pydocs, pysource or challenge:docs"
)


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read: which key or column is the text, where text files are cut, how far a `.zst` looks back."""

    text_key: str = "text"
    """A key of the object, or a column; with dots for one inside another, as in `meta.text`."""
    separator: str = ""
    """What stands between the documents of a text file; empty where a file is one document."""
    max_window: int = MAX_WINDOW
    """The largest window of a `.zst`, in bytes: reading takes so much memory."""

    def __post_init__(self) -> None:
        if not self.text_key:
            raise ConfigError("the text key is empty; name the key or column of the text, as in --text-key content")
        if not MIN_WINDOW <= self.max_window <= MAX_WINDOW:
            raise ConfigError(
                f"the window is {self.max_window >> 20} MiB; give {MIN_WINDOW >> 20} to {MAX_WINDOW >> 20} MiB"
            )


AS_IT_IS = Reading()


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
    text_key: str = "text"

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.data)

    def documents(self) -> Iterator[Document]:
        """Parse the lines; blank ones are skipped. Raises DataError naming file and line."""
        default = source_name(self.path)
        for number, line in enumerate(self.data.split(b"\n"), self.first_line):
            if line and not line.isspace():
                yield _parse_line(line, f"{self.path}, line {number}", default, self.text_key)


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents that are already text."""

    items: list[Document]
    size: int

    def documents(self) -> Iterator[Document]:
        """Give the documents."""
        return iter(self.items)


Block = JsonLines | Texts


def read_documents(source: str, reading: Reading = AS_IT_IS) -> Iterator[Document]:
    """Stream the documents of `source` in their order. Raises DataError if anything is unreadable or there are none."""
    empty = True
    for block in read_blocks(source, reading):
        for document in block.documents():
            empty = False
            yield document
    if empty:
        raise no_documents(source)


def no_documents(source: str) -> DataError:
    """The error for a source that can be read and holds nothing."""
    return DataError(f"{source} holds no documents; give text as {FORMS}")


def count_documents(source: str, limit: int, reading: Reading = AS_IT_IS) -> int:
    """Count the documents of `source` without parsing them; stop at `limit`, so that the pass is short for any size."""
    count = 0
    for block in read_blocks(source, reading):
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
    for suffix in sorted((*LINES, *TEXTS, *TABLES, *COMPRESSIONS), key=len, reverse=True):
        if name.lower().endswith(suffix) and len(name) > len(suffix):
            name = name[: -len(suffix)]
            break
    return re.sub(r"[^\w.-]+", "_", name) or "data"


def read_blocks(source: str, reading: Reading = AS_IT_IS) -> Iterator[Block]:
    """Stream `source` as blocks of about BLOCK_BYTES (more only where one document is longer).

    Raises DataError if the source does not exist, has a form that niblick does not read, or is damaged.
    """
    if source in EMBEDDED:
        yield from grouped(Document(text, origin) for text, origin in embedded_documents(source))
        return
    path = Path(source)
    if path.is_dir():
        if (path / "dataset_dict.json").is_file():
            splits = ", ".join(sorted(each.name for each in path.iterdir() if each.is_dir()))
            raise DataError(f"{source} holds several splits of one dataset ({splits}); name one, as in {path}/train")
        files = _files_below(path)
        if not files:
            hint = next(filter(None, (_hint(each.name) for each in sorted(path.iterdir()))), "")
            raise DataError(f"the directory {source} holds no text files{hint}; give one with {FORMS}")
        yield from _merged(block for file, name in files for block in _file_blocks(file, name, reading))
    elif path.is_file():
        if not (_readable(path.name) or _taken_for_lines(path.name) or not path.suffix):
            raise DataError(f"{source} has a form that niblick does not read{_hint(path.name)}; give {FORMS}")
        yield from _file_blocks(path, source_name(source), reading)
    else:
        raise DataError(f"there is no source {source!r}{nearest(source, EMBEDDED)}; give {FORMS}")


def _readable(name: str) -> bool:
    """Whether the name says that a file holds documents; `RC_2021-01.zst`, as dumps are called, is JSON lines."""
    bare = name.lower().endswith(COMPRESSIONS) and name.count(".") == 1
    return bare or name.lower().endswith((*LINES, *TEXTS, *TABLES))


def _taken_for_lines(name: str) -> bool:
    """Whether a compressed file that the user named is read as JSON lines: nothing says that it is something else."""
    return name.lower().endswith(COMPRESSIONS) and not _hint(name) and not name.lower().endswith(TEXTS)


def _hint(name: str) -> str:
    """What to do about a file in a form of others; "" if there is nothing to say."""
    parts = [f".{part}" for part in name.lower().split(".")[1:]]
    return next((f" ({hint})" for suffixes, hint in UNREAD.items() if {*suffixes} & {*parts}), "")


def _files_below(directory: Path) -> list[tuple[Path, str]]:
    """All readable files below `directory`, sorted by their path inside it.

    Hidden ones (.git, .venv) are left out, and so is plain `.json`, which beside data mostly describes it.
    """
    found = []
    for root, folders, names in os.walk(directory):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        for name in names:
            described = name.lower().endswith(".json")
            cached = name.startswith("cache-") and "state.json" in names  # of the datasets library, no part of it
            if _readable(name) and not (name.startswith(".") or described or cached):
                path = Path(root, name)
                found.append((path, path.relative_to(directory).as_posix()))
    return sorted(found, key=lambda item: item[1])


def _file_blocks(path: Path, name: str, reading: Reading) -> Iterator[Block]:
    lowered = path.name.lower()
    try:
        if lowered.endswith(TABLES):
            yield from grouped(_table_documents(path, name, reading))
        elif lowered.endswith(LINES) or _taken_for_lines(lowered):
            with open(path, "rb") as file:
                yield from line_blocks(decompressed(file, str(path), reading.max_window), str(path), reading.text_key)
        else:
            yield from grouped(_text_documents(path, name, reading))
    except DAMAGED as error:
        raise DataError(f"{path} is damaged ({error}); fetch or compress it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def line_blocks(pieces: Iterator[bytes], path: str, text_key: str = "text") -> Iterator[JsonLines]:
    """Cut JSONL that comes in pieces of any size into blocks of whole lines; `path` names it in errors."""
    waiting: list[bytes] = []
    size, line = 0, 1
    for number, piece in enumerate(pieces):
        if number == 0:
            piece = piece.removeprefix(b"\xef\xbb\xbf")  # what some Windows programs put before JSON
            if piece.lstrip()[:1] == b"[":
                raise DataError(
                    f"{path}, line 1: found a JSON list; each line must be an object with a `{text_key}`: "
                    "`jq -c '.[]' FILE > FILE.jsonl` makes lines of a list"
                )
        end = piece.rfind(b"\n") + 1
        if end and size + end >= BLOCK_BYTES:
            data = b"".join([*waiting, piece[:end]])
            yield JsonLines(data, path, line, text_key)
            line += data.count(b"\n")
            waiting, size, piece = [], 0, piece[end:]
        waiting.append(piece)
        size += len(piece)
        if size > MAX_DOCUMENT_BYTES + BLOCK_BYTES:
            raise _too_long(f"{path}, after line {line - 1}")
    if size:
        yield JsonLines(b"".join(waiting), path, line, text_key)


def _too_long(where: str) -> DataError:
    return DataError(
        f"{where}: one document is longer than {MAX_DOCUMENT_BYTES >> 20} MiB; split it into documents, "
        "a text file by --separator"
    )


def _parse_line(line: bytes, where: str, default: str, key: str) -> Document:
    try:
        text = line.decode("utf-8")
        record = parse_json(text, lenient=True, pairs=False, most=MAX_DOCUMENT_BYTES + BLOCK_BYTES)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8") from error
    except ValueError as error:
        message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{where}: not a JSON object ({message}); each line must be one, with a `{key}`") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: found a JSON {_kind(record)}; each line must be an object with a `{key}`")
    body, source = _value(record, key), record.get("source")
    if not isinstance(body, str):
        found = ", ".join(map(repr, list(record)[:8])) or "nothing"
        raise DataError(f"{where}: found the keys {found}, but no string `{key}`; name the right key by --text-key")
    if source is not None and not isinstance(source, str):
        raise DataError(f"{where}: `source` is a {_kind(source)}; make it a string or leave it out")
    if "\\u" in text:  # the only way for half a surrogate pair to come in
        for value in (body, source or ""):
            _refuse_surrogates(value, where)
    return Document(body, source or default)


def _value(record: Any, key: str) -> Any:
    """What stands under `key`, or under its parts, one inside the other."""
    if key in record:
        return record[key]
    for step in key.split("."):
        record = record.get(step) if isinstance(record, dict) else None
    return record


def _kind(value: object) -> str:
    return "number" if isinstance(value, int | float) else type(value).__name__


def _refuse_surrogates(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise DataError(
            f"{where}: character {error.start + 1} is the lone surrogate \\u{code:04x}, which UTF-8 cannot hold; "
            "take it out or replace it by U+FFFD"
        ) from error


def _text_documents(path: Path, name: str, reading: Reading) -> Iterator[Document]:
    """The whole file as one document, or what stands between separators; a newline beside one belongs to it."""
    separator = reading.separator.encode()
    with open(path, "rb") as file:
        waiting, number, line = b"", 0, 1
        for piece in decompressed(file, str(path), reading.max_window):
            parts = (waiting + piece).split(separator) if separator else [waiting + piece]
            for part in parts[:-1]:
                line += part.count(b"\n")
                if text := _decoded(part.strip(b"\r\n"), f"{path}, the document that ends in line {line}"):
                    number += 1
                    yield Document(text, name)
            waiting = parts[-1]
            if len(waiting) > MAX_DOCUMENT_BYTES:
                raise _too_long(f"{path}, after line {line}")
    if not separator:
        yield Document(_decoded(waiting, str(path)), name)
    elif text := _decoded(waiting.strip(b"\r\n"), f"{path}, after line {line}"):
        yield Document(text, name)


def _table_documents(path: Path, name: str, reading: Reading) -> Iterator[Document]:
    for row, (text, source) in enumerate(table_texts(path, reading.text_key), 1):
        where = f"{path}, row {row}"
        if text is None:
            raise DataError(f"{where}: `{reading.text_key}` is empty (null); every row needs a text")
        if len(text) > MAX_DOCUMENT_BYTES:
            raise _too_long(where)
        text, source = (_decoded(value, where) if isinstance(value, bytes) else value for value in (text, source))
        yield Document(text, source or name)


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {error.start + 1} is not UTF-8; convert the file to UTF-8") from error


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
