"""Runs whose process was killed: the next one waits for nothing that they held."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from cli.load import PROCESS_TAG
from cli.runs import bury
from resources.postgres import EmbeddedPostgres

PROJECT = Path(__file__).resolve().parents[2]
POOL = "bitrix24"


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    postgres = EmbeddedPostgres(tmp_path / "postgres")
    postgres.start()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").symlink_to(PROJECT / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres.url)
    try:
        with dg.DagsterInstance.get() as found:
            yield found
    finally:
        postgres.stop()


def started(instance: dg.DagsterInstance, pid: int, host: str) -> str:
    """A run of that process, with a place in the pool."""
    run = dg.DagsterRun(
        job_name="a_job", status=dg.DagsterRunStatus.STARTED, tags={PROCESS_TAG: f"{host}/{pid}"}
    )
    instance.add_run(run)
    claimed = instance.event_log_storage.claim_concurrency_slot(POOL, run.run_id, "a_step")
    assert claimed.is_claimed
    return run.run_id


def test_a_killed_run_is_over_and_gives_its_place_back(instance: dg.DagsterInstance):
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    instance.event_log_storage.set_concurrency_slots(POOL, 3)
    killed = started(instance, ended.pid, socket.gethostname())
    living = started(instance, os.getpid(), socket.gethostname())
    elsewhere = started(instance, ended.pid, "another-host")
    bury(instance)
    statuses = {run.run_id: run.status for run in instance.get_runs()}
    assert statuses == {
        killed: dg.DagsterRunStatus.FAILURE,
        living: dg.DagsterRunStatus.STARTED,
        elsewhere: dg.DagsterRunStatus.STARTED,
    }
    places = instance.event_log_storage.get_concurrency_info(POOL)
    assert {slot.run_id for slot in places.claimed_slots} == {living, elsewhere}
