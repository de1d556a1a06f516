"""The training loop: reads top to bottom as the story of a run; clever parts live in the modules beside it.

The trainer tells what happens as events (plain dictionaries) to whoever listens; it prints and writes nothing but
checkpoints.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from niblick.data.loader import Batches
from niblick.errors import ConfigError, TrainingError
from niblick.model.lm import LM, Losses
from niblick.model.routers import Routing
from niblick.model.stage import Stage
from niblick.score.scorers import Score
from niblick.train.checkpoint import Progress, list_checkpoints, load_checkpoint, save_checkpoint
from niblick.train.guides import Guide
from niblick.train.optim import OptimConfig, Optimizers
from niblick.train.routing import CollapseWatch, routing_facts
from niblick.train.schedule import ScheduleConfig

Emit = Callable[[dict[str, Any]], None]
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class TrainConfig:
    """One process's training loop."""

    seq_len: int = 1024
    batch_tokens: int = 524_288
    """Tokens of one optimizer step."""
    micro_batch_tokens: int = 65_536
    """Tokens of one forward and backward pass; a step accumulates the gradients of several such passes."""
    warmup_steps: int = 20
    """Steps that prime compilation and are then undone: weights, optimizers and data go back to the start."""
    val_every: int = 1_000
    """Steps between validations; 0 for one at the end alone."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0 for one only when the run is stopped."""
    log_every: int = 200
    """Steps between lines of the log."""
    init_from: str = ""
    """Boundaries that the outermost router is trained towards at first: `whitespace`, `bpe:FILE.model` (the edges of
    a SentencePiece model's tokens), `entropy` (of the small model `entropy.artifact`); empty: none."""
    init_steps: int = 500
    """Steps of that; then the router is free."""
    device: str = "auto"
    dtype: str = "bfloat16"
    """Autocast dtype: bfloat16 or float32. Weights and optimizer stay float32."""
    compile: str = "auto"
    """Compile each stage by itself: always, never, or auto (on CUDA)."""

    def __post_init__(self) -> None:
        if self.seq_len < 2:
            raise ConfigError(f"train.seq_len={self.seq_len} must be at least 2")
        if self.micro_batch_tokens % self.seq_len:
            raise ConfigError(
                f"train.micro_batch_tokens={self.micro_batch_tokens} must be a multiple of train.seq_len={self.seq_len}"
            )
        if self.batch_tokens % self.micro_batch_tokens:
            raise ConfigError(
                f"train.batch_tokens={self.batch_tokens} must be a multiple of "
                f"train.micro_batch_tokens={self.micro_batch_tokens}"
            )
        if self.init_steps < 0:
            raise ConfigError(f"train.init_steps={self.init_steps} must not be negative")
        if self.dtype not in DTYPES:
            raise ConfigError(f"train.dtype={self.dtype!r} must be one of {', '.join(DTYPES)}")
        if self.compile not in ("always", "never", "auto"):
            raise ConfigError(f"train.compile={self.compile!r} must be always, never or auto")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    progress: Progress
    stopped: str | None
    """Name of the signal that ended it early, or None."""
    checkpoint: Path | None
    """The checkpoint that was written on the way out."""


def pick_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA, else MPS, else the CPU. Raises ConfigError if it is not here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: choose auto, cpu, cuda or mps") from error


def autocast(device: torch.device, dtype: str) -> contextlib.AbstractContextManager[Any]:
    """Return the autocast context for a dtype of TrainConfig."""
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "float32")


def compile_stages(model: LM, when: str, device: torch.device, emit: Emit, backend: Any = "inductor") -> None:
    """Compile every stage by itself, in place, so that a new number of chunks touches the inner stage alone.

    From then on levels round their chunk counts to a few shares of the sequence, so that no stage sees more than
    len(COMPILED_SHARES) shapes.
    """
    if when == "never" or (when == "auto" and device.type != "cuda"):
        return
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    for module in model.modules():
        if isinstance(module, Stage):
            module.compile(dynamic=False, backend=backend)
    model.body.few_shapes = True
    emit({"event": "compile", "stages": sum(isinstance(m, Stage) for m in model.modules())})


