"""Bitrix24 assets: one an entity of the table, all made by one factory."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg

from etl_assets.bitrix24.deletions import MARKS, Marks
from etl_assets.bitrix24.entities import ENTITIES, FEED, Entity, smart_process
from etl_assets.bitrix24.facts import RunFacts
from etl_assets.bitrix24.history import CHANGES, record_changes
from etl_assets.bitrix24.readers import READERS
from etl_assets.bitrix24.reading import EntityReader
from etl_assets.bitrix24.structure import DATABASE, Structure, table_of
from etl_assets.loading import (
    FEED_TAG,
    OWNERS,
    Bounds,
    check_specs,
    column_schema,
    feed_bounds,
    feed_bounds_from,
    load_incremental,
    load_snapshot,
    report,
)
from etl_assets.partitions import daily, window_of
from resources.bitrix24 import Bitrix24Resource, ListCall, Window
from resources.clickhouse import WarehouseResource
from resources.errors import PermanentSourceError

PERSONAL = frozenset(
    {
        *(
            "crm_lead",
            "crm_contact",
            "crm_activity",
            "user",
            "crm_requisite",
            "crm_requisite_bank",
            "crm_address",
        ),
        *("crm_timeline_comment", "voximplant_call", "task", "task_comment", "calendar_event"),
        *("openline_message", "timeman_record"),
    }
)


@dataclass(frozen=True, slots=True)
class Bitrix24Settings:
    """What definitions need to know before a run: read from the environment once, in definitions.py.

    `crons` and `types` override the entity table: {entity: cron}, {entity: {column: ClickHouse type}}.
    `deleted_share_pct`: how much of a table may be found gone at once before somebody must confirm it.
    `history`: entities whose changed values are kept. `running`: schedules and sensors start by themselves,
    since there is a credential.
    """

    start_date: str = "2020-01-01"
    zone: str = "Europe/Moscow"
    crons: Mapping[str, str] = field(default_factory=dict)
    types: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    deleted_share_pct: float = 20.0
    running: bool = True
    history: frozenset[str] = frozenset()

    def cron(self, entity: Entity) -> str:
        """The entity's cron, empty if the clock does not load it.

        Smart processes may be overridden together as crm_dynamic_items.
        """
        family = re.sub(r"_\d+$", "", entity.name)
        return self.crons.get(entity.name, self.crons.get(family, entity.cron))


def asset_key(entity: Entity) -> dg.AssetKey:
    return dg.AssetKey([DATABASE, entity.name])


def cron_tag(cron: str) -> str:
    """A cron as a tag value, so that a job can select the assets of a cron: `0 * * * *` is `0.x.x.x.x`."""
    return re.sub(
        r"[^A-Za-z0-9_.-]", "_", cron.translate(str.maketrans({"*": "x", "/": "-", " ": ".", ",": "_"}))
    )


def description(entity: Entity, settings: Bitrix24Settings) -> str:
    """What the asset page says: meaning, grain, key, freshness, source."""
    cron = settings.cron(entity)
    fresh = f"`{cron}`" if cron else "loaded by hand only"
    if entity.modified:
        kind = (
            "its owner changed"
            if entity.owner
            else f"`{entity.modified}`, the portal's zone ({settings.zone})"
        )
        how = f"**Partition** day of {kind}; a rerun upserts and deletes nothing."
    else:
        how = "**Snapshot**: each run replaces the table by what the portal says."
    if entity.goes_with:
        how += " Rows leave the view with their owner and come back with it."
    return (
        f"{entity.about}\n\n**Grain** one row per {', '.join(entity.key)}; the row read last wins, "
        f"and `bi.{entity.name}` shows it.  \n"
        f"{how}  \n**Freshness** {fresh}.  \n**Source** `{entity.method}`"
        + (f", fields from `{entity.fields_method}`" if entity.fields_method else "")
        + "."
    )


def build_asset(
    entity: Entity, settings: Bitrix24Settings, structure: Structure | None = None
) -> dg.AssetsDefinition:
    """The asset `bitrix24/<entity>`. `structure`, where it is known beforehand, gives the column schema."""
    key = asset_key(entity)
    metadata: dict[str, Any] = {"dagster/table_name": f"{DATABASE}.{entity.name}"}
    known = structure or (Structure() if entity.columns else None)
    if known is not None:
        metadata["dagster/column_schema"] = column_schema(table_of(entity, known, settings.zone, {}))
    cron = settings.cron(entity)
    tags = {"source": "bitrix24", "svod/cron": cron_tag(cron)} | (
        {"pii": ""} if entity.name in PERSONAL else {}
    )
    tags |= {"svod/by_hand": ""} if entity.costly else {}

    @dg.asset(
        key=key,
        partitions_def=daily(settings.start_date, settings.zone) if entity.modified else None,
        backfill_policy=dg.BackfillPolicy.single_run() if entity.modified else None,
        group_name=DATABASE,
        kinds={"bitrix24", "clickhouse"},
        owners=OWNERS,
        pool=DATABASE,
        tags=tags if not entity.archived else {"source": "bitrix24", "archived": ""},
        metadata=metadata,
        description=description(entity, settings),
        check_specs=check_specs(key),
        # Owners first: children read their tables. A dependency would skip them if one owner were refused.
        op_tags={"dagster/priority": "-1" if entity.follows else "0"},
        retry_policy=dg.RetryPolicy(
            max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS
        ),
        freshness_policy=_freshness(cron) if cron and not entity.archived else None,
    )
    def _asset(
        context: dg.AssetExecutionContext, bitrix24: Bitrix24Resource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:
        return load_entity(context, entity, settings, bitrix24, warehouse)

    return _asset


def looking_back(entity: Entity, bounds: Bounds) -> Bounds:
    """The bounds of a tick, for rows that change without a change time."""
    if not entity.lookback or bounds.since is None:
        return bounds
    return Bounds(bounds.since - entity.lookback, bounds.until, bounds.overlap + entity.lookback)


def _freshness(cron: str) -> dg.FreshnessPolicy:
    frequent = cron == FEED
    return dg.FreshnessPolicy.time_window(
        fail_window=timedelta(hours=6 if frequent else 50), warn_window=timedelta(hours=1 if frequent else 26)
    )


def load_entity(
    context: dg.AssetExecutionContext,
    entity: Entity,
    settings: Bitrix24Settings,
    bitrix24: Bitrix24Resource,
    warehouse: WarehouseResource,
) -> dg.MaterializeResult:
    """Read the run's window of one entity into its table."""
    if entity.archived:
        raise PermanentSourceError(
            f"{entity.name}: the smart process no longer exists on the portal; its table is kept as it is."
        )
    warehouse.warm_up()
    feed = FEED_TAG in context.run.tags
    wanted = Bounds(*window_of(context)) if entity.modified else Bounds()
    if feed and entity.modified:
        wanted = looking_back(entity, feed_bounds(warehouse, context.asset_key.to_user_string()))
    facts = _facts(context, bitrix24, warehouse, wanted, feed=feed)
    facts.learn([entity], Window(wanted.since, wanted.until))
    reader = READERS[entity.strategy](entity, facts, warehouse, context.log.info)
    table = table_of(entity, reader.structure, settings.zone, settings.types.get(entity.name, {}))
    if entity.modified:
        loaded = load_incremental(context, warehouse, table, reader, wanted, reader.after(table))
    else:
        loaded = load_snapshot(context, warehouse, table, reader)
    if entity.reconciled:
        Marks(warehouse).restore(loaded.table, loaded.source_time)
    if entity.name in settings.history:
        context.log.info("%d changed values noted", record_changes(warehouse, entity, loaded.table))
    facts.keep()
    if reader.unknown_keys:
        context.log.warning(
            "Answers hold fields that the portal's field list does not name: %s",
            ", ".join(sorted(reader.unknown_keys)),
        )
    day = entity.modified if entity.modified in {c.name for c in table.columns} else None
    return report(context, warehouse, loaded, day_column=day, zone=settings.zone)


