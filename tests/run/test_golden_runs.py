"""Runs of an earlier version are read: looked at, scored, gone on with. Their files lie in golden_runs.zip.

They were made by revision 3213ba5, of made-up documents: one run is finished, one was stopped after step 4 of 8.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
import torch
from command import Niblick

from niblick.run import pipeline, scoring
from niblick.run.directory import Run
from niblick.train.checkpoint import read_tensors


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of old runs, with their data beside it, as the place where one stands."""
    with zipfile.ZipFile(Path(__file__).with_name("golden_runs.zip")) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def test_an_old_run_is_looked_at(old: Path, niblick: Niblick) -> None:
    shown = niblick.json("show", old / "finished")
    assert shown["result"]["bpb"] == pytest.approx(4.681150190512056)
    [row] = [row for row in niblick.json("runs", "--runs", old)["runs"] if row["id"] == "finished"]
    assert row["status"] == "done"
    for command in (["leaderboard"], ["report", "finished"], ["watch", "finished", "--once"]):
        code, _, err = niblick(*command, "--runs", old)
        assert code == 0, err
    assert Run(old / "finished").changed() == []


def test_an_old_artifact_is_scored(old: Path) -> None:
    run = Run(old / "finished")
    record = scoring.score_artifact(run.artifact("int8-published+zlib"), "data", run=run)
    known = json.loads((old / "finished" / "result.json").read_text())
    assert record.bits == pytest.approx(known["bits"], rel=1e-6)
    assert (record.tokens, record.text_hash, record.stream_hash) == (
        known["tokens"],
        known["text_hash"],
        known["stream_hash"],
    )


@pytest.mark.usefixtures("score_here")
def test_an_old_run_is_gone_on_with(old: Path) -> None:
    """Four steps by the old code and four by this one are eight by the old code."""
    result = pipeline.resume(Run(old / "stopped"), lambda event: None)
    assert result is not None
    assert result.step == 8
    mine, theirs = (read_tensors(Run(old / name).weights)[0] for name in ("stopped", "finished"))
    for name, tensor in theirs.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-5, atol=1e-6)
