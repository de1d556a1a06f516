"""Rows of text that lie in no file: of a Python program, of the hub. They are written down once, then read as a file.

So they are fetched once however often they are read, memory stays small whatever their number is, and all that holds
for files holds for them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from niblick.data import blocks
from niblick.data.blocks import Document, named_source, no_text, too_long
from niblick.data.columns import arrow_rows, arrow_tables
from niblick.errors import DataError, kind_of

_TELL = 1 << 22
"""Bytes after which progress is told."""


@dataclass(frozen=True)
class Rows:
    """Text from elsewhere. `texts()` gives each row's text and its `source`, whatever stands there."""

    name: str
    """Begins the dataset's name."""
    source: str
    """What the manifest calls it."""
    texts: Callable[[], Iterator[tuple[object, object]]]
    revision: str = ""
    """The commit that they come from, where that is known."""
    folder: Path | None = None
    """The folder that they come from."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """What the manifest says of it besides."""
    kind: str = ""
    """What it is, where its source does not say that."""

    @property
    def called(self) -> str:
        """What messages call it."""
        return f"the {self.kind}" if self.kind else self.source


def python_rows(source: Iterable[object], key: str) -> Rows:
    """The rows of a Python object: strings, bytes that are UTF-8, mappings, or the columns of a table.

    Tables and columns are those of pyarrow, pandas, polars and whatever else speaks the Arrow C interface. `key` is the
    column of tables, and the key of mappings.
    """
    kind = type(source).__name__
    if hasattr(source, "__arrow_c_stream__") or hasattr(source, "__arrow_c_array__"):
        return Rows("python", "python", lambda: arrow_rows(arrow_tables(source, key), key, f"the {kind}"), kind=kind)
    return Rows("python", "python", lambda: (_of_item(item, key) for item in source), kind=kind)


def _of_item(item: object, key: str) -> tuple[object, object]:
    if isinstance(item, Document):
        return item.text, item.source
    if not isinstance(item, Mapping):
        return item, None
    value: object = item
    for step in [key] if key in item else key.split("."):
        if not isinstance(value, Mapping) or step not in value:
            raise DataError(
                f"a row has no key `{key}`; it has {', '.join(map(repr, item))[:200]}: name one as the text key"
            )
        value = value[step]
    return value, item.get("source")


@contextmanager
def written_down(
    rows: Rows, out: Path, most: int | None, skip_empty: bool, progress: Callable[[int, int], None] | None
) -> Iterator[Path]:
    """Give a file of JSON lines with the rows, which lies beside `out` and goes when the block ends.

    `most` documents are read. Raises DataError for a row that holds no text.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", suffix=".text", dir=out.parent) as folder:
            path = Path(folder, f"{rows.name}.jsonl")
            _write(rows, path, most, skip_empty, progress)
            yield path
    except OSError as error:
        raise DataError(f"cannot write the text of {rows.called} beside {out}: {error.strerror or error}") from error


def _write(
    rows: Rows, path: Path, most: int | None, skip_empty: bool, progress: Callable[[int, int], None] | None
) -> None:
    count = size = told = number = 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for number, (value, origin) in enumerate(rows.texts(), 1):
            text = _text(value, f"{rows.called}, row {number}", skip_empty)
            label = named_source(origin) or rows.name
            file.write(json.dumps({"text": text, "source": label.encode(errors="replace").decode()}) + "\n")
            count, size = count + bool(text or not skip_empty), size + len(text)
            if progress and size - told >= _TELL:
                progress(count, told := size)
            if count == most:
                return
    if not number:
        raise DataError(f"{rows.called} holds no documents; give one that has rows of text")


def _text(value: object, where: str, skip_empty: bool) -> str:
    """What stands in a row, as text."""
    if value is None or (isinstance(value, float) and value != value):  # pandas writes NaN where there is none
        if skip_empty:
            return ""
        raise no_text(where, "its text is null")
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{where}: byte {error.start + 1} is not UTF-8; decode it to a string first") from error
    if not isinstance(value, str):
        raise DataError(f"{where}: found {kind_of(value)}, where text is expected")
    if len(value) > blocks.MAX_DOCUMENT_BYTES:
        raise too_long(where)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: character {error.start + 1} is half a surrogate pair, which UTF-8 cannot hold"
        ) from error
    return str(value)
