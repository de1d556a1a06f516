"""Comparisons and breakdowns as a terminal shows them."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

SHOWN_DOCUMENTS = 10
SHOWN_SOURCES = 12


def print_comparison(facts: dict[str, Any], console: Console) -> None:
    """Show what `compare` returns: the groups, then every comparison."""
    console.print(_groups(facts["groups"]))
    for note in facts["notes"]:
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    for found in facts["comparisons"]:
        console.print()
        console.print(_findings(found))
        for title, rows in (("config", found["config"]), ("metric", _metrics(found["metrics"]))):
            if rows:
                table = _table(title, found["first"], found["second"])
                for key, (a, b) in rows.items():
                    table.add_row(key, _value(a), _value(b))
                console.print()
                console.print(table)


def _groups(groups: list[dict[str, Any]]) -> Table:
    table = _table("", "runs", "BPB", "repaired", "nats per token", "artifact", "training", words=2)
    for each in groups:
        seeds = f"{len(each['runs'])} seeds" if len(each["runs"]) > 1 else "1 seed"
        table.add_row(
            Text(each["label"], style="bold"),
            Text(f"{_shortened(each['runs'])}  ({seeds})"),
            *(_spread(each.get(key)) for key in ("bpb", "bpb_repaired", "loss")),
            f"{each['artifact_bytes']['mean']:,.0f} B",
            f"{each['train_seconds']['mean']:,.0f} s" if "train_seconds" in each else "—",
        )
    return table


def _shortened(names: list[str]) -> str:
    """Names of runs in one line: the folders and artifacts that all share are said once, or not at all."""
    pairs = [name.rpartition("/")[2].split(":") for name in names]
    ids, artifact = [pair[0] for pair in pairs], pairs[0][1]
    shown = ", ".join(ids[:3]) + (f", … {ids[-1]}" if len(ids) > 3 else "")
    return f"{shown} {artifact}"


def _spread(value: dict[str, Any] | None) -> str:
    if value is None:
        return "—"
    mean, deviation = value["mean"], value["deviation"]
    return f"{mean:.4f}" if deviation is None else f"{mean:.4f} ± {deviation:.4f}"


def _findings(found: dict[str, Any]) -> Table:
    """The statistics of one comparison, a line each."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    first, second, difference = found["first"], found["second"], found["difference"]
    table.add_row(
        Text(f"{first} → {second}", style="bold"),
        f"{difference['value']:+.4f} {difference['unit']}"
        + ("" if found["same_tokens"] else " (different tokenizers)"),
    )
    table.add_row("documents", _documents(found["documents"]))
    seeds = found["seeds"]
    table.add_row(
        "seeds",
        f"Welch's t {seeds['t']:.2f} with {seeds['degrees']:.1f} degrees of freedom: {_p(seeds['p'])} (two-sided)"
        if seeds
        else "no test: it takes two runs of each, with different scores",
    )
    rule = found["verdict"]
    said = {True: ("yes", "bold green"), False: ("no", "bold red"), None: ("undecided", "bold yellow")}[rule["wins"]]
    loser = second if rule["better"] == first else first
    text = Text(f"does {rule['better']} beat {loser} as a record must?  ")
    text.append(said[0], said[1])
    text.append(f": {rule['reason']}")
    text.append(f" (gain {rule['gain']:.4f}" + (f", {_p(rule['p'])} one-sided)" if rule["p"] is not None else ")"))
    table.add_row("challenge", text)
    return table


def _documents(facts: dict[str, Any]) -> str:
    if "unavailable" in facts:
        return f"no test: {facts['unavailable']}"
    text = (
        f"{facts['difference']:+.4f} BPB, {facts['level']:.0%} of {facts['resamples']:,} resamples of "
        f"{facts['documents']:,} documents between {facts['low']:+.4f} and {facts['high']:+.4f}: {_p(facts['p'])}; "
        f"better by {facts['margin']:.4f} BPB: {_p(facts['p_margin'])}"
    )
    if facts["repair_bpb"]:
        text += f"; {facts['repair_bpb']:+.4f} BPB of it pays for what tokenizers lose, spread evenly"
    return text + (f"; {facts['note']}" if "note" in facts else "")


def _metrics(metrics: dict[str, list[float]]) -> dict[str, list[float]]:
    return {key: values for key, values in metrics.items() if values[0] != values[1]}


def _p(p: float) -> str:
    return f"p = {p:.4f}" if p >= 0.0001 else "p < 0.0001"


def _value(value: Any) -> str:
    if value is None:
        return "—"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.4g}" if abs(value) < 0.001 else f"{value:,.4f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def print_breakdown(facts: dict[str, Any], console: Console) -> None:
    """Show what `breakdown` returns: a table for each way of taking the score apart."""
    total = facts["total"]
    titles = {
        "context": "tokens of context",
        "boundary": "at chunk boundaries",
        "chunk": "place in the chunk",
        "class": "kind of byte",
        "source": "source",
        "document": "documents, dearest first",
    }
    for key, title in titles.items():
        parts = facts[key]
        if not parts:
            continue
        limit = {"document": SHOWN_DOCUMENTS, "source": SHOWN_SOURCES}.get(key, len(parts))
        table = _table(title, "BPB", "share of bits", "share of bytes", "bytes")
        for part in parts[:limit]:
            table.add_row(
                Text(part["name"], overflow="ellipsis", no_wrap=True),
                "—" if part["bpb"] is None else f"{part['bpb']:.4f}",
                f"{part['bits'] / total['bits']:.1%}",
                f"{part['bytes'] / total['bytes']:.1%}",
                f"{part['bytes']:,}",
            )
        console.print(table)
        console.print()
    for sentence in facts["unavailable"]:
        console.print(Text(f"unknown: {sentence}", style="yellow"), soft_wrap=True)


def _table(*columns: str, words: int = 1) -> Table:
    """A table whose first `words` columns are words, the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < words else "right", no_wrap=i >= words)
    return table
