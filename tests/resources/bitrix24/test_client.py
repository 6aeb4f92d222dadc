"""The client against the emulated portal over real HTTP, with everything that can go wrong."""

import json
import logging
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from resources.bitrix24 import (
    Bitrix24Client,
    Bitrix24Resource,
    CommandError,
    ListCall,
    RecordBatch,
    Window,
    preflight,
)
from resources.bitrix24.credentials import parse_webhook
from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import install_log_redaction
from sandbox.bitrix24 import CostModel, Portal, PortalConfig, serve

CODE = "sandbox0secret"
DEALS = ListCall("crm.deal.list", {"select": ["*", "UF_*"]}, modified="DATE_MODIFY")
ITEMS = ListCall("crm.item.list", {"entityTypeId": 2}, "id", "id", "items", "updatedTime")
CLOCK_START = 1_790_000_000


class RestlessClock:
    """Sleeping takes no time, but the clock moves as if it had."""

    def __init__(self) -> None:
        self.now = float(CLOCK_START)
        self._lock = threading.Lock()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.now += seconds


@pytest.fixture(scope="module")
def shared_portal() -> Iterator[Portal]:
    config = PortalConfig(deals=1200, gaps=0.05, rate_limit=None, clock_start=CLOCK_START, clock_factor=0)
    with serve(config) as portal:
        yield portal


@pytest.fixture
def portal(shared_portal: Portal) -> Iterator[Portal]:
    yield shared_portal
    shared_portal.faults.clear()


@pytest.fixture
def connect(tmp_path) -> Iterator[Callable[..., Bitrix24Client]]:
    made: list[Bitrix24Client] = []

    def connect(portal: Portal, **settings: Any) -> Bitrix24Client:
        settings = {"bucket_capacity": 0, "state_dir": tmp_path, "clock": RestlessClock(), **settings}
        made.append(Bitrix24Client(portal.webhook_url, **settings))
        return made[-1]

    yield connect
    for client in made:
        client.close()


def rows(batches: Iterator[RecordBatch] | list[RecordBatch]) -> list[dict[str, Any]]:
    found = []
    for batch in batches:
        lines = batch.body.split(b"\n")
        assert len(lines) == batch.count
        found += [json.loads(line) for line in lines]
    return found


def ids(batches: Iterator[RecordBatch] | list[RecordBatch], key: str = "ID") -> Counter[int]:
    return Counter(int(row[key]) for row in rows(batches))


def expected(portal: Portal) -> Counter[int]:
    return Counter(int(row["ID"]) for row in portal.expected("deal", "id"))


def test_a_scan_delivers_every_row_once_with_its_days(portal, connect):
    client = connect(portal)
    batches = list(client.scan(DEALS))
    assert ids(batches) == expected(portal)
    days = sum((batch.days for batch in batches), Counter())
    assert days == Counter(row["DATE_MODIFY"][:10] for row in rows(batches))
    assert {batch.read_at for batch in batches} == {datetime.fromtimestamp(CLOCK_START, UTC)}
    assert client.stats.rows == 1200
    assert client.stats.requests <= 3


def test_universal_items_are_read_alike(portal, connect):
    assert ids(connect(portal).scan(ITEMS), "id") == expected(portal)


@pytest.mark.parametrize("call", [ITEMS, DEALS], ids=lambda call: call.method)
def test_a_window_is_half_open_and_one_request_when_little_changed(portal, connect, call):
    stamps = sorted({datetime.fromisoformat(row["DATE_MODIFY"]) for row in rows(connect(portal).scan(DEALS))})
    since, until = stamps[-20], stamps[-5]
    client = connect(portal)
    found = [
        datetime.fromisoformat(row[call.modified]) for row in rows(client.scan(call, Window(since, until)))
    ]
    assert sorted(set(found)) == stamps[-20:-5]
    assert client.stats.requests == 1


def test_prefetched_openings_are_used_once(portal, connect):
    client = connect(portal)
    now = client.server_time()
    asks = {
        "deals": (DEALS, Window(now)),
        "items": (ITEMS, Window(now)),
        "users": (ListCall("user.get"), Window()),
    }
    client.prefetch(asks)
    before = client.stats.snapshot()
    for call, window in list(asks.values())[:2]:
        assert list(client.scan(call, window)) == []
    assert client.stats.since(before).requests == 0
    assert list(client.scan(DEALS, Window(now))) == []
    assert client.stats.since(before).requests == 1


def test_a_scan_resumes_after_any_batch(portal, connect):
    client = connect(portal, batch_rows=200, in_flight=3)
    batches = list(client.scan(DEALS))
    assert len(batches) > 4
    for index, batch in enumerate(batches):
        rest = list(client.scan(DEALS, resume=batch.progress))
        assert set(ids(batches[: index + 1])) | set(ids(rest)) == set(expected(portal))
        assert set(ids(batches[: index + 1])).isdisjoint(ids(rest))


