"""Writes, the recycle bin, user fields, smart processes, the event queue, OAuth."""

from typing import Any

import pytest
import requests

from sandbox.bitrix24.oauth import CLIENT_ID, CLIENT_SECRET


def app_call(rest: Any, token: str, method: str, **params: Any) -> requests.Response:
    url = f"{rest.portal.base_url}/rest/{method}"
    return rest.session.post(url, json={**params, "auth": token}, timeout=10)


def refresh(rest: Any, token: str) -> requests.Response:
    query = {"grant_type": "refresh_token", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    url = rest.portal.base_url + "/oauth/token/"
    return requests.get(url, params={**query, "refresh_token": token}, timeout=10)


def test_classic_writes_move_the_modification_time(rest: Any) -> None:
    new = rest.result("crm.deal.add", fields={"TITLE": "Новая", "OPPORTUNITY": "12.5", "CONTACT_IDS": [4, 5]})
    rest.portal.clock.advance(100)
    assert rest.result("crm.deal.update", id=new, fields={"STAGE_ID": "WON"})
    row = rest.result("crm.deal.get", id=new)
    assert (row["TITLE"], row["OPPORTUNITY"], row["CONTACT_ID"]) == ("Новая", "12.50", "4")
    assert (row["STAGE_ID"], row["STAGE_SEMANTIC_ID"], row["CLOSED"]) == ("WON", "S", "Y")
    assert row["DATE_MODIFY"] > row["DATE_CREATE"]
    assert rest.result("crm.item.get", entityTypeId=2, id=new)["item"]["contactIds"] == [4, 5]
    history = rest.result("crm.stagehistory.list", entityTypeId=2, filter={"OWNER_ID": new})["items"]
    assert [(entry["TYPE_ID"], entry["STAGE_ID"]) for entry in history] == [(1, "NEW"), (3, "WON")]
    assert rest.result("crm.deal.delete", id=new)
    assert rest.raw("crm.deal.get", {"id": new}).status_code == 400


def test_universal_writes(rest: Any) -> None:
    item = rest.result("crm.item.add", entityTypeId=177, fields={"title": "Станок", "opportunity": 10.5})[
        "item"
    ]
    assert (item["title"], item["opportunity"]) == ("Станок", 10.5)
    query = {"entityTypeId": 177, "id": item["id"]}
    assert rest.result("crm.item.update", **query, fields={"title": "Пресс"})["item"]["title"] == "Пресс"
    rest.result("crm.item.delete", **query)
    assert rest.error("crm.item.get", **query) == (400, "NOT_FOUND")


def test_generated_columns_stay_when_one_changes(rest: Any) -> None:
    before = rest.result("crm.deal.get", id=7)
    rest.portal.clock.advance(60)
    rest.portal.change("deal", 7, COMMENTS="правка")
    after = rest.result("crm.deal.get", id=7)
    changed = {name for name in before if before[name] != after[name]}
    assert changed <= {"COMMENTS", "DATE_MODIFY"}
    assert after["DATE_MODIFY"] != before["DATE_MODIFY"]


def test_silent_changes_keep_the_modification_time(rest: Any) -> None:
    before = rest.result("crm.deal.get", id=7)["DATE_MODIFY"]
    rest.portal.change("deal", 7, silent=True, COMMENTS="тихо")
    assert rest.result("crm.deal.get", id=7)["DATE_MODIFY"] == before


def test_restore_under_the_same_and_under_a_new_id(rest: Any) -> None:
    title = rest.result("crm.deal.get", id=3)["TITLE"]
    goods = {"=ownerType": "D", "=ownerId": 4}
    sold = rest.result("crm.item.productrow.list", filter=goods)["productRows"]
    for number in (3, 4):
        rest.portal.delete("deal", number)
    assert rest.result("crm.item.productrow.list", filter=goods)["productRows"] == []
    assert rest.portal.restore("deal", 3) == 3
    new = rest.portal.restore("deal", 4, new_id=True)
    assert rest.result("crm.deal.get", id=3)["TITLE"] == title
    assert rest.result("crm.deal.get", id=new)["TITLE"].endswith("№4")
    goods["=ownerId"] = new
    moved = rest.result("crm.item.productrow.list", filter=goods)["productRows"]
    assert [row["productName"] for row in moved] == [row["productName"] for row in sold]
    assert rest.ids(filter={"ID": [3, 4]}) == [3]
    rest.portal.delete("deal", 5)
    assert rest.portal.purge() == 1
    with pytest.raises(KeyError):
        rest.portal.restore("deal", 5)


def test_a_new_user_field_fills_old_rows_without_touching_them(rest: Any) -> None:
    modified = rest.result("crm.deal.get", id=9)["DATE_MODIFY"]
    rest.portal.add_user_field("deal", "SIZE", "integer", "Размер", fill=True)
    rest.portal.add_user_field("deal", "EMPTY", "string", "Пусто")
    rows = rest.result("crm.deal.list", select=["UF_*", "DATE_MODIFY"], start=-1)
    assert any(row["UF_CRM_SIZE"] for row in rows)
    assert not any(row["UF_CRM_EMPTY"] for row in rows)
    assert rest.result("crm.deal.get", id=9)["DATE_MODIFY"] == modified
    assert rest.result("crm.deal.fields")["UF_CRM_SIZE"]["isDynamic"] is True


def test_user_fields_over_rest(rest: Any) -> None:
    field = {
        "FIELD_NAME": "COLOUR",
        "USER_TYPE_ID": "enumeration",
        "LIST": [{"VALUE": "Синий"}],
        "MULTIPLE": "Y",
    }
    rest.result("crm.deal.userfield.add", fields=field)
    listed = rest.result("crm.deal.userfield.list", filter={"LANG": "ru"})
    assert (listed[0]["FIELD_NAME"], listed[0]["LIST"][0]["VALUE"]) == ("UF_CRM_COLOUR", "Синий")
    config = {"entityId": "CRM_3", "fieldName": "UF_CRM_3_WEIGHT", "userTypeId": "double"}
    number = rest.result("userfieldconfig.add", moduleId="crm", field=config)["field"]["id"]
    assert rest.result("userfieldconfig.get", moduleId="crm", id=number)["field"]["entityId"] == "CRM_3"
    assert "ufCrm3Weight" in rest.result("crm.item.fields", entityTypeId=177)["fields"]


def test_life_of_a_smart_process(rest: Any) -> None:
    process = rest.result("crm.type.add", fields={"title": "Заявки", "isSourceEnabled": "Y"})["type"]
    number = process["entityTypeId"]
    assert "sourceId" in rest.result("crm.item.fields", entityTypeId=number)["fields"]
    item = rest.result("crm.item.add", entityTypeId=number, fields={"title": "Первая"})["item"]
    assert rest.error("crm.type.delete", id=process["id"])[0] == 400
    rest.result("crm.item.delete", entityTypeId=number, id=item["id"])
    rest.result("crm.type.update", id=process["id"], fields={"isStagesEnabled": "Y"})
    assert "stageId" in rest.result("crm.item.fields", entityTypeId=number)["fields"]
    rest.result("crm.type.delete", id=process["id"])
    assert rest.error("crm.item.fields", entityTypeId=number) == (400, "NOT_FOUND")
    assert len(rest.result("crm.type.list")["types"]) == 2


def test_the_refresh_token_works_once(rest: Any) -> None:
    pair = rest.portal.tokens.issue(rest.portal.base_url)
    assert app_call(rest, pair["access_token"], "app.info").json()["result"]["LICENSE_FAMILY"] == "ent"
    rest.portal.clock.advance(3601)
    expired = app_call(rest, pair["access_token"], "profile")
    assert (expired.status_code, expired.json()["error"]) == (401, "expired_token")
    renewed = refresh(rest, pair["refresh_token"]).json()
    assert app_call(rest, renewed["access_token"], "profile").status_code == 200
    assert refresh(rest, pair["refresh_token"]).json()["error"] == "invalid_grant"
    assert app_call(rest, "unknown", "profile").json()["error"] == "invalid_token"


def test_offline_events_are_reserved_until_cleared(rest: Any) -> None:
    token = rest.portal.tokens.issue(rest.portal.base_url)["access_token"]

    def call(method: str, **params: Any) -> Any:
        return app_call(rest, token, method, **params).json()["result"]

    for event in ("ONCRMDEALDELETE", "ONCRMDYNAMICITEMUPDATE", "ONCRMTYPEADD"):
        call("event.bind", event=event, event_type="offline")
    rest.portal.delete("deal", 3)
    rest.portal.change(177, 1, TITLE="раз")
    rest.portal.change(177, 1, TITLE="два")
    process = rest.portal.add_smart_process("Новый")
    batch = call("event.offline.get", clear=0)
    data = [event["EVENT_DATA"]["FIELDS"] for event in batch["events"]]
    assert data == [{"ID": 3}, {"ID": 1, "ENTITY_TYPE_ID": 177}, {"ID": process["id"]}]
    assert call("event.offline.get", clear=0) == {"process_id": None, "events": []}
    assert len(call("event.offline.list")) == 3
    call("event.offline.clear", process_id=batch["process_id"], message_id=[batch["events"][0]["MESSAGE_ID"]])
    assert len(call("event.offline.list")) == 2
    call("event.offline.clear", process_id=batch["process_id"])
    assert call("event.offline.list") == []
    assert rest.error("event.offline.get") == (403, "WRONG_AUTH_TYPE")


def test_what_belongs_to_a_row_is_deleted_and_restored_with_it(rest: Any) -> None:
    portal = rest.portal
    requisite = portal.small["requisite"].live()[0]
    company, number = int(requisite["ENTITY_ID"]), int(requisite["ID"])
    activity = portal.create("activity", OWNER_TYPE_ID=4, OWNER_ID=company)
    comment = portal.create("timeline_comment", ENTITY_ID=str(company), ENTITY_TYPE="company")
    portal.delete("company", company)
    kept = {"requisite": number, "activity": activity, "timeline_comment": comment}
    assert not any({"ID": n} in portal.expected(e, "id") for e, n in kept.items())
    assert portal.restore("company", company) == company
    assert all({"ID": n} in portal.expected(e, "id") for e, n in kept.items())


def test_a_comment_moves_the_time_of_activity_and_a_task_is_changed_by_what_it_holds(rest: Any) -> None:
    portal = rest.portal
    before = rest.result("crm.item.get", entityTypeId=4, id=2)["item"]
    task = portal.small["task"].rows[3]["changedDate"]
    portal.clock.advance(60)
    portal.create("timeline_comment", ENTITY_ID="2", ENTITY_TYPE="company")
    portal.create("task_checklist", _task=3, TITLE="пункт")
    after = rest.result("crm.item.get", entityTypeId=4, id=2)["item"]
    assert after["lastActivityTime"] > before["lastActivityTime"]
    assert after["updatedTime"] == before["updatedTime"]
    assert portal.small["task"].rows[3]["changedDate"] > task
    portal.delete("task", 3)
    assert "NOT_ACCESSIBLE" in rest.raw("task.checklistitem.getlist", {"TASKID": 3}).text


def test_stage_history_goes_on_beyond_the_rows_of_the_start(rest: Any) -> None:
    for deal in range(1, 5):
        rest.portal.change("deal", rest.ids()[deal], STAGE_ID="WON")
    newest = rest.result("crm.stagehistory.list", entityTypeId=2, order={"ID": "DESC"})["items"][:4]
    assert [row["STAGE_ID"] for row in newest] == ["WON"] * 4
