"""Reading answers without layouts: patterns over the tokens, for classes that nobody has described.

Each pattern is checked against what must hold around it. What cannot be explained is a DecodeError; what
could be checked, and was, is the confidence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from resources.mts_vats import models
from resources.mts_vats.answers import Device, DeviceForm
from resources.mts_vats.gwt_lexer import Response, Token, decode_long
from resources.mts_vats.gwt_rpc import SIGNATURE, DecodeError

LOGIN = re.compile(r"sip_(\d+)_\w+", re.ASCII)
LINE = re.compile(r"mobsip_\d{10}", re.ASCII)
SIP_HOST = "pov.vpbx.mts.ru"
MARKS = 12  # whole numbers of a row after its id that are understood: w1 to w12
_LIST = re.compile(r"java\.util\.\w*(?:List|Vector|Set)/\d+")
_LONG = "java.lang.Long/"
_BITS = (0, 1)


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a page as (id, w2, w3, w4, w6 … w12), in server order."""

    rows: list[tuple[int, tuple[int, ...]]]
    total: int | None
    confidence: float


def scan_list(response: Response) -> Rows:
    """Rows by their tail `'id',2,0,0,…`, whose number must be the size of the list that holds them.

    Raises DecodeError when it is not, or when a quoted token belongs to no row.
    """
    tokens, table = response.tokens, response.table
    long = _index(table, _LONG)
    at = [i for i, t in enumerate(tokens) if t.__class__ is str]
    total, at = _total(tokens, at, long)
    hits = [i for i in at if _is_row(tokens, i, long)]
    if not hits:
        _require_empty(tokens, at, table)
        return Rows([], total, 1.0 if total is not None else 0.5)
    type_, sure = _row_type(tokens, hits, table)
    _require_size(tokens, hits, type_, table)
    rows = [(decode_long(tokens[i]), _marks(tokens, i)) for i in reversed(hits)]  # type: ignore[arg-type]
    checks = (True, sure, total is not None, len(at) == len(hits))
    return Rows(rows, total, sum(checks) / len(checks))


def _marks(tokens: Sequence[Token], i: int) -> tuple[int, ...]:
    """w2, w3, w4, w6 … w12 of the row whose id stands at `i`."""
    return (*tokens[i + 2 : i + 5], *tokens[i + 6 : i + 1 + MARKS])  # type: ignore[return-value]


def _index(table: Sequence[str], start: str) -> int:
    """The 1-based index of the class that begins so; 0 if there is none."""
    return next((i for i, text in enumerate(table, 1) if text.startswith(start)), 0)


def _total(tokens: Sequence[Token], at: list[int], long: int) -> tuple[int | None, list[int]]:
    """The Long that follows the root's type, and the quoted tokens without it."""
    if len(tokens) >= 3 and tokens[-2] == long and isinstance(tokens[-3], str):
        return decode_long(tokens[-3]), [i for i in at if i != len(tokens) - 3]
    return None, at


def _is_row(tokens: Sequence[Token], i: int, long: int) -> bool:
    """Whether the twelve numbers of a row follow: w1 to w12 of docs/mts_vats.md."""
    w: Sequence[Any] = tokens[i + 1 : i + 1 + MARKS]
    if len(w) < MARKS or w[0] != long or w[1] or w[2] or set(map(type, w)) != {int}:
        return False
    return w[3] in _BITS and w[5] in _BITS and w[6] in _BITS and w[8] in _BITS and min(w) >= 0


def _is_type(token: Token, table: Sequence[str]) -> bool:
    return isinstance(token, int) and 0 < token <= len(table) and bool(SIGNATURE.fullmatch(table[token - 1]))


def _row_type(tokens: Sequence[Token], hits: list[int], table: Sequence[str]) -> tuple[Token, bool]:
    """The type that every row begins with, and whether there was a second row to compare it with.

    On the wire a row ends where the next id begins.
    """
    starts = {tokens[i - 1] for i in hits[1:]}
    if not starts:  # a single row: its list's size is 1, and before that stands its type
        found = [
            tokens[e - 1]
            for e in range(hits[0] + MARKS + 2, len(tokens) - 1)
            if tokens[e] == 1 and _is_list(tokens[e + 1], table) and _is_type(tokens[e - 1], table)
        ]
        if len(set(found)) == 1:
            return found[0], False
    elif len(starts) == 1 and _is_type(found := starts.pop(), table):
        return found, True
    raise DecodeError("the rows of the list do not begin with one and the same type")


def _is_list(token: Token, table: Sequence[str]) -> bool:
    return _is_type(token, table) and bool(_LIST.fullmatch(table[int(token) - 1]))


def _require_size(tokens: Sequence[Token], hits: list[int], type_: Token, table: Sequence[str]) -> None:
    """The list says how many rows it has: fewer were understood, and the page is an error."""
    sizes = [
        tokens[e]
        for e in range(hits[-1] + MARKS + 1, len(tokens) - 1)  # the list begins before its first row
        if tokens[e - 1] == type_ and _is_list(tokens[e + 1], table) and tokens[e].__class__ is int
    ]
    if len(hits) not in sizes:
        said = ", ".join(map(str, sizes[:5])) or "none"
        raise DecodeError(f"{len(hits)} rows were understood, and no list has that size; sizes seen: {said}")


def _require_empty(tokens: Sequence[Token], at: list[int], table: Sequence[str]) -> None:
    """No row was found: the answer must hold an empty list, and nothing that looks like an id."""
    empty = any(t == 0 and _is_list(tokens[i + 1], table) for i, t in enumerate(tokens[:-1]))
    if at or not empty:
        raise DecodeError(
            f"no row was understood, and {len(at)} quoted tokens are left: the rows have changed"
        )


