"""A small trained model tells a big one where chunks start: from its artifact into another, through the pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import niblick
from niblick.artifact.container import read_artifact, write_artifact
from niblick.config.run_config import EntropyConfig, RunConfig, override, to_dict
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ArtifactError, ConfigError
from niblick.model.counting import parameter_count
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.pack.quantize import pack
from niblick.recipes.presets import get_preset
from niblick.run.directory import Run
from niblick.run.entropy import resolve_entropy
from niblick.run.pipeline import resume, run
from niblick.train.checkpoint import read_tensors

SMALL = ModelConfig(width=8, heads=1, kv_heads=1, main=StageConfig("T1"))
TARGET = 5.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with byte data and the artifact of a small model whose entropy is uneven."""
    folder = tmp_path_factory.mktemp("entropy")
    prepare("pydocs", "byte260", folder / "data", max_docs=24, val_docs=2)
    write_small(folder / "small.nib", ByteTokenizer().spec())
    return folder


def write_small(path: Path, tokenizer: dict[str, Any]) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, vocab_size=tokenizer["vocab_size"])
    model = LM(config)
    for p in model.parameters():
        p.data += 0.3 * torch.randn_like(p)
    header = {"model": to_dict(config), "tokenizer": tokenizer, "score": {}}
    write_artifact(path, header, pack(dict(model.state_dict())), "zlib")


def routed(folder: Path, **changes: Any) -> RunConfig:
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), router="entropy", target_length=TARGET)
    base = get_preset("hnet-small")
    big = replace(
        base,
        model=ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T1")),
        entropy=EntropyConfig(str(folder / "small.nib")),
    )
    toy = ["train.seq_len=64", "train.batch_tokens=256", "train.micro_batch_tokens=256", "train.device=cpu"]
    toy += [
        "train.checkpoint_every=2",
        "schedule.steps=3",
        "schedule.max_seconds=null",
        "score.seq_len=64",
        "train.log_every=1",
    ]
    return override(replace(big, **changes), [*toy, f"data.path={json.dumps(str(folder / 'data'))}"])


def test_trained_packed_and_scored_with_the_small_model_inside(folder: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved.nib"
    moved.write_bytes((folder / "small.nib").read_bytes())
    trained = routed(folder, entropy=EntropyConfig(str(moved)))
    result = run(trained, tmp_path / "runs", lambda event: None)  # scores in a process of its own
    resolved = json.loads((Path(result.run) / "config.json").read_text())
    assert resolved["model"]["entropy"]["threshold"] == resolved["entropy"]["threshold"] > 0
    events = list(map(json.loads, (Path(result.run) / "events.jsonl").read_text().splitlines()))
    rates = [e["levels"][0]["boundary_rate"] for e in events if e["event"] == "step"]
    assert sum(rates) / len(rates) == pytest.approx(1 / TARGET, rel=0.4)

    small, big = read_small(folder), read_tensors(Path(result.run) / "model.safetensors")[0]
    assert all(torch.equal(big[f"provider.lm.{name}"], tensor) for name, tensor in small.items())  # frozen
    start = next(e for e in events if e["event"] == "start")
    counted = parameter_count(replace(trained.model, levels=(LevelConfig(StageConfig("T1"), StageConfig("T1")),)))
    routers = 2 * 16 * 16  # of the cosine router, which has weights of its own
    assert start["parameters"] == counted - routers + parameter_count(SMALL)

    moved.unlink()
    loaded = niblick.load(Path(result.run) / "artifacts" / result.artifact / "artifact.nib")
    assert len(loaded.chunks("The quick brown fox jumps over the lazy dog.")) > 1

    for name in ("result.json", "model.safetensors"):  # as if it had been stopped: the checkpoint has the small model
        (Path(result.run) / name).unlink()
    assert resume(Run(Path(result.run)), lambda event: None).bpb == pytest.approx(result.bpb, abs=1e-6)


def read_small(folder: Path) -> dict[str, torch.Tensor]:
    return read_artifact(folder / "small.nib").state_dict()


def test_the_threshold_may_be_given(folder: Path) -> None:
    given = routed(folder, entropy=EntropyConfig(str(folder / "small.nib"), threshold=1.25))
    resolved = resolve_entropy(given, Dataset.open(folder / "data"))
    assert resolved.model.entropy is not None
    assert (resolved.model.entropy.model, resolved.model.entropy.threshold) == (SMALL, 1.25)
    assert resolve_entropy(resolved, Dataset.open(folder / "data")) == resolved


def test_a_router_may_only_start_from_its_boundaries(folder: Path, tmp_path: Path) -> None:
    """The small model guides the first steps, and is no part of what is packed."""
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=TARGET)
    model = ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T1"))
    guided = override(routed(folder, model=model), ["train.init_from=entropy", "train.init_steps=2"])
    result = run(guided, tmp_path / "runs", lambda event: None)
    assert not any(name.startswith("provider") for name in read_tensors(Path(result.run) / "model.safetensors")[0])
    for key, words in (("model.levels=[]", "dense"), ("model.levels.0.router=fixed", "nothing to learn")):
        with pytest.raises(ConfigError, match=words):
            run(override(guided, [key]), tmp_path / "none", lambda event: None)
    assert not (tmp_path / "none").exists()


def test_refusals_leave_nothing_behind(folder: Path, tmp_path: Path) -> None:
    write_small(tmp_path / "other.nib", ByteTokenizer().spec() | {"name": "sp1024", "vocab_size": 1024})
    (tmp_path / "broken.nib").write_bytes(b"PK\3\4")
    plain = get_preset("hnet-small").model
    for wrong, error, words in (
        (
            routed(folder, entropy=EntropyConfig(str(tmp_path / "other.nib"))),
            ConfigError,
            "tokens of sp1024 .vocab_size",
        ),
        (routed(folder, entropy=EntropyConfig(str(tmp_path / "broken.nib"))), ArtifactError, "broken.nib"),
        (routed(folder, entropy=EntropyConfig(str(tmp_path / "none.nib"))), ArtifactError, "cannot be read"),
        (routed(folder, entropy=EntropyConfig()), ConfigError, "entropy.artifact=FILE.nib"),
        (routed(folder, model=plain), ConfigError, "nothing asks the small model"),
    ):
        with pytest.raises(error, match=words):
            run(wrong, tmp_path / "runs", lambda event: None)
    assert not (tmp_path / "runs").exists()
