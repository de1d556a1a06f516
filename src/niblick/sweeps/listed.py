"""What a sweep writes of itself, and what is listed of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from niblick.facts.record import Record


@dataclass(frozen=True, kw_only=True)
class PointRecord(Record):
    """A point: what its runs share."""

    name: str
    branch: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SweepRecord(Record):
    """sweep.json."""

    sweep: str = ""
    file: str = ""
    summary: str = ""
    track: str = ""
    control: str = ""
    """The point that others are compared with."""
    seeds: tuple[int, ...]
    points: tuple[PointRecord, ...]
    runs: Mapping[str, str]
    """A digest of each run, by its id."""


@dataclass(frozen=True, kw_only=True)
class Owner(Record):
    """running.json: the process that is at a sweep."""

    pid: int | str = "?"
    host: str = "?"
    beat: int | None = None
    """It rises while the process lives."""


@dataclass(frozen=True, kw_only=True)
class StateFacts(Record):
    """How far a run is."""

    run: str
    point: str
    branch: str
    seed: int
    state: str
    lines: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class DoneFacts(StateFacts):
    """A run that is done, and what it gave."""

    bpb: float
    bpb_repaired: float | None
    artifact_bytes: int
    total_bytes: int | None
    step: int | None
    train_seconds: float | None
    text_hash: str | None
    slice: str


@dataclass(frozen=True, kw_only=True)
class PointFacts(Record):
    """A point, over its seeds."""

    name: str
    branch: str
    seeds: int
    done: int
    bpb: float | None
    """The mean."""
    deviation: float | None
    total_bytes: int | None
    note: str


@dataclass(frozen=True, kw_only=True)
class PointEstimate(Record):
    """What the runs of a point will take, each."""

    name: str
    branch: str
    runs: int
    left: int
    steps: str
    clocks: tuple[float, float, float]
    """Seconds of training, of scoring, and of a whole run."""
    seconds: float
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Estimate(Record):
    """What a sweep will take."""

    sweep: str
    runs: int
    left: int
    slots: int
    """Runs at once."""
    seconds: float
    bytes: int
    free_bytes: int
    source: str
    """Where the speeds come from."""
    points: tuple[PointEstimate, ...]
