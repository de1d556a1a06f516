"""One bad run hurts only itself: whatever its files hold, the others are listed, ranked, compared and watched."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from browser import served
from command import Niblick
from rundirs import make_run
from typer.testing import CliRunner

from niblick.cli import app
from niblick.errors import DataError
from niblick.facts.event_lines import parsed
from niblick.facts.events import Step
from niblick.files import JSON_DEPTH, JSON_MOST, parse_json, read_json
from niblick.ledger.notes import note, read_log
from niblick.monitor import watcher as watching
from niblick.monitor.finding import RunSource
from niblick.monitor.terminal import overview
from niblick.monitor.watcher import Watcher
from niblick.monitor.web import board as board_page
from niblick.reports import run_report

BAD = {
    "deep": "[" * 100_000,
    "deep_inside": '{"model": ' + "[" * 500 + "]" * 500 + "}",
    "digits": '{"seed": ' + "7" * 400 + "}",
    "huge": '{"seed": 1e999}',
    "nan": '{"seed": NaN}',
    "half": '{"seed": 1, ',
    "list": "[1, 2]",
    "word": '"model"',
    "binary": "\0\1\2",
    "surrogate": '{"preset": "\\ud800"}',
    "forms": '{"model": 5, "schedule": [1], "data": "x", "train": 3}',
}

ODD = ("forms", "list", "word", "levels", "strings")
"""What is JSON, and no config or result."""
FILES = ("config.json", "result.json", "notes.json", "events.jsonl", "artifacts/int8+zlib/audit.json")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good runs, and a bad one for each file and each kind of damage."""
    tmp_path = tmp_path_factory.mktemp("bad") / "runs"
    for number in range(2):
        make_run(tmp_path, f"good-{number}", 2.0 + number, seed=number)
    for file in FILES:
        for kind, text in BAD.items():
            run = make_run(tmp_path, f"bad-{Path(file).stem}-{kind}", 1.5)
            (run / file).write_text(text + ("\n" if file == "events.jsonl" else ""))
    stepping = make_run(tmp_path, "bad-steps", None)
    (stepping / "events.jsonl").write_text('{"event": "step", "step": 1e999, "loss": 1e999, "time": -1e308}\n' * 3)
    odd = make_run(tmp_path, "bad-times", None)
    (odd / "events.jsonl").write_text('{"event": "step", "step": 3, "loss": 2.0, "time": 1e300, "run": "x"}\n')
    levels = make_run(tmp_path, "bad-levels", 1.5)
    (levels / "events.jsonl").write_text('{"event": "step", "step": 3, "loss": 2.0, "levels": [{"x": 1}]}\n')
    strings = make_run(tmp_path, "bad-strings", 1.5)
    (strings / "config.json").write_text('{"model": {"levels": [{"target_length": "six"}, 7]}, "tokenizer": []}')
    if hasattr(os, "mkfifo"):
        piped = make_run(tmp_path, "bad-pipe", 1.5)
        (piped / "result.json").unlink()
        os.mkfifo(piped / "result.json")
    return tmp_path


@pytest.mark.parametrize(
    "verb",
    [
        ["runs", "--limit", "0"],
        ["runs", "--csv"],
        ["runs", "--sort", "bpb"],
        ["runs", "model.width=192"],
        ["leaderboard"],
        ["leaderboard", "--csv"],
        ["watch", "--once"],
        ["watch", "--once", "--json"],
        ["note"],
    ],
    ids=" ".join,
)
def test_others_are_shown(runs: Path, verb: list[str]) -> None:
    done = CliRunner().invoke(app, [*verb, "--runs", str(runs)])
    assert done.exit_code == 0, done.output[-400:] + repr(done.exception)
    if verb[0] == "runs" and "model.width=192" not in verb:
        assert "good-0" in done.output and "good-1" in done.output


@pytest.mark.parametrize("file", FILES)
def test_a_comparison_with_a_bad_run_says_why_or_does_without_what_cannot_be_read(
    runs: Path, niblick: Niblick, file: str
) -> None:
    for bad in [*sorted(runs.glob(f"bad-{Path(file).stem}-*")), runs / "bad-levels", runs / "bad-strings"]:
        code, out, err = niblick("compare", "good-0", bad.name, "--runs", runs)
        if code:
            assert code == 2 and out == "" and len(err.splitlines()) == 1, bad.name
            assert re.search("cannot be read|holds no settings|does not fit", err), err
        else:
            assert file not in ("config.json", "result.json") or bad.name.rpartition("-")[2] in ODD, bad.name


