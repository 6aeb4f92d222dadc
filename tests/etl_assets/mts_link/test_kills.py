"""Loads that are killed one after another, while the organisation changes, are put right by one rerun."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from etl_assets.definitions import PROJECT
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from sandbox.mts_link import OrgConfig, Server, serve
from sandbox.mts_link.org import DAY, RECORD, SESSION, USER
from tests.etl_assets.mts_link.loader import FLUSH_PARENTS
from tests.etl_assets.mts_link.org_house import ALL, DAYS, day, org_house, small_org
from tests.etl_assets.mts_link.truth import differences

IN_FLIGHT = 4
NIGHTLY, ASKED = "nightly", "asked"
SCHEDULE, PEOPLE = "organization_events_schedule", "event_participants"


class Place:
    """An organisation, and a warehouse that processes load it into."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.warehouse = WarehouseResource(url=f"chdb://{folder}/warehouse")

    def load(self, feed: str, *names: str, kill_at: int = 0, changes: Changes | None = None) -> int:
        """Requests that a load was answered. It is killed at its request `kill_at`, if there are so many."""
        Embedded.at(f"{self.folder}/warehouse").close()
        self.server.reset_stats()
        command = [sys.executable, "-m", "tests.etl_assets.mts_link.loader", feed, *names]
        process = subprocess.Popen(command, cwd=PROJECT, env=self.environment(), stderr=subprocess.DEVNULL)

        def watch(number: int) -> None:
            if number == kill_at:
                process.send_signal(signal.SIGKILL)
            elif changes:
                changes.maybe()

        self.server.watch = watch
        try:
            status = process.wait(500)
        finally:
            process.kill()
            self.server.watch = None
        assert status in (0, -signal.SIGKILL), "the load failed"
        assert kill_at or status == 0
        return self.server.stats.requests

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "CLICKHOUSE_URL": self.warehouse.url,
            "MTS_LINK_API_TOKEN": "sandbox-key",
            "MTS_LINK_CLASSES": ALL,
            "MTS_LINK_IN_FLIGHT": str(IN_FLIGHT),
            "MTS_LINK_RATE": "0",
            "MTS_LINK_START_DATE": day(DAYS),
            "MTS_LINK_URL": self.server.url,
            "PYTHONPATH": str(PROJECT),
            "SVOD_STATE_DIR": str(self.folder),
        }

    def keys(self, table: str, *columns: str) -> list[tuple[str, ...]]:
        """Key values of a view, sorted, as often as they stand there."""
        chosen = ", ".join(f"toString({c})" for c in columns)
        return sorted(self.warehouse.query(f"SELECT {chosen} FROM bi.{table}"))


class Changes:
    """What goes on in the organisation while it is read, with sessions that a night looks back at."""

    def __init__(self, server: Server, chance: random.Random) -> None:
        self._server, self._chance = server, chance
        org = server.org
        since = org.clock.now() - 20 * DAY
        self._sessions = [s for s in org.session_numbers() if org.start(s) > since]

    def maybe(self) -> None:
        if self._chance.random() < 0.15:
            self._chance.choice((self._write, self._end, self._vanish, self._join, self._call))()

    def _write(self) -> None:
        chat = self._chance.randrange(self._server.config.channels)
        self._server.control("write", {"chat": chat, "count": self._chance.randint(1, 130)})

    def _end(self) -> None:
        """A session that was to come has been held."""
        now = int(self._server.org.clock.now())
        coming = [s for s in self._sessions if self._server.org.status(s) == "ACTIVE"]
        if coming:
            held = {"start": now - 7200, "end": now - 3600, "more": self._chance.randint(0, 3)}
            self._change(self._chance.choice(coming), **held)

    def _join(self) -> None:
        """More people, and another name."""
        more = self._chance.randint(-1, 4)
        self._change(self._chance.choice(self._sessions), more=more, name=f"Встреча {more}")

    def _change(self, session: int, **values: Any) -> None:
        self._server.control("change-session", {"id": SESSION + session, **values})

    def _call(self) -> None:
        self._server.control("call", {})

    def _vanish(self) -> None:
        """A session, a person or a record is deleted; what was deleted before may be restored."""
        kind, first = self._chance.choice((("session", SESSION), ("member", USER), ("record", RECORD)))
        gone = self._server.org.deleted[kind]
        if gone and self._chance.random() < 0.5:
            return self._server.control("restore", {"kind": kind, "id": first + self._chance.choice([*gone])})
        config = self._server.config  # owners of chats stay, since nobody sees a chat without members
        people = range(config.channels, config.staff)
        number = self._chance.choice(people if kind == "member" else self._sessions)
        return self._server.control("delete", {"kind": kind, "id": first + number})


@contextmanager
def place(folder: Path, config: OrgConfig) -> Iterator[Place]:
    with serve(config) as server:
        try:
            yield Place(server, folder)
        finally:
            Embedded.at(f"{folder}/warehouse").close()


