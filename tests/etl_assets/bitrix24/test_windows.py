"""Days and ranges of days: what is read, what is counted, and what the watermark makes of it."""

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.etl_assets.house import ZONE, House, day, failures, house, key, small_portal

DAYS = 12
ASSET = "bitrix24/crm_deal"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A portal on which deals were created and changed on each of the last days."""
    config = small_portal(clock_start=int(time.time()) - DAYS * 24 * 3600)
    with house(tmp_path_factory.mktemp("windows"), config, days=DAYS) as place:
        for _ in range(DAYS):
            place.portal.mutate(4)
            place.portal.clock.advance(24 * 3600)
        place.portal.create("deal", TITLE="today's")
        yield place


@pytest.fixture(autouse=True)
def nothing_loaded(place: House) -> None:
    place.forget()


def changed(place: House, first: str, last: str) -> dict[int, str]:
    """id -> day of change, of the deals that changed on these days."""
    rows = place.portal.expected("deal", "raw")
    days = {row["ID"]: str(row["DATE_MODIFY"].astimezone(ZONE).date()) for row in rows}
    return {number: at for number, at in days.items() if first <= at <= last}


def partition_rows(place: House) -> dict[str, Any]:
    """Partition -> its own row count, of every materialization so far."""
    found: dict[str, Any] = {}
    for record in place.instance.fetch_materializations(key("crm_deal"), limit=2 * DAYS).records:
        event = record.asset_materialization
        assert event
        count = event.metadata["dagster/partition_row_count"].value
        found.setdefault(event.partition or "", count)
    return found


def test_a_day_holds_exactly_what_changed_on_it_in_the_portals_zone(place: House):
    busy, _ = Counter(changed(place, day(DAYS - 1), day(1)).values()).most_common(1)[0]
    place.load("crm_deal", days=(busy, busy))
    assert place.ids("crm_deal") == sorted(changed(place, busy, busy))


def test_the_first_day_has_no_lower_bound(place: House):
    first = day(DAYS)
    place.load("crm_deal", days=(first, first))
    assert place.ids("crm_deal") == sorted(changed(place, "0000", first))


def test_today_has_no_upper_bound(place: House):
    place.portal.clock.advance(3 * 24 * 3600)
    ahead = place.portal.create("deal", TITLE="of a portal whose clock is ahead")
    place.load("crm_deal")
    assert ahead in place.ids("crm_deal")
    place.portal.delete("deal", ahead)


def test_a_range_is_one_run_one_scan_and_counts_every_day(place: House):
    with place.counted() as one_day:
        place.load("crm_deal")
    place.forget()
    with place.counted() as many_days:
        place.load("crm_deal", days=(day(DAYS), day(0)))
    assert many_days["http_requests"] <= one_day["http_requests"] + 1
    assert place.ids("crm_deal") == place.live("deal")
    assert place.value("SELECT count() FROM svod.load_log") == 1
    days = Counter(changed(place, day(DAYS - 1), day(0)).values())
    counted = partition_rows(place)
    assert len(counted) == DAYS + 1
    assert {d: n for d, n in counted.items() if n and d != day(DAYS)} == dict(days)


def test_an_inner_range_has_both_bounds_and_inclusive_days(place: House):
    first, last = day(DAYS - 3), day(3)
    place.load("crm_deal", days=(first, last))
    assert place.ids("crm_deal") == sorted(changed(place, first, last))


def test_a_reversed_range_fails_and_says_why(place: House):
    result = place.run("crm_deal", days=(day(2), day(5)))
    assert not result.success
    assert failures(result) == {
        "bitrix24__crm_deal": "The partition range ends before it starts: give the earlier day first."
    }


def test_a_day_loaded_twice_changes_nothing(place: House):
    for _ in range(2):
        place.load("crm_deal", days=(day(9), day(1)))
    assert place.ids("crm_deal") == sorted(changed(place, day(9), day(1)))


def mark(place: House) -> datetime | None:
    return place.warehouse.watermark(ASSET)


def test_days_of_the_past_do_not_move_the_watermark(place: House):
    place.load("crm_deal", days=(day(8), day(4)))
    assert mark(place) is None
    place.feed("crm_deal")
    before = mark(place)
    place.portal.clock.advance(600)
    place.load("crm_deal", days=(day(8), day(4)))
    assert mark(place) == before


def test_today_alone_is_no_complete_load(place: House):
    place.load("crm_deal")
    assert mark(place) is None
    place.feed("crm_deal")
    assert place.ids("crm_deal") == place.live("deal")


def test_a_range_that_joins_the_watermark_moves_it_to_the_portals_clock(place: House):
    place.feed("crm_deal")
    place.portal.clock.advance(600)
    place.load("crm_deal", days=(day(1), day(0)))
    assert mark(place) == datetime.fromtimestamp(place.portal.now(), UTC)


def test_a_failed_load_leaves_the_watermark_and_no_log_row(place: House):
    place.feed("crm_deal")
    before = mark(place)
    place.portal.clock.advance(600)
    place.portal.faults.add("nested_error", method="crm.item.list", times=None, code="ACCESS_DENIED")
    place.portal.faults.add("nested_error", method="crm.deal.list", times=None, code="ACCESS_DENIED")
    result = place.run("crm_deal", feed=True)
    place.portal.faults.clear()
    assert not result.success
    assert mark(place) == before
    assert place.value("SELECT count() FROM svod.load_log") == 1
