"""How many requests does it take to find 300 deletions in 1,000,000 deals, and how many to find none?

The table is filled with the ids that the portal has: loading a million deals is another benchmark.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import dagster as dg

from benchmarks.common import Sandbox, folder, sandbox, verdict
from etl_assets.bitrix24 import Bitrix24Settings, build_deleted_objects
from etl_assets.bitrix24.deleted import Reconcile
from etl_assets.bitrix24.entities import OBJECTS
from etl_assets.bitrix24.structure import Structure, table_of
from resources.bitrix24 import Bitrix24Resource
from resources.bitrix24.fields import PortalField
from resources.clickhouse import WarehouseResource

DEALS = 1_000_000
DELETED = 300
DEAL = OBJECTS[0]


def fill(warehouse: WarehouseResource, zone: str) -> None:
    """All ids of the portal (it has no gaps), as if they had been loaded."""
    fields = (PortalField("ID", "ID", "integer"), PortalField("DATE_MODIFY", "DATE_MODIFY", "datetime"))
    table, _ = warehouse.ensure(table_of(DEAL, Structure(fields), zone, {}))
    warehouse.command(
        f"INSERT INTO {table.sql_name} SELECT toString(number + 1), now(), now64(3) FROM numbers({DEALS})"
    )
    warehouse.command(
        "INSERT INTO svod.load_log (asset, kind, rows, watermark, finished_at) "
        "VALUES ('bitrix24/crm_deal', 'full', 1000000, now64(3), now64(3))"
    )


def compare(portal: Sandbox, path: Path) -> tuple[float, int]:
    """(seconds, HTTP requests) of one comparison."""
    portal.control("reset-stats")
    settings = Bitrix24Settings()
    resources = {
        "bitrix24": Bitrix24Resource(
            webhook_url=portal.webhook_url, ca_bundle=portal.ca, state_dir=str(path)
        ),
        "warehouse": WarehouseResource(url=f"chdb://{path}/warehouse"),
    }
    began = time.monotonic()
    with dg.DagsterInstance.ephemeral() as instance:
        asset = build_deleted_objects(settings)
        config = dg.RunConfig(ops={"bitrix24__deleted_objects": Reconcile(entities=[DEAL.name])})
        dg.materialize([asset], instance=instance, resources=resources, run_config=config)
    return time.monotonic() - began, portal.get("stats")["http_requests"]


def main() -> int:
    """Exit status 1 if a target is missed."""
    with folder() as path, sandbox(deals=DEALS, gaps=0, rate_limit=[50, 2]) as portal:
        warehouse = WarehouseResource(url=f"chdb://{path}/warehouse")
        fill(warehouse, "Europe/Moscow")
        compare(portal, path)  # the first one also notes the rights
        seconds, none = compare(portal, path)
        print(f"     nothing deleted: {seconds:.1f} s")
        portal.control("delete", entity="deal", ids=[1 + (n * 7919 * 421) % DEALS for n in range(DELETED)])
        seconds, some = compare(portal, path)
        print(f"     {DELETED} deleted: {seconds:.1f} s")
        marked = warehouse.query("SELECT count() FROM bitrix24.deleted_objects")[0][0]
    met = verdict("requests, nothing deleted", none, 2, at_most=True)
    met &= verdict(f"requests, {DELETED} of {DEALS:,} deleted", some, 60, at_most=True)
    met &= verdict("rows marked", marked, DELETED, at_most=False)
    return not met


if __name__ == "__main__":
    sys.exit(main())
