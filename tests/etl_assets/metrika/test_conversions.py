"""Selected visits are sent once: whatever is lost, killed or asked for again."""

import csv
import io
from collections.abc import Iterator

import dagster as dg
import pytest

from etl_assets.metrika.level4_tables import level4_visits
from sandbox.metrika.conversions import Uploading
from tests.etl_assets.metrika.counter_house import (
    COUNTER,
    CounterHouse,
    checks,
    counter_house,
    day,
    failures,
    small,
)

TABLES = ("level4_visits", "level4_conversions", "conversion_uploads")


@pytest.fixture(scope="module")
def sending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CounterHouse]:
    """Conversions are really sent, and a missing goal is made."""
    switches = {"METRIKA_CONVERSIONS_UPLOAD": "1", "METRIKA_CONVERSIONS_CREATE_GOAL": "1"}
    with counter_house(tmp_path_factory.mktemp("sending"), small(), **switches) as house:
        house.warehouse.ensure(level4_visits("Europe/Moscow"))
        yield house


@pytest.fixture
def house(sending: CounterHouse, monkeypatch: pytest.MonkeyPatch) -> Iterator[CounterHouse]:
    monkeypatch.setattr("resources.metrika.client.MetrikaClient.sleep", lambda self, seconds: None)
    yield sending
    sending.metrika.faults.clear()
    sending.metrika.conversions.uploadings.clear()
    del sending.metrika.goals[COUNTER][1:]
    for table in TABLES:
        sending.warehouse.command(f"TRUNCATE TABLE IF EXISTS metrika.{table}")


def select(house: CounterHouse, *visits: int, ago: int = 1, client: int = 97 * 10**15 + 13) -> None:
    """Let these visits be selected; the last digit of an id is the visit's hour."""
    rows = ", ".join(
        f"({COUNTER}, '{day(ago)}', {v}, {client}, toDateTime('{day(ago)} 0{v % 10}:30:00', 'Europe/Moscow'))"
        for v in visits
    )
    names = "counter_id, date, visit_id, client_id, date_time"
    house.warehouse.command(f"INSERT INTO metrika.level4_visits ({names}) VALUES {rows}")


def arrived(house: CounterHouse) -> list[dict[str, str]]:
    return [row for upload in house.metrika.conversions.uploadings for row in upload.rows]


def sent(house: CounterHouse) -> list[tuple[int, str, int]]:
    sql = "SELECT visit_id, state, uploading_id FROM bi.level4_conversions ORDER BY visit_id"
    return [(int(v), str(s), int(u)) for v, s, u in house.rows(sql)]


def test_each_visit_is_sent_once_with_the_time_of_the_counters_zone(house: CounterHouse):
    select(house, 11, 12)
    house.load("level4_conversions")
    house.load("level4_conversions")
    select(house, 13)
    house.load("level4_conversions")
    assert [len(u.rows) for u in house.metrika.conversions.uploadings] == [2, 1]
    assert {row["Target"] for row in arrived(house)} == {"4plus"}
    midnight = house.rows(f"SELECT toUnixTimestamp(toDateTime('{day(1)} 00:00:00', 'Europe/Moscow'))")[0][0]
    assert [int(row["DateTime"]) - midnight for row in arrived(house)] == [h * 3600 + 1800 for h in (1, 2, 3)]
    assert sent(house) == [(11, "sent", 1), (12, "sent", 1), (13, "sent", 2)]
    assert [g["conditions"][0]["url"] for g in house.metrika.goals[COUNTER]] == ["lead", "4plus"]


def test_visitors_without_an_id_and_old_visits_are_not_sent_but_counted(house: CounterHouse):
    select(house, 11)
    select(house, 12, client=0)
    select(house, 13, ago=25)
    house.load("level4_conversions", ago=(25, 1))
    told = house.metadata("level4_conversions")
    assert [told[n] for n in ("rows_sent", "without_client_id", "older_than_21_days")] == [1, 1, 1]
    assert len(arrived(house)) == 1


def test_nothing_selected_sends_nothing_and_makes_no_goal(house: CounterHouse):
    house.load("level4_conversions")
    assert house.metrika.conversions.uploadings == []
    assert len(house.metrika.goals[COUNTER]) == 1


@pytest.mark.parametrize("fault", ["lost", "status"])
def test_a_lost_answer_sends_nothing_twice(house: CounterHouse, fault: str):
    select(house, 11, 12)
    house.metrika.faults.add(fault, "/upload$")
    house.load("level4_conversions")
    assert len(arrived(house)) == 2
    assert {state for _, state, _ in sent(house)} == {"sent"}


