"""Figures of runs, shared by the report, the monitor and notebooks: functions from plain facts to Plotly figures.

A figure is Plotly's own JSON as plain data, `{"data": [...], "layout": {...}}`: any plotly.js draws it,
`plotly.graph_objects.Figure(chart)` shows it in a notebook, `drawing.static.draw` makes a PNG or SVG of it. Making one
needs no Plotly. Backgrounds are transparent, and ink and colours are legible on white and on near-black. What colours
say, dashes or symbols say too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

Part = dict[str, Any]
"""Plotly's JSON of a trace, an axis or a shape: what keys it may have, Plotly's reference says."""


class Figure(TypedDict):
    """Plotly's JSON: a list of traces, and what is around them."""

    data: list[Part]
    layout: Part


Axis = Literal["step", "time", "bytes"]
"""What curves run over: optimizer steps, seconds of training, bytes of training text."""

INK = "#7d8590"
"""Text and axes: readable on white and on near-black."""
GRID = "rgba(125,133,144,0.22)"
COLORS = ("#2f81f7", "#e3742b", "#2da677", "#c65fb0", "#bf8700", "#3aa6c9", "#e5534b", "#8b949e")
DASHES = ("solid", "dash", "dot", "dashdot")
"""After the last colour a line is told by its dashes."""
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")

STANDINGS: dict[str, tuple[str, str, str]] = {
    "legal": ("circle", "#2da677", "legal on the record track"),
    "local": ("diamond-open", "#2f81f7", "under the cap, off the record track"),
    "over cap": ("x", "#e5534b", "over the cap"),
}
"""Symbol, colour and words for each standing of a score, see `ledger.ledger.standing`."""

LEGEND_MOST = 12
"""More lines than this have no legend: their names are in the hover alone."""

_LONG = 100
"""Curves of so many points are smoothed."""


@dataclass(frozen=True)
class Validation:
    """A score in the course of training, from float weights."""

    step: int
    seconds: float | None
    bytes: float | None
    bpb: float


@dataclass(frozen=True)
class Level:
    """What one router did at the logged steps."""

    step: Sequence[int]
    rate: Sequence[float]
    """Share of positions that are boundaries."""
    target_length: float | None = None
    """Target of the mean chunk length."""


@dataclass(frozen=True)
class History:
    """What a run told while it trained. `step` and the other sequences go together; None where a log does not say."""

    name: str
    step: Sequence[int]
    seconds: Sequence[float | None]
    """Of training, without validation."""
    bytes: Sequence[float | None]
    """Of training text seen."""
    bpb: Sequence[float | None]
    """Training loss in bits per byte."""
    lr_scale: Sequence[float | None] = ()
    bytes_per_second: Sequence[float | None] = ()
    grad_norm: Sequence[float | None] = ()
    validations: Sequence[Validation] = ()
    levels: Sequence[Level] = ()
    final: float | None = None
    """The official score, from the artifact."""
    group: str = ""
    """What it shares colour and legend with, such as the other seeds of its recipe; empty: nothing."""


def learning_curves(runs: Sequence[History], x: Axis = "step") -> Figure:
    """BPB over steps, time or bytes: training as lines, validations as symbols, the official score as a line across."""
    traces: list[Part] = []
    scale, unit = _time_unit(runs) if x == "time" else (1.0, "")
    for run, i, legend in _numbered(runs):
        color, dash, symbol = style(i)
        xs, ys = _known(_scaled(_axis(run, x), scale), run.bpb)
        if xs:
            traces.append(_line(run.name, xs, _smoothed(ys), color, dash) | legend)
        checks = [(getattr(v, _FIELDS[x]), v.bpb) for v in run.validations]
        checked = [(a / scale, b) for a, b in checks if a is not None]
        if checked:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"{run.group or run.name}, held out",
                    "x": [a for a, _ in checked],
                    "y": [b for _, b in checked],
                    "marker": {"color": color, "symbol": symbol, "size": 8, "line": {"width": 0}},
                    "legendgroup": str(i),
                    "showlegend": not xs or len(runs) == 1,
                    "hovertemplate": f"%{{y:.4f}} BPB<extra>{run.name}, held out</extra>",
                }
            )
    figure = _figure(traces, _AXES[x] + unit, "bits per byte", y_range=_range_of_curves(runs))
    finals = [(run.final, style(i)[0]) for run, i, _ in _numbered(runs) if run.final is not None]
    if 0 < len(finals) <= len(COLORS):
        figure["layout"]["shapes"] = [_across(value, color) for value, color in finals]
    if len(finals) == 1:
        note = _note(f"official, from the artifact: {finals[0][0]:.4f}", y=finals[0][0])
        figure["layout"]["annotations"] = [note | {"yanchor": "top"}]
    return figure


