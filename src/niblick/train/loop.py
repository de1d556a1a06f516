"""The training loop: reads top to bottom as the story of a run; clever parts live in the modules beside it.

The loop tells what happens as events to whoever listens; it prints and writes nothing but
checkpoints. Over several ranks all run the same loop; rank 0 alone writes.
"""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from niblick.data.loader import Batches
from niblick.errors import TrainingError
from niblick.facts.events import Average, Emit, Reserve, Resume, Rollback, Rounding, Step, Trouble, Validation
from niblick.model.lm import LM
from niblick.model.plain_routers import Routing
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
from niblick.train.distributed import SINGLE, Ranks
from niblick.train.guides import Guide
from niblick.train.optim import Optimizers
from niblick.train.precision import DTYPES, pick_dtype
from niblick.train.qat import QAT
from niblick.train.regularizers import Penalties
from niblick.train.routing import routing_facts
from niblick.train.schedule import Clock, Pace, ScheduleConfig
from niblick.train.settings import OptimConfig, TrainConfig
from niblick.train.signals import PAUSED, Outcome, StopSignals
from niblick.train.step import Rig, TrainingLoss, compile_stages, gradients, has_unused, prime, read, synchronize
from niblick.train.telling import LogTimes, checkpoint_event, moment
from niblick.train.watch import Watch

CHECKPOINT_SECONDS = 600.0
"""Seconds of training between checkpoints where no number of steps is given."""


@dataclass(frozen=True)
class Hooks:
    """What training calls on the way. On every rank these must be there alike; `validate` and `held_back` are called on
    all, and must give all the same."""

    emit: Emit
    validate: Callable[[LM], PlainScore]
    held_back: Callable[[], float] | None = None
    """The model's loss on training text held back for `train.average=best`."""
    sample: Callable[[LM], str] | None = None
    """Lets the model write a text, on the first rank alone."""
    rehearse: Callable[[], None] | None = None
    """Does what follows training, for the time that takes."""
    now: Callable[[], float] = time.perf_counter


@dataclass(frozen=True)
class Aids:
    """What helps or presses a model while it is trained."""

    guide: Guide | None = None
    """What `config.init_from` stands for: the outermost router's target over the first `init_steps` steps."""
    qat: QAT | None = None
    """Rounds weights from some step on."""
    penalties: Penalties | None = None
    """Those of `config.penalties`."""
    extra: Parts = field(default_factory=dict)
    """More parts with state that checkpoints keep, by name."""


@dataclass(frozen=True)
class Keeping:
    """Where checkpoints are kept."""

    folder: Path
    resume: bool = False
    """Go on from the newest one."""
    pause_after: int = 0
    """The step after which the model is validated once, and training stops with a checkpoint; 0: none."""


@dataclass(frozen=True)
class Recipe:
    """How a model is trained."""

    train: TrainConfig
    schedule: ScheduleConfig
    optim: OptimConfig


def train(
    model: LM,
    batches: Batches,
    recipe: Recipe,
    hooks: Hooks,
    *,
    aids: Aids | None = None,
    ranks: Ranks = SINGLE,
    keeping: Keeping | None = None,
) -> Outcome:
    """Train until the budget of the schedule is used up or a signal says stop. `batches` yields micro-batches.

    Without `keeping` no checkpoints are written, signals keep their meaning, and nobody watches for spikes, dead
    routers and slow steps: so does a submission's script. On every rank all arguments must be the same.

    Raises TrainingError when the loss or the gradient is not finite; the state before that step is then the newest
    checkpoint. Raises StorageError if a checkpoint cannot be written; the one before it is then still whole.
    """
    signals = StopSignals() if keeping else None
    with signals or contextlib.nullcontext():  # from before warm-up, which may be long
        training = _Training(model, batches, recipe, hooks, aids or Aids(), ranks, keeping, signals)
        end = training.run()
    return training.outcome(*end)


