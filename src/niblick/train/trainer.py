"""The training loop: reads top to bottom as the story of a run; clever parts live in the modules beside it.

The trainer tells what happens as events (plain dictionaries) to whoever listens; it prints and writes nothing but
checkpoints. Over several ranks all run the same loop; rank 0 alone writes.

Shapes: B batch, L positions.
"""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from niblick.data.loader import Batches
from niblick.errors import ConfigError, TrainingError
from niblick.model.lm import LM, Losses
from niblick.model.loss import Halves
from niblick.model.routers import Routing
from niblick.model.stage import Stage
from niblick.score.contiguous import PlainScore
from niblick.train.averaging import Averages
from niblick.train.checkpoint import (
    Parts,
    Progress,
    Stateful,
    list_checkpoints,
    load_checkpoint,
    save_checkpoint,
)
from niblick.train.distributed import SINGLE, Ranks, ignore_termination, is_lost, local_gradients
from niblick.train.guides import Guide
from niblick.train.optim import Optimizers
from niblick.train.precision import DTYPES, autocast, pick_dtype
from niblick.train.qat import QAT
from niblick.train.regularizers import Penalties
from niblick.train.routing import routing_facts
from niblick.train.schedule import Clock, Pace, ScheduleConfig
from niblick.train.settings import OptimConfig, TrainConfig
from niblick.train.watch import Watch

Emit = Callable[[dict[str, Any]], None]


PAUSED = "pause"
"""How a run ends that was to stop after some step."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    progress: Progress
    stopped: str | None
    """Name of the signal that ended it early, PAUSED, or None."""
    checkpoint: Path | None
    """The checkpoint that was written on the way out."""
    average: str = "raw"
    """Which weights the model has now: raw, ema or swa."""


def pick_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA, else MPS, else the CPU. Raises ConfigError if it is not here."""
    fastest = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(fastest if name == "auto" else name)
        torch.empty(0, device=device)
        return device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used here: choose auto, cpu, cuda or mps") from error


def compile_stages(model: LM, when: str, device: torch.device, emit: Emit, backend: Any = "inductor") -> None:
    """Compile the loss and every stage by itself, in place: a new number of chunks touches the inner stage alone.

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
    forward, backward = (torch.compile(half, dynamic=False, backend=backend) for half in model.halves)
    model.halves = Halves(forward, backward)
    emit({"event": "compile", "stages": sum(isinstance(m, Stage) for m in model.modules())})


class StopSignals:
    """Turns SIGINT and SIGTERM into a wish to stop after the step; a second one of them acts as usual."""

    def __init__(self) -> None:
        self.received = 0
        self._before: dict[int, Any] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        signal.signal(number, self._before[number])

    def __enter__(self) -> StopSignals:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Handlers can be set from the main thread alone; elsewhere signals keep their meaning.
            with contextlib.suppress(ValueError):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if error is not None and is_lost(error):
            ignore_termination()


class TrainingLoss(nn.Module):
    """A model's loss as one forward pass, which DistributedDataParallel can wrap: only the total has a gradient."""

    def __init__(self, model: LM) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, ids_BL: Tensor, targets_BL: Tensor, *, guide_BL: Tensor | None = None
    ) -> tuple[Tensor, Tensor, list[Routing]]:
        """Return the total to minimize, all terms of it (loss, total, ratio losses …), and what the routers did."""
        losses, routings = self.model(ids_BL, targets_BL, guide_BL=guide_BL)
        assert isinstance(losses, Losses)
        terms = torch.stack((losses.lm, losses.total, *losses.ratio)).detach()
        return losses.total, terms, [replace(r, p_BL=r.p_BL.detach()) for r in routings]


