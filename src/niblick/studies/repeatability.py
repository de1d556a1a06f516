"""Repeatability: does a run repeat, and how much is the luck of its seed? The noise floor of the ruler."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from niblick.facts.events import Validation
from niblick.ledger.seeds import deviation
from niblick.run.directory import write_json
from niblick.run.prepared import config_of
from niblick.studies.study import FULL_STEPS, Done, Lab, Parts, Table

REPEATS = 3
SEEDS = [1337, 1234, 2026, 7]


def repeatability(lab: Lab) -> Parts:
    """The same run again and again, then with other seeds: the noise floor, and the curve for early stops."""
    data = f"data.path={lab.data('byte260')}"
    outer = [*(f"model.levels.0.{stage}.layout=T1" for stage in ("encoder", "decoder")), "model.main.layout=T2"]
    every = [f"train.val_every={10 if lab.toy else 200}"]
    run = partial(lab.run, "hnet-byte260", toy=outer, track="fixed-step", full=FULL_STEPS)
    again = {f"repeat-{number}": [data] for number in range(1, REPEATS + 1)}
    repeats = [those[0] for those in run(again, branch="repeat").values()]
    found = run({"seeds": [data, *every]}, part="seeds", seeds=SEEDS, branch="seeds")
    seeds = found["seeds"]
    curve = _curve(seeds)
    _write_reference(lab, seeds[0], curve)
    scores = [done.bpb for done in seeds]
    same = len({done.bpb for done in repeats}) == 1
    found_out = "the same to the last digit" if same else f"{max(_apart(repeats)):.3g} BPB apart"
    tables = [
        Table(
            "The same run again",
            ["run", "steps", "BPB", "bytes"],
            [[d.run.name, f"{d.result.step:,}", repr(d.bpb), f"{d.result.artifact_bytes:,}"] for d in repeats],
            f"{REPEATS} runs of one config and seed: {found_out}.",
        ),
        Table(
            "Other seeds",
            ["seed", "BPB"],
            [[str(seed), f"{done.bpb:.4f}"] for seed, done in zip(SEEDS, seeds, strict=True)],
            f"{statistics.mean(scores):.4f} ± {deviation(scores):.4f} BPB: two single runs that differ by less than "
            f"{2 * 2**0.5 * (deviation(scores) or 0.0):.4f} (two standard deviations of a difference) say nothing.",
        ),
        Table(
            "The curve for early stops",
            ["step", "mean BPB", "deviation"],
            [[f"{step:,}", f"{mean:.4f}", f"{spread:.4f}"] for step, mean, spread in curve],
            f"Validation as floats over {len(SEEDS)} seeds; `KeepUp` reads it from reference.json.",
        ),
    ]
    yield tables, [*repeats, *seeds]


def _apart(runs: Sequence[Done]) -> list[float]:
    return [abs(done.bpb - runs[0].bpb) for done in runs]


def _curve(seeds: Sequence[Done]) -> list[tuple[int, float, float]]:
    """Step, mean and deviation of the validations that all seeds have, but for the first, of an untrained model."""
    found: dict[int, list[float]] = {}
    for done in seeds:
        for event in done.run.events():
            if isinstance(event, Validation) and event.step and not event.final:
                found.setdefault(event.step, []).append(event.bpb)
    return [(step, statistics.mean(v), deviation(v) or 0.0) for step, v in sorted(found.items()) if len(v) > 1]


def _write_reference(lab: Lab, done: Done, curve: list[tuple[int, float, float]]) -> None:
    train = config_of(done.run).train
    facts = {"every": train.val_every, "text_hash": done.result.text_hash, "batch_tokens": train.batch_tokens}
    write_json(lab.runs / lab.name / "reference.json", facts | {"points": curve})
