"""`niblick runs`, `tag` and `note`: what is listed, from which files, and that the cache is never believed too long."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
from command import Niblick
from rundirs import ARTIFACT, finish, make_run, training, write_audit

from niblick import cli
from niblick.errors import ConfigError, DataError
from niblick.facts.usable import LIVE_SECONDS
from niblick.ledger import ledger as module
from niblick.ledger.ledger import CACHE, Filter, Ledger, find_rows
from niblick.ledger.notes import LOG, note, tag
from niblick.run.directory import open_run

SWEEP = {"sweep": "width", "name": "wide", "branch": "encoder"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two runs by hand, two seeds of a sweep, and one each that failed, was stopped, and lies broken."""
    folder = tmp_path / "runs"
    make_run(folder, "hnet-small-1", 2.0)
    make_run(folder, "hnet-small-2", 2.2, overrides=("model.width=160",), audit=None)
    for seed in (1, 2):
        member = SWEEP | {"settings": {"model.width": 192}, "track": "fixed-step"}
        settings = ("model.width=192", "track=fixed-step")
        make_run(folder, f"width/wide-s{seed}", 1.9 + seed / 100, seed=seed, member=member, overrides=settings)
    make_run(folder, "width/bad-s1", None, member=SWEEP | {"name": "bad"})
    (folder / "width" / "jobs").mkdir()
    said = {"run": "bad-s1", "code": 1, "lines": ["step 3", "niblick: the loss is nan"]}
    (folder / "width" / "jobs" / "bad-s1.failed.json").write_text(json.dumps(said))
    lost = make_run(folder, "width/lost-s1", None, member=SWEEP | {"name": "lost"})
    (lost / "stopped.json").write_text(json.dumps({"rule": "halving", "reason": "not among the best half"}))
    (folder / "broken-1").mkdir()
    (folder / "broken-1" / "config.json").write_text("{")
    return folder


def ids(ledger: Ledger, **wanted: object) -> set[str]:
    return {row.id for row in ledger.rows(Filter(**wanted))}  # type: ignore[arg-type]


def run_cli(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    cli.app([*map(str, arguments)], standalone_mode=False)
    return capsys.readouterr().out


def test_every_run_is_listed_with_its_state(runs: Path) -> None:
    states = {row.id: (row.status, row.message) for row in Ledger(runs).rows()}
    assert states.pop("broken-1")[0] == "broken"
    assert states == {
        "hnet-small-1": ("done", ""),
        "hnet-small-2": ("done", ""),
        "width/wide-s1": ("done", ""),
        "width/wide-s2": ("done", ""),
        "width/bad-s1": ("failed", "niblick: the loss is nan"),
        "width/lost-s1": ("stopped", "not among the best half"),
    }


def test_facts_come_from_the_files(runs: Path) -> None:
    row = Ledger(runs).row("width/wide-s2")
    assert row is not None
    assert row.score is not None
    assert (row.seed, row.branch, row.sweep, row.name, row.track) == (2, "encoder", "width", "wide", "fixed-step")
    assert (row.score.bpb, row.score.total_bytes, row.score.standing, row.score.audit) == (
        1.92,
        15_000_000,
        "local",
        "passed",
    )
    assert row.facts()["device"] == "2 cores, EPYC"
    by_hand = Ledger(runs).row("hnet-small-1")
    assert by_hand is not None
    assert by_hand.branch == "hnet-small", "a run by hand is of the branch of its preset"


def test_filters(runs: Path) -> None:
    ledger = Ledger(runs)
    wide = {"width/wide-s1", "width/wide-s2"}
    assert ids(ledger, branch="encoder", status="done") == wide
    assert ids(ledger, track="fixed-step") == wide
    assert ids(ledger, sweep="wid*", status="failed") == {"width/bad-s1"}
    assert ids(ledger, values=("model.width=192",)) == wide
    assert ids(ledger, values=("model.width=192", "seed=2")) == {"width/wide-s2"}
    assert ids(ledger, values=("model.levels.0.target_length=6",)) >= wide
    assert ids(ledger, values=("train.penalties=[]",)) >= wide, "a list is a value"
    assert ids(ledger, values=("audit=none",)) == {"hnet-small-2"}, "what is no key of the config is one of the row"
    assert ids(ledger, preset="no-such") == set()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"values": ("model.widht=1",)}, "model.width"),
        ({"values": ("width",)}, "write key=value"),
        ({"values": ("a b=1",)}, "write key=value"),
        ({"status": "finished"}, "unfinished"),
    ],
)
def test_filters_that_mean_nothing(runs: Path, wanted: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ids(Ledger(runs), **wanted)


def test_no_folder_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="niblick train"):
        Ledger(tmp_path / "nowhere")


