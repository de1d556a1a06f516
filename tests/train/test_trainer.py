"""The training loop: resume, accumulation, priming, and a loss that is not finite."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from niblick.data.dataset import Split
from niblick.data.loader import Batches
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import ArtifactError, ConfigError, TrainingError
from niblick.model.hnet import LevelConfig
from niblick.model.lm import LM, ModelConfig
from niblick.model.stage import StageConfig
from niblick.score.scorers import Score
from niblick.train import trainer
from niblick.train.checkpoint import list_checkpoints, load_weights, read_tensors, save_tensors
from niblick.train.optim import OptimConfig, Optimizers, register_optimizer
from niblick.train.schedule import ScheduleConfig
from niblick.train.trainer import TrainConfig, train

TEXT = ("It is a truth universally acknowledged, that a single man in possession of a good fortune, " * 60).encode()


def tiny() -> LM:
    torch.manual_seed(5)
    level = LevelConfig(StageConfig("T1"), StageConfig("T1"), target_length=4.0, ratio_weight=0.05)
    return LM(ModelConfig(width=32, heads=2, kv_heads=1, levels=(level,), main=StageConfig("T2")))


def batches(rows: int = 4) -> Batches:
    tokens = ByteTokenizer().encode_batch([TEXT.decode()])[0]
    split = Split("train", [Path("memory")], [np.concatenate(([1], tokens)).astype(np.uint16)])
    return Batches(split, vocab_size=260, seq_len=32, rows=rows, order="shuffle", seed=3)


def go(
    folder: Path,
    steps: int,
    *,
    model: LM | None = None,
    resume: bool = False,
    rows: int = 4,
    optim: OptimConfig | None = None,
    **changes: Any,
) -> tuple[LM, list[dict[str, Any]], trainer.Outcome]:
    values = {"seq_len": 32, "batch_tokens": 128, "micro_batch_tokens": rows * 32, "warmup_steps": 0, "val_every": 0}
    model = model or tiny()
    events: list[dict[str, Any]] = []
    outcome = train(
        model,
        batches(rows),
        TrainConfig(**(values | {"dtype": "float32", "device": "cpu", "log_every": 5} | changes)),  # type: ignore[arg-type]
        ScheduleConfig(steps=steps, warmdown_steps=10),
        optim or OptimConfig(muon_momentum_steps=10),
        checkpoints=folder,
        validate=lambda model: Score(1.0, 1, 1, 0.0),
        emit=events.append,
        resume=resume,
    )
    return model, events, outcome


def losses_of(events: list[dict[str, Any]]) -> list[float]:
    return [e["total"] for e in events if e["event"] == "step"]


def same(a: LM, b: LM) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_the_loss_falls_and_events_tell(tmp_path: Path) -> None:
    _, events, outcome = go(tmp_path, 60)
    steps = [e for e in events if e["event"] == "step"]
    assert [e["step"] for e in steps] == list(range(1, 61))
    assert steps[-1]["loss"] < 0.6 * steps[0]["loss"]
    assert steps[0]["total"] == pytest.approx(steps[0]["loss"] + 0.05 * steps[0]["ratio_loss_0"], rel=1e-5)
    assert 0 < steps[-1]["levels"][0]["boundary_rate"] <= 1
    assert steps[-1]["lr_scale"] == pytest.approx(0.1)
    assert outcome.stopped is None
    assert outcome.progress.step == 60
    assert all(e["event"] == "step" for e in events if e.get("kind") != "throughput")
    assert all(math.isfinite(e["grad_norm"]) and e["grad_norm"] > 0 for e in steps)
    assert not list_checkpoints(tmp_path)


def test_resume_is_exact(tmp_path: Path) -> None:
    """Stopped at a checkpoint and resumed under the same step schedule: bit-equal weights."""
    whole, _, _ = go(tmp_path / "a", 30)
    go(tmp_path / "b", 30, checkpoint_every=12)
    assert [p.name for p in list_checkpoints(tmp_path / "b")] == [
        "step_00000012.safetensors",
        "step_00000024.safetensors",
    ]
    for kept in (24, 12):
        resumed, events, _ = go(tmp_path / "b", 30, resume=True)
        assert events[0] == {"event": "resume", "step": kept, "checkpoint": f"step_{kept:08d}.safetensors"}
        assert same(resumed, whole)
        list_checkpoints(tmp_path / "b")[-1].unlink()


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    whole, parts = (losses_of(go(tmp_path, 5, rows=rows)[1]) for rows in (4, 1))
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert parts[1:] == pytest.approx(whole[1:], rel=1e-2)  # Muon works in bfloat16


def test_an_optimizer_of_one_s_own_resumes_exactly(tmp_path: Path) -> None:
    """Any torch optimizer whose state is tensors goes through checkpoints."""

    def adamw(model: torch.nn.Module, config: OptimConfig) -> list[torch.optim.Optimizer]:
        trained = [p for p in model.parameters() if p.requires_grad]
        return [torch.optim.AdamW(trained[::2], lr=0.01), torch.optim.RMSprop(trained[1::2], lr=0.01)]

    register_optimizer("adamw+rmsprop", adamw)
    own = OptimConfig(name="adamw+rmsprop")
    whole, events, _ = go(tmp_path / "a", 10, optim=own)
    assert losses_of(events)[-1] < losses_of(events)[0]
    go(tmp_path / "b", 10, optim=own, checkpoint_every=6)
    resumed, _, _ = go(tmp_path / "b", 10, optim=own, resume=True)
    assert same(whole, resumed)


def test_optimizers_that_do_not_fit() -> None:
    register_optimizer("forgetful", lambda model, config: [torch.optim.Adam(list(model.parameters())[1:])])
    register_optimizer("greedy", lambda model, config: [torch.optim.Adam(model.parameters())] * 2)
    for name, words in (("forgetful", "embed.weight not at all"), ("greedy", "embed.weight twice")):
        with pytest.raises(ConfigError, match=words):
            Optimizers(tiny(), OptimConfig(name=name))
    with pytest.raises(ConfigError, match=r"unknown optim.name='muon\+adm' \(nearest: muon\+adam"):
        OptimConfig(name="muon+adm")
    with pytest.raises(ConfigError, match="taken"):
        register_optimizer("muon+adam", lambda model, config: [])
    counting = Optimizers(tiny(), OptimConfig())
    counting.parts[0].state[next(iter(counting.names))]["count"] = 3
    counting.parts[0].param_groups[0]["params"].append(next(iter(counting.names)))
    with pytest.raises(TrainingError, match="keeps 'count' as int"):
        counting.state_tensors()


def test_priming_leaves_no_trace(tmp_path: Path) -> None:
    plain, _, _ = go(tmp_path, 8)
    primed, events, _ = go(tmp_path, 8, warmup_steps=3)
    assert [e["step"] for e in events if e["event"] == "warmup"] == [1, 2, 3]
    assert same(plain, primed)


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: float
) -> None:
    whole, _, _ = go(tmp_path / "whole", 6)
    real, calls = trainer._gradients, []

    def gradients(*arguments: Any) -> Any:
        losses, routings = real(*arguments)
        calls.append(1)
        return (losses | {"total": broken} if len(calls) == 7 else losses), routings

    monkeypatch.setattr(trainer, "_gradients", gradients)
    model = tiny()
    with pytest.raises(TrainingError, match=r"step 7; the largest finite gradient is .* in (body|embed)") as error:
        go(tmp_path / "run", 20, model=model)
    [checkpoint] = list_checkpoints(tmp_path / "run")
    assert str(checkpoint) in str(error.value)
    assert error.value.exit_code == 1
    tensors, _ = read_tensors(checkpoint)
    assert all(torch.isfinite(t.float()).all() for t in tensors.values())
    del whole


def test_a_weight_that_turned_nan_is_caught(tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():
        model.embed.weight[40] = math.nan
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        go(tmp_path, 5, model=model)


@pytest.mark.slow
def test_compiled_stages_train_alike(tmp_path: Path) -> None:
    eager = losses_of(go(tmp_path, 4)[1])
    _, events, _ = go(tmp_path, 4, compile="always", warmup_steps=1)
    assert events[0] == {"event": "compile", "stages": 3}
    compiled = losses_of(events)
    assert compiled[0] == pytest.approx(eager[0], rel=1e-5)
    assert compiled[1:] == pytest.approx(eager[1:], rel=1e-2)  # Muon works in bfloat16


def test_bfloat16_trains(tmp_path: Path) -> None:
    _, events, _ = go(tmp_path, 60, dtype="bfloat16")
    steps = [e for e in events if e["event"] == "step"]
    assert steps[-1]["loss"] < 0.6 * steps[0]["loss"]


def test_checkpoints_of_another_model_are_refused(tmp_path: Path) -> None:
    go(tmp_path, 3, checkpoint_every=3)
    torch.manual_seed(0)
    other = LM(ModelConfig(width=32, heads=2, kv_heads=1, main=StageConfig("T2")))
    with pytest.raises(ArtifactError, match=r"body\.levels\.0"):
        go(tmp_path, 6, model=other, resume=True)


def test_damaged_weight_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    model = tiny()
    save_tensors(path, dict(model.state_dict()), {})
    load_weights(model, read_tensors(path)[0], path)
    whole = path.read_bytes()
    for size in (0, 7, 100, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ArtifactError, match=r"w\.safetensors is damaged"):
            read_tensors(path)
    with pytest.raises(ArtifactError, match="no file"):
        read_tensors(tmp_path / "none")
    tensors = dict(model.state_dict())
    tensors["embed.weight"] = tensors["embed.weight"][:9]
    with pytest.raises(ArtifactError, match=r"embed\.weight has shape \(9, 32\), the model expects \(260, 32\)"):
        load_weights(model, tensors, path)


def test_device_names() -> None:
    assert trainer.pick_device("cpu").type == "cpu"
    for name in ("abacus", "cuda:99"):
        with pytest.raises(ConfigError, match=name):
            trainer.pick_device(name)
