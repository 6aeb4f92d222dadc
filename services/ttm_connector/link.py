"""The connection to the hub: tasks in, results out, again and again until it is told to stop."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from resources.ttm import protocol
from resources.ttm.handshake import ClientHandshake, closing
from resources.ttm.protocol import CONNECTOR, METHODS, USABLE, TtmError, valid_id
from resources.ttm.settings import loopback
from services.ttm_connector.config import LinkConfig

log = logging.getLogger("ttm.connector")
CLIENT = f"ttm-connector/{protocol.RELEASE}"
WAITING = 64
"""Tasks above the capacity that may wait for a slot; a hub that keeps to it sends none."""
SEND_S = 10
MOST_RECONNECT_S = 60
MOST_REFUSED_S = 600
ENVELOPE = 1024
"""Bytes that a message holds around its data, in a result or in the hub's response."""
SETTLED_S = 10
"""A connection that held so long ends a series of failures."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Stopped(Exception):
    """The connector must end with this status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Job:
    """A task at work; `attempt` is the newest under which the hub has given it."""

    attempt: int
    worker: asyncio.Task[None] | None = None


@dataclass(slots=True)
class Kept:
    """A result that the hub has not acknowledged. `until`: it was sent once more, and ends then."""

    result: dict[str, Any]
    until: float | None = None


