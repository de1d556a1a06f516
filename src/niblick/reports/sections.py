"""The sections of a report on runs, as HTML."""

from __future__ import annotations

import json
from html import escape
from typing import Any

from niblick.challenge import rules
from niblick.challenge.tracks import UNWEIGHED
from niblick.console import human_seconds, weighed, weighed_megabytes
from niblick.drawing import page as report
from niblick.drawing.charts import Figure
from niblick.facts.events import Failure
from niblick.ledger.leaderboard import APART
from niblick.ledger.listing import board_cells
from niblick.reports.material import Material, phases

_BOARD = ["", "branch", "result", "BPB", "seeds", "p", "MB", "standing", "audit"]


def sections(material: Material, figures: dict[str, Figure]) -> list[str]:
    """Return the sections of a page, in order; those without anything to say are left out."""
    parts = {
        "": _headline(material),
        "Leaderboard": _leaderboard(material, figures),
        "Curves": _curves(figures),
        "Boundaries": _boundaries(material, figures),
        "Bytes against BPB": _bytes(material, figures),
        "Ablation": _ablation(material, figures),
        "Time": _time(material, figures),
        "Failures and warnings": _failures(material),
        "Notes": _notes(material),
        "Runs": _runs(material),
        "Config": _config(material),
    }
    done = [report.section(title, html) if title else html for title, html in parts.items() if html]
    said = "".join(f"<p class='soft'>{escape(note)}</p>" for note in material.notes + material.board.notes)
    return [*done, said]


def _headline(material: Material) -> str:
    """The few numbers that one looks for first."""
    done = [row for row in material.rows if row.status == "done" and row.score]
    scored = [row for row in done if row.score and row.score.standing != "over cap"] or done
    seconds = sum(sum(phases(row).values()) for row in material.rows)
    tiles = []
    if scored:
        best = min(scored, key=lambda row: row.score.bpb if row.score else 0.0)
        assert best.score is not None
        words = "BPB, from the artifact" if len(material.rows) == 1 else f"lowest BPB: {best.id}"
        tiles.append((f"{best.score.bpb:.4f}", words))
        if best.score.total_bytes is None:
            tiles.append((f"{best.score.artifact_bytes / 1e6:.2f} MB", f"artifact alone, {UNWEIGHED}"))
        else:
            share = best.score.total_bytes / rules.CAP_BYTES
            tiles.append((f"{best.score.total_bytes / 1e6:.2f} MB", f"{share:.0%} of the cap, {best.score.standing}"))
        tiles.append((_AUDIT[best.score.audit], "audit of the score"))
    if seconds:
        tiles.append((human_seconds(seconds), "of training, packing, scoring"))
    return report.tiles(tiles)


_AUDIT = {"passed": "audited", "failed": "audit failed", "none": "not audited"}


def _leaderboard(material: Material, figures: dict[str, Figure]) -> str:
    if len(material.rows) < 2:
        return ""
    html = ""
    for number, board in enumerate(material.board.boards):
        html += f"<p class='key'>{escape(board.key.name)}</p>"
        html += _chart(figures, f"leaderboard-{number + 1}", "mean BPB of each branch, with deviation over seeds")
        if board.ranked:
            html += report.table(_BOARD, [board_cells(row) for row in board.ranked], words=(1, 2, 7, 8))
        for reason, words in APART.items():
            rows = [row for row in board.apart if row.apart == reason]
            if rows:
                html += f"<p class='soft'>Not ranked: {escape(words)}</p>"
                html += report.table(_BOARD, [board_cells(row) for row in rows], words=(1, 2, 7, 8))
    if html:
        html += (
            "<p class='soft'>p: how likely such scores are where a result is no worse than the one above it, by "
            "Welch's test over seeds, or by paired bootstrap over documents where there is one seed.</p>"
        )
    return html


def _curves(figures: dict[str, Figure]) -> str:
    choices = {"step": "steps", "time": "time", "bytes": "bytes of text"}
    shown = {words: figures[f"curves-{x}"] for x, words in choices.items() if f"curves-{x}" in figures}
    html = report.chart_choice("curves", shown, "bits per byte in the course of training") if shown else ""
    more = [
        ("throughput", "bytes of training text per second"),
        ("learning-rate", "learning rate"),
        ("gradients", "norm of the gradient"),
    ]
    extra = "".join(_chart(figures, name, words) for name, words in more)
    return html + (f"<details><summary>Speed, learning rate, gradients</summary>{extra}</details>" if extra else "")


def _boundaries(material: Material, figures: dict[str, Figure]) -> str:
    html = _chart(figures, "boundaries", "share of positions where each level cuts")
    if material.pictures:
        html += "<p class='soft'>The published sentence, as each cuts it; the stronger the box, the surer (p).</p>"
        for picture in material.pictures:
            said = f"; {picture.figures}" if picture.figures else ""
            html += f"<p class='label'>{escape(picture.title)}, {len(picture.pieces)} chunks{escape(said)}</p>"
            html += report.chunk_line([text for text, _ in picture.pieces], [p for _, p in picture.pieces])
    return html


