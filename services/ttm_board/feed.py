"""Tells browsers that the board has changed: one watcher of the database for all of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from resources.postgres import PostgresError

logger = logging.getLogger(__name__)
BEAT_S = 15.0  # a comment so often keeps proxies from closing the line
HUB_S = 5.0


class Feed:
    """The board's version, read every `every_s` while somebody looks, and given to all who wait for it."""

    def __init__(
        self, version: Callable[[], str], ask_hub: Callable[[], object], every_s: float, most: int = 500
    ) -> None:
        """`most` browsers may watch at a time. Both functions block, so they run in threads."""
        self._read, self._ask_hub, self._every_s, self._most = version, ask_hub, every_s, most
        self._changed = asyncio.Condition()
        self._version = ""
        self._watching = 0
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Feed:
        self._loop = asyncio.get_running_loop()
        self._tasks = [asyncio.create_task(self._look()), asyncio.create_task(self._look_at_hub())]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.end()
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task

    def end(self) -> None:
        """End the lines of all browsers, from any thread; they come back by themselves."""
        self._closed = True
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self._wake()))

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    @property
    def full(self) -> bool:
        return self._watching >= self._most

    async def watch(self) -> AsyncIterator[str]:
        """Lines of server-sent events: the version now and after every change."""
        self._watching += 1
        try:
            told = None
            while not self._closed:
                if self._version and self._version != told:
                    told = self._version
                    yield f"data: {told}\n\n"
                    continue
                try:
                    async with asyncio.timeout(BEAT_S), self._changed:
                        if not self._closed and self._version == (told or ""):
                            await self._changed.wait()
                except TimeoutError:
                    yield ": beat\n\n"
        finally:
            self._watching -= 1

    async def _look(self) -> None:
        while True:
            if self._watching:
                try:
                    await self._tell(await asyncio.to_thread(self._read))
                except PostgresError as error:
                    logger.warning("%s", error)
                except Exception:  # whatever it is, the next look may succeed
                    logger.exception("The board could not be read")
            await asyncio.sleep(self._every_s)

    async def _tell(self, version: str) -> None:
        if version != self._version:
            self._version = version
            await self._wake()

    async def _look_at_hub(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._ask_hub)
            except Exception:
                logger.exception("The hub could not be asked")
            await asyncio.sleep(HUB_S)
