"""Sweep files that a command line writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Niblick
from hypothesis import given
from hypothesis import strategies as st

from niblick.sweeps.sweep import load_sweep
from niblick.sweeps.sweep_files import split


def test_a_file_is_written_that_is_a_sweep(niblick: Niblick, tmp_path: Path) -> None:
    path = tmp_path / "widths.py"
    settings = ["model.width=64,96", "schedule.max_seconds=null,30", "schedule.steps=3", "export.scheme=int6"]
    found = niblick.json("sweep", "write", path, "hnet-small", *settings, "--data", 'a "b', "--seeds", 2)
    sweep = load_sweep(path)
    assert found == {"file": str(path), "runs": 8} and len(sweep.members()) == 8 and sweep.name == "widths"
    configs = [member.config for member in sweep.members()]
    assert {(c.model.width, c.schedule.max_seconds) for c in configs} == {
        (width, seconds) for width in (64, 96) for seconds in (None, 30)
    }
    assert {c.seed for c in configs} == {1337, 1338}
    assert {(c.schedule.steps, c.export.scheme, c.data.path) for c in configs} == {(3, "int6", 'a "b')}
    before = path.read_bytes()
    assert "exists" in niblick.refused("sweep", "write", path, "hnet-small", *settings)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["model.width=64"], "no key has several values"),
        (["model.width=64,"], "sets nothing"),
        (["model.width=,64"], "sets nothing"),
        (["model.width"], "sets nothing"),
        (["=1,2"], "sets nothing"),
        (["model.width=1,2", "model.width=3,4"], "given twice"),
        (["model.widht=64,96"], "unknown key 'model.widht'"),
        (["model.width=64,wide"], "does not fit"),
        (["seed=1,2"], "a sweep has seeds=… for that"),
        (["model.width=64,96", "--seeds", "0"], "--seeds 0 must be at least 1"),
    ],
)
def test_nothing_is_written_of_what_does_not_fit(
    settings: list[str], said: str, niblick: Niblick, tmp_path: Path
) -> None:
    assert said in niblick.refused("sweep", "write", tmp_path / "x.py", "hnet-small", *settings)
    assert not list(tmp_path.iterdir())


def test_a_sweep_file_has_its_suffix(niblick: Niblick, tmp_path: Path) -> None:
    assert "let it end in .py" in niblick.refused("sweep", "write", tmp_path / "x", "hnet-small", "model.width=1,2")


@given(st.lists(st.sampled_from(["64", "wide", "[1,2]", '"a,b"', "{1,[2,3]}", '"]"', ""]), min_size=1))
def test_commas_inside_separate_nothing(values: list[str]) -> None:
    assert split(",".join(values)) == values
