"""How long does a night of 2,000 closed tickets take, against what the ticket system itself needs for it?

Ticket system, hub and two connectors run in processes of their own, as in production. Needed is the ticket
system's latency times its calls: those of the list come one after another, those of tickets as many at a time
as the connectors may make. The run is that of the schedule `ttm_night`, from its start to its success.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg

from benchmarks.common import ROOT, folder, verdict
from resources.postgres import EmbeddedPostgres

TICKETS, LATENCY_S, CAPACITY, CONNECTORS = 2000, 0.25, 8, 2
PAGE = 100
USERS = (("sandbox@example.org", "sandbox0password"), ("second@example.org", "sandbox0second"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(settings: Mapping[str, str], ready: str, *command: str) -> Iterator[None]:
    """A process of the project that answers at `ready`."""
    environment = {**os.environ, **settings}
    child = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(ready, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        else:
            raise RuntimeError(f"{' '.join(command)} did not start")
        yield
    finally:
        child.terminate()
        child.wait(40)


def settings_of(path: Path, postgres: EmbeddedPostgres, system: int, hub: int) -> dict[str, str]:
    return {
        "TTM_TOKEN": "bench",
        "TTM_KEY": "bench-key-of-the-hub",
        "TTM_PORT": str(hub),
        "TTM_SERVER": f"ws://127.0.0.1:{hub}",
        "TTM_URL": f"http://127.0.0.1:{system}",
        "TTM_CAPACITY": str(CAPACITY),
        "TTM_FILTER_ARREARS": "sandbox-arrears",
        "TTM_FILTER_STOPPED": "sandbox-stopped",
        "SVOD_POSTGRES_URL": postgres.url_of("operations"),
        "CLICKHOUSE_URL": f"chdb://{path}/warehouse",
        "SVOD_STATE_DIR": str(path),
    }


def night(day: str) -> tuple[float, int]:
    """(seconds of the run, rows written)."""
    from etl_assets.definitions import build_defs

    job = build_defs().resolve_job_def("ttm_night")
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        began = time.monotonic()
        result = job.execute_in_process(
            instance=instance,
            partition_key=day,
            run_config={"loggers": {"console": {"config": {"log_level": "ERROR"}}}},
        )
        took = time.monotonic() - began
        key = dg.AssetKey(["ttm", "expires_tickets"])
        made = result.asset_materializations_for_node("ttm_business_day")
        rows = next(m.metadata["rows_loaded"] for m in made if m.asset_key == key)
        return took, int(str(rows.value))


def main() -> int:
    """Exit status 1 if the target is missed."""
    system, hub, *healths = (free_port() for _ in range(2 + CONNECTORS))
    day = str(datetime.now(ZoneInfo("Europe/Moscow")).date() - timedelta(days=1))
    with folder() as path:
        postgres = EmbeddedPostgres(path / "postgres")
        postgres.start()
        settings = settings_of(path, postgres, system, hub)
        os.environ.update(settings)
        serve = ["sandbox", "ttm", "serve", "--port", str(system), "--days", "1"]
        serve += ["--per-day", str(TICKETS), "--latency", str(LATENCY_S)]
        try:
            with (
                process({}, f"http://127.0.0.1:{system}/stats", *serve),
                process(settings, f"http://127.0.0.1:{hub}/metrics", "services.ttm_hub"),
                connectors(settings, healths),
            ):
                took, rows = night(day)
        finally:
            postgres.stop()
    listing = (2 + -(-TICKETS // PAGE)) * LATENCY_S  # login, filter, pages
    needed = listing + -(-TICKETS // (CAPACITY * CONNECTORS)) * LATENCY_S
    print(f"     {rows} rows in {took:.1f} s; latency and concurrency alone need {needed:.1f} s")
    met = [
        verdict("night run / needed", took / needed, 1.2, at_most=True),
        verdict("tickets in the table", rows / TICKETS, 1, at_most=False),
    ]
    return not all(met)


@contextmanager
def connectors(settings: Mapping[str, str], healths: list[int]) -> Iterator[None]:
    """Connectors with a user each; ready when both are connected."""
    with ExitStack() as stack:
        for number, health in enumerate(healths):
            email, password = USERS[number]
            own = {"TTM_EMAIL": email, "TTM_PASSWORD": password, "TTM_INSTANCE": f"bench-{number}"}
            ready = f"http://127.0.0.1:{health}/"
            command = ("services.ttm_connector", "--health-port", str(health))
            stack.enter_context(process({**settings, **own}, ready, *command))
        yield


if __name__ == "__main__":
    sys.exit(main())
