"""Facts are read and written by one reader and one writer; what a newer version says besides is kept."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from niblick.errors import DataError
from niblick.facts import reading
from niblick.facts.event_lines import KINDS, parsed, read_event, read_events, written
from niblick.facts.events import Failure, Step, Unknown
from niblick.facts.reading import SCHEMA, append_record, plain, read, read_file, read_lines, write_file
from niblick.facts.result import ExportFacts, ImportResult, Result, read_finished
from niblick.facts.scores import Legality, ScoreRecord
from niblick.run.directory import Run

SCORE: dict[str, Any] = {
    "bpb": 1.5,
    "loss": 1.0,
    "tokens": 10,
    "bytes": 10,
    "artifact_bytes": 5,
    "scorer": {"scorer": "contiguous", "stride": 3},
    "machine": {"gpus": 0, "cores": 2, "sockets": 1},
    "legality": {"under_cap": True, "reasons": ["slow"], "jury": {"said": "no"}},
    "mood": ["fine"],
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of an earlier version."""
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(Path(__file__).parents[1] / "run" / "golden_runs.zip") as archive:
        archive.extractall(folder)
    return folder / "runs" / "finished"


def test_unknown_keys_of_a_score_are_kept_at_every_level() -> None:
    record = read(ScoreRecord, SCORE)
    assert record.extra == {"mood": ["fine"]}
    assert record.legality.extra == {"jury": {"said": "no"}}
    again = plain(record)
    assert {key: again[key] for key in SCORE if key not in ("legality", "machine")} == {
        key: value for key, value in SCORE.items() if key not in ("legality", "machine")
    } | {"scorer": SCORE["scorer"] | {"dtype": "", "device": ""}}
    for key in ("legality", "machine"):
        inner = again[key]
        assert isinstance(inner, dict)
        assert inner | SCORE[key] == inner


def test_unknown_keys_of_a_result_and_an_export_are_kept(tmp_path: Path) -> None:
    facts = SCORE | {"run": "runs/a-1", "artifact": "int8", "files": {"config.json": "ab"}, "weather": 7}
    (tmp_path / "result.json").write_text(json.dumps(facts))
    result = read_finished(tmp_path / "result.json")
    assert isinstance(result, Result)
    assert (result.bpb, result.artifact, result.extra["weather"]) == (1.5, "int8", 7)
    assert plain(result)["weather"] == 7
    export = read(ExportFacts, {"artifact_bytes": 5, "new": [1]})
    assert plain(export) == {"artifact_bytes": 5, "code_bytes": None, "total_bytes": None} | {
        "code_not_weighed": None,
        "new": [1],
    }


def test_an_import_has_a_result_of_its_own(tmp_path: Path) -> None:
    facts = {"run": "a", "artifact": "imported", "artifact_bytes": 5, "files": {}}
    facts |= {"imported": {"file": "x.pt", "bytes": 3, "sha256": "ab"}}
    (tmp_path / "result.json").write_text(json.dumps(facts))
    found = Run(tmp_path).finished()
    assert isinstance(found, ImportResult)
    assert found.imported.file == "x.pt"
    assert Run(tmp_path).result() is None


def test_an_event_of_an_unknown_kind_is_kept() -> None:
    said = {"event": "eclipse", "time": 5.0, "step": 3, "sun": {"hidden": 0.5}}
    event = read_event(said)
    assert isinstance(event, Unknown)
    assert (event.kind, event.time) == ("eclipse", 5.0)
    assert written(event) == said


def test_an_event_of_a_known_kind_in_another_form_is_kept() -> None:
    said = {"event": "step", "step": "third", "loss": 1.0}
    event = read_event(said)
    assert isinstance(event, Unknown)
    assert written(event) == said


def test_unknown_keys_of_an_event_are_kept() -> None:
    event = read_event({"event": "step", "step": 1, "loss": 2.0, "ratio_loss_0": 1.5, "new": {"a": [1]}})
    assert isinstance(event, Step)
    assert event.extra == {"ratio_loss_0": 1.5, "new": {"a": [1]}}
    assert written(event).items() >= {"event": "step", "ratio_loss_0": 1.5, "new": {"a": [1]}}.items()


