"""The first page: what runs now as cards, everything else as rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from nicegui import ui

from niblick.monitor.watcher import View, Watcher
from niblick.monitor.web import fragments
from niblick.monitor.web.frame import Live, keep, page

CARDS_MOST = 24
"""More working runs than this are rows too."""
ROWS_TOGETHER = 25
"""Rows in an element."""


def build(look: Look) -> None:
    """Build the page."""
    with page("Runs", "/"):
        with ui.element("div").classes("head"):
            ui.html("Runs", tag="h1", sanitize=False)
            counts = Live("soft grow")
            wanted = ui.input(placeholder="find a run or a phase").props("outlined dense clearable debounce=200")
            wanted.classes("find").props('aria-label="find a run"')
        nothing = Live("panel empty")
        cards = _List("cards")
        with ui.element("div").classes("rows") as box:
            Live().show(fragments.ROW_TITLES)
            rows = _List("")

        def update() -> None:
            found = look.shown(wanted.value or "")
            counts.show(found.counts)
            cards.show(found.cards)
            rows.show(found.rows)
            box.set_visibility(bool(found.rows))
            nothing.show(found.nothing)
            nothing.element.set_visibility(bool(found.nothing))

        wanted.on_value_change(update)
        keep(update)


class Painted:
    """Links to runs as HTML, each made once for all who look, and anew when there is a new view of the run."""

    def __init__(self, kind: str, inside: Callable[[View], str]) -> None:
        self._kind, self._inside = kind, inside
        self._known: dict[str, tuple[View, str]] = {}

    def __call__(self, view: View) -> str:
        """The link to the run of this view."""
        known = self._known.get(view.id)
        if known is None or known[0] is not view:
            link = f'class="{self._kind}" href="{escape(fragments.run_url(view.id))}"'
            html = f'<a {link} aria-label="run {escape(view.id)}">{self._inside(view)}</a>'
            self._known[view.id] = known = (view, html)
        return known[1]


@dataclass(frozen=True)
class Shown:
    """What the page shows, as HTML: an element for each of `cards` and of `rows`, which hold several runs."""

    counts: str
    cards: list[str]
    rows: list[str]
    nothing: str


class Look:
    """What the page shows to all who look for the same, put together once for each look of the watcher."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._card, self._row = Painted("run-card", fragments.card), Painted("run-row", fragments.row)
        self._views: dict[str, View] = {}
        self._found: dict[str, Shown] = {}

    def shown(self, wanted: str) -> Shown:
        """What matches these words."""
        if self._views is not self._watcher.views:
            self._views, self._found = self._watcher.views, {}
        if wanted not in self._found:
            self._found[wanted] = self._put_together(wanted)
        return self._found[wanted]

    def _put_together(self, wanted: str) -> Shown:
        views = [v for v in self._views.values() if _matches(v, wanted)]
        working = sorted((v for v in views if v.active), key=lambda v: v.id)
        rest = working[CARDS_MOST:] + sorted((v for v in views if not v.active), key=lambda v: (-v.last_at, v.id))
        rows = [self._row(view) for view in rest]
        return Shown(
            counts=escape(_counts(views)),
            cards=[self._card(view) for view in working[:CARDS_MOST]],
            rows=["".join(rows[i : i + ROWS_TOGETHER]) for i in range(0, len(rows), ROWS_TOGETHER)],
            nothing="" if views else _nothing(self._watcher, wanted),
        )


class _List:
    """Links to runs. Many rows are in one element: an element costs far more than what is in it."""

    def __init__(self, classes: str) -> None:
        self._box = ui.element("div").classes(classes)
        self._shown: list[Live] = []

    def show(self, blocks: list[str]) -> None:
        """Show these, in their order."""
        with self._box:
            self._shown += [Live("block") for _ in blocks[len(self._shown) :]]
        for i, live in enumerate(self._shown):
            live.show(blocks[i] if i < len(blocks) else "")


def _matches(view: View, wanted: str) -> bool:
    text = f"{view.id} {fragments.words(view)} {view.group}".lower()
    return all(word in text for word in wanted.lower().split())


def _counts(views: list[View]) -> str:
    kinds = {"working": sum(v.active for v in views)}
    for phase in ("stalled", "stopped", "failed", "done"):
        kinds[phase] = sum(v.phase == phase and not v.gone for v in views)
    return " · ".join(f"{count} {name}" for name, count in kinds.items() if count)


def _nothing(watcher: Watcher, wanted: str) -> str:
    if wanted:
        return f"no run matches “{escape(wanted)}”"
    folders = ", ".join(f"<code>{escape(str(root))}</code>" for root in watcher.roots)
    return (
        f"There is no run in {folders} yet.<br>It shows here as soon as one starts: "
        "<code>niblick quickstart</code> makes one in three minutes.<br>"
        "Logs of other trainings show with <code>niblick monitor --logs FILE</code>."
    )
