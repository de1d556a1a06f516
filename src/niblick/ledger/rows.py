"""The summary facts of one run directory, read without torch. `ledger.ledger` reads many, with a cache."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from niblick.challenge.tracks import RankingKey, ranking_key
from niblick.errors import DataError
from niblick.facts.audits import AuditRecord
from niblick.facts.event_lines import parsed
from niblick.facts.events import Event, Failure, Start, Step, Stop
from niblick.facts.reading import read
from niblick.facts.record import Record
from niblick.facts.result import Clocks, ImportResult, Result, read_finished
from niblick.facts.scores import ScoreRecord
from niblick.files import json_lines, parse_json, read_small, regular

T = TypeVar("T")

KEY_FIELDS = tuple(RankingKey.__dataclass_fields__)

_TAIL = 16_384
"""Bytes at the end of events.jsonl that the last events are read from."""


@dataclass(frozen=True)
class Score:
    """The score of one artifact of a run, as `scores.jsonl` and `result.json` tell it."""

    artifact: str
    bpb: float
    bpb_repaired: float | None
    """With what a lossy tokenizer loses put right; None where nobody knows what it loses."""
    lossless: bool | None
    key: tuple[str, ...] | None
    """The fields of `tracks.RankingKey`: scores are ranked only where all of them are the same. None: unknown."""
    bytes: int
    """Of the text that was scored."""
    scorer: str
    artifact_bytes: int
    code_bytes: int | None
    """None, as are the total bytes, where the code could not be weighed."""
    total_bytes: int | None
    eval_seconds: float | None
    hardware: str
    standing: str
    """`legal` on the record track, `local` under the cap but off that track, `over cap`, or `not weighed` where nobody
    knows what code and artifact take together."""
    score_first: bool
    costs: str | None
    """Name of the file with the costs of its documents."""
    audit: str
    """`passed`, `failed` or `none`, of audit.json beside the artifact."""
    faults: tuple[str, ...] = ()
    """Checks of the audit that failed."""
    text_bytes: int | None = None
    """Of training text in the official artifact, and the bytes of it that this takes; None where there is none."""
    packed_text: int | None = None


@dataclass(frozen=True)
class Row:
    """What the ledger knows of one run."""

    id: str
    """Path below the folder of runs, with `/`."""
    path: str
    status: str
    """`done`, `imported`, `running`, `stopped` (by a signal, or by its sweep as a loser), `failed`,
    `unfinished` (silent for LIVE_SECONDS) or `broken` (its files cannot be read)."""
    message: str
    """Why it stopped, failed or is broken."""
    preset: str
    tokenizer: str
    seed: int | None
    data_seed: int | None
    recipe: str
    """Digest of the config without its seeds: runs that share it differ in luck alone."""
    sweep: str
    name: str
    """What the sweep calls it; seeds share it."""
    branch: str
    """What the leaderboard groups by; the preset where no sweep says."""
    track: str
    tags: tuple[str, ...]
    notes: tuple[Mapping[str, str], ...]
    """`{"time", "text"}` each."""
    step: int | None
    steps: int | None
    parameters: int | None
    train_seconds: float | None
    wall_seconds: float | None
    export_seconds: float | None
    scores: tuple[Score, ...]
    """The official one first."""
    started: float
    """Seconds since 1970."""
    changed: float
    """When it last wrote something."""

    @property
    def score(self) -> Score | None:
        """The official score, if there is one."""
        return self.scores[0] if self.scores else None

    def facts(self) -> dict[str, object]:
        """Return plain data: the run, the official score's fields and those of its ranking key; None where unknown."""
        facts = {key: value for key, value in vars(self).items() if key not in ("scores", "notes")}
        facts |= {"tags": list(self.tags), "notes": len(self.notes)}
        score = dict(vars(self.score)) if self.score else dict.fromkeys(Score.__dataclass_fields__)
        key = score.pop("key")
        facts |= score | {"faults": list(self.score.faults) if self.score else []}
        return facts | dict(zip(KEY_FIELDS, key or (None,) * len(KEY_FIELDS), strict=True)) | {"track": self.track}


def stored(row: Row) -> str:
    """Return a row as JSON, for the cache."""
    return json.dumps(vars(row) | {"scores": [vars(score) for score in row.scores]})


def restored(texts: Iterable[str]) -> list[Row]:
    """Return the rows that `stored` wrote. Ten thousand take a tenth of a second, since no constructor runs."""
    rows = []
    for data in json.loads(f"[{','.join(texts)}]"):
        for score in data["scores"]:
            score["faults"], score["key"] = tuple(score["faults"]), tuple(score["key"]) if score["key"] else None
        data["scores"] = tuple(_made(Score, score) for score in data["scores"])
        data["tags"], data["notes"] = tuple(data["tags"]), tuple(data["notes"])
        rows.append(_made(Row, data))
    return rows


def _made(cls: type[T], fields: Mapping[str, object]) -> T:
    made = object.__new__(cls)
    made.__dict__.update(fields)
    return made


