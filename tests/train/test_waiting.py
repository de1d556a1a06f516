"""How often a host waits for its GPU while it trains, counted on the CPU; and batches copied ahead of their step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_trainer import batches, go, tiny
from torch import Tensor
from waits import count_waits

from niblick.model.lm import LM
from niblick.model.model_config import LevelConfig, ModelConfig, StageConfig
from niblick.model.routers import ROUTERS
from niblick.pack.export_config import ExportConfig
from niblick.recipes.presets import get_preset
from niblick.train.copystream import CopyStream
from niblick.train.qat import QAT
from niblick.train.regularizers import Penalties
from niblick.train.settings import OptimConfig, PenaltyConfig, QATConfig

STEPS = 5


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x.tolist(),
        lambda x: x.numpy(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: float(x[0]),
        lambda x: bool(x.any()),
        lambda x: x.repeat_interleave(torch.ones(4, dtype=torch.long)),
        lambda x: torch.linalg.cholesky(torch.eye(2)),
    ],
)
def test_waits_are_counted(work: Callable[[Tensor], object]) -> None:
    x = torch.arange(4.0)
    assert count_waits(lambda: work(x)) == 1
    assert count_waits(lambda: (x + 1).exp().cumsum(0)[x.long()]) == 0


def small(preset: str, **changes: Any) -> ModelConfig:
    """The preset's model, narrower; `changes` are of its outermost level."""
    model = replace(get_preset(preset).model, width=32, heads=2, kv_heads=1)
    return replace(model, levels=(replace(model.levels[0], **changes),)) if changes else model


@pytest.mark.parametrize("rows", [4, 1])
@pytest.mark.parametrize(("capacity", "reads"), [("bucketed", 1), ("packed", 1), ("divisor:4", 0)])
def test_a_step_waits_once_and_a_pass_for_its_chunks(capacity: str, reads: int, rows: int) -> None:
    """Loss terms and gradient norm come in one copy; each pass reads its number of chunks, and no more."""
    model, optim = LM(small("hnet-small", capacity=capacity)), OptimConfig(grad_clip=1.0)
    assert count_waits(lambda: go(None, STEPS, model=model, rows=rows, optim=optim)) == STEPS * (1 + reads * 4 // rows)


def test_weights_that_are_rounded_wait_no_more() -> None:
    """Between two fits of the grids; a penalty is read with the loss."""
    model = tiny()
    qat = QAT(model, QATConfig(share=1.0), ExportConfig(scheme="int4", prune=0.1))
    penalties = Penalties(model, (PenaltyConfig("outliers", 0.1),), ExportConfig(scheme="int4"))
    go(None, 1, model=model, options={"qat": qat})
    once = 1 + 1 + 1  # the chunks, the loss, and what looks like one: matrices are drawn on the host
    assert count_waits(lambda: go(None, STEPS, model=model, options={"penalties": penalties})) == STEPS * once
    assert count_waits(lambda: [qat.prepare(step, 1.0, 0.5) for step in range(1, STEPS)]) == 0


def test_a_logged_step_waits_once_more(tmp_path: Path) -> None:
    """For what the router did. The first ten steps are logged, and every fifth here."""
    once = count_waits(lambda: go(tmp_path / "a", STEPS, model=tiny(), checkpoint_every=0))
    assert once == STEPS * (1 + 1 + 1)


@pytest.mark.parametrize("router", sorted(ROUTERS.keys() - {"entropy", "given", "whitespace"}))
def test_no_router_waits(router: str) -> None:
    """Forward and backward: the number of chunks alone, and of a soft level not even that."""
    stage = StageConfig("T1")
    level = LevelConfig(stage, stage, router=router)
    model = LM(ModelConfig(width=32, heads=2, kv_heads=1, levels=(level,), main=stage))
    ids_BL, targets_BL = batches().next()
    assert count_waits(lambda: model(ids_BL, targets_BL)[0].total.backward()) == (router != "soft")


class Stream:
    """A stream that only tells what it is asked."""

    device = torch.device("cpu")

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told, self.events = name, told, 0

    def record_event(self) -> str:
        self.events += 1
        self.told.append(f"{self.name} records {self.events}")
        return f"event {self.events}"

    def wait_event(self, event: str) -> None:
        self.told.append(f"{self.name} waits for {event}")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the streams of a GPU are asked, which there need not be."""
    told: list[str] = []
    main, inside = Stream("main", told), threading.local()

    @contextmanager
    def entered(stream: Stream) -> Any:
        inside.stream = stream
        yield
        inside.stream = None

    def pinned(t: Tensor) -> Tensor:
        assert threading.current_thread() is not threading.main_thread()
        told.append(f"{inside.stream.name} copies")
        return t.clone()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("side", told))
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: main)
    monkeypatch.setattr(Tensor, "pin_memory", pinned)
    monkeypatch.setattr(Tensor, "record_stream", lambda t, stream: told.append(f"held for {stream.name}"))
    return told


def test_a_batch_is_copied_ahead_and_waited_for_on_the_device(told: list[str]) -> None:
    """The next batch is on its way before it is asked for; the main stream waits for the copy, and holds its memory."""
    plain, ahead = batches(), batches(send=CopyStream(torch.device("cpu")))
    for n in (1, 2, 3):
        ours, theirs = ahead.next(), plain.next()
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert ahead.position == plain.position
        assert ahead._ahead is not None
        ahead._ahead[1].result()
        assert told == (n == 1) * ["side copies", "side copies", "side records 1"] + [
            *(f"main waits for event {n}", "held for main", "held for main"),
            *("side copies", "side copies", f"side records {n + 1}"),
        ]
        told.clear()


def test_batches_copied_ahead_train_the_same(told: list[str]) -> None:
    """To the bit, and through a warm-up, which goes back in the data."""
    weights = []
    for data in (batches(), batches(send=CopyStream(torch.device("cpu")))):
        model, _, _ = go(None, STEPS, data=data, warmup_steps=2)
        weights.append(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))
    assert "main waits for event 1" in told
