"""Field history says what changed, when and by whom; views name what ids stand for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.etl_assets.house import House, house, small_portal


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    config = small_portal(user_fields=True)
    folder, chosen = tmp_path_factory.mktemp("history"), "crm_deal, crm_dynamic_items_177"
    with house(folder, config, lasting=True, BITRIX24_HISTORY=chosen) as place:
        place.refresh_smart_processes()
        place.feed("crm_deal", "crm_lead", "crm_dynamic_items_177")
        place.feed("crm_status", "crm_category", "crm_userfield_enum", "user", "department")
        place.feed("crm_stage_history", "task", "voximplant_call")
        yield place


def changes(place: House, deal: int) -> list[tuple[str, str | None, str | None]]:
    sql = "SELECT field, old, new FROM bi.field_history WHERE entity = 'crm_deal' AND id = {d:String} "
    return place.rows(sql + "ORDER BY changed_at, field", d=str(deal))


def test_the_first_load_is_where_history_begins(place: House):
    assert place.value("SELECT count() FROM bitrix24.field_history") == 0


def test_a_changed_value_is_noted_with_the_old_one_and_its_author(place: House):
    deal = place.live("deal")[0]
    title = place.value("SELECT TITLE FROM bi.crm_deal WHERE ID = {d:String}", d=str(deal))
    place.portal.clock.advance(1200)
    place.portal.change("deal", deal, TITLE='new "title"', OPPORTUNITY=12.5, MODIFY_BY_ID=3, COMMENTS=None)
    place.feed("crm_deal")
    found = {field: (old, new) for field, old, new in changes(place, deal)}
    assert found["TITLE"] == (title, 'new "title"')
    assert found["OPPORTUNITY"][1] == "12.5"
    assert "ID" not in found
    who = "SELECT DISTINCT changed_by, changed_at = d.DATE_MODIFY FROM bi.field_history AS h "
    who += "INNER JOIN bi.crm_deal AS d ON d.ID = h.id WHERE h.id = {d:String}"
    assert place.rows(who, d=str(deal)) == [("3", 1)]


def test_a_load_that_changes_nothing_notes_nothing(place: House):
    before = place.value("SELECT count() FROM bi.field_history")
    place.portal.clock.advance(60)
    place.feed("crm_deal")
    assert place.value("SELECT count() FROM bi.field_history") == before


def test_an_entity_that_is_not_switched_on_has_no_history(place: House):
    lead = place.live("lead")[0]
    place.portal.clock.advance(1200)
    place.portal.change("lead", lead, TITLE="other")
    place.feed("crm_lead")
    assert place.value("SELECT count() FROM bi.field_history WHERE entity = 'crm_lead'") == 0


def test_values_that_change_one_after_another_are_a_chain(place: House):
    deal = place.live("deal")[1]
    for title in ("one", "two", "three"):
        place.portal.clock.advance(1200)
        place.portal.change("deal", deal, TITLE=title)
        place.feed("crm_deal")
    chain = [(old, new) for field, old, new in changes(place, deal) if field == "TITLE"]
    assert chain[1:] == [("one", "two"), ("two", "three")]


def test_smart_processes_have_history_too(place: House):
    item = place.live(177)[0]
    place.portal.clock.advance(1200)
    place.portal.change(177, item, TITLE="renamed")
    place.feed("crm_dynamic_items_177")
    sql = "SELECT new FROM bi.field_history WHERE entity = 'crm_dynamic_items_177' AND field = 'TITLE'"
    assert place.rows(sql) == [("renamed",)]


def test_views_name_stages_funnels_people_and_departments(place: House):
    missing = place.value(
        "SELECT countIf(STAGE_NAME IS NULL OR CATEGORY_NAME IS NULL OR ASSIGNED_BY_NAME IS NULL "
        "OR ASSIGNED_BY_DEPARTMENT IS NULL) FROM bi.crm_deal"
    )
    assert missing == 0
    stages = place.rows(
        "SELECT DISTINCT d.STAGE_NAME = s.NAME FROM bi.crm_deal AS d "
        "INNER JOIN bi.crm_status AS s ON s.STATUS_ID = d.STAGE_ID AND startsWith(s.ENTITY_ID, 'DEAL_STAGE')"
    )
    assert stages == [(1,)]
    names = place.rows("SELECT DISTINCT STAGE_NAME FROM bi.crm_dynamic_items_177")
    assert names
    assert all(n for (n,) in names)


def test_views_name_columns_as_the_vendor_s_bi_datasets_do(place: House):
    wrong = place.value(
        "SELECT countIf(ASSIGNED_BY != concat('[', toString(ASSIGNED_BY_ID), '] ', ASSIGNED_BY_NAME) "
        "OR MODIFIED_BY != concat('[', toString(MODIFY_BY_ID), '] ', MODIFIED_BY_NAME) "
        "OR STAGE != concat('[', STAGE_ID, '] ', STAGE_NAME) OR MODIFIED_BY IS NULL OR STAGE IS NULL) "
        "FROM bi.crm_deal"
    )
    assert wrong == 0


def test_people_are_named_where_the_portal_calls_them_numbers(place: House):
    """Fields of tasks are integers by the portal's own list; those of calls have none."""
    tasks = place.rows(
        "SELECT countIf(RESPONSIBLE_NAME IS NULL), countIf(CREATED_BY_NAME IS NULL), "
        "countIf(length(ACCOMPLICES_NAME) != length(ACCOMPLICES)), "
        "countIf(RESPONSIBLE_DEPARTMENT IS NULL) FROM bi.task"
    )
    assert tasks == [(0, 0, 0, 0)]
    people = "SELECT toString(ID), trim(BOTH ' ' FROM concat(ifNull(NAME, ''), ' ', ifNull(LAST_NAME, ''))) "
    names = dict(place.rows(people + "FROM bi.user"))
    calls = place.rows("SELECT DISTINCT toString(PORTAL_USER_ID), PORTAL_USER_NAME FROM bi.voximplant_call")
    assert calls == [(user, names[user]) for user, _ in calls]


