"""The emulated ticket system: what the connector relies on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from sandbox.cli import app
from sandbox.ttm import ARREARS, STOPPED, SystemConfig, TicketSystem, serve
from sandbox.ttm.data import closed_on

LOGIN = "/nttm-task-handler/api/authenticate"
TICKET = "/nttm-web-gateway/api/ticket"
TASK_PAGE = "/nttm-web-gateway/api/task/page"


class Api:
    """Calls a system as one of its users."""

    def __init__(self, system: TicketSystem) -> None:
        self.system, self.session = system, requests.Session()
        self.session.headers["Authorization"] = f"Bearer {self.login().json()['id_token']}"

    def login(self, user: str = "sandbox@example.org", **changes: Any) -> requests.Response:
        body = {"username": user, "password": self.system.config.users.get(user), "force": True} | changes
        return self.post(LOGIN, body)

    def post(self, path: str, body: Any) -> requests.Response:
        return self.session.post(self.system.base_url + path, json=body, timeout=10)

    def get(self, path: str) -> requests.Response:
        return self.session.get(self.system.base_url + path, timeout=10)


@pytest.fixture(scope="module")
def served() -> Iterator[TicketSystem]:
    with serve() as running:
        yield running


@pytest.fixture
def system(served: TicketSystem) -> TicketSystem:
    served.reset(SystemConfig(days=2, per_day=10, suspended=4))
    return served


@pytest.fixture
def api(system: TicketSystem) -> Api:
    return Api(system)


def test_a_login_is_needed_and_force_ends_the_older_one(api: Api):
    refused = api.login(password="wrong")
    assert (refused.status_code, refused.text) == (401, "Bad credentials")
    assert api.get(f"{TICKET}/1").status_code == 404
    assert api.login(force=False).status_code == 409
    assert api.login(force="true").status_code == 200
    stale = api.get(f"{TICKET}/1")
    assert (stale.status_code, stale.json()) == (401, {"status": 401, "error": "Unauthorized"})


def test_users_do_not_end_each_others_logins(api: Api):
    assert api.login("second@example.org").status_code == 200
    assert api.get(f"{TICKET}/1").status_code == 404


def test_saved_filters(api: Api):
    saved = api.get(f"/nttm-user-profile/api/user-filters/{STOPPED}").json()
    assert saved["id"] == STOPPED
    assert isinstance(saved["filter"], str)
    nobody = api.get("/nttm-user-profile/api/user-filters/nobody")
    assert (nobody.status_code, nobody.text) == (200, "null")


def test_pages_are_cut_by_descending_id(api: Api):
    pages = [api.post(f"{TICKET}/page?page={n}&size=9&sort=id,desc", []).json() for n in range(4)]
    ids = [row["id"] for page in pages for row in page["content"]]
    assert ids == sorted(api.system.tickets, reverse=True)
    assert [len(page["content"]) for page in pages] == [9, 9, 6, 0]
    assert {(page["totalPages"], page["totalElements"]) for page in pages} == {(3, 24)}


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("size=501", []),
        ("size=x", []),
        ("size=10", {}),
        ("size=10", [{"field": "nothing", "searchOperation": "IN", "values": []}]),
        ("size=10", [{"field": "status", "searchOperation": "LIKE", "values": [0]}]),
        ("size=10", [{"field": "closeDate", "searchOperation": "BETWEEN", "values": ["2026-01-01"]}]),
        ("size=10", [{"field": "closeDate", "searchOperation": "LESS", "values": ["soon"]}]),
        ("size=10", ["status"]),
    ],
)
def test_a_bad_page_or_clause_is_400(api: Api, query: str, body: Any):
    assert api.post(f"{TICKET}/page?{query}", body).status_code == 400


def clause(field: str, operation: str, *values: Any) -> dict[str, Any]:
    return {"field": field, "searchOperation": operation, "values": list(values)}


def test_clauses_are_joined_by_and(api: Api):
    def ids(*clauses: dict[str, Any]) -> set[int]:
        page = api.post(f"{TICKET}/page?size=500", list(clauses)).json()
        return {row["id"] for row in page["content"]}

    tickets = api.system.tickets
    closed = {n for n, t in tickets.items() if t["status"] == "Закрыт"}
    assert ids(clause("status", "IN", 0)) == closed
    assert ids(clause("status", "NOT_IN", 0)) == set(tickets) - closed
    stamps = sorted(tickets[n]["closeDate"] for n in closed)
    middle = stamps[len(stamps) // 2]
    earlier = {n for n in closed if tickets[n]["closeDate"] < middle}
    assert ids(clause("closeDate", "LESS", middle)) == earlier
    assert ids(clause("closeDate", "GREATER_OR_EQUAL", middle)) == closed - earlier
    between = clause("closeDate", "BETWEEN", stamps[0], middle)  # from inclusive, to exclusive
    assert ids(between) == earlier
    assert ids(between, clause("status", "IN", 1)) == set()


def test_rows_of_tasks_are_the_open_tasks_of_open_tickets(api: Api):
    rows = api.post(f"{TASK_PAGE}?size=500", [clause("taskType", "IN", "Ожидание")]).json()["content"]
    assert sorted(row["ticketId"] for row in rows) == api.system.waiting()
    row = rows[0]
    ticket = api.get(f"{TICKET}/{row['ticketId']}").json()
    task = ticket["tasks"][-1]
    assert (row["id"], row["taskNumber"], row["kd"]) == (
        task["id"],
        task["taskNumber"],
        ticket["ola"]["kdSLA"],
    )
    hours, minutes = map(int, row["tillWaitingExit"].split(":"))
    until = datetime.fromisoformat(task["suspendDate"].replace("Z", "+00:00"))
    left = max(until - datetime.now(UTC), timedelta())
    assert abs(timedelta(hours=hours, minutes=minutes) - left) <= timedelta(minutes=2)


def test_suspended_resumed_closed_and_suspended_again(api: Api):
    number = api.system.suspend()
    assert number in api.system.waiting()
    api.system.resume(number)
    assert number not in api.system.waiting()
    api.system.suspend(number)
    assert number in api.system.waiting()
    api.system.close(number)
    assert number not in api.system.waiting()
    ticket = api.get(f"{TICKET}/{number}").json()
    assert ticket["status"] == "Закрыт"
    assert all(task["completionDate"] for task in ticket["tasks"])
    numbers = [task["taskNumber"] for task in ticket["tasks"]]
    assert len(set(numbers)) == len(numbers)


def test_past_days_do_not_depend_on_when_the_system_began():
    day = datetime.now(UTC).date() - timedelta(days=5)
    assert closed_on(day, 10, 1) == closed_on(day, 10, 1)
    assert closed_on(day, 10, 1)[:5] == closed_on(day, 5, 1)
    assert closed_on(day, 10, 2) != closed_on(day, 10, 1)


def test_faults_come_where_and_as_often_as_the_script_says(api: Api):
    faults = api.system.faults
    number = next(iter(api.system.tickets))
    faults.add("status", status=429, retry_after="1", path=TICKET, every=2)
    answers = [api.get(f"{TICKET}/{number}") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 429, 200, 429]
    assert answers[1].headers["Retry-After"] == "1"
    faults.clear()
    faults.add("html", times=1)
    assert api.get(f"{TICKET}/{number}").text.startswith("<!doctype html>")
    for action in ("drop", "reset"):
        faults.add(action, times=1)
        with pytest.raises(requests.RequestException):
            api.get(f"{TICKET}/{number}").json()
    faults.add("large", size_mib=2, times=1)
    assert len(api.get(f"{TICKET}/{number}").content) > 2 << 20
    assert api.get(f"{TICKET}/{number}").json()["id"] == number
    with pytest.raises(ValueError, match="no fault"):
        faults.add("explode")


def test_calls_are_logged_without_passwords_and_tokens(api: Api):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: api.get(f"{TICKET}/{n}"), range(20)))
    calls = list(api.system.calls)
    assert calls[0].path == LOGIN
    assert len(calls) == 21
    text = str(calls)
    assert "sandbox0password" not in text
    assert "Bearer" not in text
    assert api.system.stats()["statuses"] == {"200": 1, "404": 20}


def test_the_command_line_changes_a_running_system(system: TicketSystem):
    port = system.base_url.rsplit(":", 1)[1]
    before = len(system.waiting())

    def run(*words: str) -> Any:
        result = CliRunner().invoke(app, ["ttm", *words, "--port", port])
        assert result.exit_code == 0, result.output
        return result.output

    run("suspend")
    assert len(system.waiting()) == before + 1
    number = str(system.waiting()[0])
    run("resume", number)
    run("suspend", number, "--minutes", "5")
    run("close", number)
    assert len(system.waiting()) == before
    run("change", "--count", "3")
    run("faults", "--rule", '{"action": "status", "status": 503}', "--clear")
    assert '"action": "status"' in run("stats")
    run("expire")
    failed = CliRunner().invoke(app, ["ttm", "close", "5", "--port", port])
    assert failed.exit_code == 1
    nobody = CliRunner().invoke(app, ["ttm", "stats", "--port", "1"])
    assert "no ticket system answers" in nobody.output
    assert ARREARS in system.filters


def test_it_listens_on_loopback_only():
    with pytest.raises(ValueError, match="loopback"), serve(host="0.0.0.0"):
        pass
