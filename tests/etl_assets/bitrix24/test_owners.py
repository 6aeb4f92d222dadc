"""What belongs to a deleted row leaves the views with it, and comes back with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from etl_assets.bitrix24.entities import ENTITIES
from etl_assets.bitrix24.entity import Owner
from tests.etl_assets.house import QUIET, House, failures, house, small_portal

CHILDREN = tuple(e.name for e in ENTITIES if e.goes_with)
DYNAMIC = 177
OWNERS = {
    **{kind: f"crm_{kind}" for kind in ("deal", "lead", "contact", "company", "quote", "activity")},
    "task": "task",
    DYNAMIC: f"crm_dynamic_items_{DYNAMIC}",
}
CODES = {"deal": "D", "lead": "L", "quote": "Q", DYNAMIC: f"T{DYNAMIC:x}"}
STAGED = {"deal": 2, "lead": 1, DYNAMIC: DYNAMIC}
PEOPLE = ("deal", "lead", "contact", "company")
TASK_PARTS = ("comment", "history", "result", "checklist")
# (table, entity of the sandbox that owns, SQL that only needs the owner's id on its right)
BELONGINGS: list[tuple[str, str | int, str]] = [
    *(("crm_timeline_comment", kind, f"ENTITY_TYPE = '{kind}' AND ENTITY_ID") for kind in PEOPLE),
    ("crm_timeline_comment", DYNAMIC, f"ENTITY_TYPE = 'dynamic_{DYNAMIC}' AND ENTITY_ID"),
    *(("crm_productrow", kind, f"ownerType = '{code}' AND ownerId") for kind, code in CODES.items()),
    *(("crm_stage_history", kind, f"ENTITY_TYPE_ID = '{n}' AND OWNER_ID") for kind, n in STAGED.items()),
    *((f"crm_{kind}_contact", kind, f"{kind.upper()}_ID") for kind in ("deal", "lead", "quote")),
    ("crm_contact_company", "contact", "CONTACT_ID"),
    ("crm_activity_binding", "activity", "ACTIVITY_ID"),
    *((f"task_{part}", "task", "TASK_ID") for part in TASK_PARTS),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Owners of all kinds and what belongs to them, loaded."""
    config = small_portal(deals=30, leads=10, contacts=12, companies=8, quotes=8, activities=12)
    with house(tmp_path_factory.mktemp("owners"), config, lasting=True) as place:
        item = place.live(DYNAMIC)[0]
        said = {"ENTITY_ID": str(item), "ENTITY_TYPE": f"dynamic_{DYNAMIC}", "COMMENT": "of an item"}
        place.portal.create("timeline_comment", **said)
        place.refresh_smart_processes()
        place.feed(*OWNERS.values())
        place.feed(*CHILDREN, "openline_message")
        yield place


def reconcile(place: House, *entities: str, sweep: bool = False) -> None:
    """A comparison that believes what it finds at once, also of tasks."""
    place.portal.clock.advance(60)
    config = {"ops": {"bitrix24__deleted_objects": {"config": {"entities": list(entities), "confirm": True}}}}
    job = place.defs.resolve_job_def("bitrix24_reconciliation")
    result = job.execute_in_process(
        instance=place.instance, run_config={**QUIET, **config}, raise_on_error=False
    )
    assert result.success, failures(result)


Rows = list[tuple[Any, ...]]


def seen(place: House, table: str, where: str = "''", owner: object = "") -> Rows:
    sql = f"SELECT * EXCEPT dt_inserted FROM bi.{table} WHERE {where} = {{o:String}} ORDER BY ALL"
    return place.rows(sql, o=str(owner))


@dataclass
class Story:
    """Views before a deletion of owners, after it and after their restore; the rows of each deleted owner."""

    views: list[dict[str, Rows]]
    of_gone: dict[tuple[str, str | int], Rows]


