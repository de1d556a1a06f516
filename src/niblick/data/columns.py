"""Text columns of Parquet and Arrow files, row by row in bounded memory, however the column is encoded.

`string`, `large_string`, `string_view`, dictionaries of them, and bytes that are UTF-8 give the same texts. A column
inside a struct is named with dots, as in `meta.text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from niblick.data.arrow_batches import check_batches, stream_batches
from niblick.data.beginnings import HEAD_BYTES, WEB_PAGE, is_web_page, refuse_pointer
from niblick.errors import DataError, kind_of, listed

BATCH_BYTES = 2 << 20
BATCH_ROWS = 256
"""A batch has no more rows, and about BATCH_BYTES of text where the file says how long its rows are."""

ARROW = (".arrow", ".arrows", ".ipc", ".feather")
TABLES = (".parquet", ".parq", ".pq", *ARROW)


def table_texts(path: Path, key: str) -> Iterator[tuple[Any, Any]]:
    """Give text and `source` (None where there is none) of each row; what is no text is given as it is.

    Raises DataError if there is no such text column, pyarrow is not installed, or the file cannot be read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise DataError(f"{path}: reading {path.suffix} needs pyarrow; run `pip install niblick[parquet]`") from error
    arrow = path.name.lower().endswith(ARROW)
    columns, kind = (_arrow_columns, "Arrow") if arrow else (_parquet_columns, "Parquet")
    _check_beginning(path, arrow)
    try:
        yield from _rows(columns(path, key))
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, and not of what stands in the file
        if "decrypt" in str(error).lower():
            raise _encrypted(path) from error
        raise DataError(f"{path} is no readable {kind} file ({error}); write or fetch it again") from error


def arrow_rows(tables: Iterable[Any], key: str, where: str) -> Iterator[tuple[object, object]]:
    """Give text and `source` of each row of Arrow tables or batches that have one schema, as `table_texts` does.

    Raises DataError if there is no such text column; `where` names what is read.
    """
    return _rows(_table_columns(tables, key, where))


def arrow_tables(source: Any, key: str) -> Iterator[Any]:
    """A table, or a column called `key`, of whatever speaks the Arrow C interface, as Arrow tables."""
    try:
        import pyarrow
    except ImportError as error:
        kind = type(source).__name__
        raise DataError(f"reading a {kind} needs pyarrow; run `pip install niblick[parquet]`") from error
    try:
        if not hasattr(source, "columns") and not hasattr(source, "schema"):
            yield pyarrow.table({key: pyarrow.chunked_array(source)})
        elif hasattr(source, "__arrow_c_stream__"):
            yield from pyarrow.RecordBatchReader.from_stream(source)
        else:
            yield pyarrow.record_batch(source)
    except (pyarrow.ArrowException, TypeError, ValueError) as error:
        raise DataError(f"{kind_of(source)} is no table and no column that Arrow reads ({error})") from error


def _table_columns(tables: Iterable[Any], key: str, where: str) -> Iterator[tuple[Any, Any]]:
    steps: list[str] = []
    sourced = False
    for table in tables:
        if not steps:
            steps = _steps(table.schema, key, where)
            sourced = key != "source" and _is_label(_field(table.schema, ["source"]))
        yield _column(table, steps), _column(table, ["source"]) if sourced else None


