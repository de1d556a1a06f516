"""Outer stages side by side: convolution, attention and Mamba-2 around one backbone, at equal parameters and time."""

from __future__ import annotations

import itertools

from niblick.config import override
from niblick.lab.studies.study import FULL_STEPS, TOY, Done, Lab, Table
from niblick.pipeline import parameter_count
from niblick.presets import get_preset

BASE = "hnet-byte260"
LETTERS = {"convolution": "C", "attention": "T", "mamba-2": "m"}
REFERENCE, MATCHED = "attention", "mamba-2"
"""Whose time the others are given; whose parameters they are given, by the hidden units of their MLPs."""
SMALL = ["model.main.layout=T2", "model.ssm_state=8", "model.ssm_head_width=16"]
STAGES = ("encoder", "decoder")


def outer(lab: Lab) -> tuple[list[Table], list[Done]]:
    """Convolution, attention and Mamba-2 before and after the same main stage, at equal parameters and equal time."""
    sets = [f"data.path={lab.data('byte260')}", "train.log_every=20"]
    points = {kind: _stages(lab, letter) for kind, letter in LETTERS.items()}
    wanted = _parameters(lab, points[MATCHED])
    for kind in LETTERS:
        if kind != MATCHED:
            points[kind] += _hidden(lab, points[kind], wanted)
    given = {"sets": sets, "toy": SMALL, "full": FULL_STEPS, "track": "fixed-step"}
    equal = {kind: those[0] for kind, those in lab.run(BASE, points, branch="outer-{0}", **given).items()}  # type: ignore[arg-type]
    speed = {kind: fastest(done) for kind, done in equal.items()}
    timed = {
        kind: [*points[kind], f"schedule.steps={max(1, round(done.result['step'] * speed[REFERENCE] / speed[kind]))}"]
        for kind, done in equal.items()
        if kind != REFERENCE
    }
    found = lab.run(BASE, timed, part="time", branch="outer-{0}", **given)  # type: ignore[arg-type]
    in_time = {kind: found[kind][0] if kind in found else equal[kind] for kind in LETTERS}
    count = {kind: f"{parameter_count(done.run.config().model):,}" for kind, done in equal.items()}
    columns = ["outer stages", "parameters", "steps", "ms a step", "BPB", f"against {REFERENCE}", "mean chunk", "bytes"]
    rows = [_rows(lab, those, count, speed) for those in (equal, in_time)]
    note = (
        f"Blocks are {', '.join(f'`{letter}`' for letter in LETTERS.values())}; MLPs are as wide as gives all the "
        f"parameters of {MATCHED}. Milliseconds are those of the fastest 20 steps."
    )
    tables = [
        Table("At equal parameters and steps", columns, rows[0], note),
        Table("At equal parameters and time", columns, rows[1], f"Time: what {REFERENCE} takes for its steps."),
    ]
    return tables, [*equal.values(), *(done for those in found.values() for done in those)]


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


def fastest(done: Done) -> float:
    """Milliseconds a step of a run's fastest stretch between two lines of its log: what others ran beside it aside."""
    steps = [event for event in done.run.events() if event["event"] == "step"]
    stretches = [
        1000 * (late["train_seconds"] - early["train_seconds"]) / (late["step"] - early["step"])
        for early, late in itertools.pairwise(steps)
        if late["step"] - early["step"] >= min(20, int(done.result["step"]) // 4)
    ]
    return min(stretches, default=done.milliseconds)


def _rows(lab: Lab, those: dict[str, Done], count: dict[str, str], speed: dict[str, float]) -> list[list[str]]:
    return [
        [
            kind,
            count[kind],
            f"{done.result['step']:,}",
            f"{speed[kind]:.0f}",
            f"{done.bpb:.4f}",
            f"{done.bpb - those[REFERENCE].bpb:+.4f}",
            lab.cuts(done)["mean_length"],
            f"{done.result['artifact_bytes']:,}",
        ]
        for kind, done in those.items()
    ]
