"""How results show themselves: as text where Python prints them, as HTML in a notebook."""

from __future__ import annotations

import io
from collections.abc import Callable
from html import escape

from rich.console import Console

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
