"""Loads that are computed in the warehouse: exactly the days that were computed, or nothing."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pytest

from resources.clickhouse import Column, Table, WarehouseResource
from resources.clickhouse.computed import ComputedLoad
from resources.clickhouse.errors import WarehouseError
from resources.clickhouse.plain import DAY, FLOAT, UINT32, UINT64

MONDAY, TUESDAY = date(2026, 10, 5), date(2026, 10, 6)
NOW = datetime(2026, 10, 7, tzinfo=UTC)


def made(warehouse: WarehouseResource, name: str) -> Table:
    columns = (("owner", UINT32), ("day", DAY), ("id", UINT64), ("value", FLOAT))
    table = Table(
        database="computed",
        name=name,
        columns=tuple(Column(n, n, kind, plain=True) for n, kind in columns),
        key=("owner", "day", "id"),
        mode="replace_window",
        day="day",
        owner="owner",
    )
    return warehouse.ensure(table)[0]


def rows(warehouse: WarehouseResource, table: Table) -> list[tuple[object, ...]]:
    return warehouse.query(f"SELECT owner, day, id, value FROM {table.full_name} ORDER BY owner, day, id")


def numbers(owner: int, day: date, count: int) -> str:
    return (
        f"SELECT toUInt32({owner}) AS owner, toDate('{day}') AS day, number AS id, 0.5 AS value "
        f"FROM numbers({count})"
    )


def compute(warehouse: WarehouseResource, table: Table, owner: int, counts: dict[date, int]) -> ComputedLoad:
    with ComputedLoad(warehouse, table, "a", owner=owner) as load:
        for day, count in counts.items():
            load.add_select(numbers(owner, day, count), {"max_threads": 1})
        load.finish(kind="window", source_time=NOW, days=list(counts))
    return load


def attempt(warehouse: WarehouseResource, table: Table, *selects: str) -> None:
    with ComputedLoad(warehouse, table, "a", owner=1) as load:
        for sql in selects:
            load.add_select(sql)
        load.finish(kind="window", source_time=NOW, days=[MONDAY])


def test_days_of_one_owner_are_replaced(anywhere: WarehouseResource, name: str):
    table = made(anywhere, name)
    compute(anywhere, table, 1, {MONDAY: 2, TUESDAY: 1})
    compute(anywhere, table, 2, {MONDAY: 1})
    load = compute(anywhere, table, 1, {MONDAY: 1})
    assert rows(anywhere, table) == [(1, MONDAY, 0, 0.5), (1, TUESDAY, 0, 0.5), (2, MONDAY, 0, 0.5)]
    assert (load.rows, load.days) == (1, {"2026-10-05": 1})
    compute(anywhere, table, 1, {MONDAY: 0, TUESDAY: 0})
    assert rows(anywhere, table) == [(2, MONDAY, 0, 0.5)]


def test_columns_of_numbers_keep_every_digit(anywhere: WarehouseResource, name: str):
    table = made(anywhere, name)
    ids = np.array([2**64 - 1, 2**63 + 1], np.uint64)
    values = np.array([1 / 3, np.nextafter(1, 0)])
    with ComputedLoad(anywhere, table, "a", owner=1) as load:
        load.add_columns({"owner": [1, 1], "day": [MONDAY] * 2, "id": ids, "value": values})
        load.finish(kind="window", source_time=NOW, days=[MONDAY])
    assert rows(anywhere, table) == [(1, MONDAY, 2**63 + 1, values[1]), (1, MONDAY, 2**64 - 1, 1 / 3)]
    assert anywhere.query(
        "SELECT rows FROM svod.load_log WHERE load_id = {l:String}", {"l": load.load_id}
    ) == [(2,)]


def test_a_failure_changes_nothing_and_leaves_nothing(anywhere: WarehouseResource, name: str):
    table = made(anywhere, name)
    compute(anywhere, table, 1, {MONDAY: 1})
    broken = "SELECT throwIf(1) AS owner, 2 AS day, 3 AS id, 4 AS value"
    with pytest.raises(WarehouseError, match="computing"):
        attempt(anywhere, table, numbers(1, MONDAY, 5), broken)
    assert rows(anywhere, table) == [(1, MONDAY, 0, 0.5)]
    left = "SELECT count() FROM system.tables WHERE database = 'computed' AND startsWith(name, {n:String})"
    assert anywhere.query(left, {"n": f"{name}__"}) == [(0,)]


def test_rows_of_another_owner_are_refused(anywhere: WarehouseResource, name: str):
    table = made(anywhere, name)
    with pytest.raises(WarehouseError, match="came with a load of 1"):
        attempt(anywhere, table, numbers(2, MONDAY, 1))
    assert rows(anywhere, table) == []
