"""Documents, streamed from the text a user has: JSON lines, tables, plain text, folders, or Python's own.

Reading is split in two so that it can be spread over processes: `read_blocks` moves raw bytes (a few megabytes at a
time, cut at line ends, never parsed), and a block turns itself into documents wherever it has been sent.
Everything that is wrong with the input is a DataError that names the file and the line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from niblick.data import blocks
from niblick.data.beginnings import HEAD_BYTES, not_utf8, of_text, refuse_pointer, what_to_do
from niblick.data.blocks import Document, Texts, grouped, named_source, no_text, too_long
from niblick.data.columns import TABLES, table_texts
from niblick.data.compressed import COMPRESSIONS, DAMAGED, MAX_WINDOW, MIN_WINDOW, decompressed
from niblick.data.embedded import EMBEDDED, embedded_documents
from niblick.data.foreign_shards import converting, foreign_kind, is_dataset
from niblick.data.json_lines import JsonLines, line_blocks
from niblick.data.sheets import sheet_texts
from niblick.data.text_cuts import at_paragraphs
from niblick.data.text_folders import shown, text_files
from niblick.data.text_forms import FORMS, LINES, SHARDS, SHEETS, hint, readable, source_name, taken_for_lines
from niblick.errors import ConfigError, DataError, nearest


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
    skip_empty: bool = False
    """Whether documents without text (null, absent or empty) are left out and counted."""

    def __post_init__(self) -> None:
        if not self.text_key:
            raise ConfigError("the text key is empty; name the key or column of the text, as in --text-key content")
        if not MIN_WINDOW <= self.max_window <= MAX_WINDOW:
            raise ConfigError(
                f"the window is {self.max_window >> 20} MiB; give {MIN_WINDOW >> 20} to {MAX_WINDOW >> 20} MiB"
            )

    def record(self) -> dict[str, object]:
        """What a manifest keeps: all that is not as it is by default."""
        return {
            field.name: [*value] if isinstance(value, tuple) else value
            for field in fields(self)
            if (value := getattr(self, field.name)) != field.default
        }

    @classmethod
    def of_record(cls, record: object) -> Reading:
        """What `record` gave. Raises DataError for what it never gives."""
        try:
            assert isinstance(record, dict)
            given: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
            assert all(isinstance(given.get(field.name, field.default), type(field.default)) for field in fields(cls))
            return cls(**given)
        except (AssertionError, TypeError, ConfigError) as error:
            raise DataError(
                f"the manifest says {str(record)[:80]!r} of how its text was read, which is of no known form; prepare "
                "the data again"
            ) from error


AS_IT_IS = Reading()

Block = JsonLines | Texts


def read_documents(source: str, reading: Reading = AS_IT_IS) -> Iterator[Document]:
    """Stream the documents of `source` in their order. Raises DataError if anything is unreadable or there are none."""
    given = skipped = 0
    for block in read_blocks(source, reading):
        documents = block.read()
        yield from documents.kept
        given, skipped = given + len(documents.kept), skipped + len(documents.skipped)
    if not given:
        raise no_documents(source, skipped)


def no_documents(source: str, skipped: int = 0) -> DataError:
    """The error for a source that can be read and holds nothing, or nothing but what was left out."""
    if skipped:
        return DataError(
            f"{source} holds no document with text: all of its {skipped:,} were left out by --skip-empty; name the key "
            "or column of the text by --text-key"
        )
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
        ("--skip-empty", reading.skip_empty, not ours),
    ):
        if given and not used:
            kind = "" if ours else "no text files" if flag == "--separator" else "text files alone"
            kind = kind if flag != "--files" or ours else "one file"
            raise DataError(f"{what}{kind}, so {flag} would do nothing; leave it out")


def count_documents(source: str, limit: int, reading: Reading = AS_IT_IS) -> int:
    """Count the documents of `source`; stop at `limit`, so that the pass is short for any size.

    Lines are parsed for it only where those without text do not count.
    """
    count = 0
    for block in read_blocks(source, reading):
        if reading.skip_empty:
            count += len(block.read().kept)
        elif isinstance(block, JsonLines):
            count += sum(1 for line in block.data.split(b"\n") if line and not line.isspace())
        else:
            count += len(block.items)
        if count >= limit:
            return limit
    return count


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
        _refuse_logged(path)
        if (path / "dataset_dict.json").is_file():
            splits = ", ".join(sorted(each.name for each in path.iterdir() if each.is_dir()))
            raise DataError(f"{source} holds several splits of one dataset ({splits}); name one, as in {path}/train")
        found = text_files(path, reading.files)
        if not found.files:
            _refuse_shards(path)
            hints = [said for name in [*found.left_out, path.name] if (said := hint(name))]
            if any(name.lower().endswith(".json") for name in found.left_out):
                hints.append("plain .json is read where it is named: --files '*.json'")
            said = f" ({hints[0]})" if hints else ""
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
            with _named(path):
                said = hint(path.name) or what_to_do(path)
            raise DataError(f"{source} has a form that niblick does not read ({said}); give {FORMS}")
        return [(path, source_name(source))]
    raise DataError(f"there is no source {source!r}{nearest(source, EMBEDDED)}; give {FORMS}")


def _refuse_logged(folder: Path) -> None:
    """Raise DataError for a table some of whose files may be deleted: a log beside them says which count."""
    iceberg = any((folder / "metadata").glob("*.metadata.json"))
    if iceberg or (folder / "_delta_log").is_dir():
        kind = "an Iceberg" if iceberg else "a Delta"
        raise DataError(
            f"{folder} is {kind} table, whose log says which of its files count; write what it holds as Parquet in "
            "another folder first"
        )


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
        if not lowered.endswith((*TABLES, *SHEETS)) and not _is_plain(path):
            yield from line_blocks(text_pieces(path, reading), str(path), reading.text_key, reading.skip_empty)
            return
        if lowered.endswith(TABLES):
            documents = _table_documents(path, name, reading)
        elif lowered.endswith(SHEETS):
            documents = _sheet_documents(path, name, reading)
        else:
            documents = _text_documents(path, name, reading, uncut)
        yield from grouped(documents, reading.skip_empty)


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
        if len(waiting) > blocks.MAX_DOCUMENT_BYTES:
            how = "cut it by --separator, or give that file alone, with --val-share and without --val-docs"
            raise too_long(f"{path}, after line {line}", how)
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
        if text is None and not reading.skip_empty:
            raise no_text(where, f"`{reading.text_key}` is null")
        text = text or ""
        if len(text) > blocks.MAX_DOCUMENT_BYTES:
            raise too_long(where)
        yield Document(_decoded(text, where) if isinstance(text, bytes) else text, named_source(source) or name)


def _sheet_documents(path: Path, name: str, reading: Reading) -> Iterator[Document]:
    tabs = ".tsv" in path.name.lower()
    pieces, most = text_pieces(path, reading), blocks.MAX_DOCUMENT_BYTES
    for text, source in sheet_texts(pieces, str(path), reading.text_key, tabs, most):
        yield Document(text, source or name)


def _decoded(data: bytes, where: str, before: int = 0) -> str:
    """`data` as text; `before` bytes of the file stand before it."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(where, before + error.start) from error


def _merged(parts: Iterator[Block]) -> Iterator[Block]:
    """Join small text blocks, so that a directory of many files makes few of them; the order stays."""
    items: list[Document] = []
    size, skip_empty = 0, False
    for block in parts:
        if isinstance(block, Texts):
            items += block.items
            size, skip_empty = size + block.size, block.skip_empty
        if items and (size >= blocks.BLOCK_BYTES or isinstance(block, JsonLines)):
            yield Texts(items, size, skip_empty)
            items, size = [], 0
        if isinstance(block, JsonLines):
            yield block
    if items:
        yield Texts(items, size, skip_empty)