def boundary_rates(runs: Sequence[History], x: Axis = "step") -> Figure:
    """Share of positions where each level's router cuts; a dotted line across where its target length would be."""
    traces: list[Part] = []
    targets: dict[float, str] = {}
    scale, unit = _time_unit(runs) if x == "time" else (1.0, "")
    several = any(len(run.levels) > 1 for run in runs)
    for run, i, legend in _numbered(runs):
        where = dict(zip(run.step, _axis(run, x), strict=True))
        for number, level in enumerate(run.levels):
            color = style(i if len(runs) > 1 else number)[0]
            suffix = f", level {number}" if several else ""
            xs, ys = _known(_scaled([where.get(s) for s in level.step], scale), level.rate)
            traces.append(
                _line(run.name + suffix, xs, ys, color, DASHES[number % len(DASHES)], "%{y:.3f}")
                | legend
                | {"name": legend["name"] + suffix, "legendgroup": f"{i}{suffix}"}
                | {"mode": "lines+markers", "marker": {"size": 4, "symbol": SYMBOLS[i % len(SYMBOLS)]}}
            )
            if level.target_length:
                targets.setdefault(1 / level.target_length, f"1 in {level.target_length:g}")
    figure = _figure(traces, _AXES[x] + unit, "share of boundaries")
    figure["layout"]["shapes"] = [_across(rate, INK) for rate in targets]
    figure["layout"]["annotations"] = [_note(f"target: {words}", y=rate) for rate, words in targets.items()]
    figure["layout"]["yaxis"]["rangemode"] = "tozero"
    return figure


def learning_rates(runs: Sequence[History], x: Axis = "step") -> Figure:
    """The learning rate as a share of its highest."""
    return _simple(runs, x, lambda run: run.lr_scale, "learning rate, share", "%{y:.3f}")


def throughput(runs: Sequence[History], x: Axis = "step") -> Figure:
    """Bytes of training text a second."""
    figure = _simple(runs, x, lambda run: run.bytes_per_second, "bytes per second", "%{y:.3s}B/s")
    figure["layout"]["yaxis"] |= {"tickformat": "~s", "rangemode": "tozero"}
    return figure


def gradient_norms(runs: Sequence[History], x: Axis = "step") -> Figure:
    """The norm of the gradient, on a logarithmic axis."""
    figure = _simple(runs, x, lambda run: run.grad_norm, "gradient norm", "%{y:.3g}")
    figure["layout"]["yaxis"]["type"] = "log"
    return figure


