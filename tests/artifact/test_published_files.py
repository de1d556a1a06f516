"""Checkpoints of the published scripts, written here in their form from our own models; and files that attack."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from niblick.artifact.foreign.names import to_published
from niblick.artifact.foreign.published_files import Shapes, read_published
from niblick.errors import ArtifactError
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.pack.published import CONTROL_PATTERNS, quantize_int8

KEEP = 200
"""The published scripts keep tensors up to 65,536 elements as floats; these models are smaller."""


def model(levels: int = 1, width: int = 16) -> LM:
    torch.manual_seed(levels)
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"))
    made = LM(ModelConfig(width=width, heads=2, kv_heads=1, levels=(level,) * levels, main=StageConfig("T3")))
    for p in made.parameters():  # projections that start at zero would hide mistakes
        torch.nn.init.normal_(p, std=0.5)
    return made


def shapes(made: LM) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}


def published_int8(state: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The dictionary that the published `quantize_state_dict_int8` returns."""
    form: dict[str, Any] = {k: {} for k in ("quantized", "scales", "dtypes", "passthrough", "qmeta")}
    form |= {"__quant_format__": "int8_clean_per_row_v1", "passthrough_orig_dtypes": {}}
    for name, tensor in state.items():
        if tensor.numel() <= KEEP:
            control = any(pattern in name for pattern in CONTROL_PATTERNS)
            form["passthrough"][name] = tensor.float() if control else tensor.half()
            if not control:
                form["passthrough_orig_dtypes"][name] = "float32"
            continue
        form["quantized"][name], form["scales"][name] = quantize_int8(tensor)
        form["dtypes"][name] = str(tensor.dtype).removeprefix("torch.")
        if form["scales"][name].ndim:
            form["qmeta"][name] = {"scheme": "per_row", "axis": 0}
    return form


def published_dequantize(form: dict[str, Any]) -> dict[str, torch.Tensor]:
    out = {}
    for name, codes in form["quantized"].items():
        scale = form["scales"][name].float()
        out[name] = codes.float() * (scale.view(-1, *([1] * (codes.ndim - 1))) if scale.ndim else scale)
    return out | {name: tensor.float() for name, tensor in form["passthrough"].items()}


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def published(made: LM) -> dict[str, torch.Tensor]:
    return dict(to_published({name: tensor.detach() for name, tensor in made.state_dict().items()}))


@pytest.mark.parametrize("levels", [0, 1])
def test_float_checkpoint(levels: int, tmp_path: Path) -> None:
    theirs, ours = model(levels), model(levels, width=16)
    path = tmp_path / "final_model.pt"
    path.write_bytes(saved(published(theirs)))
    weights = read_published(path, shapes(ours))
    for p in ours.parameters():
        torch.nn.init.zeros_(p)
    ours.load_state_dict(weights.state_dict())
    ids = torch.randint(4, 260, (2, 24))
    assert not weights.quantized
    assert torch.equal(ours(ids), theirs(ids))


@pytest.mark.parametrize("levels", [0, 1])
def test_int8_checkpoint_keeps_codes_and_scales(levels: int, tmp_path: Path) -> None:
    theirs = model(levels)
    form = published_int8(published(theirs))
    path = tmp_path / "final_model.int8.ptz"
    path.write_bytes(zlib.compress(saved(form), 9))
    weights = read_published(path, shapes(theirs))
    assert weights.quantized
    back = to_published(weights.encoded)
    for name, codes in form["quantized"].items():
        assert np.array_equal(back[name].parts["codes"], codes.numpy())
        assert np.array_equal(back[name].parts["scale"], form["scales"][name].numpy())
    ours = model(levels)
    ours.load_state_dict(weights.state_dict())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), _in_order(theirs, form), strict=True)))
    ids = torch.randint(4, 260, (2, 24))
    assert torch.equal(ours(ids), theirs(ids))


def _in_order(made: LM, form: dict[str, Any]) -> list[torch.Tensor]:
    values = published_dequantize(form)
    return [values[name] for name in published(made)]


def test_bfloat16_weights_are_exact(tmp_path: Path) -> None:
    state = {name: tensor.bfloat16() for name, tensor in published(model()).items()}
    path = tmp_path / "final_model.pt"
    path.write_bytes(saved(state))
    found = to_published(read_published(path, shapes(model())).state_dict())
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in state.items())


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def refused(path: Path, data: bytes, made: LM | None = None) -> str:
    path.write_bytes(data)
    with pytest.raises(ArtifactError) as error:
        read_published(path, shapes(made or model()))
    return str(error.value)


