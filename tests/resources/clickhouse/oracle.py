"""The rules of values in plain Python: what a JSON value must become in a column of each kind.

Written from the source's documentation, not from the SQL, so that the two can disagree.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any
from zoneinfo import ZoneInfo

ABSENT = object()
FALSE = object()
EMPTY = ("", "[]", "{}")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class MisfitError(Exception):
    """The value does not fit the kind."""


def text_of(value: Any) -> Any:
    """The text that a JSON value is read as: ABSENT, FALSE or a str."""
    if value is False:
        return FALSE
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return ABSENT if value in EMPTY else visible(value)
    text = json.dumps(value, separators=(",", ":"))
    return ABSENT if text in EMPTY else text


def visible(text: str) -> str:
    """A lone surrogate half stays as JSON spells it; two that make a pair are the character."""
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)


def elements_of(value: Any) -> list[Any]:
    """The elements of a multiple value, each as it would be alone."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = json.loads(value)
        except ValueError:
            return [value]
    if text_of(value) in (ABSENT, FALSE):
        return []
    if isinstance(value, dict):
        if not next(iter(value)).isdigit():
            return [value]
        return [value[k] for k in sorted(value, key=int)]
    return value if isinstance(value, list) else [value]


NUMBER = r"[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?"


def _number(text: str) -> Decimal:
    if not re.fullmatch(NUMBER, text, re.ASCII):
        raise MisfitError
    return Decimal(text)


def integer(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]+([.]0*)?", text):
        raise MisfitError
    value = int(text.split(".")[0])
    if not -(2**63) <= value < 2**63:
        raise MisfitError
    return value


def floating(largest: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(_number(text))
        if abs(value) > largest:
            raise MisfitError
        return value

    return read


def money(text: str) -> Decimal:
    """Two decimals, half away from zero; 16 digits before the point."""
    value = _number(text)
    if abs(value) >= Decimal(10) ** 20:
        raise MisfitError
    value = value.quantize(Decimal("0.01"), ROUND_HALF_UP)
    if abs(value) >= Decimal(10) ** 16:
        raise MisfitError
    return value


def yes_no(text: str) -> str:
    if text in ("Y", "y", "1", "true"):
        return "Y"
    if text in ("N", "n", "0", "false"):
        return "N"
    raise MisfitError


_CLOCK = r"(?P<h>\d\d):(?P<i>\d\d)(:(?P<s>\d\d)(\.(?P<f>\d+))?)?"
_SPELLINGS = (
    rf"(?P<y>\d{{4}})-(?P<m>\d\d)-(?P<d>\d\d)([T ]{_CLOCK}(?P<zone>Z|[+-]\d\d(:?\d\d)?)?)?",
    rf"(?P<d>\d\d)\.(?P<m>\d\d)\.(?P<y>\d{{4}})( {_CLOCK})?",
    rf"(?P<m>\d\d)/(?P<d>\d\d)/(?P<y>\d{{4}})( {_CLOCK})?",
    r"(?P<m>\d\d)/(?P<d>\d\d)/(?P<y>\d{4}) (?P<h>\d\d):(?P<i>\d\d)(:(?P<s>\d\d))? (?P<half>[ap]m)",
)
ZERO_DATES = ("0000-00-00", "00.00.0000", "00/00/0000", "-0001-11-30")


def _moment(text: str, zone: ZoneInfo) -> tuple[date, datetime] | None:
    if text.startswith(ZERO_DATES):
        return None
    found = next((m for s in _SPELLINGS if (m := re.fullmatch(s, text, re.ASCII | re.IGNORECASE))), None)
    if not found or not 1900 <= int(found["y"]) <= 2299 or "t" in text:
        raise MisfitError
    part = found.groupdict()
    hour = int(part["h"] or 0)
    if half := part.get("half"):
        if not 1 <= hour <= 12:
            raise MisfitError
        hour = hour % 12 + (12 if half.lower() == "pm" else 0)
    try:
        day = date(int(part["y"]), int(part["m"]), int(part["d"]))
        at = datetime(day.year, day.month, day.day, hour, int(part["i"] or 0), int(part["s"] or 0))
    except ValueError:
        raise MisfitError from None
    at += timedelta(milliseconds=int((part.get("f") or "0").ljust(3, "0")[:3]))
    return day, at.replace(tzinfo=_offset(part.get("zone"), zone))


def _offset(text: str | None, zone: ZoneInfo) -> Any:
    if not text:
        return zone
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)


