"""JSON lines: cut into blocks at line ends without being parsed, and parsed line by line where a block arrives."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from niblick.data import blocks
from niblick.data.beginnings import WEB_PAGE, is_web_page, not_utf8
from niblick.data.blocks import Document, Documents, named_source, no_text, sorted_out, too_long
from niblick.data.compressed import unpacking
from niblick.data.text_forms import is_bare, source_name
from niblick.errors import DataError, listed
from niblick.files import parse_json

_NOTHING = object()


@dataclass(frozen=True, slots=True)
class JsonLines:
    """Whole lines of a JSONL file, not yet parsed; `first_line` counts from 1."""

    data: bytes
    path: str
    first_line: int
    text_key: str = "text"
    skip_empty: bool = False

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return len(self.data)

    def read(self) -> Documents:
        """Parse the lines; blank ones are passed over. Raises DataError naming file and line."""
        return sorted_out(self._documents(), self.skip_empty)

    def _documents(self) -> Iterator[Document]:
        default = source_name(self.path)
        for number, line in enumerate(self.data.split(b"\n"), self.first_line):
            if plain := _plain(line, self.text_key, default):
                yield plain
            elif line and not line.isspace():
                yield self._document(line, f"{self.path}, line {number}", default)

    def _document(self, line: bytes, where: str, default: str) -> Document:
        key, (record, escaped) = self.text_key, _record(line, where, self)
        body = _value(record, key)
        if body is _NOTHING or body is None:
            if self.skip_empty:
                return Document("", default)
            inside = _lists_inside(record, key, self.path)
            found = f"found the keys {listed(record) or 'nothing'}, but no `{key}`{inside}"
            raise no_text(where, f"`{key}` is null" if body is None else found)
        if not isinstance(body, str):
            if isinstance(body, dict) and next(iter(body), "") == "0":
                raise DataError(
                    f"{where}: `{key}` is the column of a whole table, as pandas writes one by default; write a row a "
                    'line: `to_json(PATH, orient="records", lines=True)`'
                )
            raise DataError(
                f"{where}: `{key}` is {_kind(body)}, where a string is expected; leave the line out, or name another "
                "key by --text-key"
            )
        source = named_source(record.get("source"))
        if escaped:  # the only way for half a surrogate pair to come in
            for value in (body, source or ""):
                _refuse_surrogates(value, where)
        return Document(body, source or default)


def line_blocks(
    pieces: Iterator[bytes], path: str, text_key: str = "text", skip_empty: bool = False
) -> Iterator[JsonLines]:
    """Cut JSONL that comes in pieces of any size into blocks of whole lines; `path` names it in errors."""
    waiting: list[bytes] = []
    size, line = 0, 1
    for number, piece in enumerate(filter(None, pieces)):
        if number == 0:
            piece = piece.removeprefix(b"\xef\xbb\xbf")  # what some Windows programs put before JSON
            _refuse_list(piece, path, text_key)
        end = piece.rfind(b"\n") + 1
        if end and size + end >= blocks.BLOCK_BYTES:
            data = b"".join([*waiting, piece[:end]])
            yield JsonLines(data, path, line, text_key, skip_empty)
            line += data.count(b"\n")
            waiting, size, piece = [], 0, piece[end:]
        waiting.append(piece)
        size += len(piece)
        if size > blocks.MAX_DOCUMENT_BYTES + blocks.BLOCK_BYTES:
            raise too_long(f"{path}, after line {line - 1}")
    if size:
        yield JsonLines(b"".join(waiting), path, line, text_key, skip_empty)


def _refuse_list(begin: bytes, path: str, text_key: str) -> None:
    """Raise DataError where a file is one JSON list, with the command that makes JSON lines of it."""
    if begin.lstrip()[:1] != b"[":
        return
    of_strings = begin.lstrip()[1:].lstrip()[:1] == b'"'
    each = f".[] | {{{json.dumps(text_key)}: .}}" if of_strings else ".[]"
    raise DataError(
        f"{path}, line 1: found a JSON list; each line must be an object with a `{text_key}`: "
        f"`{_by_jq(path, each)}` makes lines of a list"
    )


def _by_jq(path: str, each: str) -> str:
    """The command that writes what jq makes of a file into another."""
    how, bare = unpacking(path)
    return f"{how} {shlex.quote(path)} | jq -c {shlex.quote(each)} > {shlex.quote(_lines_file(bare))}"


def _lines_file(bare: str) -> str:
    return bare.removesuffix(".json").removesuffix(".jsonl") + "-lines.jsonl"


def _on_lines(line: bytes, message: str, path: str) -> str:
    """What to do about objects that go on over several lines, or share one."""
    line = line.strip()
    if is_web_page(line):
        return f"; {WEB_PAGE}"
    if line.endswith(b"},"):
        how, bare = unpacking(path)
        new = shlex.quote(_lines_file(bare))
        return f"; `{how} {shlex.quote(path)} | sed 's/,[[:space:]]*$//' > {new}` takes the comma off each line"
    several = line.startswith(b"{") and message == "Extra data"
    if several or line == b"{":
        return f"; `{_by_jq(path, '.')}` writes one a line, where {'several share one' if several else 'one goes on'}"
    return ""


def _lists_inside(record: Mapping[str, object], key: str, path: str) -> str:
    """What to do where the objects with a text stand in a list inside of one."""
    for name, value in record.items():
        if isinstance(value, list) and value and isinstance(value[0], dict) and _value(value[0], key) is not _NOTHING:
            how = _by_jq(path, f".[{json.dumps(name)}][]")
            return f", which is in the list {listed([name])}: `{how}` makes lines of it"
    return ""


def _plain(line: bytes, key: str, default: str) -> Document | None:
    """Read an object whose text and source are strings, which most lines are; None for what needs a closer look."""
    from pydantic_core import from_json

    try:
        record = from_json(line)
    except ValueError:
        return None
    if type(record) is not dict or type(text := record.get(key)) is not str:
        return None
    source = record.get("source", default)
    return Document(text, source or default) if type(source) is str else None


def _record(line: bytes, where: str, block: JsonLines) -> tuple[dict[str, Any], bool]:
    """The object of a line, and whether it holds escapes."""
    try:
        text = line.decode("utf-8")
        record = parse_json(text, lenient=True, pairs=False, most=blocks.MAX_DOCUMENT_BYTES + blocks.BLOCK_BYTES)
    except UnicodeDecodeError as error:
        raise not_utf8(where, error.start) from error
    except ValueError as error:
        message = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(
            f"{where}: not a JSON object ({message}); each line must be one, with a `{block.text_key}`"
            f"{_on_lines(line, message, block.path)}{_other_forms(block.path)}"
        ) from error
    if not isinstance(record, dict):
        how = ""
        if isinstance(record, str):
            how = f"; `{_by_jq(block.path, f'{{{json.dumps(block.text_key)}: .}}')}` makes objects of them"
        raise DataError(
            f"{where}: found {_kind(record)}; each line must be an object with a `{block.text_key}`{how}"
            f"{_other_forms(block.path)}"
        )
    return record, "\\u" in text


def _other_forms(path: str) -> str:
    """What else a file may be whose name says nothing but how it is compressed."""
    name = Path(path).name
    if not is_bare(name):
        return ""
    stem, dot, suffix = name.rpartition(".")
    end = f"{dot}{suffix}"
    return f"; a file called so is taken for JSON lines: call a text {stem}.txt{end}, a table {stem}.csv{end}"


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
