"""Figures as SVG or PNG through matplotlib: legible on light and dark pages, no browser needed."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

INK = "#7d8590"
"""Text and axes: readable on white and on near-black."""
OURS = "#2f81f7"
THEIRS = "#8b949e"
PREFIXED = "#bf8700"


def new_axes(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure of so many inches and its axes, on a transparent page."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def saved(figure: Any, kind: str) -> bytes:
    """Return the figure as `svg` or `png`, the same bytes each time, and close it."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    with plt.rc_context({"svg.hashsalt": "niblick", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)
    return buffer.getvalue()


def training_curve(points: list[tuple[float, float]], final: float | None = None, kind: str = "svg") -> bytes:
    """Training BPB over seconds of training; `final` is the official score, drawn as a line across."""
    figure, axes = new_axes(6.2, 3.1)
    seconds, bpb = zip(*points, strict=True) if points else ((), ())
    axes.plot(seconds, bpb, color=OURS, linewidth=1.6)
    if final is not None:
        axes.axhline(final, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.annotate(
            f"held out, after the roundtrip: {final:.3f}",
            (0.01, final),
            xycoords=("axes fraction", "data"),
            xytext=(0, 4),
            textcoords="offset points",
            color=INK,
            fontsize=9,
        )
    axes.set_xlabel("seconds of training")
    axes.set_ylabel("bits per byte, training text")
    if bpb:
        axes.set_ylim(min(*bpb[-5:], final or min(bpb)) * 0.92, min(max(bpb), 2.2 * min(bpb)))
    return saved(figure, kind)


def bars(rows: list[tuple[str, float, str]], kind: str = "svg", *, notes: list[str] | None = None) -> bytes:
    """Horizontal bars of (label, bits per byte, color), the first row on top; `notes` stand behind their numbers."""
    figure, axes = new_axes(6.2, 0.42 * len(rows) + 0.7)
    places = range(len(rows))  # by number: labels may be alike
    values = [value for _, value, _ in rows]
    axes.barh(places, values, color=[color for _, _, color in rows], height=0.62)
    axes.set_yticks(places, [label for label, _, _ in rows])
    axes.invert_yaxis()
    for i, value in enumerate(values):
        text = f"{value:.3f}" + (f"   {notes[i]}" if notes else "")
        axes.annotate(text, (value, i), xytext=(4, 0), textcoords="offset points", va="center", color=INK, fontsize=9)
    axes.set_xlim(0, max(values) * (1.45 if notes else 1.14))
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_xlabel("bits per byte (less is better)")
    return saved(figure, kind)


def by_context(points: list[tuple[float, float]], whole: float, kind: str = "svg") -> bytes:
    """BPB over tokens of context, on a logarithmic axis; the whole score is a line across."""
    figure, axes = new_axes(6.2, 3.1)
    known, bpb = zip(*points, strict=True)
    axes.plot(known, bpb, color=OURS, linewidth=1.6, marker="o", markersize=3.5)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.set_ylim(0, max(bpb) * 1.05)
    _across(axes, whole)
    axes.set_xlabel("tokens of context")
    axes.set_ylabel("bits per byte")
    return saved(figure, kind)


def by_place(rows: list[tuple[str, float]], whole: float, kind: str = "svg") -> bytes:
    """BPB by place in the chunk, as columns; the first, which starts the chunk, stands out."""
    figure, axes = new_axes(6.2, 3.1)
    axes.bar(range(len(rows)), [bpb for _, bpb in rows], color=[PREFIXED] + [OURS] * (len(rows) - 1), width=0.72)
    axes.set_xticks(range(len(rows)), [label for label, _ in rows])
    axes.tick_params(axis="x", length=0, labelsize=7 if len(rows) > 12 else 9)
    axes.set_ylim(0, max(bpb for _, bpb in rows) * 1.1)
    _across(axes, whole, side="right")
    axes.set_xlabel("place in the chunk (1 starts it), tokens")
    axes.set_ylabel("bits per byte")
    return saved(figure, kind)


def by_document(points: list[tuple[int, float]], whole: float, kind: str = "svg") -> bytes:
    """Every document by its bytes, on a logarithmic axis, and its BPB."""
    figure, axes = new_axes(6.2, 3.1)
    size, bpb = zip(*points, strict=True)
    axes.scatter(size, bpb, s=14 if len(points) < 2000 else 4, color=OURS, alpha=0.65, linewidths=0)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    axes.xaxis.set_minor_formatter(lambda x, _: "")
    axes.set_ylim(0, max(bpb) * 1.05)
    _across(axes, whole, side="right")
    axes.set_xlabel("bytes of the document")
    axes.set_ylabel("bits per byte")
    return saved(figure, kind)


def _across(axes: Any, whole: float, side: str = "left") -> None:
    """A dashed line across at the BPB of the whole text."""
    axes.axhline(whole, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=0.5)
    axes.annotate(
        f"all: {whole:.3f}",
        (0.01 if side == "left" else 0.99, whole),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4),
        textcoords="offset points",
        ha=side,
        color=INK,
        fontsize=9,
    )


