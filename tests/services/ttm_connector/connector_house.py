"""A connector in a thread, between a sandbox ticket system and a hub that the test plays by hand."""

from __future__ import annotations

import asyncio
import hmac
import json
import queue
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from resources.ttm.settings import Redaction
from sandbox.ttm import TicketSystem
from services.ttm_connector.__main__ import run
from services.ttm_connector.config import ConnectorConfig, LinkConfig, SystemConfig

TOKEN, KEY = "ttm-main", "a-key-that-never-travels"
WAIT_S = 10
QUICK: dict[str, Any] = {"retry_s": 0.01, "most_wait_s": 0.05, "probe_s": 0.05, "locked_s": 0.2}


class Line:
    """One connection of the connector, seen from the hub."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.over = threading.Event()
        self.heard: list[dict[str, Any]] = []
        self._inbox: list[dict[str, Any]] = []

    def send(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def read(self, timeout: float = WAIT_S) -> dict[str, Any]:
        message = json.loads(self.socket.recv(timeout))
        self.heard.append(message)
        return message

    def expect(self, kind: str, timeout: float = WAIT_S, **values: Any) -> dict[str, Any]:
        """The next message of that type with those values; others stay to be read."""
        until, passed = time.monotonic() + timeout, list[dict[str, Any]]()
        try:
            while True:
                message = self._inbox.pop(0) if self._inbox else self.read(max(0.0, until - time.monotonic()))
                if message["type"] == kind and message.items() >= values.items():
                    return message
                passed.append(message)
        finally:
            self._inbox = passed + self._inbox

    def shake_hands(self, key: str = KEY, **limits: Any) -> dict[str, Any]:
        """As the protocol says, written anew; the connector's hello."""
        hello = self.read()
        conn, nonce = "k-0123456789abcdef", secrets.token_urlsafe(24)
        challenge = {"v": 1, "conn": conn, "nonce": nonce, "alg": "hmac-sha256", "expires_in": 5}
        self.send({"type": "challenge", **challenge})
        fields = [hello["role"], hello["token"], hello["instance"], conn, hello["nonce"], nonce]

        def mac(side: str) -> str:
            text = "\n".join(["ttm-hub.v1", side, *fields])
            return hmac.new(key.encode(), text.encode(), sha256).hexdigest()

        self.proven = self.read() == {"type": "auth", "mac": mac("client")}
        limits = {"max_message": 8 << 20, "heartbeat": 15, "heartbeat_grace": 45} | limits
        self.send({"type": "welcome", "conn": conn, "mac": mac("server"), "hub": "hand/1", "limits": limits})
        return hello

    def task(self, id_: str, method: str, params: Any, attempt: int = 1, timeout: float = 30) -> None:
        self.send(
            {
                "type": "task",
                "id": id_,
                "attempt": attempt,
                "method": method,
                "params": params,
                "timeout": timeout,
            }
        )

    def ask(self, id_: str, method: str, **params: Any) -> dict[str, Any]:
        """A task from beginning to end; its result, acknowledged."""
        self.task(id_, method, params)
        assert self.expect("ack", id=id_)["attempt"] == 1
        result = self.expect("result", id=id_)
        self.acknowledge(id_)
        return result

    def ticket(self, id_: str, number: Any) -> dict[str, Any]:
        return self.ask(id_, "ticket.get", id=number)

    def acknowledge(self, id_: str) -> None:
        self.send({"type": "result_ack", "id": id_, "attempt": 1, "duplicate": False})

    def close(self, code: int = 1000) -> None:
        self.socket.close(code)
        self.over.set()

    def cut(self) -> None:
        self.socket.socket.close()
        self.over.set()

    def close_code(self) -> int | None:
        """With which the connector leaves."""
        try:
            while True:
                self.read()
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None


@dataclass
class Stage:
    """The connector at work. `line()` waits for its next connection."""

    lines: queue.Queue[Line]
    url: str
    open: list[Line] = field(default_factory=list)
    status: int | None = None
    thread: threading.Thread | None = None
    stop: Any = None

    def line(self, timeout: float = WAIT_S) -> Line:
        line = self.lines.get(timeout=timeout)
        self.open.append(line)
        return line

    def connected(self, **limits: Any) -> Line:
        line = self.line()
        line.shake_hands(**limits)
        return line

    def ended(self) -> int | None:
        """The connector's exit status."""
        assert self.thread
        self.thread.join(WAIT_S)
        assert not self.thread.is_alive()
        return self.status


@contextmanager
def hand_hub(tls: ssl.SSLContext | None = None) -> Iterator[Stage]:
    """A server that gives every connection to the test."""
    lines: queue.Queue[Line] = queue.Queue()

    def handle(socket: ServerConnection) -> None:
        line = Line(socket)
        lines.put(line)
        line.over.wait(60)

    options: dict[str, Any] = {"subprotocols": [Subprotocol("ttm-hub.v1")], "max_size": 16 << 20}
    with serve(handle, "127.0.0.1", 0, ssl=tls, compression=None, close_timeout=1, **options) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        scheme, host = ("wss", "localhost") if tls else ("ws", "127.0.0.1")
        stage = Stage(lines, f"{scheme}://{host}:{server.socket.getsockname()[1]}/v1/ttm")
        try:
            yield stage
        finally:
            while not lines.empty():
                stage.open.append(lines.get())
            for line in stage.open:
                line.over.set()
            server.shutdown()
            serving.join(WAIT_S)


@contextmanager
def connector(system: TicketSystem, *, key: str = KEY, tls: Any = None, **options: Any) -> Iterator[Stage]:
    """A connector that looks for the hub of the test; `options` are fields of LinkConfig or SystemConfig."""
    with hand_hub(tls[0] if tls else None) as stage, started(stage, system, key, tls, options):
        yield stage


@contextmanager
def started(
    stage: Stage, system: TicketSystem, key: str, tls: Any, options: dict[str, Any]
) -> Iterator[None]:
    email, password = next(iter(system.config.users.items()))
    of_link: dict[str, Any] = {
        "server": stage.url,
        "reconnect_s": 0.02,
        "refused_s": 0.3,
        "tls": tls[1] if tls else None,
    }
    of_system: dict[str, Any] = {"url": system.base_url, "email": email, "password": password, **QUICK}
    for name, value in options.items():
        (of_system if name in SystemConfig.__dataclass_fields__ else of_link)[name] = value
    link = LinkConfig(token=TOKEN, key=key, instance="conn-a1", **of_link)
    config = ConnectorConfig(link, SystemConfig(**of_system))
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    def target() -> None:
        loop.call_soon(ready.set)
        stage.status = loop.run_until_complete(run(config, Redaction(config.secrets), stop))
        loop.close()

    stage.thread = threading.Thread(target=target, daemon=True)
    stage.stop = lambda: loop.call_soon_threadsafe(stop.set)
    stage.thread.start()
    assert ready.wait(WAIT_S)
    try:
        yield
    finally:
        for line in stage.open:
            line.over.set()
        if stage.thread.is_alive():
            stage.stop()
            stage.thread.join(WAIT_S)
