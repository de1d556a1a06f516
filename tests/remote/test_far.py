"""The far side's own words, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from niblick.remote import far


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
