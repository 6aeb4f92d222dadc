"""One load of one table: rows gather, go into an inlet, and are put in place when all are there."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from clickhouse_connect.driver.client import Client

from resources.clickhouse.errors import WarehouseError, repeat
from resources.clickhouse.table import Table, quote

if TYPE_CHECKING:
    from resources.clickhouse.warehouse import WarehouseResource

SYSTEM = "svod"
FLUSH_AFTER_S = 1.0  # a slow source should not leave its last rows, and its progress, waiting for more
STAGE_LIFE = timedelta(days=2)  # longer than any load that fills one
_LOAD_ID = re.compile(r"\d{8}T\d{6}-[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one load brought."""

    load_id: str
    rows: int
    rejected: int
    duration_s: float


class Load:
    """One load of one table: gathers batches, inserts them, and writes the load log when it is finished.

    Leaving the `with` block without `finish` (an error) writes no log row, so the load is repeated.
    """

    def __init__(
        self,
        warehouse: WarehouseResource,
        table: Table,
        asset: str,
        run_id: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.warehouse, self.table, self.asset = warehouse, table, asset
        self.load_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        self.rows = 0
        self._run_id = run_id
        self._started = datetime.now(UTC)
        self._clock = clock
        self._began = clock()
        self._pending: list[bytes] = []
        self._pending_rows = 0
        self._pending_since = 0.0
        self._read_at: datetime | None = None
        self._context: Mapping[str, str] = {}
        self._progress: tuple[str, str, datetime | None] | None = None
        self._inlet: str | None = None
        self._stage: str | None = None
        self._stage_parts: list[str] = []

    def __enter__(self) -> Load:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._stage is None:
            return
        # What went wrong in the block must not be hidden by a server that is gone.
        with (
            suppress(WarehouseError) if kind else nullcontext(),
            self.warehouse.session("clearing up") as client,
        ):
            self._drop_stage(client)

    def add(
        self,
        body: bytes,
        count: int,
        read_at: datetime,
        *,
        progress: tuple[str, str, datetime | None] | None = None,
        context: Mapping[str, str] | None = None,
    ) -> None:
        """Take a batch of JSON objects; insert when enough are gathered. `context` holds the values of
        context columns.

        `read_at` is the source's clock when they were read: it becomes `dt_inserted`, so that of two
        overlapping loads the row read last wins. `progress` = (window, progress, source time) is noted once
        these rows are in.
        """
        if not count and progress is None:
            return
        if (context or {}) != self._context:
            self.flush()
            self._context = dict(context or {})
        if count:
            self._pending_since = self._pending_since if self._pending else self._clock()
            self._pending.append(body)
            self._pending_rows += count
            self._read_at = min(self._read_at or read_at, read_at)
        self._progress = progress or self._progress
        old = bool(self._pending) and self._clock() - self._pending_since >= FLUSH_AFTER_S
        if old or self._pending_rows >= self.warehouse.insert_rows:
            self.flush()

    def flush(self) -> None:
        """Insert what is gathered, then note the progress."""
        if self._pending:
            comment = {
                "load": self.load_id,
                "read_at": str(int((self._read_at or self._started).timestamp())),
                **self._context,
            }
            with self.warehouse.session(f"inserting into {self.table.full_name}") as client:
                self.warehouse.insert_text(
                    client, self._inlet or self._open_inlet(client), b"\n".join(self._pending), comment
                )
            self.rows += self._pending_rows
            self._pending, self._pending_rows, self._read_at = [], 0, None
        if self._progress:
            window, progress, source_time = self._progress
            self.warehouse.note_progress(self.asset, window, "open", progress, source_time)
            self._progress = None

    def rejected(self) -> int:
        """Rows of this load with a value that did not fit."""
        if not self.rows:
            return 0
        sql = f"SELECT count() FROM {SYSTEM}.rejected_rows FINAL WHERE table_name = {{t:String}} AND load_id = {{l:String}}"
        return int(self.warehouse.query(sql, {"t": self.table.full_name, "l": self.load_id})[0][0])

    def finish(
        self,
        *,
        kind: Literal["full", "window", "increment", "snapshot", "heal"],
        source_time: datetime,
        watermark: datetime | None = None,
        window: tuple[datetime | None, datetime | None] = (None, None),
        requests: int = 0,
        commands: int = 0,
        waited_s: float = 0.0,
        api_s: float = 0.0,
        days: Sequence[date] = (),
    ) -> LoadResult:
        """Insert the rest, put a stage in place, and write the log row, last of all.

        `days` are the days that a `replace_window` load holds completely, also those without a row.
        """
        self.flush()
        if self.table.mode != "upsert":
            self._put_in_place(days)
        rejected = self.rejected()
        result = LoadResult(self.load_id, self.rows, rejected, self._clock() - self._began)
        row = {
            "asset": self.asset,
            "kind": kind,
            "window_from": window[0],
            "window_to": window[1],
            "rows": self.rows,
            "rejected": rejected,
            "requests": requests,
            "commands": commands,
            "waited_s": waited_s,
            "api_s": api_s,
            "duration_s": result.duration_s,
            "source_time": source_time,
            "watermark": watermark,
            "started_at": self._started,
            "finished_at": datetime.now(UTC),
            "load_id": self.load_id,
            "run_id": self._run_id,
        }
        self.warehouse.log_load(row)
        return result

    def _open_inlet(self, client: Client) -> str:
        """The inlet's name; it is made, also when the first attempt fails."""
        repeat(f"preparing a load of {self.table.full_name}", lambda: self._make_inlet(client))
        return self._inlet or ""

    def _make_inlet(self, client: Client) -> None:
        """The Null table with its two views.

        Its name carries the table's fingerprint: it is never altered.
        """
        table, on_cluster = self.table, self.warehouse._on_cluster
        target, suffix = table.sql_name, table.fingerprint()
        if table.mode != "upsert":
            self._sweep(client)
            suffix = self.load_id
            self._stage = f"{table.name}__stage_{self.load_id}"
            client.command(self.warehouse._ddl(table, self._stage))
            target = self._stage_sql
        names = [
            f"{SYSTEM}.{quote(f'{part}__{table.database}__{table.name}__{suffix}')}"
            for part in ("inlet", "typing", "misfits")
        ]
        inlet, typing, misfits = names
        columns = ", ".join(f"{quote(s)} String" for s in table.inlet_columns())
        # IF NOT EXISTS on all three, in every process: when the last one returns, the inlet is whole whoever made it.
        client.command(f"CREATE TABLE IF NOT EXISTS {inlet}{on_cluster} ({columns}) ENGINE = Null")
        client.command(
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {typing}{on_cluster} TO {target} AS {table.select_sql(inlet)}"
        )
        client.command(
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {misfits}{on_cluster} TO {SYSTEM}.rejected_rows AS {table.misfits_sql(inlet)}"
        )
        if self._stage:
            self._stage_parts = names
        self._inlet = inlet

    @property
    def _stage_sql(self) -> str:
        return f"{quote(self.table.database)}.{quote(self._stage or '')}"

    def _put_in_place(self, days: Sequence[date]) -> None:
        """Swap the stage in: the whole table, or exactly the days that were loaded."""
        table, on_cluster = self.table, self.warehouse._on_cluster
        with self.warehouse.session(f"putting {table.full_name} in place") as client:
            if self._stage is None:  # the source has no rows at all: an empty stage is put in place
                self._open_inlet(client)
            if table.mode == "snapshot":
                client.command(f"EXCHANGE TABLES {table.sql_name} AND {self._stage_sql}{on_cluster}")
                return
            filled = {
                row[0]
                for row in client.query(f"SELECT DISTINCT {table.day} FROM {self._stage_sql}").result_rows
            }
            if stray := filled - set(days):
                raise WarehouseError(
                    f"{table.full_name}: rows of {sorted(stray)[:3]} came with a load of other days"
                )
            for day in days:
                what = (
                    f"REPLACE PARTITION ID '{day:%Y%m%d}' FROM {self._stage_sql}"
                    if day in filled
                    else f"DROP PARTITION ID '{day:%Y%m%d}'"
                )
                client.command(f"ALTER TABLE {table.sql_name}{on_cluster} {what}")

    def _sweep(self, client: Client) -> None:
        """Drop what killed loads of this table left behind; the stage of a younger one may be in use."""
        table, limit = self.table, f"{datetime.now(UTC) - STAGE_LIFE:%Y%m%dT%H%M%S}"
        parts = [
            (SYSTEM, f"{part}__{table.database}__{table.name}__") for part in ("typing", "misfits", "inlet")
        ]
        for database, prefix in [*parts, (table.database, f"{table.name}__stage_")]:
            found = client.query(
                "SELECT name FROM system.tables WHERE database = {d:String} AND startsWith(name, {p:String})",
                parameters={"d": database, "p": prefix},
            )
            for (name,) in found.result_rows:
                load_id = name.removeprefix(prefix)
                if _LOAD_ID.fullmatch(load_id) and load_id < limit:
                    client.command(
                        f"DROP TABLE IF EXISTS {quote(database)}.{quote(name)}{self.warehouse._on_cluster} SYNC"
                    )

    def _drop_stage(self, client: Client) -> None:
        for name in self._stage_parts:
            client.command(f"DROP TABLE IF EXISTS {name}{self.warehouse._on_cluster} SYNC")
        client.command(f"DROP TABLE IF EXISTS {self._stage_sql}{self.warehouse._on_cluster} SYNC")
        self._stage = None
