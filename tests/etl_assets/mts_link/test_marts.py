"""Analyses equal figures worked out by hand; files are fetched whole; old rows go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from etl_assets.mts_link.endpoints import BY_NAME, PRIVACY
from etl_assets.mts_link.marts import MARTS, make_view
from etl_assets.mts_link.parents import Parent
from etl_assets.mts_link.record_files import records
from etl_assets.mts_link.retention import delete_old
from etl_assets.mts_link.settings import mts_link_settings
from etl_assets.mts_link.tables import SESSIONS, RowMaker, table_of
from resources.clickhouse import WarehouseResource
from resources.mts_link import Scrubber
from sandbox.mts_link.org import CONVERTED
from sandbox.mts_link.server import content
from tests.etl_assets.house import failures
from tests.etl_assets.mts_link.org_house import ZONE, OrgHouse, org_house, small_org

MSK = "+03:00"


def put(warehouse: WarehouseResource, name: str, *records: dict[str, Any], parent: str = "") -> None:
    """Records of a method, as the source gives them, into its table; `parent`: its key, `one/two` for two."""
    endpoint = BY_NAME.get(name, SESSIONS)
    maker = RowMaker(endpoint, Scrubber(), ZONE, frozenset(PRIVACY))
    owner = Parent(tuple(parent.split("/")), "", None, None) if parent else None
    batch = maker.batch(records, datetime.now(UTC), owner)
    table, _ = warehouse.ensure(table_of(endpoint, "Europe/Moscow"))
    with warehouse.load(table, asset=f"mts_link/{name}") as load:
        load.add(batch.body, batch.count, batch.read_at)
        load.finish(kind="full", source_time=datetime.now(UTC))


def stay(joined: str, left: str | None, seconds: int) -> dict[str, Any]:
    at = f"2025-11-10T{joined}+0300"
    return {"joined": at, "leaved": left and f"2025-11-10T{left}+0300", "duration": seconds}


def person(user: int, *stays: dict[str, Any], shown: int = 0, confirmed: int = 0) -> dict[str, Any]:
    session = {
        "id": 601,
        "startsAt": "2025-11-10T10:00:00+0300",
        "duration": 3600,
        "actualInvolvement": 80 if user == 1 else 50,
        "attentionControl": {"shownCount": shown, "confirmedCount": confirmed},
        "connections": list(stays),
    }
    return {"id": user, "eventSessions": [session]}


def chat(number: int, author: str, at: str, text: str) -> dict[str, Any]:
    ms = int(datetime.fromisoformat(at + MSK).timestamp() * 1000)
    return {"id": f"m{number}", "authorId": author, "text": text, "createdAtMs": ms}


def call(number: int, start: str, end: str, creator: int, people: list[int]) -> dict[str, Any]:
    return {
        "id": number,
        "startedAt": f"2025-11-1{start}{MSK}",
        "finishedAt": f"2025-11-1{end}{MSK}",
        "eventSession": {"id": 9, "name": "Комната", "createdBy": {"id": creator}},
        "participants": [{"id": p} for p in people],
    }


@pytest.fixture(scope="module")
def marts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarehouseResource]:
    with org_house(tmp_path_factory.mktemp("marts"), small_org(sessions=2)) as place:
        fill(place.warehouse)
        for mart in MARTS:
            make_view(place.warehouse, mart, mart.sql.replace("{zone}", "Europe/Moscow"), "Europe/Moscow")
        yield place.warehouse


def fill(warehouse: WarehouseResource) -> None:
    put(
        warehouse,
        "users_stats",
        # twice, from two devices at once for five minutes: 10:00-10:20 and 10:15-10:30 are thirty minutes
        person(
            1, stay("10:00:00", "10:20:00", 1200), stay("10:15:00", "10:30:00", 900), shown=4, confirmed=3
        ),
        # in two parts, the second still without an end
        person(2, stay("10:00:00", "10:10:00", 600), stay("10:20:00", None, 300), shown=4, confirmed=1),
        person(3),
        # over midnight, without what the vendor calls duration; reconnected at once, then present for no time
        {
            "id": 4,
            "eventSessions": [
                {
                    "id": "602",
                    "startsAt": "2025-11-12T23:00:00+0300",
                    "endsAt": "2025-11-13T01:00:00+03:00",
                    "connections": [
                        {"joined": "2025-11-12 23:00:00", "leaved": "2025-11-13 00:30:00"},
                        {
                            "joined": "2025-11-12T21:30:00+00:00",
                            "leaved": "2025-11-13T01:00:00+0300",
                            "duration": "1800",
                        },
                        {"joined": "2025-11-13T01:00:00+0300", "leaved": "2025-11-13T01:00:00+0300"},
                    ],
                }
            ],
        },
    )
    put(
        warehouse,
        "event_participants",
        {"id": 1, "userId": 1, "visited": True},
        {"id": 2, "userId": 2, "visited": "1"},
        {"id": 3, "userId": 3, "visited": 0},
        {"id": 4, "userId": None, "visited": "0"},
        {"id": 5, "userId": 1, "visited": False},
        parent="601",
    )
    put(warehouse, "attention_checkpoints", {"id": 1}, {"id": 2}, parent="601")
    sessions = [
        {"id": "601", "startsAt": "2025-11-10T10:00:00+0300", "endsAt": "2025-11-10T11:05:59+0300"},
        {"id": "603", "startsAt": "2035-11-10T10:00:00+0300"},
    ]
    put(warehouse, "event_sessions", {"id": "51", "eventSessions": sessions})
    group = {"course": {"id": 8, "name": "Вводный"}, "startsAt": "2025-11-01T00:00:00+0300"}
    put(warehouse, "courses_groups", {"id": 81} | group, {"id": 82} | group)
    students = [
        {"student": {"id": n, "status": state}, "progress": progress}
        for n, state, progress in ((1, "successed", 100), (2, "active", 40.5), (3, "invited", None))
    ]
    put(warehouse, "course_group_statistics", *students, parent="8/81")
    messages = (
        chat(1, "u1", "2025-11-10T23:59:00", "да"),
        chat(2, "u1", "2025-11-11T00:01:00", "четыре"),
        chat(3, "u2", "2025-11-11T09:00:00", "четыре"),
        chat(4, "u1", "2025-11-13T09:00:00", ""),
    )
    put(warehouse, "channel_messages", *messages, parent="c1")
    put(
        warehouse,
        "endless_meetings_activities",
        call(1, "1T10:00:00", "1T10:29:59", 7, [7, 8]),
        call(2, "1T12:00:00", "1T13:00:00", 7, [8, 9, 10]),
        call(3, "4T00:30:00", "4T00:40:00", 8, [8, 9]),
    )
    put(warehouse, "tests_list", {"id": "91", "name": "Опрос"}, {"id": "92", "name": "Черновик"})
    run = {
        "id": 5,
        "users": [
            {"userId": 1, "isTestPassed": True, "pointsSum": 3},
            {"userId": 2, "isTestPassed": False, "pointsSum": 1},
        ],
    }
    put(warehouse, "test_results", run, {"id": 6, "users": []}, parent="91")


def test_time_in_the_room_counts_two_devices_once(marts: WarehouseResource):
    found = marts.query(
        "SELECT user_id, present_s, connected_s, present_pct, attention_pct "
        "FROM mts_link_marts.participant_attendance ORDER BY user_id"
    )
    assert found == [
        ("1", 1800, 2100, 50, 75),
        ("2", 900, 900, 25, 25),
        ("3", 0, 0, 0, None),
        ("4", 7200, 7200, 100, None),
    ]


def test_people_without_an_id_are_each_a_row(tmp_path: Path):
    with org_house(tmp_path, small_org(sessions=2)) as place:
        stays = [stay("10:00:00", "10:20:00", 1200)]
        guests = [person(0, *stays) | {"id": None, "email": f"{n}@example.org", "name": n} for n in "ab"]
        unnamed = [{k: v for k, v in g.items() if k not in ("id", "email")} for g in guests]
        put(place.warehouse, "users_stats", person(1, *stays), *guests, *unnamed)
        put(place.warehouse, "users_stats", guests[0] | {"name": "another name"})
        assert place.value("SELECT count() FROM bi.users_stats") == place.value(
            "SELECT uniqExact(userId) FROM bi.users_stats WHERE userId != ''"
        )
        assert place.value("SELECT count() FROM bi.users_stats") == 5
        takers = [{"name": "a", "isTestPassed": True}, {"name": "b", "isTestPassed": False}]
        put(place.warehouse, "test_results", {"id": 5, "users": takers}, parent="91")
        assert place.value("SELECT countIf(userId != '') FROM bi.test_results") == 2
        assert place.rows("SELECT table_name FROM svod.rejected_rows") == []


def test_involvement_and_attention_of_a_session(marts: WarehouseResource):
    found = marts.query(
        "SELECT people, average_involvement_pct, attention_shown, attention_confirmed, attention_pct "
        "FROM mts_link_marts.involvement WHERE event_session_id = '601'"
    )
    assert found == [(2, 65, 8, 4, 50)]  # the third was listed and never came


def test_a_session_shows_who_was_expected_who_came_and_how_long_they_stayed(marts: WarehouseResource):
    found = marts.query(
        "SELECT event_session_id, duration_minutes, participants_count, unique_participants, visited_count, "
        "attendance_pct, average_participant_duration_minutes, max_participant_duration_minutes, "
        "min_participant_duration_minutes, checkpoints_count, has_attention_control "
        "FROM mts_link_marts.event_analyzer ORDER BY event_session_id"
    )
    assert found == [
        ("601", 65, 5, 4, 2, 40, 22.5, 30, 15, 2, True),
        ("603", None, 0, 0, 0, None, 0, 0, 0, 0, False),
    ]


def test_progress_of_a_group_is_the_mean_of_those_who_have_any(marts: WarehouseResource):
    found = marts.query(
        "SELECT group_id, course_name, students, finished, finished_pct, average_progress_pct "
        "FROM mts_link_marts.course_progress ORDER BY group_id"
    )
    assert found[0] == ("81", "Вводный", 3, 1, 33.3, 70.2)
    assert found[1][:4] == ("82", "Вводный", 0, 0)


def test_messages_by_chat_person_and_day_of_moscow(marts: WarehouseResource):
    found = marts.query(
        "SELECT chat_id, user_id, toString(date), messages_count, average_message_length "
        "FROM mts_link_marts.messages_by_chat_user_day ORDER BY date, user_id"
    )
    assert found == [
        ("c1", "u1", "2025-11-10", 1, 2),
        ("c1", "u1", "2025-11-11", 1, 6),
        ("c1", "u2", "2025-11-11", 1, 6),
        ("c1", "u1", "2025-11-13", 1, 0),
    ]


def test_active_people_by_day_of_moscow_with_days_of_silence(marts: WarehouseResource):
    found = marts.query(
        "SELECT toString(date), day_of_week, unique_active_users, total_messages, avg_messages_per_user "
        "FROM mts_link_marts.daily_active_users ORDER BY date"
    )
    assert found == [
        ("2025-11-10", 1, 1, 1, 1),
        ("2025-11-11", 2, 2, 2, 1),
        ("2025-11-12", 3, 0, 0, 0),
        ("2025-11-13", 4, 1, 1, 1),
    ]
    person = marts.query(
        "SELECT days_active, total_messages, avg_messages_per_day, toString(first_message_date), "
        "toString(last_message_date) FROM mts_link_marts.daily_active_users_detailed WHERE user_id = 'u1'"
    )
    assert person == [(3, 3, 1, "2025-11-10", "2025-11-13")]


def test_messages_and_calls_of_a_day_stand_together(marts: WarehouseResource):
    found = marts.query(
        "SELECT toString(date), messages_count, avg_message_length, calls_count, avg_call_duration_min, "
        "total_call_duration_min, unique_call_users, unique_call_participants, total_call_participants, "
        "total_activity_events FROM mts_link_marts.daily_activity ORDER BY date"
    )
    assert found == [
        ("2025-11-10", 1, 2, 0, 0, 0, 0, 0, 0, 1),
        ("2025-11-11", 2, 6, 2, 44.5, 89, 1, 4, 5, 4),
        ("2025-11-13", 1, 0, 0, 0, 0, 0, 0, 0, 1),
        ("2025-11-14", 0, 0, 1, 10, 10, 1, 2, 2, 1),
    ]


def test_calls_last_whole_minutes(marts: WarehouseResource):
    found = marts.query(
        "SELECT activity_id, duration_minutes, participants_count FROM mts_link_marts.endless_activities "
        "ORDER BY activity_id"
    )
    assert found == [("1", 29, 2), ("2", 60, 3), ("3", 10, 2)]


def test_tests_count_people_a_run(marts: WarehouseResource):
    found = marts.query(
        "SELECT test_id, runs, passings, people, passed, pass_rate_pct, average_points "
        "FROM mts_link_marts.test_summary ORDER BY test_id"
    )
    assert found[0] == ("91", 2, 2, 2, 1, 50, 2)
    assert found[1][:5] == ("92", 0, 0, 0, 0)


def test_a_view_of_a_class_that_is_off_is_empty_and_each_has_its_definition(tmp_path: Path):
    with org_house(tmp_path, small_org(sessions=4, staff=4), classes="") as place:
        job = place.defs.resolve_implicit_global_asset_job_def()
        keys = {dg.AssetKey(["mts_link_marts", m.name]) for m in MARTS}
        done = job.get_subset(asset_selection=keys).execute_in_process(
            instance=place.instance, raise_on_error=False
        )
        assert done.success, failures(done)
        assert place.value("SELECT count() FROM mts_link_marts.daily_active_users") == 0
        graph = place.defs.resolve_asset_graph()
        assert all("```sql" in graph.get(key).metadata["definition"].value for key in keys)


# Files


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrgHouse]:
    folder = tmp_path_factory.mktemp("files")
    with org_house(folder, small_org(sessions=8), MTS_LINK_RECORDS_URL=f"file://{folder}/records") as place:
        yield place


def fetch(place: OrgHouse, record: int) -> dg.ExecuteInProcessResult:
    place.instance.add_dynamic_partitions(records.name or "", [str(record)])
    job = place.defs.resolve_implicit_global_asset_job_def()
    return job.get_subset(asset_selection={dg.AssetKey(["mts_link", "record_files"])}).execute_in_process(
        instance=place.instance, partition_key=str(record), raise_on_error=False
    )


def target(place: OrgHouse, record: int) -> Path:
    return Path(place.warehouse.url.removeprefix("chdb://")).parent / "records" / f"{record}.mp4"


def test_a_file_that_breaks_off_is_gone_on_with_and_whole_in_the_end(place: OrgHouse):
    place.server.add_fault("truncate", path="/download/", times=2)
    result = fetch(place, CONVERTED)
    assert result.success, failures(result)
    size = place.server.answers.size_of(CONVERTED)
    assert target(place, CONVERTED).read_bytes() == content(CONVERTED, size)
    asked = place.server.downloads
    assert [r.get("range") for r in asked] == [None, f"bytes={size // 2}-", f"bytes={size * 3 // 4}-"]
    again = len(asked)
    assert fetch(place, CONVERTED).success
    assert len(place.server.downloads) == again  # it is there


def test_the_key_goes_to_no_foreign_host_and_no_address_is_shown(place: OrgHouse):
    place.server.downloads.clear()
    place.server.answers.base_url = place.server.answers.base_url.replace("127.0.0.1", "localhost")
    result = fetch(place, CONVERTED + 4)
    assert result.success, failures(result)
    assert place.server.downloads
    assert all("x-auth-token" not in r for r in place.server.downloads)
    told = json.dumps([str(e) for e in result.all_events])
    assert "/download/" not in told


def test_a_record_that_is_not_there_says_so(place: OrgHouse):
    told = failures(fetch(place, 1))
    assert told == {"mts_link__record_files": "MTS Link refuses the record 1 with 404."}


# Retention


def test_rows_older_than_their_class_allows_are_deleted(marts: WarehouseResource):
    before = marts.query("SELECT count() FROM bi.channel_messages")[0][0]
    put(
        marts, "channel_messages", chat(9, "u1", f"{datetime.now():%Y-%m-%d}T00:00:00", "свежее"), parent="c1"
    )
    assert delete_old(marts, {}) == {}
    deleted = delete_old(marts, {"chats": 30})
    assert deleted == {"channel_messages": before}
    assert marts.query("SELECT id FROM bi.channel_messages") == [("m9",)]
    assert marts.query("SELECT count() FROM bi.users_stats")[0][0] == 4


@pytest.mark.parametrize("value", ['{"chat": 3}', '{"chats": 0}', '{"chats": "long"}'])
def test_a_wrong_retention_names_its_setting(monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("MTS_LINK_RETENTION_DAYS", value)
    with pytest.raises(dg.Failure) as failure:
        mts_link_settings()
    assert "MTS_LINK_RETENTION_DAYS" in (failure.value.description or "")
