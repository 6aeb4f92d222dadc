"""How smart processes are found, registered, filled and archived."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from etl_assets.bitrix24.smart_processes import portal_types
from resources.bitrix24 import Bitrix24Resource
from resources.errors import PermanentSourceError, TransientSourceError
from sensors.bitrix24_smart_processes import build_sensors
from tests.etl_assets.house import RANGE_END, RANGE_START, House, day, failures, house, key, small_portal

NEW, LISTS, FIRST = build_sensors(running=True)
SUCCESS = {"__typename": "RefreshComponentStateSuccess"}
DAYS = 3


@dataclass
class Webserver:
    """Stands for Dagster's webserver: answers what it is told and keeps what it was asked."""

    answer: Any = field(default_factory=lambda: SUCCESS)
    asked: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture
def webserver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webserver]:
    state = Webserver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            state.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["variables"])
            found = {"data": {"refreshComponentState": state.answer}}
            body = state.answer if isinstance(state.answer, bytes) else json.dumps(found).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("DAGSTER_WEBSERVER_URL", f"http://127.0.0.1:{server.server_port}")
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("processes"), small_portal(), days=DAYS, lasting=True) as place:
        yield place


def tick(place: House, cursor: str | None = None, portal: Bitrix24Resource | None = None) -> Any:
    """What the sensor says; the keys that it asks for are added, as the daemon does."""
    resources = {"bitrix24": portal or place.bitrix24}
    with dg.build_sensor_context(instance=place.instance, cursor=cursor, resources=resources) as context:
        result = NEW(context)
    if isinstance(result, dg.SensorResult):
        for request in result.dynamic_partitions_requests or []:
            place.instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
    return result


def registered(place: House) -> set[str]:
    return set(place.instance.get_dynamic_partitions("bitrix24_smart_process"))


def node(place: House, number: int) -> Any:
    return place.defs.resolve_asset_graph().get(key(f"crm_dynamic_items_{number}"))


def first_load(place: House) -> Any:
    repository = place.defs.get_repository_def()
    with dg.build_sensor_context(instance=place.instance, repository_def=repository) as context:
        return FIRST(context)


def test_unseen_types_are_registered_once_their_assets_are_there(place: House, webserver: Webserver):
    first = tick(place)
    assert registered(place) == {"177", "1038"}
    assert webserver.asked == [{"location": "etl", "key": "bitrix24_smart_processes"}]
    assert isinstance(tick(place, first.cursor), dg.SkipReason)
    made = place.portal.add_smart_process("Заявки")["entityTypeId"]
    second = tick(place, first.cursor)
    assert registered(place) == {"177", "1038", str(made)}
    assert isinstance(tick(place, second.cursor), dg.SkipReason)
    assert len(webserver.asked) == 2


def test_a_renamed_or_switched_type_refreshes_its_asset(place: House, webserver: Webserver):
    before = tick(place).cursor
    place.refresh_smart_processes()
    place.portal.clock.advance(60)
    place.portal.update_smart_process(1038, title="Договоры подряда", isObserversEnabled="Y")
    after = tick(place, before)
    assert after.cursor != before
    place.refresh_smart_processes()
    assert "Договоры подряда" in node(place, 1038).description
    assert "OBSERVERS" in {c.name for c in node(place, 1038).metadata["dagster/column_schema"].columns}


@pytest.mark.parametrize(
    "answer",
    [
        {"__typename": "RefreshComponentStateError", "message": "the component is gone"},
        {"__typename": "PythonError", "message": "no"},
        b"<html>502 Bad Gateway</html>",
        None,
    ],
)
def test_a_failed_refresh_fails_the_tick_and_is_tried_again(place: House, webserver: Webserver, answer: Any):
    webserver.answer = answer
    with pytest.raises(TransientSourceError):
        tick(place)
    assert registered(place) == set()
    webserver.answer = SUCCESS
    tick(place)
    assert registered(place) == {"177", "1038"}


