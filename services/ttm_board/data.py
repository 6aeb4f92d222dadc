"""What the board shows, read from the ticket tables and from the hub."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from resources.ttm.database import TtmDatabase
from resources.ttm.protocol import HUB_UNREACHABLE, TtmError
from resources.ttm.requester import HubClient
from resources.ttm.settings import SettingError

STOPPED = "select * from stopped_tickets"
EXPIRED = """
select ticket_number, responsible, comment, add_date, outcome, sla_minutes, counted_seconds, overrun_seconds,
  breach_task, breach_unit, breach_at
from expires_tickets where add_date = :day order by overrun_seconds desc nulls last, ticket_number"""
LOADS = (
    "select * from ttm_loads where (table_name, day) in (('stopped_tickets', ''), ('expires_tickets', :day))"
)
VERSION = """
select md5(concat(
  (select string_agg(s::text, '|' order by s.task_number) from stopped_tickets s),
  (select string_agg(l::text, '|' order by l.table_name, l.day) from ttm_loads l))) as version"""

SHOWN = {"instance": "?", "upstream": "unknown", "inflight": 0, "capacity": 0, "done": 0, "lost": 0}


@dataclass(frozen=True, slots=True)
class Hub:
    """The hub's own report; `problem` says why there is none. `seen_at`: when it was asked."""

    connectors: tuple[Mapping[str, Any], ...] = ()
    queued: int = 0
    problem: str | None = "ещё не опрошен"
    seen_at: datetime | None = None

    @property
    def state(self) -> str:
        """What of it is worth telling browsers; the counters change all the time."""
        shown = [(c.get("instance"), c.get("upstream")) for c in self.connectors]
        return json.dumps([self.problem, sorted(map(str, shown))], ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything on one page: rows as dictionaries with the tables' names, instants in UTC."""

    stopped: list[dict[str, Any]]
    expired: list[dict[str, Any]]
    day: date
    loads: Mapping[str, Mapping[str, Any]]
    hub: Hub
    version: str


class HubWatch:
    """Asks the hub how its connectors are; one question at a time, from any thread."""

    def __init__(self, client: Callable[[], HubClient]) -> None:
        """`client` opens a client; it may raise SettingError, which then is what the board shows."""
        self._open, self._client = client, None
        self._lock = threading.Lock()
        self.last = Hub()

    def ask(self) -> Hub:
        with self._lock:
            try:
                self._client = self._client or self._open()
                reply = self._client.status()
                connectors = tuple(
                    {**SHOWN, **c} for c in reply.get("connectors") or () if isinstance(c, dict)
                )
                self.last = Hub(connectors, int(reply.get("queued") or 0), None, datetime.now(UTC))
            except SettingError as error:
                self.last = Hub(problem=f"не настроен: {error}", seen_at=datetime.now(UTC))
            except TtmError as error:
                away = "не отвечает" if error.code == HUB_UNREACHABLE else f"отказал ({error.code})"
                self.last = Hub(problem=away, seen_at=datetime.now(UTC))
            return self.last

    def close(self) -> None:
        if self._client:
            self._client.close()


@dataclass
class Board:
    """The two sources behind the page."""

    database: TtmDatabase
    hub: HubWatch
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def snapshot(self, day: date) -> Snapshot:
        """The rows of now and of that day. Raises PostgresError."""
        loads = self.database.rows(LOADS, day=str(day))
        return Snapshot(
            stopped=self.database.rows(STOPPED),
            expired=self.database.rows(EXPIRED, day=day),
            day=day,
            loads={row["table_name"]: row for row in loads},
            hub=self.hub.last,
            version=self.version(),
        )

    def version(self) -> str:
        """Changes when the page does. Raises PostgresError."""
        rows = self.database.rows(VERSION)[0]["version"]
        return hashlib.sha256(f"{rows}{self.hub.last.state}".encode()).hexdigest()[:16]
