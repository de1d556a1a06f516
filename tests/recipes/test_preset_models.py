"""Every preset: its number of parameters, and one training step of it made small."""

from __future__ import annotations

import pytest
import torch

from niblick.config.run_config import override
from niblick.model.counting import parameter_count
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig
from niblick.recipes.presets import PRESETS, get_preset
from niblick.train.optim import Optimizers

PARAMETERS = {
    "hnet-small": 773_900,
    "words-small": 773_772,
    "hnet-byte260": 17_455_176,
    "hnet-sp1024": 16_666_696,
    "hnet-byte260-12l": 22_966_880,
    "hnet-sp1024-11l": 21_520_472,
    "tinyhnet": 22_178_377,
    "tinyhnet-ste": 22_178_377,
    "baseline-sp1024": 17_059_912,
    "soft-chunker-sp1024": 17_323_593,
    "sp4096-nearcap": 17_057_856,
    "sp1024-9x512-residual": 17_059_912,
    "sp1024-14x576": 33_140_272,
    "quickstart": 14_907_650,
    "niblick-byte-small": 14_857_218,
    "dense-sp1024-small": 8_651_266,
    "niblick-byte": 30_424_128,
    "dense-sp1024": 31_026_272,
    "dense-sp8192": 31_021_648,
}


def small(name: str) -> ModelConfig:
    """A preset's structure at a width of 32 and a vocabulary of 260."""
    return override(
        get_preset(name), ["model.width=32", "model.heads=2", "model.kv_heads=1", "model.vocab_size=260"]
    ).model


def test_all_are_counted() -> None:
    assert set(PARAMETERS) == set(PRESETS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name: str) -> None:
    config = get_preset(name)
    assert config.preset == name
    assert parameter_count(config.model) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_one_training_step(name: str) -> None:
    torch.manual_seed(0)
    model, config = LM(small(name)), get_preset(name)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    ids_BL = torch.randint(4, 260, (2, 65))
    optimizers = Optimizers(model, config.optim)
    for _ in range(2):  # output maps start at zero: what lies behind them moves from the second step on
        losses, _ = model(ids_BL[:, :-1], ids_BL[:, 1:])
        losses.total.backward()
        optimizers.step(0, 1.0)
    assert torch.isfinite(losses.total)
    frozen = {"body.levels.0.router.threshold"} if name == "tinyhnet" else set()
    stuck = {n for n, p in model.named_parameters() if torch.equal(p, before[n])}
    assert stuck == frozen
