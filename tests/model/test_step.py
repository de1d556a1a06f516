"""Two faces, one set of weights: `step` equals the forward pass position by position, in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from niblick.config.run_config import override
from niblick.errors import ConfigError
from niblick.model.lm import LM
from niblick.model.model_config import EntropyConfig, LevelConfig, ModelConfig, NgramConfig, StageConfig
from niblick.model.providers import Entropy
from niblick.model.stepping import can_compile, compiled
from niblick.recipes.presets import PRESETS, get_preset


def rough(config: ModelConfig, seed: int = 0) -> LM:
    """A model in float64 whose weights are all away from zero, so that every part has a say."""
    torch.manual_seed(seed)
    model = LM(config).double()
    for p in model.parameters():
        p.data += 0.1 * torch.randn_like(p)
    return model


def text(rows: int, length: int, seed: int = 0) -> Tensor:
    """Rows of bytes with runs, so that neighbours are sometimes alike, and a BOS here and there."""
    generator = torch.Generator().manual_seed(seed)
    ids_BL = torch.randint(30, 60, (rows, length), generator=generator)
    again_BL = torch.rand(rows, length, generator=generator) < 0.3
    again_BL[:, 0] = False
    index_BL = torch.where(again_BL, 0, torch.arange(length)).cummax(1).values
    ids_BL = ids_BL.gather(1, index_BL)
    ids_BL[torch.rand(rows, length, generator=generator) < 0.02] = 1
    return ids_BL


def assert_steps_equal(model: LM, ids_BL: Tensor, **given: Any) -> None:
    with torch.no_grad():
        logits = model(ids_BL, **given)
        state = model.new_state(len(ids_BL), context=ids_BL.shape[1])
        for t in range(ids_BL.shape[1]):
            extra = {"given_B": given["given_BL"][:, t]} if given else {}
            ours = model.step(ids_BL[:, t], state, **extra)
            worst = (ours - logits[:, t]).abs().max().item()
            assert worst < 1e-9, f"position {t}: off by {worst:.1e}"


@pytest.mark.slow
@pytest.mark.parametrize("layouts", [("T1c1", "T2", "t1"), ("C1", "T1m1", "c1")], ids=["attention", "convolution"])
def test_compiled_pieces_step_as_plain_ones(layouts: tuple[str, str, str]) -> None:
    """Past the length at which states would have grown, too; rotary angles are float32, and round otherwise."""
    if not can_compile():
        pytest.skip("torch.compile does not work here: there is no compiler of C++")
    encoder, main, decoder = (StageConfig(layout) for layout in layouts)
    level = LevelConfig(encoder=encoder, decoder=decoder)
    ngrams = (NgramConfig(2, 64, 8), NgramConfig(2, 64, 8, words=True))
    model = rough(ModelConfig(width=32, heads=2, kv_heads=1, levels=(level,), main=main, ngrams=ngrams))
    ids_L, steps = text(1, 40)[0], compiled(40)
    plainly, state = model.new_state(1), model.new_state(1, steps=steps)
    with torch.inference_mode():
        for token in ids_L:
            assert torch.allclose(model.step(token[None], state), model.step(token[None], plainly), atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_presets(name: str) -> None:
    small = ["model.width=32", "model.heads=2", "model.kv_heads=1", "model.vocab_size=260"]
    model = rough(override(get_preset(name), small).model)
    assert_steps_equal(model, text(2, 512))


def test_rows_differ() -> None:
    """The rows of the presets' test reach boundaries at different positions: else it would show less."""
    small = ["model.width=32", "model.heads=2", "model.kv_heads=1"]
    model = rough(override(get_preset("hnet-byte260"), small).model)
    boundary_BL = model.hidden(text(2, 512))[1][0].boundary_BL
    assert 0.1 < boundary_BL.double().mean() < 0.9
    assert (boundary_BL[0] != boundary_BL[1]).any()


def two_levels(**inner: Any) -> ModelConfig:
    return ModelConfig(
        width=16,
        heads=2,
        kv_heads=1,
        levels=(
            LevelConfig(StageConfig("T1c1"), StageConfig("c1t1"), target_length=3.0),
            LevelConfig(StageConfig("T1"), StageConfig("C1"), width=24, target_length=3.0, **inner),
        ),
        main=StageConfig("T2", width=32),
    )


def test_two_levels() -> None:
    assert_steps_equal(rough(two_levels()), text(3, 128))
    assert_steps_equal(rough(two_levels(capacity="packed")), text(3, 128))


