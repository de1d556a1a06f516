"""Pieces of pages as HTML, pure functions of what is shown. All text of logs and files is escaped here."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from urllib.parse import urlencode

from niblick.challenge import rules
from niblick.console import human_bytes, human_seconds
from niblick.monitor.timing import ENDED
from niblick.monitor.watcher import LABELS, View

SIGNS = {"done": "✓", "failed": "✗", "stalled": "!", "stopped": "■"}
"""Beside the word, never instead of it."""


def run_url(id: str) -> str:
    """Address of a run's page."""
    return f"/run?{urlencode({'id': id})}"


def words(view: View) -> str:
    """The state in words."""
    if view.gone:
        return "deleted"
    if view.phase == "stalled":
        return f"stalled in {LABELS[view.timing.working]}"
    return LABELS[view.phase]


def badge(view: View) -> str:
    """The state as sign and word."""
    kind = "gone" if view.gone else view.phase if view.phase in SIGNS else ""
    sign = f"<span aria-hidden=true>{SIGNS[kind]}</span>" if kind in SIGNS else "<span class=pulse></span>"
    if kind == "gone":
        sign = "<span aria-hidden=true>∅</span>"
    return f'<span class="badge {kind}" data-phase="{escape(view.phase)}">{sign}{escape(words(view))}</span>'


def bar(share: float | None, state: str, label: str) -> str:
    """A bar filled to `share`, readable for machines and screen readers too."""
    percent = 100 * min(1.0, share or 0.0)
    kind = state if state in SIGNS else ""
    return (
        f'<div class="bar {kind}" role=progressbar aria-label="{escape(label)}" aria-valuemin=0 '
        f'aria-valuemax=100 aria-valuenow="{percent:.2f}"><i style="width:{percent:.2f}%"></i></div>'
    )


def segments(view: View) -> str:
    """The strip of phases in small."""
    cells = ""
    for phase, state in view.strip:
        filled = f'<i style="width:{100 * (view.timing.share or 0.05):.1f}%"></i>' if state == "now" else ""
        stuck = view.phase if view.phase in SIGNS else ""
        cells += f'<div class="segment {phase} {state} {stuck}" title="{escape(LABELS[phase])}">{filled}</div>'
    return f'<div class="segments" role="img" aria-label="phase: {escape(words(view))}">{cells}</div>'


def strip(view: View) -> str:
    """The strip of phases: sign, name, length and share of the whole, when it began."""
    total = sum(view.seconds.values()) or 1.0
    items = ""
    for phase, state in view.strip:
        sign = {"behind": "✓", "now": SIGNS.get(view.phase, "●"), "ahead": "○"}[state]
        spent = view.seconds.get(phase)
        length = "" if spent is None else f"{human_seconds(spent)} · {spent / total:.0%}"
        if phase == "done":
            length = (
                human_seconds(sum(view.seconds.values())) + " in all" if view.phase == "done" and view.seconds else ""
            )
        if begun := view.starts.get(phase):
            length += f"<br>{time.strftime('%H:%M:%S', time.localtime(begun))}"
        stuck = view.phase if view.phase in SIGNS else ""
        current = ' aria-current="step"' if state == "now" else ""
        name = f"<b>{sign} {escape(LABELS[phase])}</b>"
        items += f'<li class="{state} {stuck}"{current}>{name}<span>{length or "&nbsp;"}</span></li>'
    return f'<ol class="strip" aria-label="phases">{items}</ol>'


def spark(values: Sequence[float], width: float = 150, height: float = 46) -> str:
    """A curve in small; what lies far above its end is cut off."""
    known, points = _curve(values, width, height)
    if not points:
        return f'<svg class="spark" viewBox="0 0 {width} {height}" aria-hidden="true"></svg>'
    path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
    (first, _), (last, end) = points[0], points[-1]
    return (
        f'<svg class="spark" viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="training loss, from {known[0]:.3f} to {known[-1]:.3f}">'
        f'<path class="under" d="{path} L{last:.1f} {height} L{first:.1f} {height} Z"/><path d="{path}"/>'
        f'<circle cx="{last:.1f}" cy="{end:.1f}" r="2.4"/></svg>'
    )


