"""The warehouse: make a table fit, load records into it, remember how far a source has been read.

A load is one object: `with warehouse.load(table, asset=...) as load: load.add(...); load.finish(...)`.
Records arrive as JSON text and are inserted into an inlet, a `Null` table of `String` columns with two
materialized views: one types every value into the table, one keeps what does not fit in
`svod.rejected_rows`. So one insert is one pass in the engine, for a server and for the embedded engine
alike, and Python never touches a cell.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import dagster as dg
import lz4.frame
from clickhouse_connect.driver.client import Client
from pydantic import Field, PrivateAttr

from resources.clickhouse.engine import Embedded, Server, engine_for
from resources.clickhouse.errors import WarehouseError, explain, repeat
from resources.clickhouse.load import SYSTEM, Load, LoadResult
from resources.clickhouse.table import DELETED, LOADED_AT, Table, literal, quote
from resources.clickhouse.values import whole_characters

VIEWS = "bi"
READ_SETTINGS = {
    "input_format_skip_unknown_fields": 1,
    "input_format_null_as_default": 1,
    "input_format_json_read_numbers_as_strings": 1,
    "input_format_json_read_bools_as_strings": 1,
    "input_format_json_read_arrays_as_strings": 1,
    "input_format_json_read_objects_as_strings": 1,
    "input_format_parallel_parsing": 0,  # a batch is small: one thread parses it while the next one is on the wire
    "materialized_views_ignore_errors": 0,
    "max_partitions_per_insert_block": 0,  # a range of a year is one load
}
RESUME_WITHIN_DAYS = 7
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LOAD_LOG = f"""CREATE TABLE IF NOT EXISTS {SYSTEM}.load_log{{cluster}} (
  asset LowCardinality(String) COMMENT 'Dagster asset key',
  kind LowCardinality(String) COMMENT 'full, window, increment, snapshot or heal',
  window_from Nullable(DateTime64(3, 'UTC')) COMMENT 'Lower bound of the source''s change time, inclusive',
  window_to Nullable(DateTime64(3, 'UTC')) COMMENT 'Upper bound, exclusive; NULL: until the read',
  rows UInt64, rejected UInt64,
  requests UInt32 COMMENT 'HTTP requests', commands UInt32 COMMENT 'Calls inside them',
  waited_s Float64 COMMENT 'Seconds spent waiting for the source''s limits',
  api_s Float64 COMMENT 'Seconds of HTTP requests, summed', duration_s Float64,
  source_time DateTime64(3, 'UTC') COMMENT 'The source''s clock when the load began',
  watermark Nullable(DateTime64(3, 'UTC')) COMMENT 'Everything changed before this instant is here',
  started_at DateTime64(3, 'UTC'), finished_at DateTime64(3, 'UTC'),
  load_id String, run_id String
) ENGINE = {{engine}} ORDER BY (asset, finished_at) COMMENT 'One row a finished load, written after its last row'"""

_REJECTED = f"""CREATE TABLE IF NOT EXISTS {SYSTEM}.rejected_rows{{cluster}} (
  table_name LowCardinality(String), row_key String, reasons Array(String), raw String COMMENT 'The record as JSON',
  load_id String, rejected_at DateTime('UTC')
) ENGINE = {{engine}} ORDER BY (table_name, row_key, reasons) COMMENT 'Rows with a value that did not fit its column'"""

_PROGRESS = f"""CREATE TABLE IF NOT EXISTS {SYSTEM}.load_progress{{cluster}} (
  asset String, window String, state LowCardinality(String), progress String,
  source_time DateTime64(3, 'UTC'), updated_at DateTime64(6, 'UTC')
) ENGINE = {{engine}} ORDER BY (asset, window) COMMENT 'How far a long load has come, so that a killed one goes on'"""

_NOTES = f"""CREATE TABLE IF NOT EXISTS {SYSTEM}.notes{{cluster}} (
  name String, text String, noted_at DateTime64(3, 'UTC')
) ENGINE = {{engine}} ORDER BY name COMMENT 'What a source said of itself, kept to spare the next request'"""


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """What `ensure` did to a table. `retyped` maps a column to the new column that holds its new type."""

    created: bool = False
    added: tuple[str, ...] = ()
    retyped: Mapping[str, str] = field(default_factory=dict)
    view: bool = False

    def __bool__(self) -> bool:
        return bool(self.created or self.added or self.retyped)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A load that was begun and not finished: where it came to, and the source's clock when it began."""

    progress: str
    source_time: datetime | None


