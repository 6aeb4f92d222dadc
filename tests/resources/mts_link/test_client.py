"""The client against an emulated organisation: pages, limits, faults, and what it tells of them."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resources.errors import PermanentSourceError
from resources.http import install_log_redaction
from resources.mts_link import Call, Ended, Exhausted, Incomplete, MtsLinkClient, Paging, Refused
from sandbox.mts_link import OrgConfig, Server, serve
from sandbox.mts_link.org import Clock

MEMBERS = Call("/organization/members", paging=Paging("page", 10))


class Hurried:
    """A clock that jumps over sleeps, and counts them."""

    def __init__(self) -> None:
        self.now = time.time()
        self.slept = 0.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds


class ServerClock(Clock):
    """The server's clock, which is the client's."""

    def __init__(self, clock: Hurried) -> None:
        self._clock = clock

    def now(self) -> float:
        return self._clock.now


@pytest.fixture
def server() -> Iterator[Server]:
    with serve(OrgConfig(rate=None, staff=25, channels=3, messages=650)) as server:
        yield server


def client(server: Server, tmp_path: Path, **options: Any) -> MtsLinkClient:
    chosen = {"rate": 0, "clock": Hurried(), "timeout_s": 5, "state_dir": tmp_path} | options
    return MtsLinkClient("sandbox-key", base_url=server.url, **chosen)


def ids(pages: Any) -> list[Any]:
    return [record["id"] for page in pages for record in page.items]


def test_pages_are_read_to_the_end_and_no_further(server: Server, tmp_path: Path):
    assert len(set(ids(client(server, tmp_path).pages(MEMBERS)))) == 25
    assert server.stats.requests == 3


@pytest.mark.parametrize(
    "call",
    [
        Call("/organization/members", paging=Paging("page", 500)),
        Call("/records", {"from": "2015-01-01"}, Paging("offset", 5)),
        Call("/courses/801/groups/8101/statistics", paging=Paging("pagination", 100, listed=False)),
        Call("/eventsessions/6010001/transcript/list", paging=Paging("cursor", 1000)),
        Call("/organization/courses"),
    ],
    ids=["page", "offset", "pagination", "cursor", "once"],
)
def test_every_family_gives_each_record_once(server: Server, tmp_path: Path, call: Call):
    found = [str(r) for page in client(server, tmp_path).pages(call) for r in page.items]
    assert found
    assert len(found) == len(set(found))


def test_a_limit_that_is_silently_replaced_loses_nothing(tmp_path: Path):
    with serve(OrgConfig(rate=None, contacts=600, courses=1)) as server:
        call = Call("/courses/801/groups/8101/statistics", paging=Paging("pagination", 100, listed=False))
        pages = list(client(server, tmp_path).pages(call))
    assert [len(p.items) for p in pages] == [50, 50, 50, 0]


@pytest.mark.parametrize("people", [20, 100])
def test_a_server_that_knows_no_pages_gives_all_at_once(tmp_path: Path, people: int):
    with serve(OrgConfig(rate=None, staff=people - 1)) as server:  # and a bot
        told, seen = server.answers.chat_members, []

        def unpaged(query: dict[str, str]) -> Any:
            rows = told({"perPage": "100"})["data"]["items"]
            seen.append(rows)
            return {"data": {"items": [r | {"presence": f"seen {len(seen)}"} for r in rows]}}

        server.answers.chat_members = unpaged
        call = Call("/chats/organization/members", paging=Paging("page", 100, listed=False))
        found = [r["chatUserId"] for page in client(server, tmp_path).pages(call) for r in page.items]
    assert len(found) == len(set(found)) == people


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(count=st.integers(0, 120), size=st.sampled_from([10, 50, 100]), listed=st.booleans())
def test_a_list_ends_exactly_where_it_ends(count: int, size: int, listed: bool):
    paging, got, requests = Paging("offset", size, listed), 0, 0
    while True:
        page = max(0, min(size, count - got))
        got, requests = got + page, requests + 1
        if paging.ends(page):
            break
    assert got == count
    assert requests <= count // size + 2


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 199, 250])
def test_messages_come_once_back_to_the_first(tmp_path: Path, overlap: bool, count: int):
    config = OrgConfig(rate=None, channels=1, messages=count, overlap=overlap)
    with serve(config) as server:
        path = f"/chats/channel/{server.org.chat_id(0)}/messages"
        found = ids(client(server, tmp_path).messages(path, server.org.chat_user(0), None, 100))
        assert sorted(found) == sorted(server.org.message_id(0, m) for m in range(count))
        assert server.stats.requests <= count // 99 + 1


def test_a_message_that_stands_in_a_page_twice_comes_once(tmp_path: Path):
    with serve(OrgConfig(rate=None, channels=1, messages=250)) as server:
        once = server.org.message
        server.org.message = lambda c, m: once(c, m - (m % 50 == 9))  # each fiftieth is the one before it
        path = f"/chats/channel/{server.org.chat_id(0)}/messages"
        found = ids(client(server, tmp_path).messages(path, server.org.chat_user(0), None, 100))
    assert len(found) == len(set(found)) == 245


@pytest.mark.parametrize("moment", [range(21, 300), range(350)], ids=["most", "all"])
@pytest.mark.parametrize("falling", [False, True])
def test_messages_of_one_moment_come_in_any_order_of_a_page(tmp_path: Path, falling: bool, moment: range):
    with serve(OrgConfig(rate=None, channels=1, messages=350)) as server:
        server.org.message_ms = lambda c, m: 1764000000000 + (0 if m in moment else m)
        if falling:
            told = server.answers.messages

            def reverse(query: dict[str, str], chat: str) -> Any:
                return {"data": {"items": told(query, chat)["data"]["items"][::-1]}}

            server.answers.messages = reverse
        path = f"/chats/channel/{server.org.chat_id(0)}/messages"
        found = ids(client(server, tmp_path).messages(path, server.org.chat_user(0), None, 100))
    assert len(set(found)) == len(found) == 350
    assert server.stats.requests <= 6


def test_a_chat_whose_pages_do_not_move_on_is_an_error(server: Server, tmp_path: Path):
    told = server.answers.messages
    server.answers.messages = lambda query, chat: told(
        {k: v for k, v in query.items() if k != "fromMessageId"}, chat
    )
    path = f"/chats/channel/{server.org.chat_id(0)}/messages"
    with pytest.raises(Incomplete, match="twice"):
        list(client(server, tmp_path).messages(path, server.org.chat_user(0), None, 100))
    assert server.stats.requests <= 3


def test_the_last_page_of_a_chat_may_repeat_several_messages(tmp_path: Path):
    with serve(OrgConfig(rate=None, channels=1, messages=100)) as server:
        server.config.overlap = 5  # type: ignore[assignment]
        path = f"/chats/channel/{server.org.chat_id(0)}/messages"
        found = ids(client(server, tmp_path).messages(path, server.org.chat_user(0), None, 100))
    assert len(found) == 100


def test_messages_stop_at_what_has_been_read(server: Server, tmp_path: Path):
    path, last = f"/chats/channel/{server.org.chat_id(0)}/messages", server.org.message_count(0) - 1
    since = server.org.message_ms(0, last - 10)
    found = ids(client(server, tmp_path).messages(path, server.org.chat_user(0), since, 100))
    assert {server.org.message_id(0, m) for m in range(last - 10, last + 1)} <= set(found)
    assert server.stats.requests == 1


FAULTS = [
    {"action": "status", "status": 429},
    {"action": "status", "status": 503},
    {"action": "html", "status": 502},
    {"action": "html", "status": 200},
    {"action": "html", "status": 404},
    {"action": "reset"},
    {"action": "truncate"},
    {"action": "empty"},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f"{f['action']}-{f.get('status', '')}")
def test_what_passes_is_asked_again(server: Server, tmp_path: Path, fault: dict[str, Any]):
    server.add_fault(**fault, times=3)
    link = client(server, tmp_path)
    assert len(set(ids(link.pages(MEMBERS)))) == 25
    assert link.stats.retries == 3


def test_retry_after_is_obeyed(server: Server, tmp_path: Path):
    server.add_fault("status", status=429, retry_after=17)
    clock = Hurried()
    list(client(server, tmp_path, clock=clock).pages(MEMBERS))
    assert 17 <= clock.slept < 20


def test_retry_after_may_be_a_moment_of_the_servers_clock(server: Server, tmp_path: Path):
    moment = formatdate(server.org.clock.now() + 40, usegmt=True)
    server.add_fault("status", status=503, retry_after=moment)
    clock = Hurried()
    list(client(server, tmp_path, clock=clock).pages(MEMBERS))
    assert 37 <= clock.slept < 45


def test_what_does_not_pass_ends_after_five_attempts(server: Server, tmp_path: Path):
    server.add_fault("status", status=500, times=None)
    with pytest.raises(Exhausted, match="answered 500"):
        list(client(server, tmp_path).pages(MEMBERS))
    assert server.stats.requests == 5


@pytest.mark.parametrize("status", [400, 403, 404, 409])
def test_a_refusal_is_asked_once_and_names_nobody(server: Server, tmp_path: Path, status: int):
    person = "boris.obraztsov@example.com with +7 (900) 000-00-02"
    text = f"No user {person} by sandbox-key, see https://my.example.com/j/0003996eb9?x=1"
    server.add_fault("status", status=status, message=text, times=None)
    with pytest.raises(Refused) as refused:
        list(client(server, tmp_path).pages(MEMBERS))
    assert refused.value.status == status
    assert refused.value.message == "No user *** with *** by ***, see ***"
    assert server.stats.requests == 1


def test_a_missing_method_is_told_from_a_missing_entity(server: Server, tmp_path: Path):
    link = client(server, tmp_path)
    with pytest.raises(Refused) as wrong:
        link.get(Call("/stats/users/visits/7001002"))
    with pytest.raises(Refused) as missing:
        link.get(Call("/eventsessions/1"))
    assert (wrong.value.no_route, missing.value.no_route) == (True, False)


def test_a_wrong_key_and_a_tariff_without_the_api_say_what_to_do(server: Server, tmp_path: Path):
    for status, text, said in (
        (401, "A Token was not found in the TokenStorage.", "MTS_LINK_API_TOKEN"),
        (403, "No userapi access", "tariff"),
        (302, "", "MTS_LINK_URL"),
    ):
        server.faults.clear()
        server.add_fault("status", status=status, message=text)
        with pytest.raises(PermanentSourceError, match=said):
            client(server, tmp_path).get(MEMBERS)


def test_nobody_there_is_told_soon(tmp_path: Path):
    with pytest.raises(Exhausted, match="nobody answers at MTS_LINK_URL; 3 attempts"):
        MtsLinkClient("key", base_url="http://127.0.0.1:9/v3", rate=0, clock=Hurried()).get(MEMBERS)


@pytest.mark.parametrize("url", ["", "ftp://host/v3", "http://api.example.com/v3", "https://u:p@host/v3"])
def test_a_base_url_that_is_none_names_its_setting(url: str):
    with pytest.raises(PermanentSourceError, match="MTS_LINK_URL"):
        MtsLinkClient("key", base_url=url)


def test_the_rate_is_kept_by_two_clients_together_and_never_refused(tmp_path: Path):
    with serve(OrgConfig(rate=2)) as server:
        clock = Hurried()
        server.org.clock = ServerClock(clock)
        one, two = (client(server, tmp_path, rate=1.95, clock=clock) for _ in range(2))
        for _ in range(20):
            one.get(MEMBERS)
            two.get(MEMBERS)
        report = server.stats.report()
    assert report["statuses"] == {"200": 40}
    assert 1.9 <= report["per_second"] <= 2


def test_one_refused_job_ends_itself_only_and_a_lost_key_ends_all(server: Server, tmp_path: Path):
    link = client(server, tmp_path)
    sessions = [6010001, 1, 6010002]
    read = lambda s, stop: link.pages(Call(f"/eventsessions/{s}"), stop)  # noqa: E731
    ended = {s: page.error for s, page in link.crowd(sessions, read) if isinstance(page, Ended)}
    assert {s: isinstance(e, Refused) for s, e in ended.items()} == {6010001: False, 1: True, 6010002: False}
    server.add_fault("status", status=401, times=None)
    with pytest.raises(PermanentSourceError):
        list(link.crowd(sessions, read))


def test_leaving_a_crowd_early_stops_its_threads(server: Server, tmp_path: Path):
    link = client(server, tmp_path)
    for _ in link.crowd(range(1000), lambda n, stop: link.pages(MEMBERS, stop)):
        break
    asked = server.stats.requests
    assert asked < 200


def test_the_key_and_addresses_are_in_no_log_and_no_traceback(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    install_log_redaction()
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")
    person = {"email": "anna@example.com", "contactsData[phoneMain]": "+79000000002"}
    call, said = Call("/stats/users/visits", person), ""
    with suppress(Refused):
        client(server, tmp_path).get(call)
    server.add_fault("reset", times=None)
    try:
        client(server, tmp_path).get(call)
    except Exhausted:
        said = traceback.format_exc()
    assert "GET /v3/stats/users/visits" in caplog.text  # the HTTP library's own log
    for secret in ("sandbox-key", "anna", "9000000002"):
        assert secret not in said + caplog.text
