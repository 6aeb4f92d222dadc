"""Field history: what a field held before and holds now, appended whenever a load brings a different value.

Entities are switched on one by one (`BITRIX24_HISTORY`), since each keeps a second copy of its rows: versions
of a table's rows vanish when ClickHouse merges them. Comparing is SQL; no row comes to Python.
"""

from __future__ import annotations

from datetime import timedelta

from etl_assets.bitrix24.entity import Entity
from resources.clickhouse import Column, Table, WarehouseResource
from resources.clickhouse.table import LOADED_AT, literal, quote
from resources.clickhouse.values import INSTANT, TEXT

AUTHORS = ("MODIFY_BY_ID", "UPDATED_BY", "CHANGED_BY", "EDITOR_ID", "modifiedBy")
LATE = timedelta(days=1)  # a row that was read this long before another may land after it
CHANGES = Table(
    database="bitrix24",
    name="field_history",
    columns=(
        Column("entity", "entity", TEXT, "Table", required=True),
        Column("id", "id", TEXT, "Key of the row", required=True),
        Column("field", "field", TEXT, "Column", required=True),
        Column("changed_at", "changed_at", INSTANT, "When the portal says the row changed", required=True),
        Column("old", "old", TEXT, "Value before"),
        Column("new", "new", TEXT, "Value since"),
        Column("changed_by", "changed_by", TEXT, "Who changed the row last, as the portal says"),
    ),
    key=("entity", "id", "changed_at", "field"),
    comment="Field history: one row a changed value",
)
_STATE = Table(
    database="svod",
    name="bitrix24_row_state",
    columns=(
        Column("entity", "entity", TEXT, required=True),
        Column("id", "id", TEXT, required=True),
        Column("row", "row", TEXT, "The row as JSON when it was compared last", required=True),
    ),
    key=("entity", "id"),
    comment="Rows that field history compares the next load with",
)


def record_changes(warehouse: WarehouseResource, entity: Entity, table: Table) -> int:
    """Compare what the last loads brought with what was here before; how many values differ.

    The first call only takes the rows as they are. A call that was killed is made up for by the next one: the
    same change again replaces itself.
    """
    for own in (CHANGES, _STATE):
        warehouse.ensure(own)
    fresh = _fresh(warehouse, entity, table)
    before = f"SELECT id, row FROM {_STATE.sql_name} FINAL WHERE entity = {literal(entity.name)}"
    known = f"{before} AND id IN (SELECT id FROM ({fresh}))"
    kept = f"p.3 != p.2 AND p.1 != {literal(entity.modified or '')}"
    pairs = (
        f"arrayFilter(p -> {kept}, arrayMap(p -> (p.1, p.2, if(was[p.1] = '', 'null', was[p.1])), "
        "JSONExtractKeysAndValuesRaw(now.row)))"
    )
    was = "CAST(JSONExtractKeysAndValuesRaw(then.row), 'Map(String, String)') AS was"
    changes = (
        f"SELECT now.id AS id, now.at AS at, now.author AS author, now.seen AS seen, {was}, "
        f"arrayJoin({pairs}) AS change FROM ({fresh}) AS now INNER JOIN ({known}) AS then "
        "ON now.id = then.id WHERE now.row != then.row"
    )
    count = int(warehouse.query(f"SELECT count() FROM ({changes})")[0][0])
    if count:
        values = f"{literal(entity.name)}, id, change.1, at, {_text('change.3')}, {_text('change.2')}"
        warehouse.command(
            f"INSERT INTO {CHANGES.sql_name} "
            f"(entity, id, field, changed_at, old, new, changed_by, {LOADED_AT}) "
            f"SELECT {values}, author, seen FROM ({changes})"
        )
    warehouse.command(
        f"INSERT INTO {_STATE.sql_name} (entity, id, row, {LOADED_AT}) "
        f"SELECT {literal(entity.name)}, id, row, seen FROM ({fresh})"
    )
    return count


def _fresh(warehouse: WarehouseResource, entity: Entity, table: Table) -> str:
    """SQL: rows that were read since the last comparison, give or take what lands late."""
    names = [n for n, _, _ in table.definitions() if n != LOADED_AT]
    row = f"formatRowNoNewline('JSONEachRow', {', '.join(quote(n) for n in names)})"
    key = "toString(" + (quote(table.key[0]) if len(table.key) == 1 else f"({', '.join(table.key)})") + ")"
    author = next((f"toString({quote(n)})" for n in AUTHORS if n in names), "NULL")
    moment = quote(entity.modified) if entity.modified in names else "NULL"
    since = f"SELECT max({LOADED_AT}) FROM {_STATE.sql_name} WHERE entity = {literal(entity.name)}"
    last = warehouse.query(since)[0][0]
    begin = int(last.timestamp() - LATE.total_seconds())
    low = f"{LOADED_AT} >= toDateTime({begin})" if last.year > 1971 else "1"
    compared = (
        f"SELECT id, {LOADED_AT} FROM {_STATE.sql_name} FINAL WHERE entity = {literal(entity.name)} AND {low}"
    )
    return (
        f"SELECT {key} AS id, {row} AS row, ifNull({moment}, toDateTime64({LOADED_AT}, 3)) AS at, "
        f"{author} AS author, {LOADED_AT} AS seen FROM {table.sql_name} FINAL "
        f"WHERE {low} AND ({key}, {LOADED_AT}) NOT IN ({compared})"
    )


def _text(raw: str) -> str:
    """SQL: a JSON value as text; NULL for null."""
    return f"multiIf({raw} = 'null', NULL, startsWith({raw}, '\"'), JSONExtractString({raw}), {raw})"
