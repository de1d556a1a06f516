"""Events to and from their lines in events.jsonl."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from niblick.errors import DataError
from niblick.facts import events
from niblick.facts.events import Event, Unknown
from niblick.facts.reading import plain, read, says_nothing
from niblick.files import JSON_MOST, parse_json, regular

KINDS = {
    cls.event: cls
    for cls in vars(events).values()
    if isinstance(cls, type) and issubclass(cls, Event) and cls.event and cls is not Unknown
}
"""The kinds of events by their names."""


_SELDOM = frozenset({"time", "run", "levels", "final", "kind", "level", "average", "wall_seconds"})
"""Keys that are left out where they say nothing."""


def read_event(data: Mapping[str, object]) -> Event:
    """Read an event. One of an unknown kind, or of a known kind in another form, is kept as it is."""
    cls = KINDS.get(str(data.get("event")))
    if cls is not None:
        try:
            return read(cls, {key: value for key, value in data.items() if key != "event"})
        except DataError:
            pass
    time = data.get("time")
    return Unknown(time=float(time) if isinstance(time, int | float) else None, extra=dict(data))


def written(event: Event) -> dict[str, object]:
    """Return an event as plain data, as its line holds it."""
    found = {"event": event.event} | plain(event)
    return {key: value for key, value in found.items() if key not in _SELDOM or not says_nothing(value)}


def parsed(line: str | bytes) -> Event | None:
    """Read a line; None if it is no event."""
    try:
        data = parse_json(line, lenient=True)
    except ValueError:
        return None
    return read_event(data) if isinstance(data, dict) and isinstance(data.get("event"), str) else None


def read_events(path: Path) -> Iterator[Event]:
    """Yield the events of events.jsonl; lines that are none, such as a half one at the end, are left out."""
    try:
        file = regular(path)
    except (OSError, ValueError):
        return
    with file:
        while line := file.readline(JSON_MOST):  # a longer one is no event, nor are its parts
            event = parsed(line)
            if event is not None:
                yield event
