"""Rows that are deleted on the portal vanish from the views, restored ones come back, doubt marks nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator

import dagster as dg
import pytest

from etl_assets.bitrix24.events import received_inbox
from tests.etl_assets.house import QUIET, House, failures, house, small_portal

DEALS = 400
TABLES = ("crm_deal", "crm_lead", "crm_productrow", "crm_deal_contact")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    config = small_portal(deals=DEALS, smart_processes=False)
    with house(tmp_path_factory.mktemp("deletions"), config) as place:
        place.feed(*TABLES)
        yield place


def reconcile(place: House, *entities: str, **options: bool) -> dg.ExecuteInProcessResult:
    place.portal.clock.advance(60)
    job = place.defs.resolve_job_def("bitrix24_reconciliation")
    config = {"entities": list(entities), **options}
    return job.execute_in_process(
        instance=place.instance,
        run_config={**QUIET, "ops": {"bitrix24__deleted_objects": {"config": config}}},
        raise_on_error=False,
    )


def reconciled(place: House, *entities: str, **options: bool) -> None:
    result = reconcile(place, *entities, **options)
    assert result.success, failures(result)


def erase(place: House, table: str, where: str) -> None:
    place.warehouse.command(f"ALTER TABLE bitrix24.{table} DELETE WHERE {where} SETTINGS mutations_sync = 2")


def same(place: House, entity: str = "deal") -> bool:
    return place.ids(f"crm_{entity}") == place.live(entity)


def test_deleted_rows_leave_the_view_and_are_listed_with_their_last_row(place: House):
    gone = place.live("deal")[5:60:9]
    for deal in gone:
        place.portal.delete("deal", deal)
    assert not same(place)
    with place.counted() as stats:
        reconciled(place, "crm_deal")
    assert same(place)
    marks = place.rows(
        "SELECT toInt64(id) AS i, source, restored_at, last_row FROM bi.deleted_objects "
        "WHERE entity = 'crm_deal' AND restored_at IS NULL ORDER BY i"
    )
    assert [(i, source, at) for i, source, at, _ in marks] == [(i, "reconcile", None) for i in gone]
    assert [json.loads(row)["ID"] for *_, row in marks] == [str(i) for i in gone]
    assert stats["http_requests"] <= 12


def test_rows_that_changed_lately_are_counted_and_not_read_again(place: House):
    """However many: the change feed has read them."""
    reconciled(place, "crm_deal")
    for deal in place.live("deal"):
        place.portal.change(2, deal, TITLE="changed today")
    place.feed("crm_deal")
    with place.counted() as stats:
        reconciled(place, "crm_deal")
    assert stats["http_requests"] <= 2


def test_nothing_to_do_costs_two_requests_and_marks_nothing(place: House):
    reconciled(place, "crm_deal")
    before = place.value("SELECT count() FROM bitrix24.deleted_objects")
    with place.counted() as stats:
        reconciled(place, "crm_deal")
    assert stats["http_requests"] <= 2
    assert place.value("SELECT count() FROM bitrix24.deleted_objects") == before


def test_restored_rows_come_back_with_their_children(place: House):
    deal = next(d for d in place.live("deal") if place.portal.product_rows(2, d))
    rows = "SELECT count() FROM bi.crm_productrow WHERE ownerType = 'D' AND ownerId = {d:String}"
    assert place.value(rows, d=str(deal)) > 0
    place.portal.delete("deal", deal)
    reconciled(place, "crm_deal")
    assert place.value(rows, d=str(deal)) == 0
    place.portal.restore("deal", deal)
    reconciled(place, "crm_deal")
    assert same(place)
    assert place.value(rows, d=str(deal)) == len(place.portal.product_rows(2, deal))
    sql = "SELECT countIf(restored_at IS NOT NULL), count() FROM bi.deleted_objects WHERE id = {d:String}"
    assert place.rows(sql, d=str(deal)) == [(1, 1)]


def test_a_row_that_a_feed_reads_again_is_no_longer_marked(place: House):
    deal = place.live("deal")[3]
    place.portal.delete("deal", deal)
    reconciled(place, "crm_deal")
    assert deal not in place.ids("crm_deal")
    place.portal.restore("deal", deal)
    place.portal.clock.advance(60)
    place.portal.change("deal", deal, COMMENTS="back")
    place.feed("crm_deal")
    assert same(place)


def test_a_row_deleted_twice_has_two_marks(place: House):
    deal = place.live("deal")[4]
    for _ in range(2):
        place.portal.delete("deal", deal)
        reconciled(place, "crm_deal")
        assert same(place)
        place.portal.restore("deal", deal)
        reconciled(place, "crm_deal")
        assert same(place)
    sql = "SELECT count() FROM bi.deleted_objects WHERE id = {d:String} AND restored_at IS NOT NULL"
    assert place.value(sql, d=str(deal)) == 2


def test_rows_that_are_missing_here_are_loaded_and_their_children_with_the_next_tick(place: House):
    deal = next(d for d in place.live("deal") if place.portal.product_rows(2, d))
    erase(place, "crm_deal", f"ID = '{deal}'")
    erase(place, "crm_productrow", f"ownerId = '{deal}' AND ownerType = 'D'")
    reconciled(place, "crm_deal")
    assert same(place)
    place.feed("crm_productrow")
    sql = "SELECT count() FROM bi.crm_productrow WHERE ownerType = 'D' AND ownerId = {d:String}"
    assert place.value(sql, d=str(deal)) == len(place.portal.product_rows(2, deal))


def test_lost_rights_mark_nothing_until_somebody_confirms(place: House):
    hidden = place.live("deal")[: DEALS * 9 // 10]
    place.portal.hide("deal", hidden)
    before = place.ids("crm_deal")
    result = reconcile(place, "crm_deal", "crm_lead")
    said = " ".join(failures(result).values())
    assert not result.success
    assert "crm_deal" in said
    assert "rights" in said
    assert "--confirm" in said
    assert place.ids("crm_deal") == before
    place.portal.unhide("deal", hidden)
    reconciled(place)
    assert same(place)
    assert place.ids("crm_deal") == before


def test_a_mass_deletion_that_is_confirmed_is_marked(place: House):
    gone = place.live("lead")[:15]
    for lead in gone:
        place.portal.delete("lead", lead)
    assert not reconcile(place, "crm_lead").success
    reconciled(place, "crm_lead", confirm=True)
    assert same(place, "lead")


def test_fewer_rights_than_the_time_before_mark_nothing(place: House):
    reconciled(place)
    place.portal.delete("deal", place.live("deal")[0])
    place.portal.config.admin = False
    result = reconcile(place, "crm_deal")
    place.portal.config.admin = True
    assert "administrator" in " ".join(failures(result).values())
    assert not same(place)
    reconciled(place)
    assert same(place)


@pytest.mark.parametrize("action", ["nested_error", "short_page", "drop_label"])
def test_an_answer_that_stays_wrong_fails_and_marks_nothing(
    place: House, action: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resources.bitrix24.portal.LONGEST_BACKOFF_S", 0)
    before = place.ids("crm_deal")
    place.portal.delete("deal", place.live("deal")[7])
    options = {"code": "ACCESS_DENIED", "status": 403} if action == "nested_error" else {}
    place.portal.faults.add(action, method="crm.deal.list", times=None, **options)
    place.portal.faults.add(action, method="crm.item.list", times=None, **options)
    result = reconcile(place, "crm_deal")
    place.portal.faults.clear()
    assert not result.success
    assert place.ids("crm_deal") == before
    reconciled(place, "crm_deal")
    assert same(place)


def test_a_page_that_was_cut_short_once_is_read_again(place: House):
    gone = place.live("deal")[-3:]
    for deal in gone:
        place.portal.delete("deal", deal)
    for method in ("crm.deal.list", "crm.item.list"):
        place.portal.faults.add("short_page", method=method, skip=52, times=2, rows=30)
    reconciled(place, "crm_deal")
    place.portal.faults.clear()
    assert same(place)


def test_an_entity_that_there_is_not_is_named(place: House):
    assert "crm_zebra" in " ".join(failures(reconcile(place, "crm_zebra")).values())


def swept(place: House, *entities: str) -> dg.ExecuteInProcessResult:
    return reconcile(place, *entities, sweep=True)


def test_a_sweep_finds_a_row_gone_and_another_missing_that_counts_hide(place: House):
    gone, missing = place.live("deal")[100:102]
    place.portal.delete("deal", gone)
    erase(place, "crm_deal", f"ID = '{missing}'")
    reconciled(place, "crm_deal")
    assert gone in place.ids("crm_deal")
    assert missing not in place.ids("crm_deal")
    assert swept(place, "crm_deal").success
    assert same(place)


def test_a_sweep_of_ids_that_are_the_same_changes_nothing(place: House):
    before = place.value("SELECT count() FROM bitrix24.deleted_objects")
    with place.counted() as stats:
        assert swept(place, "crm_deal", "crm_lead").success
    assert stats["http_requests"] <= 1 + 2 * 2
    assert same(place)
    assert place.value("SELECT count() FROM bitrix24.deleted_objects") == before


def test_a_sweep_brings_back_what_was_restored(place: House):
    deal = place.live("deal")[50]
    place.portal.delete("deal", deal)
    assert swept(place, "crm_deal").success
    assert same(place)
    place.portal.restore("deal", deal)
    assert swept(place, "crm_deal").success
    assert same(place)


def test_a_sweep_believes_in_no_mass_deletion(place: House):
    hidden = place.live("deal")[: DEALS * 9 // 10]
    place.portal.hide("deal", hidden)
    before = place.ids("crm_deal")
    said = " ".join(failures(swept(place, "crm_deal")).values())
    place.portal.unhide("deal", hidden)
    assert "rights" in said
    assert "--confirm" in said
    assert place.ids("crm_deal") == before


def test_rows_that_are_counted_and_not_listed_are_not_gone(place: House):
    before = place.ids("crm_deal")
    for method in ("crm.deal.list", "crm.item.list"):
        place.portal.faults.add("short_page", method=method, times=None)
    result = swept(place, "crm_deal")
    place.portal.faults.clear()
    assert result.success, failures(result)
    assert place.ids("crm_deal") == before
    assert "not listed, but not surely gone" in str(place.metadata("deleted_objects")["compared"])


def test_a_list_that_is_not_counted_is_swept(place: House):
    gone = place.live("deal")[200]
    place.portal.delete("deal", gone)
    for method in ("crm.deal.list", "crm.item.list"):
        place.portal.faults.add("no_total", method=method, times=None)
    result = reconcile(place, "crm_deal")
    place.portal.faults.clear()
    assert result.success, failures(result)
    assert "every id was read" in str(place.metadata("deleted_objects")["compared"])
    assert same(place)


def uncounted(place: House) -> None:
    for method in ("crm.deal.list", "crm.item.list"):
        place.portal.faults.add("no_total", method=method, times=None)


def test_the_end_of_an_uncounted_list_proves_nothing(place: House):
    """Pages that are always cut short: the last rows never come, and nothing tells of them."""
    place.portal.delete("deal", place.live("deal")[300])
    uncounted(place)
    for method in ("crm.deal.list", "crm.item.list"):
        place.portal.faults.add("short_page", method=method, times=None)
    result = swept(place, "crm_deal")
    place.portal.faults.clear()
    assert result.success, failures(result)
    assert same(place)


def test_an_answer_of_an_uncounted_list_that_is_cut_short_fails(place: House):
    uncounted(place)
    with place.counted() as stats:
        assert swept(place, "crm_deal").success
    commands = {name: stats["calls"].get(name, 0) for name in ("crm.deal.list", "crm.item.list")}
    before = place.ids("crm_deal")
    place.portal.delete("deal", place.live("deal")[300])
    for method, sent in commands.items():  # all of the sweep and the counts pass
        place.portal.faults.add("short_page", method=method, skip=sent + 1)
    result = swept(place, "crm_deal")
    place.portal.faults.clear()
    assert "cut short" in " ".join(failures(result).values())
    assert place.ids("crm_deal") == before
    reconciled(place, "crm_deal")
    assert same(place)


def of_funnel(place: House, funnel: int) -> list[int]:
    return [row["ID"] for row in place.portal.expected("deal", "raw") if row["CATEGORY_ID"] == funnel]


def test_rights_lost_for_a_part_of_one_funnel_mark_nothing(place: House):
    """Fewer rows than may go of the table, more than may go of the funnel."""
    before = place.ids("crm_deal")
    funnel = place.portal.categories[2][-1]["id"]
    hidden = of_funnel(place, funnel)[: DEALS // 6]
    assert 20 < len(hidden) <= DEALS // 5
    place.portal.hide("deal", hidden)
    found = [reconcile(place, "crm_deal"), swept(place, "crm_deal")]
    place.portal.unhide("deal", hidden)
    for result in found:
        assert f"rows of the funnel {funnel}" in " ".join(failures(result).values())
    assert place.ids("crm_deal") == before


def test_a_funnel_that_is_no_longer_seen_marks_nothing(place: House):
    reconciled(place, "crm_deal")
    before = place.ids("crm_deal")
    funnels = place.portal.categories[2]
    hidden = of_funnel(place, funnels[-1]["id"])[:5]
    place.portal.hide("deal", hidden)
    place.portal.categories[2] = funnels[:-1]
    said = " ".join(failures(reconcile(place, "crm_deal")).values())
    place.portal.categories[2] = funnels
    place.portal.unhide("deal", hidden)
    assert f"funnels of crm_deal: {funnels[-1]['id']}" in said
    assert place.ids("crm_deal") == before


def test_a_funnel_without_rows_may_go(place: House):
    funnels = place.portal.categories[2]
    place.portal.categories[2] = [*funnels, {**funnels[-1], "id": 99, "name": "empty"}]
    reconciled(place, "crm_deal")
    place.portal.categories[2] = funnels
    reconciled(place, "crm_deal")


def test_a_scope_that_is_taken_away_marks_nothing(place: House):
    reconciled(place, "crm_deal")
    place.portal.delete("deal", place.live("deal")[0])
    scopes = place.portal.config.scopes
    place.portal.config.scopes = tuple(s for s in scopes if s != "telephony")
    said = " ".join(failures(reconcile(place, "crm_deal")).values())
    place.portal.config.scopes = scopes
    assert "scopes: telephony" in said
    assert not same(place)
    reconciled(place, "crm_deal")
    assert same(place)


def test_lost_rights_cost_two_requests(place: House):
    hidden = place.live("deal")[: DEALS * 9 // 10]
    place.portal.hide("deal", hidden)
    with place.counted() as stats:
        assert not reconcile(place, "crm_deal").success
    place.portal.unhide("deal", hidden)
    assert stats["http_requests"] == 2


def received(place: House, deals: list[int]) -> dg.ExecuteInProcessResult:
    """A run that takes in deletions as the receiver of outgoing webhooks keeps them."""
    for deal in deals:
        received_inbox().put({"event": "ONCRMDEALDELETE", "data": {"FIELDS": {"ID": str(deal)}}})
    return reconcile(place, inbox=True)


def test_events_of_rows_that_are_there_mark_nothing(place: House):
    before = place.ids("crm_deal")
    result = received(place, [*before[:30], 10**9])
    assert result.success, failures(result)
    assert place.ids("crm_deal") == before


def test_events_of_rows_that_are_only_hidden_mark_nothing_and_are_kept(place: House):
    before = place.ids("crm_deal")
    hidden = before[: DEALS // 2]
    place.portal.hide("deal", hidden)
    said = " ".join(failures(received(place, hidden)).values())
    place.portal.unhide("deal", hidden)
    assert "lost rights" in said
    assert received_inbox().waiting()
    assert reconcile(place, inbox=True).success
    assert not received_inbox().waiting()
    assert place.ids("crm_deal") == before


def test_events_are_kept_while_the_user_sees_less(place: House):
    reconciled(place, "crm_deal")
    deal = place.live("deal")[0]
    place.portal.delete("deal", deal)
    place.portal.config.admin = False
    said = " ".join(failures(received(place, [deal])).values())
    place.portal.config.admin = True
    assert "administrator" in said
    assert deal in place.ids("crm_deal")
    assert reconcile(place, inbox=True).success
    assert same(place)


def test_a_confirmed_mass_deletion_lets_its_events_pass(place: House):
    gone = place.live("deal")[: DEALS // 3]
    for deal in gone:
        place.portal.delete("deal", deal)
    assert not received(place, gone).success
    reconciled(place, "crm_deal", confirm=True)
    assert same(place)
    assert reconcile(place, inbox=True).success
    assert not received_inbox().waiting()
