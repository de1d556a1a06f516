"""The events that a run tells: lines of events.jsonl, and what listeners hear while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from niblick.facts.record import Record


@dataclass(frozen=True, kw_only=True)
class Event(Record):
    """Something that happened in a run."""

    event: ClassVar[str] = ""
    """Its kind, as files call it."""

    time: float | None = None
    """Seconds since 1970, once it is written down."""
    run: str = ""
    """Path of the run, for listeners that hear several; files leave it out."""


Emit = Callable[[Event], None]
"""Is told each event of a run while it runs."""


@dataclass(frozen=True, kw_only=True)
class Start(Event):
    """Facts about a run that are told before its first step."""

    event = "start"
    preset: str = ""
    parameters: int | None = None
    seed: int | None = None
    data_seed: int | None = None
    steps: int | None = None
    max_seconds: float | None = None
    batch_tokens: int | None = None
    ranks: int = 1
    accumulate: int = 1
    seq_len: int | None = None
    warmup_steps: int = 0
    device: str = ""
    train_tokens: int = 0
    held_back_tokens: int = 0
    environment: Mapping[str, Any] = field(default_factory=dict)
    """The config under the names of the published scripts."""
    bytes_per_token: float | None = None
    train_text_hash: str | None = None
    text_hash: str | None = None


@dataclass(frozen=True, kw_only=True)
class Warmup(Event):
    """A step of those that compile and allocate."""

    event = "warmup"
    step: int
    steps: int
    step_seconds: float | None = None
    """What this one took."""


@dataclass(frozen=True, kw_only=True)
class Compile(Event):
    """So many stages are compiled when they first run."""

    event = "compile"
    stages: int


@dataclass(frozen=True, kw_only=True)
class Resume(Event):
    """A run goes on from a checkpoint."""

    event = "resume"
    step: int
    checkpoint: str = ""


@dataclass(frozen=True, kw_only=True)
class Reserve(Event):
    """Seconds of the clock that are kept for what follows training."""

    event = "reserve"
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Moment(Event):
    """How far a run is."""

    step: int
    steps: int | None = None
    train_seconds: float | None = None
    progress: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Step(Moment):
    """A training step. Losses besides, of routers and penalties, are in `extra` by their names."""

    event = "step"
    loss: float
    """Nats per token."""
    total: float | None = None
    """With all penalties: what was minimized."""
    grad_norm: float | None = None
    lr_scale: float | None = None
    tokens_per_second: float | None = None
    levels: tuple[Mapping[str, float], ...] = ()
    """What the router of each level did, on steps that are logged."""


@dataclass(frozen=True, kw_only=True)
class Validation(Moment):
    """A score of float weights; the `final` one is of those that are packed."""

    SELDOM: ClassVar[tuple[str, ...]] = ("sample",)
    event = "validation"
    loss: float | None = None
    bpb: float
    final: bool = False
    sample: str = ""
    """What the model wrote then."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Event):
    """A checkpoint was written."""

    event = "checkpoint"
    step: int
    file: str


@dataclass(frozen=True, kw_only=True)
class Rounding(Event):
    """From this step on, weights are rounded in training as the export will."""

    event = "qat"
    step: int
    tensors: int


@dataclass(frozen=True, kw_only=True)
class Trouble(Event):
    """Something that somebody should look at."""

    event = "warning"
    step: int | None = None
    kind: str = ""
    level: int | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Rollback(Event):
    """Training went back to a checkpoint."""

    event = "rollback"
    step: int
    to: int
    checkpoint: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Average(Event):
    """Which average of the weights was chosen, and what each costs on text held back."""

    event = "average"
    step: int
    chosen: str
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Stop(Event):
    """Training ended before its steps were done."""

    event = "stop"
    reason: str = ""
    step: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    wall_seconds: float | None = None
    average: str | None = None


@dataclass(frozen=True, kw_only=True)
class Export(Event):
    """An artifact was written. What packing took besides is in `extra`."""

    event = "export"
    name: str = ""
    artifact_bytes: int
    code_bytes: int | None = None
    total_bytes: int | None = None
    export_seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Scored(Event):
    """An artifact was scored; the rest of its score record is in `extra`."""

    event = "score"
    name: str = "score"
    bpb: float
    loss: float | None = None
    seconds: float | None = None
    total_bytes: int | None = None
    scorer: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Import(Event):
    """The file that a run was made of."""

    event = "import"
    file: str = ""
    bytes: int | None = None
    sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Failure(Event):
    """What ended a run that failed."""

    event = "failure"
    message: str = "failed"


@dataclass(frozen=True, kw_only=True)
class Unknown(Event):
    """An event of a kind or form that this version does not know: all of it is in `extra`."""

    event = "unknown"

    @property
    def kind(self) -> str:
        """What it calls itself."""
        return str(self.extra.get("event"))
