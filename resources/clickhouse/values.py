"""How a source's text becomes a typed value: one SQL expression a kind.

Every value of a record reaches ClickHouse as text (the inlet's columns are all `String`), so that typing
and normalising run vectorised in the engine instead of cell by cell in Python. In that text `''` stands for
a value that is absent, `null` or empty, and `FALSE_MARK` for a JSON `false`, which Bitrix24 sends both for
"no" and for "empty" and which must not be mistaken for the word "false".

A kind returns SQL that yields NULL for "no value" and for "does not fit"; `absent` tells the two apart, and
what does not fit goes to `svod.rejected_rows`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

FALSE_MARK = "\x1dfalse"
_FALSE = r"'\x1dfalse'"

_SURROGATES = re.compile(rb"\\u[dD](?:[89abAB]..\\u[dD][c-fC-F]..|([89a-fA-F]))")
_ESCAPE = re.compile(rb"\\(?:u[dD][89abAB]..\\u[dD][c-fC-F]..|(u[dD][89a-fA-F]..)|.)", re.DOTALL)
_BACKSLASH = ord("\\")


def whole_characters(body: bytes) -> bytes:
    r"""JSON text in which a lone half of a surrogate pair, which is no character, is the plain text
    `\ud800`."""
    if b"\\" not in body or (b"\\ud" not in body and b"\\uD" not in body):
        return body
    # What follows an escaped backslash only looks like one: then the exact way decides.
    if not any(m[1] or body[m.start() - 1] == _BACKSLASH for m in _SURROGATES.finditer(body)):
        return body
    return _ESCAPE.sub(lambda m: b"\\\\" + m[1] if m[1] else m[0], body)


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to read text: the ClickHouse type that it gives and the SQL that reads it.

    `sql(value, zone)` takes a SQL expression of type String and the source's time zone. `loose` kinds
    accept every text, so nothing of them is ever rejected. `blank(value)` is the SQL condition that a text,
    though not empty, says "no value". `misfit(value, zone)` is the SQL condition of kinds that cannot say it
    by NULL (lists).
    """

    name: str
    type: str
    sql: Callable[[str, str], str]
    loose: bool = False
    blank: Callable[[str], str] | None = None
    misfit: Callable[[str, str], str] | None = None


def absent(value: str) -> str:
    """SQL condition: the source says that there is no value.

    PHP writes an empty map, and any empty value, as [] or {}.
    """
    return f"{value} IN ('', {_FALSE}, '[]', '{{}}')"


def _text(v: str, zone: str) -> str:
    return f"if({absent(v)}, NULL, {v})"


def _relation(v: str, zone: str) -> str:
    # Zero is how an id says that there is no other record.
    return f"if({absent(v)} OR {v} = '0', NULL, {v})"


def _integer(v: str, zone: str) -> str:
    # "1.0000" is how some numeric fields spell a whole number; one with an exponent does not fit.
    return f"toInt64OrNull(if(position({v}, '.') > 0, replaceRegexpOne({v}, '^([+-]?[0-9]+)[.]0*$', '\\\\1'), {v}))"


def _finite(read: str) -> Callable[[str, str], str]:
    """A float; not a number and infinity, also by overflow, do not fit."""
    return lambda v, zone: f"if(isFinite({read}({v})), {read}({v}), NULL)"


_NUMBER = r"'^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]{1,3})?$'"
_PLAIN_SUM = r"'^[+-]?[0-9]{1,16}([.][0-9]{0,2})?$'"


def _sum(v: str, zone: str) -> str:
    # Further digits are rounded half away from zero; the engine's own parser truncates them, and stops at a second point.
    rounded = f"toDecimal64OrNull(toString(round(toDecimal128OrNull({v}, 10), 2)), 2)"
    return f"multiIf(match({v}, {_PLAIN_SUM}), toDecimal64OrNull({v}, 2), match({v}, {_NUMBER}), {rounded}, NULL)"


def _yes_no(v: str, zone: str) -> str:
    return f"multiIf({v} IN ('Y', 'y', '1', 'true'), 'Y', {v} IN ('N', 'n', '0', 'false', {_FALSE}), 'N', CAST(NULL, 'Nullable(String)'))"


# A source that keeps dates in its site's locale sends these instead of ISO 8601; the order of trial is the spec's.
_YEAR = "(?:19|2[0-2])[0-9]{2}"
_MONTH = "(?:0[1-9]|1[0-2])"
_DAY = "(?:0[1-9]|[12][0-9]|3[01])"
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]+)?)?"
_HALF_DAY = "(?:0[1-9]|1[0-2]):[0-5][0-9](?::[0-5][0-9])? [AaPp][Mm]"
_ISO = f"'^{_YEAR}-{_MONTH}-{_DAY}(?:[T ]{_CLOCK}(?:[+-][0-9]{{2}}(?::?[0-9]{{2}})?|Z)?)?$'"
_RU = f"'^({_DAY})[.]({_MONTH})[.]({_YEAR})( {_CLOCK})?$', '\\\\3-\\\\2-\\\\1\\\\4'"
_US = f"'^({_MONTH})/({_DAY})/({_YEAR})( {_CLOCK}| {_HALF_DAY})?$', '\\\\3-\\\\1-\\\\2\\\\4'"


def _iso(v: str) -> str:
    """SQL: a date in any of the three spellings as the engine's parser reads it; NULL for another text."""
    other = f"nullIf(replaceRegexpOne(replaceRegexpOne({v}, {_RU}), {_US}), {v})"
    return f"multiIf(match({v}, {_ISO}), {v}, empty({v}), NULL, {other})"


