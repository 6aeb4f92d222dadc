"""The asset `bitrix24/deleted_objects`: what is gone from the portal is marked, what is missing is loaded."""

import dagster as dg
from pydantic import Field

from etl_assets.bitrix24.assets import Bitrix24Settings
from etl_assets.bitrix24.comparing import Compared, Comparer, counted_entities, guard_rights
from etl_assets.bitrix24.deletions import MARKS
from etl_assets.bitrix24.entities import Entity
from etl_assets.bitrix24.events import OfflineQueue, consume, consume_received, received_inbox
from etl_assets.loading import OWNERS, column_schema
from resources.bitrix24 import Bitrix24Resource
from resources.clickhouse import WarehouseResource
from resources.errors import PermanentSourceError

KEY = dg.AssetKey([MARKS.database, MARKS.name])
ABOUT = """Rows that the portal no longer has. The tables keep such rows as they were read; the `bi` views
leave them out, and show them again when the portal has them again.

A run counts the ids of each entity by range, on the portal and here, looks closer where the counts differ,
asks for every candidate by its id, marks what is gone and loads what is missing. Once a week it reads all ids
instead (`sweep`, 2,500 a request): that also finds what counts hide, one row gone and another one missing in
the same range, and works for lists that the portal does not count.

Restoring a row moves no change time. So a run first asks for the rows that were marked in the last 60 days,
and for the change times of what changed since the run before the last one: what came back, and what differs,
is loaded.

Nothing is marked when an answer was refused or cut short, when more than `BITRIX24_DELETED_SHARE_PCT` of a
table or of a funnel would go at once, or when the webhook's user sees less than the time before: that looks
like lost rights. Rows that are read by owner (product rows, links, comments, stage history, what belongs to
tasks) leave their views with the owner and come back with it. Users are never marked: who was dismissed has
`ACTIVE = N`.

**Grain** one row per entity, id, detected_at.  \n**Freshness** `30 3 * * *`; all ids `30 4 * * 0`.  \n
**Source** the list methods of the entities: counts and ids."""


class Reconcile(dg.Config):
    """What to compare. `confirm`: believe mass deletions, and a loss of rights, this once.

    `sweep`: read all ids instead of counting them. `offline`: take in the application's queue of events
    instead; `inbox`: what was received.
    """

    entities: list[str] = Field(default_factory=list)
    confirm: bool = False
    sweep: bool = False
    offline: bool = False
    inbox: bool = False


def build_deleted_objects(settings: Bitrix24Settings) -> dg.AssetsDefinition:
    @dg.asset(
        key=KEY,
        group_name=MARKS.database,
        kinds={"bitrix24", "clickhouse"},
        owners=OWNERS,
        pool=MARKS.database,
        tags={"source": "bitrix24", "pii": ""},
        metadata={
            "dagster/table_name": MARKS.full_name,
            "dagster/column_schema": column_schema(MARKS),
        },
        description=ABOUT,
        op_tags={"dagster/priority": "-2"},  # after the loads of the same run
        check_specs=[
            dg.AssetCheckSpec("as_many_rows", asset=KEY, description="Counts agreed, or were made to agree.")
        ],
    )
    def deleted_objects(
        context: dg.AssetExecutionContext,
        config: Reconcile,
        bitrix24: Bitrix24Resource,
        warehouse: WarehouseResource,
    ) -> dg.MaterializeResult:
        before = bitrix24.client.stats.snapshot()
        warehouse.ensure(MARKS)
        chosen = _chosen(config, warehouse)
        comparer = Comparer(
            bitrix24.client,
            warehouse,
            settings,
            confirmed=config.confirm,
            run_id=context.run.run_id,
            log=context.log.info,
        )
        openings = [] if config.offline or config.inbox else comparer.openings(chosen, sweep=config.sweep)
        guard_rights(bitrix24.client, warehouse, confirmed=config.confirm, openings=openings)
        failed: list[dg.Failure] = []
        if config.offline:
            done = consume(OfflineQueue(bitrix24.client), comparer, warehouse)
        elif config.inbox:
            done = consume_received(received_inbox(), comparer, warehouse)
        else:
            done, failed = compare_all(context, comparer, chosen, sweep=config.sweep)
        if failed:
            said = "; ".join(f.description or "failed" for f in failed)
            raise dg.Failure(said, metadata={"compared": table_of_results(done)}, allow_retries=False)
        return reported(warehouse, done, bitrix24.client.stats.since(before).requests)

    return deleted_objects


def _chosen(config: Reconcile, warehouse: WarehouseResource) -> list[Entity]:
    known = {e.name: e for e in counted_entities(warehouse)}
    if unknown := sorted(set(config.entities) - set(known)):
        raise PermanentSourceError(
            f"There is nothing to compare of {', '.join(unknown)}; there are {', '.join(known)}."
        )
    return [known[name] for name in config.entities] or list(known.values())


def compare_all(
    context: dg.AssetExecutionContext, comparer: Comparer, entities: list[Entity], *, sweep: bool
) -> tuple[list[Compared], list[dg.Failure]]:
    """Compare one after another: an entity that fails never stops the others."""
    done: list[Compared] = []
    failed: list[dg.Failure] = []
    if not sweep:
        comparer.screen(entities)
    comparer.take_in(entities)
    for entity in entities:
        try:
            done.append(comparer.sweep(entity) if sweep else comparer.compare(entity))
        except dg.Failure as failure:
            context.log.error("%s", failure.description)
            failed.append(failure)
    return done, failed


def table_of_results(done: list[Compared]) -> dg.MarkdownMetadataValue:
    head = (
        "| entity | there | here | marked | restored | loaded | waiting | requests | |\n|---|"
        + "---:|" * 7
        + "---|"
    )
    figures = ("rows_there", "rows_here", "marked", "restored", "loaded", "waiting", "requests", "note")
    rows = [f"| {d.entity} | {' | '.join(str(getattr(d, name)) for name in figures)} |" for d in done]
    return dg.MetadataValue.md("\n".join([head, *rows]))


def reported(warehouse: WarehouseResource, done: list[Compared], requests: int) -> dg.MaterializeResult:
    marks = f"SELECT count(), countIf(restored_at IS NULL) FROM {MARKS.sql_name} FINAL"
    rows, gone = warehouse.query(marks)[0]
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": int(rows),
            "rows_gone": int(gone),
            "rows_marked": sum(d.marked for d in done),
            "rows_restored": sum(d.restored for d in done),
            "rows_loaded": sum(d.loaded for d in done),
            "http_requests": requests,
            "compared": table_of_results(done),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="as_many_rows",
                passed=not any(d.waiting for d in done),
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"compared": len(done), "rows_waiting": sum(d.waiting for d in done)},
            )
        ],
    )
