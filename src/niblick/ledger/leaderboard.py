"""The leaderboard: the best result of each branch, ranked only beside scores with the same ranking key.

Runs that differ in their seeds alone are one entry; its score is their mean. What must not be ranked beside the others
stands apart, with the reason: over the cap, code not weighed, lossy, stopped early, audit failed, changed by hand, not
audited.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from niblick.challenge import rules
from niblick.challenge.tracks import TRACKS, RankingKey
from niblick.errors import DataError
from niblick.facts.reading import read_objects
from niblick.ledger.ledger import Filter, Ledger
from niblick.ledger.rows import Row, Score, largest
from niblick.ledger.seeds import deviation, welch

APART = {
    "changed": "changed by hand after it was finished",
    "stopped": "stopped before its end",
    "audit failed": "its audit failed",
    "looked ahead": "something was learned from text before it was scored",
    "over cap": "over the cap of 16,000,000 bytes",
    "not weighed": "its code was not weighed, so nobody knows whether it keeps to the cap",
    "over time": "over the time of the record track",
    "lossy": "its tokenizer does not give the text back",
    "unranked": "its track is not for ranking",
    "unaudited": "no audit says that the score is honest",
}
"""Why an entry is not ranked; where several hold, the first."""


@dataclass(frozen=True)
class Member:
    """One scored artifact of a run."""

    row: Row
    score: Score


@dataclass(frozen=True)
class Entry:
    """Runs of one recipe that differ in their seeds alone, each by the same artifact."""

    branch: str
    members: tuple[Member, ...]
    apart: str
    """A key of APART, or "" where it is ranked."""

    @property
    def scores(self) -> list[float]:
        """BPB of each seed; of lossy tokenizers with what they lose put right, where that is known."""
        return [s.bpb if s.lossless or s.bpb_repaired is None else s.bpb_repaired for _, s in self._pairs()]

    @property
    def mean(self) -> float:
        """Mean BPB over the seeds."""
        return statistics.mean(self.scores)

    @property
    def name(self) -> str:
        """What the sweep calls it, or its first run."""
        first = self.members[0].row
        return f"{first.sweep}/{first.name}" if first.name else first.id

    def _pairs(self) -> list[tuple[Row, Score]]:
        return [(member.row, member.score) for member in self.members]

    def place(self, rank: int | None, p: float | None, p_by: str | None) -> Place:
        """Return its line of a board."""
        scores = [member.score for member in self.members]
        return Place(
            branch=self.branch,
            name=self.name,
            artifact=scores[0].artifact,
            runs=[member.row.id for member in self.members],
            seeds=[member.row.seed for member in self.members],
            mean=self.mean,
            deviation=deviation(self.scores),
            scores=self.scores,
            total_bytes=largest(score.total_bytes for score in scores),
            standing=_worst(score.standing for score in scores),
            audit=_audit(scores),
            faults=sorted({fault for score in scores for fault in score.faults}),
            scorer=scores[0].scorer,
            apart=self.apart,
            rank=rank,
            p=p,
            p_by=p_by,
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """A line of a board: one entry."""

    branch: str
    name: str
    artifact: str
    runs: list[str]
    seeds: list[int | None]
    mean: float
    deviation: float | None
    scores: list[float]
    total_bytes: int | None
    standing: str
    audit: str
    faults: list[str]
    scorer: str
    apart: str
    """Why it is not ranked, a key of APART; "" where it is."""
    rank: int | None
    p: float | None
    """How likely scores like these are where it is no worse than the one above."""
    p_by: str | None
    """`seeds`: by Welch's test; `documents`: by paired bootstrap. None where neither can say."""


@dataclass(frozen=True, kw_only=True)
class BoardKey(RankingKey):
    """What the scores of a board have in common."""

    name: str
    """The same for people."""


@dataclass(frozen=True)
class Board:
    """Entries whose scores can be ranked together."""

    key: BoardKey
    ranked: list[Place]
    """The best entry of each branch, best first."""
    apart: list[Place]
    """The best entry of each branch and reason not to rank it."""


@dataclass(frozen=True)
class StoppedRun:
    """A run that was stopped before it had a score."""

    run: str
    branch: str
    seed: int | None
    step: int | None
    message: str


@dataclass(frozen=True)
class Leaderboard:
    """Everything that a ledger ranks; `asdict` of it is its JSON."""

    boards: list[Board]
    stopped: list[StoppedRun]
    notes: list[str]


def leaderboard(ledger: Ledger, wanted: Filter | None = None, only: set[str] | None = None) -> Leaderboard:
    """Rank what a ledger holds: a board for each ranking key. `only` are the ids to look at, all by default.

    Entries are told apart by Welch's test over seeds or, where one has a single seed, by paired bootstrap over
    documents.
    """
    boards: dict[tuple[str, ...], dict[tuple[Any, ...], list[Member]]] = {}
    rows, unknown = [row for row in ledger.rows(wanted) if only is None or row.id in only], 0
    for row in rows:
        unknown += sum(score.key is None for score in row.scores)
        for score in row.scores:
            if score.key is not None:
                recipe = (row.branch, row.recipe, score.artifact, row.status == "stopped")
                boards.setdefault(score.key, {}).setdefault(recipe, []).append(Member(row, score))
    found = [_board(ledger, RankingKey(*key), list(recipes.values())) for key, recipes in boards.items()]
    found.sort(key=lambda board: (-len(board.ranked), -len(board.apart), board.key.name))
    notes = [f"{unknown} scores do not say on which machine and text they were made: left out"] if unknown else []
    if len(found) > 1:
        notes.append(f"{len(found)} boards: nothing is ranked across track, budget, device, text and slice")
    stopped = [
        StoppedRun(row.id, row.branch, row.seed, row.step, row.message)
        for row in rows
        if row.status == "stopped" and not row.scores
    ]
    return Leaderboard(found, stopped, notes)