class WarehouseResource(dg.ConfigurableResource):
    """One ClickHouse warehouse: a server, or the embedded engine in a directory."""

    url: str = Field(
        description="CLICKHOUSE_URL: http[s]://user:password@host:port/database or chdb:///path", repr=False
    )
    ca_bundle: str | None = Field(
        default=None, description="File with the CA certificates to trust, for https"
    )
    cluster: str | None = Field(default=None, description="Cluster for ON CLUSTER DDL and Replicated engines")
    insert_rows: int = Field(default=10_000, gt=0, description="Rows that are gathered before one insert")
    _ready: bool = PrivateAttr(default=False)

    @cached_property
    def engine(self) -> Server | Embedded:
        return engine_for(self.url, self.ca_bundle)

    def warm_up(self) -> None:
        """Begin to open the warehouse while the caller asks its source; a failure shows when it is used."""
        self.engine.warm_up()

    @contextmanager
    def session(self, doing: str = "reading the warehouse") -> Iterator[Client]:
        """A client with the system tables in place; errors come out as WarehouseError."""
        try:
            with self.engine.session() as client:
                if not self._ready:
                    self._create_system_tables(client)
                    self._ready = True
                yield client
        except dg.Failure:
            raise
        except Exception as error:
            raise explain(error, doing) from None

    def query(self, sql: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Rows of a SELECT."""
        with self.session() as client:
            return list(client.query(sql, parameters=parameters).result_rows)  # type: ignore[arg-type]

    def command(self, sql: str) -> None:
        with self.session("changing the warehouse") as client:
            client.command(sql)

    # Structure

    @property
    def _on_cluster(self) -> str:
        return f" ON CLUSTER {quote(self.cluster)}" if self.cluster else ""

    def _engine(self, kind: str, *arguments: str) -> str:
        return f"{'Replicated' if self.cluster else ''}{kind}({', '.join(arguments)})"

    def _create_system_tables(self, client: Client) -> None:
        for database in (SYSTEM, VIEWS):
            client.command(f"CREATE DATABASE IF NOT EXISTS {database}{self._on_cluster}")
        for ddl, engine in (
            (_LOAD_LOG, self._engine("MergeTree")),
            (_REJECTED, self._engine("ReplacingMergeTree", "rejected_at")),
            (_PROGRESS, self._engine("ReplacingMergeTree", "updated_at")),
            (_NOTES, self._engine("ReplacingMergeTree", "noted_at")),
        ):
            client.command(ddl.format(cluster=self._on_cluster, engine=engine))

    def columns(self, table: Table) -> dict[str, tuple[str, str]]:
        """name -> (type, comment) of a table as it is now; empty if there is none."""
        with self.session() as client:
            return self._columns(client, table)

    def _columns(self, client: Client, table: Table) -> dict[str, tuple[str, str]]:
        found = client.query(
            "SELECT name, type, comment FROM system.columns WHERE database = {d:String} AND table = {t:String} ORDER BY position",
            parameters={"d": table.database, "t": table.name},
        )
        return {name: (type_, comment) for name, type_, comment in found.result_rows}

    def plan(self, table: Table) -> tuple[Table, SchemaChange]:
        """What `ensure` would change.

        A column whose type changed gets a successor `<name>__v2`, never a silent cast.
        """
        with self.session() as client:
            return _fit(table, self._columns(client, table))

    def ensure(self, table: Table) -> tuple[Table, SchemaChange]:
        """Create the table or add what it lacks (nothing is dropped), and refresh its `bi` view.

        Returns the table as loads must see it, and what was changed.
        """
        with self.session(f"preparing the table {table.full_name}") as client:
            existing = self._columns(client, table)
            table, change = _fit(table, existing)
            if change.created:
                client.command(f"CREATE DATABASE IF NOT EXISTS {quote(table.database)}{self._on_cluster}")
                client.command(self._ddl(table))
                new = True
            else:  # a table that a view needed, with the columns known then, is new as long as it is blank
                new = bool(change) and self._is_blank(client, table)
                self._add_columns(client, table, existing, in_order=new)
            viewed = self._ensure_view(client, table)
            return table, SchemaChange(new, change.added, change.retyped, viewed)

    @staticmethod
    def _is_blank(client: Client, table: Table) -> bool:
        return not client.query(f"SELECT 1 FROM {table.sql_name} LIMIT 1").result_rows

    def _ddl(self, table: Table, stage: str | None = None) -> str:
        engine = self._table_engine(table)
        return table.create_sql(
            stage=stage, engine=engine, cluster=self._on_cluster, frugal=self.engine.embedded
        )

    def _table_engine(self, table: Table) -> str:
        version = [LOADED_AT, DELETED] if table.tombstones else [LOADED_AT]
        return self._engine("ReplacingMergeTree", *version)

    def _add_columns(
        self, client: Client, table: Table, existing: Mapping[str, tuple[str, str]], *, in_order: bool
    ) -> None:
        """New columns come last, where nobody's position changes, or `in_order`."""
        parts, before = [], ""
        for name, type_, comment in table.definitions():
            if name not in existing:
                place = f" AFTER {quote(before)}" if in_order and before else ""
                column = f"{quote(name)} {type_} COMMENT {literal(comment)}{place}"
                parts.append(f"ADD COLUMN IF NOT EXISTS {column}")
            elif comment and existing[name][1] != comment:
                parts.append(f"COMMENT COLUMN {quote(name)} {literal(comment)}")
            before = name
        if parts:
            client.command(f"ALTER TABLE {table.sql_name}{self._on_cluster} {', '.join(parts)}")

    def _ensure_view(self, client: Client, table: Table) -> bool:
        """`bi.<table>`: current rows only, without the loader's bookkeeping of deleted ones.

        True if it changed. What it was made from is noted, since the engine spells a view's SQL its own way.
        """
        select = table.view_sql(list(self._columns(client, table)))
        name, wanted = f"view/{VIEWS}.{table.name}", hashlib.sha256(select.encode()).hexdigest()[:24]
        seen = client.query(
            "SELECT (SELECT count() FROM system.tables WHERE database = {d:String} AND name = {t:String}), "
            f"(SELECT argMax(text, noted_at) FROM {SYSTEM}.notes WHERE name = {{n:String}})",
            parameters={"d": VIEWS, "t": table.name, "n": name},
        )
        if seen.result_rows[0] == (1, wanted):
            return False
        for other in table.needs:
            client.command(f"CREATE DATABASE IF NOT EXISTS {quote(other.database)}{self._on_cluster}")
            client.command(self._ddl(other))
        view = f"{VIEWS}.{quote(table.name)}"
        comment = f" COMMENT {literal(table.comment)}" if table.comment else ""
        client.command(f"CREATE OR REPLACE VIEW {view}{self._on_cluster} AS {select}{comment}")
        self._note(client, name, wanted)
        return True

    # Watermarks and progress

    def watermark(self, asset: str) -> datetime | None:
        """Everything that changed at the source before this instant is in the warehouse.

        None before the first full load.
        """
        found = self.query(
            f"SELECT max(watermark) FROM {SYSTEM}.load_log WHERE asset = {{a:String}}", {"a": asset}
        )
        return _utc(found[0][0])

    def watermarks(self) -> dict[str, datetime]:
        """Asset -> watermark, of all assets that have one."""
        found = self.query(
            f"SELECT asset, max(watermark) AS w FROM {SYSTEM}.load_log GROUP BY asset HAVING w IS NOT NULL"
        )
        return {asset: at for asset, w in found if (at := _utc(w))}

    def landed_since(self, asset: str, reader: str) -> tuple[datetime, datetime | None] | None:
        """What came into `asset` since `reader`'s last load up to the present began; None if nothing did.

        (the source's clock at the earliest such load, the watermark that `asset` had before). Rows read at
        or after that clock may not have been there for `reader`; those that changed before that watermark
        were, unless one of the loads was of kind `heal`: then there is no such watermark.
        """
        found = self.query(
            f"WITH (SELECT max(started_at) FROM {SYSTEM}.load_log WHERE asset = {{r:String}} AND watermark IS NOT NULL) AS seen "
            "SELECT minIf(source_time, rows > 0 AND finished_at > seen), countIf(rows > 0 AND finished_at > seen), "
            "if(countIf(kind = 'heal' AND finished_at > seen) > 0, NULL, maxIf(watermark, finished_at <= seen)) "
            f"FROM {SYSTEM}.load_log WHERE asset = {{a:String}}",
            {"a": asset, "r": reader},
        )
        landed, loads, mark = found[0]
        return (_utc(landed) or datetime.now(UTC), _utc(mark)) if loads else None

    def unfinished(self, asset: str, window: str) -> Unfinished | None:
        """The load of this window that was begun lately and never finished."""
        found = self.query(
            f"SELECT progress, source_time FROM {SYSTEM}.load_progress FINAL WHERE asset = {{a:String}} AND window = {{w:String}}"
            f" AND state = 'open' AND updated_at > now() - INTERVAL {RESUME_WITHIN_DAYS} DAY",
            {"a": asset, "w": window},
        )
        if not found:
            return None
        source_time = _utc(found[0][1])
        return Unfinished(found[0][0], source_time if source_time and source_time.year > 1971 else None)

    def note_progress(
        self,
        asset: str,
        window: str,
        state: Literal["open", "done"],
        progress: str,
        source_time: datetime | None,
    ) -> None:
        with self.session("noting the progress of a load") as client:
            row = [
                asset,
                window,
                state,
                progress,
                source_time or datetime(1970, 1, 1, tzinfo=UTC),
                datetime.now(UTC),
            ]
            names = ["asset", "window", "state", "progress", "source_time", "updated_at"]
            repeat(
                "noting the progress of a load",
                lambda: client.insert(f"{SYSTEM}.load_progress", [row], column_names=names),
            )

    def note(self, name: str, text: str) -> None:
        """Keep a text under a name; the last one counts."""
        with self.session("keeping a note") as client:
            self._note(client, name, text)

    def _note(self, client: Client, name: str, text: str) -> None:
        row = [name, text, datetime.now(UTC)]
        repeat(
            "keeping a note",
            lambda: client.insert(f"{SYSTEM}.notes", [row], column_names=["name", "text", "noted_at"]),
        )

    def notes(self, names: Sequence[str]) -> dict[str, tuple[str, datetime]]:
        """name -> (text, when it was noted), of those that exist."""
        sql = f"SELECT name, text, noted_at FROM {SYSTEM}.notes FINAL WHERE name IN {{n:Array(String)}}"
        return {
            name: (text, _utc(at) or datetime.now(UTC))
            for name, text, at in self.query(sql, {"n": list(names)})
        }

    # Loading

    def load(
        self,
        table: Table,
        *,
        asset: str,
        run_id: str = "",
        owner: int | None = None,
        revocable: bool = False,
    ) -> Load:
        """Begin a load. `table` comes from `ensure`; see `Load`."""
        return Load(self, table, asset, run_id, owner=owner, revocable=revocable)

    def retire_children(
        self, table: Table, owner: str, owners: Sequence[str], before: datetime, where: Mapping[str, str]
    ) -> None:
        """Mark rows of re-read parents as gone that the source did not list again.

        Rows of `owners` (values of the column `owner`) whose `dt_inserted` is older than `before` get a
        tombstone.
        """
        if not owners:
            return
        names = [n for n, _, _ in table.definitions()]
        values = {LOADED_AT: f"toDateTime({int(before.timestamp())}, 'UTC')", DELETED: "1"}
        chosen = ", ".join(f"{values[n]} AS {quote(n)}" if n in values else quote(n) for n in names)
        fixed = "".join(f" AND {quote(c)} = {literal(v)}" for c, v in where.items())
        into = f"INSERT INTO {table.sql_name} ({', '.join(quote(n) for n in names)})"
        with self.session(f"retiring rows of {table.full_name}") as client:
            for at in range(0, len(owners), 5000):
                listed = ", ".join(literal(o) for o in owners[at : at + 5000])
                client.command(
                    f"{into} SELECT {chosen} FROM {table.sql_name} FINAL WHERE {quote(owner)} IN ({listed}){fixed}"
                    f" AND {LOADED_AT} < toDateTime({int(before.timestamp())}, 'UTC') SETTINGS prefer_column_name_to_alias = 1"
                )

    def log_load(self, row: Mapping[str, str | int | float | datetime | None]) -> None:
        """Write the log row of a load, once, though the driver or we send it again after a lost answer."""
        cells = ", ".join(_parameter(name, value) for name, value in row.items())
        ticks = {name: _milliseconds(value) for name, value in row.items()}
        once = f"(SELECT count() FROM {SYSTEM}.load_log WHERE load_id = {{load_id:String}}) = 0"
        sql = f"INSERT INTO {SYSTEM}.load_log ({', '.join(row)}) SELECT {cells} WHERE {once}"
        with self.session("writing the load log") as client:
            repeat("writing the load log", lambda: client.command(sql, parameters=ticks))

    def insert_text(
        self, client: Client, target: str, body: bytes, comment: Mapping[str, Any], *, tabs: bool = False
    ) -> None:
        """One insert of JSON rows, or of tab-separated ones with a header, repeated when the connection
        breaks: the same rows again change nothing."""
        settings: dict[str, Any] = {**READ_SETTINGS, "log_comment": json.dumps(comment)}
        format_, compression = ("TabSeparatedWithNames" if tabs else "JSONEachRow"), None
        body = body if tabs else whole_characters(body)
        if not self.engine.embedded:
            body, compression = lz4.frame.compress(body), "lz4"
        repeat(
            f"inserting into {target}",
            lambda: client.raw_insert(
                target, insert_block=body, fmt=format_, settings=settings, compression=compression
            ),
        )
        if self.engine.embedded:
            client.command("SYSTEM JEMALLOC PURGE")  # the engine gives memory back only when asked


def _parameter(name: str, value: object) -> str:
    """SQL that takes a bound parameter of a log row; times are bound as milliseconds."""
    if value is None or isinstance(value, datetime):
        return f"fromUnixTimestamp64Milli({{{name}:Nullable(Int64)}}, 'UTC')"
    type_ = {str: "String", float: "Float64"}.get(type(value), "Int64")
    return f"{{{name}:{type_}}}"


def _milliseconds(value: Any) -> Any:
    return (value - _EPOCH) // timedelta(milliseconds=1) if isinstance(value, datetime) else value


def _fit(table: Table, existing: Mapping[str, tuple[str, str]]) -> tuple[Table, SchemaChange]:
    """The table as it must be written given what exists: changed types move to successor columns."""
    if not existing:
        return table, SchemaChange(created=True)
    columns, retyped = [], {}
    for column in table.columns:
        name = _successor(column.name, column.type, existing)
        if name != column.name and name not in existing:  # once: an existing successor is no change
            retyped[column.name] = name
        columns.append(replace(column, name=name))
    fitted = replace(table, columns=tuple(columns))
    added = tuple(n for n, _, _ in fitted.definitions() if n not in existing)
    return fitted, SchemaChange(added=added, retyped=retyped)


def _successor(name: str, type_: str, existing: Mapping[str, tuple[str, str]]) -> str:
    candidate, version = name, 1
    while candidate in existing and existing[candidate][0] != type_:
        version += 1
        candidate = f"{name}__v{version}"
    return candidate


def _utc(value: datetime | None) -> datetime | None:
    if value is None:
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


__all__ = ["Load", "LoadResult", "SchemaChange", "Unfinished", "WarehouseError", "WarehouseResource"]
