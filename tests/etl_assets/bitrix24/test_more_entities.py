"""Entities beside the main ones: each is loaded, loads again without a difference, and follows the portal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from etl_assets.bitrix24.assets import Bitrix24Settings, build_asset
from etl_assets.bitrix24.entities import ENTITIES
from etl_assets.bitrix24.universal_lists import universal_list
from etl_assets.bitrix24.work_reading import universal_lists
from tests.etl_assets.house import QUIET, House, day, failures, house, small_portal

# table -> (entity of the sandbox, key column, a column that can be changed and its key on the portal)
CHANGING = {
    "crm_invoice_old": ("invoice_old", "ID", "ORDER_TOPIC"),
    "crm_requisite": ("requisite", "ID", "NAME"),
    "crm_requisite_bank": ("requisite_bank", "ID", "NAME"),
    "crm_product": ("product", "id", "name"),
    "crm_product_offer": ("offer", "id", "name"),
    "crm_product_service": ("service", "id", "name"),
    "catalog_price": ("price", "id", "currency"),
    "task": ("task", "ID", "title"),
}
SNAPSHOTS = {
    "crm_requisite_preset": ("requisite_preset", "ID"),
    "catalog_catalog": ("catalog", "iblockId"),
    "catalog_section": ("section", "id"),
    "catalog_measure": ("measure", "id"),
    "catalog_vat": ("vat", "id"),
    "sonet_group": ("group", "ID"),
    "workgroup": ("group", "ID"),
    "task_stage": ("stage", "ID"),
    "calendar_section": ("calendar_section", "ID"),
    "lists_iblock": ("list", "ID"),
    "lists_section": ("list_section", "ID"),
    "openline_config": ("line", "ID"),
    "timeman_record": ("work_day", "id"),
}
OF_TASKS = {
    "task_comment": ("task_comment", "ID"),
    "task_history": ("task_history", "id"),
    "task_result": ("task_result", "id"),
    "task_checklist": ("task_checklist", "ID"),
}
FIRST = (
    "crm_deal",
    "crm_lead",
    "crm_quote",
    "crm_contact",
    "crm_company",
    "crm_contact_company",
    "crm_activity",
    "user",
    "sonet_group",
    "task",
)
NEW = [e.name for e in ENTITIES if e.cron == "*/15 * * * *"]
NEW += [*SNAPSHOTS, "crm_requisite_link", "crm_address", "crm_type", "sonet_group_user", "lists_field"]
NEW += ["calendar_event", "user_userfield"]
UNNAMED = {"crm_requisite_link": "requisite_link", "crm_address": "address"}  # rows without an id


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("more"), small_portal()) as place:
        place.feed(*FIRST, *(n for n in NEW if n not in FIRST))
        yield place


def reconcile(place: House, *entities: str) -> None:
    place.portal.clock.advance(60)
    config = {"ops": {"bitrix24__deleted_objects": {"config": {"entities": list(entities)}}}}
    job = place.defs.resolve_job_def("bitrix24_reconciliation")
    result = job.execute_in_process(
        instance=place.instance, run_config={**QUIET, **config}, raise_on_error=False
    )
    assert result.success, failures(result)


def contents(place: House, table: str) -> list[tuple[Any, ...]]:
    names = place.rows(
        "SELECT name FROM system.columns "
        "WHERE database = 'bi' AND table = {t:String} AND name != 'dt_inserted'",
        t=table,
    )
    columns = ", ".join(f"`{n}`" for (n,) in names)
    return place.rows(f"SELECT {columns} FROM bi.{table} ORDER BY ALL")


@pytest.mark.parametrize("table", [*CHANGING, *SNAPSHOTS, *OF_TASKS])
def test_every_row_of_the_portal_is_here(place: House, table: str):
    entity, column = ({k: v[:2] for k, v in CHANGING.items()} | SNAPSHOTS | OF_TASKS)[table]
    assert place.ids(table, column) == place.live(entity)
    assert place.ids(table, column)


@pytest.mark.parametrize("table", UNNAMED)
def test_rows_without_an_id_are_all_here(place: House, table: str):
    there = len(place.portal.small[UNNAMED[table]].live())
    assert place.value(f"SELECT count() FROM bi.{table}") == there
    assert there > 50


def companies(place: House, table: str) -> list[tuple[Any, ...]]:
    """(company, contact) of the companies that there are; contacts also name others."""
    known = "COMPANY_ID IN (SELECT ID FROM bi.crm_company)"
    return place.rows(f"SELECT COMPANY_ID, CONTACT_ID FROM bi.{table} WHERE {known} ORDER BY ALL")


def test_companies_name_their_contacts(place: House):
    assert companies(place, "crm_company_contact") == companies(place, "crm_contact_company") != []


def test_a_contact_that_changes_its_company_moves_between_companies(place: House):
    contact = next(r["ID"] for r in place.portal.expected("contact", "raw") if r["COMPANY_IDS"])
    place.portal.clock.advance(1200)
    place.portal.change("contact", contact, COMPANY_IDS=[place.live("company")[-1]])
    place.feed("crm_contact")
    place.feed("crm_contact_company", "crm_company_contact")
    assert companies(place, "crm_company_contact") == companies(place, "crm_contact_company")


def test_users_have_all_fields_of_the_portal(place: House):
    found = place.rows("SELECT toInt64(ID) AS i, PERSONAL_PHONE, UF_USR_SKILLS FROM bi.user ORDER BY i")
    skills = {True: '["Excel","SQL"]', False: None}
    users = place.portal.users
    assert found == [(int(u["ID"]), u["PERSONAL_PHONE"], skills[bool(u["UF_USR_SKILLS"])]) for u in users]
    assert len({row[2] for row in found}) == 2


def test_a_second_load_changes_nothing(place: House):
    before = {name: contents(place, name) for name in NEW}
    assert all(before[n] for n in NEW), [n for n in NEW if not before[n]]
    place.portal.clock.advance(60)
    place.feed(*NEW)
    assert {name: contents(place, name) for name in NEW} == before


@pytest.mark.parametrize("table", CHANGING)
def test_changes_new_rows_and_deletions_arrive(place: House, table: str):
    entity, key, column = CHANGING[table]
    target, gone = place.live(entity)[0], place.live(entity)[-1]
    place.portal.clock.advance(1200)
    change: dict[str, Any] = {column: "EUR"}
    place.portal.change(entity, target, **change)
    new = place.portal.create(entity, **{column: "USD", "iblockId": 15 if entity == "offer" else 14})
    with place.counted() as stats:
        place.feed(table)
    assert stats["rows"] <= 60 or table == "crm_product"
    shown = {"title": "TITLE"}.get(column, column)
    read = f"SELECT `{shown}` FROM bi.{table} WHERE `{key}` = {{i:String}}"
    assert place.value(read, i=str(target)) == "EUR"
    assert place.value(read, i=str(new)) == "USD"
    place.portal.delete(entity, gone)
    reconcile(place, table)
    if table == "task":  # lists of tasks depend on rights: a second comparison must agree
        assert gone in place.ids(table, key)
        reconcile(place, table)
    assert place.ids(table, key) == place.live(entity)
    place.portal.restore(entity, gone)
    reconcile(place, table)
    assert place.ids(table, key) == place.live(entity)


@pytest.mark.parametrize(
    "table", ["catalog_vat", "sonet_group", "workgroup", "calendar_section", "lists_iblock"]
)
def test_a_snapshot_is_what_the_portal_has(place: House, table: str):
    entity, key = SNAPSHOTS[table]
    gone = place.live(entity)[-1]
    place.portal.delete(entity, gone)
    place.feed(table)
    assert place.ids(table, key) == place.live(entity)
    place.portal.restore(entity, gone)
    place.feed(table)
    assert place.ids(table, key) == place.live(entity)


def test_children_follow_the_task_that_changed(place: House):
    child = place.portal.small["task_comment"]
    task = child.live()[0]["_task"]
    gone = [n for n, row in child.rows.items() if row["_task"] == task]
    place.portal.clock.advance(1200)
    for number in gone:
        child.delete(number)
    child.put(9001, {"_task": task, "AUTHOR_ID": "1", "POST_MESSAGE": "new"})
    place.portal.change("task", task, title="moved")
    place.feed("task", *OF_TASKS)
    assert place.ids("task_comment") == place.live("task_comment")


def test_elapsed_time_is_read_by_pages_with_positional_arguments(place: House):
    assert place.ids("task_elapsed") == place.live("elapsed")
    place.portal.clock.advance(1200)
    for _ in range(120):
        place.portal.create("elapsed", TASK_ID="1", SECONDS="60")
    place.feed("task_elapsed")
    assert place.ids("task_elapsed") == place.live("elapsed")


def test_time_that_is_entered_afterwards_arrives(place: House):
    place.portal.clock.advance(1200)
    late = place.portal.create("elapsed", TASK_ID="1", SECONDS="60", CREATED_DATE="2024-01-09T10:00:00+03:00")
    now = place.portal.create("elapsed", TASK_ID="1", SECONDS="120")
    place.feed("task_elapsed")
    assert {late, now} <= set(place.ids("task_elapsed"))


def test_time_spent_that_is_deleted_leaves_its_view(place: House):
    place.feed("task_elapsed")
    gone = place.live("elapsed")[3]
    place.portal.delete("elapsed", gone)
    reconcile(place, "task_elapsed")
    assert place.ids("task_elapsed") == place.live("elapsed")


def test_calls_of_the_last_week_are_read_again(place: House):
    assert place.ids("voximplant_call") == place.live("call")
    place.portal.clock.advance(1200)
    call = place.portal.create("call", CALL_VOTE=None)
    place.feed("voximplant_call")
    place.portal.clock.advance(86400)
    place.feed("voximplant_call")
    place.portal.change("call", call, CALL_VOTE="5")
    place.feed("voximplant_call")
    assert place.value("SELECT CALL_VOTE FROM bi.voximplant_call WHERE ID = {i:String}", i=str(call)) == 5


def test_products_keep_the_properties_of_their_catalog(place: House):
    text = place.value("SELECT properties FROM bi.crm_product ORDER BY id LIMIT 1")
    assert "property258" in text
    assert "property259" in text
    assert "valueId" in text


def test_rows_that_belong_to_owners_name_them(place: House):
    members = place.portal.small["member"].live()
    expected = sorted((str(r["_group"]), r["USER_ID"], r["ROLE"]) for r in members)
    assert sorted(place.rows("SELECT GROUP_ID, USER_ID, ROLE FROM bi.sonet_group_user")) == expected
    bound = place.rows("SELECT ACTIVITY_ID, entityTypeId, entityId FROM bi.crm_activity_binding")
    owners = place.rows("SELECT ID, toString(OWNER_TYPE_ID), toString(OWNER_ID) FROM bi.crm_activity")
    assert set(bound) == {r for r in owners if r[1] and r[2]}


def test_messages_of_open_lines_name_their_chat_and_object(place: House):
    rows = place.rows("SELECT CHAT_ID, CRM_ENTITY_TYPE, CRM_ENTITY, text FROM bi.openline_message")
    assert rows
    assert all(all(row) for row in rows)


def test_a_false_is_no_text(place: House):
    place.portal.clock.advance(1200)
    task = place.live("task")[0]
    said = place.portal.create("task_comment", _task=task, AUTHOR_NAME=False, POST_MESSAGE="false")
    place.portal.change("task", task, title="moved")
    place.feed("task", "task_comment")
    sql = "SELECT AUTHOR_NAME, POST_MESSAGE FROM bi.task_comment WHERE ID = {i:String}"
    assert place.rows(sql, i=str(said)) == [(None, "false")]


def test_one_owner_that_may_not_be_read_keeps_its_rows_and_nobody_else_back(place: House):
    comments = place.portal.small["task_comment"]
    shut, open_ = sorted({row["_task"] for row in comments.live()})[:2]
    kept = place.ids("task_comment")
    place.portal.clock.advance(1200)
    for task in (shut, open_):
        place.portal.change("task", task, title="moved")
    new = comments.put(9101, {"_task": open_, "AUTHOR_ID": "1", "POST_MESSAGE": "new"})
    for row in [n for n, r in comments.rows.items() if r["_task"] == shut]:
        comments.delete(row)
    for name in OF_TASKS:
        place.portal.small[name].denied.add(shut)
    place.feed("task", *OF_TASKS)
    assert place.ids("task_comment") == sorted({*kept, new})
    for name in OF_TASKS:
        place.portal.small[name].denied.clear()
    place.portal.clock.advance(1200)
    place.portal.change("task", shut, title="moved again")
    place.feed("task", "task_comment")
    assert place.ids("task_comment") == place.live("task_comment")


def test_a_full_load_of_which_nothing_may_be_read_fails(place: House):
    stages = place.portal.small["stage"]
    before = place.ids("task_stage")
    stages.denied = {0, *(int(r["ID"]) for r in place.portal.small["group"].live())}
    result = place.run("task_stage")
    stages.denied = set()
    assert "may not read this" in failures(result)["bitrix24__task_stage"]
    assert place.ids("task_stage") == before


def test_work_time_is_read_for_many_employees_in_a_request(place: House):
    days = place.portal.small["work_day"]
    days.denied = {2}
    with place.counted() as stats:
        place.feed("timeman_record")
    days.denied = set()
    expected = [(r["id"], str(r["userId"]), "CLOSED", "Y") for r in days.live() if r["userId"] != 2]
    sql = "SELECT toInt64(id) AS i, userId, state, isApproved FROM bi.timeman_record ORDER BY i"
    assert place.rows(sql) == expected
    assert stats["http_requests"] < len(place.portal.users)
    assert place.value("SELECT count() FROM bi.timeman_record WHERE endTime > startTime") == len(expected)


def test_long_lists_of_work_time_and_of_lines_are_read_to_their_end(place: House):
    days, lines = place.portal.small["work_day"], place.portal.small["line"]
    for number in range(500, 571):
        days.put(number, {**days.rows[1], "id": number, "userId": 3})
    for number in range(10, 71):
        lines.put(number, {**lines.rows[1], "ID": str(number)})
    place.feed("timeman_record", "openline_config")
    assert place.ids("timeman_record", "id") == place.live("work_day")
    assert place.ids("openline_config") == place.live("line")


@pytest.mark.parametrize("said", [None, False, {}, ""])
def test_an_owner_without_rows_may_be_answered_by_anything(place: House, said: Any):
    results = place.portal.small["task_result"]
    bare = next(n for n in place.live("task") if n not in {row["_task"] for row in results.live()})
    place.portal.clock.advance(1200)
    place.portal.change("task", bare, title=f"without {said!r}")
    results.nothing = said
    place.feed("task", "task_result")
    results.nothing = []
    assert place.ids("task_result", "id") == place.live("task_result")


def test_a_chat_that_others_have_is_read_by_its_sessions(place: House):
    every = place.ids("openline_message", "id")
    place.portal.small["line_message"].denied.add(1)
    place.warehouse.command("TRUNCATE TABLE bitrix24.openline_message")
    place.load("openline_message", days=(day(3), day(0)))
    place.portal.small["line_message"].denied.clear()
    assert place.ids("openline_message", "id")
    assert set(place.ids("openline_message", "id")) <= set(every)


def test_lists_of_groups_are_found_group_by_group(place: House):
    sql = "SELECT IBLOCK_TYPE_ID, SOCNET_GROUP_ID FROM bi.lists_iblock WHERE ID = '33'"
    assert place.rows(sql) == [("lists_socnet", "2")]
    assert place.value("SELECT count() FROM bi.lists_field WHERE IBLOCK_ID = '33'") == 9
    assert place.value("SELECT count() FROM bi.lists_section WHERE IBLOCK_ID = '31'") == 60


def test_elements_of_a_list_of_a_group_are_read_in_its_name(place: House):
    known = {each.number: each for each in universal_lists(place.bitrix24.client)}[33]
    asset = build_asset(universal_list(known), Bitrix24Settings())
    resources = {"bitrix24": place.bitrix24, "warehouse": place.warehouse}
    assert dg.materialize([asset], instance=place.instance, resources=resources, run_config=QUIET).success
    assert place.ids("lists_33") == place.live("list_33")


def test_a_planner_is_its_users(place: House):
    assert place.rows("SELECT ENTITY_ID, ENTITY_TYPE FROM bi.task_stage WHERE ID = '1'") == [("1", "U")]


def test_an_event_tells_of_its_meeting(place: House):
    sql = "SELECT DISTINCT SKIP_TIME, IS_MEETING, UF_CRM_CAL_EVENT, RRULE FROM bi.calendar_event"
    assert place.rows(sql) == [("N", "Y", ["CO_1", "L_5"], '{"BYDAY":{"MO":"MO"},"FREQ":"WEEKLY"}')]


def test_calendar_events_are_instants(place: House):
    rows = place.rows(
        "SELECT toUnixTimestamp64Milli(STARTED_AT) / 1000, toInt64(DATE_FROM_TS_UTC) FROM bi.calendar_event"
    )
    assert len(rows) == len(place.live("calendar_event"))
    assert all(a == b for a, b in rows)