def train(
    model: LM,
    batches: Batches,
    config: TrainConfig,
    schedule: ScheduleConfig,
    optim: OptimConfig,
    *,
    checkpoints: Path | None,
    validate: Callable[[LM], PlainScore],
    emit: Emit,
    resume: bool = False,
    guide: Guide | None = None,
    ranks: Ranks = SINGLE,
    held_back: Callable[[], float] | None = None,
    rehearse: Callable[[], None] | None = None,
    qat: QAT | None = None,
    penalties: Penalties | None = None,
    extra: Parts | None = None,
    pause_after: int = 0,
    now: Callable[[], float] = time.perf_counter,
) -> Outcome:
    """Train until the budget of `schedule` is used up or a signal says stop. `batches` yields micro-batches.

    Without a folder for `checkpoints` none are written, signals keep their meaning, and nobody watches for spikes, dead
    routers and slow steps: so does a submission's script. `guide` is what `config.init_from` stands for: the outermost
    router's target over the first `init_steps` steps. `held_back` is the model's loss on training text held back for
    `train.average=best`, `rehearse` does what follows training, for its time. `qat` rounds weights from some step on,
    `penalties` are those of `config.penalties`. `extra` are more parts with state that checkpoints keep, by name. After
    step `pause_after` the model is validated once, and training stops with a checkpoint. On every rank all of these
    must be the same; `validate` and `held_back` are called on all and must give all the same.

    Raises TrainingError when the loss or the gradient is not finite; the state before that step is then the newest
    checkpoint. Raises StorageError if a checkpoint cannot be written; the one before it is then still whole.
    """
    device = next(model.parameters()).device
    passes = config.passes(ranks.size)
    optimizers = Optimizers(model, optim, ranks, DTYPES[pick_dtype(config.dtype, device)])
    averages = Averages(model, config.average, config.ema_decay) if config.average != "raw" else None
    parts: dict[str, Stateful] = {"optim": optimizers} | dict(extra or {})
    if averages:
        parts["average"] = averages
    if qat:
        parts["qat"] = qat
    unused = ranks.size > 1 and _has_unused(model, config, device, guide)
    compile_stages(model, config.compile, device, emit)
    newest = next(reversed(list_checkpoints(checkpoints)), None) if checkpoints and resume else None
    progress = load_checkpoint(newest, model, parts) if newest else Progress()
    if newest:
        emit({"event": "resume", "step": progress.step, "checkpoint": newest.name})
    forward = ranks.wrap(TrainingLoss(model), device, unused)
    batches.position = progress.position
    wall = Clock(progress.wall_seconds, now)
    if config.warmup_steps:
        _prime(model, forward, optimizers, batches, passes, config, device, ranks, emit, qat)
    if schedule.max_seconds is not None and schedule.reserve_seconds is None:
        reserve = _reserve(averages, held_back, rehearse, ranks, now)
        emit({"event": "reserve", "seconds": reserve})
        if reserve >= schedule.max_seconds:
            raise TrainingError(
                f"what follows training takes {reserve:.1f} s here, and schedule.max_seconds={schedule.max_seconds} "
                "leaves no time to train: raise it, or set schedule.reserve_seconds"
            )
        schedule = replace(schedule, reserve_seconds=reserve)
    clock, pace = Clock(progress.train_seconds, now), Pace()
    watch = Watch(progress.watch) if checkpoints else None
    signals = StopSignals() if checkpoints else None
    saved: Path | None = None

    def save(folder: Path) -> Path:
        progress.wall_seconds, progress.watch = wall.read(), watch.state() if watch else {}
        path = folder / f"step_{progress.step:08d}.safetensors"
        if ranks.main:
            path = save_checkpoint(folder, model, parts, progress, config.checkpoints_kept)
        ranks.barrier()
        emit(checkpoint_event(path))
        return path

    model.train()
    with signals or contextlib.nullcontext():
        while True:
            received = signals.received if signals else 0
            stopped, (progress.train_seconds, longest) = ranks.agree(received, (clock.read(), pace.longest))
            paused = bool(pause_after) and progress.step == pause_after < schedule.steps
            if paused and not stopped:
                with clock.paused():
                    score = validate(model)
                emit(progress_event("validation", progress, schedule) | {"loss": score.loss, "bpb": score.bpb})
            if checkpoints and (stopped or paused):
                saved = save(checkpoints)
                break
            if schedule.finished(progress.step, progress.train_seconds, longest):
                break
            if config.val_every and progress.step % config.val_every == 0:
                with clock.paused():
                    score = validate(model)
                emit(progress_event("validation", progress, schedule) | {"loss": score.loss, "bpb": score.bpb})
            started = clock.read()
            lr_scale = schedule.lr_scale(progress.step, progress.train_seconds)
            steered = guide if progress.step < config.init_steps else None
            left = 1 - schedule.progress(progress.step, progress.train_seconds)
            if qat and qat.prepare(progress.step, lr_scale, left):
                emit({"event": "qat", "step": progress.step + 1, "tensors": len(qat.weights)})
            losses, routings = _gradients(forward, batches, passes, config, device, steered, ranks, qat)
            losses |= penalties.add_gradients(progress.step) if penalties else {}
            norm = optimizers.clip()
            wrong = watch.spike(losses["total"] if math.isfinite(norm) else norm) if watch else None
            finite = math.isfinite(losses["total"]) and math.isfinite(norm)
            if checkpoints and wrong and config.rollback and not progress.rollbacks and list_checkpoints(checkpoints):
                progress, watch = _roll_back(checkpoints, model, parts, batches, progress, wrong, emit)
                continue
            if not finite:
                if checkpoints:
                    raise _not_finite(model, losses, progress, save(checkpoints))
                raise TrainingError(f"the loss is {losses['total']} at step {progress.step + 1}")
            if wrong:
                emit({"event": "warning", "step": progress.step + 1, "kind": "loss_spike", "message": wrong})
            optimizers.step(progress.step, lr_scale)
            model.zero_grad(set_to_none=True)
            if averages:
                averages.update(progress.step, lr_scale)
            _synchronize(device)
            progress.step += 1
            progress.position = batches.position
            progress.train_seconds = clock.read()
            seconds = progress.train_seconds - started
            pace.add(seconds)
            logged = watch and (progress.step % config.log_every == 0 or progress.step == 1)
            levels = [routing_facts(r) for r in routings] if logged else []
            emit(
                progress_event("step", progress, schedule)
                | losses
                | {"grad_norm": norm, "lr_scale": lr_scale, "tokens_per_second": config.batch_tokens / seconds}
                | ({"levels": levels} if logged and levels else {})
            )
            for warning in watch.routers.warnings(levels) if watch else ():
                emit(warning | {"step": progress.step, "kind": "dead_router"})
            if watch and (slow := watch.slow(seconds, config.batch_tokens)):
                emit({"event": "warning", "step": progress.step, "kind": "throughput", "message": slow})
            if checkpoints and config.checkpoint_every and progress.step % config.checkpoint_every == 0:
                save(checkpoints)
    kind = "raw"
    if not saved:
        kind, costs = averages.finish(held_back) if averages else ("raw", {})
        _, (progress.train_seconds,) = ranks.agree(0, (clock.read(),))
        if averages:
            emit({"event": "average", "step": progress.step, "chosen": kind, "losses": costs})
    progress.wall_seconds = wall.read()
    why = None if not saved else signal.Signals(stopped).name if stopped else PAUSED
    return Outcome(progress, why, saved, kind)


