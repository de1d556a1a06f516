"""Tags and notes: notes.json in a run directory, and the research log, a Markdown file that people may edit."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from niblick.errors import ConfigError, DataError
from niblick.facts.reading import plain
from niblick.files import json_bytes, locked, read_small, why, write_together
from niblick.ledger.rows import Notes, Row, read_notes

LOG = "log.md"
"""The research log, in the folder of the runs."""
PATIENCE = 30.0
"""Seconds to wait for others who write notes."""

_TITLE = "# Research log\n"
_TAG = re.compile(r"[^\W_][\w.:/+-]{0,59}")


def tag(rows: list[Row], name: str, *, remove: bool = False) -> list[Row]:
    """Tag runs, or take the tag away. Returns the runs that have changed.

    Raises ConfigError for what is no tag, and for a run without the tag that is to go; DataError for a notes.json that
    cannot be read. Nothing is written then.
    """
    if not _TAG.fullmatch(name):
        raise ConfigError(f"{name!r} is no tag: write a letter or digit, then letters, digits or any of . : / + - _")
    with contextlib.ExitStack() as held:
        for row in sorted(rows, key=lambda row: row.path):
            held.enter_context(_held(Path(row.path)))
        notes = [_notes_of(row) for row in rows]
        for row, known in zip(rows, notes, strict=True):
            if remove and name not in known.tags:
                there = f"its tags are {', '.join(known.tags)}" if known.tags else "it has no tags"
                raise ConfigError(f"{row.id} is not tagged {name!r}: {there}")
        changed = [(row, known) for row, known in zip(rows, notes, strict=True) if (name in known.tags) == remove]
        written = {}
        for row, known in changed:
            tags = tuple(t for t in known.tags if t != name) if remove else (*known.tags, name)
            written[Path(row.path) / "notes.json"] = json_bytes(plain(replace(known, tags=tags)))
        write_together(written)
        return [row for row, _ in changed]


def note(folder: Path, text: str, row: Row | None = None, now: datetime | None = None) -> Path:
    """Write a note into the research log below `folder`, and beside the run it is about. Returns the log.

    The log only ever grows at its end, under a heading for each day; a run is named by a link. Raises ConfigError for
    an empty note, DataError if the log or notes.json cannot be read.
    """
    text = text.strip()
    if not text:
        raise ConfigError('the note is empty: write one, as in niblick note "wider encoders do not help on code"')
    now = now or datetime.now().astimezone()
    with _held(folder), _held(Path(row.path)) if row else contextlib.nullcontext():
        return _noted(folder / LOG, text, row, now)


def _held(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Be the only one who writes notes into a folder."""
    return locked(folder / "notes.lock", f"what is noted in {folder}", PATIENCE)


def _noted(log: Path, text: str, row: Row | None, now: datetime) -> Path:
    try:
        before = read_small(log).decode() if log.exists() else _TITLE
    except (OSError, ValueError) as error:
        raise DataError(f"the research log {log} cannot be read ({why(error)}): move it away or mend it") from error
    known = _notes_of(row) if row else Notes()
    day = f"## {now:%Y-%m-%d}"
    days = re.findall(r"^## .*$", before, re.MULTILINE)
    heading = "" if days and days[-1].strip() == day else f"\n{day}\n\n"
    about = f" [{row.id}]({_link(row.id)})" if row else ""
    lines = text.replace("\r\n", "\n").split("\n")
    body = "\n".join([f"- {now:%H:%M}{about} {lines[0]}", *(f"  {line}".rstrip() for line in lines[1:])])
    joint = "" if before.endswith("\n") else "\n"
    written = {log: f"{before}{joint}{heading}{body}\n".encode()}
    if row:
        entry = {"time": now.isoformat(timespec="seconds"), "text": text}
        written[Path(row.path) / "notes.json"] = json_bytes(plain(replace(known, notes=(*known.notes, entry))))
    write_together(written)
    return log


def read_log(folder: Path) -> str:
    """Return the research log as Markdown; empty where there is none yet."""
    path = folder / LOG
    try:
        return read_small(path).decode(errors="replace") if path.exists() else ""
    except (OSError, ValueError) as error:
        raise DataError(f"the research log {path} cannot be read ({why(error)}): move it away or mend it") from error


def _notes_of(row: Row) -> Notes:
    path = os.path.join(row.path, "notes.json")
    try:
        return read_notes(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({why(error)}): mend it or move it away") from error


def _link(id: str) -> str:
    return re.sub(r"[() <>]", lambda found: f"%{ord(found[0]):02X}", id) + "/"
