"""Text that a program has at hand: strings, mappings, tables and columns, prepared as files are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from niblick.data.dataset import Dataset
from niblick.data.documents import Reading
from niblick.data.prepare import prepare
from niblick.errors import DataError, NiblickError

TEXTS = [f"Document {number}: été, " + "words " * number for number in range(12)]


def text_hashes(manifest: dict[str, Any]) -> list[str]:
    return [split["text_hash"] for split in manifest["niblick"]["splits"].values()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("file")
    pyarrow.parquet.write_table(pyarrow.table({"text": TEXTS}), folder / "a.parquet")
    return text_hashes(prepare(str(folder / "a.parquet"), "byte260", folder / "data", val_docs=3))


def views() -> pyarrow.Array:
    return pyarrow.array(TEXTS, pyarrow.string_view())


FORMS: dict[str, Any] = {
    "list": lambda: TEXTS,
    "generator": lambda: (text for text in TEXTS),
    "bytes": lambda: [text.encode() for text in TEXTS],
    "mappings": lambda: ({"text": text, "source": "here"} for text in TEXTS),
    "Arrow table": lambda: pyarrow.table({"text": TEXTS, "source": ["here"] * 12}),
    "Arrow batches": lambda: pyarrow.RecordBatchReader.from_batches(
        pyarrow.schema([("text", pyarrow.string())]),
        [pyarrow.record_batch({"text": TEXTS[:5]}), pyarrow.record_batch({"text": TEXTS[5:]})],
    ),
    "string_view": views,
    "large strings in chunks": lambda: pyarrow.chunked_array(
        [pyarrow.array(TEXTS[:5], pyarrow.large_string()), pyarrow.array(TEXTS[5:], pyarrow.large_string())]
    ),
    "dictionary": lambda: pyarrow.array(TEXTS).dictionary_encode(),
    "dictionary in a table": lambda: pyarrow.table({"text": pyarrow.array(TEXTS).dictionary_encode()}),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_give_the_same_text(form: str, expected: list[str], tmp_path: Path) -> None:
    manifest = prepare(FORMS[form](), "byte260", tmp_path / "data", val_docs=3)
    assert text_hashes(manifest) == expected
    named = form in ("mappings", "Arrow table")
    assert manifest["niblick"]["sources"] == ["here" if named else "python"]
    assert Dataset.open(tmp_path / "data").val.lossless
    assert [path.name for path in tmp_path.iterdir()] == ["data"], "what was written down is gone"


@pytest.mark.parametrize("form", ["DataFrame", "Series", "categories"])
def test_pandas(form: str, expected: list[str], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas comes with niblick[hub]")
    frame = pandas.DataFrame({"number": range(12), "text": TEXTS})
    source = {"DataFrame": frame, "Series": frame["text"], "categories": frame["text"].astype("category")}[form]
    assert text_hashes(prepare(source, "byte260", tmp_path / "data", val_docs=3)) == expected


def test_the_same_again_does_nothing(tmp_path: Path) -> None:
    first = prepare(TEXTS, None, tmp_path / "data")
    assert prepare(iter(TEXTS), None, tmp_path / "data") == first
    with pytest.raises(DataError, match="the text is not the same any more"):
        prepare(TEXTS[1:], None, tmp_path / "data")
    with pytest.raises(DataError, match="val_docs was None and is 2"):
        prepare(TEXTS, None, tmp_path / "data", val_docs=2)


def test_caps_keys_and_vocabularies(tmp_path: Path) -> None:
    """A one-shot iterator is read no further than it must be, and trains a vocabulary all the same."""
    read = []

    def rows() -> Iterable[dict[str, Any]]:
        for text in TEXTS * 40:
            read.append(text)
            yield {"meta": {"body": text}}

    manifest = prepare(rows(), "sp:300", tmp_path / "data", max_docs=24, reading=Reading(text_key="meta.body"))
    assert manifest["num_docs"] == 24 == len(read)
    assert manifest["niblick"]["asked"]["reading"] == {"text_key": "meta.body"}


def test_documents_without_text(tmp_path: Path) -> None:
    rows = ["a b", None, "", float("nan"), "c d", "e f"]
    manifest = prepare(rows, None, tmp_path / "data", val_docs=1, max_docs=2, reading=Reading(skip_empty=True))
    splits = manifest["niblick"]["splits"]
    assert [splits[name]["documents"] for name in ("val", "train")] == [1, 1]
    assert sum(split["skipped"] for split in splits.values()) == 3


@pytest.mark.parametrize(
    ("source", "reading", "sentence"),
    [
        (["a", None], Reading(), "the list, row 2: its text is null; name another key"),
        (["a", 7], Reading(), "the list, row 2: found an int, where text is expected"),
        ([b"a", b"\xff"], Reading(), "the list, row 2"),
        (["a", "\ud800"], Reading(), "the list, row 2: character 1 is half a surrogate pair"),
        ([{"body": "a"}], Reading(), "a row has no key `text`; it has 'body'"),
        (
            {"text": "a"},
            Reading(),
            "source={'text': 'a'} does not fit: give a path, strings, mappings",
        ),
        (7, Reading(), "source=7 does not fit: give a path, strings, mappings"),
        (
            pyarrow.table({"body": ["a"], "n": [1]}),
            Reading(),
            "the Table has no column `text`; found the columns",
        ),
        (pyarrow.array([1, 2]), Reading(), "the Int64Array holds int64, where text is expected, in the column `text`"),
        (["a"], Reading(separator="x"), "--separator would do nothing"),
        ([], Reading(), "the list holds no documents"),
        (["a"], Reading(), "the list holds one document, so nothing would remain for training"),
    ],
)
def test_bad_rows(source: Any, reading: Reading, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(NiblickError) as raised:
        prepare(source, None, tmp_path / "data", reading=reading)
    assert sentence in str(raised.value)
    assert str(tmp_path) not in str(raised.value)
    assert not list(tmp_path.iterdir())
