"""Events of runs as plain data, as their lines hold them."""

from __future__ import annotations

from typing import Any

from niblick.facts.event_lines import written
from niblick.facts.events import Emit, Event
from niblick.run.directory import Run


def noted(events: list[dict[str, Any]]) -> Emit:
    """A listener that keeps what it hears."""

    def listen(event: Event) -> None:
        events.append(written(event))

    return listen


def told(run: Run) -> list[dict[str, Any]]:
    """What the log of a run says."""
    return [written(event) for event in run.events()]
