"""The connector against a hub written by hand from the protocol."""

import logging
import queue
import socket
import ssl
import time
from pathlib import Path
from typing import Any

import pytest

from resources.ttm.settings import client_tls
from sandbox.ttm import TicketSystem
from tests.services.ttm_connector.connector_house import KEY, connector
from tests.support.certificates import private_ca


def test_it_introduces_itself_and_answers(system: TicketSystem):
    number = next(iter(system.tickets))
    with connector(system, capacity=4) as stage:
        line = stage.line()
        hello = line.shake_hands()
        assert line.proven
        assert hello["v"] == [1]
        assert (hello["role"], hello["instance"], hello["capacity"]) == ("connector", "conn-a1", 4)
        assert hello["methods"] == ["ticket.list", "ticket.get", "system.ping"]
        beat = line.expect("heartbeat")
        assert (beat["upstream"], beat["capacity"], beat["inflight"]) == ("unknown", 4, 0)
        result = line.ticket("t-1", number)
        assert (result["ok"], result["status"], result["attempt"]) == (True, 200, 1)
        assert result["data"] == system.tickets[number]
        assert line.expect("heartbeat", upstream="ok")["seq"] > beat["seq"]


def test_it_leaves_a_hub_that_does_not_know_the_key_and_tries_again_later(
    system: TicketSystem, caplog: pytest.LogCaptureFixture
):
    with connector(system, refused_s=0.2) as stage:
        forged = stage.line()
        forged.shake_hands(key="another-key")
        assert forged.close_code() == 4401
        began = time.monotonic()
        genuine = stage.connected()
        assert time.monotonic() - began >= 0.15
        assert genuine.ticket("t-1", 5)["error"]["code"] == "not_found"
    assert "does not know the key" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("code", [4401, 4403, 4001])
def test_refused_credentials_are_tried_again_ever_more_seldom(system: TicketSystem, code: int):
    with connector(system, refused_s=0.1) as stage:
        times = list[float]()
        for _ in range(3):
            line = stage.line()
            times.append(time.monotonic())
            line.read()
            line.close(code)
        first, second = times[1] - times[0], times[2] - times[1]
        assert first >= 0.1
        assert second >= 0.2


@pytest.mark.parametrize(("code", "status"), [(4409, 3), (4426, 4)])
def test_it_stops_when_waiting_would_not_help(system: TicketSystem, code: int, status: int):
    with connector(system) as stage:
        line = stage.connected()
        line.close(code)
        assert stage.ended() == status


def test_an_error_of_version_stops_it(system: TicketSystem):
    with connector(system) as stage:
        line = stage.line()
        line.read()
        line.send({"type": "error", "code": "version", "message": "too old", "ref": None})
        assert stage.ended() == 4


@pytest.mark.parametrize("code", [1000, 1001, 1012, 4408, 1011])
def test_it_comes_back_after_a_hub_that_goes(system: TicketSystem, code: int):
    with connector(system) as stage:
        stage.connected().close(code)
        assert stage.connected().ticket("t-1", 5)["status"] == 404


def test_a_result_that_was_not_acknowledged_is_sent_once_more(system: TicketSystem):
    number = next(iter(system.tickets))
    with connector(system) as stage:
        line = stage.connected()
        line.task("t-1", "ticket.get", {"id": number})
        result = line.expect("result", id="t-1")
        line.cut()
        again = stage.connected()
        assert again.expect("result", id="t-1")["data"] == result["data"]
        again.cut()
        third = stage.connected()
        with pytest.raises(TimeoutError):
            third.expect("result", 0.3)


def test_work_goes_on_while_the_hub_is_away(system: TicketSystem):
    system.config.latency = 0.3
    with connector(system) as stage:
        line = stage.connected()
        line.task("t-1", "ticket.get", {"id": next(iter(system.tickets))})
        line.expect("ack", id="t-1")
        line.cut()
        assert stage.connected().expect("result", id="t-1")["ok"]
    assert len([c for c in system.calls if "/ticket/" in c.path]) == 1


def test_a_task_given_twice_is_done_once(system: TicketSystem):
    system.config.latency = 0.2
    with connector(system) as stage:
        line = stage.connected()
        for attempt in (1, 2):
            line.task("t-1", "ticket.get", {"id": next(iter(system.tickets))}, attempt)
            assert line.expect("ack", id="t-1")["attempt"] == attempt
        assert line.expect("result", id="t-1")["attempt"] == 2
        line.task("t-1", "ticket.get", {"id": next(iter(system.tickets))}, 3)  # done, not acknowledged
        assert line.expect("result", id="t-1")["attempt"] == 3
    assert len([c for c in system.calls if "/ticket/" in c.path]) == 1


def test_a_cancelled_task_has_no_result(system: TicketSystem):
    system.config.latency = 0.3
    with connector(system) as stage:
        line = stage.connected()
        line.task("t-1", "ticket.get", {"id": next(iter(system.tickets))})
        line.expect("ack", id="t-1")
        line.send({"type": "cancel", "id": "t-1"})
        with pytest.raises(TimeoutError):
            line.expect("result", 0.8)


