"""Where runs come from: run directories below given folders, and given logs. Nothing outside them is ever opened."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from niblick.errors import DataError
from niblick.facts.result import Finished, read_finished
from niblick.files import parse_json, read_small, why
from niblick.ledger import ledger
from niblick.ledger.rows import Notes, failed_job, last_words
from niblick.monitor.event_reader import EventReader
from niblick.monitor.log_lines import LogReader, ends_whole
from niblick.monitor.run_facts import Facts
from niblick.monitor.tail import Tail, expect_text, last_lines
from niblick.monitor.timing import ENDED, Pace

_SETTLED = 5.0
"""Seconds after which a last line without its end is taken as it is."""


class Source(ABC):
    """One run, followed. `poll` reads what is new; all else is what is known since."""

    kind: str

    def __init__(self, id: str, path: Path, reader: LogReader | EventReader, tail: Tail, pace: Pace) -> None:
        self.id, self.path, self.pace = id, path, pace
        self.gone = False
        self.version = 0
        """Goes up with everything new."""
        self.last_at = 0.0
        self._reader, self._tail = reader, tail
        self._live = False

    @property
    def facts(self) -> Facts:
        """All that is known."""
        return self._reader.facts

    @property
    def sampled(self) -> bool:
        """Whether the file was too large to be read whole."""
        return self._tail.sampled

    @property
    @abstractmethod
    def group(self) -> str:
        """A key that runs share if their phases take equally long."""

    def poll(self, now: float) -> None:
        """Read what is new. A file that is gone leaves what was known, and `gone` set."""
        try:
            again, lines = self._tail.poll()
        except OSError:
            self._missing()
            return
        if again:
            self._began_anew()
        count = self._feed(lines, now)
        while self._tail.more and not self._live:  # the first time, all of it
            count += self._feed(self._tail.poll()[1], now)
        count += self._unfinished(now)
        self.gone = False
        if count or not self._live:
            self.last_at = self._arrived(now)
        if count or again or not self._live:
            self.version += 1
        self._live = True

    @abstractmethod
    def anew(self) -> Source:
        """Return a source of the same run that has read nothing yet."""

    def refuse(self, why: str) -> None:
        """Note that the run cannot be read."""
        self.facts.message = f"cannot be read: {why}"[:500]
        self.facts.enter("failed", self.last_at or None)

    def log_tail(self, count: int = 200) -> list[str]:
        """The last lines, as they stand in the log."""
        return last_lines(self.path, count)

    def settings(self) -> dict[str, str]:
        """What the run was told to do, as flat names and values."""
        return dict(self.facts.settings)

    def _feed(self, lines: Iterable[str], now: float) -> int:
        count = 0
        for line in lines:
            self._reader.feed(line, now if self._live else None)
            count += 1
        return count

    def _arrived(self, now: float) -> float:
        """When the line came that was read last."""
        return now if self._live else self._tail.modified

    def _unfinished(self, now: float) -> int:
        line = self._tail.unfinished()
        if line and (ends_whole(line) or now - self._tail.modified > _SETTLED):
            self._reader.feed(line, now if self._live else None)
            self._tail.take_unfinished()
            return 1
        return 0

    def _missing(self) -> None:
        if not self.gone:
            self.version += 1
        self.gone = True

    def _began_anew(self) -> None:  # noqa: B027 - most have nothing to forget
        """The file was rotated or truncated: a log may go on in the new one."""


class LogSource(Source):
    """A log of the challenge family."""

    kind = "log"

    def __init__(self, id: str, path: Path) -> None:
        super().__init__(id, path, LogReader(), Tail(path), Pace())

    def anew(self) -> Source:
        """Return a source of the same log."""
        return LogSource(self.id, self.path)

    @property
    def group(self) -> str:
        """Logs of one model take alike, wherever they ran."""
        return f"{self.facts.parameters} weights"

    def _feed(self, lines: Iterable[str], now: float) -> int:
        count, facts = super()._feed(lines, now), self.facts
        if count and self._live and facts.phase == "training" and facts.train_seconds:
            self.pace.observe(now, facts.train_seconds)  # a log's lines have no times of their own
        return count


class RunSource(Source):
    """A run directory."""

    kind = "run"

    def __init__(self, id: str, path: Path, root: Path | None = None) -> None:
        """`root` is the folder of runs, which nothing that is read may lie outside of; by default the run's own."""
        self._root = (root or path).resolve()
        self._unread = ""
        """Why its config cannot be read, if it cannot."""
        self._config: dict[str, Any] = {}
        pace = Pace()
        try:
            self._config = _read_object(expect_within(path / "config.json", self._root))
        except FileNotFoundError:
            pass
        except DataError as error:
            self._unread = str(error)
        except (OSError, ValueError) as error:
            self._unread = f"config.json: {why(error)}"
        super().__init__(id, path, EventReader(self._config, pace), Tail(path / "events.jsonl"), pace)

    def anew(self) -> Source:
        """Return a source of the same run."""
        return RunSource(self.id, self.path, self._root)

    @property
    def group(self) -> str:
        """Runs of one preset take alike."""
        return str(self._config.get("preset", ""))

    def poll(self, now: float) -> None:
        """Read what is new, and look whether the final weights are there."""
        before, version = self.facts.phase, self.version
        try:
            expect_within(self.path / "events.jsonl", self._root)
            super().poll(now)
            self._outcome(version)
        except DataError as error:
            self.refuse(str(error))
        if self._unread:
            self.refuse(self._unread)
        self.version += self.facts.phase != before

    def _outcome(self, version: int) -> None:
        """Look at the files that tell how far a run is, beside its events."""
        assert isinstance(self._reader, EventReader)
        if self.version != version and self.facts.phase == "done":
            self._reader.decided(self._result())
        if self.facts.phase in ("starting", "warmup", "initial_validation", "training"):
            weights = _modified(self.path / "model.safetensors")
            if weights is not None and not self.gone:
                self._reader.weights_written(weights)
                self.last_at = max(self.last_at, weights)
        if self.facts.phase != "done" and (self.path / "result.json").is_file():
            self._reader.finished(self._result(), self.last_at)
        if self.facts.phase not in ENDED and (last := self._last_words()):
            self._reader.ended(*last, self.last_at)

    def _result(self) -> Finished | None:
        """What result.json says; None if there is none. Raises DataError if it cannot be read."""
        return read_finished(expect_within(self.path / "result.json", self._root))

    def _last_words(self) -> tuple[str, str] | None:
        """The end of a run that could not record it itself, as its sweep recorded it."""
        if (stopped := self.path / "stopped.json").is_file():
            reason = read_object(expect_within(stopped, self._root)).get("reason", "stopped by its sweep")
            return "stopped", str(reason)
        if (failed := Path(failed_job(str(self.path)))).is_file():
            return "failed", last_words(read_object(expect_within(failed, self._root)))
        return None

    def log_tail(self, count: int = 200) -> list[str]:
        """The last lines of train.log."""
        log = self.path / "train.log"
        return last_lines(log, count) if within(log, self._root) else []

    def settings(self) -> dict[str, str]:
        """The config, by dotted keys."""
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in flat(self._config)}

    def notes(self) -> Notes:
        """What people noted, as far as it can be read."""
        path = self.path / "notes.json"
        data = read_object(path) if within(path, self._root) else {}
        tags, notes = (found if isinstance(found := data.get(key), list) else [] for key in ("tags", "notes"))
        said = [{"time": str(n.get("time", "")), "text": n["text"]} for n in notes if _is_note(n)]
        return Notes(tags=tuple(tag for tag in tags if isinstance(tag, str)), notes=tuple(said))

    def artifacts(self) -> list[Path]:
        """The artifact files that are there, but for those behind links that lead out."""
        return [path for path in sorted(self.path.glob("artifacts/*/artifact.nib")) if within(path, self._root)]

    def _unfinished(self, now: float) -> int:
        return 0  # half a JSON object says nothing

    def _arrived(self, now: float) -> float:
        assert isinstance(self._reader, EventReader)
        return self._reader.told_at or super()._arrived(now)

    def _missing(self) -> None:
        if (self.path / "config.json").is_file():
            self.last_at = _modified(self.path / "config.json") or 0.0  # nothing was told yet
            self.gone = False
            return
        super()._missing()

    def _began_anew(self) -> None:
        self.pace.clear()
        self._reader = EventReader(self._config, self.pace)  # a run that goes on tells its events anew


