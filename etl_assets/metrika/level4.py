"""Daily scoring: the features of visits, and the visits of level 4 or higher."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeAlias

import dagster as dg

from etl_assets.loading import FEED_TAG, OWNERS, Bounds, Loaded, Spent, column_schema, report
from etl_assets.metrika import drift
from etl_assets.metrika.fields import DATABASE
from etl_assets.metrika.level4_settings import Level4Settings, level4_settings
from etl_assets.metrika.level4_tables import level4_visits, visit_features, visit_scores
from etl_assets.partitions import days_of
from resources.clickhouse import LoadResult, Table, WarehouseResource
from resources.clickhouse.computed import ComputedLoad
from resources.clickhouse.table import LOADED_AT
from resources.clickhouse.warehouse import SchemaChange
from resources.errors import PermanentSourceError
from resources.metrika.features import SETTINGS, features_sql
from resources.metrika.scoring import Models, scored, selection_sql

COUNTERS_TAG = "metrika/counters"  # a run with it works on these counters only, comma-separated
FEATURES_KEY = dg.AssetKey([DATABASE, "visit_features"])
SCORES_KEY = dg.AssetKey([DATABASE, "visit_scores"])
VISITS_KEY = dg.AssetKey([DATABASE, "level4_visits"])
MODELS_KEY = dg.AssetKey([DATABASE, "level4_models"])
_Times: TypeAlias = tuple[datetime, datetime]  # when the first and the last row came
_UNATTENDED = frozenset({"dagster/schedule_name", FEED_TAG})  # tags of runs that nobody asked for
RETRIES = dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def _days(context: dg.AssetExecutionContext) -> list[date]:
    return [date.fromisoformat(key) for key in days_of(context)]


def counters_of(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, table: str, days: Sequence[date]
) -> list[int]:
    """Counters with rows of these days in `table`, or with results of an earlier run."""
    if chosen := context.run.tags.get(COUNTERS_TAG):
        return sorted({int(counter) for counter in chosen.split(",")})
    names = (table, "visit_features", "level4_visits")
    there = {n for (n,) in warehouse.query(f"SELECT name FROM system.tables WHERE database = '{DATABASE}'")}
    listed = ", ".join(f"'{day}'" for day in days)
    found: set[int] = set()
    for name in there.intersection(names):
        sql = f"SELECT DISTINCT counter_id FROM {DATABASE}.{name} WHERE date IN ({listed})"
        found.update(int(counter) for (counter,) in warehouse.query(sql))
    return sorted(found)


def recompute(
    context: dg.AssetExecutionContext,
    warehouse: WarehouseResource,
    table: Table,
    asset: dg.AssetKey,
    wanted: Mapping[int, Sequence[date]],
    fill: Callable[[ComputedLoad, int, date], None],
) -> Loaded:
    """Replace the `wanted` days of each counter by what `fill(load, counter, day)` adds."""
    table, change = warehouse.ensure(table)
    days, began = _days(context), datetime.now(UTC)
    window = Bounds(_midnight(min(days)), _midnight(max(days) + timedelta(days=1)))
    results: list[LoadResult] = []
    counts: Counter[str] = Counter()
    name = asset.to_user_string()
    for counter, stale in wanted.items():
        counts.update(_rows_of(warehouse, table, counter, sorted(set(days) - set(stale))))
        if not stale:
            continue
        reach = _midnight(min(stale)), _midnight(max(stale) + timedelta(days=1))
        with ComputedLoad(warehouse, table, name, context.run.run_id, owner=counter) as load:
            for day in stale:
                fill(load, counter, day)
            results.append(load.finish(kind="window", source_time=began, window=reach, days=stale))
        counts.update(load.days)
        context.log.info("%s: counter %d, %d rows", table.full_name, counter, load.rows)
    return _loaded(table, change, results, counts, window, began)


def _rows_of(warehouse: WarehouseResource, table: Table, counter: int, days: Sequence[date]) -> Counter[str]:
    """Rows of days that stay as they are."""
    if not days:
        return Counter()
    sql = f"SELECT toString(date), count() FROM {table.sql_name} WHERE {_here([counter], days)} GROUP BY date"
    return Counter({day: int(rows) for day, rows in warehouse.query(sql)})


def wanted_days(
    context: dg.AssetExecutionContext,
    warehouse: WarehouseResource,
    counters: Sequence[int],
    sources: Sequence[str],
    target: Table,
) -> dict[int, list[date]]:
    """counter -> the run's days; in a run of the feed those whose `sources` came later than `target`."""
    days = _days(context)
    wanted = dict.fromkeys(counters, days)
    if FEED_TAG not in context.run.tags or not counters:
        return wanted
    warehouse.ensure(target)
    names = [f"{DATABASE}.{name}" for name in sources]
    read = _times(warehouse, names, counters, days)
    made = _times(warehouse, [target.full_name], counters, days)
    for counter in counters:
        pairs = {day: (read.get((counter, day)), made.get((counter, day))) for day in days}
        wanted[counter] = [day for day, (source, own) in pairs.items() if _is_older(own, source)]
    context.log.info(
        "%d of %d days are to be computed", sum(map(len, wanted.values())), len(days) * len(counters)
    )
    return wanted


