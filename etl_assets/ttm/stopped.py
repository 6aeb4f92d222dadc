"""The list of suspended tickets: read, put in place, and what left it kept as history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from etl_assets.loading import Bounds, Loaded, Spent
from etl_assets.ttm.reading import checked, failed_table, failed_text
from etl_assets.ttm.settings import TtmSettings, saved_filter
from etl_assets.ttm.tables import STOPPED, lines
from resources.clickhouse import WarehouseResource
from resources.errors import TransientSourceError
from resources.postgres import PostgresError
from resources.ttm.database import STOPPED as CURRENT
from resources.ttm.database import Attempt, Synced, TtmDatabase
from resources.ttm.protocol import TASK, TtmError
from resources.ttm.requester import HubClient
from resources.ttm.resource import failure_of
from resources.ttm.suspended_list import Plan, plan_sync

HISTORY = tuple(column.name for column in STOPPED.columns)


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading of the list and what it changed."""

    plan: Plan
    synced: Synced
    listed: int
    started_at: datetime

    @property
    def failed(self) -> dict[int, str]:
        return {**self.plan.failed, **{n: f"database: {why}" for n, why in self.synced.refused.items()}}

    def require_complete(self) -> None:
        """Raise what makes the asset be loaded again; what could be read is in place already."""
        if self.plan.partial:
            raise TransientSourceError(
                "The dashboard of suspended tickets changed while it was read: nothing was removed."
            )
        if self.failed:
            raise TransientSourceError(
                f"{len(self.failed)} of {self.listed} suspended tickets are not loaded: "
                f"{failed_text(self.failed)}. Their rows stay as they were.",
                metadata={"failed_tickets": dg.MetadataValue.md(failed_table(self.failed))},
            )


def read_list(client: HubClient, database: TtmDatabase, settings: TtmSettings, concurrency: int) -> Reading:
    """Read the dashboard and its tickets, and make the table what they say. Raises dagster.Failure.

    Without a dashboard nothing changes.
    """
    started = datetime.now(UTC)
    doing = "The suspended tickets could not be listed"
    try:
        listed = client.ticket_list(saved_filter("FILTER_STOPPED"), TASK)
        answers = checked(client.tickets(listed.ids, concurrency))
        plan = plan_sync(answers, settings.calendar, partial=listed.partial)
        failed = failed_text(dict(plan.failed)) if plan.failed else None
        problem = "список прочитан не до конца" if plan.partial else failed
        attempt = Attempt(started, len(listed.ids), len(plan.failed), problem, plan.complete)
        doing = "The suspended tickets could not be written"
        return Reading(plan, database.sync_stopped(plan, attempt), len(listed.ids), started)
    except TtmError as error:
        with suppress(PostgresError):  # the hub's error says more
            database.note(CURRENT.name, Attempt(started, problem=str(error), complete=False))
        raise failure_of(error, doing) from None
    except PostgresError as error:
        raise failure_of(error, doing) from None


def keep_history(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, database: TtmDatabase, reading: Reading
) -> Loaded:
    """Bring the warehouse in step with the list: what is in it now, and what is in it no more.

    The list itself is compared, not what one reading deleted: a load that was killed between the two
    databases is made good by the next one.
    """
    table, change = warehouse.ensure(STOPPED)
    current = database.stopped()
    known = warehouse.query(f"SELECT {', '.join(HISTORY)} FROM {table.sql_name} FINAL WHERE left_at IS NULL")
    listed = {row["task_number"] for row in current}
    gone = [dict(zip(HISTORY, row, strict=True)) for row in known if row[0] not in listed]
    records = [*current, *({**row, "left_at": reading.started_at} for row in gone)]
    spent = Spent(1 + reading.listed, 1 + reading.listed)
    asset = context.asset_key.to_user_string()
    with warehouse.load(table, asset=asset, run_id=context.run.run_id) as load:
        if records:
            load.add(lines(_utc(records)), len(records), reading.started_at)
        result = load.finish(
            kind="increment",
            source_time=reading.started_at,
            watermark=reading.started_at,
            requests=spent.requests,
            commands=spent.commands,
        )
    return Loaded(
        *(result, table, change, spent, Counter[str](), Bounds(), "increment"),
        *(reading.started_at, reading.started_at, False),
    )


def _utc(records: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Records whose instants carry their zone: the warehouse gives them without one."""
    for record in records:
        yield {
            name: value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
            for name, value in record.items()
        }
