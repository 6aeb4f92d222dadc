"""All tables equal the portal, after rows were made, changed, deleted and restored while loads ran."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from etl_assets.loading import FEED_TAG
from tests.etl_assets.house import QUIET, House, day, failures, house, small_portal

FEED = "bitrix24_change_feed"
OFTEN = (FEED, "bitrix24_work")
ALL = (*OFTEN, "bitrix24_dictionaries", "bitrix24_structure")


def scheduled(place: House, name: str) -> dg.ExecuteInProcessResult:
    """A run as the schedule of this job starts it."""
    job = place.defs.resolve_job_def(name)
    return job.execute_in_process(
        instance=place.instance,
        tags={FEED_TAG: "true"},
        partition_key=day(0) if job.partitions_def else None,
        run_config=QUIET,
        raise_on_error=False,
    )


def ran(place: House, *names: str) -> None:
    for name in names:
        result = scheduled(place, name)
        assert result.success, failures(result)


@pytest.fixture
def few(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A portal whose feed is loaded; since then so many contacts changed that they fill several requests."""
    config = small_portal(smart_processes=False, contacts=180)
    with house(tmp_path_factory.mktemp("few"), config, BITRIX24_BATCH_ROWS="50") as place:
        ran(place, FEED)
        place.portal.clock.advance(1200)
        for contact in place.live("contact"):
            place.portal.change("contact", contact, COMMENTS="changed")
        yield place
        place.portal.between = lambda: None


def compared(place: House, *entities: str) -> None:
    """The nightly comparison, of these entities only."""
    place.portal.clock.advance(60)
    job = place.defs.resolve_job_def("bitrix24_reconciliation")
    config = {"ops": {"bitrix24__deleted_objects": {"config": {"entities": list(entities)}}}}
    result = job.execute_in_process(
        instance=place.instance, run_config={**QUIET, **config}, raise_on_error=False
    )
    assert result.success, failures(result)


def contacts(place: House, deal: int) -> list[int]:
    sql = "SELECT toInt64(CONTACT_ID) AS i FROM bi.crm_deal_contact WHERE DEAL_ID = {d:String} ORDER BY i"
    return [n for (n,) in place.rows(sql, d=str(deal))]


def test_children_follow_owners_whose_page_was_read_before_their_turn(few: House):
    """A run reads the opening pages of all entities at once; their turn may come minutes later."""
    few.portal.change("deal", 7, CONTACT_IDS=[3, 4])
    few.portal.between = lambda: few.portal.clock.advance(5)
    ran(few, FEED)
    assert contacts(few, 7) == [3, 4]


def test_a_row_that_changes_after_its_page_was_read_comes_with_the_next_run(few: House):
    """However long the rest of the run takes."""
    few.portal.reset_stats()

    def later() -> None:
        few.portal.clock.advance(600)
        if few.portal.stats_data.calls["crm.lead.list"] == 1:
            few.portal.change("lead", 5, TITLE="after the page")

    few.portal.between = later
    ran(few, FEED)
    few.portal.between = lambda: None
    ran(few, FEED)
    assert few.value("SELECT TITLE FROM bi.crm_lead WHERE ID = '5'") == "after the page"


def test_a_row_that_comes_back_while_another_goes_is_seen_though_the_counts_agree(few: House):
    first, second = few.live("lead")[:2]
    few.portal.delete("lead", first)
    compared(few, "crm_lead")
    few.portal.delete("lead", second)
    few.portal.restore("lead", first)
    compared(few, "crm_lead")
    assert few.ids("crm_lead") == few.live("lead")


def test_a_change_that_was_hidden_in_the_recycle_bin_arrives_with_its_children(few: House):
    """Restoring moves no change time: by the time that the row is listed again its change is long ago."""
    deal = few.live("deal")[2]
    few.portal.change("deal", deal, TITLE="changed at last", CONTACT_IDS=[5, 6])
    few.portal.delete("deal", deal)
    for _ in range(2):
        few.portal.clock.advance(1200)
        ran(few, FEED)
    few.portal.restore("deal", deal)
    compared(few, "crm_deal")
    ran(few, FEED)
    assert few.value("SELECT TITLE FROM bi.crm_deal WHERE ID = {d:String}", d=str(deal)) == "changed at last"
    assert contacts(few, deal) == [5, 6]


def test_a_row_that_went_to_the_recycle_bin_before_it_was_read_is_loaded_when_it_comes_back(few: House):
    new = few.portal.create("lead", TITLE="new")
    few.portal.delete("lead", new)
    few.portal.clock.advance(1200)
    ran(few, FEED)
    gone = few.live("lead")[0]
    few.portal.delete("lead", gone)
    few.portal.restore("lead", new)
    compared(few, "crm_lead")
    assert few.ids("crm_lead") == few.live("lead")


def test_time_spent_that_is_deleted_leaves_its_view(few: House):
    ran(few, "bitrix24_work")
    first, *_, last = few.live("elapsed")
    few.portal.delete("elapsed", first)
    compared(few, "task_elapsed")
    assert few.ids("task_elapsed") == few.live("elapsed")
    few.portal.restore("elapsed", first)
    few.portal.delete("elapsed", last)
    compared(few, "task_elapsed")
    assert few.ids("task_elapsed") == few.live("elapsed")


def test_a_group_that_is_deleted_before_its_members_are_read_stops_nothing(few: House):
    ran(few, "bitrix24_dictionaries")
    few.portal.delete("group", few.live("group")[0])
    ran(few, "bitrix24_structure")
    members = {str(row["_group"]) for row in few.portal.small["member"].live()}
    assert {group for (group,) in few.rows("SELECT GROUP_ID FROM bi.sonet_group_user")} == members
