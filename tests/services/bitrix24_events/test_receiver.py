"""The receiver keeps what the portal posts and nothing else; what it keeps marks deletions."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import dagster as dg
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from resources.bitrix24.inbox import Inbox
from services.bitrix24_events.app import PATH, nested
from tests.etl_assets.house import QUIET, House, failures, house, small_portal

TOKEN = "application-token-1"
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """(address, folder) of a receiver in a process of its own."""
    folder = tmp_path_factory.mktemp("inbox")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = {
        "BITRIX24_EVENTS_TOKEN": TOKEN,
        "BITRIX24_EVENTS_PORT": str(port),
        "SVOD_STATE_DIR": str(folder),
    }
    command = [sys.executable, "-m", "services.bitrix24_events"]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                requests.get(f"{url}/health", timeout=1)
                break
            except requests.ConnectionError:
                time.sleep(0.1)
        yield url + PATH, folder
    finally:
        process.terminate()
        process.wait(10)


def deletion(deal: int, token: str = TOKEN) -> dict[str, str]:
    form = {"event": "ONCRMDEALDELETE", "data[FIELDS][ID]": str(deal), "ts": "1780000000"}
    return {**form, "auth[application_token]": token, "auth[domain]": "portal.test"}


def test_an_event_is_kept_without_its_credentials(receiver: tuple[str, Path]):
    url, folder = receiver
    assert requests.post(url, data=deletion(7), timeout=10).status_code == 200
    inbox = Inbox(folder)
    assert inbox.take() == [{"event": "ONCRMDEALDELETE", "data": {"FIELDS": {"ID": "7"}}, "ts": "1780000000"}]
    assert TOKEN not in "".join(p.read_text() for p in folder.glob("*.jsonl"))
    inbox.done()
    assert not inbox.waiting()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (urlencode(deletion(7, "wrong")), 403),
        ("event=ONCRMDEALDELETE", 403),
        (urlencode({"auth[application_token]": TOKEN}), 400),
        ("x=" + "y" * 70_000, 413),
        ("&".join(f"a{n}=1" for n in range(600)), 400),
        (b"\xff\xfe", 400),
    ],
)
def test_what_is_no_event_of_the_portal_is_refused(
    receiver: tuple[str, Path], body: str | bytes, status: int
):
    url, folder = receiver
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert requests.post(url, data=body, headers=headers, timeout=10).status_code == status
    assert not Inbox(folder).waiting()


def test_without_a_token_it_does_not_start():
    environment = {k: v for k, v in os.environ.items() if k != "BITRIX24_EVENTS_TOKEN"}
    command = [sys.executable, "-m", "services.bitrix24_events"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "BITRIX24_EVENTS_TOKEN is not set" in done.stderr


def test_a_port_that_is_none_is_named(tmp_path: Path):
    settings = {"BITRIX24_EVENTS_TOKEN": "a-token-of-events", "SVOD_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "services.bitrix24_events"]
    environment = {**os.environ, **settings, "BITRIX24_EVENTS_PORT": "70000"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == "BITRIX24_EVENTS_PORT must be at most 65535.\n"


def test_taken_events_come_again_until_they_are_done(tmp_path: Path):
    inbox = Inbox(tmp_path)
    inbox.put({"event": "A"})
    assert inbox.take() == [{"event": "A"}]
    inbox.put({"event": "B"})
    (tmp_path / "bitrix24-events.jsonl").open("ab").write(b'{"event": "ha')
    assert Inbox(tmp_path).take() == [{"event": "A"}, {"event": "B"}]
    inbox.done()
    assert Inbox(tmp_path).take() == []


def test_a_line_that_a_full_disk_cut_short_takes_no_event_with_it(tmp_path: Path):
    inbox = Inbox(tmp_path)
    for event in "AB":
        inbox.put({"event": event})
        (tmp_path / "bitrix24-events.jsonl").open("ab").write(b'{"event": "ha')
    assert inbox.take() == [{"event": "A"}, {"event": "B"}]
    (tmp_path / "bitrix24-events.taken.jsonl").open("ab").write(b'{"event": "ha')
    inbox.put({"event": "C"})
    assert inbox.take() == [{"event": "A"}, {"event": "B"}, {"event": "C"}]


@given(st.lists(st.tuples(st.text(), st.text())))
def test_no_form_breaks_the_reading(form: list[tuple[str, str]]):
    json.dumps(nested(form))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("received"), small_portal(smart_processes=False)) as place:
        place.feed("crm_deal")
        yield place


def test_a_received_deletion_leaves_the_view(place: House):
    deal = place.live("deal")[0]
    place.portal.delete("deal", deal)
    inbox = Inbox(Path(os.environ["SVOD_STATE_DIR"]))
    inbox.put({"event": "ONCRMDEALDELETE", "data": {"FIELDS": {"ID": str(deal)}}})
    inbox.put({"event": "ONCRMDEALDELETE", "data": {"FIELDS": {"ID": str(place.live("deal")[0])}}})
    config = {"ops": {"bitrix24__deleted_objects": {"config": {"inbox": True}}}}
    job = place.defs.resolve_job_def("bitrix24_reconciliation")
    result = job.execute_in_process(
        instance=place.instance, run_config={**QUIET, **config}, raise_on_error=False
    )
    assert result.success, failures(result)
    assert place.ids("crm_deal") == place.live("deal")
    assert place.rows("SELECT DISTINCT source FROM bi.deleted_objects") == [("event",)]
    assert not inbox.waiting()


def test_the_sensor_asks_for_a_run_only_when_something_arrived(place: House):
    sensor = place.defs.get_repository_def().get_sensor_def("received_events")
    inbox = Inbox(Path(os.environ["SVOD_STATE_DIR"]))
    with dg.build_sensor_context(instance=place.instance) as context:
        assert isinstance(sensor(context), dg.SkipReason)
        inbox.put({"event": "ONCRMDEALDELETE", "data": {"FIELDS": {"ID": "1"}}})
        request = sensor(context)
    assert isinstance(request, dg.RunRequest)
    assert request.run_config["ops"]["bitrix24__deleted_objects"]["config"] == {"inbox": True}