class StopSignals:
    """Turns SIGINT and SIGTERM into a wish to stop after the step; a second one of them acts as usual."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        signal.signal(number, self._before[number])

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Handlers can be set from the main thread alone; elsewhere signals keep their meaning.
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def train(
    model: LM,
    batches: Batches,
    config: TrainConfig,
    schedule: ScheduleConfig,
    optim: OptimConfig,
    *,
    checkpoints: Path,
    validate: Callable[[LM], Score],
    emit: Emit,
    resume: bool = False,
    guide: Guide | None = None,
) -> Outcome:
    """Train until the budget of `schedule` is used up or a signal says stop. `batches` yields micro-batches.

    `guide` is what `config.init_from` stands for: the outermost router's target over the first `init_steps` steps.

    Raises TrainingError when the loss is not finite; the state before that step is then the newest checkpoint.
    """
    device = next(model.parameters()).device
    optimizers = Optimizers(model, optim)
    progress = Progress()
    compile_stages(model, config.compile, device, emit)
    newest = list_checkpoints(checkpoints)[-1:] if resume else []
    if newest:
        progress = load_checkpoint(newest[0], model, optimizers)
        emit({"event": "resume", "step": progress.step, "checkpoint": newest[0].name})
    if config.warmup_steps and not newest:
        optimizers = _prime(model, optimizers, batches, config, optim, emit)
    batches.position = progress.position
    accumulate = config.batch_tokens // config.micro_batch_tokens
    started = time.perf_counter() - progress.wall_seconds
    saved: Path | None = None
    watch = CollapseWatch()

    def run_validation() -> None:
        score = validate(model)
        emit(progress_event("validation", progress, schedule) | {"loss": score.loss, "bpb": score.bpb})

    def save() -> Path:
        progress.wall_seconds = time.perf_counter() - started
        path = save_checkpoint(checkpoints, model, optimizers, progress)
        emit({"event": "checkpoint", "step": progress.step, "file": path.name})
        return path

    model.train()
    with StopSignals() as stop:
        while not schedule.finished(progress.step, progress.train_seconds):
            if config.val_every and progress.step % config.val_every == 0:
                run_validation()
            step_started = time.perf_counter()
            lr_scale = schedule.lr_scale(progress.step, progress.train_seconds)
            steered = guide if progress.step < config.init_steps else None
            losses, routings = _gradients(model, batches, accumulate, config, device, steered)
            if not math.isfinite(losses["total"]):
                raise _not_finite(model, losses, progress, save())
            optimizers.step(progress.step, lr_scale)
            model.zero_grad(set_to_none=True)
            _synchronize(device)
            seconds = time.perf_counter() - step_started
            progress.step += 1
            progress.position = batches.position
            progress.train_seconds += seconds
            logged = progress.step % config.log_every == 0 or progress.step == 1
            levels = [routing_facts(r) for r in routings] if logged else []
            emit(
                progress_event("step", progress, schedule)
                | losses
                | {"lr_scale": lr_scale, "tokens_per_second": config.batch_tokens / seconds}
                | ({"levels": levels} if levels else {})
            )
            for warning in watch.warnings(levels):
                emit(warning | {"step": progress.step})
            if stop.received:
                saved = save()
                break
            if config.checkpoint_every and progress.step % config.checkpoint_every == 0:
                save()
    progress.wall_seconds = time.perf_counter() - started
    return Outcome(progress, stop.received, saved)


def _gradients(
    model: LM, batches: Batches, accumulate: int, config: TrainConfig, device: torch.device, guide: Guide | None = None
) -> tuple[dict[str, float], list[Routing]]:
    """Forward and backward over the micro-batches of one step. Returns mean loss terms and the last routings."""
    sums: list[Tensor] = []
    routings: list[Routing] = []
    for _ in range(accumulate):
        ids_BL, targets_BL = batches.next()
        with autocast(device, config.dtype):
            ids_BL, targets_BL = (t.to(device, non_blocking=True) for t in (ids_BL, targets_BL))
            losses, routings = model(ids_BL, targets_BL, guide_BL=guide(ids_BL) if guide else None)
        assert isinstance(losses, Losses)
        (losses.total / accumulate).backward()
        sums.append(torch.stack((losses.lm, losses.total, *losses.ratio)).detach())
    lm, total, *ratio = torch.stack(sums).mean(0).tolist()
    return {"loss": lm, "total": total} | {f"ratio_loss_{i}": r for i, r in enumerate(ratio)}, routings


def _prime(
    model: LM, optimizers: Optimizers, batches: Batches, config: TrainConfig, optim: OptimConfig, emit: Emit
) -> Optimizers:
    """Take `warmup_steps` real steps, then put everything back. Returns fresh optimizers."""
    device = next(model.parameters()).device
    weights = deepcopy(model.state_dict())
    random, position = torch.get_rng_state(), batches.position
    accumulate = config.batch_tokens // config.micro_batch_tokens
    model.train()
    for i in range(config.warmup_steps):
        _gradients(model, batches, accumulate, config, device)
        optimizers.step(i, 1.0)
        model.zero_grad(set_to_none=True)
        emit({"event": "warmup", "step": i + 1, "steps": config.warmup_steps})
    model.load_state_dict(weights)
    torch.set_rng_state(random)
    batches.position = position
    return Optimizers(model, optim)


def progress_event(kind: str, progress: Progress, schedule: ScheduleConfig) -> dict[str, Any]:
    """Return an event of this kind that says how far the run is."""
    share = schedule.progress(progress.step, progress.train_seconds)
    eta = progress.train_seconds * (1 - share) / share if share else None
    return {
        "event": kind,
        "step": progress.step,
        "steps": schedule.steps,
        "train_seconds": progress.train_seconds,
        "progress": share,
        "eta_seconds": eta,
    }


def _not_finite(model: LM, losses: dict[str, float], progress: Progress, checkpoint: Path) -> TrainingError:
    norms = {n: float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    finite = {n: g for n, g in norms.items() if math.isfinite(g)}
    broken = len(norms) - len(finite)
    largest = max(finite, key=finite.__getitem__, default=None)
    gradient = (
        f"the largest finite gradient is {finite[largest]:.3g} in {largest}" if largest else "no gradient is finite"
    )
    return TrainingError(
        f"the loss is {losses['total']} at step {progress.step + 1}; {gradient} ({broken} of {len(norms)} "
        f"gradients are not finite); the last good state is {checkpoint}: "
        "start anew with a lower learning rate or a gradient clip (optim.grad_clip=1)"
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
