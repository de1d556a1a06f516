"""Pictures of chunks: brackets, colours in a terminal, HTML with p under every byte, SVG for papers.

Whatever the bytes are, a picture is valid text: bytes that are no character, and characters that would move or hide
others, are shown escaped; line feeds and tabs by signs.

Shapes: N bytes of a text.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from niblick.boundaries.cuts import Chunk, Floats, Row, row_chunks

SIGNS = {"\n": "⏎", "\t": "⇥"}
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)
"""Control characters, and those that turn the direction of writing, break lines or show nothing at all."""

PALETTE = ("38;5;232;48;5;153", "38;5;232;48;5;223")
"""Terminal colours of chunks in turns: dark on light blue, dark on sand."""


def visible(text: str) -> str:
    """Return text with signs for line feeds and tabs, and escapes for what cannot be shown."""

    def shown(match: re.Match[str]) -> str:
        character = match.group()
        return SIGNS.get(character) or character.encode("unicode_escape").decode()

    return _HIDDEN.sub(shown, text)


class Chunks(list[Chunk]):
    """The chunks of a text, a list: printed as `[The ][quick ]`, in a notebook as coloured boxes with p on hover."""

    def __str__(self) -> str:
        return "\n".join(brackets(level) for level in self._levels())

    def _repr_html_(self) -> str:
        lines = []
        for level in self._levels():
            boxes = "".join(
                f'<span style="background:{TINTS[i % 2]};color:#111;border-radius:3px;margin-right:1px" '
                f'title="bytes {chunk.start} to {chunk.end}, p = {chunk.p:.3f}">{escape(visible(chunk.text))}</span>'
                for i, chunk in enumerate(level)
            )
            lines.append(f'<p style="font-family:monospace;white-space:pre-wrap;line-height:1.7">{boxes}</p>')
        return "".join(lines)

    def _levels(self) -> list[list[Chunk]]:
        return [[chunk for chunk in self if chunk.level == level] for level in sorted({c.level for c in self})]


TINTS = ("#cfe3f7", "#f5e3c3")
"""Colours of boxes in turns."""


def brackets(pieces: Sequence[Chunk]) -> str:
    """Write chunks as `[The ][quick ]`, as in study 1."""
    return "".join(f"[{visible(chunk.text)}]" for chunk in pieces)


def coloured(pieces: Sequence[Chunk]) -> str:
    """Return chunks on two colours in turns, for a terminal; line feeds are shown and break the line as well."""
    parts = []
    for number, chunk in enumerate(pieces):
        style = PALETTE[number % 2]
        for line in re.split("(?<=\n)", chunk.text):
            if line:
                parts.append(f"\033[{style}m{visible(line)}\033[0m" + ("\n" if line.endswith("\n") else ""))
    return "".join(parts)


@dataclass(frozen=True)
class Cell:
    """What stands in one place of a picture: a whole character, or one byte of a character that is cut."""

    text: str
    begin: int
    end: int
    escaped: bool
    """Whether it is a byte shown escaped."""

    @property
    def columns(self) -> int:
        """Columns that it takes in a font of fixed width."""
        return max(1, sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in self.text))


def cells(data: bytes, starts: set[int]) -> list[Cell]:
    """Cut bytes into characters. A character with a boundary inside it, and what is none, falls into its bytes.

    Combining characters stand with the character before them, unless a chunk starts there.
    """
    found: list[Cell] = []
    at = 0
    for character in data.decode(errors="surrogateescape"):
        alone = "\udc80" <= character <= "\udcff"
        size = 1 if alone else len(character.encode())
        if alone or any(place in starts for place in range(at + 1, at + size)):
            found += [Cell(f"\\x{data[place]:02x}", place, place + 1, True) for place in range(at, at + size)]
        elif found and unicodedata.combining(character) and at not in starts and not found[-1].escaped:
            last = found.pop()
            found.append(Cell(last.text + character, last.begin, at + size, False))
        else:
            text = visible(character)
            found.append(Cell(text, at, at + size, len(text) > 1 and text.startswith("\\")))
        at += size
    return found


def _p(value: float) -> str:
    """p in at most three characters; nothing where the level was not asked."""
    if math.isnan(value):
        return ""
    return "1" if value >= 0.995 else f"{value:.2f}"[1:]


def chunk_boxes(row: Row, level: int = 0) -> str:
    """Return the HTML of a row's chunks as boxes, with p under every byte: its number, and a bar as high as it.

    At boundaries p stands out. A character of several bytes has a p for each.
    """
    p_N, pieces = row.p_N(level), row_chunks(row, level)
    starts = {chunk.start for chunk in pieces}
    parts: list[str] = []
    ended = False
    for cell in cells(row.data, starts):
        if cell.begin in starts:
            parts.append(("</span>" if parts else "") + ("<br>" if ended else "") + '<span class="chunk">')
            ended = False
        ended |= cell.text == SIGNS["\n"]
        under = "".join(_bar(p_N, place, place in starts) for place in range(cell.begin, cell.end))
        kind = ' class="x"' if cell.escaped else ""
        text = "&nbsp;" if cell.text == " " else escape(cell.text)
        parts.append(f"<span><b{kind}>{text}</b><i>{under}</i></span>")
    return f'<div class="routed">{"".join(parts)}{"</span>" if parts else ""}</div>'


def _bar(p_N: Floats, place: int, boundary: bool) -> str:
    p = float(p_N[place])
    height = 0 if math.isnan(p) else round(100 * p)
    kind = ' class="at"' if boundary else ""
    return f'<u{kind} style="--p:{height}%" title="byte {place}: p = {p:.3f}">{_p(p)}</u>'


STYLE = """
.routed { font: 15px/1.2 ui-monospace, "DejaVu Sans Mono", monospace; margin: .6rem 0 }
.chunk { display: inline-flex; flex-wrap: wrap; border: 1px solid var(--line); border-left: 3px solid #2f81f7;
  border-radius: 4px; margin: 0 3px 5px 0; padding: 1px 1px 0; background: var(--box); vertical-align: top;
  max-width: 100% }
