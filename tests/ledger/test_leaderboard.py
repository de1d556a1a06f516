"""`niblick leaderboard`: what is ranked, beside what, and what is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rundirs import ARTIFACT, finish, make_run, write_audit
from scipy import stats

from niblick import cli
from niblick.ledger.leaderboard import leaderboard
from niblick.ledger.ledger import Ledger
from niblick.score.costs import COST

WIDE = ("model.width=192",)


def board(folder: Path) -> dict[str, Any]:
    facts = asdict(leaderboard(Ledger(folder)))
    assert len(facts["boards"]) == 1
    return facts["boards"][0]  # type: ignore[no-any-return]


def member(branch: str, name: str = "") -> dict[str, Any]:
    return {"sweep": "s", "name": name or branch, "branch": branch}


def seeds(folder: Path, branch: str, scores: list[float], **options: Any) -> None:
    for seed, bpb in enumerate(scores):
        make_run(folder, f"s/{branch}-s{seed}", bpb, seed=seed, member=member(branch), **options)


def test_best_of_each_branch_with_seeds_and_p(tmp_path: Path) -> None:
    a, b = [1.90, 1.91, 1.92], [1.95, 1.97, 1.96]
    seeds(tmp_path, "plain", b)
    seeds(tmp_path, "wide", a, overrides=WIDE)
    make_run(tmp_path, "s/worse-s0", 3.0, member=member("wide", "worse"), overrides=("model.width=256",))
    first, second = board(tmp_path)["ranked"]
    assert (first["branch"], first["rank"], first["p"]) == ("wide", 1, None)
    assert first["mean"] == pytest.approx(1.91)
    assert first["deviation"] == pytest.approx(0.01)
    assert (second["branch"], second["rank"], second["p_by"]) == ("plain", 2, "seeds")
    expected = stats.ttest_ind(b, a, equal_var=False, alternative="greater").pvalue
    assert second["p"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"total_bytes": 16_000_001}, "over cap"),
        ({"weighed": False}, "not weighed"),
        ({"weighed": False, "total_bytes": 17_000_000}, "over cap"),
        ({"lossless": False, "bpb_repaired": 1.7}, "lossy"),
        ({"lossless": None}, "lossy"),
        ({"audit": None}, "unaudited"),
        ({"audit": "fail"}, "audit failed"),
        ({"score_first": False}, "looked ahead"),
        ({"overrides": ("track=smoke",)}, "unranked"),
    ],
)
def test_what_stands_apart(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    make_run(tmp_path, "a-1", 1.5, **options)
    found = board(tmp_path)
    assert not found["ranked"]
    assert [row["apart"] for row in found["apart"]] == [reason]


def test_a_worse_legal_result_still_ranks(tmp_path: Path) -> None:
    make_run(tmp_path, "a-1", 1.5, total_bytes=17_000_000)
    make_run(tmp_path, "a-2", 1.6, overrides=WIDE)
    found = board(tmp_path)
    assert [row["mean"] for row in found["ranked"]] == [1.6]
    assert [row["mean"] for row in found["apart"]] == [1.5]


def test_one_seed_over_the_cap_takes_its_recipe_along(tmp_path: Path) -> None:
    seeds(tmp_path, "plain", [1.9, 1.91])
    make_run(tmp_path, "s/plain-s7", 1.92, seed=7, member=member("plain"), total_bytes=17_000_000)
    found = board(tmp_path)
    assert not found["ranked"]
    assert len(found["apart"][0]["scores"]) == 3


def test_stopped_runs_are_never_ranked(tmp_path: Path) -> None:
    path = make_run(tmp_path, "s/plain-s0", 1.0, member=member("plain"))
    other = make_run(tmp_path, "s/plain-s1", None, seed=1, member=member("plain"))
    for each in (path, other):
        (each / "stopped.json").write_text(json.dumps({"reason": "not among the best half"}))
    seeds(tmp_path, "wide", [1.9], overrides=WIDE)
    facts = asdict(leaderboard(Ledger(tmp_path)))
    assert [row["branch"] for row in facts["boards"][0]["ranked"]] == ["wide"]
    assert [(row["branch"], row["apart"]) for row in facts["boards"][0]["apart"]] == [("plain", "stopped")]
    assert [row["run"] for row in facts["stopped"]] == ["s/plain-s1"]


@pytest.mark.parametrize("file", ["config.json", f"artifacts/{ARTIFACT}/artifact.nib"])
def test_files_changed_by_hand_are_not_ranked(tmp_path: Path, file: str) -> None:
    path = make_run(tmp_path, "a-1")
    (path / file).write_text((path / file).read_text() + "\n")
    assert [row["apart"] for row in board(tmp_path)["apart"]] == ["changed"]


def test_a_better_score_written_by_hand_is_not_ranked(tmp_path: Path) -> None:
    path = make_run(tmp_path, "a-1", 2.0)
    result = json.loads((path / "result.json").read_text())
    (path / "result.json").write_text(json.dumps(result | {"bpb": 0.68, "bpb_repaired": 0.68}))
    assert [row["apart"] for row in board(tmp_path)["apart"]] == ["changed"]


def test_nothing_is_ranked_across_keys(tmp_path: Path) -> None:
    gpu = {"gpu": "H100", "gpus": 8, "cores": 8, "processor": "x"}
    make_run(tmp_path, "a-1")
    make_run(tmp_path, "a-2", overrides=("schedule.max_seconds=600",))
    make_run(tmp_path, "a-3", text_hash="cd" * 32)
    make_run(tmp_path, "a-4", slice="first 8 documents")
    make_run(tmp_path, "a-5", machine=gpu)
    make_run(tmp_path, "a-6", overrides=("track=proxy",))
    facts = asdict(leaderboard(Ledger(tmp_path)))
    assert len(facts["boards"]) == 6
    assert all(len(each["ranked"]) == 1 for each in facts["boards"])
    assert any("nothing is ranked across" in note for note in facts["notes"])


def test_the_same_seed_twice_counts_once(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        make_run(tmp_path, f"hnet-small-{number}", 1.9, seed=1)
    (row,) = board(tmp_path)["ranked"]
    assert (row["scores"], row["deviation"]) == ([1.9], None)


def test_single_seeds_are_compared_by_documents(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    size = draw.integers(100, 1000, 40)
    for name, factor, bpb in (("a", 1.0, 1.9), ("b", 1.1, 2.0)):
        options = {"overrides": WIDE} if name == "b" else {}
        path = make_run(tmp_path, f"s/{name}-s0", bpb, member=member(name), document_costs="documents-1.npy", **options)
        costs = np.zeros(40, COST)
        costs["nats"], costs["bytes"], costs["tokens"] = factor * size * draw.uniform(0.98, 1.02, 40), size, size
        np.save(path / "artifacts" / ARTIFACT / "documents-1.npy", costs)
    second = board(tmp_path)["ranked"][1]
    assert second["p_by"] == "documents"
    assert 0 < second["p"] < 0.001


def test_an_audit_that_comes_later_counts(tmp_path: Path) -> None:
    path = make_run(tmp_path, "a-1", audit=None)
    assert not board(tmp_path)["ranked"]
    write_audit(path, "pass")
    assert board(tmp_path)["ranked"]


def test_table_csv_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds(tmp_path, "plain", [1.95, 1.97])
    make_run(tmp_path, "a-1", 1.5, total_bytes=16_000_001)
    cli.app(["leaderboard", "--runs", str(tmp_path)], standalone_mode=False)
    said = capsys.readouterr().out
    assert "1.9600 ± 0.0141" in said
    assert "over the cap of 16,000,000 bytes" in said
    cli.app(["leaderboard", "--runs", str(tmp_path), "--csv"], standalone_mode=False)
    assert capsys.readouterr().out.count("\n") == 3
    cli.app(["leaderboard", "--runs", str(tmp_path), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["boards"][0]["ranked"][0]["branch"] == "plain"


def test_code_that_was_not_weighed_is_said_where_bytes_would_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds(tmp_path, "plain", [1.95, 1.97])
    make_run(tmp_path, "s/plain-s7", 1.92, seed=7, member=member("plain"), weighed=False)
    [row] = board(tmp_path)["apart"]
    assert (row["total_bytes"], row["standing"], len(row["scores"])) == (None, "not weighed", 3)
    for command in (["leaderboard"], ["runs"], ["leaderboard", "--csv"], ["runs", "--csv", "--sort", "total_bytes"]):
        cli.app([*command, "--runs", str(tmp_path)], standalone_mode=False)
        said = capsys.readouterr().out
        assert "1.9" in said
        assert "--csv" in command or "code not weighed" in said
    cli.app(["compare", str(tmp_path / "s/plain-s0"), str(tmp_path / "s/plain-s7")], standalone_mode=False)
    assert "1.92" in capsys.readouterr().out


def test_no_scores_yet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_run(tmp_path, "a-1", None)
    cli.app(["leaderboard", "--runs", str(tmp_path)], standalone_mode=False)
    assert "no run has a score yet" in capsys.readouterr().out
    finish(path, 2.0)
    assert board(tmp_path)["apart"][0]["apart"] == "unaudited"
