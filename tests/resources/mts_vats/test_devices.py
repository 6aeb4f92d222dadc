"""Changing devices: what is sent, what is read back, and what is never sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resources.errors import PermanentSourceError
from resources.mts_vats.client import MtsVatsClient
from resources.mts_vats.devices import Action, Change, DeviceState, Switch, change_device
from sandbox.mts_vats import Trunk, VirtualCabinet

Open = Callable[..., tuple[VirtualCabinet, MtsVatsClient]]
ON, OFF, NONE = DeviceState(True, True), DeviceState(True, False), DeviceState(False, False)


def a_trunk(cabinet: VirtualCabinet, state: DeviceState) -> Trunk:
    trunk = next(t for t in cabinet.trunks.values() if t.form == 31)
    trunk.has_device, trunk.enabled = state.device, state.enabled
    return trunk


def change(client: MtsVatsClient, trunk: Trunk, action: Action, **options: Any) -> Change:
    options = {"dry_run": False, **options}
    return change_device(client, trunk.id, f"7{trunk.phone}", action, Switch(enabled=True), **options)


@pytest.mark.parametrize(
    ("before", "action", "after", "method"),
    [
        (ON, "off", OFF, "setEnabled"),
        (OFF, "on", ON, "setEnabled"),
        (NONE, "add", ON, "updateForm"),
        (OFF, "remove", NONE, "updateForm"),
    ],
)
def test_a_change_is_made_and_read_back(
    open_cabinet: Open, before: DeviceState, action: Action, after: DeviceState, method: str
):
    cabinet, client = open_cabinet(trunks=20)
    trunk = a_trunk(cabinet, before)
    assert change(client, trunk, action, dry_run=True) == Change(
        "planned", before, detail=change(client, trunk, action, dry_run=True).detail
    )
    assert cabinet.stats.writes == []
    told: list[DeviceState] = []
    made = change(client, trunk, action, sending=told.append)
    assert (made.outcome, made.before, made.after) == ("done", before, after)
    assert told == [before]
    assert [(w["method"], w["id"]) for w in cabinet.stats.writes] == [(method, trunk.id)]
    assert change(client, trunk, action).outcome == "unchanged"
    assert len(cabinet.stats.writes) == 1


@pytest.mark.parametrize("mishap", [{"redeploy_at": 2}, {"expire_every": 2}])
def test_a_call_that_was_not_executed_is_sent_again(open_cabinet: Open, mishap: dict[str, int]):
    cabinet, client = open_cabinet(trunks=20, **mishap)
    trunk = a_trunk(cabinet, ON)
    assert change(client, trunk, "remove").outcome == "done"
    assert len(cabinet.stats.writes) == 1


def test_a_call_whose_outcome_is_not_known_is_not_sent_again(open_cabinet: Open):
    cabinet, client = open_cabinet(trunks=20)
    trunk = a_trunk(cabinet, ON)
    client.form(trunk.id)
    cabinet.config.fail_every = cabinet.stats.calls + 2  # the write: after the form is read
    made = change(client, trunk, "remove")
    assert made.outcome == "differs"
    assert "status 500" in made.detail
    assert cabinet.stats.writes == []
    assert cabinet.stats.methods.get("updateForm") is None


def test_a_refusal_is_told_with_what_the_cabinet_said(open_cabinet: Open, monkeypatch: pytest.MonkeyPatch):
    cabinet, client = open_cabinet(trunks=20)
    trunk = a_trunk(cabinet, NONE)
    monkeypatch.setattr(VirtualCabinet, "_form_number", lambda self, n: 31 if n == 31 else None)
    client.form(trunk.id)
    read, trunk.sip_obj = client.form, 5

    def stale(abonent: int) -> Any:
        form = read(abonent)
        trunk.sip_obj = 6
        return form

    client.form = stale  # type: ignore[method-assign]
    made = change(client, trunk, "add")
    assert made.outcome == "refused"
    assert "другому абоненту" in made.detail
    assert made.after == NONE


def test_what_is_not_enabled_or_makes_no_sense_is_not_sent(open_cabinet: Open):
    cabinet, client = open_cabinet(trunks=20)
    trunk = a_trunk(cabinet, ON)
    phone = f"7{trunk.phone}"
    planned = change_device(client, trunk.id, phone, "off", Switch(), dry_run=True)
    assert (planned.outcome, "MTS_VATS_SWITCH_ENABLED" in planned.detail) == ("planned", True)
    with pytest.raises(PermanentSourceError, match="MTS_VATS_SWITCH_ENABLED"):
        change_device(client, trunk.id, phone, "off", Switch(), dry_run=False)
    with pytest.raises(PermanentSourceError, match="the form is of another phone"):
        change_device(client, trunk.id, "79000000000", "remove", Switch(), dry_run=False)
    trunk.has_device = False
    with pytest.raises(PermanentSourceError, match="no device to switch"):
        change_device(client, trunk.id, phone, "off", Switch(enabled=True), dry_run=False)
    assert cabinet.stats.writes == []
