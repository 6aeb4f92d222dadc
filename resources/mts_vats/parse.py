"""From a response of the cabinet to what it says: the list of abonents, the device form, an exception.

Two routes. `schema`: the typed reader, where the signatures of all classes are known; it must use up every
token. `scan`: patterns over the tokens (scan.py), for classes that have changed. Where both run they must
agree. A page of which a part cannot be explained is an error, never a shorter page.
"""

from __future__ import annotations

from typing import Any

from resources.mts_vats import models
from resources.mts_vats.answers import Abonent, AbonentPage, Device, DeviceForm, RemoteException
from resources.mts_vats.gwt_lexer import encode_long
from resources.mts_vats.gwt_rpc import (
    LONG,
    DecodeError,
    JavaObject,
    NotRpc,
    Reader,
    Response,
    UnknownClass,
    lex,
)
from resources.mts_vats.scan import LOGIN, login_digits, scan_form, scan_form_32, scan_list


def is_login_page(body: bytes | str) -> bool:
    """Whether an answer is the cabinet's login page: a session that has ended looks so."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    return "j_spring_security_check" in text


def parse_exception(response: Response) -> RemoteException:
    """Class and message of `//EX`: the type token, and the first string that a token after it refers to."""
    table, reading = response.table, response.tokens[::-1]
    known = [t for t in reading if isinstance(t, int) and 0 < t <= len(table)]
    if not reading or known[:1] != reading[:1]:
        return RemoteException(None, None)
    return RemoteException(table[known[0] - 1], table[known[1] - 1] if known[1:] else None)


_LIST = [models.signature(models.LIST_RESPONSE)]
_ROW = models.signature(models.LIST_ROW)
_FORM = models.signature(models.DEVICE_FORM)
_RECORD = models.signature(models.DEVICE_RECORD)
_FORMS = models.DEVICE_FORM + "/"  # whatever their checksum


# The list


def parse_list(response: Response) -> AbonentPage:
    """A page of abonents. Raises DecodeError for a page that cannot be explained completely."""
    page = _typed_list(response) or _scanned_list(response)
    if len({a.id for a in page.abonents}) < len(page.abonents):
        raise DecodeError("an id stands twice on one page of the list")
    if page.total is not None and page.total < len(page.abonents):
        raise DecodeError(f"the page has {len(page.abonents)} rows, the list {page.total}")
    return page


def _scanned_list(response: Response) -> AbonentPage:
    scanned = scan_list(response)
    abonents = [Abonent(id_, marks) for id_, marks in scanned.rows]
    return AbonentPage(abonents, scanned.total, "scan", scanned.confidence)


def _typed_list(response: Response) -> AbonentPage | None:
    """The page by the layouts; None where a class is not the one that the layout is of."""
    if response.table[:1] != _LIST:
        return None
    try:
        root = Reader(response, models.RESPONSES).read()
    except UnknownClass:
        return None
    if root is None or root.signature != _LIST[0]:
        raise DecodeError("the answer is no page of the list")
    total, rows = root.value
    if not isinstance(rows, JavaObject) or not rows.signature.startswith("java.util.ArrayList/"):
        raise DecodeError("the list's answer holds no list")
    return AbonentPage([_abonent(row) for row in rows.value], _long(total), "schema", 1.0)


def _abonent(row: Any) -> Abonent:
    if row is None or row.signature != _ROW:
        raise DecodeError("an element of the list is no row")
    name, phone, extension, w12, w11, w10, w9, w8, w7, w6, group, w4, w3, w2, id_ = row.value
    if id_ is None or id_.signature != LONG:
        raise DecodeError("a row of the list has no id")
    return Abonent(id_.value, (w2, w3, w4, w6, w7, w8, w9, w10, w11, w12), name, phone, extension, group)


# Forms


def parse_form(response: Response, asked: int | None = None) -> DeviceForm:
    """Form 31, of the abonent `asked` where that is known. Raises DecodeError also when it is another's."""
    if not response.table or not response.table[0].startswith(_FORMS):
        raise DecodeError("the answer is no device form")
    try:
        form = _typed_form(Reader(response, models.RESPONSES).read())
    except UnknownClass:
        form = scan_form(response)
    ids = {form.abonent, *(d.abonent for d in form.devices)} - {None}
    if form.template and form.template.abonent is not None:
        ids.add(form.template.abonent)
    if len(ids) > 1 or (asked is not None and ids != {asked}):
        raise DecodeError("the form is of another abonent than was asked for, or of several")
    return form


