"""What is on the board as CSV for Excel: UTF-8 with BOM, semicolons, no cell that acts as a formula."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import date, datetime, tzinfo
from typing import Any

STOPPED = {
    "ticket_number": "Тикет",
    "task_number": "Номер запроса",
    "who_paused": "Кто приостановил",
    "who_ask_pause": "Кто запросил приостановку",
    "last_comment": "Последний коммент",
    "agreement_pause": "Дата согласования приостановки",
    "begin_pause": "Дата начала приостановки",
    "end_pause": "Дата конца приостановки",
    "sla": "SLA (до которого)",
}
EXPIRED = {
    "ticket_number": "Тикет",
    "responsible": "Ответственный",
    "breach_unit": "Просрочено на группе",
    "breach_task": "Номер запроса",
    "breach_at": "Момент просрочки",
    "sla_minutes": "SLA, мин",
    "counted_seconds": "Учтено, с",
    "overrun_seconds": "Превышение, с",
    "add_date": "Дата закрытия",
    "comment": "Отчёт",
}
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def to_csv(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str], zone: tzinfo) -> bytes:
    """The rows under the columns' titles; instants in `zone`."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
    writer.writerow(columns.values())
    writer.writerows([_cell(row[name], zone) for name in columns] for row in rows)
    return b"\xef\xbb\xbf" + text.getvalue().encode("utf-8", "replace")


def _cell(value: Any, zone: tzinfo) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, date):
        return value.isoformat()
    if not isinstance(value, str):
        return f"{value:g}" if isinstance(value, float) else str(value)
    # a spreadsheet takes a text that begins so for a formula, blanks before it or not
    return f"'{value}" if value.lstrip(" \u00a0").startswith(_FORMULA) else value
