"""The client against the emulated service over real HTTP, with everything that the API may answer."""

import logging
import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from resources.errors import PermanentSourceError
from resources.http import Slots, install_log_redaction
from resources.metrika import (
    Ask,
    Counter,
    LogRequest,
    MetrikaBusy,
    MetrikaClient,
    MetrikaRefusal,
    MetrikaResource,
    Uploading,
)
from resources.metrika.errors import failure
from sandbox.metrika import TOKEN, Metrika, MetrikaConfig, serve
from tests.support.certificates import private_ca

COUNTER = 100001
TODAY = date(2026, 11, 20)
ASK = Ask(
    COUNTER, "visits", TODAY - timedelta(days=2), TODAY - timedelta(days=1), ("ym:s:visitID", "ym:s:date")
)
CSV = b"ClientId,Target,DateTime\n%d,lead,1700000000\n" % (97 * 10**10 + 13)
DAILY = ["quota_requests_by_uid", "quota_requests_by_counter_id"]


class RestlessClock:
    """Sleeping takes no time, but the clock moves as if it had."""

    def __init__(self) -> None:
        self.now, self.slept = 1_790_000_000.0, list[float]()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture(scope="module")
def service() -> Iterator[Metrika]:
    with serve(MetrikaConfig(visits_per_day=20, today=TODAY, requests_per_second=0)) as metrika:
        yield metrika


@pytest.fixture
def metrika(service: Metrika) -> Iterator[Metrika]:
    yield service
    service.faults.clear()


@pytest.fixture
def clock() -> RestlessClock:
    return RestlessClock()


@pytest.fixture
def client(metrika: Metrika, clock: RestlessClock, tmp_path: Path) -> MetrikaClient:
    return MetrikaClient(metrika.url, TOKEN, state_dir=tmp_path, clock=clock, jitter=lambda: 1.0)


def test_a_log_request_lives_as_documented(client: MetrikaClient):
    assert client.evaluate(ASK).possible
    made = client.create_log_request(ASK)
    assert (made.status, made.parts) == ("created", ())
    assert made.answers(ASK)
    client.log_request(COUNTER, made.request_id)
    ready = client.log_request(COUNTER, made.request_id)
    assert ready.status == "processed"
    assert [number for number, _ in ready.parts] == [0, 1]
    assert ready.size == sum(size for _, size in ready.parts)
    assert made.request_id in [r.request_id for r in client.log_requests(COUNTER)]
    assert client.clean_log_request(COUNTER, made.request_id).status == "cleaned_by_user"
    other = client.create_log_request(ASK)
    assert client.cancel_log_request(COUNTER, other.request_id).status == "canceled"


@pytest.mark.parametrize("source", ["visits", ["visits"]])
def test_the_source_is_a_text_or_a_list(source: object):
    answer = {"request_id": 1, "status": "created", "source": source, "date1": "2026-01-01"}
    assert LogRequest.of(answer).source == "visits"


@pytest.mark.parametrize(
    ("answer", "zone"),
    [
        ({"id": 1, "time_zone_name": "Asia/Vladivostok"}, "Asia/Vladivostok"),
        ({"id": 1, "time_zone_name": "string", "time_zone_offset": -300}, "Etc/GMT+5"),
        ({"id": 1, "time_zone_offset": 180}, "Etc/GMT-3"),
        ({"id": 1}, "Etc/GMT-3"),
    ],
)
def test_a_counter_has_a_zone(answer: dict[str, object], zone: str):
    assert Counter.of(answer).zone == zone


def test_the_real_answer_of_an_upload_lacks_most_fields():
    found = Uploading.of({"id": 9, "source_quantity": 2, "line_quantity": 2, "status": "UPLOADED"})
    assert (found.id, found.status, found.line_quantity, found.comment) == (9, "UPLOADED", 2, "")
    assert not found.final


# Errors

