"""3,000 mutants over all kinds of file: no traceback, no hang, no silent change, little memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parent / "fuzzer.py"


@pytest.mark.slow
def test_three_thousand_mutants() -> None:
    """In a process of its own, whose memory is limited."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FUZZER), "3000"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert not found["faults"], found["faults"]
    assert (found["kinds"], found["mutants"]) == (20, found["refused"] + found["read"])
    assert found["refused"] > 1000 and found["read"] > 300
    assert found["peak_bytes"] < 600 << 20
