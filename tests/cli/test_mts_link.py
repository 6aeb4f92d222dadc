"""The old command line of MTS Link: what people have in their notes works as typed."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.mts_link import run
from etl_assets.definitions import PROJECT
from sandbox.mts_link import OrgConfig, Server, serve

SESSION, MEMBER, CHAT_USER = 6010001, 7001001, 7001002
# the ids of the notes are other ones: those of the organisation stand for them
NOTES = (
    ("events", "organization_events_schedule"),
    ("events", f"event_session_details --eventsessionID {SESSION}"),
    ("events", f"user_events_schedule --userID {MEMBER}"),
    ("events", f"event_participants --eventsessionID {SESSION}"),
    ("addressbook", "contact_details --contactsID 1341001"),
    ("addressbook", 'contacts_search --query "Примерова"'),
    ("addressbook", "organization_members"),
    ("chats", f"user_channels --userId {CHAT_USER}"),
    ("chats", 'channel_messages --chatId "{chat}"'),
    ("chats", "course_details --Courseid 801"),
    ("files", "file_details --fileID 3001101"),
    ("files", f"event_session_files --eventsessionsID {SESSION}"),
    ("organisation", "brandings_list"),
    ("organisation", "organization_groups"),
    ("tests", "test_info --testId 9101"),
    ("tests", f"user_tests_stats --userId {MEMBER}"),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(OrgConfig(rate=None, sessions=20)) as server:
        yield server


@pytest.fixture
def here(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of a project, with settings in the environment."""
    (tmp_path / "workspace.yaml").touch()
    monkeypatch.chdir(tmp_path)
    for name, value in settings(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("EXTRACTION_PATH", raising=False)
    return tmp_path


def settings(server: Server) -> dict[str, str]:
    return {
        "MTS_LINK_URL": server.url,
        "MTS_LINK_API_TOKEN": "sandbox-key",
        "MTS_LINK_RATE": "0",
        "MTS_LINK_CLASSES": "staff",
    }


def written(folder: Path, name: str) -> object:
    (path,) = folder.glob(f"{name}_????????_??????.json")
    assert path.stat().st_mode & 0o077 == 0
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("group", "typed"), NOTES)
def test_what_people_typed_still_works(here: Path, server: Server, group: str, typed: str):
    arguments = shlex.split(typed.format(chat=server.org.chat_id(0)))
    assert run(group, arguments) == 0
    content = written(here, arguments[0])
    assert content, typed


def test_the_scripts_of_old_names_are_there_and_run(here: Path, server: Server):
    script = PROJECT / "extract" / "link_events_extractors.py"
    command = [sys.executable, str(script), "event_participants", "--eventsessionID", str(SESSION)]
    environment = {**os.environ, **settings(server), "EXTRACTION_PATH": "out"}
    (here / "out").mkdir()
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    people = written(here / "out", "event_participants")
    assert isinstance(people, list)
    assert len(people) == server.org.participants(0)
    assert all("url" not in person for person in people)
    assert "@" not in done.stdout + done.stderr
    names = {p.stem for p in (PROJECT / "extract").glob("*.py")}
    groups = ("addressbook", "chats", "events", "files", "organisation", "tests")
    assert names == {f"link_{g}_extractors" for g in groups}


def test_list_names_extractors_with_their_parameters(here: Path, capsys: pytest.CaptureFixture[str]):
    assert run("events", ["--list"]) == 0
    listed = capsys.readouterr().out
    assert "event_session_details  --eventsessionID" in listed
    assert "visits_stats  --userID" in listed
    assert "organization_members" not in listed


def test_all_reads_what_needs_no_parameter_and_leaves_out_what_is_off(here: Path):
    assert run("addressbook", ["--all"]) == 0
    assert {p.name.rsplit("_", 2)[0] for p in here.glob("*.json")} == {"organization_members"}


def test_called_bare_it_asks(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("test_info\n9101\n"))
    assert run("tests", []) == 0
    assert written(here, "test_info")


def test_the_group_may_be_left_out_or_named_first(here: Path):
    assert run(None, ["timezones_list"]) == 0
    assert run(None, ["organisation", "brandings_list"]) == 0


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["event_participants"], "--eventsessionID"),
        (["organization_members"], "group addressbook"),
        (["event_participants", "--eventsessionID"], "needs a value"),
        (["event_participants", "--eventsessionID", "1", "--foo", "2"], "--foo"),
        (["event_participants", "users_stats"], "One extractor"),
    ],
)
def test_what_is_typed_wrong_is_named(
    here: Path, capsys: pytest.CaptureFixture[str], typed: list[str], said: str
):
    assert run("events", typed) == 2
    assert said in capsys.readouterr().err


def test_visits_are_asked_for_by_the_old_parameter(here: Path):
    assert run("events", ["visits_stats", "--userID", str(MEMBER)]) == 0
    visits = written(here, "visits_stats")
    assert isinstance(visits, dict)
    assert visits["visited"] or visits["not_visited"]


def test_statistics_of_a_long_period_are_as_one_answer_has_them(here: Path, server: Server):
    period = {"from": "2015-01-01 00:00:00", "to": "2035-01-01 00:00:00"}
    wanted = {
        user["id"]: {session["id"] for session in user["eventSessions"]}
        for user in server.answers.users_stats(period)
    }
    assert run("events", ["users_stats"]) == 0
    people = written(here, "users_stats")
    assert isinstance(people, list)
    assert len(people) == len(wanted)
    assert {p["id"]: {s["id"] for s in p["eventSessions"]} for p in people} == wanted


def test_a_refusal_is_one_line(here: Path, capsys: pytest.CaptureFixture[str]):
    assert run("events", ["event_session_details", "--eventsessionID", "1"]) == 1
    assert capsys.readouterr().err.strip() == "event_session_details: refused with 404 Not found"


def test_the_limit_of_a_chat_is_that_of_the_tables(
    here: Path, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    typed = ["channel_messages", "--chatId", server.org.chat_id(0)]
    monkeypatch.setenv("MTS_LINK_MESSAGE_PAGES", "1")
    server.control("write", {"chat": 0, "count": 120})
    assert run("chats", typed) == 1
    assert "MTS_LINK_MESSAGE_PAGES" in capsys.readouterr().err
    assert not list(here.glob("*.json"))
    monkeypatch.setenv("MTS_LINK_MESSAGE_PAGES", "3")
    assert run("chats", typed) == 0
    messages = written(here, "channel_messages")
    assert isinstance(messages, list)
    assert len({m["id"] for m in messages}) == len(messages) == server.org.message_count(0)


def test_a_key_in_the_old_file_only_is_told_of(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (here / "config").mkdir()
    (here / "config" / "tokens.json").write_text('{"api_token": "an-old-key"}')
    monkeypatch.delenv("MTS_LINK_API_TOKEN")
    assert run("organisation", ["timezones_list"]) == 2
    told = capsys.readouterr().err
    assert "config/tokens.json is no longer read" in told
    assert "MTS_LINK_API_TOKEN" in told
    assert "an-old-key" not in told
