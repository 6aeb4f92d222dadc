"""The emulated Metrika over plain HTTP: what the loader's tests rest on."""

import gzip
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from statistics import mean
from typing import Any

import pytest
import requests

from sandbox.loopback import require_loopback
from sandbox.metrika import COUNTERS, LEAD_GOAL, TOKEN, Metrika, MetrikaConfig, serve
from sandbox.metrika.visitors import invent

TODAY = date(2026, 11, 20)
DAY = TODAY - timedelta(days=1)
COUNTER = 100001
FIELDS = "ym:s:visitID,ym:s:<attribution>UTMSource,ym:s:lastsignTrafficSource,ym:s:goalsDateTime"


class Api:
    """Calls the service and keeps the connection."""

    def __init__(self, metrika: Metrika) -> None:
        self.metrika, self.session = metrika, requests.Session()

    def ask(
        self, path: str, method: str = "GET", token: str | None = TOKEN, **options: Any
    ) -> requests.Response:
        headers = {"Authorization": f"OAuth {token}"} if token else {}
        url = f"{self.metrika.url}/management/v1/counter/{COUNTER}{path}"
        return self.session.request(method, url, headers=headers, timeout=10, **options)

    def error(self, path: str, method: str = "GET", **options: Any) -> tuple[int, str]:
        answer = self.ask(path, method, **options)
        assert answer.json()["code"] == answer.status_code
        return answer.status_code, answer.json()["errors"][0]["error_type"]


@pytest.fixture
def api() -> Iterator[Api]:
    with serve(MetrikaConfig(visits_per_day=30, today=TODAY, requests_per_second=0)) as metrika:
        yield Api(metrika)


def query(**changes: str) -> dict[str, str]:
    return {"date1": str(DAY), "date2": str(DAY), "fields": FIELDS, "source": "visits"} | changes


def test_a_log_is_ordered_prepared_downloaded_and_cleaned(api: Api):
    made = api.ask("/logrequests", "POST", params=query()).json()["log_request"]
    assert (made["status"], made["source"], "parts" in made) == ("created", "visits", False)
    path = f"/logrequest/{made['request_id']}"
    assert api.error(f"{path}/part/0/download") == (400, "invalid_parameter")
    assert api.error(f"{path}/clean", "POST") == (400, "invalid_parameter")
    states = [api.ask(path).json()["log_request"]["status"] for _ in range(2)]
    assert states == ["created", "processed"]
    assert api.error(f"{path}/cancel", "POST") == (400, "invalid_parameter")
    ready = api.ask(path).json()["log_request"]
    texts = [api.ask(f"{path}/part/{p['part_number']}/download").text for p in ready["parts"]]
    assert {t.split("\n")[0] for t in texts} == {FIELDS.replace(",", "\t")}, (
        "the header is as it was asked for"
    )
    assert [len(t.encode()) for t in texts] == [p["size"] for p in ready["parts"]]
    assert api.error(f"{path}/part/9/download") == (400, "invalid_parameter")
    assert api.ask(f"{path}/clean", "POST").json()["log_request"]["status"] == "cleaned_by_user"
    assert api.error(f"{path}/part/0/download") == (400, "invalid_parameter")


@pytest.mark.parametrize(
    ("changes", "error_type"),
    [
        ({"date2": str(TODAY)}, "invalid_parameter"),
        ({"date1": str(TODAY - timedelta(days=500))}, "invalid_parameter"),
        ({"date1": "yesterday"}, "invalid_parameter"),
        ({"date1": ""}, "missing_parameter"),
        ({"source": "pages"}, "invalid_parameter"),
        ({"fields": "ym:s:nothing"}, "invalid_parameter"),
        ({"fields": "ym:pv:watchID"}, "invalid_parameter"),
        ({"fields": ",".join(["ym:s:visitID"] * 300)}, "invalid_parameter"),
        ({"attribution": "GUESSED"}, "invalid_parameter"),
    ],
)
def test_wrong_orders_are_refused(api: Api, changes: dict[str, str], error_type: str):
    assert api.error("/logrequests", "POST", params=query(**changes)) == (400, error_type)


def test_who_may_not_ask_is_told_so(api: Api):
    api.metrika.config.tokens = {TOKEN: None, "narrow": frozenset({100002})}
    assert api.error("", token=None) == (401, "unauthorized")
    assert api.error("", token="unknown") == (403, "invalid_token")
    assert api.error("", token="narrow") == (403, "access_denied")
    assert api.error("/logrequest/999") == (404, "not_found")
    assert api.error("/nothing") == (404, "not_found")


