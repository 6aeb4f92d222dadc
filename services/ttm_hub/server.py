"""The hub's edge: HTTP, handshakes, and the messages of each connection."""

from __future__ import annotations

import asyncio
import http
import logging
import resource
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response
from websockets.typing import Subprotocol

from resources.ttm import protocol
from resources.ttm.protocol import CONNECTOR, Handshake, utc_text
from services.ttm_hub import messages
from services.ttm_hub.broker import Broker
from services.ttm_hub.config import HubConfig
from services.ttm_hub.metrics import METRICS_TYPE, Handshakes, Metrics
from services.ttm_hub.peer import WebsocketPeer
from services.ttm_hub.state import Connector, Key, Requester

log = logging.getLogger("ttm.hub")
NAME = f"ttm-hub/{protocol.RELEASE}"
SWEEP_S = 1.0
TICKS = 10
OPENING_S = 30
ADDRESSES_KEPT = 10_000


class Refused(Exception):
    """The handshake ends with this close code."""

    def __init__(self, code: int, reason: str, error: bytes | None = None) -> None:
        super().__init__(reason)
        self.code, self.reason, self.error = code, reason, error


class Door:
    """Counts failed handshakes by address; an address with too many stays outside for a while."""

    def __init__(self, failures: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures, self._window, self._clock = failures, window, clock
        self._failed: dict[str, deque[float]] = {}
        self._shut: dict[str, float] = {}

    def failed(self, address: str) -> None:
        now = self._clock()
        times = self._failed.setdefault(address, deque(maxlen=self._failures))
        times.append(now)
        if len(times) == self._failures and now - times[0] < self._window:
            self._shut[address] = now + self._window
            del self._failed[address]
        self._forget(now)

    def shut(self, address: str) -> float:
        """Seconds for which the address is refused; 0 for none."""
        left = self._shut.get(address, 0.0) - self._clock()
        if left <= 0:
            self._shut.pop(address, None)
        return max(0.0, left)

    def _forget(self, now: float) -> None:
        if len(self._failed) + len(self._shut) > ADDRESSES_KEPT:
            self._failed = {a: t for a, t in self._failed.items() if now - t[-1] < self._window}
            self._shut = {a: until for a, until in self._shut.items() if until > now}


@dataclass(eq=False)
class Session:
    """A connection that has proven who it is."""

    who: Handshake
    peer: WebsocketPeer
    side: Connector | Requester | None = None
    bad: int = 0

    @property
    def name(self) -> str:
        return f"{self.who.role} {self.who.instance}"


class Hub:
    """One hub on one event loop: `async with hub.running(): ...`."""

    def __init__(self, config: HubConfig) -> None:
        self.config = config
        self.port = config.port
        self.broker = Broker(asyncio.get_running_loop(), config.limits, utc_text)
        self._door = Door(config.failures, config.failure_window)
        self._handshakes = Handshakes()
        self._sessions: dict[tuple[str, Key], Session] = {}
        self._metrics = Metrics(self.broker, self._handshakes, lambda: self.connections)
        self._nobody = secrets.token_urlsafe(32)
        self._arriving: dict[asyncio.Timeout, int] = {}

    @property
    def connections(self) -> int:
        """Those that have proven who they are."""
        return len(self._sessions)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Hub]:
        """Listen; at the end every connection is closed with 1012. Raises OSError if the port is taken."""
        async with await self._listen() as server:
            self.port = server.sockets[0].getsockname()[1]
            chores = [asyncio.create_task(self._sweep()), asyncio.create_task(self._hurry())]
            try:
                yield self
            finally:
                for chore in chores:
                    chore.cancel()
                server.close(code=protocol.RESTART, reason="restart")
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.config.limits.send):
                        await server.wait_closed()
                for session in list(self._sessions.values()):
                    session.peer.abort()

    async def _listen(self) -> Server:
        raise_file_limit()
        quiet = logging.getLogger("ttm.hub.websockets")
        quiet.setLevel(logging.CRITICAL)  # port scans and broken handshakes are no tracebacks
        return await serve(
            self._handle,
            self.config.host,
            self.config.port,
            ssl=self.config.tls,
            subprotocols=[Subprotocol(protocol.SUBPROTOCOL)],
            process_request=self._http,
            server_header=NAME,
            compression=None,  # its windows would cost 0.3 MB a connection
            open_timeout=OPENING_S,
            close_timeout=5,
            ping_interval=protocol.PING_S,
            ping_timeout=protocol.PING_S,
            max_size=self.config.limits.max_message,
            max_queue=16,
            backlog=4096,
            logger=quiet,
        )

    def _http(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """`/healthz`, `/metrics`, and who may open a websocket at all."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            if self.broker.healthy:
                return connection.respond(http.HTTPStatus.OK, "ok\n")
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "no connector is well\n")
        if path == "/metrics":
            answer = connection.respond(http.HTTPStatus.OK, self._metrics.text())
            del answer.headers["Content-Type"]
            answer.headers["Content-Type"] = METRICS_TYPE
            return answer
        if path != protocol.PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "not found\n")
        if wait := self._door.shut(_address(connection)):
            self._handshakes.count("unknown", "429")
            answer = connection.respond(http.HTTPStatus.TOO_MANY_REQUESTS, "too many failed handshakes\n")
            answer.headers["Retry-After"] = str(int(wait) + 1)
            return answer
        return None

    async def _handle(self, socket: ServerConnection) -> None:
        try:
            try:
                session = await self._handshake(socket)
            except Refused as refused:
                await self._refuse(socket, refused)
                return
            await self._serve(socket, session)
        except ConnectionClosed:
            pass
        except Exception:
            log.exception("a connection failed")
            await socket.close(1011, "internal error")

    # the handshake

    async def _handshake(self, socket: ServerConnection) -> Session:
        """Both proofs, within the time for it. Raises Refused."""
        try:
            async with asyncio.timeout(None) as timer:
                self._arriving[timer] = 0
                try:
                    return await self._introduce(socket)
                finally:
                    del self._arriving[timer]
        except TimeoutError:
            raise Refused(protocol.TIMED_OUT, "handshake timeout") from None
        except messages.BadMessage as bad:
            error = messages.error(bad.code, bad.message, bad.ref)
            raise Refused(protocol.MALFORMED, "malformed", error) from None

    async def _introduce(self, socket: ServerConnection) -> Session:
        hello = messages.hello(await socket.recv())
        if protocol.VERSION not in hello.v:
            error = messages.error("version", f"The hub speaks version {protocol.VERSION}.")
            raise Refused(protocol.NO_COMMON_VERSION, "no common version", error)
        if hello.role not in protocol.ROLES:
            raise messages.BadMessage("bad_request", f"role must be {' or '.join(protocol.ROLES)}.")
        conn, nonce = f"k-{secrets.token_hex(8)}", protocol.fresh_nonce()
        who = Handshake(hello.role, hello.token, hello.instance, conn, hello.nonce, nonce)
        challenge = messages.Challenge(conn=conn, nonce=nonce, expires_in=self.config.limits.handshake)
        await socket.send(challenge.encode(), text=True)
        mac = messages.auth(await socket.recv()).mac
        identity = self.config.identities.get(hello.token)
        key = identity.key if identity else self._nobody
        if not who.proven(key, "client", mac) or identity is None:
            raise Refused(protocol.UNAUTHORIZED, "unauthorized")
        if hello.role not in identity.roles:
            raise Refused(protocol.FORBIDDEN, "role not allowed")
        welcome = messages.Welcome(
            conn=conn,
            mac=who.proof(key, "server"),
            hub=NAME,
            time=utc_text(),
            limits=self.config.limits.announced(),
        )
        await socket.send(welcome.encode(), text=True)
        session = Session(who, WebsocketPeer(socket, self.config.limits.send))
        self._enter(session, hello)
        return session

    async def _refuse(self, socket: ServerConnection, refused: Refused) -> None:
        address = _address(socket)
        if refused.code != protocol.TIMED_OUT:  # slow, but nobody who guesses
            self._door.failed(address)
        self._handshakes.count("unknown", str(refused.code))
        log.warning("handshake from %s refused: %s", address, refused.reason)
        peer = WebsocketPeer(socket, self.config.limits.send)
        if refused.error:
            peer.post(refused.error)
        await peer.finish(refused.code, refused.reason)

    def _enter(self, session: Session, hello: messages.Hello) -> None:
        """Take it in; an older connection of the same instance is replaced."""
        who = session.who
        key = (who.token, who.instance)
        if older := self._sessions.get((who.role, key)):
            self._leave(older)
            older.peer.close(protocol.REPLACED, "replaced by a newer connection")
            log.warning("%s is replaced by its newer connection", older.name)
        self._sessions[who.role, key] = session
        if who.role == CONNECTOR:
            methods = frozenset(hello.methods)
            session.side = self.broker.join(key, session.peer, methods, hello.capacity)
        else:
            session.side = Requester(who.instance, session.peer)
        self._handshakes.count(who.role, "ok")
        log.info("%s (%s) is connected", session.name, _printable(hello.client))

    def _leave(self, session: Session) -> None:
        """Calling it again changes nothing."""
        key = (session.who.role, (session.who.token, session.who.instance))
        if self._sessions.get(key) is session:
            del self._sessions[key]
            log.info("%s has left", session.name)
        if isinstance(session.side, Connector):
            self.broker.leave(session.side)
        elif session.side:
            self.broker.depart(session.side)

    # messages

    async def _serve(self, socket: ServerConnection, session: Session) -> None:
        try:
            async for message in socket:
                if session.bad < protocol.BAD_MESSAGES:  # else it is being closed
                    self._receive(session, message)
                await session.peer.room()
        finally:
            self._leave(session)

    def _receive(self, session: Session, message: str | bytes) -> None:
        side = session.side
        try:
            said = messages.from_peer(session.who.role, message)
            if isinstance(side, Connector):
                self._from_connector(side, said)
            elif side:
                self._from_requester(side, said)
        except messages.BadMessage as bad:
            session.bad += 1
            session.peer.post(messages.error(bad.code, bad.message, bad.ref))
            log.warning("%s sent a bad message: %s", session.name, bad)
            if session.bad >= protocol.BAD_MESSAGES:
                session.peer.close(protocol.MALFORMED, "too many bad messages")

    def _from_connector(self, connector: Connector, said: Any) -> None:
        match said:
            case messages.Result():
                self.broker.result(connector, said)
            case messages.Ack():
                self.broker.ack(connector, said.id, said.attempt)
            case messages.Heartbeat():
                self.broker.heartbeat(connector, said.upstream, said.capacity)
                connector.peer.post(messages.HeartbeatAck(said.seq, utc_text()).encode())
            case messages.Drain():
                self.broker.drain(connector)

    def _from_requester(self, requester: Requester, said: Any) -> None:
        match said:
            case messages.Request():
                self.broker.accept(requester, said)
            case messages.Cancel():
                self.broker.cancel(requester, said.id)
            case messages.Status():
                requester.peer.post(self.broker.status().encode())

    async def _hurry(self) -> None:
        """End handshakes that take too long. Time in which the hub itself was late does not count.

        So thousands of clients that come at once, after a restart say, do not end each other's handshakes.
        """
        tick = self.config.limits.handshake / TICKS
        while True:
            began = time.monotonic()
            await asyncio.sleep(tick)
            if time.monotonic() - began > 1.5 * tick:
                continue
            for timer, age in list(self._arriving.items()):
                self._arriving[timer] = age + 1
                if age >= TICKS:
                    timer.reschedule(0)

    async def _sweep(self) -> None:
        """End connections of connectors that report nothing."""
        while True:
            await asyncio.sleep(SWEEP_S)
            for connector in self.broker.silent():
                session = self._sessions.get((CONNECTOR, connector.key))
                if session and session.side is connector:
                    log.warning("%s sends no heartbeats", session.name)
                    session.peer.close(protocol.TIMED_OUT, "no heartbeat")
                    self._leave(session)


def raise_file_limit() -> None:
    """As many connections as the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _address(connection: ServerConnection) -> str:
    address = connection.remote_address
    return str(address[0]).removeprefix("::ffff:") if address else ""


def _printable(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:60]
