"""The application's queue of events: deletions are taken in soon, each at least once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl_assets.bitrix24.deleted import KEY
from etl_assets.bitrix24.events import Deletion, OfflineQueue, deletion_of
from etl_assets.definitions import build_defs
from resources.bitrix24 import Bitrix24Resource
from sandbox.bitrix24.oauth import CLIENT_ID, CLIENT_SECRET
from sensors.bitrix24_events import TAG, build_sensor
from tests.etl_assets.house import QUIET, House, failures, house, small_portal

SENSOR = build_sensor(running=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A portal that is read by an application, loaded."""
    folder = tmp_path_factory.mktemp("events")
    with house(folder, small_portal(smart_processes=False)) as place:
        pair = place.portal.tokens.issue(place.portal.base_url)
        application = Bitrix24Resource(
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            refresh_token=pair["refresh_token"],
            auth_url=place.portal.base_url,
            state_dir=str(folder),
            bucket_capacity=0,
        )
        place.feed("crm_deal", "crm_lead", "crm_smart_invoice")
        yield replace(place, bitrix24=application, defs=build_defs({"bitrix24": application}))


def tick(place: House, cursor: str | None = None) -> Any:
    resources = {"bitrix24": place.bitrix24}
    with dg.build_sensor_context(instance=place.instance, cursor=cursor, resources=resources) as context:
        return SENSOR(context)


def run(place: House, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    job = place.defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=set(request.asset_selection or ())
    )
    return job.execute_in_process(
        instance=place.instance,
        run_config={**QUIET, **request.run_config},
        tags=request.tags,
        raise_on_error=False,
    )


def test_a_deletion_that_was_queued_leaves_the_view(place: House):
    first = tick(place)
    assert isinstance(first, dg.SensorResult)
    assert not first.run_requests
    for entity in ("deal", "lead", "smart_invoice"):
        place.portal.delete(entity, place.live(entity)[0])
    result = tick(place, first.cursor)
    (request,) = result.run_requests
    done = run(place, request)
    assert done.success, failures(done)
    for entity in ("deal", "lead", "smart_invoice"):
        assert place.ids(f"crm_{entity}") == place.live(entity)
    assert place.rows("SELECT DISTINCT source FROM bi.deleted_objects") == [("offline",)]
    assert place.portal.events.records == []
    assert not tick(place, result.cursor).run_requests


def taken_in(place: House) -> dg.ExecuteInProcessResult:
    config = {"ops": {"bitrix24__deleted_objects": {"config": {"offline": True}}}}
    return run(place, dg.RunRequest(asset_selection=[KEY], run_config=config))


def test_records_that_a_dead_process_has_reserved_are_not_lost(place: House):
    gone = place.live("deal")[:2]
    for deal in gone:
        place.portal.delete("deal", deal)
    client = place.bitrix24.client
    assert len(client.call("event.offline.get", {"clear": 0, "limit": 50})["events"]) == 2
    assert taken_in(place).success
    assert place.ids("crm_deal") == place.live("deal")
    place.portal.reset_stats()
    assert taken_in(place).success  # still on the queue, and not looked at again
    assert not [name for name in place.portal.stats()["calls"] if name.endswith("item.list")]


def test_a_run_that_fails_before_it_clears_is_repeated_and_loses_nothing(place: House):
    place.portal.delete("deal", place.live("deal")[0])
    place.portal.faults.add("status", method="event.offline.clear", status=403, code="ACCESS_DENIED")
    result = tick(place, '{"seen": [], "bound": 0}')
    assert not run(place, result.run_requests[0]).success
    again = tick(place, result.cursor)
    assert again.run_requests[0].tags[TAG] == "true"
    assert run(place, again.run_requests[0]).success
    assert place.ids("crm_deal") == place.live("deal")


def test_an_event_without_an_id_lets_the_entity_be_compared(place: House):
    place.portal.config.event_data = "false"
    place.portal.delete("lead", place.live("lead")[0])
    place.portal.delete("smart_invoice", place.live("smart_invoice")[0])
    assert taken_in(place).success
    place.portal.config.event_data = "fields"
    assert place.ids("crm_lead") == place.live("lead")
    assert place.ids("crm_smart_invoice") == place.live("smart_invoice")


def test_an_event_of_a_row_that_is_still_there_marks_nothing(place: House):
    deal = place.live("deal")[0]
    place.portal.events.push("ONCRMDEALDELETE", deal)
    assert taken_in(place).success
    assert place.ids("crm_deal") == place.live("deal")


def test_without_an_application_the_queue_is_left_alone(place: House):
    webhook = replace(place, bitrix24=Bitrix24Resource(webhook_url=place.portal.webhook_url))
    assert "BITRIX24_APP_CLIENT_ID" in tick(webhook).skip_message


def test_bindings_are_made_once(place: House):
    queue = OfflineQueue(place.bitrix24.client)
    assert queue.bind() == []


@given(st.integers(1, 10**9), st.sampled_from([int, str]))
def test_events_name_their_table_and_their_row(number: int, spelled: type):
    fields = {"ID": spelled(number)}
    assert deletion_of("onCrmDealDelete", {"FIELDS": fields}) == Deletion("crm_deal", number)
    before = {"FIELDS_BEFORE": fields, "FIELDS_AFTER": "undefined"}
    assert deletion_of("ONTASKDELETE", before) == Deletion("task", number)
    dynamic = {"FIELDS": {**fields, "ENTITY_TYPE_ID": spelled(177)}}
    for name in ("ONCRMDYNAMICITEMDELETE", "ONCRMDYNAMICITEMDELETE_177"):
        assert deletion_of(name, dynamic) == Deletion("crm_dynamic_items_177", number)
    assert deletion_of("ONCRMDYNAMICITEMDELETE_31", {"FIELDS": fields}) == Deletion(
        "crm_smart_invoice", number
    )


@given(
    st.text(), st.recursive(st.none() | st.booleans() | st.text(), lambda x: st.dictionaries(st.text(), x))
)
def test_no_event_breaks_the_reading(name: str, data: Any):
    deletion_of(name, data)
    found = deletion_of("ONCRMLEADDELETE", data)
    assert found is not None
    assert found.entity == "crm_lead"