def _is_older(own: _Times | None, source: _Times | None) -> bool:
    """Whether a day must be computed again; times are whole seconds, so in doubt it is."""
    if own and source:
        return source[1] >= own[0]
    return own is not source


def _times(
    warehouse: WarehouseResource, tables: Sequence[str], counters: Sequence[int], days: Sequence[date]
) -> dict[tuple[int, date], _Times]:
    """(counter, day) -> times of its rows."""
    here = _here(counters, days)
    rows = " UNION ALL ".join(f"SELECT counter_id, date, {LOADED_AT} FROM {t} WHERE {here}" for t in tables)
    found = warehouse.query(
        f"SELECT counter_id, date, min({LOADED_AT}), max({LOADED_AT}) FROM ({rows}) GROUP BY counter_id, date"
    )
    return {(int(counter), day): (first, last) for counter, day, first, last in found}


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _loaded(
    table: Table,
    change: SchemaChange,
    results: Sequence[LoadResult],
    counts: Counter[str],
    window: Bounds,
    began: datetime,
) -> Loaded:
    last = results[-1].load_id if results else ""
    result = LoadResult(last, counts.total(), 0, sum(r.duration_s for r in results))
    return Loaded(result, table, change, Spent(), counts, window, "window", began, None, False)


def _metadata(table: Table) -> dict[str, Any]:
    """What is known of a table before a run."""
    return {"dagster/table_name": table.full_name, "dagster/column_schema": column_schema(table)}


