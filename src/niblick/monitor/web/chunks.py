"""The chunk page: type text, see how an artifact's routers cut it, and how sure they are."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from nicegui import run, ui

from niblick.console import human_bytes
from niblick.errors import NiblickError
from niblick.monitor.watcher import Watcher
from niblick.monitor.web.frame import Live, empty, page

SENTENCE = (
    "The quick brown fox jumps over the lazy dog. "
    "Natural language processing has made remarkable progress in recent years."
)
CHARACTERS_MOST = 4000


NONE = "none"


def build(watcher: Watcher, artifact: str) -> None:
    """Build the page; `artifact` is the one to begin with. A second one may cut the same text beside it."""
    known = artifacts(watcher)
    with page("Chunks", "/chunks"):
        ui.html("Chunks", tag="h1", sanitize=False)
        if not known:
            empty("No run has an artifact yet: <code>niblick quickstart</code> makes one in three minutes.")
            return
        text = ui.textarea(value=SENTENCE).props(
            f'outlined autogrow debounce=150 maxlength={CHARACTERS_MOST} label="text"'
        )
        text.classes("find w-full").mark("text")
        places = {id: (path, data_of(watcher, id.rpartition(":")[0])) for id, path in known.items()}
        first = artifact if artifact in known else next(iter(known))
        with ui.element("div").classes("sides"):
            Side("artifact", list(known), first, places, text)
            if len(known) > 1:
                Side("beside it", [NONE, *known], NONE, places, text)


class Side:
    """One artifact's cuts of the text that is typed."""

    def __init__(
        self, label: str, choices: list[str], value: str, places: dict[str, tuple[Path, Path | None]], text: Any
    ) -> None:
        self.places, self.text, self.work, self.number = places, text, Work(), 0
        with ui.element("section"):
            self.pick = ui.select(choices, value=value).props(f'outlined dense label="{label}"')
            self.pick.classes("w-full").mark(label)
            self.facts, self.shown = Live("soft"), Live("panel" if value != NONE else "")
        for source in (self.pick, text):
            source.on_value_change(self.update)
        ui.timer(0.05, self.update, once=True)
        ui.timer(TICK_SECONDS, self.tick)

    async def update(self) -> None:
        """Cut the text, and show that unless it has changed meanwhile."""
        self.number += 1
        number = self.number
        if self.pick.value == NONE:
            self.work.end()
            self.show("", "")
            return
        self.work.begin()
        html = await run.io_bound(_cut, *self.places[self.pick.value], self.text.value or "", self.work.say)
        if number == self.number and html is not None:
            self.work.end()
            self.show(*html)

    def show(self, facts: str, chunks: str) -> None:
        """Show facts and chunks."""
        self.facts.show(facts)
        self.shown.show(chunks)
        self.shown.element.classes(add="panel" if chunks else "", remove="" if chunks else "panel")

    def tick(self) -> None:
        """Tell what is waited for."""
        if told := self.work.told():
            self.shown.show(told)


TICK_SECONDS = 0.5
"""How often it is said how far the work is."""