def bytes_against_bpb(
    rows: Iterable[Mapping[str, Any]], cap: int, compressors: Mapping[str, float] | None = None
) -> Figure:
    """Every artifact by its bytes (code and weights) and its BPB, with the cap as a line.

    A row has `name`, `total_bytes`, `bpb` and `standing` (a key of STANDINGS); rows without bytes or BPB are left out.
    `compressors` are drawn as lines across, at the bits per byte that each needs.
    """
    known = [row for row in rows if row.get("total_bytes") and row.get("bpb") is not None]
    traces = []
    for standing, (symbol, color, words) in STANDINGS.items():
        those = [row for row in known if row["standing"] == standing]
        if not those:
            continue
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": words,
                "x": [row["total_bytes"] / 1e6 for row in those],
                "y": [row["bpb"] for row in those],
                "text": [row["name"] for row in those],
                "marker": {"symbol": symbol, "color": color, "size": 10, "line": {"width": 1.6, "color": color}},
                "hovertemplate": "%{text}<br>%{x:.3f} MB, %{y:.4f} BPB<extra></extra>",
            }
        )
    figure = _figure(traces, "artifact and code, MB", "bits per byte, from the artifact")
    highest = max((row["total_bytes"] for row in known), default=cap)
    lowest = min((row["total_bytes"] for row in known), default=0)
    figure["layout"]["xaxis"] |= {"range": [0.9 * min(cap, lowest) / 1e6, 1.05 * max(cap, highest) / 1e6]}
    lines = dict(sorted((compressors or {}).items(), key=lambda item: item[1])) if known else {}
    figure["layout"]["shapes"] = [_upright(cap / 1e6), *(_across(bpb, INK) for bpb in lines.values())]
    note = {"x": cap / 1e6, "y": 1, "yref": "paper", "xanchor": "right", "yanchor": "top", "text": f"cap {cap:,}"}
    figure["layout"]["annotations"] = [note | {"showarrow": False, "font": {"color": INK}, "xshift": -4}]
    if lines:
        every = [*lines.values(), *(row["bpb"] for row in known)]
        span = max(every) - min(every) or 0.1
        figure["layout"]["yaxis"]["range"] = [min(every) - 0.08 * span, max(every) + 0.12 * span]
        figure["layout"]["annotations"] += [_note(text, y=y) | _LEFT for text, y in _side_by_side(lines, 0.08 * span)]
    return figure


