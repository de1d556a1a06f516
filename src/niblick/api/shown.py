"""How results show themselves: as text where Python prints them, as HTML in a notebook."""

from __future__ import annotations

import io
from collections.abc import Callable
from html import escape
from pathlib import Path

from rich.console import Console

from niblick.api.wording import edged
from niblick.arguments import NewFolder
from niblick.drawing import page
from niblick.drawing.charts import Figure
from niblick.drawing.static import draw
from niblick.reports.plots import write_figures

WIDTH = 110
"""Columns of what is shown."""


class Shown:
    """Something that a function can paint on a rich console, for `print` and for notebooks."""

    def paint(self, console: Console) -> None:
        """Show it on this console."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return _painted(self.paint).export_text().rstrip()

    def _repr_html_(self) -> str:
        return _painted(self.paint).export_html(inline_styles=True, code_format=_PRE)


_PRE = '<pre style="font-family:monospace;line-height:1.35;overflow-x:auto">{code}</pre>'


def _painted(paint: Callable[[Console], None]) -> Console:
    console = Console(record=True, file=io.StringIO(), width=WIDTH, highlight=False, force_jupyter=False)
    paint(console)
    return console


@edged
class Pictures(dict[str, Figure]):
    """Figures by name: shown in a notebook as SVG; `save` writes files. Each is Plotly's JSON, for other uses."""

    def save(self, out: NewFolder, kind: str = "svg") -> list[Path]:
        """Write each into the folder `out`, as png, svg or html, and return the files.

        Raises ConfigError for another kind, for an `out` that is a file, and for html where Plotly is missing.
        """
        return write_figures(self, Path(out), kind)

    def __repr__(self) -> str:
        return f"<Pictures {', '.join(self)}: save(folder) writes them>"

    def _repr_html_(self) -> str:
        return "".join(f"<h4>{escape(name)}</h4>{page.svg(draw(chart, 'svg'), name)}" for name, chart in self.items())


class Columns(dict[str, list[float | None]]):
    """A table as a dictionary of columns, each a list of numbers, None where there is none.

    `pandas.DataFrame(columns)` takes it as it is, and so does everything else that takes columns.
    """

    def __repr__(self) -> str:
        rows = len(next(iter(self.values()), []))
        return f"<{rows:,} rows of {', '.join(self)}>"

    def _repr_html_(self) -> str:
        count = len(next(iter(self.values()), []))
        some = list(range(count)) if count <= _MOST else [*range(_MOST - 3), *range(count - 3, count)]
        head = "".join(f"<th>{escape(name)}</th>" for name in self)
        rows = ("<tr>" + "".join(f"<td>{_cell(column[i])}</td>" for column in self.values()) + "</tr>" for i in some)
        return f"<table><tr>{head}</tr>{''.join(rows)}</table><p>{count:,} rows</p>"


_MOST = 12
"""Rows that are shown: the first, and the last three."""


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.5g}"
