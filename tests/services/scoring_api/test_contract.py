"""Tasks and conversions over HTTP: statuses and bodies of the documented contract."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import pytest

from resources.scoring_service.ledger import Ledger
from tests.services.scoring_api.scoring_house import ADMIN, Running, item, scalar

NOBODY = "00000000-0000-4000-8000-000000000000"  # parallel test runs need equal names
TASK = {"date": "2025-02-03", "token": "oauth", "counter": 100001}
FINISHED = {"status": "done", "progress": 100}
MOSCOW = "Europe/Moscow"


def visits(count: int) -> list[dict[str, Any]]:
    return [
        {
            "visitId": str(10**18 + n),
            "clientId": str(n),
            "dateTime": f"2025-02-03 10:00:{n % 60:02}",
            "visitDuration": n,
        }
        for n in range(count)
    ]


def add_task(http: httpx.Client, **values: Any) -> str:
    made = http.post("/tasks", json={**TASK, **values})
    assert made.status_code == 202, made.text
    return made.json()["task_id"]


def finished(http: httpx.Client, ledger: Ledger, count: int = 3, counter: int = 100001) -> str:
    task = add_task(http, counter=counter)
    assert ledger.task_done(uuid.UUID(task), MOSCOW, visits(count))
    return task


def test_a_task_is_accepted_and_pending(http: httpx.Client):
    status = http.get(f"/tasks/{add_task(http)}/status").json()
    assert (status["status"], status["progress"], status["error"]) == ("pending", 0, None)
    assert status["started_at"] is not None
    assert status["finished_at"] is None


WRONG = [
    ({"token": None}, 400, "token is required (in body or env)"),
    ({"token": ""}, 400, "token must be non-empty"),
    ({"counter": None}, 400, "counter is required (in body or env)"),
    ({"date": "2025-02-30"}, 400, "date does not exist"),
]


@pytest.mark.parametrize(("values", "status", "detail"), WRONG)
def test_what_a_task_lacks_is_named(http: httpx.Client, values: dict[str, Any], status: int, detail: str):
    answer = http.post("/tasks", json={**TASK, **values})
    assert (answer.status_code, answer.json()) == (status, {"detail": detail})
    left_out = {name: value for name, value in (TASK | values).items() if value is not None}
    assert http.post("/tasks", json=left_out).status_code == status


@pytest.mark.parametrize(
    "values",
    [
        {"date": "03.02.2025"},
        {"date": None},
        {"counter": 0},
        {"counter": -1},
        {"counter": 2**31},
        {"token": 1},
        {"token": "with space"},
        {"token": "line\nbreak"},
        {"counter": "x"},
        {"date": "2025-02-03\n"},
    ],
)
def test_a_malformed_task_is_422(http: httpx.Client, values: dict[str, Any]):
    answer = http.post("/tasks", json={**TASK, **values})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], list)
    assert "input" not in answer.json()["detail"][0]


@pytest.mark.parametrize("route", ["status", "result", "conversions"])
@pytest.mark.parametrize("task", [NOBODY, "no-number", "%00"])
def test_an_unknown_task_is_404(http: httpx.Client, route: str, task: str):
    answer = http.get(f"/tasks/{task}/{route}")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Task not found"})


def test_the_result_comes_in_pages(http: httpx.Client, ledger: Ledger):
    task = finished(http, ledger, 250)
    first = http.get(f"/tasks/{task}/result").json()
    assert [len(first["data"]), first["pagination"]] == [
        100,
        {"total": 250, "limit": 100, "offset": 0, "has_more": True},
    ]
    last = http.get(f"/tasks/{task}/result", params={"limit": 1000, "offset": 240}).json()
    assert [v["visitId"] for v in last["data"]] == [v["visitId"] for v in visits(250)[240:]]
    assert last["pagination"]["has_more"] is False
    assert http.get(f"/tasks/{task}/result", params={"offset": 250}).json()["data"] == []
    for wrong in ({"limit": 0}, {"limit": 1001}, {"offset": -1}, {"limit": "x"}, {"offset": 10**30}):
        assert http.get(f"/tasks/{task}/result", params=wrong).status_code == 422


def test_an_unfinished_result_is_202_and_a_failed_one_409(http: httpx.Client, ledger: Ledger):
    task = add_task(http)
    answer = http.get(f"/tasks/{task}/result")
    assert (answer.status_code, answer.json()) == (202, {"detail": "Task not finished"})
    ledger.task_runs(uuid.UUID(task), "run")
    status = http.get(f"/tasks/{task}/status").json()
    assert (status["status"], status["progress"]) == ("running", 10)
    assert http.get(f"/tasks/{task}/result").status_code == 202
    ledger.task_failed(uuid.UUID(task), "Metrika refused")
    assert http.get(f"/tasks/{task}/result").status_code == 409
    status = http.get(f"/tasks/{task}/status").json()
    assert (status["status"], status["progress"], status["error"]) == ("failed", 100, "Metrika refused")
    assert status["finished_at"] is not None


def test_a_done_task_without_a_result_is_404(http: httpx.Client, ledger: Ledger):
    task = finished(http, ledger)
    scalar_delete(ledger, task)
    answer = http.get(f"/tasks/{task}/result")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Result not found"})
    answer = http.post("/conversions/bulk", json={"task_id": task, "counter": 1, "token": "t"})
    assert (answer.status_code, answer.json()) == (404, {"detail": "Task results not found"})


def scalar_delete(ledger: Ledger, task: str) -> None:
    with ledger.engine.begin() as db:
        db.exec_driver_sql("DELETE FROM scoring.results WHERE task_id = %s", (task,))


def test_a_finished_task_stays_as_it_is(http: httpx.Client, ledger: Ledger):
    task = uuid.UUID(finished(http, ledger))
    assert not ledger.task_failed(task, "too late")
    assert not ledger.task_runs(task, "another")
    assert http.get(f"/tasks/{task}/status").json()["status"] == "done"


def test_bulk_sends_the_visits_of_a_task_once(http: httpx.Client, ledger: Ledger):
    counter = 500001
    task = finished(http, ledger, 3, counter)
    body = {"task_id": task, "counter": counter, "token": "oauth"}
    made = http.post("/conversions/bulk", json=body)
    assert (made.status_code, made.json()["status"]) == (200, "pending")
    found = http.get(f"/conversions/{made.json()['upload_id']}/status").json()
    # the visitor 0 is nobody
    assert (found["status"], found["total"], found["processed"]) == ("pending", 2, 0)
    assert found["errors"] == ["визитов без ClientID: 1"]
    rows = ledger.batch_conversions(uuid.UUID(made.json()["upload_id"]))
    assert {r["target"] for r in rows} == {"4plus"}
    assert rows[0]["date_time"].isoformat() == "2025-02-03T07:00:01+00:00"  # ten o'clock in Moscow
    again = http.post(
        "/conversions/bulk", json={**body, "task_id": finished(http, ledger, 4, counter)}
    ).json()
    found = http.get(f"/conversions/{again['upload_id']}/status").json()
    assert (found["total"], found["errors"][0]) == (
        1,
        "визитов без ClientID: 1; визитов, принятых к отправке раньше: 2",
    )
    listed = http.get(f"/tasks/{task}/conversions").json()
    assert [each["upload_id"] for each in listed] == [made.json()["upload_id"]]


def test_bulk_of_a_task_that_has_no_result_yet(http: httpx.Client):
    body = {"task_id": NOBODY, "counter": 1, "token": "t"}
    assert http.post("/conversions/bulk", json=body).json() == {"detail": "Task not found"}
    answer = http.post("/conversions/bulk", json={**body, "task_id": add_task(http)})
    assert (answer.status_code, answer.json()) == (202, {"detail": "Task not finished yet"})


def test_bulk_without_a_visit_is_processed_at_once(http: httpx.Client, ledger: Ledger):
    task = finished(http, ledger, 0)
    made = http.post("/conversions/bulk", json={"task_id": task, "counter": 1, "token": "t"}).json()
    found = http.get(f"/conversions/{made['upload_id']}/status").json()
    assert (found["status"], found["total"]) == ("processed", 0)


def test_a_single_conversion(http: httpx.Client):
    body = {**item(), "counter": 100001, "token": "oauth"}
    made = http.post("/conversions/single", json=body)
    assert (made.status_code, made.json()["status"]) == (200, "pending")
    found = http.get(f"/conversions/{made.json()['upload_id']}/status").json()
    assert found == {
        "upload_id": made.json()["upload_id"],
        "status": "pending",
        "errors": None,
        "processed": 0,
        "total": 1,
    }
    assert http.post("/conversions/single", json={**body, "client_id": None}).status_code == 422
    assert http.post("/conversions/single", json={**body, "date_time": "2999-01-01"}).status_code == 422
    missing = http.get(f"/conversions/{NOBODY}/status")
    assert (missing.status_code, missing.json()) == (404, {"detail": "Conversion upload not found"})


@pytest.mark.parametrize("path", ["/tasks", "/conversions/single"])
def test_the_same_key_makes_one(http: httpx.Client, path: str):
    body = {**TASK, **item()}
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first, again = (http.post(path, json=body, headers=headers) for _ in range(2))
    assert first.json() == again.json()
    other = {**body, "counter": 7}
    assert http.post(path, json=other, headers=headers).status_code == 409


CSV = """ClientId,UserId,Target,DateTime,Price,Currency
1,,order,1481718166,100.02,RUB
,u-2,order,2025-02-03T10:15:00Z,,
"""


def upload(http: httpx.Client, text: str | bytes, **form: str) -> httpx.Response:
    content = text.encode() if isinstance(text, str) else text
    return http.post(
        "/conversions/csv",
        files={"file": ("conversions.csv", content, "text/csv")},
        data={"counter": "100001", "token": "oauth", **form},
    )


def test_a_csv_file_is_taken_whole(http: httpx.Client, ledger: Ledger):
    made = upload(http, CSV)
    assert (made.status_code, made.json()["accepted_count"]) == (200, 2)
    rows = ledger.batch_conversions(uuid.UUID(made.json()["upload_id"]))
    assert [(r["client_id"], r["user_id"], str(r["price"])) for r in rows] == [
        ("1", None, "100.02"),
        (None, "u-2", "None"),
    ]
    ours = "\ufeffclient_id;date_time\r\n17;1481718166\r\n"
    assert upload(http, ours, target="lead").json()["accepted_count"] == 1


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (CSV + "3,,order,2025-13-01,,\n", ["body", "file", 4, "date_time"]),
        (CSV + ",,order,1481718166,,\n", ["body", "file", 4]),
        (CSV + "3,,order\n", ["body", "file"]),
        ("Surname,DateTime\n1,2\n", ["body", "file"]),
        ("ClientId,ClientId\n1,2\n", ["body", "file"]),
        ("ClientId,Target,DateTime\n", ["body", "file"]),
        ("", ["body", "file"]),
        (b"\xff\xfe\x00", ["body", "file"]),
        ('ClientId,Target,DateTime\n"1,order,1481718166\n', ["body", "file"]),
        ("ClientId,Target,DateTime\n1\0,order,1481718166\n", ["body", "file"]),
    ],
)
def test_a_csv_file_with_a_mistake_is_refused_whole_with_line_and_field(
    http: httpx.Client, ledger: Ledger, text: str | bytes, where: list[Any]
):
    before = scalar(ledger, "SELECT count(*) FROM scoring.batches")
    answer = upload(http, text)
    assert answer.status_code == 422, answer.text
    assert answer.json()["detail"][0]["loc"] == where
    assert scalar(ledger, "SELECT count(*) FROM scoring.batches") == before


def test_token_and_counter_come_from_the_environment_for_those_who_may_use_them(guarded: Running):
    admin = {"Authorization": f"Bearer {ADMIN}"}
    with httpx.Client(base_url=guarded.url) as http:
        assert http.post("/tasks", json={"date": "2025-02-03"}).status_code == 401
        assert http.post("/tasks", json={"date": "2025-02-03"}, headers=admin).status_code == 202
        assert http.post("/tasks", json={"date": "2025-02-03", "token": "own"}).status_code == 202
        assert http.post("/conversions/single", json=item(), headers=admin).status_code == 200
        assert "oauth-of-the-company" not in guarded.log.read_text()


def test_the_description_has_every_route_with_an_example(http: httpx.Client):
    schema = http.get("/openapi.json").json()
    assert (schema["info"]["title"], schema["info"]["version"]) == ("Metrika Score API", "1.0.0")
    for path in (
        "/tasks",
        "/conversions/bulk",
        "/conversions/csv",
        "/webhook/offline-conversions/{webhook_id}",
    ):
        assert path in schema["paths"]
    page = http.get("/docs").text
    assert "1750856904411275036" in page
    assert "<script" not in page
