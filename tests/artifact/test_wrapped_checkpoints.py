"""Checkpoints of wrapped models, in every form of compression, and of H-Nets with one block outside."""

from __future__ import annotations

import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path

import brotli
import pytest
import torch
import zstandard

from niblick.artifact.foreign import published_files
from niblick.artifact.foreign.names import from_published, to_published, unwrapped
from niblick.artifact.foreign.published_files import read_published
from niblick.errors import ArtifactError
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig

STREAMS: dict[str, Callable[[bytes], bytes]] = {
    "zlib": zlib.compress,
    "zstd": zstandard.compress,
    "zstd without its size": lambda raw: _streamed(raw),
    "xz": lzma.compress,
    "lzma": lambda raw: lzma.compress(raw, lzma.FORMAT_ALONE),
    "brotli": lambda raw: brotli.compress(raw, quality=4),
}


def _streamed(raw: bytes) -> bytes:
    stream = zstandard.ZstdCompressor().compressobj()
    return stream.compress(raw) + stream.flush()


def hnet() -> LM:
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"))
    return LM(ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T2")))


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def published(made: LM) -> dict[str, torch.Tensor]:
    return dict(to_published({name: tensor.detach().clone() for name, tensor in made.state_dict().items()}))


def shapes(made: LM) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in made.state_dict().items()}


def int8(state: dict[str, torch.Tensor]) -> dict[str, dict[str, object]]:
    codes = {name: torch.zeros(t.shape, dtype=torch.int8) for name, t in state.items() if t.ndim == 2 and t.numel()}
    return {
        "quantized": dict(codes),
        "scales": {name: torch.ones(len(code), dtype=torch.float16) for name, code in codes.items()},
        "dtypes": dict.fromkeys(codes, "float32"),
        "passthrough": {name: t for name, t in state.items() if name not in codes},
    }


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model."])
def test_what_wrappers_put_before_names_is_taken_off(prefix: str, tmp_path: Path) -> None:
    made, path = hnet(), tmp_path / "final_model.pt"
    state = {prefix + name: tensor for name, tensor in published(made).items()}
    path.write_bytes(saved(state))
    found = read_published(path, shapes(made)).state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in made.state_dict().items())
    assert from_published(state).keys() == made.state_dict().keys()
    quantized = tmp_path / "final_model.int8.ptz"
    quantized.write_bytes(zlib.compress(saved(int8(state))))
    assert read_published(quantized, shapes(made)).quantized
    assert unwrapped([*state, "another.name"]) == 0


@pytest.mark.parametrize("kind", STREAMS)
def test_forms_of_compression(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, path = hnet(), tmp_path / "final_model.int8.ptz"
    data = STREAMS[kind](saved(int8(published(made))))
    path.write_bytes(data)
    assert read_published(path, shapes(made)).quantized
    for damaged in (data[:-9], data + b"more"):
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError):
            read_published(path, shapes(made))
    monkeypatch.setattr(published_files, "FREE_RAW_BYTES", 1 << 20)
    path.write_bytes(STREAMS[kind](bytes(8 << 20)))
    with pytest.raises(ArtifactError, match="inflates to more than"):
        read_published(path, shapes(made))


def test_an_hnet_with_one_block_outside_has_empty_skip_weights(tmp_path: Path) -> None:
    """The published model keeps skip weights of shape (0, D) where it skips nothing; it computes the same."""
    made, path = hnet(), tmp_path / "final_model.pt"
    state = published(made) | {f"{stage}_stage.skip_weights": torch.ones(0, 16) for stage in ("encoder", "decoder")}
    path.write_bytes(saved({"module." + name: tensor for name, tensor in state.items()}))
    other = hnet()
    other.load_state_dict(read_published(path, shapes(other)).state_dict())
    third = hnet()
    third.load_state_dict(from_published(state))
    ids_BL = torch.randint(4, 260, (2, 24))
    assert torch.equal(other(ids_BL), made(ids_BL)) and torch.equal(third(ids_BL), made(ids_BL))
    full = published(made) | {"encoder_stage.skip_weights": torch.ones(1, 16)}
    path.write_bytes(saved(full))
    with pytest.raises(ArtifactError, match=r"encoder_stage\.skip_weights is not in the model"):
        read_published(path, shapes(made))