def find_runs(root: Path) -> Iterator[tuple[str, Path]]:
    """Ids and folders of the runs below `root`; none that a link leads out to."""
    inside = root.resolve()
    for path, id in ledger.find_runs(root):
        if within(Path(path), inside):
            yield id, Path(path)


def within(path: Path, root: Path) -> bool:
    """Whether no link leads from a resolved folder out to what is below it."""
    return Path(os.path.realpath(path)).is_relative_to(root)


def expect_within(path: Path, root: Path) -> Path:
    """Return the path. Raises DataError if a link leads out of the resolved folder `root`."""
    if not within(path, root):
        raise DataError(f"{path.name} is a link that leads out of {root}: what is outside of it is not shown")
    return path


def links_out(run: Path, root: Path) -> bool:
    """Whether something that a run is told by lies outside of `root`."""
    known = [*run.glob("*.json"), *run.glob("*.jsonl"), *run.glob("artifacts/*/*.json*"), run / "config.json"]
    return not all(within(path, root.resolve()) for path in known)


def find_logs(paths: Iterable[Path]) -> list[Path]:
    """The given logs; for a folder, its .txt and .log files. Raises DataError for what is no log."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix in (".txt", ".log") and p.is_file())
            if not inside:
                raise DataError(f"{path} holds no .txt or .log file: name the logs themselves")
            found += inside
        else:
            found.append(path)
    for path in found:
        expect_text(path)
    return found


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} if there is none or it cannot be read."""
    try:
        return _read_object(path)
    except (OSError, ValueError):
        return {}


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises OSError or ValueError."""
    value = parse_json(read_small(path))
    if not isinstance(value, dict):
        raise ValueError("it holds no JSON object")
    return value


def _is_note(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("text"), str)


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested plain data by dotted keys, as overrides are written."""
    if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
