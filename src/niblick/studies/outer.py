"""Outer stages side by side: convolution, attention and Mamba-2 around one backbone, at equal parameters and time."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from niblick.config.run_config import override
from niblick.model.counting import parameter_count
from niblick.recipes.presets import get_preset
from niblick.run.directory import read_json, write_json
from niblick.run.prepared import config_of
from niblick.run.training import in_passes
from niblick.studies.study import FULL_STEPS, TOY, Done, Lab, Parts, Table
from niblick.train.distributed import SINGLE
from niblick.train.optim import Optimizers
from niblick.train.precision import DTYPES, autocast, pick_device, pick_dtype

BASE = "hnet-byte260"
LETTERS = {"convolution": "C", "attention": "T", "mamba-2": "m"}
REFERENCE, MATCHED = "attention", "mamba-2"
"""Whose time the others are given; whose parameters they are given, by the hidden units of their MLPs."""
SMALL = ["model.main.layout=T2", "model.ssm_state=8", "model.ssm_head_width=16"]
STAGES = ("encoder", "decoder")
ROUNDS = 10


def outer(lab: Lab) -> Parts:
    """Convolution, attention and Mamba-2 before and after the same main stage, at equal parameters and equal time."""
    sets = [f"data.path={lab.data('byte260')}"]
    points = {kind: _stages(lab, letter) for kind, letter in LETTERS.items()}
    wanted = _parameters(lab, points[MATCHED])
    for kind in LETTERS:
        if kind != MATCHED:
            points[kind] += _hidden(lab, points[kind], wanted)
    train = partial(lab.run, BASE, branch="outer-{0}", sets=sets, toy=SMALL, full=FULL_STEPS, track="fixed-step")
    equal = {kind: those[0] for kind, those in train(points).items()}
    speed = _speeds(lab, equal)
    timed = {
        kind: [
            *points[kind],
            f"schedule.steps={max(1, round((done.result.step or 0) * speed[REFERENCE] / speed[kind]))}",
        ]
        for kind, done in equal.items()
        if kind != REFERENCE
    }
    found = train(timed, part="time")
    in_time = {kind: found[kind][0] if kind in found else equal[kind] for kind in LETTERS}
    count = {kind: f"{parameter_count(done.run.config().model):,}" for kind, done in equal.items()}
    columns = ["outer stages", "parameters", "steps", "ms a step", "BPB", f"against {REFERENCE}", "mean chunk", "bytes"]
    rows = [_rows(lab, those, count, speed) for those in (equal, in_time)]
    note = (
        f"Blocks are {', '.join(f'`{letter}`' for letter in LETTERS.values())}; MLPs are as wide as gives all the "
        f"parameters of {MATCHED}. Milliseconds are the best of {ROUNDS} steps of the trained models, taken in turns."
    )
    tables = [
        Table("At equal parameters and steps", columns, rows[0], note),
        Table("At equal parameters and time", columns, rows[1], f"Time: what {REFERENCE} takes for its steps."),
    ]
    yield tables, [*equal.values(), *(done for those in found.values() for done in those)]


def _stages(lab: Lab, letter: str) -> list[str]:
    return [f"model.levels.0.{stage}.layout={letter}{1 if lab.toy else 2}" for stage in STAGES]


def _parameters(lab: Lab, point: list[str]) -> int:
    common = [*TOY, *SMALL] if lab.toy else []
    return parameter_count(override(get_preset(BASE), [*common, *lab.overrides, *point]).model)


def _hidden(lab: Lab, point: list[str], wanted: int) -> list[str]:
    """Return the settings that give a point's outer MLPs as many hidden units as make up `wanted` parameters."""
    common = [*TOY, *SMALL] if lab.toy else []
    width = override(get_preset(BASE), [*common, *lab.overrides]).model.width

    def sets(units: int) -> list[str]:
        return [f"model.levels.0.{stage}.mlp_mult={units / width}" for stage in STAGES]

    one, two = (_parameters(lab, point + sets(units)) for units in (1, 2))
    return sets(max(1, 1 + round((wanted - one) / (two - one))))


def _speeds(lab: Lab, done: dict[str, Done]) -> dict[str, float]:
    """Milliseconds that a training step of each finished run takes, measured once: in turns, and the best of each.

    What else the machine does meanwhile slows all of them, and does not count.
    """
    path = lab.runs / lab.name / "speeds.json"
    if not path.is_file():
        steps = {kind: _step(lab, those) for kind, those in done.items()}
        seconds: dict[str, list[float]] = {kind: [] for kind in steps}
        for _ in range(ROUNDS):
            for kind, step in steps.items():
                seconds[kind].append(step())
        write_json(path, {kind: 1000 * min(found) for kind, found in seconds.items()})
    return read_json(path)


def _step(lab: Lab, done: Done) -> Callable[[], float]:
    """Return what takes a training step of a finished run's model, at rate 0, and returns its seconds."""
    config, (model, dataset) = config_of(done.run), lab.opened(done)
    device = pick_device(config.train.device)
    model = model.to(device).train()
    optimizers = Optimizers(model, config.optim, dtype=DTYPES[pick_dtype(config.train.dtype, device)])
    train = in_passes(config, model, SINGLE, device)
    rows, length = train.micro_batch_tokens // train.seq_len, train.seq_len
    text = dataset.train.slice(0, rows * length + 1).astype(np.int64)
    ids_BL, targets_BL = (torch.from_numpy(part).view(rows, length).to(device) for part in (text[:-1], text[1:]))
    passes = train.passes(1)

    def step() -> float:
        started = time.perf_counter()
        for _ in range(passes):
            with autocast(device, config.train.dtype):
                losses, _ = model(ids_BL, targets_BL)
            losses.total.backward()
        optimizers.step(0, 0.0)
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    return step


def _rows(lab: Lab, those: dict[str, Done], count: dict[str, str], speed: dict[str, float]) -> list[list[str]]:
    return [
        [
            kind,
            count[kind],
            f"{done.result.step:,}",
            f"{speed[kind]:.0f}",
            f"{done.bpb:.4f}",
            f"{done.bpb - those[REFERENCE].bpb:+.4f}",
            lab.cuts(done)["mean_length"],
            f"{done.result.artifact_bytes:,}",
        ]
        for kind, done in those.items()
    ]


def _steps(done: Done) -> int:
    return done.result.step or 0
