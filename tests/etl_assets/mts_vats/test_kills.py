"""A load that is killed -9, among the forms or between trunks and history, is put right by one rerun."""

from __future__ import annotations

import signal
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
from sandbox.mts_vats import CabinetConfig, VirtualCabinet, serve
from tests.etl_assets.mts_vats.trunk_loader import load

TRUNKS = 30
FORMS_READ = 8


@pytest.fixture
def cabinet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[VirtualCabinet]:
    config = CabinetConfig(trunks=TRUNKS, without_form=0, fallback_form=0, disabled=0)
    with serve(config) as cabinet:
        settings = {
            "MTS_VATS_ADDRESS": cabinet.base_url,
            "MTS_VATS_LOGIN": config.login,
            "MTS_VATS_PASSWORD": config.password,
            "CLICKHOUSE_URL": f"chdb://{tmp_path}/warehouse",
            "SVOD_STATE_DIR": str(tmp_path),
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield cabinet


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A load in a process of its own."""
    module = [sys.executable, "-m", "tests.etl_assets.mts_vats.trunk_loader", *arguments]
    return subprocess.Popen(module, cwd=PROJECT, stderr=subprocess.DEVNULL)


@contextmanager
def warehouse(folder: Path) -> Iterator[WarehouseResource]:
    """The engine in this process, for as long as no other one needs it."""
    try:
        yield WarehouseResource(url=f"chdb://{folder}/warehouse")
    finally:
        Embedded.at(f"{folder}/warehouse").close()


def kill_among_the_forms(cabinet: VirtualCabinet) -> None:
    process, before = start(), cabinet.stats.methods["getForm"]
    while cabinet.stats.methods["getForm"] < before + FORMS_READ:
        assert process.poll() is None, "the load ended by itself"
        time.sleep(0.005)
    process.kill()
    assert process.wait(10) == -signal.SIGKILL


def test_a_killed_load_is_put_right_and_no_change_is_lost_or_told_twice(
    cabinet: VirtualCabinet, tmp_path: Path
):
    with warehouse(tmp_path):
        assert load()
    trunks = list(cabinet.trunks.values())
    trunks[0].enabled = not trunks[0].enabled
    cabinet.config.latency_s = 0.02
    kill_among_the_forms(cabinet)
    cabinet.config.latency_s = 0
    trunks[1].enabled = not trunks[1].enabled
    assert start("before-history").wait(120) == -signal.SIGKILL
    with warehouse(tmp_path) as here:
        assert load()
        enabled = here.query("SELECT abonent_id, is_enabled FROM bi.trunks ORDER BY 1")
        history = here.query(
            "SELECT abonent_id, count(), uniqExact(valid_from), countIf(valid_to IS NULL), "
            "argMax(is_enabled, valid_from) FROM bi.trunk_states GROUP BY 1 ORDER BY 1"
        )
    assert enabled == sorted((t.id, int(t.has_device and t.enabled)) for t in trunks)
    told = {trunks[0].id: 2, trunks[1].id: 2}
    assert history == [(id_, told.get(id_, 1), told.get(id_, 1), 1, on) for id_, on in enabled]
