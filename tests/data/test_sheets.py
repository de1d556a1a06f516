"""CSV and TSV: what Python's own writer wrote comes back, and what is no table is refused by line."""

from __future__ import annotations

import csv
import gzip
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

from niblick.data import compressed
from niblick.data.blocks import Document
from niblick.data.documents import Reading, count_documents, read_documents
from niblick.errors import DataError

TEXTS = ["plain", 'with "quotes", commas\tand tabs', "two\nlines\r\nand more", "", "naïve 日本語"]


@pytest.mark.parametrize("name", ["docs.csv", "docs.tsv", "docs.csv.gz"])
def test_as_it_was_written(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, "excel-tab" if "tsv" in name else "excel")
    writer.writerows([["id", "content", "source"], *([number, text, "s"] for number, text in enumerate(TEXTS))])
    data = b"\xef\xbb\xbf" + written.getvalue().encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    for piece in (1 << 20, 3):
        monkeypatch.setattr(compressed, "PIECE", piece)
        assert list(read_documents(str(path), Reading("content"))) == [Document(text, "s") for text in TEXTS]
    assert count_documents(str(path), 9, Reading("content")) == len(TEXTS)
    with pytest.raises(
        DataError, match="found the columns 'id', 'content', 'source', and no column `text`; name the one"
    ):
        list(read_documents(str(path)))


def test_long_fields(tmp_path: Path) -> None:
    path = tmp_path / "docs.csv"
    path.write_text("text\n" + "long " * 100_000 + "\n")
    assert [len(d.text) for d in read_documents(str(path))] == [500_000]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"id,text\n1,a,b\n", "line 2: a row of 3 fields, where the first line names 2 columns"),
        (
            b'text\nfine\n"never ends\nand\nmore\n',
            "line 3: a quoted field that begins there goes on to line 5, and there: no row of CSV",
        ),
        (b'text\n"a" b\n', "line 2: no row of CSV .*; write the file again with quotes"),
        (
            b"sep=;\ntext;n\na;1\n",
            "line 1: it names the separator, as Excel reads it, and no columns; take this line out",
        ),
        (b"text,n\ra,1\rb,2\r", r"lines end in carriage returns alone; `cat .*docs\.csv \| tr '\\r' '\\n' > NEW`"),
        (b'text,n\n"a", "b, c"\n', "a row of 3 fields, .* with no space before"),
        (b"text\ncaf\xe9\n", "line 2: byte 4 is not UTF-8"),
        (b"text,text\na,b\n", "several columns `text`"),
        (b"", "holds no documents"),
        (
            b"text;label\nsome, words;1\n",
            "line 1: its columns are separated by ';', where ',' are expected; write it again",
        ),
        (b"words|label\nsome|1\n", r"line 1: its columns are separated by '\|', where"),
        (b"text\tlabel\nsome\t1\n", r"separated by tabs, where ',' are expected; give it the suffix \.tsv"),
    ],
)
def test_no_tables(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "docs.csv"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        list(read_documents(str(path)))


def test_a_tsv_without_quotes(tmp_path: Path) -> None:
    """A quote that begins a text would take the rows that follow for one field, where another ends one."""
    path = tmp_path / "docs.tsv"
    path.write_text('text\tn\n"two\nlines"\t1\n"a\ttab"\t2\n"He said\t3\nnothing\t4\nat all"\t5\n')
    with pytest.raises(DataError, match="line 5: a quoted field that goes on to line 7 and holds tabs; if its quote"):
        list(read_documents(str(path)))
    path.write_text("text,n\nsome,1\n")
    with pytest.raises(DataError, match=r"separated by ',', where tabs are expected; give it the suffix \.csv"):
        list(read_documents(str(path)))


@pytest.mark.parametrize("name", ["docs.csv", "docs.tsv", "docs.tsv.gz"])
def test_what_stray_quotes_are_told_makes_lines_that_are_read(tmp_path: Path, name: str) -> None:
    between = "\t" if "tsv" in name else ","
    path = tmp_path / name
    data = f'text{between}n\nfine{between}1\n"so" he said{between}2\nNA{between}3\n'.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(DataError, match=r"line 3: no row of [CT]SV") as refused:
        list(read_documents(str(path)))
    command = re.search(r"`(.*)`", str(refused.value))
    assert command is not None
    subprocess.run(["bash", "-c", command[1].replace("python", sys.executable)], check=True)
    lines = path.with_name(f"{name.removesuffix('.gz')}.jsonl")
    assert [document.text for document in read_documents(str(lines))] == ["fine", '"so" he said', "NA"]
