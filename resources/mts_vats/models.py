"""Classes of the cabinet: their signatures, layouts, and what is known of their fields.

Grades as in docs/mts_vats.md. Proven on the wire: the device form and its record. The layout of the list's
row is not public; the one here is the shape that public samples agree with, and it is used for exactly its
signature. Every other row is read by scanning.
"""

from __future__ import annotations

from collections.abc import Mapping

from resources.mts_vats.gwt_rpc import BOOLEAN, INTEGER, LONG, Layout

SERVICES = "ru.cti.vpbx.shared.services."
MODELS = "ru.cti.vpbx.shared.models."
DISPATCHER = SERVICES + "DispatcherService$DISPATCHER"
MIGRATION_STATE = "ru.cti.vpbx.shared.enums.MIGRATION_STATE_TYPE"
LIST_REQUEST = MODELS + "browser.AbonentBrowserRequestGWTModel"
LIST_RESPONSE = MODELS + "browser.AbonentBrowserResponseGWTModel"
LIST_ROW = MODELS + "browser.AbonentBrowserRecordGWTModel"
DEVICE_FORM = MODELS + "form.device.AbonentDeviceFormGWTModel"
DEVICE_RECORD = MODELS + "form.device.AbonentDeviceRecordGWTModel"
RECORD = MODELS + "codebase.RecordGWTModel"
INCOMPATIBLE = "com.google.gwt.user.client.rpc.IncompatibleRemoteServiceException"

# Checksums of 2021, used for what discovery does not find.
PINNED: Mapping[str, int] = {
    DISPATCHER: 4095484021,
    MIGRATION_STATE: 1556569729,
    LIST_REQUEST: 3482149540,
    LIST_RESPONSE: 1187230456,
    LIST_ROW: 2954417083,
    DEVICE_FORM: 591779426,
    DEVICE_RECORD: 1158222701,
    RECORD: 4241958543,
}


def signature(name: str, checksums: Mapping[str, int] = PINNED) -> str:
    """`Class/CRC` as requests name it."""
    return f"{name}/{checksums.get(name, PINNED[name])}"


# Fields of the form: installed devices, an empty list, six strings, the template of a new device, the
# contract, five strings, null, and the abonent's id of the superclass.
FORM_DEVICES, FORM_TEMPLATE, FORM_ID = 0, 8, 16
FORM_STRINGS = (range(2, 8), range(10, 15))  # in each, a SIP login stands directly before its password
_FORM: Layout = (
    *("obj", "obj"),
    *("str", "str", "str", "str", "str", "str"),
    *("obj", "obj"),
    *("str", "str", "str", "str", "str"),
    *("obj", "obj"),
)
# Of the record: abonent, enabled, SIP object, contract, line, …, name, …, type.
RECORD_ABONENT, RECORD_ENABLED, RECORD_OBJECT, RECORD_CONTRACT, RECORD_LINE = range(5)
RECORD_NAME, RECORD_TYPE = 7, 13
_DEVICE: Layout = (
    *("obj", "bool", "obj", "obj"),
    *("str", "str", "str", "str", "str", "str", "str"),
    *("obj", "bool", "str", "obj"),
)
# Of the row: name, phone, extension, w12 to w6, group, w4, w3, w2, id.
_ROW: Layout = (
    *("str", "str", "str"),
    *("token", "token", "token", "token", "token", "token", "token"),
    *("str", "token", "token", "token", "obj"),
)
_REQUEST: Layout = ("obj",) * 11

RESPONSES: Mapping[str, Layout] = {
    signature(DEVICE_FORM): _FORM,
    signature(DEVICE_RECORD): _DEVICE,
    signature(LIST_RESPONSE): ("obj", "obj"),
    signature(LIST_ROW): _ROW,
}
# Requests are written with whatever checksums the cabinet has now.
REQUESTS: Mapping[str, Layout] = {
    DEVICE_FORM: _FORM,
    DEVICE_RECORD: _DEVICE,
    LIST_REQUEST: _REQUEST,
    MIGRATION_STATE: ("enum",),
    DISPATCHER: ("enum",),
}

__all__ = ["BOOLEAN", "INTEGER", "LONG", "PINNED", "REQUESTS", "RESPONSES", "signature"]
