"""Any runs side by side: their curves over one axis, their numbers, what their configs differ in."""

from __future__ import annotations

from collections.abc import Sequence

from nicegui import ui

from niblick.console import human_seconds
from niblick.drawing import charts
from niblick.monitor.watcher import View, Watcher
from niblick.monitor.web import fragments
from niblick.monitor.web.frame import Chart, Live, keep, page
from niblick.monitor.web.run import AXES

RUNS_MOST = 24
"""More curves than this cannot be told apart."""


def build(watcher: Watcher, chosen: Sequence[str]) -> None:
    """Build the page; `chosen` are the runs to begin with."""
    known = [id for id in chosen if id in watcher.views]
    if not known:
        newest = sorted(watcher.views.values(), key=lambda v: (not v.active, -v.last_at))
        known = [v.id for v in newest if v.train_loss is not None][:2]
    with page("Compare", "/compare"):
        with ui.element("div").classes("head"):
            ui.html("Compare", tag="h1", sanitize=False)
            ui.html("", sanitize=False).classes("grow")
            axis = ui.toggle(AXES, value="step").props("dense no-caps unelevated toggle-color=primary")
            axis.props('aria-label="horizontal axis"').mark("axis")
        pick = ui.select(sorted(watcher.views), value=known, multiple=True, with_input=True, label="runs")
        pick.props("outlined dense use-chips clearable").classes("find w-full").mark("runs")
        table = Live("panel")
        curve = Chart("Bits per byte", "curve")
        with ui.element("div").classes("grid2"):
            others = {
                "learning_rates": Chart("Learning rate", "rate"),
                "boundary_rates": Chart("Boundary rate", "boundaries"),
                "throughput": Chart("Speed", "speed"),
                "gradient_norms": Chart("Gradient norm", "norm"),
            }
        differences = Live("panel")
        drawn: dict[str, object] = {}

        def update() -> None:
            views = [watcher.views[id] for id in (pick.value or [])[:RUNS_MOST] if id in watcher.views]
            if list(watcher.views) != drawn.get("names"):
                drawn["names"] = list(watcher.views)
                pick.set_options(sorted(watcher.views), value=pick.value)
            table.show(_table(views))
            now = [axis.value, *((v.id, v.version) for v in views)]
            if now == drawn.get("now"):
                return
            drawn["now"] = now
            runs = [h for v in views if (h := watcher.history(v.id)) is not None]
            curve.draw(charts.learning_curves(runs, axis.value))
            for name, chart in others.items():
                chart.draw(getattr(charts, name)(runs, axis.value))
            differences.show(_differences(watcher, views))

        pick.on_value_change(update)
        axis.on_value_change(update)
        keep(update)


def _table(views: Sequence[View]) -> str:
    if not views:
        return "<p class=soft>choose runs above: their curves and numbers stand here side by side</p>"
    rows = [
        [
            v.id,
            fragments.words(v),
            "" if v.final is None else f"{v.final.bpb:.4f}",
            "" if v.val_bpb is None else f"{v.val_bpb:.4f}",
            "" if v.train_bpb is None else f"{v.train_bpb:.4f}",
            fragments.steps(v),
            "" if v.train_seconds is None else human_seconds(v.train_seconds),
            fragments.speed(v),
            v.size,
            "" if v.parameters is None else f"{v.parameters:,}",
        ]
        for v in views
    ]
    titles = ["run", "phase", "final BPB", "validation", "mean of last 5", "step", "train clock", "speed", "bytes"]
    return fragments.table([*titles, "weights"], rows, numbers=range(2, 10), whole=True)


def _differences(watcher: Watcher, views: Sequence[View]) -> str:
    if len(views) < 2:
        return "<h2>What differs</h2><p class=soft>choose a second run</p>"
    configs = [source.settings() if (source := watcher.source(v.id)) else {} for v in views]
    keys = sorted({key for config in configs for key in config})
    rows = [[key, *(str(c.get(key, "–")) for c in configs)] for key in keys]
    rows = [row for row in rows if len(set(row[1:])) > 1]
    if not rows:
        return "<h2>What differs</h2><p class=soft>nothing: their configs are the same</p>"
    return f"<h2>What differs</h2>{fragments.table(['key', *(v.id for v in views)], rows[:200])}"
