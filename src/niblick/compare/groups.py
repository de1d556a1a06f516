"""`niblick compare`: runs grouped by config over their seeds, and groups set against each other.

Reads what scoring has left beside the artifacts, `scores.jsonl` and the document costs; nothing is scored again.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from niblick.challenge import rules
from niblick.config.run_config import dotted
from niblick.errors import ConfigError
from niblick.facts.reading import plain, read_lines
from niblick.facts.record import Record
from niblick.facts.result import Result
from niblick.facts.scores import ScoreRecord, ScorerFacts
from niblick.ledger.seeds import Ruling, deviation, verdict, welch
from niblick.run.artifacts import find_artifact
from niblick.run.directory import Run
from niblick.score.costs import read_costs
from niblick.score.statistics import FEW_DOCUMENTS, paired_bootstrap, record_margin

SEEDS = ("seed", "data.seed")
"""Config keys in which the runs of a group may differ."""

METRICS = (
    "bpb",
    "bpb_repaired",
    "loss",
    "tokens",
    "seconds",
    "artifact_bytes",
    "code_bytes",
    "total_bytes",
    "step",
    "train_seconds",
)
"""Facts of scores and results that are compared, where they are there."""

_NO_INFLUENCE = ("device", "batch_tokens")
"""Settings of a scorer that change a score by rounding at most."""


@dataclass(frozen=True)
class Scored:
    """One scored artifact of a run."""

    run: Run
    artifact: str
    config: dict[str, object]
    """Dotted keys and values."""
    record: ScoreRecord
    """A line of scores.jsonl."""
    result: Result | None
    """What result.json says of this artifact: None where that is about another one."""
    costs: npt.NDArray[Any] | None
    """Records of the documents (dtype `costs.COST`), None where the score kept none."""

    @property
    def name(self) -> str:
        """What to call it, as on the command line."""
        return f"{self.run.path}:{self.artifact}"

    def metric(self, key: str) -> float | None:
        """One of METRICS; None where nobody recorded it."""
        found: float | None = getattr(self.record, key, getattr(self.result, key, None))
        return found


@dataclass(frozen=True)
class Group:
    """Runs of one config; they differ in their seeds alone."""

    label: str
    members: list[Scored]

    @property
    def first(self) -> Scored:
        """The member that stands for what all have in common."""
        return self.members[0]

    def values(self, key: str) -> list[float] | None:
        """A metric of every member; None if one does not have it."""
        found = [member.metric(key) for member in self.members]
        known = [value for value in found if value is not None]
        return known if len(known) == len(found) else None

    def mean(self, key: str) -> float | None:
        """Mean of a metric; None if a member does not have it."""
        values = self.values(key)
        return None if values is None else statistics.mean(values)


@dataclass(frozen=True, kw_only=True)
class Spread(Record):
    """A metric over the members of a group."""

    mean: float
    deviation: float | None


@dataclass(frozen=True, kw_only=True)
class GroupFacts(Record):
    """A group, with those of METRICS that every member has."""

    SELDOM: ClassVar[tuple[str, ...]] = METRICS

    label: str
    runs: tuple[str, ...]
    seeds: tuple[object, ...]
    tokenizer: object
    scorer: ScorerFacts
    bpb: Spread | None = None
    bpb_repaired: Spread | None = None
    loss: Spread | None = None
    tokens: Spread | None = None
    seconds: Spread | None = None
    artifact_bytes: Spread | None = None
    code_bytes: Spread | None = None
    total_bytes: Spread | None = None
    step: Spread | None = None
    train_seconds: Spread | None = None


@dataclass(frozen=True, kw_only=True)
class Difference(Record):
    """Second mean minus first."""

    unit: str
    value: float


@dataclass(frozen=True, kw_only=True)
class DocumentTest(Record):
    """A `Bootstrap` over documents, and what was tested."""

    SELDOM: ClassVar[tuple[str, ...]] = ("note",)

    difference: float
    low: float
    high: float
    level: float
    p: float
    p_margin: float
    documents: int
    resamples: int
    unit: str
    margin: float
    repair_bpb: float
    """What of the difference pays for what tokenizers lose, alike in all documents."""
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class NoDocuments(Record):
    """Why documents say nothing."""

    unavailable: str


@dataclass(frozen=True, kw_only=True)
class SeedTest(Record):
    """`Welch`'s test, two-sided, of second mean minus first, with the 95% interval of the difference."""

    t: float
    degrees: float
    p: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """A group set against another."""

    first: str
    second: str
    same_tokens: bool
    difference: Difference
    documents: DocumentTest | NoDocuments
    seeds: SeedTest | None
    verdict: Ruling
    config: Mapping[str, tuple[object, object]]
    """Keys that differ, with both values."""
    metrics: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Compared(Record):
    """Runs by config, and every further group against the first."""

    groups: tuple[GroupFacts, ...]
    comparisons: tuple[Comparison, ...]
    notes: tuple[str, ...]


