"""The challenge's data from a directory that stands for the hub: whole, in part, interrupted, wrong."""

from __future__ import annotations

import builtins
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niblick.data import download
from niblick.data.check import check
from niblick.data.dataset import Dataset
from niblick.data.download import LocalFiles
from niblick.data.prepare import convert, prepare
from niblick.data.subword_training import train_subwords
from niblick.errors import DataError

WriteJsonl = Callable[[Path, Iterable[str]], Path]
TEXTS = [f"Document {i} says this and that, {i * i} times.\n\nThen it ends." for i in range(60)]


@pytest.fixture
def hub(tmp_path: Path, write_jsonl: WriteJsonl) -> Path:
    """A small copy of the challenge's repository, with its manifest's form and nothing of ours in it."""
    root = tmp_path / "hub"
    model = tmp_path / "tiny.model"
    model.write_bytes(train_subwords(TEXTS, 300))
    source = write_jsonl(tmp_path / "docs_selected.jsonl", TEXTS)
    manifest = prepare(str(source), str(model), root, val_docs=10, shard_tokens=400)
    del manifest["niblick"]
    entry = manifest["datasets"][0]
    directory = root / "datasets" / "fineweb10B_sp300"
    (root / entry["path"]).rename(directory)
    for path in [*directory.glob("*.npy"), *directory.glob("*.xz")]:
        path.unlink()
    entry |= {"name": directory.name, "path": f"datasets/{directory.name}"}
    entry |= {f"{split}_glob": f"{entry['path']}/fineweb_{split}_*.bin" for split in ("train", "val")}
    (root / "manifest.json").write_text(json.dumps({**manifest, "version": "10B", "docs_jsonl": source.name}))
    shutil.copy(source, root / source.name)
    return root


class Breaking(LocalFiles):
    """A hub that breaks the connection after so many bytes in all, each time it is asked; dead when `dead`."""

    def __init__(self, directory: Path, after: int, dead: bool) -> None:
        super().__init__(directory)
        self.after = after
        self.dead = dead
        self.left = after
        self.opened: list[tuple[str, int]] = []

    def read(self, name: str, start: int) -> Iterator[bytes]:
        self.opened.append((name, start))
        if not self.dead:
            self.left = self.after
        for piece in super().read(name, start):
            for at in range(0, len(piece), 100):
                if self.left <= 0:
                    raise OSError("connection reset")
                part = piece[at : at + 100]
                self.left -= len(part)
                yield part


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_WAIT_SECONDS", 0.0)


