"""Parquet and Arrow: however a text column is encoded or nested, the same texts come out, in bounded memory."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niblick.data import arrow_batches
from niblick.data.documents import Reading, read_documents
from niblick.data.prepare import prepare
from niblick.errors import DataError

pa = pytest.importorskip("pyarrow", reason="reading Parquet is an extra of niblick")
TEXTS = ["one", "two", "", "naïve 日本語", "one", "two"] * 4
KINDS = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.dictionary(pa.int32(), pa.string()),
    pa.dictionary(pa.int8(), pa.large_string()),
    pa.binary(),
    pa.large_binary(),
]


def column(kind: Any) -> Any:
    return pa.array([text.encode() for text in TEXTS] if "binary" in str(kind) else TEXTS).cast(kind)


def nested(array: Any) -> Any:
    inner = pa.StructArray.from_arrays([array, pa.array(range(len(array)))], ["text", "n"])
    return pa.StructArray.from_arrays([inner], ["doc"])


def write(path: Path, table: Any, rows: int | None = None) -> Path:
    from pyarrow import parquet

    parquet.write_table(table, path, row_group_size=rows)
    return path


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_encoding(tmp_path: Path, kind: Any) -> None:
    rows = None if "view" in str(kind) else 5  # pyarrow cannot cut views into row groups
    array = column(kind)
    path = write(tmp_path / "docs.parquet", pa.table({"text": array, "meta": nested(array)}), rows)
    assert [d.text for d in read_documents(str(path))] == TEXTS
    assert [d.text for d in read_documents(str(path), Reading("meta.doc.text"))] == TEXTS
    manifest = prepare(str(path), "byte260", tmp_path / "out", val_docs=2)
    plain = write(tmp_path / "plain.parquet", pa.table({"text": TEXTS}))
    expected = prepare(str(plain), "byte260", tmp_path / "plain", val_docs=2)
    for split in ("train", "val"):
        hashes = [m["niblick"]["splits"][split]["text_hash"] for m in (manifest, expected)]
        assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([1, 2, None], ["1", "2", "docs"]),
        ([1.5, float("nan"), None], ["1.5", "docs", "docs"]),
        ([True, False, None], ["true", "false", "docs"]),
        ([None, None, None], ["docs"] * 3),
        ([["a"], ["b"], None], ["docs"] * 3),
        ([b"caf\xe9", b"b", None], ["caf\\xe9", "b", "docs"]),
    ],
)
def test_sources_of_any_kind(tmp_path: Path, sources: list[object], expected: list[str]) -> None:
    """A `source` only groups scores: none of its forms refuses the text."""
    path = write(tmp_path / "docs.parquet", pa.table({"text": ["a", "b", "c"], "source": sources}))
    assert [document.source for document in read_documents(str(path))] == expected


def test_names_with_dots_and_missing_ones(tmp_path: Path) -> None:
    table = pa.table({"a.text": ["dotted"], "a": pa.array([{"text": "inside", "n": 1}])})
    path = write(tmp_path / "docs.parquet", table)
    assert [d.text for d in read_documents(str(path), Reading("a.text"))] == ["dotted"]
    with pytest.raises(
        DataError,
        match=r"holds int64, .* the column `a\.n`; found the columns a\.text, a\.text, a\.n \(int64\): .*--text-key",
    ):
        list(read_documents(str(path), Reading("a.n")))
    with pytest.raises(DataError, match=r"has no column `b\.text`"):
        list(read_documents(str(path), Reading("b.text")))
    path = write(tmp_path / "docs.parquet", pa.table({"a": pa.array([{"text": "x"}, None])}))
    with pytest.raises(DataError, match=r"row 2: `a\.text` is null; .* or leave such documents out by --skip-empty"):
        list(read_documents(str(path), Reading("a.text")))
    path = write(tmp_path / "docs.parquet", pa.table({"text": pa.array([b"fine", b"\xff"])}))
    with pytest.raises(DataError, match="row 2: byte 1 is not UTF-8"):
        list(read_documents(str(path)))


@pytest.mark.parametrize("form", ["stream", "file"])
def test_arrow(tmp_path: Path, form: str) -> None:
    """As `datasets.save_to_disk` writes it, and as Feather is."""
    table = pa.table({"text": column(KINDS[3]), "meta": nested(column(KINDS[1])), "source": ["s"] * len(TEXTS)})
    path = tmp_path / "data-00000-of-00001.arrow"
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(str(path), table.schema) as writer:
        for batch in table.to_batches(max_chunksize=5):
            writer.write(batch)
    (tmp_path / "dataset_info.json").write_text("{}")
    (tmp_path / "state.json").write_text("{}")
    (tmp_path / "cache-0123456789abcdef.arrow").write_bytes(path.read_bytes())
    assert [(d.text, d.source) for d in read_documents(str(tmp_path))] == [(text, "s") for text in TEXTS]
    assert [d.text for d in read_documents(str(path), Reading("meta.doc.text"))] == TEXTS
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="no readable Arrow file"):
        list(read_documents(str(path)))


def arrow(path: Path, table: Any, form: str, compression: str | None = None, rows: int = 5) -> Path:
    """Write a table as an Arrow stream or file, in batches of so many rows."""
    new = pa.ipc.new_stream if form == "stream" else pa.ipc.new_file
    with new(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        for batch in table.to_batches(max_chunksize=rows):
            writer.write(batch)
    return path


@pytest.mark.parametrize("form", ["stream", "file"])
@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
def test_a_cut_arrow_file_is_no_shorter_file(tmp_path: Path, form: str, compression: str | None) -> None:
    """Wherever it is cut, between two batches too; with dictionaries, and a last column that ends like a stream."""
    ends_alike = pa.array([True] * 8 + [False] * 16)
    table = pa.table({"text": column(KINDS[3]), "flag": ends_alike})
    path = arrow(tmp_path / "docs.arrow", table, form, compression)
    whole = path.read_bytes()
    assert [d.text for d in read_documents(str(path))] == TEXTS
    for end in range(8, len(whole), 8):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"is cut off: it ends without|no readable Arrow file|is no Arrow file"):
            list(read_documents(str(path)))
    if form == "stream":
        path.write_bytes(whole + whole)
        with pytest.raises(DataError, match=f"goes on for {len(whole):,} bytes behind the end"):
            list(read_documents(str(path)))


def test_a_stream_of_the_first_form_has_another_end(tmp_path: Path) -> None:
    """As pyarrow before 0.15 wrote it."""
    table = pa.table({"text": TEXTS} | {f"a column with a long name, number {number}": TEXTS for number in range(9)})
    path = tmp_path / "old.arrow"
    with pa.ipc.new_stream(str(path), table.schema, options=pa.ipc.IpcWriteOptions(use_legacy_format=True)) as writer:
        writer.write_table(table)
    assert [d.text for d in read_documents(str(path))] == TEXTS
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="cut off"):
        list(read_documents(str(path)))


@pytest.mark.parametrize("form", ["stream", "file"])
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_what_a_compressed_batch_declares_is_bounded(
    tmp_path: Path, form: str, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is seen before the batch is decompressed."""
    table = pa.table({"text": ["a" * 50_000] * 8, "number": range(8)})
    path = arrow(tmp_path / "docs.feather", table, form, compression, rows=4)
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(arrow_batches, "MOST_BATCH_BYTES", 300_000)
    assert len(list(read_documents(str(path)))) == 8
    monkeypatch.setattr(arrow_batches, "MOST_BATCH_BYTES", 199_999)
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"batch 1 holds 200,\d\d\d bytes when it is decompressed, and at most 199,999"):
        list(read_documents(str(path)))
    assert pa.total_allocated_bytes() - before < 100_000
    plain = arrow(tmp_path / "plain.feather", table, form)
    assert len(list(read_documents(str(plain)))) == 8


