"""The state of an emulated ticket system, and what players and tests do to it."""

import json
import random
import secrets
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Any

from sandbox.ttm import data
from sandbox.ttm.data import CLOSED, MOSCOW, WAITING, Ticket
from sandbox.ttm.faults import Faults
from sandbox.ttm.query import TASK_FIELDS, TICKET_FIELDS, matching, page_of, task_rows, ticket_row

ARREARS = "sandbox-arrears"
STOPPED = "sandbox-stopped"
LIVE_IDS = 9_000_000
"""Tickets of today have ids from here, above those of any past day."""
CALLS_KEPT = 100_000


@dataclass
class SystemConfig:
    """Everything that tells one emulated system from another. Times are seconds."""

    seed: int = 1
    days: int = 14
    """Past days that have closed tickets."""
    per_day: int = 40
    suspended: int = 12
    """Tickets that wait at the start."""
    change_every: float = 0.0
    """One ticket is suspended, resumed or closed so often; 0 for never."""
    users: dict[str, str] = field(
        default_factory=lambda: {
            "sandbox@example.org": "sandbox0password",
            "second@example.org": "sandbox0second",
        }
    )
    """Passwords; a connector needs a user of its own, since a forced login ends the user's other one."""
    login_path: str = "/nttm-task-handler/api/authenticate"
    token_life: float = 3600.0
    latency: float = 0.0
    plain_without_ola: bool = False
    """`ticket/{id}` leaves out `ola`, `ticket/with-ola/{id}` has it."""
    folder: Path | None = None
    """Tickets and filters from here instead of invented ones: `tickets/*.json`, `filters/<key>.json`."""


@dataclass(frozen=True)
class Call:
    """One request, for tests that prove what was asked; never holds a body or a token."""

    method: str
    path: str
    user: str | None
    status: int | None
    began: float
    ended: float