def _board(ledger: Ledger, key: RankingKey, recipes: list[list[Member]]) -> Board:
    """The best entry of each branch and reason. Only the files of entries that would be shown are looked at."""
    entries = [_entry(members, key) for members in recipes]
    best: dict[tuple[str, str], Entry] = {}
    for entry in sorted(entries, key=lambda e: (e.mean, e.branch, e.name)):
        if (entry.branch, entry.apart) in best:
            continue
        if any(_changed(ledger, member) for member in entry.members):
            entry = replace(entry, apart="changed")
        best.setdefault((entry.branch, entry.apart), entry)
    ranks = {reason: [e for e in best.values() if e.apart == reason] for reason in ("", *reversed(APART))}
    ranked = _places(ranks.pop(""), ranked=True)
    apart = [place for entries in ranks.values() for place in _places(entries)]
    return Board(BoardKey(**vars(key), name=str(key)), ranked, apart)


def _places(entries: list[Entry], ranked: bool = False) -> list[Place]:
    rows = []
    for i, entry in enumerate(entries):
        p, by = against(entries[i - 1], entry) if i else (None, None)
        rows.append(entry.place(i + 1 if ranked else None, p, by))
    return rows


def against(above: Entry, below: Entry) -> tuple[float | None, str | None]:
    """The one-sided probability of such scores if `below` is no worse than `above`, and the test that gives it."""
    test = welch(below.scores, above.scores)
    if test is not None:
        return test.p, "seeds"
    return _by_documents(above, below)


def _by_documents(above: Entry, below: Entry) -> tuple[float | None, str | None]:
    """The paired bootstrap over documents of the first run of each, where both kept what their documents cost."""
    a, b = above.members[0], below.members[0]
    if not (a.score.costs and b.score.costs and a.score.lossless and b.score.lossless):
        return None, None
    from niblick.errors import DataError
    from niblick.score.costs import read_costs
    from niblick.score.statistics import paired_bootstrap

    try:
        costs = [read_costs(_folder(m), m.score.costs) for m in (a, b)]
        assert costs[0] is not None
        assert costs[1] is not None
        found = paired_bootstrap(costs[0]["nats"], costs[1]["nats"], costs[0]["bytes"])
    except DataError:
        return None, None
    return (found.p / 2 if found.difference > 0 else 1 - found.p / 2), "documents"


def _folder(member: Member) -> Path:
    return Path(member.row.path) / "artifacts" / member.score.artifact


def _one_per_seed(members: list[Member]) -> list[Member]:
    """The oldest of runs that are alike even in their seeds: repeating a run is no way to a better mean."""
    first: dict[tuple[int | None, int | None], Member] = {}
    for member in sorted(members, key=lambda m: (m.row.started, m.row.id)):
        first.setdefault((member.row.seed, member.row.data_seed), member)
    return sorted(first.values(), key=lambda m: (m.row.seed or 0, m.row.data_seed or 0))


def _entry(members: list[Member], key: RankingKey) -> Entry:
    """An entry, with the first reason that any of its members gives for not being ranked."""
    members = _one_per_seed(members)
    reasons = {reason for member in members for reason in _reasons(member, key)}
    apart = next((reason for reason in APART if reason in reasons), "")
    return Entry(members[0].row.branch, tuple(members), apart)


def _reasons(member: Member, key: RankingKey) -> set[str]:
    score, track = member.score, TRACKS.get(key.track)
    timed = track is not None and track.name == "challenge"
    seconds = (member.row.train_seconds or 0.0, score.eval_seconds or 0.0)
    holds = {
        "stopped": member.row.status == "stopped",
        "audit failed": score.audit == "failed",
        "looked ahead": not score.score_first,
        "over cap": score.standing == "over cap",
        "not weighed": score.standing == "not weighed",
        "over time": timed and (seconds[0] > rules.TRAIN_SECONDS or seconds[1] > rules.EVAL_SECONDS),
        "lossy": not score.lossless,
        "unranked": track is not None and not track.ranks,
        "unaudited": score.audit == "none",
    }
    return {reason for reason, true in holds.items() if true}


def _changed(ledger: Ledger, member: Member) -> bool:
    """Whether config or artifact are not what was finished, or the result says another score than was measured."""
    artifact = f"artifacts/{member.score.artifact}/artifact.nib"
    if ledger.altered(member.row, ["config.json", artifact]):
        return True
    try:
        measured = [record["bpb"] for record in read_objects(_folder(member) / "scores.jsonl")]
    except (DataError, KeyError, TypeError):
        return True
    return member.score.bpb not in measured


def _worst(standings: Iterable[str]) -> str:
    found = set(standings)
    return next(standing for standing in ("over cap", "not weighed", "local", "legal") if standing in found)


def _audit(scores: list[Score]) -> str:
    found = {score.audit for score in scores}
    return "failed" if "failed" in found else "none" if "none" in found else "passed"
