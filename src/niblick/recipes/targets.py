"""What a user names, as a config: a preset, a recipe or a file of settings, with a track, other values and data."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from niblick.arguments import plain_number
from niblick.challenge.tracks import get_track
from niblick.config.run_config import RunConfig, apply_environment, override
from niblick.errors import ConfigError
from niblick.files import read_small, why
from niblick.recipes.presets import get_preset, load_recipe
from niblick.recipes.trust import expect_trusted, in_run

SETTINGS = (".yaml", ".yml", ".json")
"""Files of settings end in one of these."""
SETTINGS_MOST = 1 << 20
"""Bytes of such a file at most."""


def resolve(
    target: str, overrides: Sequence[str] = (), env: str = "", *, track: str = "", data: str = ""
) -> tuple[RunConfig, Path | None]:
    """Return the config of a preset or a file (`named`), and the recipe's path if it is one in Python.

    The environment names are applied first, then the rules of the track, the overrides and the folder of the data.
    Raises ConfigError for what does not exist or fit, and for a recipe that came with a run and is not trusted.
    """
    config, recipe = named(target)
    return with_settings(apply_environment(config, env), overrides, track=track, data=data), recipe


def named(target: str) -> tuple[RunConfig, Path | None]:
    """Return the config of a preset, of a recipe in Python, whose path is returned too, or of settings in YAML or JSON.

    Raises ConfigError as `resolve`.
    """
    if target.endswith(SETTINGS):
        return _written(Path(target)), None
    recipe = Path(target) if target.endswith(".py") else None
    if recipe and in_run(recipe):
        expect_trusted(recipe)
    return (load_recipe(recipe) if recipe else get_preset(target)), recipe


def _written(path: Path) -> RunConfig:
    """The preset that a file of settings names, with its values: nested or with dots, as in a run's config.json."""
    import yaml

    try:
        text = read_small(path, SETTINGS_MOST)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ConfigError(f"{path} uses an alias (*NAME): write the settings out")
        found = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {why(error)}") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path} is no YAML: line {line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no YAML: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("preset"), str):
        raise ConfigError(f"{path} names no preset: begin it with a line such as `preset: hnet-small`")
    base = get_preset(found.pop("preset"))
    try:
        return override(base, list(_flat(found)))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _flat(value: object, key: str = "") -> Iterator[str]:
    """Nested settings as `key=value`; a list of mappings gives its entries by number."""
    if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        value = dict(enumerate(value))
    if isinstance(value, Mapping) and (value or not key):
        for name, entry in value.items():
            yield from _flat(entry, f"{key}.{name}" if key else str(name))
    else:
        yield f"{key}={as_text(value)}"


def with_settings(config: RunConfig, overrides: Sequence[str], *, track: str = "", data: str = "") -> RunConfig:
    """Return the config with the rules of a track, then these overrides, then the folder of the data."""
    rules = get_track(track).assignments if track else []
    return override(config, [*rules, *overrides, *data_setting(data)])


def data_setting(data: str) -> list[str]:
    """Write the folder of the data as the override that names it; none for the empty name."""
    return [f"data.path={json.dumps(data)}"] if data else []


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
