"""Early stop of losers: runs that will not win make room for others. What is stopped is marked and never ranked.

    Halving   at a few steps the better part of the points goes on, the others stop (successive halving)
    KeepUp    a run stops where its validation falls behind a reference curve by more than noise explains

Both look at validation scores at fixed steps alone, so the same sweep always stops the same runs.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from niblick.config.run_config import RunConfig
from niblick.errors import ConfigError, DataError
from niblick.facts.reading import read
from niblick.facts.record import Record
from niblick.run.directory import read_json


@dataclass(frozen=True)
class Behind:
    """Where a point stands that does not go on."""

    place: int
    of: int
    kept: int
    """How many go on."""
    limit: float
    """BPB of the last that does."""


@dataclass(frozen=True)
class Halving:
    """Successive halving: after `first` steps, and each time `factor` times as many, one of `factor` points goes on.

    Points are compared by the mean of their seeds, and only with points of the same tokenizer, text and budget.
    """

    first: int
    factor: int = 2

    def __post_init__(self) -> None:
        if self.first < 1 or self.factor < 2:
            raise ConfigError(f"Halving(first={self.first}, factor={self.factor}): give first ≥ 1 and factor ≥ 2")

    @property
    def sets(self) -> list[str]:
        """Settings that all runs of the sweep need for it."""
        return []

    def rungs(self, steps: int) -> list[int]:
        """Steps at which points are compared, of a run of so many."""
        count = math.ceil(math.log(steps / self.first, self.factor)) + 1 if steps > self.first else 0
        return [rung for i in range(count) if (rung := self.first * self.factor**i) < steps]

    def check(self, config: RunConfig) -> None:
        """Raise ConfigError if runs of this config cannot be compared at some step."""
        if config.schedule.max_seconds is not None:
            raise ConfigError(
                "Halving compares runs at the same step, and a run with schedule.max_seconds has its schedule by the "
                "clock: set it to null, or take the track fixed-step"
            )
        if not self.rungs(config.schedule.steps):
            raise ConfigError(f"Halving(first={self.first}) is never reached by schedule.steps={config.schedule.steps}")

    def losers(self, scores: Mapping[str, list[float]], groups: Mapping[str, Hashable]) -> dict[str, Behind]:
        """Return which points stop, each with its place: `scores` has those of all seeds at this rung, by point."""
        together: dict[Hashable, list[str]] = defaultdict(list)
        for name in scores:
            together[groups[name]].append(name)
        losers = {}
        for names in together.values():
            ranked = sorted(names, key=lambda name: (statistics.mean(scores[name]), name))
            kept = math.ceil(len(ranked) / self.factor)
            limit = statistics.mean(scores[ranked[kept - 1]])
            for place, name in enumerate(ranked[kept:], kept + 1):
                losers[name] = Behind(place, len(ranked), kept, limit)
        return losers


@dataclass(frozen=True, kw_only=True)
class Reference(Record):
    """The curve that `niblick study repeatability` writes."""

    every: int
    """Steps between validations."""
    text_hash: str | None
    batch_tokens: int
    points: tuple[tuple[int, float, float], ...]
    """Step, mean BPB and its deviation over seeds."""


@dataclass(frozen=True)
class KeepUp:
    """A reference curve to keep up with: `reference` is the file that the study `repeatability` writes.

    A run stops where its validation BPB is more than `margin` standard deviations above the reference's mean; the
    deviation at each step is that of the study's seeds.
    """

    reference: str
    margin: float = 3.0

    @cached_property
    def curve(self) -> Reference:
        """What the reference says."""
        found = read_json(Path(self.reference))
        try:
            return read(Reference, found)
        except DataError:
            raise ConfigError(
                f"{self.reference} is no reference curve: `niblick study repeatability` makes one"
            ) from None

    @property
    def sets(self) -> list[str]:
        """Settings that all runs of the sweep need for it."""
        return [f"train.val_every={json.dumps(self.curve.every)}"]

    def check(self, config: RunConfig, text_hash: str | None) -> None:
        """Raise ConfigError if runs of this config cannot be held against the curve."""
        same = (
            ("text_hash", self.curve.text_hash, text_hash),
            ("batch_tokens", self.curve.batch_tokens, config.train.batch_tokens),
        )
        for key, known, value in same:
            if known != value:
                raise ConfigError(
                    f"the reference {self.reference} has {key}={known}, and the sweep {value}: "
                    "they cannot be compared step by step"
                )
        if config.train.val_every != self.curve.every:
            raise ConfigError(f"train.val_every={config.train.val_every} must be the reference's {self.curve.every}")

    def limits(self) -> dict[int, float]:
        """The highest BPB allowed, by step."""
        return {step: mean + self.margin * deviation for step, mean, deviation in self.curve.points}


EarlyStop = Halving | KeepUp
