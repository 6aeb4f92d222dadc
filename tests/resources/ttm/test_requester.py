"""The requester's client: whatever happens to connections and connectors, every request ends once."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from resources.ttm.protocol import TtmError
from resources.ttm.requester import HubClient
from resources.ttm.settings import SettingError, Settings
from services.ttm_hub.config import hub_config
from tests.services.ttm_hub.hub_house import KEY, TOKEN, RunningHub, StubConnector, result_of, running_hub
from tests.support.certificates import private_ca

Reply = Callable[[StubConnector, dict[str, Any]], None]


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    with running_hub(failures=1000) as running:
        yield running


def client(hub: RunningHub, patience_s: float = 10) -> HubClient:
    return HubClient(hub.url, TOKEN, KEY, patience_s=patience_s)


def good(connector: StubConnector, task: dict[str, Any]) -> None:
    connector.send(result_of(task))


@contextmanager
def serving(hub: RunningHub, reply: Reply = good, name: str = "c1", capacity: int = 8) -> Iterator[None]:
    """A connector in a thread that comes back when it loses the hub."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                with StubConnector(hub, name, capacity) as connector:
                    while not stop.is_set():
                        try:
                            task = connector.expect("task", 0.1)
                        except TimeoutError:
                            continue
                        connector.send({"type": "ack", "id": task["id"], "attempt": task["attempt"]})
                        reply(connector, task)
            except (ConnectionClosed, OSError, EOFError):
                time.sleep(0.02)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)


def test_tickets_come_with_their_ids_as_they_are_answered(hub: RunningHub):
    with serving(hub), client(hub) as asker:
        found = dict(asker.tickets(range(1, 101), concurrency=16))
    assert found == {number: {"id": number} for number in range(1, 101)}


def test_an_error_belongs_to_one_ticket(hub: RunningHub):
    def reply(connector: StubConnector, task: dict[str, Any]) -> None:
        match task["params"]["id"]:
            case 2:
                connector.fail(task, "not_found", retryable=False, status=404)
            case 3:
                connector.send(result_of(task, ["not a ticket"]))
            case _:
                good(connector, task)

    with serving(hub, reply), client(hub) as asker:
        found = dict(asker.tickets([1, 2, 3, 4]))
    assert found[1] == {"id": 1}
    assert found[4] == {"id": 4}
    assert isinstance(found[2], TtmError)
    assert (found[2].code, found[2].status, found[2].retryable) == ("not_found", 404, False)
    assert isinstance(found[3], TtmError)
    assert found[3].code == "upstream_error"


def test_lists_say_what_was_asked(hub: RunningHub):
    asked = []

    def reply(connector: StubConnector, task: dict[str, Any]) -> None:
        asked.append((task["method"], task["params"]))
        rows = [{"id": 7, "ticketId": 5}]
        data = {"kind": "task", "ids": [5], "rows": rows, "total": 1, "pages": 1, "partial": True}
        connector.send(result_of(task, data))

    with serving(hub, reply), client(hub) as asker:
        stopped = asker.ticket_list("f-stopped", "task")
        asker.ticket_list("f-arrears", "ticket", "2026-11-20", "Asia/Omsk")
    assert (stopped.ids, stopped.rows, stopped.partial) == ([5], [{"id": 7, "ticketId": 5}], True)
    assert asked == [
        ("ticket.list", {"filter": "f-stopped", "kind": "task"}),
        (
            "ticket.list",
            {
                "filter": "f-arrears",
                "kind": "ticket",
                "business_date": "2026-11-20",
                "business_tz": "Asia/Omsk",
            },
        ),
    ]


def test_a_list_without_ids_is_an_error(hub: RunningHub):
    data = {"ids": ["5"], "rows": []}
    with (
        serving(hub, lambda c, task: c.send(result_of(task, data))),
        client(hub) as asker,
        pytest.raises(TtmError, match="no ids"),
    ):
        asker.ticket_list("f", "task")


def test_status_and_ping(hub: RunningHub):
    data = {"upstream": "ok", "login_age": 3, "version": "1.0"}
    with serving(hub, lambda c, task: c.send(result_of(task, data))), client(hub) as asker:
        assert asker.ping() == data
        status = asker.status()
    assert [line["instance"] for line in status["connectors"]] == ["c1"]


def test_a_busy_hub_is_asked_again():
    with (
        running_hub(limits={"max_inflight": 2, "retry_after": 0.05}) as hub,
        serving(hub),
        client(hub) as asker,
    ):
        found = list(asker.tickets(range(1, 21), concurrency=8))
    assert sorted(number for number, _ in found) == list(range(1, 21))
    assert not [result for _, result in found if isinstance(result, TtmError)]


