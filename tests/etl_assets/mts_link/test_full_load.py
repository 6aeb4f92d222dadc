"""A full load, an unchanged hour and a night: every table equals the source, for few requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from etl_assets.mts_link.endpoints import ENDPOINTS, NEW
from tests.etl_assets.mts_link.org_house import OrgHouse, day, org_house, small_org
from tests.etl_assets.mts_link.truth import Truth, differences


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrgHouse]:
    with org_house(tmp_path_factory.mktemp("full")) as place:
        place.load()
        yield place


def test_there_are_47_old_extractors_in_their_six_groups():
    old = [e for e in ENDPOINTS if e.name not in NEW]
    groups = {g: sum(e.group == g for e in old) for g in {e.group for e in old}}
    assert groups == {
        "addressbook": 4,
        "chats": 10,
        "events": 18,
        "files": 6,
        "organisation": 4,
        "tests": 5,
    }


def test_every_table_equals_the_source(place: OrgHouse):
    assert set(Truth(place.server).tables()) >= {e.name for e in ENDPOINTS} - {
        "user_profile",
        "organization_info",
        "stream_files_urls",
    }
    assert differences(place) == {}


def test_values_are_typed_and_nothing_is_rejected(place: OrgHouse):
    assert place.rows("SELECT table_name, reasons FROM svod.rejected_rows") == []
    assert place.value("SELECT uniqExact(eventSessionId) FROM bi.event_participants") == place.value(
        "SELECT uniqExact(event_session_id) FROM bi.event_participants"
    )
    zone = place.rows(
        "SELECT p.registerDate < s.startsAt, dateDiff('day', p.registerDate, s.startsAt) "
        "FROM bi.event_participants AS p JOIN bi.event_sessions AS s ON s.id = p.event_session_id LIMIT 1"
    )
    assert zone == [(True, 3)]
    assert place.value("SELECT countIf(startsAt IS NULL) FROM bi.courses_groups") == 0
    assert (
        place.value("SELECT countIf(createdAtMs IS NULL OR authorId IS NULL) FROM bi.channel_messages") == 0
    )


def test_the_whole_record_stands_beside_the_columns(place: OrgHouse):
    raw = place.value("SELECT raw FROM bi.brandings_list")
    assert '"colors":{"primary":"#e30611"}' in raw
    assert place.metadata("brandings_list")["fields_in_raw_only"] == "colors, isDefault"


def test_room_tokens_upload_addresses_and_passwords_are_not_stored(place: OrgHouse):
    for table, column in (
        ("event_participants", "url"),
        ("event_series_stats", "url"),
        ("files_list", "uploadUrl"),
        ("download_converted_record", "password"),
    ):
        assert place.value(f"SELECT countIf(JSONHas(raw, '{column}')) FROM mts_link.{table}") == 0
        assert place.value(f"SELECT count() FROM mts_link.{table}") > 0


def test_nothing_was_refused(place: OrgHouse):
    assert place.rows("SELECT endpoint FROM mts_link._errors") == []
    assert place.metadata("event_participants")["parents"] == 20


def test_an_unchanged_hour_costs_few_requests_and_changes_nothing(place: OrgHouse):
    with place.counted() as stats:
        place.load()
    assert stats["requests"] <= 12 + place.server.config.channels  # those that are lively
    assert differences(place) == {}


def test_children_are_not_asked_again_because_ids_change_type_or_a_period_holds_part_of_a_series(
    tmp_path: Path,
):
    config = small_org(sessions=40, sessions_per_event=10, days=20, tests=9, staff=4, contacts=6)
    lists = ("organization_events_schedule", "tests_list", "contacts_search")
    children = ("event_series_files", "event_participants", "test_info", "contact_details")
    with org_house(tmp_path, config) as place:
        place.load(*lists, *children)
        for text_ids in (True, False):
            place.server.control("settings", {"text_ids": text_ids})
            with place.counted() as stats:
                place.load(*lists, *children)
            assert set(stats["routes"]) == {"/organization/events/schedule", "/tests/list"}
            with place.counted() as stats:
                place.load("contacts_search", "contact_details", feed="nightly")
            assert set(stats["routes"]) == {"/contacts/search"}
        place.server.control("settings", {"text_ids": True})
        place.load("event_participants", feed=None)  # all of them again, under ids of the other type
        assert differences(place, *lists, *children, "event_sessions") == {}


def test_what_changed_is_read_and_nothing_else(place: OrgHouse):
    org, server = place.server.org, place.server
    started = next(s for s in org.session_numbers() if org.status(s) == "ACTIVE")
    now = int(org.clock.now())
    held = {"id": 6010001 + started, "start": now - 7200, "end": now - 3600, "more": 2}
    server.control("change-session", held)
    server.control("call", {})
    server.control("write", {"chat": 1, "count": 3})
    with place.counted() as stats:
        place.load()
    assert stats["requests"] <= 50
    assert stats["routes"]["/eventsessions/{}/participations"] == 1
    # chats and what people did are read again at night
    nightly = {"visits_stats", "user_tests_stats", "user_events_schedule", "channel_messages"}
    assert differences(place, without=nightly) == {}
    recent = [s for s in org.session_numbers() if org.finished(s)][-3]
    gone = ({"kind": "session", "id": 6010001 + recent}, {"kind": "member", "id": 7001003})
    for each in gone:
        server.control("delete", each)
    with place.counted() as stats:
        place.load(feed="nightly")
    assert stats["routes"]["/chats/channel/{}/messages"] == 1
    assert differences(place) == {}
    for each in gone:
        server.control("restore", each)


def test_a_range_of_days_is_one_load_of_what_was_held_then(place: OrgHouse):
    place.load("organization_events_schedule", "event_participants", feed=None, days=(day(2), day(1)))
    kind = place.rows(
        "SELECT kind, rows FROM svod.load_log WHERE asset = 'mts_link/event_participants' "
        "ORDER BY finished_at DESC LIMIT 1"
    )
    held = place.value(
        "SELECT count() FROM bi.event_participants AS p "
        "JOIN bi.event_sessions AS s ON s.id = p.event_session_id "
        f"WHERE toDate(s.startsAt, 'Europe/Moscow') BETWEEN '{day(2)}' AND '{day(1)}'"
    )
    assert kind == [("window", held)]


def test_the_graph_shows_the_fan_out(place: OrgHouse):
    graph = place.defs.resolve_asset_graph()

    def parents(name: str) -> set[str]:
        return {k.path[-1] for k in graph.get(dg.AssetKey(["mts_link", name])).parent_keys}

    assert parents("event_participants") == {"organization_events_schedule"}
    assert parents("user_tests_stats") == {"event_participants"}
    assert parents("channel_messages") == {"user_channels"}
    assert parents("user_channels") == {"chats_organization_members"}
