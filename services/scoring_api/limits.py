"""What a request may cost: bytes of its body, requests of a webhook a minute."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 10 * 1024 * 1024
MOST_CONVERSIONS = 1000
_MINUTE = 60.0
MOST_KEYS = 10_000  # then those that were quiet for a minute are forgotten


class BodyLimit:
    """ASGI: 413 for a body over the limit, whether its length is announced or not; the rest is not read."""

    def __init__(self, app: ASGIApp, most: int = MOST_BYTES) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        refused = announced.isascii() and announced.isdigit() and int(announced[:20]) > self._most
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            if refused:
                raise _too_large(self._most)
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._most:
                raise _too_large(self._most)
            return message

        await self._app(scope, counted, send)


def _too_large(most: int) -> HTTPException:
    # without `close` the server would go on reading what nobody wants
    detail = f"The request is larger than {most // (1024 * 1024)} MB"
    return HTTPException(413, detail, {"Connection": "close"})


class RateWindow:
    """At most `most` requests in any minute for each key; 0 is no limit. For one thread or event loop."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._seen: dict[Hashable, deque[float]] = defaultdict(deque)

    def wait(self, key: Hashable) -> int:
        """Count a request; 0 if it may pass, else in how many seconds the next one may."""
        if not self._most:
            return 0
        now = self._clock()
        if len(self._seen) > MOST_KEYS:
            self._seen = defaultdict(
                deque, {k: s for k, s in self._seen.items() if s and s[-1] > now - _MINUTE}
            )
        seen = self._seen[key]
        while seen and seen[0] <= now - _MINUTE:
            seen.popleft()
        if len(seen) >= self._most:
            return min(max(1, math.ceil(seen[0] + _MINUTE - now)), int(_MINUTE))  # floats round
        seen.append(now)
        return 0
