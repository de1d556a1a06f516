"""The ledger: every run below a folder, listed and filtered. Everything that wants the summary of runs reads it here.

Run directories are the truth. `.ledger.sqlite` in the folder is a cache that may be thrown away at any time: a run
whose files have not changed (size and time of each) is not read again. Where it cannot be written, all works without.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from niblick.challenge.rules import Config
from niblick.errors import ConfigError, DataError, nearest, nearest_key
from niblick.facts.usable import LIVE_SECONDS, newest
from niblick.files import parse_json, read_json
from niblick.ledger.rows import Row, failed_job, read_run, restored, stored

CACHE = ".ledger.sqlite"
VERSION = 1
"""Of what the cache holds; one of another version is thrown away."""

DEPTH = 3
"""Runs lie at most so many folders down: runs/<sweep>/<run>."""

STATUSES = ("done", "imported", "running", "stopped", "failed", "unfinished", "broken")

_WATCHED = ("result.json", "config.json", "notes.json", "stopped.json")
_MISSING = "-"


@dataclass(frozen=True)
class Filter:
    """Which runs are wanted; what is empty does not filter. Patterns of names may hold `*` and `?`."""

    preset: str = ""
    branch: str = ""
    track: str = ""
    sweep: str = ""
    tag: str = ""
    status: str = ""
    values: tuple[str, ...] = ()
    """`key=value` of the config, such as `model.width=128`, or of the row, such as `hardware="2 CPU cores"`."""

    def __post_init__(self) -> None:
        if self.status and self.status not in STATUSES:
            raise ConfigError(f"there is no status {self.status!r}{nearest(self.status, STATUSES)}")
        for value in self.values:
            if not re.fullmatch(r"[\w-]+(\.[\w-]+)*=.*", value, re.DOTALL):
                raise ConfigError(f"{value!r} is no filter: write key=value, as in model.width=128")


class Ledger:
    """The runs below a folder; unless to `remember`, nothing is written there. Raises ConfigError if there is none."""

    def __init__(self, folder: Path, *, remember: bool = True) -> None:
        if not folder.is_dir():
            raise ConfigError(f"there is no folder {folder}: `niblick train` makes one with the first run in it")
        self.folder = folder
        self._cache = _open(folder / CACHE if remember else None)

    def rows(self, wanted: Filter | None = None) -> list[Row]:
        """Return the runs, newest first. Raises ConfigError for a filter by a key that no run has."""
        rows = self._refresh()
        wanted = wanted or Filter()
        rows = [row for row in rows if _fits(row, wanted)]
        for value in wanted.values:
            rows = self._with_value(rows, value)
        return sorted(rows, key=lambda row: (-row.started, row.id))

    def row(self, id: str) -> Row | None:
        """Return the run of this id, if there is one."""
        return next((row for row in self._refresh() if row.id == id), None)

    def config(self, row: Row) -> Config:
        """Return the config of a listed run."""
        found = self._cache.execute("SELECT config FROM runs WHERE id = ?", (row.id,)).fetchone()
        return parse_json(found[0]) if found else {}

    def altered(self, row: Row, files: Iterable[str] | None = None) -> list[str]:
        """Return the finished files of a run that are not as result.json says: gone, or changed by hand.

        `files` are the ones to look at, all by default. A file whose size and time are those of the last look is not
        read again.
        """
        path = Path(row.path)
        try:
            known = read_json(path / "result.json")["files"]
        except (DataError, KeyError, TypeError):
            return ["result.json"]
        names = known if files is None else [name for name in files if name in known]
        return [name for name in names if self._digest(path / name) != known[name]]

    def _digest(self, path: Path) -> str:
        try:
            stat = path.stat()
        except OSError:
            return ""
        mark = f"{stat.st_size}:{stat.st_mtime_ns}"
        key = str(path.resolve())
        found = self._cache.execute("SELECT digest FROM files WHERE path = ? AND mark = ?", (key, mark)).fetchone()
        if found:
            return str(found[0])
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._keep("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", [(key, mark, digest)])
        return digest

    def _refresh(self) -> list[Row]:
        """Return all rows, after reading the runs that are new or have changed."""
        known = {id: (mark, row) for id, mark, row in self._cache.execute("SELECT id, mark, row FROM runs")}
        rows, fresh, same = [], [], []
        for path, id in find_runs(self.folder):
            mark = _mark(path)
            if id in known and known[id][0] == mark:
                same.append(id)
                continue
            row, config = read_run(path, id)
            rows.append(row)
            fresh.append((id, mark, stored(row), config))
        gone = known.keys() - same - {values[0] for values in fresh}
        self._keep("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", fresh)
        self._keep("DELETE FROM runs WHERE id = ?", [(id,) for id in gone])
        return [_timely(row, str(self.folder)) for row in rows + restored(known[id][1] for id in same)]

    def _keep(self, statement: str, values: list[tuple[Any, ...]]) -> None:
        """Write to the cache; where that is not possible any more, go on with what is in memory."""
        if not values:
            return
        try:
            with self._cache:
                self._cache.executemany(statement, values)
        except sqlite3.Error:
            memory = _open(None)
            with contextlib.suppress(sqlite3.Error):
                self._cache.backup(memory)
            self._cache = memory
            with memory:
                memory.executemany(statement, values)

    def _with_value(self, rows: list[Row], assignment: str) -> list[Row]:
        """Keep the runs whose config, or else whose row, has this value."""
        key, _, text = assignment.partition("=")
        try:
            wanted = parse_json(text)
        except ValueError:
            wanted = text
        where = "$" + "".join(f"[{p}]" if p.isdigit() else f'."{p}"' for p in key.split("."))
        found = {
            id: parse_json(value) if kind in ("array", "object") else value
            for id, kind, value in self._cache.execute(
                "SELECT id, json_type(config, ?1), json_extract(config, ?1) FROM runs", (where,)
            )
            if kind is not None
        }
        if found:
            return [row for row in rows if row.id in found and found[row.id] == wanted]
        facts = [row.facts() for row in rows]
        if rows and key not in facts[0]:
            raise ConfigError(f"no run has the key {key!r}{nearest_key(key, [*self._keys(), *facts[0]])}")
        return [row for row, each in zip(rows, facts, strict=True) if each[key] == wanted]

    def _keys(self) -> list[str]:
        """Config keys of some run, for messages."""
        from niblick.config.run_config import dotted

        found = self._cache.execute("SELECT config FROM runs WHERE config != '{}' LIMIT 1").fetchone()
        return list(dotted(parse_json(found[0]))) if found else []


def find_rows(ledger: Ledger, targets: Iterable[str]) -> list[Row]:
    """Return runs by id, path or `latest`; the name of a sweep, or its folder, stands for all its runs.

    Raises ConfigError for a name that is none of these.
    """
    rows = ledger.rows()
    found: list[Row] = []
    for target in targets:
        names = {target.rstrip("/"), _below(Path(target), ledger.folder)}
        those = (
            _latest(rows)
            if target == "latest"
            else [row for row in rows if row.id in names or row.sweep in names - {""}]
        )
        if not those:
            known = [*(row.id for row in rows), *{row.sweep for row in rows if row.sweep}, "latest"]
            raise ConfigError(f"there is no run or sweep {target!r} in {ledger.folder}{nearest(target, known)}")
        found += [row for row in those if row not in found]
    return found


def _latest(rows: list[Row]) -> list[Row]:
    """The row of the newest usable run, if there is any run."""
    path = newest(Path(row.path) for row in rows)
    return [row for row in rows if path and Path(row.path) == path]


def _below(path: Path, folder: Path) -> str:
    """What a path is called below the folder of runs; empty where it lies elsewhere."""
    try:
        return path.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        return ""


def find_runs(folder: Path, depth: int = DEPTH) -> Iterator[tuple[str, str]]:
    """Yield the run directories below `folder` and their ids. A run directory is one with config.json in it."""
    return _find(str(folder), "", depth)


def _find(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    try:
        entries = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != ".")
    except OSError:
        return  # removed while we look, or not ours to read
    for name in entries:
        path = f"{folder}/{name}"
        if os.path.exists(f"{path}/config.json"):
            yield path, prefix + name
        elif depth > 1:
            yield from _find(path, f"{prefix}{name}/", depth - 1)


def _mark(folder: str) -> str:
    """Sizes and times of the files that a row is made of: another mark, another row."""
    parts = [_stamp(f"{folder}/{name}") for name in _WATCHED]
    if parts[0] == _MISSING:
        parts += [_stamp(f"{folder}/events.jsonl"), _stamp(failed_job(folder))]
    with contextlib.suppress(OSError):
        for name in os.listdir(f"{folder}/artifacts"):
            parts += [_stamp(f"{folder}/artifacts/{name}"), _stamp(f"{folder}/artifacts/{name}/audit.json")]
    return " ".join(parts)


def _stamp(path: str) -> str:
    try:
        stat = os.stat(path)
    except OSError:
        return _MISSING
    return f"{stat.st_size}:{stat.st_mtime_ns}"


def _timely(row: Row, folder: str) -> Row:
    """What the cache cannot know: where the folder is by now, and that a run has been silent for long."""
    if row.path != f"{folder}/{row.id}":
        row = replace(row, path=f"{folder}/{row.id}")
    if row.status == "running" and time.time() - row.changed > LIVE_SECONDS:
        return replace(row, status="unfinished", message="silent: killed, or very slow")
    return row


def _fits(row: Row, wanted: Filter) -> bool:
    from fnmatch import fnmatchcase

    pairs = ((getattr(row, key), getattr(wanted, key)) for key in ("preset", "branch", "track", "sweep"))
    if not all(fnmatchcase(value, pattern) for value, pattern in pairs if pattern):
        return False
    if wanted.tag and not any(fnmatchcase(tag, wanted.tag) for tag in row.tags):
        return False
    return not wanted.status or row.status == wanted.status


def _open(path: Path | None) -> sqlite3.Connection:
    """Open the cache, anew where it is broken or of another version; in memory where it cannot be written."""
    for attempt in range(2):
        if path is None:
            break
        try:
            connection = sqlite3.connect(path, timeout=2)
            if connection.execute("PRAGMA user_version").fetchone()[0] in (0, VERSION):
                _make_tables(connection)
                return connection
            connection.close()
        except sqlite3.OperationalError:
            break  # read-only, or locked for long
        except sqlite3.DatabaseError:
            if attempt:
                break
        with contextlib.suppress(OSError):
            path.unlink()
    connection = sqlite3.connect(":memory:")
    _make_tables(connection)
    return connection


def _make_tables(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("PRAGMA synchronous = OFF")  # a lost cache is no loss
        connection.execute("CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, mark TEXT, row TEXT, config TEXT)")
        connection.execute("CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, mark TEXT, digest TEXT)")
        connection.execute(f"PRAGMA user_version = {VERSION}")
