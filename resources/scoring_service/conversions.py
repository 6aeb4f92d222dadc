"""Offline conversions: one of them, its time, and the CSV file that Metrika takes."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal

IDENTIFIERS = {"client_id": "ClientId", "user_id": "UserId", "yclid": "Yclid", "purchase_id": "PurchaseId"}
CLOCK_SKEW = timedelta(seconds=5)  # of the sender's clock; the file leaves later than that
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Conversion:
    """One conversion with at least one identifier; `date_time` is aware."""

    target: str
    date_time: datetime
    client_id: str | None = None
    user_id: str | None = None
    yclid: str | None = None
    purchase_id: str | None = None
    price: Decimal | None = None
    currency: str | None = None


def parse_time(value: object) -> datetime:
    """Unix seconds or ISO 8601. Naive when the text has no zone.

    Raises ValueError with a sentence that does not repeat the value.
    """
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        text = value.strip()
        if not re.fullmatch(r"[+-]?\d+(\.\d+)?", text, re.ASCII):
            return _iso(text)
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a time is ISO 8601 text or Unix seconds")
    try:
        return datetime.fromtimestamp(int(value), UTC)
    except (ValueError, OverflowError, OSError):
        raise ValueError("not a time in Unix seconds (milliseconds are not taken)") from None


def _iso(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not an existing time in ISO 8601, such as 2025-02-03T10:15:00Z") from None


def instant(time: datetime, zone: tzinfo, now: datetime) -> datetime:
    """An aware time in whole seconds; a naive one is read in `zone`.

    Raises ValueError for a time that Metrika cannot take: in the future, or before the year 2000.
    """
    try:
        found = (time if time.tzinfo else time.replace(tzinfo=zone)).astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError):
        raise ValueError("not a time of our era") from None
    if found > now + CLOCK_SKEW:
        raise ValueError("the time is in the future; Unix times are in seconds")
    if found < _EARLIEST:
        raise ValueError("the time is before the year 2000")
    return found


def csv_file(id_type: str, rows: Sequence[Conversion]) -> bytes:
    """The file of an upload, UTF-8 with LF: identifiers (`id_type` first), Target, DateTime, Price, Currency.

    Columns that no row fills are left out. Source: «Офлайн-конверсии», the CSV format of Metrika's API.
    """
    names = {column: name for name, column in IDENTIFIERS.items()}
    columns = [id_type, *(c for c in names if c != id_type and any(getattr(r, names[c]) for r in rows))]
    has_price, has_currency = any(r.price is not None for r in rows), any(r.currency for r in rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, "Target", "DateTime", *["Price"] * has_price, *["Currency"] * has_currency])
    for row in rows:
        line: list[str | int] = [getattr(row, names[c]) or "" for c in columns]
        line += [row.target, int(row.date_time.timestamp())]
        line += ["" if row.price is None else f"{row.price:f}"] * has_price
        line += [row.currency or ""] * has_currency
        writer.writerow(line)
    return text.getvalue().encode()


def read_csv(body: bytes) -> Iterable[tuple[int, dict[str, str]]]:
    """(line number, field -> text) of a file with a header, as Metrika takes it or with our field names.

    Comma or semicolon. Raises ValueError for what is no such file; a line with too many or too few fields
    ends it as well.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"the file is not UTF-8: byte {error.start}") from None
    if "\0" in text:
        raise ValueError("the file holds NUL characters: it is not a CSV file")
    head = text.split("\n", 1)[0]
    delimiter = ";" if head.count(";") > head.count(",") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        fields = [_field(name) for name in next(reader, [])]
        if len(set(fields)) < len(fields):
            raise ValueError("a column stands twice in the header")
        if not fields:
            raise ValueError("the file is empty: its first line must name the columns")
        for line in reader:
            if not any(line):
                continue
            if len(line) != len(fields):
                raise ValueError(f"line {reader.line_num} has {len(line)} fields, the header {len(fields)}")
            yield reader.line_num, dict(zip(fields, line, strict=True))
    except csv.Error:
        raise ValueError(f"line {reader.line_num} is not CSV: check its quotes") from None


_FIELDS = {
    **{name.replace("_", ""): name for name in IDENTIFIERS},
    **{name.replace("_", ""): name for name in ("target", "date_time", "price", "currency")},
}


def _field(header: str) -> str:
    name = header.strip().lower().replace("_", "")
    if name not in _FIELDS:
        allowed = ", ".join([*IDENTIFIERS.values(), "Target", "DateTime", "Price", "Currency"])
        raise ValueError(f"the header has an unknown column: it may have {allowed}")
    return _FIELDS[name]
