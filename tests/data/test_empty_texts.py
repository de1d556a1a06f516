"""Documents without text: refused where it is null or absent, counted where it is empty, left out where asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from niblick.cli import app
from niblick.data import blocks
from niblick.data.check import check
from niblick.data.dataset import Dataset
from niblick.data.documents import Reading, count_documents, read_documents
from niblick.data.prepare import prepare
from niblick.errors import DataError

ROWS: list[object] = ["zero", None, "", "one", None, "two", "", "three", None]
TEXTS = [row for row in ROWS if row]


def lines(path: Path, rows: list[object] = ROWS) -> Path:
    """Null in one line, absent in the next."""
    keys = ("text", "other")
    path.write_text(
        "".join(json.dumps({keys[row is None and number % 2]: row}) + "\n" for number, row in enumerate(rows))
    )
    return path


def table(path: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"text": ROWS}), path)
    return path


def sheet(path: Path) -> Path:
    path.write_text("text,n\n" + "".join(f"{row or ''},{number}\n" for number, row in enumerate(ROWS)))
    return path


FORMS = pytest.mark.parametrize(("name", "write"), [("a.jsonl", lines), ("a.parquet", table), ("a.csv", sheet)])


@FORMS
@pytest.mark.parametrize("size", [1, 1 << 20])
def test_left_out_and_counted(
    tmp_path: Path, name: str, write: Callable[[Path], Path], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks of any size: the texts, their count, and for each split how many were left out before its documents."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
    source, reading = str(write(tmp_path / name)), Reading(skip_empty=True)
    assert [document.text for document in read_documents(source, reading)] == TEXTS
    assert count_documents(source, 99, reading) == len(TEXTS)
    manifest = prepare(source, "byte260", tmp_path / "out", val_docs=2, reading=reading)
    val, train = (manifest["niblick"]["splits"][split] for split in ("val", "train"))
    assert (val["documents"], val["skipped"] + train["skipped"], val["empty"], train["empty"]) == (2, 5, 0, 0)
    assert val["skipped"] >= 2
    assert manifest["niblick"]["reading"] == {"skip_empty": True}
    check(tmp_path / "out")
    manifest = prepare(source, "byte260", tmp_path / "some", val_docs=1, max_docs=2, reading=reading)
    assert sum(split["skipped"] for split in manifest["niblick"]["splits"].values()) == 2


@pytest.mark.parametrize(("name", "write"), [("a.jsonl", lines), ("a.parquet", table)])
def test_null_is_refused_by_default(tmp_path: Path, name: str, write: Callable[[Path], Path]) -> None:
    with pytest.raises(DataError, match=r"(line|row) 2: .*`text`.*leave such documents out by --skip-empty"):
        prepare(str(write(tmp_path / name)), "byte260", tmp_path / "out")


def test_said_at_the_end(tmp_path: Path) -> None:
    source = lines(tmp_path / "a.jsonl", ["one", "", "two", "", "three"])
    words = ["data", "prepare", f"--source={source}", "--val-docs=2"]
    told = CliRunner().invoke(app, [*words, f"--out={tmp_path / 'all'}"]).output
    assert "val: 1 of 2 documents are empty" in told and "train: 1 of 3 documents are empty" in told
    told = CliRunner().invoke(app, [*words, f"--out={tmp_path / 'some'}", "--skip-empty"]).output
    assert "left out: 2 documents whose text is null, absent or empty (--skip-empty)" in told
    assert Dataset.open(tmp_path / "some").manifest["num_docs"] == 3


def test_a_split_without_a_byte_is_refused(tmp_path: Path) -> None:
    source = lines(tmp_path / "a.jsonl", ["", "", "one", "two"])
    with pytest.raises(DataError, match=r"the 2 documents of the validation split of a\.jsonl are all empty"):
        prepare(str(source), "byte260", tmp_path / "out", val_docs=2)
    with pytest.raises(DataError, match="the 2 documents of the training split"):
        prepare(str(lines(source, ["one", "", ""])), "byte260", tmp_path / "out", val_docs=1)
    assert not (tmp_path / "out").exists()


def test_nothing_but_empty_ones(tmp_path: Path) -> None:
    source = lines(tmp_path / "a.jsonl", [None, "", None])
    for val_docs in (None, 1):
        with pytest.raises(DataError, match="all of its 3 were left out by --skip-empty; name the key"):
            prepare(str(source), "byte260", tmp_path / "out", val_docs=val_docs, reading=Reading(skip_empty=True))
    with pytest.raises(DataError, match="so --skip-empty would do nothing"):
        prepare("pydocs", "byte260", tmp_path / "out", reading=Reading(skip_empty=True))
