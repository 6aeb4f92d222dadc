"""Timeline comments are found by the time of their owner's last activity: nothing else of it shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.etl_assets.house import House, house, small_portal

DYNAMIC = 177
OWNERS: dict[str, str | int] = {
    **{kind: kind for kind in ("lead", "deal", "contact", "company")},
    f"dynamic_{DYNAMIC}": DYNAMIC,
}
TABLES = ("crm_lead", "crm_deal", "crm_contact", "crm_company", f"crm_dynamic_items_{DYNAMIC}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    config = small_portal(deals=30, leads=10, contacts=12, companies=8, quotes=0, activities=0)
    with house(tmp_path_factory.mktemp("comments"), config, lasting=True) as place:
        place.refresh_smart_processes()
        place.feed(*TABLES)
        place.feed("crm_timeline_comment")
        yield place


def comment(place: House, kind: str, owner: int, text: str) -> int:
    said = {"ENTITY_TYPE": kind, "ENTITY_ID": str(owner), "COMMENT": text}
    return place.portal.create("timeline_comment", **said)


def shown(place: House, number: int) -> list[Any]:
    sql = "SELECT COMMENT FROM bi.crm_timeline_comment WHERE ID = {i:String}"
    return [text for (text,) in place.rows(sql, i=str(number))]


def tick(place: House) -> dict[str, Any]:
    """A tick of the comments alone: no owner is read again. What it asked for."""
    place.portal.clock.advance(1200)
    with place.counted() as stats:
        place.feed("crm_timeline_comment")
    return stats["calls"]


def test_every_comment_is_here(place: House):
    assert place.ids("crm_timeline_comment") == place.live("timeline_comment") != []


@pytest.mark.parametrize("kind", OWNERS)
def test_a_comment_that_is_written_edited_or_deleted_is_found_by_its_owner(place: House, kind: str):
    owner = place.live(OWNERS[kind])[0]
    before = next(row for row in place.portal.expected(OWNERS[kind], "raw") if row["ID"] == owner)
    tick(place)
    number = comment(place, kind, owner, "written")
    assert tick(place)["crm.timeline.comment.list"] == 1
    assert shown(place, number) == ["written"]
    place.portal.change("timeline_comment", number, COMMENT="edited")
    tick(place)
    assert shown(place, number) == ["edited"]
    place.portal.delete("timeline_comment", number)
    tick(place)
    assert shown(place, number) == []
    after = next(row for row in place.portal.expected(OWNERS[kind], "raw") if row["ID"] == owner)
    assert {n for n in after if after[n] != before[n]} == {"LAST_ACTIVITY_TIME"}


def test_a_tick_without_activity_asks_for_no_comments(place: House):
    tick(place)
    place.portal.change("deal", place.live("deal")[3], COMMENTS="a change is no activity")
    assert "crm.timeline.comment.list" not in tick(place)


def test_an_activity_lets_the_comments_of_its_owner_be_read(place: House):
    owner = place.live("deal")[1]
    number = comment(place, "deal", owner, "as it was")
    tick(place)
    place.portal.small["timeline_comment"].change(number, {"COMMENT": "changed unnoticed"}, None)
    assert "crm.timeline.comment.list" not in tick(place)
    place.portal.create("activity", OWNER_TYPE_ID="2", OWNER_ID=str(owner), SUBJECT="call")
    assert tick(place)["crm.timeline.comment.list"] == 1
    assert shown(place, number) == ["changed unnoticed"]


def test_where_the_portal_keeps_no_time_of_activity_the_change_of_the_owner_counts(
    tmp_path_factory: pytest.TempPathFactory,
):
    config = small_portal(
        deals=20, leads=0, contacts=0, companies=0, quotes=0, activities=0, smart_processes=False
    )
    with house(tmp_path_factory.mktemp("older"), config) as place:
        place.portal.table("deal").remove_field("LAST_ACTIVITY_TIME")
        place.feed("crm_deal")
        place.feed("crm_timeline_comment")
        owner = place.live("deal")[0]
        place.portal.clock.advance(1200)
        number = comment(place, "deal", owner, "of a deal")
        place.portal.change("deal", owner, COMMENTS="changed")
        place.feed("crm_deal")
        tick(place)
        assert shown(place, number) == ["of a deal"]
