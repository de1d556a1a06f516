"""Verbs that look at runs while they run: in the browser, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from niblick.cli.app import RUNS, Json, Runs, app, print_json
from niblick.errors import ConfigError


@app.command()
def watch(
    target: Annotated[
        str | None, typer.Argument(help="A run (id, path, `latest`) or a log; all runs by default.")
    ] = None,
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
    watcher = Watcher(logs=[Path(str(target))]) if log else Watcher([folder.resolve().parent if folder else runs])
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


@app.command()
def monitor(
    more: Annotated[list[Path] | None, typer.Argument(help="More logs.", show_default=False)] = None,
    runs: Annotated[list[Path], typer.Option("--runs", help="Folder of runs; may be given more than once.")] = [RUNS],  # noqa: B006
    logs: Annotated[list[Path] | None, typer.Option("--logs", help="Training logs, or folders of such.")] = None,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Folders of data, for the subword tokenizers in them.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve on; any but this machine's own asks for a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8501,
    json_: Json = False,
) -> None:
    """Show runs in the browser, while they run and after. Example: `niblick monitor --logs train.log`"""
    import sys

    from niblick.monitor.watcher import Watcher
    from niblick.monitor.web.server import serve

    files = [*(logs or []), *(more or [])]
    for folder in runs:
        if not folder.is_dir() and not (files and runs == [RUNS]):
            raise nothing_to_see([folder])
    watcher = Watcher([folder for folder in runs if folder.is_dir()], files, data=data or [])

    def tell(address: str) -> None:
        if json_:
            print_json({"url": address, "runs": len(watcher.views)})
        else:
            print(f"{len(watcher.views)} runs: {address}  (Ctrl-C ends)", file=sys.stderr)
        sys.stdout.flush()

    serve(watcher, host, port, tell)
