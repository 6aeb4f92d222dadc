"""Checks pass when all is well and fail, as warnings, when it is not."""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from tests.etl_assets.house import QUIET, House, house, small_portal


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Deals and invoices, loaded."""
    with house(tmp_path_factory.mktemp("checks"), small_portal(smart_processes=False)) as place:
        place.feed("crm_deal", "crm_smart_invoice")
        yield place


def checked(place: House) -> dict[tuple[str, str], dg.AssetCheckEvaluation]:
    """(table, check) -> result, of the nightly job."""
    job = place.defs.resolve_job_def("bitrix24_checks")
    result = job.execute_in_process(instance=place.instance, run_config=QUIET)
    return {(e.asset_key.path[-1], e.check_name): e for e in result.get_asset_check_evaluations()}


def test_a_complete_table_passes_and_says_both_counts(place: House):
    found = checked(place)["crm_deal", "complete"]
    assert found.passed
    counts = {n: v.value for n, v in found.metadata.items()}
    assert counts == {"rows_on_the_portal": len(place.live("deal")), "rows_here": len(place.ids("crm_deal"))}


def test_rows_that_are_missing_here_are_a_warning_with_their_number(place: House):
    for _ in range(3):
        place.portal.create("deal", TITLE="not loaded")
    found = checked(place)["crm_deal", "complete"]
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert found.description == "3 rows of the portal are missing here"
    place.portal.clock.advance(60)
    place.feed("crm_deal")
    assert checked(place)["crm_deal", "complete"].passed


def test_a_table_that_was_never_loaded_is_no_failure(place: House):
    found = checked(place)
    assert found["crm_company", "complete"].passed
    assert found["crm_company", "unique_key"].passed


def test_an_entity_that_may_not_be_counted_is_a_warning_of_its_own(place: House):
    place.portal.faults.add(
        "nested_error", method="crm.deal.list", times=None, code="ACCESS_DENIED", status=403
    )
    found = checked(place)
    place.portal.faults.clear()
    assert not found["crm_deal", "complete"].passed
    assert "access denied" in (found["crm_deal", "complete"].description or "")
    assert found["crm_smart_invoice", "complete"].passed


def test_a_key_that_stands_twice_in_the_view_fails(place: House):
    assert checked(place)["crm_deal", "unique_key"].passed
    (sql,) = place.rows(
        "SELECT create_table_query FROM system.tables WHERE database = 'bi' AND name = 'crm_deal'"
    )
    select = sql[0].split(" AS ", 1)[1].split(" COMMENT ")[0]
    doubled = f"CREATE OR REPLACE VIEW bi.crm_deal AS {select} UNION ALL {select}"
    place.warehouse.command(doubled)
    found = checked(place)["crm_deal", "unique_key"]
    place.warehouse.command(f"CREATE OR REPLACE VIEW bi.crm_deal AS {select}")
    assert not found.passed
    assert {n: v.value for n, v in found.metadata.items()}["rows"] == 2 * len(place.ids("crm_deal"))


def test_missing_rights_are_shown_in_one_table(place: House):
    assert checked(place)["crm_owner_type", "webhook_rights"].passed
    place.portal.config.scopes = ("crm",)
    found = checked(place)["crm_owner_type", "webhook_rights"]
    place.portal.config.scopes = ("crm", "user", "department")
    assert not found.passed
    table = str(found.metadata["rights"].value)
    assert "| ✗ | user.get |" in table
    assert "| ✓ | crm.deal.list |" in table


def test_dates_in_the_sites_own_spelling_fit(place: House):
    place.portal.clock.advance(60)
    number = place.portal.create("deal", TITLE="odd", BEGINDATE="2026-03-01")
    for method in ("crm.item.list", "crm.deal.list"):
        place.portal.faults.add("locale_dates", method=method, times=None)
    result = place.feed("crm_deal")
    place.portal.faults.clear()
    assert own(result)["rejected_rows"].passed
    sql = "SELECT toString(BEGINDATE) FROM bi.crm_deal WHERE ID = {i:String}"
    assert place.value(sql, i=str(number)).startswith("2026-03-01 00:00:00")


def own(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


def test_values_that_do_not_fit_are_a_warning_and_are_not_lost(tmp_path_factory: pytest.TempPathFactory):
    config = small_portal(smart_processes=False)
    types = {"crm_lead": {"HAS_PHONE": "Int64"}}
    with house(tmp_path_factory.mktemp("misfits"), config, BITRIX24_TYPES=types) as place:
        found = own(place.feed("crm_lead"))["rejected_rows"]
        assert not found.passed
        assert found.severity == dg.AssetCheckSeverity.WARN
        assert place.ids("crm_lead") == place.live("lead")
        assert place.value("SELECT countIf(HAS_PHONE IS NOT NULL) FROM bi.crm_lead") == 0
        kept = place.rows("SELECT row_key, reasons, raw FROM svod.rejected_rows")
        assert len(kept) == found.metadata["rows_rejected"].value == len(place.live("lead"))
        assert all(reasons == ["HAS_PHONE: not an Int64"] for _, reasons, _ in kept)
        assert {json.loads(raw)["HAS_PHONE"] for _, _, raw in kept} <= {"Y", "N"}
        assert len(place.rows(str(found.metadata["look"].value))) == len(kept)