def parse_form_32(response: Response) -> DeviceForm:
    """Form 32, which some abonents have where they have no form 31."""
    return scan_form_32(response)


def _typed_form(root: Any) -> DeviceForm:
    if not isinstance(root, JavaObject) or root.signature != _FORM:
        raise DecodeError("the answer is no device form")
    fields = root.value
    installed = fields[models.FORM_DEVICES]
    if not isinstance(installed, JavaObject) or not isinstance(installed.value, list):
        raise DecodeError("the form holds no list of devices")
    template = fields[models.FORM_TEMPLATE]
    login, password = _credentials(fields)
    return DeviceForm(
        form=31,
        login=login,
        password=password,
        sip_phone=login_digits(login),
        route="schema",
        confidence=1.0,
        abonent=_long(fields[models.FORM_ID]),
        devices=tuple(_device(d) for d in installed.value),
        template=None if template is None else _device(template),
    )


def _credentials(fields: list[Any]) -> tuple[str | None, str | None]:
    for part in models.FORM_STRINGS:
        for at in part:
            if fields[at] and fields[at].startswith("sip_") and LOGIN.fullmatch(fields[at]):
                return fields[at], fields[at + 1] if at + 1 in part else None
    return None, None


def _device(record: Any) -> Device:
    if not isinstance(record, JavaObject) or record.signature != _RECORD:
        raise DecodeError("a device of the form is no device record")
    fields = record.value
    return Device(
        _long(fields[models.RECORD_ABONENT]),
        fields[models.RECORD_ENABLED],
        _long(fields[models.RECORD_OBJECT]),
        _long(fields[models.RECORD_CONTRACT]),
        fields[models.RECORD_LINE],
        fields[models.RECORD_NAME],
        fields[models.RECORD_TYPE],
    )


def _long(value: Any) -> int | None:
    if value is not None and (not isinstance(value, JavaObject) or value.signature != LONG):
        raise DecodeError("an id of the form is no Long")
    return None if value is None else value.value


# Any answer, as plain values


def parse_response(body: bytes | str) -> dict[str, Any]:
    """What a body says, as plain values: `kind` is abonent_list, abonent_device_form, abonent_form_32,
    exception or session_expired. Raises DecodeError for everything else.

    The result of a form holds the SIP password.
    """
    try:
        response = lex(body)
    except NotRpc:
        if is_login_page(body):
            return {"kind": "session_expired"}
        raise
    head = {"rpc_version": response.version, "flags": response.flags}
    if not response.ok:
        thrown = parse_exception(response)
        return {
            "kind": "exception",
            **head,
            "signature": thrown.signature,
            "class": thrown.name,
            "message": thrown.message,
        }
    if any(text.startswith(models.DEVICE_FORM) for text in response.table[:1]):
        return {"kind": "abonent_device_form", **head, **_form_values(parse_form(response))}
    if any(LOGIN.fullmatch(text) for text in response.table):
        form = parse_form_32(response)
        return {"kind": "abonent_form_32", **head, **_credential_values(form)}
    page = parse_list(response)
    rows = [
        {"link": encode_long(a.id), "id": a.id, "flags": a.flags, "state": a.state} for a in page.abonents
    ]
    return {"kind": "abonent_list", **head, "total": page.total, "abonents": rows}


def _credential_values(form: DeviceForm) -> dict[str, Any]:
    return {
        "sip_login": form.login,
        "sip_password": form.password,
        "sip_phone": form.sip_phone,
        "phone": form.phone,
    }


def _form_values(form: DeviceForm) -> dict[str, Any]:
    return {
        "abonent_link": _link(form.abonent),
        "abonent_id": form.abonent,
        **_credential_values(form),
        "line": form.line,
        "sip_device": form.has_device,
        "sip_enabled": form.enabled,
        "devices": [_device_values(d) for d in form.devices],
        "template": _device_values(form.template) if form.template else None,
    }


def _device_values(device: Device) -> dict[str, Any]:
    return {
        "abonent_link": _link(device.abonent),
        "enabled": device.enabled,
        "sip_obj_link": _link(device.sip_obj),
        "contract_link": _link(device.contract),
        "line": device.line,
        "name": device.name,
        "device_type": device.type,
    }


def _link(number: int | None) -> str | None:
    return None if number is None else encode_long(number)
