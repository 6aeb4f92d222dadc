"""Lists of periods: what is old changes or goes too, what has no id stays one row."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from sandbox.mts_link.org import MSK, ROOM, TEST
from sandbox.mts_link.wire import instant
from tests.etl_assets.mts_link.org_house import org_house, small_org
from tests.etl_assets.mts_link.truth import differences

CALLS = "endless_meetings_activities"


def test_a_night_notices_an_old_room_that_is_gone_and_a_new_run_of_an_old_test(tmp_path: Path):
    with org_house(tmp_path, small_org(sessions=8, rooms=30, days=900, tests=4)) as place:
        answers, new = place.server.answers, dict[str, Any]()
        told_rooms, told_tests = answers.rooms, answers.tests

        def rooms(query: dict[str, str]) -> Any:
            found = told_rooms(query)["data"]["items"]
            return {"data": {"items": [r for r in found if not new or r["id"] != ROOM]}}

        def tests(query: dict[str, str]) -> Any:
            """Those that were made in the period, whenever they ran."""
            since = instant(query, "startTime", 0)
            found = [r for r in told_tests(query) if instant(r, "createAt") >= since]
            return [r | (new if r["id"] == str(TEST) else {}) for r in found]

        answers.rooms, answers.tests = rooms, tests
        place.load("endless_meetings_list", "tests_list")
        assert place.value("SELECT count() FROM bi.endless_meetings_list") == 30
        new["startsCount"] = 77
        place.load("endless_meetings_list", "tests_list", feed="nightly")
        assert place.value("SELECT count() FROM bi.endless_meetings_list") == 29
        assert place.value(f"SELECT startsCount FROM bi.tests_list WHERE id = '{TEST}'") == 77
        assert place.value("SELECT count() FROM bi.tests_list") == 4


def test_a_call_without_an_id_is_one_row_however_it_is_told(tmp_path: Path):
    with org_house(tmp_path, small_org(sessions=2, rooms=2)) as place:
        told, changed = place.server.answers.call, dict[str, Any]()

        def call(k: int) -> dict[str, Any]:
            row = {name: value for name, value in told(k).items() if name != "id"}
            if changed:
                at = instant(row, "startedAt")
                moment = place.server.org.clock.now()
                row |= {"startedAt": _plain(at), "seen": moment, "participants": row["participants"][:1]}
                row["eventSession"] = row["eventSession"] | {"id": str(row["eventSession"]["id"])}
            return row

        place.server.answers.call = call
        place.load(CALLS)
        changed["yes"] = True
        place.load(CALLS, feed=None)
        assert place.value(f"SELECT count() FROM mts_link.{CALLS} FINAL") == place.server.answers.calls()


def _plain(at: float) -> str:
    return datetime.fromtimestamp(at, MSK).strftime("%Y-%m-%dT%H:%M:%S%z")


def test_a_list_of_files_that_gives_fewer_than_asked_for_is_read_to_its_end(tmp_path: Path):
    config = small_org(sessions=700, sessions_per_event=50, staff=2)
    with org_house(tmp_path, config) as place:
        told = place.server.answers.converted_files

        def capped(query: dict[str, str]) -> Any:
            return told(query | {"limit": str(min(100, int(query["limit"])))})

        place.server.answers.converted_files = capped
        place.load("converted_records_list")
        assert place.value("SELECT count() FROM bi.converted_records_list") > 100
        assert differences(place, "converted_records_list") == {}