def test_unchanged_runs_are_not_read_again(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Ledger(runs).rows()
    monkeypatch.setattr(module, "read_run", lambda *_: pytest.fail("read although nothing has changed"))
    assert Ledger(runs).rows() == before


def test_what_changes_is_seen(runs: Path) -> None:
    ledger = Ledger(runs)
    ledger.rows()
    finish(runs / "width/bad-s1", 1.5)
    write_audit(runs / "hnet-small-1", "fail")
    (runs / "hnet-small-2" / "notes.json").write_text('{"tags": ["keep"]}')
    make_run(runs, "hnet-small-3")
    rows = {row.id: row for row in ledger.rows()}
    assert rows["width/bad-s1"].status == "done"
    audited = rows["hnet-small-1"].score
    assert audited is not None
    assert (audited.audit, audited.faults) == ("failed", ("causality",))
    assert rows["hnet-small-2"].tags == ("keep",)
    assert "hnet-small-3" in rows
    (runs / "hnet-small-3" / "config.json").unlink()
    assert "hnet-small-3" not in {row.id for row in ledger.rows()}


def test_another_artifact_of_a_run_is_seen(runs: Path) -> None:
    ledger = Ledger(runs)
    ledger.rows()
    folder = runs / "hnet-small-1" / "artifacts"
    (folder / "small").mkdir()
    (folder / "small" / "artifact.nib").write_bytes(b"weights")
    ledger.rows()
    record = json.loads((folder / ARTIFACT / "scores.jsonl").read_text()) | {"bpb": 2.5}
    (folder / "small" / "scores.jsonl").write_text(json.dumps(record) + "\n")
    row = ledger.row("hnet-small-1")
    assert row is not None
    assert [(score.artifact, score.bpb) for score in row.scores] == [(ARTIFACT, 2.0), ("small", 2.5)]


@pytest.mark.parametrize("damage", ["bytes", "version", "folder"])
def test_a_cache_of_no_use_is_made_anew_or_left_away(runs: Path, damage: str) -> None:
    before = Ledger(runs).rows()
    cache = runs / CACHE
    if damage == "bytes":
        cache.write_bytes(b"no database at all" * 100)
    elif damage == "version":
        with sqlite3.connect(cache) as connection:
            connection.execute("PRAGMA user_version = 99")
    else:
        cache.unlink()
        cache.mkdir()
    assert Ledger(runs).rows() == before


def test_a_moved_folder_keeps_its_ledger(runs: Path) -> None:
    Ledger(runs).rows()
    moved = runs.rename(runs.with_name("elsewhere"))
    assert all(Path(row.path).is_dir() for row in Ledger(moved).rows())


def test_a_silent_run_is_no_longer_called_running(tmp_path: Path) -> None:
    path = make_run(tmp_path, "hnet-small-1", None)
    ledger = Ledger(tmp_path)
    assert ledger.rows()[0].status == "running"
    long_ago = time.time() - LIVE_SECONDS - 60
    for file in path.iterdir():
        os.utime(file, (long_ago, long_ago))
    assert ledger.rows()[0].status == "unfinished"


def test_a_run_stopped_by_a_signal(tmp_path: Path) -> None:
    make_run(tmp_path, "a-1", None, events=[*training(3), {"event": "stop", "reason": "SIGTERM", "step": 3}])
    row = Ledger(tmp_path).rows()[0]
    assert (row.status, row.message, row.step) == ("stopped", "by SIGTERM", 3)


def test_files_changed_by_hand_are_told(runs: Path) -> None:
    ledger = Ledger(runs)
    row = ledger.row("hnet-small-1")
    assert row is not None
    assert ledger.altered(row) == []
    artifact = runs / "hnet-small-1" / "artifacts" / ARTIFACT / "artifact.nib"
    artifact.write_bytes(artifact.read_bytes().upper())
    (runs / "hnet-small-1" / "config.json").unlink()
    assert sorted(ledger.altered(row)) == [f"artifacts/{ARTIFACT}/artifact.nib", "config.json"]


def test_names_of_runs_and_sweeps(runs: Path) -> None:
    ledger = Ledger(runs)
    assert len(find_rows(ledger, ["width"])) == 4
    assert [row.id for row in find_rows(ledger, [str(runs / "hnet-small-1"), "hnet-small-1"])] == ["hnet-small-1"]
    newest = max(runs.rglob("config.json"), key=lambda p: p.stat().st_mtime_ns).parent
    assert [row.path for row in find_rows(ledger, ["latest"])] == [str(newest)]
    with pytest.raises(ConfigError, match="hnet-small-1"):
        find_rows(ledger, ["quickstrat-1"])


def test_latest_is_the_newest_run_that_has_something_to_show(tmp_path: Path, niblick: Niblick) -> None:
    make_run(tmp_path, "good", 2.0)
    for i, (name, last) in enumerate({"dead": {"event": "failure", "message": "no"}, "young": training()[0]}.items()):
        made = make_run(tmp_path, name, None, events=[training()[0], last])
        os.utime(made / "config.json", (time.time() + 10 * (i + 1),) * 2)

    def latest() -> list[str]:
        [row] = find_rows(Ledger(tmp_path), ["latest"])
        once = niblick.json("watch", "latest", "--once", "--runs", tmp_path)["name"]
        return [row.id, open_run("latest", tmp_path).name, once]

    assert latest() == ["young"] * 3, "it may still come to its first step"
    (tmp_path / "young" / "events.jsonl").write_text(
        json.dumps({"event": "stop", "reason": "SIGINT", "step": 0}) + "\n"
    )
    assert latest() == ["good"] * 3
    shutil.rmtree(tmp_path / "good")
    assert latest()[1] == "young", "there is nothing better"


def test_csv_has_the_keys_that_differ(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run_cli(capsys, "runs", "--status", "done", "--csv", "--runs", runs, "--sort", "bpb")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["id"] for row in rows] == ["width/wide-s1", "width/wide-s2", "hnet-small-1", "hnet-small-2"]
    assert [row["config.model.width"] for row in rows] == ["192", "192", "128", "160"]
    assert "config.tokenizer" not in rows[0], "all are the same"
    assert rows[0]["bpb"] == "1.91"


def test_json_and_table(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(run_cli(capsys, "runs", "--json", "--runs", runs, "model.width=192"))
    assert {row["id"] for row in facts["runs"]} == {"width/wide-s1", "width/wide-s2"}
    table = run_cli(capsys, "runs", "--runs", runs, "--limit", 2)
    assert "2 of 7 runs" in table


@pytest.mark.parametrize("arguments", [["--sort", "bpp"], ["--csv", "--json"], ["--status", "dne"]])
def test_bad_options_are_refused(runs: Path, arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        cli.app(["runs", "--runs", str(runs), *arguments], standalone_mode=False)


def test_listing_runs_needs_no_torch(runs: Path) -> None:
    code = (
        "import sys\nfrom niblick import cli\n"
        f"cli.app(['runs', 'model.width=192', '--runs', {str(runs)!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_tags(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_cli(capsys, "tag", "keep", "width", "hnet-small-1", "--runs", runs)
    assert ids(Ledger(runs), tag="keep", status="done") == {"width/wide-s1", "width/wide-s2", "hnet-small-1"}
    run_cli(capsys, "tag", "keep", "hnet-small-1", "--remove", "--runs", runs)
    assert "hnet-small-1" not in ids(Ledger(runs), tag="keep")
    assert json.loads((runs / "hnet-small-1" / "notes.json").read_text())["tags"] == []


@pytest.mark.parametrize("name", ["", "two words", "a,b", "-x", "é" * 100, "a\nb"])
def test_words_that_are_no_tags(runs: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="is no tag"):
        tag(find_rows(Ledger(runs), ["hnet-small-1"]), name)


def test_a_tag_that_is_not_there_cannot_go(runs: Path) -> None:
    rows = find_rows(Ledger(runs), ["hnet-small-1", "hnet-small-2"])
    tag(rows[:1], "keep")
    with pytest.raises(ConfigError, match="hnet-small-2 is not tagged 'keep': it has no tags"):
        tag(find_rows(Ledger(runs), ["hnet-small-1", "hnet-small-2"]), "keep", remove=True)
    row = Ledger(runs).row("hnet-small-1")
    assert row is not None
    assert row.tags == ("keep",), "nothing was written"


def test_notes_grow_at_the_end_of_plain_markdown(runs: Path) -> None:
    row = Ledger(runs).row("width/wide-s1")
    note(runs, "first", now=datetime(2026, 4, 1, 9, 5))
    log = runs / LOG
    log.write_text(log.read_text() + "\nWritten by hand.\n")
    note(runs, "wider helps\nbut not much", row, now=datetime(2026, 4, 1, 9, 30))
    note(runs, "next day", now=datetime(2026, 4, 2, 8, 0))
    assert log.read_text() == (
        "# Research log\n\n## 2026-04-01\n\n- 09:05 first\n\nWritten by hand.\n"
        "- 09:30 [width/wide-s1](width/wide-s1/) wider helps\n  but not much\n\n## 2026-04-02\n\n- 08:00 next day\n"
    )
    kept = Ledger(runs).row("width/wide-s1")
    assert kept is not None
    assert [entry["text"] for entry in kept.notes] == ["wider helps\nbut not much"]


def test_notes_keep_what_people_added_to_the_file(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = runs / "hnet-small-1" / "notes.json"
    path.write_text('{"tags": ["a"], "mine": 1}')
    run_cli(capsys, "note", "hello", "--run", "hnet-small-1", "--runs", runs)
    found = json.loads(path.read_text())
    assert (found["tags"], found["mine"], found["notes"][0]["text"]) == (["a"], 1, "hello")
    assert "hello" in run_cli(capsys, "note", "--runs", runs)


def test_bad_notes(runs: Path) -> None:
    with pytest.raises(ConfigError, match="empty"):
        note(runs, "  \n")
    (runs / "hnet-small-1" / "notes.json").write_text('{"tags": "keep"}')
    row = Ledger(runs).row("hnet-small-1")
    assert row is not None
    assert "cannot be read" in row.notes[0]["text"], "listed all the same"
    with pytest.raises(DataError, match="list of words"):
        note(runs, "text", row)
    assert not (runs / LOG).exists(), "nothing half-written"
