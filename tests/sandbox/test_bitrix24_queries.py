"""Filter operators, order, paging; vectorised answers agree with a plain reading of the rows."""

from typing import Any

import pytest

from sandbox.bitrix24 import Portal, PortalConfig
from sandbox.bitrix24.query import split_operator


def rows_where(rest: Any, test: Any) -> list[int]:
    return [row["ID"] for row in rest.portal.expected("deal", "raw") if test(row)][:50]


CASES: list[tuple[dict[str, Any], Any]] = [
    ({"=STAGE_ID": "WON"}, lambda r: r["STAGE_ID"] == "WON"),
    ({"STAGE_ID": ["WON", "C1:NEW"]}, lambda r: r["STAGE_ID"] in ("WON", "C1:NEW")),
    ({"@STAGE_ID": ["WON"]}, lambda r: r["STAGE_ID"] == "WON"),
    ({"!@STAGE_ID": ["WON", "NEW"]}, lambda r: r["STAGE_ID"] not in ("WON", "NEW")),
    ({"!STAGE_ID": "WON"}, lambda r: r["STAGE_ID"] != "WON"),
    ({"!=CURRENCY_ID": "RUB", ">ID": 100}, lambda r: r["CURRENCY_ID"] != "RUB" and r["ID"] > 100),
    ({"%TITLE": "ремонт"}, lambda r: "ремонт" in r["TITLE"].lower()),
    ({"!%TITLE": "ремонт"}, lambda r: "ремонт" not in r["TITLE"].lower()),
    ({"=%TITLE": "Поставка%"}, lambda r: r["TITLE"].startswith("Поставка")),
    ({"!=%TITLE": "Поставка%"}, lambda r: not r["TITLE"].startswith("Поставка")),
    ({">OPPORTUNITY": "400000.5"}, lambda r: r["OPPORTUNITY"] > 400000.5),
    ({">=ID": 10, "<ID": 20}, lambda r: 10 <= r["ID"] < 20),
    ({"COMPANY_ID": ""}, lambda r: r["COMPANY_ID"] is None),
    ({"!COMPANY_ID": ""}, lambda r: r["COMPANY_ID"] is not None),
    ({">ID": ""}, lambda r: True),
    ({">ID": []}, lambda r: True),
    ({">TYPO_FIELD": 5}, lambda r: True),
    ({"%STAGE_ID": "WO"}, lambda r: True),
    ({"0": {"logic": "OR", "0": {"ID": 1}, "1": {"ID": 2}}}, lambda r: True),
]


@pytest.mark.parametrize(("condition", "test"), CASES, ids=[ascii(case[0])[:40] for case in CASES])
def test_classic_filters(rest: Any, condition: dict[str, Any], test: Any) -> None:
    rest.portal.create("deal", TITLE="Поставка: ремонт", STAGE_ID="WON", OPPORTUNITY=500000)
    rest.portal.change("deal", 11, STAGE_ID="C1:NEW")
    assert rest.ids(filter=condition, order={"ID": "ASC"}, start=-1) == rows_where(rest, test)


def test_universal_filters_know_or_and_refuse_unknown_fields(rest: Any) -> None:
    either = {"0": {"logic": "OR", "0": {"id": 3}, "1": {"%title": "№7"}}, "<id": 60}
    items = rest.result("crm.item.list", entityTypeId=2, filter=either, start=-1)["items"]
    expected = rows_where(rest, lambda r: r["ID"] < 60 and (r["ID"] == 3 or "№7" in r["TITLE"]))
    assert [item["id"] for item in items] == expected
    assert rest.error("crm.item.list", entityTypeId=2, filter={">typo": 1}) == (400, "INVALID_ARG_VALUE")
    assert rest.error("crm.item.list", entityTypeId=2, order={"typo": "asc"}) == (400, "INVALID_ARG_VALUE")
    assert rest.error("crm.stagehistory.list", entityTypeId=2, filter={"TITLE": 1})[1] == "INVALID_ARG_VALUE"


