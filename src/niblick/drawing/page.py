"""A report of a run: one self-contained HTML page that works offline, in the dark and on a phone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from niblick.drawing.charts import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #656d76; --line: #d1d9e0; --chunk: #ddf4ff;
  --sure: #54aeff; --page: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --chunk: #12324f; --sure: #1f6feb; --page: #0d1117 } }
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
body.wide { max-width: 62rem } .scroll { overflow-x: auto } .scroll td, .scroll th { padding-right: 1rem }
td { overflow-wrap: break-word } .label { margin: 1rem 0 0; font-weight: 600; overflow-wrap: anywhere }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 1.2rem 0 }
.tiles div { border: 1px solid var(--line); border-radius: .5rem; padding: .7rem .9rem; overflow-wrap: anywhere }
.tiles b { display: block; font-size: 1.5rem; font-weight: 650; font-variant-numeric: tabular-nums }
.tiles span { color: var(--soft); font-size: .85rem } .key { font-weight: 600; margin: 1.4rem 0 .4rem }
.chart { margin: .4rem 0 1rem; min-width: 0; overflow: hidden } .choice { color: var(--soft); font-size: .9rem }
.choice button { font: inherit; color: var(--soft); background: none; border: 1px solid var(--line);
  border-radius: 1rem; padding: .15rem .8rem; margin-left: .3rem; cursor: pointer }
.choice button[aria-pressed=true] { color: var(--ink); border-color: #2f81f7; font-weight: 600 }
.choice button:focus-visible, summary:focus-visible { outline: 2px solid #2f81f7; outline-offset: 2px }
.chunks.sure b { background: color-mix(in srgb, var(--sure) var(--p), var(--page)); border: 1px solid var(--line) }
.tag { border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .6rem; margin-right: .3rem;
  font-size: .85rem }
pre { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; padding: .7rem; font-size: .82rem }
pre.log { white-space: pre-wrap } summary { cursor: pointer; color: var(--soft); margin: .6rem 0 }
"""

CHART_SCRIPT = """
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const narrow = () => window.innerWidth < 600;
function inked(figure) {
  const layout = structuredClone(figure.layout);
  layout.font.color = css('--soft');
  for (const note of layout.annotations || []) note.font.color = css('--soft');
  for (const axis of [layout.xaxis, layout.yaxis]) axis.gridcolor = css('--line');
  if (narrow()) layout.margin = { l: 44, r: 8, t: 12, b: 44 };
  return layout;
}
function show(place, figure) {
  place.shown = figure;
  Plotly.react(place, figure.data, inked(figure), { responsive: true, displaylogo: false, displayModeBar: false });
}
const places = [...document.querySelectorAll('.chart')];
for (const place of places) {
  const figures = [...place.querySelectorAll('script')].map(s => JSON.parse(s.textContent));
  place.replaceChildren();
  const buttons = [...(place.previousElementSibling?.matches('.choice') ? place.previousElementSibling.children : [])];
  buttons.forEach((button, i) => button.addEventListener('click', () => {
    buttons.forEach(other => other.setAttribute('aria-pressed', other === button));
    show(place, figures[i]);
  }));
  place.shown = figures[0];
}
// What is folded away has no width yet: it is drawn when it opens.
const visible = place => !place.closest('details:not([open])');
places.filter(visible).forEach(place => show(place, place.shown));
document.querySelectorAll('details').forEach(details => details.addEventListener('toggle', () =>
  [...details.querySelectorAll('.chart')].filter(visible).forEach(place => show(place, place.shown))));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () =>
  places.filter(visible).forEach(place => show(place, place.shown)));
"""


def page(title: str, lead: str, sections: list[str], *, script: str = "", wide: bool = False) -> str:
    """Return the HTML of a whole page; `sections` are HTML, title and lead are plain text.

    The page may load nothing: it says so to the browser. `script` runs at its end; `wide` makes room for charts.
    """
    body = f"<script>{script}</script>\n" if script else ""
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>\n'
        f'<body class="{"wide" if wide else ""}"><h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(sections)
        + f"\n{body}</html>\n"
    )


_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def table(columns: list[str], rows: list[list[str]], own: int = 0, words: Sequence[int] = (0,)) -> str:
    """Return a table; the first `own` rows are set apart as ours, columns other than those in `words` are numbers."""
    kinds = ["" if i in words else "n" for i in range(len(columns))]
    head = "".join(f'<th class="{kind}">{escape(c)}</th>' for c, kind in zip(columns, kinds, strict=True))
    body = ""
    for number, row in enumerate(rows):
        cells = "".join(f'<td class="{kind}">{escape(c)}</td>' for c, kind in zip(row, kinds, strict=True))
        body += f'<tr class="{"own" if number < own else ""}">{cells}</tr>'
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def tiles(facts: list[tuple[str, str]]) -> str:
    """Return a row of big figures, each with a line of words below it."""
    cells = "".join(f"<div><b>{escape(figure)}</b><span>{escape(words)}</span></div>" for figure, words in facts)
    return f'<div class="tiles">{cells}</div>' if facts else ""


def chart(name: str, figure: Figure, description: str) -> str:
    """Return the place of a chart, with its data; CHART_SCRIPT behind plotly.js draws it."""
    height = figure["layout"]["height"]
    return (
        f'<figure class="chart" id="{escape(name)}" role="img" aria-label="{escape(description)}" '
        f'style="height:{height}px"><script type="application/json">{_json(figure)}</script></figure>'
    )


def chart_choice(name: str, figures: dict[str, Figure], description: str) -> str:
    """Return one place for several charts, and a button for each; the first is shown."""
    buttons = "".join(
        f'<button type="button" aria-pressed="{"false" if i else "true"}">{escape(words)}</button>'
        for i, words in enumerate(figures)
    )
    data = "".join(f'<script type="application/json">{_json(figure)}</script>' for figure in figures.values())
    height = next(iter(figures.values()))["layout"]["height"]
    return (
        f'<div class="choice" role="group" aria-label="x axis">over {buttons}</div><figure class="chart" '
        f'id="{escape(name)}" role="img" aria-label="{escape(description)}" style="height:{height}px">{data}</figure>'
    )


def _json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def section(title: str, html: str) -> str:
    """Return a section with a heading."""
    return f"<section><h2>{escape(title)}</h2>{html}</section>"


def svg(image: bytes, description: str) -> str:
    """Return an SVG picture for inlining."""
    text = image.decode()
    return f'<figure role="img" aria-label="{escape(description)}">{text[text.index("<svg") :]}</figure>'


def chunk_line(pieces: list[str], p: Sequence[float] = ()) -> str:
    """Return chunks as boxes in a row; line breaks are shown as ⏎. With `p`, boxes are the stronger the surer."""
    boxes = ""
    for i, piece in enumerate(pieces):
        sure = f' title="p = {p[i]:.3f}" style="--p:{100 * p[i]:.0f}%"' if p else ""
        boxes += f"<b{sure}>{escape(piece)}</b>".replace("\n", "⏎")
    return f'<p class="chunks{" sure" if p else ""}">{boxes}</p>'


def meter(share: float) -> str:
    """Return a bar that is filled to `share`."""
    return f'<div class="meter"><i style="width:{100 * min(share, 1):.2f}%"></i></div>'
