"""A run through a real server: launched, brought home, verified, scored, and only then deleted there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import SHORT, Home

from niblick.pipeline import find_artifact
from niblick.runs import Run, source_snapshot


@pytest.mark.slow
def test_a_toy_run_comes_home(home: Home, toy_data: Path) -> None:
    printed = home.launch("quickstart", *SHORT, "--data", str(toy_data), "--wait", "--every", "1", "--price", "2.5", "--json")
    facts = json.loads(printed)
    assert (facts["run"], facts["state"], facts["verified"], facts["missing"]) == ("quickstart-1", "done", True, [])
    assert facts["result"]["bpb"] > 0 and 0 < facts["cost"] < 2.5
    run = Run(home.folder / "runs" / "quickstart-1")
    assert run.changed() == [] and run.result()["bpb"] == facts["result"]["bpb"]
    assert find_artifact("quickstart-1", home.folder / "runs")[0].is_file()
