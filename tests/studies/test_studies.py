"""Studies at toy size: each trains all of its runs, writes its tables, and gives the same ones when run again."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from tiny import Here

from niblick.artifact.container import write_artifact
from niblick.challenge.tracks import check_track
from niblick.config.run_config import dotted, to_dict
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ConfigError
from niblick.model.counting import parameter_count
from niblick.model.lm import LM
from niblick.model.model_config import ModelConfig, StageConfig
from niblick.pack.quantize import pack
from niblick.run.directory import read_json
from niblick.studies import STUDIES
from niblick.studies.study import Lab, run_study
from niblick.sweeps.running import SweepStopped
from niblick.sweeps.stopping import KeepUp
from niblick.sweeps.sweep import Sweep

outer_study = importlib.import_module("niblick.studies.outer")  # the package has the study of that name
routers_study = importlib.import_module("niblick.studies.routers2026")
TABLES = {
    "study1": {"20 matched runs": 20, "Chunks before and after training": 2},
    "study2": {"Room for chunks": 5},
    "softchunk": {"On prose": 16, "On code": 6, "On multilingual": 6},
    "routers": {"Routers in one backbone": 7},
    "routers2026": {f"{text}, target 4": 13 for text in ("English", "without spaces")},
    "outer": {"At equal parameters and steps": 3, "At equal parameters and time": 3},
    "sprint": {"By branch": 8, "Ideas": 18},
    "rescue": {"Under the cap": 4},
    "repeatability": {"The same run again": 3, "Other seeds": 4, "The curve for early stops": 1},
}
LANGUAGES = [
    "Алисе начинало надоедать сидеть. ",
    "Ellos llegaron tarde a casa. ",
    "吾輩は猫である。名前はまだ無い。",
    "مرحبا بالعالم ",
]
"""Short sentences: what counts is that there are many scripts."""


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where studies prepare data; all of them share it."""
    return tmp_path_factory.mktemp("studies")


def lab(name: str, folder: Path, runs: Path, executor: Here, *overrides: str) -> Lab:
    documents = folder / "languages"
    documents.mkdir(exist_ok=True)
    for i, line in enumerate(LANGUAGES * 3):
        (documents / f"{i:02}.txt").write_text(line * (8 + i), encoding="utf-8")
    few = ["schedule.steps=4", "score.documents=1", *overrides]
    return Lab(
        study=name,
        toy=True,
        runs=runs,
        folder=folder / "data",
        executor=lambda threads: executor,
        sources={"multilingual": str(documents)},
        overrides=few,
        say=lambda line: None,
    )


@pytest.mark.slow
@pytest.mark.usefixtures("score_here", "one_script")
@pytest.mark.parametrize("name", STUDIES)
def test_each_study_writes_its_tables(name: str, folder: Path, tmp_path: Path) -> None:
    more = ["schedule.steps=12"] if name == "repeatability" else []
    bench = lab(name, folder, tmp_path, Here(), *more)
    facts = run_study(STUDIES[name], bench)
    rows = {table["title"]: len(table["rows"]) for table in facts.tables}
    assert {title: rows[title] for title in TABLES[name]} == TABLES[name]
    out = tmp_path / f"{name}-toy"
    text = (out / "tables.md").read_text(encoding="utf-8")
    assert f"Made by `niblick study {name} --toy schedule.steps=4 score.documents=1" in text
    assert "Toy size: these figures" in text and "of `xz -9e` on the same text: " in text
    assert read_json(out / "tables.json")["xz"] == facts.xz > 0
    assert "<table>" in (out / "report.html").read_text(encoding="utf-8")
    again = Here()
    repeated = run_study(STUDIES[name], lab(name, folder, tmp_path, again, *more))
    assert again.jobs == [] and repeated.tables == facts.tables
    if name == "repeatability":
        assert "the same to the last digit" in text
        assert KeepUp(str(out / "reference.json")).limits().keys() == {10}


