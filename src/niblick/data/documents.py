"""Documents, streamed from the text a user has: JSON lines, tables, plain text, folders, or Python's own.

Reading is split in two so that it can be spread over processes: `read_blocks` moves raw bytes (a few megabytes at a
time, cut at line ends, never parsed), and a block turns itself into documents wherever it has been sent.
Everything that is wrong with the input is a DataError that names the file and the line.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from niblick.data.beginnings import HEAD_BYTES, of_text, refuse_pointer
from niblick.data.columns import TABLES, table_texts
from niblick.data.compressed import COMPRESSIONS, DAMAGED, MAX_WINDOW, MIN_WINDOW, decompressed, unpacking
from niblick.data.embedded import EMBEDDED, embedded_documents
from niblick.data.foreign_shards import converting, foreign_kind, is_dataset
from niblick.data.sheets import sheet_texts
from niblick.data.text_cuts import at_paragraphs
from niblick.data.text_folders import shown, text_files
from niblick.data.text_forms import FORMS, LINES, SHARDS, SHEETS, TEXTS, hint, readable, taken_for_lines
from niblick.errors import ConfigError, DataError, nearest
from niblick.files import parse_json

BLOCK_BYTES = 2 << 20
"""What a block aims at: large enough that sending it costs nothing, small enough that dozens fit in memory."""

MAX_DOCUMENT_BYTES = 64 << 20
"""A document is held whole, several times over, while it is encoded; this keeps preparation under a gigabyte."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read: which key or column is the text, where text files are cut, how far a `.zst` looks back."""

    text_key: str = "text"
    """A key of the object, or a column; with dots for one inside another, as in `meta.text`."""
    separator: str = ""
    """What stands between the documents of a text file; empty where a file is one document."""
    max_window: int = MAX_WINDOW
    """The largest window of a `.zst`, in bytes: reading takes so much memory."""
    files: tuple[str, ...] = ()
    """Patterns for the files of a folder that are read; empty where `text_folders` chooses them."""
    piece: int = 0
    """About how many bytes the documents of one text have, cut at the ends of paragraphs; 0 leaves it whole."""

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


def one_text(source: str, reading: Reading = AS_IT_IS) -> Path | None:
    """The file, where `source` is one text without separators: a text file, or a folder whose text is one."""
    if source in EMBEDDED or reading.separator:
        return None
    files = _files(source, reading)
    return files[0][0] if len(files) == 1 and _is_plain(files[0][0]) else None


def text_pieces(path: Path, reading: Reading) -> Iterator[bytes]:
    """The bytes of a text file, decompressed. Raises DataError if it cannot be read or is damaged."""
    with _named(path), open(path, "rb") as file:
        refuse_pointer(file.read(HEAD_BYTES), str(path))
        file.seek(0)
        packed = path.name.lower().endswith(COMPRESSIONS)
        yield from of_text(decompressed(file, str(path), reading.max_window), str(path), packed)


def refuse_unused(source: str, reading: Reading) -> None:
    """Raise DataError where `reading` says something that does nothing for the files of `source`."""
    ours = source in EMBEDDED or source.startswith("challenge:")
    plain = [] if ours else [_is_plain(path) for path, _ in _files(source, reading)]
    what = f"{source} is not read from files" if ours else f"{source} holds "
    for flag, given, used in (
        ("--separator", reading.separator, any(plain)),
        ("--text-key", reading.text_key != AS_IT_IS.text_key, not all(plain)),
        ("--files", reading.files, not ours and Path(source).is_dir()),
    ):
        if given and not used:
            kind = "" if ours else "no text files" if flag == "--separator" else "text files alone"
            kind = kind if flag != "--files" or ours else "one file"
            raise DataError(f"{what}{kind}, so {flag} would do nothing; leave it out")


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
    for suffix in sorted((*LINES, *SHEETS, *TEXTS, *TABLES, *COMPRESSIONS), key=len, reverse=True):
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
    files, uncut = _files(source, reading), list[Path]()
    yield from _merged(block for file, name in files for block in _file_blocks(file, shown(name), reading, uncut))
    if reading.separator and len(uncut) == sum(_is_plain(path) for path, _ in files) > 0:
        raise DataError(f"the separator {reading.separator!r} stands nowhere in {source}; give the one it has, or none")


def _files(source: str, reading: Reading) -> list[tuple[Path, str]]:
    """The files that are read, and the names of their documents' sources. Raises DataError if there are none."""
    path = Path(source)
    if path.is_dir():
        if (path / "dataset_dict.json").is_file():
            splits = ", ".join(sorted(each.name for each in path.iterdir() if each.is_dir()))
            raise DataError(f"{source} holds several splits of one dataset ({splits}); name one, as in {path}/train")
        found = text_files(path, reading.files)
        if not found.files:
            _refuse_shards(path)
            said = next((f" ({each})" for each in map(hint, found.left_out) if each), "")
            names = f": {', '.join(found.left_out[:3])}" if found.left_out else ""
            raise DataError(
                f"the directory {source} holds no text files{names}{said}; give one with {FORMS}, "
                "or name files by --files"
            )
        return found.files
    if path.is_file():
        if not (readable(path.name) or taken_for_lines(path.name) or not path.suffix):
            if path.suffix in SHARDS:
                _refuse_shards(path.parent)
            said = f" ({hint(path.name)})" if hint(path.name) else ""
            raise DataError(f"{source} has a form that niblick does not read{said}; give {FORMS}")
        return [(path, source_name(source))]
    raise DataError(f"there is no source {source!r}{nearest(source, EMBEDDED)}; give {FORMS}")


def _refuse_shards(folder: Path) -> None:
    if is_dataset(folder):
        raise DataError(f"{folder} holds token shards, and no text; {converting(folder)}")
    if foreign := foreign_kind(folder):
        raise foreign