def ranking(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Mean BPB of each row with its deviation over seeds, best on top; every single seed as a ring.

    A row has `name`, `mean`, `deviation` (or None) and `scores`, those of its seeds.
    """
    places = list(range(len(rows)))
    dots = {
        "type": "scatter",
        "mode": "markers",
        "name": "mean ± deviation",
        "x": [row["mean"] for row in rows],
        "y": places,
        "error_x": {"type": "data", "array": [row["deviation"] or 0.0 for row in rows], "color": COLORS[0]},
        "marker": {"color": COLORS[0], "size": 10, "symbol": "circle"},
        "text": [row["name"] for row in rows],
        "hovertemplate": "%{text}: %{x:.4f} BPB<extra></extra>",
    }
    seeds = {
        "type": "scatter",
        "mode": "markers",
        "name": "one seed",
        "x": [score for row in rows for score in row["scores"]],
        "y": [place for place, row in zip(places, rows, strict=True) for _ in row["scores"]],
        "marker": {"color": INK, "size": 7, "symbol": "circle-open"},
        "hovertemplate": "%{x:.4f} BPB<extra></extra>",
    }
    return _rows_down(_figure([seeds, dots], "bits per byte (less is better)", ""), [row["name"] for row in rows])


def effects(rows: Sequence[Mapping[str, Any]], unit: str = "BPB") -> Figure:
    """What each change gives against one reference: dots left of zero are better, bars the 95% intervals.

    A row has `name`, `difference` (less is better) and `error`, half of the interval, or None.
    """
    colors = [COLORS[2] if row["difference"] < 0 else COLORS[1] for row in rows]
    trace = {
        "type": "scatter",
        "mode": "markers",
        "name": "difference",
        "x": [row["difference"] for row in rows],
        "y": list(range(len(rows))),
        "error_x": {"type": "data", "array": [row["error"] or 0.0 for row in rows], "color": INK},
        "marker": {
            "color": colors,
            "size": 10,
            "symbol": ["triangle-left" if row["difference"] < 0 else "triangle-right" for row in rows],
        },
        "text": [row["name"] for row in rows],
        "hovertemplate": "%{text}: %{x:+.4f}<extra></extra>",
        "showlegend": False,
    }
    figure = _figure([trace], f"difference in {unit} (left is better)", "")
    figure["layout"]["shapes"] = [_upright(0.0)]
    return _rows_down(figure, [row["name"] for row in rows])


def timings(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Where each run's time went, as stacked bars.

    A row has `name` and `phases`, a mapping of phase to seconds; phases come in the order in which they first appear.
    """
    longest = max((sum(row["phases"].values()) for row in rows), default=0.0)
    scale, unit = _unit_of(longest)
    scaled = [
        {"name": row["name"], "parts": {phase: seconds / scale for phase, seconds in row["phases"].items()}}
        for row in rows
    ]
    return stacked(scaled, "time" + unit, f"%{{x:.3g}} {unit.strip(', ')}")


def stacked(rows: Sequence[Mapping[str, Any]], title: str, hover: str) -> Figure:
    """What each row is made of, as stacked bars. A row has `name` and `parts`, a mapping of names to sizes.

    Parts come in the order in which they first appear.
    """
    names = list(dict.fromkeys(part for row in rows for part in row["parts"]))
    patterns = ("", "/", "x", ".", "\\", "+", "-", "|")
    shapes = [patterns[(i + i // len(COLORS)) % len(patterns)] for i in range(len(names))]  # no colour twice with one
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "name": part,
            "x": [row["parts"].get(part, 0.0) for row in rows],
            "y": list(range(len(rows))),
            "marker": {"color": COLORS[i % len(COLORS)], "pattern": {"shape": shapes[i], "size": 6}},
            "hovertemplate": f"{hover}<extra>{part}</extra>",
        }
        for i, part in enumerate(names)
    ]
    figure = _rows_down(_figure(traces, title, ""), [row["name"] for row in rows])
    figure["layout"] |= {"barmode": "stack", "bargap": 0.35}
    return figure


def style(number: int) -> tuple[str, str, str]:
    """Colour, dashes and symbol of the run of this number, the same in all figures of a page."""
    return (
        COLORS[number % len(COLORS)],
        DASHES[number // len(COLORS) % len(DASHES)],
        SYMBOLS[number % len(SYMBOLS)],
    )


_FIELDS = {"step": "step", "time": "seconds", "bytes": "bytes"}
_AXES = {"step": "step", "time": "time of training", "bytes": "bytes of training text"}


def _axis(run: History, x: Axis) -> Sequence[float | None]:
    return getattr(run, _FIELDS[x])


def _numbered(runs: Sequence[History]) -> Iterator[tuple[History, int, Part]]:
    """Each run with the number of its style, and its entry in the legend: a group has one."""
    numbers: dict[str, int] = {}
    for run in runs:
        label = run.group or run.name
        first = label not in numbers
        number = numbers.setdefault(label, len(numbers))
        yield run, number, {"name": label, "legendgroup": str(number), "showlegend": first}


def _simple(
    runs: Sequence[History], x: Axis, values: Callable[[History], Sequence[float | None]], title: str, hover: str
) -> Figure:
    scale, unit = _time_unit(runs) if x == "time" else (1.0, "")
    traces = []
    for run, i, legend in _numbered(runs):
        color, dash, _ = style(i)
        if values(run):
            points = _known(_scaled(_axis(run, x), scale), values(run))
            traces.append(_line(run.name, *points, color, dash, hover) | legend)
    return _figure(traces, _AXES[x] + unit, title)


def _line(name: str, xs: list[float], ys: list[float], color: str, dash: str, hover: str = "%{y:.4f} BPB") -> Part:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": xs,
        "y": ys,
        "line": {"color": color, "dash": dash, "width": 2},
        "hovertemplate": f"{hover}<extra>{name}</extra>",
    }


def _figure(traces: list[Part], x: str, y: str, y_range: list[float] | None = None) -> Figure:
    def axis(title: str) -> Part:
        return {
            "title": {"text": title, "font": {"size": 13}},
            "gridcolor": GRID,
            "zeroline": False,
            "linecolor": GRID,
            "automargin": True,
        }

    xaxis, yaxis = axis(x), axis(y)
    if x.startswith("bytes"):
        xaxis["tickformat"] = "~s"
    if y_range:
        yaxis["range"] = y_range
    return {
        "data": traces,
        "layout": {
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": INK, "size": 12, "family": "system-ui, sans-serif"},
            "margin": {"l": 56, "r": 16, "t": 16, "b": 48},
            "height": 340,
            "hovermode": "closest",
            "showlegend": 1 < sum(t.get("showlegend", True) for t in traces) <= LEGEND_MOST,
            "legend": {"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0},
            "xaxis": xaxis,
            "yaxis": yaxis,
        },
    }


def _rows_down(figure: Figure, names: list[str]) -> Figure:
    """Make the y axis a list of names, the first on top, and the figure as high as that takes."""
    figure["layout"]["yaxis"] |= {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "range": [max(len(names), 1) - 0.5, -0.5],
        "showgrid": False,
    }
    figure["layout"]["height"] = 130 + 30 * max(len(names), 2)
    figure["layout"]["legend"] |= {"y": -0.1 - 0.9 / max(len(names), 2)}
    return figure


def _across(y: float, color: str) -> Part:
    line = {"color": color, "width": 1, "dash": "dash"}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}


def _upright(x: float) -> Part:
    line = {"color": INK, "width": 1.5, "dash": "dash"}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line}


def _note(text: str, *, y: float) -> Part:
    return {
        "text": text,
        "xref": "paper",
        "x": 1,
        "y": y,
        "xanchor": "right",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"color": INK, "size": 12},
    }


