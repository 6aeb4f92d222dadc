"""A whole portal, with user fields of every kind, loaded in one run and kept fresh by ticks of the feed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import dagster as dg
import pytest
import requests

from etl_assets.bitrix24.entities import ENTITIES
from etl_assets.bitrix24.entities import FEED as EVERY_TICK
from tests.etl_assets.house import House, failures, house, small_portal

OBJECTS: dict[str, str | int] = {
    "crm_deal": "deal",
    "crm_lead": "lead",
    "crm_contact": "contact",
    "crm_company": "company",
    "crm_quote": "quote",
    "crm_smart_invoice": 31,
    "crm_activity": "activity",
    "crm_dynamic_items_177": 177,
    "crm_dynamic_items_1038": 1038,
}
PROCESSES = ("crm_dynamic_items_177", "crm_dynamic_items_1038")
FEED = (*(e.name for e in ENTITIES if e.cron == EVERY_TICK), *PROCESSES)
EVERYTHING = (*(e.name for e in ENTITIES), *PROCESSES)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Everything has been loaded by one run, with all checks."""
    config = small_portal(user_fields=True)
    with house(tmp_path_factory.mktemp("full"), config, lasting=True) as place:
        place.refresh_smart_processes()
        result = place.run(*EVERYTHING, feed=True, checks=True)
        assert result.success, failures(result)
        yield place


def typed(column: str, value: Any) -> Any:
    """The portal's own value as a column of this type must show it."""
    if column.startswith("Array("):
        inner = column.removeprefix("Array(").removesuffix(")")
        return [typed(inner, v) for v in value or []]
    if value is None or value == "":
        return None
    bare = column.removeprefix("Nullable(").removesuffix(")")
    if bare == "String":
        if isinstance(value, dict):
            return value["VALUE"]
        if isinstance(value, bool):
            return "Y" if value else "N"
        return (
            str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        )  # no halves of characters
    if bare.startswith("DateTime64"):
        return value if isinstance(value, datetime) else datetime.combine(value, time(), UTC)
    if bare.startswith("Decimal"):
        return Decimal(str(value)).quantize(Decimal("0.01"))
    return value


def same(found: Any, wanted: Any) -> bool:
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(same(f, w) for f, w in zip(found, wanted, strict=True))
    if isinstance(found, datetime) and isinstance(wanted, datetime):
        return found.replace(tzinfo=UTC) == wanted
    if isinstance(found, float):
        return found == pytest.approx(float(wanted), rel=1e-6)
    return found == wanted


def compared(
    place: House, table: str, key_column: str, wanted: Iterable[dict[str, Any]]
) -> tuple[int, list[str]]:
    """(values compared, those that differ) of a view and the portal's own rows; keys must be the same."""
    types = dict(
        place.rows(
            "SELECT name, type FROM system.columns WHERE database = 'bi' AND table = {t:String}", t=table
        )
    )
    names = list(types)
    found = {str(row[names.index(key_column)]): row for row in place.rows(f"SELECT * FROM bi.{table}")}
    rows = {str(row[key_column]): row for row in wanted}
    assert set(found) == set(rows)
    count, wrong = 0, []
    for number, row in rows.items():
        for name, value in row.items():
            if name not in types or (isinstance(value, (dict, list)) and structured(value)):
                continue
            count += 1
            here = found[number][names.index(name)]
            if not same(here, typed(types[name], value)):
                wrong.append(f"{number}.{name} {types[name]}: {here!r}, on the portal {value!r}")
    return count, wrong


def structured(value: Any) -> bool:
    """Objects other than phones and the like: they land as JSON, which is compared elsewhere."""
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and "VALUE" not in first


@pytest.mark.parametrize("table", OBJECTS)
def test_every_value_of_an_object_is_there_with_its_type(place: House, table: str):
    count, wrong = compared(place, table, "ID", place.portal.expected(OBJECTS[table], "raw"))
    assert not wrong[:5]
    assert count > 100


@pytest.mark.parametrize("table", OBJECTS)
def test_every_field_of_the_portal_is_a_column(place: House, table: str):
    columns = {name for (name,) in place.rows(COLUMNS, t=table)}
    assert set(place.portal.table(OBJECTS[table]).fields) <= columns


COLUMNS = "SELECT name FROM system.columns WHERE database = 'bitrix24' AND table = {t:String}"


def test_all_contacts_of_a_deal_are_in_its_row(place: House):
    deals = {str(r["ID"]): [str(c) for c in r["CONTACT_IDS"]] for r in place.portal.expected("deal", "raw")}
    assert dict(place.rows("SELECT ID, CONTACT_IDS FROM bi.crm_deal")) == deals
    assert any(len(contacts) > 1 for contacts in deals.values())


