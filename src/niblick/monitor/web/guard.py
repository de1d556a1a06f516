"""Who may see the app: this machine alone, or others who have the token. A plain ASGI layer around everything."""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "niblick_token"
_LOCAL = ("localhost", "127.0.0.1", "::1")
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """Lets a request through if it comes by a name of this machine (no token set) or with the token.

    A web page elsewhere can reach a server on 127.0.0.1 by a name of its own, or open a socket to it from its scripts:
    so without a token the Host must be this machine's, and the Origin of a socket must be the app itself in any case.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if (
            not self._own_page(headers)
            or not self._allowed(scope, headers)
            or (scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "POST"))
        ):
            await _refuse(scope, receive, send)
        elif (token := self._in_query(scope)) is not None and scope["type"] == "http":
            await self._welcome(scope, send, token)
        else:
            await self.app(scope, receive, _with_headers(send))

    def _own_page(self, headers: dict[str, str]) -> bool:
        """Whether a request that a page's script makes is one of our own pages'."""
        origin = headers.get("origin")
        return origin is None or urlsplit(origin).netloc == headers.get("host")

    def _allowed(self, scope: Scope, headers: dict[str, str]) -> bool:
        if self.token is None:
            return urlsplit(f"//{headers.get('host', '')}").hostname in _LOCAL
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            cookie = None
        given = [self._in_query(scope) or "", cookie.value if cookie else ""]
        return any(hmac.compare_digest(g.encode(), self.token.encode()) for g in given)

    def _in_query(self, scope: Scope) -> str | None:
        values = parse_qs(scope.get("query_string", b"").decode("latin-1")).get("token")
        return values[0] if values and self.token is not None else None

    async def _welcome(self, scope: Scope, send: Send, token: str) -> None:
        """Keep the token in a cookie, and out of the address."""
        cookie = f"{COOKIE}={token}; HttpOnly; SameSite=Strict; Path=/"
        path = "/" + scope["path"].lstrip("/")
        headers = [(b"location", path.encode("latin-1", "ignore")), (b"set-cookie", cookie.encode("latin-1"))]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return wrapped


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    body = b"not allowed: open the address that niblick monitor printed\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
