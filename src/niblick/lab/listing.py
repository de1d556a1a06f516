"""Runs and leaderboards as a terminal shows them, and as CSV."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from niblick.errors import ConfigError, nearest
from niblick.lab.facts import Row
from niblick.lab.leaderboard import APART
from niblick.lab.ledger import Ledger

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
    return sorted(with_it, key=lambda row: facts[row.id][by]) + [row for row in rows if facts[row.id][by] is None]


def print_runs(rows: list[Row], limit: int, folder: Path) -> None:
    """Print a table of runs, and what is not in it."""
    console = Console(highlight=False)
    if not rows:
        console.print(f"no run in {folder} is like that")
        return
    shown = rows[:limit] if limit > 0 else rows
    table = _table("run", "status", "branch", "track", "seed", "step", "BPB", "MB", "audit", "age", "tags", left=4)
    for row in shown:
        score = row.score
        bpb = "" if score is None else f"{score.bpb:.4f}" + ("" if score.lossless else " lossy")
        size = Text("" if score is None else f"{score.total_bytes / 1e6:.2f}")
        if score is not None and score.standing == "over cap":
            size = Text(f"{score.total_bytes / 1e6:.2f} over", style="red")
        table.add_row(
            Text(row.id, style="bold"),
            Text(row.status, style=_STATUS.get(row.status, "")),
            row.branch,
            row.track,
            "" if row.seed is None else str(row.seed),
            "" if row.step is None else f"{row.step:,}",
            bpb,
            size,
            "" if score is None or score.audit == "none" else score.audit,
            age(row.changed),
            ", ".join(row.tags),
        )
    console.print(table)
    if len(shown) < len(rows):
        console.print(f"\n{len(shown)} of {len(rows):,} runs; --limit 0 shows all")
    for row in [row for row in shown if row.message and row.status in ("failed", "broken")][:5]:
        console.print(Text(f"{row.id} {row.status}: {row.message}", style="yellow"), soft_wrap=True)


def age(when: float) -> str:
    """How long ago, in one unit."""
    seconds = max(0.0, time.time() - when)
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def csv_text(ledger: Ledger, rows: list[Row]) -> str:
    """Return runs as CSV: all facts, then the config keys in which these runs differ, as `config.<key>`."""
    from niblick.config import dotted

    configs = [dotted(ledger.config(row)) for row in rows]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    differ = [key for key in keys if len({repr(config.get(key)) for config in configs}) > 1]
    facts = [
        row.facts() | {f"config.{key}": config.get(key) for key in differ}
        for row, config in zip(rows, configs, strict=True)
    ]
    return _csv(facts)


def leaderboard_csv(facts: dict[str, Any]) -> str:
    """Return a leaderboard as CSV, a line for each entry, ranked or apart."""
    rows = []
    for board in facts["boards"]:
        key = {name: value for name, value in board["key"].items() if name != "name"}
        rows += [key | row for row in board["ranked"] + board["apart"]]
    return _csv(rows)


def _csv(rows: list[dict[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if rows:
        writer.writerow(rows[0])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def print_leaderboard(facts: dict[str, Any]) -> None:
    """Print the boards of a leaderboard."""
    console = Console(highlight=False)
    if not facts["boards"]:
        console.print("no run has a score yet: `niblick train` makes one")
    for number, board in enumerate(facts["boards"]):
        if number:
            console.print()
        console.print(Text(board["key"]["name"], style="bold"), soft_wrap=True)
        table = _table("rank", "branch", "result", "BPB", "seeds", "p", "MB", "standing", "audit", left=3)
        table.columns[0].justify = "right"
        for row in board["ranked"]:
            table.add_row(*board_cells(row))
        if not board["ranked"]:
            table.add_row("", Text("none is ranked: see below why", style="yellow"))
        for reason, words in APART.items():
            those = [row for row in board["apart"] if row["apart"] == reason]
            if those:
                table.add_section()
                table.add_row("", Text(words, style="yellow"))
            for row in those:
                table.add_row(*board_cells(row))
        console.print(table)
    if facts["stopped"]:
        console.print(Text(f"\n{len(facts['stopped'])} runs were stopped before they had a score", style="yellow"))
    for sentence in facts["notes"]:
        console.print(Text(f"note: {sentence}", style="yellow"), soft_wrap=True)


def board_cells(row: dict[str, Any]) -> list[str]:
    """Return a row of a leaderboard as words: rank, branch, result, BPB, seeds, p, MB, standing, audit."""
    deviation = "" if row["deviation"] is None else f" ± {row['deviation']:.4f}"
    p = "" if row["p"] is None else ("< 0.0001" if row["p"] < 0.0001 else f"{row['p']:.4f}")
    return [
        "" if row["rank"] is None else str(row["rank"]),
        row["branch"],
        row["name"],
        f"{row['mean']:.4f}{deviation}",
        str(len(row["scores"])),
        p + (" (documents)" if p and row["p_by"] == "documents" else ""),
        f"{row['total_bytes'] / 1e6:.2f}",
        row["standing"],
        row["audit"] + (f": {', '.join(row['faults'])}" if row["faults"] else ""),
    ]


def _table(*columns: str, left: int) -> Table:
    """A table whose first `left` columns are words; the others are numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        words = i < left or column in ("standing", "audit", "tags")
        table.add_column(column, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table
