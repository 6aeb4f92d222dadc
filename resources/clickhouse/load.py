"""One load of one table: rows gather, go into an inlet, and are put in place when all are there."""

from __future__ import annotations

import re
import secrets
import time
from collections import Counter
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
FLUSH_BYTES = 32 << 20  # of tab-separated lines in one insert
BY_PARTITION = "do_not_merge_across_partitions_select_final = 1"  # a key never stands in two partitions
STAGE_LIFE = timedelta(days=2)  # longer than any load that fills one
_NO_DAY = date(1970, 1, 1)  # what a plain column holds where a day does not fit
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

    Leaving the `with` block without `finish` (an error) writes no log row, so the load is repeated. Rows of a
    `revocable` load (of a mode with a stage) count only from the next `keep` on, and `void` forgets them until
    then: for sources whose answers turn out broken after their rows have been sent on. `owner` is whose days
    a load replaces, where a table has several owners.
    """

    def __init__(
        self,
        warehouse: WarehouseResource,
        table: Table,
        asset: str,
        run_id: str = "",
        clock: Callable[[], float] = time.monotonic,
        *,
        owner: int | None = None,
        revocable: bool = False,
    ) -> None:
        if (owner is None) != (table.owner is None):
            raise ValueError(
                f"{table.full_name}: an owner is named where the table has owners, and only there"
            )
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
        self._pending_bytes = 0
        self._header = b""
        self._read_at: datetime | None = None
        self._owner, self._revocable = owner, revocable
        self._unkept = 0
        self.days: Counter[str] = Counter()
        self._context: Mapping[str, str] = {}
        self._progress: tuple[str, str, datetime | None] | None = None
        self._inlet: str | None = None
        self._stage: str | None = None
        self._scratch: str | None = None
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
        header: bytes = b"",
    ) -> None:
        """Take a batch of JSON objects, or of tab-separated lines if there is a `header`; insert when enough
        are gathered. `context` holds the values of context columns.

        `read_at` is the source's clock when they were read: it becomes `dt_inserted`, so that of two
        overlapping loads the row read last wins. `progress` = (window, progress, source time) is noted once
        these rows are in.
        """
        if not count and progress is None:
            return
        if (context or {}) != self._context or header != self._header:
            self.flush()
            self._context, self._header = dict(context or {}), header
        if count:
            self._pending_since = self._pending_since if self._pending else self._clock()
            self._pending.append(body)
            self._pending_rows += count
            self._pending_bytes += len(body)
            self._read_at = min(self._read_at or read_at, read_at)
        self._progress = progress or self._progress
        if self._full():
            self.flush()

    def _full(self) -> bool:
        if (
            self._header
        ):  # an insert makes parts of many columns, and there is no progress to note: few, large ones
            return self._pending_bytes >= FLUSH_BYTES
        old = bool(self._pending) and self._clock() - self._pending_since >= FLUSH_AFTER_S
        return old or self._pending_rows >= self.warehouse.insert_rows

    def flush(self) -> None:
        """Insert what is gathered, then note the progress."""
        if self._pending:
            comment = {
                "load": self.load_id,
                "first_row": str(self.rows),
                "read_at": str(int((self._read_at or self._started).timestamp())),
                **self._context,
            }
            with self.warehouse.session(f"inserting into {self.table.full_name}") as client:
                inlet = self._inlet or self._open_inlet(client)
                lines = [self._header, *self._pending] if self._header else self._pending
                self.warehouse.insert_text(client, inlet, b"\n".join(lines), comment, tabs=bool(self._header))
            self.rows += self._pending_rows
            self._unkept += self._pending_rows
            self._forget_pending()
        if self._progress:
            window, progress, source_time = self._progress
            self.warehouse.note_progress(self.asset, window, "open", progress, source_time)
            self._progress = None

    def _forget_pending(self) -> None:
        self._pending, self._pending_rows, self._pending_bytes, self._read_at = [], 0, 0, None

    def keep(self) -> None:
        """The rows so far count, whatever comes later."""
        self.flush()
        if not self._scratch or not self._unkept:
            return
        with self.warehouse.session(f"keeping rows of {self.table.full_name}") as client:
            found = client.query(f"SELECT DISTINCT _partition_id FROM {self._scratch_sql}").result_rows
            steps = [f"ATTACH PARTITION ID '{part}' FROM {self._scratch_sql}" for (part,) in found]
            if steps:
                client.command(f"ALTER TABLE {self._stage_sql}{self._on_cluster} {', '.join(steps)}")
            client.command(f"TRUNCATE TABLE {self._scratch_sql}{self._on_cluster} SYNC")
        self._unkept = 0

    def void(self, *, everything: bool = False) -> None:
        """Forget the rows since the last `keep`, or all rows of this load."""
        self._forget_pending()
        names = [n for n in (self._scratch, self._stage if everything else None) if n]
        with self.warehouse.session(f"voiding rows of {self.table.full_name}") as client:
            for name in names if self.rows else []:
                client.command(f"TRUNCATE TABLE {self._in_database(name)}{self._on_cluster} SYNC")
        self.rows = 0 if everything else self.rows - self._unkept
        self._unkept = 0

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
        self.keep()
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
        table, on_cluster = self.table, self._on_cluster
        target, suffix = table.sql_name, table.fingerprint()
        if table.mode != "upsert":
            target, suffix = self._make_stage(client), self.load_id
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

    def _make_stage(self, client: Client) -> str:
        """Where the rows gather until they are put in place; the name of the table to insert into."""
        self._sweep(client)
        self._stage = f"{self.table.name}__stage_{self.load_id}"
        client.command(self.warehouse._ddl(self.table, self._stage))
        if not self._revocable:
            return self._stage_sql
        self._scratch = f"{self.table.name}__scratch_{self.load_id}"
        client.command(self.warehouse._ddl(self.table, self._scratch))
        return self._scratch_sql

    @property
    def _on_cluster(self) -> str:
        return self.warehouse._on_cluster

    def _in_database(self, name: str) -> str:
        return f"{quote(self.table.database)}.{quote(name)}"

    @property
    def _stage_sql(self) -> str:
        return self._in_database(self._stage or "")

    @property
    def _scratch_sql(self) -> str:
        return self._in_database(self._scratch or "")

    def _put_in_place(self, days: Sequence[date]) -> None:
        """Swap the stage in: the whole table, or exactly the days that were loaded."""
        table = self.table
        with self.warehouse.session(f"putting {table.full_name} in place") as client:
            if self._stage is None:  # the source has no rows at all: an empty stage is put in place
                self._open_inlet(client)
            if table.mode == "snapshot":
                client.command(f"EXCHANGE TABLES {table.sql_name} AND {self._stage_sql}{self._on_cluster}")
                return
            if table.owner:  # a day is one part without doubles: readers need not merge it again and again
                client.command(f"OPTIMIZE TABLE {self._stage_sql}{self._on_cluster} FINAL")
            filled = self._filled_days(client)
            if stray := set(filled) - set(days):
                raise WarehouseError(
                    f"{table.full_name}: rows of {sorted(stray)[:3]} came with a load of other days"
                )
            for day in days:
                partition = f"PARTITION ID '{day:%Y%m%d}" + (
                    "'" if self._owner is None else f"-{self._owner}'"
                )
                step = f"REPLACE {partition} FROM {self._stage_sql}" if day in filled else f"DROP {partition}"
                client.command(f"ALTER TABLE {table.sql_name}{self._on_cluster} {step}")
        self.days = Counter({str(day): filled.get(day, 0) for day in days})

    def _filled_days(self, client: Client) -> dict[date, int]:
        """Day -> rows of the stage, each key once. WarehouseError if there are rows of another owner.

        A row whose day or owner does not fit belongs nowhere: it is kept in `svod.rejected_rows` alone.
        """
        table = self.table
        owner = quote(table.owner) if table.owner else "0"
        found = client.query(
            f"SELECT {table.day} AS day, {owner} AS owner, count() FROM {self._stage_sql} FINAL GROUP BY day, owner"
            f" SETTINGS {BY_PARTITION}"
        ).result_rows
        if table.owner and self.rejected():
            found = [row for row in found if row[0] != _NO_DAY and row[1] != 0]
        if strangers := {int(owner) for _, owner, _ in found} - {self._owner or 0}:
            raise WarehouseError(
                f"{table.full_name}: rows of {table.owner} {sorted(strangers)[:3]} came with a load of {self._owner}"
            )
        return {day: int(rows) for day, _, rows in found}

    def _sweep(self, client: Client) -> None:
        """Drop what killed loads of this table left behind; the stage of a younger one may be in use."""
        table, limit = self.table, f"{datetime.now(UTC) - STAGE_LIFE:%Y%m%dT%H%M%S}"
        parts = [
            (SYSTEM, f"{part}__{table.database}__{table.name}__") for part in ("typing", "misfits", "inlet")
        ]
        own = [(table.database, f"{table.name}__{part}_") for part in ("stage", "scratch")]
        for database, prefix in [*parts, *own]:
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
        names = [self._in_database(name) for name in (self._scratch, self._stage) if name]
        for name in (*self._stage_parts, *names):
            client.command(f"DROP TABLE IF EXISTS {name}{self._on_cluster} SYNC")
        self._stage = self._scratch = None
