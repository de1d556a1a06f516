"""Importing a checkpoint takes little more memory than the checkpoint is large. At full size: the benchmark."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="reads the peak of memory from Linux's /proc")
def test_memory_of_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = importlib.import_module("import_memory").measure(tmp_path, 40, 384, torch.float32)
    sys.modules.pop("import_memory")
    assert found["bytes"] > 290e6
    assert found["share"] < 1.2, f"{found['share']:.1%} of {found['bytes']:,} bytes"