@pytest.fixture(scope="module")
def story(place: House) -> Story:
    """One owner of each kind that has rows of each table is deleted and restored."""
    told = Story([], {})
    gone: list[tuple[str | int, int]] = []
    for table, kind, where in BELONGINGS:
        owner = next(o for o in place.live(kind) if seen(place, table, where, o))
        gone += [(kind, owner)] if (kind, owner) not in gone else []
    for table, kind, where in BELONGINGS:
        owners = [o for k, o in gone if k == kind]
        told.of_gone[table, kind] = [row for o in owners for row in seen(place, table, where, o)]
    for act, chosen in ((None, []), (place.portal.delete, gone), (place.portal.restore, gone[::-1])):
        for kind, owner in chosen:
            assert act is not None
            act(kind, owner)
        if chosen:
            reconcile(place, *OWNERS.values())
        told.views.append({table: seen(place, table) for table in CHILDREN})
    return told


@pytest.mark.parametrize(("table", "kind"), [b[:2] for b in BELONGINGS])
def test_rows_of_a_deleted_owner_leave_the_view(story: Story, table: str, kind: str | int):
    before, after, _ = story.views
    assert story.of_gone[table, kind]
    assert not [row for row in after[table] if row in story.of_gone[table, kind]]
    of_any = [row for (name, _), rows in story.of_gone.items() if name == table for row in rows]
    assert after[table] == [row for row in before[table] if row not in of_any]


@pytest.mark.parametrize("table", CHILDREN)
def test_they_come_back_with_it(story: Story, table: str):
    before, after, back = story.views
    assert before[table] == back[table] != after[table]


def test_a_row_without_an_owner_goes_with_nobody(place: House):
    lost = "SELECT ENTITY_ID IS NULL FROM bi.crm_timeline_comment WHERE ID = '90001'"
    row = "(ID, dt_inserted) VALUES ('90001', now())"
    place.warehouse.command(f"INSERT INTO bitrix24.crm_timeline_comment {row}")
    lead = place.live("lead")[0]
    place.portal.delete("lead", lead)
    reconcile(place, "crm_lead")
    assert place.value(lost) == 1
    place.portal.restore("lead", lead)
    reconcile(place, "crm_lead")


def test_messages_of_a_chat_stay_though_an_activity_of_that_number_is_gone(place: House):
    chats = "SELECT DISTINCT toInt64(CHAT_ID) FROM bi.openline_message"
    before = sorted(place.rows(chats))
    activity = next(a for a in place.live("activity") if (a,) in before)
    place.portal.delete("activity", activity)
    reconcile(place, "crm_activity")
    assert activity not in place.ids("crm_activity")
    assert sorted(place.rows(chats)) == before
    place.portal.restore("activity", activity)
    reconcile(place, "crm_activity")


def test_what_is_compared_by_its_own_ids_goes_with_nobody():
    deal = next(e for e in ENTITIES if e.name == "crm_deal")
    with pytest.raises(ValueError, match="crm_deal"):
        replace(deal, goes_with=Owner("COMPANY_ID", "crm_company"))


def test_a_night_of_no_changes_costs_fewer_requests_than_there_are_entities(place: House):
    reconcile(place)
    with place.counted() as stats:
        reconcile(place)
    figures = place.metadata("deleted_objects")
    compared = str(figures["compared"])
    assert all(f"| {table} |" in compared for table in OWNERS.values())
    assert stats["http_requests"] == figures["http_requests"] <= 4


def test_a_smart_process_that_is_gone_stops_nobody(place: House):
    number = place.portal.add_smart_process("short-lived", items=3)["entityTypeId"]
    place.refresh_smart_processes()
    place.feed(f"crm_dynamic_items_{number}")
    for item in place.live(number):
        place.portal.delete(number, item)
    place.portal.delete_smart_process(number)
    reconcile(place, f"crm_dynamic_items_{number}", "crm_lead", sweep=True)
    reconcile(place, f"crm_dynamic_items_{number}", "crm_lead")
    assert "no longer has this smart process" in str(place.metadata("deleted_objects")["compared"])
