"""Analyses of MTS Link as views over the loaded tables, each an asset with its definition and a plot."""

from datetime import date
from typing import Any

import dagster as dg

from etl_assets.loading import OWNERS, PLOT_DAYS, plot_days
from etl_assets.mts_link.endpoints import BY_NAME, PRIVACY
from etl_assets.mts_link.marts_sql import MARTS, Mart
from etl_assets.mts_link.parents import DATABASE
from etl_assets.mts_link.settings import MtsLinkSettings
from etl_assets.mts_link.tables import ERRORS, READS, SESSIONS, table_of
from resources.clickhouse import WarehouseResource
from resources.clickhouse.table import literal, quote

MARTS_DATABASE = "mts_link_marts"


def build_marts(settings: MtsLinkSettings) -> list[dg.AssetsDefinition]:
    """All analyses. One over another comes after it, as the list has them."""
    return [_build(mart, settings) for mart in MARTS]


def _build(mart: Mart, settings: MtsLinkSettings) -> dg.AssetsDefinition:
    others = [other.name for other in MARTS if f"{MARTS_DATABASE}.{other.name}" in mart.sql]
    sources = [SESSIONS.name, *BY_NAME]
    classes = sorted({(BY_NAME.get(t) or SESSIONS).privacy for t in mart.tables if t in sources})
    off = [c for c in classes if c not in settings.classes]
    empty = f"  \n**Empty** while the class `{'`, `'.join(off)}` is off." if off else ""
    personal = any(not PRIVACY[c].on or c in ("staff", "attendance") for c in classes)
    sql = mart.sql.replace("{zone}", settings.zone)

    @dg.asset(
        key=[MARTS_DATABASE, mart.name],
        deps=[
            *(dg.AssetKey([DATABASE, table]) for table in mart.tables),
            *(dg.AssetKey([MARTS_DATABASE, name]) for name in others),
        ],
        group_name=DATABASE,
        kinds={"clickhouse", "view"},
        owners=OWNERS,
        tags={"source": DATABASE, "mts_link/cadence": "nightly"} | ({"pii": ""} if personal else {}),
        description=f"{mart.about}{empty}\n\nA view, as fresh as its tables. Days are of {settings.zone}.",
        metadata={
            "dagster/table_name": f"{MARTS_DATABASE}.{mart.name}",
            "definition": dg.MetadataValue.md(f"```sql\n{sql}\n```"),
        },
    )
    def _mart(context: dg.AssetExecutionContext, warehouse: WarehouseResource) -> dg.MaterializeResult:
        make_view(warehouse, mart, sql, settings.zone)
        return _shown(warehouse, mart)

    return _mart


def make_view(warehouse: WarehouseResource, mart: Mart, sql: str, zone: str) -> None:
    """Create the view, or put its present definition in place of the old one.

    Its tables are made if they are not there: those of a class that is off have no rows.
    """
    for name in mart.tables:
        endpoint = SESSIONS if name == SESSIONS.name else BY_NAME[name]
        warehouse.ensure(table_of(endpoint, zone))
    for table in (READS, ERRORS):
        warehouse.ensure(table)
    cluster = f" ON CLUSTER {quote(warehouse.cluster)}" if warehouse.cluster else ""
    warehouse.command(f"CREATE DATABASE IF NOT EXISTS {MARTS_DATABASE}{cluster}")
    view = f"{MARTS_DATABASE}.{quote(mart.name)}{cluster}"
    warehouse.command(f"CREATE OR REPLACE VIEW {view} AS {sql} COMMENT {literal(mart.about)}")


def _shown(warehouse: WarehouseResource, mart: Mart) -> dg.MaterializeResult:
    """Rows, columns, and a plot of the newest days."""
    name = f"{MARTS_DATABASE}.{mart.name}"
    listed = "SELECT name, type FROM system.columns WHERE database = {d:String} AND table = {t:String}"
    columns = warehouse.query(f"{listed} ORDER BY position", {"d": MARTS_DATABASE, "t": mart.name})
    metadata: dict[str, Any] = {
        "dagster/row_count": int(warehouse.query(f"SELECT count() FROM {name}")[0][0]),
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(n, t) for n, t in columns]),
    }
    if mart.day and (days := _by_day(warehouse, mart, name)):
        metadata["by_day"] = dg.MetadataValue.md(plot_days(days))
    return dg.MaterializeResult(metadata=metadata)


def _by_day(warehouse: WarehouseResource, mart: Mart, name: str) -> list[tuple[date, int]]:
    found = warehouse.query(
        f"SELECT toDate({mart.day}) AS day, toInt64(ifNull({mart.value}, 0)) FROM {name} "
        f"WHERE {mart.day} IS NOT NULL GROUP BY day ORDER BY day DESC LIMIT {PLOT_DAYS}"
    )
    return [(day, int(value)) for day, value in reversed(found)]
