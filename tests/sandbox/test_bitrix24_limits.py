"""Leaky bucket, operating budget in its four accounting modes, the 60 s cut; all on a frozen clock."""

from typing import Any

import pytest

from sandbox.bitrix24 import CostModel

LIST = "crm.deal.list"
SLOW = CostModel(base=10.0, per_row=0.0, per_counted_row=0.0)
BLOCKED = (429, "OPERATION_TIME_LIMIT")


def batch_of(count: int) -> dict[str, str]:
    return {f"c{number}": f"{LIST}?start=-1" for number in range(count)}


def test_the_bucket_overflows_and_drains(open_portal: Any) -> None:
    rest = open_portal(rate_limit=(5, 2))
    statuses = [rest.raw("profile").status_code for _ in range(8)]
    assert statuses == [200] * 5 + [503] * 3
    assert rest.error("profile") == (503, "QUERY_LIMIT_EXCEEDED")
    rest.portal.clock.advance(1)
    assert [rest.raw("profile").status_code for _ in range(3)] == [200, 200, 503]
    stats = rest.portal.stats()
    assert (stats["rejected_503"], stats["peak_bucket"], stats["http_requests"]) == (5, 5.0, 12)


def test_rejected_requests_may_fill_the_bucket(open_portal: Any) -> None:
    rest = open_portal(rate_limit=(5, 2), count_rejected=True)
    assert [rest.raw("profile").status_code for _ in range(9)].count(503) == 4
    rest.portal.clock.advance(1)
    assert rest.raw("profile").status_code == 503


def test_a_batch_is_one_request(open_portal: Any) -> None:
    rest = open_portal(rate_limit=(2, 1))
    rest.batch(batch_of(50))
    stats = rest.portal.stats()
    assert (stats["http_requests"], stats["commands"], stats["rows"]) == (1, 50, 2500)


def test_operating_is_a_running_total_and_baskets_drop_out(open_portal: Any) -> None:
    rest = open_portal(cost=SLOW, operating_limit=30)
    first = rest.call(LIST, start=-1)["time"]
    assert (first["operating"], first["operating_reset_at"] - first["start"]) == (10, 600)
    rest.portal.clock.advance(120)
    assert rest.call(LIST, start=-1)["time"]["operating"] == 20
    assert rest.call(LIST, start=-1)["time"]["operating"] == 30, "the call that crosses the limit succeeds"
    assert rest.error(LIST, start=-1) == BLOCKED
    assert rest.call("crm.lead.list", start=-1)["time"]["operating"] == 10, (
        "methods have budgets of their own"
    )
    rest.portal.clock.advance(480)
    assert rest.call(LIST, start=-1)["time"]["operating"] == 30, "only the oldest basket dropped out"
    assert rest.error(LIST, start=-1) == BLOCKED


def test_an_application_has_a_budget_of_its_own(open_portal: Any) -> None:
    rest = open_portal(cost=SLOW, operating_limit=10)
    rest.call(LIST, start=-1)
    assert rest.error(LIST, start=-1) == BLOCKED
    token = rest.portal.tokens.issue(rest.portal.base_url)["access_token"]
    answer = rest.session.post(f"{rest.portal.base_url}/rest/{LIST}", json={"auth": token}, timeout=10)
    assert answer.json()["time"]["operating"] == 10


def test_nested_mode_charges_methods_and_blocks_inside_a_batch(open_portal: Any) -> None:
    rest = open_portal(cost=SLOW, operating_limit=30)
    answer = rest.call("batch", cmd=batch_of(5))
    times = answer["result"]["result_time"]
    assert [entry["operating"] for entry in times.values()] == [10, 20, 30]
    assert {error["error"] for error in answer["result"]["result_error"].values()} == {"OPERATION_TIME_LIMIT"}
    assert answer["time"]["operating"] == 0
    assert rest.portal.stats()["rejected_429"] == 2


def test_batch_mode_charges_the_batch_with_half_the_time(open_portal: Any) -> None:
    rest = open_portal(cost=SLOW, operating_limit=25, operating_mode="batch")
    answer = rest.call("batch", cmd=batch_of(5))
    assert [e["operating"] for e in answer["result"]["result_time"].values()] == [5, 10, 15, 20, 25]
    assert answer["time"]["operating"] == 25
    assert rest.error("batch", cmd=batch_of(1)) == BLOCKED
    assert rest.raw(LIST, {"start": -1}).status_code == 200


def test_first_entry_mode_reports_everything_in_the_first_entry(open_portal: Any) -> None:
    rest = open_portal(cost=SLOW, operating_mode="first-entry")
    answer = rest.call("batch", cmd=batch_of(4))
    assert [e["operating"] for e in answer["result"]["result_time"].values()] == [40, 0, 0, 0]
    assert answer["time"]["operating"] == 40


def test_absent_mode_has_no_counters_and_no_limit(open_portal: Any) -> None:
    rest = open_portal(cost=SLOW, operating_mode="absent", operating_limit=1)
    for _ in range(3):
        answer = rest.call("batch", cmd=batch_of(2))
        entries = [answer["time"], *answer["result"]["result_time"].values()]
        assert not any(key.startswith("operating") for entry in entries for key in entry)


def test_a_long_request_is_cut_with_html_and_still_charged(open_portal: Any) -> None:
    rest = open_portal(cost=SLOW)
    response = rest.raw("batch", {"cmd": batch_of(7)})
    assert response.status_code == 504
    assert response.headers["Content-Type"] == "text/html"
    assert rest.portal.stats()["operating"][LIST] == 70


@pytest.mark.parametrize(("start", "seconds"), [(-1, 0.02), (0, 0.52)])
def test_counting_costs(open_portal: Any, start: int, seconds: float) -> None:
    cost = CostModel(base=0.02, per_row=0.0, per_counted_row=0.001)
    rest = open_portal(deals=500, cost=cost)
    assert rest.call(LIST, start=start)["time"]["processing"] == pytest.approx(seconds)


def test_the_clock_runs_by_its_factor_and_never_back(open_portal: Any) -> None:
    clock = open_portal().portal.clock
    before = clock.now()
    assert clock.advance(600) == before + 600
    with pytest.raises(ValueError, match="forward"):
        clock.advance(-1)
    clock.set_factor(1000.0)
    assert clock.now() >= before + 600