def compare(targets: list[str], runs: Path, scorer: str = "") -> Compared:
    """Compare scored runs; each of `targets` is RUN, RUN:NAME or the artifact of a run.

    `groups` has the runs by config, with mean and deviation of their scores; `comparisons` sets every further group
    against the first: paired bootstrap over documents, Welch test over seeds, the challenge's verdict, differences of
    configs and metrics. Two runs of one config are set against each other; more are one group without comparison.
    `scorer` names the scorer whose newest scores are taken; by default that of each artifact's first score.

    Raises ConfigError for fewer than two targets, a target that is not there or was never scored, or scores of
    different texts.
    """
    if len(targets) < 2:
        raise ConfigError("there is nothing to compare one run with: name at least two, as in `niblick compare A B`")
    scored = [read_scored(target, runs, scorer) for target in targets]
    for i, one in enumerate(scored):
        if any(one.name == other.name for other in scored[:i]):
            raise ConfigError(f"{one.name} is named twice: name each run once")
    notes = _check_same_text(scored)
    groups = group(scored)
    sides = groups
    if len(groups) == 1 and len(scored) == 2:
        sides = [Group(label, [member]) for label, member in zip("AB", scored, strict=True)]
        notes.append("the runs differ in their seeds alone: what sets them apart is luck")
    notes += _scorer_notes(sides)
    return Compared(
        groups=tuple(_describe(g) for g in (groups if len(groups) > 1 else sides)),
        comparisons=tuple(against(sides[0], other) for other in sides[1:]),
        notes=tuple(notes),
    )


def read_scored(target: str, runs: Path, scorer: str = "") -> Scored:
    """Read the score of an artifact. Raises ConfigError if there is none."""
    path, run = find_artifact(target, runs)
    if run is None:
        raise ConfigError(f"{path} belongs to no run, so no score is kept beside it: name an artifact of a run")
    records = read_records(path.parent / "scores.jsonl")
    if not records:
        raise ConfigError(f"{target} has no score yet: `niblick eval {target}` makes one")
    wanted = [r for r in records if r.scorer.scorer == scorer] if scorer else _like_the_first(records)
    if not wanted:
        known = ", ".join(sorted({r.scorer.scorer for r in records}))
        raise ConfigError(f"{target} was never scored by {scorer!r} (there: {known}): score it so by `niblick eval`")
    record, result = wanted[-1], run.result()
    mine = result if result and result.artifact == path.parent.name else None
    costs = read_costs(path.parent, record.document_costs)
    return Scored(run, path.parent.name, dotted(run.settings()), record, mine, costs)


def read_records(path: Path) -> list[ScoreRecord]:
    """Read scores.jsonl; a last line that is not whole is left out."""
    return read_lines(ScoreRecord, path)


def _like_the_first(records: list[ScoreRecord]) -> list[ScoreRecord]:
    """Scores made as the official one was, which is the first: the same scorer and settings, the same text."""

    def made(record: ScoreRecord) -> tuple[object, ...]:
        return _settings(record), record.text_hash, record.stream_hash

    return [record for record in records if made(record) == made(records[0])]


def _settings(record: ScoreRecord) -> dict[str, object]:
    """The settings of a scorer that its score depends on, by dotted keys."""
    return dotted({key: value for key, value in plain(record.scorer).items() if key not in _NO_INFLUENCE})


def _check_same_text(scored: list[Scored]) -> list[str]:
    """Raise ConfigError unless all were scored on the same text; return what must be said about that."""
    first = scored[0]
    for other in scored[1:]:
        a, b = first.record, other.record
        hashes = (
            ("text_hash", "text", a.text_hash, b.text_hash),
            ("stream_hash", "tokens", a.stream_hash, b.stream_hash),
        )
        for key, what, one, two in hashes:
            if one and two:
                if one != two:
                    raise ConfigError(
                        f"{first.name} and {other.name} were scored on different {what}: {key} {one} and {two}; "
                        "score both on the same by `niblick eval RUN --data DIR`"
                    )
                break
        else:
            if (a.tokens, a.bytes) != (b.tokens, b.bytes):
                raise ConfigError(
                    f"nothing says that {first.name} and {other.name} were scored on the same text: no hash is "
                    f"recorded, and {a.tokens:,} tokens of {a.bytes:,} bytes are not {b.tokens:,} of "
                    f"{b.bytes:,}; prepare the data by `niblick data prepare` and score both on it"
                )
            return ["no hash of the text is recorded: taken to be the same, since tokens and bytes are"]
    return []


def _scorer_notes(groups: list[Group]) -> list[str]:
    """One sentence for each setting of the scorers in which scores differ."""
    settings = {each.label: [_settings(member.record) for member in each.members] for each in groups}
    notes = []
    for key in sorted({key for those in settings.values() for each in those for key in each}):
        found = {label: list(dict.fromkeys(str(each.get(key)) for each in those)) for label, those in settings.items()}
        if len({value for values in found.values() for value in values}) > 1:
            said = ", ".join(f"{label} {' and '.join(values)}" for label, values in found.items())
            notes.append(f"scored differently in {key}: {said}")
    return notes