def stale(place: Place) -> list[str]:
    """Sessions whose row is not what the organisation shows."""
    org = place.server.org
    found = {
        row[0]: row[1:] for row in place.warehouse.query("SELECT id, name, status FROM bi.event_sessions")
    }
    wanted = {
        str(SESSION + s): (row["name"], row["status"])
        for s in org.session_numbers()
        for row in [place.server.answers.session_row(s)]
    }
    return [f"{i}: {found.get(i)} for {wanted[i]}" for i in wanted if found.get(i) != wanted[i]]


def test_rows_of_a_broken_load_go_with_what_was_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resources.clickhouse.load.FLUSH_AFTER_S", 0)  # rows are in before their marks
    with org_house(tmp_path, small_org(sessions=16, staff=6, participants=4)) as house:
        house.load(SCHEDULE)
        house.server.add_fault("status", path="/part", status=401, skip=10, times=None)
        assert not house.run(PEOPLE).success
        house.server.faults.clear()
        there = house.rows(f"SELECT DISTINCT event_session_id FROM bi.{PEOPLE}")
        marked = house.rows(f"SELECT parent FROM mts_link.parent_reads WHERE endpoint = '{PEOPLE}'")
        left = sorted(int(row[0]) for row in set(there) - set(marked))
        assert len(left) > 2
        house.server.control("delete", {"kind": "session", "id": left[0]})
        house.server.control("change-session", {"id": left[1], "more": -1})
        house.load(SCHEDULE, PEOPLE)
        assert differences(house, PEOPLE) == {}


def test_a_night_that_is_broken_off_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("etl_assets.mts_link.fan_out.FLUSH_PARENTS", 4)
    with org_house(tmp_path, small_org(sessions=4, staff=40)) as house:
        house.load("chats_organization_members", feed=NIGHTLY)
        house.server.add_fault("status", path="/chats/channels", status=401, skip=30, times=None)
        assert not house.run("user_channels", feed=NIGHTLY).success
        house.server.faults.clear()
        with house.counted() as stats:
            house.load("user_channels", feed=NIGHTLY)
        assert stats["requests"] <= 40 - 30 + 4 + 8  # those on their way had no mark yet
        with house.counted() as stats:
            house.load("user_channels", feed=NIGHTLY)  # the next night asks for everybody
        assert stats["requests"] == 40
        assert differences(house, "user_channels") == {}


def test_a_past_range_that_is_broken_off_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("etl_assets.mts_link.fan_out.FLUSH_PARENTS", 4)
    past, config = (day(90), day(40)), small_org(sessions=120, staff=5, participants=3, days=120)
    with org_house(tmp_path, config, MTS_LINK_START_DATE=day(100)) as house:
        house.load(SCHEDULE, feed=None, days=(day(100), day(0)))
        midnight = f"toStartOfDay(startsAt, 'Europe/Moscow') BETWEEN '{past[0]}' AND '{past[1]}'"
        held = sorted(house.rows(f"SELECT id FROM bi.event_sessions WHERE {midnight}"))
        assert len(held) > 30
        house.server.add_fault("status", path="/part", status=401, skip=20, times=None)
        assert not house.run(PEOPLE, feed=None, days=past).success
        house.server.faults.clear()
        with house.counted() as stats:
            house.load(PEOPLE, feed=None, days=past)
        assert stats["requests"] <= len(held) - 20 + 4 + 8
        assert sorted(house.rows(f"SELECT DISTINCT event_session_id FROM bi.{PEOPLE}")) == held
        with house.counted() as stats:
            house.load(PEOPLE, feed=None, days=past)  # asked for once more, it is all read again
        assert stats["requests"] == len(held)


def test_parents_read_before_a_kill_are_not_asked_for_again(tmp_path: Path):
    sessions, kills = 120, (60, 50)
    with place(tmp_path, small_org(sessions=sessions, staff=5, participants=3)) as here:
        asked = []
        for kill_at in (*kills, 0):
            here.load(ASKED, SCHEDULE, PEOPLE, kill_at=kill_at)
            asked.append(here.server.stats.routes["/eventsessions/{}/participations"])
        assert asked[-1] < sessions / 2
        lost = 2 * IN_FLIGHT + 2 * FLUSH_PARENTS + 1  # on their way, waiting for their turn, without a mark
        assert sessions <= sum(asked) <= sessions + len(kills) * lost
        assert differences(here, SCHEDULE, PEOPLE) == {}


@pytest.mark.timeout(600)  # it loads everything three times, and a machine may be busy
@pytest.mark.parametrize("seed", range(1))
def test_after_one_rerun_every_table_equals_the_organisation(tmp_path: Path, seed: int):
    chance = random.Random(seed)
    config = small_org(sessions=12, staff=5, participants=4, contacts=6, channels=3, messages=400, days=20)
    with place(tmp_path, config) as here:
        changes = Changes(here.server, chance)
        for _ in range(2):
            here.load(NIGHTLY, kill_at=chance.randint(1, 300), changes=changes)
        here.load(NIGHTLY)
        assert differences(here) == {}
        assert stale(here) == []