def read_run(path: str, id: str) -> tuple[Row, str]:
    """Read a run directory. Returns its row and its config as text; what cannot be read makes a `broken` row."""
    try:
        return _read_run(path, id)
    except (DataError, OSError, ValueError) as error:
        return _broken(path, id, str(error)), "{}"
    except Exception as error:  # of whatever form a stranger's files are, the other runs are listed
        return _broken(path, id, f"its files are of no known form ({type(error).__name__}: {error})"), "{}"


def _read_run(path: str, id: str) -> tuple[Row, str]:
    text = read_small(f"{path}/config.json").decode()
    config = _parsed(text, "config.json")
    result = read_finished(Path(f"{path}/result.json"))
    member = _object(f"{path}/member.json") if os.path.exists(f"{path}/member.json") else {}
    told = _told(f"{path}/events.jsonl", finished=result is not None)
    status, message = _status(path, result, told)
    tags, notes = _notes(f"{path}/notes.json")
    clocks = result if isinstance(result, Result) else Clocks(step=told.step, train_seconds=told.train_seconds)
    schedule = config.get("schedule") or {}
    row = Row(
        id=id,
        path=path,
        status=status,
        message=message,
        preset=str(config.get("preset", "")),
        tokenizer=str(config.get("tokenizer", "")),
        seed=_whole(config.get("seed")),
        data_seed=_whole((config.get("data") or {}).get("seed")),
        recipe=recipe_digest(config),
        sweep=str(member.get("sweep", "")),
        name=str(member.get("name", "")),
        branch=str(member.get("branch") or config.get("preset", "")),
        track=str(config.get("track", "")),
        tags=tags,
        notes=notes,
        step=clocks.step,
        steps=clocks.steps or _whole(schedule.get("steps")),
        parameters=told.parameters,
        train_seconds=_number(clocks.train_seconds),
        wall_seconds=_number(clocks.wall_seconds),
        export_seconds=_number(result.export_seconds) if isinstance(result, Result) else None,
        scores=_scores(path, config, result),
        started=os.stat(f"{path}/config.json").st_mtime,
        changed=_changed(path),
    )
    return row, text


def recipe_digest(config: Mapping[str, Any]) -> str:
    """Digest of a config without its seeds."""
    kept = {key: value for key, value in config.items() if key != "seed"}
    if isinstance(kept.get("data"), dict):
        kept["data"] = {key: value for key, value in kept["data"].items() if key != "seed"}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def largest(sizes: Iterable[int | None]) -> int | None:
    """The largest of some sizes; None if there is none, or one of them is not known."""
    known = list(sizes)
    return None if None in known else max((size for size in known if size is not None), default=None)


def read_audit(folder: str) -> tuple[str, tuple[str, ...]]:
    """What audit.json beside an artifact says: passed, failed or none, and the names of the checks that failed."""
    path = f"{folder}/audit.json"
    if not os.path.exists(path):
        return "none", ()
    try:
        audit = read(AuditRecord, _object(path), path)
    except (OSError, ValueError, DataError) as error:
        return "failed", (f"audit.json cannot be read: {error}",)
    passed = any(check.status == "pass" for check in audit.checks)
    return ("failed", audit.faults) if audit.faults else ("passed" if passed else "none", ())


@dataclass(frozen=True, kw_only=True)
class Notes(Record):
    """notes.json: what people say of a run."""

    tags: tuple[str, ...] = ()
    notes: tuple[Mapping[str, str], ...] = ()
    """`{"time", "text"}` each."""


