"""The packing benchmark runs, and both sides make the same codes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from niblick.pack.quantize import pack

_spec = importlib.util.spec_from_file_location("bench_pack", Path(__file__).parents[2] / "benchmarks" / "pack.py")
bench = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(bench)


def test_rows() -> None:
    rows = bench.bench_pack(quick=True)
    assert all(set(row) == {"name", "ours", "peer", "unit", "ratio", "note"} for row in rows)
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in rows)


def test_both_ways_make_the_same_codes() -> None:
    state = bench.model_weights(blocks=1)
    ours, plain = pack(state), bench.plain_codes(state)
    assert list(ours) == list(plain)
    for name, parts in plain.items():
        for mine, theirs in zip(ours[name].parts.values(), parts, strict=True):
            assert np.array_equal(mine, theirs.numpy()), name
