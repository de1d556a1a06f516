"""Who is let in: names of this machine, the app's own pages, and elsewhere only those with the token."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from niblick.monitor.web.guard import Guard


def asked(token: str | None, kind: str = "http", query: str = "", method: str = "GET", **headers: str) -> list[Any]:
    """What the server sends for a request."""
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": f"{kind}.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": kind, "path": "/run", "query_string": query.encode(), "headers": raw, "method": method}
    with ThreadPoolExecutor(1) as own:  # a browser that another test opened may have its loop in this thread
        own.submit(asyncio.run, Guard(app, token)(scope, receive, send)).result()
    return sent


def status(*arguments: Any, **options: Any) -> int:
    return asked(*arguments, **options)[0].get("status", 403)


@pytest.mark.parametrize("host", ["127.0.0.1:8501", "localhost:8501", "[::1]:8501", "LOCALHOST"])
def test_this_machine(host: str) -> None:
    assert status(None, host=host) == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8501", "127.0.0.1.evil.example", "localhost@evil.example:1", "", "10.0.0.3"]
)
def test_other_names_for_this_machine(host: str) -> None:
    """A page elsewhere can have its own name point here."""
    assert status(None, host=host) == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_pages_of_others(kind: str) -> None:
    own = {"host": "127.0.0.1:8501", "origin": "http://127.0.0.1:8501"}
    assert status(None, kind, **own) == 200
    assert status(None, kind, **own | {"origin": "http://evil.example"}) == 403
    assert status(None, kind, **own | {"origin": "null"}) == 403
    assert status("secret", kind, **own | {"cookie": "niblick_token=secret", "origin": "http://evil.example"}) == 403


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_tokens(kind: str) -> None:
    host = {"host": "10.0.0.3:8501"}
    assert status("secret", kind, **host) == 403
    assert status("secret", kind, "token=wrong", **host) == 403
    assert status("secret", kind, **host, cookie="niblick_token=wrong") == 403
    assert status("secret", kind, **host, cookie="niblick_token=sécret") == 403
    assert status("secret", kind, **host, cookie="a=b; niblick_token=secret") == 200


def test_the_token_moves_into_a_cookie() -> None:
    [start, _] = asked("secret", query="token=secret", host="10.0.0.3:8501")
    headers = dict(start["headers"])
    assert (start["status"], headers[b"location"]) == (303, b"/run")
    assert headers[b"set-cookie"] == b"niblick_token=secret; HttpOnly; SameSite=Strict; Path=/"


def test_nothing_can_be_written() -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert status(None, method=method, host="localhost") == 403
