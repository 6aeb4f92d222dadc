"""Who does what: requests, connectors and the rules between them. No sockets, no awaiting.

Every state change is made by one call from the event loop, whole, so nothing can come between. A request is
`queued -> sent -> acked -> done`, and `done` happens once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator

from resources.ttm.protocol import FAULTS, MAX_ATTEMPTS, MAX_CAPACITY, METHODS
from services.ttm_hub import messages
from services.ttm_hub.ranking import Ranking
from services.ttm_hub.state import Connector, Handle, Key, Limits, Loop, Peer, Record, Request, Requester


class Broker:
    """All requests and connectors of a hub."""

    def __init__(self, loop: Loop, limits: Limits | None = None, now: Callable[[], str] = str) -> None:
        """`now` gives the time of day as text, for `connected_at`."""
        self.limits = limits or Limits()
        self.connectors: dict[Key, Connector] = {}
        self.ended: Counter[tuple[str, str]] = Counter()
        """Responses by (method, "ok" or error code)."""
        self.redispatched = self.duplicates = self.refused_busy = 0
        self.observe: Callable[[str, float], None] = lambda method, seconds: None
        self._loop, self._now = loop, now
        self._records: dict[Key, Record] = {}
        self._tasks: dict[str, Request] = {}
        self._queue: dict[str, Request] = {}
        self._again: dict[str, Request] = {}  # before the queue
        self._ranking = Ranking(METHODS)
        self._turn = itertools.count(1)
        self._pumping: Handle | None = None

    # connectors

    def join(self, key: Key, peer: Peer, methods: frozenset[str], capacity: int) -> Connector:
        """A connector that has proven itself. Whoever was connected under its key must have left."""
        record = self._records.setdefault(key, Record())
        capacity = min(capacity, MAX_CAPACITY)
        connector = Connector(key, peer, methods, capacity, record, self._now(), self._loop.time())
        self.connectors[key] = connector
        self._changed(connector)
        for request in self._waiting():
            if connector.offers(request.method):
                request.stop("absence")
        self._forget_strangers()
        return connector

    def leave(self, connector: Connector) -> None:
        """Its connection has ended: what it held goes to others."""
        if connector.gone:
            return
        connector.gone = True
        if self.connectors.get(connector.key) is connector:
            del self.connectors[connector.key]
        held, connector.held = list(connector.held.values()), {}
        if held:
            connector.record.suspect = True
            connector.record.lost += len(held)
        self._changed(connector)
        for request in held:
            request.working.pop(connector.key, None)
            request.lost.add(connector.key)
            if request.holder is connector:
                self._retry(request, _failure("connector_lost", "The connector was lost while it worked."))
        self._watch_absence()

    def heartbeat(self, connector: Connector, upstream: str, capacity: int | None) -> None:
        connector.heard = self._loop.time()
        changed = (upstream, capacity or connector.capacity) != (connector.upstream, connector.capacity)
        if not changed:
            return
        connector.upstream, connector.capacity = upstream, min(capacity or connector.capacity, MAX_CAPACITY)
        self._changed(connector)
        self._watch_absence()

    def drain(self, connector: Connector) -> None:
        """It wants no new tasks."""
        connector.draining = True
        self._changed(connector)
        self._watch_absence()

    def ack(self, connector: Connector, task: str, attempt: int) -> None:
        request = self._tasks.get(task)
        if request and request.holder is connector and request.attempt == attempt:
            request.acked = True
            request.stop("ack")

    def result(self, connector: Connector, result: messages.Result) -> None:
        """A result of any attempt. Raises BadMessage for one that this connector was not asked for."""
        request = self._tasks.get(result.id)
        if request is None:
            self.duplicates += 1
            connector.record.suspect = False
            self._changed(connector)
            connector.peer.post(messages.ResultAck(result.id, result.attempt, True).encode())
            return
        if connector.key not in request.given or result.attempt > request.attempt:
            raise messages.BadMessage("forbidden", "This task was not given to this connector.", result.id)
        if not result.ok and result.error is None:
            raise messages.BadMessage("bad_request", "result: neither ok nor an error.", result.id)
        connector.peer.post(messages.ResultAck(result.id, result.attempt, False).encode())
        connector.record.suspect = False
        connector.record.done += 1
        current = request.holder is connector and result.attempt == request.attempt
        if current or request.holder is not connector:
            request.working.pop(connector.key, None)
            connector.held.pop(request.task, None)
        self._changed(connector)
        if result.ok:
            self._succeed(request, connector, result)
        elif result.error and not result.error.again:
            self._fail(request, result.error, result.status, connector.instance)
        elif result.error and current:
            request.failed.add(connector.key)
            self._retry(request, result.error, result.status, connector.instance)

    def silent(self) -> Iterator[Connector]:
        """Connectors without a heartbeat for too long."""
        oldest = self._loop.time() - self.limits.heartbeat_grace
        return (c for c in list(self.connectors.values()) if c.heard < oldest)

    # requesters

    def accept(self, requester: Requester, asked: messages.Request) -> None:
        """Queue a request, or say why not."""
        post, limits = requester.peer.post, self.limits
        if asked.method not in METHODS:
            post(messages.error("unknown_method", f"There is no method {asked.method[:40]!r}.", asked.id))
            return
        if not bytes(asked.params).lstrip().startswith(b"{"):
            post(messages.error("bad_request", "params must be an object.", asked.id))
            return
        if requester.used(asked.id):
            post(messages.error("duplicate_id", "This id was used on this connection.", asked.id))
            return
        if len(requester.unfinished) >= limits.max_inflight or self.queued >= limits.queue:
            self.refused_busy += 1
            what = "The queue is full." if self.queued >= limits.queue else "Too many unfinished requests."
            post(messages.Busy("busy", what, asked.id, True, limits.retry_after).encode())
            return
        requester.remember(asked.id, limits.ids_kept)
        now = self._loop.time()
        timeout = min(asked.timeout or limits.default_timeout, limits.max_timeout)
        attempts = min(asked.max_attempts, MAX_ATTEMPTS)
        params = asked.params.copy()  # a slice would keep the whole message
        request = Request(asked.id, requester, asked.method, params, attempts, now, now + timeout)
        request.timers["deadline"] = self._loop.call_later(timeout, self._expire, request)
        requester.open[asked.id] = self._tasks[request.task] = self._queue[request.task] = request
        requester.unfinished.add(asked.id)
        post(messages.Accepted(asked.id, self.queued).encode())
        self._watch(request)
        self._wake()

    def cancel(self, requester: Requester, id_: str) -> None:
        """End a request; one that has ended already is left alone."""
        if request := requester.open.get(id_):
            self._fail(request, _failure("cancelled", "The requester cancelled it."))

    def depart(self, requester: Requester) -> None:
        """Its connection has ended: nobody waits for its requests."""
        requester.gone = True
        for request in list(requester.open.values()):
            self._finish(request, "requester_gone")

    # what others see

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._again)

    @property
    def in_flight(self) -> int:
        return len(self._tasks) - self.queued

    @property
    def healthy(self) -> bool:
        return any(c.upstream == "ok" for c in self.connectors.values())

    def status(self) -> messages.StatusReply:
        connectors = [
            messages.ConnectorStatus(
                instance=c.instance,
                inflight=len(c.held),
                capacity=c.capacity,
                upstream=c.upstream,
                connected_at=c.connected_at,
                done=c.record.done,
                lost=c.record.lost,
            )
            for c in self.connectors.values()
        ]
        return messages.StatusReply(self.queued, connectors)

    # dispatch

    def _wake(self) -> None:
        if self._pumping is None:
            self._pumping = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        """Give what waits to whoever is free: those that were lost first, then in order."""
        self._pumping = None
        for request in list(self._again.values()):
            if connector := self._best_other(request):
                del self._again[request.task]
                self._send(request, connector)
        sent, taken = list[str](), set[str]()
        for request in self._queue.values():
            if not self._ranking:
                break
            if request.method in taken:
                continue
            if connector := self._ranking.best(request.method):
                sent.append(request.task)
                self._send(request, connector)
            else:
                taken.add(request.method)
        for task in sent:
            del self._queue[task]

    def _best_other(self, request: Request) -> Connector | None:
        """For a request that failed before: not who lost it while another could do it, last who failed."""
        able = [c for c in self.connectors.values() if c.offers(request.method)]
        others = [c for c in able if c.key not in request.lost]
        free = [c for c in others or able if c.free or request.task in c.held]
        return min(free, key=lambda c: (c.key in request.failed, c.load, c.used), default=None)

    def _send(self, request: Request, connector: Connector) -> None:
        request.attempt += 1
        request.holder, request.acked = connector, False
        request.given.add(connector.key)
        request.working[connector.key] = connector
        request.stop("absence")
        connector.held[request.task] = request
        connector.used = next(self._turn)
        self._changed(connector)
        left = max(0.001, round(request.deadline - self._loop.time(), 3))
        task = messages.Task(request.task, request.attempt, request.method, request.params, left)
        connector.peer.post(task.encode())
        request.timers["ack"] = self._loop.call_later(self.limits.ack_timeout, self._unacked, request)

    def _unacked(self, request: Request) -> None:
        """No ack in time. The silent connector keeps the slot occupied: it may be at work."""
        request.stop("ack")
        if (connector := request.holder) is None:
            return
        connector.record.suspect = True
        connector.record.lost += 1
        request.lost.add(connector.key)
        self._changed(connector)
        self._retry(request, _failure("connector_lost", "The connector did not take the task."))

    def _retry(
        self,
        request: Request,
        error: messages.Failure,
        status: int | None = None,
        instance: str | None = None,
    ) -> None:
        request.stop("ack")
        request.holder, request.error, request.error_status = None, error, status
        if request.attempt >= request.max_attempts or self._loop.time() >= request.deadline:
            self._fail(request, error, status, instance)
            return
        self.redispatched += 1
        self._again[request.task] = request
        self._watch(request)
        self._wake()

    # time

    def _expire(self, request: Request) -> None:
        """The deadline: an attempt on its way has timed out, one that waits ends with its last error."""
        request.stop("deadline")
        if request.holder is None and request.error:
            self._fail(request, request.error, request.error_status)
        elif request.holder is None and not self._ranking.offered(request.method):
            self._absent(request)
        else:
            self._fail(request, _failure("timeout", "The request's time was over."))

    def _watch(self, request: Request) -> None:
        """Nobody can take it: it waits a while for a connector to come."""
        if "absence" not in request.timers and not self._ranking.offered(request.method):
            wait = self.limits.wait_connector
            request.timers["absence"] = self._loop.call_later(wait, self._absent, request)

    def _watch_absence(self) -> None:
        for request in self._waiting():
            self._watch(request)

    def _absent(self, request: Request) -> None:
        request.stop("absence")
        if request.error:
            self._fail(request, request.error, request.error_status)
            return
        states = Counter(c.upstream for c in self.connectors.values())
        seen = ", ".join(f"{n} {state}" for state, n in states.items()) or "none is connected"
        self._fail(request, _failure("no_connector", f"No connector can do {request.method}: {seen}."))

    # the end of a request

    def _succeed(self, request: Request, connector: Connector, result: messages.Result) -> None:
        answer = messages.Answer(
            id=request.id,
            ok=True,
            status=result.status or 200,
            data=result.data,
            connector=connector.instance,
            attempts=request.attempt,
            elapsed_ms=self._elapsed(request),
        ).encode()
        if len(answer) > self.limits.max_message:
            self._fail(request, _failure("too_large", "The result is above 8 MiB."), None, connector.instance)
            return
        self._finish(request, "ok", answer)

    def _fail(
        self,
        request: Request,
        error: messages.Failure,
        status: int | None = None,
        instance: str | None = None,
    ) -> None:
        refusal = messages.Refusal(
            id=request.id,
            ok=False,
            status=status or (FAULTS[error.code].status if error.code in FAULTS else 500),
            error=messages.Failure(error.code, error.message[:500], error.again),
            attempts=request.attempt,
            elapsed_ms=self._elapsed(request),
            connector=instance,
        )
        self._finish(request, error.code, refusal.encode())

    def _elapsed(self, request: Request) -> int:
        return round((self._loop.time() - request.began) * 1000)

    def _finish(self, request: Request, how: str, response: bytes | None = None) -> None:
        """The one place where a request becomes done."""
        del self._tasks[request.task]
        self._queue.pop(request.task, None)
        self._again.pop(request.task, None)
        for timer in request.timers.values():
            timer.cancel()
        request.timers.clear()
        requester = request.requester
        del requester.open[request.id]
        for connector in request.working.values():
            if connector.held.pop(request.task, None):
                connector.peer.post(messages.CancelTask(request.task).encode())
                self._changed(connector)
        request.holder = None
        request.working.clear()
        self.ended[request.method, how if how in FAULTS or how in ("ok", "requester_gone") else "other"] += 1
        self.observe(request.method, self._loop.time() - request.began)
        if response is None or requester.gone:
            requester.unfinished.discard(request.id)
        else:
            requester.peer.post(response, lambda: requester.unfinished.discard(request.id))

    # bookkeeping

    def _waiting(self) -> Iterator[Request]:
        yield from self._again.values()
        yield from self._queue.values()

    def _changed(self, connector: Connector) -> None:
        """Its slots, load or state are others now."""
        self._ranking.update(connector)
        if connector.free and not connector.gone and self.queued:
            self._wake()

    def _forget_strangers(self) -> None:
        """Records of instances that do not come back must not pile up."""
        if len(self._records) > 2 * len(self.connectors) + 4096:
            self._records = {key: c.record for key, c in self.connectors.items()}


def _failure(code: str, message: str) -> messages.Failure:
    return messages.Failure(code, message)
