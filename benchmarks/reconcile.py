"""How many requests does it take to find 300 deletions in 1,000,000 deals, to see that nothing has changed in
any table, and to read all ids?

Tables are filled with the ids that the portal has: loading two million rows is another benchmark.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import dagster as dg

from benchmarks.common import Sandbox, folder, sandbox, verdict
from etl_assets.bitrix24 import Bitrix24Settings, build_deleted_objects
from etl_assets.bitrix24.comparing import counted_entities
from etl_assets.bitrix24.deleted import Reconcile
from etl_assets.bitrix24.entities import Entity, smart_process
from etl_assets.bitrix24.structure import Structure, table_of
from resources.bitrix24 import Bitrix24Resource
from resources.bitrix24.fields import PortalField
from resources.clickhouse import WarehouseResource
from resources.clickhouse.table import quote

DEALS = 1_000_000
DELETED = 300
SIZES = {"leads": 200_000, "contacts": 300_000, "companies": 120_000, "quotes": 40_000, "invoices": 30_000}
SIZES |= {"deals": DEALS, "activities": 250_000, "process_items": 5_000}
ROWS = {
    "crm_deal": DEALS,
    "crm_lead": SIZES["leads"],
    "crm_contact": SIZES["contacts"],
    "crm_company": SIZES["companies"],
    "crm_quote": SIZES["quotes"],
    "crm_smart_invoice": SIZES["invoices"],
    "crm_activity": SIZES["activities"],
    "crm_dynamic_items_177": SIZES["process_items"],
    "crm_dynamic_items_1038": SIZES["process_items"],
}
SWEEP = DEALS / 2500 * 1.05  # a twentieth for where ranges begin and end


def fill(warehouse: WarehouseResource, entity: Entity, rows: int) -> None:
    """The first ids of the portal (it has no gaps), as if they had been loaded."""
    changed = entity.modified or ""
    fields = (PortalField(entity.key[0], entity.key[0], "integer"), PortalField(changed, changed, "datetime"))
    structure = Structure() if entity.columns else Structure(fields)
    table, _ = warehouse.ensure(table_of(entity, structure, "Europe/Moscow", {}))
    warehouse.command(
        f"INSERT INTO {table.sql_name} ({quote(entity.key[0])}, dt_inserted) "
        f"SELECT toString(number + 1), now() FROM numbers({rows})"
    )
    warehouse.command(
        "INSERT INTO svod.load_log (asset, kind, rows, watermark, finished_at) "
        f"VALUES ('bitrix24/{entity.name}', 'full', {rows}, now64(3), now64(3))"
    )


def compare(portal: Sandbox, path: Path, config: Reconcile) -> tuple[float, int]:
    """(seconds, HTTP requests) of one comparison."""
    portal.control("reset-stats")
    resources = {
        "bitrix24": Bitrix24Resource(
            webhook_url=portal.webhook_url, ca_bundle=portal.ca, state_dir=str(path), bucket_capacity=0
        ),
        "warehouse": WarehouseResource(url=f"chdb://{path}/warehouse"),
    }
    began = time.monotonic()
    with dg.DagsterInstance.ephemeral() as instance:
        asset = build_deleted_objects(Bitrix24Settings())
        run_config = dg.RunConfig(ops={"bitrix24__deleted_objects": config})
        dg.materialize([asset], instance=instance, resources=resources, run_config=run_config)
    return time.monotonic() - began, portal.get("stats")["http_requests"]


def main() -> int:
    """Exit status 1 if a target is missed."""
    deals = Reconcile(entities=["crm_deal"])
    with folder() as path, sandbox(gaps=0, rate_limit=None, operating_mode="absent", **SIZES) as portal:
        warehouse = WarehouseResource(url=f"chdb://{path}/warehouse")
        processes = [smart_process(int(n.rpartition("_")[2]), "") for n in ROWS if "dynamic" in n]
        for entity in [*counted_entities(warehouse), *processes]:
            fill(warehouse, entity, ROWS.get(entity.name, 0))
        compare(portal, path, Reconcile())  # loads the tables that are empty
        names = [e.name for e in counted_entities(warehouse)]
        rows = sum(warehouse.query(f"SELECT count() FROM bi.{quote(name)}")[0][0] for name in names)
        seconds, whole = compare(portal, path, Reconcile())
        print(f"     nothing changed in {rows:,} rows of {len(names)} entities: {seconds:.1f} s")
        seconds, none = compare(portal, path, deals)
        print(f"     no deal deleted: {seconds:.1f} s")
        portal.control("delete", entity="deal", ids=[1 + (n * 7919 * 421) % DEALS for n in range(DELETED)])
        seconds, some = compare(portal, path, deals)
        print(f"     {DELETED} deals deleted: {seconds:.1f} s")
        marked = warehouse.query("SELECT count() FROM bitrix24.deleted_objects")[0][0]
        seconds, swept = compare(portal, path, Reconcile(entities=["crm_deal"], sweep=True))
        print(f"     all ids of the deals read: {seconds:.1f} s")
    met = verdict("requests, nothing changed anywhere", whole, rows // 100_000 + len(names), at_most=True)
    met &= verdict("requests, no deal deleted", none, 2, at_most=True)
    met &= verdict(f"requests, {DELETED} of {DEALS:,} deleted", some, 60, at_most=True)
    met &= verdict("rows marked", marked, DELETED, at_most=False)
    met &= verdict("requests, all ids read", swept, SWEEP, at_most=True)
    return not met


if __name__ == "__main__":
    sys.exit(main())
