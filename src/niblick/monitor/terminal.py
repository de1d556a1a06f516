"""Runs in the terminal: one in detail or all as a table, live or once."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.columns import Columns
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from niblick.challenge import rules
from niblick.console import human_bytes, human_seconds
from niblick.monitor.timing import ENDED
from niblick.monitor.watcher import LABELS, View, Watcher

MARKS = {"done": "✓", "failed": "✗", "stalled": "!", "stopped": "■"}
"""A sign for each state that is no ordinary work; the word stands beside it."""
STYLES = {"done": "green", "failed": "red", "stalled": "yellow", "stopped": "yellow"}
BLOCKS = "▁▂▃▄▅▆▇█"
_BAR = 32


def watch(watcher: Watcher, id: str | None, console: Console | None = None) -> None:
    """Show runs until Ctrl-C, or until the one that is watched has ended."""
    console = console or Console(highlight=False)
    with watcher, Live(console=console, refresh_per_second=4, screen=False) as live:
        while True:
            views = watcher.views
            live.update(detail(views[id]) if id else overview(list(views.values()), console.height - 4))
            if id and views[id].phase in ENDED:
                return
            time.sleep(0.25)


def state(view: View) -> Text:
    """The phase in words, with its sign."""
    mark = MARKS.get(view.phase, "●")
    words = "deleted" if view.gone else LABELS[view.phase]
    if view.phase == "stalled":
        words += f" in {LABELS[view.timing.working]}"
    return Text(f"{mark} {words}", style=STYLES.get(view.phase, "cyan"))


def bar(share: float | None, width: int = _BAR) -> Text:
    """A bar filled to `share`, with the percentage."""
    filled = round(width * (share or 0.0))
    text = Text("━" * filled, style="green") + Text("━" * (width - filled), style="bright_black")
    return text + (f" {share:4.0%}" if share is not None else "    ?")


def spark(values: Sequence[float], width: int = 24) -> str:
    """A curve as a line of blocks, cut off above where the first steps were."""
    values = [v for v in values if v == v and abs(v) != float("inf")][-width:]
    if not values:
        return ""
    low, high = min(values), min(max(values), 2.2 * min(values)) if min(values) > 0 else max(values)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round(min(v - low, high - low) * scale)] for v in values)


def detail(view: View) -> Group:
    """One run: strip of phases, bar, and what is known in two columns."""
    spent = view.timing
    head = Text.assemble((view.id, "bold"), "  ", state(view))
    if view.message:
        head.append(f"\n{view.message}", style=STYLES.get(view.phase, ""))
    rows: list[Text | Table | Columns] = [head, strip(view), Text.assemble(bar(spent.share), "  ", _eta(view))]
    facts = Table(box=None, pad_edge=False, show_header=False, padding=(0, 3, 0, 0))
    for pair in _pairs(view):
        facts.add_row(*[cell for name, value in pair for cell in (Text(name, style="bright_black"), value)])
    rows.append(facts)
    rows += [Text(f"  {n.text}", style="yellow" if n.kind == "warning" else "bright_black") for n in view.notes[-4:]]
    return Group(*rows)


def strip(view: View) -> Columns:
    """All phases in a row, or in as many as the terminal takes: those behind, the one that it is in, those ahead."""
    phases = []
    for phase, state_ in view.strip:
        if state_ == "behind":
            mark, style = "✓", "green"
        elif state_ == "now":
            mark, style = MARKS.get(view.phase, "●"), "bold " + STYLES.get(view.phase, "cyan")
        else:
            mark, style = "○", "bright_black"
        spent = view.seconds.get(phase)
        words = f"{mark} {LABELS[phase]}" + (f" {human_seconds(spent)}" if spent is not None else "")
        phases.append(Text(words, style, no_wrap=True))
    return Columns(phases, padding=(0, 2))


def _eta(view: View) -> str:
    spent = view.timing
    if view.phase in ENDED or spent.eta is None:
        return ""
    own = f"phase {human_seconds(spent.phase_eta)}, " if spent.phase_eta is not None else ""
    return f"ETA {own}run {human_seconds(spent.eta)}"


def _pairs(view: View) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    def number(value: float | None, form: str) -> str:
        return "–" if value is None else format(value, form)

    final = f"{view.final.bpb:.4f} BPB" if view.final else "–"
    size = view.size or "–"
    if view.total_bytes is not None:
        size += f" of {rules.CAP_BYTES:,}" + (" OVER THE CAP" if view.total_bytes > rules.CAP_BYTES else "")
    speed = "–" if view.bytes_per_second is None else f"{human_bytes(view.bytes_per_second)}/s"
    clock = "–" if view.train_seconds is None else human_seconds(view.train_seconds)
    return [
        (("step", f"{number(view.step, ',')} of {number(view.steps, ',')}"), ("train clock", clock)),
        (("train loss", number(view.train_loss, ".4f")), ("curve", spark(view.spark))),
        (("mean of last 5", f"{number(view.train_bpb, '.3f')} BPB"), ("speed", speed)),
        (("validation", f"{number(view.val_bpb, '.4f')} BPB"), ("bytes", size)),
        (("final score", final), ("artifact", view.final.name if view.final else "–")),
        (
            ("weights", f"{number(view.parameters, ',')}, seed {number(view.seed, 'd')}"),
            ("last line", f"{human_seconds(view.timing.age)} ago"),
        ),
    ]


def overview(views: Sequence[View], most: int = 40) -> Group:
    """All runs as a table, the working ones first; as many as fit. Where it is narrow, names are cut and no scores."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, right in (("run", 0), ("phase", 0), ("", 0), ("ETA", 1), ("train BPB", 1), ("BPB", 1), ("bytes", 1)):
        table.add_column(name, justify="right" if right else "left", no_wrap=name not in ("run", ""))
    ordered = sorted(views, key=lambda v: (not v.active, -v.last_at))
    for view in ordered[: max(most, 1)]:
        score = view.final.bpb if view.final else view.val_bpb
        eta = view.timing.eta
        table.add_row(
            Text(view.id, no_wrap=True, overflow="ellipsis"),
            state(view),
            _aside(view),
            human_seconds(eta) if view.active and eta is not None else "",
            "" if view.train_bpb is None else f"{view.train_bpb:.3f}",
            "" if score is None else f"{score:.4f}{'' if view.final else ' float'}",
            view.size,
        )
    hidden = len(ordered) - most
    return Group(table, *([Text(f"… and {hidden} more", style="bright_black")] if hidden > 0 else []))


def _aside(view: View) -> Text:
    """How far a run is, or the first words on why it failed; cut where there is no room."""
    failed = view.message.partition(":")[0][:30] if view.phase == "failed" else ""
    text = bar(view.timing.share, 12) if view.active else Text(failed)
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
