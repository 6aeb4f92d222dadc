"""A load that is killed at any moment, while the portal changes, is put right by one rerun."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from etl_assets.definitions import PROJECT
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from sandbox.bitrix24 import Portal, PortalConfig, serve
from tests.etl_assets.house import day

DEALS = 900
TABLES = ("crm_deal", "crm_stage_history")


@pytest.fixture(scope="module")
def portal() -> Iterator[Portal]:
    """Slow enough to be caught, quick enough to wait for."""
    config = PortalConfig(deals=DEALS, rate_limit=None, latency=0.1, operating_mode="absent")
    with serve(config) as portal:
        yield portal


def environment(portal: Portal, folder: Path) -> dict[str, str]:
    return os.environ | {
        "BITRIX24_WEBHOOK_URL": portal.webhook_url,
        "BITRIX24_RATE_CAPACITY": "0",
        "BITRIX24_BATCH_ROWS": "50",
        "BITRIX24_START_DATE": day(1),
        "CLICKHOUSE_INSERT_ROWS": "200",
        "CLICKHOUSE_URL": f"chdb://{folder}/warehouse",
        "PYTHONPATH": str(PROJECT),
        "SVOD_STATE_DIR": str(folder),
    }


@contextmanager
def loading(portal: Portal, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A load that has begun; killed if it is still running at the end of the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.etl_assets.loader", *TABLES],
        cwd=PROJECT,
        env=environment(portal, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def load(portal: Portal, folder: Path) -> int:
    """Requests of a load that runs to its end."""
    portal.reset_stats()
    with loading(portal, folder) as process:
        assert process.wait(200) == 0
    return portal.stats()["http_requests"]


def differences(portal: Portal, folder: Path) -> list[str]:
    """Live deals that are missing, stale or doubled; whether their history differs."""
    warehouse = WarehouseResource(url=f"chdb://{folder}/warehouse")
    found: dict[str, list[tuple[str, str]]] = {}
    for number, title, comments in warehouse.query("SELECT ID, TITLE, COMMENTS FROM bi.crm_deal"):
        found.setdefault(number, []).append((title, comments or ""))
    history = warehouse.query(
        "SELECT toInt64(ID) AS i FROM bi.crm_stage_history WHERE ENTITY_TYPE_ID = '2' ORDER BY i"
    )
    Embedded.at(f"{folder}/warehouse").close()
    wrong = []
    for row in portal.expected("deal", "raw"):
        number, wanted = str(row["ID"]), (row["TITLE"], cleaned(row["COMMENTS"]))
        if found.get(number) != [wanted]:
            wrong.append(f"{number}: {found.get(number)}, on the portal {wanted}")
    if [i for (i,) in history] != sorted(row["ID"] for row in portal.expected("stagehistory_2", "id")):
        wrong.append("the stage history differs")
    return wrong


def cleaned(text: str | None) -> str:
    """Without halves of characters, which no table holds."""
    return (text or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@pytest.mark.parametrize("seed", range(2))
def test_after_one_rerun_every_live_row_is_there_once_with_its_current_values(
    portal: Portal, tmp_path: Path, seed: int
):
    moments = random.Random(seed)
    with loading(portal, tmp_path) as process:
        end = time.monotonic() + moments.uniform(0.2, 3)
        while time.monotonic() < end and process.poll() is None:
            portal.mutate(3)
            time.sleep(0.03)
    load(portal, tmp_path)
    assert differences(portal, tmp_path)[:5] == []


def test_the_rerun_of_a_killed_load_goes_on_where_it_stopped(portal: Portal, tmp_path: Path):
    fresh = load(portal, tmp_path / "fresh")
    portal.reset_stats()
    with loading(portal, tmp_path / "killed"):
        end = time.monotonic() + 60
        while portal.stats()["http_requests"] < fresh * 2 // 3 and time.monotonic() < end:
            time.sleep(0.02)
    # a third was left; on a busy machine some of what had been read was not yet in
    assert load(portal, tmp_path / "killed") < fresh * 5 // 6
    assert differences(portal, tmp_path / "killed")[:5] == []
