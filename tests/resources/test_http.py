"""The shared HTTP session: nothing secret leaves it, and the rate bucket never grants more than its limit."""

import logging
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from resources.http import (
    HttpSession,
    RateBucket,
    TransportError,
    install_log_redaction,
    redact,
    register_secret,
)

SECRET = "k3p7q9zz1x"


class StillClock:
    """A clock that stands still unless somebody sleeps or winds it."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    capacity=st.integers(1, 60),
    rate=st.sampled_from([0.5, 2.0, 5.0]),
    pauses=st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.3, 1.0, 7.5, -4.0]), max_size=60),
)
def test_no_interval_holds_more_grants_than_capacity_plus_rate(tmp_path_factory, capacity, rate, pauses):
    clock = StillClock()
    folder = tmp_path_factory.mktemp("bucket")
    bucket = RateBucket("portal", capacity=capacity, per_second=rate, directory=folder, clock=clock)
    grants = []
    for pause in pauses:
        before = clock.now
        clock.now += pause  # also backwards, as a corrected wall clock does
        if clock.now < before:
            grants = [moment + pause for moment in grants]
        bucket.reserve()
        grants.append(clock.now)
    for first in range(len(grants)):
        for last in range(first, len(grants)):
            allowed = capacity + rate * (grants[last] - grants[first])
            assert last - first + 1 <= allowed + 1e-6


def _book(folder: Path, count: int) -> list[float]:
    bucket = RateBucket("portal", capacity=10, per_second=2, directory=folder, clock=StillClock())
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda _: bucket.book(), range(count)))


def test_processes_and_threads_share_one_bucket(tmp_path):
    with multiprocessing.get_context("fork").Pool(3) as pool:
        booked = pool.starmap(_book, [(tmp_path, 20)] * 3)
    expected = [max(0.0, (n - 10) / 2) for n in range(1, 61)]
    assert sorted(moment for process in booked for moment in process) == pytest.approx(expected)


def test_a_penalty_counts_the_bucket_as_full_and_zero_capacity_means_no_limit(tmp_path):
    bucket = RateBucket("portal", capacity=10, per_second=2, directory=tmp_path, clock=StillClock())
    bucket.penalise()
    assert bucket.book() == pytest.approx(0.5)
    free = RateBucket("other", capacity=0, per_second=2, directory=tmp_path, clock=StillClock())
    assert [free.reserve() for _ in range(100)] == [0.0] * 100


def test_a_damaged_bucket_file_counts_as_full(tmp_path):
    bucket = RateBucket("portal", capacity=10, per_second=2, directory=tmp_path, clock=StillClock())
    bucket.book()
    next(tmp_path.iterdir()).write_bytes(b"[3.0, 17")
    assert bucket.book() == pytest.approx(0.5)


@pytest.mark.parametrize(
    "text",
    [
        f"https://portal.example/rest/1/{SECRET}/crm.deal.list.json",
        f"POST /rest/api/17/{SECRET}/batch HTTP/1.1",
        f"?auth={SECRET}&start=0",
        f"postgresql://user:{SECRET}@host/db",
    ],
)
def test_known_forms_of_secrets_are_hidden_without_registration(text):
    assert SECRET not in redact(text)


def test_registered_secrets_are_hidden_also_percent_encoded():
    register_secret("pass/word+1")
    assert redact("a pass/word+1 b pass%2Fword%2B1 c") == "a *** b *** c"


def test_logs_and_tracebacks_hold_no_secret(caplog):
    register_secret(SECRET)
    install_log_redaction()
    install_log_redaction()
    log = logging.getLogger("some.library")
    try:
        raise ValueError(f"bad {SECRET}")
    except ValueError:
        log.exception("failed for %s", SECRET)
    log.warning("url https://portal.example/rest/5/othercode77/x")
    assert "failed for ***" in caplog.text
    assert SECRET not in caplog.text
    assert "othercode77" not in caplog.text


def test_a_refused_connection_tells_its_kind_and_no_url():
    with pytest.raises(TransportError) as caught:
        HttpSession(timeout_s=2).post_json(f"http://127.0.0.1:9/rest/1/{SECRET}/profile", {})
    assert caught.value.kind == "refused"
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_threads_may_register_secrets_at_once():
    threads = [threading.Thread(target=register_secret, args=(f"secret-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert redact("secret-3 secret-7") == "*** ***"