_run_facts: dict[str, RunFacts] = {}  # of the one run that this process is working on


def _facts(
    context: dg.AssetExecutionContext,
    bitrix24: Bitrix24Resource,
    warehouse: WarehouseResource,
    wanted: Bounds,
    *,
    feed: bool,
) -> RunFacts:
    """The run's facts.

    Where one process does the whole run, all of its entities are asked for at once: that keeps a tick short.
    """
    facts = _run_facts.get(context.run.run_id)
    if facts is None:
        _run_facts.clear()
        facts = _run_facts[context.run.run_id] = RunFacts(bitrix24.client, warehouse, cached=feed)
        chosen = [
            e for k in context.job_def.asset_layer.selected_asset_keys if (e := entity_of(k)) and e.modified
        ]
        if len(chosen) > 1 and "in_process" in context.job_def.executor_def.name:
            _prefetch(context, facts, warehouse, chosen, None if feed else wanted)
    return facts


def _prefetch(
    context: dg.AssetExecutionContext,
    facts: RunFacts,
    warehouse: WarehouseResource,
    entities: Sequence[Entity],
    window: Bounds | None,
) -> None:
    """Field lists and opening pages of all entities, in two or three requests.

    Without `window`, from the watermarks.
    """
    facts.learn(entities)
    marks = warehouse.watermarks()
    asks: dict[str, tuple[Sequence[ListCall], Window]] = {}
    for entity in entities:
        mark = marks.get(asset_key(entity).to_user_string())
        bounds = window or looking_back(entity, feed_bounds_from(mark))
        if entity.owner or bounds.since is None:
            continue  # children are read by owner; a full load has a request of its own
        try:
            reader: EntityReader = READERS[entity.strategy](entity, facts, warehouse, context.log.info)
        except dg.Failure:
            continue  # its own step says so
        if calls := reader.calls():
            asks[entity.name] = calls, Window(bounds.since, bounds.until)
    facts.prefetch(asks)


