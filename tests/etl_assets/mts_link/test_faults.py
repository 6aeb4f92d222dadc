"""Refusals, faults, kills: what can be read is read, what cannot is told, and a rerun puts it right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sandbox.mts_link.org import SESSION
from sandbox.mts_link.wire import ApiError
from tests.etl_assets.house import failures
from tests.etl_assets.mts_link.org_house import OrgHouse, org_house, small_org
from tests.etl_assets.mts_link.truth import Truth

SCHEDULE, PEOPLE = "organization_events_schedule", "event_participants"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[OrgHouse]:
    with org_house(tmp_path, small_org(sessions=20, staff=6, participants=4)) as place:
        yield place


def unequal(place: OrgHouse, *tables: str) -> list[str]:
    """Those of the tables that do not hold what they should."""
    truth = Truth(place.server).tables()
    return [table for table in tables if place.keys(table, *truth[table][0]) != truth[table][1]]


def check(result: dg.ExecuteInProcessResult, asset: str, name: str) -> dg.AssetCheckEvaluation:
    found = result.get_asset_check_evaluations()
    return next(c for c in found if c.asset_key.path[-1] == asset and c.check_name == name)


def test_faults_of_every_kind_lose_and_double_nothing(place: OrgHouse):
    kinds = ("reset", "truncate", "empty", "html", "status", "html")
    for number, action in enumerate(kinds):
        status = 200 if number == 5 else 502
        place.server.add_fault(action, path="/part|/questions", status=status, skip=3 * number, times=2)
        place.server.add_fault(action, path="schedule|stats", status=status, skip=number // 2, times=1)
    place.server.add_fault("status", status=429, message="I only allow 2 requests per second.", times=5)
    place.load(SCHEDULE, PEOPLE, "users_stats", "event_questions", "online_records_list")
    assert not unequal(place, SCHEDULE, "event_sessions", PEOPLE, "users_stats", "event_questions")
    assert place.server.stats.statuses[429] == 5


def test_one_parent_that_is_refused_is_recorded_and_the_rest_goes_on(place: OrgHouse):
    place.server.add_fault("status", path=f"/{SESSION}/part", status=404, message="Not found", times=None)
    place.server.add_fault("status", path=f"/{SESSION + 1}/part", status=500, times=None)
    result = place.load(SCHEDULE, PEOPLE)
    assert place.rows("SELECT endpoint, parent, status FROM mts_link._errors ORDER BY status DESC") == [
        (PEOPLE, str(SESSION + 1), 500),
        (PEOPLE, str(SESSION), 404),
    ]
    assert not check(result, PEOPLE, "parents").passed
    assert place.value(f"SELECT uniqExact(event_session_id) FROM bi.{PEOPLE}") == 18
    with place.counted() as stats:
        place.load(PEOPLE)
    assert stats["requests"] == 0  # a refusal is not asked for again every hour
    place.server.faults.clear()
    place.load(PEOPLE, feed="nightly")  # what had no answer is asked for again at night
    assert place.value(f"SELECT uniqExact(event_session_id) FROM bi.{PEOPLE}") == 19


def test_parents_that_the_server_breaks_at_may_stand_in_a_row(place: OrgHouse):
    place.server.add_fault("status", path="601000[1-6]/part", status=500, times=None)
    place.load(SCHEDULE, PEOPLE)
    assert place.value("SELECT count() FROM mts_link._errors WHERE status = 500") == 6
    assert place.value(f"SELECT uniqExact(event_session_id) FROM bi.{PEOPLE}") == 14
    place.server.faults.clear()
    place.server.add_fault("reset", path="/part", times=None)
    assert not place.run(PEOPLE, feed=None).success  # but a server that does not answer at all is down
    assert place.server.stats.requests < 400


def test_a_right_that_is_given_later_is_noticed_at_night(place: OrgHouse):
    place.server.add_fault("status", path=f"/{SESSION}/part", status=403, message="No rights", times=None)
    place.load(SCHEDULE, PEOPLE)
    place.server.faults.clear()
    place.load(PEOPLE)
    assert place.value(f"SELECT uniqExact(event_session_id) FROM bi.{PEOPLE}") == 19
    place.load(PEOPLE, feed="nightly")
    assert not unequal(place, PEOPLE)


def test_a_chat_that_is_longer_than_allowed_is_told_of_and_keeps_no_other_from_being_read(tmp_path: Path):
    config = small_org(sessions=2, staff=6, channels=4, messages=200)
    with org_house(tmp_path, config, MTS_LINK_MESSAGE_PAGES="1") as place:
        place.server.control("write", {"chat": 1, "count": 300})
        place.load("chats_organization_members", "user_channels")
        with place.counted() as stats:
            place.load("channel_messages")
        assert stats["requests"] == 4
        assert place.rows("SELECT parent, message FROM mts_link._errors") == [
            (
                place.server.org.chat_id(1),
                "A chat has more than 100 messages to read (MTS_LINK_MESSAGE_PAGES)",
            )
        ]
        assert place.value("SELECT count() FROM bi.channel_messages") == 3 * 50 + 100


@pytest.mark.parametrize("refused", [False, True])
def test_answers_in_a_thread_are_read_and_one_that_is_refused_costs_nothing_else(
    tmp_path: Path, refused: bool
):
    with org_house(tmp_path, small_org(sessions=2, staff=3, channels=1, messages=120)) as place:
        org, answers = place.server.org, place.server.answers
        told, plain = answers.messages, org.message

        def messages(query: dict[str, str], chat: str) -> dict[str, Any]:
            if "parrentMessageId" not in query:
                return told(query, chat)
            if refused:
                raise ApiError(404, "Not found")
            assert query["parrentMessageId"] == org.message_id(0, 7)
            return {"data": [plain(0, 7) | {"id": "answer", "replyToId": 7}]}

        answers.messages = messages
        org.message = lambda c, m: plain(c, m) | ({"repliesCount": 1} if m == 7 else {"replyToId": m})
        place.load("chats_organization_members", "user_channels")
        with place.counted() as stats:
            place.load("channel_messages")
        assert stats["requests"] == 3
        assert place.value("SELECT count() FROM bi.channel_messages") == 120 + (not refused)
        assert place.rows("SELECT * FROM mts_link._errors") == []


def test_too_many_refusals_fail_the_asset_and_keep_what_was_read(place: OrgHouse):
    place.server.add_fault("status", path="[1-7]/part", status=404, message="Not found", times=None)
    result = place.run(SCHEDULE, PEOPLE, "event_questions")
    assert "more than 50% failed" in failures(result)[f"mts_link__{PEOPLE}"]
    assert place.value(f"SELECT uniqExact(event_session_id) FROM mts_link.{PEOPLE}") > 0
    assert not unequal(place, "event_questions")
    place.server.faults.clear()
    place.load(PEOPLE)
    assert not unequal(place, PEOPLE)


def test_a_missing_scope_ends_one_asset_at_once_and_says_which(tmp_path: Path):
    config = small_org(sessions=80, staff=4, participants=2)
    with org_house(tmp_path, config) as place:
        place.server.add_fault("status", path="/questions", status=403, message="Access denied", times=None)
        place.server.add_fault("status", path="/records$", status=403, message="Access denied", times=None)
        result = place.run(SCHEDULE, PEOPLE, "event_questions", "online_records_list")
        told = failures(result)
        assert set(told) == {"mts_link__event_questions", "mts_link__online_records_list"}
        assert all("give the key the scope" in text for text in told.values())
        # answers that wait to be taken were asked for, but not those of all sessions
        assert place.server.stats.statuses[403] <= 55
        assert not unequal(place, PEOPLE)
        place.server.faults.clear()
        place.load("event_questions")
        assert not unequal(place, "event_questions")


@pytest.mark.parametrize("status", [403, 404])
def test_people_whom_a_method_does_not_serve_are_recorded_and_are_no_failure(place: OrgHouse, status: int):
    text = 'A user with the "STUDENT" type is not supported' if status == 403 else "Not found"
    place.load(SCHEDULE, PEOPLE)
    people = sorted(user for (user,) in place.rows(f"SELECT DISTINCT userId FROM bi.{PEOPLE}") if user)
    students = "|".join(people[:-1])
    place.server.add_fault("status", path=f"({students})/tests", status=status, message=text, times=None)
    result = place.load("user_tests_stats")
    told = check(result, "user_tests_stats", "parents")
    assert told.passed
    assert f"1 answered, {len(people) - 1} of a kind that is not served" in (told.description or "")
    errors = "SELECT uniqExact(parent) FROM mts_link._errors WHERE endpoint = 'user_tests_stats'"
    assert place.value(errors) == len(people) - 1


def test_an_empty_period_is_empty_and_a_failed_read_is_not(place: OrgHouse):
    place.server.add_fault("status", path="/stats/users", status=404, message="Not found", times=None)
    place.load("users_stats")
    assert place.value("SELECT count() FROM bi.users_stats") == 0
    place.server.faults.clear()
    place.load("events_stats")
    before = place.value("SELECT count() FROM bi.events_stats")
    assert before > 0
    place.server.add_fault("status", path="/stats/events", status=500, times=None)
    assert not place.run("events_stats").success
    assert place.value("SELECT count() FROM bi.events_stats") == before


def test_a_load_that_is_broken_off_goes_on_where_it_stopped(place: OrgHouse, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("etl_assets.mts_link.fan_out.FLUSH_PARENTS", 4)
    place.load(SCHEDULE)
    place.server.add_fault("status", path="/part", status=401, skip=12, times=None)
    assert not place.run(PEOPLE, feed=None).success
    place.server.faults.clear()
    with place.counted() as stats:
        place.load(PEOPLE, feed=None)
    assert stats["requests"] <= 20 - 4
    assert not unequal(place, PEOPLE)
    with place.counted() as stats:
        place.load(PEOPLE, feed=None)  # a whole load again, since it is asked for
    assert stats["requests"] >= len(Truth(place.server).sessions) - 17


def test_without_a_key_one_line_names_the_setting(tmp_path: Path):
    with org_house(tmp_path, MTS_LINK_API_TOKEN="") as place:
        result = place.run("timezones_list")
        assert "MTS_LINK_API_TOKEN is not set" in failures(result)["mts_link__timezones_list"]


def test_classes_that_are_off_are_not_read_and_say_so(tmp_path: Path):
    with org_house(tmp_path, small_org(sessions=6, staff=4), classes="") as place:
        place.load("chats_organization_members", "user_channels", "channel_messages", "contacts_search")
        assert not {"/contacts/search", "/chats/channel/{}/messages"} & place.server.stats.routes.keys()
        skipped = place.metadata("channel_messages")["skipped"]
        assert skipped == "The class chats is off: MTS_LINK_CLASSES does not name it."
        newest = place.rows(
            "SELECT DISTINCT JSONExtractKeys(assumeNotNull(lastMessage)) FROM bi.user_channels"
        )
        assert newest == [(["createdAtMs", "id"],)]
        scheduled = {
            k.path[-1]
            for name in ("mts_link_hourly", "mts_link_nightly")
            for k in place.defs.resolve_job_def(name).asset_layer.selected_asset_keys
        }
        off = {"channel_messages", "event_chat_messages", "transcript_list", "contacts_search"}
        assert not off & scheduled
        assert {"event_participants", "user_channels", SCHEDULE} <= scheduled


def test_pseudonyms_stand_for_addresses_everywhere_and_visits_are_still_found(tmp_path: Path):
    config = small_org(sessions=10, staff=5)
    with org_house(tmp_path, config, MTS_LINK_PSEUDONYM_KEY="pepper-and-salt") as place:
        place.load("organization_members", SCHEDULE, PEOPLE, "visits_stats", "users_stats")
        for table in ("organization_members", PEOPLE, "users_stats"):
            columns = place.rows(
                "SELECT name FROM system.columns WHERE database = 'mts_link' AND type LIKE '%String%' "
                f"AND table = '{table}'"
            )
            text = ", ".join(f"ifNull({name}, '')" for (name,) in columns)
            said = place.rows(f"SELECT concat({text}) AS t FROM mts_link.{table}")
            assert said
            assert not any("@" in row[0] or "+7000" in row[0] for row in said)
        joined = place.value(
            f"SELECT count() FROM bi.organization_members AS m JOIN bi.{PEOPLE} AS p ON p.email = m.email"
        )
        assert joined > 0
        assert not unequal(place, "visits_stats")


def test_an_address_book_that_wants_a_filter_is_left_out_and_says_so(place: OrgHouse):
    place.server.add_fault("status", path="/contacts/search", status=400, message="Bad request", times=None)
    place.load("contacts_search")
    assert "MTS_LINK_CONTACTS_FILTER" in place.metadata("contacts_search")["skipped"]


def test_sessions_are_all_asked_for_records_where_conversions_cannot_be_listed(place: OrgHouse):
    route = 'No route found for "GET /userapi/converted-records"'
    place.server.add_fault("status", path="^/converted-records", status=404, message=route, times=None)
    place.load(SCHEDULE, "endless_meetings_list", "converted_records_org", "converted_records")
    assert place.metadata("converted_records_org")["skipped"] == (
        "This server has no method /converted-records."
    )
    assert not unequal(place, "converted_records")
