"""Checks that read the tables: they run with every load and ask nobody."""

from collections.abc import Iterator

import dagster as dg

from etl_assets.metrika.assets import asset_key
from etl_assets.metrika.fields import DATABASE, HITS, LOGS, VISITS, Log
from etl_assets.metrika.settings import MetrikaSettings
from resources.clickhouse import WarehouseResource
from resources.clickhouse.table import quote

LOOK_BACK_DAYS = 31
MOST_IDS = 1_000_000  # compared at once: more of them are sampled, so that memory is bounded
KNOWN_SHARE = 0.95  # visits that run past midnight, and events beyond the first 500, are few


def build_checks(settings: MetrikaSettings) -> list[dg.AssetChecksDefinition]:
    return [unique_keys, known_events, _days_present(settings)]


@dg.multi_asset_check(
    name="metrika_unique_keys",
    can_subset=True,
    specs=[
        dg.AssetCheckSpec("unique_key", asset=asset_key(log), description="No id stands under two days.")
        for log in LOGS.values()
    ],
)
def unique_keys(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """Ids are unique within a year; the same id under two days means that a day was loaded wrongly."""
    chosen = {key.asset_key for key in context.selected_asset_check_keys}
    for log in LOGS.values():
        if asset_key(log) not in chosen:
            continue
        twice = 0
        if _exists(warehouse, log.name):
            lately = f"date > (SELECT max(date) FROM {DATABASE}.{log.name}) - {LOOK_BACK_DAYS}"
            some, key = _sample(warehouse, log, lately), f"counter_id, {quote(log.key[-1])}"
            twice = warehouse.query(
                f"SELECT count() FROM (SELECT {key} FROM {DATABASE}.{log.name} WHERE {lately} AND {some} "
                f"GROUP BY {key} HAVING min(date) != max(date))"
            )[0][0]
        yield dg.AssetCheckResult(
            asset_key=asset_key(log),
            check_name="unique_key",
            passed=twice == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"ids_under_two_days": int(twice)},
        )


@dg.asset_check(
    asset=asset_key(VISITS),
    additional_deps=[asset_key(HITS)],
    name="known_events",
    description="Events that visits list are in the log of events: both were loaded of the same days.",
)
def known_events(warehouse: WarehouseResource) -> dg.AssetCheckResult:
    """The share of a day's `watch_ids` without a row in hits of that day."""
    listed = unknown = 0
    if _exists(warehouse, VISITS.name) and _exists(warehouse, HITS.name):
        day = f"(SELECT max(date) FROM {DATABASE}.hits)"
        some = _sample(warehouse, HITS, f"date = {day}")
        listed, unknown = warehouse.query(
            "SELECT count(), countIf((counter_id, watch_id) NOT IN "
            f"(SELECT counter_id, watch_id FROM {DATABASE}.hits WHERE date = {day} AND {some})) FROM ("
            "SELECT counter_id, arrayJoin(watch_ids) AS watch_id "
            f"FROM {DATABASE}.visits FINAL WHERE date = {day}) WHERE {some}"
        )[0]
    share = 1 - unknown / listed if listed else 1.0
    return dg.AssetCheckResult(
        passed=share >= KNOWN_SHARE,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "events_listed": int(listed),
            "events_without_row": int(unknown),
            "share_known": round(share, 4),
        },
    )


def _days_present(settings: MetrikaSettings) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name="metrika_days_present",
        can_subset=True,
        specs=[
            dg.AssetCheckSpec(
                "days_present", asset=asset_key(log), description="Each counter has rows of the newest day."
            )
            for log in LOGS.values()
        ],
    )
    def days_present(
        context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.AssetCheckResult]:
        newest = settings.partitions.get_last_partition_key()
        chosen = {key.asset_key for key in context.selected_asset_check_keys}
        for log in LOGS.values():
            if asset_key(log) in chosen:
                here = _counters(warehouse, log.name, newest or "")
                missing = sorted(set(settings.counters) - here)
                yield dg.AssetCheckResult(
                    asset_key=asset_key(log),
                    check_name="days_present",
                    passed=not missing,
                    severity=dg.AssetCheckSeverity.WARN,
                    metadata={"day": newest or "none", "counters_without_rows": str(missing)},
                )

    return days_present


def _counters(warehouse: WarehouseResource, table: str, day: str) -> set[int]:
    if not day or not _exists(warehouse, table):
        return set()
    sql = f"SELECT DISTINCT counter_id FROM {DATABASE}.{table} WHERE date = {{day:Date}}"
    return {int(counter) for (counter,) in warehouse.query(sql, {"day": day})}


def _exists(warehouse: WarehouseResource, table: str) -> bool:
    sql = "SELECT count() FROM system.tables WHERE database = {d:String} AND name = {t:String}"
    return bool(warehouse.query(sql, {"d": DATABASE, "t": table})[0][0])


def _sample(warehouse: WarehouseResource, log: Log, where: str) -> str:
    """SQL condition that keeps about a million ids, the same in every table; all where there are fewer."""
    rows = warehouse.query(f"SELECT count() FROM {DATABASE}.{log.name} WHERE {where}")[0][0]
    return f"intHash64({quote(log.key[-1])}) % {1 + int(rows) // MOST_IDS} = 0"
