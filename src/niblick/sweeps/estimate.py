"""`niblick sweep plan`: how many runs, how long, how much disk. Speeds are measured here and now.

A step of every distinct model is timed on one row of its batch, a score on one window, and so is the start of a
process; where runs of a point are done already, their own seconds count instead.
"""

from __future__ import annotations

import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from niblick.config.run_config import RunConfig
from niblick.data.dataset import Dataset
from niblick.facts.result import Result
from niblick.run.directory import source_snapshot
from niblick.run.exports import predict_size
from niblick.run.loading import build_model
from niblick.run.prepared import Prepared, open_data
from niblick.sweeps.listed import Estimate, PointEstimate
from niblick.sweeps.running import SweepFolder
from niblick.sweeps.sweep import Member, Sweep
from niblick.train.precision import autocast, pick_device

ROUNDS = 3
STATE_FACTOR = 3
"""A checkpoint holds weights and about two numbers more for each (moments, averages)."""


@dataclass(frozen=True)
class Speed:
    """Seconds for a token, in training and in scoring."""

    train: float
    score: float
    parameters: int
    artifact_bytes: int


def estimate(
    sweep: Sweep,
    runs: Path,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Estimate:
    """Return what the sweep will take, by point and in all. Raises what `Sweep.check` raises.

    `progress` hears how many points of how many are timed.
    """
    from niblick.sweeps.executors import LocalPool

    members = sweep.check()
    folder = SweepFolder(sweep, runs)
    done = {m.id: state.result for m in members if (state := folder.state(m)).kind in ("done", "stopped")}
    threads = torch.get_num_threads()
    torch.set_num_threads(sweep.cpus)
    try:
        start, speeds, points = _process_seconds(), {}, []
        source = len(source_snapshot(None))
        names = list(dict.fromkeys(member.point.name for member in members))
        for number, point in enumerate(names):
            progress(number, len(names))
            those = [member for member in members if member.point.name == point]
            shape = repr((those[0].config.model, those[0].config.train, those[0].config.score, those[0].config.data))
            if shape not in speeds:
                speeds[shape] = measure(those[0].config, those[0].recipe)
            points.append(_point(those, speeds[shape], start, source, [done[m.id] for m in those if m.id in done]))
    finally:
        torch.set_num_threads(threads)
    slots = LocalPool(sweep.cpus, workers).slots
    left = sum(point.left for point in points)
    folder_of_runs = next(p for p in (runs.resolve(), *runs.resolve().parents) if p.is_dir())
    return Estimate(
        sweep=sweep.name,
        runs=len(members),
        left=left,
        slots=slots,
        seconds=_span([point.seconds for point in points for _ in range(point.left)], slots),
        bytes=sum(point.bytes * point.left for point in points),
        free_bytes=shutil.disk_usage(folder_of_runs).free,
        source=f"measured now on {pick_device(members[0].config.train.device)}, {sweep.cpus} threads a run"
        + (", and from finished runs" if done else "")
        + ("; early stop would save some" if sweep.early_stop else ""),
        points=tuple(points),
    )


def _point(
    members: list[Member], speed: Speed, start: float, source: int, results: list[Result | None]
) -> PointEstimate:
    config = members[0].config
    steps, train, score = _clocks(config, open_data(config), speed)
    count = f"{steps:,}" if steps == config.schedule.steps else f"about {steps:,}"
    known = [result.train_seconds for result in results if result and result.train_seconds is not None]
    if known:
        train = statistics.mean(known)
    every = config.train.checkpoint_every
    written = config.schedule.steps // every if every else 0
    checkpoints = min(config.train.checkpoints_kept or written, written)
    weights = 4 * speed.parameters
    seconds = 2 * start + train + score
    return PointEstimate(
        name=members[0].point.name,
        branch=members[0].point.branch,
        runs=len(members),
        left=len(members) - len(results),
        steps=count,
        clocks=(train, score, seconds),
        seconds=seconds,
        bytes=weights * (1 + STATE_FACTOR * checkpoints) + speed.artifact_bytes + source,
    )


def _clocks(config: RunConfig, dataset: Dataset, speed: Speed) -> tuple[int, float, float]:
    """Steps of a run at this speed, and its seconds of training and of scoring."""
    steps, step, cap = config.schedule.steps, config.train.batch_tokens * speed.train, config.schedule.max_seconds
    if cap and steps * step > cap:
        steps = max(int(cap / step), config.schedule.least_steps)
    windows = config.score.seq_len / config.score.step
    validations = 2 + (config.schedule.steps // config.train.val_every if config.train.val_every else 0)
    return steps, steps * step, dataset.val.tokens * speed.score * (windows + validations - 1)


@dataclass(frozen=True)
class Foreseen:
    """What one run would take."""

    parameters: int
    steps: str
    batch_tokens: int
    epochs: float
    """How often the training text would be read."""
    artifact_bytes: tuple[int, int]
    """At least, and at most."""
    code_bytes: int | None
    """None where the code could not be weighed."""
    train_seconds: float
    score_seconds: float
    device: str


def foresee(prepared: Prepared, recipe: Path | None = None) -> Foreseen:
    """Return what a run would take, by a step and a score that are timed now; nothing is written."""
    config = prepared.config
    speed, size = measure(config, recipe), predict_size(config, recipe)
    steps, train, score = _clocks(config, prepared.dataset, speed)
    return Foreseen(
        parameters=speed.parameters,
        steps=f"{steps:,}" if steps == config.schedule.steps else f"about {steps:,}",
        batch_tokens=config.train.batch_tokens,
        epochs=steps * config.train.batch_tokens / prepared.text.tokens,
        artifact_bytes=(size.low, size.high),
        code_bytes=size.code,
        train_seconds=train,
        score_seconds=score,
        device=str(prepared.device),
    )


def _span(seconds: list[float], slots: int) -> float:
    """How long runs take in this order, so many at once."""
    free = [0.0] * slots
    for each in seconds:
        soonest = free.index(min(free))
        free[soonest] += each
    return max(free)


def measure(config: RunConfig, recipe: Path | None) -> Speed:
    """Time one row of a training step and one scored window, after one of each for warmth."""
    device = pick_device(config.train.device)
    model = build_model(config.model, config.seed).to(device)
    length = config.train.seq_len
    ids_BL = torch.randint(4, min(config.model.vocab_size, 260), (1, length + 1), device=device)
    train, score = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        with autocast(device, config.train.dtype):
            losses, _ = model(ids_BL[:, :-1], ids_BL[:, 1:])
        losses.total.backward()
        model.zero_grad(set_to_none=True)
        train.append(_elapsed(started, device) / length)
        started = time.perf_counter()
        with torch.no_grad(), autocast(device, config.train.dtype):
            hidden_BLD, _ = model.eval().hidden(ids_BL[:, :-1])
            model.token_losses(hidden_BLD, ids_BL[:, 1:])
        model.train()
        score.append(_elapsed(started, device) / length)
    size = predict_size(config, recipe)
    return Speed(min(train[1:]), min(score[1:]), size.parameters, size.high)


def _elapsed(started: float, device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _process_seconds() -> float:
    """Seconds until a fresh process can train; a run starts two, one to train and one to score."""
    started = time.perf_counter()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", "import niblick.run.pipeline"], check=True, env=environment)
    return math.ceil(10 * (time.perf_counter() - started)) / 10