def _gradients(
    forward: nn.Module,
    batches: Batches,
    passes: int,
    config: TrainConfig,
    device: torch.device,
    guide: Guide | None = None,
    ranks: Ranks = SINGLE,
    qat: QAT | None = None,
) -> tuple[dict[str, float], list[Routing]]:
    """Forward and backward over the micro-batches of one step. Returns mean loss terms and the last routings.

    Gradients and loss terms are means over all passes of all ranks, routings this rank's own.
    """
    sums: list[Tensor] = []
    routings: list[Routing] = []
    for i in range(passes):
        ids_BL, targets_BL = (t.to(device, non_blocking=True) for t in batches.next())
        more = i + 1 < passes
        with (
            local_gradients(forward) if more else contextlib.nullcontext(),
            qat.in_place() if qat else contextlib.nullcontext(),
        ):
            with autocast(device, config.dtype):
                total, terms, routings = (
                    forward(ids_BL, targets_BL, guide_BL=guide(ids_BL)) if guide else forward(ids_BL, targets_BL)
                )
            (total / (passes * ranks.size)).backward()
        sums.append(terms)
    means = torch.stack(sums).mean(0).tolist()
    lm, total_mean, *ratio = [value / ranks.size for value in ranks.sum(means)]
    return {"loss": lm, "total": total_mean} | {f"ratio_loss_{i}": r for i, r in enumerate(ratio)}, routings