REFUSALS = [
    ("invalid_parameter", 400),
    ("missing_parameter", 400),
    ("invalid_json", 400),
    ("invalid_uploading", 400),
    ("query_error", 400),
    ("too_much_rows", 400),
    ("filter_limits", 400),
    ("limit_exceeded", 400),
    ("unauthorized", 401),
    ("invalid_token", 403),
    ("access_denied", 403),
    ("counter_in_connect", 403),
    ("not_found", 404),
    ("not_acceptable", 406),
    ("conflict", 409),
    *((quota, 429) for quota in DAILY),
]


@pytest.mark.parametrize(("error_type", "status"), REFUSALS)
def test_what_will_not_heal_is_said_once(
    client: MetrikaClient, metrika: Metrika, clock: RestlessClock, error_type: str, status: int
):
    metrika.faults.add("status", status=status, error_type=error_type, message="Because", times=None)
    with pytest.raises(MetrikaRefusal) as refused:
        client.goals(COUNTER)
    assert (refused.value.status, refused.value.error_type) == (status, error_type)
    assert refused.value.allow_retries is False
    assert not clock.slept
    if error_type in DAILY:
        assert "00:00 GMT" in (refused.value.description or "")


@pytest.mark.parametrize(
    ("fault", "options"),
    [
        ("status", {"status": 503, "error_type": "backend_error"}),
        ("status", {"status": 504, "error_type": "timeout"}),
        ("status", {"status": 429, "error_type": "quota_requests_by_ip"}),
        ("status", {"status": 429, "error_type": "quota_parallel_requests"}),
        ("status", {"status": 429, "error_type": "quota_of_a_new_kind"}),
        ("html", {"status": 502}),
        ("html", {"status": 403}),
        ("html", {"status": 200}),
        ("reset", {}),
        ("truncate", {"share": 0.5}),
        ("truncate", {"share": 0.5, "announce": False}),
    ],
)
def test_what_may_heal_is_asked_again(client: MetrikaClient, metrika: Metrika, fault: str, options: dict):
    metrika.faults.add(fault, times=2, **options)
    assert client.goals(COUNTER)[0].takes("lead")


@pytest.mark.parametrize(
    ("status", "body", "error_type"),
    [
        (401, b'{"message":"Unauthorized","code":401}', "unauthorized"),
        (403, b'{"errors":[],"code":403,"message":"Access is denied"}', "access_denied"),
        (404, b'{"detail":"Not Found"}', "not_found"),
        (400, b'{"errors":{"odd":1}}', "invalid_parameter"),
    ],
)
def test_an_error_without_a_type_is_known_by_its_status(status: int, body: bytes, error_type: str):
    refused = failure("listing goals", status, body)
    assert isinstance(refused, MetrikaRefusal)
    assert refused.error_type == error_type


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b"null", b'"text"'])
def test_a_page_of_a_proxy_may_heal(body: bytes):
    assert isinstance(failure("listing goals", 403, body), MetrikaBusy)


def test_the_wait_that_the_service_asks_for_may_be_a_date(
    client: MetrikaClient, metrika: Metrika, clock: RestlessClock
):
    after = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    metrika.faults.add("status", status=503, retry_after=after)
    client.goals(COUNTER)
    assert any(30 < s <= 40 for s in clock.slept)


def test_a_service_that_stays_busy_is_given_up_in_time(
    client: MetrikaClient, metrika: Metrika, clock: RestlessClock
):
    metrika.faults.add("status", status=503, times=None)
    with pytest.raises(MetrikaBusy) as busy:
        client.goals(COUNTER)
    assert busy.value.allow_retries is True
    assert 200 < sum(clock.slept) <= 300


def test_each_quota_is_waited_for_in_its_own_way(
    client: MetrikaClient, metrika: Metrika, clock: RestlessClock
):
    metrika.faults.add("status", status=429, error_type="quota_requests_by_ip")
    metrika.faults.add("status", status=429, error_type="quota_parallel_requests")
    metrika.faults.add("status", status=429, error_type="quota_requests_by_ip", retry_after=7)
    client.goals(COUNTER)
    by_ip, parallel, told = [s for s in clock.slept if s >= 1]
    assert (by_ip, parallel, told) == (2.0, 5.0, 7.0)


