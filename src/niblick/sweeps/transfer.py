"""`niblick transfer`: which ideas of one sweep survive in another? What wins small often does not win large.

An idea is a point that both sweeps have; its gain is how far it is below the sweep's control.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

from niblick.challenge.tracks import ranking_key
from niblick.config.run_config import to_dict
from niblick.errors import ConfigError
from niblick.facts.reading import read_file
from niblick.ledger.seeds import welch
from niblick.sweeps.listed import SweepRecord
from niblick.sweeps.results import finished_runs, sweep_directory

SURE = 0.05
"""A gain counts as more than luck of the seeds below this p (Welch, one-sided)."""


@dataclass(frozen=True)
class Gain:
    """How much an idea gains over the control in one sweep."""

    gain: float
    """BPB; positive is better."""
    error: float | None
    """Standard error of it over seeds; None for single seeds."""
    p: float | None
    """That there is no gain: one-sided, Welch."""
    seeds: int


@dataclass(frozen=True)
class Idea:
    """What an idea gains in both sweeps."""

    name: str
    first: Gain
    second: Gain
    same_sign: bool
    survived: bool
    """Better in both, and in the second surely so (p < SURE) where seeds can tell."""


@dataclass(frozen=True)
class Transfer:
    """Two sweeps beside each other; `asdict` of it is its JSON."""

    first: str
    second: str
    ideas: list[Idea]
    sign_agreement: float
    rank_correlation: float | None
    """Spearman's, over the ideas."""
    survived: list[str]
    only_in_one: list[str]


def transfer(first: str, second: str, runs: Path) -> Transfer:
    """Compare two sweeps idea by idea.

    Raises ConfigError for sweeps without finished runs, or with fewer than two ideas in common.
    """
    folders = [sweep_directory(target, runs) for target in (first, second)]
    sides = [_gains(folder) for folder in folders]
    shared = [name for name in sides[0] if name in sides[1]]
    if len(shared) < 2:
        raise ConfigError(
            f"{first} and {second} have {len(shared)} finished ideas in common ({', '.join(shared) or 'none'}), and a "
            "comparison takes two: points are matched by their names, the control is none"
        )
    ideas: list[Idea] = []
    for name in shared:
        one, other = sides[0][name], sides[1][name]
        sure = other.p is None or other.p < SURE
        survived = one.gain > 0 and other.gain > 0 and sure
        ideas.append(Idea(name, one, other, (one.gain > 0) == (other.gain > 0), survived))
    agreeing = sum(idea.same_sign for idea in ideas)
    names = [folder.name for folder in folders]
    if names[0] == names[1]:  # one sweep in two places
        names = [first, second]
    return Transfer(
        first=names[0],
        second=names[1],
        ideas=ideas,
        sign_agreement=agreeing / len(ideas),
        rank_correlation=_spearman([[idea.first.gain for idea in ideas], [idea.second.gain for idea in ideas]]),
        survived=[idea.name for idea in ideas if idea.survived],
        only_in_one=sorted(set(sides[0]) ^ set(sides[1])),
    )


def _gains(folder: Path) -> dict[str, Gain]:
    control = read_file(SweepRecord, folder / "sweep.json").control
    points = {name: those for name, those in finished_runs(folder).items() if those}
    if control not in points:
        raise ConfigError(f"the control {control} of {folder} has no finished run: nothing can be measured beside it")
    keys = {ranking_key(to_dict(run.config()), result) for those in points.values() for run, result in those}
    if len({key.text_hash for key in keys}) > 1 or len({(key.track, key.budget) for key in keys}) > 1:
        said = "; ".join(sorted(map(str, keys))[:2])
        raise ConfigError(f"the runs of {folder} are not ranked together, so ideas have no gains there: {said}")
    streams = {result.stream_hash for those in points.values() for _, result in those}
    metric = "bpb" if len(streams) == 1 else "bpb_repaired"
    found = {name: [getattr(result, metric) for _, result in those] for name, those in points.items()}
    scores: dict[str, list[float]] = {name: [v for v in values if v is not None] for name, values in found.items()}
    lacking = [name for name, values in found.items() if None in values]
    if lacking:
        raise ConfigError(
            f"{folder} sets tokenizers against each other, and nothing says what {lacking[0]} loses of the text: "
            "score the whole validation split (score.documents=0)"
        )
    return {name: _gain(scores[control], values) for name, values in scores.items() if name != control}


def _gain(control: list[float], idea: list[float]) -> Gain:
    test = welch(control, idea)
    gain = statistics.mean(control) - statistics.mean(idea)
    return Gain(gain, test.error if test else None, test.p if test else None, min(len(control), len(idea)))


def _spearman(sides: list[list[float]]) -> float | None:
    """Rank correlation; None where one side has all the same."""
    if any(len(set(side)) == 1 for side in sides):
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(*sides).statistic)


def render(found: Transfer) -> str:
    """The comparison in Markdown."""
    first, second = found.first, found.second
    lines = [f"| idea | gain in {first} | gain in {second} | signs | survived |", "| --- | ---: | ---: | --- | --- |"]
    for idea in found.ideas:
        signs = "agree" if idea.same_sign else "differ"
        gains = " | ".join(_shown(gain) for gain in (idea.first, idea.second))
        lines.append(f"| {idea.name} | {gains} | {signs} | {'yes' if idea.survived else 'no'} |")
    rank = found.rank_correlation
    count = len(found.ideas)
    lines += [
        "",
        f"Gains in BPB over the control, ± standard error over seeds. Signs agree for "
        f"{round(found.sign_agreement * count)} of {count} ideas; rank correlation "
        f"{'undefined' if rank is None else f'{rank:+.2f}'}.",
        f"Survived (better in both, in {second} at p < {SURE:g} where there are seeds): "
        f"{', '.join(found.survived) or 'none'}.",
    ]
    if found.only_in_one:
        lines.append(f"In one of the sweeps alone: {', '.join(found.only_in_one)}.")
    return "\n".join(lines)


def _shown(gain: Gain) -> str:
    return f"{gain.gain:+.4f}" + ("" if gain.error is None else f" ± {gain.error:.4f}")