def group(scored: list[Scored]) -> list[Group]:
    """Put runs together whose configs differ in nothing but their seeds, in the order in which they come."""
    members: dict[str, list[Scored]] = {}
    for one in scored:
        settings = {key: value for key, value in one.config.items() if key not in SEEDS}
        members.setdefault(json.dumps([one.artifact, settings], sort_keys=True), []).append(one)
    labels = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if len(members) > len(labels):
        raise ConfigError(f"{len(members)} configs are too many to compare at once: name at most {len(labels)}")
    return [Group(label, those) for label, those in zip(labels, members.values(), strict=False)]


def _describe(each: Group) -> GroupFacts:
    known = {key: values for key in METRICS if (values := each.values(key)) is not None}
    return GroupFacts(
        label=each.label,
        runs=tuple(member.name for member in each.members),
        seeds=tuple(member.config.get("seed") for member in each.members),
        tokenizer=each.first.config.get("tokenizer"),
        scorer=each.first.record.scorer,
        extra={},
        **{key: Spread(mean=statistics.mean(each), deviation=deviation(each)) for key, each in known.items()},
    )


def against(first: Group, second: Group) -> Comparison:
    """Set a group against another. Raises ConfigError if their tokenizers differ and what one loses is unknown."""
    same = _same_tokens(first, second)
    unit, key, margin = (
        ("nats per token", "loss", rules.RECORD_NATS) if same else ("BPB", "bpb_repaired", rules.RECORD_BPB)
    )
    for each in (first, second):
        if each.mean(key) is None:
            raise ConfigError(
                f"{each.first.name} does not say whether its tokenizer gives the text back, so its BPB cannot be "
                f"compared with another tokenizer's: score it again by `niblick eval {each.first.name}`"
            )
    a, b = first.values(key) or [], second.values(key) or []
    rule = verdict(a, b, margin, unit)
    means = [(key, first.mean(key), second.mean(key)) for key in METRICS]
    return Comparison(
        first=first.label,
        second=second.label,
        same_tokens=same,
        difference=Difference(unit=unit, value=statistics.mean(b) - statistics.mean(a)),
        documents=_documents(first, second, same),
        seeds=_seeds(a, b),
        verdict=Ruling(**vars(rule) | {"better": (first, second)[rule.better].label}),
        config=_differences(first, second),
        metrics={key: (one, other) for key, one, other in means if one is not None and other is not None},
    )


def _seeds(a: list[float], b: list[float]) -> SeedTest | None:
    """Welch's test, two-sided, of second mean minus first; None where nothing can be said."""
    test = welch(b, a)
    if test is None:
        return None
    low, high = test.interval()
    return SeedTest(**vars(test) | {"p": 2 * min(test.p, 1 - test.p), "low": low, "high": high})


def _same_tokens(first: Group, second: Group) -> bool:
    """Whether both predicted the same tokens, so that nats per token can be compared."""
    a, b = first.first, second.first
    if a.record.stream_hash and b.record.stream_hash:
        return a.record.stream_hash == b.record.stream_hash
    return (a.config.get("tokenizer"), a.record.tokens) == (b.config.get("tokenizer"), b.record.tokens)


def _documents(first: Group, second: Group, same: bool) -> DocumentTest | NoDocuments:
    """The paired bootstrap over documents; of several seeds the mean cost of each document is taken.

    Everything is per byte of the original text. What a lossy tokenizer must pay to get the text back is coded for all
    documents together, so it is spread evenly over their bytes; for the same tokens it is the same and cancels.
    """
    missing = [member.name for each in (first, second) for member in each.members if member.costs is None]
    if missing:
        why = f"{missing[0]} kept no costs of its documents: `niblick eval {missing[0]}` keeps them"
        return NoDocuments(unavailable=why)
    costs = [[m.costs for m in each.members if m.costs is not None] for each in (first, second)]
    bytes_D = costs[0][0]["bytes"]
    if len(bytes_D) < 2:
        return NoDocuments(unavailable="the text is a single document: resampling needs more")
    record = first.first.record
    offset, margin = 0.0, rules.RECORD_BPB
    if same:
        margin = record_margin(record.tokens, int(bytes_D.sum(dtype=np.int64)))
    else:
        offset = _repair_rate(second.first) - _repair_rate(first.first)
    nats = [np.mean([c["nats"] for c in those], axis=0) for those in costs]
    test = paired_bootstrap(nats[0], nats[1], bytes_D, margin=margin, offset=offset)
    few = f"{len(bytes_D)} documents are few: the interval is too narrow" if len(bytes_D) < FEW_DOCUMENTS else None
    return DocumentTest(**vars(test), unit="BPB", margin=margin, repair_bpb=offset, note=few)


def _repair_rate(scored: Scored) -> float:
    """Bits of the patch that gives the text back, per byte of the text."""
    record = scored.record
    return 0.0 if record.lossless else (record.repair_bits or 0) / (record.original_bytes or 1)


def _differences(first: Group, second: Group) -> dict[str, tuple[object, object]]:
    """Config keys that differ, with both values; seeds only where each side is a single run. None: not there."""
    a, b = first.first.config, second.first.config
    hidden = SEEDS if max(len(first.members), len(second.members)) > 1 else ()
    keys = [*a, *(key for key in b if key not in a)]
    return {key: (a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key) and key not in hidden}
