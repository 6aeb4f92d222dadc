"""The health page tells lag and missing rows, and its checks turn them into alerts."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from tests.etl_assets.house import QUIET, House, failures, house, small_portal


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("health"), small_portal(smart_processes=False)) as place:
        place.feed("crm_deal", "crm_lead", "crm_status")
        yield place


def checked(place: House) -> dict[str, dg.AssetCheckEvaluation]:
    job = place.defs.resolve_job_def("bitrix24_health")
    result = job.execute_in_process(instance=place.instance, run_config=QUIET, raise_on_error=False)
    assert result.success, failures(result)
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


def test_every_loaded_entity_has_a_row_with_both_counts(place: House):
    found = checked(place)
    assert all(e.passed for e in found.values())
    rows = place.rows(
        "SELECT entity, rows_here, rows_there, lag_s < 600, requests_24h > 0 FROM bi.health ORDER BY 1"
    )
    deals, leads = len(place.live("deal")), len(place.live("lead"))
    statuses = place.value("SELECT count() FROM bi.crm_status")
    assert rows == [
        ("crm_deal", deals, deals, 1, 1),
        ("crm_lead", leads, leads, 1, 1),
        ("crm_status", statuses, None, 1, 1),
    ]
    page = place.metadata("health")
    assert "crm_deal" in page["health"]
    assert page["lag"].startswith("![")


def test_rows_that_are_missing_are_named_by_the_check(place: House):
    place.portal.clock.advance(60)
    place.portal.create("lead", TITLE="not loaded")
    found = checked(place)
    assert not found["as_many_rows"].passed
    assert found["as_many_rows"].metadata["entities"].value == "crm_lead"


def test_an_entity_that_fell_behind_is_named_by_the_check(place: House):
    place.warehouse.command(
        "ALTER TABLE svod.load_log UPDATE watermark = watermark - INTERVAL 1 DAY "
        "WHERE asset = 'bitrix24/crm_deal' SETTINGS mutations_sync = 2"
    )
    assert checked(place)["no_lag"].metadata["entities"].value == "crm_deal"
