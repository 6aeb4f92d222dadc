"""How long data is kept, by class: rows that are older are deleted every night."""

from collections.abc import Mapping

import dagster as dg

from etl_assets.loading import OWNERS
from etl_assets.mts_link.endpoints import ENDPOINTS, Endpoint
from etl_assets.mts_link.parents import DATABASE
from etl_assets.mts_link.settings import MtsLinkSettings
from resources.clickhouse import WarehouseResource
from resources.clickhouse.table import quote

# When a row came into being, by the first of these that its table has.
_BORN = (
    "createdAtMs",
    "createAt",
    "createdAt",
    "registerDate",
    "startsAt",
    "startedAt",
    "startTime",
    "shownAt",
    "raisedAt",
    "reactedAt",
    "eventSessionEndsAt",
)
_TABLES = "SELECT name FROM system.tables WHERE database = {d:String}"


def born(endpoint: Endpoint) -> str | None:
    """The column that tells a row's age; None for tables that show the present (people, settings)."""
    columns = {c.column for c in endpoint.columns}
    return next((name for name in _BORN if name in columns), None) if endpoint.strategy != "list" else None


def build_retention(settings: MtsLinkSettings) -> dg.AssetsDefinition:
    """The asset `mts_link/retention`: its materializations are the record of what was deleted."""
    chosen = ", ".join(f"`{name}` {days} days" for name, days in settings.retention.items()) or "none"

    @dg.asset(
        key=[DATABASE, "retention"],
        group_name=DATABASE,
        kinds={"clickhouse"},
        owners=OWNERS,
        pool=DATABASE,
        tags={"source": DATABASE, "mts_link/cadence": "nightly"},
        description="Deletes rows of a class that are older than MTS_LINK_RETENTION_DAYS allows, from its "
        f"tables and from svod.rejected_rows.\n\n**Chosen** {chosen}.",
    )
    def _retention(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        deleted = delete_old(warehouse, settings.retention)
        return dg.MaterializeResult(metadata={"rows_deleted": sum(deleted.values()), **deleted})

    return _retention


def delete_old(warehouse: WarehouseResource, retention: Mapping[str, int]) -> dict[str, int]:
    """Table -> rows deleted, of the classes that have a limit."""
    there = {row[0] for row in warehouse.query(_TABLES, {"d": DATABASE})} if retention else set()
    cluster = f" ON CLUSTER {quote(warehouse.cluster)}" if warehouse.cluster else ""
    deleted = {}
    for endpoint in ENDPOINTS:
        days, column = retention.get(endpoint.privacy), born(endpoint)
        if days is None or column is None or endpoint.name not in there:
            continue
        table, old = f"{DATABASE}.{quote(endpoint.name)}", f"{quote(column)} < now() - INTERVAL {days} DAY"
        count = int(warehouse.query(f"SELECT count() FROM {table} WHERE {old}")[0][0])
        if count:
            warehouse.command(f"DELETE FROM {table}{cluster} WHERE {old}")
        warehouse.command(
            f"DELETE FROM svod.rejected_rows{cluster} WHERE table_name = '{DATABASE}.{endpoint.name}' "
            f"AND rejected_at < now() - INTERVAL {days} DAY"
        )
        deleted[endpoint.name] = count
    return deleted
