"""The checks say when a day is missing, when the list is stale, and when the databases differ."""

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from etl_assets.ttm import checks
from tests.etl_assets.ttm.ttm_house import DAILY, QUIET, House, day


def verdicts(place: House) -> dict[str, bool]:
    """Check -> passed, of the job that runs every hour."""
    job = place.defs.resolve_job_def("ttm_checks")
    result = job.execute_in_process(instance=place.instance, run_config=QUIET)
    return {each.check_name: each.passed for each in result.get_asset_check_evaluations()}


def test_what_was_never_loaded_is_told(place: House):
    assert verdicts(place) == {
        "yesterday_complete": False,
        "list_is_fresh": False,
        "in_both_databases": True,
    }


def test_all_is_well_after_the_night(place: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "LOADED_BY", datetime.min.time())  # whatever hour it is here
    place.load(*DAILY)
    place.load("stopped_tickets")
    assert set(verdicts(place).values()) == {True}
    (load,) = place.tables("select complete_at from ttm_loads where day = :d", d=str(day()))
    assert load["complete_at"] > datetime.now(UTC) - timedelta(minutes=5)


def test_a_stale_list_is_told(place: House):
    place.load("stopped_tickets")
    with place.database.transaction() as connection:
        connection.execute(sa.text("update ttm_loads set complete_at = complete_at - interval '16 minutes'"))
    assert not verdicts(place)["list_is_fresh"]


def test_rows_that_the_warehouse_lacks_are_told(place: House):
    place.load(*DAILY)
    place.warehouse.command("TRUNCATE TABLE ttm.expires_tickets")
    assert not verdicts(place)["in_both_databases"]
