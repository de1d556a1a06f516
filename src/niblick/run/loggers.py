"""What a run tells while it trains, handed on to TensorBoard or Weights & Biases. Off unless `--log` asks.

The run directory stays the truth: a logger that fails is reported and left away, and the run goes on.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

from niblick.errors import ConfigError, nearest
from niblick.facts.events import Emit, Event, Moment, Scored, Start, Step, Validation
from niblick.files import read_json

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "wandb-offline": "wandb"}
"""The loggers, and the package each of them needs."""

PROJECT = "niblick"
"""Project of the runs in Weights & Biases."""


class Logger(Protocol):
    """Takes scalars of one run."""

    def log(self, step: int, scalars: dict[str, float]) -> None:
        """Take scalars by name, as they are after this step."""

    def close(self) -> None:
        """Write what is still to be written."""


class TensorBoard:
    """Event files in `tensorboard/` of the run: `tensorboard --logdir runs` shows them."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))

    def log(self, step: int, scalars: dict[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run in Weights & Biases, with its config; offline, `wandb sync` brings it there later."""

    def __init__(self, run: Path, offline: bool) -> None:
        import wandb

        self._run = wandb.init(
            project=PROJECT,
            name=run.name,
            dir=str(run),
            config=read_json(run / "config.json"),
            mode="offline" if offline else None,
            settings=wandb.Settings(console="off", silent=True, save_code=False, disable_git=True),
        )

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self._run.log(scalars, step=step)

    def close(self) -> None:
        self._run.finish()


class Loggers:
    """A listener of `pipeline.run` that tells every run to its own loggers, after `listen` has heard of it."""

    def __init__(self, names: Iterable[str], listen: Emit, say: Callable[[str], None]):
        """Raise ConfigError for a logger that is unknown or not installed."""
        self.names = list(dict.fromkeys(names))
        for name in self.names:
            if name not in PACKAGES:
                raise ConfigError(f"there is no logger {name!r}{nearest(name, PACKAGES)}")
            if importlib.util.find_spec(PACKAGES[name]) is None:
                package = PACKAGES[name]
                raise ConfigError(f"--log {name} needs the package {package}: pip install 'niblick[{package}]'")
        self._listen, self._say = listen, say
        self._run = ""
        self._per_token: float | None = None
        self._step = 0
        self._open: dict[str, Logger] = {}

    def __enter__(self) -> Loggers:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __call__(self, event: Event) -> None:
        """Hear an event."""
        self._listen(event)
        if not self.names:
            return
        if event.run != self._run:
            self.close()
            self._run, self._step = event.run, 0
            for name in self.names:
                with self._kept_going(name):
                    self._open[name] = _make(name, Path(self._run))
        if isinstance(event, Start):
            self._per_token = event.bytes_per_token
        if isinstance(event, Moment):
            self._step = max(self._step, event.step)
        found = scalars(event, self._per_token)
        for name, logger in list(self._open.items()):
            if found:
                with self._kept_going(name):
                    logger.log(self._step, found)

    def close(self) -> None:
        """Close the loggers of the run."""
        for name, logger in list(self._open.items()):
            with self._kept_going(name):
                logger.close()
        self._open = {}

    @contextlib.contextmanager
    def _kept_going(self, name: str) -> Any:
        try:
            yield
        except Exception as error:  # whatever it is, it is no reason to lose a run
            self._open.pop(name, None)
            self._say(f"the logger {name} failed and is left away from here on: {error}")


def _make(name: str, run: Path) -> Logger:
    return TensorBoard(run) if name == "tensorboard" else Wandb(run, offline=name == "wandb-offline")


def scalars(event: Event, bytes_per_token: float | None) -> dict[str, float]:
    """Return the finite scalars of an event, by the names they are shown under; empty for events without any."""
    found: dict[str, float | None] = {}
    if isinstance(event, Step):
        found = {f"train/{key}": getattr(event, key) for key in ("loss", "total", "lr_scale", "grad_norm")}
        if bytes_per_token:
            found["train/bpb"] = event.loss / math.log(2) / bytes_per_token
            found["train/bytes_per_second"] = (event.tokens_per_second or 0.0) * bytes_per_token
        for number, level in enumerate(event.levels):
            found |= {f"level{number}/{key}": value for key, value in level.items()}
    elif isinstance(event, Validation):
        found = {"validation/bpb": event.bpb, "validation/loss": event.loss}
    elif isinstance(event, Scored):
        found = {"final/bpb": event.bpb, "final/total_bytes": event.total_bytes}
    return {name: float(value) for name, value in found.items() if value is not None and math.isfinite(value)}
