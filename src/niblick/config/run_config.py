"""The config of a run: composed of the configs of its parts, checked at the edge, overridden by `key=value`.

The parts are frozen dataclasses in the rooms of the code they configure, in modules that need no torch; this file only
puts them together. Pydantic checks what comes from files and the command line; the core never sees it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from niblick.challenge import rules
from niblick.errors import ConfigError, nearest, nearest_key
from niblick.files import parse_json
from niblick.model.model_config import ModelConfig
from niblick.pack.export_config import ExportConfig
from niblick.score.score_config import ScoreConfig
from niblick.train.schedule import ScheduleConfig
from niblick.train.settings import OptimConfig, QATConfig, TrainConfig


@dataclass(frozen=True)
class DataConfig:
    """Which text, and in what order."""

    path: str = ""
    """A folder made by `niblick data prepare`."""
    order: Literal["stream", "shuffle"] = "stream"
    """`stream` as published: the shards from start to end; `shuffle`: windows in an order drawn from the seed."""
    packing: Literal["stream", "documents"] = "stream"
    """`stream` as published: windows cut wherever they end; `documents`: every document is seen from its start."""
    seed: int | None = None
    """Draws that order; None is the run's own seed, which draws the initial weights."""


@dataclass(frozen=True)
class EntropyConfig:
    """The small trained model that tells where the next token is hard to guess.

    The router `entropy` asks it, and is packed with it; `train.init_from=entropy` only starts from its boundaries.
    """

    artifact: str = ""
    """Path of its artifact, of the same tokenizer."""
    threshold: float | None = None
    """Nats of entropy about a token above which it starts a chunk; null: chosen on training text, so that the mean
    chunk is as long as the outermost level's target_length. The chosen one is what the run's config says."""


@dataclass(frozen=True)
class RunConfig:
    """Everything a run depends on, but the code and the machine."""

    preset: str
    """Name of the recipe it came from; run directories are named after it."""
    tokenizer: str = "byte260"
    """The tokenizer that the model is meant for."""
    track: str = ""
    """By which rules it is ranked, see `niblick.challenge.tracks`; empty: by none."""
    seed: int = 1337
    """Draws the initial weights, and the order of the data where `data.seed` says nothing else."""
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    entropy: EntropyConfig = field(default_factory=EntropyConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    qat: QATConfig = field(default_factory=QATConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)

    def __post_init__(self) -> None:
        for name, seed in (("seed", self.seed), ("data.seed", self.data.seed)):
            if seed is not None and not -(1 << 63) <= seed < 1 << 63:
                raise ConfigError(f"{name}={seed} must be a number of 64 bits")


def for_submission(config: RunConfig) -> RunConfig:
    """The config without what belongs to one machine. Raises ConfigError where it needs files that no folder has."""
    if reads_another_file(config):
        raise ConfigError(
            f"train.init_from={config.train.init_from} reads a file besides data and code, and a submission has none: "
            "leave it out, or start from train.init_from=whitespace"
        )
    entropy = replace(config.entropy, artifact="entropy.nib") if config.entropy.artifact else config.entropy
    # Checkpoints, watching over them and samples are for runs at home.
    train = replace(config.train, checkpoint_every=0, rollback=False, sample_bytes=0, device="auto")
    return replace(config, track="", entropy=entropy, train=train, data=replace(config.data, path="data"))


def reads_another_file(config: RunConfig) -> bool:
    """Whether training starts from a file besides data and code, which no submission has."""
    guide = config.train.init_from
    return guide == "entropy" or guide.startswith("bpe:")


def to_dict(config: Any) -> rules.Config:
    """Return a config as plain data (JSON types; tuples become lists)."""
    try:
        return json.loads(json.dumps(asdict(config), allow_nan=False))
    except ValueError as error:
        raise ConfigError("the config holds a number that is not finite: give a number, or None for none") from error


def dotted(value: object, prefix: str = "") -> dict[str, object]:
    """Return nested plain data by dotted keys, as overrides are written; an empty list is a value."""
    if isinstance(value, dict) or (isinstance(value, list) and value):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: v for k, inner in items for key, v in dotted(inner, f"{prefix}.{k}" if prefix else str(k)).items()}
    return {prefix: value}


