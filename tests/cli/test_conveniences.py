"""Small verbs and flags around runs: versions, names, dry runs, and moving runs out of the way."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from command import Niblick
from rundirs import make_run, training
from tiny import TINY

import niblick as package
from niblick.files import locked
from niblick.ledger import listing
from niblick.ledger.ledger import Ledger
from niblick.run import pipeline


def test_version(niblick: Niblick) -> None:
    code, out, _ = niblick("--version")
    first, second, third = out.splitlines()
    assert code == 0
    assert re.fullmatch(rf"niblick {re.escape(package.__version__)}( \(commit [0-9a-f]{{12}}(-dirty)?\))?", first)
    assert second.startswith(f"python {sys.version.split()[0]} on ") and third.startswith("torch ")


def test_a_dry_run_says_what_a_run_would_take_and_writes_nothing(
    niblick: Niblick, toy_data: Path, tmp_path: Path
) -> None:
    where = ("--data", toy_data, "--runs", tmp_path / "runs", "--dry-run")
    found = niblick.json("train", "hnet-small", *where, *TINY)
    assert found["steps"] == "8" and found["batch_tokens"] == 128 and found["parameters"] > 1000
    assert 0 < found["artifact_bytes"][0] <= found["artifact_bytes"][1] and found["train_seconds"] > 0
    out = niblick("train", "hnet-small", *where, *TINY)[1]
    assert f"{found['parameters']:,} parameters" in out and "8 of 128 tokens" in out
    assert not (tmp_path / "runs").exists()
    late = niblick.json("train", "hnet-small", *where, *TINY, "schedule.max_seconds=0.001", "schedule.min_steps=6")
    assert late["steps"] == "about 6", "the floor, not the time"
    assert "unknown key" in niblick.refused("train", "hnet-small", *where, "train.steps=8")


def test_a_run_has_the_name_that_it_is_given(
    niblick: Niblick, toy_data: Path, tmp_path: Path, score_here: None, one_script: None
) -> None:
    command = ("train", "hnet-small", "--data", toy_data, "--runs", tmp_path, *TINY, "--name")
    assert niblick.json(*command, "mine")["run"] == str(tmp_path / "mine")
    said = niblick.refused(*command, "mine")
    assert "mine is a run already: `niblick show" in said
    assert f"move it away by `niblick rm mine --runs {tmp_path}`, or give this one another name" in said
    assert "is no name of a run" in niblick.refused(*command, "a/b")
    assert "is no name of a run" in niblick.refused(*command, "latest")
    make_run(tmp_path, "late-s1338", None)
    assert "go on with it by `niblick train --resume" in niblick.refused(*command, "late", "--seeds", 2)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["late-s1338", "mine"], "no run of two is begun"


def test_an_interrupt_before_the_first_step_is_told(
    niblick: Niblick,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    score_here: None,
    one_script: None,
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train_run", interrupted)
        code, _, err = niblick("train", "hnet-small", "--data", toy_data, "--runs", tmp_path, *TINY, "--name", "mine")
    assert code == 130 and f"go on with: niblick train --resume {tmp_path / 'mine'}" in err
    [row] = Ledger(tmp_path).rows()
    assert (row.status, row.message) == ("stopped", "by SIGINT")
    assert (
        "run       " + str(tmp_path / "mine") + ": stopped (by SIGINT)"
        in niblick("show", "mine", "--runs", tmp_path)[1]
    )
    assert niblick.json("train", "--resume", tmp_path / "mine")["step"] == 8


def test_runs_are_moved_out_of_the_way(niblick: Niblick, tmp_path: Path) -> None:
    for name in ("a", "b", "sweep/c-s1"):
        make_run(tmp_path, name)
    young = make_run(tmp_path, "young", None, events=training())
    assert "stop it first, or wait" in niblick.refused("rm", "a", "young", "--runs", tmp_path)
    with locked(young / "writer.lock", "young"):
        assert "is being written by process" in niblick.refused("rm", "a", "young", "--runs", tmp_path)
    assert (tmp_path / "a").is_dir(), "none is moved where one cannot be"
    (young / "writer.lock").write_text("process 1, killed")
    assert "name the runs" in niblick.refused("rm", "latest", "--runs", tmp_path)
    moved = niblick.json("rm", "a", "young", "sweep/c-s1", "--runs", tmp_path)["moved"]
    assert set(moved) == {"a", "young", "sweep/c-s1"}
    assert [row.id for row in Ledger(tmp_path).rows()] == ["b"]
    assert "no run 'a'" in niblick.refused("eval", "a", "--runs", tmp_path)
    Path(moved["a"]).rename(tmp_path / "a")
    assert niblick("show", "a", "--runs", tmp_path)[0] == 2, "its artifact was made up"
    assert {row.id for row in Ledger(tmp_path).rows()} == {"a", "b"}


def test_the_list_of_runs_is_watched_until_it_is_interrupted(
    niblick: Niblick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path, "first")

    def sleep(seconds: float) -> None:
        if (tmp_path / "second").exists():
            raise KeyboardInterrupt
        make_run(tmp_path, "second")

    monkeypatch.setattr(listing.time, "sleep", sleep)
    code, out, _ = niblick("runs", "--watch", "--runs", tmp_path)
    assert code == 0 and "second" in out
    assert "give one of them" in niblick.refused("runs", "--watch", "--json", "--runs", tmp_path)
    assert json.loads(niblick("runs", "--json", "--runs", tmp_path)[1])["runs"]
