"""The whole of TTM on loopback: ticket system, hub, connectors, PostgreSQL, warehouse, definitions."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
import sqlalchemy as sa

from etl_assets.definitions import build_defs
from etl_assets.loading import FEED_TAG
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from resources.postgres import EmbeddedPostgres, with_driver
from resources.ttm.database import TtmDatabase
from resources.ttm.settings import Redaction, Settings
from sandbox.ttm import ARREARS, STOPPED, SystemConfig, TicketSystem, serve
from services.ttm_connector.__main__ import run as run_connector
from services.ttm_connector.config import connector_config
from services.ttm_hub.config import hub_config
from services.ttm_hub.server import Hub

ZONE = ZoneInfo("Europe/Moscow")
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
QUIET = {
    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    "execution": {
        "config": {"retries": {"disabled": {}}}
    },  # steps would wait a minute before the next attempt
}
DAILY = ("tickets", "expires_tickets", "sla_by_unit")
KEY, PASSWORD = "loopback-hub-key", "sandbox0password"


def day(ago: int = 1) -> date:
    """The business day so many days ago."""
    return datetime.now(ZONE).date() - timedelta(days=ago)


class Background:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@contextmanager
def hub(background: Background, settings: dict[str, str]) -> Iterator[Hub]:
    """A running hub on a free port; `settings` as in the environment."""
    started: Future[Hub] = Future()
    ended = asyncio.Event()

    async def live() -> None:
        one = Hub(hub_config(Settings({"TTM_PORT": "0", **settings})))
        async with one.running():
            started.set_result(one)
            await ended.wait()

    living = background.start(live())
    try:
        yield started.result(10)
    finally:
        background.loop.call_soon_threadsafe(ended.set)
        living.result(20)


@contextmanager
def connector(background: Background, settings: dict[str, str], instance: str = "conn-1") -> Iterator[None]:
    """A running connector."""
    config = connector_config(Settings({**settings, "TTM_INSTANCE": instance}))
    stop = asyncio.Event()
    living = background.start(run_connector(config, Redaction(config.secrets), stop))
    try:
        yield
    finally:
        background.loop.call_soon_threadsafe(stop.set)
        living.result(40)


@dataclass
class House:
    """What a test asks for."""

    system: TicketSystem
    database: TtmDatabase
    warehouse: WarehouseResource
    instance: dg.DagsterInstance
    settings: dict[str, str]
    background: Background

    @cached_property
    def defs(self) -> dg.Definitions:
        return build_defs()

    @contextmanager
    def lived_in(self) -> Iterator[None]:
        """The house's settings are those of the environment; steps are tried again at once."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.settings.items():
                patch.setenv(name, value)
            patch.setattr("etl_assets.ttm.assets.RETRY_S", 0)
            patch.setattr("resources.clickhouse.engine.LINGER_S", 600)  # nobody else wants the engine
            yield

    def run(self, *names: str, days: tuple[date, date] | None = None, feed: bool = False) -> Any:
        """Materialize assets of the source in one run, of these days (inclusive) or yesterday."""
        first, last = days or (day(), day())
        tags = {RANGE_START: str(first), RANGE_END: str(last)} | ({FEED_TAG: "true"} if feed else {})
        keys = {dg.AssetKey(["ttm", name]) for name in names}
        job = self.defs.resolve_implicit_global_asset_job_def()
        return job.get_subset(asset_selection=keys).execute_in_process(
            instance=self.instance, tags=tags, run_config=QUIET, raise_on_error=False
        )

    def load(self, *names: str, **options: Any) -> Any:
        """`run` that must succeed."""
        result = self.run(*names, **options)
        assert result.success, failures(result)
        return result

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.warehouse.query(sql)

    def tables(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        return self.database.rows(sql, **parameters)

    def loaded_days(self, name: str = "expires_tickets") -> set[str]:
        return self.instance.get_materialized_partitions(dg.AssetKey(["ttm", name]))

    def forget(self) -> None:
        """Empty all tables and Dagster's memory, as if nothing had been loaded."""
        with self.database.transaction() as connection:
            connection.execute(sa.text("truncate expires_tickets, stopped_tickets, ttm_loads cascade"))
        for database, name in self.rows(
            "SELECT database, name FROM system.tables WHERE database = 'ttm' AND engine LIKE '%MergeTree'"
        ):
            self.warehouse.command(f"TRUNCATE TABLE {database}.`{name}`")
        self.instance.wipe()


def failures(result: Any) -> dict[str, str]:
    """Failed step -> what the user reads."""
    found: dict[str, str] = {}
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            failed = event.step_failure_data
            said = failed.user_failure_data.description if failed.user_failure_data else None
            found[event.step_key] = said or (failed.error.to_string() if failed.error else "")
    return found


@contextmanager
def house(folder: Path, config: SystemConfig | None = None, *, connectors: int = 2) -> Iterator[House]:
    """Everything, in this process."""
    postgres = EmbeddedPostgres(folder / "postgres")
    warehouse = WarehouseResource(url=f"chdb://{folder}/warehouse")
    with ExitStack() as stack:
        system = stack.enter_context(serve(config or SystemConfig(days=3, per_day=30, suspended=5)))
        postgres.start()
        stack.callback(postgres.stop)
        background = Background()
        stack.callback(background.close)
        settings = {
            "TTM_TOKEN": "ttm-test",
            "TTM_KEY": KEY,
            "TTM_FILTER_ARREARS": ARREARS,
            "TTM_FILTER_STOPPED": STOPPED,
            "TTM_START_DATE": str(day(30)),
            "TTM_URL": system.base_url,
            "TTM_EMAIL": "sandbox@example.org",
            "TTM_PASSWORD": PASSWORD,
            "SVOD_POSTGRES_URL": postgres.url_of("operations"),
            "CLICKHOUSE_URL": warehouse.url,
            "SVOD_STATE_DIR": str(folder),
        }
        one = stack.enter_context(hub(background, settings))
        settings["TTM_SERVER"] = f"ws://127.0.0.1:{one.port}"
        users = list((config or SystemConfig()).users.items())
        for number in range(connectors):
            email, password = users[number % len(users)]
            own = {**settings, "TTM_EMAIL": email, "TTM_PASSWORD": password}
            stack.enter_context(connector(background, own, f"conn-{number}"))
        instance = stack.enter_context(
            dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}})
        )
        stack.callback(Embedded.at(f"{folder}/warehouse").close)
        database = TtmDatabase(with_driver(settings["SVOD_POSTGRES_URL"]))
        stack.callback(database.close)
        yield House(system, database, warehouse, instance, settings, background)