def moved(data: bytes, by: int) -> bytes:
    """An Arrow file whose batches stand elsewhere, as polars 2 lays them: only its footer says where."""
    start = len(data) - 10 - int.from_bytes(data[-10:-6], "little")
    footer = bytearray(data[start:-10])
    batches = arrow_batches._table(footer, arrow_batches._field(footer, arrow_batches._table(footer, 0), 3))
    for number in range(struct.unpack_from("<I", footer, batches)[0]):
        at = batches + 4 + 24 * number
        struct.pack_into("<q", footer, at, struct.unpack_from("<q", footer, at)[0] + by)
    return data[:8] + b"\xee" * by + data[8:start] + bytes(footer) + data[-10:]


def test_batches_are_found_by_the_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"text": ["a" * 50_000] * 8, "number": range(8)})
    path = arrow(tmp_path / "docs.arrow", table, "file", "zstd", rows=4)
    path.write_bytes(moved(path.read_bytes(), 64))
    assert len(list(read_documents(str(path)))) == 8
    monkeypatch.setattr(arrow_batches, "MOST_BATCH_BYTES", 199_999)
    with pytest.raises(DataError, match=r"batch 1 holds 200,\d\d\d bytes when it is decompressed"):
        list(read_documents(str(path)))


@pytest.mark.parametrize("open_footer", [True, False])
def test_encrypted_parquet(tmp_path: Path, open_footer: bool) -> None:
    encryption = pytest.importorskip("pyarrow.parquet.encryption")
    from pyarrow import parquet

    class Keys(encryption.KmsClient):
        def __init__(self, config: object) -> None:
            encryption.KmsClient.__init__(self)

        def wrap_key(self, key: bytes, name: str) -> bytes:
            return base64.b64encode(key)

    how = encryption.EncryptionConfiguration(footer_key="a", column_keys={"b": ["text"]}, plaintext_footer=open_footer)
    properties = encryption.CryptoFactory(Keys).file_encryption_properties(encryption.KmsConnectionConfig(), how)
    table = pa.table({"text": TEXTS, "n": range(len(TEXTS))})
    with parquet.ParquetWriter(tmp_path / "a.parquet", table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)
    with pytest.raises(DataError, match="is encrypted Parquet, for which niblick takes no keys"):
        list(read_documents(str(tmp_path / "a.parquet")))


