"""All tables equal the portal, after rows were made, changed, deleted and restored while loads ran."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from etl_assets.loading import FEED_TAG
from tests.etl_assets.bitrix24 import truth
from tests.etl_assets.bitrix24.life import Life
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


def weekly(place: House) -> None:
    """What is read by owner, of all owners, as the schedule asks for it."""
    defs = place.defs
    with dg.build_schedule_context(
        instance=place.instance, repository_def=defs.get_repository_def()
    ) as context:
        asked = defs.get_repository_def().get_schedule_def("bitrix24_children").evaluate_tick(context)
    [request] = asked.run_requests or []
    result = defs.resolve_job_def("bitrix24_children").execute_in_process(
        instance=place.instance, tags=request.tags, run_config=QUIET, raise_on_error=False
    )
    assert result.success, failures(result)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A portal whose feed is loaded, by small requests."""
    config = small_portal(smart_processes=False, contacts=130)
    with house(tmp_path_factory.mktemp("few"), config, BITRIX24_BATCH_ROWS="50") as place:
        ran(place, FEED)
        yield place


@pytest.fixture
def few(loaded: House) -> Iterator[House]:
    """The same twenty minutes later."""
    loaded.portal.clock.advance(1200)
    yield loaded
    loaded.portal.between = lambda: None
    loaded.portal.faults.clear()


def test_an_owner_that_was_away_while_its_links_were_read_has_them_after_the_weekly_load(few: House):
    """It came back as it was, with its old change time, before a comparison noticed that it was gone."""
    ids = "SELECT toInt64(DEAL_ID) FROM bi.crm_deal_contact ORDER BY 1 LIMIT 1"
    deal = few.value(ids)
    links = "SELECT count() FROM bi.crm_deal_contact WHERE DEAL_ID = {d:String}"
    before = few.value(links, d=str(deal))
    few.portal.change(2, deal, TITLE="changed")
    few.feed("crm_deal")
    few.portal.delete("deal", deal)
    few.feed("crm_deal_contact")
    few.portal.clock.advance(1200)
    few.feed("crm_deal", "crm_deal_contact")
    few.portal.restore("deal", deal)
    few.portal.clock.advance(1200)
    few.feed("crm_deal", "crm_deal_contact")
    assert few.value(links, d=str(deal)) == 0
    weekly(few)
    assert few.value(links, d=str(deal)) == before > 0


def long_run(place: House) -> None:
    """Let so many rows of an entity change that the next run is busy with it for several requests."""
    for contact in place.live("contact"):
        place.portal.change("contact", contact, COMMENTS="changed")


def comparison(place: House, *entities: str, sweep: bool = False) -> dg.ExecuteInProcessResult:
    """The nightly comparison, of these entities only, or the weekly one of all ids."""
    place.portal.clock.advance(60)
    job = place.defs.resolve_job_def("bitrix24_reconciliation")
    config = {"ops": {"bitrix24__deleted_objects": {"config": {"entities": list(entities), "sweep": sweep}}}}
    return job.execute_in_process(
        instance=place.instance, run_config={**QUIET, **config}, raise_on_error=False
    )


def compared(place: House, *entities: str, sweep: bool = False) -> None:
    result = comparison(place, *entities, sweep=sweep)
    assert result.success, failures(result)


def contacts(place: House, deal: int) -> list[int]:
    sql = "SELECT toInt64(CONTACT_ID) AS i FROM bi.crm_deal_contact WHERE DEAL_ID = {d:String} ORDER BY i"
    return [n for (n,) in place.rows(sql, d=str(deal))]


def test_children_follow_owners_whose_page_was_read_before_their_turn(few: House):
    """A run reads the opening pages of all entities at once; their turn may come minutes later."""
    long_run(few)
    few.portal.change("deal", 7, CONTACT_IDS=[3, 4])
    few.portal.between = lambda: few.portal.clock.advance(5)
    ran(few, FEED)
    assert contacts(few, 7) == [3, 4]


def test_a_row_that_changes_after_its_page_was_read_comes_with_the_next_run(few: House):
    """However long the rest of the run takes."""
    long_run(few)
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


