"""Research notes: notes and tags of runs, and the research log beside them, to be searched."""

from __future__ import annotations

from html import escape

from nicegui import ui

from niblick.ledger.notes import LOG
from niblick.monitor.finding import RunSource, within
from niblick.monitor.tail import last_lines
from niblick.monitor.watcher import View, Watcher
from niblick.monitor.web import fragments
from niblick.monitor.web.frame import Live, keep, page

NOTES_MOST = 200
LOG_LINES, LOG_BYTES = 400, 256 << 10


def build(watcher: Watcher) -> None:
    """Build the page."""
    with page("Notes", "/notes"):
        with ui.element("div").classes("head"):
            ui.html("Research notes", tag="h1", sanitize=False)
            ui.html("", sanitize=False).classes("grow")
            wanted = ui.input(placeholder="find in notes and tags").props("outlined dense clearable debounce=200")
            wanted.classes("find").props('aria-label="find in notes"')
        shown, log = Live("panel"), Live("panel")

        def update() -> None:
            words = (wanted.value or "").lower().split()
            shown.show(_notes(watcher, words))
            text = _log(watcher, words)
            log.show(f"<h2>Research log</h2>{text}")
            log.element.set_visibility(bool(text))

        wanted.on_value_change(update)
        keep(update)


def _notes(watcher: Watcher, wanted: list[str]) -> str:
    found = []
    for id, source in watcher.run_folders().items():
        if id in watcher.views:
            found += _of_run(watcher.views[id], source, wanted)
    found.sort(key=lambda item: item[0], reverse=True)
    if found:
        return "".join(html for _, html in found[:NOTES_MOST])
    if wanted:
        return "<p class=empty>no note matches</p>"
    return (
        "<div class=empty>No run has a note yet.<br><code>niblick note</code> writes one, "
        "<code>niblick tag</code> tags a run.</div>"
    )


def _log(watcher: Watcher, wanted: list[str]) -> str:
    """The newest lines of the research logs."""
    logs = [root / LOG for root in watcher.roots if within(root / LOG, root.resolve())]
    lines = [line for log in logs for line in last_lines(log, LOG_LINES, LOG_BYTES)]
    return fragments.log(lines) if (lines := [x for x in lines if all(w in x.lower() for w in wanted)]) else ""


def _of_run(view: View, source: RunSource, wanted: list[str]) -> list[tuple[str, str]]:
    data = source.notes()
    tags, notes = list(data.tags), data.notes
    if tags and not notes:
        notes = ({"time": "", "text": ""},)
    found = []
    for note in notes:
        text, when = note["text"], note["time"]
        if all(word in f"{view.id} {text} {' '.join(tags)}".lower() for word in wanted):
            found.append((when, _note(view, text, when, tags)))
    return found


def _note(view: View, text: str, when: str, tags: list[str]) -> str:
    number, unit = fragments.score(view)
    labels = "".join(f"<span class=tag>{escape(tag)}</span>" for tag in tags)
    return (
        f'<article class=note><div class=head style="margin:0">'
        f'<a href="{fragments.run_url(view.id)}"><b>{escape(view.id)}</b></a>'
        f'{fragments.badge(view)}<span class="soft num">{number} {escape(unit)}</span><span class=grow></span>'
        f"<span class=soft>{escape(when)}</span></div><p>{escape(text)}</p>{labels}</article>"
    )
