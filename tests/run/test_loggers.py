"""TensorBoard and W&B beside a run: off unless asked, never online here, and never a reason to lose a run."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from rundirs import training

from niblick.errors import ConfigError
from niblick.facts.event_lines import read_event
from niblick.facts.events import Event
from niblick.run import loggers
from niblick.run.loggers import Loggers, scalars


def tell(names: list[str], run: Path) -> tuple[list[Event], list[str]]:
    """Tell a short training to loggers. Returns what the listener heard, and what was said."""
    run.mkdir()
    (run / "config.json").write_text('{"preset": "toy"}')
    heard: list[Event] = []
    said: list[str] = []
    with Loggers(names, heard.append, said.append) as listen:
        for event in [*training(4), {"event": "score", "bpb": 2.25, "total_bytes": 10}]:
            listen(replace(read_event(event), run=str(run)))
    return heard, said


def test_nothing_is_written_unless_asked(tmp_path: Path) -> None:
    heard, _ = tell([], tmp_path / "a-1")
    assert len(heard) == 7
    assert [path.name for path in (tmp_path / "a-1").iterdir()] == ["config.json"]


@pytest.mark.slow
def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    heard, said = tell(["tensorboard"], tmp_path / "a-1")
    assert (len(heard), said) == (7, [])
    found = EventAccumulator(str(tmp_path / "a-1" / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in found.Scalars("final/bpb")] == [(4, 2.25)]
    assert [e.step for e in found.Scalars("train/bpb")] == [1, 2, 3, 4]
    assert found.Scalars("level0/boundary_rate")[0].value == pytest.approx(0.3)


@pytest.mark.slow
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")  # even if the code should forget
    heard, said = tell(["wandb-offline"], tmp_path / "a-1")
    assert (len(heard), said) == (7, [])
    (record,) = (tmp_path / "a-1").glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + 30  # another process writes it, and may do so after the run is finished here
    while b"validation/bpb" not in record.read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_logger_that_fails_is_left_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        calls = 0

        def log(self, step: int, found: dict[str, float]) -> None:
            Failing.calls += 1
            raise OSError("no space left")

        def close(self) -> None:
            pytest.fail("it is left away")

    monkeypatch.setattr(loggers, "_make", lambda *_: Failing())
    heard, said = tell(["tensorboard"], tmp_path / "a-1")
    assert (len(heard), Failing.calls) == (7, 1)
    assert said == ["the logger tensorboard failed and is left away from here on: no space left"]


def test_loggers_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="tensorboard"):
        Loggers(["tensorbord"], print, print)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"niblick\[wandb\]"):
        Loggers(["wandb"], print, print)


def test_scalars_are_finite() -> None:
    event = {"event": "step", "step": 1, "loss": float("nan"), "grad_norm": 1.0, "tokens_per_second": 2.0}
    assert scalars(read_event(event), 2.0) == {"train/grad_norm": 1.0, "train/bytes_per_second": 4.0}
    assert scalars(read_event({"event": "checkpoint", "step": 1}), None) == {}
