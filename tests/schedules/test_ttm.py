"""The ticket system by the clock: the night until yesterday is complete, the list every interval."""

from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from etl_assets.definitions import build_defs
from etl_assets.ttm.assets import DAILY, asset_key

ZONE = ZoneInfo("Europe/Moscow")
SETTINGS = ("TTM_SERVER", "TTM_TOKEN", "TTM_KEY", "TTM_FILTER_ARREARS", "TTM_FILTER_STOPPED")
Definitions = Callable[..., dg.RepositoryDefinition]


@pytest.fixture
def defs(monkeypatch: pytest.MonkeyPatch) -> Definitions:
    """The location with the hub configured, and further settings."""

    def build(**settings: str) -> dg.RepositoryDefinition:
        for name, value in ({n: f"value-of-{n}" for n in SETTINGS} | settings).items():
            monkeypatch.setenv(name, value)
        return build_defs().get_repository_def()

    return build


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path), {"telemetry": {"enabled": False}}) as found:
        yield found


def tick(
    repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, at: datetime
) -> dg.RunRequest | dg.SkipReason:
    context = dg.build_schedule_context(
        instance=instance, scheduled_execution_time=at, repository_def=repository
    )
    answer = repository.get_schedule_def("ttm_night").evaluate_tick(context)
    return answer.run_requests[0] if answer.run_requests else dg.SkipReason(answer.skip_message)


def load(instance: dg.DagsterInstance, day: date, *, but: int = 0) -> None:
    """As if the day's assets had been loaded, all or all but some."""
    for table in DAILY[but:]:
        instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(table), partition=str(day)))


NIGHT = datetime(2026, 3, 11, 0, 5, tzinfo=ZONE)
LATER = datetime(2026, 3, 11, 0, 15, tzinfo=ZONE)
YESTERDAY = date(2026, 3, 10)


def test_the_night_asks_for_yesterday_of_the_business_zone(defs: Definitions, instance: dg.DagsterInstance):
    request = tick(defs(), instance, NIGHT)
    assert isinstance(request, dg.RunRequest)
    assert request.partition_key == "2026-03-10"


def test_a_day_that_is_complete_is_not_asked_for_again(defs: Definitions, instance: dg.DagsterInstance):
    load(instance, YESTERDAY)
    answer = tick(defs(), instance, LATER)
    assert isinstance(answer, dg.SkipReason)
    assert "2026-03-10 is complete" in (answer.skip_message or "")


def test_a_day_that_is_half_loaded_is_asked_for_again(defs: Definitions, instance: dg.DagsterInstance):
    load(instance, YESTERDAY, but=1)
    assert isinstance(tick(defs(), instance, LATER), dg.RunRequest)


@pytest.mark.parametrize(("status", "asks"), [("STARTED", False), ("STARTING", False), ("FAILURE", True)])
def test_a_run_at_work_is_waited_for_and_a_failed_one_repeated(
    defs: Definitions, instance: dg.DagsterInstance, status: str, asks: bool
):
    instance.add_run(
        dg.DagsterRun(
            "ttm_night", status=dg.DagsterRunStatus[status], tags={"dagster/partition": "2026-03-10"}
        )
    )
    assert isinstance(tick(defs(), instance, LATER), dg.RunRequest) == asks


def test_the_night_ends_at_three(defs: Definitions):
    schedule = defs().get_schedule_def("ttm_night")
    assert schedule.cron_schedule == "5-55/10 0-2 * * *"
    assert schedule.execution_timezone == "Europe/Moscow"


def test_the_list_is_read_every_interval_and_never_twice_at_a_time(
    defs: Definitions, instance: dg.DagsterInstance
):
    repository = defs(TTM_INTERVAL="120")
    sensor = repository.get_sensor_def("ttm_stopped_tickets")
    assert sensor.minimum_interval_seconds == 120
    context = dg.build_sensor_context(instance=instance, repository_def=repository)
    assert len(sensor.evaluate_tick(context).run_requests or ()) == 1
    instance.add_run(dg.DagsterRun("ttm_stopped_tickets", status=dg.DagsterRunStatus.STARTED))
    answer = sensor.evaluate_tick(context)
    assert not answer.run_requests
    assert "not finished yet" in (answer.skip_message or "")


def test_everything_starts_by_itself_only_with_the_hub_known(
    defs: Definitions, monkeypatch: pytest.MonkeyPatch
):
    running = {"ttm_night", "ttm_checks", "ttm_stopped_tickets"}
    repository = defs()
    found = {s.name: s.default_status.value for s in (*repository.schedule_defs, *repository.sensor_defs)}
    assert {found[name] for name in running} == {"RUNNING"}
    monkeypatch.delenv("TTM_FILTER_STOPPED")
    repository = build_defs().get_repository_def()
    found = {s.name: s.default_status.value for s in (*repository.schedule_defs, *repository.sensor_defs)}
    assert {found[name] for name in running} == {"STOPPED"}


@pytest.mark.parametrize(
    ("name", "value"), [("TTM_INTERVAL", "5"), ("TTM_START_DATE", "soon"), ("TTM_BUSINESS_TZ", "Mars/Base")]
)
def test_a_malformed_setting_is_named(defs: Definitions, name: str, value: str):
    with pytest.raises(dg.Failure) as caught:
        defs(**{name: value})
    assert (name if name != "TTM_BUSINESS_TZ" else "Mars/Base") in (caught.value.description or "")
