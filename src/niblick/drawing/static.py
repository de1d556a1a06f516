"""Charts as PNG or SVG through matplotlib, so that no browser is needed: only what `drawing.charts` uses of Plotly."""

from __future__ import annotations

from typing import Any

from niblick.drawing.charts import INK, Figure, Part
from niblick.drawing.figures import new_axes, saved

_WIDTH, _PER_INCH = 7.2, 96
_DASHES = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.5)), "dashdot": (0, (5, 2, 1, 2))}
_SYMBOLS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-left": "<",
    "triangle-right": ">",
    "cross": "P",
    "star": "*",
    "x": "X",
}
_HATCHES = {"": "", "/": "//", "x": "xx", ".": "..", "\\": "\\\\", "+": "++", "-": "--", "|": "||"}
_SIDES = {"left": "left", "right": "right", "center": "center", "top": "top", "bottom": "bottom", "middle": "center"}


def draw(chart: Figure, kind: str = "png") -> bytes:
    """Return a chart as `png` or `svg`, on a transparent page."""
    layout = chart["layout"]
    figure, axes = new_axes(_WIDTH, layout["height"] / _PER_INCH)
    left: dict[Any, float] = {}
    for trace in chart["data"]:
        if trace["type"] == "bar":
            _bars(axes, trace, left)
        else:
            _scatter(axes, trace)
    for name, axis in (("x", layout["xaxis"]), ("y", layout["yaxis"])):
        _axis(axes, name, axis)
    for shape in layout.get("shapes", ()):
        line = shape["line"]
        style = {"color": line["color"], "linewidth": line["width"], "linestyle": _DASHES[line["dash"]], "zorder": 0.5}
        if shape.get("xref") == "paper":
            axes.axhline(shape["y0"], **style)
        else:
            axes.axvline(shape["x0"], **style)
    for note in layout.get("annotations", ()):
        across = note.get("xref") == "paper"
        words = axes.annotate(
            note["text"],
            (note["x"], note["y"]),
            xycoords=(
                "axes fraction" if across else "data",
                "axes fraction" if note.get("yref") == "paper" else "data",
            ),
            xytext=(note.get("xshift", 0), 3 if note["yanchor"] == "bottom" else 0),
            textcoords="offset points",
            ha=_SIDES[note["xanchor"]],
            va=_SIDES[note["yanchor"]],
            color=INK,
            fontsize=9,
        )
        words.set_in_layout(False)  # one outside the axes would take all their room
    if layout["showlegend"]:
        figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False, labelcolor=INK)
    return saved(figure, kind)


def _scatter(axes: Any, trace: Part) -> None:
    line, marker = trace.get("line", {}), trace.get("marker", {})
    label = trace["name"] if trace.get("showlegend", True) else None
    if "lines" in trace["mode"]:
        dash = _DASHES[line.get("dash", "solid")]
        axes.plot(trace["x"], trace["y"], color=line["color"], linewidth=1.6, linestyle=dash, label=label)
        label = None
    if "error_x" in trace:
        bar = trace["error_x"]
        axes.errorbar(trace["x"], trace["y"], xerr=bar["array"], fmt="none", ecolor=bar["color"], elinewidth=1.4)
    if "markers" in trace["mode"] and trace["x"]:
        _markers(axes, trace, marker, line, label)


def _markers(axes: Any, trace: Part, marker: Part, line: Part, label: str | None) -> None:
    """Symbols one by one where they differ: matplotlib has one shape for a collection."""
    count = len(trace["x"])
    symbols = marker["symbol"] if isinstance(marker["symbol"], list) else [marker["symbol"]] * count
    colors = marker.get("color", line.get("color", INK))
    colors = colors if isinstance(colors, list) else [colors] * count
    for symbol in dict.fromkeys(symbols):
        picked = [i for i in range(count) if symbols[i] == symbol]
        tint = [colors[i] for i in picked]
        hollow = symbol.endswith("-open")
        axes.scatter(
            [trace["x"][i] for i in picked],
            [trace["y"][i] for i in picked],
            s=(0.75 * marker["size"]) ** 2,
            marker=_SYMBOLS[symbol.removesuffix("-open")],
            facecolors="none" if hollow else tint,
            edgecolors=tint,
            linewidths=1.3 if hollow else 0,
            label=label,
            zorder=3,
        )
        label = None


def _bars(axes: Any, trace: Part, left: dict[Any, float]) -> None:
    """Horizontal bars, stacked on those before them."""
    starts = [left.get(place, 0.0) for place in trace["y"]]
    axes.barh(
        trace["y"],
        trace["x"],
        left=starts,
        height=0.62,
        color=trace["marker"]["color"],
        edgecolor="white",
        linewidth=0,
        hatch=_HATCHES[trace["marker"]["pattern"]["shape"]],
        label=trace["name"],
    )
    left.update({p: start + x for p, start, x in zip(trace["y"], starts, trace["x"], strict=True)})


def _axis(axes: Any, name: str, axis: Part) -> None:
    getattr(axes, f"set_{name}label")(axis["title"]["text"])
    if axis.get("type") == "log":
        getattr(axes, f"set_{name}scale")("log")
    if "range" in axis:
        getattr(axes, f"set_{name}lim")(*axis["range"])
    elif axis.get("rangemode") == "tozero":
        getattr(axes, f"set_{name}lim")(**{"left" if name == "x" else "bottom": 0})
    if "tickvals" in axis:
        getattr(axes, f"set_{name}ticks")(axis["tickvals"], axis["ticktext"])
    elif axis.get("tickformat") == "~s":
        getattr(axes, f"{name}axis").set_major_formatter(_short)
    if axis.get("showgrid", True):
        axes.grid(axis=name, color=INK, alpha=0.22, linewidth=0.7)
        axes.set_axisbelow(True)


def _short(value: float, _: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
