"""The list of suspended tickets follows the ticket system; who leaves it goes to history."""

import pytest
import sqlalchemy as sa

from tests.etl_assets.ttm.ttm_house import House, failures

LIST = "select * from stopped_tickets order by task_number"


def listed(place: House) -> set[int]:
    return {row["ticket_number"] for row in place.tables(LIST)}


def test_the_list_follows_suspension_resumption_closing_and_suspension_again(place: House):
    place.load("stopped_tickets")
    assert listed(place) == set(place.system.waiting())
    first, second, *_ = place.system.waiting()
    place.system.resume(first)
    place.system.close(second)
    new = place.system.suspend()
    place.load("stopped_tickets")
    assert listed(place) == set(place.system.waiting())
    assert {first, second} & listed(place) == set()
    assert new in listed(place)
    before = [r["task_number"] for r in place.tables(LIST) if r["ticket_number"] == first]
    place.system.suspend(first)
    place.load("stopped_tickets")
    after = [r["task_number"] for r in place.tables(LIST) if r["ticket_number"] == first]
    assert (before, len(after)) == ([], 1)


def test_history_keeps_those_who_left_and_when(place: House):
    place.load("stopped_tickets")
    gone, *rest = place.system.waiting()
    place.system.close(gone)
    place.load("stopped_tickets")
    left = "SELECT ticket_number, left_at >= synced_at FROM bi.stopped_tickets WHERE left_at IS NOT NULL"
    assert place.rows(left) == [(gone, 1)]
    current = place.rows("SELECT ticket_number FROM bi.stopped_tickets WHERE left_at IS NULL")
    assert {number for (number,) in current} == set(rest)


def test_history_is_made_good_after_a_load_that_was_killed_between_the_databases(place: House):
    place.load("stopped_tickets")
    gone = place.system.waiting()[0]
    with place.database.transaction() as connection:  # as if the list had been put in place, and no more
        connection.execute(sa.text("delete from stopped_tickets where ticket_number = :n"), {"n": gone})
    place.system.close(gone)
    place.load("stopped_tickets")
    assert place.rows("SELECT ticket_number FROM bi.stopped_tickets WHERE left_at IS NOT NULL") == [(gone,)]


def test_an_empty_dashboard_empties_the_list(place: House):
    place.load("stopped_tickets")
    for number in place.system.waiting():
        place.system.resume(number)
    place.load("stopped_tickets")
    assert listed(place) == set()


def test_a_ticket_that_is_not_read_keeps_its_row_and_the_run_fails(place: House):
    place.load("stopped_tickets")
    kept, gone, *_ = place.system.waiting()
    place.system.resume(gone)
    place.system.faults.add("status", path=f"/ticket/{kept}", status=403)
    said = failures(place.run("stopped_tickets"))["ttm__stopped_tickets"]
    assert f"{kept} (forbidden" in said
    assert kept in listed(place)
    assert gone not in listed(place)
    (load,) = place.tables("select * from ttm_loads")
    assert load["started_at"] > load["complete_at"]
    assert load["failed"] == 1


def test_without_a_dashboard_nothing_changes(place: House):
    place.load("stopped_tickets")
    before = place.tables(LIST)
    place.system.resume(place.system.waiting()[0])
    place.system.faults.add("status", path="/task/page", status=400)
    assert "could not be listed" in failures(place.run("stopped_tickets"))["ttm__stopped_tickets"]
    assert place.tables(LIST) == before
    (load,) = place.tables("select problem from ttm_loads")
    assert load["problem"]


def test_a_missing_filter_is_named(place: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TTM_FILTER_STOPPED")
    said = failures(place.run("stopped_tickets"))["ttm__stopped_tickets"]
    assert said.startswith("TTM_FILTER_STOPPED (or FILTER_STOPPED) is not set")
