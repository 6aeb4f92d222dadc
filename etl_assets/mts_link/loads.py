"""Loads of MTS Link that the house has no function for: children of changed rows, tables of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from etl_assets.loading import FULL, Batch, Bounds, Loaded, LoadKind, load_incremental, report
from etl_assets.mts_link.endpoints import Endpoint
from etl_assets.mts_link.fan_out import FanOut
from etl_assets.mts_link.parents import DATABASE, Parent, ParentRows
from etl_assets.mts_link.plan import Mode, Plan, lively
from etl_assets.mts_link.reading import EARLIEST, Asker, WindowReader
from etl_assets.mts_link.settings import MtsLinkSettings
from etl_assets.mts_link.tables import SESSIONS, RowMaker, table_of
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.table import DELETED, LOADED_AT, quote
from resources.clickhouse.warehouse import Load
from resources.mts_link import Call, MtsLinkClient, Page
from resources.mts_link.answers import text_id

VIEWERS = 3  # members of a chat who are tried one after another
NIGHT = "night"  # a nightly load in the progress table
REST = timedelta(hours=20)  # what is read once a night is not read again before that
EDGE = timedelta(days=1)  # what is at the edge of a period may belong to the one beside it


@dataclass(frozen=True, slots=True)
class Source:
    """One method with what reads it."""

    endpoint: Endpoint
    settings: MtsLinkSettings
    client: MtsLinkClient
    maker: RowMaker
    zone: ZoneInfo


# Children


def load_children(
    context: dg.AssetExecutionContext,
    source: Source,
    warehouse: WarehouseResource,
    mode: Mode,
    wanted: Bounds,
) -> dg.MaterializeResult:
    """Ask for the parents that are due, and report with the check `parents`."""
    endpoint, settings, client = source.endpoint, source.settings, source.client
    asset, now = context.asset_key.to_user_string(), client.now()
    everyone = ParentRows(warehouse, settings.classes).read(endpoint.parent)
    table, change = warehouse.ensure(table_of(endpoint, settings.zone))
    source.maker.floor = newer_than_all(warehouse, table)
    if change and not change.created:  # a new column: all rows are read again to fill it
        warehouse.note_progress(asset, FULL, "open", "", datetime.now(UTC))
    start = _begin(warehouse, asset, mode, wanted)
    mode, bounds = start.mode, start.bounds
    asker = Asker(endpoint, client, source.zone, {}, settings.message_pages, context.log.info)
    asker.since = max(EARLIEST, source.maker.oldest.get(endpoint.privacy, EARLIEST))
    load = FanOut(context, endpoint, client, warehouse, source.maker, asker, settings.failed_share)
    if endpoint.strategy == "messages":
        asker.marks, asker.viewers = load.known, viewers(warehouse)
    plan = Plan(mode, now, timedelta(days=settings.lookback_days), bounds, start.since)
    due = plan.due(everyone, load.known)
    if endpoint.strategy == "messages" and mode == "hourly":
        asker.news_only = {chat.key for chat in lively(everyone, load.known, now)} - {p.key for p in due}
        due += [parent for parent in everyone if parent.key in asker.news_only]
    if endpoint.parent == "visitors" and due:
        asker.emails = emails(client)
        due = [parent for parent in due if asker.emails.get(parent.key)]
    loaded = load.run(
        table,
        change,
        due,
        everyone,
        bounds=bounds,
        kind=_kind(mode, bounds) if load.known else "full",
        began_at=now,
        resumed=start.resumed,
    )
    if start.name:
        warehouse.note_progress(asset, start.name, "done", "", None)
    day = endpoint.day if loaded.result.rows else None
    result = report(context, warehouse, loaded, day_column=day, zone=settings.zone)
    return _with_parents(result, load, everyone)


@dataclass(frozen=True, slots=True)
class _Start:
    """How a fan-out goes about it. `since`: when it began at first, by our clock, as the marks are; `name` is
    its name in the progress table."""

    mode: Mode
    bounds: Bounds
    since: datetime
    name: str = ""
    resumed: bool = False


def _begin(warehouse: WarehouseResource, asset: str, mode: Mode, wanted: Bounds) -> _Start:
    """A load that was broken off is gone on with; another one is noted as begun.

    An hourly load asks for what has no mark or an old one, so it goes on without a note.
    """
    now = datetime.now(UTC)
    if left := warehouse.unfinished(asset, FULL):
        return _Start("asked", Bounds(), left.source_time or now, FULL, resumed=True)
    if mode == "hourly":
        return _Start(mode, wanted, now)
    name = wanted.key if mode == "asked" else NIGHT
    left = warehouse.unfinished(asset, name)
    if left and left.source_time and (mode == "asked" or now - left.source_time < REST):
        return _Start(mode, wanted, left.source_time, name, resumed=True)
    warehouse.note_progress(asset, name, "open", "", now)
    return _Start(mode, wanted, now, name)


def _kind(mode: Mode, bounds: Bounds) -> LoadKind:
    if mode != "asked":
        return "increment"
    return "full" if bounds.key == FULL else "window"


def _with_parents(
    result: dg.MaterializeResult, load: FanOut, everyone: Sequence[Parent]
) -> dg.MaterializeResult:
    """The result with how many parents there were, and the check of those that were not answered."""
    out = load.outcome
    metadata = {"parents": len(everyone), "parents_asked": out.asked, "parents_failed": out.failed}
    check = dg.AssetCheckResult(
        check_name="parents",
        passed=out.failed == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description=out.text(),
        metadata={"look": f"SELECT * FROM {DATABASE}._errors ORDER BY failed_at DESC"},
    )
    return dg.MaterializeResult(
        metadata={**(result.metadata or {}), **metadata},
        check_results=[*(result.check_results or []), check],
    )


def viewers(warehouse: WarehouseResource) -> dict[str, list[str]]:
    """Chat -> some of its members (chatUserId), through whose eyes it is read."""
    found = warehouse.query(
        f"SELECT chatId, arraySlice(arraySort(groupUniqArray(user_id)), 1, {VIEWERS}) "
        f"FROM {DATABASE}.user_channels FINAL WHERE {DELETED} = 0 GROUP BY chatId"
    )
    return {chat: list(members) for chat, members in found}


def emails(client: MtsLinkClient) -> dict[str, str]:
    """User -> e-mail, from the source: in the warehouse they may be pseudonyms."""
    from etl_assets.mts_link.endpoints import BY_NAME

    members = BY_NAME["organization_members"]
    pages = client.pages(Call(members.path, {}, members.paging))
    return {text_id(m.get("id")): str(m.get("email") or "") for page in pages for m in page.items}


# Periods


def newer_than_all(warehouse: WarehouseResource, table: Table) -> datetime | None:
    """A second after the newest row of a table; None where there is none.

    The row read last wins, and what a load did not see again is older than all that it saw. A source's clock
    that stands still or goes back would break both.
    """
    there = "SELECT count() FROM system.tables WHERE database = {d:String} AND name = {t:String}"
    if not warehouse.query(there, {"d": table.database, "t": table.name})[0][0]:
        return None
    newest = warehouse.query(f"SELECT toUnixTimestamp(max({LOADED_AT})) FROM {table.sql_name}")[0][0]
    return datetime.fromtimestamp(newest + 1, UTC) if newest else None


def retire_unseen(
    warehouse: WarehouseResource, table: Table, day: str, bounds: Bounds, first_read: datetime | None
) -> None:
    """Rows of a period that was read whole and that the source did not list.

    No deletion is reported, so what is absent is gone. Not at the edges of the period, and nothing if
    nothing was read.
    """
    if first_read is None or day not in {c.name for c in table.columns}:
        return
    inside = ["1"]
    if bounds.since:
        inside.append(f"{quote(day)} >= {_at(bounds.since + EDGE)}")
    if bounds.until:
        inside.append(f"{quote(day)} < {_at(bounds.until - EDGE)}")
    before = f"toDateTime({int(first_read.timestamp())}, 'UTC')"
    values = {LOADED_AT: before, DELETED: "1"}
    names = [name for name, _, _ in table.definitions()]
    chosen = ", ".join(f"{values[n]} AS {quote(n)}" if n in values else quote(n) for n in names)
    warehouse.command(
        f"INSERT INTO {table.sql_name} ({', '.join(map(quote, names))}) SELECT {chosen} "
        f"FROM {table.sql_name} FINAL WHERE {DELETED} = 0 AND {LOADED_AT} < {before} "
        f"AND {' AND '.join(inside)} SETTINGS prefer_column_name_to_alias = 1"
    )


def _at(moment: datetime) -> str:
    return f"toDateTime64({moment.timestamp():.3f}, 3, 'UTC')"


class ScheduleReader(WindowReader):
    """The schedule: its answers hold the events' sessions, which go into a table of their own."""

    def __init__(self, source: Source, load: Load, log: object) -> None:
        super().__init__(source.endpoint, source.client, source.maker, log, zone=source.zone)
        self._load = load
        self._sessions = replace(source.maker, endpoint=SESSIONS, unknown=set())

    def _batch(self, page: Page) -> Batch:
        sessions = self._sessions.batch(page.items, page.read_at)
        self._load.add(sessions.body, sessions.count, sessions.read_at)
        return super()._batch(page)


