"""A report of a run: one self-contained HTML page that works offline, in the dark and on a phone."""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #656d76; --line: #d1d9e0; --chunk: #ddf4ff; --page: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --chunk: #12324f; --page: #0d1117 } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 46rem; margin: 2.5rem auto; padding: 0 1.2rem }
h1 { font-size: 1.7rem; margin: 0 } h2 { font-size: 1.1rem; margin: 2.2rem 0 .6rem }
.lead { color: var(--soft); margin: .2rem 0 1.5rem } .big { font-size: 2.6rem; font-weight: 650; margin-right: .3rem }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; padding: .32rem .6rem .32rem 0;
  border-bottom: 1px solid var(--line) } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums }
tr.own td { font-weight: 600 } figure { margin: 0 } figure svg { width: 100%; height: auto }
.chunks { font: 14px/2.1 ui-monospace, monospace } .chunks b { font-weight: 400; background: var(--chunk);
  border-radius: 3px; padding: .15rem .1rem; margin-right: 3px; white-space: pre-wrap }
.meter { height: .6rem; border-radius: .3rem; background: var(--line); overflow: hidden; margin: .5rem 0 }
.meter i { display: block; height: 100%; background: #2f81f7 } .soft { color: var(--soft) }
"""


def page(title: str, lead: str, sections: list[str]) -> str:
    """Return the HTML of a whole page; `sections` are HTML, title and lead are plain text."""
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>\n'
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n' + "\n".join(sections) + "\n</html>\n"
    )


def table(columns: list[str], rows: list[list[str]], own: int = 0) -> str:
    """Return a table; the first `own` rows are set apart as ours, columns after the first are numbers."""
    head = "".join(f'<th class="{"n" if i else ""}">{escape(c)}</th>' for i, c in enumerate(columns))
    body = ""
    for number, row in enumerate(rows):
        cells = "".join(f'<td class="{"n" if i else ""}">{escape(c)}</td>' for i, c in enumerate(row))
        body += f'<tr class="{"own" if number < own else ""}">{cells}</tr>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def section(title: str, html: str) -> str:
    """Return a section with a heading."""
    return f"<section><h2>{escape(title)}</h2>{html}</section>"


def svg(image: bytes, description: str) -> str:
    """Return an SVG picture for inlining."""
    text = image.decode()
    return f'<figure role="img" aria-label="{escape(description)}">{text[text.index("<svg") :]}</figure>'


def chunk_line(pieces: list[str]) -> str:
    """Return chunks as boxes in a row; line breaks are shown as ⏎."""
    boxes = "".join(f"<b>{escape(piece)}</b>".replace("\n", "⏎") for piece in pieces)
    return f'<p class="chunks">{boxes}</p>'


def meter(share: float) -> str:
    """Return a bar that is filled to `share`."""
    return f'<div class="meter"><i style="width:{100 * min(share, 1):.2f}%"></i></div>'
