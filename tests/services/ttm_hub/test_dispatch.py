"""Requests and connectors: who gets what, what is given again, and that every request ends once."""

import json
import threading
import time
from collections import Counter
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from tests.services.ttm_hub.hub_house import (
    Client,
    RunningHub,
    StubConnector,
    StubRequester,
    result_of,
    running_hub,
)


def test_a_request_goes_to_a_connector_and_its_data_come_back_untouched(hub: RunningHub):
    data = {"id": 710012, "status": "Закрыт", "ola": {"ksSla": 1.10}, "big": 2**70, "list": [None, True]}
    with StubConnector(hub, "conn-a1") as connector, StubRequester(hub) as asker:
        asker.ask(710012, "run-8f2:710012", timeout=60, max_attempts=3)
        assert asker.read() == {"type": "accepted", "id": "run-8f2:710012", "queued": 1}
        task = connector.take()
        assert (task["attempt"], task["method"], task["params"]) == (1, "ticket.get", {"id": 710012})
        assert task["id"].startswith("t-")
        assert 59 < task["timeout"] <= 60
        assert connector.answer(task, data) == {
            "type": "result_ack",
            "id": task["id"],
            "attempt": 1,
            "duplicate": False,
        }
        response = asker.read()
        assert response.pop("elapsed_ms") >= 0
        assert response == {
            "type": "response",
            "id": "run-8f2:710012",
            "ok": True,
            "status": 200,
            "data": data,
            "connector": "conn-a1",
            "attempts": 1,
        }


def test_an_error_of_the_ticket_system_reaches_the_requester(hub: RunningHub):
    with StubConnector(hub, "c1") as connector, StubRequester(hub) as asker:
        asker.ask(1)
        connector.fail(connector.take(), "not_found", retryable=False, status=404)
        response = asker.expect("response")
        assert (response["ok"], response["status"], response["attempts"]) == (False, 404, 1)
        assert response["error"] == {
            "code": "not_found",
            "message": "as the test says",
            "retryable": False,
        }


def test_a_retryable_error_is_tried_again_elsewhere_up_to_max_attempts(hub: RunningHub):
    with StubConnector(hub, "c1") as first, StubConnector(hub, "c2") as second, StubRequester(hub) as asker:
        asker.ask(1, max_attempts=3)
        first.fail(first.take(), "upstream_error", retryable=True)
        second.fail(second.take(), "upstream_error", retryable=True)
        third = first.take()
        assert third["attempt"] == 3
        first.fail(third, "upstream_unreachable", retryable=True)
        response = asker.expect("response")
        assert (response["attempts"], response["error"]["code"]) == (3, "upstream_unreachable")


def test_what_a_killed_connector_held_goes_to_another(hub: RunningHub):
    with StubConnector(hub, "c1") as first, StubRequester(hub) as asker:
        asker.ask(1)
        task = first.take()
        with StubConnector(hub, "c2") as second:
            first.cut()
            again = second.take()
            assert (again["id"], again["attempt"]) == (task["id"], 2)
            second.answer(again)
            response = asker.expect("response")
            assert (response["ok"], response["connector"], response["attempts"]) == (True, "c2", 2)


def test_a_connector_without_acks_loses_the_task():
    with (
        running_hub(limits={"ack_timeout": 0.2}) as hub,
        StubConnector(hub, "silent") as silent,
        StubRequester(hub) as asker,
    ):
        asker.ask(1)
        task = silent.take(ack=False)
        with StubConnector(hub, "c2") as second:
            again = second.take()
            assert again["attempt"] == 2
            second.answer(again)
            assert asker.expect("response")["connector"] == "c2"
            assert silent.expect("cancel")["id"] == task["id"]


@pytest.mark.parametrize("capacity", [1, 4])
def test_the_only_connector_gets_a_task_again_until_the_attempts_are_used_up(capacity: int):
    with (
        running_hub(limits={"ack_timeout": 0.1}) as hub,
        StubConnector(hub, "silent", capacity) as silent,
        StubRequester(hub) as asker,
    ):
        asker.ask(1, max_attempts=3)
        assert [silent.take(ack=False)["attempt"] for _ in range(3)] == [1, 2, 3]
        response = asker.expect("response")
        assert (response["status"], response["error"]["code"]) == (503, "connector_lost")


def test_a_late_result_of_an_older_attempt_wins_and_the_newer_vanishes():
    with (
        running_hub(limits={"ack_timeout": 0.2}) as hub,
        StubConnector(hub, "slow") as slow,
        StubRequester(hub) as asker,
    ):
        asker.ask(1)
        old = slow.take(ack=False)
        with StubConnector(hub, "c2") as second:
            new = second.take()
            assert slow.answer(old, {"by": "slow"})["duplicate"] is False
            response = asker.expect("response")
            assert (response["data"], response["connector"]) == ({"by": "slow"}, "slow")
            assert second.expect("cancel")["id"] == new["id"]
            assert second.answer(new, {"by": "second"})["duplicate"] is True
            assert slow.answer(old, {"by": "slow"})["duplicate"] is True
        assert asker.answered_no_more()