def test_short_suffixes_and_columns_without_text(tmp_path: Path) -> None:
    for name in ("a.pq", "a.parq"):
        assert [d.text for d in read_documents(str(write(tmp_path / name, pa.table({"text": TEXTS}))))] == TEXTS
    path = write(tmp_path / "tokens.parquet", pa.table({"input_ids": [[1, 2]], "n": [1]}))
    with pytest.raises(
        DataError,
        match=r"found the columns input_ids \(list\), n \(int64\): none of them is text: write one string a row",
    ):
        list(read_documents(str(path)))


def test_columns_that_are_no_text(tmp_path: Path) -> None:
    for kind, array in {
        "extension<arrow.json>": pa.array(['"a"'], pa.json_()),
        "list<element: string>": pa.array([["a"]]),
        "null": pa.array([None]),
    }.items():
        path = write(tmp_path / "docs.parquet", pa.table({"text": array}))
        with pytest.raises(DataError, match=rf"holds {kind}, where text is expected, in the column `text`"):
            list(read_documents(str(path)))
    path = arrow(tmp_path / "twice.arrow", pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), "file")
    with pytest.raises(DataError, match="has 2 columns called `text`; rename one"):
        list(read_documents(str(path)))
    (tmp_path / "old.feather").write_bytes(b"FEA1" + b"\0" * 40)
    with pytest.raises(DataError, match="Feather of version 1"):
        list(read_documents(str(tmp_path / "old.feather")))
    (tmp_path / "text.arrow").write_bytes(b"some text")
    with pytest.raises(DataError, match="is no Arrow file: it begins with b'some'"):
        list(read_documents(str(tmp_path / "text.arrow")))


def test_splits_of_one_dataset_are_not_mixed(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "docs.txt").write_text("a")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    with pytest.raises(DataError, match=r"several splits of one dataset \(train, validation\); name one"):
        list(read_documents(str(tmp_path)))
    assert len(list(read_documents(str(tmp_path / "train")))) == 1


@pytest.mark.parametrize("rows", [None, 500])
def test_memory_is_bounded(tmp_path: Path, rows: int | None) -> None:
    """By the batch, not by the row group, nor by how many of them were read before."""
    texts = [f"{number:08} " * 600 for number in range(9000)]  # 48 MB
    path = write(tmp_path / "docs.parquet", pa.table({"text": texts}), rows)
    before, most, last = pa.total_allocated_bytes(), 0, ""
    for count, document in enumerate(read_documents(str(path))):
        last = document.text
        if count % 100 == 0:
            most = max(most, pa.total_allocated_bytes() - before)
    assert last == texts[-1]
    assert most < 20 << 20


@pytest.mark.parametrize("name", ["docs.arrow", "docs.parquet"])
def test_columns_are_validated_before_they_are_read(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that are no UTF-8 in a column of strings are what may be written down here of all that is refused."""
    from niblick.data import columns

    offsets, letters = (
        pa.py_buffer(np.array(values).tobytes()) for values in (np.int32([0, 2, 4]), np.uint8([255] * 4))
    )
    array = pa.Array.from_buffers(pa.string(), 2, [None, offsets, letters])
    for table, key in (
        (pa.table({"text": array}), "text"),
        (pa.table({"text": ["a", "b"], "source": array}), "text"),
        (pa.table({"meta": pa.StructArray.from_arrays([array], ["text"])}), "meta.text"),
        (pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0, 1]), array)}), "text"),
    ):
        path = tmp_path / name
        if name.endswith("parquet"):
            write(path, table)
        else:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
        with pytest.raises(
            DataError, match=r"is no readable (Arrow|Parquet) file \(.*UTF8.*\); write or fetch it again"
        ):
            list(read_documents(str(path), Reading(key)))

    class Wrong:
        def validate(self, full: bool) -> None:
            assert full
            raise pa.ArrowInvalid("offset 9 leads outside")

    class Batch:
        def column(self, name: str) -> Wrong:
            return Wrong()

    with pytest.raises(pa.ArrowInvalid, match="leads outside"):
        columns._column(Batch(), ["text"])


def test_a_parquet_column_is_read_before_its_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from niblick.data import columns

    def asked(*_: Any) -> int:
        raise AssertionError("what cannot be read was asked how large it is")

    path = write(tmp_path / "docs.parquet", pa.table({"text": TEXTS}))
    data = bytearray(path.read_bytes())
    data[4:24] = bytes([255]) * 20  # the header of the first page
    path.write_bytes(data)
    monkeypatch.setattr(columns, "_batch_rows", asked)
    with pytest.raises(DataError, match="is no readable Parquet file"):
        list(read_documents(str(path)))
