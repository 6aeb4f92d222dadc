"""Loads of one owner's days, of tab-separated lines, and of rows that are taken back."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resources.clickhouse import Column, Load, Table, WarehouseError, WarehouseResource
from resources.clickhouse.plain import (
    DAY,
    FLOAT,
    INT32,
    STRING,
    UINT8,
    UINT16,
    UINT64,
    WORD,
    list_of,
    moment,
    scaled,
)
from resources.clickhouse.values import Kind

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
DAYS = [date(2026, 11, n) for n in range(1, 4)]
HEADER = b"id\towner\tday\tv"


def plain(name: str, kind: Kind) -> Column:
    return Column(name, name, kind, plain=True)


def logs(name: str) -> Table:
    columns = (plain("id", UINT64), plain("owner", UINT16), plain("day", DAY), plain("v", STRING))
    return Table(
        "days", name, columns, ("owner", "day", "id"), mode="replace_window", day="day", owner="owner"
    )


Row = tuple[int, int, date, str]


def lines(rows: Sequence[Row]) -> bytes:
    return b"\n".join(f"{i}\t{owner}\t{day}\t{v}".encode() for i, owner, day, v in rows)


def put(warehouse: WarehouseResource, table: Table, owner: int, days: Sequence[date], *rows: Row) -> Load:
    with warehouse.load(table, asset=table.name, owner=owner, revocable=True) as load:
        load.add(lines(rows), len(rows), NOON, header=HEADER)
        load.finish(kind="window", source_time=NOON, days=days)
    return load


def held(warehouse: WarehouseResource, table: Table) -> list[Row]:
    found = warehouse.query(f"SELECT id, owner, day, v FROM bi.{table.name} ORDER BY ALL")
    return [(int(i), int(o), d, str(v)) for i, o, d, v in found]


def leftovers(warehouse: WarehouseResource, table: Table) -> list[Any]:
    return warehouse.query(f"SELECT name FROM system.tables WHERE match(name, '{table.name}__.*2')")


def test_a_load_replaces_the_days_of_its_owner_only(anywhere: WarehouseResource, name: str):
    table, _ = anywhere.ensure(logs(name))
    for owner in (7, 8):
        put(anywhere, table, owner, DAYS, *((n, owner, day, "a") for n, day in enumerate(DAYS)))
    load = put(anywhere, table, 7, DAYS[:2], (9, 7, DAYS[0], "b"))
    mine = [(2, 7, DAYS[2], "a"), (9, 7, DAYS[0], "b")]
    others = [(n, 8, day, "a") for n, day in enumerate(DAYS)]
    assert held(anywhere, table) == sorted([*mine, *others])
    assert load.days == {str(DAYS[0]): 1, str(DAYS[1]): 0}
    put(anywhere, table, 7, DAYS)
    assert held(anywhere, table) == others
    assert leftovers(anywhere, table) == []


def test_rows_of_another_owner_or_day_are_refused(warehouse: WarehouseResource, name: str):
    table, _ = warehouse.ensure(logs(name))
    put(warehouse, table, 7, DAYS[:1], (1, 7, DAYS[0], "a"))
    with pytest.raises(WarehouseError, match=r"rows of owner \[8\] came with a load of 7"):
        put(warehouse, table, 7, DAYS[:1], (2, 8, DAYS[0], "b"))
    with pytest.raises(WarehouseError, match=r"2026, 11, 2\)"):
        put(warehouse, table, 7, DAYS[:1], (2, 7, DAYS[1], "b"))
    assert held(warehouse, table) == [(1, 7, DAYS[0], "a")]


def test_an_owner_is_named_exactly_where_there_are_owners(warehouse: WarehouseResource, name: str):
    with pytest.raises(ValueError, match="owner"):
        warehouse.load(logs(name), asset="a")
    with pytest.raises(ValueError, match="owner"):
        warehouse.load(Table("days", name, (plain("id", UINT64),), ("id",)), asset="a", owner=7)


def test_a_row_that_came_twice_counts_once(warehouse: WarehouseResource, name: str):
    table, _ = warehouse.ensure(logs(name))
    with warehouse.load(table, asset=name, owner=7, revocable=True) as load:
        for _ in range(3):
            load.add(lines([(1, 7, DAYS[0], "a")]), 1, NOON, header=HEADER)
            load.keep()
        load.finish(kind="window", source_time=NOON, days=DAYS[:1])
    assert (load.rows, load.days) == (3, {str(DAYS[0]): 1})
    assert held(warehouse, table) == [(1, 7, DAYS[0], "a")]


Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["add", "flush", "keep", "void", "all"]), st.integers(1, 9)), max_size=12
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_what_counts_is_what_was_kept(warehouse: WarehouseResource, name: str, steps: list[Step]):
    """Against a model of two sets, over any order of steps."""
    table, _ = warehouse.ensure(logs(name))
    kept, loose = set[int](), set[int]()
    with warehouse.load(table, asset=name, owner=7, revocable=True) as load:
        for at, (step, many) in enumerate(steps):
            if step == "add":
                new = {at * 10 + n for n in range(many)}
                load.add(lines([(i, 7, DAYS[0], "a") for i in sorted(new)]), many, NOON, header=HEADER)
                loose |= new
            elif step == "flush":
                load.flush()
            elif step == "keep":
                load.keep()
                kept, loose = kept | loose, set()
            else:
                load.void(everything=step == "all")
                kept, loose = (set(), set()) if step == "all" else (kept, set())
        load.finish(kind="window", source_time=NOON, days=DAYS[:1])
    assert {row[0] for row in held(warehouse, table)} == kept | loose
    assert load.rows == len(kept | loose)


def test_lines_may_hold_everything_and_columns_come_by_name(anywhere: WarehouseResource, name: str):
    table, _ = anywhere.ensure(logs(name))
    header = b"extra\tv\tday\towner\tid"
    odd = rb"\N tab\t line\n quote\' \\ " + '"Ж"'.encode()
    body = b"\t".join([b"x", odd, b"2026-11-01", b"7", b"18446744073709551615"])
    with anywhere.load(table, asset=name, owner=7) as load:
        load.add(body, 1, NOON, header=header)
        load.add(lines([(2, 7, DAYS[0], "")]), 1, NOON, header=HEADER)
        load.finish(kind="window", source_time=NOON, days=DAYS[:1])
    # \N stands for nothing only as a whole value
    text = '\\N tab\t line\n quote\' \\ "Ж"'
    assert held(anywhere, table)[1][0] == 2**64 - 1
    assert held(anywhere, table)[1][3].endswith(text[2:])


def test_inserts_of_lines_are_made_of_many_bytes(
    warehouse: WarehouseResource, name: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resources.clickhouse.load.FLUSH_BYTES", 100)
    sizes, insert = [], WarehouseResource.insert_text

    def counted(
        self: WarehouseResource, client: Any, target: str, body: bytes, *rest: Any, **more: Any
    ) -> None:
        sizes.append(len(body))
        insert(self, client, target, body, *rest, **more)

    monkeypatch.setattr(WarehouseResource, "insert_text", counted)
    table, _ = warehouse.ensure(logs(name))
    put(warehouse, table, 7, DAYS[:1])
    with warehouse.load(table, asset=name, owner=7, revocable=True) as load:
        for i in range(40):
            load.add(lines([(i, 7, DAYS[0], "abcdefgh")]), 1, NOON, header=HEADER)
        load.finish(kind="window", source_time=NOON, days=DAYS[:1])
    assert len(held(warehouse, table)) == 40
    assert 5 < len(sizes) < 20
    assert max(sizes) < 200


def test_a_year_of_days_is_one_load(warehouse: WarehouseResource, name: str):
    table, _ = warehouse.ensure(logs(name))
    days = [date.fromordinal(DAYS[0].toordinal() - n) for n in range(105)]
    put(warehouse, table, 7, days, *((n, 7, day, "a") for n, day in enumerate(days)))
    assert len(held(warehouse, table)) == 105


# Kinds


def read_back(
    warehouse: WarehouseResource, kind: Kind, texts: Sequence[str], zone: str = "UTC"
) -> list[tuple[Any, bool]]:
    """(value, rejected) of each text."""
    column = Column("v", "v", kind, plain=True)
    values = ", ".join("'" + t.replace("\\", "\\\\").replace("'", "\\'") + "'" for t in texts)
    rows = warehouse.query(
        f"SELECT {column.value_sql(zone)}, {column.misfit_sql(zone) or '0'} "
        f"FROM (SELECT arrayJoin(arrayZip([{values}], range({len(texts)}))) AS p, p.1 AS v ORDER BY p.2)"
    )
    return [(value, bool(bad)) for value, bad in rows]


@pytest.mark.parametrize(
    ("kind", "good", "bad", "default"),
    [
        (
            UINT64,
            {"0": 0, "18446744073709551615": 2**64 - 1, "": 0},
            ["18446744073709551616", "-1", "x", "1.5"],
            0,
        ),
        (UINT8, {"255": 255, "": 0}, ["256", "-1", "a"], 0),
        (INT32, {"-2147483648": -(2**31), "": 0}, ["2147483648", "1e3"], 0),
        (FLOAT, {"1.5": 1.5, "-2e3": -2000.0, "": 0.0}, ["nan", "inf", "x"], 0.0),
        (WORD, {"": "", "[]": "[]", "x": "x"}, [], ""),
        (
            DAY,
            {"2026-02-28": date(2026, 2, 28), "": date(1970, 1, 1), "0000-00-00": date(1970, 1, 1)},
            ["2026-02-30", "28.02.2026", "9999-01-01"],
            date(1970, 1, 1),
        ),
        (
            list_of(UINT64),
            {"[]": [], "": [], "[1,18446744073709551615]": [1, 2**64 - 1]},
            ["1,2", "[", "[1", "x"],
            None,
        ),
        (list_of(UINT64), {}, ["[1,x]", "[18446744073709551616,1]"], None),
        (
            list_of(STRING),
            {
                "[]": [],
                "": [],
                r"['a','it\'s','b\\c','']": ["a", "it's", "b\\c", ""],
                "['[1,2]',']']": ["[1,2]", "]"],
            },
            ["['a", "[a]", "x"],
            [],
        ),
        (
            list_of(scaled(1000, 3)),
            {"[1500,-1,0]": [Decimal("1.5"), Decimal("-0.001"), Decimal(0)]},
            ["[1.5]"],
            None,
        ),
        (list_of(FLOAT), {"[1.5,2]": [1.5, 2.0]}, ["[x]"], None),
    ],
)
def test_a_plain_value_is_itself_or_the_default_and_rejected(
    warehouse: WarehouseResource, kind: Kind, good: dict[str, Any], bad: list[str], default: Any
):
    for text, found in zip([*good, *bad], read_back(warehouse, kind, [*good, *bad]), strict=True):
        if text in good:
            assert found == (good[text], False), text
        else:
            assert found[1], text
            if default is not None:
                assert found[0] == default, text


@pytest.mark.parametrize("zone", ["Europe/Moscow", "America/New_York", "Asia/Vladivostok"])
def test_a_local_time_is_read_in_the_sources_zone_and_shown_in_another(
    warehouse: WarehouseResource, zone: str
):
    kind = moment("UTC")
    found = read_back(warehouse, kind, ["2026-07-01 23:30:00"], zone)
    instant = datetime(2026, 7, 1, 23, 30, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    assert found[0][0].replace(tzinfo=UTC) == instant
    fixed = read_back(warehouse, moment("UTC", "Etc/GMT-3"), ["2026-07-01 23:30:00"], zone)
    assert fixed[0][0].replace(tzinfo=UTC) == datetime(2026, 7, 1, 20, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text", ["2026-07-01", "2026-13-01 00:00:00", "2106-02-08 00:00:00x", "2150-01-01 00:00:00", "soon"]
)
def test_a_text_that_is_no_time_is_rejected(warehouse: WarehouseResource, text: str):
    value, rejected = read_back(warehouse, moment("UTC"), [text])[0]
    assert (value.replace(tzinfo=UTC), rejected) == (datetime(1970, 1, 1, tzinfo=UTC), True)


TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6), max_size=5
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=TEXTS)
def test_any_list_of_texts_comes_back(warehouse: WarehouseResource, texts: list[str]):
    written = "[" + ",".join("'" + t.replace("\\", "\\\\").replace("'", "\\'") + "'" for t in texts) + "]"
    assert read_back(warehouse, list_of(STRING), [written]) == [(texts, False)]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 2**64 - 1) | st.integers(-5, 2**70), max_size=5))
def test_any_list_of_numbers_comes_back_or_is_rejected(warehouse: WarehouseResource, numbers: list[int]):
    fits = [n for n in numbers if 0 <= n < 2**64]
    value, rejected = read_back(warehouse, list_of(UINT64), [f"[{','.join(map(str, numbers))}]"])[0]
    assert rejected == (fits != numbers)
    assert value == [n if 0 <= n < 2**64 else 0 for n in numbers]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_float_comes_back(warehouse: WarehouseResource, number: float):
    value, rejected = read_back(warehouse, FLOAT, [repr(number)])[0]
    assert not rejected
    assert math.isclose(value, number, rel_tol=1e-14, abs_tol=5e-324)
