"""The job that changes devices: dry unless told otherwise, audited, and honest about what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from etl_assets.mts_vats.assets import build_assets
from etl_assets.mts_vats.devices import change_devices_job
from etl_assets.mts_vats.settings import mts_vats_resource
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from sandbox.mts_vats import CabinetConfig, Trunk, VirtualCabinet, serve

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Place:
    def __init__(self, cabinet: VirtualCabinet, warehouse: WarehouseResource) -> None:
        self.cabinet, self.warehouse = cabinet, warehouse
        self.instance = dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}})

    def load(self) -> None:
        resources = {"mts_vats": mts_vats_resource(), "warehouse": self.warehouse}
        assert dg.materialize(build_assets(), resources=resources, instance=self.instance).success

    def change(self, action: str, *phones: str, **config: Any) -> tuple[bool, str]:
        """(success, what the user reads if it failed)."""
        result = change_devices_job.execute_in_process(
            resources={"mts_vats": mts_vats_resource(), "warehouse": self.warehouse},
            run_config={
                "ops": {"change_devices": {"config": {"action": action, "phones": list(phones), **config}}},
                **QUIET,
            },
            instance=self.instance,
            raise_on_error=False,
        )
        failed = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
        said = failed[0].step_failure_data.user_failure_data if failed else None
        return result.success, (said.description if said else "") or ""

    def audit(self) -> list[tuple[Any, ...]]:
        return self.warehouse.query(
            "SELECT action, outcome, is_dry_run, device_before, enabled_before, device_after, enabled_after "
            "FROM bi.device_changes ORDER BY requested_at, phone"
        )

    def trunk(self, *, device: bool, enabled: bool) -> Trunk:
        wanted = (device, enabled)
        return next(
            t for t in self.cabinet.trunks.values() if t.form == 31 and (t.has_device, t.enabled) == wanted
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("devices")
    with pytest.MonkeyPatch.context() as patch, serve(CabinetConfig(trunks=40)) as cabinet:
        patch.setattr("resources.clickhouse.engine.LINGER_S", 600)
        patch.setenv("MTS_VATS_CABINETS", "")
        patch.setenv("MTS_VATS_ADDRESS", cabinet.base_url)
        patch.setenv("MTS_VATS_LOGIN", cabinet.config.login)
        patch.setenv("MTS_VATS_PASSWORD", cabinet.config.password)
        place = Place(cabinet, WarehouseResource(url=f"chdb://{folder}/warehouse"))
        place.load()
        yield place
        Embedded.at(f"{folder}/warehouse").close()


def test_nothing_is_sent_unless_it_is_asked_for_and_allowed(place: Place, monkeypatch: pytest.MonkeyPatch):
    trunk = place.trunk(device=True, enabled=True)
    assert place.change("remove", trunk.phone) == (True, "")
    assert place.audit()[-1] == ("remove", "planned", 1, 1, 1, None, None)
    success, said = place.change("remove", trunk.phone, dry_run=False)
    assert (success, "MTS_VATS_ALLOW_WRITES=true" in said) == (False, True)
    assert place.cabinet.stats.writes == []
    monkeypatch.setenv("MTS_VATS_ALLOW_WRITES", "true")
    assert place.change("remove", f"+7 ({trunk.phone[:3]}) {trunk.phone[3:]}", dry_run=False)[0]
    assert place.audit()[-1] == ("remove", "done", 0, 1, 1, 0, 0)
    assert not trunk.has_device


def test_a_switch_is_off_until_it_is_enabled(place: Place, monkeypatch: pytest.MonkeyPatch):
    trunk = place.trunk(device=True, enabled=False)
    monkeypatch.setenv("MTS_VATS_ALLOW_WRITES", "true")
    success, said = place.change("on", trunk.phone, dry_run=False)
    assert (success, "MTS_VATS_SWITCH_ENABLED" in said) == (False, True)
    monkeypatch.setenv("MTS_VATS_SWITCH_ENABLED", "true")
    assert place.change("on", trunk.phone, dry_run=False) == (True, "")
    assert place.audit()[-1] == ("on", "done", 0, 1, 0, 1, 1)
    monkeypatch.setenv("MTS_VATS_SWITCH_METHOD", "noSuchMethod")
    success, said = place.change("off", trunk.phone, dry_run=False)
    assert (success, trunk.enabled) == (False, True)
    assert "the cabinet rejects the request" in said


def test_one_phone_that_cannot_be_changed_stops_none_of_the_others(
    place: Place, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MTS_VATS_ALLOW_WRITES", "true")
    good, bad = [t for t in place.cabinet.trunks.values() if t.form == 31 and t.has_device][:2]
    bad.broken = "cut"
    success, said = place.change("remove", bad.phone, good.phone, dry_run=False)
    assert not success
    assert "1 of 2 devices" in said
    assert bad.phone in said
    assert not good.has_device
    bad.broken = None


@pytest.mark.parametrize(
    ("phones", "config", "said"),
    [
        (["79990009999"], {}, "Load mts_vats/trunks first"),
        (["12"], {}, "No phone of ten digits"),
        ([], {}, "Give at least one phone"),
        (["79990000001"], {"cabinet": "another"}, "Give one of the cabinets: main"),
    ],
)
def test_a_wrong_request_is_named(place: Place, phones: list[str], config: dict[str, str], said: str):
    success, message = place.change("remove", *phones, **config)
    assert not success
    assert said in message