STEPPING = [
    "fixed",
    "cosine-threshold",
    "cosine-bias",
    "score-function",
    "gumbel",
    "sombrero",
    "coding-rate",
    "delayed",
]
DECHUNKS = ["smooth", "decay", "input", "plain"]


@pytest.mark.parametrize("router", ["whitespace", *STEPPING])
def test_routers(router: str) -> None:
    level = LevelConfig(router=router, target_length=3.0, dechunk="input" if router == "sombrero" else "smooth")
    config = ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,))
    assert_steps_equal(rough(config), text(3, 96))


def test_given_boundaries() -> None:
    model = rough(ModelConfig(width=16, heads=2, kv_heads=1, levels=(LevelConfig(router="given"),)))
    boundary_BL = torch.rand(2, 64) < 0.3
    assert_steps_equal(model, text(2, 64), given_BL=boundary_BL)
    assert model.hidden(text(2, 64), boundary_BL)[1][0].boundary_BL[:, 0].all()
    with pytest.raises(ConfigError, match="from outside"):
        model(text(2, 64))


def test_entropy_of_a_small_model() -> None:
    small = ModelConfig(width=8, heads=1, kv_heads=1, levels=(), main=StageConfig("T1"))
    config = ModelConfig(
        width=16, heads=2, kv_heads=1, levels=(LevelConfig(router="entropy"),), entropy=EntropyConfig(small, 5.2)
    )
    model = rough(config)
    assert isinstance(model.provider, Entropy)
    log_p = model.provider.lm(text(2, 96)).log_softmax(-1)
    model.provider.threshold = float(-(log_p.exp() * log_p).sum(-1).median()) + 1e-9
    boundary_BL = model.hidden(text(2, 96))[1][0].boundary_BL
    assert 0.02 < boundary_BL.double().mean() < 0.98
    assert_steps_equal(model, text(2, 96))
    assert not any(p.requires_grad for n, p in model.named_parameters() if n.startswith("provider."))


def stages(draw: Any) -> StageConfig:
    layout = draw(st.sampled_from(["T1", "T2", "t1", "C1", "c2", "T1c1", "c1T2t1", "C2t1"]))
    return StageConfig(
        layout,
        mlp=draw(st.sampled_from([None, "leaky_relu2", "swiglu"])),
        window=draw(st.sampled_from([None, 1, 3, 8])),
        rope_fraction=draw(st.sampled_from([None, 0.0, 0.5])),
        residual_mix=draw(st.sampled_from([None, False])),
        parallel=draw(st.sampled_from([None, True])),
        conv_kernel=draw(st.sampled_from([None, 1, 2, 5])),
        unique=draw(st.sampled_from([0, 1])) if len(set(layout) - set("0123456789")) == 1 else 0,
        skips=draw(st.booleans()),
        norm_in=draw(st.booleans()),
    )


WORDS = tuple(NgramConfig(n, 50, 8, words=True) for n in (1, 2, 3))


@st.composite
def configs(draw: Any) -> ModelConfig:
    levels, width = [], 16
    for i in range(draw(st.integers(0, 3))):
        width += draw(st.sampled_from([0, 0, 8])) if i else 0
        routers = ["cosine", *STEPPING] + ["whitespace"] * (i == 0)
        levels.append(
            LevelConfig(
                stages(draw) if draw(st.booleans()) else None,
                stages(draw) if draw(st.booleans()) else None,
                router=draw(st.sampled_from(routers)),
                width=width,
                target_length=draw(st.sampled_from([2.0, 3.4])),
                dechunk=draw(st.sampled_from(DECHUNKS)),
                confidence=draw(st.booleans()),
                bucket=draw(st.sampled_from([1, 16])),
            )
        )
    if draw(st.booleans()):
        levels.append(LevelConfig(None, None, router="soft", width=width))
    return ModelConfig(
        width=16,
        heads=2,
        kv_heads=draw(st.sampled_from([1, 2])),
        levels=tuple(levels),
        main=replace(stages(draw), width=width),
        tie_embeddings=draw(st.booleans()),
        embed_width=draw(st.sampled_from([0, 4])),
        ngrams=draw(st.sampled_from([(), (NgramConfig(2, 50, 8), NgramConfig(3, 50, 8)), WORDS])),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(configs(), st.integers(0, 1000))
def test_random_configs(config: ModelConfig, seed: int) -> None:
    model = rough(config, seed)
    assert_steps_equal(model, text(3, 24, seed))
