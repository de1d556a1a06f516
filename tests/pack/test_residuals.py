"""Low-rank residuals: the error they remove, the budget they keep, and where they go."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from niblick.artifact.dequantize import EncodedTensor
from niblick.errors import ConfigError
from niblick.pack.export_config import ExportConfig, ResidualConfig
from niblick.pack.quantize import pack
from niblick.pack.residuals import GROUPS, add_residuals, group_names


def state() -> dict[str, torch.Tensor]:
    """Weights whose error is partly of low rank: one has a strong pair that int2 cannot hold."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    weights = {}
    for block in range(4):
        weights[f"main.blocks.{block}.attn.out.weight"] = normal(48, 48)
        weights[f"main.blocks.{block}.mlp.down.weight"] = normal(48, 96)
    weights["main.blocks.1.mlp.down.weight"] += 3 * normal(48, 1) * normal(1, 96)
    weights["vector"] = normal(48)
    return weights


def error(tensor: EncodedTensor, weights: torch.Tensor) -> float:
    return float((tensor.dequantize() - weights).square().sum())


def added_bytes(before: dict[str, EncodedTensor], after: dict[str, EncodedTensor]) -> int:
    return sum(tensor.nbytes for tensor in after.values()) - sum(tensor.nbytes for tensor in before.values())


@pytest.mark.parametrize("dtype", ["fp16", "int8"])
def test_every_byte_goes_where_most_error_is(dtype: str) -> None:
    weights = state()
    encoded = pack(weights, ExportConfig("int3"))
    first = 2 * (48 + 96) if dtype == "fp16" else 48 + 96 + 8
    corrected = add_residuals(encoded, weights, ResidualConfig(first, dtype))
    assert [name for name, t in corrected.items() if "left" in t.parts] == ["main.blocks.1.mlp.down.weight"]
    spent = []
    for budget in (first, 1_500, 6_000, 12_000):
        corrected = add_residuals(encoded, weights, ResidualConfig(budget, dtype))
        assert budget - 300 < added_bytes(encoded, corrected) <= budget
        spent.append(sum(error(corrected[name], weights[name]) for name in encoded))
    assert spent == sorted(spent, reverse=True)
    assert spent[0] < sum(error(encoded[name], weights[name]) for name in encoded)


def test_one_pair_removes_the_largest_singular_value() -> None:
    weights = {"w": state()["main.blocks.0.mlp.down.weight"]}
    encoded = pack(weights, ExportConfig("int3"))
    sizes = torch.linalg.svdvals((weights["w"] - encoded["w"].dequantize()).double())
    corrected = add_residuals(encoded, weights, ResidualConfig(2 * (48 + 96), "fp16"))
    assert error(corrected["w"], weights["w"]) == pytest.approx(float(sizes[1:].square().sum()), rel=1e-3)


def test_with_a_hessian_its_error_falls_most() -> None:
    weights = {"w": state()["main.blocks.0.mlp.down.weight"]}
    encoded = pack(weights, ExportConfig("int3"))
    mix = torch.randn(96, 96, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 0, 96)
    hessian = mix.t() @ mix

    def weighted(tensor: EncodedTensor) -> float:
        e = (tensor.dequantize() - weights["w"]).double()
        return float((e @ hessian.double() * e).sum())

    config = ResidualConfig(3 * 2 * (48 + 96), "fp16")
    plain, aware = add_residuals(encoded, weights, config), add_residuals(encoded, weights, config, {"w": hessian})
    assert weighted(aware["w"]) < 0.8 * weighted(plain["w"]) < weighted(encoded["w"])


def test_groups() -> None:
    names = [name for name in state() if name != "vector"]
    assert group_names("mlp-out", names) == [f"main.blocks.{i}.mlp.down.weight" for i in range(4)]
    assert group_names("early-mlp-out", names) == [f"main.blocks.{i}.mlp.down.weight" for i in range(2)]
    assert group_names("attn-out", names) == [f"main.blocks.{i}.attn.out.weight" for i in range(4)]
    assert group_names("out", names) == group_names("all", names) == names
    assert group_names("*.2.*", names) == [name for name in names if ".2." in name]
    encoded = pack(state(), ExportConfig("int3"))
    for group in GROUPS:
        corrected = add_residuals(encoded, state(), ResidualConfig(5_000, group=group))
        touched = {name for name, t in corrected.items() if "left" in t.parts}
        assert touched and touched <= set(group_names(group, names))


def test_early_blocks_are_told_by_their_numbers() -> None:
    names = sorted(f"body.blocks.{i}.mlp.down.weight" for i in range(12))  # as a file lists them: 0, 1, 10, 11, 2 …
    assert group_names("early-mlp-out", names) == [f"body.blocks.{i}.mlp.down.weight" for i in range(6)]


def test_unfit_settings() -> None:
    with pytest.raises(ConfigError, match="names no quantized matrix"):
        add_residuals(pack(state(), ExportConfig("int3")), state(), ResidualConfig(100, group="mlp.up"))
    with pytest.raises(ConfigError, match="must be fp16 or int8"):
        ResidualConfig(1, "int4")
    with pytest.raises(ConfigError, match="at least 0"):
        ResidualConfig(-1)


def test_no_budget_changes_nothing() -> None:
    encoded = pack(state(), ExportConfig("int3"))
    assert add_residuals(encoded, state(), ResidualConfig()) == encoded
    small = add_residuals(encoded, state(), ResidualConfig(50))
    assert all(np.array_equal(small[n].parts["codes"], t.parts["codes"]) for n, t in encoded.items() if n != "vector")
    assert not any("left" in t.parts for t in small.values())