def test_money_is_split_into_amount_and_currency(place: House):
    found = place.rows(
        "SELECT UF_CRM_BUDGET, toString(UF_CRM_BUDGET_AMOUNT), UF_CRM_BUDGET_CURRENCY, UF_CRM_BUDGETS, "
        "arrayMap(a -> toString(a), UF_CRM_BUDGETS_AMOUNT), UF_CRM_BUDGETS_CURRENCY FROM bi.crm_deal"
    )
    assert any(row[0] for row in found)
    for whole, amount, currency, many, amounts, currencies in found:
        if whole:
            assert (Decimal(amount), currency) == (Decimal(whole.split("|")[0]), whole.split("|")[1])
        assert [(Decimal(a), c) for a, c in zip(amounts, currencies, strict=True)] == [
            (Decimal(m.split("|")[0]), m.split("|")[1]) for m in many
        ]


def test_the_history_of_all_types_is_there(place: House):
    for type_id in (1, 2, 31, 177):
        live = sorted(r["ID"] for r in place.portal.expected(f"stagehistory_{type_id}", "id"))
        sql = "SELECT toInt64(ID) AS i FROM bi.crm_stage_history WHERE ENTITY_TYPE_ID = {t:String} ORDER BY i"
        assert [r[0] for r in place.rows(sql, t=str(type_id))] == live
    assert {t for (t,) in place.rows("SELECT DISTINCT ENTITY_TYPE_ID FROM bi.crm_stage_history")} == {
        "1",
        "2",
        "31",
        "177",
    }


def test_product_rows_of_all_owners_are_there(place: House):
    wanted = [
        row
        for type_id in (1, 2, 7, 31, 177, 1038)
        for owner in place.live(type_id)
        for row in place.portal.product_rows(type_id, owner)
    ]
    for row in wanted:
        row["priceAccount"] = float(row["priceAccount"])
    count, wrong = compared(place, "crm_productrow", "id", wanted)
    assert not wrong[:5]
    assert count > 1000


@pytest.mark.parametrize(
    ("table", "entity", "field"),
    [("crm_deal_contact", "deal", "CONTACT_IDS"), ("crm_contact_company", "contact", "COMPANY_IDS")],
)
def test_links_are_those_of_the_owners(place: House, table: str, entity: str, field: str):
    wanted = sorted(
        {(str(r["ID"]), str(to)) for r in place.portal.expected(entity, "raw") for to in r[field]}
    )
    assert wanted
    columns = ("DEAL_ID", "CONTACT_ID") if entity == "deal" else ("CONTACT_ID", "COMPANY_ID")
    assert sorted(place.rows(f"SELECT {', '.join(columns)} FROM bi.{table}")) == wanted


