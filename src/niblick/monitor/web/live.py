"""The first page: what runs now as cards, everything else as rows."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from nicegui import ui

from niblick.monitor.watcher import View, Watcher
from niblick.monitor.web import fragments
from niblick.monitor.web.frame import Live, keep, page

CARDS_MOST = 24
"""More working runs than this are rows too."""


def build(watcher: Watcher) -> None:
    """Build the page."""
    with page("Runs", "/"):
        with ui.element("div").classes("head"):
            ui.html("Runs", tag="h1", sanitize=False)
            counts = Live("soft grow")
            wanted = ui.input(placeholder="find a run or a phase").props("outlined dense clearable debounce=200")
            wanted.classes("find").props('aria-label="find a run"')
        nothing = Live("panel empty")
        cards = _List("cards", "run-card", fragments.card)
        with ui.element("div").classes("rows") as box:
            Live().show(fragments.ROW_TITLES)
            rows = _List("", "run-row", fragments.row)

        def update() -> None:
            views = [v for v in watcher.views.values() if _matches(v, wanted.value or "")]
            working = sorted((v for v in views if v.active), key=lambda v: v.id)
            carded, rest = working[:CARDS_MOST], working[CARDS_MOST:]
            rest += sorted((v for v in views if not v.active), key=lambda v: (-v.last_at, v.id))
            counts.show(escape(_counts(views)))
            cards.show(carded)
            rows.show(rest)
            box.set_visibility(bool(rest))
            nothing.show(_nothing(watcher, wanted.value or "") if not views else "")
            nothing.element.set_visibility(not views)

        wanted.on_value_change(update)
        keep(update)


class _List:
    """One link for each run, in their order; each is sent again only when it changes."""

    def __init__(self, classes: str, kind: str, html: Callable[[View], str]) -> None:
        self.box = ui.element("div").classes(classes)
        self._kind, self._html = kind, html
        self._shown: dict[str, tuple[ui.link, Live]] = {}
        self._views: dict[str, View] = {}
        self._order: list[str] = []

    def show(self, views: list[View]) -> None:
        """Show these."""
        order = [v.id for v in views]
        for id in set(self._shown) - set(order):
            self._shown.pop(id)[0].delete()
            self._views.pop(id)
        for view in views:
            if view.id not in self._shown:
                with self.box, ui.link(target=fragments.run_url(view.id)).classes(self._kind) as link:
                    self._shown[view.id] = (link, Live())
                link.props(f'aria-label="run {escape(view.id)}"')
            if self._views.get(view.id) is not view:
                self._views[view.id] = view
                self._shown[view.id][1].show(self._html(view))
        if order != self._order:
            for i, id in enumerate(order):
                link = self._shown[id][0]
                if link.parent_slot is not None and link.parent_slot.children.index(link) != i:
                    link.move(target_index=i)
            self._order = order


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
