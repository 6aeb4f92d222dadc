"""Marks of rows that the portal no longer has. Tables stay as they were read; `bi` views leave such rows out.

A mark is set only for ids that the portal, asked for them, does not have. It is taken back when the row is
read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal

from etl_assets.bitrix24.entity import Entity, Owner
from resources.clickhouse import Column, Table, WarehouseResource
from resources.clickhouse.table import LOADED_AT, literal, quote
from resources.clickhouse.values import INSTANT, TEXT

Source = Literal["reconcile", "offline", "event"]
IDS_PER_QUERY = 5000
MARKS = Table(
    database="bitrix24",
    name="deleted_objects",
    columns=(
        Column("entity", "entity", TEXT, "Table that the row is in", required=True),
        Column("id", "id", TEXT, "Its key there", required=True),
        Column("detected_at", "detected_at", INSTANT, "The portal's clock when it was gone", required=True),
        Column("source", "source", TEXT, "reconcile: found by counting; offline, event: the portal told"),
        Column("restored_at", "restored_at", INSTANT, "When it was found again; empty while it is gone"),
        Column("last_row", "last_row", TEXT, "The row as it was read last, JSON"),
    ),
    key=("entity", "id", "detected_at"),
    comment="Rows that the portal no longer has: one row a deletion.",
)
_NAMES = f"{', '.join(c.name for c in MARKS.columns)}, {LOADED_AT}"
_OPEN = f"SELECT id FROM {MARKS.sql_name} FINAL WHERE restored_at IS NULL AND entity"


def hidden(entity: Entity) -> str:
    """SQL condition of the rows that the entity's view leaves out: gone ones, and those of gone owners."""
    gone = f"{quote(entity.key[0])} IN ({_OPEN} = {literal(entity.name)})" if entity.reconciled else ""
    return _owner_gone(entity.goes_with) if entity.goes_with else gone


def _owner_gone(owner: Owner) -> str:
    """SQL: the row's owner is marked. NULL stands for no owner, who cannot be gone."""
    column = f"ifNull({quote(owner.column)}, '')"
    if owner.types is None:
        return f"{column} IN ({_OPEN} = {literal(owner.table)})"
    tables, spelled = ([*map(literal, part)] for part in zip(*owner.types.tables.items(), strict=True))
    number = "toUInt16OrZero(extract(entity, '^crm_dynamic_items_([0-9]+)$'))"
    known = f"transform(entity, [{', '.join(tables)}], [{', '.join(spelled)}], '')"
    type_ = f"if({number} > 0, {owner.types.smart_process.format(number=number)}, {known})"
    owners = f"(entity IN ({', '.join(tables)}) OR startsWith(entity, 'crm_dynamic_items_'))"
    marked = f"SELECT {type_}, id FROM {MARKS.sql_name} FINAL WHERE restored_at IS NULL AND {owners}"
    return f"(ifNull({quote(owner.type_column)}, ''), {column}) IN ({marked})"


class Marks:
    """The marks in the warehouse. Tables are the entities' own, as `ensure` gave them."""

    def __init__(self, warehouse: WarehouseResource) -> None:
        self._warehouse = warehouse

    def mark(self, table: Table, ids: Sequence[int], source: Source, at: datetime) -> int:
        """Mark those of the rows that are here and not marked yet; how many. `at` is the portal's clock."""
        row = f"formatRowNoNewline('JSONEachRow', {', '.join(quote(n) for n, _, _ in table.definitions())})"
        key, moment, count = quote(table.key[0]), _moment(at), 0
        for listed in listed_ids(ids):
            values = f"{literal(table.name)}, {key}, {moment}, {literal(source)}, NULL, {row}"
            where = f"{key} IN ({listed}) AND {table.alive_sql}"
            count += self._insert(f"{values}, toDateTime({moment})", f"{table.sql_name} FINAL WHERE {where}")
        return count

    def restore(self, table: Table, at: datetime, ids: Sequence[int] | None = None) -> int:
        """Take back the marks of rows that were read after they had been marked; how many.

        Of `ids`, which the portal has just listed, also those that were read in the same second.
        """
        key, count = quote(table.key[0]), 0
        later = f"r.seen {'>' if ids is None else '>='} toDateTime(m.detected_at)"
        for listed in listed_ids(ids) if ids is not None else [f"{_OPEN} = {literal(table.name)}"]:
            rows = f"SELECT {key} AS id, {LOADED_AT} AS seen FROM {table.sql_name} FINAL"
            rows += f" WHERE {key} IN ({listed})"
            count += self._insert(
                f"m.entity, m.id, m.detected_at, m.source, {_moment(at)}, m.last_row,"
                f" greatest(m.{LOADED_AT}, toDateTime({_moment(at)}))",
                f"{MARKS.sql_name} AS m FINAL INNER JOIN ({rows}) AS r ON m.id = r.id"
                f" WHERE m.entity = {literal(table.name)} AND m.restored_at IS NULL AND {later}",
            )
        return count

    def _insert(self, values: str, source: str) -> int:
        count = int(self._warehouse.query(f"SELECT count() FROM {source}")[0][0])
        if count:
            self._warehouse.command(f"INSERT INTO {MARKS.sql_name} ({_NAMES}) SELECT {values} FROM {source}")
        return count


def listed_ids(ids: Sequence[int]) -> Iterator[str]:
    """SQL lists of the ids, each of a bearable length."""
    for start in range(0, len(ids), IDS_PER_QUERY):
        yield ", ".join(literal(str(i)) for i in ids[start : start + IDS_PER_QUERY])


def _moment(at: datetime) -> str:
    return f"fromUnixTimestamp64Milli(toInt64({int(at.timestamp() * 1000)}), 'UTC')"
