"""The sending side of one connection: frames leave in order, a peer that cannot take them is closed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from resources.ttm.protocol import SLOW_PEER

BACKLOG = 64
"""So many frames wait to be sent before no more are read from the peer."""

_tasks = set[asyncio.Task[None]]()  # the event loop itself keeps only weak references


class WebsocketPeer:
    """Posts without waiting; one task sends while there is something to send."""

    def __init__(self, socket: ServerConnection, send_s: float) -> None:
        """`send_s` seconds may pass until a frame has left."""
        self._socket, self._send_s = socket, send_s
        self._out: deque[tuple[bytes, Callable[[], None] | None]] = deque()
        self._sending: asyncio.Task[None] | None = None
        self._closing = False

    def post(self, frame: bytes, sent: Callable[[], None] | None = None) -> None:
        """Send in order, later; what is posted to a closing connection is dropped."""
        if self._closing:
            return
        self._out.append((frame, sent))
        if self._sending is None:
            self._sending = _start(self._flush())

    async def room(self) -> None:
        """Returns when the backlog is short: until then nothing more should be read from this peer."""
        while len(self._out) >= BACKLOG and self._sending:
            await asyncio.wait([self._sending])

    def close(self, code: int, reason: str) -> None:
        """Send what is posted, then close. Returns at once."""
        if not self._closing:
            _start(self.finish(code, reason))
            self._closing = True

    async def _flush(self) -> None:
        try:
            while self._out:
                frame, sent = self._out.popleft()
                async with asyncio.timeout(self._send_s):
                    await self._socket.send(frame, text=True)
                if sent:
                    sent()
        except TimeoutError:
            self._out.clear()
            self.close(SLOW_PEER, "cannot take data")
        except ConnectionClosed:
            self._out.clear()
            self._closing = True
        finally:
            self._sending = None

    async def finish(self, code: int, reason: str) -> None:
        """Send what is posted, then close; a peer that takes neither is cut off."""
        self._closing = True
        if self._sending:
            await asyncio.wait([self._sending], timeout=self._send_s)
        try:
            async with asyncio.timeout(self._send_s):
                await self._socket.close(code, reason)
        except TimeoutError:  # what it has not taken is in the way of the closing frame too
            self.abort()

    def abort(self) -> None:
        """Cut the connection off."""
        self._socket.transport.abort()


def _start(work: object) -> asyncio.Task[None]:
    task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)
    return task
