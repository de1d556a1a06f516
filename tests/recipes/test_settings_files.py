"""A preset with other values, written down: YAML, JSON, a run's own config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from niblick.config.run_config import override, to_dict
from niblick.errors import ConfigError
from niblick.recipes.presets import get_preset
from niblick.recipes.targets import resolve
from niblick.sweeps.sweep import Sweep, grid

WRITTEN = """
# Nested and with dots, as one likes.
preset: hnet-small
tokenizer: byte260
schedule: {steps: 7, max_seconds: null}
optim.matrix_lr: 1e-2
model:
  width: 64
  levels:
    - router: cosine-bias
      encoder: {layout: T2}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(WRITTEN)
    return path


def test_settings_are_overrides(file: Path) -> None:
    values = ["schedule.steps=7", "schedule.max_seconds=null", "optim.matrix_lr=0.01", "model.width=64"]
    values += ["model.levels.0.router=cosine-bias", "model.levels.0.encoder.layout=T2"]
    config, recipe = resolve(str(file), ["seed=5"])
    assert recipe is None and config == override(get_preset("hnet-small"), [*values, "seed=5"])


def test_a_preset_alone(tmp_path: Path) -> None:
    path = tmp_path / "plain.yml"
    path.write_text("preset: hnet-small")
    assert resolve(str(path))[0] == get_preset("hnet-small")


def test_the_config_of_a_run_is_one(tmp_path: Path) -> None:
    config = override(get_preset("niblick-byte"), ["model.width=64", "export.scheme=int6", "data.path=x y"])
    path = tmp_path / "config.json"
    path.write_text(json.dumps(to_dict(config)))
    assert resolve(str(path))[0] == config


def test_a_sweep_starts_from_one(file: Path) -> None:
    sweep = Sweep(str(file), [grid({"model.width": [32, 64]})], "widths")
    assert [member.config.model.width for member in sweep.members()] == [32, 64]
    assert {member.config.schedule.steps for member in sweep.members()} == {7}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", "names no preset: begin it with a line such as `preset: hnet-small`"),
        ("", "names no preset"),
        ("preset: [x]", "names no preset"),
        ("preset: hnet-smal", "hnet-smal"),
        ("preset: hnet-small\nmodel: {widht: 3}", "unknown key 'model.widht'"),
        ("preset: hnet-small\nmodel: {width: wide}", "model.width"),
        ("preset: hnet-small\nseed: 2026-01-01", "is no value of a config"),
        ("preset: hnet-small\nmodel: {width: 3", "is no YAML: line 2: "),
        ("preset: hnet-small\na: &a [1]\nb: *a", "uses an alias"),
        ("preset: !!python/name:os.system hnet-small", "is no YAML"),
    ],
)
def test_what_is_no_settings_file(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        resolve(str(path))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        resolve(str(tmp_path / "nope.yaml"))