def test_a_result_comes_over_the_next_connection_of_the_same_instance(hub: RunningHub):
    with StubConnector(hub, "c1") as first, StubRequester(hub) as asker:
        asker.ask(1)
        task = first.take()
        with StubConnector(hub, "c1") as second:
            assert second.answer(task)["duplicate"] is False
            assert asker.expect("response")["ok"] is True


def test_nobody_answers_a_task_of_another(hub: RunningHub):
    with StubConnector(hub, "c1") as first, StubRequester(hub) as asker:
        asker.ask(1)
        task = first.take()
        with StubConnector(hub, "stranger") as stranger:
            stranger.send(result_of(task, {"forged": True}))
            assert stranger.expect("error")["code"] == "forbidden"
            first.answer(task, {"genuine": True})
            assert asker.expect("response")["data"] == {"genuine": True}


def test_a_crash_loop_does_not_use_up_the_attempts_of_others(hub: RunningHub):
    """One connector with the largest capacity dies with each task; all requests succeed all the same."""
    stop = threading.Event()

    def crash() -> None:
        while not stop.is_set():
            try:
                with StubConnector(hub, "crashing", 32) as connector:
                    connector.expect("task", 0.2)
                    connector.cut()
            except (TimeoutError, ConnectionClosed, OSError):
                pass

    with StubConnector(hub, "steady", 1) as steady, StubRequester(hub) as asker:
        crashing = threading.Thread(target=crash, daemon=True)
        crashing.start()
        try:
            for number in range(20):
                asker.ask(number, max_attempts=3)
            answered = 0
            while answered < 20:
                message = steady.read()
                if message["type"] == "task":
                    steady.send({"type": "ack", "id": message["id"], "attempt": message["attempt"]})
                    steady.send(result_of(message))
                elif message["type"] == "result_ack":
                    answered += 1
            responses = [asker.expect("response") for _ in range(20)]
        finally:
            stop.set()
            crashing.join(10)
    assert all(r["ok"] for r in responses)
    assert len({r["id"] for r in responses}) == 20


def test_shares_follow_the_capacity(hub: RunningHub):
    """200 requests over three connectors with 1, 2 and 4 slots, each task taking as long."""
    capacities, done = {"c1": 1, "c2": 2, "c4": 4}, Counter[str]()
    most = Counter[str]()

    def work(name: str, capacity: int) -> None:
        with StubConnector(hub, name, capacity) as connector:
            held = 0
            timers = list[threading.Timer]()
            while not stopped.is_set():
                try:
                    message = connector.read(0.2)
                except TimeoutError:
                    continue
                if message["type"] == "task":
                    held += 1
                    most[name] = max(most[name], held)
                    connector.send({"type": "ack", "id": message["id"], "attempt": message["attempt"]})
                    timer = threading.Timer(0.02, connector.send, [result_of(message)])
                    timer.start()
                    timers.append(timer)
                elif message["type"] == "result_ack":
                    held -= 1
                    done[name] += 1

    stopped = threading.Event()
    workers = [threading.Thread(target=work, args=item) for item in capacities.items()]
    for worker in workers:
        worker.start()
    askers = [StubRequester(hub) for _ in range(4)]
    try:
        for number in range(200):
            askers[number % 4].ask(number)
        for asker in askers:
            for _ in range(50):
                assert asker.expect("response")["ok"]
    finally:
        stopped.set()
        for worker in workers:
            worker.join(10)
        for asker in askers:
            asker.__exit__()
    assert all(most[name] <= capacity for name, capacity in capacities.items())
    for name, capacity in capacities.items():
        assert done[name] == pytest.approx(200 * capacity / 7, rel=0.35)


def test_tasks_go_only_where_the_ticket_system_and_the_method_allow(hub: RunningHub):
    with (
        StubConnector(hub, "unwell") as unwell,
        StubConnector(hub, "lists", methods=["ticket.list"]),
        StubConnector(hub, "able") as able,
        StubRequester(hub) as asker,
    ):
        unwell.beat("unreachable")
        for number in range(4):
            asker.ask(number)
        for _ in range(4):
            able.answer(able.take())
            assert asker.expect("response")["connector"] == "able"