def test_progress_of_another_select_starts_afresh(portal, connect, caplog):
    client = connect(portal)
    *_, last = client.scan(ListCall("crm.deal.list", {"select": ["ID"]}))
    assert ids(client.scan(DEALS, resume=last.progress)) == expected(portal)
    assert "starting afresh" in caplog.text


def test_a_closed_scan_leaves_no_threads(portal, connect):
    client = connect(portal, batch_rows=100)
    scan = client.scan(DEALS)
    next(scan)
    next(scan)
    scan.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("bitrix24")]


def test_single_offset_and_sequential_lists_are_complete(portal, connect):
    client = connect(portal)
    statuses = rows(client.scan(ListCall("crm.status.list", paging="single")))
    assert len({row["ID"] for row in statuses}) == len(statuses) > 0
    departments = rows(client.scan(ListCall("department.get", {"START": 0}, paging="offset")))
    assert len(departments) == 7
    users = rows(
        client.scan(ListCall("user.get", {"ADMIN_MODE": True}, paging="sequential", sort_style="sort_order"))
    )
    assert len({row["ID"] for row in users}) == len(users) > 0
    by_offset = ListCall("crm.deal.list", {"order": {"ID": "ASC"}, "select": ["ID"]}, paging="offset")
    assert ids(client.scan(by_offset)) == expected(portal)


def test_by_ids_and_children(portal, connect):
    client = connect(portal)
    wanted = sorted(expected(portal))[:120]
    assert ids(client.by_ids(DEALS, [*wanted, 10**7])) == Counter(wanted)
    call = ListCall("crm.item.productrow.list", {}, "id", "id", "productRows")
    parents = [
        {"filter": {"=ownerType": "D", "=ownerId": wanted[start : start + 50]}} for start in range(0, 120, 50)
    ]
    found = dict(client.children(call, parents))
    assert sorted(found) == [0, 1, 2]
    for index, listed in found.items():
        assert len({row["id"] for row in listed}) == len(listed) > 0
        assert {row["ownerId"] for row in listed} <= set(parents[index]["filter"]["=ownerId"])
    alone = [
        client.call("crm.item.productrow.list", {"filter": {"=ownerType": "D", "=ownerId": n}})
        for n in wanted[:20]
    ]
    assert sum(len(answer["productRows"]) for answer in alone) == sum(
        1 for listed in found.values() for row in listed if row["ownerId"] in wanted[:20]
    )


def test_call_many_keeps_the_order_and_isolates_refusals(portal, connect):
    client = connect(portal)
    calls = [
        ("crm.deal.list", {"select": ["ID"], "filter": {"@ID": [n]}}) for n in sorted(expected(portal))[:70]
    ]
    answers = client.call_many([*calls, ("no.such.method", {})])
    assert [int(answer[0]["ID"]) for answer in answers[:70]] == sorted(expected(portal))[:70]
    assert isinstance(answers[70], CommandError)
    assert answers[70].code == "ERROR_METHOD_NOT_FOUND"
    assert client.stats.requests == 2


FAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "rate limit": ("status", {"skip": 1, "status": 503, "code": "QUERY_LIMIT_EXCEEDED"}),
    "operating limit": ("status", {"skip": 1, "status": 429, "code": "OPERATION_TIME_LIMIT"}),
    "server fault": ("status", {"skip": 1, "status": 500, "code": "INTERNAL_SERVER_ERROR"}),
    "gateway page": ("html", {"skip": 1, "status": 504}),
    "cut connection": ("reset", {"skip": 1}),
    "cut answer": ("truncate", {"skip": 1}),
    "cut answer twice": ("truncate", {"times": 2}),
    "nested operating limit": ("nested_error", {"command": 2, "code": "OPERATION_TIME_LIMIT"}),
    "nested fault": ("nested_error", {"command": 4, "code": "INTERNAL_SERVER_ERROR"}),
    "nested fault at the start": ("nested_error", {"command": 0, "code": "INTERNAL_SERVER_ERROR"}),
    "missing label": ("drop_label", {"command": 3}),
    "short page": ("short_page", {"skip": 4, "rows": 3, "times": 2}),
    "short first page": ("short_page", {"rows": 30}),
    "repeated page": ("repeat_page", {"skip": 5}),
    "duplicate row": ("duplicate_row", {"skip": 5}),
    "ignored cursor": ("ignore_filter", {"skip": 4, "times": 1}),
}


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("slots", [1, 4])
def test_no_fault_loses_a_row(portal, connect, name, slots):
    action, options = FAULTS[name]
    if action in {
        "nested_error",
        "drop_label",
        "short_page",
        "repeat_page",
        "duplicate_row",
        "ignore_filter",
    }:
        options = {"method": "crm.deal.list", **options}
    rule = portal.faults.add(action, **options)
    assert set(ids(connect(portal, in_flight=slots, batch_rows=500).scan(DEALS))) == set(expected(portal))
    assert rule.times == 0, "the fault never struck"


