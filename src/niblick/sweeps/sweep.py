"""Sweeps: many runs from a short Python file, which says what they have in common and in what they differ.

    from niblick.sweeps.sweep import Sweep, grid

    sweep = Sweep(
        base="hnet-byte260",
        sets=["data.path=data/web", "schedule.steps=500"],
        axes=[grid({"model.levels.0.target_length": [6, 9], "model.levels.0.ratio_weight": [0.03, 0.05]})],
        seeds=[1337, 1234],
        track="fixed-step",
    )

Every combination of the axes' choices is a point, every point with every seed a run: `runs/<sweep>/<point>-s<seed>`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from niblick.arguments import check_fields, checked
from niblick.challenge.tracks import check_track, get_track
from niblick.config.run_config import RunConfig, dotted, override, to_dict
from niblick.errors import ConfigError, NiblickError
from niblick.model.counting import parameter_count
from niblick.recipes.targets import as_text, named
from niblick.run.directory import check_name
from niblick.run.entropy import load_small
from niblick.run.prepared import open_data
from niblick.sweeps.stopping import EarlyStop, Halving, KeepUp

LONGEST_NAME = 100
OWN_KEYS = {"seed": "seeds", "track": "track"}
"""Config keys that a sweep sets by arguments of its own."""

NEW_KEYS = {"ahead_weight": 0.0, "min_steps": 0}
"""Config keys younger than the first recorded sweeps, and the values at which a run is what it was without them."""


@dataclass(frozen=True)
class Choice:
    """One value of an axis: a label, and what it sets."""

    label: str
    sets: tuple[str, ...]
    base: str = ""
    """A preset or recipe file that takes the place of the sweep's base."""


@dataclass(frozen=True)
class Axis:
    """One way in which the runs of a sweep differ."""

    choices: tuple[Choice, ...]


@checked
def grid(values: Mapping[str, Any]) -> Axis:
    """Every combination of the keys' values."""
    _expect_values("grid", values)
    return Axis(tuple(_choice(values, row) for row in itertools.product(*values.values())))


@checked
def zipped(values: Mapping[str, Any]) -> Axis:
    """The keys' values side by side: the first of each, the second of each, …"""
    _expect_values("zipped", values)
    if len({len(those) for those in values.values()}) > 1:
        counts = ", ".join(f"{key} {len(those)}" for key, those in values.items())
        raise ConfigError(f"zipped values go side by side, and these are not equally many: {counts}")
    return Axis(tuple(_choice(values, row) for row in zip(*values.values(), strict=True)))


@checked
def listed(points: Mapping[str, Any]) -> Axis:
    """Named choices, each a list of `key=value`; a first entry without = is a preset or recipe to start from."""
    if not points:
        raise ConfigError("an empty list has no choices: listed({name: [key=value, …], …}) needs at least one")
    choices = []
    for label, sets in points.items():
        if isinstance(sets, str) or not isinstance(sets, Sequence):
            raise ConfigError(f"listed({label!r}: {sets!r}) is no list: write [{sets!r}]")
        base = sets[0] if sets and "=" not in sets[0] else ""
        choices.append(Choice(label, tuple(sets[1:] if base else sets), base))
    return Axis(tuple(choices))


def _expect_values(kind: str, values: Mapping[str, Any]) -> None:
    if not values:
        raise ConfigError(f"an empty axis has no points: {kind}({{key: [values], …}}) needs at least one key")
    for key, those in values.items():
        if isinstance(those, str) or not isinstance(those, Sequence):
            raise ConfigError(f"{kind}({key}) has {those!r} for values: give a list, as in [6, 9]")
        if not those:
            raise ConfigError(f"{kind}({key}) has no values, so the sweep would have no runs: give at least one")


