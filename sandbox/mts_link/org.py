"""The organisation: who and what there is, each thing made from its number when it is asked for."""

import hashlib
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

from sandbox.mts_link.config import OrgConfig

ORGANISATION, TEAM = 9001, "1f0d3001-5854-6e4c-9d01-ca9a267b2001"
USER, GUEST, CONTACT, STUDENT = 7001001, 8001001, 1341001, 88001
EVENT, SESSION, ROOM, PARTICIPATION = 5010001, 6010001, 6910900, 600_000_000
TEST, TEST_SESSION, FILE, RECORD, CONVERTED = 9101, 91501, 3001001, 3_100_000, 3_500_000
COURSE, GROUP, TRANSCRIPT, CALL = 801, 8101, 41001, 770001
MSK = timezone(timedelta(hours=3))
FIRST = ("Анна", "Борис", "Вера", "Глеб", "Дарья", "Егор", "Зоя", "Иван")
LAST = ("Примерова", "Образцов", "Тестова", "Макетов", "Эскизова", "Черновик", "Шаблонова", "Пробный")
PLATFORMS = ("Web", "iOs", "Android")
DAY = 86_400


def h(*parts: object) -> int:
    """A number that depends on `parts` only."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=6).digest(), "big")


class Clock:
    """Unix seconds of the server: real, accelerated or standing still; `advance` moves it on."""

    def __init__(self, start: float | None, factor: float) -> None:
        self._base = time.time() if start is None else start
        self._origin, self.factor = time.monotonic(), factor

    def now(self) -> float:
        return self._base + (time.monotonic() - self._origin) * self.factor

    def advance(self, seconds: float) -> float:
        self._base += seconds
        return self.now()


class Org:
    """What the server knows. Numbers (`s`, `c`, …) count from 0; ids are what answers show."""

    def __init__(self, config: OrgConfig) -> None:
        self.config = config
        self.clock = Clock(config.clock_start, config.clock_factor)
        # the same for a month, so that an organisation that is started again is the same
        self.zero = int(self.clock.now()) // (30 * DAY) * (30 * DAY) - config.days * DAY
        self.step = max(600, (config.days + 50) * DAY // max(1, config.sessions))
        self.deleted: dict[str, set[int]] = {kind: set() for kind in ("session", "member", "record")}
        self.changed: dict[int, dict[str, Any]] = {}
        self.written: dict[int, list[int]] = {}  # chat -> when its added messages came, in milliseconds
        self.extra_calls = 0
        self.channel = lru_cache(1024)(self._channel)
        self.members_ever = lru_cache(1024)(self._members_ever)

    # People

    def member_numbers(self) -> list[int]:
        return [i for i in range(self.config.staff) if i not in self.deleted["member"]]

    def person(self, i: int) -> dict[str, Any]:
        """Names and addresses of an invented person."""
        first, last = FIRST[i % len(FIRST)], LAST[(i // len(FIRST)) % len(LAST)]
        return {"first": first, "last": last, "email": f"user{i}@example.com", "phone": f"+7000{i:07d}"}

    def chat_user(self, i: int) -> str:
        return f"1f0a{i:04x}-5854-6e4c-8b01-{h(self.config.seed, 'chat', i):012x}"

    def chat_user_number(self, uuid: str) -> int | None:
        try:
            i = int(uuid[4:8], 16)
        except ValueError:
            return None
        return i if self.chat_user(i) == uuid else None

    # Sessions

    def start(self, s: int) -> int:
        return self.changed.get(s, {}).get("start", self.zero + s * self.step)

    def end(self, s: int) -> int:
        return self.changed.get(s, {}).get("end", self.start(s) + 1800 + h(s, "len") % 3600)

    def status(self, s: int) -> str:
        if "status" in (chosen := self.changed.get(s, {})):
            return chosen["status"]
        now = self.clock.now()
        return "STOP" if self.end(s) <= now else "START" if self.start(s) <= now else "ACTIVE"

    def session_numbers(self, since: float | None = None, until: float | None = None) -> Iterator[int]:
        """Sessions that start in [since, until]."""
        gone = self.deleted["session"]
        for s in range(self.config.sessions):
            start = self.start(s)
            if s not in gone and (since is None or start >= since) and (until is None or start <= until):
                yield s

    def exists(self, s: int) -> bool:
        return 0 <= s < self.config.sessions and s not in self.deleted["session"]

    def finished(self, s: int) -> bool:
        return self.status(s) == "STOP"

    def event_of(self, s: int) -> int:
        return s // self.config.sessions_per_event

    def sessions_of(self, e: int) -> list[int]:
        size = self.config.sessions_per_event
        return [s for s in range(e * size, min((e + 1) * size, self.config.sessions)) if self.exists(s)]

    def event_numbers(self) -> list[int]:
        size = self.config.sessions_per_event
        count = -(-self.config.sessions // size)
        return [e for e in range(count) if self.sessions_of(e)]

    def participants(self, s: int) -> int:
        """How many took part: between half and one and a half times the average."""
        average = self.config.participants
        return (
            average // 2
            + h(self.config.seed, "n", s) % (average + 1)
            + self.changed.get(s, {}).get("more", 0)
        )

    def participant(self, s: int, p: int) -> tuple[int, int | None]:
        """(user id, number of the employee) of participant `p`; every fifth one is a guest."""
        if p % 5 == 4 or p >= self.config.staff:  # each a person once
            return GUEST + (s * 7 + p) % max(100, self.config.contacts), None
        i = (s * 3 + p) % self.config.staff
        return USER + i, i

    def visited(self, s: int, p: int) -> bool:
        return self.finished(s) and h(s, p, "came") % 4 > 0

    def connections(self, s: int, p: int) -> list[dict[str, Any]]:
        """Times in the room, one or two."""
        found, at = [], self.start(s) + h(s, p) % 300
        for n in range(1 + h(s, p, "twice") % 2):
            seconds = 300 + h(s, p, n) % 900
            found.append(
                {
                    "joined": stamp(at),
                    "leaved": stamp(at + seconds),
                    "duration": seconds,
                    "country": "RU",
                    "city": "Moscow",
                    "referrer": "",
                    "platform": PLATFORMS[h(s, p, "on") % 3],
                }
            )
            at += seconds + 60
        return found

    def checkpoints(self, s: int) -> int:
        return 2 if s % 3 == 0 else 0

    # Chats

    def members_of(self, c: int) -> list[int]:
        """Numbers of a channel's members; the first channel has everybody."""
        return [i for i in self.members_ever(c) if i not in self.deleted["member"]]

    def chat_id(self, c: int) -> str:
        return f"1f0c{c:04x}-5854-6e4c-9c01-{h(self.config.seed, 'channel', c):012x}"

    def chat_number(self, uuid: str) -> int | None:
        try:
            c = int(uuid[4:8], 16)
        except ValueError:
            return None
        return c if 0 <= c < self.config.channels and self.chat_id(c) == uuid else None

    def message_count(self, c: int) -> int:
        share, rest = divmod(self.config.messages, max(1, self.config.channels))
        return share + (c < rest) + len(self.written.get(c, ()))

    def message_id(self, c: int, m: int) -> str:
        return f"1f0f{m >> 16:04x}-{m & 0xFFFF:04x}-6e4c-{c:04x}-{h(c, m):012x}"

    def message_number(self, c: int, uuid: str) -> int | None:
        try:
            m = (int(uuid[4:8], 16) << 16) + int(uuid[9:13], 16)
        except ValueError:
            return None
        return m if self.message_id(c, m) == uuid else None

    def message_ms(self, c: int, m: int) -> int:
        """Older messages are spread over the days, added ones came when they were written."""
        added = self.written.get(c, [])
        born = self.message_count(c) - len(added)
        if m >= born:
            return added[m - born]
        return (self.zero * 1000) + (m + 1) * (self.config.days * DAY * 1000 // (born + 1)) + c

    def message(self, c: int, m: int) -> dict[str, Any]:
        members = self.members_ever(c)
        return {
            "id": self.message_id(c, m),
            "chatId": self.chat_id(c),
            "authorId": self.chat_user(members[h(c, m) % len(members)]),
            "text": f"Сообщение {m} в чате {c}",
            "createdAtMs": self.message_ms(c, m),
        }

    def _members_ever(self, c: int) -> tuple[int, ...]:
        """Members when the messages were written."""
        seed, owner = self.config.seed, c % self.config.staff
        everybody = range(self.config.staff)
        return tuple(i for i in everybody if c == 0 or i == owner or h(seed, c, i) % 5 == 0)

    def _channel(self, c: int) -> dict[str, Any]:
        return {
            "chatId": self.chat_id(c),
            "organizationId": TEAM,
            "name": "Общий" if c == 0 else f"Проект {c}",
            "isPublic": c % 3 == 0,
            "isReadOnly": False,
            "ownerID": self.chat_user(c % self.config.staff),
            "type": "Channel",
        }

    # Tests

    def test_session(self, t: int) -> int | None:
        """The session in which test `t` was run; None for a draft."""
        s = (t * 3) % self.config.sessions
        return s if t % 4 != 3 and self.exists(s) and self.finished(s) else None

    def test_people(self, t: int) -> list[int]:
        """Participants (numbers) who took the test."""
        s = self.test_session(t)
        return [] if s is None else [p for p in range(self.participants(s)) if h(t, p) % 2]


def stamp(at: float) -> str:
    """`2018-09-27T19:54:41+0300`, as older methods write it."""
    return datetime.fromtimestamp(at, MSK).strftime("%Y-%m-%dT%H:%M:%S+0300")


def colon(at: float) -> str:
    """`2025-04-03T10:00:00+03:00`, as newer methods write it."""
    return datetime.fromtimestamp(at, MSK).isoformat(timespec="seconds")


def naive(at: float) -> str:
    """`2019-04-30 12:02:14`, as records and tests write it: Moscow time."""
    return datetime.fromtimestamp(at, MSK).strftime("%Y-%m-%d %H:%M:%S")


def php(at: float) -> dict[str, Any]:
    """A serialised DateTime, as courses write it."""
    return {"date": f"{naive(at)}.000000", "timezone_type": 3, "timezone": "Europe/Moscow"}
