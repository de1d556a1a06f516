"""What all pages share: head, navigation, theme, keyboard, and the timer that keeps a page up to date."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nicegui import context, ui
from starlette.requests import Request

from niblick.drawing.charts import Figure

PAGES = (("/", "Live"), ("/compare", "Compare"), ("/board", "Leaderboard"), ("/chunks", "Chunks"), ("/notes", "Notes"))
UPDATE_SECONDS = 0.6

_STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
LOGO = (Path(__file__).parent / "logo.svg").read_text(encoding="utf-8")
_THEMES = {"auto": ("brightness_auto", None), "light": ("light_mode", False), "dark": ("dark_mode", True)}
_COOKIE = "niblick_theme"
_PLOTLY = {"displayModeBar": False, "responsive": True}


@contextmanager
def page(title: str, path: str) -> Iterator[None]:
    """Build a page: its content goes inside."""
    request: Request | None = context.client.request
    theme = (request.cookies.get(_COOKIE) if request else None) or "auto"
    ui.page_title(f"{title} · niblick")
    ui.add_css(_STYLE)
    dark = ui.dark_mode(_THEMES.get(theme, _THEMES["auto"])[1])
    with ui.header().classes("top"), ui.element("div").classes("inner"):
        ui.html(f'<a class="brand" href="/">{LOGO}niblick</a>', sanitize=False).classes("home")
        links = "".join(f'<a href="{to}"{" aria-current=page" if to == path else ""}>{name}</a>' for to, name in PAGES)
        ui.html(links, tag="nav", sanitize=False).classes("tabs").props('aria-label="pages"')
        _theme_button(dark, theme)
    with ui.element("main").classes("page"):
        yield
        keys = " ".join(f"<kbd>{i}</kbd> {name.lower()}" for i, (_, name) in enumerate(PAGES, 1))
        ui.html(f"Keys: {keys} <kbd>/</kbd> find <kbd>d</kbd> theme", sanitize=False).classes("foot")
    ui.add_body_html(_KEYS)


def _theme_button(dark: Any, theme: str) -> None:
    order = list(_THEMES)
    state = {"theme": theme if theme in _THEMES else "auto"}

    def turn() -> None:
        state["theme"] = order[(order.index(state["theme"]) + 1) % len(order)]
        icon, value = _THEMES[state["theme"]]
        dark.set_value(value)
        button.props(f'icon={icon} aria-label="theme: {state["theme"]}"')
        ui.run_javascript(f"document.cookie='{_COOKIE}={state['theme']};path=/;max-age=31536000;samesite=strict'")

    icon = _THEMES[state["theme"]][0]
    button = ui.button(on_click=turn).props(f'flat round dense icon={icon} aria-label="theme: {state["theme"]}"')
    button.classes("tool").mark("theme")


_KEYS = f"""<script>
document.addEventListener("keydown", (e) => {{
  if (e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.target.closest("input, textarea, select, [contenteditable]")) {{
    if (e.key === "Escape") e.target.blur();
    return;
  }}
  const pages = {[to for to, _ in PAGES]};
  const field = document.querySelector(".find input, .find textarea");
  if (e.key >= "1" && e.key <= String(pages.length)) location.href = pages[e.key - 1];
  else if (e.key === "d") document.querySelector(".tool").click();
  else if (e.key === "/" && field) {{
    field.focus();
    e.preventDefault();
  }}
}});
</script>"""


def keep(update: Callable[[], None]) -> None:
    """Call `update` now, and from then on every UPDATE_SECONDS."""
    update()
    ui.timer(UPDATE_SECONDS, update, immediate=False)


class Live:
    """An HTML element that is sent again only when it changes."""

    def __init__(self, classes: str = "", tag: str = "div") -> None:
        self.element = ui.html("", sanitize=False, tag=tag).classes(classes)
        self._shown = ""

    def show(self, html: str) -> None:
        """Show this; all text in it has been escaped."""
        if html != self._shown:
            self._shown = html
            self.element.set_content(html)


class Chart:
    """A Plotly figure that is drawn again only when told to; hidden while it has nothing to draw."""

    def __init__(self, title: str, mark: str) -> None:
        self.panel = ui.element("section").classes("panel")
        with self.panel:
            ui.html(title, tag="h2", sanitize=False)
            self.plot = (
                ui.plotly({"data": [], "layout": {}, "config": _PLOTLY})
                .classes("chart")
                .mark(mark)
                .props(f'id="{mark}" role="img"')
            )
            self.plot.props(f'aria-label="{title}"')

    def draw(self, figure: Figure) -> None:
        """Draw a figure of `drawing.charts`."""
        drawn = any(len(trace.get("x", ())) for trace in figure["data"])
        self.panel.set_visibility(drawn)
        if drawn:
            self.plot.style(f"min-height:{figure['layout'].get('height', 340)}px")
            self.plot.update_figure(figure | {"config": _PLOTLY})


def empty(html: str) -> None:
    """A panel that says why there is nothing; `html` is ours."""
    ui.html(html, sanitize=False).classes("panel empty")
