"""Sweep files: what axes make, names and branches, and everything that is refused before a run starts."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from niblick.config.run_config import to_dict
from niblick.errors import ConfigError
from niblick.run.directory import write_json
from niblick.sweeps.stopping import Behind, Halving, KeepUp
from niblick.sweeps.sweep import Axis, Sweep, grid, listed, load_sweep, zipped

LENGTH, WEIGHT = "model.levels.0.target_length", "model.levels.0.ratio_weight"


def names(*axes: Axis, **more: object) -> list[str]:
    return [member.id for member in Sweep("hnet-small", axes=axes, **more).members()]  # type: ignore[arg-type]


def test_axes() -> None:
    assert names(grid({LENGTH: [4, 6], WEIGHT: [0.1]}), seeds=[1, 2]) == [
        "target_length=4+ratio_weight=0.1-s1",
        "target_length=4+ratio_weight=0.1-s2",
        "target_length=6+ratio_weight=0.1-s1",
        "target_length=6+ratio_weight=0.1-s2",
    ]
    assert names(zipped({LENGTH: [4, 6], WEIGHT: [0.1, 0.2]})) == [
        "target_length=4+ratio_weight=0.1-s1337",
        "target_length=6+ratio_weight=0.2-s1337",
    ]
    both = [listed({"plain": [], "wide": ["model.width=256"]}), grid({LENGTH: [4, 6]})]
    assert names(*both) == [f"{a}+target_length={b}-s1337" for a in ("plain", "wide") for b in (4, 6)]
    assert names() == ["base-s1337"]


def test_what_members_are() -> None:
    points = {"bytes": ["optim.matrix_lr=0.01"], "dense": ["baseline-sp1024", "model.width=256"]}
    sweep = Sweep(
        "hnet-small", [listed(points)], name="s", sets=["schedule.steps=5"], track="fixed-step", branch="{0}!"
    )
    first, second = sweep.members()
    assert (first.config.preset, second.config.preset) == ("hnet-small", "baseline-sp1024")
    assert second.config.model.width == 256 and second.config.schedule.steps == 5
    assert first.config.schedule.max_seconds is None and first.config.track == "fixed-step"
    assert [m.point.branch for m in (first, second)] == ["bytes!", "dense!"]
    assert first.digest != second.digest and first.digest == sweep.members()[0].digest
    assert first.facts("s")["settings"] == {"optim.matrix_lr": "0.01"}
    named = Sweep("hnet-small", [listed(points)], name="s", branch={"dense": "d"})
    assert [point.branch for point in named.points()] == ["s", "d"]


def test_a_sweep_from_before_a_key_was_there_is_the_same_sweep() -> None:
    """`ahead_weight` and `min_steps` came later: the digest of a run that does not use them is what it was before."""
    key = "model.levels.0.ahead_weight"
    unused, used = Sweep("hnet-small", [listed({"a": [f"{key}=0"], "b": [f"{key}=0.5"]})], name="s").members()
    known = to_dict(unused.config)
    for level in known["model"]["levels"]:
        del level["ahead_weight"]
    del known["schedule"]["min_steps"]
    assert unused.digest == hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    assert used.digest != unused.digest


def test_long_names_stay_apart() -> None:
    found = names(listed({"x" * 150 + end: [f"model.width={64 * i}"] for i, end in enumerate("ab", 1)}))
    assert len(set(found)) == 2 and all(len(name) <= 106 for name in found)


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        (lambda: grid({}), "an empty axis has no points"),
        (lambda: grid({LENGTH: []}), "has no values, so the sweep would have no runs"),
        (lambda: grid({LENGTH: "46"}), "give a list"),
        (lambda: zipped({LENGTH: [4, 6], WEIGHT: [0.1]}), r"not equally many: .*target_length 2, .*ratio_weight 1"),
        (lambda: listed({}), "an empty list has no choices"),
        (lambda: listed({"a": "model.width=64"}), r"write \['model.width=64'\]"),
        (lambda: grid({LENGTH: [object()]}), "is no value of a config"),
    ],
)
def test_axes_that_are_refused(axis: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        axis()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("sweep", "said"),
    [
        ({"axes": [grid({"model.levels.0.target_lenght": [4]})]}, r"unknown key .*\(nearest: .*target_length"),
        ({"axes": [grid({"model.width": [7]})]}, "point width=7: "),
        ({"axes": [grid({LENGTH: [4]}), zipped({LENGTH: [6]})]}, "two axes set model.levels.0.target_length"),
        ({"axes": [grid({"seed": [1, 2]})]}, "a sweep has seeds="),
        ({"axes": [listed({"track": ["track=proxy"]})]}, "a sweep has track="),
        ({"axes": [listed({"a b": [], "a-b": ["model.width=64"]})]}, "two points of the sweep are called 'a-b'"),
        ({"axes": [grid({LENGTH: [4]})], "branch": "{1}"}, "does not fit the 1 axes"),
        ({"control": "none"}, "is no point of the sweep"),
        ({"seeds": []}, "has no seeds"),
        ({"seeds": [1, 1]}, "not all different"),
        ({"cpus": 0}, "cpus=0"),
        ({"track": "sprint"}, "unknown track"),
        ({"base": "hnet-smal"}, "nearest: hnet-small"),
    ],
)
def test_sweeps_that_are_refused(sweep: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Sweep(**({"base": "hnet-small"} | sweep)).members()  # type: ignore[arg-type]


def test_a_sweep_without_data_is_refused() -> None:
    with pytest.raises(ConfigError, match="no data is named"):
        Sweep("hnet-small").check()
    with pytest.raises(ConfigError, match=r"holds data\.seed=1337"):
        Sweep("hnet-small", sets=["data.seed=1"], track="fixed-step").check()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sweep = 1", "found: int"),
        ("", "found: NoneType"),
        ("1/0", "ZeroDivisionError"),
        ("from niblick.sweeps.sweep import Sweep, grid\nsweep = Sweep('hnet-small', [grid({})])", "an empty axis"),
        ("from niblick.sweeps.sweep import Sweep\nsweep = Sweep('hnet-small', name='../x')", "is no name of a sweep"),
    ],
)
def test_files_that_are_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_sweep(tmp_path / "s.py")
    with pytest.raises(ConfigError, match="there is no sweep file"):
        load_sweep(tmp_path / "t.py")


def test_a_file_names_and_describes_its_sweep(tmp_path: Path) -> None:
    path = tmp_path / "lengths.py"
    path.write_text(
        '"""Do they pay?\n\nMore."""\nfrom niblick.sweeps.sweep import Sweep\nsweep = Sweep("hnet-small")\n'
    )
    sweep = load_sweep(path)
    assert (sweep.name, sweep.summary) == ("lengths", "Do they pay?")
    assert sweep.points()[0].branch == "lengths"


def test_halving() -> None:
    rule = Halving(first=10, factor=3)
    assert rule.rungs(100) == [10, 30, 90]
    assert rule.rungs(90) == [10, 30] and rule.rungs(10) == []
    scores = {"a": [2.0, 2.2], "b": [2.0], "c": [1.9], "d": [3.0], "other": [9.0]}
    groups = dict.fromkeys("abcd", "x") | {"other": "y"}
    losers = rule.losers(scores, groups)
    assert set(losers) == {"a", "d"}
    assert losers["a"] == Behind(place=3, of=4, kept=2, limit=2.0)
    # Kept ones first: losers who are judged again beside part of the winners change nothing.
    assert set(rule.losers({"c": [1.9], "a": [2.1], "d": [3.0]}, groups)) == {"a", "d"}
    with pytest.raises(ConfigError, match="factor ≥ 2"):
        Halving(first=10, factor=1)


def test_early_stops_that_cannot_work(tmp_path: Path) -> None:
    config = Sweep("hnet-small").members()[0].config
    with pytest.raises(ConfigError, match="by the clock"):
        Halving(10).check(config)
    fixed = Sweep("hnet-small", sets=["schedule.steps=10"], track="fixed-step").members()[0].config
    with pytest.raises(ConfigError, match="never reached"):
        Halving(10).check(fixed)
    path = tmp_path / "reference.json"
    write_json(path, {"steps": 3})
    with pytest.raises(ConfigError, match="no reference curve"):
        KeepUp(str(path)).limits()
    points = [[10, 3.0, 0.1], [20, 2.5, 0.2]]
    write_json(path, {"every": 10, "text_hash": "a", "batch_tokens": 8192, "points": points})
    rule = KeepUp(str(path), margin=2)
    assert rule.limits() == pytest.approx({10: 3.2, 20: 2.9}) and rule.sets == ["train.val_every=10"]
    with pytest.raises(ConfigError, match="text_hash=a, and the sweep b"):
        rule.check(fixed, "b")


EXPERIMENTS = Path(__file__).parents[2] / "docs" / "experiments"


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.glob("[!_]*.py")), ids=lambda p: p.stem)
def test_experiments_of_the_log_load(path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.name == path.stem and sweep.summary and list(sweep.members())


def test_a_sweep_file_imports_what_lies_beside_it(tmp_path: Path) -> None:
    """And two folders may have a module of one name."""
    for width in (64, 128):
        folder = tmp_path / str(width)
        folder.mkdir()
        (folder / "shared.py").write_text(f"SET = 'model.width={width}'")
        (folder / "s.py").write_text(
            "from shared import SET\nfrom niblick.sweeps.sweep import Sweep\nsweep = Sweep('hnet-small', sets=[SET])"
        )
        [member] = load_sweep(folder / "s.py").members()
        assert member.config.model.width == width
