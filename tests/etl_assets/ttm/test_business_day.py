"""A business day through ticket system, hub and connectors into both databases."""

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from resources.ttm.analysis import examine
from resources.ttm.values import Calendar
from tests.etl_assets.ttm.ttm_house import DAILY, KEY, PASSWORD, ZONE, House, day, failures

CALENDAR = Calendar(ZONE)
PER_DAY = 30
EXPIRED = "select * from expires_tickets order by ticket_number"
UNITS = "select ticket_number, unit, seconds from expires_ticket_units order by ticket_number, unit"


def tickets_of(place: House, ago: int = 1) -> dict[int, Any]:
    """Tickets that were closed on that day, by number."""
    stamped = {n: t["closeDate"] for n, t in place.system.tickets.items() if t["closeDate"]}
    closed = {n: CALENDAR.parse(at) for n, at in stamped.items()}
    return {n: place.system.tickets[n] for n, at in closed.items() if at and CALENDAR.day(at) == day(ago)}


def without(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != name} for row in rows]


def test_a_day_is_what_the_rules_say_of_its_tickets(place: House):
    place.load(*DAILY)
    expected = {}
    for number, ticket in tickets_of(place).items():
        row = examine(ticket, CALENDAR, day()).arrears_row
        if row:
            expected[number] = (row.responsible, row.comment, row.add_date)
    columns = ("responsible", "comment", "add_date")
    found = {r["ticket_number"]: tuple(r[n] for n in columns) for r in place.tables(EXPIRED)}
    assert len(found) >= PER_DAY - 2
    assert found == expected
    (load,) = place.tables("select * from ttm_loads")
    assert (load["day"], load["listed"], load["failed"], load["problem"]) == (str(day()), PER_DAY, 0, None)
    assert load["complete_at"]


def test_both_databases_hold_the_same_facts(place: House):
    place.load(*DAILY)
    columns = ("ticket_number", "responsible", "outcome", "add_date", "counted_seconds", "overrun_seconds")
    here = place.rows(f"SELECT {', '.join(columns)} FROM bi.expires_tickets ORDER BY ticket_number")
    assert here == [tuple(r[name] for name in columns) for r in place.tables(EXPIRED)]
    units = place.rows("SELECT ticket_number, unit, seconds FROM bi.sla_by_unit")
    assert sorted(units) == sorted((r["ticket_number"], r["unit"], r["seconds"]) for r in place.tables(UNITS))
    breaches = place.rows("SELECT count() FROM bi.sla_by_unit WHERE is_breach_unit AND breach_at IS NOT NULL")
    assert breaches == [(sum(r["outcome"] == "breached" for r in place.tables(EXPIRED)),)]
    raw = place.rows("SELECT ticket_number, ticket FROM bi.tickets")
    assert {n: json.loads(text) for n, text in raw} == tickets_of(place)


def test_a_day_twice_gives_the_same_rows(place: House):
    place.load(*DAILY)
    first = without(place.tables(EXPIRED), "loaded_at"), place.tables(UNITS)
    place.load(*DAILY)
    assert (without(place.tables(EXPIRED), "loaded_at"), place.tables(UNITS)) == first
    assert place.rows("SELECT count() FROM bi.expires_tickets") == [(len(first[0]),)]
    assert place.rows("SELECT count() FROM bi.sla_by_unit") == [(len(first[1]),)]


def test_units_of_a_corrected_ticket_are_replaced_in_both(place: House):
    place.load(*DAILY)
    number, ticket = next(iter(tickets_of(place).items()))
    corrected = copy.deepcopy(ticket)
    for task in corrected["tasks"]:
        task["taskExecutorDTO"] = {"execUnitName": "Новая группа"}
        task["typeName"] = "Решение"
    place.system.add(corrected)
    place.rows("SELECT sleep(1)")  # versions of a row are told apart by the second
    place.load(*DAILY)
    units = place.tables("select unit from expires_ticket_units where ticket_number = :n", n=number)
    assert [r["unit"] for r in units] == ["Новая группа"]
    here = place.rows(f"SELECT unit FROM bi.sla_by_unit WHERE ticket_number = {number}")
    assert here == [("Новая группа",)]


