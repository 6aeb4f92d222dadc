"""What fan-outs have asked for: one row a method and parent, and the refusals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from etl_assets.mts_link.tables import ERRORS, READS
from resources.clickhouse import WarehouseResource
from resources.clickhouse.table import Table
from resources.clickhouse.warehouse import Load

OK = 200
UNSERVED = "type is not supported"
_ensured: dict[tuple[str, str], Table] = {}  # by this process, which need not look again


@dataclass(frozen=True, slots=True)
class Mark:
    """The last read of one parent, by our clock. An empty `state` says: ask again."""

    parent: str
    state: str
    status: int
    message: str
    rows: int
    cursor: str
    read_at: datetime

    @property
    def unserved(self) -> bool:
        """The method is not for people of this kind, such as students: no fault, and no right to be given."""
        return self.status == 403 and UNSERVED in self.message


class Marks:
    """The marks of one method. They are written after the rows that they stand for."""

    def __init__(self, warehouse: WarehouseResource, endpoint: str, asset: str, run_id: str) -> None:
        self._warehouse, self._endpoint = warehouse, endpoint
        self._asset, self._run_id = asset, run_id
        self._loads: dict[str, Load] = {}

    def read(self) -> dict[str, Mark]:
        """Parent -> its mark."""
        table, _ = self._load(READS).table, self._load(ERRORS)  # both are there from the first load on
        found = self._warehouse.query(
            "SELECT parent, state, status, ifNull(message, ''), ifNull(rows, 0), ifNull(cursor, ''), read_at "
            f"FROM {table.sql_name} FINAL WHERE endpoint = {{e:String}}",
            {"e": self._endpoint},
        )
        return {
            key: Mark(key, state, status, message, rows, cursor, _aware(at))
            for key, state, status, message, rows, cursor, at in found
        }

    def write(self, marks: Iterable[Mark]) -> None:
        """Keep marks; the refusals among them go to `_errors` too."""
        rows = [{**asdict(mark), "endpoint": self._endpoint} for mark in marks]
        self._insert(READS, rows)
        failed = [
            {k: row[k] for k in ("endpoint", "parent", "status", "message")} | {"failed_at": row["read_at"]}
            for row in rows
            if row["status"] != OK
        ]
        self._insert(ERRORS, failed)

    def settle(self, marks: Iterable[Mark]) -> None:
        """Keep marks of parents whose refusal has been told before."""
        self._insert(READS, [{**asdict(mark), "endpoint": self._endpoint} for mark in marks])

    def _insert(self, table: Table, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        load = self._load(table)
        load.add(b"\n".join(map(orjson.dumps, rows)), len(rows), datetime.now(UTC))
        load.flush()

    def _load(self, table: Table) -> Load:
        """A load without `finish`, which writes no log row: these are notes, not data."""
        if table.name not in self._loads:
            where = (self._warehouse.url, table.name)
            fitted = _ensured.get(where) or self._warehouse.ensure(table)[0]
            _ensured[where] = fitted
            self._loads[table.name] = self._warehouse.load(fitted, asset=self._asset, run_id=self._run_id)
        return self._loads[table.name]


def _aware(value: datetime | None) -> datetime:
    at = value or datetime(1970, 1, 1, tzinfo=UTC)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
