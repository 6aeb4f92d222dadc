"""A board on a free port over tables of its own."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import httpx

from resources.ttm.analysis import Analysis, ExpiredRow
from resources.ttm.database import Attempt, TtmDatabase
from resources.ttm.requester import HubClient
from resources.ttm.settings import SettingError
from resources.ttm.suspended import SuspendedRow
from resources.ttm.suspended_list import Plan
from services.ttm_board.__main__ import server
from services.ttm_board.config import BoardConfig
from services.ttm_board.data import Board, HubWatch

ZONE = ZoneInfo("Europe/Moscow")
YESTERDAY = datetime.now(ZONE).date() - timedelta(days=1)


def no_hub() -> HubClient:
    raise SettingError("TTM_SERVER is not set.")


def suspended(number: int, *, hours: float | None = 5, **changes: Any) -> SuspendedRow:
    """A row whose deadline comes in so many hours."""
    now = datetime.now(UTC).replace(microsecond=0)
    sla = None if hours is None else now + timedelta(hours=hours)
    row = SuspendedRow(
        *(f"{number}-3", now, now - timedelta(hours=1), now + timedelta(hours=3)),
        *("Лугов Тест", "ждём доступ", "Линия 2 Сигма", sla, number),
    )
    return replace(row, **changes)


def breach(number: int, unit: str, overrun: int = 3600, day: date = YESTERDAY) -> tuple[ExpiredRow, Analysis]:
    analysis = Analysis(
        *("breached", unit, f"Результат: SLA превышен\nПросрочено на группе: {unit}", 60),
        counted_seconds=3600 + overrun,
        overrun_seconds=overrun,
        breach_task=f"{number}-2",
        breach_unit=unit,
        breach_at=datetime.now(UTC),
        by_unit={unit: 3600 + overrun},
        close_date=day,
    )
    return ExpiredRow(number, unit, analysis.report, day), analysis


@dataclass
class Shown:
    """A running board and what stands behind it."""

    url: str
    database: TtmDatabase
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def suspend(self, *rows: SuspendedRow, partial: bool = False) -> None:
        """The list becomes these rows."""
        self.started += timedelta(microseconds=1)
        at = max(self.started, datetime.now(UTC))
        self.started = at
        plan = Plan({r.task_number: r for r in rows}, {}, {}, partial)
        self.database.sync_stopped(plan, Attempt(at, len(rows), complete=not partial))

    def expire(self, *facts: tuple[ExpiredRow, Analysis], problem: str | None = None) -> None:
        """Yesterday is loaded with these rows."""
        self.database.save_expired(facts)
        attempt = Attempt(datetime.now(UTC), len(facts), problem=problem, complete=problem is None)
        self.database.note("expires_tickets", attempt, len(facts), YESTERDAY)

    def get(self, path: str = "/", **options: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", trust_env=False, **options)


@contextmanager
def board(
    database: TtmDatabase, config: BoardConfig | None = None, hub: Callable[[], HubClient] = no_hub
) -> Iterator[Shown]:
    """The board as `python -m services.ttm_board` runs it, in a thread."""
    config = replace(config or BoardConfig(refresh_s=0.1), port=0)
    running = server(Board(database, HubWatch(hub)), config)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not running.started and time.monotonic() < until:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    try:
        yield Shown(f"http://127.0.0.1:{port}", database)
    finally:
        running.handle_exit(signal.SIGTERM, None)  # lines of browsers end too
        thread.join(20)
