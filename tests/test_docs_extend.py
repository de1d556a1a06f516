"""The recipes of docs/extend.md run: each loads, trains a step with what it names, and steps like it scores."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from niblick.challenge.tracks import get_track
from niblick.config.run_config import override
from niblick.data.prepare import prepare
from niblick.model.lm import LM
from niblick.pack.quantize import quantize
from niblick.pack.rounding import rounding_of
from niblick.recipes.presets import load_recipe
from niblick.train.checkpoint import list_checkpoints, read_tensors
from niblick.train.guides import make_guide
from niblick.train.optim import Optimizers
from niblick.train.qat import rounded_parameters
from niblick.train.regularizers import Penalties

DOCUMENT = Path(__file__).parents[1] / "docs" / "extend.md"
PARTS = re.findall(r"^## (.+?)\n.*?```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.S | re.M)


@pytest.mark.parametrize(("title", "code"), PARTS, ids=[title for title, _ in PARTS])
def test_part(title: str, code: str, tmp_path: Path) -> None:
    assert len(code.splitlines()) < 40
    path = tmp_path / "my_recipe.py"
    path.write_text(code, encoding="utf-8")
    config = load_recipe(path)
    torch.manual_seed(0)
    model = LM(config.model)
    ids_BL = torch.randint(4, 260, (2, 33))
    guide = make_guide(config.train.init_from, config.model) if config.train.init_from else None
    losses, _ = model(ids_BL[:, :-1], ids_BL[:, 1:], guide_BL=guide(ids_BL[:, :-1]) if guide else None)
    losses.total.backward()
    if config.train.penalties:
        assert len(Penalties(model, config.train.penalties, config.export).add_gradients(0)) == 1
    Optimizers(model, config.optim).step(0, 1.0)
    for name, (p, scheme) in rounded_parameters(model, config.export).items():
        weights, prune = torch.randn(p.shape), config.export.prune
        packed = quantize(name, weights, scheme, prune).dequantize()
        assert torch.equal(packed, rounding_of(weights, scheme, prune).round(weights))
    model = model.double()
    with torch.no_grad():
        logits, state = model(ids_BL), model.new_state(2)
        for t in range(ids_BL.shape[1]):
            assert torch.allclose(model.step(ids_BL[:, t], state), logits[:, t], atol=1e-9)


TOGETHER = """

def recipe():
    from niblick.config.run_config import ExportConfig
    from niblick.score.score_config import ScoreConfig
    from niblick.train.schedule import ScheduleConfig
    from niblick.train.settings import TrainConfig

    level = LevelConfig(StageConfig("T1G1"), StageConfig("T1"), router="distance")
    return RunConfig(
        preset="together",
        model=ModelConfig(width=16, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T1")),
        train=TrainConfig(
            seq_len=32, batch_tokens=256, micro_batch_tokens=256, warmup_steps=0, val_every=0, checkpoint_every=2,
            init_from="sentences", init_steps=2, device="cpu",
        ),
        schedule=ScheduleConfig(steps=4, max_seconds=None),
        optim=OptimConfig(name="lion", matrix_lr=1e-3, vector_lr=1e-3, embed_lr=1e-3),
        export=ExportConfig("shift4", codec="xz"),
        score=ScoreConfig(seq_len=64),
    )
"""


def test_all_parts_in_one_run(tmp_path: Path) -> None:
    """A part of each kind in one recipe: trained, packed, scored by a process of its own."""
    recipe = tmp_path / "together.py"
    recipe.write_text("\n".join(code for _, code in PARTS) + TOGETHER, encoding="utf-8")
    prepare("pydocs", "byte260", tmp_path / "data", max_docs=24, val_docs=2)
    command = [sys.executable, "-m", "niblick", "train", recipe, "--data", tmp_path / "data", "--json"]
    command += ["--runs", tmp_path / "runs"]
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["artifact"] == "shift4+xz"
    tensors, _ = read_tensors(list_checkpoints(Path(result["run"]) / "checkpoints")[-1])
    assert "optim/body.levels.0.encoder.blocks.1.gate.weight/momentum" in tensors
    assert "optim/body.levels.0.router.map.weight/momentum" in tensors


def test_commands_as_shown_end_in_minutes(tmp_path: Path) -> None:
    commands = re.findall(
        r"^    niblick train my_recipe.py --data data/pydocs (.+)$", DOCUMENT.read_text("utf-8"), re.M
    )
    assert len(commands) == 2
    for i, (_, code) in enumerate(PARTS):
        recipe = tmp_path / f"part_{i}.py"
        recipe.write_text(code, encoding="utf-8")
        for command in commands:
            track = re.fullmatch(r"--track (\w+)", command)
            config = override(load_recipe(recipe), get_track(track[1]).assignments if track else command.split())
            assert (config.schedule.max_seconds or 600) <= 120
            assert (config.train.warmup_steps + 1) * config.train.batch_tokens <= 2 * 8192, "before the clock runs"


def test_all_parts_are_there() -> None:
    assert {"A block", "A router", "An optimizer", "A codec", "A scheme", "A penalty"} <= {title for title, _ in PARTS}