def test_a_webserver_that_is_away_is_named_with_what_to_do(place: House, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_WEBSERVER_URL", "http://127.0.0.1:9")
    with pytest.raises(TransientSourceError) as error:
        tick(place)
    assert "dg utils refresh-defs-state" in (error.value.description or "")


def test_a_failed_read_is_not_an_empty_portal(place: House, webserver: Webserver):
    before = tick(place).cursor
    wrong = Bitrix24Resource(
        webhook_url=place.portal.webhook_url.replace("sandbox0secret", "hush0hush"), bucket_capacity=0
    )
    with pytest.raises(PermanentSourceError) as error:
        tick(place, before, wrong)
    assert "hush0hush" not in str(error.value.description)
    place.portal.faults.add("nested_error", method="crm.type.list", code="INTERNAL", times=None)
    with pytest.raises(dg.Failure):
        tick(place, before)
    assert registered(place) == {"177", "1038"}
    assert len(webserver.asked) == 1


def test_without_the_rights_of_an_administrator_the_types_are_found_all_the_same(place: House):
    of_admin = [(t.entity_type_id, t.title) for t in portal_types(place.bitrix24.client)]
    place.portal.config.admin = False
    assert [(t.entity_type_id, t.title) for t in portal_types(place.bitrix24.client)] == of_admin
    assert of_admin == [(177, "Закупка оборудования"), (1038, "Договоры")]


def test_without_any_right_the_read_fails(place: House):
    place.portal.config.scopes = ("user",)
    with pytest.raises(dg.Failure):
        portal_types(place.bitrix24.client)


def test_a_new_asset_is_loaded_whole_by_one_run(place: House):
    place.refresh_smart_processes()
    result = first_load(place)
    assert {r.run_key for r in result.run_requests} == {
        "first bitrix24/crm_dynamic_items_177",
        "first bitrix24/crm_dynamic_items_1038",
    }
    for request in result.run_requests:
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == (day(DAYS), day(0))
        (asset,) = request.asset_selection
        place.load(asset.path[-1], days=(request.tags[RANGE_START], request.tags[RANGE_END]))
    for number in (177, 1038):
        assert place.ids(f"crm_dynamic_items_{number}") == place.live(number)
    assert place.warehouse.watermark("bitrix24/crm_dynamic_items_177") is not None
    assert isinstance(first_load(place), dg.SkipReason)


def test_a_removed_type_is_archived_and_its_table_kept(place: House, webserver: Webserver):
    number = place.portal.add_smart_process("Разовый", items=5)["entityTypeId"]
    before = tick(place).cursor
    place.refresh_smart_processes()
    place.load(f"crm_dynamic_items_{number}", feed=True)
    kept = place.ids(f"crm_dynamic_items_{number}")
    assert len(kept) == len(place.live(number)) > 0

    for item in place.live(number):
        place.portal.delete(number, item)
    place.portal.delete_smart_process(number)
    assert isinstance(tick(place, before), dg.SensorResult)
    place.refresh_smart_processes()
    gone = node(place, number)
    assert "archived" in gone.tags
    assert "no longer exists" in gone.description
    assert "svod/cron" not in gone.tags
    assert place.ids(f"crm_dynamic_items_{number}") == kept
    assert f"crm_dynamic_items_{number}" not in scheduled(place)
    place.instance.wipe_assets([key(f"crm_dynamic_items_{number}")])
    assert all(str(number) not in r.run_key for r in first_load(place).run_requests)
    (said,) = failures(place.run(f"crm_dynamic_items_{number}")).values()
    assert "no longer exists on the portal; its table is kept" in said

    place.portal.add_smart_process("Снова", number, items=2)
    place.refresh_smart_processes()
    assert "archived" not in node(place, number).tags


def scheduled(place: House) -> set[str]:
    keys = place.defs.resolve_job_def("bitrix24_change_feed").asset_layer.selected_asset_keys
    return {k.path[-1] for k in keys}


def test_a_smart_process_joins_the_change_feed(place: House):
    assert not any("dynamic" in name for name in scheduled(place))
    place.refresh_smart_processes()
    assert {"crm_dynamic_items_177", "crm_dynamic_items_1038"} < scheduled(place)


def test_a_new_universal_list_is_refreshed_once_and_then_loaded_whole(place: House, webserver: Webserver):
    def tick_lists(cursor: str | None) -> Any:
        resources = {"bitrix24": place.bitrix24}
        with dg.build_sensor_context(instance=place.instance, cursor=cursor, resources=resources) as context:
            return LISTS(context)

    first = tick_lists(None)
    assert [asked["key"] for asked in webserver.asked] == ["bitrix24_universal_lists"]
    assert isinstance(tick_lists(first.cursor), dg.SkipReason)
    place.refresh_universal_lists()
    wanted = {r.asset_selection[0].path[-1] for r in first_load(place).run_requests}
    assert {"lists_31", "lists_32"} <= wanted
    place.feed("lists_31", "lists_32")
    assert place.ids("lists_31") == place.live("list_31")
    shape = "SELECT toTypeName(PROPERTY_101), toTypeName(PROPERTY_102), toTypeName(PROPERTY_103), "
    shape += "toTypeName(PROPERTY_104) FROM bi.lists_31 LIMIT 1"
    types = ("String", "Float64", "DateTime64(3)", "Array(Nullable(String))")
    assert place.rows(shape) == [(*(f"Nullable({t})" for t in types[:3]), types[3])]
    row = place.portal.small["list_31"].live()[0]
    number = row["ID"]
    text, amount, people = place.rows(
        "SELECT PROPERTY_101, PROPERTY_102, PROPERTY_104 FROM bi.lists_31 WHERE ID = {i:String}", i=number
    )[0]
    assert [text] == list(row["PROPERTY_101"].values())
    assert amount == float(next(iter(row["PROPERTY_102"].values())))
    assert people == list((row["PROPERTY_104"] or {}).values())
    place.portal.delete("list_31", int(number))
    place.feed("lists_31")
    assert place.ids("lists_31") == place.live("list_31")


def test_a_removed_list_is_archived_and_its_table_kept(place: House, webserver: Webserver):
    place.refresh_universal_lists()
    place.feed("lists_32")
    place.portal.delete("list", 32)
    place.refresh_universal_lists()
    assert "archived" in place.defs.resolve_asset_graph().get(key("lists_32")).tags
    assert place.ids("lists_32") == place.live("list_32")
    assert not place.run("lists_32").success