class Link:
    """Keeps one connector connected."""

    def __init__(
        self,
        config: LinkConfig,
        work: Callable[[str, Mapping[str, Any]], Awaitable[Any]],
        upstream: Callable[[], str],
    ) -> None:
        """`work(method, params)` gives the data of a result or raises TtmError."""
        self._config, self._work, self._upstream = config, work, upstream
        self._socket: ClientConnection | None = None
        self._jobs: dict[str, Job] = {}
        self._kept: dict[str, Kept] = {}
        self._slots = asyncio.Semaphore(config.capacity)
        self._news = asyncio.Event()
        self._limit = config.max_message
        self._refusals = 0
        self._failures = 0

    @property
    def healthy(self) -> bool:
        """Whether the hub can give tasks that would succeed, as far as is known."""
        return self._socket is not None and self._upstream() in USABLE

    def upstream_changed(self) -> None:
        """Tell the hub now, not with the next heartbeat."""
        self._news.set()

    async def run(self, stop: asyncio.Event) -> int:
        """Connect, work, connect again; the exit status once `stop` is set or the hub does not want us."""
        if not self._config.tls and not loopback(urlsplit(self._config.server).hostname or ""):
            log.warning("ws:// through a network: the key stays secret, the tickets do not; use wss://")
        try:
            while not stop.is_set():
                wait = await self._until(stop, asyncio.create_task(self._session(stop)))
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), wait)
        except Stopped as stopped:
            log.error("%s", stopped)
            return stopped.status
        finally:
            for job in self._jobs.values():
                if job.worker:
                    job.worker.cancel()
        return 0

    async def _until(self, stop: asyncio.Event, session: asyncio.Task[float]) -> float:
        """The end of a session; one that is only being opened when `stop` is set ends at once."""
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((session, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not session.done() and self._socket is None:
            session.cancel()
            await asyncio.wait((session,))
            return 0.0
        return await session

    # one connection

    async def _session(self, stop: asyncio.Event) -> float:
        """One connection from its opening to its end; the seconds to wait before the next."""
        began = time.monotonic()
        try:
            async with connect(
                self._config.server,
                subprotocols=[Subprotocol(protocol.SUBPROTOCOL)],
                ssl=self._config.tls,
                proxy=self._config.proxy,
                compression=None,
                user_agent_header=CLIENT,
                open_timeout=15,
                close_timeout=5,
                ping_interval=protocol.PING_S,
                ping_timeout=protocol.PING_S,
                max_size=self._config.max_message,
                max_queue=16,
            ) as socket:
                beat = await self._shake_hands(socket)
                await self._serve(socket, beat, stop)
                code = socket.close_code
        except ConnectionClosed as closed:
            code = closed.rcvd.code if closed.rcvd else None
        except TtmError as error:
            return self._refused(error)
        except InvalidStatus as error:
            return self._not_opened(f"HTTP status {error.response.status_code}", error.response.headers)
        except ssl.SSLCertVerificationError as error:
            log.error("the hub's certificate is not trusted: %s", error.verify_message)
            return self._not_opened("TLS")
        except (OSError, TimeoutError, InvalidHandshake, EOFError) as error:
            return self._not_opened(type(error).__name__)
        finally:
            self._socket = None
        if stop.is_set():
            return 0.0
        if time.monotonic() - began > SETTLED_S:
            self._failures = 0
        return self._closed(code)

    async def _shake_hands(self, socket: ClientConnection) -> float:
        """Prove that we know the key, and that the hub does; seconds between heartbeats. Raises TtmError."""
        config = self._config
        handshake = ClientHandshake(
            *(CONNECTOR, config.token, config.key, config.instance, CLIENT),
            methods=list(METHODS),
            capacity=config.capacity,
        )
        try:
            async with asyncio.timeout(2 * protocol.HANDSHAKE_S):
                await socket.send(json.dumps(handshake.hello))
                await socket.send(json.dumps(handshake.auth(_decoded(await socket.recv()))))
                limits = handshake.check(_decoded(await socket.recv()))
        except TtmError as error:
            await socket.close(protocol.UNAUTHORIZED if error.code == "unauthorized" else protocol.NORMAL)
            raise
        self._refusals = 0
        most = limits.get("max_message")
        self._limit = min(self._config.max_message, most) if isinstance(most, int) else self._limit
        beat = limits.get("heartbeat")
        return min(max(float(beat), 0.05), 60.0) if isinstance(beat, int | float) else 15.0

    async def _serve(self, socket: ClientConnection, beat: float, stop: asyncio.Event) -> None:
        self._socket = socket
        log.info("connected to %s as %s", self._config.server, self._config.instance)
        await self._send_again()
        helpers = [
            asyncio.create_task(self._beat(beat)),
            asyncio.create_task(self._leave(socket, stop)),
        ]
        bad = 0
        try:
            async for text in socket:
                try:
                    message = _decoded(text)
                except TtmError as error:
                    bad += 1
                    log.warning("%s", error.message)
                    if bad >= protocol.BAD_MESSAGES:
                        await socket.close(protocol.MALFORMED, "too many bad messages")
                else:
                    await self._receive(message)
        finally:
            for helper in helpers:
                helper.cancel()

    async def _leave(self, socket: ClientConnection, stop: asyncio.Event) -> None:
        """Told to stop: no new tasks, finish those at work, then close."""
        await stop.wait()
        await self._say({"type": "drain"})
        workers = [job.worker for job in self._jobs.values() if job.worker]
        if workers:
            await asyncio.wait(workers, timeout=self._config.finish_s)
        await socket.close(protocol.NORMAL, "stopped")

    async def _beat(self, every: float) -> None:
        """How the ticket system is: at once, when it changes, and at the hub's interval."""
        seq = 0
        while True:
            seq += 1
            self._news.clear()
            await self._say(
                {
                    "type": "heartbeat",
                    "seq": seq,
                    "inflight": len(self._jobs),
                    "capacity": self._config.capacity,
                    "upstream": self._upstream(),
                }
            )
            self._drop_old()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), every)

    # the end of a connection

    def _refused(self, error: TtmError) -> float:
        """Seconds to wait after a refusal; raises Stopped for one that waiting does not mend."""
        if error.code == "version":
            raise Stopped(4, error.message)
        if error.code in ("unauthorized", "forbidden"):
            wait = min(self._config.refused_s * 2**self._refusals, MOST_REFUSED_S)
            self._refusals += 1
            log.error("%s Next attempt in %.0f s.", error.message, wait)
            return wait
        return self._not_opened(error.message)

    def _closed(self, code: int | None) -> float:
        if refusal := closing(code):
            return self._refused(refusal)
        if code == protocol.REPLACED:
            raise Stopped(3, f"Another connector runs as {self._config.instance}: set TTM_INSTANCE.")
        if code == protocol.MALFORMED:
            log.error("the hub does not understand this connector")
            return self._config.refused_s
        return self._not_opened(f"closed ({code or 'cut'})")

    def _not_opened(self, reason: str, headers: Mapping[str, str] | None = None) -> float:
        wait = min(self._config.reconnect_s * 2**self._failures, MOST_RECONNECT_S) * (
            0.5 + random.random() / 2
        )
        self._failures = min(self._failures + 1, 10)
        if headers and (after := headers.get("Retry-After", "")).isdigit():
            wait = max(wait, min(float(after), MOST_REFUSED_S))
        log.warning("no connection to the hub: %s; next attempt in %.1f s", reason, wait)
        return wait

    # messages

    async def _receive(self, message: Mapping[str, Any]) -> None:
        match message.get("type"):
            case "task":
                await self._take(message)
            case "result_ack":
                self._kept.pop(str(message.get("id")), None)
            case "cancel":
                job = self._jobs.pop(str(message.get("id")), None)
                if job and job.worker:
                    job.worker.cancel()
                self._kept.pop(str(message.get("id")), None)
            case "error":
                self._kept.pop(str(message.get("ref")), None)
                log.warning("the hub says: %s", str(message.get("message"))[:200])

    async def _take(self, message: Mapping[str, Any]) -> None:
        """Acknowledge a task, then begin with it. One that is at work or done already is not begun again."""
        id_, attempt = message.get("id"), message.get("attempt")
        if not valid_id(id_) or type(attempt) is not int:
            log.warning("the hub sent a task without an id or an attempt")
            return
        assert isinstance(id_, str)
        await self._say({"type": "ack", "id": id_, "attempt": attempt})
        if job := self._jobs.get(id_):
            job.attempt = attempt
        elif kept := self._kept.get(id_):
            kept.result["attempt"] = attempt
            await self._say(kept.result)
        else:
            job = self._jobs[id_] = Job(attempt)
            job.worker = asyncio.create_task(self._do(id_, job, message))

    async def _do(self, id_: str, job: Job, message: Mapping[str, Any]) -> None:
        began = time.monotonic()
        try:
            outcome = {"ok": True, "status": 200, "data": await self._data(message)}
            if len(_encoded(outcome)) > self._limit - ENVELOPE:
                raise TtmError("too_large", f"The result is above {self._limit >> 20} MiB.")
        except TtmError as error:
            outcome = {"ok": False, "status": error.status, "error": error.wire()}
        except (ValueError, RecursionError):
            error = TtmError("upstream_error", "The ticket system's answer is not strict JSON.")
            outcome = {"ok": False, "status": error.status, "error": error.wire()}
        if self._jobs.get(id_) is not job:
            return
        del self._jobs[id_]
        elapsed = round((time.monotonic() - began) * 1000)
        result = {"type": "result", "id": id_, "attempt": job.attempt, **outcome, "elapsed_ms": elapsed}
        self._kept[id_] = Kept(result)
        await self._say(result)

    async def _data(self, message: Mapping[str, Any]) -> Any:
        """What a task asks for, within its time and when a slot is free. Raises TtmError and nothing else."""
        method, params, left = message.get("method"), message.get("params"), message.get("timeout")
        if not isinstance(method, str) or not isinstance(params, dict):
            raise TtmError("bad_request", "A task needs a method and an object of params.")
        if len(self._jobs) > self._config.capacity + WAITING:
            raise TtmError("busy", "The connector has more tasks than it takes.")
        seconds = float(left) if isinstance(left, int | float) and left > 0 else 120.0
        try:
            async with asyncio.timeout(seconds), self._slots:
                return await self._work(method, params)
        except TimeoutError:
            raise TtmError("upstream_timeout", f"Not done within {seconds:g} s.") from None
        except TtmError:
            raise
        except Exception as error:
            log.exception("a task failed")
            raise TtmError("internal", f"The connector failed: {type(error).__name__}.") from None

    async def _say(self, message: Mapping[str, Any]) -> None:
        """Send, if there is a connection; a hub that does not take it loses the connection."""
        if (socket := self._socket) is None:
            return
        try:
            async with asyncio.timeout(SEND_S):
                await socket.send(_encoded(message), text=True)
        except ConnectionClosed:
            pass
        except TimeoutError:
            socket.transport.abort()

    async def _send_again(self) -> None:
        """Results that the last connection may have lost, once more."""
        now = time.monotonic()
        self._drop_old()
        for kept in list(self._kept.values()):
            if kept.until is None:
                kept.until = now + self._config.keep_result_s
                await self._say(kept.result)

    def _drop_old(self) -> None:
        now = time.monotonic()
        self._kept = {i: k for i, k in self._kept.items() if k.until is None or k.until > now}


def _encoded(message: Any) -> bytes:
    """JSON as the hub takes it; half of a surrogate pair is replaced. Raises ValueError for NaN."""
    text = json.dumps(message, ensure_ascii=False, allow_nan=False)
    return _SURROGATE.sub("\ufffd", text).encode()


def _decoded(text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise TtmError("bad_request", "The hub sent what is no message.")
    return found