def sensitivity_bars(rows: Sequence[tuple[str, float]], kind: str = "svg", most: int = 24) -> bytes:
    """Bars of the BPB that protecting each (named) tensor gains, dearest first; at most `most` of them."""
    gains = [row for row in rows if row[1] > 0]
    shown = sorted(gains, key=lambda row: -row[1])[:most][::-1]
    figure, axes = new_axes(6.8, 0.9 + 0.24 * len(shown))
    axes.barh(range(len(shown)), [1000 * gained for _, gained in shown], color=OURS, height=0.66)
    axes.set_yticks(range(len(shown)), [name.removesuffix(".weight") for name, _ in shown], fontsize=8)
    if shown:
        axes.set_xscale("log")  # an embedding may cost a hundred times what a block does
    axes.set_xlabel("BPB gained by keeping the tensor in fp16, thousandths")
    axes.margins(y=0.02)
    return saved(figure, kind)


def chunk_lengths(rows: Sequence[tuple[str, Mapping[int, int]]], kind: str = "svg", unit: str = "bytes") -> bytes:
    """Shares of chunks by length, a line of steps for each (name, histogram); what is longer than all but 1% is cut."""
    figure, axes = new_axes(6.2, 3.1)
    longest = max(_quantile(counts, 0.99) for _, counts in rows)
    for (name, counts), color in zip(rows, LINES, strict=False):
        total = sum(counts.values())
        shares = [counts.get(length, 0) / total for length in range(1, longest + 1)]
        edges = [length - 0.5 for length in range(1, longest + 2)]
        axes.stairs(shares, edges, color=color, linewidth=1.6, label=name)
    axes.set_xlabel(f"length of the chunk, {unit}")
    axes.set_ylabel("share of chunks")
    axes.set_ylim(0)
    _legend(axes)
    return saved(figure, kind)


def over_training(curves: dict[str, list[tuple[int, float]]], kind: str = "svg") -> bytes:
    """Shares between 0 and 1 (agreements, F1) over training steps, a line for each name."""
    figure, axes = new_axes(6.2, 3.1)
    for (name, points), color in zip(curves.items(), LINES, strict=False):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, color=color, linewidth=1.6, marker="o", markersize=3.5, label=name)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("step of training")
    _legend(axes)
    return saved(figure, kind)


LINES = (OURS, PREFIXED, "#8250df", "#1a7f37", "#cf222e", THEIRS)
"""Colours of several lines in one picture."""


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, fontsize=9, labelcolor=INK)


def _quantile(counts: Mapping[int, int], share: float) -> int:
    """The least length that so large a share of chunks does not exceed."""
    total, seen = sum(counts.values()), 0
    for length in sorted(counts):
        seen += counts[length]
        if seen >= share * total:
            return length
    return 1
