"""The live line of a run in the terminal, and how numbers are written for people. Everything goes to stderr."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from niblick.challenge.tracks import UNWEIGHED
from niblick.facts.events import Compile, Event, Export, Resume, Rounding, Start, Step, Trouble, Validation, Warmup

PLAIN_SECONDS = 10.0
"""Seconds between lines where there is no terminal to rewrite a line on."""


def human_bytes(count: float) -> str:
    """Write a number of bytes with a decimal unit, as the cap is decimal: 17_575_720 as `17.58 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count:.0f} B"


def weighed(total: int | None) -> str:
    """Write bytes of code and artifact together; None are those of a config whose code could not be weighed."""
    return UNWEIGHED if total is None else f"{total:,}"


def weighed_megabytes(total: int | None) -> str:
    """The same for tables in megabytes."""
    return UNWEIGHED if total is None else f"{total / 1e6:.2f}"


def human_seconds(seconds: float) -> str:
    """Write a duration as `42s`, `2m05s` or `3h07m`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table without rules; columns of numbers stand to the right, the first one is never wrapped."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        numeric = bool(rows) and all(r[i].lstrip("+-").replace(",", "").replace(".", "").isdigit() for r in rows)
        table.add_column(column, justify="right" if numeric else "left", no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    return table


class NotebookLine:
    """A live line in a notebook: one output of the cell that is rewritten, and empty in the end. What `Live` is to a
    terminal; that of rich would need ipywidgets."""

    def __init__(self) -> None:
        self._output: Any = None
        self._last = 0.0

    def start(self) -> None:
        """Put the output into the cell."""
        from IPython.display import display

        self._output = display(Text(""), display_id=True)

    def update(self, line: Text) -> None:
        """Show this line; those that come fast are left out."""
        now = time.monotonic()
        if self._output is not None and now - self._last >= NOTEBOOK_SECONDS:
            self._last = now
            self._output.update(line)

    def stop(self) -> None:
        """Leave nothing behind."""
        if self._output is not None:
            self._output.update(Text(""))


NOTEBOOK_SECONDS = 0.25
"""Seconds between two lines in a notebook."""


class RunConsole:
    """Shows the events of a run as one live line, and as plain lines every few seconds where output is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._live: Live | NotebookLine | None = None
        self._bytes_per_token = 1.0
        self._last_plain = 0.0
        self._smooth: float | None = None
        self._started = 0.0
        self._unsaid = ""
        self._start = Start()

    def __enter__(self) -> RunConsole:
        if self.console.is_jupyter:
            self._live = NotebookLine()
            self._live.start()
        elif self.console.is_terminal:
            self._live = Live(Text(""), console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            with contextlib.suppress(OSError):
                self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        """Print a line that stays; nothing where the terminal has gone away, which ends no run."""
        with contextlib.suppress(OSError):
            self.console.print(Text(text, style=style), soft_wrap=True)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self._unsaid and not isinstance(event, Step):
            self.say(self._unsaid)
            self._unsaid = ""
        match event:
            case Start():
                self._start, self._started = event, time.monotonic()
                self._bytes_per_token = event.bytes_per_token or 1.0
                self.say(
                    f"{event.preset}: {event.parameters:,} parameters on {event.device}, "
                    f"{human_bytes(event.train_tokens * self._bytes_per_token)} of training text → {event.run}"
                )
                if event.warmup_steps:
                    self._line(f"warm-up 0/{event.warmup_steps}: steps that are tried and taken back", 0.0)
            case Step():
                self._step(event)
            case Warmup():
                self._warmup(event)
            case Validation():
                self.say(f"step {event.step}  validation {event.bpb:.4f} BPB (float weights)")
                if event.sample:
                    self.say(f"step {event.step}  writes {event.sample!r}")
            case Compile():
                self.say(f"compiling {event.stages} stages (first steps are slow)")
            case Rounding():
                self.say(f"step {event.step}  from here on {event.tensors} tensors are rounded as the export will")
            case Resume():
                self.say(f"resumed after step {event.step} from {event.checkpoint}")
            case Trouble():
                self.say(f"step {event.step}  warning: {event.message}", "yellow")
            case Export():
                size = human_bytes(event.artifact_bytes)
                self.say(f"packed as {event.name}: {size}; scoring it in a fresh process")

    def progress(self, what: str, share: float, bpb: float | None, eta_seconds: float) -> None:
        """Show how far a scorer is, and what it has found so far; or, without a score, how far something else is."""
        found = "" if bpb is None else f"  {bpb:.4f} BPB"
        self._line(f"{what} {share:4.0%}{found}  ETA {human_seconds(eta_seconds)}", share)

    def counting(self, what: str) -> Callable[[int, int], None]:
        """Return what shows how many of how many are done, and when the rest will be."""
        started = time.monotonic()

        def report(done: int, total: int) -> None:
            eta = (time.monotonic() - started) * (total - done) / done if done else None
            left = "" if eta is None else f"  ETA {human_seconds(eta)}"
            self._line(f"{what} {done:,}/{total:,}{left}", done / max(1, total))

        return report

    def preparing(self, what: str, count: int, size: int) -> None:
        """Show how far text has come on its way to shards: documents or files, and bytes."""
        now = time.monotonic()
        if not self._started:
            self._started = self._last_plain = now
        seconds = now - self._started
        speed = f"  {human_bytes(size / seconds)}/s" if seconds > 1 else ""
        self._line(f"{count:,} {what}, {human_bytes(size)}{speed}")

    def _step(self, event: Step) -> None:
        loss = event.loss
        self._smooth = loss if self._smooth is None else 0.95 * self._smooth + 0.05 * loss
        bpb = self._smooth / math.log(2) / self._bytes_per_token
        speed = (event.tokens_per_second or 0.0) * self._bytes_per_token
        eta = f"ETA {human_seconds(event.eta_seconds)}" if event.eta_seconds is not None else ""
        text = f"step {event.step:>5}  loss {loss:.4f}  smoothed {bpb:.3f} BPB  {human_bytes(speed)}/s  {eta}"
        shown = self._line(text, event.progress)
        self._unsaid = "" if shown or self._live else f"{event.progress or 0:4.0%}  {text}"

    def _warmup(self, event: Warmup) -> None:
        """Show how far the warm-up is, and after it how long training will take at the speed of its last step."""
        done, left = event.step, event.steps - event.step
        eta = (time.monotonic() - self._started) / done * left
        self._line(f"warm-up {done}/{event.steps}  ETA {human_seconds(eta)}", done / event.steps)
        if left or event.step_seconds is None:
            return
        seconds, most, steps = event.step_seconds, self._start.max_seconds, self._start.steps or 0
        whole = seconds * steps
        limit = f"; schedule.max_seconds ends it after {human_seconds(most)}" if most and most < whole else ""
        self.say(f"warm-up done: {seconds:.3g} s a step, so {steps:,} steps take {human_seconds(whole)}{limit}")

    def _line(self, text: str, share: float | None = None) -> bool:
        """Rewrite the live line; `share` of the work that is done, where it is known, becomes a bar.

        Returns whether it was shown: where there is no terminal, lines that come fast are left out.
        """
        if self._live and share is None:
            self._live.update(Text(text))
            return True
        if self._live and share is not None:
            filled = round(24 * share)
            bar = Text("━" * filled, style="green") + Text("━" * (24 - filled), style="bright_black")
            self._live.update(Text.assemble(bar, f" {share:4.0%}  ", text))
            return True
        now = time.monotonic()
        if now - self._last_plain < PLAIN_SECONDS:
            return False
        self._last_plain = now
        self.say(text if share is None else f"{share:4.0%}  {text}")
        return True
