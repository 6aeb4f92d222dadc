"""A synchronous client of the hub: asks connectors for lists of tickets and for tickets.

Every request ends exactly once, with its data or with a TtmError. If the connection breaks or the hub
restarts, what is unanswered is asked again under fresh ids; requests only read, so that is harmless.
"""

from __future__ import annotations

import heapq
import itertools
import json
import logging
import random
import ssl
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from resources.ttm.handshake import ClientHandshake, closing, refusal
from resources.ttm.protocol import (
    HANDSHAKE_S,
    HUB_UNREACHABLE,
    MAX_MESSAGE,
    NORMAL,
    PING,
    PING_S,
    RELEASE,
    REQUESTER,
    SUBPROTOCOL,
    TICKET_GET,
    TICKET_LIST,
    UNAUTHORIZED,
    TtmError,
    endpoint,
)
from resources.ttm.settings import Settings, client_tls, loopback

log = logging.getLogger("ttm.requester")
FINAL = {"unauthorized", "forbidden", "version", "bad_request"}
NO_HUB = (400, 401, 403, 404, 405)
"""HTTP statuses of an address that will not become a hub by waiting."""
SLACK_S = 15.0
"""A hub that has not answered so long after a request's own time is taken for dead."""
MAX_LOSSES = 8
"""A request that lost so many connections may be what breaks them."""


@dataclass(frozen=True, slots=True)
class TicketList:
    """A dashboard: ids in its order, each once; `partial`: rows moved while it was read, some may lack."""

    kind: str
    ids: list[int]
    rows: list[dict[str, Any]]
    total: int
    pages: int
    partial: bool


@dataclass(slots=True)
class _Call:
    """A request that has not ended; the hub must have answered by `limit`."""

    key: Any
    method: str
    params: dict[str, Any]
    limit: float = 0.0
    busy_since: float | None = None
    losses: int = 0


@dataclass(slots=True)
class _Exchange:
    """Calls on their way: not sent yet, to be sent later (when, tie-break, call), and on the wire by id."""

    calls: Iterator[_Call]
    later: list[tuple[float, int, _Call]] = field(default_factory=list)
    wire: dict[str, _Call] = field(default_factory=dict)
    count: Iterator[int] = field(default_factory=itertools.count)

    def delay(self, call: _Call, when: float) -> None:
        heapq.heappush(self.later, (when, next(self.count), call))

    def next(self, now: float) -> _Call | None:
        """One that may be sent now. While some wait, as the hub is busy, no other is sent."""
        if self.later:
            return heapq.heappop(self.later)[2] if self.later[0][0] <= now else None
        return next(self.calls, None)

    def drain(self) -> Iterator[_Call]:
        """All that is left, also what was never sent."""
        yield from self.wire.values()
        yield from (call for _, _, call in self.later)
        yield from self.calls


