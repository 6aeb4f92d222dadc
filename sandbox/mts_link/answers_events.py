"""Answers about events: schedules, sessions, participations, statistics, records."""

from typing import Any

from sandbox.mts_link.org import (
    CALL,
    CONVERTED,
    DAY,
    EVENT,
    ORGANISATION,
    PARTICIPATION,
    RECORD,
    ROOM,
    SESSION,
    TRANSCRIPT,
    USER,
    Org,
    colon,
    h,
    naive,
    stamp,
)
from sandbox.mts_link.wire import (
    BAD,
    NOT_FOUND,
    ApiError,
    Query,
    by_cursor,
    by_offset,
    by_page,
    day,
    instant,
    items,
    whole,
)

PAGES = (10, 50, 100, 250)
MORE_PAGES = (*PAGES, 500)


class Events:
    """Methods of the group of events, by name; `org` is what they tell of."""

    def __init__(self, org: Org) -> None:
        self.org = org

    # Numbers behind ids

    def session(self, text: str) -> int:
        number = int(text) - SESSION if text.isdigit() else -1
        if not self.org.exists(number):
            raise ApiError(404, NOT_FOUND)
        return number

    def event(self, text: str) -> int:
        number = int(text) - EVENT if text.isdigit() else -1
        if not 0 <= number * self.org.config.sessions_per_event < self.org.config.sessions:
            raise ApiError(404, NOT_FOUND)
        if not self.org.sessions_of(number):
            raise ApiError(404, NOT_FOUND)
        return number

    def member(self, text: str) -> int:
        number = int(text) - USER if text.isdigit() else -1
        if number not in self.org.member_numbers():
            raise ApiError(404, NOT_FOUND)
        return number

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
            "createdByUser": self._brief(r % self.org.config.staff),
        }

    def _brief(self, i: int) -> dict[str, Any]:
        person = self.org.person(i)
        return {"id": USER + i, "name": person["first"], "secondName": person["last"]}

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
                "createdBy": self._brief(r % self.org.config.staff),
            },
            "participants": [self._brief(i) for i in people],
        }

    # What a session holds

    def agendas(self, query: Query, session: str) -> Any:
        s = self.session(session)
        if s % 6:
            raise ApiError(404, NOT_FOUND)
        return items(
            [{"id": 660001 + s, "title": "Повестка", "text": "1.", "createdAt": colon(self.org.start(s))}]
        )

    def transcripts(self, query: Query, session: str) -> Any:
        return by_cursor(query, self.transcript_numbers(session), self._transcript)

    def transcript_numbers(self, session: str) -> list[int]:
        """Transcripts of a session or room; none before its end."""
        number = int(session) if session.isdigit() else 0
        if ROOM <= number < ROOM + self.org.config.rooms:
            return [500_000 + number - ROOM]
        s = self.session(session)
        return [s] if s % 2 == 0 and self.org.finished(s) else []

    def _transcript(self, n: int) -> dict[str, Any]:
        at = self.org.zero if n >= 500_000 else self.org.end(n) + 600
        return {
            "id": TRANSCRIPT + n,
            "status": "published" if n % 4 == 0 else "preparing",
            "createdAt": colon(at),
        }

    def transcript(self, query: Query, transcript: str) -> Any:
        n = int(transcript) - TRANSCRIPT if transcript.isdigit() else -1
        if n < 0 or n % 4:
            raise ApiError(404, NOT_FOUND)
        said = [{"participant": "Анна Примерова", "text": "Начнём."}]
        return {
            "data": {
                "id": TRANSCRIPT + n,
                "summary": {"status": "completed", "text": f"Итоги {n}"},
                "items": said,
            }
        }

    def participations(self, query: Query, session: str) -> Any:
        s = self.session(session)
        numbers = range(self.org.participants(s))
        return by_page(query, numbers, lambda p: self._participation(s, p), MORE_PAGES, 50)

    def _participation(self, s: int, p: int) -> dict[str, Any]:
        user, i = self.org.participant(s, p)
        person = self.org.person(i if i is not None else user - 8_000_000)
        return {
            "id": PARTICIPATION + s * 1000 + p,
            "name": person["first"],
            "secondName": person["last"],
            "email": person["email"],
            "avatar": [] if p % 2 else {},
            "eventId": EVENT + self.org.event_of(s),
            "eventSessionId": SESSION + s if p % 2 else str(SESSION + s),
            "isAccepted": 1,
            "role": "GUEST" if i is None else "LECTURER" if p else "ADMIN",
            "isSeen": p % 2,
            "agreementStatus": "AGREED",
            "userId": user,
            "isOnline": "0",
            "registerStatus": "INVITED",
            "paymentStatus": "NOT_PAID",
            "url": f"{h(s, p):032x}",
            "registerDate": stamp(self.org.start(s) - 3 * DAY),
            "additionalFieldValues": [{"label": "Отчество", "value": "Тестович"}],
            "visited": self.org.visited(s, p),
        }

    def series_participations(self, query: Query, event: str) -> Any:
        s = self.org.sessions_of(self.event(event))[0]

        def row(p: int) -> dict[str, Any]:
            return self._participation(s, p) | {"eventSessionId": None}

        return by_page(query, range(min(2, self.org.participants(s))), row, MORE_PAGES, 50)

    def chat(self, query: Query, session: str) -> Any:
        s = self.session(session)
        limit = whole(query, "limit", 100)
        count = h(s, "chat") % 5 if self.org.finished(s) else 0
        return [self._chat_message(s, n) for n in range(count)][-limit:]

    def _chat_message(self, s: int, n: int) -> dict[str, Any]:
        user, i = self.org.participant(s, n)
        at = stamp(self.org.start(s) + 60 * n)
        person = self.org.person(i or 0)
        return {
            "id": 550_000_000 + s * 100 + n,
            "authorName": f"{person['first']} {person['last']}",
            "text": f"Слышно хорошо {n}",
            "isModerated": True,
            "sentByAdmin": False,
            "avatarUrl": None,
            "thumbnails": [],
            "authorId": user,
            "createAt": at,
            "updateAt": at,
            "attachments": [],
        }

    def questions(self, query: Query, session: str) -> Any:
        s = self.session(session)
        if not self.org.finished(s):
            return []
        at = stamp(self.org.start(s) + 600)
        return [
            {
                "id": 540_000_000 + s * 100 + n,
                "createAt": at,
                "text": "Будет ли запись?",
                "user": {"id": self.org.participant(s, n)[0], "nickname": "Слушатель", "photo": None},
                "answers": [],
                "isModerated": True,
                "isAnswered": n % 2 == 0,
            }
            for n in range(h(s, "questions") % 3)
        ]

    # Attention and reactions

    def checkpoints(self, query: Query, session: str) -> Any:
        s = self.session(session)
        count = self.org.checkpoints(s) if self.org.finished(s) else 0
        at = self.org.start(s)
        return items(
            [
                {
                    "id": 530_000_000 + s * 10 + n,
                    "startedAt": colon(at + 600 * n),
                    "endedAt": colon(at + 600 * n + 60),
                    "isEnded": True,
                }
                for n in range(count)
            ]
        )

    def interactions(self, query: Query, session: str) -> Any:
        s = self.session(session)
        if "page" not in query or "perPage" not in query:
            raise ApiError(400, BAD)
        pairs = [
            (p, n)
            for p in range(self.org.participants(s))
            if self.org.visited(s, p)
            for n in range(self.org.checkpoints(s))
        ]
        rows = by_page(query, pairs, lambda pair: self._interaction(s, *pair), (*MORE_PAGES, 20, 30), 50)
        return items(rows, len(pairs))

    def _interaction(self, s: int, p: int, n: int) -> dict[str, Any]:
        at = self.org.start(s) + 600 * n
        return {
            "id": 531_000_000 + s * 1000 + p * 10 + n,
            "participantId": PARTICIPATION + s * 1000 + p,
            "checkpointId": 530_000_000 + s * 10 + n,
            "shownAt": colon(at),
            "confirmedAt": colon(at + 10) if h(s, p, n, "sure") % 3 else None,
        }

    def hands(self, query: Query, session: str) -> Any:
        return self._reactions(query, session, "hand", {"raisedAt": 300, "loweredAt": 330}, named=True)

    def likes(self, query: Query, session: str) -> Any:
        return self._reactions(query, session, "like", {"reactedAt": 400}, count=2)

    def emoji(self, query: Query, session: str) -> Any:
        return self._reactions(query, session, "emoji", {"reactedAt": 500}, count=1, code="1F602")

    def _reactions(
        self,
        query: Query,
        session: str,
        kind: str,
        times: dict[str, int],
        *,
        named: bool = False,
        **more: Any,
    ) -> Any:
        s = self.session(session)
        people = [
            p for p in range(self.org.participants(s)) if self.org.visited(s, p) and h(s, p, kind) % 4 == 0
        ]

        def row(p: int) -> dict[str, Any]:
            at = {name: colon(self.org.start(s) + seconds) for name, seconds in times.items()}
            own = {"id": 532_000_000 + s * 1000 + p} if named else {}
            return own | {"participantId": PARTICIPATION + s * 1000 + p} | at | more

        return items(by_page(query, people, row, (10, 50, 100), 10), len(people))

    # Statistics

    def _held(self, query: Query) -> list[int]:
        since = instant(query, "from")
        until = instant(query, "to", self.org.clock.now())
        found = [s for s in self.org.session_numbers(since, until) if self.org.finished(s)]
        if "eventId" in query:
            found = [s for s in found if str(EVENT + self.org.event_of(s)) == query["eventId"]]
        if not found:
            raise ApiError(404, NOT_FOUND)
        return found

    def users_stats(self, query: Query) -> Any:
        people: dict[int, dict[str, Any]] = {}
        for s in self._held(query):
            for p in range(self.org.participants(s)):
                if self.org.visited(s, p):
                    user, i = self.org.participant(s, p)
                    row = people.setdefault(user, self._visitor(user, i))
                    row["eventSessions"].append(self._in_session(s, p))
        return list(people.values())

    def _visitor(self, user: int, i: int | None) -> dict[str, Any]:
        person = self.org.person(i if i is not None else user - 8_000_000)
        return {
            "id": user,
            "email": person["email"],
            "name": person["first"],
            "secondName": person["last"],
            "pattrName": "Тестович",
            "sex": "f" if user % 2 else "m",
            "phone": person["phone"],
            "organization": "ООО Ромашка",
            "position": "Инженер",
            "eventSessions": [],
        }

    def _in_session(self, s: int, p: int) -> dict[str, Any]:
        org, shown = self.org, self.org.checkpoints(s)
        sure = sum(1 for n in range(shown) if h(s, p, n, "sure") % 3)
        return {
            "id": SESSION + s,
            "name": f"Вебинар {org.event_of(s)}",
            "startsAt": stamp(org.start(s)),
            "endsAt": stamp(org.end(s)),
            "duration": org.end(s) - org.start(s),
            "eventId": EVENT + org.event_of(s),
            "questionCount": 1,
            "userQuestionCount": 0,
            "chatMessageCount": 2,
            "userChatMessageCount": 1,
            "additionalFieldValues": [],
            "actualInvolvement": 50 + h(s, p, "inv") % 50,
            "speechDuration": h(s, p, "speech") % 300,
            "percentOfTotalSpeechDuration": h(s, p, "share") % 100,
            "usersReactionClicks": h(s, p, "clicks") % 4,
            "percentOfTotalReactionClicks": 10,
            "actualParticipantActivityPercent": 80.5,
            "rating": 5 if p % 2 else None,
            "attentionControl": {
                "percent": round(100 * sure / shown) if shown else None,
                "shownCount": shown,
                "confirmedCount": sure,
            },
            "connections": org.connections(s, p),
            "utms": [],
        }

    def events_stats(self, query: Query) -> Any:
        return [self._event_stat(s) for s in self._held(query)]

    def _event_stat(self, s: int) -> dict[str, Any]:
        org, count = self.org, self.org.participants(s)
        came = sum(org.visited(s, p) for p in range(count))
        return {
            "id": SESSION + s,
            "name": f"Вебинар {org.event_of(s)}",
            "startsAt": stamp(org.start(s)),
            "endsAt": stamp(org.end(s)),
            "duration": org.end(s) - org.start(s),
            "invitedCount": count,
            "invitedVisitedCount": came,
            "registeredCount": 0,
            "registeredVisitedCount": 0,
            "attendance": round(100 * came / count, 1) if count else 0,
            "country": [],
            "platform": [],
            "utms": [],
            "referrer": [],
            "createUser": {"id": USER + org.event_of(s) % org.config.staff},
        }

    def visits(self, query: Query) -> Any:
        if not (query.get("email") or query.get("contactId")):
            raise ApiError(400, "Email or contact ID is mandatory")
        held = self._held(query)
        number = next(
            (i for i in self.org.member_numbers() if self.org.person(i)["email"] == query.get("email")), None
        )
        if number is None:
            raise ApiError(404, NOT_FOUND)
        visited, missed = [], []
        for s in held:
            for p in range(self.org.participants(s)):
                if self.org.participant(s, p)[1] == number:
                    row = {"id": SESSION + s, "name": f"Вебинар {self.org.event_of(s)}"}
                    came = self.org.visited(s, p)
                    extra = {"referrer": "", "connections": self.org.connections(s, p)} if came else {}
                    (visited if came else missed).append(row | extra)
                    break
        return {"registered": [], "not_visited": missed, "visited": visited}

    # Records

    def has_record(self, s: int) -> bool:
        return s % 2 == 0 and s not in self.org.deleted["record"]

    def records(self, query: Query) -> Any:
        since = instant(query, "from")
        until = instant(query, "to", self.org.clock.now())
        found = [
            s
            for s in self.org.session_numbers()
            if self.org.finished(s) and self.has_record(s) and since <= self.org.end(s) + 60 <= until
        ]
        return by_offset(query, found, self._record, 10, 500)

    def _record(self, s: int) -> dict[str, Any]:
        return {
            "id": RECORD + s,
            "name": f"Вебинар {self.org.event_of(s)}",
            "link": f"https://my.example.com/romashka/record-new/{SESSION + s}",
            "isViewable": s % 4 == 0,
            "hasPassword": False,
            "size": 472_494 + s,
            "createAt": naive(self.org.end(s) + 60),
        }

    def is_converted(self, s: int) -> bool:
        return s % 4 == 0 and self.org.finished(s)

    def converted_of_session(self, query: Query, session: str) -> Any:
        number = int(session) if session.isdigit() else 0
        if ROOM <= number < ROOM + self.org.config.rooms:
            return []
        s = self.session(session)
        if not self.is_converted(s):
            return []
        row = {"downloadUrl": self.file_url(CONVERTED + s)}
        return row if s % 8 == 0 else [row]

    def file_url(self, number: int) -> str:
        return f"{self.base_url}/download/converted/{number}.mp4"

    base_url = "https://storage.example.com"

    def conversions(self, query: Query) -> Any:
        since = day(query, "from", self.org.clock.now() - 7 * DAY)
        until = day(query, "to", self.org.clock.now()) + DAY
        found = [s for s in self.org.session_numbers() if self.is_converted(s)]
        found = [s for s in found if since <= self.org.end(s) + 3600 <= until]
        return items(by_page(query, found, self._conversion, MORE_PAGES, 50))

    def _conversion(self, s: int) -> dict[str, Any]:
        return {
            "id": CONVERTED + s,
            "createAt": colon(self.org.end(s) + 3600),
            "user": self._brief(self.org.event_of(s) % self.org.config.staff),
            "convertedAt": colon(self.org.end(s) + 5000),
            "state": "completed",
            "progress": 100,
            "recordFile": {"id": RECORD + s},
            "eventSession": {"id": SESSION + s, "name": f"Вебинар {self.org.event_of(s)}"},
        }

    def streams(self, query: Query) -> Any:
        wanted = [v for k, v in query.items() if k.startswith("eventSessionsIds[")]
        found = []
        for text in wanted:
            s = self.session(text)
            if self.org.finished(s) and s % 5 == 0:
                streams = [{"url": f"https://storage.example.com/streams/{text}_1.mp4", "duration": 3600}]
                found.append({"eventSessionId": SESSION + s, "streams": streams})
        return found
