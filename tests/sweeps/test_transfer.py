"""Transfer between sweeps, on results written by hand: gains, signs, ranks, survivors."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

from niblick.config.run_config import to_dict
from niblick.errors import ConfigError
from niblick.recipes.presets import get_preset
from niblick.run.directory import write_json
from niblick.sweeps.transfer import render, transfer

HERE = {"gpu": None, "gpus": 0, "cores": 2, "processor": "CPU"}


def write_sweep(runs: Path, name: str, scores: dict[str, list[float]], **record: object) -> None:
    """A finished sweep: its first point is the control."""
    seeds = list(range(len(next(iter(scores.values())))))
    points = [{"name": point, "branch": name, "settings": {}} for point in scores]
    facts = {"sweep": name, "file": f"{name}.py", "control": next(iter(scores)), "seeds": seeds}
    (runs / name).mkdir(parents=True)
    write_json(runs / name / "sweep.json", facts | {"points": points, "runs": {}})
    for point, values in scores.items():
        for seed, bpb in zip(seeds, values, strict=True):
            folder = runs / name / f"{point}-s{seed}"
            folder.mkdir()
            write_json(folder / "config.json", to_dict(get_preset("hnet-small")))
            result = {"bpb": bpb, "bpb_repaired": bpb, "text_hash": "t", "stream_hash": "s", "machine": HERE}
            result |= {"artifact": "a", "artifact_bytes": 5, "tokens": 9, "bytes": 9, "legality": {"under_cap": True}}
            write_json(folder / "result.json", result | record | {"files": {}})


def test_which_ideas_survive(tmp_path: Path) -> None:
    small = {"control": [2.0, 2.01], "a": [1.9, 1.92], "b": [1.95, 1.96], "c": [2.1, 2.11], "d": [1.99, 1.97]}
    large = {"control": [1.2, 1.21], "a": [1.1, 1.11], "b": [1.25, 1.26], "c": [1.3, 1.31], "e": [1.0, 1.0]}
    write_sweep(tmp_path, "small", small)
    write_sweep(tmp_path, "large", large)
    facts = transfer("small", "large", tmp_path)
    assert [idea.name for idea in facts.ideas] == ["a", "b", "c"]
    assert facts.ideas[0].first.gain == pytest.approx(0.095)
    expected = stats.ttest_ind(large["control"], large["a"], equal_var=False, alternative="greater")
    assert facts.ideas[0].second.p == pytest.approx(expected.pvalue)
    assert facts.sign_agreement == pytest.approx(2 / 3)
    assert facts.rank_correlation == pytest.approx(1.0)
    assert facts.survived == ["a"] and facts.only_in_one == ["d", "e"]
    text = render(facts)
    assert "| b | +0.0500 ± 0.0071 | -0.0500 ± 0.0071 | differ | no |" in text
    assert "Signs agree for 2 of 3 ideas; rank correlation +1.00." in text


def test_one_sweep_in_two_places(tmp_path: Path) -> None:
    for place in ("a", "b"):
        write_sweep(tmp_path / place, "sprint", {"control": [2.0], "x": [1.9], "y": [1.95]})
    sides = [str(tmp_path / place / "sprint") for place in ("a", "b")]
    facts = transfer(*sides, tmp_path)
    assert [facts.first, facts.second] == sides


def test_luck_does_not_survive(tmp_path: Path) -> None:
    write_sweep(tmp_path, "small", {"control": [2.0, 2.0], "a": [1.9, 1.9], "b": [1.9, 1.95]})
    write_sweep(tmp_path, "large", {"control": [1.2, 1.22], "a": [1.05, 1.33], "b": [1.0, 1.01]})
    assert transfer("small", "large", tmp_path).survived == ["b"]


def test_what_cannot_be_transferred(tmp_path: Path) -> None:
    write_sweep(tmp_path, "small", {"control": [2.0], "a": [1.9], "b": [1.9]})
    write_sweep(tmp_path, "other", {"control": [2.0], "c": [1.9], "b": [1.9]})
    with pytest.raises(ConfigError, match=r"1 finished ideas in common \(b\)"):
        transfer("small", "other", tmp_path)
    with pytest.raises(ConfigError, match=r"there is no sweep 'smal' .*nearest: small"):
        transfer("smal", "other", tmp_path)
    write_sweep(tmp_path, "mixed", {"control": [2.0], "a": [1.9], "b": [1.9]})
    changed = tmp_path / "mixed" / "a-s0" / "result.json"
    changed.write_text(changed.read_text().replace('"text_hash": "t"', '"text_hash": "u"'))
    with pytest.raises(ConfigError, match="are not ranked together"):
        transfer("small", "mixed", tmp_path)
    (tmp_path / "mixed" / "control-s0" / "result.json").unlink()
    with pytest.raises(ConfigError, match="has no finished run"):
        transfer("small", "mixed", tmp_path)
    (tmp_path / "small" / "a-s0" / "stopped.json").write_text("{}")  # a stopped run counts for nothing
    write_sweep(tmp_path, "full", {"control": [2.0], "a": [1.9], "b": [1.9]})
    with pytest.raises(ConfigError, match=r"1 finished ideas in common \(b\)"):
        transfer("small", "full", tmp_path)