class Killed(BaseException):
    """What ends the process in these tests."""


@pytest.mark.parametrize("moment", ["before the upload", "after the upload"])
def test_a_kill_around_the_upload_sends_nothing_twice(
    house: CounterHouse, monkeypatch: pytest.MonkeyPatch, moment: str
):
    from resources.metrika import MetrikaClient

    upload = MetrikaClient.upload_conversions

    def killed(self: MetrikaClient, counter: int, body: bytes, comment: str = "") -> Uploading:
        if moment == "after the upload":
            upload(self, counter, body, comment)
        raise Killed

    select(house, 11, 12)
    with monkeypatch.context() as patch:
        patch.setattr(MetrikaClient, "upload_conversions", killed)
        assert not house.run("level4_conversions").success
    assert {state for _, state, _ in sent(house)} == {"sending"}
    select(house, 13)  # meanwhile one more was selected
    house.load("level4_conversions")
    times = [row["DateTime"] for row in arrived(house)]
    assert len(times) == len(set(times)) == 3, "no visit stands in two files"
    assert [state for _, state, _ in sent(house)] == ["sent"] * 3


def test_a_refused_file_may_be_sent_again(house: CounterHouse):
    select(house, 11)
    house.metrika.faults.add("status", "/upload$", status=400, error_type="invalid_uploading", message="No")
    assert "invalid_uploading" in failures(house.run("level4_conversions"))["metrika__level4_conversions"]
    house.load("level4_conversions")
    assert len(arrived(house)) == 1


def test_a_file_is_followed_until_the_service_is_done(house: CounterHouse):
    sensor = house.defs.get_repository_def().get_sensor_def("metrika_conversion_uploads")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING

    def wanted() -> bool:
        with dg.build_sensor_context(instance=house.instance) as context:
            return bool(sensor.evaluate_tick(context).run_requests)

    select(house, 11)
    house.load("level4_conversions")
    looks = 0
    while wanted():
        assert checks(house.load("conversion_uploads"))["conversion_uploads/processed"]
        looks += 1
    assert looks == 4
    assert house.rows("SELECT status, line_quantity FROM bi.conversion_uploads") == [("PROCESSED", 1)]


def test_a_file_whose_visitors_are_unknown_is_a_warning(house: CounterHouse):
    select(house, 11, client=12)
    house.load("level4_conversions")
    seen = [checks(house.load("conversion_uploads"))["conversion_uploads/processed"] for _ in range(4)]
    assert seen == [True, True, False, False]


def test_the_file_is_what_the_service_wants():
    from datetime import date

    from etl_assets.metrika.conversions import Conversion, csv_of

    text = csv_of([Conversion(1, 2**64 - 1, date(2026, 1, 1), 1_700_000_000)], 'a "b", c').decode()
    assert "\r" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows == [{"ClientId": str(2**64 - 1), "Target": 'a "b", c', "DateTime": "1700000000"}]


# By default nothing is sent


def test_without_the_switch_it_only_shows_what_it_would_send(tmp_path):
    with counter_house(tmp_path) as house:
        house.warehouse.ensure(level4_visits("Europe/Moscow"))
        select(house, 11, 12)
        house.load("level4_conversions")
        told = house.metadata("level4_conversions")
        assert (told["dry_run"], told["rows_to_send"], told["rows_sent"]) == (True, 2, 0)
        assert told["goal"] == f"{COUNTER}: missing"
        assert told["sample"].count("| 100001 |") == 2
        assert house.metrika.conversions.uploadings == []
        assert len(house.metrika.goals[COUNTER]) == 1
        assert sent(house) == []
        sensor = house.defs.get_repository_def().get_sensor_def("metrika_conversion_uploads")
        assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


def test_without_the_goal_it_stops_and_says_so(tmp_path):
    with counter_house(tmp_path, METRIKA_CONVERSIONS_UPLOAD="true") as house:
        says = failures(house.run("level4_conversions"))["metrika__level4_conversions"]
        assert "materialize metrika/level4_visits first" in says
        house.warehouse.ensure(level4_visits("Europe/Moscow"))
        select(house, 11)
        says = failures(house.run("level4_conversions"))["metrika__level4_conversions"]
        assert "METRIKA_CONVERSIONS_CREATE_GOAL" in says
        assert house.metrika.conversions.uploadings == []
