"""The three ways to write a table: reruns, overlaps, order and crashes give the same rows."""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from resources.clickhouse import Column, Load, Table, WarehouseError, WarehouseResource
from resources.clickhouse.load import FLUSH_AFTER_S
from resources.clickhouse.values import INTEGER

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ID = Column("ID", "ID", required=True)
V = Column("V", "V", INTEGER)
DAY = Column("DAY", "DAY", required=True)


class Crash(Exception):
    """What stops a load in these tests."""


def upserted(name: str) -> Table:
    return Table("loads", name, (ID, V), ("ID",))


def snapshot(name: str) -> Table:
    return Table("loads", name, (ID, V), ("ID",), mode="snapshot")


def windowed(name: str) -> Table:
    return Table("loads", name, (ID, DAY, V), ("ID",), mode="replace_window", day="toDate(DAY)")


def body(rows: Sequence[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def put(
    warehouse: WarehouseResource,
    table: Table,
    *rows: dict[str, Any],
    at: datetime = NOON,
    days: Sequence[date] = (),
) -> None:
    with warehouse.load(table, asset=table.name) as load:
        load.add(body(rows), len(rows), at)
        load.finish(kind="full", source_time=at, watermark=at, days=days)


def held(warehouse: WarehouseResource, table: Table) -> dict[str, int]:
    return dict(warehouse.query(f"SELECT ID, V FROM bi.{table.name}"))  # type: ignore[arg-type]


def logged(warehouse: WarehouseResource, asset: str) -> int:
    return warehouse.query("SELECT count() FROM svod.load_log WHERE asset = {a:String}", {"a": asset})[0][0]


def stages(warehouse: WarehouseResource, table: Table) -> list[Any]:
    return warehouse.query(
        f"SELECT name FROM system.tables WHERE match(name, '(^|__){table.name}__(stage_)?2')"
    )


# Upsert


def test_the_row_that_was_read_last_wins_whichever_was_written_last(
    anywhere: WarehouseResource, name: str
) -> None:
    table, _ = anywhere.ensure(upserted(name))
    put(anywhere, table, {"ID": "1", "V": 2}, {"ID": "2", "V": 2}, at=NOON + MINUTE)
    put(anywhere, table, {"ID": "1", "V": 1}, {"ID": "3", "V": 1}, at=NOON)
    assert held(anywhere, table) == {"1": 2, "2": 2, "3": 1}
    anywhere.command(f"OPTIMIZE TABLE {table.sql_name} FINAL")
    assert held(anywhere, table) == {"1": 2, "2": 2, "3": 1}


def test_within_one_second_the_row_written_last_wins(warehouse: WarehouseResource, name: str) -> None:
    table, _ = warehouse.ensure(upserted(name))
    for value in range(5):
        put(warehouse, table, {"ID": "1", "V": value})
    assert held(warehouse, table) == {"1": 4}


def test_a_rerun_changes_nothing(anywhere: WarehouseResource, name: str) -> None:
    table, _ = anywhere.ensure(upserted(name))
    rows = [{"ID": str(n), "V": n} for n in range(100)]
    for _ in range(2):
        put(anywhere, table, *rows)
    assert held(anywhere, table) == {str(n): n for n in range(100)}
    assert logged(anywhere, name) == 2


def test_a_load_that_is_not_finished_writes_no_log_row(warehouse: WarehouseResource, name: str) -> None:
    table, _ = warehouse.ensure(upserted(name))
    with suppress(Crash), warehouse.load(table, asset=name) as load:
        load.add(body([{"ID": "1", "V": 1}]), 1, NOON)
        load.flush()
        raise Crash
    assert held(warehouse, table) == {"1": 1}
    assert logged(warehouse, name) == 0
    assert warehouse.watermark(name) is None


def test_the_log_row_says_what_was_loaded(anywhere: WarehouseResource, name: str) -> None:
    table, _ = anywhere.ensure(upserted(name))
    with anywhere.load(table, asset=name, run_id="run") as load:
        load.add(body([{"ID": "1", "V": 1}, {"ID": "2", "V": "x"}]), 2, NOON)
        result = load.finish(
            kind="window",
            source_time=NOON,
            watermark=NOON,
            window=(NOON - MINUTE, None),
            requests=3,
            commands=9,
            waited_s=1.5,
        )
    assert (result.rows, result.rejected) == (2, 1)
    found = anywhere.query(
        "SELECT kind, rows, rejected, requests, commands, waited_s, run_id, load_id, "
        "toUnixTimestamp64Milli(window_from), window_to FROM svod.load_log WHERE asset = {a:String}",
        {"a": name},
    )
    since = int((NOON - MINUTE).timestamp()) * 1000
    assert found == [("window", 2, 1, 3, 9, 1.5, "run", load.load_id, since, None)]
    assert anywhere.watermark(name) == NOON
    assert anywhere.watermarks()[name] == NOON


def test_rows_do_not_wait_long_for_others(warehouse: WarehouseResource, name: str) -> None:
    table, _ = warehouse.ensure(upserted(name))
    now = 0.0
    with Load(warehouse, table, name, clock=lambda: now) as load:
        load.add(body([{"ID": "1", "V": 1}]), 1, NOON)
        now += FLUSH_AFTER_S * 0.75
        load.add(body([{"ID": "2", "V": 1}]), 1, NOON)
        assert held(warehouse, table) == {}
        now += FLUSH_AFTER_S * 0.25
        load.add(body([{"ID": "3", "V": 1}]), 1, NOON)
        assert held(warehouse, table) == {"1": 1, "2": 1, "3": 1}
        now += FLUSH_AFTER_S * 0.75
        load.add(body([{"ID": "4", "V": 1}]), 1, NOON)
        assert len(held(warehouse, table)) == 3


def test_context_columns_are_those_of_their_batch(warehouse: WarehouseResource, name: str) -> None:
    kind = Column("TYPE", "type", required=True, context=True)
    table, _ = warehouse.ensure(Table("loads", name, (kind, ID, V), ("TYPE", "ID")))
    with warehouse.load(table, asset=name) as load:
        for type_ in ("2", "o'\"1\\", "2"):
            load.add(body([{"ID": "1", "V": int(type_ == "2")}]), 1, NOON, context={"type": type_})
        load.add(body([{"ID": "2", "V": "x"}]), 1, NOON, context={"type": "2"})
        load.finish(kind="full", source_time=NOON)
    found = warehouse.query(f"SELECT TYPE, ID, V FROM bi.{name} ORDER BY ALL")
    assert found == [("2", "1", 1), ("2", "2", None), ("o'\"1\\", "1", 0)]
    rejected = warehouse.query(
        "SELECT row_key FROM svod.rejected_rows WHERE load_id = {l:String}", {"l": load.load_id}
    )
    assert rejected == [("2, 2",)]


# Progress


def test_a_load_goes_on_where_it_stopped(anywhere: WarehouseResource, name: str) -> None:
    table, _ = anywhere.ensure(upserted(name))
    assert anywhere.unfinished(name, "full") is None
    with suppress(Crash), anywhere.load(table, asset=name) as load:
        load.add(body([{"ID": "1", "V": 1}]), 1, NOON, progress=("full", "1", NOON))
        load.flush()
        load.add(body([{"ID": "2", "V": 1}]), 1, NOON, progress=("full", "2", NOON))
        raise Crash
    left = anywhere.unfinished(name, "full")
    assert left is not None
    assert (left.progress, left.source_time) == ("1", NOON), "progress never passes a row that has not landed"
    assert anywhere.unfinished(name, "other") is None
    anywhere.note_progress(name, "full", "done", "", None)
    assert anywhere.unfinished(name, "full") is None


def test_progress_of_long_ago_is_not_taken_up(warehouse: WarehouseResource, name: str) -> None:
    warehouse.note_progress(name, "full", "open", "7", None)
    assert warehouse.unfinished(name, "full") is not None
    warehouse.command(
        "ALTER TABLE svod.load_progress UPDATE progress = progress WHERE 0 SETTINGS mutations_sync = 1"
    )
    warehouse.command(
        f"INSERT INTO svod.load_progress SELECT asset, 'old', state, progress, source_time, "
        f"updated_at - INTERVAL 8 DAY FROM svod.load_progress WHERE asset = '{name}'"
    )
    assert warehouse.unfinished(name, "old") is None


def test_notes_keep_the_last_text(anywhere: WarehouseResource, name: str) -> None:
    for text in ("a", "b'\\\n"):
        anywhere.note(name, text)
    found = anywhere.notes([name, "none"])
    assert [(k, v[0]) for k, v in found.items()] == [(name, "b'\\\n")]
    assert abs(found[name][1] - datetime.now(UTC)) < timedelta(minutes=5)


# Children


def test_children_that_are_no_longer_listed_go_and_come_back(anywhere: WarehouseResource, name: str) -> None:
    owner = Column("OWNER", "OWNER", required=True)
    table, _ = anywhere.ensure(Table("loads", name, (ID, owner, V), ("ID",), tombstones=True))

    def listed(at: datetime, *ids: str) -> None:
        put(anywhere, table, *({"ID": i, "OWNER": i[0], "V": 1} for i in ids), at=at)

    listed(NOON, "a1", "a2", "b1")
    listed(NOON + MINUTE, "a2")
    anywhere.retire_children(table, "OWNER", ["a"], NOON + MINUTE, {})
    assert held(anywhere, table).keys() == {"a2", "b1"}
    anywhere.retire_children(table, "OWNER", ["a"], NOON + MINUTE, {})
    assert held(anywhere, table).keys() == {"a2", "b1"}
    listed(NOON + 2 * MINUTE, "a1", "a2")
    assert held(anywhere, table).keys() == {"a1", "a2", "b1"}
    anywhere.retire_children(table, "OWNER", [], NOON + 9 * MINUTE, {})
    assert held(anywhere, table).keys() == {"a1", "a2", "b1"}


# Snapshot


def test_a_snapshot_is_what_the_source_says_now(anywhere: WarehouseResource, name: str) -> None:
    table, _ = anywhere.ensure(snapshot(name))
    put(anywhere, table, {"ID": "1", "V": 1}, {"ID": "2", "V": 1})
    put(anywhere, table, {"ID": "2", "V": 2}, at=NOON - MINUTE)
    assert held(anywhere, table) == {"2": 2}
    put(anywhere, table)
    assert held(anywhere, table) == {}
    assert stages(anywhere, table) == []


def test_a_snapshot_that_stops_leaves_the_old_table(anywhere: WarehouseResource, name: str) -> None:
    table, _ = anywhere.ensure(snapshot(name))
    put(anywhere, table, {"ID": "1", "V": 1})
    with suppress(Crash), anywhere.load(table, asset=name) as load:
        load.add(body([{"ID": "2", "V": 2}]), 1, NOON)
        load.flush()
        assert held(anywhere, table) == {"1": 1}
        raise Crash
    assert held(anywhere, table) == {"1": 1}
    assert logged(anywhere, name) == 1
    assert stages(anywhere, table) == []


def test_the_leavings_of_a_killed_snapshot_are_cleared_later(warehouse: WarehouseResource, name: str) -> None:
    table, _ = warehouse.ensure(snapshot(name))
    old, young = warehouse.load(table, asset=name), warehouse.load(table, asset=name)
    old.load_id = "20260101T000000-0badcafe"
    for killed in (old, young):
        killed.add(body([{"ID": "9", "V": 9}]), 1, NOON)
        killed.flush()
    put(warehouse, table, {"ID": "1", "V": 1})
    left = {row[0] for row in stages(warehouse, table)}
    assert left
    assert all(young.load_id in n for n in left), "a stage of today may be another load's"
    assert held(warehouse, table) == {"1": 1}


# Window


def row(key: str, day: date, value: int) -> dict[str, Any]:
    return {"ID": key, "DAY": day.isoformat(), "V": value}


DAYS = [date(2026, 11, n) for n in range(1, 5)]


def test_a_window_replaces_exactly_its_days(anywhere: WarehouseResource, name: str) -> None:
    table, _ = anywhere.ensure(windowed(name))
    put(anywhere, table, *(row(f"{d.day}{n}", d, 1) for d in DAYS for n in "ab"), days=DAYS)
    assert len(held(anywhere, table)) == 8
    put(anywhere, table, row("2a", DAYS[1], 2), at=NOON - MINUTE, days=DAYS[1:3])
    assert held(anywhere, table) == {"1a": 1, "1b": 1, "2a": 2, "4a": 1, "4b": 1}
    put(anywhere, table, row("2a", DAYS[1], 2), days=DAYS[1:3])
    put(anywhere, table, days=DAYS[3:])
    assert held(anywhere, table) == {"1a": 1, "1b": 1, "2a": 2}
    assert stages(anywhere, table) == []


def test_a_window_with_rows_of_other_days_is_refused(warehouse: WarehouseResource, name: str) -> None:
    table, _ = warehouse.ensure(windowed(name))
    put(warehouse, table, row("1a", DAYS[0], 1), days=DAYS[:1])
    with pytest.raises(WarehouseError, match=r"2026, 11, 1\)") as error:
        put(warehouse, table, row("1x", DAYS[0], 9), row("2a", DAYS[1], 9), days=DAYS[1:2])
    assert error.value.allow_retries is False
    assert held(warehouse, table) == {"1a": 1}
    assert logged(warehouse, name) == 1
    assert stages(warehouse, table) == []


def test_a_window_that_stops_leaves_the_old_days(warehouse: WarehouseResource, name: str) -> None:
    table, _ = warehouse.ensure(windowed(name))
    put(warehouse, table, row("1a", DAYS[0], 1), days=DAYS[:1])
    with suppress(Crash), warehouse.load(table, asset=name) as load:
        load.add(body([row("1b", DAYS[0], 2)]), 1, NOON)
        load.flush()
        raise Crash
    assert held(warehouse, table) == {"1a": 1}


def test_a_window_table_may_have_grown(warehouse: WarehouseResource, name: str) -> None:
    put(warehouse, warehouse.ensure(windowed(name))[0], row("1a", DAYS[0], 1), days=DAYS[:1])
    wider = Table(
        "loads", name, (ID, Column("NEW", "NEW"), DAY, V), ("ID",), mode="replace_window", day="toDate(DAY)"
    )
    table, change = warehouse.ensure(wider)
    assert change.added == ("NEW",)
    put(warehouse, table, {**row("1a", DAYS[0], 2), "NEW": "n"}, days=DAYS[:1])
    assert warehouse.query(f"SELECT ID, NEW, V FROM bi.{name}") == [("1a", "n", 2)]
