"""A portal's fields change while its rows are loaded."""

from collections.abc import Iterator

import dagster as dg
import pytest

from tests.etl_assets.house import House, house, small_portal


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Leads, loaded."""
    config = small_portal(smart_processes=False)
    with house(tmp_path_factory.mktemp("structure"), config) as place:
        place.feed("crm_lead")
        yield place


def values(place: House, column: str) -> dict[int, object]:
    return dict(place.rows(f"SELECT toInt64(ID), {column} FROM bi.crm_lead"))


def of_the_portal(place: House, column: str) -> dict[int, object]:
    return {row["ID"]: row[column] for row in place.portal.expected("lead", "raw")}


def described(place: House, database: str, what: str, column: str) -> str:
    where = "database = {d:String} AND table = 'crm_lead' AND name = {c:String}"
    return place.value(f"SELECT {what} FROM system.columns WHERE {where}", d=database, c=column)


def passed(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


def test_a_new_field_becomes_a_column_and_old_rows_are_filled(place: House):
    assert passed(place.load("crm_lead"))["schema_drift"]
    place.portal.add_user_field("lead", "COLOUR", "string", "Цвет", fill=True)
    place.portal.clock.advance(60)
    result = place.load("crm_lead")
    assert values(place, "UF_CRM_COLOUR") == of_the_portal(place, "UF_CRM_COLOUR")
    assert any(values(place, "UF_CRM_COLOUR").values())
    assert not passed(result)["schema_drift"]
    place.load("crm_lead")
    with place.counted() as stats:
        assert passed(place.load("crm_lead"))["schema_drift"]
    assert stats["http_requests"] <= 3
    assert described(place, "bitrix24", "comment", "UF_CRM_COLOUR") == "Цвет"


def test_a_load_that_a_new_field_made_full_and_that_failed_is_repeated_in_full(place: House):
    place.portal.add_user_field("lead", "COLOUR", "string", "Цвет", fill=True)
    place.portal.faults.add("nested_error", method="crm.lead.list", skip=1, times=None, code="ACCESS_DENIED")
    assert not place.run("crm_lead").success
    place.portal.faults.clear()
    place.portal.clock.advance(60)
    place.load("crm_lead")
    assert values(place, "UF_CRM_COLOUR") == of_the_portal(place, "UF_CRM_COLOUR")


def test_a_field_that_comes_back_with_another_type_gets_a_column_of_its_own(place: House):
    place.portal.add_user_field("lead", "SIZE", "string", "Размер", fill=True)
    place.load("crm_lead")
    before = values(place, "UF_CRM_SIZE")
    place.portal.delete_user_field("lead", "UF_CRM_SIZE")
    place.portal.add_user_field("lead", "SIZE", "integer", "Размер", fill=True)
    place.portal.clock.advance(60)
    result = place.load("crm_lead")
    assert values(place, "UF_CRM_SIZE__v2") == of_the_portal(place, "UF_CRM_SIZE")
    sql = "SELECT toInt64(ID), UF_CRM_SIZE FROM bitrix24.crm_lead WHERE UF_CRM_SIZE != ''"
    assert {n: v for n, v in before.items() if v} == dict(place.rows(sql))
    assert not passed(result)["schema_drift"]


def test_a_field_that_is_gone_keeps_its_column_and_what_was_read(place: House):
    place.portal.add_user_field("lead", "NOTE", "string", "Заметка", fill=True)
    place.load("crm_lead")
    kept = values(place, "UF_CRM_NOTE")
    place.portal.delete_user_field("lead", "UF_CRM_NOTE")
    place.portal.clock.advance(60)
    place.load("crm_lead")
    assert values(place, "UF_CRM_NOTE") == kept


def test_columns_may_be_given_another_type_by_a_setting(tmp_path_factory: pytest.TempPathFactory):
    types = {"crm_lead": {"HAS_PHONE": "Int64"}}
    with house(
        tmp_path_factory.mktemp("types"), small_portal(smart_processes=False), BITRIX24_TYPES=types
    ) as place:
        place.feed("crm_lead")
        assert described(place, "bi", "type", "HAS_PHONE") == "Nullable(Int64)"
