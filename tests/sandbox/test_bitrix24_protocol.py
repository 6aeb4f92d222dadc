"""URL forms, encodings, authorisation, envelopes, metadata."""

from typing import Any

import pytest
import requests

from sandbox.bitrix24 import serve

FILTER = {"filter": {">ID": 10, "<=ID": 20}, "order": {"ID": "DESC"}, "select": ["ID", "TITLE"], "start": -1}
FORM = {"filter[>ID]": "10", "filter[<=ID]": "20", "order[ID]": "DESC", "select[]": "TITLE", "start": "-1"}


def test_four_encodings_ask_the_same(rest: Any) -> None:
    url = rest.portal.webhook_url + "crm.deal.list"
    answers = [
        rest.raw("crm.deal.list", FILTER),
        requests.post(url, data=FORM, timeout=10),
        requests.post(url, files={name: (None, value) for name, value in FORM.items()}, timeout=10),
        requests.get(url, params=FORM, timeout=10),
    ]
    results = [answer.json()["result"] for answer in answers]
    assert len(results[0]) > 5
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    "form", ["crm.deal.list", "crm.deal.list.json", "CRM.Deal.List/", "crm.deal.list.json/"]
)
def test_url_forms_of_a_method(rest: Any, form: str) -> None:
    assert rest.ids(start=-1) == [int(row["ID"]) for row in rest.result(form, select=["ID"], start=-1)]


def test_a_plus_in_a_query_string_breaks_a_date(rest: Any) -> None:
    url = rest.portal.webhook_url + "crm.item.list?entityTypeId=2&filter[%3EcreatedTime]=2025-01-01T00:00:00"
    assert requests.get(url + "%2B03:00", timeout=10).status_code == 200
    assert requests.get(url + "+03:00", timeout=10).json()["error"] == "INVALID_ARG_VALUE"


def test_errors_of_authorisation_and_of_methods(open_portal: Any) -> None:
    rest = open_portal(scopes=("user",), admin=False)
    assert rest.error("no.such.method") == (404, "ERROR_METHOD_NOT_FOUND")
    assert rest.error("crm.deal.list") == (403, "insufficient_scope")
    assert rest.error("app.info") == (403, "WRONG_AUTH_TYPE")
    wrong = requests.post(rest.portal.base_url + "/rest/1/wrong/profile", timeout=10)
    assert (wrong.status_code, wrong.json()["error"]) == (401, "NO_AUTH_FOUND")
    assert requests.post(rest.portal.base_url + "/rest/profile", timeout=10).status_code == 401


def test_admin_rights_are_needed_for_types(open_portal: Any) -> None:
    assert open_portal(admin=False).error("crm.type.list") == (403, "ACCESS_DENIED")


def test_envelope_counts_only_when_asked(rest: Any) -> None:
    first = rest.call("crm.deal.list", start=0)
    assert (len(first["result"]), first["next"], first["total"]) == (50, 50, 300)
    last = rest.call("crm.deal.list", start=250)
    assert "next" not in last
    uncounted = rest.call("crm.deal.list", start=-1)
    assert "total" not in uncounted
    assert "next" not in uncounted
    assert uncounted["time"]["date_start"] == "2026-05-28T23:26:40+03:00"


def test_upper_case_filter_beside_lower_case_is_ignored(rest: Any) -> None:
    both = rest.result("user.get", FILTER={"ID": 3}, filter={">ID": 5})
    assert [row["ID"] for row in both][:2] == ["6", "7"]
    assert [row["ID"] for row in rest.result("user.get", FILTER={"ID": 3})] == ["3"]


def test_deal_metadata_is_that_of_the_seed_table_and_the_times_of_activity(rest: Any) -> None:
    fields = rest.result("crm.deal.fields")
    names = list(fields)
    assert names[0] == "ID"
    assert names[-5:-3] == ["LAST_ACTIVITY_TIME", "LAST_ACTIVITY_BY"]
    assert names[-3:] == ["PARENT_ID_142", "PARENT_ID_149", "PARENT_ID_185"]
    assert len(names) == 48
    assert fields["OPPORTUNITY"]["type"] == "double"
    assert fields["CONTACT_IDS"] | {"title": ""} == fields["CONTACT_IDS"] | {"title": "", "isMultiple": True}
    assert fields["PARENT_ID_142"]["type"] == "crm_entity"


def test_classic_answers_are_strings_and_universal_ones_typed(rest: Any) -> None:
    classic = rest.result("crm.deal.list", filter={"ID": 2})[0]
    item = rest.result("crm.item.list", entityTypeId=2, filter={"id": 2})["items"][0]
    assert classic["ID"] == "2"
    assert item["id"] == 2
    assert classic["OPPORTUNITY"] == f"{item['opportunity']:.2f}"
    assert "CONTACT_IDS" not in classic
    assert isinstance(item["contactIds"], list)
    links = rest.result("crm.deal.contact.items.get", id=2)
    assert [link["CONTACT_ID"] for link in links] == item["contactIds"]


