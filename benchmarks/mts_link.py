"""How many requests does MTS Link take, against the fewest possible, and is its rate used to the full?

A first load of everything, then an hour without changes. The organisation and the client share a clock that
runs `FACTOR` times as fast as ours. `--full` is the size of a company: 500 employees, 5,000 sessions, 50,000
participants, 100,000 messages; it takes an hour.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path

import dagster as dg

import resources.mts_link
from benchmarks.common import folder, verdict
from etl_assets.loading import FEED_TAG
from resources.clickhouse import WarehouseResource
from sandbox.mts_link import SIZES, OrgConfig, Server, serve

FACTOR = 1.0  # at 4, what Dagster does between steps counts fourfold
BUSY = 20  # the windows in which the rate is looked at, in virtual seconds
SMALL = {"staff": 12, "sessions": 20, "channels": 4, "messages": 1_500, "contacts": 25, "tests": 8}


class FastClock:
    """Ours, `FACTOR` times as fast."""

    def __init__(self) -> None:
        self._began = time.time()

    def time(self) -> float:
        return self._began + (time.time() - self._began) * FACTOR

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds / FACTOR)


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


def main() -> int:
    """Exit status 1 if a target is missed."""
    size = SIZES["medium"] if "--full" in sys.argv else SMALL
    met = True
    resources.mts_link.CLOCK = FastClock()
    config = replace(OrgConfig(rate=2, clock_factor=FACTOR), **size)
    with folder() as path, serve(config) as server:
        warehouse = WarehouseResource(url=f"chdb://{path}/warehouse")
        os.environ.update(
            {
                "MTS_LINK_URL": server.url,
                "MTS_LINK_API_TOKEN": "sandbox-key",
                "MTS_LINK_CLASSES": "chats,transcripts,contacts",
                "SVOD_STATE_DIR": str(Path(path)),
                "CLICKHOUSE_URL": warehouse.url,
            }
        )
        met &= load(warehouse)
        first, fewest = server.stats.report(), Fewest(server).count()
        print(f"     full load: {first['requests']:,} requests, {first['span_s'] / 3600:.2f} virtual hours")
        print(f"     answers: {first['statuses']}")
        met &= verdict("requests / fewest possible", first["requests"] / fewest, 1.1, at_most=True)
        met &= verdict("requests/s, average", first["per_second"], 1.9, at_most=False)
        met &= verdict("requests/s, slow tenth", busy_rate(server.stats.arrivals), 1.9, at_most=False)
        server.reset_stats()
        met &= load(warehouse)
        met &= verdict("requests of an unchanged hour", server.stats.requests, 40, at_most=True)
    return not met


if __name__ == "__main__":
    sys.exit(main())
