"""Answers about events: schedules, series, sessions, permanent rooms."""

from typing import Any

from sandbox.mts_link.answers.base import MORE_PAGES, PAGES, Base
from sandbox.mts_link.org import CALL, DAY, EVENT, ORGANISATION, ROOM, SESSION, USER, colon, h, stamp
from sandbox.mts_link.wire import BAD, ApiError, Query, by_page, instant, items


class Events(Base):
    """Methods of events."""

    # Schedules

    def schedule(self, query: Query) -> Any:
        events = self._scheduled(query, self.org.event_numbers())
        return by_page(query, events, lambda e: self.event_row(e, query), PAGES, 10, strict=True)

    def user_schedule(self, query: Query, user: str) -> Any:
        number = self.member(user)
        mine = [e for e in self.org.event_numbers() if e % self.org.config.staff == number]
        return by_page(
            query, self._scheduled(query, mine), lambda e: self.event_row(e, query), PAGES, 10, strict=True
        )

    def _scheduled(self, query: Query, events: list[int]) -> list[int]:
        wanted = {v for k, v in query.items() if k.startswith("status[")}
        if "status" in query:
            raise ApiError(400, BAD)
        since, until = self._period(query)
        found = []
        for e in events:
            sessions = [s for s in self.org.sessions_of(e) if since <= self.org.start(s) <= until]
            if sessions and (not wanted or {self.org.status(s) for s in sessions} & wanted):
                found.append(e)
        return found

    def _period(self, query: Query) -> tuple[float, float]:
        since = instant(query, "from", self.org.clock.now())
        return since, instant(query, "to", since + 366 * DAY)

    def event_row(self, e: int, query: Query) -> dict[str, Any]:
        """An item of a schedule: numbers are texts, only sessions of the period are inside."""
        since, until = self._period(query)
        org, sessions = self.org, self.org.sessions_of(e)
        inside = [s for s in sessions if since <= org.start(s) <= until]
        row = self._outline(sessions[0]) | {
            "id": str(EVENT + e),
            "endsAt": stamp(org.end(sessions[-1])),
            "eventSessions": [self.session_row(s) for s in inside],
            "rule": f"FREQ=WEEKLY;COUNT={len(sessions)}",
        }
        return row | {"status": "STOP" if all(org.finished(s) for s in sessions) else "ACTIVE"}

    def _outline(self, s: int) -> dict[str, Any]:
        org, name = self.org, self.org.changed.get(s, {}).get("name")
        return {
            "status": org.status(s),
            "access": "1",
            "name": name or f"Вебинар {org.event_of(s)}",
            "startsAt": stamp(org.start(s)),
            "endsAt": stamp(org.end(s)),
            "isArchive": "0",
            "createUserId": str(USER + org.event_of(s) % org.config.staff),
            "type": ("webinar", "meeting", "training")[s % 3],
            "estimatedAt": stamp(org.start(s)),
            "timezoneName": "Europe/Moscow",
            "image": "https://storage.example.com/images/event-default.png",
            "tags": [],
            "files": [],
            "lectors": [],
        }

    def session_row(self, s: int) -> dict[str, Any]:
        org = self.org
        row = self._outline(s) | {
            "id": str(SESSION + s),
            "eventId": str(EVENT + org.event_of(s)),
            "participationsCount": str(org.participants(s)),
        }
        if org.finished(s) and self.has_record(s):
            url = f"https://my.example.com/{ORGANISATION}/record-new/{SESSION + s}"
            row["recordUrl"] = {"id": str(SESSION + s), "name": row["name"], "url": url}
        return row

    def series(self, query: Query, event: str) -> Any:
        e = self.event(event)
        sessions = self.org.sessions_of(e)
        details = self._details(sessions[0]) | {"id": EVENT + e, "rule": "FREQ=WEEKLY"}
        return details | {"eventSessions": [self._details(s) for s in sessions]}

    def details(self, query: Query, session: str) -> Any:
        return self._details(self.session(session))

    def _details(self, s: int) -> dict[str, Any]:
        org, owner = self.org, self.org.person(self.org.event_of(s) % self.org.config.staff)
        row = self._outline(s) | {
            "id": SESSION + s,
            "description": "",
            "access": 4,
            "accessSettings": [] if s % 2 else {"isPasswordRequired": False},
            "additionalFields": [{"key": "f1", "label": "Отчество", "type": "text", "isRequired": True}],
            "lang": "RU",
            "utcStartsAt": org.start(s),
            "createUserId": USER + org.event_of(s) % org.config.staff,
            "timezoneId": 1,
            "organizationId": ORGANISATION,
            "createUser": {
                "id": USER + org.event_of(s) % org.config.staff,
                "name": owner["first"],
                "secondName": owner["last"],
                "email": owner["email"],
            },
            "startType": "manual",
            "announceFiles": [],
        }
        if not org.finished(s):
            del row["endsAt"]
        return row

    # Permanent rooms

    def rooms(self, query: Query) -> Any:
        since = instant(query, "updatedFrom", 0)
        found = [r for r in range(self.org.config.rooms) if self.room_updated(r) >= since]
        return items(by_page(query, found, self._room, (*MORE_PAGES, 1000), 1000))

    def room_updated(self, r: int) -> float:
        calls = [self.call_start(k) for k in range(self.calls()) if k % self.org.config.rooms == r]
        return max([self.org.zero, *calls]) + 1

    def _room(self, r: int) -> dict[str, Any]:
        return {
            "id": ROOM + r,
            "name": f"Комната {r}",
            "description": "",
            "eventId": EVENT + 900_000 + r,
            "status": "IDLE",
            "createdAt": colon(self.org.zero),
            "updatedAt": colon(self.room_updated(r)),
            "createdByUser": self.brief(r % self.org.config.staff),
        }

    def calls(self) -> int:
        """Calls that are over."""
        return (self.org.config.rooms * 10 if self.org.config.rooms else 0) + self.org.extra_calls

    def call_start(self, k: int) -> int:
        usual = self.org.config.rooms * 10
        if k >= usual:
            return int(self.org.clock.now()) - 3600
        return self.org.zero + k * self.org.config.days * DAY // (usual + 1)

    def activities(self, query: Query) -> Any:
        since = instant(query, "fromDate", self.org.clock.now() - 30 * DAY)
        until = instant(query, "toDate", self.org.clock.now())
        found = [k for k in range(self.calls()) if since <= self.call_start(k) <= until]
        return items(by_page(query, found, self.call, MORE_PAGES, 50))

    def call(self, k: int) -> dict[str, Any]:
        r, at = k % self.org.config.rooms, self.call_start(k)
        people = sorted({(k + n) % self.org.config.staff for n in range(2 + h(k, "people") % 3)})
        return {
            "id": CALL + k,
            "startedAt": colon(at),
            "finishedAt": colon(at + 600 + h(k, "len") % 3000),
            "eventSession": {
                "id": ROOM + r,
                "name": f"Комната {r}",
                "eventId": EVENT + 900_000 + r,
                "createdBy": self.brief(r % self.org.config.staff),
            },
            "participants": [self.brief(i) for i in people],
        }
