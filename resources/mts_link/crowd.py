"""Several questions on their way at once, so that the latency of one does not lower the rate of all."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

J = TypeVar("J")
P = TypeVar("P")
_LOOK_S = 0.2
PAGES_AHEAD = 4


class Stopped(Exception):
    """Whoever asked has gone."""


class Ended(Generic[P]):
    """A job is over: `error` is what ended it, None if it was answered in full."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


def crowd(
    jobs: Iterable[J],
    read: Callable[[J, threading.Event], Iterator[P]],
    workers: int,
    caught: tuple[type[Exception], ...],
) -> Iterator[tuple[J, P | Ended[P]]]:
    """Pages of all jobs as they come, and one `Ended` after the last page of each.

    `read` runs in `workers` threads; errors of the classes `caught` end their job, others end everything.
    A few pages of each worker may wait to be taken, so that whoever stores them does not slow the questions
    down. Leaving the iterator early stops the threads.
    """
    waiting: queue.Queue[tuple[J, P | Ended[P]] | BaseException | None] = queue.Queue(
        maxsize=PAGES_AHEAD * workers
    )
    stop, lock, source = threading.Event(), threading.Lock(), iter(jobs)

    def put(item: tuple[J, P | Ended[P]] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=_LOOK_S)
                return
            except queue.Full:
                continue
        raise Stopped

    def answer(job: J) -> None:
        try:
            for page in read(job, stop):
                put((job, page))
        except caught as error:
            put((job, Ended(error)))
        else:
            put((job, Ended()))

    def work() -> None:
        try:
            while True:
                with lock:
                    job = next(source, None)
                if job is None:
                    break
                answer(job)
            put(None)
        except Stopped:
            pass
        except BaseException as error:
            with contextlib.suppress(Stopped):
                put(error)

    threads = [threading.Thread(target=work, name=f"crowd-{i}", daemon=True) for i in range(workers)]
    for thread in threads:
        thread.start()
    left = workers
    try:
        while left:
            item = waiting.get()
            if item is None:
                left -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        stop.set()
        for thread in threads:
            thread.join()
