"""The whole product in a temporary folder: portal, warehouse, Dagster instance and definitions."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from etl_assets.bitrix24.settings import bitrix24_resource, bitrix24_settings
from etl_assets.bitrix24.smart_processes import SmartProcesses
from etl_assets.bitrix24.universal_lists import UniversalLists
from etl_assets.definitions import PROJECT, build_defs
from etl_assets.loading import FEED_TAG
from resources.bitrix24 import Bitrix24Resource
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from sandbox.bitrix24 import Portal, PortalConfig, serve

ZONE = ZoneInfo("Europe/Moscow")
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def small_portal(**changes: Any) -> PortalConfig:
    """A few rows of everything, no rate limit, a clock that stands still at the present."""
    config = PortalConfig(
        deals=60,
        leads=20,
        contacts=40,
        companies=20,
        quotes=12,
        invoices=12,
        process_items=12,
        activities=20,
        clock_start=int(time.time()),
        clock_factor=0,
        rate_limit=None,
    )
    return replace(config, **changes)


def today() -> date:
    """The day of the newest partition."""
    return datetime.now(ZONE).date()


def day(ago: int) -> str:
    """Partition key of so many days ago."""
    return str(today() - timedelta(days=ago))


def key(name: str) -> dg.AssetKey:
    return dg.AssetKey(["bitrix24", name])


@dataclass
class House:
    """What a test asks for: runs, rows, requests."""

    portal: Portal
    warehouse: WarehouseResource
    bitrix24: Bitrix24Resource
    instance: dg.DagsterInstance
    defs: dg.Definitions

    def run(
        self,
        *names: str,
        days: tuple[str, str] | None = None,
        feed: bool = False,
        checks: bool = False,
        quiet: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets in one run, of the partitions `days` (inclusive) or today's."""
        first, last = days or (day(0), day(0))
        job = self.defs.resolve_implicit_global_asset_job_def()
        keys = {key(name) for name in names}
        graph = self.defs.resolve_asset_graph()
        # the checks that assets answer by themselves belong to their steps; the others are asked for
        asked = (
            None
            if checks
            else {c for k in keys for c in graph.get_check_keys_for_assets({k}) if c.name in OWN}
        )
        tagged = {RANGE_START: first, RANGE_END: last} | ({FEED_TAG: "true"} if feed else {})
        return job.get_subset(asset_selection=keys, asset_check_selection=asked).execute_in_process(
            instance=self.instance, tags=tagged, run_config=QUIET if quiet else None, raise_on_error=False
        )

    def load(self, *names: str, **options: Any) -> dg.ExecuteInProcessResult:
        """`run` that must succeed."""
        result = self.run(*names, **options)
        assert result.success, failures(result)
        return result

    def feed(self, *names: str) -> dg.ExecuteInProcessResult:
        """A tick of the change feed that must succeed; a full load for what was never loaded."""
        return self.load(*names, feed=True)

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self.warehouse.query(sql, parameters)

    def value(self, sql: str, **parameters: Any) -> Any:
        return self.rows(sql, **parameters)[0][0]

    def ids(self, table: str, column: str = "ID") -> list[int]:
        """Numeric ids of a view, sorted, as often as they stand there."""
        return [r[0] for r in self.rows(f"SELECT toInt64({column}) AS i FROM bi.{table} ORDER BY i")]

    def live(self, entity: str | int) -> list[int]:
        """Ids that the portal would list."""
        return sorted(row["ID"] for row in self.portal.expected(entity, "id"))

    @contextmanager
    def counted(self) -> Iterator[dict[str, Any]]:
        """The portal's statistics of the block, filled in at its end."""
        self.portal.reset_stats()
        found: dict[str, Any] = {}
        yield found
        found.update(self.portal.stats())

    def forget(self) -> None:
        """Empty all tables and logs, as if nothing had been loaded."""
        tables = self.rows(
            "SELECT database, name FROM system.tables "
            "WHERE database IN ('bitrix24', 'svod') AND engine LIKE '%MergeTree'"
        )
        for database, name in tables:
            self.warehouse.command(f"TRUNCATE TABLE {database}.`{name}`")

    def refresh_smart_processes(self) -> None:
        """Let the component read the portal, and build the definitions anew."""
        component = SmartProcesses(settings=bitrix24_settings, portal=lambda: self.bitrix24)
        asyncio.run(component.refresh_state(PROJECT))
        self.defs = build_defs()

    def refresh_universal_lists(self) -> None:
        """The same for universal lists."""
        component = UniversalLists(settings=bitrix24_settings, portal=lambda: self.bitrix24)
        asyncio.run(component.refresh_state(PROJECT))
        self.defs = build_defs()

    def metadata(self, name: str) -> dict[str, Any]:
        """Plain metadata of the newest materialization."""
        event = self.instance.get_latest_materialization_event(key(name))
        assert event is not None
        assert event.asset_materialization is not None
        return {n: v.value for n, v in event.asset_materialization.metadata.items()}


OWN = frozenset({"rejected_rows", "schema_drift"})


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Failed step -> what the user reads."""
    found: dict[str, str] = {}
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            said = event.step_failure_data.user_failure_data
            error = event.step_failure_data.error
            found[event.step_key or ""] = (said.description if said else None) or (
                error.to_string() if error else ""
            )
    return found


@contextmanager
def house(
    folder: Path, config: PortalConfig | None = None, *, days: int = 3, lasting: bool = False, **settings: Any
) -> Iterator[House]:
    """A portal and everything that loads it, in this process.

    `days`: how many days there are before today's partition. `lasting`: Dagster keeps its history in the
    folder, which is what keeps smart processes; otherwise in memory. `settings` become environment variables.
    """
    folder.mkdir(parents=True, exist_ok=True)
    warehouse = WarehouseResource(url=f"chdb://{folder}/warehouse")
    environment = {
        "BITRIX24_START_DATE": day(days),
        "BITRIX24_RATE_CAPACITY": "0",
        "SVOD_STATE_DIR": str(folder),
        "CLICKHOUSE_URL": warehouse.url,
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        serve(config or small_portal()) as portal,
        dagster(folder, lasting) as instance,
    ):
        # nobody else wants the engine: it stays open
        patch.setattr("resources.clickhouse.engine.LINGER_S", 600)
        for name, value in (environment | settings).items():
            patch.setenv(name, value if isinstance(value, str) else json.dumps(value))
        patch.setenv("BITRIX24_WEBHOOK_URL", portal.webhook_url)
        try:
            yield House(portal, warehouse, bitrix24_resource(), instance, build_defs())
        finally:
            Embedded.at(f"{folder}/warehouse").close()


def dagster(folder: Path, lasting: bool) -> dg.DagsterInstance:
    quiet = {"telemetry": {"enabled": False}}
    if lasting:
        return dg.DagsterInstance.local_temp(str(folder), overrides=quiet)
    return dg.DagsterInstance.ephemeral(settings=quiet)
