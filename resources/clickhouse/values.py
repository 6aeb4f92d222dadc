"""How a source's text becomes a typed value: one SQL expression a kind.

Every value of a record reaches ClickHouse as text (the inlet's columns are all `String`), so that typing and
normalising run vectorised in the engine instead of cell by cell in Python. In that text `''` stands for a value that is
absent, `null` or empty, and `FALSE_MARK` for a JSON `false`, which Bitrix24 sends both for "no" and for "empty" and which
must not be mistaken for the word "false".

A kind returns SQL that yields NULL for "no value" and for "does not fit"; `absent` tells the two apart, and what does not
fit goes to `svod.rejected_rows`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FALSE_MARK = "\x1dfalse"
_FALSE = r"'\x1dfalse'"


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to read text: the ClickHouse type that it gives and the SQL that reads it.

    `sql(value, zone)` takes a SQL expression of type String and the source's time zone. `loose` kinds accept every text,
    so nothing of them is ever rejected.
    """

    name: str
    type: str
    sql: Callable[[str, str], str]
    loose: bool = False


def absent(value: str) -> str:
    """SQL condition: the source says that there is no value. PHP writes an empty map, and any empty value, as [] or {}."""
    return f"{value} IN ('', {_FALSE}, '[]', '{{}}')"


def _text(v: str, zone: str) -> str:
    return f"if({absent(v)}, NULL, {v})"


def _integer(v: str, zone: str) -> str:
    # "1.0000" is how some numeric fields spell a whole number.
    return f"toInt64OrNull(if(position({v}, '.') > 0, replaceRegexpOne({v}, '[.]0*$', ''), {v}))"


def _yes_no(v: str, zone: str) -> str:
    return (
        f"multiIf({v} IN ('Y', 'y', '1', 'true'), 'Y', {v} IN ('N', 'n', '0', 'false', {_FALSE}), 'N', CAST(NULL, 'Nullable(String)'))"
    )


# A source that keeps dates in its site's locale sends these instead of ISO 8601; the order of trial is the spec's.
_RU = "'^[0-9]{2}[.][0-9]{2}[.][0-9]{4}'"
_US = "'^[0-9]{2}/[0-9]{2}/[0-9]{4}'"
_ISO = "'^(19|2[0-2])[0-9]{2}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}([.][0-9]+)?)?([+-][0-9]{2}:?[0-9]{2}|Z)?)?$'"


def _instant(v: str, zone: str) -> str:
    iso = f"parseDateTime64BestEffortOrNull(if(length({v}) = 10, concat({v}, ' 00:00:00'), {v}), 3, '{zone}')"
    ru = f"parseDateTimeOrNull(if(length({v}) = 10, concat({v}, ' 00:00:00'), {v}), '%d.%m.%Y %H:%i:%s', '{zone}')"
    us = f"parseDateTimeOrNull(if(length({v}) = 10, concat({v}, ' 12:00:00 am'), {v}), '%m/%d/%Y %h:%i:%s %p', '{zone}')"
    wide = "CAST({}, 'Nullable(DateTime64(3, \\'UTC\\'))')"
    return (
        f"multiIf(match({v}, {_ISO}), {wide.format(iso)}, match({v}, {_RU}), {wide.format(ru)}, "
        f"match({v}, {_US}), {wide.format(us)}, NULL)"
    )


def _calendar_date(v: str, zone: str) -> str:
    # Only the literal date is right: the same day comes as midnight UTC and as local midnight, so no zone may be applied.
    day = (
        f"multiIf(match({v}, '^(19|2[0-2])[0-9]{{2}}-[0-9]{{2}}-[0-9]{{2}}'), substring({v}, 1, 10), "
        f"match({v}, {_RU}), concat(substring({v}, 7, 4), '-', substring({v}, 4, 2), '-', substring({v}, 1, 2)), "
        f"match({v}, {_US}), concat(substring({v}, 7, 4), '-', substring({v}, 1, 2), '-', substring({v}, 4, 2)), '')"
    )
    return f"toDateTime64OrNull(concat({day}, ' 00:00:00'), 3, 'UTC')"


def _unix_seconds(v: str, zone: str) -> str:
    return f"CAST(toDecimal64OrNull({v}, 3), 'Nullable(DateTime64(3, \\'UTC\\'))')"


