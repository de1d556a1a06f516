"""Files that lie beside shards and are none: byte counts of each token are used, everything else is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from niblick.audit.auditor import given_bytes
from niblick.config.run_config import override
from niblick.data.check import check
from niblick.data.dataset import Dataset, open_split
from niblick.data.prepare import prepare
from niblick.data.shards import shard_header
from niblick.model.lm import LM
from niblick.recipes.presets import get_preset
from niblick.score.contiguous import score_contiguous
from niblick.score.score_config import ScoreConfig
from niblick.score.scorers import score_split


def write(path: Path, numbers: np.ndarray) -> None:
    path.write_bytes(shard_header(len(numbers)) + numbers.astype("<u2").tobytes())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shards in the challenge's form, without niblick's index and notes, of two shards of validation text."""
    docs = tmp_path / "docs.jsonl"
    docs.write_text("".join(json.dumps({"text": f"the {k} words of a text " * 8}) + "\n" for k in range(12)))
    prepare(str(docs), "byte260", tmp_path / "data", val_docs=4, shard_tokens=400)
    [folder] = (tmp_path / "data" / "datasets").iterdir()
    manifest = json.loads((tmp_path / "data" / "manifest.json").read_text())
    del manifest["niblick"]
    (tmp_path / "data" / "manifest.json").write_text(json.dumps(manifest))
    for path in [*folder.glob("*.npy"), *folder.glob("*.xz")]:
        path.unlink()
    return folder


def counted(folder: Path, per_token: int, short: int = 0) -> None:
    for shard in sorted(folder.glob("fineweb_val_0*.bin")):
        tokens = (shard.stat().st_size - 1024) // 2
        write(folder / shard.name.replace("val_", "val_bytes_"), np.full(tokens - short, per_token))


def test_counts_are_no_tokens_and_are_used_and_told(folder: Path) -> None:
    before = Dataset.open(folder)
    assert len(before.val.shards) > 1 and not before.val.byte_counts
    counted(folder, 2)
    (folder / "fineweb_val_notes_v1.bin").write_bytes(b"nothing of the kind")
    dataset = Dataset.open(folder)
    assert dataset.val.tokens == before.val.tokens == check(folder)["splits"]["val"]["tokens"]
    assert "bytes are counted as fineweb_val_bytes_000000.bin and" in dataset.val.unavailable()[0]
    torch.manual_seed(0)
    small = ("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1")
    model = LM(override(get_preset("hnet-small"), list(small)).model)
    config = ScoreConfig(seq_len=32, batch_tokens=96)
    plain, now = (score_split(model, data.val, data.tokenizer, config) for data in (before, dataset))
    assert (now.bits, now.bytes) == (plain.bits, 2 * (dataset.val.tokens - 1))
    part = score_split(model, dataset.val.part(300, 700), dataset.tokenizer, config)
    assert part.bytes == 2 * 399
    assert score_contiguous(model, dataset.val, dataset.tokenizer, config).bpb == pytest.approx(now.bpb, rel=1e-6)


def test_counts_that_do_not_fit_are_told_and_left_alone(folder: Path) -> None:
    counted(folder, 2, short=1)
    split = Dataset.open(folder).val
    assert not split.byte_counts and "they are not used" in split.unavailable()[0]


def test_an_audit_holds_counts_against_what_the_tokens_decode_to(folder: Path) -> None:
    counted(folder, 2)
    dataset = Dataset.open(folder)
    assert given_bytes(dataset.val, dataset.tokenizer, None).status == "fail"
    counted(folder, 0)
    split = open_split(folder, "val", None)
    assert given_bytes(split, dataset.tokenizer, None).status == "look"
    assert given_bytes(split, dataset.tokenizer, 5).status == "fail"


def test_shards_without_manifest_open(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "data" / "manifest.json").unlink()
    counted(folder, 1)
    for place in (folder, tmp_path / "data"):
        assert Dataset.open(place, usual="byte260").val.byte_counts
