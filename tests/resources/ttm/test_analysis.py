"""The rules of the SLA, as properties and case by case."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.ttm.analysis import MalformedTicket, examine
from resources.ttm.values import Calendar

MOSCOW = Calendar(ZoneInfo("Europe/Moscow"))
DAY = date(2026, 3, 10)
NOON = datetime(2026, 3, 10, 9, tzinfo=UTC)
OUTCOMES = {"breached", "not_breached", "sla_undefined"}


def stamp(minute: float) -> str:
    return (NOON + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%SZ")


CLOSED = stamp(600)


def task(begin: float, end: float | None, unit: Any = "Линия 1", kind: str = "Решение", **more: Any) -> Any:
    return {
        "taskNumber": "5-1",
        "typeName": kind,
        "createTs": stamp(begin),
        "completionDate": None if end is None else stamp(end),
        "taskExecutorDTO": {"execUnitName": unit, "executorName": "Иванова И."},
        **more,
    }


def ticket(*tasks: Any, limit: Any = 60, status: str = "Закрыт", closed: Any = CLOSED, **more: Any) -> Any:
    ola = {"ksSla": limit, "kdSLA": stamp(900)}
    return {"id": 5, "status": status, "closeDate": closed, "ola": ola, "tasks": list(tasks), **more}


minute = st.integers(0, 2000)
units = st.sampled_from(
    ["Линия 1", " линия 2 ", "Вендор (ДЭФИР)", "Провайдер", "Решение сетевого ТТ", "", None]
)
kinds = st.sampled_from(["Решение", "Диагностика", "Ожидание", "Запрос клиента", "Ожидание провайдера"])
tasks = st.builds(task, minute, st.none() | minute, units, kinds)
tickets = st.builds(
    lambda chosen, limit: ticket(*chosen, limit=limit), st.lists(tasks, max_size=6), st.integers(1, 3000)
)


@given(tickets)
def test_the_units_sum_up_to_what_is_counted(one: Any):
    analysis = examine(one, MOSCOW, DAY).analysis
    assert sum(analysis.by_unit.values()) == analysis.counted_seconds


@given(tickets)
def test_a_breach_is_a_limit_that_was_reached(one: Any):
    analysis = examine(one, MOSCOW, DAY).analysis
    assert (analysis.outcome == "breached") == ((analysis.counted_seconds or 0) >= one["ola"]["ksSla"] * 60)
    if analysis.outcome == "breached":
        assert analysis.overrun_seconds == (analysis.counted_seconds or 0) - one["ola"]["ksSla"] * 60
        assert analysis.breach_unit in analysis.by_unit


@given(tickets, st.data())
def test_an_excluded_task_changes_no_total(one: Any, data: st.DataObject):
    kind, unit = data.draw(
        st.sampled_from([("Ожидание", "Клиент"), ("Запрос клиента", "Решение сетевого ТТ")])
    )
    before = examine(one, MOSCOW, DAY).analysis
    at = data.draw(st.integers(0, len(one["tasks"])))
    one["tasks"].insert(at, task(data.draw(minute), data.draw(minute), unit, kind))
    after = examine(one, MOSCOW, DAY).analysis
    assert (after.by_unit, after.outcome, after.breach_at) == (
        before.by_unit,
        before.outcome,
        before.breach_at,
    )


@given(tickets, st.integers(-400, 400))
def test_shifting_everything_by_whole_days_shifts_the_breach(one: Any, days: int):
    shift = timedelta(days=days)

    def moved(text: str | None) -> str | None:
        return text and (datetime.fromisoformat(text) + shift).strftime("%Y-%m-%dT%H:%M:%SZ")

    before = examine(one, MOSCOW, DAY)
    one["closeDate"] = moved(one["closeDate"])
    for each in one["tasks"]:
        each.update(createTs=moved(each["createTs"]), completionDate=moved(each["completionDate"]))
    after = examine(one, MOSCOW, DAY + shift)
    assert after.analysis.breach_at == (before.analysis.breach_at and before.analysis.breach_at + shift)
    assert after.in_window == before.in_window


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("2026-03-10T10:00:00Z")
junk = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3), max_leaves=4)
fields = ["taskNumber", "typeName", "createTs", "completionDate", "suspendDate", "taskExecutorDTO"]
fields += ["targetUnitName", "closeComment", "taskComments", "foreignTicketId", "providerName"]
broken_tasks = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(fields, junk) | {"typeName": kinds, "assignmentDate": junk}
)
broken = st.fixed_dictionaries(
    {"status": st.sampled_from(["Закрыт", "В работе", "Отменён"]) | junk},
    optional={
        "id": junk,
        "closeDate": junk,
        "ola": junk | st.fixed_dictionaries({"ksSla": junk, "kdSLA": junk}),
        "tasks": junk | st.lists(broken_tasks | junk, max_size=4),
    },
)


@given(broken)
def test_no_object_whatever_stands_in_it_stops_the_analysis(one: Any):
    verdict = examine(json.loads(json.dumps(one)), MOSCOW, DAY)
    assert verdict.arrears_row is None or verdict.analysis.outcome in OUTCOMES
    assert verdict.suspended_row is None or verdict.suspended_row.task_number


@pytest.mark.parametrize("value", [None, [], "text", 5, True])
def test_what_is_no_object_is_a_malformed_ticket(value: Any):
    with pytest.raises(MalformedTicket, match="not an object"):
        examine(value, MOSCOW, DAY)


def test_a_ticket_that_is_not_closed_has_no_row_whatever_time_it_took():
    verdict = examine(ticket(task(0, 900), status="В работе", closed=None), MOSCOW, DAY)
    assert (verdict.analysis.outcome, verdict.in_window, verdict.arrears_row) == ("open", False, None)


def test_names_are_compared_without_case_and_blanks_and_stored_with_case():
    one = ticket(
        task(0, 90, " ВЕНДОР (дэфир) ", foreignTicketId=451, providerName=" Дельта "), status=" закрыт "
    )
    verdict = examine(one, MOSCOW, DAY)
    assert verdict.analysis.responsible == "Дельта"
    assert verdict.analysis.breach_unit == "ВЕНДОР (дэфир)"
    assert "ТТ на вендоре: 451\nНаименование вендора: Дельта" in verdict.analysis.report


@pytest.mark.parametrize("unit", ["Вендор (ДЭФИР)", "Провайдер"])
def test_a_foreign_ticket_without_an_owner_leaves_the_unit(unit: str):
    verdict = examine(ticket(task(0, 90, unit, foreignTicketId="A-1")), MOSCOW, DAY)
    assert verdict.analysis.responsible == unit
    assert "no_provider_name" in verdict.warnings
    assert ("ТТ на вендоре: A-1" in verdict.analysis.report) == (unit == "Вендор (ДЭФИР)")


@pytest.mark.parametrize("absent", [None, True, "  ", []])
def test_a_foreign_ticket_is_there_only_with_a_number(absent: Any):
    verdict = examine(ticket(task(0, 90, "Провайдер", foreignTicketId=absent, providerName="Дельта")), MOSCOW)
    assert verdict.analysis.responsible == "Провайдер"


def test_a_breach_late_in_a_task_is_at_its_instant():
    analysis = examine(ticket(task(0, 40), task(100, 200, "Линия 2")), MOSCOW, DAY).analysis
    assert (analysis.breach_unit, analysis.breach_at) == ("Линия 2", NOON + timedelta(minutes=120))


def test_a_day_counts_the_days_of_a_duration():
    report = examine(ticket(task(0, 60 * 50)), MOSCOW, DAY).analysis.report
    assert "Время всё: 2 days, 2:00:00" in report


def test_an_acceptance_before_the_task_is_its_beginning():
    verdict = examine(ticket(task(10, 90, assignmentDate=stamp(0))), MOSCOW, DAY)
    assert "Время реакции: 0:00:00" in verdict.analysis.report
    assert verdict.warnings == ("assignment_out_of_range",)


def test_a_ticket_without_tasks_is_not_breached_and_belongs_to_the_day_it_was_closed():
    verdict = examine(ticket(), MOSCOW, DAY)
    assert (verdict.analysis.outcome, verdict.in_window) == ("not_breached", True)
    assert verdict.warnings == ("no_tasks",)


def test_without_a_close_date_the_last_task_gives_the_day():
    verdict = examine(ticket(task(0, 30), closed="yesterday"), MOSCOW, DAY)
    assert verdict.arrears_row
    assert verdict.arrears_row.add_date == DAY
    assert verdict.warnings == ("bad_timestamp", "no_close_date")


@pytest.mark.parametrize("number", [None, True, -1, 0, "5a", 5.5, 10**30, []])
def test_a_row_without_a_ticket_number_is_not_written(number: Any):
    verdict = examine(ticket(task(0, 30), id=number), MOSCOW, DAY)
    assert verdict.arrears_row is None
    assert "no_ticket_id" in verdict.warnings


def test_a_ticket_number_may_be_a_text_of_digits():
    row = examine(ticket(task(0, 30), id=" 710 ".strip()), MOSCOW, DAY).arrears_row
    assert row
    assert row.ticket_number == 710


def test_a_limit_below_a_second_is_reached_at_once_also_by_a_task_without_times():
    verdict = examine(ticket(task(0, None, createTs=None), limit=0.001), MOSCOW, DAY)
    assert verdict.analysis.outcome == "breached"
    assert "Время всё: Не определено" in verdict.analysis.report


def test_the_newest_comment_that_says_something_is_reported():
    comments = [{"comment": "<p>раз</p>"}, {"comment": "<b>два</b>"}, {"comment": "<p>&nbsp;</p>"}, None, 5]
    report = examine(ticket(task(0, 90, taskComments=comments)), MOSCOW, DAY).analysis.report
    assert report.endswith("Последний комментарий (task): два")
