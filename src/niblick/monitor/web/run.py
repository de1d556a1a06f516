"""The page of one run: where it is, its curves, its events, the end of its log, its config."""

from __future__ import annotations

from html import escape
from typing import Any

from nicegui import ui

from niblick.console import human_bytes, human_seconds
from niblick.drawing import charts
from niblick.monitor.watcher import LABELS, View, Watcher
from niblick.monitor.web import fragments
from niblick.monitor.web.frame import Chart, Live, empty, keep, page

AXES = {"step": "steps", "time": "time", "bytes": "bytes"}
LOG_LINES = 120


def build(watcher: Watcher, id: str) -> None:
    """Build the page of a run."""
    source = watcher.source(id)
    with page(id or "run", "/run"):
        if source is None or id not in watcher.views:
            empty(f"There is no run <code>{escape(id)}</code> here. <a href='/'>All runs</a>")
            return
        head, banner, strip = Live(), Live(), Live("panel")
        tiles = Live("tiles")
        with ui.element("div").classes("head"):
            ui.html("Curves", tag="h2", sanitize=False)
            axis = ui.toggle(AXES, value="step").props("dense no-caps unelevated toggle-color=primary")
            axis.props('aria-label="horizontal axis"').mark("axis")
            ui.html("", sanitize=False).classes("grow")
            ui.html(f"<a href='/compare?run={_quoted(id)}'>compare with others →</a>", sanitize=False)
        figures = _Figures()
        with ui.element("div").classes("grid2"):
            with ui.element("section").classes("panel"):
                ui.html("Events", tag="h2", sanitize=False)
                events = Live()
            with ui.element("section").classes("panel"):
                ui.html("End of the log", tag="h2", sanitize=False)
                log = Live()
        with ui.element("section").classes("panel"):
            ui.html("Config" if source.kind == "run" else "Settings in the log", tag="h2", sanitize=False)
            ui.html(fragments.settings(source.settings()) or "", sanitize=False)
        drawn: dict[str, object] = {}

        def update() -> None:
            view = watcher.views[id]
            head.show(_head(view))
            banner.show(_banner(view))
            strip.show(_strip(view))
            tiles.show(_tiles(view))
            now = {"version": view.version, "axis": axis.value}
            if now != drawn:
                drawn.update(now)
                figures.draw(watcher, view, axis.value)
                events.show(fragments.events(view))
                log.show(fragments.log(source.log_tail(LOG_LINES)))

        axis.on_value_change(update)
        keep(update)


class _Figures:
    """The curves of one run."""

    def __init__(self) -> None:
        self.curve = Chart("Bits per byte", "curve")
        with ui.element("div").classes("grid2"):
            self.rate = Chart("Learning rate", "rate")
            self.boundaries = Chart("Boundary rate of each level", "boundaries")
            self.speed = Chart("Speed", "speed")
            self.norm = Chart("Gradient norm", "norm")
        self.time = Chart("Where the time went", "timings")

    def draw(self, watcher: Watcher, view: View, axis: Any) -> None:
        """Draw what is known now."""
        history = watcher.history(view.id)
        if history is None:
            return
        runs = [history]
        self.curve.draw(charts.learning_curves(runs, axis))
        self.rate.draw(charts.learning_rates(runs, axis))
        self.boundaries.draw(charts.boundary_rates(runs, axis))
        self.speed.draw(charts.throughput(runs, axis))
        self.norm.draw(charts.gradient_norms(runs, axis))
        phases = {LABELS[phase]: seconds for phase, seconds in view.seconds.items()}
        self.time.draw(charts.timings([{"name": "", "phases": phases}] if len(phases) > 1 else []))


def _quoted(id: str) -> str:
    return fragments.run_url(id).partition("id=")[2]


def _head(view: View) -> str:
    kind = "log" if view.kind == "log" else f"run of {view.group}" if view.group else "run"
    return (
        f"<div class=head><h1>{escape(view.id)}</h1>{fragments.badge(view)}<span class=soft>{escape(kind)}</span></div>"
    )


def _banner(view: View) -> str:
    """What is wrong, or worth knowing before anything else."""
    kind, text = "", ""
    if view.gone:
        text = "This run has been deleted or moved away; what was known of it stands here until you leave."
    elif view.phase == "stalled":
        text = f"No line for {human_seconds(view.timing.age)}: it hangs, or its process is gone."
        if view.kind == "run":
            again = f"<code>niblick train --resume {escape(view.path)}</code>"
            text += f" {again} goes on from the newest checkpoint."
    elif view.message:
        kind, text = view.phase, escape(view.message)
    elif view.sampled:
        text = "This log is large: its beginning, its end and samples between them were read."
    return f'<div class="banner {kind}">{text}</div>' if text else ""


def _strip(view: View) -> str:
    percent = "" if view.timing.share is None else f"{view.timing.share:.1%}"
    guessed = " (by the clock: no line says so yet)" if view.timing.guessed else ""
    line = f"{percent} <span class=soft>{escape(fragments.eta(view))}{guessed}</span>"
    label = f"{fragments.words(view)} of {view.id}"
    return (
        f"{fragments.strip(view)}<div class=barline style='margin-top:12px'>"
        f"{fragments.bar(view.timing.share, view.phase, label)}<span>{line}</span></div>"
    )


def _tiles(view: View) -> str:
    tile, spent = fragments.tile, view.timing
    number, unit = fragments.score(view)
    shown = [tile("best number so far" if not view.final else "final score", number, unit)]
    shown += [tile(f"{s.kind} score", f"{s.bpb:.4f}", s.name) for s in view.scores if s is not view.final]
    if view.val_bpb is not None:
        shown.append(tile("validation", f"{view.val_bpb:.4f}", "BPB, float weights"))
    if view.train_loss is not None:
        shown.append(tile("training loss", f"{view.train_loss:.4f}", "nats per token"))
    shown += [tile("step", fragments.steps(view)), tile("speed", fragments.speed(view), "of training text")]
    if view.train_seconds is not None:
        shown.append(tile("train clock", human_seconds(view.train_seconds), "stands still in validation"))
    if view.total_bytes is not None:
        size = "" if view.artifact_bytes is None else f"weights {human_bytes(view.artifact_bytes)}"
        shown.append(
            tile("bytes of the cap", f"{view.total_bytes:,}", f"{fragments.cap(view).partition(', ')[2]}; {size}")
        )
    elif view.size:
        shown.append(tile("bytes of the artifact", f"{view.artifact_bytes:,}", view.size))
    if view.parameters is not None:
        seed = "" if view.seed is None else f"seed {view.seed}"
        shown.append(tile("weights", f"{view.parameters:,}", seed))
    shown.append(tile("last line", fragments.ago(spent.age)))
    return "".join(shown)