@pytest.mark.parametrize("file", FILES)
def test_a_report_shows_a_bad_run_as_one_that_cannot_be_read(
    runs: Path, niblick: Niblick, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr(run_report, "draw", lambda chart: b"picture")
    monkeypatch.setattr(run_report, "plotly_script", lambda: "")
    bad = [*sorted(path.name for path in runs.glob(f"bad-{Path(file).stem}-*")), "bad-levels", "bad-strings"]
    found = niblick.json("report", "good-0", *bad, "--runs", runs, "--out", runs.parent / "report")
    page = Path(found["report"]).read_text()
    assert found["runs"] == ["good-0", *bad] and all(name in page for name in bad)
    for name in bad:
        if file in ("config.json", "result.json") and name.rpartition("-")[2] not in ODD:
            assert re.search(f"{name}.{{0,2000}}?cannot be read", page, re.DOTALL), name


@pytest.mark.slow
def test_every_page_of_the_monitor_shows_every_bad_run(runs: Path) -> None:
    """As it is sent at first, before anything is drawn in a browser."""
    pytest.importorskip("nicegui")

    def fetched(path: str, **query: str) -> str:
        with urllib.request.urlopen(f"{address.rstrip('/')}{path}?{urllib.parse.urlencode(query)}") as answer:
            return str(answer.read().decode())

    bad = sorted(path.name for path in runs.glob("bad-*"))
    with served("--runs", runs, cwd=runs) as address:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with contextlib.suppress(OSError):  # it says where it is a moment before it listens
                fetched("/")
                break
            time.sleep(0.1)
        first, board, notes = (fetched(path) for path in ("/", "/board", "/notes"))
        assert all(name in first for name in [*bad, "good-0", "good-1"]) and "Leaderboard" in board and notes
        for name in bad:
            page = fetched("/run", id=name)
            if name.startswith(("bad-config-", "bad-result-")) and name.rpartition("-")[2] not in ODD:
                assert "cannot be read: " in page, name
            assert name in fetched("/compare", run=name)
    shown = board_page._read(Watcher([runs]))
    assert {point.run for point in shown.points} >= {"good-0", "good-1"}


def test_a_bad_run_is_a_row_that_says_why(runs: Path) -> None:
    done = CliRunner().invoke(app, ["runs", "--json", "--runs", str(runs)])
    rows = {row["id"]: row for row in json.loads(done.stdout)["runs"]}
    for kind in BAD.keys() - {"forms"}:
        for file in ("config", "result"):
            if (file, kind) == ("config", "list"):
                assert rows["bad-config-list"]["message"] == "cannot be read: config.json holds no JSON object"
            row = rows[f"bad-{file}-{kind}"]
            assert row["status"] == "broken" and row["message"].startswith("cannot be read: "), row
    assert rows["good-0"]["status"] == "done"
    assert rows["bad-audit-deep"]["audit"] == "failed"


def test_the_watcher_shows_a_bad_run_as_failed_and_the_others_as_they_are(runs: Path) -> None:
    watcher = Watcher([runs])
    watcher.poll()
    views = watcher.views
    assert views["good-0"].phase == views["good-1"].phase == "done"
    for kind in BAD.keys() - {"forms", "list", "word"}:
        assert views[f"bad-config-{kind}"].message.startswith("cannot be read: config.json"), kind
        assert views[f"bad-result-{kind}"].message.startswith("cannot be read: "), kind
    overview(list(views.values()))
    assert not watcher.failures, "none of these is of a form that nobody thought of"
    assert views["bad-times"].last_at < time.time() + 60
    for id, view in views.items():
        view.snapshot()
        assert watcher.history(id) is not None


def test_a_run_that_raises_is_counted_and_read_anew(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def poll(self: RunSource, now: float) -> None:
        if self.id == "good-1":
            raise ZeroDivisionError("of some kind nobody thought of")
        real(self, now)

    real = RunSource.poll
    monkeypatch.setattr(RunSource, "poll", poll)
    watcher = Watcher([runs])
    watcher.poll()
    assert "ZeroDivisionError: of some kind nobody thought of (tried 1 times)" in watcher.views["good-1"].message
    assert watcher.views["good-0"].phase == "done" and watcher.failures == {"good-1": 1}
    monkeypatch.setattr(RunSource, "poll", real)
    for _ in range(12):
        watcher.poll()
    assert watcher.views["good-1"].phase == "done"


def test_the_thread_of_the_watcher_outlives_a_failed_look(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_SECONDS", 0.01)
    with Watcher([runs]) as watcher:
        monkeypatch.setattr(watcher, "_find", lambda: 1 / 0)
        watcher._looked = 0.0
        until = time.monotonic() + 30
        while not watcher.faults and time.monotonic() < until:
            time.sleep(0.01)
        assert watcher.faults
        assert any(thread.name == "niblick-watcher" and thread.is_alive() for thread in threading.enumerate())


@pytest.mark.parametrize("kind", sorted(BAD.keys() - {"list", "word", "forms"}))
def test_json_is_read_within_limits(kind: str) -> None:
    with pytest.raises(ValueError):
        parse_json(BAD[kind])


def test_limits_of_json(tmp_path: Path) -> None:
    assert parse_json("[" * JSON_DEPTH + "]" * JSON_DEPTH)
    with pytest.raises(ValueError, match="nested more than 64 levels deep"):
        parse_json("[" * (JSON_DEPTH + 1) + "]" * (JSON_DEPTH + 1))
    with pytest.raises(ValueError, match="at most"):
        parse_json(" " * (JSON_MOST + 1) + "1")
    assert parse_json('[1e999, NaN, -Infinity, 1, "\\ud83d\\ude00"]', lenient=True) == [None, None, None, 1, "😀"]
    assert parse_json(f"[{2**64 - 1}]") == [2**64 - 1]
    event = parsed('{"event": "step", "step": 4, "loss": 2.5, "grad_norm": NaN}')
    assert isinstance(event, Step) and event.grad_norm is None
    with pytest.raises(Exception, match="no regular file"):
        read_json(tmp_path)


def test_pipes_hold_nobody_up(runs: Path, tmp_path: Path) -> None:
    """In the place of events, and of the research log."""
    shutil.copytree(runs / "good-0", tmp_path / "runs" / "piped")
    shutil.copytree(runs / "good-1", tmp_path / "runs" / "good")
    (tmp_path / "runs" / "piped" / "events.jsonl").unlink()
    for path in (tmp_path / "runs" / "piped" / "events.jsonl", tmp_path / "runs" / "log.md"):
        os.mkfifo(path)
    watcher = Watcher([tmp_path / "runs"])
    watcher.poll()
    assert watcher.views["good"].phase == "done"
    for ask in (lambda: note(tmp_path / "runs", "a note"), lambda: read_log(tmp_path / "runs")):
        with pytest.raises(DataError, match=r"log\.md cannot be read \(it is no regular file\)"):
            ask()
