"""A hub in a thread, and clients that speak the protocol by hand, one message at a time."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from resources.ttm.handshake import ClientHandshake
from resources.ttm.protocol import CONNECTOR, METHODS, PATH, REQUESTER, SUBPROTOCOL
from services.ttm_hub.config import HubConfig, Identity
from services.ttm_hub.server import Hub
from services.ttm_hub.state import Limits

TOKEN = "ttm-main"
KEY = "a-key-that-never-travels"
WAIT_S = 10


@dataclass
class RunningHub:
    """A hub that listens; `restart` closes it with 1012 and starts another on the same port."""

    config: HubConfig
    port: int = 0
    hub: Hub | None = None
    frames: list[str | bytes] = field(default_factory=list)
    _loop: asyncio.AbstractEventLoop | None = None
    _thread: threading.Thread | None = None
    _stop: asyncio.Event | None = None

    def start(self) -> None:
        ready, failure = threading.Event(), list[BaseException]()

        async def serve() -> None:
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            options = {**vars(self.config), "port": self.port}
            self.hub = Hub(HubConfig(**options))
            async with self.hub.running():
                self.port = self.hub.port
                ready.set()
                await self._stop.wait()

        def target() -> None:
            try:
                asyncio.run(serve())
            except BaseException as error:
                failure.append(error)
                ready.set()

        self._thread = threading.Thread(target=target, daemon=True)
        self._thread.start()
        assert ready.wait(WAIT_S)
        if failure:
            raise failure[0]

    def stop(self) -> None:
        assert self._loop
        assert self._stop
        assert self._thread
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def url(self) -> str:
        scheme = "wss" if self.config.tls else "ws"
        return f"{scheme}://localhost:{self.port}" if self.config.tls else f"{scheme}://127.0.0.1:{self.port}"


@contextmanager
def running_hub(**options: Any) -> Iterator[RunningHub]:
    """A hub on a free port; `limits` are fields of Limits."""
    limits = Limits(**options.pop("limits", {}))
    identities = options.pop("identities", {TOKEN: Identity(KEY)})
    hub = RunningHub(HubConfig(identities, limits=limits, **options))
    hub.start()
    try:
        yield hub
    finally:
        hub.stop()


class Client:
    """One connection to a hub, before or after the handshake."""

    def __init__(self, hub: RunningHub, *, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        self._stack = ExitStack()
        self._inbox: list[dict[str, Any]] = []
        options = {"subprotocols": [Subprotocol(SUBPROTOCOL)], "max_size": 16 << 20} | options
        self.socket: ClientConnection = self._stack.enter_context(
            connect(f"{hub.url}{PATH}", ssl=tls, proxy=None, compression=None, close_timeout=1, **options)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def send(self, message: Any) -> None:
        self.socket.send(message if isinstance(message, str | bytes) else json.dumps(message))

    def read(self, timeout: float = WAIT_S) -> dict[str, Any]:
        """The next message."""
        return self._inbox.pop(0) if self._inbox else json.loads(self.socket.recv(timeout))

    def expect(self, kind: str, timeout: float = WAIT_S) -> dict[str, Any]:
        """The next message of that type; others stay to be read."""
        until = time.monotonic() + timeout
        passed, self._inbox = self._inbox, []
        try:
            while True:
                for position, message in enumerate(passed):
                    if message["type"] == kind:
                        return passed.pop(position)
                passed.append(json.loads(self.socket.recv(max(0.0, until - time.monotonic()))))
        finally:
            self._inbox = passed

    def close_code(self) -> int | None:
        """The code with which the hub closes; what it says before is passed over."""
        try:
            while True:
                self.socket.recv(WAIT_S)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def cut(self) -> None:
        """As if the process had been killed."""
        self.socket.socket.close()

    def introduce(self, role: str, instance: str, *, token: str = TOKEN, key: str = KEY, **more: Any) -> Self:
        handshake = ClientHandshake(role, token, key, instance, "test/1", **more)
        self.send(handshake.hello)
        self.send(handshake.auth(self.read()))
        handshake.check(self.read())
        return self


class StubConnector(Client):
    """Takes tasks and answers them when the test says so."""

    def __init__(self, hub: RunningHub, instance: str, capacity: int = 4, **more: Any) -> None:
        super().__init__(hub)
        options = {"methods": list(METHODS), "capacity": capacity} | more
        self.introduce(CONNECTOR, instance, **options)

    def beat(self, upstream: str = "ok", seq: int = 1) -> None:
        self.send({"type": "heartbeat", "seq": seq, "inflight": 0, "capacity": 4, "upstream": upstream})
        assert self.expect("heartbeat_ack")["seq"] == seq

    def take(self, *, ack: bool = True) -> dict[str, Any]:
        task = self.expect("task")
        if ack:
            self.send({"type": "ack", "id": task["id"], "attempt": task["attempt"]})
        return task

    def answer(self, task: dict[str, Any], data: Any = None) -> dict[str, Any]:
        """Send a result; what the hub says to it."""
        self.send(result_of(task, data))
        return self.expect("result_ack")

    def fail(self, task: dict[str, Any], code: str, *, retryable: bool, status: int = 502) -> None:
        error = {"code": code, "message": "as the test says", "retryable": retryable}
        ids = {"id": task["id"], "attempt": task["attempt"]}
        self.send({"type": "result", **ids, "ok": False, "status": status, "error": error})


class StubRequester(Client):
    """Asks for tickets."""

    def __init__(self, hub: RunningHub, instance: str = "") -> None:
        super().__init__(hub)
        self.introduce(REQUESTER, instance or f"r-{uuid.uuid4().hex[:8]}")

    def ask(self, number: int, id_: str | None = None, **more: Any) -> str:
        """Send a request for a ticket; its id."""
        id_ = id_ or f"q-{number}"
        request = {"type": "request", "id": id_, "method": "ticket.get", "params": {"id": number}}
        self.send(request | more)
        return id_

    def answered_no_more(self) -> bool:
        """Whether no response is left, now that the hub has answered a question asked after all others."""
        self.send({"type": "status"})
        self.expect("status_reply")
        return not [message for message in self._inbox if message["type"] == "response"]


def result_of(task: dict[str, Any], data: Any = None) -> dict[str, Any]:
    ids = {"id": task["id"], "attempt": task["attempt"]}
    return {
        "type": "result",
        **ids,
        "ok": True,
        "status": 200,
        "data": data or task["params"],
        "elapsed_ms": 1,
    }
