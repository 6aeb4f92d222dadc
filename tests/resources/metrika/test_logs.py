"""Logs come whole, whatever happens on the way, and nothing is left behind in the counter's room."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest

from resources.errors import PermanentSourceError, TransientSourceError
from resources.metrika import Ask, MetrikaBusy, MetrikaClient, MetrikaRefusal
from resources.metrika.logs import LogReader
from resources.metrika.objects import LogRequest
from sandbox.metrika import TOKEN, Metrika, MetrikaConfig, serve

COUNTER = 100001
TODAY = date(2026, 11, 20)
FIELDS = ("ym:pv:watchID", "ym:pv:visitID", "ym:pv:dateTime", "ym:pv:title", "ym:pv:goalsID")
ASK = Ask(COUNTER, "hits", TODAY - timedelta(days=2), TODAY - timedelta(days=1), FIELDS)
QUIET = MetrikaConfig(visits_per_day=30, today=TODAY, requests_per_second=0, parts=3, duplicates=0)


class RestlessClock:
    """Sleeping takes no time, but the clock moves as if it had."""

    def __init__(self) -> None:
        self.now, self.slept = 1_790_000_000.0, list[float]()

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


@pytest.fixture
def metrika() -> Iterator[Metrika]:
    with serve(replace(QUIET)) as service:
        yield service


@pytest.fixture
def clock() -> RestlessClock:
    return RestlessClock()


@pytest.fixture
def reader(metrika: Metrika, clock: RestlessClock, tmp_path: Path) -> LogReader:
    client = MetrikaClient(metrika.url, TOKEN, state_dir=tmp_path, clock=clock, jitter=lambda: 1.0)
    return LogReader(client, clock=clock)


def gathered(reader: LogReader, ask: Ask = ASK) -> list[str]:
    """What a load would keep, sorted."""
    kept, loose = list[str](), list[str]()
    for piece in reader.pieces(ask):
        if piece.event == "rows":
            assert piece.header.decode().split("\t") == list(ask.fields)
            loose += piece.lines.decode().split("\n")
            assert piece.lines.count(b"\n") + 1 == piece.count
        elif piece.event == "kept":
            kept, loose = kept + loose, []
        elif piece.event == "again":
            loose = []
        else:
            kept, loose = [], []
    assert not loose
    return sorted(kept)


def expected(metrika: Metrika, ask: Ask = ASK) -> list[str]:
    """The same rows, as the emulator has them."""
    days = [ask.first + timedelta(days=n) for n in range((ask.last - ask.first).days + 1)]
    ids = [row["watchID"] for day in days for row in metrika.logs.rows(ask.counter, ask.source, day)]
    return sorted(map(str, ids))


def ids(lines: list[str]) -> list[str]:
    return [line.split("\t")[0] for line in lines]


def statuses(metrika: Metrika) -> list[str]:
    return [r.status for r in metrika.logs.requests.get(COUNTER, [])]


def test_all_parts_of_a_log_come(reader: LogReader, metrika: Metrika):
    assert ids(gathered(reader)) == expected(metrika)
    assert reader.downloaded.parts == 3
    assert reader.downloaded.lines == len(expected(metrika))
    assert metrika.requests["download"] == 3
    assert statuses(metrika) == ["cleaned_by_user"]


@pytest.mark.parametrize("parts", [1, 7])
@pytest.mark.parametrize("gzip", [True, False])
def test_however_it_is_cut_and_coded(reader: LogReader, metrika: Metrika, parts: int, gzip: bool):
    metrika.config.parts, metrika.config.gzip = parts, gzip
    assert ids(gathered(reader)) == expected(metrika)


def test_a_day_without_visitors_is_empty(reader: LogReader, metrika: Metrika):
    metrika.config.visits_per_day = 0
    assert gathered(reader) == []
    assert statuses(metrika) == ["cleaned_by_user"]


def test_an_empty_log_may_have_no_parts(reader: LogReader, metrika: Metrika):
    request = metrika.logs._found(COUNTER, _prepared(reader, metrika))
    sizes, request.sizes = request.sizes, []
    assert gathered(reader) == []
    request.status, request.sizes = "processed", sizes
    shown = request.shown
    request.shown = lambda: {k: v for k, v in shown().items() if k != "parts"}  # type: ignore[method-assign]
    with pytest.raises(TransientSourceError, match="names no parts"):
        gathered(reader)


PART = "part/1/download"
BROKEN = [
    ("truncate", {"share": 0.5}),
    ("truncate", {"share": 0.99}),
    ("truncate", {"share": 0.5, "announce": False}),
    ("truncate", {"share": 0, "announce": False}),
    ("corrupt", {}),
    ("bad_row", {}),
    ("status", {"status": 503}),
    ("status", {"status": 504, "error_type": "timeout"}),
    ("status", {"status": 429, "error_type": "quota_requests_by_ip"}),
    ("status", {"status": 429, "error_type": "quota_parallel_requests"}),
    ("html", {"status": 200}),
    ("html", {"status": 502}),
    ("reset", {}),
    ("lost", {}),
]


@pytest.mark.parametrize(("fault", "options"), BROKEN)
def test_a_broken_part_is_fetched_again(reader: LogReader, metrika: Metrika, fault: str, options: dict):
    metrika.faults.add(fault, PART, times=3, **options)
    assert ids(gathered(reader)) == expected(metrika)
    assert reader.downloaded.lines == len(expected(metrika)), "what was void is not counted"
    assert reader.downloaded.again == 3
    assert statuses(metrika) == ["cleaned_by_user"]


@pytest.mark.parametrize("fault", ["truncate", "bad_row"])
def test_the_same_without_compression(reader: LogReader, metrika: Metrika, fault: str):
    metrika.config.gzip = False
    metrika.faults.add(fault, PART, times=2, share=0.4, announce=False)
    assert ids(gathered(reader)) == expected(metrika)


def test_a_part_that_ends_between_two_lines_is_short_of_its_announced_size(
    reader: LogReader, metrika: Metrika
):
    metrika.config.gzip = False
    ready = _prepared(reader, metrika)
    text = metrika.logs.part(COUNTER, ready, 1)
    share = (text[:-1].rfind(b"\n") + 1 + 1e-6) / len(text)
    metrika.faults.add("truncate", PART, share=share, announce=False)
    assert ids(gathered(reader)) == expected(metrika)


def test_sizes_that_count_something_else_are_found_out(reader: LogReader, metrika: Metrika):
    ready = _prepared(reader, metrika)
    request = metrika.logs._found(COUNTER, ready)
    request.sizes = [size * 3 for size in request.sizes]
    assert ids(gathered(reader)) == expected(metrika)
    assert metrika.requests["download"] == 4, "one part was asked for twice, then it was known"


def _prepared(reader: LogReader, metrika: Metrika) -> int:
    """A log request that is ready; its number."""
    number = reader.client.create_log_request(ASK).request_id
    for _ in range(3):
        reader.client.log_request(COUNTER, number)
    assert statuses(metrika) == ["processed"]
    return number


@pytest.mark.parametrize(
    ("fault", "options", "says"),
    [
        ("truncate", {"share": 0.5}, "asked for 5 times"),
        ("bad_row", {}, "do not have 5 columns"),
        ("status", {"status": 503}, "503"),
        ("reset", {}, "asked for 5 times"),
    ],
)
def test_a_part_that_never_comes_whole_ends_the_load(
    reader: LogReader, metrika: Metrika, fault: str, options: dict, says: str
):
    metrika.faults.add(fault, PART, times=None, **options)
    with pytest.raises(TransientSourceError, match=says):
        gathered(reader)
    assert statuses(metrika) == ["cleaned_by_user"]


def test_a_plain_answer_to_a_gzip_request_is_read(reader: LogReader, metrika: Metrika):
    metrika.faults.add("plain", "download", times=None)
    assert ids(gathered(reader)) == expected(metrika)


def test_gzip_without_a_content_coding_is_read(reader: LogReader, metrika: Metrika):
    metrika.faults.add("truncate", "download", times=None, share=1, unnamed=True)
    assert ids(gathered(reader)) == expected(metrika)


def test_columns_in_another_order_are_known_by_name(reader: LogReader, metrika: Metrika):
    metrika.faults.add("header", "part/0/download")
    headers = {p.header for p in reader.pieces(ASK) if p.event == "rows"}
    assert {tuple(h.decode().split("\t")) for h in headers} == {FIELDS, FIELDS[::-1]}


# The life of a request


def test_polling_grows_by_half_up_to_a_minute(reader: LogReader, metrika: Metrika, clock: RestlessClock):
    metrika.config.polls = 9
    gathered(reader)
    waits = [s for s in clock.slept if s >= 9]
    assert waits == [10, 15, 22.5, 33.75, 50.625, 60, 60, 60, 60]


def test_a_request_that_is_retried_by_the_service_is_waited_for(reader: LogReader, metrika: Metrika):
    metrika.config.retries = 2
    assert ids(gathered(reader)) == expected(metrika)


def test_a_failed_preparation_is_ordered_anew(reader: LogReader, metrika: Metrika):
    metrika.config.failures = 2
    assert ids(gathered(reader)) == expected(metrika)
    assert statuses(metrika) == ["processing_failed", "processing_failed", "cleaned_by_user"]


def test_preparations_that_keep_failing_are_given_up(reader: LogReader, metrika: Metrika):
    metrika.config.failures = 9
    with pytest.raises(TransientSourceError, match="processing_failed"):
        gathered(reader)
    assert statuses(metrika) == ["processing_failed"] * 3


def test_at_the_deadline_the_request_is_cancelled(reader: LogReader, metrika: Metrika, clock: RestlessClock):
    metrika.config.polls = 10**9
    with pytest.raises(PermanentSourceError, match="METRIKA_DEADLINE_S"):
        gathered(reader)
    assert sum(clock.slept) <= 7200
    assert statuses(metrika) == ["canceled"]


def test_a_request_that_somebody_cancelled_fails_the_load(
    reader: LogReader, metrika: Metrika, monkeypatch: pytest.MonkeyPatch
):
    metrika.config.polls = 99
    number = reader.order(ASK).request_id

    def cancel(seconds: float) -> None:
        if statuses(metrika) == ["created"]:
            metrika.logs.cancel(COUNTER, number)

    monkeypatch.setattr(reader.client, "sleep", cancel)
    with pytest.raises(PermanentSourceError, match="was cancelled"):
        gathered(reader)


def test_an_unknown_status_is_named(reader: LogReader, metrika: Metrika, monkeypatch: pytest.MonkeyPatch):
    request = metrika.logs._found(COUNTER, reader.order(ASK).request_id)
    monkeypatch.setattr(reader.client, "sleep", lambda seconds: setattr(request, "status", "half_ready"))
    with pytest.raises(PermanentSourceError, match="unknown status 'half_ready'"):
        gathered(reader)


@pytest.mark.parametrize("ready", [True, False])
def test_a_restarted_run_goes_on_with_the_request_that_is_there(
    reader: LogReader, metrika: Metrika, ready: bool
):
    number = _prepared(reader, metrika) if ready else reader.order(ASK).request_id
    assert ids(gathered(reader)) == expected(metrika)
    assert [r.request_id for r in metrika.logs.requests[COUNTER]] == [number]


def test_a_request_of_other_days_or_fields_is_not_used(reader: LogReader, metrika: Metrika):
    for other in (replace(ASK, first=ASK.last), replace(ASK, fields=FIELDS[1:])):
        reader.client.create_log_request(other)
    gathered(reader)
    assert len(statuses(metrika)) == 3


def test_a_request_with_its_fields_in_another_order_is_used(reader: LogReader, metrika: Metrika):
    reader.client.create_log_request(replace(ASK, fields=FIELDS[::-1]))
    lines = [line for p in reader.pieces(ASK) if p.event == "rows" for line in p.lines.decode().split("\n")]
    assert sorted(line.split("\t")[-1] for line in lines) == expected(metrika)
    assert len(statuses(metrika)) == 1


@pytest.mark.parametrize("fault", ["lost", "reset", "html"])
def test_an_order_whose_answer_is_lost_is_not_made_twice(reader: LogReader, metrika: Metrika, fault: str):
    metrika.faults.add(fault, "/logrequests$", method="POST")
    assert ids(gathered(reader)) == expected(metrika)
    assert statuses(metrika) == ["cleaned_by_user"]


@pytest.mark.parametrize("when", [0, 1, 2])
def test_files_that_go_away_meanwhile_are_ordered_anew(reader: LogReader, metrika: Metrika, when: int):
    kept, seen = list[str](), 0
    for piece in reader.pieces(ASK):
        if piece.event == "rows":
            kept += piece.lines.decode().split("\n")
        elif piece.event == "anew":
            kept = []
        elif piece.event == "kept":
            seen += 1
            if seen == when + 1 and when < 2:
                metrika.logs.clean(COUNTER, piece.request_id, "cleaned_automatically_as_too_old")
    assert sorted(ids(kept)) == expected(metrika)
    assert reader.downloaded.lines == len(kept)


@pytest.mark.parametrize("error_type", ["quota_requests_by_uid", "quota_requests_by_counter_id"])
@pytest.mark.parametrize("path", ["evaluate", "logrequests$", r"logrequest/\d+$", "download"])
def test_the_days_quota_stops_the_load_with_one_message(
    reader: LogReader, metrika: Metrika, path: str, error_type: str
):
    metrika.faults.add("status", path, status=429, error_type=error_type)
    with pytest.raises(MetrikaRefusal, match="00:00 GMT"):
        gathered(reader, reader.fitting(ASK))
    assert set(statuses(metrika)) <= {"cleaned_by_user", "canceled"}


def test_cleaning_that_fails_does_not_fail_the_load(reader: LogReader, metrika: Metrika):
    metrika.faults.add("status", "/clean", status=503, times=None)
    assert ids(gathered(reader)) == expected(metrika)


def test_cleaning_with_a_strange_answer_does_not_fail_the_load(
    reader: LogReader, metrika: Metrika, monkeypatch: pytest.MonkeyPatch
):
    def strange(counter: int, request: int) -> LogRequest:
        return LogRequest.of({})

    monkeypatch.setattr(reader.client, "clean_log_request", strange)
    assert ids(gathered(reader)) == expected(metrika)


@pytest.mark.parametrize(("status", "error_type"), [(400, "invalid_parameter"), (403, "access_denied")])
def test_an_order_that_is_refused_tells_of_the_room(
    reader: LogReader, metrika: Metrika, status: int, error_type: str
):
    metrika.faults.add("status", "logrequests$", method="POST", status=status, error_type=error_type)
    with pytest.raises(MetrikaRefusal, match=r"clean requests that are kept: none is listed"):
        gathered(reader)


@pytest.mark.parametrize("announced", [True, False])
def test_a_part_whose_last_line_has_no_end_is_taken(
    reader: LogReader, metrika: Metrika, announced: bool, monkeypatch: pytest.MonkeyPatch
):
    """By its announced size at once, else when it comes like that again."""
    metrika.config.gzip = False
    ready = _prepared(reader, metrika)
    request, plain = metrika.logs._found(COUNTER, ready), metrika.logs.part
    request.sizes = [size - 1 if announced else 0 for size in request.sizes]
    monkeypatch.setattr(metrika.logs, "part", lambda *place: plain(*place)[:-1])
    assert ids(gathered(reader)) == expected(metrika)
    assert metrika.requests["download"] == (3 if announced else 6)


def test_a_part_waits_as_long_as_it_is_told(reader: LogReader, metrika: Metrika, clock: RestlessClock):
    metrika.faults.add("status", PART, status=429, error_type="quota_requests_by_ip", retry_after=17)
    assert ids(gathered(reader)) == expected(metrika)
    assert 17 in clock.slept


def test_a_load_that_is_broken_off_cleans_up(reader: LogReader, metrika: Metrika):
    pieces = reader.pieces(ASK)
    next(pieces)
    pieces.close()
    assert statuses(metrika) == ["cleaned_by_user"]


# How much is asked for


def test_a_period_that_does_not_fit_is_split(reader: LogReader, metrika: Metrika):
    long = replace(ASK, first=TODAY - timedelta(days=10))
    metrika.config.max_days = 4
    first = reader.fitting(long)
    assert (first.first, first.last) == (long.first, long.first + timedelta(days=3))
    rest = replace(long, first=long.last - timedelta(days=3))
    assert reader.fitting(rest) == rest


def test_no_request_is_longer_than_a_year(reader: LogReader, metrika: Metrika):
    metrika.config.visits_per_day = 1
    found = reader.fitting(replace(ASK, first=TODAY - timedelta(days=800)))
    assert (found.last - found.first).days == 364


def test_without_room_leftovers_of_killed_runs_are_cleaned(reader: LogReader, metrika: Metrika):
    mine = reader.client.create_log_request(replace(ASK, last=ASK.first))
    others = reader.client.create_log_request(replace(ASK, fields=FIELDS[1:]))
    for number in (mine.request_id, others.request_id) * 3:
        reader.client.log_request(COUNTER, number)
    metrika.config.room = 1
    with pytest.raises(MetrikaRefusal, match=rf"clean requests that are kept: {others.request_id} "):
        reader.fitting(ASK)
    assert statuses(metrika) == ["cleaned_by_user", "processed"]


def test_without_room_the_log_that_is_there_is_read(reader: LogReader, metrika: Metrika):
    _prepared(reader, metrika)
    metrika.config.room = 1
    assert ids(gathered(reader, reader.fitting(ASK))) == expected(metrika)


@pytest.mark.parametrize("days", [0, -3])
def test_a_counter_that_can_give_nothing_is_told(reader: LogReader, metrika: Metrika, days: int):
    metrika.config.max_days = days
    with pytest.raises(MetrikaRefusal, match="no room is left"):
        reader.fitting(ASK)


def test_an_optional_field_that_the_counter_does_not_know_is_left_out(reader: LogReader, metrika: Metrika):
    metrika.config.visit_id_in_hits = False
    found = reader.fitting(ASK, frozenset({"ym:pv:visitID"}))
    assert found.fields == tuple(f for f in FIELDS if f != "ym:pv:visitID")
    assert ids(gathered(reader, found)) == expected(metrika)
    with pytest.raises(MetrikaRefusal, match="Unknown field: ym:pv:visitID"):
        reader.fitting(ASK)


def test_a_service_that_is_away_is_given_up(reader: LogReader, metrika: Metrika):
    metrika.faults.add("status", r"logrequest/\d+$", status=503, times=None)
    with pytest.raises(MetrikaBusy):
        gathered(reader)
    assert statuses(metrika) == ["canceled"]
