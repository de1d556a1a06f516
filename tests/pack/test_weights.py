"""niblick.pack: anyone's weights, by a scheme or as well as a cap allows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import niblick
from niblick.artifact.container import read_artifact
from niblick.errors import ArtifactError, ConfigError


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {f"layers.{i}.weight": torch.randn(64, 96, generator=generator) * 2.0**i for i in range(3)}
    return state | {"bias": torch.randn(64, generator=generator)}


def error(state: dict[str, torch.Tensor]) -> float:
    return sum(float((state[n] - w).square().mean() / w.square().mean()) for n, w in weights().items())


def test_by_a_scheme(tmp_path: Path) -> None:
    packed = niblick.pack(weights(), "int6")
    assert packed.size == len(packed.data) < 3 * 64 * 96
    assert error(packed.state_dict()) < 0.01
    packed.save(tmp_path / "a.nib")
    back = read_artifact(tmp_path / "a.nib").state_dict()
    assert all(torch.equal(back[name], tensor) for name, tensor in packed.state_dict().items())
    assert niblick.pack(weights(), "int4", codec="zstd").size < packed.size
    assert niblick.pack(weights(), "int6", 100_000).data == packed.data


def test_under_a_cap() -> None:
    caps = [6_000, 12_000, 24_000]
    packed = [niblick.pack(weights(), cap=cap) for cap in caps]
    assert all(0.995 * cap <= p.size <= cap for p, cap in zip(packed, caps, strict=True))
    errors = [error(p.state_dict()) for p in packed]
    assert errors == sorted(errors, reverse=True)
    assert error(niblick.pack(weights(), cap=10**6).state_dict()) == 0


def test_bits_follow_a_loss_of_ones_own() -> None:
    def only_the_last(state: dict[str, torch.Tensor]) -> float:
        return float((state["layers.2.weight"] - weights()["layers.2.weight"]).square().mean())

    told, untold = niblick.pack(weights(), cap=9_000, evaluate=only_the_last), niblick.pack(weights(), cap=9_000)
    assert only_the_last(told.state_dict()) < 0.2 * only_the_last(untold.state_dict())


def test_what_does_not_fit() -> None:
    with pytest.raises(ArtifactError, match=r"as int6 the weights take 1\d,\d\d\d bytes, over the cap of 9,000"):
        niblick.pack(weights(), "int6", 9_000)
    with pytest.raises(ArtifactError, match="a cap of 500 bytes is too small"):
        niblick.pack(weights(), cap=500)
    with pytest.raises(ConfigError, match="no quantization scheme 'int66'"):
        niblick.pack(weights(), "int66")
    with pytest.raises(ArtifactError, match=r"'ids' is torch.int64"):
        niblick.pack({"ids": torch.arange(3)}, cap=10_000)
