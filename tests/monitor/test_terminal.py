"""`niblick watch`, and what it reads of run directories."""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from command import Niblick
from figures import LOGS
from rich.console import Console

from niblick.monitor import terminal
from niblick.monitor.event_reader import EventReader
from niblick.monitor.finding import RunSource, links_out
from niblick.monitor.watcher import Watcher

STEP = {"event": "step", "step": 1, "steps": 10, "train_seconds": 1.0, "loss": 2.0, "tokens_per_second": 50.0}
START = {"event": "start", "parameters": 9, "seed": 7, "steps": 10, "max_seconds": None, "warmup_steps": 2}
START |= {"batch_tokens": 100, "bytes_per_token": 2.0}
STORY: list[dict[str, Any]] = [
    START | {"time": 100.0},
    {"event": "warmup", "step": 1, "steps": 2, "time": 101.0},
    {"event": "warmup", "step": 2, "steps": 2, "time": 102.0},
    {"event": "validation", "step": 0, "steps": 10, "train_seconds": 0.0, "loss": 5.0, "bpb": 3.6, "time": 107.0},
    STEP | {"time": 108.0, "levels": [{"boundary_rate": 0.25}, {"boundary_rate": 0.5}], "lr_scale": 1.0},
    STEP | {"time": 116.0, "step": 9, "train_seconds": 9.0, "loss": 1.5},
    {"event": "warning", "kind": "throughput", "message": "throughput fell", "step": 9, "time": 116.5},
    STEP | {"time": 117.0, "step": 10, "train_seconds": 10.0},
    {
        "event": "validation",
        "step": 10,
        "steps": 10,
        "train_seconds": 10.0,
        "loss": 1.4,
        "bpb": 1.0,
        "final": True,
        "time": 123.0,
    },
    {
        "event": "export",
        "name": "int8",
        "artifact_bytes": 50,
        "code_bytes": 5,
        "total_bytes": 55,
        "export_seconds": 2.0,
        "time": 125.0,
    },
    {"event": "score", "name": "int8", "bpb": 1.01, "loss": 1.4, "seconds": 6.0, "time": 131.0},
]


def write(folder: Path, events: list[dict[str, Any]], **files: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"preset": "net", "model": {"levels": [{"target_length": 6.0}]}}))
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def seen(folder: Path, now: float = 0.0) -> dict[str, Any]:
    watcher = Watcher([folder.parent], clock=lambda: now)
    watcher.poll()
    return watcher.views[folder.name].snapshot()


def test_phases_of_a_run(tmp_path: Path) -> None:
    phases = []
    for i in range(len(STORY) + 1):
        found = seen(write(tmp_path / "a", STORY[:i]), STORY[max(i, 1) - 1]["time"])
        if not phases or phases[-1] != found["phase"]:
            phases.append(found["phase"])
    expected = ["starting", "warmup", "initial_validation", "training", "final_validation", "packaging"]
    assert phases == [*expected, "quantized_validation", "done"]
    lengths = {
        "warmup": 2.0,
        "initial_validation": 5.0,
        "training": 10.0,
        "packaging": 2.0,
        "quantized_validation": 6.0,
    }
    assert found["phase_seconds"] == lengths
    facts = {
        k: found[k] for k in ("final_bpb", "final_metric", "artifact_bytes", "total_bytes", "model_params", "seed")
    }
    assert facts == {"final_bpb": 1.01, "final_metric": "int8"} | {
        "artifact_bytes": 50,
        "total_bytes": 55,
        "model_params": 9,
        "seed": 7,
    }


def test_code_that_was_not_weighed_is_said_where_bytes_would_stand(tmp_path: Path) -> None:
    unweighed = {"code_bytes": None, "total_bytes": None}
    story = [event | unweighed if event["event"] in ("export", "score") else event for event in STORY]
    result = {"bpb": 1.01, "artifact": "int8", "artifact_bytes": 50, **unweighed}
    write(tmp_path / "a", story, result=result)
    write(tmp_path / "b", story[:-2])
    watcher = Watcher([tmp_path], clock=lambda: 131.0)
    watcher.poll()
    assert {name: view.size for name, view in watcher.views.items()} == {"a": "code not weighed", "b": ""}
    assert watcher.views["a"].snapshot()["total_bytes"] is None
    for shown in (terminal.overview(list(watcher.views.values())), terminal.detail(watcher.views["a"])):
        console = Console(width=200, record=True, file=io.StringIO())
        console.print(shown)
        assert "code not weighed" in console.export_text()