def load_schedule(
    context: dg.AssetExecutionContext,
    source: Source,
    warehouse: WarehouseResource,
    wanted: Bounds,
) -> Loaded:
    """Events into their table, their sessions into `event_sessions`.

    A period may hold some sessions of an event only, so sessions are rows of their own.
    """
    zone = source.settings.zone
    events, (sessions, change) = table_of(source.endpoint, zone), warehouse.ensure(table_of(SESSIONS, zone))
    asset = f"{DATABASE}/{SESSIONS.name}"
    floors = [at for t in (events, sessions) if (at := newer_than_all(warehouse, t))]
    source.maker.floor = max(floors, default=None)
    with warehouse.load(sessions, asset=asset, run_id=context.run.run_id) as load:
        reader = ScheduleReader(source, load, context.log.info)

        def after(bounds: Bounds, source_time: datetime) -> None:
            load.flush()
            retire_unseen(warehouse, sessions, "startsAt", bounds, reader.first_read)
            retire_unseen(warehouse, events, "startsAt", bounds, reader.first_read)
            whole = bounds.until is None
            load.finish(
                kind="increment" if whole and bounds.since else "full" if whole else "window",
                source_time=source_time,
                watermark=source_time if whole else None,
                window=(bounds.since, bounds.until),
            )

        loaded = load_incremental(context, warehouse, events, reader, wanted, after)
    rows = warehouse.query(f"SELECT count() FROM {sessions.sql_name} FINAL WHERE {DELETED} = 0")[0][0]
    metadata = {"dagster/row_count": int(rows), "dagster/table_name": sessions.full_name}
    context.log_event(dg.AssetMaterialization([DATABASE, SESSIONS.name], metadata=metadata))
    if change.view:
        context.log_event(dg.AssetMaterialization(["bi", SESSIONS.name], metadata=metadata))
    return loaded
