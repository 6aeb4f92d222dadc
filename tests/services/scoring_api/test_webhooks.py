"""The webhook's contract: order of checks, statuses, bodies, limits, idempotency, management."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from resources.scoring_service.ledger import Ledger
from tests.services.scoring_api.scoring_house import (
    ADMIN,
    HOOKS,
    WEBHOOK,
    Hook,
    Running,
    item,
    make_hook,
    scalar,
)

NOBODY = str(uuid.uuid4())


def test_creating_one_tells_number_secret_and_address(http: httpx.Client):
    made = http.post(HOOKS, json=WEBHOOK)
    assert made.status_code == 200
    assert set(made.json()) == {"webhook_id", "secret", "url"}
    assert len(made.json()["secret"]) == 43
    assert made.json()["url"] == f"http://0.0.0.0:8000{HOOKS}/{made.json()['webhook_id']}"


def test_two_items_are_accepted_one_with_two_identifiers(hook: Hook, ledger: Ledger):
    answer = hook.send(item(client_id="123", purchase_id="order-1"), item(price=100.02, currency="rub"))
    assert answer.status_code == 200
    assert answer.json()["status"] == "accepted"
    assert answer.json()["accepted_count"] == 2
    rows = ledger.batch_conversions(uuid.UUID(answer.json()["batch_id"]))
    assert [(r["client_id"], r["purchase_id"]) for r in rows] == [
        ("123", "order-1"),
        ("1750856904411275036", None),
    ]
    assert (str(rows[1]["price"]), rows[1]["currency"]) == ("100.02", "RUB")


@pytest.mark.parametrize("name", ["client_id", "user_id", "yclid", "purchase_id"])
def test_any_identifier_is_enough(hook: Hook, name: str):
    only = {"client_id": None, name: "17"}
    assert hook.send(item(**only)).json()["accepted_count"] == 1


def test_a_number_of_twenty_digits_keeps_all_of_them(hook: Hook, ledger: Ledger):
    answer = hook.send(item(client_id=18446744073709551615))
    assert ledger.batch_conversions(uuid.UUID(answer.json()["batch_id"]))[0]["client_id"] == (
        "18446744073709551615"
    )


def test_checks_run_in_the_documented_order(http: httpx.Client, hook: Hook):
    broken = b"{"

    def ask(path: str, **headers: str) -> tuple[int, Any]:
        answer = http.post(path, content=broken, headers=headers)
        return answer.status_code, answer.json()["detail"]

    assert ask(f"{HOOKS}/{NOBODY}") == (404, "Webhook not found")
    assert ask(f"{HOOKS}/no-number") == (404, "Webhook not found")
    assert ask(hook.path) == (401, "X-Webhook-Secret header is required")
    assert ask(hook.path, **{"X-Webhook-Secret": "wrong"}) == (403, "Invalid webhook secret")
    assert ask(hook.path, **{"X-Webhook-Secret": hook.secret})[0] == 422
    http.post(f"{hook.path}/disable")
    assert ask(hook.path) == (403, "Webhook is disabled")


def test_an_empty_list_is_400(hook: Hook):
    answer = hook.send()
    assert (answer.status_code, answer.json()) == (400, {"detail": "No conversions provided"})


FUTURE = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
WRONG: dict[str, dict[str, Any]] = {
    "no identifier": item(client_id=None),
    "blank identifiers": item(client_id=" ", user_id=""),
    "no target": item(target=None),
    "empty target": item(target=""),
    "no time": item(date_time=None),
    "a day that does not exist": item(date_time="2025-02-30T10:00:00Z"),
    "the future": item(date_time=FUTURE),
    "milliseconds": item(date_time=1738577700000),
    "a time out of range": item(date_time=10**30),
    "a word for a time": item(date_time="yesterday"),
    "a price in words": item(price="a lot"),
    "a negative price": item(price=-1),
    "currency": item(currency="roubles"),
    "NUL": item(client_id="1\0"),
    "control characters": item(target="4\nplus"),
    "a truth value": item(client_id=True),
    "a fraction": item(client_id=1.5),
    "a list": item(client_id=["1"]),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_item_is_422_named_by_its_place_and_nothing_is_stored(
    hook: Hook, ledger: Ledger, wrong: dict[str, Any]
):
    answer = hook.send(item(), wrong)
    assert answer.status_code == 422
    found = answer.json()["detail"]
    assert found[0]["loc"][:3] == ["body", "conversions", 1]
    assert scalar(ledger, "SELECT count(*) FROM scoring.batches WHERE webhook_id = :h", h=hook.id) == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"conversions": 1}',
        b'{"conversions": [1]}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"conversions": [{"client_id": "\\ud800", "target": "t", "date_time": 1}]}',
        b'{"conversions": [{"client_id": "1", "target": "t", "date_time": NaN}]}',
        b'{"conversions": [{"client_id": ' + b"9" * 5000 + b', "target": "t", "date_time": 1738577700}]}',
    ],
)
def test_what_is_no_such_body_is_422(hook: Hook, body: bytes):
    answer = hook.http.post(hook.path, content=body, headers={"X-Webhook-Secret": hook.secret})
    assert answer.status_code == 422
    assert isinstance(answer.json()["detail"], list)


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (1481718166, "2016-12-14T12:22:46+00:00"),
        ("1481718166", "2016-12-14T12:22:46+00:00"),
        ("2025-02-03T10:15:00Z", "2025-02-03T10:15:00+00:00"),
        ("2025-02-03T10:15:00.9+03:00", "2025-02-03T07:15:00+00:00"),
        ("2025-02-03 10:15:00", "2025-02-03T10:15:00+00:00"),
    ],
)
def test_times_are_seconds_or_iso_and_utc_without_a_zone(hook: Hook, ledger: Ledger, given: Any, stored: str):
    answer = hook.send(item(date_time=given))
    row = ledger.batch_conversions(uuid.UUID(answer.json()["batch_id"]))[0]
    assert row["date_time"].astimezone(UTC).isoformat() == stored


def test_a_thousand_are_taken_and_one_more_is_not(hook: Hook):
    assert hook.send(*[item()] * 1000).json()["accepted_count"] == 1000
    assert hook.send(*[item()] * 1001).status_code == 422


def test_more_than_ten_megabytes_are_413_announced_or_not(hook: Hook):
    headers = {"X-Webhook-Secret": hook.secret}
    large = b" " * (10 * 1024 * 1024 + 1)
    assert hook.http.post(hook.path, content=large, headers=headers).status_code == 413
    chunks = (b" " * 65536 for _ in range(161))
    assert hook.http.post(hook.path, content=chunks, headers=headers).status_code == 413
    assert hook.send(item()).status_code == 200


def test_the_same_key_and_body_give_the_same_answer(hook: Hook, ledger: Ledger):
    first, again = hook.send(item(), key="order-1"), hook.send(item(), key="order-1")
    assert (first.status_code, again.json()) == (200, first.json())
    assert scalar(ledger, "SELECT count(*) FROM scoring.batches WHERE webhook_id = :h", h=hook.id) == 1


def test_the_same_key_with_another_body_is_409_and_keys_belong_to_a_webhook(http: httpx.Client, hook: Hook):
    assert hook.send(item(), key="order-2").status_code == 200
    assert hook.send(item(target="other"), key="order-2").status_code == 409
    assert make_hook(http).send(item(target="other"), key="order-2").status_code == 200
    assert hook.send(item(), key="not a key").status_code == 400


def test_status_tells_the_batch_to_its_own_webhook_only(http: httpx.Client, hook: Hook):
    batch = hook.send(item(), item()).json()["batch_id"]
    found = hook.status(batch).json()
    assert found["status"] == "pending"
    assert (found["total"], found["processed"], found["counter_id"]) == (2, 0, 100001)
    assert (found["webhook_id"], found["metrika_upload_id"], found["errors"]) == (hook.id, None, None)
    other = make_hook(http)
    answer = other.status(batch)
    assert (answer.status_code, answer.json()["detail"]) == (403, "Batch does not belong to this webhook")
    assert hook.status(NOBODY).json() == {"detail": "Batch not found"}
    assert hook.status(batch, **{"X-Webhook-Secret": "wrong"}).status_code == 403
    secret = {"X-Webhook-Secret": hook.secret}
    assert http.get(f"{hook.path}/status", headers=secret).status_code == 422
    assert http.get(f"{hook.path}/status").status_code == 401


def test_webhooks_are_listed_changed_switched_and_deleted(http: httpx.Client, hook: Hook):
    shown = http.get(hook.path).json()
    assert "secret" not in json.dumps(shown)
    assert WEBHOOK["token"] not in json.dumps(http.get(HOOKS).json())
    assert shown["webhook_id"] in {each["webhook_id"] for each in http.get(HOOKS).json()}
    change = {"name": "Касса", "counter_id": 100002, "token": "an0ther-token"}
    changed = http.patch(hook.path, json=change).json()
    assert (changed["name"], changed["counter_id"], changed["is_active"]) == ("Касса", 100002, True)
    assert http.patch(hook.path, json={"name": None, "description": "x"}).json()["name"] == "Касса"
    http.post(f"{hook.path}/disable")
    assert hook.send(item()).status_code == 403
    http.post(f"{hook.path}/enable")
    assert hook.send(item()).status_code == 200
    fresh = http.post(f"{hook.path}/secret").json()["secret"]
    assert hook.send(item()).status_code == 403
    assert Hook(http, hook.id, fresh).send(item()).status_code == 200
    assert len(http.get(f"{hook.path}/batches").json()) == 2
    assert http.delete(hook.path).status_code == 204
    assert http.delete(hook.path).status_code == 404
    assert Hook(http, hook.id, fresh).send(item()).status_code == 404
    actions = [line["action"] for line in http.get("/audit", params={"limit": 6}).json()]
    assert actions[0] == "webhook.delete"
    assert "webhook.secret" in actions


def test_what_a_deleted_webhook_accepted_is_still_to_be_sent(http: httpx.Client, hook: Hook, ledger: Ledger):
    batch = hook.send(item()).json()["batch_id"]
    http.delete(hook.path)
    found = ledger.batch(uuid.UUID(batch))
    assert found
    assert found["status"] == "pending"


def test_no_secret_and_no_token_is_stored_or_logged(http: httpx.Client, service: Running, ledger: Ledger):
    hook = make_hook(http, token="oauth-that-nobody-may-see")
    hook.send(item(client_id="client-that-nobody-may-see"))
    hook.send(item(client_id="client-that-nobody-may-see", price="x"))
    tables = scalar(ledger, "SELECT array_agg(tablename::text) FROM pg_tables WHERE schemaname = 'scoring'")
    stored = "".join(
        scalar(ledger, f"SELECT coalesce(string_agg(t::text, ''), '') FROM scoring.{name} t")
        for name in tables
    )
    assert "client-that-nobody-may-see" in stored
    for secret in (hook.secret, hook.secret.encode().hex(), "oauth-that-nobody-may-see"):
        assert secret not in stored
    log = service.log.read_text()
    for hidden in (hook.secret, "oauth-that-nobody-may-see", "client-that-nobody-may-see"):
        assert hidden not in log


def test_the_sixty_first_request_of_a_minute_is_429_and_managing_needs_the_admin(guarded: Running):
    with httpx.Client(base_url=guarded.url) as http:
        assert http.post(HOOKS, json=WEBHOOK).status_code == 401
        assert http.get(HOOKS, headers={"Authorization": "Bearer nonsense"}).status_code == 401
        http.headers["Authorization"] = f"Bearer {ADMIN}"
        hook, other = make_hook(http), make_hook(http)
        del http.headers["Authorization"]
        assert {hook.send(item()).status_code for _ in range(60)} == {200}
        refused = hook.send(item())
        assert refused.status_code == 429
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        assert other.send(item()).status_code == 200
        assert http.post(f"{other.path}/disable").status_code == 401
        assert ADMIN not in guarded.log.read_text()