@pytest.mark.parametrize("name", ["final_model.pt", "final_model.int8.ptz"])
def test_code_is_refused_and_not_run(name: str, tmp_path: Path) -> None:
    state = published(model()) | {"extra": Hostile(tmp_path / "owned")}
    content = saved(state)
    message = refused(tmp_path / name, zlib.compress(content) if name.endswith("ptz") else content)
    assert "code of strangers is not run" in message
    assert "mkdir" in message
    message = refused(
        tmp_path / name, pickle.dumps(Hostile(tmp_path / "owned"))
    )  # no zip around it: not even looked at
    assert "torch.save" in message or "zlib" in message
    assert not (tmp_path / "owned").exists()


def test_bombs(tmp_path: Path) -> None:
    bomb = zlib.compress(bytes(1 << 28), 9)
    assert len(bomb) < 300_000
    assert "inflates to more than 134,217,728" in refused(tmp_path / "bomb.int8.ptz", bomb)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 24))
    assert "compressed records" in refused(tmp_path / "bomb.pt", buffer.getvalue())
    wide = published(model())
    wide["tok_emb.weight"] = torch.zeros(1).expand(260, 16)
    assert "tok_emb.weight is a tensor of shape (260, 16) over too little storage" in refused(
        tmp_path / "wide.pt", saved(wide)
    )


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_truncation(share: float, tmp_path: Path) -> None:
    state = published(model())
    for name, data in (("a.pt", saved(state)), ("a.int8.ptz", zlib.compress(saved(published_int8(state))))):
        assert name in refused(tmp_path / name, data[: int(share * len(data))])


def test_damaged_anywhere(tmp_path: Path) -> None:
    """Whatever a flipped byte does, it is a clear error or other numbers, never another exception."""
    data = bytearray(saved(published(model())))
    path = tmp_path / "a.pt"
    for at in np.random.default_rng(0).integers(0, len(data), 60):
        data[at] ^= 0x55
        path.write_bytes(data)
        with contextlib.suppress(ArtifactError):
            read_published(path, shapes(model()))
        data[at] ^= 0x55


def test_another_shape_names_the_first_tensor(tmp_path: Path) -> None:
    state = published(model())
    message = refused(tmp_path / "a.pt", saved(state), model(width=32))
    assert "tensor tok_emb.weight has shape (260, 16), the model expects (260, 32)" in message
    message = refused(tmp_path / "a.pt", saved(state), model(levels=0))
    assert "has no tensor skip_weights" in message
    more = state | {"chunker.weight": torch.zeros(3)}
    assert "tensor chunker.weight is not in the model" in refused(tmp_path / "a.pt", saved(more))
    fewer = {name: tensor for name, tensor in state.items() if name != "routing0.k_proj.weight"}
    assert "has no tensor routing0.k_proj.weight" in refused(tmp_path / "a.pt", saved(fewer))
    form = published_int8(state)
    name = next(iter(form["quantized"]))
    form["scales"][name] = form["scales"][name][:-1]
    assert f"tensor {name}" in refused(tmp_path / "a.int8.ptz", zlib.compress(saved(form)))


def test_other_content(tmp_path: Path) -> None:
    assert "a list, expected a dictionary" in refused(tmp_path / "a.pt", saved([1, 2]))
    assert "step is an int, expected floats" in refused(tmp_path / "a.pt", saved({"step": 3}))
    assert "torch.int64" in refused(
        tmp_path / "a.pt", saved(published(model()) | {"tok_emb.weight": torch.zeros(260, 16, dtype=torch.int64)})
    )
    assert "quantized, scales is missing" in refused(
        tmp_path / "a.int8.ptz", zlib.compress(saved({"passthrough": {}, "dtypes": {}}))
    )
    assert "cannot be read" in refused_missing(tmp_path / "nothing.pt")


def refused_missing(path: Path) -> str:
    with pytest.raises(ArtifactError) as error:
        read_published(path, {})
    return str(error.value)


def test_storage_that_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    """The pickle says how long a storage is; the record in the file is what counts."""
    content = saved({"tok_emb.weight": torch.zeros(260, 16)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        records = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    short = next(name for name in records if name.endswith("data/0"))
    records[short] = records[short][:64]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    refused(tmp_path / "a.pt", buffer.getvalue())
