"""Runs and leaderboards as a terminal shows them, and as CSV."""

from __future__ import annotations

import contextlib
import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from niblick.console import weighed_megabytes
from niblick.errors import ConfigError, nearest
from niblick.ledger.leaderboard import APART, Leaderboard, Place
from niblick.ledger.ledger import Ledger
from niblick.ledger.rows import Row

_STATUS = {"done": "green", "running": "cyan", "failed": "red", "broken": "red", "unfinished": "yellow"}


def ordered(rows: list[Row], by: str) -> list[Row]:
    """Sort runs by a fact, lowest first and those without it last. Raises ConfigError for a fact that is none."""
    if by == "new" or not rows:
        return rows
    facts = {row.id: row.facts() for row in rows}
    known = next(iter(facts.values()))
    if by not in known or isinstance(known[by], list):
        raise ConfigError(f"runs cannot be sorted by {by!r}{nearest(by, ['new', *known])}")
    with_it = [row for row in rows if facts[row.id][by] is not None]
    return sorted(with_it, key=lambda row: _place(facts[row.id][by])) + [
        row for row in rows if facts[row.id][by] is None
    ]


def _place(value: object) -> tuple[float, str]:
    """What a fact is sorted by: numbers by themselves, all else by its text."""
    return (value, "") if isinstance(value, int | float) else (0.0, str(value))


def print_runs(rows: list[Row], limit: int, folder: Path) -> None:
    """Print a table of runs, and what is not in it."""
    console = _console()
    console.print(runs_table(rows, limit, folder))
    for row in [row for row in rows[: limit or None] if row.message and row.status in ("failed", "broken")][:5]:
        console.print(Text(f"{row.id} {row.status}: {row.message}", style="yellow"), soft_wrap=True)


def watch_runs(list_rows: Callable[[], list[Row]], limit: int, folder: Path, every: float = 2.0) -> None:
    """Keep the table of runs in the terminal as it is by now, until Ctrl-C."""
    with Live(console=_console(), auto_refresh=False, transient=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            live.update(runs_table(list_rows(), limit, folder), refresh=True)
            time.sleep(every)


def runs_table(rows: list[Row], limit: int, folder: Path) -> Group:
    """A table of runs, and what is not in it."""
    if not rows:
        return Group(f"no run in {folder} is like that")
    shown = rows[:limit] if limit > 0 else rows
    columns = ["run", "status", "branch", "track", "seed", "step", "BPB", "MB", "audit", "age", "tags"]
    table = _table(columns, [_run_cells(row) for row in shown], {"seed", "step", "BPB", "MB", "age"})
    left = [f"\n{len(shown)} of {len(rows):,} runs; --limit 0 shows all"] if len(shown) < len(rows) else []
    return Group(table, *left)


def _run_cells(row: Row) -> list[Text]:
    score = row.score
    size, audit, bpb = Text(), "", ""
    if score is not None:
        bpb = f"{score.bpb:.4f}" + ("" if score.lossless else " lossy")
        over = score.standing == "over cap"
        size = Text(weighed_megabytes(score.total_bytes) + (" over" if over else ""), style="red" if over else "")
        audit = "" if score.audit == "none" else score.audit
    words = [row.branch, row.track, _count(row.seed), _count(row.step), bpb]
    return [
        Text(row.id, style="bold"),
        Text(row.status, style=_STATUS.get(row.status, "")),
        *map(Text, words),
        size,
        *map(Text, (audit, age(row.changed), ", ".join(row.tags))),
    ]


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def age(when: float) -> str:
    """How long ago, in one unit."""
    seconds = max(0.0, time.time() - when)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def csv_text(ledger: Ledger, rows: list[Row]) -> str:
    """Return runs as CSV: all facts, then the config keys in which these runs differ, as `config.<key>`."""
    from niblick.config.run_config import dotted

    configs = [dotted(ledger.config(row)) for row in rows]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differ = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
    facts = [
        row.facts() | {f"config.{key}": config.get(key) for key in differ}
        for row, config in zip(rows, configs, strict=True)
    ]
    return _csv(facts)


def leaderboard_csv(found: Leaderboard) -> str:
    """Return a leaderboard as CSV, a line for each entry, ranked or apart."""
    rows = []
    for board in found.boards:
        key = {name: value for name, value in vars(board.key).items() if name != "name"}
        rows += [key | vars(place) for place in board.ranked + board.apart]
    return _csv(rows)


def _csv(rows: Sequence[Mapping[str, object]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return buffer.getvalue()


def _cell(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def print_leaderboard(found: Leaderboard) -> None:
    """Print the boards of a leaderboard."""
    console = _console()
    if not found.boards:
        console.print("no run has a score yet: `niblick train` makes one")
    for number, board in enumerate(found.boards):
        if number:
            console.print()
        console.print(Text(board.key.name, style="bold"), soft_wrap=True)
        rows = board.ranked + board.apart
        columns = ["rank", "branch", "result", "BPB", "seeds", "p", "MB", "standing", "audit", "not ranked"]
        cells = [[Text(cell) for cell in [*board_cells(row), row.apart]] for row in rows]
        console.print(_table(columns, cells, {"rank", "BPB", "seeds", "p", "MB"}))
        for reason in dict.fromkeys(row.apart for row in board.apart):
            console.print(Text(f"not ranked, {reason}: {APART[reason]}", style="yellow"), soft_wrap=True)
    if found.stopped:
        console.print(Text(f"\n{len(found.stopped)} runs were stopped before they had a score", style="yellow"))
    for sentence in found.notes:
        console.print(Text(f"note: {sentence}", style="yellow"), soft_wrap=True)


def board_cells(row: Place) -> list[str]:
    """Return a row of a leaderboard as words: rank, branch, result, BPB, seeds, p, MB, standing, audit."""
    deviation = "" if row.deviation is None else f" ± {row.deviation:.4f}"
    p = "" if row.p is None else ("< 0.0001" if row.p < 0.0001 else f"{row.p:.4f}")
    return [
        "" if row.rank is None else str(row.rank),
        row.branch,
        row.name,
        f"{row.mean:.4f}{deviation}",
        str(len(row.scores)),
        p + (" (documents)" if p and row.p_by == "documents" else ""),
        weighed_megabytes(row.total_bytes),
        row.standing,
        row.audit + (f": {', '.join(row.faults)}" if row.faults else ""),
    ]


def _console() -> Console:
    """A console that cuts nothing off where output is no terminal."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=240)


def _table(columns: list[str], rows: list[list[Text]], numbers: set[str]) -> Table:
    """A table without the columns that are empty in every row; those in `numbers` stand to the right."""
    used = [i for i in range(len(columns)) if any(row[i].plain for row in rows)]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i in used:
        table.add_column(
            columns[i], justify="right" if columns[i] in numbers else "left", no_wrap=True, overflow="ellipsis"
        )
    for row in rows:
        table.add_row(*(row[i] for i in used))
    return table
