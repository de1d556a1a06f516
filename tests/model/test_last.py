"""Asked for the last positions alone, a model gives the same numbers, and leaves out what they do not depend on."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from niblick.model.layers import register_block
from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.model.stage import Stage

E, C = StageConfig("T2"), StageConfig("c3")


class Unaware(torch.nn.Module):
    """A block of a user who has never heard of `last`: causal, and it returns everything."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.map = torch.nn.Linear(config.width, config.width)

    def forward(self, x_BLD: torch.Tensor, x0_BLD: torch.Tensor, context: Any) -> torch.Tensor:
        return x_BLD + self.map(x_BLD.cumsum(1)) + x0_BLD


register_block("U", Unaware)

MODELS: dict[str, dict[str, Any]] = {
    "dense": {"main": StageConfig("T4")},
    "one block": {"main": StageConfig("T1")},
    "window": {"main": StageConfig("T4", window=7)},
    "mixed": {"main": StageConfig("T1c2T1C1t1")},
    "convolutions": {"main": StageConfig("c3")},
    "unaware": {"main": StageConfig("T1U1T1")},
    "shared": {"main": StageConfig("T4", unique=2)},
    "no skips": {"main": StageConfig("T3", skips=False)},
    "hnet": {"levels": (LevelConfig(E, E),)},
    "hnet, packed": {"levels": (LevelConfig(E, E, capacity="packed"),)},
    "hnet, divisor": {"levels": (LevelConfig(E, E, capacity="divisor:4"),)},
    "hnet without a decoder": {"levels": (LevelConfig(E, None),)},
    "hnet, windows": {"levels": (LevelConfig(E, StageConfig("T2", window=5)),)},
    "tinyhnet": {"levels": (LevelConfig(C, C, router="cosine-threshold", dechunk="decay", confidence=False),)},
    "decay, divisor": {"levels": (LevelConfig(C, C, dechunk="decay", capacity="divisor:4"),)},
    "decay, packed": {"levels": (LevelConfig(C, C, dechunk="decay", capacity="packed"),)},
    "two levels, decay": {
        "levels": (
            LevelConfig(C, C, target_length=3.0, dechunk="decay"),
            LevelConfig(C, C, target_length=3.0, dechunk="decay"),
        )
    },
    "two levels": {"levels": (LevelConfig(E, E, target_length=3.0), LevelConfig(E, E, target_length=3.0))},
    "soft": {"levels": (LevelConfig(None, None, router="soft"),), "main": StageConfig("T3")},
    "soft with a decoder": {"levels": (LevelConfig(E, C, router="soft"),), "main": StageConfig("c2")},
    "whitespace": {"levels": (LevelConfig(E, E, router="whitespace"),)},
}


def make(config: dict[str, Any]) -> LM:
    torch.manual_seed(0)
    given = {"main": StageConfig("T2")} | config
    model = LM(ModelConfig(width=16, heads=2, kv_heads=1, embed_std=0.5, **given))
    for p in model.parameters():
        p.data += 0.2 * torch.randn_like(p)
    return model


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize(("length", "last"), [(40, 1), (40, 8), (40, 39), (40, 40), (5, 3)])
def test_the_last_positions_are_the_same(config: dict[str, Any], length: int, last: int) -> None:
    model = make(config)
    ids_BL = torch.randint(4, 260, (3, length), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
            model = model.to(dtype)
            whole_BLD, routings = model.hidden(ids_BL)
            ending_BND, again = model.hidden(ids_BL, last=last)
            assert ending_BND.shape == (3, last, 16)
            torch.testing.assert_close(ending_BND, whole_BLD[:, -last:], rtol=tolerance, atol=tolerance)
            for a, b in zip(routings, again, strict=True):
                assert torch.equal(a.boundary_BL, b.boundary_BL)


@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_filling_up_does_not_matter(config: dict[str, Any]) -> None:
    """A row's states are those it has alone, whatever stands behind it and beside it."""
    if "divisor" in str(config):
        pytest.skip("a divisor gives room by the length of the batch")
    model = make(config).double()
    ids_BL = torch.randint(4, 260, (3, 40), generator=torch.Generator().manual_seed(1))
    length_B = torch.tensor([40, 13, 1])
    with torch.no_grad():
        rows_BLD, routings = model.hidden(ids_BL, length_B=length_B)
        for b, n in enumerate(length_B.tolist()):
            alone_1LD, _ = model.hidden(ids_BL[b : b + 1, :n])
            torch.testing.assert_close(rows_BLD[b, :n], alone_1LD[0], rtol=1e-10, atol=1e-10)
    for routing in routings:
        if model.config.levels[0].router != "soft" and routing is routings[0]:
            assert not routing.boundary_BL[2, 1:].any(), "what fills up starts no chunks"


@pytest.mark.parametrize(
    ("layout", "options", "needed"),
    [("T3", {}, 100), ("c3", {}, 8 + 9), ("T2", {"window": 5}, 8 + 8), ("T1c1", {}, 100), ("c1T1", {}, 100)],
)
def test_what_is_needed(layout: str, options: dict[str, Any], needed: int) -> None:
    stage = Stage(StageConfig(layout, **options), ModelConfig(width=16, heads=2, kv_heads=1))
    assert stage.needs(100, 8) == needed
    assert stage.needs(100, 100) == 100
