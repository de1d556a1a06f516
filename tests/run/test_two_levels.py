"""A model of two levels, the second wider inside, goes the whole way: trained, packed, scored afresh, generating."""

from __future__ import annotations

import json
from pathlib import Path

import forked
import pytest

import niblick
from niblick.config.run_config import override
from niblick.data.prepare import prepare
from niblick.facts.result import Result
from niblick.recipes.presets import load_recipe
from niblick.run.pipeline import run

RECIPE = """
from niblick.config.run_config import RunConfig
from niblick.model.model_config import LevelConfig
from niblick.model.model_config import ModelConfig
from niblick.model.model_config import StageConfig
from niblick.score.score_config import ScoreConfig
from niblick.train.schedule import ScheduleConfig
from niblick.train.settings import TrainConfig


def recipe():
    outer = LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=3.0)
    inner = LevelConfig(StageConfig("T1"), StageConfig("T1"), width=32, target_length=2.0, lr_mult=0.5)
    return RunConfig(
        preset="two-levels",
        model=ModelConfig(width=16, heads=2, kv_heads=1, levels=(outer, inner), main=StageConfig("T1", width=48)),
        train=TrainConfig(
            seq_len=32, batch_tokens=256, micro_batch_tokens=256, warmup_steps=1, val_every=0, device="cpu"
        ),
        schedule=ScheduleConfig(steps=4, max_seconds=None),
        score=ScoreConfig(seq_len=64),
    )
"""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("two-levels")
    recipe = folder / "two_levels.py"
    recipe.write_text(RECIPE)
    prepare("pydocs", "byte260", folder / "data", max_docs=24, val_docs=2)
    config = override(load_recipe(recipe), [f"data.path={json.dumps(str(folder / 'data'))}"])
    return run(config, folder / "runs", lambda event: None, recipe=recipe)


def test_both_levels_train(result: Result) -> None:
    events = list(map(json.loads, (Path(result.run) / "events.jsonl").read_text().splitlines()))
    first = next(e for e in events if e["event"] == "step")
    assert {"ratio_loss_0", "ratio_loss_1"} <= first.keys()
    assert len(first["levels"]) == 2
    assert all(0 <= level["boundary_rate"] <= 1 for level in first["levels"])


def test_scored_afresh_it_is_the_same(result: Result) -> None:
    """The score of the run, made in a process of its own, is what the artifact alone gives in another."""
    artifact = Path(result.run) / "artifacts" / result.artifact / "artifact.nib"
    data = json.loads((Path(result.run) / "config.json").read_text())["data"]["path"]
    again = json.loads(forked.run(["-m", "niblick", "eval", artifact, "--data", data, "--json"]).stdout)
    assert again["bpb"] == pytest.approx(result.bpb, abs=1e-6)


def test_it_generates(result: Result) -> None:
    model = niblick.load(Path(result.run) / "artifacts" / result.artifact / "artifact.nib")
    assert [level.width for level in model.model.body.levels] == [16, 32]
    text = model.generate("The quick ", max_bytes=20, temperature=1.0, seed=3)
    assert text == model.generate("The quick ", max_bytes=20, temperature=1.0, seed=3)
    assert 0 < len(text.encode()) <= 20
    assert "".join(chunk.text for chunk in model.chunks("The quick brown")) == "The quick brown"
