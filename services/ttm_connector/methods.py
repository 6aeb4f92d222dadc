"""The closed list of what the hub may ask: lists of tickets, a ticket, how the system is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from resources.ttm.protocol import KINDS, PING, RELEASE, TICKET_GET, TICKET_LIST, TtmError
from services.ttm_connector.listing import for_day, known_fields, saved_clauses, ticket_ids, ticket_number
from services.ttm_connector.system import MAX_PAGES, TicketSystem

READS = 3
"""Of a listing whose rows move while it is read."""
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class Methods:
    """Answers tasks from one ticket system."""

    def __init__(self, system: TicketSystem, date_field: str = "closeDate") -> None:
        self._system, self._date_field = system, date_field

    async def run(self, method: str, params: Mapping[str, Any]) -> Any:
        """The data of a result. Raises TtmError; `unknown_method` without a call."""
        match method:
            case _ if method == TICKET_GET:
                return await self._system.ticket(ticket_number(params.get("id")))
            case _ if method == TICKET_LIST:
                return await self._list(params)
            case _ if method == PING:
                return {
                    "upstream": self._system.upstream,
                    "login_age": self._system.login.age_s,
                    "version": RELEASE,
                }
        raise TtmError("unknown_method", f"There is no method {method[:40]!r}.")

    async def _list(self, params: Mapping[str, Any]) -> dict[str, Any]:
        key, kind = params.get("filter"), params.get("kind")
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise TtmError("bad_request", "filter must be the key of a saved filter.")
        if kind not in KINDS:
            raise TtmError("bad_request", f"kind must be {' or '.join(KINDS)}.")
        day = _day(params)
        clauses = saved_clauses(await self._system.saved_filter(key))
        if day:
            clauses = for_day(clauses, *day, self._date_field)
        return await self._read(kind, clauses)

    async def _read(self, kind: str, clauses: list[Any]) -> dict[str, Any]:
        """All pages; read again when rows were missed, at last whatever was found, marked as partial."""
        rows, pages, total, complete = await self._read_once(kind, clauses)
        for _ in range(READS - 1):
            if complete:
                break
            seen = rows
            rows, pages, total, complete = await self._read_once(kind, clauses)
            rows = rows if complete else seen | rows
        found = [known_fields(row) for row in rows.values()]
        return {
            "kind": kind,
            "ids": ticket_ids(found, kind),
            "rows": found,
            "total": len(found) if total is None else total,
            "pages": pages,
            "partial": not complete,
        }

    async def _read_once(
        self, kind: str, clauses: list[Any]
    ) -> tuple[dict[Any, Mapping[str, Any]], int, int | None, bool]:
        """(rows by id, pages, the largest total that was announced, whether that many were found).

        A row that appears pushes another to the next page, where it comes twice; one that vanishes pulls one
        to the page before, where it is missed: then there are fewer than the total before it vanished.
        """
        rows, totals, number, last = dict[Any, Mapping[str, Any]](), list[int](), 0, 1
        while number < min(last, MAX_PAGES):
            page = await self._system.page(kind, number, clauses)
            for row in page["content"]:
                if isinstance(row, dict):
                    rows.setdefault(_identity(row, len(rows)), row)
            last = _count(page.get("totalPages"), "totalPages") or 0
            total = _count(page.get("totalElements"), "totalElements")
            if total is not None:
                totals.append(total)
            number += 1
        complete = last <= MAX_PAGES and len(rows) >= max(totals, default=0)
        return rows, number, max(totals, default=None), complete


def _identity(row: Mapping[str, Any], position: int) -> Any:
    """What makes a row the same as another; one without an id is like no other."""
    found = row.get("id")
    return str(found) if isinstance(found, int | str) and found != "" else (position,)


def _count(value: Any, name: str) -> int | None:
    if value is None and name == "totalElements":
        return None
    if type(value) is not int or value < 0:
        raise TtmError("upstream_error", f"The ticket system's page has no {name}.", status=200)
    return value


def _day(params: Mapping[str, Any]) -> tuple[date, ZoneInfo] | None:
    """The business day and its zone; None when the filter is to be used as it was saved."""
    text, zone = params.get("business_date"), params.get("business_tz", "Europe/Moscow")
    if text is None:
        return None
    try:
        if not isinstance(text, str) or not re.fullmatch(r"\d{4}-\d\d-\d\d", text, re.ASCII):
            raise ValueError
        day = date.fromisoformat(text)
        if not 1970 <= day.year <= 9000:
            raise ValueError
    except ValueError:
        raise TtmError("bad_request", "business_date must be a day such as 2026-11-20.") from None
    try:
        return day, ZoneInfo(str(zone))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise TtmError("bad_request", "business_tz must be a zone such as Europe/Moscow.") from None
