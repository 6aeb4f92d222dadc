"""Who may see the board: whoever knows the password, or whom the company's reverse proxy has signed in."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import time
from collections import defaultdict, deque
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resources.ttm.settings import loopback
from services.ttm_board.config import BoardConfig

WRONG_S, WRONG_MOST = 60.0, 10  # so many wrong passwords of one address in so many seconds
ADDRESSES_MOST = 10_000
LONGEST_ADDRESS = 64  # characters
FREE = frozenset({"/healthz"})  # says nothing of tickets
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Access:
    """ASGI middleware: lets a request pass, or answers 401, 403 or 429; adds the security headers."""

    def __init__(
        self, app: ASGIApp, config: BoardConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app, self._config, self._clock = app, config, clock
        self._digest = _digest(config.password)
        self._wrong: dict[str, deque[float]] = defaultdict(deque)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        refusal = None if scope["path"] in FREE else self._refusal(scope)
        await (refusal or self._app)(scope, receive, send_safely)

    def _refusal(self, scope: Scope) -> Response | None:
        config, headers = self._config, Headers(scope=scope)
        peer = (scope.get("client") or ("", 0))[0]
        if config.open:
            return (
                None if _local_name(headers.get("host", "")) else _say(403, "Откройте доску как localhost.")
            )
        if config.user_header and headers.get(config.user_header) and self._is_proxy(peer):
            return None
        if not config.password:
            return _say(403, "Доска доступна только через прокси компании.")
        return self._password(self._client(peer, headers), headers.get("authorization", ""))

    def _password(self, peer: str, authorization: str) -> Response | None:
        wrong, now = self._wrong[peer], self._clock()
        while wrong and wrong[0] < now - WRONG_S:
            wrong.popleft()
        if len(wrong) >= WRONG_MOST:
            return _say(429, "Слишком много неверных паролей, подождите минуту.", {"Retry-After": "60"})
        if hmac.compare_digest(_digest(_given(authorization)), self._digest):
            self._wrong.pop(peer, None)
            return None
        if authorization:
            wrong.append(now)
        if len(self._wrong) > ADDRESSES_MOST:
            self._wrong.clear()
        return _say(401, "Нужен пароль.", {"WWW-Authenticate": 'Basic realm="TTM", charset="UTF-8"'})

    def _client(self, peer: str, headers: Headers) -> str:
        """Whose guesses are counted: the peer or, behind a proxy that says so, the last address of its header
        that is no proxy itself. What stands before that one may be the client's own invention."""
        if not self._config.client_header or not self._is_proxy(peer):
            return peer
        said = ",".join(headers.getlist(self._config.client_header)).split(",")
        clients = (address for part in reversed(said) if (address := part.strip()))
        return next((client for client in clients if not self._is_proxy(client)), peer)[:LONGEST_ADDRESS]

    def _is_proxy(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._config.proxies)


def _say(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(text + "\n", status, headers)


def _local_name(host: str) -> bool:
    """Whether the browser thinks that it speaks to this machine: another name may lead here by a trick."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return loopback(name)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _given(authorization: str) -> str:
    """The password of a Basic header, whatever the name; empty for anything else."""
    scheme, _, coded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(coded.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return ""
