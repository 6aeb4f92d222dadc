"""The list of suspended tickets as one reading of the ticket system makes it: pure rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from resources.ttm.analysis import MalformedTicket, examine
from resources.ttm.protocol import TtmError
from resources.ttm.suspended import SuspendedRow
from resources.ttm.values import Calendar

Answer: TypeAlias = tuple[int, Any]  # the number that was asked for; the ticket as received, or TtmError
GONE = "not_found"


@dataclass(frozen=True, slots=True)
class Plan:
    """What the list must become: these rows; others go, but those of `failed` tickets stay.

    `partial`: the dashboard was not read to its end, so nothing may go. `warnings` are by ticket.
    """

    rows: Mapping[str, SuspendedRow]
    failed: Mapping[int, str]
    warnings: Mapping[int, tuple[str, ...]]
    partial: bool = False

    @property
    def complete(self) -> bool:
        return not self.partial and not self.failed


def plan_sync(answers: Iterable[Answer], calendar: Calendar, *, partial: bool = False) -> Plan:
    """The plan that follows from one answer for each ticket of the dashboard.

    Of two rows with one task number, which only a broken ticket system gives, the later one counts.
    """
    rows: dict[str, SuspendedRow] = {}
    failed: dict[int, str] = {}
    warnings: dict[int, tuple[str, ...]] = {}
    for number, answer in answers:
        if isinstance(answer, TtmError):
            if answer.code != GONE:
                failed[number] = str(answer)
            continue
        try:
            verdict = examine(answer, calendar)
        except MalformedTicket as error:
            failed[number] = f"malformed: {error}"
            continue
        if verdict.warnings:
            warnings[number] = verdict.warnings
        if row := verdict.suspended_row:
            rows[row.task_number] = row
    return Plan(rows, failed, warnings, partial)
