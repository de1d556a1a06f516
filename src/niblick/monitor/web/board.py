"""Leaderboard, and every artifact by its bytes and BPB: the report's own figures over the ledger's facts."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from nicegui import run, ui

from niblick.challenge import rules
from niblick.console import weighed
from niblick.drawing import charts
from niblick.errors import NiblickError
from niblick.ledger.leaderboard import APART, Board, Place, leaderboard
from niblick.ledger.ledger import Ledger
from niblick.monitor.finding import links_out
from niblick.monitor.watcher import LABELS, Watcher
from niblick.monitor.web import fragments
from niblick.monitor.web.frame import Chart, Live, page

REFRESH_SECONDS = 1.0
REREAD_SECONDS = 30.0


class Standings:
    """What the ledger says of all folders, read again when a run has ended, at the latest after REREAD_SECONDS."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._lock = threading.Lock()
        self._known: tuple[object, Shown] | None = None

    def read(self) -> Shown:
        """Return boards, notes and points, and the final scores of logs."""
        with self._lock:
            seen = [(v.id, v.phase, v.gone, v.final) for v in self._watcher.views.values()]
            mark = (seen, time.time() // REREAD_SECONDS)
            if self._known is None or self._known[0] != mark:
                self._known = (mark, _read(self._watcher))
            return self._known[1]


def build(watcher: Watcher, standings: Standings) -> None:
    """Build the page."""
    with page("Leaderboard", "/board"):
        ui.html("Leaderboard", tag="h1", sanitize=False)
        note = Live("soft")
        boards = Live()
        ranking = Chart("Best of each branch, with its seeds", "ranking")
        against = Chart("Bytes against BPB", "bytes")
        table = Live("panel")
        logs = Live("panel")
        drawn: dict[str, Shown] = {}

        async def update() -> None:
            found = await run.io_bound(standings.read)
            if found is None or found == drawn.get("found"):
                return
            drawn["found"] = found
            boards.show("".join(_board(board) for board in found.boards) or _nothing())
            note.show(" · ".join(escape(text) for text in found.notes))
            first = [vars(place) for place in found.boards[0].ranked[:20]] if found.boards else []
            ranking.draw(charts.ranking(first))
            against.draw(charts.bytes_against_bpb([vars(point) for point in found.points], rules.CAP_BYTES))
            table.show(_points(found.points))
            table.element.set_visibility(bool(found.points))
            logs.show(_logs(found.logs))
            logs.element.set_visibility(bool(found.logs))

        ui.timer(REFRESH_SECONDS, update)


@dataclass(frozen=True)
class Artifact:
    """A scored artifact, as a point among others."""

    name: str
    total_bytes: int | None
    bpb: float
    standing: str
    audit: str
    scorer: str
    run: str


@dataclass(frozen=True)
class Shown:
    """All that the page shows."""

    boards: list[Board]
    notes: list[str]
    points: list[Artifact]
    logs: list[list[str]]


def _read(watcher: Watcher) -> Shown:
    """Boards, notes, and points of all folders, and the final scores of logs."""
    boards: list[Board] = []
    notes: list[str] = []
    points: list[Artifact] = []
    for root in watcher.roots:
        try:
            ledger = Ledger(root, remember=False)  # to look is not to write
            rows = [row for row in ledger.rows() if not links_out(Path(row.path), root)]
            found = leaderboard(ledger, only={row.id for row in rows})
        except NiblickError as error:
            notes.append(str(error))
            continue
        boards += found.boards
        notes += found.notes
        points += [
            Artifact(f"{row.id}:{s.artifact}", s.total_bytes, s.bpb, s.standing, s.audit, s.scorer, row.id)
            for row in rows
            for s in row.scores
        ]
    return Shown(boards, notes, sorted(points, key=lambda p: p.bpb), _log_rows(watcher))


def _log_rows(watcher: Watcher) -> list[list[str]]:
    """Final scores of logs: nobody has checked them, so they stand apart and are ranked with nothing."""
    scored = [(v, v.final) for v in watcher.views.values() if v.kind == "log" and v.final]
    return [
        [v.id, f"{final.bpb:.4f}", final.name, "–" if v.total_bytes is None else f"{v.total_bytes:,}", LABELS[v.phase]]
        for v, final in sorted(scored, key=lambda pair: pair[1].bpb)
    ]


def _board(board: Board) -> str:
    rows = [
        [
            str(row.rank),
            row.branch,
            row.name,
            _score(row),
            str(len(row.seeds)),
            "" if row.p is None else f"{row.p:.3g} ({row.p_by})",
            weighed(row.total_bytes),
            row.standing,
            row.audit,
        ]
        for row in board.ranked
    ]
    titles = ["rank", "branch", "entry", "BPB", "seeds", "p against the one above", "bytes", "standing", "audit"]
    ranked = fragments.table(titles, rows, numbers=(0, 3, 4, 6)) if rows else "<p class=soft>nothing to rank</p>"
    apart = [[row.branch, row.name, _score(row), weighed(row.total_bytes), _why(row)] for row in board.apart]
    beside = ""
    if apart:
        beside = "<p class=soft style='margin:12px 0 4px'>Not ranked:</p>" + fragments.table(
            ["branch", "entry", "BPB", "bytes", "why"], apart, numbers=(2, 3)
        )
    name = escape(board.key.name)
    return f'<section class=panel style="margin-bottom:14px"><h2>{name}</h2>{ranked}{beside}</section>'


def _why(row: Place) -> str:
    faults = f": {', '.join(row.faults)}" if row.faults else ""
    return APART.get(row.apart, row.apart) + faults


def _score(row: Place) -> str:
    return f"{row.mean:.4f}" + (f" ± {row.deviation:.4f}" if row.deviation is not None else "")


def _points(points: Sequence[Artifact]) -> str:
    rows = [
        [
            p.name,
            f"{p.bpb:.4f}",
            weighed(p.total_bytes),
            "–" if p.total_bytes is None else f"{p.total_bytes / rules.CAP_BYTES:.1%}",
            p.standing,
            p.scorer,
            p.audit,
        ]
        for p in points[:200]
    ]
    titles = ["artifact", "BPB", "bytes", "of the cap", "standing", "scorer", "audit"]
    return f"<h2>All artifacts</h2>{fragments.table(titles, rows, numbers=(1, 2, 3))}"


def _logs(rows: Sequence[Sequence[str]]) -> str:
    titles = ["log", "BPB", "score", "bytes", "phase"]
    return (
        "<h2>Scores in logs</h2><p class=soft>As their authors wrote them; niblick has not measured them, so they are "
        f"ranked with nothing.</p>{fragments.table(titles, rows, numbers=(1, 3))}"
    )


def _nothing() -> str:
    return "<div class='panel empty'>No run has a score yet: a run is scored when it ends.</div>"