def _rows(columns: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    for texts, sources in columns:
        for row in range(len(texts)):
            yield texts[row].as_py(), sources[row].as_py() if sources is not None else None


def _parquet_columns(path: Path, key: str) -> Iterator[tuple[Any, Any]]:
    from pyarrow.parquet import ParquetFile

    # Both arguments are needed: by default pyarrow holds every row group that it has read until the file is closed.
    with ParquetFile(path, buffer_size=BATCH_BYTES, pre_buffer=False) as file:
        schema = file.schema_arrow
        steps = _steps(schema, key, path)
        names = [key, "source"] if key != "source" and _is_label(_field(schema, ["source"])) else [key]
        # Row groups one by one: a dictionary inside a struct cannot be read in batches across them.
        for number in range(file.num_row_groups):
            # A column that is described wrongly is an error where it is read, and ends the process where its
            # description is asked for: so it is read first.
            next(file.iter_batches(batch_size=1, row_groups=[number], columns=[key]), None)
            rows = _batch_rows(file, number, key)
            for batch in file.iter_batches(batch_size=rows, row_groups=[number], columns=names):
                yield _column(batch, steps), _column(batch, ["source"]) if len(names) > 1 else None


def _batch_rows(file: Any, number: int, key: str) -> int:
    group = file.metadata.row_group(number)
    for place in range(len(file.schema)):
        if file.schema.column(place).path == key and group.num_rows:
            size = group.column(place).total_uncompressed_size
            return max(1, min(BATCH_ROWS, BATCH_BYTES * group.num_rows // max(1, size)))
    return BATCH_ROWS


def _arrow_columns(path: Path, key: str) -> Iterator[tuple[Any, Any]]:
    import pyarrow

    with pyarrow.memory_map(str(path)) as source:
        whole = source.read(6) == b"ARROW1"  # the file form; datasets.save_to_disk writes the stream form
        check_batches(source, whole, str(path))
        source.seek(0)
        if whole:
            reader = pyarrow.ipc.open_file(source)
            schema = reader.schema
            batches: Iterator[Any] = map(reader.get_batch, range(reader.num_record_batches))
        else:
            schema, batches = pyarrow.ipc.open_stream(source).schema, stream_batches(source, str(path))
            source.seek(0)
        steps = _steps(schema, key, path)
        sourced = key != "source" and _is_label(_field(schema, ["source"]))
        for batch in batches:
            yield _column(batch, steps), _column(batch, ["source"]) if sourced else None


def _encrypted(path: Path) -> DataError:
    return DataError(f"{path} is encrypted Parquet, for which niblick takes no keys; write it again without encryption")


def _check_beginning(path: Path, arrow: bool) -> None:
    """Raise DataError for a file that begins as no Parquet and no Arrow file does."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
    refuse_pointer(head, str(path))
    begin = head[:6]
    if begin.startswith(b"FEA1"):
        raise DataError(f"{path} is Feather of version 1, which is no Arrow file; write it again with a newer pyarrow")
    old = 0 < int.from_bytes(begin[:4], "little") < 1 << 24  # streams once began with the length of their schema
    if begin.startswith(b"PARE"):
        raise _encrypted(path)
    right = begin == b"ARROW1" or begin[:4] == b"\xff" * 4 or old if arrow else begin[:4] == b"PAR1"
    if not right:
        kind = "Arrow" if arrow else "Parquet"
        todo = WEB_PAGE if is_web_page(head) else "give it the suffix of what it is"
        raise DataError(f"{path} is no {kind} file: it begins with {begin[:4]!r}; {todo}")


def _steps(schema: Any, key: str, where: Path | str) -> list[str]:
    """The names that lead to the text column; a column that has a dot in its own name comes first."""
    steps = [key] if key in schema.names else key.split(".")
    kind = _field(schema, steps)
    if schema.names.count(steps[0]) > 1:
        raise DataError(f"{where} has {schema.names.count(steps[0])} columns called `{steps[0]}`; rename one of them")
    if not _is_text(kind):
        leaves = _leaves(schema)
        found = listed([name if text else f"{name} ({kind})" for name, kind, text in leaves], str)
        wrong = "has no column" if kind is None else f"holds {str(kind)[:80]}, where text is expected, in the column"
        how = (
            "name the one with the text by --text-key"
            if any(text for _, _, text in leaves)
            else "none of them is text: write one string a row first"
        )
        raise DataError(f"{where} {wrong} `{key}`; found the columns {found}: {how}")
    return steps


def _field(schema: Any, steps: list[str]) -> Any:
    """The type of a column, or None."""
    import pyarrow

    kind = pyarrow.struct(list(schema))
    for step in steps:
        if not pyarrow.types.is_struct(kind) or kind.get_field_index(step) < 0:
            return None
        kind = kind.field(step).type
    return kind


def _leaves(schema: Any, before: str = "") -> list[tuple[str, str, bool]]:
    """The columns, those inside others too: name, kind, and whether it is text."""
    import pyarrow

    found: list[tuple[str, str, bool]] = []
    for field in schema:
        name, kind = before + field.name, field.type
        if pyarrow.types.is_struct(kind):
            found += _leaves(kind, f"{name}.")
        else:
            found.append((name, "list" if pyarrow.types.is_nested(kind) else str(kind), _is_text(kind)))
    return found


def _is_label(kind: Any) -> bool:
    """Whether a column can be a `source`: text, numbers, booleans."""
    from pyarrow import types

    value = kind.value_type if kind is not None and types.is_dictionary(kind) else kind
    plain = (types.is_integer, types.is_floating, types.is_boolean)
    return _is_text(kind) or (value is not None and any(is_(value) for is_ in plain))


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if kind is not None and types.is_dictionary(kind):
        kind = kind.value_type
    names = ("is_string", "is_large_string", "is_string_view", "is_binary", "is_large_binary", "is_binary_view")
    return kind is not None and any(getattr(types, name, lambda _: False)(kind) for name in names)


def _column(batch: Any, steps: list[str]) -> Any:
    """A column of a batch, or one inside it. Raises ArrowInvalid if it leads outside its buffers, or is not UTF-8."""
    from pyarrow import compute

    column = batch.column(steps[0])
    column.validate(full=True)  # pyarrow trusts offsets, views and indices: what leads outside is seen nowhere else
    for step in steps[1:]:
        column = compute.struct_field(column, step)
    return column
