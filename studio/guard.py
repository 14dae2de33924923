"""The guard in front of the whole site, the page included: who may ask, under which name, from where, and how much.

1. Host: the name in the request is one the server was started for. Otherwise a hostile page could point its own name
   at this address (DNS rebinding) and would then count as the same origin.
2. Origin: another site's page may open ours, but may neither change nor embed anything.
3. Key: beyond loopback every request carries it, as a cookie or as `Authorization: Bearer`.
4. Size: a body is refused as soon as it is known to be too long.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from studio.errors import shorten
from studio.login import entering, form
from studio.settings import Settings

LOOPBACK = ("localhost", "127.0.0.1", "::1")
EVERYWHERE = frozenset({"", "0.0.0.0", "::"})
OPEN = frozenset({"/api/v1/health"})
LOGIN = "/login"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_BODY = 100 * 2**20
MAX_JSON = 2**20  # a request with two prompts of the greatest length is below 200 kB
TRIES, TRIES_SECONDS = 10, 60.0
COOKIE_SECONDS = 30 * 24 * 3600

CHALLENGE = {"WWW-Authenticate": "Bearer"}

_NETLOC = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::\d{1,5})?")
# Gradio compiles its components' templates and starts its page with inline scripts, so both must be allowed; nothing
# may be loaded from or sent to another host, and no other site may show the page in a frame.
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; "
        "connect-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'self'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """What the site may be called and what opens it. `key` is None where no key is asked for."""

    def __init__(
        self,
        hosts: Iterable[str] = (),
        key: str | None = None,
        *,
        any_address: bool = False,
        max_body: int = MAX_BODY,
    ) -> None:
        self.key, self.max_body = key, max_body
        self._any_address = any_address
        self._hosts = {*LOOPBACK, *(host.lower() for host in hosts)}
        self._failures: deque[float] = deque()
        self._lock = threading.Lock()

    @classmethod
    def of(cls, settings: Settings) -> Guard:
        """The guard these settings ask for; beyond loopback a key is made if none is given.

        A server that listens everywhere may be addressed by any of its addresses: an address in digits cannot be
        rebound, only names can.
        """
        everywhere = settings.host in EVERYWHERE
        own = (socket.gethostname(), f"{socket.gethostname()}.local") if everywhere else (settings.host,)
        key = settings.key or (secrets.token_urlsafe(18) if settings.public else None)
        return cls((*own, *settings.host_names), key, any_address=everywhere)

    def allow(self, host: str) -> None:
        """Accept one more name, such as that of a share link made after the start."""
        self._hosts.add(host.lower())

    def knows(self, netloc: str) -> bool:
        """Whether this `Host` value (with or without a port) is a name of this server."""
        match = _NETLOC.fullmatch(netloc.lower())
        if match is None:
            return False
        name = match[1] or match[2].rstrip(".")
        return name in self._hosts or (self._any_address and _is_address(name))

    @property
    def cookie(self) -> tuple[str, str]:
        """Name and value of the cookie that stands for the key; neither gives the key away.

        The name depends on the key, because cookies are shared by all ports of a host: two studios would otherwise
        log each other out.
        """
        value = self._digest("cookie")
        return f"studio-{self._digest('name')[:12]}", value

    def has_key(self, connection: HTTPConnection) -> bool:
        """Whether the request carries the cookie."""
        name, value = self.cookie
        return hmac.compare_digest(connection.cookies.get(name, "").encode(), value.encode())

    def opens(self, given: str) -> bool:
        """Whether this is the key. After too many wrong ones every key is refused (429) for a while.

        The refusal has to come before the comparison: a delay after it would not slow down parallel guesses.
        """
        now = time.monotonic()
        with self._lock:
            while self._failures and self._failures[0] < now - TRIES_SECONDS:
                self._failures.popleft()
            if len(self._failures) >= TRIES:
                raise HTTPException(429, "Too many wrong keys; try again in a minute.")
            right = hmac.compare_digest(given.encode(), (self.key or "").encode())
            if not right:
                self._failures.append(now)
        return right

    def _digest(self, purpose: str) -> str:
        return hmac.new((self.key or "").encode(), purpose.encode(), hashlib.sha256).hexdigest()


class GuardMiddleware:
    """Puts a `Guard` in front of an application and security headers on all its answers."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request here, or let the application do so."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        try:
            self._check_place(connection)
            limit = self._limit(connection)
            receive = _limited(receive, limit)
            answer = await self._check_key(connection, receive)
        except HTTPException as error:
            answer = refusal(error)
        if scope["type"] == "websocket":
            await (self._app if answer is None else WebSocketClose(1008))(scope, receive, send)
        else:
            await (answer or self._app)(scope, receive, _with_headers(send))

    def _check_place(self, connection: HTTPConnection) -> None:
        """Refuse names that are not ours, and other sites' pages."""
        headers, method = connection.headers, connection.scope.get("method", "GET")
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._guard.knows(hosts[0]):
            named = shorten(", ".join(hosts))
            raise HTTPException(
                403, f"This server does not go by the name “{named}”; start it with --host-name to add one."
            )
        site = headers.get("sec-fetch-site", "none")
        opened = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site not in {"none", "same-origin"} and not opened:
            raise HTTPException(403, "Another site may not use this server.")
        if method in SAFE and connection.scope["type"] == "http":
            return
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != hosts[0].lower():
            raise HTTPException(403, f"A page from “{shorten(origin)}” may not change anything here.")
        # Browsers send an origin with whatever changes something; a cookie without one is no browser we can trust.
        if origin is None and site == "none" and self._guard.cookie[0] in connection.cookies:
            raise HTTPException(403, "With a cookie an Origin is needed; a script sends `Authorization: Bearer KEY`.")

    def _limit(self, connection: HTTPConnection) -> int:
        limit = self._guard.max_body
        if connection.scope["path"].startswith("/api/v1/jobs"):
            limit = min(limit, MAX_JSON)
        length = connection.headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            raise _too_long(limit)
        return limit

    async def _check_key(self, connection: HTTPConnection, receive: Receive) -> Response | None:
        """None to let the request through, otherwise the answer to it."""
        guard, path, method = self._guard, connection.scope["path"], connection.scope.get("method", "GET")
        if guard.key is None or path in OPEN:
            return None
        if path == LOGIN and method == "POST":
            return await self._log_in(connection, receive)
        if method == "GET" and "key" in connection.query_params:
            return self._enter(connection)
        scheme, _, given = connection.headers.get("authorization", "").partition(" ")
        if guard.has_key(connection) or (scheme.lower() == "bearer" and guard.opens(given.strip())):
            return None
        if method == "GET" and "text/html" in connection.headers.get("accept", ""):
            return HTMLResponse(form(wrong=False), 401)
        raise HTTPException(401, "This server asks for its key: send `Authorization: Bearer KEY`.", CHALLENGE)

    async def _log_in(self, connection: HTTPConnection, receive: Receive) -> Response:
        body = await Request(connection.scope, receive).body()
        given = dict(parse_qsl(body.decode("utf-8", "replace"))).get("key", "")
        if not self._guard.opens(given.strip()):
            return HTMLResponse(form(wrong=True), 401)
        return self._remember(connection, RedirectResponse("/", 303))

    def _enter(self, connection: HTTPConnection) -> Response:
        """Take the key out of the address, so that it stays in no history, bookmark or log of a page."""
        if not self._guard.opens(connection.query_params["key"]):
            return HTMLResponse(form(wrong=True), 401)
        rest = urlencode([(name, value) for name, value in connection.query_params.multi_items() if name != "key"])
        # One slash only: a path of two would lead to another host.
        target = "/" + quote(connection.scope["path"].lstrip("/\\")) + (f"?{rest}" if rest else "")
        # A page that moves on, not a redirect: a strict cookie is not sent along a redirect that began on another
        # site, say in a mail, and the reader would be asked for the key that the link holds.
        return self._remember(connection, HTMLResponse(entering(target)))

    def _remember(self, connection: HTTPConnection, response: Response) -> Response:
        name, value = self._guard.cookie
        secure = connection.url.scheme == "https"
        response.set_cookie(name, value, COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)
        return response


def refusal(error: HTTPException) -> JSONResponse:
    """The answer to a request that is refused: the error's name and its sentence."""
    name = (
        "Refused" if error.status_code in {401, 403} else HTTPStatus(error.status_code).phrase.title().replace(" ", "")
    )
    return JSONResponse({"error": name, "message": error.detail}, error.status_code, error.headers)


def _too_long(limit: int) -> HTTPException:
    return HTTPException(413, f"The request is longer than {limit:,} bytes.")


def _limited(receive: Receive, limit: int) -> Receive:
    """Count the body as it comes: a chunked one does not say its length beforehand."""
    taken = 0

    async def counted() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > limit:
            raise _too_long(limit)
        return message

    return counted


def _with_headers(send: Send) -> Send:
    async def decorated(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return decorated


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
