"""Loads whose rows are computed from other tables of the warehouse instead of read from a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Self

from clickhouse_connect.driver.client import Client

from resources.clickhouse.load import Load
from resources.clickhouse.table import LOADED_AT, quote


class ComputedLoad(Load):
    """A load of whole days into a `replace_window` table, filled by SQL or by columns of numbers.

    Rows gather in a stage; `finish(days=…)` puts the days in place, each in one step, also those without a
    row. Leaving the `with` block without it changes nothing.
    """

    def __enter__(self) -> Self:
        return self

    def add_select(self, sql: str, settings: Mapping[str, str | int] | None = None) -> None:
        """Insert what a SELECT gives; it names its columns as the table does."""
        names = ", ".join(quote(c.name) for c in self.table.columns)
        with self.warehouse.session(f"computing {self.table.full_name}") as client:
            self._open_inlet(client)
            client.command(
                f"INSERT INTO {self._stage_sql} ({names}, {quote(LOADED_AT)}) "
                f"SELECT {names}, now('UTC') FROM ({sql})",
                settings=dict(settings or {}),
            )
            if self.warehouse.engine.embedded:
                client.command("SYSTEM JEMALLOC PURGE")  # the engine gives memory back only when asked

    def add_columns(self, columns: Mapping[str, Any]) -> None:
        """Insert columns of equal length, numpy arrays or lists."""
        rows = len(next(iter(columns.values())))
        named = {**columns, LOADED_AT: [datetime.now(UTC)] * rows}
        with self.warehouse.session(f"inserting into {self.table.full_name}") as client:
            self._open_inlet(client)
            client.insert(
                self._stage_sql, list(named.values()), column_names=list(named), column_oriented=True
            )

    def rejected(self) -> int:
        """None: what is computed fits."""
        return 0

    def _make_inlet(self, client: Client) -> None:
        if self._stage is None:
            self._make_stage(client)

    def _put_in_place(self, days: Sequence[date]) -> None:
        super()._put_in_place(days)
        self.rows = self.days.total()
