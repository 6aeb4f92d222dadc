"""Checks of the ticket tables: was yesterday loaded to its end, is the list of suspended tickets fresh."""

from datetime import UTC, datetime, time, timedelta
from typing import Any

import dagster as dg

from etl_assets.ttm.assets import asset_key
from etl_assets.ttm.settings import TtmSettings
from etl_assets.ttm.tables import EXPIRED, STOPPED
from resources.clickhouse import WarehouseResource
from resources.postgres import PostgresError
from resources.ttm.database import TtmDatabase
from resources.ttm.resource import TtmDatabaseResource, failure_of

LOADED_BY = time(3)  # in the business zone: until then the night schedule is still trying
STATE = "select * from ttm_loads where table_name = :table and day = :day"
IN_BOTH = """select ticket_number from expires_tickets where add_date = :day order by ticket_number"""


def build_checks(settings: TtmSettings) -> list[dg.AssetChecksDefinition]:
    return [_yesterday(settings), _fresh(settings), _history(settings)]


def _rows(tables: TtmDatabase, sql: str, **parameters: Any) -> list[dict[str, Any]]:
    try:
        return tables.rows(sql, **parameters)
    except PostgresError as error:
        raise failure_of(error, "The ticket tables could not be read") from None


def _yesterday(settings: TtmSettings) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(EXPIRED),
        name="yesterday_complete",
        description="The last business day is loaded to its end by 03:00.",
    )
    def yesterday_complete(ttm_database: TtmDatabaseResource) -> dg.AssetCheckResult:
        now = datetime.now(settings.calendar.business)
        day = now.date() - timedelta(days=1 if now.time() >= LOADED_BY else 2)
        found = _rows(ttm_database.tables, STATE, table=EXPIRED.name, day=str(day))
        state = found[0] if found else {"complete_at": None, "problem": "it was never loaded"}
        return dg.AssetCheckResult(
            passed=state["complete_at"] is not None,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={"day": str(day), "problem": state["problem"] or "none"},
        )

    return yesterday_complete


def _fresh(settings: TtmSettings) -> dg.AssetChecksDefinition:
    allowed = timedelta(seconds=3 * settings.interval_s)

    @dg.asset_check(
        asset=asset_key(STOPPED),
        name="list_is_fresh",
        description=f"The last complete reading of the list is not older than {allowed}.",
    )
    def list_is_fresh(ttm_database: TtmDatabaseResource) -> dg.AssetCheckResult:
        found = _rows(ttm_database.tables, STATE, table=STOPPED.name, day="")
        complete_at = found[0]["complete_at"] if found else None
        age = datetime.now(UTC) - complete_at if complete_at else None
        return dg.AssetCheckResult(
            passed=age is not None and age <= allowed,
            severity=dg.AssetCheckSeverity.ERROR,
            metadata={
                "age_seconds": round(age.total_seconds()) if age else -1,
                "problem": (found[0]["problem"] if found else "it was never loaded") or "none",
            },
        )

    return list_is_fresh


def _history(settings: TtmSettings) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset_key(EXPIRED),
        name="in_both_databases",
        description="The rows of the newest day in PostgreSQL are in the warehouse too.",
    )
    def in_both_databases(
        ttm_database: TtmDatabaseResource, warehouse: WarehouseResource
    ) -> dg.AssetCheckResult:
        newest = _rows(ttm_database.tables, "select max(add_date) as day from expires_tickets")[0]["day"]
        rows = _rows(ttm_database.tables, IN_BOTH, day=newest) if newest else []
        here = {row["ticket_number"] for row in rows}
        kept: set[int] = set()
        if newest and warehouse.columns(EXPIRED):
            found = warehouse.query(
                f"SELECT ticket_number FROM {EXPIRED.sql_name} WHERE add_date = {{day:Date}}", {"day": newest}
            )
            kept = {int(number) for (number,) in found}
        return dg.AssetCheckResult(
            passed=here <= kept,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"day": str(newest), "rows": len(here), "missing": len(here - kept)},
        )

    return in_both_databases
