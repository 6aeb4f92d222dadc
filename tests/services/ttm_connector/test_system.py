"""The ticket system as the connector reads it: login, faults, lists that move."""

import base64
import json
from typing import Any

import pytest

from sandbox.ttm import ARREARS, STOPPED, TicketSystem
from services.ttm_connector.login import life_of
from services.ttm_connector.system import retry_seconds
from tests.services.ttm_connector.connector_house import Line, connector

PREFIX = "/nttm-web-gateway/api/ticket/"


def logins(system: TicketSystem) -> int:
    return sum(call.path.endswith("/authenticate") for call in system.calls)


def some_ticket(system: TicketSystem) -> int:
    return next(iter(system.tickets))


def many(line: Line, numbers: list[int]) -> list[dict[str, Any]]:
    """Results of tasks that are at work together."""
    for position, number in enumerate(numbers):
        line.task(f"m-{position}", "ticket.get", {"id": number})
    return [line.expect("result", id=f"m-{position}") for position in range(len(numbers))]


def test_one_login_serves_all_calls(system: TicketSystem):
    with connector(system) as stage:
        results = many(stage.connected(), list(system.tickets))
        assert all(result["ok"] for result in results)
    assert logins(system) == 1


def test_an_expired_token_is_renewed_in_mid_run(system: TicketSystem):
    with connector(system) as stage:
        line = stage.connected()
        assert line.ticket("t-1", some_ticket(system))["ok"]
        system.expire()
        assert all(result["ok"] for result in many(line, list(system.tickets)))
    assert logins(system) == 2


def test_a_token_that_never_works_is_one_error(system: TicketSystem):
    system.faults.add("expire", path=PREFIX)
    with connector(system) as stage:
        result = stage.connected().ticket("t-1", some_ticket(system))
        assert (result["error"]["code"], result["error"]["retryable"]) == ("upstream_auth", False)
    assert logins(system) == 2


def test_three_refused_logins_and_it_rests_until_the_account_is_well(system: TicketSystem):
    with connector(system, locked_s=0.3) as stage:
        users, system.config.users = system.config.users, {}
        line = stage.connected()
        codes = [line.ticket(f"t-{n}", 1)["error"]["code"] for n in range(5)]
        assert codes == ["upstream_auth"] * 5
        line.expect("heartbeat", upstream="auth_failed")
        assert logins(system) == 3
        system.config.users = users
        line.expect("heartbeat", upstream="ok")
        assert line.ticket("t-9", some_ticket(system))["ok"]


def test_a_system_that_cannot_be_reached_is_found_again(system: TicketSystem):
    with connector(system) as stage:
        line = stage.connected()
        system.faults.add("reset")
        codes = [line.ticket(f"t-{n}", 1)["error"]["code"] for n in range(3)]
        assert codes == ["upstream_unreachable"] * 3
        line.expect("heartbeat", upstream="unreachable")
        system.faults.clear()
        line.expect("heartbeat", upstream="ok")
        assert line.ticket("t-9", some_ticket(system))["ok"]


def test_a_system_that_is_not_there_is_unreachable_at_once(system: TicketSystem):
    with connector(system, url="http://127.0.0.1:1") as stage:
        line = stage.connected()
        assert line.ticket("t-1", 1)["error"]["code"] == "upstream_unreachable"
        line.expect("heartbeat", upstream="unreachable")


@pytest.mark.parametrize(
    "fault",
    [
        {"action": "status", "status": 500},
        {"action": "status", "status": 502},
        {"action": "status", "status": 429, "retry_after": "0"},
        {"action": "drop"},
        {"action": "reset"},
    ],
    ids=lambda fault: str(fault.get("status", fault["action"])),
)
def test_two_failures_of_a_call_cost_nothing(system: TicketSystem, fault: dict[str, Any]):
    system.faults.add(**fault, path=PREFIX, times=2)
    with connector(system) as stage:
        assert stage.connected().ticket("t-1", some_ticket(system))["ok"]


@pytest.mark.parametrize(
    ("fault", "code", "status", "retryable", "calls"),
    [
        ({"action": "status", "status": 503}, "upstream_error", 503, True, 3),
        ({"action": "status", "status": 429, "retry_after": "0"}, "upstream_error", 429, True, 3),
        ({"action": "status", "status": 403}, "forbidden", 403, False, 1),
        ({"action": "status", "status": 400}, "bad_request", 400, False, 1),
        ({"action": "status", "status": 302}, "upstream_error", 302, False, 1),
        ({"action": "html"}, "upstream_error", 200, True, 1),
        ({"action": "drop"}, "upstream_unreachable", 502, True, 3),
        ({"action": "large", "size_mib": 9}, "too_large", 413, False, 1),
    ],
    ids=["503", "429", "403", "400", "302", "html", "drop", "large"],
)
def test_a_call_that_keeps_failing_ends_with_its_reason(
    system: TicketSystem, fault: dict[str, Any], code: str, status: int, retryable: bool, calls: int
):
    system.faults.add(**fault, path=PREFIX)
    with connector(system) as stage:
        result = stage.connected().ticket("t-1", some_ticket(system))
        error = result["error"]
        assert (error["code"], result["status"], error["retryable"]) == (code, status, retryable)
    assert sum(call.path.startswith(PREFIX) for call in system.calls) == calls


def test_a_slow_answer_is_given_up(system: TicketSystem):
    system.faults.add("delay", path=PREFIX, seconds=5)
    with connector(system, ticket_s=0.1) as stage:
        assert stage.connected().ticket("t-1", some_ticket(system))["error"]["code"] == "upstream_timeout"


