"""MTS Link by the clock, and the sensor of its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from etl_assets.loading import FEED_TAG
from etl_assets.mts_link.record_files import records
from etl_assets.mts_link.settings import mts_link_settings
from schedules.mts_link import build_schedules
from sensors.mts_link_records import new_records
from tests.etl_assets.mts_link.org_house import OrgHouse, day, org_house, small_org


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrgHouse]:
    with org_house(tmp_path_factory.mktemp("clock"), small_org(sessions=8, staff=4)) as place:
        yield place


def schedules() -> dict[str, dg.ScheduleDefinition]:
    return {s.name: s for s in build_schedules(mts_link_settings())[1]}


def test_an_hour_and_a_night_and_each_says_what_it_loads(place: OrgHouse):
    found = schedules()
    assert {s.name: s.cron_schedule for s in found.values()} == {
        "mts_link_hourly": "0 * * * *",
        "mts_link_nightly": "30 1 * * *",
    }
    assert all(s.description and s.execution_timezone == "Europe/Moscow" for s in found.values())


@pytest.mark.parametrize(("name", "feed"), [("mts_link_hourly", "true"), ("mts_link_nightly", "nightly")])
def test_a_tick_asks_for_what_changed_today(place: OrgHouse, tmp_path: Path, name: str, feed: str):
    repository = place.defs.get_repository_def()
    with dg.DagsterInstance.local_temp(str(tmp_path), {"telemetry": {"enabled": False}}) as instance:
        context = dg.build_schedule_context(instance=instance, repository_def=repository)
        (request,) = repository.get_schedule_def(name).evaluate_tick(context).run_requests or []
    assert request.tags[FEED_TAG] == feed
    assert request.partition_key == day(0)


def test_without_a_key_nothing_starts_by_itself(place: OrgHouse, monkeypatch: pytest.MonkeyPatch):
    running = {s.default_status for s in schedules().values()}
    monkeypatch.delenv("MTS_LINK_API_TOKEN")
    stopped = {s.default_status for s in schedules().values()}
    assert running == {dg.DefaultScheduleStatus.RUNNING}
    assert stopped == {dg.DefaultScheduleStatus.STOPPED}


def test_the_hourly_job_is_small_and_the_nightly_one_holds_all(place: OrgHouse):
    def assets(name: str) -> set[str]:
        return {k.path[-1] for k in place.defs.resolve_job_def(name).asset_layer.selected_asset_keys}

    hourly, nightly = assets("mts_link_hourly"), assets("mts_link_nightly")
    assert hourly < nightly
    assert "organization_members" in nightly - hourly
    assert not {"record_files", "user_profile"} & nightly


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MTS_LINK_CLASSES", "chat"),
        ("MTS_LINK_HOURLY_CRON", "sometimes"),
        ("MTS_LINK_CONTACTS_FILTER", '{"tags[]": []}'),
        ("MTS_LINK_TIMEZONE", "Mars"),
        ("MTS_LINK_LOOKBACK_DAYS", "long"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    with pytest.raises(dg.Failure) as failure:
        mts_link_settings()
    said = failure.value.description or ""
    assert name in said or value in said


def test_the_sensor_asks_for_each_new_record_once(place: OrgHouse):
    place.load("converted_records_list", "download_converted_record")
    repository = place.defs.get_repository_def()

    def tick() -> dg.SensorResult | dg.SkipReason:
        context = dg.build_sensor_context(
            instance=place.instance, resources={"warehouse": place.warehouse}, repository_def=repository
        )
        found = new_records(context)
        assert isinstance(found, dg.SensorResult | dg.SkipReason)
        return found

    first = tick()
    wanted = {row[0] for row in place.rows("SELECT id FROM bi.download_converted_record")}
    assert isinstance(first, dg.SensorResult)
    assert {r.partition_key for r in first.run_requests or []} == wanted
    assert wanted
    place.instance.add_dynamic_partitions(records.name or "", sorted(wanted))
    again = tick()
    assert isinstance(again, dg.SkipReason)
    assert "none new" in (again.skip_message or "")
