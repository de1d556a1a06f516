"""What each change of a sweep gives: recipes side by side, each against one of them."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from niblick.ledger.rows import Row, largest
from niblick.ledger.seeds import deviation, welch

_SEEDS = ("seed", "data.seed")


@dataclass(frozen=True)
class Effect:
    """One recipe, and what it gives against the reference."""

    name: str
    values: list[object]
    """Of the config keys in which recipes differ."""
    scores: list[float]
    mean: float
    deviation: float | None
    difference: float
    """From the reference."""
    error: float | None
    """Half of the difference's 95% interval over seeds; None, as is p, where seeds cannot say."""
    p: float | None
    """Two-sided."""
    reference: bool
    total_bytes: int | None
    ms_per_step: float | None


@dataclass(frozen=True)
class Ablation:
    """Recipes beside each other."""

    reference: str = ""
    """The name of the recipe that the others are compared with."""
    keys: tuple[str, ...] = ()
    """Config keys in which recipes differ."""
    rows: tuple[Effect, ...] = ()
    left_out: int = 0
    """Runs with another ranking key than the commonest."""


def ablation(rows: Sequence[Row], configs: Mapping[str, Mapping[str, object]], control: str = "") -> Ablation:
    """Set the recipes of finished runs beside each other. `configs` are dotted configs by run id.

    Returns `reference`, the name of the recipe the others are compared with (the one whose runs the sweep calls
    `control`, else the oldest), `keys`, the config keys in which recipes differ, and `rows`: `name`, `values` of these
    keys, `scores`, `mean`, `deviation`, `difference` from the reference, `error` (half of its 95% interval over seeds)
    and `p` (two-sided), None where seeds cannot say, `total_bytes`, `ms_per_step`. Only runs with one ranking key are
    in it, the commonest; `left_out` counts the others. Early-stopped runs are not in it.
    """
    scored = [row for row in rows if row.status == "done" and row.score and row.score.key]
    keys = Counter(row.score.key for row in scored if row.score)
    if not keys:
        return Ablation()
    common = keys.most_common(1)[0][0]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(scored, key=lambda row: (row.started, row.id)):
        if row.score and row.score.key == common:
            group = groups.setdefault((row.recipe, row.score.artifact), [])
            if all((row.seed, row.data_seed) != (other.seed, other.data_seed) for other in group):
                group.append(row)  # the same seed again says nothing new
    members = list(groups.values())
    reference = next((group for group in members if control and group[0].name == control), members[0])
    differ = _differing([configs[group[0].id] for group in members])
    table = [_row(group, reference, configs[group[0].id], differ) for group in members]
    table.sort(key=lambda row: row.mean)
    left_out = len(scored) - sum(len(group) for group in members)
    return Ablation(_name(reference), tuple(differ), tuple(table), left_out)


def _row(group: list[Row], reference: list[Row], config: Mapping[str, object], keys: list[str]) -> Effect:
    scores, known = _bpb(group), _bpb(reference)
    test = welch(scores, known) if group is not reference else None
    low, high = test.interval() if test else (0.0, 0.0)
    paces = [1000 * row.train_seconds / row.step for row in group if row.train_seconds and row.step]
    return Effect(
        name=_name(group),
        values=[config.get(key) for key in keys],
        scores=scores,
        mean=statistics.mean(scores),
        deviation=deviation(scores),
        difference=statistics.mean(scores) - statistics.mean(known),
        error=(high - low) / 2 if test else None,
        p=2 * min(test.p, 1 - test.p) if test else None,
        reference=group is reference,
        total_bytes=largest(row.score.total_bytes for row in group if row.score),
        ms_per_step=statistics.mean(paces) if paces else None,
    )


def _bpb(group: list[Row]) -> list[float]:
    """Scores of lossy tokenizers with what they lose put right, where that is known."""
    scores = [row.score for row in group if row.score]
    return [s.bpb if s.lossless or s.bpb_repaired is None else s.bpb_repaired for s in scores]


def _name(group: list[Row]) -> str:
    return group[0].name or group[0].id


def _differing(configs: list[Mapping[str, object]]) -> list[str]:
    keys = dict.fromkeys(key for config in configs for key in config if key not in _SEEDS)
    return [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
