"""The verbs of sweeps and studies: what they print, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import TINY
from typer.testing import CliRunner

from niblick.cli import app
from niblick.errors import ConfigError


def niblick(*arguments: object) -> Any:
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


@pytest.fixture
def file(toy_data: Path, tmp_path: Path) -> Path:
    path = tmp_path / "lengths.py"
    path.write_text(
        "from niblick.sweeps.sweep import Sweep, grid\n"
        f"sweep = Sweep('hnet-small', [grid({{'optim.matrix_lr': [0.02, 0.04]}})], seeds=[1, 2], track='fixed-step',\n"
        f"    sets={[*TINY, f'data.path={toy_data}']!r})\n"
    )
    return path


def test_status_before_anything_ran(file: Path, tmp_path: Path) -> None:
    facts = niblick("sweep", "status", file, "--runs", tmp_path / "runs")
    assert facts["running"] is False and [run["state"] for run in facts["runs"]] == ["waiting"] * 4
    assert [point["done"] for point in facts["points"]] == [0, 0]


def test_plan(file: Path, tmp_path: Path) -> None:
    facts = niblick("sweep", "plan", file, "--runs", tmp_path / "runs", "--workers", 2)
    assert (facts["runs"], facts["left"], facts["slots"]) == (4, 4, 2)
    point = facts["points"][0]
    assert point["runs"] == 2 and point["steps"] == "8" and all(seconds > 0 for seconds in point["clocks"])
    assert facts["seconds"] == pytest.approx(2 * facts["points"][1]["seconds"], rel=0.5)
    assert facts["bytes"] == 4 * point["bytes"] > 0
    assert not (tmp_path / "runs").exists()
    told = CliRunner().invoke(app, ["sweep", "plan", str(file), "--runs", str(tmp_path / "runs")]).stderr
    assert "checking the sweep lengths" in told and "timed, of points 0/2" in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stop",), "is not running"),
        (("resume",), "was never started"),
        (("run", "--executor", "slurm"), "no executor 'slurm'"),
        (("run", "--address", "a:1"), "are about Ray clusters"),
        (("run", "--executor", "ray", "--workers", "2"), "is about this machine"),
        (("run", "--workers", "0"), "is no number of runs at once"),
    ],
)
def test_what_verbs_refuse(arguments: tuple[str, ...], said: str, file: Path, tmp_path: Path) -> None:
    verb, *options = arguments
    with pytest.raises(ConfigError, match=said):
        niblick("sweep", verb, file, *options, "--runs", tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_studies_refuse(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no study 'study3'"):
        niblick("study", "study3")
    with pytest.raises(ConfigError, match="--data 'web' names nothing: write NAME=PATH"):
        niblick("study", "study1", "--data", "web")
