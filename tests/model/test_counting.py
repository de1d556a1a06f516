"""Weights counted from a config are those of the model; names that configs know are those that stand for a part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from niblick.errors import ConfigError
from niblick.model import counting, model_config
from niblick.model.counting import parameter_count
from niblick.model.layers import BLOCKS, register_block
from niblick.model.level import RATIO_LOSSES
from niblick.model.lm import LM
from niblick.model.mlp import MLPS
from niblick.model.model_config import (
    BlockConfig,
    EntropyConfig,
    LevelConfig,
    ModelConfig,
    NgramConfig,
    StageConfig,
    is_soft,
)
from niblick.model.plain_routers import CosineRouter, SoftRouter
from niblick.model.routers import ROUTERS, register_router
from niblick.recipes.presets import PRESETS, get_preset
from niblick.score.score_config import SIDECARS
from niblick.score.sidecars import ADJUSTERS
from niblick.train import settings as train_settings
from niblick.train.optim import OPTIMIZERS
from niblick.train.precision import DTYPES
from niblick.train.regularizers import PENALTIES

SHIPPED = (
    *("cosine", "cosine-threshold", "cosine-bias", "soft", "fixed", "whitespace", "entropy", "given"),
    *("score-function", "gumbel", "sombrero", "coding-rate", "delayed"),
)
"""Routers, without those that other tests register."""


def made(config: ModelConfig) -> int:
    """Weights of the model itself; tied ones count once."""
    with torch.device("meta"):
        return sum(p.numel() for p in LM(config).parameters())


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    config = get_preset(name).model
    assert parameter_count(config) == made(config)


def optional(own: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | own


FLAGS = ("qk_norm", "residual_mix", "parallel", "branch_scale", "norm_weights")


@st.composite
def block_fields(draw: st.DrawFn, missing: bool = False) -> dict[str, Any]:
    """Fields of blocks at a width that is a multiple of 16; with `missing` each may be left out."""
    fields: dict[str, st.SearchStrategy[Any]] = {
        "mlp_mult": st.sampled_from([0.7, 2.0, 3.0]),
        "mlp": st.sampled_from(sorted(MLPS)),
        "mlp_multiple": st.sampled_from([1, 7]),
        "qk_gain": st.sampled_from([0.0, 1.5]),
        "conv_kernel": st.integers(1, 5),
        "ssm_state": st.integers(1, 5),
        "ssm_expand": st.integers(1, 3),
        "ssm_head_width": st.sampled_from([4, 16]),
    } | dict.fromkeys(FLAGS, st.booleans())
    chosen = {name: draw(optional(own) if missing else own) for name, own in fields.items()}
    heads = draw(st.sampled_from([(2, 1), (4, 2), (4, 4), *([(None, None)] if missing else [])]))
    return chosen | {"heads": heads[0], "kv_heads": heads[1]}


@st.composite
def stages(draw: st.DrawFn, width: int | None = None) -> StageConfig:
    letters = draw(st.text("TtCcMm", min_size=1, max_size=4))
    unique = draw(st.booleans())
    layout = letters * 2 if unique else letters
    fields = draw(block_fields(missing=True))
    norms = {"skips": draw(st.booleans()), "norm_in": draw(st.booleans())}
    return StageConfig(layout, width, unique=len(letters) if unique else 0, **norms, **fields)


@st.composite
def levels(draw: st.DrawFn, width: int, outermost: bool, soft: bool) -> LevelConfig:
    known = sorted(name for name in SHIPPED if outermost or name not in model_config.GIVEN)
    router = draw(st.sampled_from([name for name in known if soft or not is_soft(name)]))
    return LevelConfig(
        draw(optional(stages())),
        draw(optional(stages())),
        router,
        width,
        residual_bias=draw(st.booleans()),
        dechunk=draw(st.sampled_from(["smooth", "decay"])),
    )


@st.composite
def models(draw: st.DrawFn, small: bool = False) -> ModelConfig:
    count = 0 if small else draw(st.integers(0, 2))
    widths = sorted(draw(st.lists(st.sampled_from([16, 32, 48]), min_size=count + 1, max_size=count + 1)))
    chain = tuple(draw(levels(width, i == 0, widths[i + 1] == width)) for i, width in enumerate(widths[:-1]))
    entropy = None
    if chain and chain[0].router == "entropy":
        entropy = EntropyConfig(draw(models(small=True)))
    ngram = st.builds(NgramConfig, st.integers(2, 4), st.integers(1, 9), st.integers(1, 9), st.booleans())
    return ModelConfig(
        width=widths[0],
        vocab_size=260,
        levels=chain,
        main=draw(stages(widths[-1])),
        tie_embeddings=draw(st.booleans()),
        embed_width=draw(st.sampled_from([0, 8, 16])),
        ngrams=tuple(draw(st.lists(ngram, max_size=2))),
        entropy=entropy,
        **draw(block_fields()),
    )


@settings(max_examples=150, deadline=None)
@given(models())
def test_any_model(config: ModelConfig) -> None:
    assert parameter_count(config) == made(config)


def test_what_cannot_be_made_is_not_counted() -> None:
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), "entropy")
    for config in (ModelConfig(levels=(level,)), ModelConfig(ssm_head_width=7, main=StageConfig("m1"))):
        with pytest.raises(ConfigError) as counted:
            parameter_count(config)
        with pytest.raises(ConfigError) as tried:
            made(config)
        assert str(counted.value) == str(tried.value)


class _Gate(torch.nn.Module):
    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.gate = torch.nn.Linear(config.width, 3)


class _Wide(CosineRouter):
    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.more = torch.nn.Linear(width, 5)


class _Softer(SoftRouter):
    pass


@pytest.fixture
def registered() -> Iterator[None]:
    register_block("Q", _Gate)
    register_router("wide", _Wide)
    register_router("softer", _Softer)
    yield
    del BLOCKS["Q"], ROUTERS["wide"], ROUTERS["softer"]
    model_config.BLOCK_LETTERS.discard("Q")
    model_config.ROUTER_NAMES.difference_update({"wide", "softer"})
    model_config.SOFT_ROUTERS.discard("softer")


@pytest.mark.parametrize(("layout", "router"), [("Q2", "cosine"), ("T1", "wide"), ("T1", "softer")])
def test_registered_parts_are_counted(registered: None, layout: str, router: str) -> None:
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), router)
    config = ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig(layout))
    assert parameter_count(config) == made(config)
    assert is_soft(router) == (router == "softer")


def test_unknown_names_are_refused_with_the_nearest(registered: None) -> None:
    with pytest.raises(ConfigError, match=r"unknown router 'wid'.*wide"):
        LevelConfig(router="wid")
    with pytest.raises(ConfigError, match=r"known letters are .*Q"):
        StageConfig("Z1")


def test_configs_know_the_names_of_all_parts() -> None:
    """Names stand in the modules of configs, and what they mean where torch is: one for one."""
    assert BLOCKS.keys() == model_config.BLOCK_LETTERS
    assert ROUTERS.keys() == model_config.ROUTER_NAMES
    soft = {name for name, made in ROUTERS.items() if isinstance(made, type) and issubclass(made, SoftRouter)}
    assert soft == model_config.SOFT_ROUTERS
    assert set(model_config.MLP_KINDS) == MLPS.keys()
    assert set(model_config.RATIOS) == RATIO_LOSSES.keys()
    assert OPTIMIZERS.keys() == train_settings.OPTIMIZER_NAMES
    assert PENALTIES.keys() == train_settings.PENALTY_NAMES
    assert set(train_settings.DTYPES) == DTYPES.keys()
    assert set(SIDECARS) == ADJUSTERS.keys()


def test_every_part_that_ships_is_counted_without_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_made", lambda config: pytest.fail("a model was made"))
    for letter in "TtCcMm":
        parameter_count(ModelConfig(main=StageConfig(letter)))
    for router in set(SHIPPED) - {"entropy"}:
        level = LevelConfig(StageConfig("T1"), StageConfig("T1"), router)
        parameter_count(replace(ModelConfig(), levels=(level,)))