def with_values(value: Any, settings: Mapping[str, object], key: str = "") -> Any:
    """Return a config with the values at some dotted keys replaced; types are the caller's to check."""
    if key in settings:
        return settings[key]
    if isinstance(value, tuple):
        return tuple(with_values(item, settings, f"{key}.{i}") for i, item in enumerate(value))
    if not is_dataclass(value) or isinstance(value, type):
        return value
    inner = {f.name: f"{key}.{f.name}".lstrip(".") for f in fields(value)}
    return replace(value, **{name: with_values(getattr(value, name), settings, path) for name, path in inner.items()})


def as_code(value: Any, classes: dict[str, tuple[str, str]], recipe: str = "") -> str:
    """A value as code: plain ones, tuples, and dataclasses with those fields that are not at their defaults.

    Notes in `classes` which class of which module each name in the code stands for; those of a recipe are in the module
    `recipe`. Raises ConfigError for what cannot be written down.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return f"float({str(value)!r})" if isinstance(value, float) and value - value != 0 else repr(value)
    if isinstance(value, tuple):
        items = [as_code(item, classes, recipe) for item in value]
        return f"({', '.join(items)}{',' * (len(items) == 1)})"
    if not is_dataclass(value) or isinstance(value, type):
        raise ConfigError(f"the config holds {value!r}, which cannot be written down: give numbers, texts and tuples")
    given = []
    for item in fields(value):
        own = getattr(value, item.name)
        usual = item.default_factory() if item.default_factory is not MISSING else item.default
        if usual is MISSING or own != usual or type(own) is not type(usual):
            given.append(f"{item.name}={as_code(own, classes, recipe)}")
    cls = type(value)
    module = recipe if recipe and not cls.__module__.startswith("niblick.") else cls.__module__
    name = cls.__name__
    if classes.setdefault(name, (module, name)) != (module, name):
        name = f"{name}_of_{module.replace('.', '_')}"
        classes[name] = (module, cls.__name__)
    return f"{name}({', '.join(given)})"


def run_config(data: Mapping[str, object]) -> RunConfig:
    """Build a RunConfig from plain data. Raises ConfigError for a key or value that does not fit."""
    return _build(RunConfig, data)


def model_config(data: Mapping[str, object]) -> ModelConfig:
    """Build a ModelConfig from plain data. Raises ConfigError for a key or value that does not fit."""
    return _build(ModelConfig, data)


def score_config(data: Mapping[str, object]) -> ScoreConfig:
    """Build a ScoreConfig from plain data. Raises ConfigError for a key or value that does not fit."""
    return _build(ScoreConfig, data)


C = TypeVar("C")

MOST = 2**63 - 1
"""Of whole numbers: what torch and numpy take, and what every reader of JSON reads again."""


def _build(cls: type[C], data: Mapping[str, object]) -> C:
    try:
        config = TypeAdapter(cls).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{key}={first.get('input')!r} does not fit: {first['msg'].lower()}") from error
    resolved = to_dict(config)
    for key, known in _unknown(data, resolved):
        raise ConfigError(f"unknown key {key!r}{nearest(key.rpartition('.')[2], known)}")
    for key, value in dotted(resolved).items():
        if isinstance(value, int) and abs(value) > MOST:
            raise ConfigError(f"{key}={value} is past {MOST}, the largest number in a config: give a smaller one")
    return config


def _unknown(given: Any, resolved: Any, prefix: str = "") -> Iterator[tuple[str, list[str]]]:
    """Keys of `given` that the resolved config does not have, each with the keys it could have meant."""
    if isinstance(given, dict) and isinstance(resolved, dict):
        for key, value in given.items():
            if key not in resolved:
                yield prefix + key, list(resolved)
            else:
                yield from _unknown(value, resolved[key], f"{prefix}{key}.")
    elif isinstance(given, list | tuple) and isinstance(resolved, list):
        for i, (a, b) in enumerate(zip(given, resolved, strict=False)):
            yield from _unknown(a, b, f"{prefix}{i}.")


def override(config: RunConfig, assignments: Iterable[str]) -> RunConfig:
    """Apply assignments such as `model.width=128` or `model.levels.0.target_length=9`; values are JSON or plain words.

    Raises ConfigError for what is no assignment, an unknown key (with the nearest ones) or a value that does not fit.
    """
    data = to_dict(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key:
            raise ConfigError(f"{assignment!r} is no override: write key=value, as in train.seq_len=512")
        *path, last = key.split(".")
        node = data
        try:
            for depth, name in enumerate(path):
                node = _descend(node, name, path[:depth], key)
            where = _place(node, last, path, key)
        except KeyError:
            raise ConfigError(f"unknown key {key!r}{nearest_key(key, _keys(data))}") from None
        try:
            node[where] = parse_json(text)
        except ValueError:
            node[where] = text
    return run_config(data)


def override_score(config: ScoreConfig, assignments: Iterable[str]) -> ScoreConfig:
    """Apply assignments to `score.…` alone: what may differ when something finished is scored again.

    Raises ConfigError like `override`, and for a key outside `score`.
    """
    assignments = list(assignments)
    for assignment in assignments:
        if "=" in assignment and not assignment.startswith("score."):
            key = assignment.partition("=")[0]
            known = [f"score.{name}" for name in to_dict(config)]
            raise ConfigError(f"{key} is settled in the artifact: only score.… may be set here{nearest(key, known)}")
    return override(RunConfig("", score=config), assignments).score


_COMMANDS = ("torchrun", "python", "python3", "uv", "accelerate", "nohup")
"""What published command lines run: the environment ends before it."""


def apply_environment(config: RunConfig, text: str) -> RunConfig:
    """Apply `ITERATIONS=2000 MODEL_DIM=256 …`, the environment of the challenge's published scripts.

    A command line may be pasted whole: lines that go on after a backslash, `env` or `export` before the names, and the
    command after them. Raises ConfigError for what is no NAME=VALUE, a name that is unknown (with the nearest ones),
    all names that cannot be expressed, and a value that does not fit.
    """
    try:
        words = shlex.split(re.sub(r"\\[ \t]*(?:\r?\n|$)", " ", text))
    except ValueError as error:
        raise ConfigError(f"the environment {text!r} cannot be read ({str(error).lower()})") from None
    given = {}
    for word in words:
        if word in ("env", "export"):
            continue
        if word in _COMMANDS:
            break
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ConfigError(f"{word!r} sets nothing: write NAME=VALUE, as in ITERATIONS=2000")
        if name not in rules.ENVIRONMENT:
            raise ConfigError(f"unknown environment name {name}{nearest(name, rules.ENVIRONMENT)}")
        given[name] = value
    try:
        values = rules.environment_values(given, to_dict(config))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    return override(config, [f"{key}={json.dumps(value)}" for key, value in values.items()])


def _descend(node: Any, name: str, before: list[str], key: str) -> Any:
    value = node[_place(node, name, before, key)]
    if not isinstance(value, dict | list):
        raise ConfigError(f"unknown key {key!r}: {'.'.join([*before, name])} is a plain value ({value!r})")
    return value


def _place(node: Any, name: str, before: list[str], key: str) -> Any:
    """Key or index of `name` in `node`. Raises KeyError for a key, ConfigError for an index, that is not there."""
    if isinstance(node, list):
        if name.isdigit() and int(name) < len(node):
            return int(name)
        raise ConfigError(
            f"unknown key {key!r}: {'.'.join(before)} has {len(node)} entries, numbered from 0"
            if node
            else f"unknown key {key!r}: {'.'.join(before)} is empty"
        )
    if name not in node:
        raise KeyError(name)
    return name


def _keys(value: object, prefix: str = "") -> Iterator[str]:
    """All dotted keys, those of sections too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield f"{prefix}{key}"
        yield from _keys(inner, f"{prefix}{key}.")
