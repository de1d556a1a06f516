"""What is scored and resumed is what was written: changed shards, indexes and checkpoints are refused by name."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Niblick
from safetensors.torch import save_file
from tiny import TINY
from torch import nn

from niblick.data.dataset import Dataset
from niblick.data.loader import Batches
from niblick.errors import ArtifactError, DataError
from niblick.score.costs import COST, write_costs
from niblick.train.checkpoint import Progress, load_checkpoint, read_tensors, save_checkpoint


@pytest.fixture
def data(toy_data: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_data, tmp_path / "data"))


def change(path: Path, at: int) -> None:
    """Make another token of one, as in place and as valid as before."""
    held = bytearray(path.read_bytes())
    held[at] ^= 1
    path.write_bytes(held)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_changed_shard_is_named_before_its_tokens_are_used(data: Path, split: str) -> None:
    Dataset.open(data).val.slice(0, 8)
    [shard] = data.glob(f"datasets/*/fineweb_{split}_*.bin")
    change(shard, shard.stat().st_size - 2)
    dataset = Dataset.open(data)
    changed, other = (dataset.train, dataset.val) if split == "train" else (dataset.val, dataset.train)
    other.slice(0, 8)
    with pytest.raises(DataError, match=f"{shard.name} is not what the manifest says"):
        changed.slice(0, 8)
    with pytest.raises(DataError, match=shard.name):
        Batches(changed, vocab_size=260, seq_len=16, rows=2).next()
    with pytest.raises(DataError, match=shard.name):
        changed.part(0, 64).slice(0, 8)


def test_a_shard_that_changes_while_it_is_open_is_told(data: Path) -> None:
    split = Dataset.open(data).val
    split.slice(0, 8)
    change(split.files[0], 1024 + 4)
    with pytest.raises(DataError, match="is not what the manifest says"):
        split.slice(0, 8)


def test_a_changed_index_is_named(data: Path) -> None:
    [index] = data.glob("datasets/*/fineweb_val.documents.npy")
    change(index, 256 + 8 + 4)  # the bytes of the first document
    with pytest.raises(DataError, match=f"{index.name} is not what the manifest says"):
        Dataset.open(data)


class Nothing:
    def state_tensors(self) -> dict[str, torch.Tensor]:
        return {"moments": torch.ones(3), "step": torch.tensor(4)}

    def load_state_tensors(self, tensors: dict[str, torch.Tensor]) -> None:
        pass


def test_every_flipped_bit_of_a_checkpoint_is_refused_and_the_one_before_offered(tmp_path: Path) -> None:
    model, parts = nn.Linear(2, 2), {"optimizer": Nothing()}
    save_checkpoint(tmp_path, model, parts, Progress(step=1))
    path = save_checkpoint(tmp_path, model, parts, Progress(step=2))
    assert load_checkpoint(path, model, parts).step == 2
    whole = path.read_bytes()
    places = np.random.default_rng(1).choice(8 * len(whole), 150, replace=False).tolist()
    header = 8 + int.from_bytes(whole[:8], "little")
    for place in [*places, *range(8 * 8, 8 * header, 41)]:
        held = bytearray(whole)
        held[place // 8] ^= 1 << place % 8
        path.write_bytes(held)
        with pytest.raises(ArtifactError, match=r"go on from step_00000001\.safetensors"):
            load_checkpoint(path, model, parts)


def test_files_of_before_without_a_digest_are_read(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "old.safetensors", {"clocks": "{}"})
    tensors, metadata = read_tensors(tmp_path / "old.safetensors")
    assert metadata == {"clocks": "{}"} and tensors["a"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda split: split.update(lossless="x"), "lossless='x', which is neither true nor false"),
        (lambda split: split.update(repair_bits=-1), "repair_bits=-1, which is no number of bits"),
        (lambda split: split.update(text_hash="0" * 64), "the text hash 0000000000000000…, where"),
        (lambda split: split["index"].update(sha256=None), "records None as the SHA-256 of"),
    ],
)
def test_a_changed_manifest_is_refused(change: Callable[[dict[str, Any]], None], said: str, data: Path) -> None:
    manifest = json.loads((data / "manifest.json").read_text())
    change(manifest["niblick"]["splits"]["val"])
    (data / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=re.escape(said)):
        Dataset.open(data)


def lie(data: Path) -> str:
    """Give the validation split another stream hash, and nothing else. Returns what names it."""
    manifest = json.loads((data / "manifest.json").read_text())
    manifest["niblick"]["splits"]["val"]["stream_hash"] = "0" * 64
    (data / "manifest.json").write_text(json.dumps(manifest))
    return "gives the val split the stream hash 0000000000000000…, where that of its tokens is"


def flip(pattern: str, place: int) -> Callable[[Path], str]:
    """Change a byte of a file of the data. Returns what names it."""

    def changed(data: Path) -> str:
        [path] = data.glob(f"datasets/*/{pattern}")
        change(path, place)
        return f"{path.name} is not what the manifest says"

    return changed


CHANGES = {
    "train": flip("fineweb_train_*.bin", -2),
    "val": flip("fineweb_val_*.bin", -2),
    "index": flip("fineweb_val.documents.npy", 256 + 8 + 4),
    "train index": flip("fineweb_train.documents.npy", 256 + 8 + 4),
    "stream hash": lie,
}


@pytest.mark.parametrize("changed", CHANGES)
def test_verbs_refuse_data_that_was_changed_after_it_was_prepared(
    changed: str, data: Path, tmp_path: Path, niblick: Niblick, score_here: None, one_script: None
) -> None:
    """Whatever a verb reads of it. A byte model that codes a file needs no data, and so none is refused."""
    runs, whole = ["--runs", tmp_path], [*TINY, "schedule.steps=1", "score.documents=0"]
    niblick.json("train", "hnet-small", *whole, "--data", data, *runs)
    (tmp_path / "text.txt").write_text("a b c")
    said = CHANGES[changed](data)
    before = {path.name for path in tmp_path.iterdir()}
    assert said in niblick.refused("train", "hnet-small", *whole, "--data", data, *runs)
    if changed != "train":
        assert said in niblick.refused("eval", "hnet-small-1", *runs)
        assert said in niblick.refused("audit", "hnet-small-1", *runs)
    assert {path.name for path in tmp_path.iterdir()} == before
    coding = ["compress", tmp_path / "text.txt", "-o", tmp_path / "out", "--model", "hnet-small-1"]
    assert niblick(*coding, *runs)[0] == 0


@pytest.mark.parametrize("pattern", ["fineweb_val_*.bin", "fineweb_val.documents.npy"])
def test_a_pipe_in_the_place_of_data_is_never_waited_for(pattern: str, data: Path) -> None:
    [path] = data.glob(f"datasets/*/{pattern}")
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="no regular file"):
        Dataset.open(data)


def test_costs_leave_nothing_where_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*documents-1\.npy") as error:
        write_costs(tmp_path, np.zeros(3, COST))
    assert error.value.filename == str(tmp_path / "documents-1.npy")
    assert not list(tmp_path.iterdir())