def test_multi_fields_match_exactly(rest: Any) -> None:
    row = next(row for row in rest.portal.expected("contact") if row["EMAIL"])
    found = rest.result(
        "crm.contact.list", filter={"EMAIL": row["EMAIL"][0]["VALUE"]}, select=["ID", "EMAIL"]
    )
    assert [contact["ID"] for contact in found] == [row["ID"]]
    assert found[0]["EMAIL"][0]["TYPE_ID"] == "EMAIL"


@pytest.mark.parametrize(
    "literal", ["{:%Y-%m-%dT%H:%M:%S+03:00}", "{:%Y-%m-%d %H:%M:%S}", "{:%d.%m.%Y %H:%M:%S}"]
)
def test_date_literals(rest: Any, literal: str) -> None:
    rows = sorted(rest.portal.expected("deal", "raw"), key=lambda row: row["DATE_MODIFY"])
    border = rows[-20]["DATE_MODIFY"].astimezone(rest.portal.wire.zone)
    found = rest.ids(filter={">=DATE_MODIFY": literal.format(border)}, start=-1)
    assert found == sorted(row["ID"] for row in rows[-20:])


def test_server_date_literals_only(open_portal: Any) -> None:
    rest = open_portal(item_date_literals="server")
    future = {">=updatedTime": "2030-01-01T00:00:00+03:00"}
    assert len(rest.result("crm.item.list", entityTypeId=2, filter=future)["items"]) == 50
    future = {">=updatedTime": "2030-01-01 00:00:00"}
    assert rest.result("crm.item.list", entityTypeId=2, filter=future)["items"] == []


def test_order_by_time_and_by_text(rest: Any) -> None:
    rows = list(rest.portal.expected("deal", "raw"))
    newest = sorted(rows, key=lambda r: (r["DATE_MODIFY"], -r["ID"]), reverse=True)[:50]
    assert rest.ids(order={"DATE_MODIFY": "DESC"}, start=-1) == [row["ID"] for row in newest]
    titles = sorted(rows, key=lambda r: (r["TITLE"].casefold(), r["ID"]))[:50]
    assert rest.ids(order={"TITLE": "ASC", "ID": "ASC"}, start=0) == [row["ID"] for row in titles]
    assert rest.ids(order={"ID": "DESC"}, start=-1)[0] == max(row["ID"] for row in rows)


def test_longest_operator_wins() -> None:
    assert split_operator("!=%TITLE") == ("!=%", "TITLE")
    assert split_operator("!@ID") == ("!@", "ID")
    assert split_operator("ID") == ("=", "ID")


def test_same_seed_same_data_and_another_seed_other_data() -> None:
    def data(seed: int) -> list[dict[str, Any]]:
        portal = Portal(PortalConfig(seed=seed, clock_start=1_780_000_000, clock_factor=0, user_fields=True))
        return [
            row for entity in ("deal", "contact", 177, "activity") for row in portal.expected(entity, "raw")
        ]

    assert data(1) == data(1)
    assert data(1) != data(2)


def test_gaps_and_times() -> None:
    dense = Portal(PortalConfig(deals=500, gaps=0, clock_start=1_780_000_000))
    assert [row["ID"] for row in dense.expected("deal", "id")] == list(range(1, 501))
    sparse = Portal(PortalConfig(deals=500, gaps=0.5, clock_start=1_780_000_000))
    ids = [row["ID"] for row in sparse.expected("deal", "id")]
    assert len(ids) == 500
    assert 900 <= ids[-1] <= 1100
    for row in sparse.expected("deal", "raw"):
        assert row["DATE_CREATE"] <= row["MOVED_TIME"] <= row["DATE_MODIFY"]
        assert row["DATE_MODIFY"].timestamp() <= 1_780_000_000


def test_a_million_rows_cost_arrays_only() -> None:
    portal = Portal(PortalConfig(deals=1_000_000, gaps=0, clock_start=1_780_000_000, clock_factor=0))
    table = portal.table("deal")
    assert len(table.live()) == 1_000_000
    assert table.row(999_999)["ID"] == 1_000_000
    assert not table.overlay