def test_shards(hub: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    out = tmp_path / "out"
    manifest = prepare(
        "challenge:sp300", None, out, train_shards=3, hub=LocalFiles(hub), progress=lambda *c: told.append(c)
    )
    dataset = Dataset.open(out)
    assert manifest == json.loads((hub / "manifest.json").read_text())
    assert dataset.val.tokens == manifest["datasets"][0]["stats"]["tokens_val"]
    assert [path.name for path in dataset.train.files] == [f"fineweb_train_00000{i}.bin" for i in range(3)]
    assert dataset.tokenizer.name == "tiny"
    assert told[-1] == (
        1 + len(dataset.val.files) + 3,
        sum(p.stat().st_size for p in out.rglob("*.*") if p.suffix in (".bin", ".model")),
    )
    assert check(out)["splits"]["val"]["documents"] == 10
    assert not (tmp_path / ".out.download").exists()


def test_interrupted_and_resumed(hub: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    prepare("challenge:sp300", "sp300", whole, hub=LocalFiles(hub))
    out, starts = tmp_path / "out", []
    for _ in range(500):
        files = Breaking(hub, after=1500, dead=True)
        try:
            prepare("challenge:sp300", None, out, hub=files)
            break
        except DataError as error:
            assert "hub stopped after" in str(error)
            assert "run the same command again" in str(error)
            assert not out.exists()
        starts += [start for name, start in files.opened if name != "manifest.json"]
    assert max(starts) > 0
    assert {p.relative_to(out): p.read_bytes() for p in out.rglob("*.*")} == {
        p.relative_to(whole): p.read_bytes() for p in whole.rglob("*.*")
    }


def test_connection_that_comes_back(hub: Path, tmp_path: Path) -> None:
    """A broken connection is opened again where it broke, within one command."""
    files = Breaking(hub, after=700, dead=False)
    prepare("challenge:sp300", None, tmp_path / "out", hub=files)
    prepare("challenge:sp300", None, tmp_path / "whole", hub=LocalFiles(hub))
    for path in (tmp_path / "whole").rglob("*.bin"):
        assert (tmp_path / "out" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()
    assert any(start > 0 for _, start in files.opened)


def test_documents_are_streamed(hub: Path, tmp_path: Path, write_jsonl: WriteJsonl) -> None:
    manifest = prepare("challenge:docs", "byte260", tmp_path / "out", hub=Breaking(hub, after=900, dead=False))
    assert manifest["datasets"][0]["name"] == "fineweb10B_byte260"
    assert (manifest["num_docs"], manifest["num_val_docs"]) == (60, 10)
    source = write_jsonl(tmp_path / "docs.jsonl", TEXTS)
    direct = prepare(str(source), "byte260", tmp_path / "direct", val_docs=10)
    for split in ("val", "train"):
        ours, theirs = (m["niblick"]["splits"][split] for m in (manifest, direct))
        assert ours["stream_hash"] == theirs["stream_hash"]
    assert (
        prepare("challenge:docs", None, tmp_path / "some", max_docs=12, val_docs=2, hub=LocalFiles(hub))["num_docs"]
        == 12
    )


def test_documents_that_end_early(hub: Path, tmp_path: Path) -> None:
    path = hub / "docs_selected.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:50]))
    with pytest.raises(DataError, match="gave 50 documents where its manifest promises 60"):
        prepare("challenge:docs", "byte260", tmp_path / "out", hub=LocalFiles(hub))
    with pytest.raises(DataError, match=r"stopped after \d+ of \d+ bytes of docs_selected\.jsonl \(connection reset\)"):
        prepare("challenge:docs", "byte260", tmp_path / "out", hub=Breaking(hub, after=2500, dead=True))
    assert not (tmp_path / "out").exists()


def test_converting_some_shards_drops_the_cut_off_document(hub: Path, tmp_path: Path) -> None:
    prepare("challenge:sp300", None, tmp_path / "sp", train_shards=2, hub=LocalFiles(hub))
    manifest = convert(tmp_path / "sp", "byte260", tmp_path / "bytes")
    cut_off = manifest["niblick"]["converted_from"]["cut_off"]
    assert cut_off["documents"] == 1 and cut_off["tokens"] > 0
    dataset = Dataset.open(tmp_path / "bytes")
    whole = np.split(dataset.train.slice(0, dataset.train.tokens), dataset.train.index["offset"][1:])
    texts = [dataset.tokenizer.decode(tokens).decode() for tokens in whole]
    assert texts == TEXTS[10 : 10 + len(texts)]
    assert dataset.val.slice(0, dataset.val.tokens).tolist().count(1) == 10


def test_wrong_requests(hub: Path, tmp_path: Path) -> None:
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("challenge:sp3000", {}, r"no dataset 'sp3000' \(nearest: sp300\)"),
        ("challenge:sp300", {"train_shards": 999}, "train_shards is 999; challenge:sp300 has 0 to"),
        ("challenge:sp300", {"tokenizer": "byte260"}, "shards of sp300 already"),
        ("challenge:sp300", {"val_docs": 3}, "leave --val-docs out"),
        ("challenge:docs", {"train_shards": 3}, "leave --train-shards out"),
    ]
    for source, options, message in cases:
        arguments: dict[str, Any] = {"tokenizer": None, "out": tmp_path / "out", "hub": LocalFiles(hub), **options}
        with pytest.raises(DataError, match=message):
            prepare(source, **arguments)
    with pytest.raises(DataError, match=r"does not give manifest\.json"):
        prepare("challenge:sp300", None, tmp_path / "out", hub=LocalFiles(tmp_path / "nowhere"))


def test_hub_with_wrong_files(hub: Path, tmp_path: Path) -> None:
    def fetch(message: str) -> None:
        with pytest.raises(DataError, match=message):
            prepare("challenge:sp300", None, tmp_path / "out", hub=LocalFiles(hub))
        assert not (tmp_path / "out").exists()

    shard = hub / "datasets" / "fineweb10B_sp300" / "fineweb_train_000001.bin"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-2])
    fetch(r"fineweb_train_000001\.bin is no whole shard")
    shard.write_bytes(whole)

    text = (hub / "manifest.json").read_text()
    manifest = json.loads(text)
    manifest["datasets"][0]["stats"]["tokens_val"] += 1
    (hub / "manifest.json").write_text(json.dumps(manifest))
    fetch("do not belong together")
    manifest = json.loads(text)
    manifest["tokenizers"][0]["model_path"] = "../../elsewhere.model"
    (hub / "manifest.json").write_text(json.dumps(manifest))
    fetch("outside its own directory")
    manifest["datasets"][0].pop("stats")
    (hub / "manifest.json").write_text(json.dumps(manifest))
    fetch("does not say how many shards")


def test_hash_of_the_hub_is_held(hub: Path, tmp_path: Path) -> None:
    class Hashed(LocalFiles):
        def describe(self, name: str) -> tuple[int, str | None]:
            return super().describe(name)[0], "0" * 64 if name.endswith(".bin") else None

    with pytest.raises(DataError, match="not as the hub describes it"):
        prepare("challenge:sp300", None, tmp_path / "out", hub=Hashed(hub))


def test_without_huggingface_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(DataError, match=r"pip install niblick\[hub\]"):
        prepare("challenge:sp1024", None, tmp_path / "out")