def test_stage_history_names_the_stages_of_each_type_of_owner(place: House):
    """Leads and deals both have a stage NEW; each is called by its own name."""
    rows = place.rows(
        "SELECT DISTINCT h.ENTITY_TYPE_ID, ifNull(h.STAGE_ID, h.STATUS_ID) AS stage, "
        "ifNull(h.STAGE_NAME, h.STATUS_NAME) AS named "
        "FROM bi.crm_stage_history AS h WHERE ENTITY_TYPE_ID IN ('1', '2')"
    )
    assert {kind for kind, _, _ in rows} == {"1", "2"}
    for kind, stage, named in rows:
        where = "ENTITY_ID = 'STATUS'" if kind == "1" else "startsWith(ENTITY_ID, 'DEAL_STAGE')"
        names = place.rows(
            f"SELECT DISTINCT NAME FROM bi.crm_status WHERE {where} AND STATUS_ID = {{s:String}}", s=stage
        )
        assert (named,) in names


def test_options_of_list_fields_are_named_single_and_multiple(place: House):
    fields = place.rows("SELECT DISTINCT FIELD_NAME FROM bi.crm_userfield_enum WHERE ENTITY = 'crm_deal'")
    assert fields
    for (name,) in fields:
        kind = place.value(f"SELECT toTypeName({name}_NAME) FROM bi.crm_deal LIMIT 1")
        if kind.startswith("Array"):
            wrong = f"SELECT countIf(length({name}_NAME) != length({name})) FROM bi.crm_deal"
        else:
            wrong = f"SELECT countIf(({name} IS NULL) != ({name}_NAME IS NULL)) FROM bi.crm_deal"
        assert place.value(wrong) == 0


def test_a_renamed_stage_is_renamed_in_every_view_at_once(place: House):
    place.warehouse.command(
        "INSERT INTO bitrix24.crm_status (ID, ENTITY_ID, STATUS_ID, NAME, dt_inserted) "
        "SELECT ID, ENTITY_ID, STATUS_ID, 'Renamed', now() + 86400 FROM bitrix24.crm_status FINAL "
        "WHERE ENTITY_ID = 'DEAL_STAGE' AND STATUS_ID = 'NEW'"
    )
    assert place.rows("SELECT DISTINCT STAGE_NAME FROM bi.crm_deal WHERE STAGE_ID = 'NEW'") == [("Renamed",)]
