"""`niblick quickstart`, short: the whole path in one process tree, and what it leaves behind."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_quickstart(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "niblick", "quickstart", "--seconds", "12", "--folder", str(tmp_path), "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    facts = json.loads(done.stdout)
    assert facts["bpb"] == pytest.approx(facts["bpb_float"], abs=0.01)
    assert facts["bpb"] < 6  # 8.02 is what an untrained model costs; how far 12 s lead depends on the machine
    assert 1.2 < facts["baselines"]["xz_prefixed"] < facts["baselines"]["xz"] < 2.6
    assert "".join(facts["chunks_after"]) == "".join(facts["chunks_before"])
    assert facts["brackets_after"].startswith("[T")  # where "The" is cut after 12 s depends on the machine
    assert facts["total_bytes"] < facts["cap_bytes"]
    assert facts["text_hash"]
    page = Path(facts["report"]).read_text()
    assert f"{facts['bpb']:.3f}" in page
    assert "<svg" in page
    assert not re.search(r'(src|href)="http', page), "the page loads nothing from elsewhere"
    assert (Path(facts["report"]).parent / "bpb.png").read_bytes().startswith(b"\x89PNG")
    assert Path(facts["artifact"]).stat().st_size == facts["artifact_bytes"]
    assert "step" in done.stderr
    assert "BPB" in done.stderr
