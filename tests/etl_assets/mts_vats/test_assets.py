"""Trunks and their history through Dagster, from the emulated cabinet into the embedded engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_shared.serdes import serialize_value

from etl_assets.mts_vats.assets import STATES_KEY, TRUNKS_KEY, build_assets
from etl_assets.mts_vats.settings import mts_vats_resource
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from resources.mts_vats.vault import Vault, new_key
from sandbox.mts_vats import CabinetConfig, Trunk, VirtualCabinet, serve

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Place:
    """Cabinets, a warehouse and Dagster; `later` winds the cabinets' clocks."""

    cabinets: dict[str, VirtualCabinet]
    warehouse: WarehouseResource
    instance: dg.DagsterInstance
    patch: pytest.MonkeyPatch
    hours: int = 0
    logs: list[str] = field(default_factory=list)

    def run(self, *only: dg.AssetKey) -> dg.ExecuteInProcessResult:
        resources = {"mts_vats": mts_vats_resource(), "warehouse": self.warehouse}
        defs = dg.Definitions(assets=build_assets(), resources=resources)
        job = defs.resolve_implicit_global_asset_job_def()
        job = job.get_subset(asset_selection=set(only)) if only else job
        result = job.execute_in_process(instance=self.instance, run_config=QUIET, raise_on_error=False)
        run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        self.logs += [*map(serialize_value, self.instance.all_logs(result.run_id)), serialize_value(run)]
        return result

    def load(self) -> dg.ExecuteInProcessResult:
        result = self.run()
        assert result.success, failure(result)
        return result

    def later(self) -> None:
        self.hours += 1
        for cabinet in self.cabinets.values():
            cabinet.config.clock_offset_s = self.hours * 3600

    @property
    def main(self) -> VirtualCabinet:
        return self.cabinets["main"]

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self.warehouse.query(sql)

    def states(self, trunk: Trunk) -> list[tuple[Any, ...]]:
        """(state, is_enabled, is_on, changed, whether it holds now) of a trunk, from the first."""
        return self.rows(
            "SELECT state, is_enabled, is_on, arrayStringConcat(changed, ' '), valid_to IS NULL "
            f"FROM bi.trunk_states WHERE abonent_id = {trunk.id} ORDER BY valid_from"
        )


def failure(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            said = event.step_failure_data.user_failure_data
            error = event.step_failure_data.error
            return (said.description if said else None) or (error.to_string() if error else "")
    return ""


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {e.check_name: e.passed for e in result.get_asset_check_evaluations()}


@contextmanager
def place_of(folder: Path, **configs: CabinetConfig) -> Iterator[Place]:
    url = f"chdb://{folder}/warehouse"
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("resources.clickhouse.engine.LINGER_S", 600)
        patch.setattr("resources.mts_vats.session.RETRIES_S", (0.0,))
        patch.setattr(dg.RetryPolicy, "calculate_delay", lambda policy, attempt: 0)
        patch.setenv("CLICKHOUSE_URL", url)
        patch.setenv("SVOD_STATE_DIR", str(folder))
        cabinets = {name: stack.enter_context(serve(config)) for name, config in configs.items()}
        listed = {}
        for name, cabinet in cabinets.items():
            patch.setenv(f"PASSWORD_{name.upper()}", cabinet.config.password)
            about = {"address": cabinet.base_url, "login": cabinet.config.login}
            listed[name] = about | {"password_env": f"PASSWORD_{name.upper()}"}
        patch.setenv("MTS_VATS_CABINETS", json.dumps(listed))
        instance = stack.enter_context(
            dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}})
        )
        try:
            yield Place(cabinets, WarehouseResource(url=url), instance, patch)
        finally:
            Embedded.at(f"{folder}/warehouse").close()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """One cabinet of 25 trunks."""
    with place_of(tmp_path, main=CabinetConfig(trunks=25)) as place:
        yield place


def usual(place: Place) -> Trunk:
    """A trunk through which calls go."""
    return next(
        t
        for t in place.main.trunks.values()
        if t.form == 31 and t.has_device and t.enabled and t.flags == (1, 1, 0, 0)
    )


