"""Tracks: what they set, what they hold, and which scores they rank together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from niblick.challenge.tracks import TRACKS, check_track, get_track, legality, ranking_key
from niblick.config.run_config import dotted, override, to_dict
from niblick.data.dataset import Dataset
from niblick.data.index import text_hash
from niblick.data.prepare import prepare
from niblick.errors import ConfigError
from niblick.facts.reading import plain, read
from niblick.facts.result import Result
from niblick.facts.scores import Legality, Machine, ScoreRecord
from niblick.recipes.presets import get_preset
from niblick.run import pipeline
from niblick.run.directory import Run

TINY = [
    *("model.width=16", "model.heads=2", "model.kv_heads=1", "model.main.layout=T1", "train.device=cpu"),
    *("train.seq_len=32", "train.batch_tokens=256", "train.micro_batch_tokens=256", "train.warmup_steps=0"),
    *("train.val_every=0", "score.seq_len=64", "schedule.max_seconds=null", "schedule.steps=4"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tracks") / "data"
    prepare("pydocs", "byte260", out, val_docs=6, max_docs=40)
    return out


def run(data: Path, runs: Path, track: str, *more: str) -> tuple[Run, Result]:
    rules = [*TINY, *get_track(track).assignments, *more]
    config = override(get_preset("hnet-small"), [*rules, f"data.path={json.dumps(str(data))}"])
    result = pipeline.run(config, runs, lambda event: None)
    assert result is not None
    return Run(Path(result.run)), result


@pytest.mark.slow
@pytest.mark.parametrize(
    ("track", "more", "steps", "documents"),
    [
        ("smoke", (), 10, 1),
        ("proxy", ("score.documents=2",), 4, 2),
        ("fixed-step", ("score.documents=3",), 4, 3),
        ("wallclock", ("schedule.max_seconds=5", "schedule.reserve_seconds=0"), None, 6),
        ("challenge", ("schedule.steps=2",), 2, 6),
    ],
)
def test_each_track_runs(
    track: str, more: tuple[str, ...], steps: int | None, documents: int, data: Path, tmp_path: Path
) -> None:
    made, result = run(data, tmp_path, track, *more)
    if track == "wallclock":
        assert result.step > 4 and result.train_seconds < 7
    else:
        assert result.step == steps
    split = Dataset.open(data).val
    assert split.index is not None
    assert result.documents == documents
    assert result.text_hash == text_hash(split.index[:documents])
    said = "all" if documents == 6 else f"first {documents} documents"
    assert result.slice == said
    assert any("first" in reason for reason in result.legality.reasons) == (documents < 6)
    key = ranking_key(to_dict(made.config()), result)
    assert (key.track, key.slice, key.text_hash) == (track, said, result.text_hash)
    assert {"wallclock": "5 s", "challenge": "600 s"}.get(track, key.budget) == key.budget
    assert made.changed() == []


@pytest.mark.slow
def test_the_ruler_repeats_to_the_last_digit(data: Path, tmp_path: Path) -> None:
    first, second = (run(data, tmp_path, "fixed-step", "score.documents=2")[1] for _ in range(2))
    assert first.bpb == second.bpb
    other = run(data, tmp_path, "fixed-step", "score.documents=2", "seed=7")[1]
    assert other.bpb != first.bpb


@pytest.mark.parametrize(
    ("track", "more", "said"),
    [
        ("fixed-step", ["schedule.max_seconds=60"], "holds schedule.max_seconds=null"),
        ("fixed-step", ["data.seed=3"], "holds data.seed=1337"),
        ("smoke", ["score.documents=4"], "holds score.documents=1"),
        ("challenge", ["schedule.max_seconds=601"], "holds schedule.max_seconds=600.0"),
        ("wallclock", ["schedule.max_seconds=null"], "set schedule.max_seconds"),
        ("wallclock", ["schedule.max_seconds=5", "schedule.min_steps=9"], "set schedule.min_steps=0"),
    ],
)
def test_what_a_track_refuses(track: str, more: list[str], said: str) -> None:
    config = override(get_preset("hnet-byte260"), [*TRACKS[track].assignments, *more])
    with pytest.raises(ConfigError, match=said):
        check_track(config.track, dotted(to_dict(config)))


def test_an_unknown_track() -> None:
    with pytest.raises(ConfigError, match=r"unknown track 'fixed' \(nearest: fixed-step\)"):
        get_track("fixed")
    config = replace(get_preset("hnet-small"), track="sprint")
    with pytest.raises(ConfigError, match="unknown track"):
        pipeline.run(config, Path("nowhere"), lambda event: None)


def test_what_makes_a_ranking_key() -> None:
    config = to_dict(override(get_preset("hnet-small"), TRACKS["fixed-step"].assignments))
    here = Machine(gpu=None, gpus=0, cores=2, processor="CPU")
    record = ScoreRecord(
        bpb=1.0,
        tokens=1,
        bytes=1,
        artifact_bytes=1,
        machine=here,
        text_hash="ab" * 32,
        slice="first 64 documents",
        legality=Legality(under_cap=True),
    )
    key = ranking_key(config, record)
    assert key == ranking_key(json.loads(json.dumps(config)), read(ScoreRecord, plain(record)))
    assert str(key) == (
        "fixed-step · 20,000 steps of 8,192 tokens, shuffle order of seed 1337 · 2 cores, CPU · text abababababab "
        "(first 64 documents)"
    )
    others = [
        (config | {"track": ""}, record),
        (config | {"schedule": config["schedule"] | {"steps": 5}}, record),
        (config | {"data": config["data"] | {"order": "stream"}}, record),
        (config, replace(record, text_hash=None)),
        (config, replace(record, slice="all")),
        (config, replace(record, machine=replace(here, gpu="H100", gpus=8))),
    ]
    assert len({ranking_key(*other) for other in others} | {key}) == 7
    timed = config["schedule"] | {"max_seconds": 60.0, "min_steps": 0}
    budgets = [ranking_key(config | {"schedule": timed | floor}, record).budget for floor in ({}, {"min_steps": 150})]
    del timed["min_steps"]  # of a run from before there was such a key
    assert [*budgets, ranking_key(config | {"schedule": timed}, record).budget] == [
        *("60 s", "60 s, at least 150 steps", "60 s")
    ]


@pytest.mark.parametrize(
    ("artifact", "code", "total", "under", "reasons"),
    [
        (15_900_000, 100_000, 16_000_000, True, []),
        (15_900_001, 100_000, 16_000_001, False, ["16,000,001 bytes are over the cap of 16,000,000"]),
        (16_000_000, None, None, None, ["code not weighed"]),
        (16_000_001, None, None, False, ["16,000,001 bytes are over the cap of 16,000,000", "code not weighed"]),
    ],
)
def test_bytes_of_a_score(
    artifact: int, code: int | None, total: int | None, under: bool | None, reasons: list[str]
) -> None:
    here = Machine(gpu="NVIDIA H100 80GB HBM3", gpus=8, cores=64, processor="CPU")
    found = legality(artifact_bytes=artifact, code_bytes=code, train_seconds=1.0, eval_seconds=1.0, machine=here)
    assert (found.code_bytes, found.total_bytes, found.under_cap) == (code, total, under)
    assert found.reasons == tuple(reasons)