def test_a_hub_that_stays_busy_is_given_up():
    with running_hub(limits={"queue": 0, "retry_after": 0.05}) as hub, client(hub, patience_s=0.5) as asker:
        ((number, result),) = asker.tickets([1])
        assert number == 1
        assert isinstance(result, TtmError)
        assert (result.code, result.retryable) == ("busy", True)


def test_a_restarted_hub_is_asked_again_and_nothing_comes_twice(hub: RunningHub):
    answered = Counter[int]()

    def reply(connector: StubConnector, task: dict[str, Any]) -> None:
        time.sleep(0.005)
        answered[task["params"]["id"]] += 1
        good(connector, task)

    with serving(hub, reply), client(hub) as asker:
        found = list[int]()
        for number, result in asker.tickets(range(1, 121), concurrency=8):
            assert result == {"id": number}
            found.append(number)
            if len(found) in (20, 60):
                hub.restart()
    assert sorted(found) == list(range(1, 121))
    assert set(answered) == set(range(1, 121))


def test_a_hub_that_is_not_there_ends_every_request_in_time():
    began = time.monotonic()
    with HubClient("ws://127.0.0.1:1", TOKEN, KEY, patience_s=0.5) as asker:
        found = dict(asker.tickets([1, 2, 3]))
        assert {getattr(result, "code", None) for result in found.values()} == {"hub_unreachable"}
        with pytest.raises(TtmError, match="hub_unreachable"):
            asker.status()
    assert len(found) == 3
    assert time.monotonic() - began < 5


def test_an_address_that_is_no_hub_is_said_at_once(hub: RunningHub):
    began = time.monotonic()
    with HubClient(f"{hub.url}/elsewhere", TOKEN, KEY) as asker, pytest.raises(TtmError, match="no hub"):
        asker.status()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("key", ["another key", ""])
def test_a_wrong_key_is_said_at_once_and_never_shown(hub: RunningHub, key: str):
    with HubClient(hub.url, TOKEN, key, patience_s=60) as asker:
        with pytest.raises(TtmError) as refused:
            asker.ticket_list("f", "task")
        assert refused.value.code == "unauthorized"
        assert KEY not in repr(asker)
        assert {r.code for _, r in asker.tickets([1, 2]) if isinstance(r, TtmError)} == {"unauthorized"}


def test_a_caller_that_stops_listening_leaves_nothing_behind(hub: RunningHub):
    seen = list[int]()

    def reply(connector: StubConnector, task: dict[str, Any]) -> None:
        seen.append(task["params"]["id"])
        good(connector, task)

    with serving(hub, reply), client(hub) as asker:
        for number, _ in asker.tickets(range(1, 1000), concurrency=4):
            if number > 3:
                break
        assert asker.status()["queued"] == 0
        assert dict(asker.tickets([5000])) == {5000: {"id": 5000}}
    assert len(seen) < 100


def test_wss_with_a_private_authority(tmp_path: Path):
    files = private_ca(tmp_path / "good")
    environ = {"TTM_TOKEN": TOKEN, "TTM_KEY": KEY, "TTM_PORT": "0"}
    served = {"TTM_TLS_CERT": str(files.server_chain), "TTM_TLS_KEY": str(files.server_key)}
    tls = hub_config(Settings(environ | served)).tls
    with running_hub(tls=tls) as hub:
        asking = environ | {"TTM_SERVER": hub.url, "TTM_TLS_CA": str(files.ca_file)}
        with HubClient.from_settings(Settings(asking), patience_s=5) as asker:
            assert asker.status()["connectors"] == []
        other = private_ca(tmp_path / "other")
        wrong = Settings(asking | {"TTM_TLS_CA": str(other.ca_file)})
        refused = pytest.raises(TtmError, match="certificate is not trusted")
        with HubClient.from_settings(wrong, patience_s=60) as asker, refused:
            asker.status()


@pytest.mark.parametrize("missing", ["TTM_SERVER", "TTM_TOKEN", "TTM_KEY"])
def test_a_missing_setting_is_named(missing: str):
    environ = {"TTM_SERVER": "ws://127.0.0.1:1", "TTM_TOKEN": TOKEN, "TTM_KEY": KEY}
    del environ[missing]
    with pytest.raises(SettingError, match=missing):
        HubClient.from_settings(Settings(environ))