class _Training:
    """The state of one training."""

    def __init__(
        self,
        model: LM,
        batches: Batches,
        recipe: Recipe,
        hooks: Hooks,
        aids: Aids,
        ranks: Ranks,
        keeping: Keeping | None,
        signals: StopSignals | None,
    ) -> None:
        self.model, self.batches, self.hooks, self.aids = model, batches, hooks, aids
        self.config, self.schedule, self.ranks, self.keeping = recipe.train, recipe.schedule, ranks, keeping
        self.signals = signals
        config, device = recipe.train, next(model.parameters()).device
        self.emit = hooks.emit
        config.passes(ranks.size)
        self.optimizers = Optimizers(model, recipe.optim, ranks, DTYPES[pick_dtype(config.dtype, device)])
        self.averages = Averages(model, config.average, config.ema_decay) if config.average != "raw" else None
        self.parts: dict[str, Stateful] = {"optim": self.optimizers} | dict(aids.extra)
        if self.averages:
            self.parts["average"] = self.averages
        if aids.qat:
            self.parts["qat"] = aids.qat
        unused = ranks.size > 1 and has_unused(model, config, device, aids.guide)
        compile_stages(model, config.compile, device, self.emit)
        self.progress = self._resumed(keeping.folder) if keeping and keeping.resume else Progress()
        forward = ranks.wrap(TrainingLoss(model), device, unused)
        self.rig = Rig(model, forward, batches, config, device, ranks, aids.qat)
        batches.position = self.progress.position
        self.wall = Clock(self.progress.wall_seconds, hooks.now)
        if config.warmup_steps:
            prime(self.rig, self.optimizers, self.emit, lambda: bool(self._stopped()))
        measured = self.schedule.max_seconds is not None and self.schedule.reserve_seconds is None
        if self.schedule.max_seconds is not None and measured and not self._stopped():
            self.schedule = replace(self.schedule, reserve_seconds=self._reserve(self.schedule.max_seconds))
        self.clock, self.pace = Clock(self.progress.train_seconds, hooks.now), Pace()
        self.kept_at = self.progress.train_seconds
        self.watch = Watch(self.progress.watch) if keeping else None
        self.log_times = LogTimes(config.log_every)

    def _resumed(self, folder: Path) -> Progress:
        """Go back to the newest checkpoint, if there is one."""
        newest = next(reversed(list_checkpoints(folder)), None)
        if newest is None:
            return Progress()
        progress = load_checkpoint(newest, self.model, self.parts)
        self.emit(Resume(step=progress.step, checkpoint=newest.name))
        return progress

    def _reserve(self, limit: float) -> float:
        """Seconds that choosing among averages, and what follows training, take when tried now."""
        averages, held_back, rehearse, now = self.averages, self.hooks.held_back, self.hooks.rehearse, self.hooks.now
        started = now()
        if averages:
            if averages.choice == "best" and held_back:
                held_back()
            started -= (now() - started) * len(averages.kinds)  # it will be called once more for each of them
        if rehearse and self.ranks.main:
            rehearse()
        reserve = self.ranks.agree(0, (now() - started,))[1][0]
        self.emit(Reserve(seconds=reserve))
        if reserve >= limit and not self.schedule.min_steps:
            raise TrainingError(
                f"what follows training takes {reserve:.1f} s here, and schedule.max_seconds={limit} "
                "leaves no time to train: raise it, or set schedule.reserve_seconds"
            )
        return min(reserve, 0.99 * limit)  # where a floor of steps rules, whatever the time

    def _stopped(self) -> int:
        """The signal that any rank has received, or 0."""
        return self.ranks.agree(self.signals.received if self.signals else 0)[0]

    def run(self) -> tuple[Path | None, int]:
        """Step until something ends it: return the checkpoint written on the way out, and the signal."""
        self.model.train()
        while (end := self._end()) is None:
            self._step()
        return end

    def outcome(self, saved: Path | None, stopped: int) -> Outcome:
        """How it ended, with the average of the weights chosen."""
        kind = "raw"
        if not saved:
            kind = self._chosen_average()
        self.progress.wall_seconds = self.wall.read()
        why = None if not saved else signal.Signals(stopped).name if stopped else PAUSED
        return Outcome(self.progress, why, saved, kind)

    def _end(self) -> tuple[Path | None, int] | None:
        """The checkpoint written on the way out and the signal that ended it, if this is the end; else None."""
        progress, schedule = self.progress, self.schedule
        received = self.signals.received if self.signals else 0
        stopped, (progress.train_seconds, longest) = self.ranks.agree(received, (self.clock.read(), self.pace.longest))
        pause_after = self.keeping.pause_after if self.keeping else 0
        paused = bool(pause_after) and progress.step == pause_after < schedule.steps
        if paused and not stopped:
            self._validate()
        if self.keeping and (stopped or paused):
            return self._save(self.keeping.folder), stopped
        if schedule.finished(progress.step, progress.train_seconds, longest):
            return None, stopped
        if self.config.val_every and progress.step % self.config.val_every == 0:
            self._validate()
        due = self.config.checkpoint_every is None and progress.train_seconds - self.kept_at >= CHECKPOINT_SECONDS
        if self.keeping and due:
            self._save(self.keeping.folder)
            self.kept_at = progress.train_seconds
        return None

    def _validate(self) -> None:
        synchronize(self.rig.device)  # the last update belongs to training
        with self.clock.paused():
            score = self.hooks.validate(self.model)
            sample = self.hooks.sample(self.model) if self.hooks.sample and self.ranks.main else ""
        self.emit(moment(Validation, self.progress, self.schedule, loss=score.loss, bpb=score.bpb, sample=sample))

    def _save(self, folder: Path) -> Path:
        progress = self.progress
        progress.wall_seconds, progress.watch = self.wall.read(), self.watch.state() if self.watch else {}
        path = folder / f"step_{progress.step:08d}.safetensors"
        if self.ranks.main:
            path = save_checkpoint(folder, self.model, self.parts, progress, self.config.checkpoints_kept)
        self.ranks.barrier()
        self.emit(checkpoint_event(path))
        return path

    def _step(self) -> None:
        """Take a step: gradients, what could be wrong with them, the update, and what is told of it."""
        progress, schedule, qat = self.progress, self.schedule, self.aids.qat
        started = self.clock.read()
        lr_scale = schedule.lr_scale(progress.step, progress.train_seconds)
        guide = self.aids.guide if progress.step < self.config.init_steps else None
        self.model.progress = schedule.progress(progress.step, progress.train_seconds)
        left = 1 - self.model.progress
        if qat and qat.prepare(progress.step, lr_scale, left):
            self.emit(Rounding(step=progress.step + 1, tensors=len(qat.weights)))
        terms, routings = gradients(self.rig, guide)
        values = self.aids.penalties.add_gradients(progress.step) if self.aids.penalties else {}
        # Read before the update, so that no weight ever takes in what is not finite; docs/log.md says what that costs.
        losses = read(terms, values | {"grad_norm": self.optimizers.clip()}, self.ranks)
        norm = losses.pop("grad_norm")
        if self._goes_back(losses, norm):
            return
        self.optimizers.step(progress.step, lr_scale)
        self.model.zero_grad(set_to_none=True)
        if self.averages:
            self.averages.update(progress.step, lr_scale)
        progress.step += 1
        progress.position = self.batches.position
        progress.train_seconds = self.clock.read()
        seconds = progress.train_seconds - started
        self.pace.add(seconds)
        self._tell(losses, seconds, routings, {"grad_norm": norm, "lr_scale": lr_scale})
        every = self.config.checkpoint_every
        if self.keeping and every and progress.step % every == 0:
            self._save(self.keeping.folder)

    def _goes_back(self, losses: dict[str, float], norm: float) -> bool:
        """Look whether a step went wrong: go back to the last checkpoint, or warn; raise if it is not finite."""
        progress, watch = self.progress, self.watch
        wrong = watch.spike(losses["total"] if math.isfinite(norm) else norm) if watch else None
        finite = math.isfinite(losses["total"]) and math.isfinite(norm)
        folder = self.keeping.folder if self.keeping else None
        if folder and wrong and self.config.rollback and not progress.rollbacks and list_checkpoints(folder):
            self._roll_back(folder, wrong)
            return True
        if not finite:
            if folder:
                raise _not_finite(self.model, losses, progress, self._save(folder))
            raise TrainingError(f"the loss is {losses['total']} at step {progress.step + 1}")
        if wrong:
            self.emit(Trouble(step=progress.step + 1, kind="loss_spike", message=wrong))
        return False

    def _roll_back(self, folder: Path, wrong: str) -> None:
        """Go back to the last checkpoint, but not in the data: the batches that went wrong are behind."""
        step = self.progress.step + 1
        self.model.zero_grad(set_to_none=True)
        path = list_checkpoints(folder)[-1]
        back = load_checkpoint(path, self.model, self.parts)
        self.emit(Trouble(step=step, kind="loss_spike", message=wrong))
        message = f"rolled back to step {back.step}: {wrong}"
        self.emit(Rollback(step=step, to=back.step, checkpoint=path.name, message=message))
        back.position, back.rollbacks = self.batches.position, self.progress.rollbacks + 1
        self.progress, self.watch = back, Watch(back.watch)

    def _tell(self, losses: dict[str, float], seconds: float, routings: list[Routing], facts: dict[str, float]) -> None:
        """Tell of a step, and warn of routers that died and steps that are slow."""
        progress, watch, config = self.progress, self.watch, self.config
        logged = watch and self.log_times.due(progress.step, progress.train_seconds)
        levels = [routing_facts(r, routings[0].p_BL.numel()) for r in routings] if logged else []
        judged = progress.step % config.log_every == 0 or progress.step == 1  # by steps: a collapse often passes
        facts |= {"loss": losses.pop("loss"), "total": losses.pop("total")}
        facts["tokens_per_second"] = config.batch_tokens / seconds
        self.emit(moment(Step, progress, self.schedule, levels=tuple(levels), extra=losses, **facts))
        kinds = [level.config.router for level in self.model.body.each_level()]
        for warning in watch.routers.warnings(levels if judged else [], progress.step, kinds) if watch else ():
            self.emit(warning)
        if watch and (slow := watch.slow(seconds, config.batch_tokens)):
            self.emit(Trouble(step=progress.step, kind="throughput", message=slow))
        if watch and (late := watch.late(self.schedule, progress.step, progress.train_seconds, self.pace.longest)):
            self.emit(Trouble(step=progress.step, kind="late", message=late))

    def _chosen_average(self) -> str:
        """Choose among the averages of the weights; returns which the model has now."""
        synchronize(self.rig.device)
        kind, costs = self.averages.finish(self.hooks.held_back) if self.averages else ("raw", {})
        _, (self.progress.train_seconds,) = self.ranks.agree(0, (self.clock.read(),))
        if self.averages:
            self.emit(Average(step=self.progress.step, chosen=kind, losses=costs))
        return kind


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
