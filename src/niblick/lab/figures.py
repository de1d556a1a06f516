"""Figures as SVG or PNG through matplotlib: legible on light and dark pages, no browser needed."""

from __future__ import annotations

import io
from typing import Any

INK = "#7d8590"
"""Text and axes: readable on white and on near-black."""
OURS = "#2f81f7"
THEIRS = "#8b949e"
PREFIXED = "#bf8700"


def _axes(width: float, height: float) -> tuple[Any, Any]:
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


def _save(figure: Any, kind: str) -> bytes:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    with plt.rc_context({"svg.hashsalt": "niblick", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else None)
    plt.close(figure)
    return buffer.getvalue()


def training_curve(points: list[tuple[float, float]], final: float | None = None, kind: str = "svg") -> bytes:
    """Training BPB over seconds of training; `final` is the official score, drawn as a line across."""
    figure, axes = _axes(6.2, 3.1)
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
    return _save(figure, kind)


def bars(rows: list[tuple[str, float, str]], kind: str = "svg") -> bytes:
    """Horizontal bars of (label, bits per byte, color), the first row on top."""
    figure, axes = _axes(6.2, 0.42 * len(rows) + 0.7)
    labels = [label for label, _, _ in rows]
    values = [value for _, value, _ in rows]
    axes.barh(labels, values, color=[color for _, _, color in rows], height=0.62)
    axes.invert_yaxis()
    for i, value in enumerate(values):
        axes.annotate(f"{value:.3f}", (value, i), xytext=(4, 0), textcoords="offset points", va="center", color=INK)
    axes.set_xlim(0, max(values) * 1.14)
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_xlabel("bits per byte (less is better)")
    return _save(figure, kind)
