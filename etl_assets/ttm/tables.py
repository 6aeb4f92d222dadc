"""The ticket system's tables in the warehouse, and the records that fill them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any

from resources.clickhouse import Column, Table
from resources.clickhouse.plain import DAY
from resources.clickhouse.values import FLOAT64, INSTANT, INTEGER, TEXT
from resources.ttm.analysis import Verdict
from resources.ttm.values import Calendar, mapping, minutes, objects, text_of

DATABASE = "ttm"


def _number() -> Column:
    return Column("ticket_number", "ticket_number", INTEGER, "Номер тикета", required=True)


def _column(name: str, kind: Any = TEXT, comment: str = "", **more: Any) -> Column:
    return Column(name, name, kind, comment, **more)


TICKETS = Table(
    DATABASE,
    "tickets",
    (
        _number(),
        _column("business_date", DAY, "День, за который тикет прочитан", plain=True),
        _column("status", comment="Статус, как его называет система"),
        _column("created_at", INSTANT, "Создан, UTC"),
        _column("closed_at", INSTANT, "Закрыт, UTC"),
        _column("sla_minutes", FLOAT64, "Контрольный срок SLA, минуты"),
        _column("sla_at", INSTANT, "Контрольная дата SLA, UTC"),
        _column("region", comment="Регион"),
        _column("coordinator", comment="Координатор"),
        _column("task_count", INTEGER, "Число запросов в тикете"),
        _column("ticket", comment="Тикет целиком, JSON"),
    ),
    key=("ticket_number",),
    comment="Тикеты, как их отдала система; последняя прочитанная версия",
)
EXPIRED = Table(
    DATABASE,
    "expires_tickets",
    (
        _number(),
        _column("responsible", comment="Ответственный за просрочку"),
        _column("comment", comment="Отчёт по просрочке"),
        _column("add_date", DAY, "Дата закрытия, бизнес-день", plain=True),
        _column("outcome", comment="breached, not_breached или sla_undefined"),
        _column("sla_minutes", FLOAT64, "Контрольный срок SLA, минуты"),
        _column("counted_seconds", INTEGER, "Учтённое время, секунды"),
        _column("overrun_seconds", INTEGER, "Превышение, секунды"),
        _column("breach_task", comment="Запрос, на котором SLA превышен"),
        _column("breach_unit", comment="Группа, на которой SLA превышен"),
        _column("breach_at", INSTANT, "Момент превышения, UTC"),
        _column("warnings", comment="Странности в данных тикета, коды", multiple=True),
    ),
    key=("ticket_number", "add_date"),
    comment="Закрытые тикеты из списка просроченных: одна строка на закрытие",
)
UNITS = Table(
    DATABASE,
    "sla_by_unit",
    (
        _number(),
        _column("add_date", DAY, "Дата закрытия, бизнес-день", plain=True),
        _column("unit", comment="Группа", required=True),
        _column("seconds", INTEGER, "Учтённое время группы, секунды"),
        _column("is_breach_unit", INTEGER, "1: на этой группе SLA превышен"),
        _column("breach_at", INSTANT, "Момент превышения, UTC; только у этой группы"),
        _column("outcome", comment="Итог по тикету"),
        _column("sla_minutes", FLOAT64, "Контрольный срок SLA, минуты"),
    ),
    key=("ticket_number", "add_date", "unit"),
    comment="Время каждой группы в каждом закрытии тикета",
    tombstones=True,
)
STOPPED = Table(
    DATABASE,
    "stopped_tickets",
    (
        _column("task_number", comment="Номер запроса", required=True),
        _column("agreement_pause", INSTANT, "Дата согласования приостановки, UTC"),
        _column("begin_pause", INSTANT, "Дата начала приостановки, UTC"),
        _column("end_pause", INSTANT, "Дата конца приостановки, UTC"),
        _column("who_paused", comment="Кто приостановил"),
        _column("last_comment", comment="Последний комментарий"),
        _column("who_ask_pause", comment="Кто запросил приостановку"),
        _column("sla", INSTANT, "SLA (до которого), UTC"),
        _column("ticket_number", INTEGER, "Номер тикета"),
        _column("synced_at", INSTANT, "Когда последний раз был в списке, UTC"),
        _column("left_at", INSTANT, "Когда ушёл из списка, UTC; пусто: ещё в нём"),
    ),
    key=("task_number",),
    comment="Приостановки: нынешние и ушедшие",
)
TABLES = (TICKETS, EXPIRED, UNITS, STOPPED)


def raw_record(number: int, day: date, ticket: Mapping[str, Any], calendar: Calendar) -> dict[str, Any]:
    """The row of `ttm.tickets`: what is often asked for, and the whole of it."""

    def stamp(value: Any) -> datetime | None:
        try:
            return calendar.parse(value)
        except ValueError:
            return None  # it stands in `ticket` as it came

    ola, order = mapping(ticket.get("ola")), mapping(ticket.get("order"))
    return {
        "ticket_number": number,
        "business_date": day,
        "status": text_of(ticket.get("status")),
        "created_at": stamp(ticket.get("createTs")),
        "closed_at": stamp(ticket.get("closeDate")),
        "sla_minutes": minutes(ola.get("ksSla")),
        "sla_at": stamp(ola.get("kdSLA")),
        "region": text_of(order.get("selectedMrf")),
        "coordinator": text_of(ticket.get("coordinatorUser")),
        "task_count": len(objects(ticket.get("tasks"))),
        "ticket": json.dumps(ticket, ensure_ascii=False),
    }


def unit_records(verdict: Verdict) -> list[dict[str, Any]]:
    """The rows of `ttm.sla_by_unit` of a ticket that has a row in `expires_tickets`."""
    row, found = verdict.arrears_row, verdict.analysis
    if row is None:
        return []
    return [
        {
            "ticket_number": row.ticket_number,
            "add_date": row.add_date,
            "unit": unit,
            "seconds": seconds,
            "is_breach_unit": int(unit == found.breach_unit),
            "breach_at": found.breach_at if unit == found.breach_unit else None,
            "outcome": found.outcome,
            "sla_minutes": found.sla_minutes,
        }
        for unit, seconds in found.by_unit.items()
    ]


def lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Records as the warehouse takes them: JSON objects, newline-separated."""
    return "\n".join(json.dumps(record, default=_spelled) for record in records).encode()


def _spelled(value: Any) -> str:
    """A date, or an instant in UTC."""
    return value.isoformat()