def read_notes(path: str | Path) -> Notes:
    """Read notes.json; empty where there is none.

    Raises ValueError for anything else: people may edit it.
    """
    if not os.path.exists(path):
        return Notes()
    data = _object(path)
    tags, notes = data.get("tags", []), data.get("notes", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise ValueError('"tags" must be a list of words')
    if not isinstance(notes, list) or not all(isinstance(n, dict) and isinstance(n.get("text"), str) for n in notes):
        raise ValueError('"notes" must be a list of {"time": …, "text": …}')
    others = {key: value for key, value in data.items() if key not in ("tags", "notes")}
    return Notes(tags=tuple(tags), notes=tuple(notes), extra=others)


def _notes(path: str) -> tuple[tuple[str, ...], tuple[Mapping[str, str], ...]]:
    try:
        data = read_notes(path)
    except (OSError, ValueError) as error:
        return (), ({"time": "", "text": f"notes.json cannot be read: {error}"},)
    return data.tags, data.notes


def _scores(path: str, config: Mapping[str, Any], result: Result | ImportResult | None) -> tuple[Score, ...]:
    """The official score, from result.json, and those of further artifacts, from their own files."""
    if not isinstance(result, Result):
        return ()
    scores = [_score(path, config, result.artifact, result)]
    if not os.path.isdir(folder := f"{path}/artifacts"):
        return tuple(scores)
    for name in sorted(name for name in os.listdir(folder) if name != result.artifact):
        record = _first_line(f"{folder}/{name}/scores.jsonl")
        if record and os.path.exists(f"{folder}/{name}/artifact.nib"):
            scores.append(_score(path, config, name, record))
    return tuple(scores)


def _score(path: str, config: Mapping[str, Any], artifact: str, record: ScoreRecord) -> Score:
    legality = record.legality
    audit, faults = read_audit(f"{path}/artifacts/{artifact}")
    try:
        key = tuple(vars(ranking_key(config, record)).values()) if record.machine else None
    except (KeyError, TypeError):
        key = None
    return Score(
        artifact=artifact,
        bpb=record.bpb,
        bpb_repaired=_number(record.bpb_repaired),
        lossless=record.lossless,
        key=key,
        bytes=record.original_bytes or record.bytes,
        scorer=record.scorer.scorer,
        artifact_bytes=record.artifact_bytes,
        code_bytes=record.code_bytes,
        total_bytes=record.total_bytes,
        eval_seconds=_number(legality.eval_seconds),
        hardware=legality.hardware,
        standing=legality.standing,
        score_first=legality.score_first,
        costs=record.document_costs,
        audit=audit,
        faults=faults,
        text_bytes=record.text_bytes if isinstance(record, Result) else None,
        packed_text=record.packed_text if isinstance(record, Result) else None,
    )


def _status(path: str, result: Result | ImportResult | None, told: Told) -> tuple[str, str]:
    """Status and message; what is neither finished nor stopped is `running` until its silence says otherwise.

    A run that its sweep stopped as a loser stays so, even if somebody resumes it by hand.
    """
    if os.path.exists(f"{path}/stopped.json"):
        return "stopped", str(_object(f"{path}/stopped.json").get("reason", "stopped by its sweep"))
    if isinstance(result, Result):
        return "done", ""
    if result:
        return "imported", "a checkpoint of the challenge's scripts, not scored yet"
    if os.path.exists(job := failed_job(path)):
        return "failed", last_words(_object(job))
    if isinstance(told.last, Failure):
        return "failed", told.last.message
    if isinstance(told.last, Stop) and told.last.reason.startswith("SIG"):
        return "stopped", f"by {told.last.reason}"
    return "running", ""


def failed_job(path: str) -> str:
    """Where a sweep says how the job of this run failed."""
    sweep, name = os.path.split(path)
    return f"{sweep}/jobs/{name}.failed.json"


def last_words(failure: Mapping[str, Any]) -> str:
    """The last line that a failed job said."""
    lines = [str(line).strip() for line in failure.get("lines") or [] if str(line).strip()]
    return lines[-1] if lines else f"exit code {failure.get('code')}"


@dataclass
class Told:
    """What is asked of a run's events."""

    parameters: int | None = None
    step: int | None = None
    """The newest, and the clock then."""
    train_seconds: float | None = None
    last: Event | None = None

    def take(self, event: Event) -> None:
        """Take in the next event."""
        self.last = event
        if isinstance(event, Start):
            self.parameters = event.parameters
        if isinstance(event, Step | Stop) and event.step is not None:
            self.step, self.train_seconds = event.step, event.train_seconds


def _told(path: str, finished: bool) -> Told:
    """Read the first event, and, unless the run is finished, those near the end of the file."""
    found = Told()
    try:
        with regular(path) as file:
            lines = [file.readline(_TAIL)]
            if not finished:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _TAIL))
                lines += file.read(_TAIL).split(b"\n")
    except (OSError, ValueError):
        return found
    for line in lines:
        if event := parsed(line):
            found.take(event)
    return found


def _changed(path: str) -> float:
    times = []
    for name in ("config.json", "events.jsonl", "result.json", "checkpoints"):
        try:
            times.append(os.stat(f"{path}/{name}").st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def _broken(path: str, id: str, message: str) -> Row:
    tags, notes = _notes(f"{path}/notes.json")
    changed = _changed(path)
    return Row(
        id=id,
        path=path,
        status="broken",
        message=f"cannot be read: {message}",
        preset="",
        tokenizer="",
        seed=None,
        data_seed=None,
        recipe="",
        sweep="",
        name="",
        branch="",
        track="",
        tags=tags,
        notes=notes,
        step=None,
        steps=None,
        parameters=None,
        train_seconds=None,
        wall_seconds=None,
        export_seconds=None,
        scores=(),
        started=changed,
        changed=changed,
    )


def _object(path: str | Path) -> dict[str, Any]:
    """Read a JSON object. Raises OSError or ValueError."""
    return _parsed(read_small(path), os.path.basename(path))


def _parsed(text: str | bytes, name: str) -> dict[str, Any]:
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if not isinstance(data, dict):
        raise ValueError(f"{name} holds no JSON object")
    return data


def _first_line(path: str) -> ScoreRecord | None:
    try:
        data = parse_json(next(json_lines(Path(path)), ""))
    except (OSError, ValueError):
        return None
    return read(ScoreRecord, data, path) if data else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