def test_a_draining_connector_finishes_and_gets_nothing_new(hub: RunningHub):
    with StubConnector(hub, "leaving") as leaving, StubRequester(hub) as asker:
        asker.ask(1)
        task = leaving.take()
        leaving.send({"type": "drain"})
        leaving.beat()
        with StubConnector(hub, "staying") as staying:
            asker.ask(2)
            staying.answer(staying.take())
            leaving.answer(task)
            assert {asker.expect("response")["connector"] for _ in range(2)} == {"leaving", "staying"}


def test_without_a_connector_a_request_waits_and_then_says_so():
    with running_hub(limits={"wait_connector": 0.3}) as hub, StubRequester(hub) as asker:
        began = time.monotonic()
        asker.ask(1)
        response = asker.expect("response")
        assert (response["status"], response["error"]["code"]) == (503, "no_connector")
        assert response["error"]["retryable"] is True
        assert time.monotonic() - began >= 0.3
        asker.ask(2)
        with StubConnector(hub, "c1") as connector:
            connector.answer(connector.take())
            assert asker.expect("response")["ok"]


def test_a_request_that_takes_too_long_times_out_and_its_task_is_cancelled(hub: RunningHub):
    with StubConnector(hub, "c1") as connector, StubRequester(hub) as asker:
        asker.ask(1, timeout=0.2)
        task = connector.take()
        response = asker.expect("response")
        assert (response["status"], response["error"]["code"]) == (504, "timeout")
        assert connector.expect("cancel")["id"] == task["id"]
        assert connector.answer(task)["duplicate"] is True


def test_without_a_connector_a_short_request_ends_in_its_own_time(hub: RunningHub):
    with StubRequester(hub) as asker:
        asker.ask(1, timeout=0.2)
        assert asker.expect("response")["error"]["code"] == "no_connector"


def test_a_cancelled_request_ends_once(hub: RunningHub):
    with StubConnector(hub, "c1", 1) as connector, StubRequester(hub) as asker:
        asker.ask(1)
        task = connector.take()
        asker.ask(2)
        asker.send({"type": "cancel", "id": "q-2"})  # still queued
        response = asker.expect("response")
        assert (response["id"], response["status"], response["error"]["code"]) == ("q-2", 499, "cancelled")
        asker.send({"type": "cancel", "id": "q-1"})  # at work
        assert asker.expect("response")["id"] == "q-1"
        assert connector.expect("cancel")["id"] == task["id"]
        asker.send({"type": "cancel", "id": "q-1"})  # has ended
        assert asker.answered_no_more()


def test_requests_of_a_requester_that_has_gone_are_cancelled(hub: RunningHub):
    with StubConnector(hub, "c1") as connector:
        with StubRequester(hub) as asker:
            asker.ask(1)
            task = connector.take()
        assert connector.expect("cancel")["id"] == task["id"]


def test_status_tells_of_each_connector(hub: RunningHub):
    with StubConnector(hub, "c1", 4) as connector, StubRequester(hub) as asker:
        connector.beat("ok")
        asker.ask(1)
        task = connector.take()
        asker.ask(2)
        connector.take()
        connector.answer(task)
        asker.expect("response")
        asker.send({"type": "status"})
        status = asker.expect("status_reply")
        assert status["queued"] == 0
        (line,) = status["connectors"]
        assert line.pop("connected_at").endswith("Z")
        assert line == {
            "instance": "c1",
            "inflight": 1,
            "capacity": 4,
            "upstream": "ok",
            "done": 1,
            "lost": 0,
        }


def test_a_restarted_hub_says_1012_and_takes_the_same_clients_again(hub: RunningHub):
    with StubRequester(hub) as asker, StubConnector(hub, "c1") as connector:
        asker.ask(1)
        connector.take()
        hub.restart()
        assert asker.close_code() == 1012
        assert connector.close_code() == 1012
    with StubRequester(hub) as asker, StubConnector(hub, "c1") as connector:
        asker.ask(1)
        connector.answer(connector.take())
        assert asker.expect("response")["ok"]


def test_a_connector_without_heartbeats_is_closed():
    with (
        running_hub(limits={"heartbeat_grace": 0.5}) as hub,
        StubConnector(hub, "mute") as mute,
        StubRequester(hub) as asker,
    ):
        asker.ask(1)
        mute.take()
        assert mute.close_code() == 4408
        with StubConnector(hub, "c2") as other:
            other.answer(other.take())
            assert asker.expect("response")["attempts"] == 2


