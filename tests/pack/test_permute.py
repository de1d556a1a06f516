"""Permuted hidden units and heads: another order of rows, the same function."""

from __future__ import annotations

import pytest
import torch

from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.pack.permute import permuted


def randomized(config: ModelConfig) -> LM:
    torch.manual_seed(0)
    model = LM(config).double().eval()
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(torch.randn_like(weights) * 0.1)
    return model


@pytest.mark.parametrize("mlp", ["relu2", "swiglu"])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 2), (4, 1), (2, 2)])
def test_the_function_stays(mlp: str, heads: int, kv_heads: int) -> None:
    level = LevelConfig(StageConfig("T1c1"), StageConfig("C1T1"))
    config = ModelConfig(
        width=32, heads=heads, kv_heads=kv_heads, mlp=mlp, levels=(level,), main=StageConfig("T2t1"), rope_fraction=0.5
    )
    model = randomized(config)
    ids = torch.randint(4, 260, (2, 40), generator=torch.Generator().manual_seed(0))
    before = model(ids)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moved = permuted(state)
    assert list(moved) == list(state)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())  # not in place
    changed = [name for name in state if not torch.equal(state[name], moved[name])]
    assert {name.rpartition("mlp.")[2] for name in changed if "mlp." in name} == {"up.weight", "down.weight"}
    assert any("attn.v" in name for name in changed)
    model.load_state_dict(moved)
    assert (model(ids) - before).abs().max() <= 1e-5 * before.abs().max()


def test_equal_sizes_stay_in_their_order() -> None:
    """Of thousands of equal units: torch sorts few of them stably by itself, many not."""
    units, width = 4096, 2
    up = torch.arange(units, dtype=torch.float32).outer(torch.ones(width)).cos().sign()
    up[:, 0] *= torch.arange(units) % 2 + 1
    state = {"mlp.up.weight": up, "mlp.down.weight": torch.stack([torch.ones(units), -torch.ones(units)])}
    state["mlp.down.weight"][0, 0] = -1
    moved = permuted(state)
    large = torch.arange(units)[torch.arange(units) % 2 == 1]
    order = torch.cat([large, torch.arange(units)[torch.arange(units) % 2 == 0]])
    assert torch.equal(moved["mlp.up.weight"], up[order])
    assert torch.equal(moved["mlp.down.weight"], state["mlp.down.weight"][:, order])


def test_units_are_sorted_by_size() -> None:
    model = randomized(ModelConfig(width=32, heads=2, kv_heads=1, main=StageConfig("T1")))
    moved = permuted(model.state_dict())
    up, down = moved["body.main.blocks.0.mlp.up.weight"], moved["body.main.blocks.0.mlp.down.weight"]
    size = up.square().sum(1) * down.square().sum(0)
    assert torch.equal(size, size.sort(descending=True).values)
