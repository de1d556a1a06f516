"""Sweeps from start to end: skipping, failing, stopping, killing, resuming; both executors give the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY, Here, tiny_sweep
from told import told

from niblick.errors import ConfigError
from niblick.run.directory import Run, is_run, open_run, read_json, run_folders, write_json
from niblick.sweeps.executors import LocalPool
from niblick.sweeps.results import by_point, finished_runs, sweep_directory
from niblick.sweeps.running import State, SweepFolder, SweepStopped, run_sweep, tally
from niblick.sweeps.stopping import Halving, KeepUp
from niblick.sweeps.sweep import listed


def quiet(line: str) -> None:
    pass


def run(sweep: Any, runs: Path, executor: Any, **more: Any) -> list[State]:
    return run_sweep(sweep, runs, executor, source="tiny.py", say=quiet, **more)


def table(states: list[State]) -> dict[str, Any]:
    """What must come out the same however a sweep was run: kinds, scores, bytes."""
    return {s.member.id: (s.kind, s.result and (s.result.bpb, s.result.artifact_bytes)) for s in states}


@pytest.mark.slow
def test_a_sweep_is_run_once_and_found_by_its_ids(toy_data: Path, tmp_path: Path, score_here: None) -> None:
    sweep, first, again = tiny_sweep(toy_data), Here(), Here()
    states = run(sweep, tmp_path, first)
    assert tally(states) == "4 done" and len(first.jobs) == 4
    assert table(run(sweep, tmp_path, again)) == table(states) and again.jobs == []
    name = "target_length=4+matrix_lr=0.02-s1337"
    found = open_run(f"tiny/{name}", tmp_path)
    assert found.id == f"tiny/{name}" and is_run(f"tiny/{name}", tmp_path)
    assert open_run("latest", tmp_path).path == tmp_path / "tiny" / states[-1].member.id
    assert len(run_folders(tmp_path)) == 4
    with pytest.raises(ConfigError, match="nearest: tiny/target_length=4"):
        open_run(f"tiny/{name}x", tmp_path)
    member = read_json(found.path / "member.json")
    assert (member["sweep"], member["name"], member["seed"], member["track"]) == (
        "tiny",
        "target_length=4+matrix_lr=0.02",
        1337,
        "fixed-step",
    )
    rows = by_point(states)
    assert [row.done for row in rows] == [1] * 4 and all(row.bpb > 0 for row in rows)
    # A sweep may grow: more seeds, and only they are run.
    grown = Here()
    assert tally(run(tiny_sweep(toy_data, seeds=[1337, 7]), tmp_path, grown)) == "8 done"
    assert {job.run[-3:] for job in grown.jobs} == {"-s7"}
    # But it may not change, and nobody else may have its directory.
    with pytest.raises(ConfigError, match=r"holds another sweep, from tiny\.py: .* with other settings"):
        run(
            tiny_sweep(toy_data, seeds=[1337, 7], sets=[*TINY, "schedule.steps=9", f"data.path={toy_data}"]),
            tmp_path,
            Here(),
        )
    with pytest.raises(ConfigError, match=r"holds another sweep, .* has no run"):
        run(tiny_sweep(toy_data, axes=[listed({"else": []})]), tmp_path, Here())
    (tmp_path / "hnet-small-1").mkdir()
    (tmp_path / "hnet-small-1" / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="in use and holds no sweep"):
        run(tiny_sweep(toy_data, name="hnet-small-1"), tmp_path, Here())
    # A finished file that was changed by hand: the digest tells.
    config = found.path / "config.json"
    config.write_text(config.read_text().replace('"seed": 1337', '"seed": 1338', 1))
    changed = {s.member.id: s for s in run(sweep_again(toy_data), tmp_path, Here())}
    assert changed[name].kind == "changed" and changed[name].lines == ("config.json",)
    with pytest.raises(ConfigError, match=r"does not count: config\.json changed"):
        finished_runs(sweep_directory("tiny", tmp_path))


def sweep_again(data: Path) -> Any:
    return tiny_sweep(data, seeds=[1337, 7])


@pytest.mark.slow
def test_failed_runs_are_shown_and_retried_on_demand(toy_data: Path, tmp_path: Path, score_here: None) -> None:
    sweep = tiny_sweep(toy_data, axes=[listed({"fine": [], "broken": ["optim.matrix_lr=1e30"]})])
    states = run(sweep, tmp_path, Here())
    assert [s.kind for s in states] == ["done", "failed"]
    assert "the last good state is" in states[1].lines[-1]
    assert by_point(states)[1].note == "1 failed"
    again = Here()
    run(sweep, tmp_path, again)
    assert again.jobs == []
    run(sweep, tmp_path, again, retry=True)
    assert [job.run for job in again.jobs] == ["broken-s1337"]


@pytest.mark.slow
def test_halving_stops_the_same_losers_however_often_it_is_interrupted(
    toy_data: Path, tmp_path: Path, score_here: None
) -> None:
    sweep = tiny_sweep(toy_data, early_stop=Halving(first=2))
    whole = run(sweep, tmp_path / "a", Here())
    assert sorted(s.kind for s in whole) == ["done", "stopped", "stopped", "stopped"]
    assert {
        read_json(tmp_path / "a" / "tiny" / s.member.id / "stopped.json")["step"] for s in whole if s.kind == "stopped"
    } == {
        2,
        4,
    }
    for count in (1, 5):
        with pytest.raises(SweepStopped, match="niblick sweep resume"):
            run(sweep, tmp_path / "b", Here(kill_after=count))
    pieces = run(sweep, tmp_path / "b", Here())
    assert table(pieces) == table(whole)
    assert by_point(whole) == by_point(pieces)
    assert "stopped" in {row.note.partition(":")[0] for row in by_point(whole)}
    winner = next(s for s in whole if s.kind == "done")
    straight = run(tiny_sweep(toy_data, name="straight"), tmp_path, Here())
    assert table(straight)[winner.member.id] == table(whole)[winner.member.id]  # pauses change nothing


@pytest.mark.slow
def test_keeping_up_with_a_reference(toy_data: Path, tmp_path: Path, score_here: None) -> None:
    plain = run(tiny_sweep(toy_data, sets=[*TINY, f"data.path={toy_data}", "train.val_every=4"]), tmp_path, Here())
    curves = {s.member.id: s for s in plain}
    at_4 = {
        name: next(
            e["bpb"] for e in told(Run(tmp_path / "tiny" / name)) if e["event"] == "validation" and e["step"] == 4
        )
        for name in curves
    }
    middle = sorted(at_4.values())[1]
    text = plain[0].result.text_hash  # type: ignore[union-attr]
    reference = {"every": 4, "text_hash": text, "batch_tokens": 128, "points": [[4, middle, 0.0]]}
    write_json(tmp_path / "reference.json", reference)
    sweep = tiny_sweep(toy_data, name="kept", early_stop=KeepUp(str(tmp_path / "reference.json")))
    kept = {s.member.id: s for s in run(sweep, tmp_path, Here())}
    assert {name for name, s in kept.items() if s.kind == "done"} == {n for n, bpb in at_4.items() if bpb <= middle}
    stopped = next(s for s in kept.values() if s.kind == "stopped")
    assert "after step 4, and the reference allows" in stopped.lines[0]
    assert read_json(tmp_path / "kept" / stopped.member.id / "stopped.json")["rule"] == "reference"
    assert not (tmp_path / "kept" / stopped.member.id / "result.json").exists()
    wrong = reference | {"batch_tokens": 256}
    write_json(tmp_path / "reference.json", wrong)
    with pytest.raises(ConfigError, match="batch_tokens=256, and the sweep 128"):
        run(tiny_sweep(toy_data, name="kept2", early_stop=KeepUp(str(tmp_path / "reference.json"))), tmp_path, Here())


def test_two_processes_do_not_run_one_sweep(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("niblick.sweeps.running.SILENCE", 1.5)
    sweep = tiny_sweep(toy_data)
    folder = SweepFolder(sweep, tmp_path)
    assert not folder.stop()
    folder.path.mkdir()
    with folder.held():
        with pytest.raises(ConfigError, match=r"is running already .*niblick sweep stop"), folder.held():
            pass
        asked = threading.Thread(target=folder.stop)
        asked.start()
        deadline = time.monotonic() + 30
        while not folder.stop_wish.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert folder.stop_wish.exists()
    asked.join()
    write_json(folder.lock, {"pid": 1, "host": "gone"})  # left by a kill
    with folder.held():
        pass


@pytest.mark.slow
def test_a_sweep_killed_at_random_gives_the_same_table(toy_data: Path, tmp_path: Path) -> None:
    """The real thing: processes, the command line, SIGKILL and SIGTERM at random moments, the local pool."""
    text = f"""from niblick.sweeps.sweep import Sweep, grid
