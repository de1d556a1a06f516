"""What a run told while it trained, read from its events for `drawing.charts`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from niblick.drawing.charts import History, Level, Validation

MOST_POINTS = 1000
"""A history keeps at most about so many of the logged steps, evenly spread, the last among them."""


def read_history(run: Path, name: str = "", final: float | None = None, group: str = "") -> History:
    """Read the history of a run directory; that of one without events is empty, and half lines are left out."""
    targets: list[float | None] = []
    config = _object(run / "config.json")
    for level in (config.get("model") or {}).get("levels") or []:
        targets.append(level.get("target_length"))
    return history(read_events(run / "events.jsonl"), name or run.name, final=final, targets=targets, group=group)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of events.jsonl; lines that are no JSON object, such as a half one at the end, are left out."""
    if not path.is_file():
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and "event" in event:
                yield event


def history(
    events: Iterable[dict[str, Any]],
    name: str,
    *,
    final: float | None = None,
    targets: Sequence[float | None] = (),
    group: str = "",
) -> History:
    """Make a history of events. `targets` are the target chunk lengths of the levels, where they are known."""
    start: dict[str, Any] = {}
    steps: list[dict[str, Any]] = []
    checks: list[dict[str, Any]] = []
    for event in events:
        kind = event["event"]
        if kind == "start":
            start = event
        elif kind == "step":
            steps.append(event)
        elif kind == "validation" and _finite(event.get("bpb")) is not None:
            checks.append(event)
        elif kind == "score" and final is None:
            final = _finite(event.get("bpb"))
    per_token = start.get("bytes_per_token")
    batch = start.get("batch_tokens")
    per_step = batch * per_token if batch and per_token else None

    def seen(event: dict[str, Any]) -> float | None:
        return event["step"] * per_step if per_step else None

    kept = _spread(steps)
    routed = [e for e in kept if e.get("levels")]
    count = max((len(e["levels"]) for e in routed), default=0)
    levels = []
    for number in range(count):
        those = [e for e in routed if len(e["levels"]) > number]
        target = targets[number] if number < len(targets) else None
        rates = [e["levels"][number]["boundary_rate"] for e in those]
        levels.append(Level([e["step"] for e in those], rates, target))
    return History(
        name=name,
        step=[e["step"] for e in kept],
        seconds=[_finite(e.get("train_seconds")) for e in kept],
        bytes=[seen(e) for e in kept],
        bpb=[_bpb(e.get("loss"), per_token) for e in kept],
        lr_scale=[_finite(e.get("lr_scale")) for e in kept],
        bytes_per_second=[_times(e.get("tokens_per_second"), per_token) for e in kept],
        grad_norm=[_finite(e.get("grad_norm")) for e in kept],
        validations=[Validation(e["step"], _finite(e.get("train_seconds")), seen(e), e["bpb"]) for e in checks],
        levels=levels,
        final=final,
        group=group,
    )


def _spread(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most about MOST_POINTS of the steps; those with facts about routers are kept where they fit."""
    stride = math.ceil(len(steps) / MOST_POINTS) or 1
    return [e for i, e in enumerate(steps) if i % stride == 0 or i == len(steps) - 1]


def _bpb(loss: Any, per_token: float | None) -> float | None:
    value = _finite(loss)
    return None if value is None or not per_token else value / math.log(2) / per_token


def _times(value: Any, factor: float | None) -> float | None:
    number = _finite(value)
    return None if number is None or factor is None else number * factor


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
