"""Filter clauses, rows of pages, and the arithmetic of a page."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.ttm.data import CLOSED, OPEN, Ticket

LARGEST_PAGE = 500
STATUS = {CLOSED: 0, OPEN: 1}


class BadRequest(Exception):
    """Status 400 with this text."""


Row = dict[str, Any]
Fields = dict[str, Callable[[Any], Any]]


def moment(text: Any) -> datetime | None:
    """A stamp as an instant, None if it is none; without a zone it is UTC."""
    try:
        found = datetime.fromisoformat(str(text).replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _unit(task: Row) -> Any:
    return (task.get("taskExecutorDTO") or {}).get("execUnitName")


TICKET_FIELDS: Fields = {
    "status": lambda t: [STATUS.get(t.get("status"))],
    "closeDate": lambda t: [moment(t.get("closeDate"))],
    "execUnit": lambda t: [_unit(task) for task in t.get("tasks") or ()],
}
TASK_FIELDS: Fields = {
    "taskType": lambda row: [row["taskType"]],
    "taskStatus": lambda row: [row["taskStatus"]],
    "execUnit": lambda row: [row["execUnit"]],
    "ticketId": lambda row: [row["ticketId"]],
}


def matching(things: Iterable[Any], clauses: Any, fields: Fields) -> list[Any]:
    """Those that satisfy every clause. Raises BadRequest for an unknown field, operation or shape."""
    if not isinstance(clauses, list):
        raise BadRequest("body must be a list of clauses")
    tests = [_test(clause, fields) for clause in clauses]
    return [thing for thing in things if all(test(thing) for test in tests)]


def _test(clause: Any, fields: Fields) -> Callable[[Any], bool]:
    if not isinstance(clause, dict) or clause.get("field") not in fields:
        raise BadRequest("unknown field")
    values, operation = clause.get("values"), clause.get("searchOperation")
    if not isinstance(values, list):
        raise BadRequest("values must be a list")
    read, dated = fields[clause["field"]], clause["field"] == "closeDate"
    bounds = [moment(v) for v in values] if dated else values
    needed = {"BETWEEN": 2, "EQUAL": 1, "GREATER_OR_EQUAL": 1, "LESS": 1}.get(str(operation))
    if (needed and len(bounds) != needed) or (dated and None in bounds):
        raise BadRequest("bad values")
    match operation:
        case "IN" | "EQUAL":
            return lambda thing: any(v in bounds for v in read(thing))
        case "NOT_IN":
            return lambda thing: not any(v in bounds for v in read(thing))
        case "BETWEEN":
            return lambda thing: any(v is not None and bounds[0] <= v < bounds[1] for v in read(thing))
        case "GREATER_OR_EQUAL":
            return lambda thing: any(v is not None and v >= bounds[0] for v in read(thing))
        case "LESS":
            return lambda thing: any(v is not None and v < bounds[0] for v in read(thing))
    raise BadRequest("unknown operation")


def ticket_row(ticket: Ticket) -> Row:
    return {name: ticket.get(name) for name in ("id", "status", "createTs", "closeDate", "coordinatorUser")}


def task_rows(ticket: Ticket, now: datetime) -> list[Row]:
    """One row for each open task of a ticket that is not closed."""
    if ticket.get("status") == CLOSED:
        return []
    tasks = [t for t in ticket.get("tasks") or () if isinstance(t, dict) and not t.get("completionDate")]
    return [
        {
            "id": task.get("id"),
            "ticketId": ticket["id"],
            "taskNumber": task.get("taskNumber"),
            "taskStatus": task.get("statusName"),
            "taskType": task.get("typeName"),
            "execUnit": _unit(task),
            "executor": (task.get("taskExecutorDTO") or {}).get("executorName"),
            "coordinatorUser": ticket.get("coordinatorUser"),
            "domain": "Голос",
            "kd": (ticket.get("ola") or {}).get("kdSLA"),
            "tillWaitingExit": _left(moment(task.get("suspendDate")), now),
        }
        for task in tasks
    ]


def _left(until: datetime | None, now: datetime) -> str | None:
    if until is None:
        return None
    minutes = max(timedelta(), until - now) // timedelta(minutes=1)
    return f"{minutes // 60:02d}:{minutes % 60:02d}"


def page_of(rows: list[Row], query: dict[str, str]) -> Row:
    """The page that was asked for, by descending id. Raises BadRequest for a size above 500."""
    try:
        number, size = int(query.get("page", "0")), int(query.get("size", "20"))
    except ValueError:
        raise BadRequest("page and size must be numbers") from None
    if number < 0 or not 1 <= size <= LARGEST_PAGE:
        raise BadRequest(f"size must be from 1 to {LARGEST_PAGE}")
    rows = sorted(rows, key=lambda row: int(row["id"]), reverse=True)
    pages = -(-len(rows) // size)
    return {
        "content": rows[number * size : (number + 1) * size],
        "totalPages": pages,
        "totalElements": len(rows),
        "number": number,
        "size": size,
        "first": number == 0,
        "last": number >= pages - 1,
    }