def build_features(
    settings: Level4Settings, partitions: dg.PartitionsDefinition[str], zone: str
) -> dg.AssetsDefinition:
    """The asset `metrika/visit_features`."""
    table = visit_features(zone)

    @dg.asset(
        key=FEATURES_KEY,
        deps=[dg.AssetKey([DATABASE, "visits"]), dg.AssetKey([DATABASE, "hits"])],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"clickhouse"},
        tags={"source": DATABASE},
        retry_policy=RETRIES,
        description="Признаки визитов для моделей уровня 4+: 15-секундные слоты, паузы между событиями, "
        "длительность, просмотры.\n\n**Grain** one row per counter_id, date, visit_id.  \n"
        "**Partition** day of the visit in the counter's zone; a rerun replaces the day.  \n"
        "**Source** SQL over `metrika.visits` and `metrika.hits`; nothing is downloaded.",
        group_name=DATABASE,
        owners=OWNERS,
        metadata=_metadata(table),
    )
    def visit_features_asset(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:
        _require(warehouse, "visits", "hits")

        def fill(load: ComputedLoad, counter: int, day: date) -> None:
            load.add_select(features_sql(counter, day, settings.rules), SETTINGS)

        counters = counters_of(context, warehouse, "visits", _days(context))
        wanted = wanted_days(context, warehouse, counters, ("visits", "hits"), table)
        loaded = recompute(context, warehouse, table, FEATURES_KEY, wanted, fill)
        told = report(context, warehouse, loaded, day_column="date_time", zone=zone)
        return dg.MaterializeResult(
            metadata={**(told.metadata or {}), **_known(warehouse, counters, context)}
        )

    return visit_features_asset


def _require(warehouse: WarehouseResource, *tables: str) -> None:
    """A failure that says what to load first."""
    sql = f"SELECT name FROM system.tables WHERE database = '{DATABASE}'"
    there = {name for (name,) in warehouse.query(sql)}
    if missing := [t for t in tables if t not in there]:
        raise PermanentSourceError(
            f"There is no table {DATABASE}.{missing[0]} yet: materialize {DATABASE}/{missing[0]} first."
        )


def _known(
    warehouse: WarehouseResource, counters: Sequence[int], context: dg.AssetExecutionContext
) -> dict[str, Any]:
    """How many events of the visits the log holds; others were on another day, or beyond the first 500."""
    if not counters:
        return {}
    listed, known, without = warehouse.query(
        f"SELECT sum(listed_hits), sum(known_hits), countIf(known_hits = 0) FROM {DATABASE}.visit_features "
        f"WHERE {_here(counters, _days(context))}"
    )[0]
    return {
        "hits_listed_by_visits": int(listed),
        "hits_known_share": round(known / listed, 4) if listed else 1.0,
        "visits_without_known_hits": int(without),
    }


def _here(counters: Sequence[int], days: Sequence[date]) -> str:
    listed = ", ".join(f"'{day}'" for day in days)
    return f"counter_id IN ({', '.join(map(str, counters))}) AND date IN ({listed})"


def build_level4_visits(
    settings: Level4Settings, partitions: dg.PartitionsDefinition[str], zone: str
) -> dg.AssetsDefinition:
    """The asset `metrika/level4_visits`, the daily scoring."""
    table = level4_visits(zone)

    @dg.asset(
        key=VISITS_KEY,
        deps=[FEATURES_KEY, MODELS_KEY],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"clickhouse", "lightgbm"},
        tags={"source": DATABASE},
        retry_policy=RETRIES,
        freshness_policy=dg.FreshnessPolicy.time_window(
            fail_window=timedelta(hours=50), warn_window=timedelta(hours=26)
        ),
        check_specs=[drift.check_spec(VISITS_KEY)],
        description="Визиты уровня 4 и выше: правило 180-5-5 (180 секунд, 5 просмотров, 5 слотов) или "
        "вероятность по модели устройства выше порога.\n\n"
        "**Grain** one row per counter_id, date, visit_id.  \n"
        "**Partition** day of the visit in the counter's zone; a rerun replaces the day.  \n"
        "**Source** `metrika.visit_features` and the models of METRIKA_MODELS_DIR; every probability is in "
        "`metrika.visit_scores`.",
        group_name=DATABASE,
        owners=OWNERS,
        metadata=_metadata(table),
        output_required=False,
    )
    def level4_visits_asset(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        if settings.models.empty and _UNATTENDED & context.run.tags.keys():
            yield _not_scored(context)
            return
        _require(warehouse, "visit_features")
        days = _days(context)
        counters = counters_of(context, warehouse, "visit_features", days)
        models = Models(settings.models)
        wanted = wanted_days(context, warehouse, counters, ("visit_features",), table)
        _score(context, warehouse, settings, models, wanted)

        def select(load: ComputedLoad, counter: int, day: date) -> None:
            load.add_select(selection_sql(counter, day), SETTINGS)

        loaded = recompute(context, warehouse, table, VISITS_KEY, wanted, select)
        told = report(context, warehouse, loaded, day_column="date_time", zone=zone)
        found = drift.drifts(warehouse, counters, days)
        yield dg.MaterializeResult(
            metadata={**(told.metadata or {}), **_outcome(warehouse, models, counters, days)},
            check_results=[drift.check(found, settings.drift_limit)],
        )

    return level4_visits_asset


def _not_scored(context: dg.AssetExecutionContext) -> dg.AssetCheckResult:
    """Who wants raw logs alone has no models, and no red run each morning for that."""
    said = (
        "Not scored: there is no model. Put models into METRIKA_MODELS_DIR, or train some "
        f"({MODELS_KEY.to_user_string()}); see docs/level4.md."
    )
    context.log.warning(said)
    context.log_event(dg.AssetObservation(VISITS_KEY, description=said))
    return dg.AssetCheckResult(check_name=drift.CHECK, passed=True, description=said)


def _score(
    context: dg.AssetExecutionContext,
    warehouse: WarehouseResource,
    settings: Level4Settings,
    models: Models,
    wanted: Mapping[int, Sequence[date]],
) -> None:
    """Ask the models, and keep every answer in `metrika.visit_scores`."""

    def ask(load: ComputedLoad, counter: int, day: date) -> None:
        for batch in scored(warehouse, counter, day, models, without_hits=settings.score_without_hits):
            load.add_columns(batch.columns(counter, day))

    loaded = recompute(context, warehouse, visit_scores(), SCORES_KEY, wanted, ask)
    for event in _materialized(SCORES_KEY, loaded):
        context.log_event(event)
    for chosen in models.used():
        for note in chosen.model.notes:
            context.log.warning("%s: %s", chosen.model.file.name, note)


def _materialized(asset: dg.AssetKey, loaded: Loaded) -> Iterator[dg.AssetMaterialization]:
    """The table that a step fills beside its own, as the UI should show it."""
    for day, rows in sorted(loaded.days.items()):
        yield dg.AssetMaterialization(
            asset,
            partition=day,
            metadata={"dagster/table_name": loaded.table.full_name, "dagster/partition_row_count": rows},
        )


def _outcome(
    warehouse: WarehouseResource, models: Models, counters: Sequence[int], days: Sequence[date]
) -> dict[str, Any]:
    """Which models were asked, and what they and the rule selected."""
    told: dict[str, Any] = {
        "models": dg.MetadataValue.md(
            "\n".join(f"- {c.name}: `{c.label}`, threshold {c.threshold:g}" for c in models.used()) or "none"
        )
    }
    if counters:
        sql = (
            f"SELECT countIf(reason = 'rule'), countIf(reason = 'model') FROM {DATABASE}.level4_visits WHERE "
        )
        rule, model = warehouse.query(sql + _here(counters, days))[0]
        told |= {"selected_by_rule": int(rule), "selected_by_model": int(model)}
    return told


def scores_spec(partitions: dg.PartitionsDefinition[str]) -> dg.AssetSpec:
    """`metrika/visit_scores`: written by the step of `metrika/level4_visits`."""
    return dg.AssetSpec(
        key=SCORES_KEY,
        deps=[FEATURES_KEY, MODELS_KEY],
        partitions_def=partitions,
        kinds={"clickhouse", "lightgbm"},
        tags={"source": DATABASE},
        description="Вероятности уровня 4+ всех визитов, о которых спросили модель.\n\n**Grain** one row per "
        "counter_id, date, visit_id. Written by the step of `metrika/level4_visits`.",
        group_name=DATABASE,
        owners=OWNERS,
        metadata=_metadata(visit_scores()),
    )


def view_spec(table: Table) -> dg.AssetSpec:
    """`bi.<table>`, which loads keep in step with their table."""
    return dg.AssetSpec(
        key=["bi", table.name],
        deps=[dg.AssetKey([DATABASE, table.name])],
        group_name="bi",
        kinds={"clickhouse", "view"},
        owners=OWNERS,
        description=f"{table.comment}.\n\nCurrent rows of `{table.full_name}`: one a visit.",
        metadata={"dagster/table_name": f"bi.{table.name}"},
    )


def level4_assets(
    partitions: dg.PartitionsDefinition[str], zone: str, settings: Level4Settings | None = None
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """All assets of the scoring. `partitions`: the days of visits; `zone`: in which their times are shown."""
    from etl_assets.metrika.training import build_models

    settings = settings or level4_settings()
    return [
        build_features(settings, partitions, zone),
        scores_spec(partitions),
        build_level4_visits(settings, partitions, zone),
        build_models(settings),
        *(view_spec(table) for table in (visit_features(zone), visit_scores(), level4_visits(zone))),
    ]