.chunk > span { display: inline-flex; flex-direction: column; align-items: center }
.chunk b { font-weight: 400; min-width: 1ch } .chunk b.x { color: #cf222e; font-size: .75em; line-height: 1.6 }
.chunk i { display: inline-flex; font-style: normal }
.chunk u { text-decoration: none; font-size: 8px; line-height: 10px; width: 15px; text-align: center; height: 26px;
  color: var(--soft); display: inline-flex; align-items: flex-start; justify-content: center; border-radius: 2px;
  background: linear-gradient(to top, var(--bar) var(--p), transparent var(--p)) }
.chunk u.at { color: var(--ink); font-weight: 700; --bar: #2f81f799 }
:root { --box: #f6f8fa; --bar: #8b949e55 }
@media (prefers-color-scheme: dark) { :root { --box: #161b22; --bar: #8b949e44 } }
"""


COLUMN, LINE, BAR = 9.0, 46.0, 16.0
"""Pixels of a column, of a line of text with its bars, and of the bar of p = 1."""


def svg(row: Row, level: int = 0, columns: int = 88, title: str = "") -> str:
    """Return an SVG of a row's chunks with a bar of p under every byte, for papers: black on white, nothing outside.

    Lines break between chunks; one longer than a line breaks anywhere. Bars of bytes that start a chunk are dark.
    """
    p_N, pieces = row.p_N(level), row_chunks(row, level)
    starts = {chunk.start for chunk in pieces}
    placed, lines = _place(cells(row.data, starts), starts, columns)
    top = 24.0 if title else 6.0
    width, height = columns * COLUMN + 16, top + lines * LINE + 4
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14">',
        f'<rect width="{width:g}" height="{height:g}" fill="#fff"/>',
    ]
    if title:
        parts.append(f'<text x="8" y="16" font-size="11" fill="#555">{escape(visible(title))}</text>')
    shade = 0
    for cell, line, column in placed:
        shade += cell.begin in starts
        parts += _svg_cell(cell, 8 + column * COLUMN, top + line * LINE, p_N, starts, shade % 2 == 0)
    return "\n".join([*parts, "</svg>\n"])


def stacked(rows: Mapping[str, Row], columns: int = 88) -> str:
    """Return an SVG of rows one under the other, each with its title, as their innermost levels cut them."""
    parts, top, width = [], 0.0, columns * COLUMN + 16
    for title, row in rows.items():
        picture = svg(row, len(row.levels) - 1, columns, title)
        parts.append(picture.replace("<svg ", f'<svg y="{top:g}" ', 1))
        top += float(picture.partition('height="')[2].partition('"')[0])
    size = f'viewBox="0 0 {width:g} {top:g}" width="{width:g}" height="{top:g}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n{"".join(parts)}</svg>\n'


def _place(found: list[Cell], starts: set[int], columns: int) -> tuple[list[tuple[Cell, int, int]], int]:
    """Give each cell its line and column. Returns them and the number of lines."""
    chunks: list[list[Cell]] = []
    for cell in found:
        if cell.begin in starts or not chunks:
            chunks.append([])
        chunks[-1].append(cell)
    placed, line, column = [], 0, 0
    for chunk in chunks:
        if column and column + sum(cell.columns for cell in chunk) > columns:
            line, column = line + 1, 0
        for cell in chunk:
            if column and column + cell.columns > columns:
                line, column = line + 1, 0
            placed.append((cell, line, column))
            column += cell.columns
    return placed, line + 1


def _svg_cell(cell: Cell, x: float, y: float, p_N: Floats, starts: set[int], light: bool) -> list[str]:
    width = cell.columns * COLUMN
    fill = "#e8f1fb" if light else "#f7ecd9"
    parts = [f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="21" fill="{fill}"/>']
    if cell.begin in starts:
        parts.append(f'<line x1="{x:g}" y1="{y:g}" x2="{x:g}" y2="{y + 21:g}" stroke="#1f4e8c" stroke-width="1.5"/>')
    if cell.text != " ":
        kind = ' font-size="7" fill="#b3261e"' if cell.escaped else ""
        # A length, so that fonts of other widths keep to the columns.
        fit = f' textLength="{width - 1:g}" lengthAdjust="spacingAndGlyphs"' if cell.escaped else ""
        parts.append(f'<text x="{x + 0.5:g}" y="{y + 15:g}"{kind}{fit}>{escape(cell.text)}</text>')
    each = width / (cell.end - cell.begin)
    for place in range(cell.begin, cell.end):
        if not math.isnan(p_N[place]) and p_N[place] > 0:
            high = BAR * float(p_N[place])
            colour = "#1f4e8c" if place in starts else "#b8bec6"
            left = x + (place - cell.begin) * each
            parts.append(
                f'<rect x="{left + 0.5:g}" y="{y + 22 + BAR - high:.2f}" width="{max(each - 1, 0.5):g}" '
                f'height="{high:.2f}" fill="{colour}"/>'
            )
    return parts
