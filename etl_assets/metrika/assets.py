"""The raw logs of Yandex.Metrika: one asset a log, both made by one factory."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any

import dagster as dg

from etl_assets.loading import FEED_TAG, OWNERS, check_specs, column_schema, report
from etl_assets.metrika.fields import DATABASE, LOGS, Log
from etl_assets.metrika.level4 import COUNTERS_TAG
from etl_assets.metrika.loading import LogLoad, LogLoader, stale_days, together
from etl_assets.metrika.settings import MetrikaSettings
from etl_assets.partitions import days_of
from resources.clickhouse import WarehouseResource
from resources.errors import PermanentSourceError, TransientSourceError
from resources.metrika import Ask, MetrikaResource
from resources.metrika.logs import LogReader

_DESCRIPTIONS = {
    "visits": "Визиты: откуда пришёл посетитель, сколько пробыл, каких целей достиг, что купил.",
    "hits": "События: просмотры страниц, переходы, загрузки, цели.",
}


def asset_key(log: Log) -> dg.AssetKey:
    return dg.AssetKey([DATABASE, log.name])


def build_asset(log: Log, settings: MetrikaSettings) -> dg.AssetsDefinition:
    """The asset `metrika/<log>`: the run's days of every counter, replaced by what the API says now."""
    key, table = asset_key(log), log.table(settings.zone)

    @dg.asset(
        key=key,
        partitions_def=settings.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=DATABASE,
        kinds={"metrika", "clickhouse"},
        owners=OWNERS,
        pool=DATABASE,
        tags={"source": DATABASE, "pii": ""},
        metadata={"dagster/table_name": table.full_name, "dagster/column_schema": column_schema(table)},
        description=_description(log, settings),
        check_specs=[*check_specs(key), _complete_spec(key)],
        retry_policy=dg.RetryPolicy(
            max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
        ),
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=50), warn_window=timedelta(hours=26)
        ),
    )
    def _asset(
        context: dg.AssetExecutionContext, metrika: MetrikaResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:
        return load_log(context, log, settings, metrika, warehouse)

    return _asset


def _description(log: Log, settings: MetrikaSettings) -> str:
    return (
        f"{_DESCRIPTIONS[log.name]}\n\n**Grain** one row per {', '.join(log.key)}; "
        f"`bi.{log.name}` shows it.  \n"
        "**Partition** day in the counter's zone; a rerun replaces it by what the API says now.  \n"
        f"**Freshness** `{settings.cron}`: yesterday, and again the {settings.reload_days - 1} days before, "
        "since sessions keep changing for three days.  \n"
        f"**Source** `logrequests` of the Logs API, source `{log.name}`."
    )


def _complete_spec(key: dg.AssetKey) -> dg.AssetCheckSpec:
    return dg.AssetCheckSpec(
        "complete", asset=key, description="Every line that came is a row, or a copy of one."
    )


def load_log(
    context: dg.AssetExecutionContext,
    log: Log,
    settings: MetrikaSettings,
    metrika: MetrikaResource,
    warehouse: WarehouseResource,
) -> dg.MaterializeResult:
    """Load the run's days of every counter. A counter that fails does not stop the others."""
    days = [date.fromisoformat(key) for key in days_of(context)]
    counters = counters_of(context, settings)
    client = metrika.client
    warehouse.warm_up()
    wanted = days
    if FEED_TAG in context.run.tags:
        wanted = stale_days(warehouse, log, counters, days, settings.zone)
        context.log.info("%d of %d days may have changed since they were loaded", len(wanted), len(days))
    loader = LogLoader(
        client,
        warehouse,
        settings.zone,
        context.asset_key.to_user_string(),
        context.run.run_id,
        metrika.poll_s,
        metrika.deadline_s,
        context.log.info,
    )
    loads, failures = [], []
    if wanted:
        order_the_other(context, log, metrika, counters, wanted)
    for counter in counters if wanted else ():
        try:
            loads.append(loader.load(log, counter, wanted))
        except dg.Failure as error:
            failures.append(error)
    if failures:
        raise _joined(failures)
    told = report(context, warehouse, together(loads, loader, log, days))
    return dg.MaterializeResult(
        metadata={**(told.metadata or {}), **_downloads(loads)},
        check_results=[*(told.check_results or []), _complete(loads)],
    )


def counters_of(context: dg.AssetExecutionContext, settings: MetrikaSettings) -> tuple[int, ...]:
    """The counters of the run's tag, else of the settings; a failure that names the setting."""
    if chosen := context.run.tags.get(COUNTERS_TAG):
        try:
            return tuple(int(counter) for counter in chosen.split(","))
        except ValueError:
            raise PermanentSourceError(f"The tag {COUNTERS_TAG} must be numbers of counters.") from None
    if not settings.counters:
        raise PermanentSourceError("METRIKA_COUNTERS is not set: put numbers of counters into .env.")
    return settings.counters


def order_the_other(
    context: dg.AssetExecutionContext,
    log: Log,
    metrika: MetrikaResource,
    counters: Sequence[int],
    days: Sequence[date],
) -> None:
    """Order the other log too if this process loads it next: the API prepares both at the same time."""
    (other,) = (each for each in LOGS.values() if each is not log)
    chosen = context.job_def.asset_layer.selected_asset_keys
    if asset_key(other) not in chosen or "in_process" not in context.job_def.executor_def.name:
        return
    if context.run.run_id in _begun:  # the other's step came first, or this is another attempt
        return
    _begun.clear()
    _begun.add(context.run.run_id)
    reader = LogReader(metrika.client, tell=context.log.info)
    for counter in counters:
        try:
            ask = Ask(counter, other.name, days[0], days[-1], other.fields())
            reader.order(reader.fitting(ask, other.optional))
        except dg.Failure as error:  # its own step says so
            context.log.info(
                "Counter %d: %s are not ordered ahead: %s", counter, other.name, error.description
            )


_begun: set[str] = set()  # the one run of this process, once it has loaded a log


def _joined(failures: Sequence[dg.Failure]) -> dg.Failure:
    """One failure of all; another attempt may help if it may help one of them."""
    text = " ".join(failure.description or "" for failure in failures)
    kind = TransientSourceError if any(f.allow_retries for f in failures) else PermanentSourceError
    return kind(text)


def _downloads(loads: Sequence[LogLoad]) -> dict[str, Any]:
    got = [load.downloaded for load in loads]
    return {
        "counters": ", ".join(str(load.counter) for load in loads),
        "log_requests": sum(len(load.results) for load in loads),
        "lines_downloaded": sum(d.lines for d in got),
        "bytes_downloaded": sum(d.wire for d in got),
        "parts": sum(d.parts for d in got),
        "parts_fetched_again": sum(d.again for d in got),
        "duplicate_lines": sum(load.duplicates for load in loads),
    }


def _complete(loads: Sequence[LogLoad]) -> dg.AssetCheckResult:
    """Compare the lines of the parts with what was inserted, and with the rows that stand for them."""
    lines = sum(load.downloaded.lines for load in loads)
    inserted = sum(result.rows for load in loads for result in load.results)
    silent = [str(load.counter) for load in loads if not load.downloaded.lines]
    said = f"No line came for {', '.join(silent)}: was the site silent?" if silent else None
    return dg.AssetCheckResult(
        check_name="complete",
        passed=lines == inserted and not silent,
        severity=dg.AssetCheckSeverity.WARN,
        description=said,
        metadata={
            "lines_downloaded": lines,
            "lines_inserted": inserted,
            "rows": sum(load.days.total() for load in loads),
        },
    )


def build_assets(settings: MetrikaSettings) -> list[Any]:
    """The assets of both logs."""
    return [build_asset(log, settings) for log in LOGS.values()]


def view_specs() -> list[dg.AssetSpec]:
    """The `bi` views, which loads keep in step with their tables."""
    return [
        dg.AssetSpec(
            key=["bi", log.name],
            deps=[asset_key(log)],
            group_name="bi",
            kinds={"clickhouse", "view"},
            owners=OWNERS,
            description=f"{_DESCRIPTIONS[log.name]}\n\nCurrent rows of `{DATABASE}.{log.name}`: one a key.",
            metadata={"dagster/table_name": f"bi.{log.name}"},
        )
        for log in LOGS.values()
    ]