sweep = Sweep("hnet-small", [grid({{"optim.matrix_lr": [0.02, 0.04]}})], name="tiny", track="fixed-step",
              sets={[*TINY, "train.checkpoint_every=2", f"data.path={json.dumps(str(toy_data))}"]!r})
"""
    (tmp_path / "tiny.py").write_text(text)
    start = [sys.executable, "-m", "niblick", "sweep"]
    draw = random.Random(os.getpid())
    for number in (signal.SIGKILL, signal.SIGTERM):
        process = subprocess.Popen([*start, "run", "tiny.py"], cwd=tmp_path, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (tmp_path / "runs" / "tiny" / "sweep.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(draw.uniform(0, 20))
        process.send_signal(number)
        assert process.wait(120) in (-number, 130, 0)
    done = subprocess.run(
        [*start, "resume", "tiny.py", "--json"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True
    )
    points = {point["name"]: point["bpb"] for point in json.loads(done.stdout)["points"]}
    from niblick.sweeps.sweep import load_sweep

    sweep = load_sweep(tmp_path / "tiny.py")
    pool = LocalPool(workers=2)
    straight = run(sweep, tmp_path / "straight", pool)
    assert points == {s.member.point.name: s.result.bpb for s in straight if s.result}
    assert tally(straight) == "2 done"