def _bytes(material: Material, figures: dict[str, Figure]) -> str:
    html = _chart(figures, "bytes-bpb", "bytes of code and weights against bits per byte, with the cap")
    rows = [row for row in material.rows if row.score]
    if len(rows) == 1 and rows[0].score:
        score = rows[0].score
        parts = [["artifact", f"{score.artifact_bytes:,}"]]
        if score.packed_text and score.text_bytes:
            parts += [[f"in it, {score.text_bytes:,} bytes of training text", f"{score.packed_text:,}"]]
        parts += [["code", weighed(score.code_bytes)]]
        parts += [["together", weighed(score.total_bytes)], ["cap", f"{rules.CAP_BYTES:,}"]]
        meter = "" if score.total_bytes is None else report.meter(score.total_bytes / rules.CAP_BYTES)
        html = meter + report.table(["", "bytes"], parts) + html
    return html


def _ablation(material: Material, figures: dict[str, Figure]) -> str:
    facts = material.ablation
    if len(facts.rows) < 2:
        return ""
    keys = facts.keys[:8]
    columns = ["", *keys, "BPB", "seeds", f"against {facts.reference}", "p", "MB", "ms per step"]
    rows = [
        [
            row.name,
            *(_plain(value) for value in row.values[: len(keys)]),
            f"{row.mean:.4f}" + ("" if row.deviation is None else f" ± {row.deviation:.4f}"),
            str(len(row.scores)),
            "reference" if row.reference else f"{row.difference:+.4f}",
            "" if row.p is None else f"{row.p:.4f}",
            weighed_megabytes(row.total_bytes),
            "" if row.ms_per_step is None else f"{row.ms_per_step:.0f}",
        ]
        for row in facts.rows
    ]
    more = f" {len(facts.keys) - len(keys)} more keys differ." if len(keys) < len(facts.keys) else ""
    left = f" {facts.left_out} runs with another ranking key are not in it." if facts.left_out else ""
    note = f"<p class='soft'>Bars: 95% intervals over seeds; p two-sided, Welch's test.{more}{left}</p>"
    return (
        _chart(figures, "ablation", "what each recipe gives against the reference") + report.table(columns, rows) + note
    )


def _plain(value: Any) -> str:
    return "—" if value is None else value if isinstance(value, str) else json.dumps(value)


def _time(material: Material, figures: dict[str, Figure]) -> str:
    rows = [
        [
            row.id,
            "" if row.step is None else f"{row.step:,}",
            "" if not (row.step and row.train_seconds) else f"{1000 * row.train_seconds / row.step:,.1f}",
            *(human_seconds(phases(row)[name]) if name in phases(row) else "" for name in _PHASES),
        ]
        for row in material.rows
        if phases(row)
    ]
    if not rows:
        return ""
    columns = ["", "steps", "ms per step", *_PHASES]
    return _chart(figures, "timings", "where the time went") + report.table(columns, rows)


_PHASES = ("training", "packing", "scoring")


def _failures(material: Material) -> str:
    html = ""
    for row in material.rows:
        if row.status in ("failed", "broken", "stopped", "unfinished"):
            html += f"<p><b>{escape(row.id)}</b> {escape(row.status)}: {escape(row.message)}</p>"
        if lines := material.failures.get(row.id):
            html += f"<pre>{escape(chr(10).join(lines))}</pre>"
        if row.score and row.score.faults:
            html += f"<p><b>{escape(row.id)}</b> failed its audit: {escape(', '.join(row.score.faults))}</p>"
    for id, events in material.events.items():
        for event in events[:20]:
            step = None if isinstance(event, Failure) else event.step
            words = f"{id}, step {'?' if step is None else step}: {event.message}"
            html += f"<p class='soft'>{escape(words)}</p>"
    return html


def _notes(material: Material) -> str:
    html = ""
    for row in material.rows:
        tags = "".join(f"<span class='tag'>{escape(tag)}</span>" for tag in row.tags)
        notes = "".join(
            f"<li>{escape(str(n.get('time', ''))[:16].replace('T', ' '))} {escape(n['text'])}</li>" for n in row.notes
        )
        if tags or notes:
            html += f"<p><b>{escape(row.id)}</b> {tags}</p><ul>{notes}</ul>"
    if material.log and len(material.rows) > 1:
        html += f"<details><summary>The research log</summary><pre class='log'>{escape(material.log)}</pre></details>"
    return html


def _runs(material: Material) -> str:
    if len(material.rows) < 2:
        return ""
    rows = [
        [
            row.id,
            row.status,
            row.branch,
            "" if row.seed is None else str(row.seed),
            "" if row.score is None else f"{row.score.bpb:.4f}",
            "" if row.score is None else weighed(row.score.total_bytes),
            "" if row.score is None else row.score.standing,
        ]
        for row in material.rows
    ]
    table = report.table(["", "status", "branch", "seed", "BPB", "bytes", "standing"], rows, words=(0, 1, 2, 6))
    return f"<details{' open' if len(rows) <= 20 else ''}><summary>{len(rows)} runs</summary>{table}</details>"


def _config(material: Material) -> str:
    if material.config is None:
        return ""
    rows = [[key, _plain(value)] for key, value in material.config.items()]
    return f"<details><summary>{len(rows)} keys</summary>{report.table(['key', 'value'], rows, words=(0, 1))}</details>"


def _chart(figures: dict[str, Figure], name: str, words: str) -> str:
    return report.chart(name, figures[name], words) if name in figures else ""