def thin_spark(values: Sequence[float], width: float = 100, height: float = 22) -> str:
    """A curve of every third point and nothing but its line, for rows: a page has hundreds of them."""
    known, points = _curve(values[::-3][::-1], width, height)
    if not points:
        return ""
    path = " ".join(f"{x:.0f},{y:.1f}" for x, y in points)
    return (
        f'<svg class="spark" viewBox="0 0 {width:g} {height:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="training loss, from {known[0]:.3f} to {known[-1]:.3f}"><path d="M{path}"/></svg>'
    )


def _curve(values: Sequence[float], width: float, height: float) -> tuple[list[float], list[tuple[float, float]]]:
    """The finite values, and where they lie in a picture; nowhere if they are fewer than two."""
    known = [v for v in values if math.isfinite(v)]
    if len(known) < 2:
        return known, []
    low = min(known)
    high = min(max(known), 2.0 * low) if low > 0 else max(known)
    scale = (height - 6) / (high - low) if high > low else 0.0
    wide = (width - 4) / (len(known) - 1)
    return known, [(i * wide + 1, height - 3 - (min(v, high) - low) * scale) for i, v in enumerate(known)]


def score(view: View) -> tuple[str, str]:
    """The number that tells most of a run so far, and what it is."""
    if view.final:
        kind = {"roundtrip": "from the artifact", "sliding": "sliding windows", "ttt": "test-time training"}
        return f"{view.final.bpb:.4f}", f"BPB, {kind[view.final.kind]}"
    if view.train_bpb is not None:
        checked = f", validation {view.val_bpb:.4f}" if view.val_bpb is not None else ""
        return f"{view.train_bpb:.4f}", f"BPB in training{checked}"
    if view.val_bpb is not None:
        return f"{view.val_bpb:.4f}", "BPB, validation"
    if view.train_loss is not None:
        return f"{view.train_loss:.4f}", "training loss, nats per token"
    return "–", "no line yet"


def eta(view: View) -> str:
    """Time left, of the phase and of the run."""
    spent = view.timing
    if view.phase in ENDED or view.gone:
        return ""
    if spent.eta is None:
        return "ETA unknown" if view.phase != "stalled" else f"silent for {human_seconds(spent.age)}"
    phase = human_seconds(spent.phase_eta) if spent.phase_eta is not None else "?"
    if spent.phase_eta is not None and abs(spent.eta - spent.phase_eta) < 1:
        return f"ETA {phase}"
    return f"ETA {phase}, run {human_seconds(spent.eta)}"


def cap(view: View) -> str:
    """Bytes against the cap, in words."""
    if view.total_bytes is None:
        return view.size or "–"
    share = view.total_bytes / rules.CAP_BYTES
    return f"{human_bytes(view.total_bytes)}, {share:.1%} of the cap" + (" – over" if share > 1 else "")


def speed(view: View) -> str:
    """Bytes a second, in words."""
    return "–" if view.bytes_per_second is None else f"{human_bytes(view.bytes_per_second)}/s"


def steps(view: View) -> str:
    """Steps, of how many."""
    if view.step is None:
        return "–"
    return f"{view.step:,}" + (f" / {view.steps:,}" if view.steps else "")


