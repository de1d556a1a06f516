"""All presets are honest: their models, made small but built alike, pass every check over three seeds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from niblick.audit.function_checks import Effort
from niblick.audit.model_checks import audit_model
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig
from niblick.recipes.presets import PRESETS, get_preset


def small(config: ModelConfig) -> ModelConfig:
    """The same layouts, routers and capacities, narrow and over few tokens."""
    levels = tuple(replace(level, width=None, target_length=4.0) for level in config.levels)
    main = replace(config.main, width=None)
    vocab = 260 if config.vocab_size == 260 else 96
    return replace(config, width=16, heads=2, kv_heads=1, levels=levels, main=main, vocab_size=vocab)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PRESETS)
def test_honest_presets_pass(name: str, seed: int) -> None:
    torch.manual_seed(seed)
    model = LM(small(get_preset(name).model))
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    ids_BL = torch.randint(2, model.config.vocab_size, (4, 48))
    ids_BL[:, 20] = 1
    checks = audit_model(model, ids_BL, 1, Effort(tokens=1 << 14))
    assert {check.name: check.status for check in checks} == {
        "causality": "pass",
        "normalization": "pass",
        "independence": "pass",
    }, checks
