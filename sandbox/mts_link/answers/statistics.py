"""Answers about what was held: statistics, records, conversions."""

from typing import Any

from sandbox.mts_link.answers.base import MORE_PAGES, Base
from sandbox.mts_link.org import CONVERTED, DAY, EVENT, RECORD, ROOM, SESSION, USER, colon, h, naive, stamp
from sandbox.mts_link.wire import NOT_FOUND, ApiError, Query, by_offset, by_page, day, instant, items


class Statistics(Base):
    """Methods of statistics and records."""

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

    def converted_of_session(self, query: Query, session: str) -> Any:
        number = int(session) if session.isdigit() else 0
        if ROOM <= number < ROOM + self.org.config.rooms:
            return []
        s = self.session(session)
        if not self.is_converted(s):
            return []
        row = {"downloadUrl": self.file_url(CONVERTED + s)}
        return row if s % 8 == 0 else [row]

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
            "user": self.brief(self.org.event_of(s) % self.org.config.staff),
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
