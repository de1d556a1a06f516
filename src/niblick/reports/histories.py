"""What a run told while it trained, read from its events for `drawing.charts`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from niblick.drawing import charts
from niblick.drawing.charts import History, Level
from niblick.errors import DataError
from niblick.facts.event_lines import read_events
from niblick.facts.events import Event, Scored, Start, Step, Validation
from niblick.files import read_json

MOST_POINTS = 1000
"""A history keeps at most about so many of the logged steps, evenly spread, the last among them."""


def read_history(run: Path, name: str = "", final: float | None = None, group: str = "") -> History:
    """Read the history of a run directory; that of one without events is empty, and half lines are left out."""
    targets = _targets(run / "config.json")
    return history(read_events(run / "events.jsonl"), name or run.name, final=final, targets=targets, group=group)


def history(
    events: Iterable[Event],
    name: str,
    *,
    final: float | None = None,
    targets: Sequence[float | None] = (),
    group: str = "",
) -> History:
    """Make a history of events. `targets` are the target chunk lengths of the levels, where they are known."""
    start = Start()
    steps: list[Step] = []
    checks: list[Validation] = []
    for event in events:
        match event:
            case Start():
                start = event
            case Step():
                steps.append(event)
            case Validation() if _finite(event.bpb) is not None:
                checks.append(event)
            case Scored() if final is None:
                final = _finite(event.bpb)
    per_token = start.bytes_per_token
    batch = start.batch_tokens
    per_step = batch * per_token if batch and per_token else None

    def seen(step: int) -> float | None:
        return step * per_step if per_step else None

    kept = _spread(steps)
    routed = [e for e in kept if e.levels]
    count = max((len(e.levels) for e in routed), default=0)
    levels = []
    for number in range(count):
        those = [e for e in routed if len(e.levels) > number]
        target = targets[number] if number < len(targets) else None
        rates = [e.levels[number].get("boundary_rate", math.nan) for e in those]
        levels.append(Level([e.step for e in those], rates, target))
    return History(
        name=name,
        step=[e.step for e in kept],
        seconds=[_finite(e.train_seconds) for e in kept],
        bytes=[seen(e.step) for e in kept],
        bpb=[_bpb(e.loss, per_token) for e in kept],
        lr_scale=[_finite(e.lr_scale) for e in kept],
        bytes_per_second=[_times(e.tokens_per_second, per_token) for e in kept],
        grad_norm=[_finite(e.grad_norm) for e in kept],
        validations=[charts.Validation(e.step, _finite(e.train_seconds), seen(e.step), e.bpb) for e in checks],
        levels=levels,
        final=final,
        group=group,
    )


def _spread(steps: list[Step]) -> list[Step]:
    """At most about MOST_POINTS of the steps; those with facts about routers are kept where they fit."""
    stride = math.ceil(len(steps) / MOST_POINTS) or 1
    return [e for i, e in enumerate(steps) if i % stride == 0 or i == len(steps) - 1]


def _bpb(loss: float | None, per_token: float | None) -> float | None:
    value = _finite(loss)
    return None if value is None or not per_token else value / math.log(2) / per_token


def _times(value: float | None, factor: float | None) -> float | None:
    number = _finite(value)
    return None if number is None or factor is None else number * factor


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _targets(config: Path) -> list[float | None]:
    """The target chunk lengths of the levels, as far as a config says them; nobody has checked its form."""
    found: object
    try:
        found = read_json(config)
    except DataError:
        return []
    for key in ("model", "levels"):
        found = found.get(key) if isinstance(found, Mapping) else None
    levels = found if isinstance(found, list) else []
    lengths = [level.get("target_length") if isinstance(level, Mapping) else None for level in levels]
    return [length if isinstance(length, int | float) else None for length in lengths]
