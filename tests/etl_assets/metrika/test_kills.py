"""A load that is killed -9 leaves the old days, and the next one ends in the source's rows."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from sandbox.metrika import MetrikaConfig, serve
from tests.etl_assets.metrika.counter_house import COUNTER, day

ROOT = Path(__file__).resolve().parents[3]


def start(url: str, folder: Path, first: int, last: int) -> subprocess.Popen[str]:
    module = [sys.executable, "-m", "tests.etl_assets.metrika.log_loader"]
    arguments = [url, str(folder), str(day(first)), str(day(last))]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*module, *arguments], stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert said.rstrip().endswith("loaded")


def test_a_killed_load_is_taken_up_and_loses_nothing(tmp_path: Path):
    config = MetrikaConfig(visits_per_day=60, parts=6, requests_per_second=0, polls=1)
    with serve(config) as metrika:
        finish(start(metrika.url, tmp_path, 2, 2))
        first = metrika.logs.requests[COUNTER][0].request_id
        config.latency = 0.1
        killed = start(metrika.url, tmp_path, 3, 1)
        assert killed.stdout
        said = [killed.stdout.readline() for _ in range(3)]
        if not all(said):
            pytest.fail(f"the load ended by itself: {said}")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        config.latency = 0
        warehouse = WarehouseResource(url=f"chdb://{tmp_path}/warehouse")
        days = "SELECT DISTINCT date FROM metrika.visits ORDER BY date"
        assert warehouse.query(days) == [(day(2),)], "what is not complete does not show"
        Embedded.at(f"{tmp_path}/warehouse").close()
        finish(start(metrika.url, tmp_path, 3, 1))
        rows = warehouse.query("SELECT date, visit_id FROM bi.visits ORDER BY ALL")
        Embedded.at(f"{tmp_path}/warehouse").close()
        there = [
            (row["date"], row["visitID"])
            for n in (1, 2, 3)
            for row in metrika.logs.rows(COUNTER, "visits", day(n))
        ]
        assert rows == sorted(there)
        requests = [r.request_id for r in metrika.logs.requests[COUNTER]]
        assert requests == [first, first + 1], "the prepared log of the killed load was used"
        assert {r.status for r in metrika.logs.requests[COUNTER]} == {"cleaned_by_user"}
