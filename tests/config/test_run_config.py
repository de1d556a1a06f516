"""Overrides and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from niblick.config.run_config import override, run_config, to_dict
from niblick.errors import ConfigError
from niblick.recipes.presets import PRESETS, get_preset, load_recipe


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name: str) -> None:
    config = get_preset(name)
    assert config.preset == name
    assert run_config(to_dict(config)) == config


def test_overrides() -> None:
    config = override(
        get_preset("hnet-byte260"),
        [
            "model.width=128",
            "model.heads=2",
            "model.kv_heads=1",
            "model.levels.0.target_length=4.5",
            "schedule.max_seconds=null",
            "data.path=somewhere",
            "model.main.layout=T3",
            "train.dtype=float32",
        ],
    )
    assert (config.model.width, config.model.levels[0].target_length) == (128, 4.5)
    assert config.schedule.max_seconds is None
    assert (config.data.path, config.model.main.layout, config.train.dtype) == ("somewhere", "T3", "float32")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("model.widht=3", ["unknown key 'model.widht'", "nearest: model.width"]),
        ("modle.width=3", ["unknown key 'modle.width'", "nearest: model"]),
        ("train.steps=3", ["nearest: schedule.steps,"]),
        ("stride=3", ["nearest: score.stride"]),
        ("batch=3", ["nearest: train.batch_tokens"]),
        ("qzwx=3", ["`niblick show PRESET` lists all keys"]),
        ("model.levels.3.bucket=3", ["model.levels has 1 entries"]),
        ("model.width.x=3", ["model.width is a plain value"]),
        ("model.width", ["no override", "key=value"]),
        ("=3", ["no override"]),
        ("model.width=wide", ["model.width='wide' does not fit", "integer"]),
        ("model.heads=7", ["heads=7 do not divide width=512"]),
        ("data.order=random", ["data.order", "stream"]),
        ('model.main={"layout": "T2", "colour": 1}', ["unknown key 'model.main.colour'"]),
        ("train.batch_tokens=100", ["train.batch_tokens=100 must be a multiple"]),
        ("train.dtype=int3", ["train.dtype='int3' must be auto"]),
    ],
)
def test_overrides_that_do_not_fit(assignment: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        override(get_preset("hnet-byte260"), [assignment])
    for word in words:
        assert word in str(error.value)


def test_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="nearest: hnet-byte260"):
        get_preset("hnet-byte")


RECIPE = """
from dataclasses import replace
from niblick.recipes.presets import get_preset

def recipe():
    return replace(get_preset("hnet-small"), preset="mine", seed=7)
"""


def test_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(RECIPE)
    assert load_recipe(path).seed == 7


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("recipe = 3", "TypeError"),
        ("def recipe(): return 3", "int"),
        ("import nothing_here", "nothing_here"),
        ("(", "Syntax"),
    ],
)
def test_recipes_that_fail(tmp_path: Path, source: str, word: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(ConfigError, match=word):
        load_recipe(path)
    with pytest.raises(ConfigError, match="there is no recipe"):
        load_recipe(tmp_path / "other.py")


@pytest.mark.parametrize("key", ["export.text", "model.width", "seed", "train.log_every"])
def test_numbers_that_no_reader_of_json_would_read_again_are_refused(key: str) -> None:
    """At once: nothing is counted up to them."""
    with pytest.raises(ConfigError, match=rf"{key.rpartition('.')[2]}=\d+ "):
        override(get_preset("hnet-small"), [f"{key}={10**26}"])
    with pytest.raises(ConfigError, match="do not divide width="):
        override(get_preset("hnet-small"), [f"model.width={10**18 + 1}"])
