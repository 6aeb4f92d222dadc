"""The execution budget is obeyed however the portal accounts for it, and batches fit their time."""

import pytest

from resources.bitrix24.envelope import Time
from resources.bitrix24.limits import BatchSizer, OperatingBudget

LIMIT = 400.0
DEALS = "crm.deal.list"


def report(operating: float | None, reset: float | None = 1_600.0, finish: float = 1_000.0) -> Time:
    return Time(operating=operating, operating_reset_at=reset, finish=finish)


MODES = {
    "nested": (report(0, None), [report(100), report(380)]),
    "batch": (report(380), [report(3), report(4)]),
    "first-entry": (report(380), [report(380), report(0)]),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_used_up_budget_waits_for_its_reset(mode):
    envelope, nested = MODES[mode]
    budget = OperatingBudget(LIMIT)
    budget.observe(envelope, [(DEALS, time) for time in nested], owner="batch", now=50.0)
    assert budget.delay({DEALS: 1.0}, 50.0) == pytest.approx(601.0)
    assert budget.delay({DEALS: 1.0}, 700.0) == 0


def test_absent_counters_never_wait():
    budget = OperatingBudget(LIMIT)
    budget.observe(Time(), [(DEALS, Time())], owner="batch", now=50.0)
    assert budget.delay({DEALS: 100.0}, 50.0) == 0


def test_reports_replace_each_other_and_are_not_added_up():
    budget = OperatingBudget(LIMIT)
    for used in (50, 100, 150, 190):
        budget.observe(report(0, None), [(DEALS, report(used))], owner="batch", now=50.0)
    assert budget.used()[DEALS] == 190
    assert budget.delay({DEALS: 1.0}, 50.0) == 0


def test_a_zero_before_the_reset_is_no_reset():
    budget = OperatingBudget(LIMIT)
    budget.observe(report(0, None), [(DEALS, report(380))], owner="batch", now=50.0)
    budget.observe(report(0, None), [(DEALS, report(0, None))], owner="batch", now=60.0)
    assert budget.delay({DEALS: 1.0}, 60.0) > 500


def test_between_half_and_stop_the_use_is_spread_over_the_time_left():
    budget = OperatingBudget(LIMIT)
    budget.observe(report(0, None), [(DEALS, report(260))], owner="batch", now=0.0)
    starts = [budget.delay({DEALS: 10.0}, 0.0) for _ in range(4)]
    rate = (0.9 * LIMIT - 260) / 601
    assert starts == pytest.approx([0, 10 / rate, 20 / rate, 30 / rate])


def test_a_refused_method_is_parked_until_its_reset_and_others_go_on():
    budget = OperatingBudget(LIMIT)
    budget.observe(report(0, None), [(DEALS, report(10, 1_090.0))], owner="batch", now=50.0)
    assert budget.park(DEALS, 60.0) == pytest.approx(81.0)
    assert budget.parked(DEALS, 60.0) == pytest.approx(81.0)
    assert budget.parked("crm.lead.list", 60.0) == 0
    assert budget.delay({"crm.lead.list": 1.0}, 60.0) == 0


def test_without_a_known_reset_parking_grows_by_a_minute_up_to_ten():
    budget, now, waits = OperatingBudget(0), 0.0, []
    for _ in range(12):
        waits.append(budget.park(DEALS, now))
        now += waits[-1]
    assert waits == [60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 600, 600]


def test_batches_are_sized_by_time_halved_by_failures_and_recover():
    sizer = BatchSizer(50, target_s=20)
    assert sizer.size([DEALS]) == 50
    sizer.succeeded([(DEALS, Time(duration=2.0))] * 50)
    assert sizer.size([DEALS]) == 10
    assert sizer.size(["user.get"]) == 50
    sizer.failed(50)
    assert sizer.size() == 25
    for _ in range(20):
        sizer.succeeded([("user.get", Time(duration=0.01))])
    assert sizer.size() == 50
