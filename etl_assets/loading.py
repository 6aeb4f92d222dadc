"""Entity + window -> warehouse -> MaterializeResult: the one way that an asset is made.

Nothing here knows a source. A source gives batches of records with the clock at which they were read; this
module makes the table fit, resumes what was left unfinished, loads, writes the log and tells the UI.
"""

from __future__ import annotations

import base64
import io
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import chain, islice
from typing import Any, Literal, Protocol

import dagster as dg

from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.load import BY_PARTITION
from resources.clickhouse.table import LOADED_AT, quote
from resources.clickhouse.warehouse import LoadResult, SchemaChange

OVERLAP = timedelta(minutes=10)  # a source may stamp a change before it commits it
PLOT_DAYS = 30
FEED_TAG = "svod/feed"  # a run with it loads what changed since the last one, whatever its partitions
OWNERS = ["team:data-platform"]
FULL = "full"
LoadKind = Literal["full", "window", "increment", "snapshot"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Records on their way: JSON objects, newline-separated, with the source's clock at the read.

    `days` counts them by the partition day; `progress` lets a later load go on after them; `context` holds
    the values of the table's context columns.
    """

    body: bytes
    count: int
    read_at: datetime
    days: Mapping[str, int] = field(default_factory=dict)
    progress: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bounds:
    """A half-open window of the source's change time; None is unbounded.

    `overlap` is the part at its beginning that has been read before, for the case of a late commit.
    """

    since: datetime | None = None
    until: datetime | None = None
    overlap: timedelta = timedelta(0)

    @property
    def key(self) -> str:
        """Names the window in the progress table."""
        if self.since is None and self.until is None:
            return FULL
        return (
            f"{self.since.isoformat() if self.since else ''}..{self.until.isoformat() if self.until else ''}"
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What reading cost: HTTP requests, calls inside them, seconds waited for limits, seconds of requests."""

    requests: int = 0
    commands: int = 0
    waited_s: float = 0.0
    api_s: float = 0.0


class Reader(Protocol):
    """What a source gives for one asset."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        """All records of the window, complete, or an error."""
        ...

    def clock(self) -> datetime:
        """The source's own clock, aware."""
        ...

    def spent(self) -> Spent:
        """What this reader's requests have cost so far."""
        ...


@dataclass
class Loaded:
    """What a load did, for the asset's metadata and checks."""

    result: LoadResult
    table: Table
    change: SchemaChange
    spent: Spent
    days: Counter[str]
    bounds: Bounds
    kind: LoadKind
    source_time: datetime
    watermark: datetime | None
    resumed: bool


def feed_bounds(warehouse: WarehouseResource, asset: str) -> Bounds:
    """What has changed since the last load, with an overlap; everything if there was none."""
    return feed_bounds_from(warehouse.watermark(asset))


def feed_bounds_from(watermark: datetime | None) -> Bounds:
    """The window that begins at a watermark."""
    return Bounds(watermark - OVERLAP, overlap=OVERLAP) if watermark else Bounds()


def load_incremental(
    context: dg.AssetExecutionContext,
    warehouse: WarehouseResource,
    table: Table,
    reader: Reader,
    wanted: Bounds,
    after: Callable[[Bounds, datetime], None] | None = None,
    key: dg.AssetKey | None = None,
) -> Loaded:
    """Upsert the records of a window.

    A window that was begun and not finished goes on where it stopped, and is followed by a read of what
    changed meanwhile. A column that appears at the source makes the load a full one, since old rows do not
    move when a field is created. `after(bounds, source_time)` runs when the rows are in and before the log
    row is written. `key` names the asset where one step loads several.
    """
    asset = (key or context.asset_key).to_user_string()
    source_time = reader.clock()
    early = begin(reader, wanted) if warehouse.engine.blank else None
    _, planned = warehouse.plan(table)
    if planned.added or planned.retyped:
        context.log.info("New columns %s: all rows are read again to fill them", ", ".join(planned.added))
        warehouse.note_progress(asset, FULL, "open", "", None)
    table, change = warehouse.ensure(table)
    left = warehouse.unfinished(asset, FULL)
    bounds = Bounds() if left else wanted
    left = left or warehouse.unfinished(asset, bounds.key)
    resumed = bool(left and left.progress)
    began = time.monotonic()
    first_time = left.source_time if left and resumed and left.source_time else source_time
    days: Counter[str] = Counter()
    noted = left is not None
    with warehouse.load(table, asset=asset, run_id=context.run.run_id) as load:
        for part in _parts(bounds, left.progress if left else None, resumed, first_time):
            batches = early if early and part == (wanted, None) else reader.read(*part)
            for batch in batches:
                progress = (
                    (bounds.key, batch.progress, first_time) if batch.progress and part[0] == bounds else None
                )
                noted = noted or progress is not None
                load.add(batch.body, batch.count, batch.read_at, progress=progress, context=batch.context)
                days.update(batch.days)
                _tell(context, load.rows, began)
        load.flush()
        if after:
            after(bounds, source_time)
        mark = _next_watermark(warehouse, asset, bounds, first_time)
        kind: LoadKind = "full" if bounds.key == FULL else "increment" if bounds.until is None else "window"
        spent = reader.spent()
        result = load.finish(
            kind=kind,
            source_time=min(first_time, source_time),
            watermark=mark,
            window=(bounds.since, bounds.until),
            requests=spent.requests,
            commands=spent.commands,
            waited_s=spent.waited_s,
            api_s=spent.api_s,
        )
    if noted:
        warehouse.note_progress(asset, bounds.key, "done", "", None)
    return Loaded(result, table, change, spent, days, bounds, kind, source_time, mark, resumed)


def begin(reader: Reader, bounds: Bounds) -> Iterator[Batch]:
    """Start reading, and give all batches: the source works while the warehouse is made ready.

    Only for a warehouse without anything in it, where no unfinished load can change what is to be read.
    """
    batches = reader.read(bounds, None)
    return chain(list(islice(batches, 2)), batches)


def _parts(
    bounds: Bounds, progress: str | None, resumed: bool, first_time: datetime
) -> Iterator[tuple[Bounds, str | None]]:
    yield bounds, progress or None
    if resumed:  # rows read before the interruption may have changed since
        yield Bounds(since=first_time - OVERLAP), None


def _next_watermark(
    warehouse: WarehouseResource, asset: str, bounds: Bounds, first_time: datetime
) -> datetime | None:
    """The new watermark, if the window joins what was loaded before and reaches to the present."""
    if bounds.until is not None:
        return None
    if bounds.since is None:
        return first_time
    mark = warehouse.watermark(asset)
    return first_time if mark and bounds.since <= mark else None


def load_snapshot(
    context: dg.AssetExecutionContext, warehouse: WarehouseResource, table: Table, reader: Reader
) -> Loaded:
    """Replace the table by what the source says now."""
    table, change = warehouse.ensure(table)
    source_time = reader.clock()
    with warehouse.load(table, asset=context.asset_key.to_user_string(), run_id=context.run.run_id) as load:
        for batch in reader.read(Bounds(), None):
            load.add(batch.body, batch.count, batch.read_at, context=batch.context)
        spent = reader.spent()
        result = load.finish(
            kind="snapshot",
            source_time=source_time,
            watermark=source_time,
            requests=spent.requests,
            commands=spent.commands,
            waited_s=spent.waited_s,
            api_s=spent.api_s,
        )
    return Loaded(
        result, table, change, spent, Counter(), Bounds(), "snapshot", source_time, source_time, False
    )


_last_told: dict[str, float] = {}


def _tell(context: dg.AssetExecutionContext, rows: int, began: float) -> None:
    """A line of progress every few seconds."""
    now = time.monotonic()
    if rows and now - _last_told.get(context.run.run_id, 0.0) > 5:
        _last_told[context.run.run_id] = now
        context.log.info("%s rows in, %.0f rows/s", f"{rows:,}", rows / max(now - began, 0.001))


# What the UI shows


def column_schema(table: Table) -> dg.TableSchema:
    """The table's columns, as the asset page lists them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type_, description=comment or None)
            for name, type_, comment in table.definitions()
        ]
    )


def report(
    context: dg.AssetExecutionContext,
    warehouse: WarehouseResource,
    loaded: Loaded,
    *,
    day_column: str | None = None,
    zone: str = "UTC",
    asset: dg.AssetKey | None = None,
) -> dg.MaterializeResult:
    """Metadata and check results of a finished load; `asset` names it where one step loads several."""
    table, spent, result = loaded.table, loaded.spent, loaded.result
    alive = f" WHERE {table.alive_sql}" if table.alive_sql else ""
    apart = f" SETTINGS {BY_PARTITION}" if table.day else ""
    rows = int(warehouse.query(f"SELECT count() FROM {table.sql_name} FINAL{alive}{apart}")[0][0])
    metadata: dict[str, Any] = {
        "dagster/row_count": rows,
        "dagster/table_name": table.full_name,
        "dagster/column_schema": column_schema(table),
        "rows_loaded": result.rows,
        "rows_rejected": result.rejected,
        "http_requests": spent.requests,
        "commands": spent.commands,
        "seconds": round(result.duration_s, 3),
        "seconds_waited_for_limits": round(spent.waited_s, 3),
        "seconds_of_requests": round(spent.api_s, 3),
        "rows_per_second": round(result.rows / result.duration_s) if result.duration_s > 0 else 0,
        "load": f"{loaded.kind}{_window_text(loaded.bounds)}" + (" (resumed)" if loaded.resumed else ""),
        "source_time": dg.MetadataValue.timestamp(loaded.source_time),
    }
    if loaded.watermark:
        metadata["watermark"] = dg.MetadataValue.timestamp(loaded.watermark)
    if loaded.change:
        metadata["schema_change"] = _change_text(loaded.change)
    if table.day or day_column:
        counts = rows_by_day(warehouse, table, day_column or "", zone)
        if counts:
            metadata["rows_by_day"] = dg.MetadataValue.md(plot_days(counts))
    if context.assets_def.partitions_def is not None:  # a snapshot may share a run with partitions
        metadata = _by_partition(context, loaded, metadata, asset)
    if loaded.change.view:
        view = dg.AssetKey(["bi", table.name])
        context.log_event(
            dg.AssetMaterialization(
                view, metadata={"dagster/table_name": f"bi.{table.name}", "dagster/row_count": rows}
            )
        )
    return dg.MaterializeResult(asset_key=asset, metadata=metadata, check_results=_checks(loaded, asset))


def _window_text(bounds: Bounds) -> str:
    since, until = (f"{at:%Y-%m-%d %H:%M:%S %z}" if at else "…" for at in (bounds.since, bounds.until))
    return "" if bounds.key == FULL else f" {since} – {until}"


def _by_partition(
    context: dg.AssetExecutionContext, loaded: Loaded, metadata: dict[str, Any], asset: dg.AssetKey | None
) -> dict[str, Any]:
    """Give each partition its own row count, and the newest one everything.

    Dagster copies a result's metadata to every partition of a range: years of days would store a plot
    thousands of times.
    """
    keys = context.partition_keys
    for key in keys:
        context.add_asset_metadata(
            {"dagster/partition_row_count": loaded.days.get(key, 0)}, asset_key=asset, partition_key=key
        )
    if len(keys) == 1:
        return metadata
    context.add_asset_metadata(metadata, asset_key=asset, partition_key=keys[-1])
    return {"rows_loaded": loaded.result.rows, "load": metadata["load"]}


def check_specs(asset: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """The checks that every load answers by itself."""
    return [
        dg.AssetCheckSpec(
            "rejected_rows",
            asset=asset,
            description="Every value fits its column; others are in svod.rejected_rows.",
        ),
        dg.AssetCheckSpec(
            "schema_drift", asset=asset, description="The source's fields are the table's columns."
        ),
    ]


def _checks(loaded: Loaded, asset: dg.AssetKey | None) -> list[dg.AssetCheckResult]:
    rejected, change = loaded.result.rejected, loaded.change
    drifted = bool(change.added or change.retyped) and not change.created
    return [
        dg.AssetCheckResult(
            check_name="rejected_rows",
            asset_key=asset,
            passed=rejected == 0,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "rows_rejected": rejected,
                "look": "SELECT * FROM svod.rejected_rows WHERE "
                f"table_name = '{loaded.table.full_name}' AND load_id IN ('{loaded.result.load_id}')",
            },
        ),
        dg.AssetCheckResult(
            check_name="schema_drift",
            asset_key=asset,
            passed=not drifted,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"change": _change_text(change)},
        ),
    ]


def _change_text(change: SchemaChange) -> str:
    if change.created:
        return "the table was created"
    parts = [f"added {', '.join(change.added)}"] if change.added else []
    parts += [f"the type of {old} changed: new values are in {new}" for old, new in change.retyped.items()]
    return "; ".join(parts) or "none"


def rows_by_day(warehouse: WarehouseResource, table: Table, column: str, zone: str) -> list[tuple[date, int]]:
    """(day, rows) of the last days that have rows: of the table's own days, else by a DateTime64 column."""
    if table.day:  # few partitions are read, not the whole table
        found = warehouse.query(
            f"SELECT {table.day} AS day, count() FROM {table.sql_name} FINAL "
            f"WHERE {table.day} > (SELECT max({table.day}) FROM {table.sql_name}) - {PLOT_DAYS} "
            f"GROUP BY day ORDER BY day SETTINGS {BY_PARTITION}"
        )
        return [(day, int(count)) for day, count in found]
    key = ", ".join(quote(k) for k in table.key)
    found = warehouse.query(
        f"SELECT toDate({quote(column)}, '{zone}') AS day, uniqExact({key}) FROM {table.sql_name} "
        f"WHERE {quote(column)} IS NOT NULL GROUP BY day ORDER BY day DESC LIMIT {PLOT_DAYS}"
    )
    return [(day, int(count)) for day, count in reversed(found)]


def plot_days(counts: list[tuple[date, int]]) -> str:
    """Markdown with an inline PNG, about 10 KB."""
    from matplotlib.backends.backend_agg import (
        FigureCanvasAgg,
    )  # half a second to import: only where a plot is drawn
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.2), dpi=80)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.bar([f"{day:%d.%m}" for day, _ in counts], [count for _, count in counts], color="#4f43dd")
    axes.tick_params(axis="x", rotation=90, labelsize=7)
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    png = io.BytesIO()
    figure.savefig(png, format="png")
    title = f"{counts[0][0]:%d.%m.%Y} – {counts[-1][0]:%d.%m.%Y}, {sum(c for _, c in counts):,} rows"
    return f"![rows by day](data:image/png;base64,{base64.b64encode(png.getvalue()).decode()})\n\n{title}"


__all__ = ["LOADED_AT", "Batch", "Bounds", "Loaded", "Reader", "Spent"]