@dataclass
class TicketSystem:
    """Tickets, saved filters and logins. Methods may be called from any thread."""

    config: SystemConfig = field(default_factory=SystemConfig)
    base_url: str = ""
    lock: RLock = field(default_factory=RLock)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self, config: SystemConfig | None = None) -> None:
        """Begin anew, at the same address."""
        self.config = config or self.config
        self.tickets: dict[int, Ticket] = {}
        self.filters: dict[str, Any] = {}
        self.faults = Faults()
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self.statuses: Counter[int] = Counter()
        self.in_flight = self.most_in_flight = 0
        self._tokens: dict[str, tuple[str, float]] = {}
        self._rng = random.Random(self.config.seed)
        self._next_id = LIVE_IDS
        self._read(self.config.folder) if self.config.folder else self._invent()

    # what the API asks

    def login(self, body: Any) -> tuple[int, str | dict[str, str]]:
        """(status, token or text). `force` ends older tokens of the user, which else are in the way."""
        name = str(body.get("username")) if isinstance(body, dict) else ""
        if name not in self.config.users or self.config.users[name] != body.get("password"):
            return 401, "Bad credentials"
        now = time.monotonic()
        with self.lock:
            mine = {t: until for t, (user, until) in self._tokens.items() if user == name}
            if max(mine.values(), default=now) > now and str(body.get("force", "")).lower() != "true":
                return 409, "User is already logged in"
            for token in mine:
                del self._tokens[token]
            token = secrets.token_urlsafe(32)
            self._tokens[token] = (name, now + self.config.token_life)
        return 200, {"id_token": token}

    def user_of(self, token: str) -> str | None:
        with self.lock:
            user, until = self._tokens.get(token, (None, 0.0))
            return user if until > time.monotonic() else None

    def logout(self, token: str) -> None:
        with self.lock:
            self._tokens.pop(token, None)

    def saved(self, key: str) -> dict[str, str] | None:
        """The saved filter, or None, which is answered as 200 `null`."""
        text = self.filters.get(key)
        return None if text is None else {"id": key, "name": f"Фильтр {key}", "filter": text}

    def page(self, kind: str, clauses: Any, query: dict[str, str]) -> dict[str, Any]:
        """One page of tickets or tasks. Raises BadRequest."""
        with self.lock:
            if kind == "ticket":
                rows = [ticket_row(t) for t in matching(self.tickets.values(), clauses, TICKET_FIELDS)]
            else:
                now = datetime.now(UTC)
                tasks = [row for ticket in self.tickets.values() for row in task_rows(ticket, now)]
                rows = matching(tasks, clauses, TASK_FIELDS)
            return page_of(rows, query)

    def ticket(self, number: int, with_ola: bool) -> Ticket | None:
        found = self.tickets.get(number)
        if found and self.config.plain_without_ola and not with_ola:
            return {name: value for name, value in found.items() if name != "ola"}
        return found

    # what players do

    def add(self, *tickets: Ticket) -> None:
        """Put tickets there, in place of those with the same id."""
        with self.lock:
            self.tickets.update({int(t["id"]): t for t in tickets})

    def suspend(self, number: int | None = None, minutes: float = 120) -> int:
        """Suspend that ticket, or a new one; its id."""
        with self.lock:
            now = datetime.now(UTC)
            if number is None:
                ticket = data.suspended(self._rng, self._fresh_id(), now)
                self.tickets[ticket["id"]] = ticket
                return ticket["id"]
            data.suspend(self._rng, self.tickets[number], now, now + timedelta(minutes=minutes))
            return number

    def resume(self, number: int) -> None:
        with self.lock:
            data.resume(self._rng, self.tickets[number], datetime.now(UTC))

    def close(self, number: int) -> None:
        with self.lock:
            data.close(self.tickets[number], datetime.now(UTC))

    def waiting(self) -> list[int]:
        """Ids of suspended tickets, ascending."""
        with self.lock:
            now = datetime.now(UTC)
            rows = [r for t in self.tickets.values() for r in task_rows(t, now) if r["taskType"] == WAITING]
            return sorted({int(row["ticketId"]) for row in rows})

    def change(self) -> None:
        """One ticket more waits, goes on, or is done; about as many wait afterwards."""
        waiting = self.waiting()
        if len(waiting) <= self.config.suspended or self._rng.random() < 0.2:
            self.suspend()
        elif self._rng.random() < 0.5:
            self.resume(self._rng.choice(waiting))
        else:
            self.close(self._rng.choice(waiting))

    def expire(self) -> None:
        """Every token ends now."""
        with self.lock:
            self._tokens.clear()

    def stats(self) -> dict[str, Any]:
        with self.lock:
            return {
                "tickets": len(self.tickets),
                "closed": sum(t.get("status") == CLOSED for t in self.tickets.values()),
                "waiting": len(self.waiting()),
                "requests": sum(self.statuses.values()),
                "statuses": {str(code): count for code, count in sorted(self.statuses.items())},
                "most_in_flight": self.most_in_flight,
                "faults": self.faults.report(),
            }

    # how it begins

    def _fresh_id(self) -> int:
        self._next_id += 1
        return self._next_id

    def _invent(self) -> None:
        now = datetime.now(UTC)
        today = (now + MOSCOW).date()
        for back in range(1, self.config.days + 1):
            self.add(*data.closed_on(today - timedelta(days=back), self.config.per_day, self.config.seed))
        for _ in range(self.config.suspended):
            self.suspend()
        self.filters = default_filters(today)

    def _read(self, folder: Path) -> None:
        for path in sorted((folder / "tickets").glob("*.json")):
            self.add(json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((folder / "filters").glob("*.json")):
            self.filters[path.stem] = path.read_text(encoding="utf-8")
        self.filters = {**default_filters(datetime.now(UTC).date()), **self.filters}


def default_filters(today: date) -> dict[str, str]:
    """Saved filters as people leave them: the one of overdue tickets holds the day on which it was saved."""
    saved = today - timedelta(days=30)
    overdue = [{"field": "closeDate", "searchOperation": "BETWEEN", "values": _day(saved)}]
    stopped = [{"field": "taskType", "searchOperation": "IN", "values": [WAITING]}]
    return {ARREARS: json.dumps(overdue), STOPPED: json.dumps(stopped, ensure_ascii=False)}


def _day(day: date) -> Iterable[str]:
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC) - MOSCOW
    return [f"{when:%Y-%m-%dT%H:%M:%SZ}" for when in (begin, begin + timedelta(days=1))]
