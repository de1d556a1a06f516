"""What a user names, as a config: a preset or recipe file, with rules of a track, other values and data."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from niblick.arguments import plain_number
from niblick.challenge.tracks import get_track
from niblick.config.run_config import RunConfig, apply_environment, override
from niblick.errors import ConfigError
from niblick.recipes.presets import get_preset, load_recipe
from niblick.recipes.trust import expect_trusted, in_run


def resolve(
    target: str, overrides: Sequence[str] = (), env: str = "", *, track: str = "", data: str = ""
) -> tuple[RunConfig, Path | None]:
    """Return the config of a preset or recipe file, and the recipe's path if it is one.

    The environment names are applied first, then the rules of the track, the overrides and the folder of the data.
    Raises ConfigError for what does not exist or fit, and for a recipe that came with a run and is not trusted.
    """
    recipe = Path(target) if target.endswith(".py") else None
    if recipe and in_run(recipe):
        expect_trusted(recipe)
    config = load_recipe(recipe) if recipe else get_preset(target)
    return with_settings(apply_environment(config, env), overrides, track=track, data=data), recipe


def with_settings(config: RunConfig, overrides: Sequence[str], *, track: str = "", data: str = "") -> RunConfig:
    """Return the config with the rules of a track, then these overrides, then the folder of the data."""
    rules = get_track(track).assignments if track else []
    named = [f"data.path={json.dumps(data)}"] if data else []
    return override(config, [*rules, *overrides, *named])


def assignments(settings: Mapping[str, object]) -> list[str]:
    """Write settings of Python as `key=value`; two underscores stand for a dot. Raises ConfigError for other values."""
    return [f"{key.replace('__', '.')}={as_text(value)}" for key, value in settings.items()]


def as_text(value: object) -> str:
    """Write a value of a config as overrides have it. Raises ConfigError for what no config can hold."""
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    try:
        return json.dumps(plain_number(value))
    except TypeError as error:
        raise ConfigError(f"{value!r} is no value of a config: give numbers, words, true/false, null, lists") from error
