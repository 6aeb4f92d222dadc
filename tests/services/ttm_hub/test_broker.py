"""The broker's rules against whatever order of events, with time in the test's hands."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from services.ttm_hub import messages
from services.ttm_hub.broker import Broker
from services.ttm_hub.state import Connector, Limits, Requester


class Timer:
    def __init__(self, run: Callable[[], object]) -> None:
        self.run: Callable[[], object] | None = run

    def cancel(self) -> None:
        self.run = None


class Time:
    """Timers that run when the test lets time pass."""

    def __init__(self) -> None:
        self._now, self._timers, self._count = 0.0, list[tuple[float, int, Timer]](), itertools.count()

    def time(self) -> float:
        return self._now

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        timer = Timer(lambda: callback(*args))
        heapq.heappush(self._timers, (self._now + delay, next(self._count), timer))
        return timer

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Timer:
        return self.call_later(0, callback, *args)

    def advance(self, seconds: float) -> None:
        until = self._now + seconds
        while self._timers and self._timers[0][0] <= until:
            self._now, _, timer = heapq.heappop(self._timers)
            if timer.run:
                timer.run()
        self._now = until


class Inbox:
    """A peer that takes everything at once, or later."""

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.unsent: list[Callable[[], None]] = []

    def post(self, frame: bytes, sent: Callable[[], None] | None = None) -> None:
        self.frames.append(msgspec.json.decode(frame))
        if sent:
            self.unsent.append(sent)

    def take(self) -> None:
        for sent in self.unsent:
            sent()
        self.unsent.clear()


LIMITS = Limits(ack_timeout=5, wait_connector=30, queue=12, max_inflight=6)
CAPACITY = 3


NAMES = st.sampled_from(["c0", "c1", "c2", "c3"])
HOW = st.sampled_from(["ack", "ok", "final", "again"])


class AnyOrder(RuleBasedStateMachine):
    """Two requesters, up to four connectors that come, answer, stay silent, die and come back."""

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.broker = Broker(self.time, LIMITS)
        self.requesters = [(Requester(f"r{n}", inbox), inbox) for n, inbox in enumerate((Inbox(), Inbox()))]
        self.connectors: dict[str, tuple[Connector, Inbox]] = {}
        self.tasks: dict[str, dict[str, int]] = {}
        """By instance: the newest attempt of each task that it has in hand."""
        self.asked: set[tuple[int, str]] = set()
        self.ids = itertools.count()

    @initialize()
    def begin(self) -> None:
        self.join("c0", CAPACITY)

    @rule(name=NAMES, capacity=st.integers(1, CAPACITY))
    def join(self, name: str, capacity: int) -> None:
        if name in self.connectors:
            self.leave(name)
        inbox = Inbox()
        connector = self.broker.join(("t", name), inbox, frozenset({"ticket.get"}), capacity)
        self.connectors[name] = connector, inbox
        self.tasks.setdefault(name, {})

    @rule(name=NAMES)
    def leave(self, name: str) -> None:
        if name in self.connectors:
            self.read()
            self.broker.leave(self.connectors.pop(name)[0])

    @rule(who=st.integers(0, 1), timeout=st.sampled_from([1, 20, 100]), attempts=st.integers(1, 4))
    def ask(self, who: int, timeout: float, attempts: int) -> None:
        requester, inbox = self.requesters[who]
        id_ = f"q{next(self.ids)}"
        self.broker.accept(
            requester,
            messages.Request(id_, "ticket.get", msgspec.Raw(b'{"id":1}'), float(timeout), attempts),
        )
        last = inbox.frames[-1]
        assert last["type"] in ("accepted", "error")
        if last["type"] == "accepted":
            self.asked.add((who, id_))

    @rule(who=st.integers(0, 1), data=st.data())
    def cancel(self, who: int, data: st.DataObject) -> None:
        ids = sorted(id_ for asker, id_ in self.asked if asker == who)
        if ids:
            self.broker.cancel(self.requesters[who][0], data.draw(st.sampled_from(ids)))

    @rule(
        name=st.sampled_from(["c0", "c1", "c2", "c3"]), how=st.sampled_from(["ack", "ok", "final", "again"])
    )
    def act(self, name: str, how: str) -> None:
        """A connector acknowledges or answers one of its tasks."""
        self.read()
        if name not in self.connectors or not self.tasks[name]:
            return
        connector, _ = self.connectors[name]
        task, attempt = next(iter(self.tasks[name].items()))
        if how == "ack":
            self.broker.ack(connector, task, attempt)
            return
        error = None if how == "ok" else messages.Failure("upstream_error", "no", retryable=how == "again")
        self.broker.result(
            connector, messages.Result(task, attempt, how == "ok", 200, msgspec.Raw(b"1"), error)
        )
        del self.tasks[name][task]

    @rule(name=st.sampled_from(["c0", "c1"]), upstream=st.sampled_from(["ok", "unreachable"]))
    def heartbeat(self, name: str, upstream: str) -> None:
        if name in self.connectors:
            self.broker.heartbeat(self.connectors[name][0], upstream, None)

    @rule(seconds=st.sampled_from([0, 0.1, 6, 31]))
    def wait(self, seconds: float) -> None:
        self.time.advance(seconds)

    @rule(who=st.integers(0, 1))
    def receive(self, who: int) -> None:
        self.requesters[who][1].take()

    def read(self) -> None:
        """Let posted tasks and cancellations reach the connectors."""
        self.time.advance(0)
        for name, (_, inbox) in self.connectors.items():
            for frame in inbox.frames:
                if frame["type"] == "task":
                    self.tasks[name][frame["id"]] = frame["attempt"]
                elif frame["type"] == "cancel":
                    self.tasks[name].pop(frame["id"], None)
            inbox.frames.clear()

    @invariant()
    def slots_are_never_exceeded(self) -> None:
        for connector, _ in self.connectors.values():
            assert len(connector.held) <= connector.capacity

    @invariant()
    def a_request_waits_only_while_nobody_can_take_it(self) -> None:
        self.time.advance(0)
        if self.broker._queue:
            assert not any(c.offers("ticket.get") and c.free for c, _ in self.connectors.values())

    @invariant()
    def no_request_has_two_responses(self) -> None:
        for (requester, inbox), who in zip(self.requesters, (0, 1), strict=True):
            counts = Counter(f["id"] for f in inbox.frames if f["type"] == "response")
            assert all(count == 1 and (who, id_) in self.asked for id_, count in counts.items())
            assert len(requester.unfinished) <= LIMITS.max_inflight

    def teardown(self) -> None:
        """In the end every request has ended, and nothing of any is left."""
        self.time.advance(1000)
        ended = {
            (w, f["id"]) for w in (0, 1) for f in self.requesters[w][1].frames if f["type"] == "response"
        }
        assert ended == self.asked
        assert not self.broker._tasks
        assert not self.broker.queued
        assert all(not connector.held for connector, _ in self.connectors.values())


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_any_order = AnyOrder.TestCase
