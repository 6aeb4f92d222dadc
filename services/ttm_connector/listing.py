"""Saved filters and dashboards: what is sent and which tickets come back. No network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from resources.ttm.protocol import TICKET, TtmError

Row = Mapping[str, Any]

KNOWN_FIELDS = (
    *("id", "ticketId", "status", "createTs", "closeDate", "coordinatorUser"),
    *("taskNumber", "taskStatus", "taskType", "execUnit", "executor", "domain", "kd", "tillWaitingExit"),
)
CLOSED = 0
"""The number of the status `Закрыт` in filters."""


def saved_clauses(answer: Any) -> list[Any]:
    """The clauses of a saved filter as the system answers it.

    Raises TtmError `bad_filter` for an unknown key, which is answered as null, and for a text that is no
    list.
    """
    if not isinstance(answer, dict):
        raise TtmError("bad_filter", "The ticket system knows no saved filter with this key.")
    text = answer.get("filter")
    if text is None or text == "":
        return []
    try:
        clauses = json.loads(text) if isinstance(text, str) else text
    except (ValueError, RecursionError):
        clauses = None
    if not isinstance(clauses, list) or not all(isinstance(clause, dict) for clause in clauses):
        raise TtmError("bad_filter", "The saved filter is not a list of clauses.")
    return clauses


def for_day(clauses: Iterable[Row], day: date, zone: ZoneInfo, date_field: str = "closeDate") -> list[Row]:
    """Those clauses for the tickets closed on that day of that zone, whichever day they were saved for."""
    kept = [clause for clause in clauses if clause.get("field") != date_field]
    bounds = [_midnight(day, zone), _midnight(day + timedelta(days=1), zone)]
    kept.append({"field": date_field, "searchOperation": "BETWEEN", "values": bounds})
    if not any(clause.get("field") == "status" for clause in kept):
        kept.append({"field": "status", "searchOperation": "IN", "values": [CLOSED]})
    return kept


def ticket_ids(rows: Iterable[Any], kind: str) -> list[int]:
    """Numbers of the tickets, each once, in the order of the rows; rows without one are passed over."""
    name = "id" if kind == TICKET else "ticketId"
    found = (_number(row.get(name)) for row in rows if isinstance(row, dict))
    return list(dict.fromkeys(number for number in found if number is not None))


def known_fields(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in KNOWN_FIELDS if name in row}


def ticket_number(value: Any) -> int:
    """`value` as a ticket's number; TtmError `bad_request` if it is none."""
    number = _number(value)
    if number is None:
        raise TtmError("bad_request", "id must be the number of a ticket.")
    return number


def _number(value: Any) -> int | None:
    """A positive number, or digits."""
    if isinstance(value, str):
        value = value.strip()
        value = int(value) if value.isascii() and value.isdigit() and len(value) < 19 else None
    return value if type(value) is int and value > 0 else None


def _midnight(day: date, zone: ZoneInfo) -> str:
    return f"{datetime.combine(day, time(), zone).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