def test_the_last_validation_begins_with_the_weights(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", [e for e in STORY[:8] if e["event"] != "score"])
    (folder / "model.safetensors").write_bytes(b"")
    os.utime(folder / "model.safetensors", (117.5, 117.5))
    found = seen(folder, 120.0)
    assert (found["phase"], found["phase_seconds"]["final_validation"]) == ("final_validation", 2.5)
    assert found["phase_eta_seconds"] == pytest.approx(2.5)  # the first validation took five seconds


def test_curves_of_a_run() -> None:
    reader = EventReader({"model": {"levels": [{"target_length": 6.0}, {"target_length": 3.0}]}})
    for event in STORY:
        reader.feed(json.dumps(event))
    history = reader.facts.history("a")
    assert (history.step, history.bytes) == ([1, 9, 10], [200.0, 1800.0, 2000.0])
    assert [level.rate for level in history.levels] == [[0.25], [0.5]]
    assert [level.target_length for level in history.levels] == [6.0, 3.0]
    assert (history.final, [v.bpb for v in history.validations]) == (1.01, [3.6, 1.0])
    assert history.bytes_per_second == [100.0, 100.0, 100.0]


@pytest.mark.parametrize(
    ("last", "files", "phase", "message"),
    [
        ({"event": "failure", "message": "the loss is nan"}, {}, "failed", "the loss is nan"),
        ({"event": "stop", "reason": "SIGINT", "step": 3, "train_seconds": 3.0}, {}, "stopped", "stopped by SIGINT"),
        (
            {"event": "stop", "reason": "SIGINT", "step": 3},
            {"stopped": {"reason": "a loser"}},
            "stopped",
            "stopped by SIGINT",
        ),
        (STEP, {"stopped": {"reason": "a loser"}}, "stopped", "a loser"),
    ],
)
def test_how_runs_end(tmp_path: Path, last: dict[str, Any], files: dict[str, Any], phase: str, message: str) -> None:
    found = seen(write(tmp_path / "a", [*STORY[:6], last | {"time": 118.0}], **files), 119.0)
    assert (found["phase"], found["message"]) == (phase, message)
    assert found["eta_seconds"] == (0.0 if phase == "done" else None)


def test_a_run_that_goes_on_is_read_anew(tmp_path: Path) -> None:
    """`resume` rewrites the events up to the checkpoint."""
    folder = write(tmp_path / "a", [*STORY[:8], {"event": "failure", "message": "no"}])
    watcher = Watcher([tmp_path], clock=lambda: 119.0)
    watcher.poll()
    assert watcher.views["a"].phase == "failed"
    new = "".join(json.dumps(e) + "\n" for e in [*STORY[:5], {"event": "resume", "step": 1, "time": 118.0}])
    (folder / "new").write_text(new)
    os.replace(folder / "new", folder / "events.jsonl")
    for _ in range(20):
        watcher.poll()
    assert (watcher.views["a"].phase, watcher.views["a"].step) == ("training", 1)


def test_events_of_no_known_form_are_left_out() -> None:
    reader = EventReader()
    lines = [
        "",
        "{",
        "[]",
        '{"event": 3}',
        '{"event": "step"}',
        '{"event": "score", "bpb": "x"}',
        '{"event": "new", "a": [1]}',
    ]
    for line in [
        *lines,
        '{"event": "step", "step": 1, "loss": NaN}',
        "null",
        '{"event": "warmup", "step": "x", "steps": 3}',
    ]:
        reader.feed(line, 1.0)
    assert reader.facts.scores == []


def test_numbers_of_thousands_of_digits() -> None:
    """Beside what is read they do not matter, in its place the event is unknown."""
    reader, endless = EventReader(), "7" * 5000
    reader.feed(f'{{"event": "step", "step": 4, "loss": 2.5, "foreign": {endless}}}', 1.0)
    assert (reader.facts.step, reader.facts.train_loss) == (4, 2.5)
    reader.feed(f'{{"event": "step", "step": {endless}, "loss": 2.0}}', 2.0)
    reader.feed(f'{{"event": "step", "step": 5, "loss": 2.0, "train_seconds": {endless[:400]}}}', 3.0)
    assert reader.facts.step == 5


def test_runs_in_sweeps_and_behind_links(tmp_path: Path) -> None:
    write(tmp_path / "runs" / "one", STORY)
    write(tmp_path / "runs" / "sweep" / "net-s1", STORY)
    outside = write(tmp_path / "outside", STORY)
    (tmp_path / "runs" / "link").symlink_to(outside)
    watcher = Watcher([tmp_path / "runs"])
    watcher.poll()
    assert sorted(watcher.views) == ["one", "sweep/net-s1"]


@pytest.mark.parametrize("name", ["config.json", "events.jsonl", "result.json", "stopped.json"])
def test_a_file_behind_a_link_that_leads_out_is_not_shown(tmp_path: Path, name: str) -> None:
    write(tmp_path / "runs" / "good", STORY)
    run = write(tmp_path / "runs" / "one", STORY if name != "stopped.json" else STORY[:2])
    (tmp_path / "secret").write_text('{"event": "failure", "message": "secret", "preset": "secret"}')
    watcher = Watcher([tmp_path / "runs"])
    watcher.poll()
    for linked in (name, "train.log", "notes.json"):
        (run / linked).unlink(missing_ok=True)
        (run / linked).symlink_to(tmp_path / "secret")
    for looking in (watcher, Watcher([tmp_path / "runs"])):
        for _ in range(11):
            looking.poll()
        view, source = looking.views["one"], looking.source("one")
        assert isinstance(source, RunSource)
        assert view.message == "" or f"{name} is a link that leads out of " in view.message
        assert "secret" not in repr((view.notes, source.settings(), source.log_tail(), source.notes()))
        assert looking.views["good"].message == ""
        if looking is not watcher:
            assert view.message
    assert links_out(run, tmp_path / "runs") and not links_out(tmp_path / "runs" / "good", tmp_path / "runs")


def test_a_deleted_run_stays_known_and_can_come_back(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", STORY)
    watcher = Watcher([tmp_path])
    watcher.poll()
    shutil.rmtree(folder)
    for _ in range(11):
        watcher.poll()
    view = watcher.views["a"]
    assert view.gone and view.final and not view.active
    assert watcher.history("a") is not None
    write(folder, STORY)
    watcher.poll()
    assert not watcher.views["a"].gone


def test_once_in_json(shared: Path, tmp_path: Path, niblick: Niblick) -> None:
    name = "NaiveBaseline__train.txt"
    code, out, _ = niblick("watch", shared / "data" / "logs" / name, "--once", "--json")
    found = json.loads(out)
    assert code == 0 and {key: found[key] for key in LOGS[name]} == LOGS[name]
    write(tmp_path / "runs" / "a", STORY)
    for target in ("a", "latest", tmp_path / "runs" / "a"):
        code, out, _ = niblick("watch", target, "--once", "--json", "--runs", tmp_path / "runs")
        assert (code, json.loads(out)["final_bpb"]) == (0, 1.01)
    code, out, _ = niblick("watch", "--json", "--runs", tmp_path / "runs")
    assert [run["name"] for run in json.loads(out)["runs"]] == ["a"]
    code, out, _ = niblick("watch", "--once", "--runs", tmp_path / "runs")
    assert code == 0 and "✓ done" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["watch", "--runs", "{0}"], "there is no run in"),
        (["watch", "nothing", "--runs", "{0}"], "there is no run in"),
        (["watch", "binary"], "is a binary file, not a log"),
        (["monitor", "--runs", "nowhere"], "there is no run in nowhere"),
        (["monitor", "--logs", "binary", "--runs", "{0}"], "is a binary file, not a log"),
        (["monitor", "--logs", "missing", "--runs", "{0}"], "cannot be read"),
        (["monitor", "--logs", "empty", "--runs", "{0}"], "holds no .txt or .log file"),
        (["monitor", "--runs", "{0}", "--host", "203.0.113.1"], "cannot be served on"),
    ],
)
def test_what_cannot_be_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, niblick: Niblick, arguments: list[str], says: str
) -> None:
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\0\0")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert says in niblick.refused(*(a.format(tmp_path) for a in arguments))


