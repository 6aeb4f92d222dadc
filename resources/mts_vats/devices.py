"""Changing a SIP device: one abonent at a time, the form read before and after.

Adding and removing are calls that have been seen on the wire. Switching is reconstructed: the name of its
method, and whose id it takes, are guesses, so it is off until it is enabled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from resources.errors import PermanentSourceError, TransientSourceError
from resources.mts_vats import payloads
from resources.mts_vats.answers import Device, DeviceForm
from resources.mts_vats.client import MtsVatsClient
from resources.mts_vats.discovery import DEVICE_ENDPOINT, DISPATCHER_ENDPOINT, Protocol
from resources.mts_vats.session import BadAnswer, RemoteError

Action = Literal["on", "off", "add", "remove"]
ACTIONS: tuple[Action, ...] = get_args(Action)
Outcome = Literal["planned", "unchanged", "done", "refused", "differs", "unknown"]
GUESSED_METHOD = "setEnabled"
NOT_ENABLED = (
    "switching is a call that nobody has seen on the wire: read docs/mts_vats.md, then set "
    "MTS_VATS_SWITCH_ENABLED=true"
)


@dataclass(frozen=True, slots=True)
class Switch:
    """How devices are switched; the guesses. An empty method is the one that the cabinet's page names."""

    enabled: bool = False
    method: str = ""
    id: Literal["abonent", "sip_obj"] = "abonent"


@dataclass(frozen=True, slots=True)
class DeviceState:
    """What of a form a change is about."""

    device: bool
    enabled: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one abonent. `after` is as read back: None where nothing was sent, or it cannot be."""

    outcome: Outcome
    before: DeviceState
    after: DeviceState | None = None
    detail: str = ""


def change_device(
    client: MtsVatsClient,
    abonent: int,
    phone: str,
    action: Action,
    switch: Switch,
    *,
    dry_run: bool,
    sending: Callable[[DeviceState], None] = lambda before: None,
) -> Change:
    """Bring one abonent's device into the wanted state, unless it is in it.

    `sending` is called before anything is sent. Nothing is sent twice: when no answer comes, the form tells
    what became of the call. Raises PermanentSourceError where the change makes no sense or is not enabled.
    """
    form = client.form(abonent)
    _require(client, form, phone, action)
    before, wanted = _state(form), _wanted(_state(form), action)
    if before == wanted:
        return Change("unchanged", before)
    guess = "" if action not in ("on", "off") or switch.enabled else NOT_ENABLED
    if dry_run:
        return Change("planned", before, detail=f"would become {_said(wanted)}{guess and f'; {guess}'}")
    if guess:
        raise PermanentSourceError(f"Cabinet {client.cabinet.name}, {phone}: {guess}.")
    sending(before)
    try:
        _send(client, abonent, form, action, switch)
        detail = ""
    except RemoteError as refusal:
        return Change("refused", before, _read_back(client, abonent), refusal.description or "")
    except (TransientSourceError, BadAnswer) as fault:  # it may have been executed
        detail = fault.description or ""
    after = _read_back(client, abonent)
    if after is None:
        return Change("unknown", before, None, f"sent, and the form cannot be read back. {detail}".strip())
    if after != wanted:
        return Change(
            "differs", before, after, f"it is {_said(after)} and not {_said(wanted)}. {detail}".strip()
        )
    return Change("done", before, after, detail)


def _state(form: DeviceForm) -> DeviceState:
    return DeviceState(bool(form.has_device), bool(form.enabled))


def _said(state: DeviceState) -> str:
    return "no device" if not state.device else "a device, on" if state.enabled else "a device, off"


def _wanted(before: DeviceState, action: Action) -> DeviceState:
    if action == "remove":
        return DeviceState(False, False)
    if action == "add":
        return before if before.device else DeviceState(True, True)
    return DeviceState(True, action == "on")


def _require(client: MtsVatsClient, form: DeviceForm, phone: str, action: Action) -> None:
    where = f"Cabinet {client.cabinet.name}, {phone}"
    if form.form != 31:
        raise PermanentSourceError(f"{where}: the abonent has no form of devices.")
    if form.phone != phone:
        raise PermanentSourceError(f"{where}: the form is of another phone. Load mts_vats/trunks again.")
    if form.route != "schema":
        raise PermanentSourceError(f"{where}: the form's classes have changed; nothing is written to it.")
    if action == "add" and form.template is None:
        raise PermanentSourceError(f"{where}: the form has no template of a device.")
    if action in ("on", "off") and not form.devices:
        raise PermanentSourceError(f"{where}: there is no device to switch; add one.")


def _send(client: MtsVatsClient, abonent: int, form: DeviceForm, action: Action, switch: Switch) -> None:
    session, endpoint = client.session, DISPATCHER_ENDPOINT
    template = form.template or Device(abonent, True, None, None, None)

    def body(protocol: Protocol) -> bytes:
        if not protocol.ordinals_known:
            raise PermanentSourceError(
                f"Cabinet {client.cabinet.name}: it was redeployed just now; try again."
            )
        if action == "add":
            return payloads.add_device(protocol, session.base, template, protocol.ordinals[0])
        if action == "remove":
            return payloads.remove_device(protocol, session.base, abonent, protocol.ordinals[0])
        id_ = abonent if switch.id == "abonent" else form.devices[0].sip_obj
        if DEVICE_ENDPOINT not in protocol.policies or id_ is None:
            raise PermanentSourceError(
                f"Cabinet {client.cabinet.name}: its page does not show the service that switches devices."
            )
        return payloads.switch_device(protocol, session.base, id_, action == "on", _method(protocol, switch))

    if action in ("on", "off"):
        endpoint = DEVICE_ENDPOINT
    session.call(f"{action} of the device of {abonent}", endpoint, body, repeat=False)


def _method(protocol: Protocol, switch: Switch) -> str:
    named = protocol.device_methods
    return switch.method or (named[0] if len(named) == 1 else GUESSED_METHOD)


def _read_back(client: MtsVatsClient, abonent: int) -> DeviceState | None:
    try:
        return _state(client.form(abonent))
    except (PermanentSourceError, TransientSourceError):
        return None
