"""CSV and TSV as rows of text, streamed: fields in quotes may hold line ends, as spreadsheets and pandas write them."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterable, Iterator

from niblick.data.beginnings import not_utf8
from niblick.data.compressed import unpacking
from niblick.errors import DataError, listed


def sheet_texts(
    pieces: Iterable[bytes], path: str, key: str, tabs: bool, longest: int
) -> Iterator[tuple[str, str | None]]:
    """Give the text and the `source` (None where there is none) of each row; the first line names the columns.

    Fields are separated by tabs, or else by commas, and hold `longest` bytes at most. Raises DataError for a file
    without such a column, with rows of other lengths, with quotes out of place, or not in UTF-8.
    """
    csv.field_size_limit(longest)  # the module's own limit is 128 KiB a field
    rows = csv.reader(_lines(pieces, path, longest), delimiter="\t" if tabs else ",", strict=True)
    begin = 1
    try:
        names = next(rows, None)
        if names is None:
            return
        _refuse_other_separator(names, path, key, tabs)
        column, origin = _column(names, path, key), names.index("source") if names.count("source") == 1 else None
        begin = rows.line_num + 1
        for row in rows:
            if tabs and any("\t" in field and "\n" in field for field in row):
                raise DataError(
                    f"{path}, line {begin}: a quoted field that goes on to line {rows.line_num} and holds tabs; if its "
                    "quote is part of the text, the file has no quoted fields: write it again with quotes around "
                    "fields and doubled inside them, or as JSON lines"
                )
            begin = rows.line_num + 1
            if len(row) == len(names):
                yield row[column], row[origin] if origin is not None and origin != column else None
            elif row:
                raise DataError(
                    f"{path}, line {rows.line_num}: a row of {len(row)} fields, where the first line names "
                    f"{len(names)} columns; put fields that hold the separator into quotes, with no space before"
                )
    except csv.Error as error:
        raise _stray_quote(path, begin, rows.line_num, tabs, str(error)) from error


def _stray_quote(path: str, begin: int, line: int, tabs: bool, error: str) -> DataError:
    """What to say of a row that begins in line `begin` and cannot be read at `line`: a quote stands where none may."""
    where = f"{path}, line {begin}"
    if "new-line character" in error:
        return DataError(
            f"{where}: its lines end in carriage returns alone; `{unpacking(path)[0]} {shlex.quote(path)} | "
            "tr '\\r' '\\n' > NEW` writes line ends"
        )
    if line > begin:
        where += f": a quoted field that begins there goes on to line {line}, and there"
    how, bare = unpacking(path)
    lines = shlex.quote(f"{bare}.jsonl")
    separator = ', delimiter="\\t"' if tabs else ""
    rows = f"csv.DictReader(sys.stdin, quoting=csv.QUOTE_NONE{separator})"
    return DataError(
        f"{where}: no row of {'TSV' if tabs else 'CSV'} ({error}); write the file again with quotes around fields and "
        "doubled inside them; or, where its quotes are text and stand around no field: "
        f"`{how} {shlex.quote(path)} | python -c 'import csv, json, sys; "
        f"[print(json.dumps(row)) for row in {rows}]' > {lines}`"
    )


def _refuse_other_separator(names: list[str], path: str, key: str, tabs: bool) -> None:
    """Raise DataError where the first line is one name, and not the column's, with another separator in it.

    Or where it names a separator, as Excel reads it.
    """
    if names[0].startswith("sep=") and key not in names:
        raise DataError(
            f"{path}, line 1: it names the separator, as Excel reads it, and no columns; take this line out"
        )
    if len(names) != 1 or names[0] == key:
        return
    for separator, called, suffix in ((";", "';'", ""), ("|", "'|'", ""), ("\t", "tabs", ".tsv"), (",", "','", ".csv")):
        if separator in names[0]:
            own = "tabs" if tabs else "','"
            how = f"give it the suffix {suffix}" if suffix else "write it again with commas as .csv, or as JSON lines"
            raise DataError(f"{path}, line 1: its columns are separated by {called}, where {own} are expected; {how}")


def _column(names: list[str], path: str, key: str) -> int:
    if names.count(key) != 1:
        several = "several columns" if key in names else "no column"
        raise DataError(
            f"{path}, line 1: found the columns {listed(names)}, and {several} `{key}`; name the one of the text by "
            "--text-key, and where the first line is a row already, put one of names before it"
        )
    return names.index(key)


def _lines(pieces: Iterable[bytes], path: str, longest: int) -> Iterator[str]:
    """Lines with their ends, decoded one by one."""
    waiting, number = b"", 0
    for piece in pieces:
        *lines, waiting = (waiting + piece).split(b"\n")
        for line in lines:
            number += 1
            yield _text(line + b"\n", path, number)
        if len(waiting) > longest:
            raise DataError(f"{path}, line {number + 1}: longer than {longest >> 20} MiB; split it into documents")
    if waiting:
        yield _text(waiting, path, number + 1)


def _text(line: bytes, path: str, number: int) -> str:
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")  # what spreadsheets put before the first name
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(f"{path}, line {number}", error.start) from error
