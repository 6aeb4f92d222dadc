"""Scripted faults, permissions, changes between pages."""

import json
from typing import Any

import pytest
import requests

PAGE = {"order": {"ID": "ASC"}, "start": -1}


def test_statuses_and_html_strike_the_numbered_request(rest: Any) -> None:
    rest.portal.faults.add("status", request=2, status=429, code="OPERATION_TIME_LIMIT")
    rest.portal.faults.add("html", request=3, status=502)
    assert [rest.raw("profile").status_code for _ in range(4)] == [200, 429, 502, 200]
    assert rest.portal.stats()["faults"] == {"status": 1, "html": 1}


def test_reset_and_timeout_break_the_connection(rest: Any) -> None:
    rest.portal.faults.add("reset", method="profile")
    rest.portal.faults.add("timeout", method="scope", seconds=0.05)
    for method in ("profile", "scope"):
        with pytest.raises(requests.ConnectionError):
            rest.raw(method)
        assert rest.raw(method).status_code == 200


def test_a_truncated_answer_is_shorter_than_announced(rest: Any) -> None:
    rest.portal.faults.add("truncate", share=0.5)
    with pytest.raises((requests.exceptions.ChunkedEncodingError, requests.ConnectionError)):
        rest.raw("crm.deal.list")


def test_redirect_to_another_host(rest: Any) -> None:
    rest.portal.faults.add("redirect", location="http://127.0.0.1:9")
    response = rest.raw("profile")
    assert response.status_code == 302
    assert response.headers["Location"] == "http://127.0.0.1:9/rest/1/sandbox0secret/profile"


def test_faults_of_single_commands_of_a_batch(rest: Any) -> None:
    rest.portal.faults.add("nested_error", command=1, code="OPERATION_TIME_LIMIT", times=None)
    rest.portal.faults.add("drop_label", method="crm.deal.list", command=2)
    answer = rest.batch({f"c{number}": "crm.deal.list?start=-1" for number in range(4)})
    assert list(answer["result"]) == ["c0", "c3"]
    assert answer["result_error"]["c1"]["error"] == "OPERATION_TIME_LIMIT"


def test_pages_that_mislead(rest: Any) -> None:
    faults, first = rest.portal.faults, rest.ids(**PAGE)
    following = {**PAGE, "filter": {">ID": first[-1]}}
    faults.add("short_page", rows=9)
    assert rest.ids(**PAGE) == first[:41]
    faults.add("ignore_filter", keys=["ID"])
    assert rest.ids(**following) == first
    faults.add("duplicate_row")
    assert rest.ids(**following)[0] == first[-1]
    rest.ids(**PAGE)
    faults.add("repeat_page")
    assert rest.ids(**following) == first


def test_odd_empties_and_locale_dates(rest: Any) -> None:
    rest.portal.faults.add("odd_empties")
    rest.portal.faults.add("locale_dates")
    row = rest.result("crm.deal.list", start=-1)[1]
    assert {} in row.values()
    assert row["DATE_CREATE"][2] == row["DATE_CREATE"][5] == "."


def test_rules_can_be_skipped_limited_and_cleared(rest: Any) -> None:
    rest.portal.faults.load(json.loads('[{"action": "html", "method": "profile", "skip": 1, "times": 2}]'))
    assert [rest.raw("profile").status_code for _ in range(5)] == [200, 502, 502, 200, 200]
    rest.portal.faults.add("html", times=None)
    rest.portal.faults.clear()
    assert rest.raw("profile").status_code == 200
    with pytest.raises(ValueError, match="unknown fault"):
        rest.portal.faults.add("explode")


def test_permission_filtered_pages_are_short_though_more_follow(open_portal: Any) -> None:
    rest = open_portal(post_filtered=0.2)
    page = rest.call("crm.deal.list", start=0)
    assert len(page["result"]) < 50
    assert (page["next"], page["total"]) == (50, 300)


def test_loss_of_rights_hides_rows_without_deleting(rest: Any) -> None:
    rest.portal.hide("deal", [2, 3])
    assert rest.ids(filter={"<=ID": 4}) == [1, 4]
    assert rest.raw("crm.deal.get", {"id": 2}).status_code == 400
    rest.portal.unhide("deal")
    assert rest.ids(filter={"<=ID": 4}) == [1, 2, 3, 4]


def test_offset_paging_loses_rows_when_others_are_deleted(rest: Any) -> None:
    everything = {row["ID"] for row in rest.portal.expected("deal", "id")}
    seen = set(rest.ids(order={"ID": "ASC"}, start=0))
    rest.portal.delete("deal", 1)
    for start in range(50, 300, 50):
        seen |= set(rest.ids(order={"ID": "ASC"}, start=start))
    assert everything - seen == {sorted(everything)[50]}


def test_mutations_between_commands_are_reproducible(open_portal: Any) -> None:
    def final() -> list[dict[str, Any]]:
        rest = open_portal(mutations_per_command=5)
        for _ in range(4):
            rest.ids(start=-1)
        return list(rest.portal.expected("deal", "raw"))

    first = final()
    assert first == final()
    assert max(row["ID"] for row in first) > 312


def test_values_the_emulator_cannot_digest_are_answered(rest: Any) -> None:
    assert rest.error("crm.deal.add", fields={"OPPORTUNITY": "много"}) == (500, "INTERNAL_SERVER_ERROR")
    broken = {"Content-Type": "application/json"}
    response = rest.session.post(rest.portal.webhook_url + "profile", data="{", headers=broken, timeout=10)
    assert (response.status_code, response.json()["error"]) == (400, "INVALID_REQUEST")