def test_the_quotas_of_a_second_and_of_a_day(api: Api):
    api.metrika.config.requests_per_second = 10
    answers = [api.ask("/logrequests").status_code for _ in range(14)]
    assert answers[:10] == [200] * 10
    assert 429 in answers[10:]
    api.metrika.config.requests_per_second, api.metrika.config.requests_per_day = 0, 5
    assert api.error("/logrequests") == (429, "quota_requests_by_uid")


def test_the_room_for_prepared_logs_is_accounted_for(api: Api):
    found = api.ask("/logrequests/evaluate", params=query()).json()["log_request_evaluation"]
    assert found["possible"]
    api.metrika.config.room = 1
    found = api.ask("/logrequests/evaluate", params=query()).json()["log_request_evaluation"]
    assert found == {"possible": False, "max_possible_day_quantity": 0}
    assert api.error("/logrequests", "POST", params=query()) == (400, "limit_exceeded")


@pytest.mark.parametrize(
    "text",
    [
        b"Target,DateTime\nlead,1\n",
        b"ClientId,Target\n1,lead\n",
        b"ClientId,Target,DateTime,Colour\n",
        b"\xff",
    ],
)
def test_a_file_without_the_columns_is_refused(api: Api, text: bytes):
    files = {"file": ("c.csv", text, "text/csv")}
    assert api.error("/offline_conversions/upload", "POST", files=files) == (400, "invalid_uploading")


def test_rows_of_a_file_are_validated_one_by_one(api: Api):
    rows = ["13,lead,1700000000", "13,lead,99999999999", "13,,1700000000", ",lead,1700000000", "13,lead,soon"]
    text = "\n".join(["ClientId,Target,DateTime", *rows]) + "\n"
    answer = api.ask(
        "/offline_conversions/upload",
        "POST",
        params={"client_id_type": "CLIENT_ID", "comment": "c"},
        files={"file": ("c.csv", text.encode(), "text/csv")},
    ).json()["uploading"]
    assert (answer["source_quantity"], answer["line_quantity"], answer["status"]) == (5, 1, "PREPARED")


def test_days_are_the_same_again_and_a_model_can_learn_from_them():
    one, other = (invent(1, COUNTER, DAY, 400, "Europe/Moscow") for _ in range(2))
    assert one == other
    reached = {True: [], False: []}
    for visit in one.visits:
        reached[LEAD_GOAL in visit["goalsID"]].append(visit["visitDuration"])
    assert 10 < len(reached[True]) < len(reached[False])
    assert mean(reached[True]) > 2 * mean(reached[False])
    assert {v["deviceCategory"] for v in one.visits} >= {"1", "2", "3"}
    assert any(v["visitDuration"] >= 180 and v["pageViews"] >= 5 for v in one.visits)
    assert any(h["date"] > DAY for h in one.hits), "a visit runs past midnight"
    assert any(v["clientID"] > 2**63 for v in one.visits)
    assert len({v["visitID"] for v in one.visits}) == len(one.visits)


def test_a_plain_answer_is_given_to_those_who_want_one(api: Api):
    made = api.ask("/logrequests", "POST", params=query()).json()["log_request"]["request_id"]
    for _ in range(2):
        api.ask(f"/logrequest/{made}")
    path = f"/logrequest/{made}/part/0/download"
    url = f"{api.metrika.url}/management/v1/counter/{COUNTER}{path}"
    bodies = {}
    for coding in ("gzip", "identity"):
        headers = {"Authorization": f"OAuth {TOKEN}", "Accept-Encoding": coding}
        with requests.get(url, headers=headers, stream=True, timeout=10) as answer:
            bodies[coding] = answer.raw.read(decode_content=False)
    assert gzip.decompress(bodies["gzip"]) == bodies["identity"]


def test_it_listens_on_loopback_only():
    with pytest.raises(ValueError, match="loopback"):
        require_loopback("0.0.0.0")


def test_the_command_line_serves_and_changes_a_running_one():
    command = [sys.executable, "-m", "sandbox", "metrika"]
    process = subprocess.Popen([*command, "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        assert TOKEN in line
        assert all(str(counter) in line for counter in COUNTERS)
        port = line.split()[0].rsplit(":", 1)[1]
        done = subprocess.run(
            [*command, "settings", "--port", port, "--set", "parts=7", "--set", "today=2026-01-02"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert '"parts": 7' in done.stdout
        assert '"today": "2026-01-02"' in done.stdout
    finally:
        process.terminate()
        assert process.wait(10) == 0
