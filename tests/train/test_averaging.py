"""Averages of weights: against plain loops, through checkpoints, with tied and frozen weights; the best one is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from niblick.errors import ArtifactError, ConfigError, TrainingError
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.train.averaging import Averages
from niblick.train.settings import TrainConfig


def tied() -> LM:
    torch.manual_seed(0)
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, main=StageConfig("T1")))
    model.body.main.blocks[0].attn.q.weight.requires_grad_(False)  # type: ignore[union-attr, index]
    return model


@torch.no_grad()
def walk(model: nn.Module, averages: Averages, scales: list[float]) -> list[dict[str, Tensor]]:
    """Random steps. Returns the weights after each."""
    seen = []
    for step, scale in enumerate(scales):
        for p in model.parameters():
            if p.requires_grad:
                p.add_(torch.randn_like(p))
        averages.update(step, scale)
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
    return seen


SCALES = [1.0] * 12 + [0.9, 0.6, 0.3, 0.1]


def test_ema_is_the_recursion() -> None:
    model = tied()
    averages = Averages(model, "ema", 0.8)
    seen = walk(model, averages, SCALES)
    frozen = "body.main.blocks.0.attn.q.weight"
    expected = {k: v.double() for k, v in seen[0].items()}
    for step, weights in enumerate(seen[1:], 1):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = {k: decay * v + (1 - decay) * weights[k].double() for k, v in expected.items()}
    assert averages.finish(None) == ("ema", {})
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], atol=1e-5, rtol=1e-5)
    assert torch.equal(model.state_dict()[frozen], seen[0][frozen])


def test_swa_is_the_mean_over_the_warmdown() -> None:
    model = tied()
    averages = Averages(model, "swa", 0.8)
    seen = walk(model, averages, SCALES)
    averages.finish(None)
    for name, tensor in model.state_dict().items():
        expected = torch.stack([weights[name].double() for weights in seen[12:]]).mean(0)
        torch.testing.assert_close(tensor.double(), expected, atol=1e-5, rtol=1e-5)


def test_without_a_warmdown_swa_is_raw() -> None:
    model = tied()
    averages = Averages(model, "swa", 0.8)
    seen = walk(model, averages, [1.0] * 3)
    assert averages.finish(None) == ("raw", {})
    assert all(torch.equal(tensor, seen[-1][name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("best", ["raw", "ema", "swa"])
def test_the_best_is_kept(best: str) -> None:
    """Whichever costs least on the text held back; each is scored with its own weights in the model."""
    model = tied()
    averages = Averages(model, "best", 0.9)
    walk(model, averages, SCALES)
    candidates = {}
    for kind in averages.candidates():
        with averages.in_place(kind):
            candidates[kind] = model.embed.weight.clone()
    assert len({float(w.sum()) for w in candidates.values()}) == 3

    def cost() -> float:
        return float((model.embed.weight - candidates[best]).norm())

    kind, costs = averages.finish(cost)
    assert kind == best
    assert costs[best] == 0 and all(costs[other] > 0 for other in candidates if other != best)
    assert torch.equal(model.embed.weight, candidates[best])
    with pytest.raises(TrainingError, match="none of the weights raw, ema, swa"):
        averages.finish(lambda: float("nan"))


def test_averages_go_through_checkpoints() -> None:
    model = tied()
    averages = Averages(model, "best", 0.9)
    walk(model, averages, SCALES[:14])
    kept = {k: v.clone() for k, v in averages.state_tensors().items()}
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(3)
    walk(model, averages, SCALES[14:])
    other = tied()
    other.load_state_dict(weights)
    resumed = Averages(other, "best", 0.9)
    resumed.load_state_tensors(kept)
    torch.manual_seed(3)
    walk(other, resumed, SCALES[14:])
    for name, tensor in averages.state_tensors().items():
        assert torch.equal(tensor, resumed.state_tensors()[name]), name
    with pytest.raises(ArtifactError, match=r"holds ema, swa, and train\.average=ema needs other ones"):
        Averages(other, "ema", 0.9).load_state_tensors(kept)
    with pytest.raises(ArtifactError, match="holds no averages"):
        Averages(other, "ema", 0.9).load_state_tensors({"x": torch.zeros(1)})


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"train\.average='mean' must be one of raw, ema, swa, best"):
        TrainConfig(average="mean")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="ema_decay"):
        TrainConfig(ema_decay=1.0)
    with pytest.raises(ConfigError, match=r"set train\.checkpoint_every"):
        TrainConfig(rollback=True)


def test_text_that_is_held_back(tmp_path: Path) -> None:
    """The end of the training text, never in a batch; too little of it is refused."""
    from dataclasses import replace

    import numpy as np

    from niblick.data.dataset import Split
    from niblick.recipes.presets import get_preset
    from niblick.run.prepared import held_back

    config = get_preset("hnet-small")
    split = Split("train", [tmp_path] * 2, [np.arange(60_000, dtype=np.uint16), np.arange(40_000, dtype=np.uint16)])
    assert held_back(split, config) == (split, None)
    config = replace(config, train=replace(config.train, average="best"))
    text, holdout = held_back(split, config)
    assert holdout is not None
    assert (text.tokens, holdout.tokens) == (99_500, 500)
    assert np.array_equal(np.concatenate([text.slice(0, 99_500), holdout.slice(0, 500)]), split.slice(0, 100_000))
    with pytest.raises(ConfigError, match="holds back 250 tokens of 50000"):
        held_back(split.part(0, 50_000), config)