_BY_NAME = {e.name: e for e in ENTITIES}


def entity_of(key: dg.AssetKey) -> Entity | None:
    """The entity behind an asset key, smart processes too; None for other assets."""
    if key.path[0] != DATABASE:
        return None
    found = re.fullmatch(r"crm_dynamic_items_(\d+)", key.path[-1])
    return smart_process(int(found.group(1)), "") if found else _BY_NAME.get(key.path[-1])


def build_assets(
    settings: Bitrix24Settings, entities: Iterable[Entity] = ENTITIES
) -> list[dg.AssetsDefinition]:
    """All assets of the entity table."""
    return [build_asset(e, settings) for e in entities]


def view_specs(entities: Iterable[Entity] = ENTITIES) -> list[dg.AssetSpec]:
    """The `bi` views, which loads keep in step with their tables."""
    about = {MARKS.name: MARKS.comment, CHANGES.name: CHANGES.comment, "health": "How each entity is."}
    return [*(view_spec(e) for e in entities), *(_view(name, text) for name, text in about.items())]


def view_spec(entity: Entity) -> dg.AssetSpec:
    """`bi.<entity>`: the current rows of one table."""
    return _view(entity.name, entity.about)


def _view(name: str, about: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key=["bi", name],
        deps=[dg.AssetKey([DATABASE, name])],
        group_name="bi",
        kinds={"clickhouse", "view"},
        owners=OWNERS,
        description=f"{about}\n\nCurrent rows of `{DATABASE}.{name}`: one a key. "
        "The load itself keeps the view in step with the table.",
        metadata={"dagster/table_name": f"bi.{name}"},
    )