def test_every_trunk_is_in_the_view_as_the_cabinet_has_it(place: Place):
    result = place.load()
    found = place.rows(
        "SELECT abonent_id, phone, line, sip_login, has_device, is_enabled, is_marked_for_deletion, status "
        "FROM bi.trunks ORDER BY abonent_id"
    )
    expected = []
    for t in sorted(place.main.trunks.values(), key=lambda t: t.id):
        known, some = t.form == 31, t.form is not None
        line = f"mobsip_{t.phone}" if t.line and known else None
        device = (int(t.has_device), int(t.has_device and t.enabled)) if known else (None, None)
        login = f"sip_{t.phone}_1" if some else None
        head = (t.id, f"7{t.phone}", line, login, *device)
        expected.append((*head, int(t.flags == (0, 0, 1, 1)), "ok" if some else "no_form"))
    assert found == expected
    assert all(checks(result).values())
    assert place.rows("SELECT count() FROM bi.trunk_states WHERE valid_to IS NULL") == [(25,)]


def test_a_rerun_changes_nothing(place: Place):
    place.load()
    before = place.rows("SELECT * EXCEPT (dt_inserted, read_at) FROM bi.trunks ORDER BY abonent_id")
    history = place.rows("SELECT * FROM bi.trunk_states ORDER BY abonent_id")
    place.later()
    place.load()
    assert place.rows("SELECT * EXCEPT (dt_inserted, read_at) FROM bi.trunks ORDER BY abonent_id") == before
    assert place.rows("SELECT * FROM bi.trunk_states ORDER BY abonent_id") == history


def test_the_history_has_a_row_for_every_change_and_a_check_that_tells_what_went_off(place: Place):
    trunk = usual(place)
    place.load()
    for change in ({"enabled": False}, {}, {"enabled": True}, {"flags": (0, 0, 1, 1)}):
        for name, value in change.items():
            setattr(trunk, name, value)
        place.later()
        result = place.load()
        on_before = change in ({"enabled": False}, {"flags": (0, 0, 1, 1)})
        assert checks(result)["no_trunk_went_off"] is not on_before
    place.main.trunks.pop(trunk.id)
    place.later()
    assert checks(place.load())["no_trunk_went_off"]  # it was off before
    assert place.states(trunk) == [
        ("active", 1, 1, "", 0),
        ("active", 0, 0, "is_enabled", 0),
        ("active", 1, 1, "is_enabled", 0),
        ("disabled_marked", 1, 0, "state marks", 0),
        ("gone", 1, 0, "state", 1),
    ]
    assert place.rows(f"SELECT count() FROM bi.trunks WHERE abonent_id = {trunk.id}") == [(0,)]
    ends = place.rows(
        f"SELECT valid_from, valid_to FROM bi.trunk_states WHERE abonent_id = {trunk.id} ORDER BY valid_from"
    )
    assert [to for _, to in ends] == [*(since for since, _ in ends[1:]), None]


@pytest.mark.parametrize("only", [TRUNKS_KEY, STATES_KEY])
def test_one_of_the_tables_may_be_asked_for_and_both_are_told(place: Place, only: dg.AssetKey):
    assert place.run(only).success
    for key, table in ((TRUNKS_KEY, "trunks"), (STATES_KEY, "trunk_states")):
        event = place.instance.get_latest_materialization_event(key)
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.metadata["dagster/row_count"].value == 25
        assert place.rows(f"SELECT count() FROM bi.{table}") == [(25,)]


def test_a_trunk_that_comes_back_goes_on_where_it_was_gone(place: Place):
    trunk = usual(place)
    place.load()
    place.main.trunks.pop(trunk.id)
    place.later()
    assert not checks(place.load())["no_trunk_went_off"]
    place.main.trunks[trunk.id] = trunk
    place.later()
    place.load()
    assert [row[0] for row in place.states(trunk)] == ["active", "gone", "active"]
    assert place.rows(f"SELECT count() FROM bi.trunks WHERE abonent_id = {trunk.id}") == [(1,)]


def test_a_broken_form_fails_the_step_by_name_and_the_others_are_in(place: Place):
    trunk = usual(place)
    place.load()
    trunk.broken, other = "cut", [t for t in place.main.trunks.values() if t is not trunk][0]  # noqa: RUF015
    other.flags = (0, 0, 1, 1) if other.flags == (1, 1, 0, 0) else (1, 1, 0, 0)
    place.later()
    result = place.run()
    assert not result.success
    assert f"1 trunks could not be read: {trunk.id}" in failure(result)
    assert checks(result)["complete"] is False
    assert place.rows(f"SELECT status FROM bi.trunks WHERE abonent_id = {trunk.id}") == [("error",)]
    assert place.rows("SELECT count() FROM bi.trunks") == [(25,)]
    assert len(place.states(trunk)) == 1  # what is not known is no change
    assert len(place.states(other)) == 2