def _choice(keys: Mapping[str, Any], row: tuple[Any, ...]) -> Choice:
    pairs = list(zip(keys, row, strict=True))
    label = "+".join(f"{_last_word(key)}={as_text(value)}" for key, value in pairs)
    return Choice(label, tuple(f"{key}={as_text(value)}" for key, value in pairs))


def _last_word(key: str) -> str:
    return next(word for word in reversed(key.split(".")) if not word.isdigit() or word == key)


@dataclass(frozen=True)
class Point:
    """One combination of choices; its runs differ in their seeds alone."""

    name: str
    branch: str
    settings: dict[str, str]
    base: str
    sets: tuple[str, ...]


def _as_before(value: Any) -> Any:
    """Leave out keys that came after sweeps were recorded, where they change nothing: those sweeps still go on."""
    if isinstance(value, list):
        return [_as_before(item) for item in value]
    if isinstance(value, dict):
        return {k: _as_before(v) for k, v in value.items() if k not in NEW_KEYS or v != NEW_KEYS[k]}
    return value


@dataclass(frozen=True)
class Member:
    """One run of a sweep."""

    point: Point
    seed: int
    config: RunConfig
    recipe: Path | None
    track: str

    @property
    def id(self) -> str:
        """Its directory inside the sweep's."""
        return f"{self.point.name}-s{self.seed}"

    @property
    def digest(self) -> str:
        """SHA-256 over config and recipe: the same only where the run would be the same."""
        text = json.dumps(_as_before(to_dict(self.config)), sort_keys=True)
        return hashlib.sha256(text.encode() + (self.recipe.read_bytes() if self.recipe else b"")).hexdigest()

    def facts(self, sweep: str) -> dict[str, object]:
        """What its run directory says about its place in the sweep `sweep`."""
        point = self.point
        facts = {"sweep": sweep, "name": point.name, "seed": self.seed, "branch": point.branch}
        return facts | {"track": self.track, "settings": point.settings, "digest": self.digest}