# what is not a request that can be met


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"id": "q", "method": "ticket.close", "params": {}}, "unknown_method"),
        ({"id": "q", "method": "ticket.get", "params": []}, "bad_request"),
        ({"id": "q", "method": "ticket.get", "params": {}, "timeout": 0}, "bad_request"),
        ({"id": "q", "method": "ticket.get", "params": {}, "timeout": "60"}, "bad_request"),
        ({"id": "q", "method": "ticket.get", "params": {}, "max_attempts": 0}, "bad_request"),
    ],
)
def test_a_request_that_cannot_be_met_is_refused_by_name(
    hub: RunningHub, request_: dict[str, Any], code: str
):
    with StubConnector(hub, "c1") as connector, StubRequester(hub) as asker:
        asker.send({"type": "request"} | request_)
        error = asker.read()
        assert (error["type"], error["code"], error["ref"]) == ("error", code, "q")
        asker.ask(1)  # the connection goes on
        assert connector.take()["params"] == {"id": 1}


def test_an_id_is_good_once_on_a_connection(hub: RunningHub):
    with StubConnector(hub, "c1") as connector, StubRequester(hub) as asker:
        asker.ask(1, "same")
        connector.answer(connector.take())
        asker.expect("response")
        asker.ask(1, "same")
        error = asker.expect("error")
        assert (error["code"], error["ref"]) == ("duplicate_id", "same")
        with StubRequester(hub) as other:
            other.ask(1, "same")
            assert other.read()["type"] == "accepted"


def test_beyond_its_share_a_requester_is_told_to_wait():
    with (
        running_hub(limits={"max_inflight": 3}) as hub,
        StubConnector(hub, "c1", 2) as connector,
        StubRequester(hub) as asker,
    ):
        for number in range(4):
            asker.ask(number)
        busy = asker.expect("error")
        assert (busy["code"], busy["ref"], busy["retryable"]) == ("busy", "q-3", True)
        assert busy["retry_after"] > 0
        connector.answer(connector.take())
        asker.expect("response")
        asker.ask(3)  # a refused id was not used
        assert [asker.expect("accepted")["id"] for _ in range(4)][-1] == "q-3"


def test_a_full_queue_is_busy():
    with running_hub(limits={"queue": 2}) as hub, StubRequester(hub) as asker, StubRequester(hub) as other:
        asker.ask(1)
        asker.ask(2)
        asker.expect("accepted")
        asker.expect("accepted")
        other.ask(3)
        assert other.read()["code"] == "busy"


def test_ten_bad_messages_end_a_connection_and_no_other(hub: RunningHub):
    bad: list[str | bytes] = ["{", "[]", b"{}", '{"type":"dance"}', '{"type":"request"}', '{"id":1}']
    with StubConnector(hub, "c1") as connector, StubRequester(hub) as asker:
        for number in range(10):
            asker.send(bad[number % len(bad)])
        codes = [asker.expect("error")["code"] for _ in range(10)]
        assert codes.count("unknown_type") == 2
        assert asker.close_code() == 4400
        connector.beat()


def test_a_message_above_the_limit_ends_the_connection_with_1009(hub: RunningHub):
    with StubRequester(hub) as asker:
        asker.send("x" * (9 << 20))
        assert asker.close_code() == 1009


def test_a_result_of_the_largest_size_passes_and_one_that_cannot_says_so(hub: RunningHub):
    with StubConnector(hub, "c" * 64) as connector, StubRequester(hub) as asker:
        asker.ask(1)
        connector.answer(connector.take(), {"text": "x" * 8_386_000})
        assert len(asker.expect("response")["data"]["text"]) == 8_386_000
        asker.ask(2, "q" * 64)
        task = connector.take()
        room = (8 << 20) - len(json.dumps(result_of(task, {"t": ""})))
        connector.answer(task, {"t": "x" * room})
        assert asker.expect("response")["error"]["code"] == "too_large"


def test_half_of_a_surrogate_pair_costs_no_ticket(hub: RunningHub):
    with StubConnector(hub, "c1") as connector, StubRequester(hub) as asker:
        asker.ask(1)
        task = connector.take()
        connector.answer(task, {"text": "a\ud800b"})
        assert asker.expect("response")["data"] == {"text": "a\ufffdb"}


def test_a_reader_that_stops_reading_is_closed_and_others_go_on():
    with (
        running_hub(limits={"send": 0.5}) as hub,
        StubConnector(hub, "c1") as connector,
        Client(hub, max_queue=1) as slow,
        StubRequester(hub) as other,
    ):
        slow.introduce("requester", "slow")
        for number in range(16):
            slow.send({"type": "request", "id": f"s{number}", "method": "ticket.get", "params": {"id": 1}})
        for _ in range(16):
            connector.answer(connector.take(), {"text": "x" * 4_000_000})
        other.ask(1)
        connector.answer(connector.take())
        assert other.expect("response")["ok"]
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            other.send({"type": "status"})
            other.expect("status_reply")
            if hub.hub and hub.hub.connections == 2:
                break
            time.sleep(0.05)
        else:
            pytest.fail("the slow reader is still connected")