def test_a_task_ends_in_its_time(system: TicketSystem):
    system.config.latency = 5
    with connector(system) as stage:
        line = stage.connected()
        line.task("t-1", "ticket.get", {"id": 1}, timeout=0.2)
        result = line.expect("result", id="t-1")
        assert (result["ok"], result["error"]["code"]) == (False, "upstream_timeout")
        assert result["error"]["retryable"] is True
        system.config.latency = 0


def test_no_more_calls_than_the_capacity_at_once(system: TicketSystem):
    system.config.latency = 0.05
    with connector(system, capacity=2) as stage:
        line = stage.connected()
        for number in range(10):
            line.task(f"t-{number}", "ticket.get", {"id": next(iter(system.tickets))})
        results = [line.expect("result") for _ in range(10)]
        assert all(result["ok"] for result in results)
    assert system.most_in_flight <= 2


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("ticket.close", {"id": 1}, "unknown_method"),
        ("__class__", {}, "unknown_method"),
        ("ticket.get", {}, "bad_request"),
        ("ticket.get", {"id": "../../logout"}, "bad_request"),
        ("ticket.get", {"id": -5}, "bad_request"),
        ("ticket.get", {"id": True}, "bad_request"),
        ("ticket.get", [], "bad_request"),
        ("ticket.list", {"filter": "../secret", "kind": "task"}, "bad_request"),
        ("ticket.list", {"filter": "a/b", "kind": "task"}, "bad_request"),
        ("ticket.list", {"filter": "sandbox-stopped", "kind": "user"}, "bad_request"),
        ("ticket.list", {"filter": "a", "kind": "task", "business_date": "2026-02-30"}, "bad_request"),
        (
            "ticket.list",
            {"filter": "a", "kind": "task", "business_date": "2026-02-20", "business_tz": "../x"},
            "bad_request",
        ),
    ],
)
def test_what_is_not_on_the_list_makes_no_call(system: TicketSystem, method: str, params: Any, code: str):
    with connector(system) as stage:
        line = stage.connected()
        line.task("t-1", method, params)
        result = line.expect("result", id="t-1")
        assert (result["ok"], result["error"]["code"], result["error"]["retryable"]) == (False, code, False)
    assert not system.calls


def test_messages_that_are_none_do_not_stop_it(system: TicketSystem):
    with connector(system) as stage:
        line = stage.connected()
        for message in (
            {"type": "task"},
            {"type": "task", "id": "two words", "attempt": 1},
            {"type": "task", "id": "t", "attempt": "1"},
            {"type": "news", "text": "?"},
            {"type": "result_ack", "id": None},
            {"type": "cancel", "id": ["x"]},
            {"type": "error", "code": "bad_request", "message": None, "ref": None},
            "not json",
            b"binary",
            "[]",
        ):
            line.send(message)
        assert line.ticket("t-1", 5)["status"] == 404
        for _ in range(7):
            line.send("not json")
        assert line.close_code() == 4400  # the tenth
        assert stage.connected().ticket("t-2", 5)["status"] == 404


def test_told_to_stop_while_the_hub_does_not_answer_it_stops_at_once(system: TicketSystem):
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        with connector(system, server=f"ws://127.0.0.1:{deaf.getsockname()[1]}/v1/ttm") as stage:
            accepted, _ = deaf.accept()
            stage.stop()
            assert stage.ended() == 0
            accepted.close()


def test_heartbeats_come_at_the_hubs_interval(system: TicketSystem):
    with connector(system) as stage:
        line = stage.connected(heartbeat=0.1)
        numbers = [line.expect("heartbeat")["seq"] for _ in range(4)]
    assert numbers == [1, 2, 3, 4]


def test_told_to_stop_it_finishes_drains_and_logs_out(system: TicketSystem):
    system.config.latency = 0.2
    with connector(system) as stage:
        line = stage.connected()
        line.task("t-1", "ticket.get", {"id": next(iter(system.tickets))})
        line.expect("ack", id="t-1")
        stage.stop()
        line.expect("drain")
        assert line.expect("result", id="t-1")["ok"]
        assert line.close_code() == 1000
        line.over.set()
        assert stage.ended() == 0
    assert system.calls[-1].path.endswith("/logout")


def test_wss_with_a_private_authority(system: TicketSystem, tmp_path: Path):
    files = private_ca(tmp_path / "good")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.server_chain, files.server_key)
    with connector(system, tls=(server, client_tls(str(files.ca_file)))) as stage:
        assert stage.connected().ticket("t-1", 5)["status"] == 404
    other = private_ca(tmp_path / "other")
    wrong = (server, client_tls(str(other.ca_file)))
    with connector(system, tls=wrong) as stage, pytest.raises(queue.Empty):
        stage.line(0.3)


def test_no_secret_is_in_frames_calls_or_logs(system: TicketSystem, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, logger="ttm")
    password = next(iter(system.config.users.values()))
    with connector(system) as stage:
        line = stage.connected()
        line.ticket("t-1", next(iter(system.tickets)))
        system.config.users = dict.fromkeys(system.config.users, "changed")
        system.expire()
        refused = line.ticket("t-2", next(iter(system.tickets)))
        assert refused["error"]["code"] == "upstream_auth"
        heard = str(line.heard)
    for secret in (KEY, password):
        assert secret not in heard
        assert secret not in caplog.text
