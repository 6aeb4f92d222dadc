"""MTS Link in a temporary folder: an organisation, a warehouse, Dagster, and what the tables should hold."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from etl_assets import mts_link
from etl_assets.loading import FEED_TAG
from etl_assets.mts_link.settings import mts_link_resource, mts_link_settings
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from resources.http import install_log_redaction
from sandbox.mts_link import OrgConfig, Server, serve
from schedules.mts_link import build_schedules
from tests.etl_assets.house import QUIET, RANGE_END, RANGE_START, failures

ZONE = ZoneInfo("Europe/Moscow")
DAYS = 3  # partitions before today's
ALL = "chats,transcripts,contacts"


class Hurried:
    """Time as it is, with sleeps of no length."""

    def time(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.002))


def small_org(**changes: Any) -> OrgConfig:
    """A few of everything, no rate limit, a clock that stands still at the present."""
    base = OrgConfig(rate=None, clock_start=int(time.time()), clock_factor=0)
    base = replace(base, sessions=20, staff=8, contacts=12)
    return replace(base, **changes)


def day(ago: int) -> str:
    """Partition key of so many days ago."""
    return str(datetime.now(ZONE).date() - timedelta(days=ago))


@dataclass
class OrgHouse:
    """What a test asks for: runs, rows, requests."""

    server: Server
    warehouse: WarehouseResource
    instance: dg.DagsterInstance
    defs: dg.Definitions

    def run(
        self,
        *names: str,
        feed: str | None = "true",
        days: tuple[str, str] | None = None,
        checks: bool = True,
    ) -> dg.ExecuteInProcessResult:
        """Materialize assets (all of the schedules without names) in one run."""
        first, last = days or (day(DAYS), day(0))
        job = self.defs.resolve_implicit_global_asset_job_def()
        graph = self.defs.resolve_asset_graph()
        keys = {dg.AssetKey(["mts_link", n]) for n in names} or {
            k
            for k in graph.materializable_asset_keys
            if k.path[0] == "mts_link" and "svod/by_hand" not in graph.get(k).tags
        }
        tags = {RANGE_START: first, RANGE_END: last} | ({FEED_TAG: feed} if feed else {})
        return job.get_subset(asset_selection=keys).execute_in_process(
            instance=self.instance, tags=tags, run_config=QUIET, raise_on_error=False
        )

    def load(self, *names: str, **options: Any) -> dg.ExecuteInProcessResult:
        """`run` that must succeed."""
        result = self.run(*names, **options)
        assert result.success, failures(result)
        return result

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.warehouse.query(sql)

    def value(self, sql: str) -> Any:
        return self.rows(sql)[0][0]

    def keys(self, table: str, *columns: str) -> list[tuple[str, ...]]:
        """Key values of a view, sorted, as often as they stand there."""
        chosen = ", ".join(f"toString({c})" for c in columns)
        return sorted(self.rows(f"SELECT {chosen} FROM bi.{table}"))

    @contextmanager
    def counted(self) -> Iterator[dict[str, Any]]:
        """The server's statistics of the block, filled in at its end."""
        self.server.reset_stats()
        found: dict[str, Any] = {}
        yield found
        found.update(self.server.stats.report())

    def metadata(self, name: str) -> dict[str, Any]:
        """Plain metadata of the newest materialization."""
        event = self.instance.get_latest_materialization_event(dg.AssetKey(["mts_link", name]))
        assert event is not None
        assert event.asset_materialization is not None
        return {n: v.value for n, v in event.asset_materialization.metadata.items()}


def definitions() -> dg.Definitions:
    """This source alone."""
    install_log_redaction()
    settings = mts_link_settings()
    jobs, schedules = build_schedules(settings)
    return dg.Definitions(
        assets=[*mts_link.build_assets(settings), *mts_link.table_specs(settings)],
        jobs=jobs,
        schedules=schedules,
        resources={
            "mts_link": mts_link_resource(),
            "warehouse": WarehouseResource(url=dg.EnvVar("CLICKHOUSE_URL").get_value() or ""),
        },
        executor=dg.in_process_executor,
    )


@contextmanager
def org_house(
    folder: Path, config: OrgConfig | None = None, *, classes: str = ALL, **settings: str
) -> Iterator[OrgHouse]:
    """An organisation and what loads it, in this process. `settings` become environment variables."""
    folder.mkdir(parents=True, exist_ok=True)
    warehouse = WarehouseResource(url=f"chdb://{folder}/warehouse")
    environment = {
        "MTS_LINK_API_TOKEN": "sandbox-key",
        "MTS_LINK_RATE": "0",
        "MTS_LINK_CLASSES": classes,
        "MTS_LINK_START_DATE": day(DAYS),
        "SVOD_STATE_DIR": str(folder),
        "CLICKHOUSE_URL": warehouse.url,
    }
    quiet = {"telemetry": {"enabled": False}}
    with (
        pytest.MonkeyPatch.context() as patch,
        serve(config or small_org()) as server,
        dg.DagsterInstance.ephemeral(settings=quiet) as instance,
    ):
        patch.setattr("resources.clickhouse.engine.LINGER_S", 600)
        patch.setattr("resources.mts_link.CLOCK", Hurried())
        patch.setattr("etl_assets.mts_link.assets.RETRY", None)
        patch.setenv("MTS_LINK_URL", server.url)
        for name, value in (environment | settings).items():
            patch.setenv(name, value)
        try:
            yield OrgHouse(server, warehouse, instance, definitions())
        finally:
            Embedded.at(f"{folder}/warehouse").close()