def _json(v: str, zone: str) -> str:
    # Sorted keys, so that two spellings of one object compare equal.
    pairs = f"arraySort(JSONExtractKeysAndValuesRaw({v}))"
    joined = f"arrayStringConcat(arrayMap(p -> concat(toJSONString(p.1), ':', p.2), {pairs}), ',')"
    return f"if(startsWith({v}, '{{') AND isValidJSON({v}), concat('{{', {joined}, '}}'), {_text(v, zone)})"


def _object_key(*keys: str) -> Callable[[str, str], str]:
    """Reads one key of an object (the first that is there); a bare scalar is taken as it is."""

    def sql(v: str, zone: str) -> str:
        found = [f"nullIf(JSONExtractString({v}, '{k}'), '')" for k in keys]
        found += [f"nullIf(toString(JSONExtractInt({v}, '{k}')), '0')" for k in keys]
        return f"if(startsWith({v}, '{{'), coalesce({', '.join(found)}), {_text(v, zone)})"

    return sql


def _money_part(pattern: str, read: str) -> Callable[[str, str], str]:
    def sql(v: str, zone: str) -> str:
        return read.format(f"nullIf(extract({v}, '{pattern}'), '')")

    return sql


TEXT = Kind("text", "String", _text, loose=True)
INTEGER = Kind("integer", "Int64", _integer)
FLOAT32 = Kind("float32", "Float32", lambda v, z: f"toFloat32OrNull({v})")
FLOAT64 = Kind("float64", "Float64", lambda v, z: f"toFloat64OrNull({v})")
DECIMAL2 = Kind("decimal", "Decimal(18, 2)", lambda v, z: f"toDecimal64OrNull({v}, 2)")
YES_NO = Kind("yes_no", "String", _yes_no)
INSTANT = Kind("instant", "DateTime64(3)", _instant)
CALENDAR_DATE = Kind("calendar_date", "DateTime64(3)", _calendar_date)
UNIX_SECONDS = Kind("unix_seconds", "DateTime64(3)", _unix_seconds)
JSON = Kind("json", "String", _json, loose=True)
FILE_ID = Kind("file_id", "String", _object_key("id", "ID", "fileId"))
MULTIFIELD_VALUE = Kind("multifield_value", "String", _object_key("VALUE", "value"), loose=True)
MONEY_AMOUNT = Kind("money_amount", "Decimal(18, 2)", _money_part(r"^(.*?)(?:[|][^|]*)?$", "toDecimal64OrNull({}, 2)"))
MONEY_CURRENCY = Kind("money_currency", "String", _money_part(r"[|]([^|]*)$", "{}"), loose=True)

KINDS = {
    kind.name: kind
    for kind in (
        TEXT,
        INTEGER,
        FLOAT32,
        FLOAT64,
        DECIMAL2,
        YES_NO,
        INSTANT,
        CALENDAR_DATE,
        UNIX_SECONDS,
        JSON,
        FILE_ID,
        MULTIFIELD_VALUE,
        MONEY_AMOUNT,
        MONEY_CURRENCY,
    )
}


def zero_date(v: str) -> str:
    """SQL condition: a "zero" date, which means no date."""
    return f"(startsWith({v}, '0000-00-00') OR startsWith({v}, '00.00.0000'))"


def elements(value: str) -> str:
    """SQL Array(String) of a multiple value, each element as text.

    A multiple field comes as a list, as an object with numeric keys (PHP keeps the gaps that removed elements left; key
    order counts), as a bare scalar, or as any of the empties.
    """
    from_list = f"JSONExtractArrayRaw({value})"
    from_map = f"arrayMap(p -> p.2, arraySort(p -> (toUInt64OrZero(p.1), p.1), JSONExtractKeysAndValuesRaw({value})))"
    raw = (
        f"multiIf({absent(value)}, emptyArrayString(), "
        f"startsWith({value}, '[') AND isValidJSON({value}), {from_list}, "
        f"startsWith({value}, '{{') AND match({value}, '^[{{]\\\\s*(\"[0-9]+\"|[}}])'), {from_map}, "
        f"startsWith({value}, '{{'), [{value}], [toJSONString({value})])"
    )
    return (
        f"arrayMap(e -> multiIf(startsWith(e, '\"'), JSONExtractString(e), e = 'null', '', e = 'false', {_FALSE}, e), {raw})"
    )
