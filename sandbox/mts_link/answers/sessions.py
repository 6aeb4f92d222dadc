"""Answers about what a session holds: people, chat, questions, transcripts, attention, reactions."""

from typing import Any

from sandbox.mts_link.answers.base import MORE_PAGES, Base
from sandbox.mts_link.org import DAY, EVENT, PARTICIPATION, ROOM, SESSION, TRANSCRIPT, colon, h, stamp
from sandbox.mts_link.wire import BAD, NOT_FOUND, ApiError, Query, by_cursor, by_page, items, whole


class Sessions(Base):
    """Methods of a session."""

    # Notes and transcripts

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

    # People and what they wrote

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