def test_one_table_alone_may_be_asked_for(place: House):
    place.load("expires_tickets")
    assert len(place.tables(EXPIRED)) >= PER_DAY - 2
    assert place.loaded_days() == {str(day())}
    assert place.loaded_days("tickets") == set()


def test_a_range_is_one_run_and_every_day_counts_its_own_rows(place: House):
    place.load(*DAILY, days=(day(3), day(1)))
    assert place.loaded_days() == {str(day(ago)) for ago in (1, 2, 3)}
    by_day = place.tables("select add_date, count(*) as n from expires_tickets group by 1")
    assert {r["add_date"] for r in by_day} == {day(1), day(2), day(3)}


def test_a_day_without_tickets_is_a_success(place: House):
    place.load(*DAILY, days=(day(20), day(20)))
    assert place.tables(EXPIRED) == []
    assert place.loaded_days() == {str(day(20))}


def broken(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "status": "Закрыт",
        "closeDate": datetime.combine(day(), datetime.min.time(), ZONE).astimezone(UTC).isoformat(),
        "ola": [],
        "tasks": "нет",
        "order": 5,
    }


def test_a_malformed_ticket_stops_no_other(place: House):
    ticket = broken(77) | {"closeDate": f"{day()}T09:00:00Z"}
    place.system.add(ticket)
    place.load(*DAILY)
    rows = {r["ticket_number"]: r for r in place.tables(EXPIRED)}
    assert rows[77]["outcome"] == "sla_undefined"
    assert len(rows) >= PER_DAY - 1
    assert place.rows("SELECT warnings FROM bi.expires_tickets WHERE ticket_number = 77") == [
        (["no_tasks", "sla_undefined"],)
    ]


def test_a_ticket_that_cannot_be_read_leaves_the_day_open_and_the_others_written(place: House):
    number = min(tickets_of(place))
    place.system.faults.add("status", path=f"/ticket/{number}", status=403)
    result = place.run(*DAILY, days=(day(2), day(1)))
    said = failures(result)["ttm_business_day"]
    assert f"{day()}: 1 of {PER_DAY} tickets are not loaded: {number} (forbidden" in said
    assert place.loaded_days() == {str(day(2))}
    written = {r["ticket_number"] for r in place.tables(EXPIRED)}
    assert number not in written
    assert len(written & set(tickets_of(place))) >= PER_DAY - 3
    (load,) = place.tables("select * from ttm_loads where day = :d", d=str(day()))
    assert (load["failed"], load["complete_at"]) == (1, None)
    place.system.faults.clear()
    place.load(*DAILY)
    assert number in {r["ticket_number"] for r in place.tables(EXPIRED)}
    assert place.loaded_days() == {str(day(1)), str(day(2))}


def test_a_ticket_that_is_gone_is_no_failure(place: House):
    number = min(tickets_of(place))
    place.system.faults.add("status", path=f"/ticket/{number}", status=404)
    place.load(*DAILY)
    assert number not in {r["ticket_number"] for r in place.tables(EXPIRED)}


def test_a_login_that_ends_in_the_middle_is_renewed(place: House):
    place.system.faults.add("expire", path="/ticket/", skip=10, times=1)
    place.load(*DAILY)
    assert len(place.tables(EXPIRED)) >= PER_DAY - 2


def test_a_list_that_is_refused_changes_nothing_and_says_why(place: House):
    place.system.faults.add("status", path="/ticket/page", status=400)
    said = failures(place.run(*DAILY))["ttm_business_day"]
    assert f"The overdue tickets of {day()} could not be listed" in said
    assert place.tables(EXPIRED) == []
    assert place.loaded_days() == set()
    (load,) = place.tables("select * from ttm_loads")
    assert load["problem"]
    assert load["complete_at"] is None