@dataclass(frozen=True)
class Sweep:
    """Many runs: what they share, in what they differ, by which rules they are ranked."""

    base: str
    """A preset or a recipe file."""
    axes: Sequence[Axis] = ()
    name: str = ""
    """Name of its directory; empty: that of its file."""
    sets: Sequence[str] = ()
    """`key=value` for all runs."""
    seeds: Sequence[int] = (1337,)
    track: str = ""
    branch: str | Mapping[str, str] = ""
    """What the leaderboard groups by; `{0}` stands for the choice of the first axis; or by names of points. Empty: the
    sweep's name."""
    control: str = ""
    """The point that others are ideas beside, for `niblick transfer`; empty: the first."""
    early_stop: EarlyStop | None = None
    cpus: int = 1
    """Threads of each run."""
    gpus: float | None = None
    """GPUs of each run; None: one where there are any."""
    summary: str = ""
    """One line on what it asks; empty: the first of its file's docstring."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.name:
            check_name(self.name, "a sweep")
        if not self.seeds:
            raise ConfigError("the sweep has no seeds, so it has no runs: give at least one, as in seeds=[1337]")
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"the seeds {list(self.seeds)} are not all different: each makes a run of its own")
        if self.cpus < 1:
            raise ConfigError(f"cpus={self.cpus} must be at least 1")
        if self.track:
            get_track(self.track)

    def points(self) -> list[Point]:
        """All combinations of the axes' choices. Raises ConfigError if two have one name or set one key twice."""
        points = [self._point(row) for row in itertools.product(*(axis.choices for axis in self.axes))]
        names = [point.name for point in points]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"two points of the sweep are called {name!r}: name them by listed({{name: […]}})")
        if self.control and self.control not in names:
            raise ConfigError(f"control={self.control!r} is no point of the sweep (points: {', '.join(names)})")
        return points

    def _point(self, row: tuple[Choice, ...]) -> Point:
        labels = [choice.label for choice in row]
        sets = tuple(entry for choice in row for entry in choice.sets)
        keys = [entry.partition("=")[0] for entry in sets]
        for key in keys:
            if keys.count(key) > 1:
                raise ConfigError(f"two axes set {key}: put them into one")
            if key in OWN_KEYS:
                raise ConfigError(f"an axis sets {key}: a sweep has {OWN_KEYS[key]}=… for that")
        name = _name(labels)
        given = self.branch if isinstance(self.branch, str) else self.branch.get(name, "")
        try:
            branch = given.format(*labels) or self.name
        except (IndexError, KeyError, ValueError) as error:
            raise ConfigError(f"branch={given!r} does not fit the {len(row)} axes: write words or {{0}}") from error
        bases = [choice.base for choice in row if choice.base]
        settings = {entry.partition("=")[0]: entry.partition("=")[2] for entry in sets}
        return Point(name, branch, settings, bases[0] if bases else self.base, sets)

    def members(self) -> list[Member]:
        """All runs, point by point. Raises ConfigError for a key, value or base that does not fit."""
        return [member for point in self.points() for member in self._members(point)]

    def _members(self, point: Point) -> Iterator[Member]:
        config, recipe = named(point.base)
        rules = get_track(self.track).assignments if self.track else []
        stop = self.early_stop.sets if self.early_stop else []
        try:
            config = override(config, [*rules, *self.sets, *stop, *point.sets])
        except ConfigError as error:
            raise ConfigError(f"point {point.name}: {error}") from error
        for seed in self.seeds:
            yield Member(point, seed, replace(config, seed=seed), recipe, self.track)

    def check(self) -> list[Member]:
        """Return the members after trying what can be tried without training: tracks, models, data.

        Raises the NiblickError that the first bad one would fail with.
        """
        members, opened = self.members(), set()
        for member in members:
            config = member.config
            check_track(config.track, dotted(to_dict(config)))
            if member.seed != self.seeds[0]:
                continue
            if isinstance(self.early_stop, Halving):
                self.early_stop.check(config)
            shape = (config.data, config.model.vocab_size, config.score.documents)
            if shape not in opened:
                opened.add(shape)
                dataset = open_data(config)
                if isinstance(self.early_stop, KeepUp):
                    self.early_stop.check(config, dataset.val.text_hash)
            if config.entropy.artifact:
                load_small(config, open_data(config))
            else:
                parameter_count(config.model)
        return members


def _name(labels: list[str]) -> str:
    name = re.sub(r"[^\w.+=-]+", "-", "+".join(labels) or "base").strip("-.")
    if len(name) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:8]
        name = f"{name[: LONGEST_NAME - 9]}-{digest}"
    return name


def load_sweep(path: Path) -> Sweep:
    """Run a sweep file and return its `sweep`, named and described. Raises ConfigError if that does not work.

    The file may import modules that lie beside it.
    """
    if not path.is_file():
        raise ConfigError(f"there is no sweep file {path}")
    spec = importlib.util.spec_from_file_location(f"niblick_sweep_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file: a sweep file ends in .py")
    module = importlib.util.module_from_spec(spec)
    folder, known = str(path.resolve().parent), set(sys.modules)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except NiblickError:
        raise
    except Exception as error:
        raise ConfigError(f"sweep file {path} fails: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
        for name in set(sys.modules) - known:
            if Path(getattr(sys.modules[name], "__file__", None) or "/").parent == Path(folder):
                del sys.modules[name]  # another folder's module may have this name
    sweep = getattr(module, "sweep", None)
    if not isinstance(sweep, Sweep):
        raise ConfigError(f"{path} sets no `sweep = Sweep(…)` (found: {type(sweep).__name__})")
    summary = sweep.summary or next(iter((module.__doc__ or "").strip().splitlines()), "")
    name = sweep.name or path.stem
    if _name([name]) != name:
        raise ConfigError(f"{name!r} is no name of a sweep: give letters, digits and any of . + = - _")
    return replace(sweep, name=name, summary=summary)
