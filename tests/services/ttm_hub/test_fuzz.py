"""Messages that are nearly right: none of them is a failure of the hub, and others do not notice."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from resources.ttm.protocol import CONNECTOR, REQUESTER
from tests.services.ttm_hub.hub_house import Client, RunningHub, StubConnector, StubRequester, running_hub

SAID: dict[str, list[dict[str, Any]]] = {
    CONNECTOR: [
        {"type": "heartbeat", "seq": 1, "upstream": "ok", "capacity": 4, "inflight": 0},
        {"type": "ack", "id": "TASK", "attempt": 1},
        {"type": "result", "id": "TASK", "attempt": 1, "ok": True, "status": 200, "data": {}},
        {"type": "result", "id": "TASK", "attempt": 1, "ok": False, "error": {"code": "internal"}},
        {"type": "drain"},
        {"type": "hello"},
    ],
    REQUESTER: [
        {"type": "request", "id": "q1", "method": "ticket.get", "params": {"id": 1}, "timeout": 5},
        {"type": "request", "id": "q2", "method": "system.ping", "max_attempts": 2},
        {"type": "cancel", "id": "q1"},
        {"type": "status"},
    ],
}
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
odd = (
    scalars
    | st.sampled_from(["", "x" * 65, "\ud800", "a\nb", "ok", "q1", "t-1", 2**70, -1])
    | st.lists(scalars, max_size=2)
    | st.dictionaries(st.sampled_from(["code", "message", "retryable", "id"]), scalars, max_size=3)
)
changes = st.dictionaries(
    st.sampled_from(
        ["type", "id", "attempt", "ok", "error", "data", "params", "method", "seq", "timeout", "x"]
    ),
    odd,
    max_size=2,
)


@st.composite
def talks(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A role and what it says, each message changed in up to two places, or cut off."""
    role = draw(st.sampled_from([CONNECTOR, REQUESTER]))
    said = []
    for base in draw(st.lists(st.sampled_from(SAID[role]), min_size=1, max_size=12)):
        text = json.dumps(base | draw(changes))
        said.append(text[: draw(st.integers(0, len(text)))] if draw(st.integers(0, 9)) == 0 else text)
    return role, said


@pytest.fixture(scope="module")
def shared() -> Iterator[RunningHub]:
    with running_hub(failures=10**6) as running:
        yield running


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(talk=talks())
def test_no_message_is_a_failure_of_the_hub(shared: RunningHub, talk: tuple[str, list[str]]):
    role, said = talk
    with Client(shared) as client:
        more = {"methods": ["ticket.get"], "capacity": 2} if role == CONNECTOR else {}
        client.introduce(role, "odd", **more)
        with suppress(ConnectionClosed), StubRequester(shared, "good") as asker:
            asker.ask(1, timeout=0.5)
            task = "t-1"
            if role == CONNECTOR:
                task = client.expect("task")["id"]
            for text in said:
                client.send(text.replace("TASK", task))
        client.socket.close()
        assert client.socket.close_code in (1000, 4400)
    with StubConnector(shared, "well") as connector, StubRequester(shared, "asker") as asker:
        asker.ask(2)
        task = connector.take()
        while task["params"] != {"id": 2}:  # what the odd one asked for before it left
            task = connector.take()
        connector.answer(task)
        assert asker.expect("response")["ok"]
