"""Commands packed into batches, sent side by side, and repeated while that may help."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from resources.bitrix24.faults import failure
from resources.bitrix24.portal import Command, Outcome, Portal, Reply


@dataclass(slots=True)
class Job:
    """A command with the caller's key for its answer."""

    key: Any
    command: Command
    fails: int = 0


class Packer:
    """Sends many commands in few requests."""

    def __init__(self, portal: Portal, *, in_flight: int, max_attempts: int) -> None:
        """`in_flight` requests at once; a command is tried `max_attempts` times."""
        self.portal, self.in_flight, self.max_attempts = portal, in_flight, max_attempts

    def stream(
        self, jobs: Iterator[Job], expected: int, more: deque[Job] | None = None
    ) -> Iterator[tuple[list[tuple[Job, Outcome]], datetime]]:
        """Send jobs packed into batches; yield settled ones batch by batch, repeat what may succeed later.

        The consumer may append to `more` while it handles a batch.
        """
        again = deque[Job]() if more is None else more
        slots = self.in_flight if expected > self.portal.sizer.size() else 1
        pending: dict[Future[Reply], list[Job]] = {}
        with self.workers(slots) as (pool, stop):
            while True:
                while len(pending) < slots:
                    packed = self._pack(jobs, again, waiting=bool(pending))
                    if not packed:
                        break
                    pending[pool.submit(self.portal.batch, [job.command for job in packed], stop)] = packed
                if not pending:
                    return
                ready, _ = wait(pending, return_when=FIRST_COMPLETED)
                future = next(iter(ready))
                packed = pending.pop(future)
                reply = future.result()
                settled = self._sort_out(packed, reply, again)
                if settled:
                    yield settled, reply.read_at

    def _pack(self, jobs: Iterator[Job], again: deque[Job], *, waiting: bool) -> list[Job]:
        """Commands for one batch; those of a method that is kept back wait while others can go."""
        size = self.portal.sizer.size()
        now = self.portal.clock.time()
        packed: list[Job] = []
        held: list[Job] = []
        while len(packed) < size:
            job = again.popleft() if again else next(jobs, None)
            if job is None:
                break
            kept_back = self.portal.operating.parked(job.command.method, now) > 0
            (held if kept_back else packed).append(job)
            if len(held) >= size:
                break
            size = self.portal.sizer.size({item.command.method for item in packed})
        if not packed and not waiting:
            packed, held = held[:size], held[size:]
        if waiting and len(packed) < size:
            again.extendleft(reversed([*packed, *held]))
            return []
        again.extendleft(reversed(held))
        return packed

    def _sort_out(self, packed: Sequence[Job], reply: Reply, again: deque[Job]) -> list[tuple[Job, Outcome]]:
        settled: list[tuple[Job, Outcome]] = []
        for job, outcome in zip(packed, reply.outcomes, strict=True):
            if outcome.error is not None and outcome.error.retryable:
                job.fails += 1
                if job.fails > self.max_attempts:
                    raise failure(outcome.error)
                again.append(job)
            elif outcome.raw is None and outcome.error is None:
                again.append(job)
            else:
                settled.append((job, outcome))
        return settled

    @contextmanager
    def workers(self, slots: int) -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
        """A pool that is stopped and joined when the block ends, also by an error or a closed generator."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(slots, thread_name_prefix="bitrix24")
        try:
            yield pool, stop
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
