"""An emulated Metrika, a warehouse, a Dagster instance and the definitions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from etl_assets.definitions import build_defs
from etl_assets.loading import FEED_TAG
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from sandbox.metrika import TOKEN, Metrika, MetrikaConfig, serve

ZONE = ZoneInfo("Europe/Moscow")
COUNTER = 100001
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
READING = frozenset({"unique_key", "known_events", "days_present"})
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def day(ago: int) -> date:
    """So many days ago in Moscow; 1 is the newest day that is over."""
    return datetime.now(ZONE).date() - timedelta(days=ago)


def small(**changes: Any) -> MetrikaConfig:
    """A quiet site, no limits, quick log requests."""
    config = MetrikaConfig(visits_per_day=40, requests_per_second=0, polls=1)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


@dataclass
class CounterHouse:
    """What a test asks for: runs, rows, what the emulator holds."""

    metrika: Metrika
    warehouse: WarehouseResource
    instance: dg.DagsterInstance
    defs: dg.Definitions

    def run(
        self,
        *names: str,
        ago: tuple[int, int] = (1, 1),
        feed: bool = False,
        checks: bool = False,
        quiet: bool = True,
        tags: dict[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets of the days from `ago[0]` to `ago[1]` days ago in one run.

        `checks`: with the checks that read tables; those that a load answers by itself are always there.
        """
        job = self.defs.resolve_implicit_global_asset_job_def()
        keys = {dg.AssetKey(["metrika", name]) for name in names}
        graph = self.defs.resolve_asset_graph()
        own = {c for c in graph.get_check_keys_for_assets(keys) if c.name not in READING}
        first, last = (str(day(n)) for n in ago)
        tagged = {RANGE_START: first, RANGE_END: last} | ({FEED_TAG: "true"} if feed else {}) | (tags or {})
        subset = job.get_subset(asset_selection=keys, asset_check_selection=None if checks else own)
        return subset.execute_in_process(
            instance=self.instance, tags=tagged, run_config=QUIET if quiet else None, raise_on_error=False
        )

    def load(self, *names: str, **options: Any) -> dg.ExecuteInProcessResult:
        """`run` that must succeed."""
        result = self.run(*names, **options)
        assert result.success, failures(result)
        return result

    def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self.warehouse.query(sql, parameters)

    def ids(self, table: str, ago: int, counter: int = COUNTER) -> list[int]:
        """Ids of a day in the `bi` view, sorted, as often as they stand there."""
        column = {"visits": "visit_id", "hits": "watch_id"}[table]
        sql = f"SELECT {column} FROM bi.{table} WHERE counter_id = {counter} AND date = '{day(ago)}'"
        return sorted(i for (i,) in self.rows(sql))

    def there(self, table: str, ago: int, counter: int = COUNTER) -> list[int]:
        """Ids of a day as the emulator would give them now, sorted."""
        name = {"visits": "visitID", "hits": "watchID"}[table]
        return sorted(row[name] for row in self.metrika.logs.rows(counter, table, day(ago)))

    def metadata(self, name: str) -> dict[str, Any]:
        """Plain metadata of the newest materialization."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(["metrika", name]))
        assert event is not None
        assert event.asset_materialization is not None
        return {n: v.value for n, v in event.asset_materialization.metadata.items()}


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """Failed step -> what the user reads."""
    found: dict[str, str] = {}
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            said = event.step_failure_data.user_failure_data
            error = event.step_failure_data.error
            text = (said.description if said else None) or (error.to_string() if error else "")
            found[event.step_key or ""] = text
    return found


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """`asset/check` -> passed."""
    return {f"{e.asset_key.path[-1]}/{e.check_name}": e.passed for e in result.get_asset_check_evaluations()}


@contextmanager
def counter_house(
    folder: Path, config: MetrikaConfig | None = None, **settings: str
) -> Iterator[CounterHouse]:
    """Everything in this process; `settings` become environment variables."""
    warehouse = WarehouseResource(url=f"chdb://{folder}/warehouse")
    with (
        pytest.MonkeyPatch.context() as patch,
        serve(config or small()) as metrika,
        dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance,
    ):
        # nobody else wants the engine: it stays open
        patch.setattr("resources.clickhouse.engine.LINGER_S", 600)
        environment = {
            "METRIKA_URL": metrika.url,
            "METRIKA_TOKEN": TOKEN,
            "METRIKA_COUNTERS": str(COUNTER),
            "METRIKA_START_DATE": str(day(60)),
            "METRIKA_RATE_PER_SECOND": "0",
            "METRIKA_POLL_S": "0.01",
            "METRIKA_CONVERSIONS_UPLOAD": "false",
            "METRIKA_CONVERSIONS_CREATE_GOAL": "false",
            "SVOD_STATE_DIR": str(folder),
            "CLICKHOUSE_URL": warehouse.url,
        }
        for name, value in (environment | settings).items():
            patch.setenv(name, value)
        try:
            yield CounterHouse(metrika, warehouse, instance, build_defs({"warehouse": warehouse}))
        finally:
            Embedded.at(f"{folder}/warehouse").close()