def test_an_ignored_order_falls_back_to_offsets(portal, connect, caplog):
    portal.faults.add("ignore_filter", times=None, keys=[">ID"])
    assert set(ids(connect(portal).scan(DEALS))) == set(expected(portal))
    assert "paging by offset" in caplog.text


def test_an_ignored_window_is_an_error_that_names_the_filter(portal, connect):
    portal.faults.add("ignore_filter", times=None, keys=[">=DATE_MODIFY"])
    window = Window(datetime.fromtimestamp(CLOCK_START, UTC) - timedelta(hours=1))
    with pytest.raises(PermanentSourceError, match="ignores the filter on `DATE_MODIFY`"):
        list(connect(portal).scan(DEALS, window))


def test_another_date_style_is_tried_before_giving_up(connect, caplog):
    config = PortalConfig(
        deals=300, rate_limit=None, clock_start=CLOCK_START, clock_factor=0, item_date_literals="server"
    )
    with serve(config) as portal:
        client = connect(portal)
        stamps = sorted(row["updatedTime"] for row in rows(client.scan(ITEMS)))
        since = datetime.fromisoformat(stamps[-10])
        assert sorted(row["updatedTime"] for row in rows(client.scan(ITEMS, Window(since)))) == stamps[-10:]
    assert "outside the window" in caplog.text


def test_a_renamed_portal_is_followed_with_the_body_and_remembered(portal, connect, caplog):
    config = PortalConfig(deals=60, rate_limit=None, seed=7)
    with serve(config) as new:
        portal.faults.add("redirect", times=None, location=new.webhook_url)
        client = connect(portal)
        assert ids(client.scan(DEALS)) == expected(new)
        assert "has moved to" in caplog.text
        assert CODE not in caplog.text
        before = client.stats.snapshot()
        client.call("profile")
        assert client.stats.since(before).requests == 1


def test_rows_hidden_after_paging_do_not_end_a_scan(connect):
    config = PortalConfig(deals=900, rate_limit=None, post_filtered=0.2)
    with serve(config) as portal:
        client = connect(portal)
        whole = set(ids(client.scan(DEALS)))
        by_offset = ListCall("crm.deal.list", {"order": {"ID": "ASC"}, "select": ["ID"]}, paging="offset")
        sequential = ListCall("crm.deal.list", {"select": ["ID"]}, paging="sequential")
        assert 0 < len(whole) < 900
        assert whole == set(ids(client.scan(by_offset))) == set(ids(client.scan(sequential)))


def test_a_portal_that_changes_loses_no_lasting_row(connect):
    config = PortalConfig(deals=1500, rate_limit=None, mutations_per_command=2)
    with serve(config) as portal:
        before = set(expected(portal))
        found = set(ids(connect(portal, batch_rows=500).scan(DEALS)))
        assert before & set(expected(portal)) <= found


def test_slow_commands_shrink_the_batch_under_the_cut(connect):
    config = PortalConfig(deals=2000, gaps=0, rate_limit=None, cost=CostModel(base=2.0), request_cut=60)
    with serve(config) as portal:
        client = connect(portal, operating_limit_s=0)
        assert ids(client.scan(DEALS)) == expected(portal)
        assert client.stats.retries == 0


ADVICE = [
    ("NO_AUTH_FOUND", 401, "does not know the webhook code"),
    ("INVALID_CREDENTIALS", 401, "webhook code is wrong"),
    ("expired_token", 401, "webhook has expired"),
    ("insufficient_scope", 403, "lacks the scope `crm`"),
    ("PORTAL_DELETED", 410, "was deleted"),
    ("PAYMENT_REQUIRED", 401, "subscription has ended"),
    ("ACCESS_DENIED", 403, "access denied"),
    ("OVERLOAD_LIMIT", 503, "blocked REST"),
]


@pytest.mark.parametrize(("code", "status", "text"), ADVICE)
@pytest.mark.parametrize("action", ["status", "nested_error"])
def test_final_refusals_say_what_to_do_at_once(portal, connect, code, status, text, action):
    portal.faults.add(action, times=None, code=code, status=status, description=f"see /rest/1/{CODE}/")
    client = connect(portal)
    with pytest.raises(PermanentSourceError) as caught:
        client.call("crm.deal.list") if action == "status" else list(client.scan(DEALS))
    assert text in str(caught.value.description)
    assert not caught.value.allow_retries
    assert client.stats.requests == 1