def listed(place: House, method: str, params: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """All rows of a list method, read page by page by other means than Svod's."""
    rows: list[dict[str, Any]] = []
    start: int | None = 0
    while start is not None:
        answer = requests.post(
            f"{place.portal.webhook_url}{method}", json={**(params or {}), "start": start}, timeout=20
        )
        body = answer.json()
        result = body["result"]
        rows += result if isinstance(result, list) else next(iter(result.values()))
        start = body.get("next")
    return rows


@pytest.mark.parametrize(
    ("table", "columns", "method"),
    [
        ("crm_status", ("ID", "ENTITY_ID", "STATUS_ID", "NAME"), "crm.status.list"),
        ("crm_status_type", ("ID", "NAME"), "crm.status.entity.types"),
        ("crm_currency", ("CURRENCY", "FULL_NAME"), "crm.currency.list"),
        ("crm_owner_type", ("ID", "NAME", "SYMBOL_CODE"), "crm.enum.ownertype"),
        ("user", ("ID", "EMAIL", "LAST_NAME"), "user.get"),
        ("department", ("ID", "NAME", "PARENT"), "department.get"),
    ],
)
def test_a_dictionary_is_what_the_portal_says(
    place: House, table: str, columns: tuple[str, ...], method: str
):
    said = {tuple(str(row.get(c) or "") for c in columns) for row in listed(place, method)}
    found = place.rows(f"SELECT {', '.join(columns)} FROM bi.{table}")
    assert {tuple(v or "" for v in row) for row in found} == said
    assert len(found) == len(said)


def test_funnels_of_every_type_are_there(place: House):
    categories = place.portal.categories.items()
    wanted = {(str(t), str(row["id"]), row["name"]) for t, rows in categories if t != 1038 for row in rows}
    assert set(place.rows("SELECT entityTypeId, id, name FROM bi.crm_category")) == wanted


def test_options_of_list_fields_have_their_labels(place: House):
    fields = place.portal.table("deal").fields.values()
    wanted = {(f.name, str(number), label) for f in fields for number, label in f.items}
    assert wanted
    sql = "SELECT FIELD_NAME, ID, VALUE FROM bi.crm_userfield_enum WHERE ENTITY = 'crm_deal'"
    assert set(place.rows(sql)) == wanted
    entities = {e for (e,) in place.rows("SELECT DISTINCT ENTITY FROM bi.crm_userfield_enum")}
    assert {"crm_smart_invoice", *PROCESSES} < entities


def test_user_fields_are_described(place: House):
    wanted = {f.name for f in place.portal.table("lead").fields.values() if f.user_field}
    sql = "SELECT FIELD_NAME FROM bi.crm_userfield WHERE ENTITY_ID = 'CRM_LEAD'"
    assert {name for (name,) in place.rows(sql)} == wanted


def test_nothing_was_rejected(place: House):
    assert place.rows("SELECT table_name, reasons, raw FROM svod.rejected_rows LIMIT 5") == []


def test_every_asset_says_how_many_rows_its_view_has(place: House):
    for name in EVERYTHING:
        assert place.metadata(name)["dagster/row_count"] == place.value(f"SELECT count() FROM bi.{name}"), (
            name
        )


def test_every_asset_shows_its_columns_and_what_it_cost(place: House):
    for name in EVERYTHING:
        found = place.metadata(name)
        columns = [c.name for c in found["dagster/column_schema"].columns]
        assert columns == [n for (n,) in place.rows(COLUMNS + " ORDER BY position", t=name)], name
        assert {"rows_loaded", "rows_rejected", "http_requests", "seconds", "load"} <= set(found)


def test_columns_carry_the_portals_titles(place: House):
    schema = place.metadata("crm_deal")["dagster/column_schema"]
    titles = {c.name: c.description for c in schema.columns}
    assert (titles["OPPORTUNITY"], titles["UF_CRM_CITY"]) == ("Сумма", "Город доставки")


def test_views_are_materialized_with_their_tables(place: House):
    for name in EVERYTHING:
        event = place.instance.get_latest_materialization_event(dg.AssetKey(["bi", name]))
        assert event is not None, name


def test_all_checks_of_a_fresh_load_pass(place: House):
    (run,) = place.instance.get_runs(limit=1, filters=None)[-1:]
    evaluations = [
        e.dagster_event.asset_check_evaluation_data
        for e in place.instance.all_logs(run.run_id)
        if e.dagster_event and e.dagster_event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ]
    assert {e.check_name for e in evaluations} >= {
        "complete",
        "unique_key",
        "webhook_rights",
        "rejected_rows",
        "schema_drift",
    }
    assert [e.check_name for e in evaluations if not e.passed] == []


@pytest.fixture(scope="module")
def quiet_tick(place: House) -> dict[str, Any]:
    """Statistics of a tick for which nothing has changed."""
    place.portal.clock.advance(60)
    with place.counted() as stats:
        place.feed(*FEED)
    return stats


def test_a_tick_with_nothing_new_makes_at_most_three_requests(quiet_tick: dict[str, Any]):
    assert quiet_tick["http_requests"] <= 3
    assert quiet_tick["simulated_seconds"] <= 3


def test_a_tick_with_nothing_new_loads_no_row_and_moves_every_watermark(
    place: House, quiet_tick: dict[str, Any]
):
    now = datetime.fromtimestamp(place.portal.now(), UTC)
    assert place.warehouse.watermarks() == {
        **place.warehouse.watermarks(),
        **{f"bitrix24/{n}": now for n in FEED},
    }
    loads = place.rows(
        "SELECT asset, rows FROM svod.load_log ORDER BY finished_at DESC LIMIT {n:UInt32}", n=len(FEED)
    )
    assert sum(rows for _, rows in loads) == 0


def test_what_was_created_and_changed_arrives_with_the_next_tick(place: House, quiet_tick: dict[str, Any]):
    portal = place.portal
    portal.clock.advance(300)
    made = {name: portal.create(entity, TITLE="new", SUBJECT="new") for name, entity in OBJECTS.items()}
    portal.change("deal", portal_first(place), OPPORTUNITY=123.45, STAGE_ID="WON")
    with place.counted() as stats:
        place.feed(*FEED)
    for name, number in made.items():
        assert number in place.ids(name), name
    assert (
        place.value(
            "SELECT toString(OPPORTUNITY) FROM bi.crm_deal WHERE ID = {i:String}", i=str(portal_first(place))
        )
        == "123.45"
    )
    history = sorted(r["ID"] for r in portal.expected("stagehistory_2", "id"))
    sql = "SELECT toInt64(ID) AS i FROM bi.crm_stage_history WHERE ENTITY_TYPE_ID = '2' ORDER BY i"
    assert [r[0] for r in place.rows(sql)] == history
    assert stats["http_requests"] <= 12


def portal_first(place: House) -> int:
    return place.live("deal")[0]
