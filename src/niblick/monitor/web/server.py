"""Starts the web app: pages, guard, uvicorn. Nothing is fetched from anywhere else."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable

from niblick.errors import ConfigError
from niblick.monitor.watcher import Watcher

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve(watcher: Watcher, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve until interrupted. `tell` is called with the address as soon as it answers.

    On another host than this machine's own a token is drawn, and part of the address. Raises ConfigError if nicegui
    is not installed or the port is taken.
    """
    try:
        from nicegui import app, ui
    except ImportError as error:
        raise ConfigError(
            "the web app needs nicegui: pip install 'niblick[monitor]' (`niblick watch` does not)"
        ) from error
    from niblick.monitor.web.frame import LOGO
    from niblick.monitor.web.guard import Guard

    token = None if host in LOOPBACK else secrets.token_urlsafe(18)
    port = _free(host, port)
    add_pages(watcher)
    app.add_middleware(Guard, token=token)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
    app.on_startup(lambda: tell(address))
    with watcher:
        ui.run(
            host=host,
            port=port,
            title="niblick",
            favicon=LOGO,
            show=False,
            reload=False,
            tailwind=False,
            show_welcome_message=False,
            binding_refresh_interval=None,
            reconnect_timeout=10.0,
        )


def add_pages(watcher: Watcher) -> None:
    """Register all pages."""
    from fastapi import Query
    from nicegui import ui

    from niblick.monitor.web import board, chunks, live, run
    from niblick.monitor.web import compare_page as compare
    from niblick.monitor.web import notes_page as notes

    standings, look = board.Standings(watcher), live.Look(watcher)

    @ui.page("/")
    def _live() -> None:
        live.build(look)

    @ui.page("/run")
    def _run(id: str = "") -> None:
        run.build(watcher, id)

    @ui.page("/compare")
    def _compare(run: list[str] = Query(default=[])) -> None:  # noqa: B008  (FastAPI's way)
        compare.build(watcher, run)

    @ui.page("/board")
    def _board() -> None:
        board.build(watcher, standings)

    @ui.page("/chunks")
    def _chunks(artifact: str = "") -> None:
        chunks.build(watcher, artifact)

    @ui.page("/notes")
    def _notes() -> None:
        notes.build(watcher)


def _free(host: str, port: int) -> int:
    """The port, or a free one for 0. Raises ConfigError if it is taken or the host is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise ConfigError(
            f"{host}:{port} cannot be served on ({error.strerror}): choose another --port or --host"
        ) from None