class Work:
    """What the page waits for, and since when: it is told where that takes longer than a moment."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._what = ""

    def begin(self) -> None:
        """Begin anew."""
        self._since = time.monotonic()

    def say(self, what: str) -> None:
        """Name the step that is under way now."""
        self._what = what

    def end(self) -> None:
        """Have nothing to wait for."""
        self._since = None

    def told(self) -> str:
        """The step and its seconds as HTML, empty where there is nothing to wait for."""
        seconds = 0.0 if self._since is None else time.monotonic() - self._since
        if seconds < TICK_SECONDS:
            return ""
        return f'<p class=soft role="status">{escape(self._what)}, {seconds:.0f} s <progress></progress></p>'


def artifacts(watcher: Watcher) -> dict[str, Path]:
    """Artifacts that may be looked at, by what they are called here; newest runs first. No other file is opened."""
    folders = sorted(watcher.run_folders().items(), key=lambda item: -item[1].last_at)
    return {f"{id}:{path.parent.name}": path for id, source in folders for path in source.artifacts()}


def data_of(watcher: Watcher, id: str) -> Path | None:
    """The data that a run was trained on, which holds its subword tokenizer; only inside folders that were given."""
    source = watcher.run_folders().get(id)
    named = source.settings().get("data.path") if source else None
    if not named:
        return None
    # As the run calls it, from where it was started, or under the same name in a folder that was given.
    candidates = [Path(str(named)), *(folder / Path(str(named)).name for folder in watcher.data)]
    for path in (candidate.resolve() for candidate in candidates):
        if path.is_dir() and any(path.is_relative_to(folder.resolve()) for folder in watcher.data):
            return path
    return None


def _cut(path: Path, data: Path | None, text: str, say: Callable[[str], None]) -> tuple[str, str]:
    """Facts and chunks as HTML, or what is wrong; `say` hears of the steps that may take long."""
    if not text:
        return "", "<p class=soft>type something above</p>"
    try:
        what = f"the model of {human_bytes(path.stat().st_size)}"
        say(f"reading {what}" if "torch" in sys.modules else f"starting PyTorch, to read {what}")
        model = _loaded(path, data, path.stat().st_mtime_ns)
        say("cutting the text")
        pieces, told = _chunks(model, text[:CHARACTERS_MOST])
    except NiblickError as error:
        wanted = not data and "tokenizer" in str(error)
        hint = " (a subword tokenizer lies with its data: start with <code>--data DIR</code>)" if wanted else ""
        return "", f'<div class="banner">{escape(str(error))}{hint}</div>'
    except OSError:
        return "", '<div class="banner">the artifact is gone: choose another one</div>'
    levels = [list(group) for _, group in groupby(pieces, key=lambda piece: piece.level)]
    size = len(text.encode())
    counts = (
        f"{len(group):,} chunks of {size / len(group):.2f} bytes" + (f", {figures}" if figures else "")
        for group, figures in zip(levels, told, strict=True)
    )
    return f"{size:,} bytes in {'; inside it '.join(counts)}", "".join(_level(group) for group in levels)


def _chunks(model: Any, text: str) -> tuple[list[Any], list[str]]:
    """The chunks of all levels, and what is to be told of each level: where its chunks start, and what they cost."""
    from niblick.boundaries.cuts import Reader, read_text, row_chunks
    from niblick.boundaries.surprisal import surprisal, told

    row = read_text(Reader(model.model, model.tokenizer), text, model.context, costs=True)
    levels = range(len(row.levels))
    return [c for level in levels for c in row_chunks(row, level)], [told(surprisal([row], level)) for level in levels]


def _level(pieces: list[Any]) -> str:
    inner = f"<p class=soft>level {pieces[0].level}, inside it:</p>" if pieces[0].level else ""
    return f'{inner}<div class="chunks" aria-label="chunks">{"".join(_chunk(p) for p in pieces)}</div>'


@lru_cache(maxsize=2)
def _loaded(path: Path, data: Path | None, changed: int) -> Any:
    """The model of an artifact; `changed` makes a new file another one."""
    from niblick.run.generate import load_file

    return load_file(path, trained_on=data or "")


def _chunk(piece: Any) -> str:
    text = escape(piece.text).replace(" ", "<span class=ws>␣</span>").replace("\n", "<span class=ws>⏎</span>")
    p = f"{piece.p:.2f}" if math.isfinite(piece.p) else "–"  # some routers cut without a probability
    label = escape(f"{piece.text}, p {p}")
    place = f"bytes {piece.start} to {piece.end}, p {p}"
    return (
        f'<span class=chunk title="{place}" aria-label="{label}"><b>{text}</b>'
        f"<i style='width:{36 * piece.p if math.isfinite(piece.p) else 0:.0f}px'></i><small>{p}</small></span>"
    )
