"""Comparisons and breakdowns as a terminal shows them."""

from __future__ import annotations

import itertools
import string
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from niblick.compare.groups import Compared, Comparison, DocumentTest, GroupFacts, NoDocuments, SeedTest, Spread
from niblick.console import plain_table, weighed
from niblick.reports.breakdown import Breakdown
from niblick.sweeps.results import by_point
from niblick.sweeps.running import State, tally

SHOWN_DOCUMENTS = 10
SHOWN_SOURCES = 12


def print_comparison(facts: Compared, console: Console) -> None:
    """Show what `compare` returns: the groups, then every comparison."""
    console.print(_groups(facts.groups))
    for note in facts.notes:
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    for found in facts.comparisons:
        console.print()
        console.print(_findings(found))
        console.print(_verdict(found))
        for sentence in _remarks(found.documents):
            console.print(Text(f"note: {sentence}", style="yellow"))
        table = _table("differs", found.first, found.second)
        for key, values in found.config.items():
            table.add_row(key, *("—" if value is None else str(value) for value in values))
        for key, means in found.metrics.items():
            if key not in _IN_GROUPS and means[0] != means[1]:
                table.add_row(key, *map(_number, means))
        if table.row_count:
            console.print()
            console.print(table)


_IN_GROUPS = frozenset({"bpb", "bpb_repaired", "loss"})
"""Metrics that the table of groups shows already, with their deviations."""


def _groups(groups: Sequence[GroupFacts]) -> Table:
    table = _table("", "runs", "seeds", "BPB", "repaired BPB", "nats per token", words=2)
    several = len({name.rpartition(":")[2] for each in groups for name in each.runs}) > 1
    for each in groups:
        ids = [name.rpartition("/")[2] for name in each.runs]
        if not several:
            ids = [name.rpartition(":")[0] for name in ids]
        table.add_row(
            Text(each.label, style="bold"),
            _short(ids),
            str(len(ids)),
            *map(_spread, (each.bpb, each.bpb_repaired, each.loss)),
        )
    return table


def _short(ids: list[str]) -> str:
    """Runs of one name as a shell takes them: `width-s{1337,1338}`."""
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*ids, strict=False))
    prefix = "".join(letters[0] for letters in alike).rstrip(string.digits)
    if len(ids) == 1 or not prefix:
        return ", ".join(ids)
    return f"{prefix}{{{','.join(each.removeprefix(prefix) for each in ids)}}}"


def _spread(value: Spread | None) -> str:
    if value is None:
        return "—"
    return f"{value.mean:.4f}" if value.deviation is None else f"{value.mean:.4f} ± {value.deviation:.4f}"


def _findings(found: Comparison) -> Table:
    """What documents and what seeds say about the difference, a line each."""
    table = _table(f"{found.first} → {found.second}", "difference", "95% interval", "p", "by", words=1)
    table.columns[-1].justify, table.columns[-1].no_wrap = "left", False
    documents, seeds = found.documents, found.seeds
    if isinstance(documents, NoDocuments):
        table.add_row("documents", "", "", "", documents.unavailable)
    else:
        by = f"paired bootstrap, {documents.documents:,} documents"
        table.add_row("documents", f"{documents.difference:+.4f} BPB", _interval(documents), _p(documents.p), by)
        margin = f"beyond {documents.margin:.4f} BPB"
        table.add_row("", margin, "", _p(documents.p_margin), "the same, one-sided")
    if seeds:
        by = f"Welch's test, {seeds.degrees:.1f} degrees of freedom"
        interval, p = _interval(seeds), _p(seeds.p)
    else:
        interval, p, by = "", "", "no test: it takes two runs of each, with different scores"
    table.add_row("seeds", f"{found.difference.value:+.4f} {found.difference.unit}", interval, p, by)
    return table


def _verdict(found: Comparison) -> Text:
    """One sentence: the challenge's rule, and what it says here."""
    rule = found.verdict
    said, style = {True: ("yes", "bold green"), False: ("no", "bold red"), None: ("undecided", "bold yellow")}[
        rule.wins
    ]
    other = found.second if rule.better == found.first else found.first
    p = "" if rule.p is None else f", p {_p(rule.p)}" if rule.p < 0.0001 else f", p = {_p(rule.p)}"
    return Text.assemble(
        f"Would {rule.better} be a record over {other} (better by {rule.margin:g} {rule.unit} at p < 0.01)? ",
        (said, style),
        f": {rule.gain:.4f} better{p}; {rule.reason}",
    )


def _remarks(documents: DocumentTest | NoDocuments) -> list[str]:
    if isinstance(documents, NoDocuments):
        return []
    remarks = []
    if documents.repair_bpb:
        remarks.append(
            f"{documents.repair_bpb:+.4f} BPB of the difference pay for what tokenizers lose, alike in all documents"
        )
    return remarks + ([documents.note] if documents.note else [])


def _interval(test: DocumentTest | SeedTest) -> str:
    return f"{test.low:+.4f} … {test.high:+.4f}"


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.0001 else "< 0.0001"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def print_sweep(states: Sequence[State], console: Console) -> None:
    """Show the points of a sweep with the mean of their seeds, how far it is, and what failed."""
    rows = []
    for point in by_point(states):
        spread = "" if point.deviation is None else f" ± {point.deviation:.4f}"
        bpb = "" if point.bpb is None else f"{point.bpb:.4f}{spread}"
        size = weighed(point.total_bytes) if point.done else ""
        rows.append([point.name, point.branch, f"{point.done}/{point.seeds}", bpb, size, point.note])
    console.print(plain_table(["point", "branch", "done", "BPB", "bytes", ""], rows))
    said = [f"\n{tally(list(states))}"]
    for state in states:
        if state.kind == "failed":
            said.append(f"\n{state.member.id} failed; the last it said (all of it in jobs/{state.member.id}.log):")
            said += [f"  {line}" for line in state.lines]
        elif state.kind == "changed":
            said.append(f"\n{state.member.id} does not count: {', '.join(state.lines)} changed after it was finished")
    for line in said:
        console.print(line, markup=False, soft_wrap=True)


def print_breakdown(facts: Breakdown, console: Console) -> None:
    """Show what `breakdown` returns: a table for each way of taking the score apart."""
    total = facts.total
    titles = {
        "context": "tokens of context",
        "boundary": "at chunk boundaries",
        "chunk": "place in the chunk",
        "class": "kind of byte",
        "source": "source",
        "document": "documents, dearest first",
    }
    for key, title in titles.items():
        parts = facts.ways[key]
        if not parts:
            continue
        limit = {"document": SHOWN_DOCUMENTS, "source": SHOWN_SOURCES}.get(key, len(parts))
        table = _table(title, "BPB", "share of bits", "share of bytes", "bytes")
        for part in parts[:limit]:
            table.add_row(
                Text(part.name, overflow="ellipsis", no_wrap=True),
                "—" if part.bpb is None else f"{part.bpb:.4f}",
                f"{part.bits / total.bits:.1%}",
                f"{part.bytes / total.bytes:.1%}",
                f"{part.bytes:,}",
            )
        console.print(table)
        console.print()
    for sentence in facts.unavailable:
        console.print(Text(f"unknown: {sentence}", style="yellow"), soft_wrap=True)


def _table(*columns: str, words: int = 1) -> Table:
    """A table whose first `words` columns are words, the others numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i < words else "right", overflow="fold", no_wrap=i >= words > 1)
    return table
