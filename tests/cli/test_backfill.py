"""`svod backfill`: chunks cover the range once, oldest first; a range that was broken off is gone on with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.backfill import chunk_days, chunks
from etl_assets.definitions import PROJECT
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from resources.postgres import EmbeddedPostgres
from sandbox.mts_link import OrgConfig, Server, serve
from sandbox.mts_link.org import MSK, SESSION

SCHEDULE, PEOPLE = "mts_link/organization_events_schedule", "mts_link/event_participants"
ASKED_FOR_PEOPLE = "/eventsessions/{}/participations"
DAYS = 30  # of the past range


@pytest.mark.parametrize(("text", "days"), [("90d", 90), ("4w", 28), ("7", 7), (" 1d ", 1)])
def test_a_chunk_is_days_or_weeks(text: str, days: int):
    assert chunk_days(text) == days


@pytest.mark.parametrize("text", ["", "0d", "-3d", "3m", "d", "1.5d"])
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match="no chunk"):
        chunk_days(text)


@given(st.lists(st.integers(), max_size=200), st.integers(1, 50))
def test_chunks_cover_the_range_once_in_order(keys: list[int], days: int):
    parts = list(chunks([str(k) for k in keys], days))
    assert [key for part in parts for key in part] == [str(k) for k in keys]
    assert all(0 < len(part) <= days for part in parts)


@dataclass
class Project:
    """A folder with a Dagster, a warehouse and an organisation of its own."""

    folder: Path
    server: Server
    postgres: EmbeddedPostgres

    def svod(self, *arguments: str, kill_at: int = 0) -> subprocess.CompletedProcess[str]:
        """`svod …`; with all of its processes it is sent SIGKILL at its request `kill_at`."""
        self.server.reset_stats()
        command = [sys.executable, "-c", "from cli.main import app; app()", *arguments]
        environ = os.environ | self.settings()
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, cwd=self.folder, env=environ, stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

        def watch(number: int) -> None:
            if number == kill_at:
                svod = psutil.Process(process.pid)
                for each in (svod, *svod.children(recursive=True)):
                    each.kill()

        self.server.watch = watch
        try:
            said, _ = process.communicate(timeout=200)
        finally:
            process.kill()
            self.server.watch = None
        return subprocess.CompletedProcess(command, process.returncode, said)

    def settings(self) -> dict[str, str]:
        return {
            "CLICKHOUSE_URL": f"chdb://{self.folder}/warehouse",
            "DAGSTER_HOME": str(self.folder / "home"),
            "DAGSTER_POSTGRES_URL": self.postgres.url,
            "MTS_LINK_API_TOKEN": "sandbox-key",
            "MTS_LINK_RATE": "0",
            "MTS_LINK_START_DATE": _day(2 * DAYS),
            "MTS_LINK_URL": self.server.url,
            "PYTHONPATH": str(PROJECT),
            "SVOD_STATE_DIR": str(self.folder),
        }

    def read(self, table: str) -> set[str]:
        """Sessions that have rows."""
        try:
            warehouse = WarehouseResource(url=f"chdb://{self.folder}/warehouse")
            return {row[0] for row in warehouse.query(f"SELECT DISTINCT event_session_id FROM bi.{table}")}
        finally:
            Embedded.at(f"{self.folder}/warehouse").close()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "workspace.yaml").symlink_to(PROJECT / "workspace.yaml")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").symlink_to(PROJECT / "dagster.yaml")
    postgres = EmbeddedPostgres(tmp_path / "postgres")
    postgres.start()
    config = OrgConfig(rate=None, sessions=60, staff=6, participants=3, days=70)
    try:
        with serve(config) as server:
            yield Project(tmp_path, server, postgres)
    finally:
        postgres.stop()


def _day(ago: int) -> str:
    return str(datetime.now(MSK).date() - timedelta(days=ago))


def test_a_past_range_that_was_killed_is_gone_on_with(project: Project):
    org, first, last = project.server.org, _day(DAYS + 5), _day(6)
    held = {
        str(SESSION + s)
        for s in org.session_numbers()
        if first <= str(datetime.fromtimestamp(org.start(s), MSK).date()) <= last
    }
    assert len(held) > 12
    done = project.svod("backfill", SCHEDULE, "--chunk", "400d")
    assert done.returncode == 0, done.stdout
    people = ("backfill", PEOPLE, "--from", first, "--to", last, "--chunk", f"{DAYS // 2}d")
    killed = project.svod(*people, kill_at=len(held) - 2)  # in the second chunk
    assert killed.returncode < 0, killed.stdout
    done = project.svod(*people)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("done before") == 1
    assert project.server.stats.routes[ASKED_FOR_PEOPLE] < len(held)
    assert project.read("event_participants") == held
    done = project.svod(*people)
    assert done.stdout.count("done before") == 2
    assert project.server.stats.requests == 0