def test_what_is_loaded_is_not_asked_for_again_by_the_feed(place: House):
    place.load(*DAILY, days=(day(2), day(1)))
    before = len(place.system.calls)
    place.load(*DAILY, days=(day(3), day(1)), feed=True)
    asked = [c.path for c in list(place.system.calls)[before:] if "/ticket/" in c.path]
    assert place.loaded_days() == {str(day(ago)) for ago in (1, 2, 3)}
    assert len(asked) == 1 + PER_DAY
    before = len(place.system.calls)
    place.load(*DAILY, days=(day(3), day(1)), feed=True)
    assert len(place.system.calls) == before


def test_a_reopened_ticket_keeps_its_latest_closing(place: House):
    place.load(*DAILY, days=(day(2), day(2)))
    number, ticket = next(iter(tickets_of(place, 2).items()))
    again = copy.deepcopy(ticket)
    later = datetime.combine(day(), datetime.min.time(), ZONE) + timedelta(hours=9)
    again["closeDate"] = again["tasks"][-1]["completionDate"] = later.astimezone(UTC).isoformat()
    place.system.add(again)
    place.load(*DAILY)
    place.system.add(ticket)
    place.load(*DAILY, days=(day(2), day(2)))
    (row,) = place.tables("select add_date from expires_tickets where ticket_number = :n", n=number)
    assert row["add_date"] == day()
    sql = f"SELECT add_date FROM bi.expires_tickets WHERE ticket_number = {number} ORDER BY 1"
    assert place.rows(sql) == [(day(2),), (day(),)]


@pytest.mark.parametrize("name", ["TTM_SERVER", "TTM_TOKEN", "TTM_KEY", "TTM_FILTER_ARREARS"])
def test_a_missing_setting_is_one_line_that_names_it(
    place: House, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.delenv(name)
    said = failures(place.run("expires_tickets"))["ttm_business_day"]
    assert said.startswith(name)
    assert "is not set" in said
    assert "\n" not in said.strip()


def test_a_wrong_key_is_told_without_showing_it(
    place: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("TTM_KEY", "wrong-key-of-ours")
    result = place.run("expires_tickets")
    said = failures(result)["ttm_business_day"]
    assert "unauthorized" in said
    for secret in ("wrong-key-of-ours", KEY, PASSWORD):
        assert secret not in said + caplog.text
        assert all(secret not in str(event) for event in result.all_events)


def test_a_stormy_ticket_system_loses_and_doubles_no_ticket(place: House):
    faults = place.system.faults
    faults.add("reset", path="/ticket/", every=9)
    faults.add("drop", path="/ticket/", every=10)
    faults.add("status", path="/ticket/", every=11, status=429, retry_after="0")
    faults.add("status", path="/ticket/", every=13, status=502)
    faults.add("html", path="/ticket/", every=14)
    faults.add("expire", path="/ticket/", every=12, times=2)
    place.load(*DAILY)
    expected = [n for n, t in tickets_of(place).items() if examine(t, CALENDAR, day()).arrears_row]
    assert [r["ticket_number"] for r in place.tables(EXPIRED)] == sorted(expected)
    here = place.rows("SELECT ticket_number FROM bi.expires_tickets ORDER BY 1")
    assert [number for (number,) in here] == sorted(expected)


def test_days_before_one_without_a_list_count_in_both_databases(place: House):
    place.system.faults.add("status", path="/ticket/page", status=400, skip=1)
    said = failures(place.run(*DAILY, days=(day(2), day(1))))["ttm_business_day"]
    assert f"The overdue tickets of {day(1)} could not be listed" in said
    assert place.loaded_days() == {str(day(2))}
    here = place.rows("SELECT count() FROM bi.expires_tickets")
    assert here == [(len(place.tables(EXPIRED)),)]
    assert here[0][0] >= PER_DAY - 2
