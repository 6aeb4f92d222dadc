"""Saved filters and dashboards, against the samples and against odd input."""

import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.ttm.protocol import TtmError
from services.ttm_connector.listing import for_day, known_fields, saved_clauses, ticket_ids, ticket_number

FOLDER = os.environ.get("SVOD_SAMPLES")
samples = pytest.mark.skipif(not FOLDER, reason="SVOD_SAMPLES does not name the folder of samples")
MOSCOW = ZoneInfo("Europe/Moscow")


def sample(name: str) -> Any:
    assert FOLDER
    return json.loads((Path(FOLDER) / "ttm" / name).read_text(encoding="utf-8"))


@samples
def test_the_sample_filter_becomes_the_sample_body():
    given_ = sample("filter-arrears.json")
    context = given_["context"]
    day = date.fromisoformat(context["business_date"])
    clauses = saved_clauses(given_["saved"])
    assert for_day(clauses, day, ZoneInfo(context["business_tz"])) == given_["expected"]


@samples
@pytest.mark.parametrize("name", ["dashboard-arrears.json", "dashboard-stopped.json"])
def test_the_ids_of_the_sample_dashboards(name: str):
    given_ = sample(name)
    assert ticket_ids(given_["response"]["content"], given_["kind"]) == given_["expected"]


def test_a_day_replaces_the_day_that_was_saved_and_leaves_the_rest():
    unit = {"field": "execUnit", "searchOperation": "IN", "values": ["Линия"]}
    status = {"field": "status", "searchOperation": "IN", "values": [0, 1]}
    saved = [
        {"field": "closeDate", "searchOperation": "BETWEEN", "values": ["a", "b"]},
        unit,
        {"field": "closeDate", "searchOperation": "LESS", "values": ["c"]},
        status,
    ]
    between = {
        "field": "closeDate",
        "searchOperation": "BETWEEN",
        "values": ["2026-03-28T21:00:00Z", "2026-03-29T21:00:00Z"],
    }
    assert for_day(saved, date(2026, 3, 29), MOSCOW) == [unit, status, between]
    other = for_day(saved, date(2026, 3, 29), MOSCOW, "finishDate")
    assert [clause["field"] for clause in other] == [
        *("closeDate", "execUnit", "closeDate", "status", "finishDate")
    ]


@given(
    st.dates(date(1990, 1, 1), date(2037, 12, 31)),
    st.sampled_from(["Europe/Moscow", "Asia/Kamchatka", "America/Sao_Paulo", "Europe/Berlin", "UTC"]),
)
def test_days_touch_and_do_not_overlap(day: date, zone: str):
    def bounds(of: date) -> list[datetime]:
        (clause, _) = for_day([], of, ZoneInfo(zone))
        return [datetime.strptime(v, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) for v in clause["values"]]

    begin, end = bounds(day)
    assert bounds(day + timedelta(days=1))[0] == end
    assert timedelta(hours=22) <= end - begin <= timedelta(hours=26)
    assert (begin + timedelta(hours=12)).astimezone(ZoneInfo(zone)).date() == day


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"filter": "[]"}, []),
        ({"filter": ""}, []),
        ({"filter": None}, []),
        ({}, []),
        ({"filter": '[{"field":"status"}]'}, [{"field": "status"}]),
        ({"filter": [{"field": "status"}]}, [{"field": "status"}]),
    ],
)
def test_saved_texts(answer: Any, expected: list[Any]):
    assert saved_clauses(answer) == expected


@pytest.mark.parametrize(
    "answer", [None, [], "", {"filter": "{}"}, {"filter": "["}, {"filter": "[1]"}, {"filter": 5}]
)
def test_a_filter_that_is_none_is_an_error_not_an_empty_list(answer: Any):
    with pytest.raises(TtmError) as error:
        saved_clauses(answer)
    assert error.value.code == "bad_filter"


def test_ids_by_kind_each_once_in_order():
    rows: list[Any] = [
        {"id": 9, "ticketId": "710013"},
        {"id": "8", "ticketId": 710012},
        {"id": 9, "ticketId": " 710013 "},
        {"id": True, "ticketId": None},
        {"id": 1.5, "ticketId": "x1"},
        {"id": -1, "ticketId": 0},
        {"id": "٣", "ticketId": "9" * 30},
        {},
        None,
        "row",
    ]
    assert ticket_ids(rows, "ticket") == [9, 8]
    assert ticket_ids(rows, "task") == [710013, 710012]


@given(st.lists(st.dictionaries(st.sampled_from(["id", "ticketId"]), st.integers() | st.text() | st.none())))
def test_whatever_the_rows_ids_are_distinct_positive_numbers(rows: list[dict[str, Any]]):
    for kind in ("ticket", "task"):
        ids = ticket_ids(rows, kind)
        assert len(set(ids)) == len(ids)
        assert all(type(number) is int and number > 0 for number in ids)


def test_known_fields_only():
    assert known_fields({"id": 1, "kd": None, "secret": "x"}) == {"id": 1, "kd": None}


@pytest.mark.parametrize("value", [None, "", "x", 0, -1, True, 1.0, [], "1;2", "٣"])
def test_what_is_no_number_of_a_ticket(value: Any):
    with pytest.raises(TtmError) as error:
        ticket_number(value)
    assert error.value.code == "bad_request"
    assert ticket_number(" 710012 ") == ticket_number(710012) == 710012