def _instant(v: str, zone: str) -> str:
    return (
        f"CAST(parseDateTime64BestEffortOrNull({_iso(v)}, 3, '{zone}'), 'Nullable(DateTime64(3, \\'UTC\\'))')"
    )


def _calendar_date(v: str, zone: str) -> str:
    # Only the literal date is right: the same day comes as midnight UTC and as local midnight, so no zone may be applied.
    return f"parseDateTime64BestEffortOrNull(substring({_iso(v)}, 1, 10), 3, 'UTC')"


def _unix_seconds(v: str, zone: str) -> str:
    # What is before 1900 or after 2299 cannot be shown by DateTime64.
    seconds = f"toDecimal128OrNull({v}, 3)"
    known = f"match({v}, {_NUMBER}) AND {seconds} >= -2208988800 AND {seconds} < 10413792000"
    return f"if({known}, CAST({seconds}, 'Nullable(DateTime64(3, \\'UTC\\'))'), NULL)"


def _composite(v: str) -> str:
    """SQL: an object or a list.

    The client marks every `false` that is a value; a nested one is plain again.
    """
    return rf"replaceAll({v}, '\"\\u001dfalse\"', 'false')"


def _json(v: str, zone: str) -> str:
    # Sorted keys, so that two spellings of one object compare equal.
    json = _composite(v)
    name = r"replaceAll(toJSONString(p.1), '\\/', '/')"
    pairs = f"arrayMap(p -> concat({name}, ':', p.2), arraySort(JSONExtractKeysAndValuesRaw({json})))"
    return (
        f"multiIf({absent(v)}, NULL, startsWith({v}, '{{') AND isValidJSON({json}), "
        f"concat('{{', arrayStringConcat({pairs}, ','), '}}'), startsWith({v}, '[') AND isValidJSON({json}), {json}, {v})"
    )


def _object_key(*keys: str) -> Callable[[str, str], str]:
    """Reads one key of an object (the first that is there); a bare scalar is taken as it is."""

    def sql(v: str, zone: str) -> str:
        raw = [f"JSONExtractRaw({_composite(v)}, '{k}')" for k in keys]
        found = [
            f"{r} NOT IN ('', 'null', 'false', '\"\"'), JSONExtractString({_composite(v)}, '{k}')"
            for r, k in zip(raw, keys, strict=True)
        ]
        return f"if(startsWith({v}, '{{'), multiIf({', '.join(found)}, NULL), {_text(v, zone)})"

    return sql


def _amount(v: str) -> str:
    return f"replaceRegexpOne({v}, '[|][^|]*$', '')"


def _currency(v: str, zone: str) -> str:
    return f"nullIf(extract({v}, '[|]([A-Za-z]+)$'), '')"


def zero_date(v: str) -> str:
    """SQL condition: a "zero" date, which means no date; the year -1 is how PHP prints one."""
    return f"match({v}, '^(0000-00-00|00[.]00[.]0000|00/00/0000|-0001-11-30)')"


TEXT = Kind("text", "String", _text, loose=True)
RELATION = Kind("relation", "String", _relation, loose=True)
INTEGER = Kind("integer", "Int64", _integer)
FLOAT32 = Kind("float32", "Float32", _finite("toFloat32OrNull"))
FLOAT64 = Kind("float64", "Float64", _finite("toFloat64OrNull"))
# A sum has two decimals: more of them (a price without tax, say) are rounded half away from zero, never rejected.
DECIMAL2 = Kind("decimal", "Decimal(18, 2)", _sum)
YES_NO = Kind("yes_no", "String", _yes_no)
INSTANT = Kind("instant", "DateTime64(3)", _instant, blank=zero_date)
CALENDAR_DATE = Kind("calendar_date", "DateTime64(3)", _calendar_date, blank=zero_date)
UNIX_SECONDS = Kind("unix_seconds", "DateTime64(3)", _unix_seconds)
JSON = Kind("json", "String", _json, loose=True)
FILE_ID = Kind("file_id", "String", _object_key("id", "ID", "fileId"))
MULTIFIELD_VALUE = Kind("multifield_value", "String", _object_key("VALUE", "value"), loose=True)
MONEY_AMOUNT = Kind(
    "money_amount",
    "Decimal(18, 2)",
    lambda v, zone: _sum(_amount(v), zone),
    blank=lambda v: f"empty({_amount(v)})",
)
MONEY_CURRENCY = Kind("money_currency", "String", _currency, loose=True)

KINDS = {
    kind.name: kind
    for kind in (
        TEXT,
        RELATION,
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


def elements(value: str) -> str:
    """SQL Array(String) of a multiple value, each element as text.

    A multiple field comes as a list, as an object with numeric keys (PHP keeps the gaps that removed
    elements left; key order counts), as a bare scalar, or as any of the empties.
    """
    json = _composite(value)
    from_list = f"JSONExtractArrayRaw({json})"
    from_map = (
        f"arrayMap(p -> p.2, arraySort(p -> (toUInt64OrZero(p.1), p.1), JSONExtractKeysAndValuesRaw({json})))"
    )
    raw = (
        f"multiIf({absent(value)}, emptyArrayString(), NOT match({value}, '^[\\\\[{{]') OR NOT isValidJSON({json}), "
        f"[toJSONString({value})], startsWith({value}, '['), {from_list}, "
        f"match({value}, '^[{{]\\\\s*\"[0-9]+\"'), {from_map}, [{json}])"
    )
    return f"arrayMap(e -> multiIf(startsWith(e, '\"'), JSONExtractString(e), e = 'null', '', e = 'false', {_FALSE}, e), {raw})"