def _has_unused(model: LM, config: TrainConfig, device: torch.device, guide: Guide | None) -> bool:
    """Whether some weight gets no gradient, by trying it on one row: DistributedDataParallel must know."""
    ids_BL = (torch.arange(config.seq_len, device=device) % model.config.vocab_size)[None]
    for target_BL in (None, guide(ids_BL)) if guide else (None,):
        with autocast(device, config.dtype):
            losses, _ = model(ids_BL, ids_BL, guide_BL=target_BL)
        losses.total.backward()
        missing = [p for p in model.parameters() if p.requires_grad and p.grad is None]
        model.zero_grad(set_to_none=True)
        if missing:
            return True
    return False


def _prime(
    model: LM,
    forward: nn.Module,
    optimizers: Optimizers,
    batches: Batches,
    passes: int,
    config: TrainConfig,
    device: torch.device,
    ranks: Ranks,
    emit: Emit,
    qat: QAT | None = None,
) -> None:
    """Take `warmup_steps` real steps, then put everything back."""
    position = batches.position
    before = copy.deepcopy((model.state_dict(), [optimizer.state_dict() for optimizer in optimizers.parts]))
    model.train()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        for i in range(config.warmup_steps):
            _gradients(forward, batches, passes, config, device, None, ranks, qat)
            optimizers.step(i, 1.0)
            model.zero_grad(set_to_none=True)
            emit({"event": "warmup", "step": i + 1, "steps": config.warmup_steps})
    model.load_state_dict(before[0])
    for optimizer, state in zip(optimizers.parts, before[1], strict=True):
        optimizer.load_state_dict(state)
    batches.position = position


def _reserve(
    averages: Averages | None,
    held_back: Callable[[], float] | None,
    rehearse: Callable[[], None] | None,
    ranks: Ranks,
    now: Callable[[], float],
) -> float:
    """Seconds that choosing among averages, and what follows training, take when tried now."""
    started = now()
    if averages:
        if averages.choice == "best" and held_back:
            held_back()
        started -= (now() - started) * len(averages.kinds)  # it will be called once more for each of them
    if rehearse and ranks.main:
        rehearse()
    return ranks.agree(0, (now() - started,))[1][0]


def _roll_back(
    checkpoints: Path,
    model: LM,
    parts: Parts,
    batches: Batches,
    progress: Progress,
    wrong: str,
    emit: Emit,
) -> tuple[Progress, Watch]:
    """Go back to the last checkpoint, but not in the data: the batches that went wrong are behind."""
    model.zero_grad(set_to_none=True)
    path = list_checkpoints(checkpoints)[-1]
    back = load_checkpoint(path, model, parts)
    emit({"event": "warning", "step": progress.step + 1, "kind": "loss_spike", "message": wrong})
    message = f"rolled back to step {back.step}: {wrong}"
    emit({"event": "rollback", "step": progress.step + 1, "to": back.step, "checkpoint": path.name, "message": message})
    back.position, back.rollbacks = batches.position, progress.rollbacks + 1
    return back, Watch(back.watch)


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


def checkpoint_event(path: Path) -> dict[str, Any]:
    """Return the event that says that a checkpoint has been written."""
    return {"event": "checkpoint", "step": int(path.stem.removeprefix("step_")), "file": path.name}


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
