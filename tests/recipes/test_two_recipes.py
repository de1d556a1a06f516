"""One process may read several recipes, and one of them several times: each has the names that it registers."""

from __future__ import annotations

from pathlib import Path

import pytest

from niblick.errors import ConfigError
from niblick.model import layers
from niblick.model.layers import BLOCKS
from niblick.recipes.presets import load_recipe

RECIPE = """
from torch import nn
from niblick.config.run_config import RunConfig
from niblick.model.layers import register_block
from niblick.model.model_config import ModelConfig, StageConfig

class {name}(nn.Module):
    pass

register_block("{letter}", {name})

def recipe():
    return RunConfig(preset="mine", model=ModelConfig(width=32, heads=2, kv_heads=1, main=StageConfig("{letter}1")))
"""


def test_a_letter_is_the_last_recipe_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "BLOCKS", dict(BLOCKS))
    for name in ("First", "First", "Second"):
        (tmp_path / "recipe.py").write_text(RECIPE.format(name=name, letter="Z"))
        load_recipe(tmp_path / "recipe.py")
        assert layers.BLOCKS["Z"].__name__ == name  # type: ignore[attr-defined]
    (tmp_path / "recipe.py").write_text(RECIPE.format(name="Mine", letter="T"))
    with pytest.raises(ConfigError, match=r"layout letter 'T' is taken: choose another name \(taken: [^)]*T, [^)]*Z, "):
        load_recipe(tmp_path / "recipe.py")
