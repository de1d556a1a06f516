"""Layouts, parameter counts, causality and levels of the model family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from niblick.errors import ConfigError
from niblick.model.counting import parameter_count
from niblick.model.lm import LM
from niblick.model.model_config import BlockConfig, LevelConfig, ModelConfig, StageConfig, parse_layout
from niblick.recipes.presets import get_preset


def small(levels: int = 1, **changes: object) -> ModelConfig:
    level = LevelConfig(StageConfig("T1"), StageConfig("T2"), target_length=3.0, bucket=4)
    values: dict[str, object] = {"width": 16, "heads": 2, "kv_heads": 1, "levels": (level,) * levels}
    return ModelConfig(**(values | {"main": StageConfig("T3")} | changes))  # type: ignore[arg-type]


def trained_looking(config: ModelConfig, seed: int = 0) -> LM:
    """A float64 model with no weight left at zero, so that every path carries something."""
    torch.manual_seed(seed)
    model = LM(config).double()
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model


def test_published_parameter_count() -> None:
    assert parameter_count(get_preset("hnet-byte260").model) == 17_455_176


@pytest.mark.parametrize(("layout", "blocks"), [("T3", "TTT"), ("T", "T"), ("T1T2", "TTT")])
def test_layouts(layout: str, blocks: str) -> None:
    assert parse_layout(layout) == blocks


@pytest.mark.parametrize("layout", ["", "3T", "T0", "T3-", "T3 c2", "Q2"])
def test_layouts_that_do_not_parse(layout: str) -> None:
    with pytest.raises(ConfigError) as error:
        StageConfig(layout)
    assert repr(layout) in str(error.value) or "empty layout" in str(error.value)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"width": 512, "heads": 7}, "heads=7 do not divide width=512"),
        ({"width": 15, "heads": 5, "kv_heads": 5}, "odd width"),
        ({"heads": 8, "kv_heads": 3}, "kv_heads=3"),
        ({"width": 0}, "width=0"),
        ({"mlp_mult": 0}, "mlp_mult=0"),
    ],
)
def test_blocks_that_do_not_fit(values: dict[str, int], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        BlockConfig(**values)  # type: ignore[arg-type]


def test_a_stage_may_not_break_the_rules_either() -> None:
    with pytest.raises(ConfigError, match="heads=3 do not divide"):
        small(main=StageConfig("T1", heads=3))


@pytest.mark.parametrize(
    ("values", "word"),
    [({"target_length": 1.0}, "above 1"), ({"router": "cosin"}, "nearest: cosine"), ({"lr_diff": 0.0}, "positive")],
)
def test_levels_that_do_not_fit(values: dict[str, object], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        LevelConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_nothing_depends_on_later_tokens(levels: int) -> None:
    model = trained_looking(small(levels))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, 260, (2, 40), generator=generator)
    with torch.no_grad():
        logits = model(ids)
        for t in (0, 7, 20, 38):
            changed = ids.clone()
            changed[:, t + 1 :] = torch.randint(4, 260, (2, 39 - t), generator=generator)
            torch.testing.assert_close(model(changed)[:, : t + 1], logits[:, : t + 1], rtol=1e-10, atol=1e-10)
            assert not torch.allclose(model(changed)[:, t + 1 :], logits[:, t + 1 :])


@pytest.mark.parametrize("levels", [1, 2])
def test_rows_do_not_depend_on_each_other(levels: int) -> None:
    """Rows have different chunk counts, so each sees other padding in a batch than alone."""
    model = trained_looking(small(levels))
    ids = torch.randint(4, 260, (4, 50), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        together, routings = model.hidden(ids)
        assert len(set(routings[0].chunks_B().tolist())) > 1
        for b in range(4):
            alone, _ = model.hidden(ids[b : b + 1])
            torch.testing.assert_close(alone[0], together[b], rtol=1e-10, atol=1e-10)


def test_inner_levels_have_no_boundaries_in_the_padding() -> None:
    model = trained_looking(small(2))
    ids = torch.randint(4, 260, (4, 50), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        _, (outer, inner) = model.hidden(ids)
    assert inner.length_B is not None
    assert torch.equal(inner.length_B, outer.chunks_B())
    positions = torch.arange(inner.boundary_BL.shape[1])
    assert not (inner.boundary_BL & (positions >= inner.length_B[:, None])).any()


def test_the_bucket_changes_nothing() -> None:
    ids = torch.randint(4, 260, (3, 45), generator=torch.Generator().manual_seed(3))
    results = []
    for bucket in (1, 8, 64):
        level = LevelConfig(StageConfig("T1"), StageConfig("T2"), target_length=3.0, bucket=bucket)
        model = trained_looking(replace(small(), levels=(level,)))
        losses, _ = model(ids[:, :-1], ids[:, 1:])
        losses.total.backward()
        results.append([losses.total.detach(), *(p.grad for p in model.parameters())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_loss_in_slices_equals_the_loss_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from niblick.model import loss

    ids = torch.randint(4, 260, (2, 31), generator=torch.Generator().manual_seed(3))
    results = []
    for elements in (1 << 24, 260 * 7):
        monkeypatch.setattr(loss, "LOGIT_ELEMENTS", elements)
        model = trained_looking(small())
        losses, _ = model(ids[:, :-1], ids[:, 1:])
        losses.total.backward()
        results.append([losses.lm.detach(), *(p.grad for p in model.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_lm_loss_reaches_the_router() -> None:
    model = trained_looking(small())
    ids = torch.randint(4, 260, (2, 40), generator=torch.Generator().manual_seed(4))
    losses, _ = model(ids[:, :-1], ids[:, 1:])
    losses.lm.backward()
    gradient = dict(model.named_parameters())["body.levels.0.router.q.weight"].grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_untied_head() -> None:
    model = trained_looking(small(tie_embeddings=False))
    assert "unembed.weight" in model.state_dict()
    assert parameter_count(small(tie_embeddings=False)) == parameter_count(small()) + 260 * 16
