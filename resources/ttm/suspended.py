"""Tickets that are suspended now: who paused them, who asked for it, why and until when. Pure rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from resources.ttm.values import Calendar, clean, folded, is_empty, mapping, text_of

Task = Mapping[str, Any]
WAIT = "ожидание"  # names are compared case-folded


@dataclass(frozen=True, slots=True)
class SuspendedRow:
    """The ticket's row in `stopped_tickets`, in the original's names; instants in UTC."""

    task_number: str
    agreement_pause: datetime | None
    begin_pause: datetime | None
    end_pause: datetime | None
    who_paused: str | None
    last_comment: str | None
    who_ask_pause: str | None
    sla: datetime | None
    ticket_number: int


def current_wait(tasks: Sequence[Task]) -> int | None:
    """Index of the newest waiting task that is not completed; None if the ticket is not suspended.

    Not simply the last task: a client's request may be opened during the suspension.
    """
    waits = (
        i
        for i in reversed(range(len(tasks)))
        if folded(tasks[i].get("typeName")) == WAIT and is_empty(tasks[i].get("completionDate"))
    )
    return next(waits, None)


def suspended_row(
    number: int | None,
    tasks: Sequence[Task],
    at: int,
    limit: Any,
    calendar: Calendar,
    warnings: set[str],
) -> SuspendedRow | None:
    """The row of a ticket whose task `at` waits; `limit` is its control date. Adds what is odd to `warnings`.

    None if the task or the ticket has no usable number.
    """

    def stamp(value: Any, missing: str = "") -> datetime | None:
        try:
            found = calendar.parse(value)
        except ValueError:
            warnings.add("bad_timestamp")
            found = None
        if found is None and missing:
            warnings.add(missing)
        return found

    wait = tasks[at]
    before = tasks[at - 1] if at >= 1 else {}
    request = tasks[at - 2] if at >= 2 else {}
    warnings.update(["no_previous_task"] * (at < 1) + ["no_request_task"] * (at < 2))
    task_number = text_of(wait.get("taskNumber"))
    row = SuspendedRow(
        task_number=task_number,
        agreement_pause=stamp(before.get("createTs")),
        begin_pause=stamp(wait.get("createTs")),
        end_pause=stamp(wait.get("suspendDate"), "no_suspend_date"),
        who_paused=text_of(mapping(before.get("taskExecutorDTO")).get("executorName")) or None,
        last_comment=clean(before.get("closeComment")) or None,
        who_ask_pause=text_of(request.get("targetUnitName")) or None,
        sla=stamp(limit, "no_sla_deadline"),
        ticket_number=number or 0,
    )
    if not task_number:
        warnings.add("no_task_number")
    elif number is None:
        warnings.add("no_ticket_id")
    return row if task_number and number is not None else None
