"""Tables are made, grow, and change their types without losing anything."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from resources.clickhouse import Column, Table, WarehouseResource
from resources.clickhouse.values import DECIMAL2, INTEGER

READ_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
ID = Column("ID", "ID", required=True, comment="Key")
TITLE = Column("TITLE", "TITLE", comment="Название")


def table(name: str, *columns: Column, **options: Any) -> Table:
    return Table("structure", name, (ID, *columns), ("ID",), **options)


def put(warehouse: WarehouseResource, wanted: Table, *rows: str) -> None:
    with warehouse.load(wanted, asset=wanted.name) as load:
        load.add("\n".join(rows).encode(), len(rows), READ_AT)
        load.finish(kind="full", source_time=READ_AT)


def types(warehouse: WarehouseResource, wanted: Table) -> dict[str, str]:
    return {name: type_ for name, (type_, _) in warehouse.columns(wanted).items()}


def viewed(warehouse: WarehouseResource, name: str) -> list[str]:
    found = warehouse.query(
        f"SELECT name FROM system.columns WHERE database = 'bi' AND table = '{name}' ORDER BY position"
    )
    return [row[0] for row in found]


def test_a_table_is_made_once_with_its_view_and_comments(anywhere: WarehouseResource, name: str) -> None:
    wanted = table(name, TITLE, comment="It's one", loaded_at_position=1)
    fitted, change = anywhere.ensure(wanted)
    assert (fitted, change.created, change.view) == (wanted, True, True)
    assert types(anywhere, wanted) == {"ID": "String", "dt_inserted": "DateTime", "TITLE": "Nullable(String)"}
    assert anywhere.columns(wanted)["TITLE"][1] == "Название"
    assert anywhere.query(
        f"SELECT comment FROM system.tables WHERE name = '{name}' AND database = 'structure'"
    ) == [("It's one",)]
    assert viewed(anywhere, name) == ["ID", "dt_inserted", "TITLE"]
    _, again = anywhere.ensure(wanted)
    assert not again
    assert not again.view


def test_a_new_field_becomes_a_column_and_shows_in_the_view(warehouse: WarehouseResource, name: str) -> None:
    old = table(name, TITLE)
    warehouse.ensure(old)
    put(warehouse, old, '{"ID": "1", "TITLE": "a", "UF_NEW": 7}')
    wanted = table(name, Column("UF_NEW", "UF_NEW", INTEGER), TITLE)
    assert warehouse.plan(wanted)[1].added == ("UF_NEW",)
    fitted, change = warehouse.ensure(wanted)
    assert (change.created, change.added, change.view) == (False, ("UF_NEW",), True)
    assert viewed(warehouse, name) == ["ID", "TITLE", "dt_inserted", "UF_NEW"]
    assert warehouse.query(f"SELECT ID, TITLE, UF_NEW FROM bi.{name}") == [("1", "a", None)]
    put(warehouse, fitted, '{"ID": "1", "TITLE": "a", "UF_NEW": 7}')
    assert warehouse.query(f"SELECT ID, TITLE, UF_NEW FROM bi.{name}") == [("1", "a", 7)]
    assert not warehouse.plan(wanted)[1]


def test_a_table_that_only_a_view_needed_is_new_with_its_first_row(
    warehouse: WarehouseResource, name: str
) -> None:
    """It was made with the columns known then: what comes beside them is no drift and stands in its place."""
    warehouse.ensure(table(name, TITLE))
    fitted, change = warehouse.ensure(table(name, Column("UF_NEW", "UF_NEW", INTEGER), TITLE))
    assert change.created
    assert viewed(warehouse, name) == ["ID", "UF_NEW", "TITLE", "dt_inserted"]
    put(warehouse, fitted, '{"ID": "1", "UF_NEW": 7}')
    _, later = warehouse.ensure(table(name, Column("UF_NEW", "UF_NEW", INTEGER), TITLE, Column("X", "X")))
    assert (later.created, later.added) == (False, ("X",))


def test_a_removed_field_keeps_its_column(warehouse: WarehouseResource, name: str) -> None:
    full = table(name, TITLE, Column("OLD", "OLD"))
    warehouse.ensure(full)
    put(warehouse, full, '{"ID": "1", "OLD": "x"}')
    fitted, change = warehouse.ensure(table(name, TITLE))
    assert not change
    put(warehouse, fitted, '{"ID": "2", "TITLE": "b"}')
    assert warehouse.query(f"SELECT ID, OLD FROM bi.{name} ORDER BY ID") == [("1", "x"), ("2", None)]


def test_a_snapshot_too_keeps_the_column_of_a_removed_field(warehouse: WarehouseResource, name: str) -> None:
    full = table(name, Column("OLD", "OLD"), mode="snapshot")
    warehouse.ensure(full)
    put(warehouse, full, '{"ID": "1", "OLD": "x"}')
    fitted, _ = warehouse.ensure(table(name, TITLE, mode="snapshot"))
    put(warehouse, fitted, '{"ID": "1", "TITLE": "b"}')
    assert warehouse.query(f"SELECT ID, TITLE, OLD FROM bi.{name}") == [("1", "b", None)]


def test_a_changed_type_gets_a_column_of_its_own(warehouse: WarehouseResource, name: str) -> None:
    texts, numbers = table(name, TITLE), table(name, replace(TITLE, kind=INTEGER))
    warehouse.ensure(texts)
    put(warehouse, texts, '{"ID": "1", "TITLE": "a"}')
    fitted, change = warehouse.ensure(numbers)
    assert change.retyped == {"TITLE": "TITLE__v2"}
    put(warehouse, fitted, '{"ID": "2", "TITLE": 5}')
    assert not warehouse.ensure(numbers)[1], (
        "a change is told once, else every later load would be a full one"
    )
    fitted, change = warehouse.ensure(table(name, replace(TITLE, kind=DECIMAL2)))
    assert change.retyped == {"TITLE": "TITLE__v3"}
    put(warehouse, fitted, '{"ID": "3", "TITLE": 1.5}')
    assert types(warehouse, texts)["TITLE__v2"] == "Nullable(Int64)"
    found = warehouse.query(f"SELECT ID, TITLE, TITLE__v2, toString(TITLE__v3) FROM bi.{name} ORDER BY ID")
    assert found == [("1", "a", None, None), ("2", None, 5, None), ("3", None, None, "1.5")]
    back, change = warehouse.ensure(texts)
    assert (back, bool(change)) == (texts, False)


def test_comments_follow_the_portal(warehouse: WarehouseResource, name: str) -> None:
    warehouse.ensure(table(name, TITLE))
    _, change = warehouse.ensure(table(name, replace(TITLE, comment="It's `new` \\ title")))
    assert not change
    assert warehouse.columns(table(name))["TITLE"][1] == "It's `new` \\ title"


ODD = [
    "Сумма, ₽",
    "a`b",
    "it's",
    'say "x"',
    "back\\slash",
    "{x:String}",
    "100%",
    "select",
    "a.b",
    "new\nline",
    " ",
    "%s",
    "$$",
]


@pytest.mark.parametrize("mode", ["upsert", "snapshot"])
def test_odd_column_names(anywhere: WarehouseResource, name: str, mode: Any) -> None:
    columns = [Column(odd, odd, INTEGER, comment=odd) for odd in ODD]
    wanted, _ = anywhere.ensure(table(name, *columns, mode=mode))
    body = b'{"ID":"1"' + b"".join(b"," + encoded(odd) + b":%d" % n for n, odd in enumerate(ODD)) + b"}"
    bad = b'{"ID":"2"' + b"".join(b"," + encoded(odd) + b':"x"' for odd in ODD) + b"}"
    with anywhere.load(wanted, asset=name) as load:
        load.add(body + b"\n" + bad, 2, READ_AT)
        assert load.finish(kind="full", source_time=READ_AT).rejected == 1
    assert anywhere.query(f"SELECT * EXCEPT (ID, dt_inserted) FROM bi.{name} WHERE ID = '1'") == [
        tuple(range(len(ODD)))
    ]
    assert not anywhere.ensure(wanted)[1]


def encoded(text: str) -> bytes:
    return json.dumps(text).encode()


@pytest.mark.parametrize("own", ["TITLE", "dt_inserted", "is_deleted"])
def test_a_name_that_stands_twice_is_refused(own: str) -> None:
    with pytest.raises(ValueError, match=rf"structure\.x: .*'{own}'.* twice"):
        table("x", TITLE, Column(own, "other"), tombstones=True)


def test_the_view_hides_old_versions_and_deleted_rows(anywhere: WarehouseResource, name: str) -> None:
    wanted, _ = anywhere.ensure(table(name, TITLE, Column("OWNER", "OWNER"), tombstones=True))
    put(
        anywhere, wanted, '{"ID": "1", "OWNER": "7", "TITLE": "a"}', '{"ID": "2", "OWNER": "7", "TITLE": "b"}'
    )
    put(anywhere, wanted, '{"ID": "1", "OWNER": "7", "TITLE": "c"}')
    anywhere.retire_children(wanted, "OWNER", ["7"], READ_AT.replace(hour=13), {"ID": "2"})
    assert viewed(anywhere, name) == ["ID", "TITLE", "OWNER", "dt_inserted"]
    assert anywhere.query(f"SELECT ID, TITLE FROM bi.{name}") == [("1", "c")]
    assert len(anywhere.query(f"SELECT * FROM structure.{name}")) > 1