def test_a_wrong_code_is_one_clear_sentence(portal, tmp_path):
    url = portal.webhook_url.replace(CODE, "wrong0code0here")
    with pytest.raises(PermanentSourceError, match="BITRIX24_WEBHOOK_URL") as caught:
        Bitrix24Client(url, state_dir=tmp_path).call("profile")
    assert "wrong0code0here" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("fault", ["reset", "html", "truncate", "status"])
def test_lasting_faults_end_with_a_transient_error_and_no_secret(portal, connect, fault, caplog):
    caplog.set_level(logging.DEBUG)
    install_log_redaction()
    portal.faults.add(fault, times=None)
    client = connect(portal)
    with pytest.raises(TransientSourceError) as caught:
        list(client.scan(DEALS))
    assert client.stats.requests == 6
    assert CODE not in "".join(traceback.format_exception(caught.value)) + caplog.text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_budget_that_stays_used_up_ends_with_a_transient_error(portal, connect):
    portal.faults.add("nested_error", times=None, code="OPERATION_TIME_LIMIT")
    with pytest.raises(TransientSourceError, match="execution time"):
        list(connect(portal).scan(DEALS))


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (f"http://127.0.0.1:9/rest/1/{CODE}/", "refuses connections"),
        (f"https://no-such-portal.invalid/rest/1/{CODE}/", "host name is unknown"),
    ],
)
def test_an_unreachable_portal_is_named_as_such(url, text, tmp_path):
    client = Bitrix24Client(url, state_dir=tmp_path, clock=RestlessClock(), timeout_s=5)
    with pytest.raises(TransientSourceError, match=text) as caught:
        client.call("profile")
    assert CODE not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "url",
    [
        "",
        CODE,
        f"https://portal.example/{CODE}",
        f"ftp://portal.example/rest/1/{CODE}/",
        f"https://u:p@x.y/rest/1/{CODE}/",
    ],
)
def test_a_malformed_url_is_reported_without_its_value(url):
    with pytest.raises(PermanentSourceError, match="BITRIX24_WEBHOOK_URL") as caught:
        Bitrix24Resource(webhook_url=url).client.call("profile")
    assert CODE not in str(caught.value)


def test_a_pasted_example_url_is_understood():
    assert parse_webhook(f" https://x.bitrix24.ru/rest/1/{CODE}/profile.json ") == (
        f"https://x.bitrix24.ru/rest/1/{CODE}",
        CODE,
    )


def test_the_resource_keeps_its_client_and_hides_the_webhook(portal):
    resource = Bitrix24Resource(webhook_url=portal.webhook_url, bucket_capacity=0)
    assert resource.client is resource.client
    assert CODE not in repr(resource) + str(resource)
    assert all(row.ok for row in preflight(resource.client))


def test_the_preflight_names_missing_scopes(connect):
    with serve(PortalConfig(deals=1, rate_limit=None, scopes=("user",))) as portal:
        client = connect(portal)
        found = {row.subject: row for row in preflight(client)}
    missing = found["scopes"].detail.removeprefix("add to the webhook: ").split(", ")
    assert {"crm", "department", "task", "telephony", "user.userfield"} <= set(missing)
    assert "user" not in missing
    assert not found["crm.deal.list"].ok
    assert client.stats.requests == 1


def test_the_portal_never_has_to_refuse_for_the_rate(connect, tmp_path):
    config = PortalConfig(deals=1000, gaps=0, rate_limit=(5, 20))
    with serve(config) as portal:
        client = connect(portal, bucket_capacity=5, bucket_per_second=20, batch_rows=50, clock=time)
        assert ids(client.scan(DEALS)) == expected(portal)
        assert client.stats.retries == 0
        assert client.stats.waited_rate_s > 0


class PortalClock:
    """The portal's own virtual clock; whoever sleeps winds it."""

    def __init__(self, portal: Portal) -> None:
        self._clock = portal.clock

    def time(self) -> float:
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)


@pytest.mark.parametrize("mode", ["nested", "batch", "first-entry", "absent"])
def test_the_portal_never_has_to_refuse_for_execution_time(connect, mode):
    config = PortalConfig(
        deals=6000,
        clock_start=CLOCK_START,
        clock_factor=0,
        operating_mode=mode,
        cost=CostModel(base=7.0),
        request_cut=600,
    )
    with serve(config) as portal:
        client = connect(
            portal, clock=PortalClock(portal), request_target_s=40, bucket_capacity=50, in_flight=2
        )
        assert ids(client.scan(DEALS)) == expected(portal)
        assert client.stats.retries == 0
        assert (client.stats.waited_operating_s > 100) == (mode != "absent")
