"""Which unit let a ticket's SLA run out, and when: pure rules, no network.

A closed ticket's tasks are walked in their order. Waiting for the customer is not our time; waiting for a
parent ticket is. The breach task is the first one in which the counted time reaches the limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, Literal

from resources.ttm.suspended import WAIT, SuspendedRow, current_wait, suspended_row
from resources.ttm.values import (
    Calendar,
    clean,
    folded,
    mapping,
    minutes,
    objects,
    text_of,
    ticket_number,
)

Outcome = Literal["breached", "not_breached", "sla_undefined", "open", "suspended", "unknown_status"]
Task = Mapping[str, Any]

RESULTS: dict[Outcome, str] = {
    "breached": "SLA превышен",
    "not_breached": "SLA не превышен",
    "sla_undefined": "SLA не определён",
    "open": "ТТ в работе",
    "suspended": "ТТ в приостановке",
    "unknown_status": "Неизвестный статус",
}
REPORTED: frozenset[Outcome] = frozenset({"breached", "not_breached", "sla_undefined"})
UNDEFINED = "Не определено"
NO_COMMENT = "Комментарий отсутствует"
CLOSED, IN_WORK = "закрыт", "в работе"  # names are compared case-folded
CLIENT_REQUEST = "запрос клиента"
PARENT_UNITS = frozenset({"решение сетевого тт", "решение базового тт"})
VENDOR, PROVIDER = "вендор (дэфир)", "провайдер"


class MalformedTicket(ValueError):
    """What came in a ticket's place is no ticket at all."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What the rules say of one ticket. Durations in seconds, instants in UTC.

    The counted fields belong to closed tickets only, the breach fields to breached ones.
    """

    outcome: Outcome
    responsible: str
    report: str
    sla_minutes: int | float | None
    counted_seconds: int | None = None
    overrun_seconds: int | None = None
    breach_task: str | None = None
    breach_unit: str | None = None
    breach_at: datetime | None = None
    by_unit: Mapping[str, int] = field(default_factory=dict)
    close_date: date | None = None

    @property
    def result(self) -> str:
        return RESULTS[self.outcome]


@dataclass(frozen=True, slots=True)
class ExpiredRow:
    """The ticket's row in `expires_tickets`, in the original's names."""

    ticket_number: int
    responsible: str
    comment: str
    add_date: date


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that follows from one ticket for one business day."""

    number: int | None
    analysis: Analysis
    in_window: bool
    arrears_row: ExpiredRow | None
    suspended_row: SuspendedRow | None
    warnings: tuple[str, ...]


def examine(ticket: Any, calendar: Calendar, day: date | None = None) -> Verdict:
    """Analyse a ticket as the ticket system gave it. Without `day` nothing is in the window.

    Raises MalformedTicket only if it is not an object; every other oddity becomes a warning.
    """
    if not isinstance(ticket, Mapping):
        raise MalformedTicket(f"the ticket is not an object but {type(ticket).__name__}")
    case = _Case(ticket, calendar)
    analysis = case.analysis()
    in_window = case.finished is not None and calendar.day(case.finished) == day
    row = None
    if in_window and analysis.outcome in REPORTED and analysis.close_date:
        if case.number is None:
            case.warnings.add("no_ticket_id")
        else:
            row = ExpiredRow(case.number, analysis.responsible, analysis.report, analysis.close_date)
    suspended = None
    if case.wait is not None:
        limit = mapping(ticket.get("ola")).get("kdSLA")
        suspended = suspended_row(case.number, case.tasks, case.wait, limit, calendar, case.warnings)
    return Verdict(case.number, analysis, in_window, row, suspended, tuple(sorted(case.warnings)))


@dataclass(slots=True)
class _Counted:
    """One counted task: when it began and ended, as the rules see it, and how long that is."""

    task: Task
    unit: str
    begin: datetime | None
    end: datetime | None
    seconds: int