def _milliseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)


def instant(text: str, zone: ZoneInfo) -> int | None:
    """Milliseconds since 1970; a time without an offset is in the source's zone."""
    found = _moment(text, zone)
    return _milliseconds(found[1]) if found else None


def calendar_date(text: str, zone: ZoneInfo) -> int | None:
    """Milliseconds of midnight UTC of the day that is written, whatever the offset."""
    found = _moment(text, zone)
    return _milliseconds(datetime.combine(found[0], datetime.min.time(), UTC)) if found else None


def unix_seconds(text: str) -> int:
    value = _number(text)
    if not Decimal(-2208988800) <= value < Decimal(10413792000):
        raise MisfitError
    return int((value * 1000).to_integral_value(ROUND_DOWN))


def amount(text: str) -> Decimal | None:
    number = text.rpartition("|")[0] if "|" in text else text
    return money(number) if number else None


def currency(text: str) -> str | None:
    found = re.search(r"[|]([A-Za-z]+)\Z", text)
    return found[1] if found else None


@dataclass(frozen=True)
class Json:
    """An object, compared by its content; its own keys come sorted."""

    value: Any


def composite(text: str) -> Any:
    """The object or list that a text spells, or None."""
    if text[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def as_json(text: str) -> Any:
    found = composite(text)
    return text if found is None else Json(visible_inside(found))


def visible_inside(value: Any) -> Any:
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, list):
        return [visible_inside(v) for v in value]
    if isinstance(value, dict):
        return {visible(k): visible_inside(v) for k, v in value.items()}
    return value


def key_of(*keys: str, loose: bool = False) -> Callable[[str], str | None]:
    def read(text: str) -> str | None:
        if not text.startswith("{"):
            return text
        found = composite(text) or {}
        for key in keys:
            if str(found.get(key)) not in ("None", "", "False"):
                return visible(str(found[key]))
        if loose:
            return None
        raise MisfitError

    return read


def column(kind: str, value: Any, zone: ZoneInfo) -> tuple[Any, bool]:
    """(what the column holds, whether the value is rejected), for a single value."""
    text = text_of(value)
    if text is FALSE:
        return ("N" if kind == "yes_no" else None), False
    if text is ABSENT:
        return None, False
    try:
        return _read(kind, text, zone), False
    except MisfitError:
        return None, True


def _read(kind: str, text: str, zone: ZoneInfo) -> Any:
    zoned = {"instant": instant, "calendar_date": calendar_date}
    if kind in zoned:
        return zoned[kind](text, zone)
    readers: dict[str, Callable[[str], Any]] = {
        "text": lambda t: t,
        "relation": lambda t: None if t == "0" else t,
        "integer": integer,
        "float32": floating(3.4028235e38),
        "float64": floating(1.7976931348623157e308),
        "decimal": money,
        "yes_no": yes_no,
        "unix_seconds": unix_seconds,
        "json": as_json,
        "file_id": key_of("id", "ID", "fileId"),
        "multifield_value": key_of("VALUE", "value", loose=True),
        "money_amount": amount,
        "money_currency": currency,
    }
    return readers[kind](text)


def array(kind: str, value: Any, zone: ZoneInfo) -> tuple[list[Any], bool]:
    """The same for a multiple value: all elements, and whether any of them is rejected."""
    answers = [column(kind, element, zone) for element in elements_of(value)]
    return [a for a, _ in answers], any(rejected for _, rejected in answers)
