"""The far side's own words, without a network."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from niblick.remote import far
from niblick.train.schedule import ScheduleConfig


def start_with(watcher: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """`start`, where the watcher is a shell script."""
    python = folder / "python"
    python.write_text(f"#!/bin/sh\ncd {folder}\n{watcher}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return far.start(folder)


@pytest.mark.parametrize("left", ["", '{"phase": "stopped", "started": 1.0}'])
def test_start_waits_for_the_first_word_of_a_watcher(
    left: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock is taken before it has written anything: a slow disk makes that long."""
    if left:
        (tmp_path / "far.json").write_text(left)
    slow = """exec 9> lock; flock 9; sleep 0.5; echo '{"phase": "running", "started": 2.0}' > far.json; sleep 0.5"""
    status = start_with(slow, tmp_path, monkeypatch)
    assert (status["phase"], status["alive"]) == ("running", True)


def test_start_does_not_wait_for_a_watcher_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = start_with("echo no niblick here; exit 1", tmp_path, monkeypatch)
    assert "phase" not in status and status["alive"] is False
    assert "no niblick here" in (tmp_path / "output.log").read_text()


def test_a_run_that_is_to_end_has_no_time_left_and_no_floor_of_steps(tmp_path: Path) -> None:
    """Going on with it means to export, however few its steps were."""
    schedule = {"steps": 1000, "max_seconds": 600.0, "min_steps": 400, "reserve_seconds": None}
    (tmp_path / "config.json").write_text(json.dumps({"schedule": schedule}))
    (tmp_path / "events.jsonl").write_text(json.dumps({"event": "stop", "train_seconds": 7.5, "time": 1.0}) + "\n")
    assert not far._finish_here(tmp_path), "nothing to export"
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_00000108.safetensors").touch()
    assert far._finish_here(tmp_path)
    found = ScheduleConfig(**json.loads((tmp_path / "config.json").read_text())["schedule"])
    assert found.max_seconds == 7.5 and found.finished(108, 7.5)
