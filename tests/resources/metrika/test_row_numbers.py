"""Rows of a log keep their place in the download, whatever inserts and parts they came in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from etl_assets.metrika.fields import VISITS
from resources.clickhouse import WarehouseResource

NOON = datetime(2026, 10, 7, 12, tzinfo=UTC)
DAY = date(2026, 10, 6)
HEADER = b"ym:s:visitID\tym:s:counterID\tym:s:date"


def test_places_are_counted_over_inserts_and_forgotten_parts(
    warehouse: WarehouseResource, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resources.clickhouse.load.FLUSH_BYTES", 60)
    table, _ = warehouse.ensure(replace(VISITS.table("UTC"), name="placed_visits"))
    ids = [9, 3, 7, 1, 8, 2, 6]
    lines = [b"%d\t5\t2026-10-06" % visit for visit in ids]
    with warehouse.load(table, asset="a", owner=5, revocable=True) as load:
        load.add(b"\n".join(lines[:4]), 4, NOON, header=HEADER)
        load.keep()
        load.add(b"\n".join(lines[:3]), 3, NOON, header=HEADER)
        load.void()  # the part broke and comes again
        for line in lines[4:]:
            load.add(line, 1, NOON, header=HEADER)
        load.finish(kind="window", source_time=NOON, days=[DAY])
    found = warehouse.query("SELECT visit_id FROM metrika.placed_visits ORDER BY row_number")
    assert [visit for (visit,) in found] == ids
    assert warehouse.query("SELECT max(row_number) FROM metrika.placed_visits") == [(6,)]
