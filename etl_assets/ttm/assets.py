"""The ticket system's assets: the tables of a business day, loaded together; the list of the suspended."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg

from etl_assets.loading import FEED_TAG, OWNERS, Bounds, check_specs, column_schema, report
from etl_assets.partitions import days_of
from etl_assets.ttm.day import DayLoader, DayResult, incomplete
from etl_assets.ttm.settings import TtmSettings
from etl_assets.ttm.stopped import keep_history, read_list
from etl_assets.ttm.tables import DATABASE, EXPIRED, STOPPED, TABLES, TICKETS, UNITS
from resources.clickhouse import Table, WarehouseResource
from resources.ttm.resource import TtmDatabaseResource, TtmHubResource

NIGHT_CRON = "5-55/10 0-2 * * *"
NIGHT_ENDS = "0 3 * * *"
DAILY = (TICKETS, EXPIRED, UNITS)
ABOUT = {
    TICKETS.name: (
        "Тикеты из списка просроченных, как их отдала система: основные поля и весь JSON.\n\n"
        "**Grain** one row per ticket; the version read last wins.  \n"
        "**Source** `ticket.list` (saved filter TTM_FILTER_ARREARS) and `ticket.get` through the hub."
    ),
    EXPIRED.name: (
        "Разбор SLA закрытых тикетов: кто ответственный за просрочку, отчёт, момент превышения. "
        "Таблица `expires_tickets` в PostgreSQL (строка на тикет, последнее закрытие) и история здесь.\n\n"
        "**Grain** one row per closing of a ticket, key ticket_number + add_date.  \n"
        "**Rows** tickets whose last task ended on the day; waiting for the client is not counted, "
        "reaching the limit is a breach.  \n"
        "**Source** the tickets of `ttm/tickets`, analysed by `resources/ttm/analysis.py`."
    ),
    UNITS.name: (
        "Учтённое время каждой группы по каждому закрытию тикета; на какой группе и когда превышен SLA. "
        "В PostgreSQL время групп лежит в `expires_ticket_units`.\n\n"
        "**Grain** one row per closing and unit, key ticket_number + add_date + unit.  \n"
        "**Source** the tickets of `ttm/tickets`, analysed by `resources/ttm/analysis.py`."
    ),
    STOPPED.name: (
        "Приостановленные тикеты: кто приостановил, кто просил, почему, до какого времени. "
        "Таблица `stopped_tickets` в PostgreSQL: только нынешние; здесь и ушедшие, с `left_at`.\n\n"
        "**Grain** one row per waiting task.  \n"
        "**Source** `ticket.list` (saved filter TTM_FILTER_STOPPED) and `ticket.get` through the hub."
    ),
}
RETRY_S = 60.0  # before the second attempt of a step; the clock makes further ones
PERSONAL = frozenset({TICKETS.name, EXPIRED.name, STOPPED.name})


def asset_key(table: Table) -> dg.AssetKey:
    return dg.AssetKey([DATABASE, table.name])


def partitions(settings: TtmSettings) -> dg.DailyPartitionsDefinition:
    """Business days that are over: today's tickets are still being closed."""
    return dg.DailyPartitionsDefinition(settings.start_date, timezone=settings.business_zone)


def build_assets(settings: TtmSettings) -> list[dg.AssetsDefinition]:
    return [_build_day(settings), _build_stopped(settings)]


def _tags(table: Table) -> dict[str, str]:
    return {"source": DATABASE} | ({"pii": ""} if table.name in PERSONAL else {})


def _kinds(table: Table) -> set[str]:
    return {"ttm", "clickhouse"} | ({"postgres"} if table in (EXPIRED, STOPPED) else set())


def _metadata(table: Table) -> dict[str, Any]:
    return {"dagster/table_name": table.full_name, "dagster/column_schema": column_schema(table)}


def _build_day(settings: TtmSettings) -> dg.AssetsDefinition:
    nightly = dg.FreshnessPolicy.cron(
        deadline_cron=NIGHT_ENDS, lower_bound_delta=timedelta(hours=3), timezone=settings.business_zone
    )
    freshness = (
        f"\n\n**Partition** business day ({settings.business_zone}); any past day may be loaded again.  \n"
        f"**Freshness** `{NIGHT_CRON}` until yesterday is complete, by 03:00."
    )
    specs = [
        dg.AssetSpec(
            asset_key(table),
            description=ABOUT[table.name] + freshness,
            group_name=DATABASE,
            kinds=_kinds(table),
            owners=OWNERS,
            tags=_tags(table),
            metadata=_metadata(table),
            freshness_policy=nightly,
        )
        for table in DAILY
    ]

    @dg.multi_asset(
        name="ttm_business_day",
        specs=specs,
        can_subset=True,
        partitions_def=partitions(settings),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=DATABASE,
        check_specs=[spec for table in DAILY for spec in check_specs(asset_key(table))],
        retry_policy=dg.RetryPolicy(
            max_retries=1, delay=RETRY_S, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
        ),
    )
    def ttm_business_day(
        context: dg.AssetExecutionContext,
        ttm_hub: TtmHubResource,
        ttm_database: TtmDatabaseResource,
        warehouse: WarehouseResource,
    ) -> Iterator[dg.MaterializeResult]:
        chosen = [t for t in DAILY if asset_key(t) in context.selected_asset_keys]
        days = [date.fromisoformat(key) for key in days_of(context)]
        wanted = _unloaded(context, chosen, days) if FEED_TAG in context.run.tags else days
        warehouse.warm_up()
        bounds = Bounds(settings.calendar.window(days[0])[0], settings.calendar.window(days[-1])[1])
        with DayLoader(context, settings, warehouse, ttm_database.tables, chosen) as loader:
            results, failure = _load_days(loader, ttm_hub, wanted)
            loaded = loader.finish(bounds)
        if failure:
            _keep_complete_days(context, chosen, results)
            raise failure
        for table in chosen:
            day_column = {EXPIRED.name: "add_date", TICKETS.name: "business_date"}.get(table.name)
            answer = report(
                context, warehouse, loaded[table.name], day_column=day_column, asset=asset_key(table)
            )
            yield _with_facts(context, answer, table, results)

    return ttm_business_day


