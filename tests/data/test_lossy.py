"""What preparing with subwords records: lossless or not, what was lost and what it costs; and converting."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niblick.data import encode
from niblick.data.check import check
from niblick.data.dataset import Dataset
from niblick.data.documents import read_documents
from niblick.data.prepare import convert, prepare
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import DataError

WriteJsonl = Callable[[Path, Iterable[str]], Path]


@pytest.fixture(scope="module")
def few(webmix: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The 220 validation documents of webmix and 180 more."""
    path = tmp_path_factory.mktemp("few") / "few.jsonl"
    with open(webmix, encoding="utf-8") as lines:
        path.write_text("".join(line for line, _ in zip(lines, range(400), strict=False)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def published(few: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared with the challenge's own tokenizer."""
    out = tmp_path_factory.mktemp("published") / "out"
    model = shared / "data" / "tokenizers" / "fineweb_1024_bpe.model"
    prepare(str(few), str(model), out, val_docs=220, workers=2)
    return out


def test_lossless_subwords(webmix: Path, webmix_bytes: Dataset, tmp_path: Path) -> None:
    """sp:1024 of all of webmix: every document comes back, and it is the same text as the byte dataset's."""
    manifest = prepare(str(webmix), "sp:1024", tmp_path / "out", val_docs=220, workers=2)
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.directory.name == "docs_selected_sp1024"
    assert dataset.tokenizer.vocab_size == 1024
    for split, same in ((dataset.val, webmix_bytes.val), (dataset.train, webmix_bytes.train)):
        recorded = manifest["niblick"]["splits"][split.name]
        assert split.text_hash == same.text_hash
        assert split.lossless is True
        assert recorded["lost"] is None
        assert recorded["challenge_bytes"] == recorded["bytes"]
    assert dataset.val.repair_bits == 0
    assert (tmp_path / "out" / "tokenizers" / "sp1024.model").is_file()
    check(tmp_path / "out")


def test_lossy_tokenizer(published: Path, webmix_figures: dict[str, Any], webmix_bytes: Dataset) -> None:
    dataset, figures = Dataset.open(published), webmix_figures["sp1024"]
    val = dataset.manifest["niblick"]["splits"]["val"]
    assert dataset.val.stream_hash == figures["token_sha256"]
    assert dataset.val.text_hash == webmix_bytes.val.text_hash
    assert dataset.val.lossless is False
    assert dataset.train.lossless is False
    assert val["challenge_bytes"] == figures["challenge_byte_count"]
    assert val["lost"]["documents"] == 220 - figures["documents_decoded_exactly"]
    assert val["bytes"] - val["lost"]["bytes"] + val["lost"]["decoded_bytes"] == figures["decoded_utf8_bytes"]
    assert val["lost"]["example"]["original"] != val["lost"]["example"]["decoded"]
    assert dataset.val.repair_bits is not None
    # 2.9% of the bytes are gone; to get them back costs between a twentieth and a quarter bit for each byte.
    assert 0.05 < dataset.val.repair_bits / val["bytes"] < 0.25
    assert dataset.train.repair_bits is None
    check(published)


def test_check_applies_the_repair(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(published, out)
    patch = next(out.rglob("fineweb_val.repair.xz"))
    whole = patch.read_bytes()
    patch.write_bytes(whole[:-8])
    with pytest.raises(DataError, match="repair patch of the val split: bits"):
        check(out)
    patch.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    with pytest.raises(DataError, match=r"does not fit|is not the text"):
        check(out)
    patch.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        check(out)
    next(out.rglob("*.model")).write_bytes(b"")
    with pytest.raises(DataError, match="another tokenizer"):
        Dataset.open(out)


@pytest.mark.slow
def test_same_bytes_with_any_number_of_workers(
    few: Path, published: Path, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "_PATIENCE", 0.0)
    model = shared / "data" / "tokenizers" / "fineweb_1024_bpe.model"
    for workers in (1, 3):
        out = tmp_path / str(workers)
        prepare(str(few), str(model), out, val_docs=220, workers=workers)
        for path in published.rglob("*"):
            if path.is_file():
                assert (out / path.relative_to(published)).read_bytes() == path.read_bytes(), path.name


def test_convert_from_bytes_is_preparing(few: Path, shared: Path, published: Path, tmp_path: Path) -> None:
    """Shards of bytes hold the text, so converting them gives the very stream of preparing the text."""
    prepare(str(few), "byte260", tmp_path / "bytes", val_docs=220, shard_tokens=500_000)
    model = str(shared / "data" / "tokenizers" / "fineweb_1024_bpe.model")
    manifest = convert(tmp_path / "bytes", model, tmp_path / "subwords")
    ours, theirs = Dataset.open(tmp_path / "subwords"), Dataset.open(published)
    assert ours.directory.name == theirs.directory.name == "few_fineweb_1024_bpe"
    for split in ("val", "train"):
        assert getattr(ours, split).stream_hash == getattr(theirs, split).stream_hash
        assert getattr(ours, split).text_hash == getattr(theirs, split).text_hash
        assert np.array_equal(getattr(ours, split).index, getattr(theirs, split).index)
    assert manifest["niblick"]["sources"] == theirs.manifest["niblick"]["sources"]
    assert manifest["niblick"]["converted_from"]["lossless"] is True


def test_convert_shards_alone(published: Path, tmp_path: Path) -> None:
    """The challenge's own shards, no index: what they decode to becomes the text; what was lost stays lost."""
    bare = tmp_path / "few_sp1024"
    bare.mkdir()
    source = Dataset.open(published)
    for path in source.directory.glob("*.bin"):
        shutil.copy(path, bare)
    manifest = convert(bare, "byte260", tmp_path / "bytes", given=source.tokenizer)
    dataset = Dataset.open(tmp_path / "bytes")
    whole = source.tokenizer.decode(source.val.slice(0, source.val.tokens))
    assert dataset.tokenizer.decode(dataset.val.slice(0, dataset.val.tokens)) == whole
    assert dataset.val.text_hash != source.val.text_hash
    assert manifest["num_val_docs"] == 220
    assert manifest["niblick"]["converted_from"]["lossless"] is None
    check(tmp_path / "bytes")


def test_convert_trains_on_the_training_split(few: Path, tmp_path: Path) -> None:
    prepare(str(few), "byte260", tmp_path / "bytes", val_docs=220)
    prepare(str(few), "sp:512", tmp_path / "direct", val_docs=220)
    convert(tmp_path / "bytes", "sp:512", tmp_path / "converted")
    models = [next((tmp_path / name).rglob("*.model")).read_bytes() for name in ("direct", "converted")]
    assert models[0] == models[1]


def test_convert_refuses_what_are_no_documents(few: Path, tmp_path: Path) -> None:
    prepare(str(few), "byte260", tmp_path / "bytes", val_docs=220)
    directory = next((tmp_path / "bytes" / "datasets").iterdir())
    bare = tmp_path / "bare"
    bare.mkdir()
    shard = next(directory.glob("fineweb_val_*.bin"))
    whole = shard.read_bytes()
    (bare / shard.name).write_bytes(whole[:1024] + (50).to_bytes(2, "little") + whole[1026:])
    with pytest.raises(DataError, match="does not begin with BOS"):
        convert(bare, "byte260", tmp_path / "out", given=ByteTokenizer())
    (bare / shard.name).write_bytes(whole[:1030] + (0xFF + 4).to_bytes(2, "little") + whole[1032:])
    with pytest.raises(DataError, match="document 0 of the val split decodes to bytes that are not UTF-8"):
        convert(bare, "byte260", tmp_path / "out", given=ByteTokenizer())
    assert not (tmp_path / "out").exists()


def test_normalization_is_a_choice_of_training(tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    source = str(write_jsonl(tmp_path / "docs.jsonl", [f"The line {i}.\n\nAnother {i * 7}!" for i in range(400)]))
    manifest = prepare(source, "sp:300", tmp_path / "nfkc", normalization="nmt_nfkc")
    assert manifest["datasets"][0]["name"] == "docs_sp300_nmt_nfkc"
    assert manifest["niblick"]["splits"]["val"]["lossless"] is False
    with pytest.raises(DataError, match="its normalization cannot be chosen"):
        prepare(source, "byte260", tmp_path / "x", normalization="nmt_nfkc")
    with pytest.raises(DataError, match="too small for sp:5000"):
        prepare(source, "sp:5000", tmp_path / "x")


def test_training_never_sees_held_out_documents(tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    words = [f"common words {i % 10}" for i in range(200)]
    models = []
    for secret in ("zebra zebra zebra " * 50, "quartz quartz " * 50):
        source = write_jsonl(tmp_path / f"{len(models)}.jsonl", [secret, *words])
        prepare(str(source), "sp:300", tmp_path / f"out{len(models)}", val_docs=1)
        models.append(next((tmp_path / f"out{len(models)}").rglob("*.model")).read_bytes())
    assert models[0] == models[1]


def test_multilingual_text(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "multilingual.jsonl"
    manifest = prepare(str(source), "sp:1024", tmp_path / "out")
    assert [manifest["niblick"]["splits"][split]["lossless"] for split in ("val", "train")] == [True, True]
    assert manifest["num_docs"] == len(list(read_documents(str(source))))
    assert json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8")) == manifest
