"""Kinds of machine-written exports (logs, metrics): what is empty or does not fit becomes the type's default.

Such tables have millions of rows and no NULLs. A value that does not fit is still kept in
`svod.rejected_rows`; columns of these kinds are `Column(..., plain=True)`.
"""

from __future__ import annotations

from resources.clickhouse.table import Column, literal
from resources.clickhouse.values import Kind

_INSTANT = "'%Y-%m-%d %H:%i:%s'"
_NO_DATE = "startsWith({}, '0000-00-00')"
# ClickHouse's DateTime ends in 2106; a later year would silently come out as 1970
_KNOWN_YEAR = "match({}, '^(19[789][0-9]|20[0-9][0-9])-')"
_QUOTED = r"\'(?:[^\'\\\\]|\\\\.)*\'"
_STRINGS = rf"'(?s)^\\[(?:{_QUOTED}(?:,{_QUOTED})*)?\\]$'"


def _reads_as(type_: str) -> Kind:
    return Kind(type_.lower(), type_, lambda v, zone: f"to{type_}OrNull({v})")


UINT8, UINT16, UINT32, UINT64 = map(_reads_as, ("UInt8", "UInt16", "UInt32", "UInt64"))
INT16, INT32, INT64 = map(_reads_as, ("Int16", "Int32", "Int64"))

# For a context column `first_row`, which every insert carries: a row's place among all rows of its load.
PLACE = Kind("place", "UInt32", lambda v, zone: f"toUInt32OrZero({v}) + rowNumberInBlock()", loose=True)

WORD = Kind("word", "LowCardinality(String)", lambda v, zone: v, loose=True)
STRING = Kind("string", "String", lambda v, zone: v, loose=True)


def _day(v: str, zone: str) -> str:
    return f"if({_KNOWN_YEAR.format(v)}, toDate(parseDateTimeOrNull({v}, '%Y-%m-%d', 'UTC'), 'UTC'), NULL)"


DAY = Kind("day", "Date", _day, blank=_NO_DATE.format)


def _moment(v: str, zone: str) -> str:
    return f"if({_KNOWN_YEAR.format(v)}, parseDateTimeOrNull({v}, {_INSTANT}, '{zone}'), NULL)"


def moment(shown: str, read: str | None = None) -> Kind:
    """Local times `YYYY-MM-DD hh:mm:ss`.

    They are read in the zone `read` (the table's own when None) and shown in the zone `shown`.
    """
    return Kind(
        "moment",
        f"DateTime('{shown}')",
        lambda v, zone: _moment(v, read or zone),
        blank=_NO_DATE.format,
    )


def _elements(v: str) -> str:
    """SQL Array(String): the elements of `[1,2,3]`; of `[]` and of an empty text, none."""
    return f"if({v} IN ('', '[]'), emptyArrayString(), splitByChar(',', substring({v}, 2, length({v}) - 2)))"


def _not_brackets(v: str) -> str:
    return f"NOT ({v} = '' OR (startsWith({v}, '[') AND endsWith({v}, ']') AND length({v}) > 1))"


def _strings(v: str) -> str:
    r"""SQL Array(String) of `['a','b\'c']`, which is what is left of such a value in a tab-separated file
    once the escapes of the file itself are undone."""
    return f"CAST(if(match({v}, {_STRINGS}), {v}, '[]'), 'Array(String)')"


def _no_strings(v: str) -> str:
    return f"{v} != '' AND NOT match({v}, {_STRINGS})"


def list_of(kind: Kind) -> Kind:
    """`[1,2,3]` of numbers, `['a','b']` of texts and moments; an element that does not fit is the default."""
    texts = kind.type == "String"
    quoted = texts or kind.type.startswith("DateTime")

    def read(v: str, zone: str) -> str:
        found = _strings(v) if quoted else _elements(v)
        if texts:
            return found
        value = f"ifNull({kind.sql('e', zone)}, defaultValueOfTypeName({literal(kind.type)}))"
        return f"arrayMap(e -> {value}, {found})"

    def misfit(v: str, zone: str) -> str:
        shape = _no_strings(v) if quoted else _not_brackets(v)
        if texts:
            return shape
        blank = f"{kind.blank('e')} OR " if kind.blank else ""
        found = _strings(v) if quoted else _elements(v)
        return f"{shape} OR arrayExists(e -> NOT ({blank}e = '') AND isNull({kind.sql('e', zone)}), {found})"

    return Kind(f"list of {kind.name}", f"Array({kind.type})", read, misfit=misfit)


def scaled(divisor: int, digits: int) -> Kind:
    """A whole number that the source multiplied by `divisor`, as Decimal(18, `digits`)."""
    return Kind(
        f"scaled by {divisor}",
        f"Decimal(18, {digits})",
        lambda v, zone: f"toDecimal64(toInt64OrNull({v}), {digits}) / {divisor}",
    )


FLOAT = Kind(
    "float", "Float64", lambda v, zone: f"if(isFinite(toFloat64OrNull({v})), toFloat64OrNull({v}), NULL)"
)


def plain_column(name: str, kind: Kind, comment: str) -> Column:
    """A column that is read from the key of its own name, as tables of our own making have them."""
    return Column(name, name, kind, comment, plain=True)