_LEFT = {"x": 0, "xanchor": "left"}


def _side_by_side(lines: Mapping[str, float], near: float) -> list[tuple[str, float]]:
    """Words for lines in ascending order, each with its height; those of lines near each other are put in one."""
    found: list[tuple[str, float]] = []
    begun = -math.inf
    for name, y in lines.items():
        text = f"{name}: {y:.3f}"
        if y - begun < near:
            found[-1] = (f"{found[-1][0]}, {text}", y)
        else:
            found.append((text, y))
            begun = y
    return found


def _known(xs: Sequence[float | None], ys: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """The points of which both are known and finite: JSON has no NaN, and no axis a place for it."""
    pairs = [(a, b) for a, b in zip(xs, ys, strict=True) if a is not None and b is not None]
    pairs = [(a, b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _scaled(values: Sequence[float | None], scale: float) -> list[float | None]:
    return [None if value is None else value / scale for value in values]


def _time_unit(runs: Sequence[History]) -> tuple[float, str]:
    return _unit_of(max((s for run in runs for s in run.seconds if s is not None), default=0.0))


def _unit_of(seconds: float) -> tuple[float, str]:
    """What to divide seconds by, and what to write behind the axis' title."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return size, f", {unit}"
    return 1.0, ", s"


def _smoothed(values: list[float]) -> list[float]:
    """Exponential moving average over a fiftieth of a long curve; a short one as it is."""
    if len(values) < _LONG:
        return values
    keep = 1 - 50 / len(values)
    smooth, result = values[0], []
    for value in values:
        smooth = keep * smooth + (1 - keep) * value
        result.append(smooth)
    return result


def _range_of_curves(runs: Sequence[History]) -> list[float] | None:
    """Leave the first steps above the picture: a loss of eight bits would flatten all that follows.

    What follows is every run's curve after a tenth of its steps, however much better another run is.
    """
    lows, tops = [], []
    for run in runs:
        points = [(s, b) for s, b in zip(run.step, run.bpb, strict=True) if b is not None and math.isfinite(b)]
        other = [v.bpb for v in run.validations if math.isfinite(v.bpb)]
        other += [run.final] if run.final is not None else []
        if not points and not other:
            continue
        after = [b for s, b in points if s > points[-1][0] / 10] + other
        every = [b for _, b in points] + other
        lows.append(min(every))
        tops.append(max(min(max(every), 2.2 * min(every)), *after))
    if not lows or min(lows) <= 0:
        return None
    low, top = min(lows), max(tops)
    return [low - 0.12 * (top - low), top + 0.04 * (top - low)] if top > low else None
