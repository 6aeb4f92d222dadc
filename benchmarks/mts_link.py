"""How many requests does MTS Link take, against the fewest possible, and is its rate used to the full?

A first load of everything, then an hour without changes. Hours of waiting for the rate are cut short by a
clock that organisation and client share, see `WaitingClock`. `--full` is the size of a company: 500 people,
5,000 sessions, 50,000 participants, 100,000 messages; it takes an hour. `--count` is that size without a
rate, for the number of requests; it takes some minutes.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import dagster as dg

import resources.mts_link
from benchmarks.common import folder, verdict
from etl_assets.loading import FEED_TAG
from resources.clickhouse import WarehouseResource
from resources.http import HttpAnswer, HttpSession
from resources.mts_link.client import NAP_S
from sandbox.mts_link import SIZES, OrgConfig, Server, serve
from sandbox.mts_link.org import Clock

FACTOR = 20.0
WATCH_S, BUSY_SHARE = 0.003, 0.4
HOLD_S = 0.004  # from the end of a wait until the question is sent
NEAR_S = 0.008  # of a wait is slept at our pace, since one may wake late
LATENCY_S = 0.01
BUSY = 20  # the windows in which the rate is looked at, in virtual seconds
SMALL = {"staff": 12, "sessions": 20, "channels": 4, "messages": 1_500, "contacts": 25, "tests": 8}
SPAWN = multiprocessing.get_context("spawn")


class WaitingClock(Clock):
    """`FACTOR` times as fast as ours while all that happens is that questions wait for their turn.

    From the end of a wait until the question is answered, while the client computes, and when nobody waits,
    it is as fast as ours. So whatever keeps the client from asking (work between steps, a slow warehouse)
    counts in full, and nothing else counts more than once. Both processes read it.
    """

    def __init__(self) -> None:
        # when its pace was set, its time then, its pace; questions that wait and that are asked, work, rest
        self._state = SPAWN.Array("d", [time.monotonic(), time.time(), 1.0, 0.0, 0.0, 0.0, 0.0])

    def now(self) -> float:
        with self._state:
            since, then, pace, *_ = self._state
        return then + (time.monotonic() - since) * pace

    time = now

    def sleep(self, seconds: float) -> None:
        due = self.now() + seconds
        self._change(waiting=1)
        if seconds >= NAP_S:
            self._sleep_until(due)
            self._change(waiting=-1)
            return
        self._sleep_until(due - NEAR_S)  # the last piece of a wait: a question follows
        self._change(asking=1)
        self._sleep_until(due)
        self._change(waiting=-1, asking=-1, hold=HOLD_S)

    def asks(self, send: Callable[..., HttpAnswer]) -> Callable[..., HttpAnswer]:
        """`send`, during which the clock is as fast as ours."""

        def sent(*args: Any, **options: Any) -> HttpAnswer:
            self._change(asking=1)
            try:
                return send(*args, **options)
            finally:
                self._change(asking=-1)

        return sent

    def watch(self) -> None:
        """Look without end whether this process computes, which all but waiting is."""
        cpu, at = time.process_time(), time.monotonic()
        while True:
            time.sleep(WATCH_S)
            cpu_now, now = time.process_time(), time.monotonic()
            self._change(working=cpu_now - cpu > BUSY_SHARE * (now - at))
            cpu, at = cpu_now, now

    def _sleep_until(self, due: float) -> None:
        while (left := due - self.now()) > 0:
            time.sleep(max(left / FACTOR, 0.0005))

    def _change(
        self, waiting: int = 0, asking: int = 0, working: bool | None = None, hold: float = 0.0
    ) -> None:
        with self._state:
            since, then, pace, waits, asks, works, held = self._state
            at = time.monotonic()
            waits, asks, works = waits + waiting, asks + asking, works if working is None else float(working)
            held = max(held, at + hold)
            fast = waits and not asks and not works and at >= held
            self._state[:] = [
                at,
                then + (at - since) * pace,
                FACTOR if fast else 1.0,
                waits,
                asks,
                works,
                held,
            ]


@dataclass(frozen=True)
class Fewest:
    """The requests without which the rows of the organisation cannot be had, page sizes as documented."""

    server: Server

    def count(self) -> int:
        org = self.server.org
        sessions, events = list(org.session_numbers()), org.event_numbers()
        finished = [s for s in sessions if org.finished(s)]
        converted = [s for s in finished if self.server.answers.is_converted(s)]
        members, rooms = org.member_numbers(), org.config.rooms
        people = {org.participant(s, p)[0] for s in finished for p in range(org.participants(s))}
        groups, tests = 2 * org.config.courses, org.config.tests
        checked = [s for s in finished if org.checkpoints(s)]
        written = range(org.config.channels)
        files = sum(len(self.server.answers.files_in(f)) for f in (None, 0, 1, 2, 3))
        return sum(
            (
                ceil(len(events) / 250) + ceil(len(members) / 500) + ceil((len(members) + 1) / 100),
                5 * len(sessions) + 6 * len(finished) + rooms,  # what is asked session by session
                len(checked) + len(converted) + sum(s % 4 == 0 for s in finished) + ceil(len(finished) / 50),
                3 * len(events),
                3 * len(members),  # chats, schedule and visits of each
                sum(max(1, ceil(org.message_count(c) / 100)) for c in written) + 2 * len(written),
                len(people),
                org.config.contacts + 2 * min(org.config.contacts, org.config.staff),
                org.config.courses + 2 * groups,
                3 * tests,
                files + len(converted) + 5,
                2 * ceil(org.config.days / 31)
                + 16,  # the lists that are asked for once, and statistics by month
            )
        )


def load(warehouse: WarehouseResource) -> bool:
    """One run over everything that the schedules load."""
    from etl_assets.definitions import build_defs

    defs = build_defs({"warehouse": warehouse})
    graph = defs.resolve_asset_graph()
    keys = {
        k
        for k in graph.materializable_asset_keys
        if k.path[0] == "mts_link" and "svod/by_hand" not in graph.get(k).tags
    }
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=keys)
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        partition = next(p for k in keys if (p := graph.get(k).partitions_def) is not None)
        result = job.execute_in_process(
            instance=instance,
            partition_key=partition.get_partition_keys()[-1],
            tags={FEED_TAG: "true"},
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
            raise_on_error=False,
        )
    return result.success


def busy_rate(arrivals: list[float]) -> float:
    """Requests a second in the slowest tenth of the windows, but for the first and the last one."""
    first = arrivals[0]
    counts: dict[int, int] = {}
    for at in arrivals:
        counts[int((at - first) / BUSY)] = counts.get(int((at - first) / BUSY), 0) + 1
    rates = sorted(counts.get(n, 0) / BUSY for n in range(1, max(counts)))
    return rates[len(rates) // 10] if rates else 0.0


def serve_apart(config: OrgConfig, clock: WaitingClock, pipe: Any) -> None:
    """The organisation in its own process: tells its URL, then (report, arrivals) whenever it is asked."""
    with serve(config) as server:
        server.org.clock = clock
        pipe.send(server.url)
        while pipe.recv():
            pipe.send((server.stats.report(), server.stats.arrivals))
            server.reset_stats()


@contextmanager
def organisation(config: OrgConfig, clock: WaitingClock) -> Iterator[tuple[str, Any]]:
    """A running organisation: its URL, and the pipe to ask it through."""
    ours, its = SPAWN.Pipe()
    process = SPAWN.Process(target=serve_apart, args=(config, clock, its), daemon=True)
    process.start()
    try:
        yield ours.recv(), ours
    finally:
        ours.send(False)
        process.join(30)


def told(pipe: Any) -> tuple[dict[str, Any], list[float]]:
    """What the organisation counted since it was asked last."""
    pipe.send(True)
    return pipe.recv()


def main() -> int:
    """Exit status 1 if a target is missed."""
    counting = "--count" in sys.argv
    size = SIZES["medium"] if counting or "--full" in sys.argv else SMALL
    clock = WaitingClock()
    threading.Thread(target=clock.watch, daemon=True).start()
    resources.mts_link.CLOCK, HttpSession.send = clock, clock.asks(HttpSession.send)
    config = replace(OrgConfig(rate=None if counting else 2, latency=LATENCY_S), **size)
    known = Server(config)
    known.org.clock = clock
    with folder() as path, organisation(config, clock) as (url, pipe):
        warehouse = WarehouseResource(url=f"chdb://{path}/warehouse")
        os.environ.update(
            {
                "MTS_LINK_URL": url,
                "MTS_LINK_API_TOKEN": "sandbox-key",
                "MTS_LINK_CLASSES": "chats,transcripts,contacts",
                "SVOD_STATE_DIR": str(Path(path)),
                "CLICKHOUSE_URL": warehouse.url,
            }
            | ({"MTS_LINK_RATE": "0"} if counting else {})
        )
        met = load(warehouse)
        (first, arrivals), fewest = told(pipe), Fewest(known).count()
        print(f"     full load: {first['requests']:,} requests, {first['span_s'] / 3600:.2f} hours")
        print(f"     answers: {first['statuses']}")
        met &= verdict("requests / fewest possible", first["requests"] / fewest, 1.1, at_most=True)
        if not counting:
            met &= verdict("requests/s, average", first["per_second"], 1.9, at_most=False)
            met &= verdict("requests/s, slow tenth", busy_rate(arrivals), 1.9, at_most=False)
        met &= load(warehouse)
        unchanged, _ = told(pipe)
        met &= verdict("requests of an unchanged hour", unchanged["requests"], 40, at_most=True)
    return not met


if __name__ == "__main__":
    sys.exit(main())