def test_a_change_is_seen_though_the_row_was_gone_just_while_the_comparison_looked(few: House):
    lead = few.live("lead")[3]
    few.portal.change("lead", lead, TITLE="changed at last")
    few.portal.delete("lead", lead)
    few.portal.clock.advance(1200)
    ran(few, FEED)
    few.portal.reset_stats()

    def back() -> None:
        if few.portal.stats_data.calls["crm.lead.list"] >= 2 and lead not in few.live("lead"):
            few.portal.restore("lead", lead)

    few.portal.between = back
    compared(few, "crm_lead")
    few.portal.clock.advance(1200)
    ran(few, FEED)
    compared(few, "crm_lead")
    assert few.value("SELECT TITLE FROM bi.crm_lead WHERE ID = {i:String}", i=str(lead)) == "changed at last"


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


def test_the_time_of_activity_follows_the_timeline(few: House):
    company, item = few.live("company")[0], few.live("smart_invoice")[0]
    few.portal.create("timeline_comment", ENTITY_ID=str(company), ENTITY_TYPE="company")
    few.portal.change("smart_invoice", item, silent=True, LAST_ACTIVITY_TIME=few.portal.now())
    ran(few, FEED)
    for table, number in (("crm_company", company), ("crm_smart_invoice", item)):
        sql = f"SELECT toUnixTimestamp64Milli(LAST_ACTIVITY_TIME) FROM bi.{table} WHERE ID = {{i:String}}"
        assert few.value(sql, i=str(number)) == few.portal.now() * 1000


def test_a_portal_that_does_not_know_the_time_of_activity_in_filters_loads_all_the_same(few: House):
    few.portal.faults.add("ignore_filter", method="crm.company.list", times=None, keys=["LAST_ACTIVITY_TIME"])
    company = few.live("company")[0]
    few.portal.change("company", company, TITLE="changed")
    ran(few, FEED)
    assert few.value("SELECT TITLE FROM bi.crm_company WHERE ID = {i:String}", i=str(company)) == "changed"


# The suite tries the change feed with one seed. SVOD_LIFE_SEEDS=20 tries everything that the clock loads with
# twenty of them, a minute each.
CHOSEN = os.environ.get("SVOD_LIFE_SEEDS", "")
JOBS, TABLES = (ALL, truth.EVERY) if CHOSEN else ((FEED,), truth.OF_THE_FEED)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A portal of which nothing is loaded yet, with lists and smart processes."""
    config = small_portal(users=6, operating_mode="absent")
    settings: dict[str, Any] = {
        "BITRIX24_DELETED_SHARE_PCT": "100",
        "BITRIX24_IN_FLIGHT": "1",
    }  # in order, so that seeds repeat
    with house(tmp_path_factory.mktemp("town"), config, lasting=True, **settings) as place:
        place.refresh_smart_processes()
        place.refresh_universal_lists()
        yield place


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", range(int(CHOSEN or 1)))
def test_every_table_equals_the_portal_after_a_life_with_loads_and_faults(
    town: House, seed: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resources.bitrix24.portal.LONGEST_BACKOFF_S", 0)
    life = Life(town.portal, seed)
    with life.going_on():
        for action in ("status", "reset", "truncate", "html"):
            town.portal.faults.add(action, skip=life.random.randrange(30), status=503)
        for name in JOBS:
            scheduled(town, name)  # what fails now is for the next run
        town.portal.clock.advance(life.random.choice((300, 1200, 7200)))
        scheduled(town, FEED)
        comparison(town)
    town.portal.faults.clear()
    life.quietly(5)
    town.portal.clock.advance(1200)
    ran(town, *JOBS)
    compared(town)
    for _ in range(2 if "task" in TABLES else 1):  # tasks are believed to be gone at the second sight
        compared(town, sweep=True)
    ran(town, *(name for name in JOBS if name in OFTEN))
    if CHOSEN:
        weekly(town)
    found = [*truth.differences(town, TABLES), *truth.history_differences(town)]
    assert not found, "\n".join(map(str, found[:30]))