# Forms


def scan_form(response: Response) -> DeviceForm:
    """Form 31 by the beginning of its records: type, Long, id, 0 or 1, Long, id, Long, id.

    Raises DecodeError when the records found are not as many as the list of devices says.
    """
    reading, table = response.tokens[::-1], response.table
    if not (len(reading) > 2 and _is_list(reading[1], table) and isinstance(reading[2], int)):
        raise DecodeError("the form does not begin with its list of devices")
    records = _records(reading, table)
    count = reading[2]
    if len(records) not in (count, count + 1):
        raise DecodeError(f"{len(records)} records were understood, the form has {count} devices")
    devices, template = records[:count], (records[count:] or [None])[0]
    login, password = credentials(reading, table)
    abonent = next((r.abonent for r in records if r.abonent is not None), None)
    checks = (bool(records), login is not None, template is not None, abonent is not None)
    return DeviceForm(
        form=31,
        login=login,
        password=password,
        sip_phone=login_digits(login),
        route="scan",
        confidence=sum(checks) / len(checks),
        abonent=abonent,
        devices=tuple(devices),
        template=template,
    )


def _records(reading: Sequence[Token], table: Sequence[str]) -> list[Device]:
    record, long = _index(table, models.DEVICE_RECORD + "/"), _index(table, _LONG)
    found: list[Device] = []
    seen: dict[int, int] = {}
    # The first record's ids are objects 4 to 6, after the form, the list and the record: `-4` is the abonent.
    number = 4 if reading[2] else 5
    for at, token in enumerate(reading):
        if token != record or not record:
            continue
        ids: list[int | None] = []
        cursor, enabled = at + 1, None
        for slot in range(3):
            id_, width = _id(reading, cursor, long, seen)
            if not width:
                break
            if width == 2 and id_ is not None:
                seen.setdefault(number + slot, id_)
            ids.append(id_)
            cursor += width
            if slot == 0:
                enabled, cursor = _at(reading, cursor), cursor + 1
                if enabled not in (0, 1):
                    break
        if len(ids) == 3 and enabled in (0, 1):
            found.append(Device(ids[0], enabled == 1, ids[1], ids[2], _line(_at(reading, cursor), table)))
    return found


def _at(reading: Sequence[Token], at: int) -> Token | None:
    return reading[at] if at < len(reading) else None


def _id(reading: Sequence[Token], at: int, long: int, seen: dict[int, int]) -> tuple[int | None, int]:
    """(id, tokens it takes): a Long in full, or a reference to one; 0 tokens where there is neither."""
    token, value = _at(reading, at), _at(reading, at + 1)
    if token == long and isinstance(value, str):
        return decode_long(value), 2
    if isinstance(token, int) and token < 0:
        return seen.get(-token), 1
    return None, 0


def _line(token: Token | None, table: Sequence[str]) -> str | None:
    text = _text(token, table)
    if text is not None and not LINE.fullmatch(text):
        raise DecodeError("a device record has something else where its line was")
    return text


def _text(token: Token | None, table: Sequence[str]) -> str | None:
    if token == 0:
        return None
    if not isinstance(token, int) or not 0 < token <= len(table):
        raise DecodeError("a token is no index of the string table where a string must be")
    return table[token - 1]


def credentials(reading: Sequence[Token], table: Sequence[str]) -> tuple[str | None, str | None]:
    """SIP login and password: neighbours in the table that are neighbours among the tokens too.

    Raises DecodeError where a login is followed by something else: a password that is also another string.
    """
    at = next((i for i, text in enumerate(table, 1) if LOGIN.fullmatch(text)), 0)
    if not at:
        return None, None
    after = {reading[i + 1] for i, token in enumerate(reading[:-1]) if token == at}
    if at + 1 in after and at < len(table):
        return table[at - 1], table[at]
    raise DecodeError("the SIP login is not followed by a string of its own: its password is not certain")


def login_digits(login: str | None) -> str | None:
    """The digits between the underscores of a SIP login."""
    found = LOGIN.fullmatch(login or "")
    return found[1] if found else None


def scan_form_32(response: Response) -> DeviceForm:
    """Form 32, whose class is not public: host, transport and password are neighbours, and the phone follows
    the class of the blocking code."""
    reading, table = response.tokens[::-1], response.table
    host = next((i for i, text in enumerate(table, 1) if text == SIP_HOST), 0)
    login = next((text for text in table if LOGIN.fullmatch(text)), None)
    blocked = next((i for i, text in enumerate(table) if re.search(r"BLOCKED_CODE/\d+$", text)), None)
    digits = table[blocked + 1] if blocked is not None and blocked + 1 < len(table) else None
    password = None
    if login is not None:
        if not host or not _neighbours(reading, (host, host + 1, host + 2)) or host + 2 > len(table):
            raise DecodeError("form 32: host, transport and password do not follow each other")
        password = table[host + 1]
    if digits is not None and not re.fullmatch(r"\d+", digits, re.ASCII):
        digits = None
    sip_phone = login_digits(login)
    checks = (login is not None, password is not None, digits is not None and digits == sip_phone)
    confidence = sum(checks) / len(checks)
    return DeviceForm(32, login, password, sip_phone or digits, "scan", confidence, own_phone=digits)


def _neighbours(reading: Sequence[Token], wanted: tuple[int, ...]) -> bool:
    width = len(wanted)
    return any(tuple(reading[i : i + width]) == wanted for i in range(len(reading) - width + 1))