class HubClient:
    """One connection to the hub, opened at first use and again when it breaks. For one thread at a time."""

    def __init__(
        self,
        server: str,
        token: str,
        key: str,
        *,
        ca: str | None = None,
        certificate: str | None = None,
        certificate_key: str | None = None,
        timeout_s: float = 120,
        max_attempts: int = 3,
        patience_s: float = 120,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`timeout_s` is given to each request, `max_attempts` to connectors that try it.

        `patience_s` is the longest wait for a connection, or for a place in the hub's queue. Raises
        ValueError for an address that is not ws:// or wss://, SettingError for unusable certificates.
        """
        self._uri = endpoint(server)
        self._token, self._key = token, key
        self._tls = client_tls(ca, certificate, certificate_key) if self._uri.startswith("wss:") else None
        self._timeout_s, self._max_attempts, self._patience_s = timeout_s, max_attempts, patience_s
        self._sleep = sleep
        if self._tls is None and not loopback(urlsplit(self._uri).hostname or ""):
            log.warning("ws:// through a network: the key stays secret, the tickets do not; use wss://")
        self._socket: ClientConnection | None = None
        self._stack = ExitStack()
        self._name = uuid.uuid4().hex[:12]
        self._ids = itertools.count(1)

    @classmethod
    def from_settings(cls, settings: Settings | None = None, **options: Any) -> Self:
        """As the environment says: TTM_SERVER, TTM_TOKEN, TTM_KEY, TTM_TLS_*. Raises SettingError."""
        given = settings or Settings()
        ca, certificate, key = (given.text(name, "") or None for name in ("TLS_CA", "TLS_CERT", "TLS_KEY"))
        return cls(
            given.server(),
            given.text("TOKEN"),
            given.text("KEY"),
            ca=ca,
            certificate=certificate,
            certificate_key=key,
            **options,
        )

    def __repr__(self) -> str:
        return f"HubClient({self._uri!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the hub; unanswered requests end there. Using the client again connects again."""
        self._socket = None
        stack, self._stack = self._stack, ExitStack()
        with suppress(Exception):
            stack.close()

    def ticket_list(
        self, filter: str, kind: str, business_date: str | None = None, tz: str = "Europe/Moscow"
    ) -> TicketList:
        """The tickets of a saved filter; with `business_date` (YYYY-MM-DD) those of that day in zone `tz`.

        `kind` is "ticket" for a dashboard of tickets, "task" for one of tasks. Raises TtmError.
        """
        params: dict[str, Any] = {"filter": filter, "kind": kind}
        if business_date is not None:
            params |= {"business_date": business_date, "business_tz": tz}
        data = self._one(TICKET_LIST, params)
        ids, rows = data.get("ids"), data.get("rows")
        if not isinstance(ids, list) or not all(type(i) is int for i in ids) or not isinstance(rows, list):
            raise TtmError("upstream_error", "The connector's list has no ids or no rows.")
        return TicketList(
            kind=str(data.get("kind", kind)),
            ids=ids,
            rows=rows,
            total=int(data.get("total") or len(rows)),
            pages=int(data.get("pages") or 0),
            partial=bool(data.get("partial")),
        )

    def tickets(
        self, ids: Iterable[int], concurrency: int = 32
    ) -> Iterator[tuple[int, dict[str, Any] | TtmError]]:
        """(id, ticket or error) for each id, in the order in which answers come, `concurrency` at a time.

        Never raises for a request; 64 is the most that the hub takes of one requester.
        """
        calls = (_Call(number, TICKET_GET, {"id": number}) for number in ids)
        for number, result in self._run(calls, concurrency):
            if not isinstance(result, dict | TtmError):
                result = TtmError("upstream_error", "The connector's ticket is not an object.")
            yield number, result

    def ping(self) -> dict[str, Any]:
        """What a connector says of the ticket system: `upstream`, `login_age` in seconds, `version`."""
        return self._one(PING, {})

    def status(self) -> dict[str, Any]:
        """`queued`, and `connectors`: instance, inflight, capacity, upstream, connected_at, done, lost."""
        for _ in range(2):
            socket = self._connected()
            with suppress(ConnectionClosed, TimeoutError, OSError):
                socket.send(json.dumps({"type": "status"}))
                until = time.monotonic() + SLACK_S
                while (left := until - time.monotonic()) > 0:
                    message = _decoded(socket.recv(left))
                    if message.get("type") == "status_reply":
                        return message
            self.close()
        raise TtmError(HUB_UNREACHABLE, "The hub did not answer.")

    def _one(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        calls = iter([_Call(None, method, params)])
        ((_, result),) = self._run(calls, 1)
        if isinstance(result, TtmError):
            raise result
        if not isinstance(result, dict):
            raise TtmError("upstream_error", "The connector's answer is not an object.")
        return result

    def _run(self, calls: Iterator[_Call], concurrency: int) -> Iterator[tuple[Any, Any]]:
        """(key, data or TtmError) for every call."""
        exchange = _Exchange(calls)
        try:
            while True:
                try:
                    socket = self._connected()
                    if not self._fill(socket, exchange, concurrency):
                        return
                    message = self._receive(socket, exchange)
                except TtmError as error:
                    for call in exchange.drain():
                        yield call.key, error
                    exchange.wire.clear()
                    return
                except (ConnectionClosed, OSError):
                    yield from self._lost(exchange)
                    continue
                if message and (ended := self._ended(exchange, message)):
                    yield ended
        finally:
            if exchange.wire:  # the caller has gone: so must its requests
                self.close()

    def _fill(self, socket: ClientConnection, exchange: _Exchange, concurrency: int) -> bool:
        """Send what may be sent; False when all has ended."""
        while len(exchange.wire) < max(1, min(concurrency, 64)):
            now = time.monotonic()
            call = exchange.next(now)
            if call is None:
                break
            wire_id = f"{self._name}:{next(self._ids)}"
            call.limit = now + self._timeout_s + SLACK_S
            exchange.wire[wire_id] = call
            request = {"type": "request", "id": wire_id, "method": call.method, "params": call.params}
            request |= {"timeout": self._timeout_s, "max_attempts": self._max_attempts}
            socket.send(json.dumps(request))
        return bool(exchange.wire or exchange.later)

    def _receive(self, socket: ClientConnection, exchange: _Exchange) -> dict[str, Any] | None:
        """The next message; None when it is time to send. Raises OSError for a hub silent too long."""
        now = time.monotonic()
        limit = min((call.limit for call in exchange.wire.values()), default=now + SLACK_S)
        due = exchange.later[0][0] if exchange.later else limit
        try:
            return _decoded(socket.recv(max(0.0, min(limit, due) - now)))
        except TimeoutError:
            if due > time.monotonic() >= limit:
                raise ConnectionError("the hub is silent") from None
            return None

    def _ended(self, exchange: _Exchange, message: dict[str, Any]) -> tuple[Any, Any] | None:
        """The call that a message ends, and how; None if it ends none."""
        kind = message.get("type")
        wire_id = message.get("id") if kind == "response" else message.get("ref")
        if kind not in ("response", "error") or wire_id not in exchange.wire:
            return None
        call = exchange.wire.pop(wire_id)
        if kind == "response" and message.get("ok") is True:
            return call.key, message.get("data")
        said = message.get("error") if kind == "response" else message
        said = said if isinstance(said, dict) else {}
        error = refusal({"status": message.get("status"), **said})
        now = time.monotonic()
        call.busy_since = call.busy_since or now
        if error.code == "busy" and now - call.busy_since < self._patience_s:
            after = said.get("retry_after", message.get("retry_after"))
            wait = float(after) if isinstance(after, int | float) else 1.0
            exchange.delay(call, now + max(0.05, min(wait, 30.0)) * (1 + random.random() / 4))
            return None
        return call.key, error

    def _lost(self, exchange: _Exchange) -> Iterator[tuple[Any, TtmError]]:
        """The connection is gone: its calls are asked again, but for those that have lost too many."""
        self.close()
        calls, now = list(exchange.wire.values()), time.monotonic()
        exchange.wire.clear()
        for call in calls:
            call.losses += 1
            if call.losses < MAX_LOSSES:
                exchange.delay(call, now)
        for call in calls:
            if call.losses >= MAX_LOSSES:
                yield call.key, TtmError(HUB_UNREACHABLE, f"The connection broke {MAX_LOSSES} times.")

    def _connected(self) -> ClientConnection:
        """The open connection; TtmError when the hub refuses us, or cannot be reached for `patience_s`."""
        if self._socket is not None:
            return self._socket
        until, step, reason = time.monotonic() + self._patience_s, 0.2, "no attempt"
        while True:
            try:
                self._socket = self._open()
                return self._socket
            except TtmError as error:
                self.close()
                if error.code in FINAL:
                    raise
                reason = error.message
            except ConnectionClosed as error:
                self.close()
                if refused := closing(error.rcvd.code if error.rcvd else None):
                    raise refused from None
                reason = f"it closed the connection ({error.rcvd.code if error.rcvd else 'cut'})"
            except ssl.SSLCertVerificationError as error:
                self.close()
                raise TtmError(
                    "unauthorized", f"The hub's certificate is not trusted: {error.verify_message}."
                ) from None
            except InvalidStatus as error:
                self.close()
                if error.response.status_code in NO_HUB:
                    raise TtmError(
                        "bad_request", f"{self._uri} answers HTTP {error.response.status_code}: it is no hub."
                    ) from None
                reason = f"HTTP status {error.response.status_code}"
            except (OSError, InvalidHandshake, EOFError) as error:
                self.close()
                reason = type(error).__name__
            if time.monotonic() + step > until:
                raise TtmError(HUB_UNREACHABLE, f"The hub {self._uri} cannot be used: {reason}.")
            self._sleep(step * (0.5 + random.random() / 2))
            step = min(step * 2, 10.0)

    def _open(self) -> ClientConnection:
        handshake = ClientHandshake(
            REQUESTER, self._token, self._key, f"svod-{self._name}-{next(self._ids)}", f"svod/{RELEASE}"
        )
        socket = self._stack.enter_context(
            connect(
                self._uri,
                ssl=self._tls,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                compression=None,
                proxy=None,
                user_agent_header=f"svod/{RELEASE}",
                open_timeout=10,
                close_timeout=2,
                ping_interval=PING_S,
                ping_timeout=PING_S,
                max_size=MAX_MESSAGE,
                max_queue=None,  # never more than our own unfinished requests
            )
        )
        socket.send(json.dumps(handshake.hello))
        socket.send(json.dumps(handshake.auth(_decoded(socket.recv(HANDSHAKE_S)))))
        try:
            handshake.check(_decoded(socket.recv(HANDSHAKE_S)))
        except TtmError as error:
            socket.close(UNAUTHORIZED if error.code == "unauthorized" else NORMAL)
            raise
        return socket


def _decoded(text: str | bytes) -> dict[str, Any]:
    """A message of the hub; ConnectionError for what is none, since nothing after it can be trusted."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ConnectionError("the hub sent what is no message")
    return found
