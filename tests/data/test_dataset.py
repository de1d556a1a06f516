"""Opening datasets: ours, the challenge's own, and what is missing or damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niblick.data.check import check
from niblick.data.dataset import Dataset, Split
from niblick.data.index import RECORD
from niblick.data.prepare import prepare
from niblick.data.shards import file_hash
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import DataError

WriteJsonl = Callable[[Path, Iterable[str]], Path]


@pytest.fixture
def out(tmp_path: Path, write_jsonl: WriteJsonl) -> Path:
    """Twenty documents, the first four held out, in shards of 50 tokens."""
    source = write_jsonl(tmp_path / "docs.jsonl", [f"document number {i}, and so on" for i in range(20)])
    prepare(str(source), "byte260", tmp_path / "out", val_docs=4, shard_tokens=50)
    return tmp_path / "out"


@given(lengths=st.lists(st.integers(1, 10), min_size=1, max_size=6), data=st.data())
def test_slice_across_shards(lengths: list[int], data: st.DataObject) -> None:
    whole = np.arange(sum(lengths), dtype=np.uint16)
    split = Split("train", [Path("x")] * len(lengths), np.split(whole, np.cumsum(lengths)[:-1]))
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - start))
    assert split.tokens == len(whole)
    assert np.array_equal(split.slice(start, length), whole[start : start + length])
    for wrong in ((-1, 1), (start, len(whole) - start + 1), (start, -1)):
        with pytest.raises(DataError, match=f"it has {len(whole)}"):
            split.slice(*wrong)


def test_open_from_either_directory(out: Path) -> None:
    for path in (out, out / "datasets" / "docs_byte260"):
        dataset = Dataset.open(path)
        assert dataset.directory.name == "docs_byte260"
        assert dataset.tokenizer.name == "byte260"
        assert dataset.val.index is not None
        assert len(dataset.val.index) == 4
        assert dataset.val.text_hash


def test_shards_alone(out: Path, tmp_path: Path) -> None:
    """As the challenge gives them: no manifest of ours, no index."""
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in (out / "datasets" / "docs_byte260").glob("*.bin"):
        shutil.copy(path, bare)
    with pytest.raises(DataError, match="which tokenizer"):
        Dataset.open(bare)
    dataset = Dataset.open(bare, ByteTokenizer())
    assert dataset.manifest == {}
    assert dataset.val.index is None
    assert dataset.val.text_hash is None
    assert check(bare, ByteTokenizer())["splits"]["train"]["documents"] == 16


def test_missing_data_says_how_to_make_some(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(DataError, match="niblick data prepare --source pydocs --tokenizer byte260 --out DIR"):
            Dataset.open(path, ByteTokenizer())


def test_check_names_the_file(out: Path) -> None:
    directory = out / "datasets" / "docs_byte260"
    report = check(out)
    assert report["splits"]["val"]["documents"] == 4
    shard = directory / "fineweb_train_000001.bin"
    whole = shard.read_bytes()

    shard.write_bytes(whole[:1030] + (77).to_bytes(2, "little") + whole[1032:])
    with pytest.raises(DataError, match=r"fineweb_train_000001\.bin: SHA-256"):
        check(out)
    shard.write_bytes(whole[:1030] + (260).to_bytes(2, "little") + whole[1032:])
    with pytest.raises(DataError, match=r"fineweb_train_000001\.bin: token 3 is 260, outside the vocabulary of 260"):
        check(out)
    shard.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="fineweb_train_000001"):
        check(out)
    shard.unlink()
    with pytest.raises(DataError, match=r"fineweb_train_000001\.bin is missing"):
        check(out)
    shard.write_bytes(whole)
    shutil.copy(shard, directory / "fineweb_train_000777.bin")
    with pytest.raises(DataError, match=r"fineweb_train_000777\.bin is not in the manifest"):
        Dataset.open(out)


def sign(out: Path, index: Path) -> None:
    """Have the manifest say the digest that the index of the validation split has now."""
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["niblick"]["splits"]["val"]["index"]["sha256"] = file_hash(index)
    (out / "manifest.json").write_text(json.dumps(manifest))


def test_check_reads_the_index(out: Path) -> None:
    path = out / "datasets" / "docs_byte260" / "fineweb_val.documents.npy"
    right = np.load(path)
    for field, message in (
        ("sha256", "text hash"),
        ("offset", "does not begin"),
        ("bytes", "bytes"),
        ("tokens", "BOS|begin"),
    ):
        wrong = right.copy()
        wrong[field][1] += 1
        np.save(path, wrong)
        with pytest.raises(DataError, match=r"val\.documents\.npy is not what the manifest says"):
            check(out)
        sign(out, path)
        with pytest.raises(DataError, match=message):
            check(out)
    np.save(path, right[:2])
    sign(out, path)
    with pytest.raises(DataError, match="has 2 documents, but the manifest says 4"):
        Dataset.open(out)
    np.save(path, np.zeros(4))
    with pytest.raises(DataError, match="is no document index"):
        Dataset.open(out)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="cannot be read"):
        Dataset.open(out)
    assert right.dtype == RECORD


def test_check_finds_bos_inside_documents(out: Path) -> None:
    """Without recorded hashes the index alone still shows that documents and BOS tokens disagree."""
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["niblick"]
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert check(out)["verified"] == ["headers", "vocabulary"]
    shard = out / "datasets" / "docs_byte260" / "fineweb_val_000000.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:1030] + (1).to_bytes(2, "little") + whole[1032:])
    with pytest.raises(DataError, match="documents that begin with BOS is 5, but 4"):
        check(out)


def test_manifests_that_are_none(out: Path) -> None:
    for text in ("{", "[]", '{"datasets": [3]}', "{}"):
        (out / "manifest.json").write_text(text)
        with pytest.raises(DataError, match="manifest"):
            Dataset.open(out)
    (out / "manifest.json").write_text('{"datasets": [{"path": "datasets/other"}]}')
    with pytest.raises(DataError, match="none of the datasets"):
        Dataset.open(out)