def _is_plain(path: Path) -> bool:
    """Whether a file is text, and no lines or rows of documents."""
    low = path.name.lower()
    return not low.endswith((*LINES, *SHEETS, *TABLES)) and not taken_for_lines(low)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        raise DataError(f"{path} is damaged ({error}); fetch or compress it again") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _file_blocks(path: Path, name: str, reading: Reading, uncut: list[Path]) -> Iterator[Block]:
    """The blocks of one file; text files that a separator did not cut are put into `uncut`."""
    lowered = path.name.lower()
    with _named(path):
        if lowered.endswith(TABLES):
            yield from grouped(_table_documents(path, name, reading))
        elif lowered.endswith(SHEETS):
            yield from grouped(_sheet_documents(path, name, reading))
        elif _is_plain(path):
            yield from grouped(_text_documents(path, name, reading, uncut))
        else:
            yield from line_blocks(text_pieces(path, reading), str(path), reading.text_key)


def line_blocks(pieces: Iterator[bytes], path: str, text_key: str = "text") -> Iterator[JsonLines]:
    """Cut JSONL that comes in pieces of any size into blocks of whole lines; `path` names it in errors."""
    waiting: list[bytes] = []
    size, line = 0, 1
    for number, piece in enumerate(filter(None, pieces)):
        if number == 0:
            piece = piece.removeprefix(b"\xef\xbb\xbf")  # what some Windows programs put before JSON
            if piece.lstrip()[:1] == b"[":
                of_strings = piece.lstrip()[1:].lstrip()[:1] == b'"'
                raise DataError(
                    f"{path}, line 1: found a JSON list; each line must be an object with a `{text_key}`: "
                    f"`{_lines_of_list(path, of_strings, text_key)}` makes lines of a list"
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


def _lines_of_list(path: str, of_strings: bool, text_key: str) -> str:
    """The command that makes JSON lines of a file that is one list."""
    how, bare = unpacking(path)
    lines = shlex.quote(bare.removesuffix(".json").removesuffix(".jsonl") + "-lines.jsonl")
    each = f".[] | {{{json.dumps(text_key)}: .}}" if of_strings else ".[]"
    return f"{how} {shlex.quote(path)} | jq -c '{each}' > {lines}"


def _too_long(where: str, how: str = "split it into documents") -> DataError:
    return DataError(f"{where}: one document is longer than {MAX_DOCUMENT_BYTES >> 20} MiB; {how}")


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
        raise DataError(f"{where}: found {_kind(record)}; each line must be an object with a `{key}`")
    body, source = _value(record, key), record.get("source")
    if body is _NOTHING:
        found = ", ".join(map(repr, list(record)[:8])) or "nothing"
        raise DataError(f"{where}: found the keys {found}, but no `{key}`; name the key of the text by --text-key")
    if not isinstance(body, str):
        raise DataError(
            f"{where}: `{key}` is {_kind(body)}, where a string is expected; leave the line out, or name another key "
            "by --text-key"
        )
    if source is not None and not isinstance(source, str):
        raise DataError(f"{where}: `source` is {_kind(source)}; make it a string or leave it out")
    if "\\u" in text:  # the only way for half a surrogate pair to come in
        for value in (body, source or ""):
            _refuse_surrogates(value, where)
    return Document(body, source or default)


_NOTHING = object()


def _value(record: Any, key: str) -> Any:
    """What stands under `key`, or under its parts, one inside the other; _NOTHING if nothing does."""
    if key in record:
        return record[key]
    for step in key.split("."):
        record = record.get(step, _NOTHING) if isinstance(record, dict) else _NOTHING
    return record


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a JSON list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _refuse_surrogates(text: str, where: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise DataError(
            f"{where}: character {error.start + 1} is the lone surrogate \\u{code:04x}, which UTF-8 cannot hold; "
            "take it out or replace it by U+FFFD"
        ) from error


def _text_documents(path: Path, name: str, reading: Reading, uncut: list[Path]) -> Iterator[Document]:
    """The whole file as one document, its pieces, or what stands between separators with the newlines beside them."""
    pieces, separator = text_pieces(path, reading), reading.separator.encode()
    if reading.piece:
        before = 0
        for piece in at_paragraphs(pieces, reading.piece):
            yield Document(_decoded(piece, str(path), before), name)
            before += len(piece)
        return
    waiting, line, cuts = b"", 1, 0
    for piece in pieces:
        parts = (waiting + piece).split(separator) if separator else [waiting + piece]
        for part in parts[:-1]:
            line, cuts = line + part.count(b"\n"), cuts + 1
            if text := _decoded(part.strip(b"\r\n"), f"{path}, the document that ends in line {line}"):
                yield Document(text, name)
        waiting = parts[-1]
        if len(waiting) > MAX_DOCUMENT_BYTES:
            how = "cut it by --separator, or give that file alone, with --val-share and without --val-docs"
            raise _too_long(f"{path}, after line {line}", how)
    if not separator:
        yield Document(_decoded(waiting, str(path)), name)
        return
    if not cuts:
        uncut.append(path)
    if text := _decoded(waiting.strip(b"\r\n"), f"{path}, after line {line}"):
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


def _sheet_documents(path: Path, name: str, reading: Reading) -> Iterator[Document]:
    tabs = ".tsv" in path.name.lower()
    for text, source in sheet_texts(text_pieces(path, reading), str(path), reading.text_key, tabs, MAX_DOCUMENT_BYTES):
        yield Document(text, source or name)


def _decoded(data: bytes, where: str, before: int = 0) -> str:
    """`data` as text; `before` bytes of the file stand before it."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: byte {before + error.start + 1} is not UTF-8; convert the file to UTF-8") from error


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
