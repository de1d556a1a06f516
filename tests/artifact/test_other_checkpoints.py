"""Checkpoints as other projects save them: weights are found in whole checkpoints, other files are named."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from niblick.artifact.foreign.names import to_published
from niblick.artifact.foreign.published_files import read_published
from niblick.artifact.foreign.torch_files import load_dictionary
from niblick.errors import ArtifactError
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}


@pytest.mark.parametrize(
    "whole",
    [
        {"model": WEIGHTS, "optimizer": {"state": {}}, "model_args": {"n_layer": 1}, "iter_num": 3, "config": {}},
        {"step": 100, "code": "print()", "model": WEIGHTS, "optimizers": [{"state": {}}]},
        {"model": WEIGHTS},
        {"state_dict": WEIGHTS, "pytorch-lightning_version": "2.4", "hyper_parameters": {"lr": 1.0}, "epoch": 1},
        {"epoch": 3, "model_state_dict": WEIGHTS, "optimizer_state_dict": {}, "loss": torch.tensor(2.0)},
    ],
    ids=["nanoGPT", "modded-nanogpt", "litgpt", "Lightning", "tutorial"],
)
def test_weights_inside_whole_checkpoints(tmp_path: Path, whole: dict[str, Any]) -> None:
    path = tmp_path / "ckpt.pt"
    torch.save(whole, path)
    found = load_dictionary(path)
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], WEIGHTS[name]) for name in found)


def test_a_published_model_inside_a_checkpoint(tmp_path: Path) -> None:
    made = LM(ModelConfig(width=16, heads=2, kv_heads=1, main=StageConfig("T1")))
    path = tmp_path / "state_step000100.pt"
    torch.save({"step": 100, "model": to_published(made.state_dict()), "optimizers": []}, path)
    shapes = {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}
    found = read_published(path, shapes).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in made.state_dict().items())


def test_a_tensor_called_model_is_a_tensor(tmp_path: Path) -> None:
    torch.save({"model": torch.ones(1), "state_dict": {}}, tmp_path / "a.pt")
    assert load_dictionary(tmp_path / "a.pt").keys() == {"model", "state_dict"}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("model.gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 0), r"a GGUF file of llama\.cpp"),
        ("model_00100.bin", struct.pack("<256i", 20240326, 3, *[0] * 254), r"a checkpoint of llm\.c"),
        ("model.safetensors", save(WEIGHTS), r"a file of safetensors; .*torch\.save\(safetensors"),
        ("weights.pkl", b"\x80\x04}.", "a plain pickle, .* ask for a state dict"),
        ("noise.pt", b"neither of these", "is not what torch.save writes"),
    ],
)
def test_others_are_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    for given in (None, data):
        with pytest.raises(ArtifactError, match=message) as caught:
            load_dictionary(path, given)
        assert "\n" not in str(caught.value)


def test_torchs_form_before_1_6_and_distributed_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ArtifactError, match=r"torch's form before 1\.6"):
        load_dictionary(path)
    (tmp_path / "dcp").mkdir()
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_dictionary(tmp_path / "dcp")
    (tmp_path / "dcp" / ".metadata").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"a distributed checkpoint of torch; .*dcp_to_torch"):
        load_dictionary(tmp_path / "dcp")
    with pytest.raises(ArtifactError, match="a distributed checkpoint of torch"):
        read_published(tmp_path / "dcp", {})


@pytest.mark.parametrize("name", ["final_model.pt", "final_model.int8.ptz"])
def test_pointers_of_git_lfs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 4711\n")
    with pytest.raises(ArtifactError, match=r"is a Git LFS pointer, .*: run `git lfs pull` there"):
        read_published(path, {})