def test_a_ticket_without_limits_is_asked_for_with_them(system: TicketSystem):
    system.config.plain_without_ola = True
    number = some_ticket(system)
    with connector(system) as stage:
        line = stage.connected()
        assert line.ticket("t-1", number)["data"] == system.tickets[number]
        system.faults.add("status", status=404, path="with-ola")
        plain = line.ticket("t-2", number)["data"]
        assert "ola" not in plain  # an installation without that call
        system.faults.clear()
        system.faults.add("status", status=500, path="with-ola")
        assert line.ticket("t-3", number)["error"]["code"] == "upstream_error"


@pytest.mark.parametrize("odd", ['{"id": 1, "ola": NaN}', "[1]", "null", '{"ola": {"x": 1e999}}', "[" * 9000])
def test_an_answer_that_is_no_ticket_is_an_error_of_its_own(system: TicketSystem, odd: str):
    """What the system says is sent as it is: the hub must not choke on it."""
    system.faults.add("body", body=odd, path=PREFIX, times=1)
    with connector(system) as stage:
        line = stage.connected()
        result = line.ticket("t-1", some_ticket(system))
        assert result["error"]["code"] == "upstream_error"
        assert line.ticket("t-2", some_ticket(system))["ok"]


def test_other_paths_of_other_installations(system: TicketSystem):
    system.config.login_path = "/elsewhere/login"
    with connector(
        system, login_path="/elsewhere/login", ticket_path="/nttm-web-gateway/api/ticket/with-ola/{id}"
    ) as stage:
        assert stage.connected().ticket("t-1", some_ticket(system))["ok"]
    assert [call.path for call in system.calls][:1] == ["/elsewhere/login"]


@pytest.mark.parametrize(
    ("claims", "seconds"),
    [
        ({"iat": 0, "exp": 3600}, 3540),  # by its own clock, however wrong ours is
        ({"iat": 4e9, "exp": 4e9 + 600}, 540),
        ({"iat": 0, "exp": 60}, float("inf")),  # too short to plan with: a 401 will tell
        ({"exp": 5}, float("inf")),
        ({"exp": "soon"}, float("inf")),
        ({}, float("inf")),
    ],
)
def test_the_life_of_a_token(claims: dict[str, Any], seconds: float):
    assert life_of(token(claims)) == seconds
    assert life_of("opaque") == float("inf")


def token(claims: dict[str, Any]) -> str:
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"e30.{body}.sig"


# lists


def test_suspended_tickets_come_in_the_order_of_the_dashboard(system: TicketSystem):
    with connector(system) as stage:
        data = stage.connected().ask("t-1", "ticket.list", filter=STOPPED, kind="task")["data"]
    assert data["ids"] == sorted(system.waiting(), reverse=True)
    assert (data["kind"], data["total"], data["pages"], data["partial"]) == ("task", 3, 1, False)
    assert data["rows"][0]["taskType"] == "Ожидание"


def test_overdue_tickets_of_any_past_day(system: TicketSystem):
    days = {ticket["closeDate"][:10] for ticket in system.tickets.values() if ticket["closeDate"]}
    with connector(system) as stage:
        line = stage.connected()
        found = set[int]()
        for position, day in enumerate(sorted(days)):
            data = line.ask(
                f"t-{position}",
                "ticket.list",
                filter=ARREARS,
                kind="ticket",
                business_date=day,
                business_tz="Europe/Moscow",
            )["data"]
            assert not data["partial"]
            found |= set(data["ids"])
    assert found <= {n for n, ticket in system.tickets.items() if ticket["closeDate"]}
    assert len(found) >= 5


def test_an_unknown_filter_and_a_broken_one_are_told_apart_from_an_empty_list(system: TicketSystem):
    system.filters |= {
        "broken": "[",
        "object": "{}",
        "texts": '["x"]',
        "empty": "",
        "clause": '[{"field":"x"}]',
    }
    with connector(system) as stage:
        line = stage.connected()
        for key in ("nobody", "broken", "object", "texts", "clause"):
            result = line.ask(f"t-{key}", "ticket.list", filter=key, kind="task")
            assert (result["error"]["code"], result["status"]) == ("bad_filter", 400), key
        assert line.ask("t-empty", "ticket.list", filter="empty", kind="task")["data"]["total"] == 3


def test_many_pages_are_read_to_the_end(system: TicketSystem):
    for _ in range(1200):
        system.suspend()
    with connector(system) as stage:
        data = stage.connected().ask("t-1", "ticket.list", filter=STOPPED, kind="task")["data"]
    assert (len(set(data["ids"])), data["pages"], data["partial"]) == (1203, 3, False)


def test_rows_that_appear_while_the_list_is_read_are_not_lost(system: TicketSystem):
    for _ in range(600):
        system.suspend()
    before = set(system.waiting())
    system.faults.add("insert", path="task/page", skip=1, times=1)  # between the pages
    with connector(system) as stage:
        data = stage.connected().ask("t-1", "ticket.list", filter=STOPPED, kind="task")["data"]
    assert set(data["ids"]) == set(system.waiting())
    assert len(data["ids"]) == len(before) + 1
    assert not data["partial"]


def test_a_list_that_never_stands_still_is_partial(system: TicketSystem):
    for _ in range(600):
        system.suspend()
    before = set(system.waiting())
    system.faults.add("insert", path="task/page", every=2)
    with connector(system) as stage:
        data = stage.connected().ask("t-1", "ticket.list", filter=STOPPED, kind="task")["data"]
    assert data["partial"]
    assert before <= set(data["ids"])
    assert sum("task/page" in call.path for call in system.calls) == 6  # three times two pages


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("²", None),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None):
    assert retry_seconds(text) == seconds
