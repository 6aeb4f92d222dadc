"""Bodies of the calls, written with whatever policies and checksums the cabinet has now.

Field by field they are what the cabinet's own page sends; docs/mts_vats.md says which are proven.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from resources.mts_vats import models
from resources.mts_vats.answers import Device
from resources.mts_vats.discovery import BROWSER_ENDPOINT, DEVICE_ENDPOINT, DISPATCHER_ENDPOINT, Protocol
from resources.mts_vats.gwt_rpc import ARRAY_LIST, BOOLEAN, INTEGER, LONG, JavaObject
from resources.mts_vats.gwt_writer import encode_request

Filter = bool | None
FILTERS: tuple[Filter, ...] = (None, False, None, False)  # of the request that is known to work
ScopeSlot = Literal[5, 6]


def list_page(
    protocol: Protocol,
    base: str,
    scope: int,
    page: int,
    size: int,
    slot: ScopeSlot = 5,
    filters: Sequence[Filter] = FILTERS,
) -> bytes:
    """`list` of a page, from 0. `filters` are the fields f0 to f3: null, false or true each."""
    choices = {value: JavaObject(BOOLEAN, value) for value in (False, True)}
    chosen = [None if f is None else choices[f] for f in filters]
    contract = JavaObject(LONG, scope)
    migration = JavaObject(protocol.signature(models.MIGRATION_STATE), 0)
    scopes = (contract, None, None) if slot == 5 else (None, contract, None)
    fields = [*chosen, migration, *scopes, JavaObject(LONG, page), JavaObject(LONG, size), None]
    request = JavaObject(protocol.signature(models.LIST_REQUEST), fields)
    return _call(protocol, base, BROWSER_ENDPOINT, "list", [(request.signature, request)])


def get_form(protocol: Protocol, base: str, abonent: int, ordinal: int) -> bytes:
    """`getForm` of an abonent; `ordinal` is the form's constant of the DISPATCHER enum."""
    dispatcher = JavaObject(protocol.signature(models.DISPATCHER), ordinal)
    parameters = [(LONG, JavaObject(LONG, abonent)), (dispatcher.signature, dispatcher)]
    return _call(protocol, base, DISPATCHER_ENDPOINT, "getForm", parameters)


def add_device(protocol: Protocol, base: str, template: Device, ordinal: int) -> bytes:
    """`updateForm` with one device, made from the form's own template and switched on."""
    abonent = JavaObject(LONG, template.abonent)
    fields = [
        *(abonent, True, JavaObject(LONG, template.sip_obj), JavaObject(LONG, template.contract)),
        *(template.line, None, None, template.name or "SIP-phone", None, None, None),
        *(JavaObject(INTEGER, 1), True, template.type or "Generic SIP Phone", None),
    ]
    record = JavaObject(protocol.signature(models.DEVICE_RECORD), fields)
    return _update_form(protocol, base, [record], abonent, ordinal)


def remove_device(protocol: Protocol, base: str, abonent: int, ordinal: int) -> bytes:
    """`updateForm` with an empty list of devices."""
    return _update_form(protocol, base, [], JavaObject(LONG, abonent), ordinal)


def switch_device(protocol: Protocol, base: str, id_: int, enabled: bool, method: str) -> bytes:
    """The device service's switch. Its method, and whether `id_` is the abonent's, are guesses."""
    parameters = [(LONG, JavaObject(LONG, id_)), (BOOLEAN, JavaObject(BOOLEAN, enabled))]
    return _call(protocol, base, DEVICE_ENDPOINT, method, parameters)


def _update_form(
    protocol: Protocol, base: str, records: list[JavaObject], abonent: JavaObject, ordinal: int
) -> bytes:
    lists = [JavaObject(ARRAY_LIST, records), JavaObject(ARRAY_LIST, [])]
    form = JavaObject(protocol.signature(models.DEVICE_FORM), [*lists, *[None] * 14, abonent])
    dispatcher = JavaObject(protocol.signature(models.DISPATCHER), ordinal)
    declared = protocol.signature(models.RECORD)
    parameters = [(declared, form), (dispatcher.signature, dispatcher)]
    return _call(protocol, base, DISPATCHER_ENDPOINT, "updateForm", parameters)


_INTERFACES = {DISPATCHER_ENDPOINT: "DispatcherService"}


def _call(
    protocol: Protocol, base: str, endpoint: str, method: str, parameters: list[tuple[str, Any]]
) -> bytes:
    interface = models.SERVICES + _INTERFACES.get(endpoint, endpoint)
    policy = protocol.policies.get(endpoint, "")
    return encode_request(base, policy, interface, method, parameters, models.REQUESTS)
