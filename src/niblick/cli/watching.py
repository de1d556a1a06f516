"""Verbs that look at runs while they run: in the browser, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from niblick.cli.app import RUNS, Json, Runs, app, print_json
from niblick.errors import ConfigError


@app.command()
def watch(
    target: Annotated[str | None, typer.Argument(help="A run (id, path, `latest`) or a log; all runs by default.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Print what is known now, and end.")] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Follow runs, or a training log, in the terminal. Example: `niblick watch latest`"""
    from rich.console import Console

    from niblick.monitor import terminal
    from niblick.monitor.watcher import Watcher

    log = target is not None and Path(target).is_file()
    folder = Path(target) if target and (Path(target) / "config.json").is_file() else None
    if log:
        watcher = Watcher(logs=[Path(str(target))])
    else:
        watcher = Watcher([folder.resolve().parent if folder else runs])
    watcher.poll()
    if not watcher.views:
        raise nothing_to_see([runs])
    id = None
    if log:
        [id] = watcher.views
    elif target:
        id = watcher.named(str(folder.resolve()) if folder else target)
    if not (once or json_):
        terminal.watch(watcher, id)
        return
    views = watcher.views
    if json_:
        print_json(views[id].snapshot() if id else {"runs": [view.snapshot() for view in views.values()]})
    else:
        Console(highlight=False).print(terminal.detail(views[id]) if id else terminal.overview(list(views.values())))


def nothing_to_see(folders: list[Path]) -> ConfigError:
    """The error for folders without a run."""
    names = ", ".join(map(str, folders))
    return ConfigError(
        f"there is no run in {names}: `niblick quickstart` makes one in three minutes, `niblick train` others; "
        "--runs names another folder, and `niblick watch FILE` reads a log"
    )
