"""What the broker keeps: limits, connectors, requesters and requests."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from resources.ttm.protocol import MAX_MESSAGE, USABLE
from resources.ttm.protocol import UPSTREAM_UNKNOWN as UNKNOWN
from services.ttm_hub import messages

Key = tuple[str, str]
"""(token, instance): a connector that comes back under it is the same one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds and counts; what `welcome` announces is part of them."""

    max_message: int = MAX_MESSAGE
    heartbeat: float = 15
    heartbeat_grace: float = 45
    ack_timeout: float = 5
    max_inflight: int = 64
    default_timeout: float = 120
    max_timeout: float = 600
    queue: int = 1000
    wait_connector: float = 30
    retry_after: float = 1
    handshake: float = 5
    send: float = 10
    ids_kept: int = 1024
    """Ids of one requester that are remembered: using one of them again is an error."""

    def announced(self) -> dict[str, float]:
        names = (
            *("max_message", "heartbeat", "heartbeat_grace", "ack_timeout"),
            *("max_inflight", "default_timeout", "max_timeout"),
        )
        return {name: getattr(self, name) for name in names}


class Handle(Protocol):
    def cancel(self) -> None: ...


class Loop(Protocol):
    """The clock and the timers; an asyncio event loop is one."""

    def time(self) -> float: ...
    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Handle: ...
    def call_soon(self, callback: Callable[..., object], *args: Any) -> Handle: ...


class Peer(Protocol):
    """The sending side of a connection."""

    def post(self, frame: bytes, sent: Callable[[], None] | None = None) -> None:
        """Send in order, later; `sent` is called when the frame has left."""
        ...


@dataclass(slots=True)
class Record:
    """What is remembered of an instance while it is away.

    `suspect`: it has lost tasks and returned no result since, so it gets one at a time.
    """

    done: int = 0
    lost: int = 0
    suspect: bool = False


@dataclass(slots=True, eq=False)
class Connector:
    """One connection of a connector. `held` are the requests in its slots, by task id."""

    key: Key
    peer: Peer
    methods: frozenset[str]
    capacity: int
    record: Record
    connected_at: str
    heard: float
    upstream: str = UNKNOWN
    draining: bool = False
    gone: bool = False
    used: int = 0
    held: dict[str, Request] = field(default_factory=dict)

    @property
    def instance(self) -> str:
        return self.key[1]

    @property
    def slots(self) -> int:
        return 1 if self.record.suspect else self.capacity

    @property
    def load(self) -> float:
        return len(self.held) / self.slots

    def offers(self, method: str) -> bool:
        """Whether it may be given such tasks at all, now or when a slot is free."""
        usable = not self.gone and not self.draining and self.upstream in USABLE
        return usable and method in self.methods

    @property
    def free(self) -> bool:
        return len(self.held) < self.slots


@dataclass(slots=True, eq=False)
class Requester:
    """One connection of a requester. `unfinished` has ids whose response has not left yet."""

    instance: str
    peer: Peer
    open: dict[str, Request] = field(default_factory=dict)
    unfinished: set[str] = field(default_factory=set)
    gone: bool = False
    _used: set[int] = field(default_factory=set)
    _order: deque[int] = field(default_factory=deque)

    def used(self, id_: str) -> bool:
        return hash(id_) in self._used

    def remember(self, id_: str, kept: int) -> None:
        """The last `kept` ids; hashes, for they are many."""
        self._used.add(hash(id_))
        self._order.append(hash(id_))
        if len(self._order) > kept:
            self._used.discard(self._order.popleft())


@dataclass(slots=True, eq=False)
class Request:
    """One accepted request. `holder` works on the current attempt; None while it is queued."""

    id: str
    requester: Requester
    method: str
    params: msgspec.Raw
    max_attempts: int
    began: float
    deadline: float
    task: str = field(default_factory=lambda: f"t-{uuid.uuid4()}")
    attempt: int = 0
    acked: bool = False
    holder: Connector | None = None
    given: set[Key] = field(default_factory=set)
    """Instances whose result is valid."""
    working: dict[Key, Connector] = field(default_factory=dict)
    """Connections that may still be at it."""
    lost: set[Key] = field(default_factory=set)
    failed: set[Key] = field(default_factory=set)
    error: messages.Failure | None = None
    error_status: int | None = None
    timers: dict[str, Handle] = field(default_factory=dict)

    def stop(self, name: str) -> None:
        if timer := self.timers.pop(name, None):
            timer.cancel()
