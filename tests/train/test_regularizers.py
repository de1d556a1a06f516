"""Penalties: each moves what it names, measured on what the export makes of the weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from told import noted
from torch import Tensor, nn

from niblick.artifact.dequantize import matrix_shape
from niblick.config.run_config import override
from niblick.data.dataset import Split
from niblick.data.loader import Batches
from niblick.errors import ConfigError
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.pack.export_config import ExportConfig
from niblick.pack.grid import code_entropy, scale_values
from niblick.pack.quantize import quantize
from niblick.pack.schemes import parse_scheme
from niblick.recipes.presets import get_preset
from niblick.score.scorers import Score
from niblick.train.loop import Aids, Hooks, Keeping, Recipe, train
from niblick.train.regularizers import PENALTIES, Penalties, register_penalty
from niblick.train.schedule import ScheduleConfig
from niblick.train.settings import PENALTY_NAMES, OptimConfig, PenaltyConfig, TrainConfig

INT4 = ExportConfig("int4")


def stored(weights: Tensor, scheme: str) -> tuple[Tensor, Tensor, Tensor]:
    """Values, codes and scales (of rows) that the export makes of a matrix."""
    encoded = quantize("w", weights, parse_scheme(scheme))
    codes = torch.from_numpy(encoded.parts["codes"]).float().view(matrix_shape(tuple(weights.shape)))
    return encoded.dequantize().view_as(weights), codes, torch.from_numpy(scale_values(encoded.parts))


def relative_error(weights: Tensor, scheme: str = "int4") -> float:
    return float((stored(weights, scheme)[0] - weights).square().sum() / weights.square().sum())


def distance_in_steps(weights: Tensor) -> float:
    values, _, scale = stored(weights, "int4")
    return float(((weights - values).abs() / scale).mean())


def spread_of_scales(weights: Tensor) -> float:
    return float(stored(weights, "int4")[2].log().var())


def beyond_rank_one(weights: Tensor) -> float:
    values = torch.linalg.svdvals(weights - stored(weights, "int4")[0])
    return float(values[1:].square().sum() / weights.square().sum())


def largest_over_rms(weights: Tensor) -> float:
    return float((weights.abs().amax(1) / weights.square().mean(1).sqrt()).mean())


def bits_per_code(weights: Tensor) -> float:
    return code_entropy(stored(weights, "int4")[1].flatten())


# What each penalty names, and the weight with which it is felt beside a loss.
NAMED: dict[str, tuple[Callable[[Tensor], float], float]] = {
    "reconstruction": (relative_error, 10.0),
    "grid": (distance_in_steps, 1.0),
    "scales": (spread_of_scales, 10.0),
    "rank1": (beyond_rank_one, 10.0),
    "ternary": (lambda weights: relative_error(weights, "ternary"), 1.0),
    "outliers": (largest_over_rms, 0.3),
    "entropy": (bits_per_code, 1.0),
}


BUILT_IN = set(PENALTIES)  # before any other test registers its own


def test_every_penalty_is_tested() -> None:
    assert NAMED.keys() == BUILT_IN


def heavy(rows: int = 48, columns: int = 64) -> Tensor:
    """Weights with rows of different size and heavy tails, as trained ones have."""
    draw = torch.Generator().manual_seed(2)
    x_RC = torch.randn(rows, columns, generator=draw)
    return 0.05 * x_RC * (1 + 0.3 * x_RC.square()) * (0.5 + torch.rand(rows, 1, generator=draw))


@pytest.mark.parametrize("kind", PENALTIES)
def test_descending_on_it_moves_what_it_names(kind: str) -> None:
    named, _ = NAMED[kind]
    weights = nn.Parameter(heavy())
    before = named(weights.detach())
    optimizer = torch.optim.Adam([weights], lr=5e-4)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        value = PENALTIES[kind](weights, parse_scheme("int4"))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.95 * values[0]
    assert named(weights.detach()) < 0.97 * before


def batches() -> Batches:
    files = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))
    tokens = np.concatenate([np.frombuffer(f.read_bytes(), np.uint8) for f in files]).astype(np.uint16) + 4
    split = Split("train", [Path("memory")], [tokens])
    return Batches(split, vocab_size=260, seq_len=32, rows=4, order="shuffle", seed=3)


def go(folder: Path, steps: int, *penalties: PenaltyConfig) -> tuple[LM, list[dict[str, Any]]]:
    torch.manual_seed(5)
    model = LM(ModelConfig(width=48, heads=2, kv_heads=1, main=StageConfig("T2")))
    events: list[dict[str, Any]] = []
    config = TrainConfig(32, 128, 128, 0, 0, dtype="float32", device="cpu", log_every=5, penalties=penalties)
    train(
        model,
        batches(),
        Recipe(
            config,
            ScheduleConfig(steps=steps, warmdown_steps=steps // 2),
            OptimConfig(muon_momentum_steps=10, matrix_lr=0.02),
        ),
        Hooks(noted(events), lambda model: Score(1.0, 1, 1, 0.0)),
        aids=Aids(penalties=Penalties(model, penalties, INT4) if penalties else None),
        keeping=Keeping(folder) if folder else None,
    )
    return model, events


def mean_over_matrices(model: LM, named: Callable[[Tensor], float]) -> float:
    return float(np.mean([named(w.detach()) for w, _ in Penalties(model, (ALL,), INT4).weights[0]]))


ALL = PenaltyConfig("grid", 1.0)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[LM, float]:
    model, events = go(tmp_path_factory.mktemp("plain"), 100)
    return model, float(np.mean([e["loss"] for e in events if e["event"] == "step"][-10:]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", PENALTIES)
def test_with_the_loss_it_moves_what_it_names(kind: str, plain: tuple[LM, float], tmp_path: Path) -> None:
    """Trained for equal steps, what it names is smaller, and the model still learns."""
    named, weight = NAMED[kind]
    model, events = go(tmp_path, 100, PenaltyConfig(kind, weight, interval=2, start=20, matrices=0))
    loss = float(np.mean([e["loss"] for e in events if e["event"] == "step"][-10:]))
    with_it, without = mean_over_matrices(model, named), mean_over_matrices(plain[0], named)
    print(kind, f"{without:.4f} → {with_it:.4f}; loss {plain[1]:.3f} → {loss:.3f}")
    assert with_it < 0.97 * without
    assert loss < plain[1] + 0.3


def test_it_acts_when_and_where_it_is_told(tmp_path: Path) -> None:
    config = PenaltyConfig("grid", 2.0, interval=3, start=4, patterns=("*.mlp.*", "attn.q"), matrices=2)
    _, events = go(tmp_path, 12, config)
    steps = [e for e in events if e["event"] == "step"]
    assert [e["step"] for e in steps if "penalty_0_grid" in e] == [5, 8, 11]
    assert all(0 < e["penalty_0_grid"] < 0.5 for e in steps if "penalty_0_grid" in e)

    torch.manual_seed(1)
    model = LM(ModelConfig(width=64, heads=2, kv_heads=2, main=StageConfig("T3")))
    for p in model.parameters():
        nn.init.normal_(p, std=0.1)
    penalties = Penalties(model, (config,), INT4)
    assert penalties.add_gradients(3) == penalties.add_gradients(5) == {}
    touched = []
    for step in (4, 7, 10, 13, 16):
        penalties.add_gradients(step)
        touched.append({name for name, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    assert all(len(names) == 2 for names in touched)
    assert all("mlp" in name or "attn.q" in name for names in touched for name in names)
    assert len(set().union(*touched)) > 2  # others each time


def test_the_gradient_is_added_to_that_of_the_loss_and_is_the_same_every_time() -> None:
    torch.manual_seed(1)
    model = LM(ModelConfig(width=64, heads=2, kv_heads=2, main=StageConfig("T1")))
    config = PenaltyConfig("reconstruction", 3.0, matrices=2)
    penalties = Penalties(model, (config, replace(config, weight=6.0)), INT4)
    penalties.add_gradients(7)
    first = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    penalties.add_gradients(7)
    for name, p in model.named_parameters():
        assert (name in first) == (p.grad is not None)
        if p.grad is not None:
            assert torch.allclose(p.grad, 2 * first[name])
    single = Penalties(model, (config,), INT4)
    model.zero_grad()
    single.add_gradients(7)
    for name, p in model.named_parameters():
        if p.grad is not None:
            assert torch.allclose(3 * p.grad, first[name], atol=1e-7)


@pytest.mark.parametrize("scheme", ["int8-published", "int4:g16:log", "int6:column", "ecsq3:row", "ternary"])
@pytest.mark.parametrize("kind", PENALTIES)
def test_zeros_and_every_scheme_give_finite_gradients(kind: str, scheme: str) -> None:
    for weights in (torch.zeros(8, 24), heavy(8, 24) * (torch.arange(8) > 2)[:, None]):
        held = weights.requires_grad_()
        value = PENALTIES[kind](held, parse_scheme(scheme))
        (gradient,) = torch.autograd.grad(value, held)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


def test_the_entropy_of_weights_on_the_grid_is_that_of_their_codes() -> None:
    weights = stored(heavy(), "int4")[0]
    assert PENALTIES["entropy"](weights, parse_scheme("int4")).item() == pytest.approx(bits_per_code(weights), abs=1e-3)


def test_a_penalty_of_one_s_own() -> None:
    def small(weights_RC: Tensor, scheme: Any) -> Tensor:
        return weights_RC.square().mean()

    register_penalty("small", small)
    register_penalty("small", small)
    try:
        with pytest.raises(ConfigError, match="'entropy' is taken"):
            register_penalty("entropy", small)
        model = LM(ModelConfig(width=64, heads=2, kv_heads=2, main=StageConfig("T1")))
        assert "penalty_0_small" in Penalties(model, (PenaltyConfig("small", 1.0),), INT4).add_gradients(0)
    finally:
        del PENALTIES["small"]
        PENALTY_NAMES.remove("small")


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        ({"kind": "gird", "weight": 1}, r"unknown penalty kind='gird' \(nearest: grid\)"),
        ({"kind": "grid", "weight": 0}, "weight=0.0 must be positive"),
        ({"kind": "grid", "weight": 1, "interval": 0}, "interval=0 must be at least 1"),
        ({"kind": "grid", "weight": 1, "start": -1}, "must not be negative"),
        ({"kind": "grid", "weight": 1, "every": 3}, "unknown key 'train.penalties.0.every'"),
    ],
)
def test_values_that_make_no_sense_are_refused(penalty: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(get_preset("hnet-small"), [f"train.penalties={json.dumps([penalty])}"])


def test_what_fits_no_tensor_is_refused() -> None:
    with torch.device("meta"):
        model = LM(ModelConfig(width=64, heads=2, kv_heads=2, main=StageConfig("T1")))
    with pytest.raises(ConfigError, match=r"no tensor that int4\+zlib rounds is named like 'mpl'"):
        Penalties(model, (PenaltyConfig("grid", 1.0, patterns=("mpl",)),), INT4)
    with pytest.raises(ConfigError, match="keeps all tensors as floats"):
        Penalties(model, (PenaltyConfig("grid", 1.0),), ExportConfig("fp16"))