def _unloaded(context: dg.AssetExecutionContext, chosen: Sequence[Table], days: list[date]) -> list[date]:
    """Days that were never loaded to their end: what a closed day holds does not change any more."""
    done = [context.instance.get_materialized_partitions(asset_key(table)) for table in chosen]
    return [day for day in days if not all(str(day) in keys for keys in done)]


def _load_days(
    loader: DayLoader, hub: TtmHubResource, days: Sequence[date]
) -> tuple[list[DayResult], dg.Failure | None]:
    """What the days brought, and the failure to raise once what was read is written.

    Single tickets that fail stop nothing; a day without a list ends the run, since the next would fail too.
    """
    results: list[DayResult] = []
    if not days:
        return results, None
    with hub.client() as client:
        for day in days:
            try:
                results.append(loader.load(client, day, hub.concurrency))
            except dg.Failure as failure:
                return results, failure
    return results, incomplete(results) if any(result.problem for result in results) else None


def _keep_complete_days(
    context: dg.AssetExecutionContext, chosen: Sequence[Table], results: list[DayResult]
) -> None:
    """A day of a range that is complete counts, whatever happened to the others."""
    for result in results:
        if result.complete:
            for table in chosen:
                context.log_event(dg.AssetMaterialization(asset_key(table), partition=str(result.day)))


def _with_facts(
    context: dg.AssetExecutionContext,
    answer: dg.MaterializeResult,
    table: Table,
    results: list[DayResult],
) -> dg.MaterializeResult:
    """The load's report with what the rules found; of the checks, those that this run asked for."""
    facts: dict[str, Any] = {
        "tickets_listed": sum(result.listed for result in results),
        "tickets_gone": sum(result.gone for result in results),
        "tickets_with_warnings": sum(result.warned for result in results),
    }
    breaches = sum((result.breaches for result in results), start=Counter[str]())
    if table is EXPIRED and breaches:
        facts["breaches"] = dg.MetadataValue.md(breach_table(breaches.most_common(30)))
    asked = {key.name for key in context.selected_asset_check_keys if key.asset_key == asset_key(table)}
    return dg.MaterializeResult(
        asset_key=answer.asset_key,
        metadata={**(answer.metadata or {}), **facts},
        check_results=[each for each in answer.check_results or () if each.check_name in asked],
    )


def breach_table(breaches: Sequence[tuple[str, int]]) -> str:
    """Markdown: who is responsible for how many breaches."""
    rows = [f"| {unit.replace('|', '/')} | {count} |" for unit, count in breaches]
    return "\n".join(["| Ответственный | Просрочено |", "|---|---:|", *rows])


def _build_stopped(settings: TtmSettings) -> dg.AssetsDefinition:
    key = asset_key(STOPPED)

    @dg.asset(
        key=key,
        group_name=DATABASE,
        kinds=_kinds(STOPPED),
        owners=OWNERS,
        pool=DATABASE,
        tags=_tags(STOPPED),
        metadata=_metadata(STOPPED),
        description=ABOUT[STOPPED.name] + f"  \n**Freshness** every {settings.interval_s} s (TTM_INTERVAL).",
        check_specs=check_specs(key),
        retry_policy=dg.RetryPolicy(max_retries=1, delay=min(RETRY_S, settings.interval_s / 4)),
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(seconds=3 * settings.interval_s),
            warn_window=timedelta(seconds=2 * settings.interval_s),
        ),
    )
    def stopped_tickets(
        context: dg.AssetExecutionContext,
        ttm_hub: TtmHubResource,
        ttm_database: TtmDatabaseResource,
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult:
        warehouse.warm_up()
        with ttm_hub.client() as client:
            reading = read_list(client, ttm_database.tables, settings, ttm_hub.concurrency)
        loaded = keep_history(context, warehouse, ttm_database.tables, reading)
        for number, codes in reading.plan.warnings.items():
            context.log.info("Ticket %d: %s", number, ", ".join(codes))
        written, deleted = len(reading.synced.written), len(reading.synced.deleted)
        context.log.info("%d suspended, %d left the list", written, deleted)
        reading.require_complete()
        answer = report(context, warehouse, loaded, day_column="begin_pause", zone=settings.business_zone)
        facts = {
            "suspended_now": written,
            "left_the_list": deleted,
            "tickets_with_warnings": len(reading.plan.warnings),
        }
        return dg.MaterializeResult(
            metadata={**(answer.metadata or {}), **facts}, check_results=answer.check_results
        )

    return stopped_tickets


def view_specs() -> list[dg.AssetSpec]:
    """The `bi` views, which loads keep in step with their tables."""
    return [
        dg.AssetSpec(
            key=["bi", table.name],
            deps=[asset_key(table)],
            group_name="bi",
            kinds={"clickhouse", "view"},
            owners=OWNERS,
            description=f"{table.comment}.\n\nCurrent rows of `{table.full_name}`: one a key. "
            "The load itself keeps the view in step with the table.",
            metadata={"dagster/table_name": f"bi.{table.name}"},
        )
        for table in TABLES
    ]
