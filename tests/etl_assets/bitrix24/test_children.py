"""Product rows and links: rows that can only be listed by owner follow their owners."""

from collections.abc import Iterator

import pytest

from tests.etl_assets.house import House, day, house, small_portal

CHILDREN = ("crm_productrow", "crm_deal_contact")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Deals with their children, loaded."""
    with house(tmp_path_factory.mktemp("children"), small_portal(smart_processes=False)) as place:
        place.feed("crm_deal", *CHILDREN)
        yield place


def products(place: House, deal: int) -> list[int]:
    where = "ownerType = 'D' AND ownerId = {d:String}"
    sql = f"SELECT toInt64(id) AS i FROM bi.crm_productrow WHERE {where} ORDER BY i"
    return [r[0] for r in place.rows(sql, d=str(deal))]


def contacts(place: House, deal: int) -> list[str]:
    sql = (
        "SELECT CONTACT_ID FROM bi.crm_deal_contact WHERE DEAL_ID = {d:String} ORDER BY toUInt64(CONTACT_ID)"
    )
    return [r[0] for r in place.rows(sql, d=str(deal))]


def on_the_portal(place: House, deal: int) -> list[int]:
    return sorted(r["id"] for r in place.portal.product_rows(2, deal))


def with_products(place: House) -> int:
    """A deal that has several product rows."""
    return next(d for d in place.live("deal") if 2 <= len(on_the_portal(place, d)) < 50)


def test_product_rows_that_an_owner_no_longer_has_are_taken_out_and_come_back(place: House):
    deal = with_products(place)
    all_rows = place.portal.product_rows(2, deal)
    assert products(place, deal) == on_the_portal(place, deal)
    for kept in (all_rows[:1], [], all_rows):
        place.portal.clock.advance(120)
        place.portal.products[2, deal] = kept
        place.portal.change("deal", deal, COMMENTS=f"{len(kept)} rows")
        place.feed("crm_deal", "crm_productrow")
        assert products(place, deal) == sorted(r["id"] for r in kept)


def test_rows_that_were_taken_out_stay_in_the_raw_table_with_their_mark(place: House):
    deal = with_products(place)
    gone = place.portal.product_rows(2, deal)[0]["id"]
    place.portal.clock.advance(120)
    place.portal.products[2, deal] = []
    place.portal.change("deal", deal, COMMENTS="empty")
    place.feed("crm_deal", "crm_productrow")
    sql = "SELECT argMax(is_deleted, dt_inserted) FROM bitrix24.crm_productrow WHERE id = {i:String}"
    assert place.value(sql, i=str(gone)) == 1


def test_links_that_an_owner_no_longer_has_are_taken_out_and_come_back(place: House):
    deal = place.live("deal")[0]
    for linked in ([3, 5, 7], [5], [], [3, 5]):
        place.portal.clock.advance(120)
        place.portal.change("deal", deal, CONTACT_IDS=linked)
        place.feed("crm_deal", "crm_deal_contact")
        assert contacts(place, deal) == [str(c) for c in linked]


def test_nobody_elses_children_are_touched(place: House):
    deal = place.live("deal")[1]
    others = {d: products(place, d) for d in place.live("deal")[2:]}
    place.portal.clock.advance(120)
    place.portal.change("deal", deal, CONTACT_IDS=[], COMMENTS="alone")
    place.feed("crm_deal", *CHILDREN)
    assert {d: products(place, d) for d in others} == others


def test_children_of_owners_that_arrive_late_are_picked_up(place: House):
    place.portal.clock.advance(120)
    deal = place.portal.create("deal", TITLE="late", CONTACT_IDS=[2, 4])
    place.portal.products[2, deal] = [
        {**place.portal.product_rows(2, with_products(place))[0], "id": 7, "ownerId": deal}
    ]
    place.portal.clock.advance(3600)
    place.feed(*CHILDREN)
    assert contacts(place, deal) == []
    place.portal.clock.advance(60)
    place.feed("crm_deal")
    place.feed(*CHILDREN)
    assert (contacts(place, deal), products(place, deal)) == (["2", "4"], [7])


def test_a_tick_without_changed_owners_asks_for_no_children(place: House):
    place.feed("crm_deal", *CHILDREN)
    place.portal.clock.advance(60)
    with place.counted() as stats:
        place.feed("crm_deal", *CHILDREN)
    assert not {"crm.item.productrow.list", "crm.deal.contact.items.get"} & set(stats["calls"])


def test_children_of_a_day_are_those_of_the_owners_that_changed_on_it(place: House):
    place.forget()
    place.portal.clock.advance(60)
    deal = place.portal.create("deal", TITLE="of today", CONTACT_IDS=[9])
    place.load("crm_deal", *CHILDREN, days=(day(0), day(0)))
    assert contacts(place, deal) == ["9"]
    assert set(place.ids("crm_deal_contact", "DEAL_ID")) <= set(place.ids("crm_deal"))