@pytest.mark.slow
@pytest.mark.usefixtures("score_here", "one_script")
def test_a_study_that_was_killed_gives_the_same_tables(folder: Path, tmp_path: Path) -> None:
    whole = run_study(STUDIES["study2"], lab("study2", folder, tmp_path / "a", Here()))
    with pytest.raises(SweepStopped):
        run_study(STUDIES["study2"], lab("study2", folder, tmp_path / "b", Here(kill_after=3)))
    pieces = run_study(STUDIES["study2"], lab("study2", folder, tmp_path / "b", Here()))
    assert pieces.tables == whole.tables


def test_a_full_study_needs_data(tmp_path: Path) -> None:
    bench = Lab("study1", toy=False, runs=tmp_path, folder=tmp_path, executor=lambda threads: Here())
    with pytest.raises(ConfigError, match="needs data of byte260: give --data byte260=DIR"):
        next(STUDIES["study1"](bench))
    bench.data_given["byte260-spaceless"] = str(tmp_path)
    assert [domain for domain in ("prose", "code", "spaceless") if bench.has(domain)] == ["prose", "spaceless"]
    bench.toy = True
    with pytest.raises(ConfigError, match="no text for multilingual: give --source multilingual=FILE"):
        bench.data("byte260", "multilingual")


@pytest.mark.parametrize(
    ("given", "track"), [([], "fixed-step"), (["schedule.steps=9", "schedule.max_seconds=5"], "wallclock")]
)
def test_equal_seconds_in_place_of_equal_steps(
    given: list[str], track: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command of docs/routers.md is within the rules of the track that it takes."""
    bench = Lab("routers2026", toy=False, runs=tmp_path, folder=tmp_path, executor=lambda threads: Here())
    bench.overrides += given
    asked: list[Sweep] = []
    monkeypatch.setattr("niblick.studies.study.run_sweep", lambda sweep, *rest, **how: asked.append(sweep) or [])
    monkeypatch.setattr(routers_study, "_small", lambda *rest: tmp_path)
    monkeypatch.setattr(routers_study, "settings", lambda *rest: {"cosine": ["model.levels.0.router=cosine"]})
    monkeypatch.setattr(Lab, "data", lambda *rest: "data")
    routers_study._runs(bench, "prose", 4)
    [sweep] = asked
    assert sweep.track == track
    assert len(sweep.members()) == 3
    check_track(track, dotted(to_dict(sweep.members()[0].config)))


@pytest.mark.parametrize("toy", [True, False])
def test_outer_stages_have_as_many_parameters(toy: bool, tmp_path: Path) -> None:
    bench = Lab("outer", toy=toy, runs=tmp_path, folder=tmp_path, executor=lambda threads: Here())
    wanted = outer_study._parameters(bench, outer_study._stages(bench, "m"))
    for letter in "CT":
        point = outer_study._stages(bench, letter)
        found = outer_study._parameters(bench, point + outer_study._hidden(bench, point, wanted))
        assert found == pytest.approx(wanted, rel=2e-3)


@pytest.mark.parametrize("toy", [True, False])
def test_methods_have_as_many_parameters(toy: bool, tmp_path: Path) -> None:
    """To a percent, the small model of `entropy` and the levels of `words` included."""
    bench = Lab("routers2026", toy=toy, runs=tmp_path, folder=tmp_path, executor=lambda threads: Here())
    half = routers_study._model(bench, []).width // 2
    small = ModelConfig(width=half, heads=1, kv_heads=1, main=StageConfig("T1"))
    header = {"model": to_dict(small), "tokenizer": ByteTokenizer().spec(), "score": {}}
    write_artifact(tmp_path / "small.nib", header, pack(dict(LM(small).state_dict())), "zlib")
    points = routers_study.settings(bench, 4, tmp_path / "small.nib")
    counts = {name: parameter_count(routers_study._model(bench, point)) for name, point in points.items()}
    assert {"entropy", "words", "cosine"} <= counts.keys()
    assert counts == pytest.approx(dict.fromkeys(counts, counts["cosine"]), rel=0.01)