def ago(seconds: float) -> str:
    """How long something is past."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def card(view: View) -> str:
    """A working run, as the inside of a card."""
    number, unit = score(view)
    percent = "" if view.timing.share is None else f"{view.timing.share:.0%}"
    progress = bar(view.timing.share, view.phase, f"{words(view)} of {view.id}")
    return (
        f"<div class=line><span class=name>{escape(view.id)}</span>{badge(view)}</div>{segments(view)}"
        f"<div class=hero><div><div class=big>{number}</div><div class=unit>{escape(unit)}</div></div>"
        f"{spark(view.spark)}</div>"
        f"<div class=barline>{progress}<span>{percent}</span></div>"
        f"<div class=meta><span><b>{eta(view) or '&nbsp;'}</b></span><span>step <b>{steps(view)}</b></span>"
        f"<span>speed <b>{speed(view)}</b></span><span>last line <b>{ago(view.timing.age)}</b></span>"
        f"<span style='grid-column:1/-1'>artifact <b>{cap(view)}</b></span></div>"
    )


def row(view: View) -> str:
    """A run, as the inside of a row."""
    number, unit = score(view)
    size = view.size or "–" if view.total_bytes is None else human_bytes(view.total_bytes)
    return (
        f'<div class="cells"><span class=name title="{escape(view.id)}">{escape(view.id)}</span>'
        f"<span>{badge(view)}</span>"
        f'<span class="r" title="{escape(unit)}">{number} <span class=soft>{"" if view.final else "train"}</span>'
        f"</span>"
        f'<span class="r">{size}</span>'
        f"<span>{thin_spark(view.spark)}</span>"
        f'<span class="r soft" title="last line">{ago(view.timing.age) if view.timing.age > 30 else "now"}</span></div>'
    )


ROW_TITLES = (
    '<div class="cells titles"><span>run</span><span>phase</span><span class=r>BPB</span><span class=r>bytes</span>'
    "<span>training loss</span><span class=r>last line</span></div>"
)


def tile(name: str, value: str, under: str = "") -> str:
    """A number with its name."""
    small = f"<div class=s>{escape(under)}</div>" if under else ""
    return f"<div class=tile><div class=k>{escape(name)}</div><div class=v>{escape(value)}</div>{small}</div>"


def table(
    titles: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] = (),
    marked: Sequence[int] = (),
    *,
    whole: bool = False,
) -> str:
    """A table of plain texts; `numbers` are columns set right, `marked` rows that stand out.

    Cells of a `whole` one stay on one line: it is scrolled where it is too wide.
    """

    def cells(tag: str, row: Sequence[str]) -> str:
        kind = ["n" if i in numbers else "" for i in range(len(row))]
        return "".join(f'<{tag} class="{k}">{escape(c)}</{tag}>' for k, c in zip(kind, row, strict=True))

    head = "".join(f'<th class="{"n" if i in numbers else ""}">{escape(t)}</th>' for i, t in enumerate(titles))
    body = "".join(f'<tr class="{"differs" if i in marked else ""}">{cells("td", r)}</tr>' for i, r in enumerate(rows))
    kind = "plain whole" if whole else "plain"
    return f"<div class=scroll><table class='{kind}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def settings(values: Mapping[str, object]) -> str:
    """Config keys and values."""
    body = "".join(
        f"<tr><td class=key>{escape(str(k))}</td><td class=val>{escape(str(v))}</td></tr>" for k, v in values.items()
    )
    return f'<div class="scroll tall"><table class=plain><tbody>{body}</tbody></table></div>'


def events(view: View) -> str:
    """What happened, newest first."""
    signs = {"warning": "⚠", "good": "✓", "info": "·"}
    items = "".join(
        f'<li class="{n.kind}"><span aria-label="{n.kind}">{signs[n.kind]}</span>'
        f'<span class="soft num">{"" if n.step is None else f"step {n.step:,}"}</span>'
        f"<span>{escape(n.text)}</span></li>"
        for n in reversed(view.notes)
    )
    return f"<ul class=events>{items}</ul>" if items else "<p class=soft>nothing yet</p>"


def log(lines: Iterable[str]) -> str:
    """The end of a log."""
    text = escape("\n".join(lines)) or "nothing yet"
    return f'<div class=logbox tabindex=0 aria-label="end of the log"><pre class=log>{text}</pre></div>'