@pytest.mark.parametrize("line", ["", "no JSON", "[1]", "3", "{}", '{"event": 3}', '{"event": "st', "[" * 100_000])
def test_lines_that_are_no_events(line: str) -> None:
    assert parsed(line) is None


def test_kinds_have_names_of_their_own() -> None:
    assert len(KINDS) == len(set(KINDS.values()))
    assert "unknown" not in KINDS


def test_events_of_an_old_run_come_back_as_they_are(old: Path) -> None:
    lines = [json.loads(line) for line in (old / "events.jsonl").read_text().splitlines()]
    events = list(read_events(old / "events.jsonl"))
    assert not any(isinstance(event, Unknown) for event in events)
    assert [json.loads(json.dumps(written(event))) for event in events] == lines


def test_scores_and_results_of_an_old_run_come_back_as_they_are(old: Path) -> None:
    """But for one key that came later."""
    later: dict[str, Any] = {"code_not_weighed": None}
    result = read_finished(old / "result.json")
    assert result is not None
    assert plain(result) == json.loads((old / "result.json").read_text()) | later
    [name] = Run(old).artifact_names()
    folder = old / "artifacts" / name
    [record] = read_lines(ScoreRecord, folder / "scores.jsonl")
    assert plain(record) == json.loads((folder / "scores.jsonl").read_text()) | later
    export = read_file(ExportFacts, folder / "export.json")
    assert plain(export) == json.loads((folder / "export.json").read_text()) | later
    assert not (result.extra or record.extra or record.legality.extra or export.extra)


def test_each_file_has_the_version_of_its_schema(tmp_path: Path) -> None:
    record = read(ScoreRecord, SCORE)
    write_file(tmp_path / "result.json", record)
    append_record(tmp_path / "scores.jsonl", record)
    run = Run(tmp_path)
    run.log(Failure(message="one"))
    run.log(Failure(message="two"))
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert json.loads((tmp_path / "result.json").read_text())["schema"] == SCHEMA
    assert json.loads((tmp_path / "scores.jsonl").read_text())["schema"] == SCHEMA
    assert [line.get("schema") for line in lines] == [SCHEMA, None]


def test_a_run_that_goes_on_keeps_the_events_of_a_newer_version(tmp_path: Path) -> None:
    said = {"schema": SCHEMA + 1, "event": "eclipse", "time": 5.0, "sun": 1}
    (tmp_path / "events.jsonl").write_text(json.dumps(said) + "\n")
    run = Run(tmp_path)
    run.log(Failure(message="lost"))
    run.rewind(1)
    assert json.loads((tmp_path / "events.jsonl").read_text()) == said


def test_a_newer_version_stays_in_what_is_written_back(tmp_path: Path) -> None:
    newer = SCORE | {"schema": SCHEMA + 1}
    write_file(tmp_path / "score.json", read(ScoreRecord, newer))
    assert json.loads((tmp_path / "score.json").read_text())["schema"] == SCHEMA + 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"bpb": "low"}, "bpb"), ({"legality": {"reasons": []}}, "legality.under_cap"), ({"machine": 3}, "machine")],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(DataError, match=f"scores.jsonl: {named} does not fit a ScoreRecord"):
        read(ScoreRecord, SCORE | changes, "scores.jsonl")


@pytest.mark.parametrize(
    ("under", "reasons", "standing"),
    [(True, (), "legal"), (True, ("slow",), "local"), (False, (), "over cap"), (None, (), "not weighed")],
)
def test_standing(under: bool | None, reasons: tuple[str, ...], standing: str) -> None:
    assert Legality(under_cap=under, reasons=reasons).standing == standing


def test_writing_needs_no_pydantic() -> None:
    """It is imported to read: scripts and the start of the command line do without."""
    assert "pydantic" not in vars(reading)