def test_the_terminal_shows_all_that_matters(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", STORY[:6])
    watcher = Watcher([tmp_path], clock=lambda: 116.5)
    watcher.poll()
    out = Console(file=io.StringIO(), width=100, force_terminal=False)
    out.print(terminal.detail(watcher.views["a"]))
    text = out.file.getvalue()  # type: ignore[attr-defined]
    for piece in ("● training", "9 of 10", "ETA phase 0s", "100 B/s", "validation", "○ packaging"):
        assert piece in text
    shutil.rmtree(folder)
    watcher.poll()
    out.print(terminal.overview(list(watcher.views.values())))
    assert "deleted" in out.file.getvalue()  # type: ignore[attr-defined]


def test_eighty_columns_cut_no_score(tmp_path: Path) -> None:
    long = "a-sweep-of-widths/target_length=4+matrix_lr=0.02+width=192-s1337"
    write(tmp_path / long, STORY[:6])
    write(tmp_path / "b", STORY)
    watcher = Watcher([tmp_path], clock=lambda: 116.5)
    watcher.poll()
    out = Console(file=io.StringIO(), width=80, force_terminal=False)
    out.print(terminal.overview(list(watcher.views.values())))
    out.print(terminal.detail(watcher.views["b"]))
    text = out.file.getvalue()  # type: ignore[attr-defined]
    table = text.splitlines()[:3]
    assert "BPB" in table[0] and "bytes" in table[0]
    assert "a-sweep-of" in table[1] and "…" in table[1] and "3.6000 float" in table[1]
    assert "1.0100" in table[2] and table[2].rstrip().endswith("55")
    assert not any(line.rstrip().endswith(("✓", "●", "○")) for line in text.splitlines()), "a sign apart from its word"
    assert "1.0100 BPB" in text


def test_live_until_it_ends(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", STORY)
    watcher = Watcher([folder.parent])
    watcher.poll()
    out = Console(file=io.StringIO(), width=100, force_terminal=False)
    started = time.monotonic()
    terminal.watch(watcher, "a", out)
    assert time.monotonic() - started < 30
    assert "1.0100 BPB" in out.file.getvalue()  # type: ignore[attr-defined]


def test_data_of_a_run_only_where_it_was_given(tmp_path: Path) -> None:
    from niblick.monitor.web.chunks import data_of

    for name in ("data/words", "elsewhere/words"):
        (tmp_path / name).mkdir(parents=True)
    folder = write(tmp_path / "runs" / "a", STORY)
    for named, given, found in (
        (tmp_path / "data" / "words", [tmp_path / "data"], tmp_path / "data" / "words"),
        ("gone/words", [tmp_path / "data"], tmp_path / "data" / "words"),
        (tmp_path / "elsewhere" / "words", [], None),
        ("../elsewhere", [tmp_path / "data"], None),
        ("", [tmp_path / "data"], None),
    ):
        (folder / "config.json").write_text(json.dumps({"data": {"path": str(named)}}))
        watcher = Watcher([tmp_path / "runs"], data=given)
        watcher.poll()
        assert data_of(watcher, "a") == found


def test_the_first_page_is_put_together_once_for_all_who_look(tmp_path: Path) -> None:
    """Rows share elements, and clients share rows: what each of 30 clients costs does not grow with 300 runs."""
    live = pytest.importorskip("niblick.monitor.web.live")
    for number in range(60):
        write(tmp_path / f"run-{number:02}", [*STORY, {"event": "failure", "message": "x", "time": 120.0}])
    watcher = Watcher([tmp_path])
    watcher.poll()
    look = live.Look(watcher)
    found = look.shown("")
    assert found is look.shown("") and len(found.rows) == 3 and found.cards == []
    assert all(f'href="/run?id=run-{number:02}"' in "".join(found.rows) for number in range(60))
    assert look.shown("run-07").rows[0].count("<a ") == 1
    watcher.poll()
    assert look.shown("") is not found and look.shown("").rows[0] is not found.rows[0]