class _Case:
    """One ticket under examination; gathers warnings."""

    def __init__(self, ticket: Mapping[str, Any], calendar: Calendar) -> None:
        self.calendar, self.warnings = calendar, set[str]()
        self.number = ticket_number(ticket.get("id"))
        self.status = folded(ticket.get("status"))
        self.tasks: Sequence[Task] = objects(ticket.get("tasks"))
        self.sla = minutes(mapping(ticket.get("ola")).get("ksSla"))
        self.closed_at = self._stamp(ticket.get("closeDate"))
        self.last_done = self._stamp(self.tasks[-1].get("completionDate")) if self.tasks else None
        if not self.tasks:
            self.warnings.add("no_tasks")
        closed = self.status == CLOSED
        self.wait = None if closed else current_wait(self.tasks)
        self.finished = self.last_done or (self.closed_at if closed else None)

    def _stamp(self, value: Any) -> datetime | None:
        try:
            return self.calendar.parse(value)
        except ValueError:
            self.warnings.add("bad_timestamp")
            return None

    def analysis(self) -> Analysis:
        if self.status == CLOSED:
            return self._closed()
        if self.status != IN_WORK:
            self.warnings.add("unknown_status")
            return self._plain("unknown_status")
        return self._plain("open" if self.wait is None else "suspended")

    def _plain(self, outcome: Outcome, **known: Any) -> Analysis:
        result = RESULTS[outcome]
        return Analysis(outcome, result, f"Результат: {result}", self.sla, **known)

    def _closed(self) -> Analysis:
        counted = [self._count(task) for task in self.tasks if _is_counted(task)]
        by_unit: dict[str, int] = {}
        for each in counted:
            by_unit[each.unit] = by_unit.get(each.unit, 0) + each.seconds
        total = sum(by_unit.values())
        known = {"counted_seconds": total, "by_unit": by_unit, "close_date": self._close_date()}
        if self.sla is None:
            self.warnings.add("sla_undefined")
            return self._plain("sla_undefined", **known)
        limit, before = round(self.sla * 60), 0
        for each in counted:
            if before + each.seconds >= limit:
                return self._breached(each, limit, before, known)
            before += each.seconds
        return self._plain("not_breached", **known)

    def _count(self, task: Task) -> _Counted:
        begin, end = self._stamp(task.get("createTs")), self._stamp(task.get("completionDate"))
        unit = unit_of(task)
        if not unit:
            self.warnings.add("no_executor_unit")
        if begin is None:
            self.warnings.add("no_create")
        if end is None:
            self.warnings.add("no_completion")
            end = self.closed_at if begin and self.closed_at and self.closed_at >= begin else begin
        if begin and end and end < begin:
            self.warnings.add("negative_duration")
            end = begin
        seconds = int((end - begin).total_seconds()) if begin and end else 0
        return _Counted(task, unit or UNDEFINED, begin, end, seconds)

    def _close_date(self) -> date | None:
        if self.closed_at is None:
            self.warnings.add("no_close_date")
        instant = self.closed_at or self.last_done
        return self.calendar.day(instant) if instant else None

    def _breached(self, breach: _Counted, limit: int, before: int, known: Mapping[str, Any]) -> Analysis:
        responsible, foreign, name = self._responsible(breach)
        return Analysis(
            "breached",
            responsible,
            self._report(breach, foreign, name),
            self.sla,
            overrun_seconds=known["counted_seconds"] - limit,
            breach_task=text_of(breach.task.get("taskNumber")) or None,
            breach_unit=breach.unit,
            breach_at=breach.begin + timedelta(seconds=limit - before) if breach.begin else None,
            **known,
        )

    def _responsible(self, breach: _Counted) -> tuple[str, str, str]:
        """(responsible, number of the foreign ticket, its owner); the last two of outside units only."""
        kind = breach.unit.casefold()
        foreign = text_of(breach.task.get("foreignTicketId")) if kind in (VENDOR, PROVIDER) else ""
        if not foreign:
            return breach.unit, "", ""
        name = text_of(breach.task.get("providerName"))
        if not name:
            self.warnings.add("no_provider_name")
            return breach.unit, foreign, ""
        return (name if kind == VENDOR else f"Провайдер ({name})"), foreign, name

    def _report(self, breach: _Counted, foreign: str, name: str) -> str:
        lines = {
            "Результат": RESULTS["breached"],
            "Просрочено на группе": breach.unit,
            "Номер запроса": text_of(breach.task.get("taskNumber")) or UNDEFINED,
            **self._times(breach),
            "Последний комментарий (task)": last_comment(breach.task) or NO_COMMENT,
        }
        if foreign and breach.unit.casefold() == VENDOR:
            lines["ТТ на вендоре"] = foreign
            if name:
                lines["Наименование вендора"] = name
        return "\n".join(f"{key}: {value}" for key, value in lines.items())

    def _times(self, breach: _Counted) -> dict[str, Any]:
        accepted = self._stamp(breach.task.get("assignmentDate")) or breach.begin
        if not (breach.begin and breach.end and accepted):  # only a limit below a second gets here
            names = ("создания запроса", "принятия в работу", "закрытия запроса", "реакции", "решения", "всё")
            return {f"Время {name}": UNDEFINED for name in names}
        inside = min(max(accepted, breach.begin), breach.end)
        if inside != accepted:
            self.warnings.add("assignment_out_of_range")
        return {
            "Время создания запроса": self.calendar.local(breach.begin),
            "Время принятия в работу": self.calendar.local(inside),
            "Время закрытия запроса": self.calendar.local(breach.end),
            "Время реакции": inside - breach.begin,
            "Время решения": breach.end - inside,
            "Время всё": breach.end - breach.begin,
        }


def unit_of(task: Task) -> str:
    """The executing unit, stripped; empty if it is not named."""
    return text_of(mapping(task.get("taskExecutorDTO")).get("execUnitName"))


def _is_counted(task: Task) -> bool:
    kind = folded(task.get("typeName"))
    if kind == CLIENT_REQUEST:
        return False
    return kind != WAIT or unit_of(task).casefold() in PARENT_UNITS


def last_comment(task: Task) -> str:
    """The newest comment of a task that says something, cleaned."""
    comments = (clean(each.get("comment")) for each in reversed(objects(task.get("taskComments"))))
    return next((comment for comment in comments if comment), "")