def test_select_of_user_and_multiple_fields(open_portal: Any) -> None:
    rest = open_portal(user_fields=True)
    star = rest.result("crm.deal.list", select=["*"], start=-1)[0]
    assert not [name for name in star if name.startswith("UF_")]
    user = rest.result("crm.deal.list", select=["UF_*"], start=-1)[0]
    assert "UF_CRM_TAGS" not in user
    assert "UF_CRM_CITY" in user
    assert set(rest.result("crm.deal.list", select=["UF_CRM_TAGS"], start=-1)[0]) == {"ID", "UF_CRM_TAGS"}
    contact = rest.result("crm.contact.list", select=["*", "PHONE"], start=-1)[0]
    assert "PHONE" in contact
    assert "EMAIL" not in contact


def test_original_user_field_names_with_select_break_the_answer(open_portal: Any) -> None:
    rest = open_portal(user_fields=True)
    params = {
        "entityTypeId": 2,
        "select": ["id", "title", "ufCrmCity"],
        "useOriginalUfNames": "Y",
        "start": -1,
    }
    assert set(rest.result("crm.item.list", **params)["items"][0]) == {"UF_CRM_CITY"}
    params["select"] = ["id", "title"]
    assert rest.result("crm.item.list", **params)["items"][:2] == [[], []]


def test_multi_fields_of_items_need_the_star(rest: Any) -> None:
    query = {"entityTypeId": 3, "start": -1}
    assert "fm" in rest.result("crm.item.list", select=["*"], **query)["items"][0]
    assert "fm" not in rest.result("crm.item.list", select=["id", "fm"], **query)["items"][0]


def test_camel_names_come_with_their_upper_names(open_portal: Any) -> None:
    fields = open_portal(user_fields=True).result("crm.item.fields", entityTypeId=177)["fields"]
    upper = {camel: field["upperName"] for camel, field in fields.items()}
    assert upper["ufCrm3City"] == "UF_CRM_3_CITY"
    assert upper["ufCrm3_1700000001"] == "UF_CRM_3_1700000001"
    assert upper["ufCrm_3_SCORE10"] == "UF_CRM_3_SCORE10"
    assert upper["parentId2"] == "PARENT_ID_2"


def test_universal_types_that_do_not_exist_or_are_not_served(rest: Any) -> None:
    assert rest.error("crm.item.list", entityTypeId=999) == (400, "NOT_FOUND")
    assert rest.error("crm.item.fields", entityTypeId=5) == (400, "ENTITY_TYPE_NOT_SUPPORTED")
    assert rest.error("crm.stagehistory.list", entityTypeId=3) == (400, "ENTITY_TYPE_NOT_SUPPORTED")
    assert rest.error("crm.item.list") == (400, "100")


def test_product_rows_need_an_owner(rest: Any) -> None:
    assert rest.error("crm.item.productrow.list", filter={">id": 0})[0] == 400
    owners = {"=ownerType": "D", "=ownerId": list(range(1, 30))}
    rows = rest.result("crm.item.productrow.list", filter=owners)["productRows"]
    assert {row["ownerType"] for row in rows} == {"D"}
    assert len({row["ownerId"] for row in rows}) > 10


def test_dictionaries_and_people(rest: Any) -> None:
    assert rest.call("crm.currency.list")["total"] == 0
    stages = rest.result("crm.status.list", filter={"ENTITY_ID": "DEAL_STAGE_1"})
    assert stages[0]["STATUS_ID"] == "C1:NEW"
    assert stages[0]["EXTRA"]["SEMANTICS"] == "process"
    assert [c["id"] for c in rest.result("crm.category.list", entityTypeId=2)["categories"]] == [0, 1, 3]
    users = rest.result("user.get", sort="ID", order="DESC")
    assert [row["ID"] for row in users][:2] == ["23", "22"]
    assert any(row["TIMESTAMP_X"] == {} for row in users)
    assert {row["PARENT"] for row in rest.result("department.get", PARENT=1)} == {"1"}
    assert {row["SYMBOL_CODE"] for row in rest.result("crm.enum.ownertype")} >= {"DEAL", "DYNAMIC_177"}
    assert rest.result("method.get", name="crm.deal.list") == {"isExisting": True, "isAvailable": True}


def test_only_loopback_is_served() -> None:
    with pytest.raises(ValueError, match="loopback"), serve(host="0.0.0.0"):
        pass
