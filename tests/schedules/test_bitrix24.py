"""What runs by the clock, and how a setting changes it."""

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from etl_assets.bitrix24.entities import DICTIONARIES, ENTITIES, FEED, STRUCTURE, WORK
from etl_assets.definitions import build_defs
from etl_assets.loading import FEED_TAG
from tests.etl_assets.house import QUIET, ZONE, House, day, failures, house, key, small_portal

Settings = Callable[..., dg.Definitions]
CHILDREN = "bitrix24_children"
APART = ("bitrix24_checks", "bitrix24_reconciliation", "bitrix24_sweep", "bitrix24_health", CHILDREN)
NAMES = {
    FEED: "bitrix24_change_feed",
    WORK: "bitrix24_work",
    DICTIONARIES: "bitrix24_dictionaries",
    STRUCTURE: "bitrix24_structure",
}


@pytest.fixture
def defs(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Definitions with BITRIX24_SCHEDULES as given."""

    def build(**crons: str) -> dg.Definitions:
        monkeypatch.setenv("BITRIX24_SCHEDULES", json.dumps(crons))
        monkeypatch.setenv("BITRIX24_WEBHOOK_URL", "https://portal.test/rest/1/some-code/")
        return build_defs()

    return build


def schedules(defs: dg.Definitions) -> dict[str, dg.ScheduleDefinition]:
    found = defs.get_repository_def().schedule_defs
    return {s.name: s for s in found if s.name.startswith("bitrix24")}


def assets_of(defs: dg.Definitions, job: str) -> set[str]:
    keys = defs.resolve_job_def(job).asset_layer.selected_asset_keys
    return {k.path[-1] for k in keys}


def crons(defs: dg.Definitions) -> dict[str, str]:
    """Asset -> cron, of every job that a schedule starts."""
    return {
        name: str(schedule.cron_schedule)
        for schedule in schedules(defs).values()
        if schedule.name not in APART
        for name in assets_of(defs, schedule.job_name)
    }


def test_without_a_setting_every_entity_has_the_cron_of_the_table(defs: Settings):
    assert crons(defs()) == {e.name: e.cron for e in ENTITIES}


def test_without_a_credential_nothing_starts_by_itself(monkeypatch: pytest.MonkeyPatch):
    for name in ("BITRIX24_WEBHOOK_URL", "BITRIX24_APP_CLIENT_ID"):
        monkeypatch.delenv(name, raising=False)
    defs = build_defs()
    stopped = {s.default_status for s in schedules(defs).values()}
    assert stopped == {dg.DefaultScheduleStatus.STOPPED}


def test_entities_that_share_a_cron_share_a_job(defs: Settings):
    built = defs()
    for cron, name in NAMES.items():
        assert assets_of(built, name) == {e.name for e in ENTITIES if e.cron == cron}
        assert schedules(built)[name].cron_schedule == cron


def test_schedules_run_from_the_start_in_the_portals_zone_and_say_what_they_do(defs: Settings):
    for schedule in schedules(defs()).values():
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert schedule.execution_timezone == "Europe/Moscow"
        assert schedule.description


def test_a_setting_replaces_the_cron_of_one_entity(defs: Settings):
    found = crons(defs(crm_deal="*/2 * * * *", user="*/2 * * * *"))
    assert {n for n, cron in found.items() if cron == "*/2 * * * *"} == {"crm_deal", "user"}
    assert found["crm_lead"] == FEED


def test_an_entity_may_join_the_run_of_another_cron(defs: Settings):
    assert "crm_status" in assets_of(defs(crm_status=FEED), NAMES[FEED])


def test_an_empty_cron_switches_an_entity_off(defs: Settings):
    built = defs(crm_deal="")
    assert "crm_deal" not in crons(built)
    node = built.resolve_asset_graph().get(key("crm_deal"))
    assert "loaded by hand only" in (node.description or "")


def test_smart_processes_may_be_switched_together(defs: Settings):
    assert crons(defs(crm_dynamic_items="*/15 * * * *")) == {e.name: e.cron for e in ENTITIES}
    assert crons(defs(crm_dynamic_items="")) == {e.name: e.cron for e in ENTITIES}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"crm_deal": "often"}, "BITRIX24_SCHEDULES: 'often' is no cron of crm_deal"),
        ({"crm_deals": "*/5 * * * *"}, "BITRIX24_SCHEDULES: there is no entity crm_deals"),
        ({"crm_deal": 5}, "BITRIX24_SCHEDULES: 5 is no cron of crm_deal"),
    ],
)
def test_a_mistake_in_the_setting_is_named(defs: Settings, setting: dict[str, Any], said: str):
    with pytest.raises(dg.Failure) as error:
        defs(**setting)
    assert said in (error.value.description or "")


def evaluated(defs: dg.Definitions, name: str, instance: dg.DagsterInstance) -> Any:
    context = dg.build_schedule_context(
        instance=instance,
        repository_def=defs.get_repository_def(),
        scheduled_execution_time=datetime.now(ZONE).replace(second=0, microsecond=0),
    )
    return schedules(defs)[name].evaluate_tick(context)


def test_every_tick_asks_for_a_run_of_todays_feed(defs: Settings, tmp_path: Path):
    built = defs(crm_status=FEED)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        for name in NAMES.values():
            (request,) = evaluated(built, name, instance).run_requests
            assert request.tags[FEED_TAG] == "true"
            assert request.partition_key == (day(0) if name in (NAMES[FEED], NAMES[WORK]) else None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Statuses and users join the feed of quotes; everything else is switched off."""
    off = {e.name: "" for e in ENTITIES} | {"crm_quote": FEED, "crm_status": FEED, "department": FEED}
    with house(
        tmp_path_factory.mktemp("schedules"), small_portal(), lasting=True, BITRIX24_SCHEDULES=off
    ) as place:
        yield place


def requested(place: House, name: str) -> dg.ExecuteInProcessResult:
    """The run that a tick asks for."""
    (request,) = evaluated(place.defs, name, place.instance).run_requests
    job = place.defs.resolve_job_def(request.job_name or name)
    return job.execute_in_process(
        instance=place.instance,
        partition_key=request.partition_key,
        tags=dict(request.tags),
        run_config=QUIET,
        raise_on_error=False,
    )


def test_a_run_may_hold_days_and_dictionaries(place: House):
    result = requested(place, NAMES[FEED])
    assert result.success, failures(result)
    assert place.ids("crm_quote") == place.live("quote")
    assert place.value("SELECT count() FROM bi.department") == len(place.portal.departments)


def test_a_tick_is_skipped_while_the_last_run_goes_on(place: House):
    job = place.defs.resolve_job_def(NAMES[FEED])
    tags, started = {"dagster/partition": day(0)}, dg.DagsterRunStatus.STARTED
    run = place.instance.create_run_for_job(job, tags=tags, status=started, run_config=QUIET)
    found = evaluated(place.defs, NAMES[FEED], place.instance)
    assert not found.run_requests
    assert run.run_id[:8] in found.skip_message
    place.instance.report_run_failed(run)
    assert evaluated(place.defs, NAMES[FEED], place.instance).run_requests


def test_the_weekly_run_reads_all_ids(place: House):
    (request,) = evaluated(place.defs, "bitrix24_sweep", place.instance).run_requests
    job = place.defs.resolve_job_def(schedules(place.defs)["bitrix24_sweep"].job_name)
    result = job.execute_in_process(
        instance=place.instance, run_config={**QUIET, **request.run_config}, raise_on_error=False
    )
    assert result.success, failures(result)
    assert "every id was read" in str(place.metadata("deleted_objects")["compared"])


def test_the_nightly_checks_run_by_themselves(place: House):
    job = place.defs.resolve_job_def("bitrix24_checks")
    result = job.execute_in_process(instance=place.instance, run_config=QUIET, raise_on_error=False)
    assert result.success, failures(result)
    found = {(e.asset_key.path[-1], e.check_name): e.passed for e in result.get_asset_check_evaluations()}
    assert found["crm_quote", "complete"]
    assert found["crm_quote", "unique_key"]
    assert found["crm_owner_type", "webhook_rights"]
