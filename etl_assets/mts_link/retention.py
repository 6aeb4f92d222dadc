"""How long data is kept, by class: rows that are older are deleted every night."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg

from etl_assets.loading import OWNERS
from etl_assets.mts_link.endpoints import BY_NAME, DATED, ENDPOINTS, Endpoint
from etl_assets.mts_link.parents import ASSETS, DATABASE, ParentRows, aware, parent_columns
from etl_assets.mts_link.settings import MtsLinkSettings
from etl_assets.mts_link.tables import SESSIONS
from resources.clickhouse import WarehouseResource
from resources.clickhouse.table import literal, quote
from resources.errors import PermanentSourceError

_TABLES = "SELECT name FROM system.tables WHERE database = {d:String}"
_AT_ONCE = 5_000  # values in one condition
_SESSION_IN = {"visits_stats": "id"}  # rows that name their session in another column than their parent's


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
    deleted = {}
    for endpoint in sorted(
        (*ENDPOINTS, SESSIONS), key=_depth, reverse=True
    ):  # while their parents tell a day
        days = retention.get(endpoint.privacy)
        if days is None or endpoint.name not in there:
            continue
        table, before = f"{DATABASE}.{quote(endpoint.name)}", datetime.now(UTC) - timedelta(days=days)
        found = [_delete(warehouse, table, old) for old in _old(warehouse, endpoint, before)]
        rejected = f"table_name = {literal(f'{DATABASE}.{endpoint.name}')} AND rejected_at < {_at(before)}"
        _delete(warehouse, "svod.rejected_rows", rejected)
        if found:
            deleted[endpoint.name] = sum(found)
    return deleted


def _depth(endpoint: Endpoint) -> int:
    """How many tables stand above this one."""
    return 1 + _depth(BY_NAME[ASSETS[endpoint.parent]]) if endpoint.parent else 0


def _old(warehouse: WarehouseResource, endpoint: Endpoint, before: datetime) -> Iterator[str]:
    """Conditions of rows that are older than `before`: by their columns, else by the day of their parent."""
    own = f"coalesce({', '.join(map(quote, endpoint.ages))})" if endpoint.ages else ""
    if own:
        yield f"{own} < {_at(before)}"
    session = _SESSION_IN.get(endpoint.name)
    if session or endpoint.parent in DATED:
        column = quote(session or parent_columns(endpoint.parent)[-1].column)
        gone = _held_before(warehouse, "sessions" if session else endpoint.parent, before)
        for at in range(0, len(gone), _AT_ONCE):
            listed = ", ".join(map(literal, gone[at : at + _AT_ONCE]))
            yield f"{column} IN ({listed})" + (f" AND {own} IS NULL" if own else "")


def _held_before(warehouse: WarehouseResource, parents: str, before: datetime) -> list[str]:
    try:
        found = ParentRows(warehouse, frozenset()).read(parents)
    except PermanentSourceError:  # they were never loaded
        return []
    return [parent.values[-1] for parent in found if parent.day and aware(parent.day) < before]


def _at(moment: datetime) -> str:
    """As a literal: tables with replicas take no `now()` in a DELETE."""
    return f"toDateTime64('{moment:%Y-%m-%d %H:%M:%S}', 3, 'UTC')"


def _delete(warehouse: WarehouseResource, table: str, old: str) -> int:
    cluster = f" ON CLUSTER {quote(warehouse.cluster)}" if warehouse.cluster else ""
    count = int(warehouse.query(f"SELECT count() FROM {table} WHERE {old}")[0][0])
    if count:
        warehouse.command(f"DELETE FROM {table}{cluster} WHERE {old}")
    return count