def test_a_cabinet_that_suddenly_lists_nothing_takes_nothing_away(place: Place):
    place.load()
    trunks, place.main.trunks = place.main.trunks, {}
    place.later()
    assert "lists no trunks, and had 25" in failure(place.run())
    assert place.rows("SELECT count() FROM bi.trunks") == [(25,)]
    place.patch.setenv("MTS_VATS_ALLOW_EMPTY", "true")
    place.load()
    assert place.rows("SELECT count() FROM bi.trunks") == [(0,)]
    place.main.trunks = trunks


def test_a_list_that_fails_takes_nothing_away(place: Place):
    place.load()
    place.main.config.fail_every = 1
    place.later()
    assert "the cabinet keeps failing" in failure(place.run())
    assert place.rows("SELECT count() FROM bi.trunks") == [(25,)]


def test_cabinets_do_not_touch_each_other(tmp_path: Path):
    two = {"north": CabinetConfig(trunks=6), "south": CabinetConfig(trunks=8, seed=2)}
    with place_of(tmp_path, **two) as place:
        place.load()
        south = place.cabinets["south"]
        south.config.password = "changed"
        place.cabinets["north"].trunks.popitem()
        place.later()
        result = place.run()
        assert "Cabinet south: the login was refused" in failure(result)
        counts = place.rows("SELECT cabinet, count() FROM bi.trunks GROUP BY cabinet ORDER BY cabinet")
        assert counts == [("north", 5), ("south", 8)]
        assert south.stats.failed_logins == 1


def test_passwords_are_stored_encrypted_when_asked_for_and_stand_nowhere_else(
    place: Place, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    place.load()
    assert place.rows("SELECT count() FROM mts_vats.trunks WHERE sip_password IS NOT NULL") == [(0,)]
    key = new_key()
    place.patch.setenv("MTS_VATS_READ_PASSWORDS", "true")
    place.patch.setenv("MTS_VATS_ENCRYPTION_KEY", key)
    trunk = usual(place)
    place.later()
    place.load()
    assert len(place.states(trunk)) == 1  # read for the first time is no change
    stored = dict(
        place.rows("SELECT abonent_id, sip_password FROM mts_vats.trunks FINAL WHERE form IN (31, 32)")
    )
    assert {i: Vault(key).decrypt(text) for i, text in stored.items()} == {
        t.id: t.password for t in place.main.trunks.values() if t.form
    }
    trunk.password = 'Another!1"x'
    place.later()
    place.load()
    assert [row[3] for row in place.states(trunk)] == ["", "password_fingerprint"]
    victim = [t for t in place.main.trunks.values() if t.form == 31][1]
    victim.broken = "stranger"
    place.later()
    place.run()
    columns = {name for (name,) in place.rows("SELECT name FROM system.columns WHERE database = 'bi'")}
    assert "sip_password" not in columns
    plain = place.rows("SELECT formatRow('JSONEachRow', *) FROM mts_vats.trunks")
    plain += place.rows("SELECT formatRow('JSONEachRow', *) FROM mts_vats.trunk_states")
    plain += place.rows("SELECT formatRow('JSONEachRow', *) FROM svod.rejected_rows")
    output = capfd.readouterr()
    said = "\n".join([*place.logs, caplog.text, output.out, output.err, *(row[0] for row in plain)])
    for secret in (key, place.main.config.password, *(t.password for t in place.main.trunks.values())):
        assert secret not in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"MTS_VATS_CABINETS": ""}, "MTS_VATS_LOGIN is not set"),
        ({"PASSWORD_MAIN": ""}, "PASSWORD_MAIN is not set"),
        ({"MTS_VATS_CABINETS": '{"main": {"password": "x"}}'}, "in password_env"),
        ({"MTS_VATS_CABINETS": "[]"}, "MTS_VATS_CABINETS must be a JSON object"),
        ({"MTS_VATS_READ_PASSWORDS": "true"}, "MTS_VATS_ENCRYPTION_KEY must be a Fernet key"),
        ({"MTS_VATS_FILTERS": "[1]"}, "MTS_VATS_FILTERS must be a list of four"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(place: Place, settings: dict[str, str], said: str):
    for name, value in settings.items():
        place.patch.setenv(name, value)
    message = failure(place.run())
    assert said in message
    assert "\n" not in message