def test_the_three_quotas_of_the_service_are_kept(tmp_path: Path):
    """Real time: a burst of threads over the real limits of the emulated service."""
    with serve(MetrikaConfig(visits_per_day=1, latency=0.05)) as metrika:
        client = MetrikaClient(metrika.url, TOKEN, state_dir=tmp_path)
        threads = [threading.Thread(target=client.log_requests, args=(COUNTER,)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert metrika.requests["list_logs"] == 12
        assert client.usage().requests == 12, "none was refused"
        assert metrika.quotas.most_at_once <= 3


@pytest.mark.parametrize("token", ["", "  ", "two words", "юникод"])
def test_a_token_that_cannot_be_one_is_named(token: str):
    with pytest.raises(PermanentSourceError, match="METRIKA_TOKEN"):
        _ = MetrikaResource(token=token).client


@pytest.mark.parametrize("url", ["", "api.example", "ftp://api.example"])
def test_an_address_that_cannot_be_one_is_named(url: str):
    with pytest.raises(PermanentSourceError, match="METRIKA_URL"):
        _ = MetrikaResource(url=url, token="t").client


def test_the_token_is_nowhere_in_what_is_told(
    metrika: Metrika, clock: RestlessClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    install_log_redaction()
    secret = "y0_AgAAAAsecret0token"
    metrika.faults.add(
        "status", status=400, error_type="invalid_parameter", message=f"token {secret}", times=2
    )
    metrika.faults.add("reset", times=None)
    client = MetrikaClient(metrika.url, secret, state_dir=tmp_path, clock=clock, give_up_s=2)
    told = []
    for call in (client.counter, client.goals, client.log_requests):
        with pytest.raises((MetrikaRefusal, MetrikaBusy)) as error:
            call(COUNTER)
        told += [error.value.description, *traceback.format_exception(error.value), repr(error.value)]
        logging.getLogger("any").error("failed", exc_info=error.value)
    assert secret not in "".join(map(str, told)) + caplog.text
    assert secret not in repr(MetrikaResource(token=secret))


def test_certificates_are_verified(tmp_path: Path, clock: RestlessClock):
    ca = private_ca(tmp_path / "ca")
    with serve(MetrikaConfig(), certfile=ca.server_chain, keyfile=ca.server_key) as metrika:
        with pytest.raises(MetrikaRefusal, match="METRIKA_CA_BUNDLE"):
            MetrikaClient(metrika.url, TOKEN, state_dir=tmp_path, clock=clock).counter(COUNTER)
        trusting = MetrikaClient(metrika.url, TOKEN, state_dir=tmp_path, ca_bundle=str(ca.ca_file))
        assert trusting.counter(COUNTER).zone == "Europe/Moscow"


def test_the_clock_is_the_services(client: MetrikaClient):
    client.goals(COUNTER)
    assert abs(client.now() - datetime.now(UTC)) < timedelta(seconds=5)


# What must not happen twice


@pytest.mark.parametrize("fault", ["lost", "truncate"])
def test_a_goal_is_made_once_though_the_answer_is_lost(client: MetrikaClient, metrika: Metrika, fault: str):
    before = len(metrika.goals[COUNTER])
    metrika.faults.add(fault, "/goals", method="POST", share=0.1)
    assert client.create_goal(COUNTER, f"once-{fault}").takes(f"once-{fault}")
    assert client.create_goal(COUNTER, f"once-{fault}").name == f"once-{fault}"
    assert len(metrika.goals[COUNTER]) == before + 1


@pytest.mark.parametrize("fault", ["lost", "truncate", "html", "status"])
def test_a_file_is_sent_once_though_the_answer_is_lost(client: MetrikaClient, metrika: Metrika, fault: str):
    comment = f"file{fault}"
    metrika.faults.add(fault, "/upload$", share=0.1)
    found = client.upload_conversions(COUNTER, CSV, comment)
    ours = [u for u in client.uploadings(COUNTER) if u.comment == comment]
    assert [u.id for u in ours] == [found.id]
    assert ours[0].source_quantity == ours[0].line_quantity == 1


def test_a_file_is_known_again_where_the_api_tells_no_comments(
    client: MetrikaClient, metrika: Metrika, monkeypatch: pytest.MonkeyPatch
):
    client.goals(COUNTER)  # so that the service's clock is known
    client.upload_conversions(COUNTER, CSV + CSV.split(b"\n")[1] + b"\n", "another")
    listed = metrika.conversions.listed

    def silent(counter: int, limit: int, offset: int) -> dict[str, Any]:
        found = listed(counter, limit, offset)["uploadings"]
        return {"uploadings": [{k: v for k, v in u.items() if k != "comment"} for u in found]}

    monkeypatch.setattr(metrika.conversions, "listed", silent)
    metrika.conversions.uploadings[:] = metrika.conversions.uploadings[-1:]
    metrika.faults.add("lost", "/upload$")
    found = client.upload_conversions(COUNTER, CSV, "filesilent")
    assert (found.source_quantity, len(metrika.conversions.uploadings)) == (1, 2)


def test_without_a_comment_a_lost_answer_is_the_callers(client: MetrikaClient, metrika: Metrika):
    before = len(metrika.conversions.uploadings)
    metrika.faults.add("lost", "/upload$")
    with pytest.raises(MetrikaBusy) as lost:
        client.upload_conversions(COUNTER, CSV)
    assert lost.value.sent
    assert len(metrika.conversions.uploadings) == before + 1


def test_a_refused_quota_does_not_count_as_sent(client: MetrikaClient, metrika: Metrika):
    before = len(metrika.conversions.uploadings)
    metrika.faults.add("status", "/upload$", status=429, error_type="quota_requests_by_ip")
    client.upload_conversions(COUNTER, CSV)
    assert len(metrika.conversions.uploadings) == before + 1


def test_an_upload_is_followed_to_its_end(client: MetrikaClient):
    known, unknown = CSV, b"ClientId,Target,DateTime\n12,lead,1700000000\n"
    ends = []
    for body in (known, unknown):
        found = client.upload_conversions(COUNTER, body)
        states = [found.status]
        while not found.final:
            found = client.uploading(COUNTER, found.id)
            states.append(found.status)
        ends.append(states)
    assert ends[0] == ["PREPARED", "UPLOADED", "EXPORTED", "MATCHED", "PROCESSED"]
    assert ends[1][-1] == "LINKAGE_FAILURE"


def test_all_pages_of_uploadings_are_read(
    client: MetrikaClient, metrika: Metrika, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resources.metrika.client.UPLOADINGS_PAGE", 2)
    for n in range(3):
        client.upload_conversions(COUNTER, CSV, f"page{n}")
    listed = [u.id for u in client.uploadings(COUNTER)]
    assert listed == [u.id for u in metrika.conversions.uploadings if u.counter == COUNTER]


# Slots


def test_slots_are_shared_by_threads_and_freed(tmp_path: Path):
    slots, running, most = Slots("s", 2, directory=tmp_path, pause_s=0.001), [0], [0]
    guard = threading.Lock()

    def work() -> None:
        with slots.one():
            with guard:
                running[0] += 1
                most[0] = max(most[0], running[0])
            time.sleep(0.01)
            with guard:
                running[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [2]


def _hold(folder: Path, ready: Callable[[], None]) -> None:
    with Slots("s", 1, directory=folder).one():
        ready()
        time.sleep(60)


def test_a_slot_of_a_killed_process_is_free(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    held = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, held.set))
    process.start()
    assert held.wait(10)
    assert Slots("s", 1, directory=tmp_path)._take() is None
    process.kill()
    process.join()
    with Slots("s", 1, directory=tmp_path).one() as waited:
        assert waited < 1
