"""Answers about people, chats, courses, files, tests and settings."""

from typing import Any

from sandbox.mts_link.answers_events import Events
from sandbox.mts_link.org import (
    CONTACT,
    CONVERTED,
    COURSE,
    DAY,
    FILE,
    GROUP,
    STUDENT,
    TEAM,
    TEST,
    TEST_SESSION,
    USER,
    naive,
    php,
    stamp,
)
from sandbox.mts_link.wire import NOT_FOUND, ApiError, Query, by_offset, by_page, instant, items, whole

NO_CHANNEL = "Channel not found"


class People(Events):
    """Address book and staff."""

    def contact_row(self, n: int) -> dict[str, Any]:
        """Ids are texts; `name` holds the surname, as the documented example does."""
        person, staff = self.org.person(n), n < self.org.config.staff
        return {
            "id": str(CONTACT + n),
            "userId": str(USER + n) if staff else None,
            "name": person["last"],
            "secondName": person["first"],
            "company": "ООО Ромашка" if staff else "",
            "position": "Инженер" if staff else "",
            "phoneMain": person["phone"],
            "email": person["email"],
            "tags": [{"id": "551", "isPublic": True, "name": "Клиенты"}] if n % 2 else [],
        }

    def contacts(self, query: Query) -> Any:
        rows = [self.contact_row(n) for n in range(self.org.config.contacts)]
        for key, value in query.items():
            name = key.removeprefix("contactsData[").removesuffix("]")
            if key.startswith("contactsData["):
                rows = [r for r in rows if str(r.get(name, "")).lower() == value.lower()]
            elif key == "query":
                rows = [r for r in rows if value.lower() in f"{r['name']} {r['secondName']}".lower()]
        return rows

    def _contact(self, text: str) -> int:
        number = int(text) - CONTACT if text.isdigit() else -1
        if not 0 <= number < self.org.config.contacts:
            raise ApiError(404, NOT_FOUND)
        return number

    def contact(self, query: Query, contact: str) -> Any:
        return self.contact_row(self._contact(contact))

    def contact_user(self, query: Query, contact: str) -> Any:
        number = self._contact(contact)
        if number >= self.org.config.staff:
            raise ApiError(404, NOT_FOUND)
        person = self.org.person(number)
        return {
            "id": USER + number,
            "firstName": person["first"],
            "lastName": person["last"],
            "email": person["email"],
        }

    def members(self, query: Query) -> Any:
        numbers = self.org.member_numbers()
        if "perPage" not in query:
            return [self._member(i) for i in numbers]
        return by_page(query, numbers, self._member, range(10, 501), 500)

    def _member(self, i: int) -> dict[str, Any]:
        person = self.org.person(i)
        picture = {"url": f"https://storage.example.com/avatars/{i}.png", "thumbnails": {}}
        return {
            "id": USER + i,
            "membershipId": 410001 + i,
            "role": "ADMIN" if i == 0 else "LECTURER",
            "name": person["first"],
            "secondName": person["last"],
            "patrName": "Тестович",
            "nickname": f"{person['first']} {person['last']}",
            "email": person["email"],
            "phone": person["phone"],
            "position": "Инженер",
            "organization": "ООО Ромашка",
            "sex": "f" if i % 2 else "m",
            ("photo" if i % 2 else "avatar"): picture if i % 3 else [],
        }

    def profile(self, query: Query) -> Any:
        person = self.org.person(0)
        return {
            "data": {
                "id": USER,
                "uuid": "5a1c0000-0000-4000-8000-000000000001",
                "email": person["email"],
                "name": person["first"],
                "secondName": person["last"],
                "patrName": "Тестовна",
                "avatarUrl": None,
                "avatarThumbnails": {},
            }
        }


class Chats(People):
    """Chats and courses."""

    def chat_members(self, query: Query) -> Any:
        robots = [-1]
        return items(
            by_page(query, [*self.org.member_numbers(), *robots], self._chat_member, range(1, 101), 100)
        )

    def _chat_member(self, i: int) -> dict[str, Any]:
        if i < 0:
            robot = "1f0a10ff-5854-6e4c-8bff-ca9a267b00ff"
            return {
                "chatMemberId": robot,
                "chatUserId": robot,
                "mtsLinkUserId": None,
                "status": "Active",
                "isBot": True,
            }
        person = self.org.person(i)
        return {
            "chatMemberId": self.org.chat_user(i).replace("1f0a", "1f0e", 1),
            "chatUserId": self.org.chat_user(i),
            "mtsLinkUserId": USER + i,
            "chatMemberProfile": {
                "firstName": person["first"],
                "lastName": person["last"],
                "displayName": f"{person['first']} {person['last']}",
                "department": "Отдел данных",
                "position": "Инженер",
                "timeZone": "Europe/Moscow",
                "email": person["email"],
                "phone": None,
                "avatarUrl": None,
            },
            "chatMemberRole": "Owner" if i == 0 else "Member",
            "presence": "Offline",
            "status": "Active",
            "isBot": False,
        }

    def user_channels(self, query: Query, user: str) -> Any:
        number = self.org.chat_user_number(user)
        if number not in self.org.member_numbers():
            raise ApiError(404, NOT_FOUND)
        mine = [c for c in range(self.org.config.channels) if number in self.org.members_of(c)]
        return items([self._channel(c) for c in mine])

    def _channel(self, c: int) -> dict[str, Any]:
        count = self.org.message_count(c)
        return self.org.channel(c) | {
            "unreadMessageCount": c % 3,
            "lastMessage": self.org.message(c, count - 1) if count else None,
            "firstUnreadMessage": None,
            "startedWebinarEventId": None,
            "description": "",
            "isNotifiable": True,
            "coverFileId": None,
            "coverFileUrl": None,
        }

    def _chat(self, text: str) -> int:
        number = self.org.chat_number(text)
        if number is None:
            raise ApiError(404, NO_CHANNEL)
        return number

    def channel_info(self, query: Query, chat: str) -> Any:
        return {"data": self._channel(self._chat(chat))}

    def messages(self, query: Query, chat: str) -> Any:
        c = self._chat(chat)
        viewer = self.org.chat_user_number(query.get("viewerId", ""))
        if c % 3 and viewer not in self.org.members_of(c):
            raise ApiError(404, NO_CHANNEL)
        if "parrentMessageId" in query:
            return items([])
        limit = min(100, whole(query, "limit", 50))
        end = self.org.message_count(c)
        if "fromMessageId" in query:
            number = self.org.message_number(c, query["fromMessageId"])
            if number is None:
                raise ApiError(404, NOT_FOUND)
            end = number + self.org.config.overlap
        return items([self.org.message(c, m) for m in range(max(0, end - limit), end)])

    def channel_users(self, query: Query, chat: str) -> Any:
        c = self._chat(chat)
        owner = c % self.org.config.staff

        def row(i: int) -> dict[str, Any]:
            return {
                "userId": self.org.chat_user(i),
                "role": "RoleChannelOwner" if i == owner else None,
                "status": "Active",
            }

        return items(by_offset(query, self.org.members_of(c), row, 100, 2000))

    def teams(self, query: Query) -> Any:
        return items([{"id": TEAM, "name": "Ромашка", "description": "", "code": "romashka"}])

    def chat_organisation(self, query: Query) -> Any:
        return {"data": {"id": TEAM, "name": "Ромашка"}}

    def courses(self, query: Query) -> Any:
        return {"data": [self._course(k) for k in range(self.org.config.courses)]}

    def _course(self, k: int) -> dict[str, Any]:
        return {"id": COURSE + k, "name": f"Курс {k}", "owner": {"id": USER}, "isPublish": k % 2 == 0}

    def course(self, query: Query, course: str) -> Any:
        k = int(course) - COURSE if course.isdigit() else -1
        if not 0 <= k < self.org.config.courses:
            raise ApiError(404, NOT_FOUND)
        return self._course(k) | {
            "isPreModerationEnabled": False,
            "groups": [{"id": GROUP + 2 * k}, {"id": GROUP + 2 * k + 1}],
            "trajectory": "close",
            "passingScore": 70,
            "certSetting": "auto",
            "visibilityStatus": "all",
            "additionalFields": [],
            "locale": "RU",
        }

    def groups(self, query: Query) -> Any:
        return [self._group(g) for g in range(2 * self.org.config.courses)]

    def _group(self, g: int) -> dict[str, Any]:
        return {
            "id": GROUP + g,
            "startsAt": php(self.org.zero + g * DAY),
            "endsAt": php(self.org.zero + (g + 30) * DAY) if g % 2 == 0 else None,
            "course": {"id": COURSE + g // 2, "name": f"Курс {g // 2}"},
        }

    def _group_number(self, course: str, group: str) -> int:
        g = int(group) - GROUP if group.isdigit() else -1
        if not 0 <= g < 2 * self.org.config.courses or course != str(COURSE + g // 2):
            raise ApiError(404, NOT_FOUND)
        return g

    def group(self, query: Query, course: str, group: str) -> Any:
        g = self._group_number(course, group)
        count = {"active": len(self.students(g)), "no_active": 0, "certified": 0}
        return self._group(g) | {
            "status": "ACTIVE",
            "isEndless": g % 2 == 1,
            "cost": 0,
            "studentsCount": count,
            "locale": "RU",
        }

    def students(self, g: int) -> list[int]:
        """Numbers of the contacts in a group."""
        return [n for n in range(self.org.config.contacts) if (n + g) % 4 == 0]

    def group_statistics(self, query: Query, course: str, group: str) -> Any:
        g = self._group_number(course, group)

        def row(n: int) -> dict[str, Any]:
            return self._progress(g, n)

        return by_offset(query, self.students(g), row, 50, 50, form="pagination[{}]")

    def _progress(self, g: int, n: int) -> dict[str, Any]:
        person, done = self.org.person(n), (n * 37 + g) % 101
        return {
            "contact": {"id": CONTACT + n, "firstName": person["first"], "lastName": person["last"]},
            "student": {"id": STUDENT + g * 100_000 + n, "status": "successed" if done > 70 else "active"},
            "progress": done,
            "score": done,
            "lastActivityAt": naive(self.org.zero + n * DAY),
            "steps": [],
        }

    def user_statistics(self, query: Query, user: str) -> Any:
        n = int(user) - USER if user.isdigit() else -1
        if not 0 <= n < self.org.config.staff:
            raise ApiError(404, NOT_FOUND)
        mine = [g for g in range(2 * self.org.config.courses) if n in self.students(g)]

        def row(g: int) -> dict[str, Any]:
            return {"group": {"id": GROUP + g}} | self._progress(g, n)

        return by_offset(query, mine, row, 50, 50, form="pagination[{}]")


class Answers(Chats):
    """All methods: files, tests and settings join the others."""

    def _file(self, number: int, name: str, *, kind: str = "file", **more: Any) -> dict[str, Any]:
        return {
            "id": number if number % 2 else str(number),
            "isDeleted": False,
            "createAt": stamp(self.org.zero + number % 1000 * 600),
            "name": name,
            "type": kind,
            "thumbnails": [] if number % 2 else {"50x50": "https://storage.example.com/50x50.jpg"},
            "uploadUrl": f"https://storage.example.com/upload?token={number:032d}&extension=pdf",
        } | more

    def folder_of(self, number: int) -> int | None:
        """Folders 0..2 lie at the top, folder 3 in folder 0; files follow."""
        return 0 if number == 3 else None

    def files(self, query: Query) -> Any:
        parent = whole(query, "parent") - FILE if "parent" in query else None
        if parent is not None and not 0 <= parent < 4:
            raise ApiError(404, NOT_FOUND)
        folders = [n for n in range(4) if self.folder_of(n) == parent]
        rows = [self._file(FILE + n, f"Папка {n}", kind="folder") for n in folders]
        of = {"parent": {"id": FILE + parent, "name": f"Папка {parent}"} if parent is not None else None}
        return [r | of for r in [*rows, *map(self._plain_file, self.files_in(parent))]]

    def files_in(self, folder: int | None) -> list[int]:
        """Numbers of the files of a folder, those of the top for None."""
        size, first = self.org.config.files_per_folder, 100 + (-1 if folder is None else folder) * 1000 + 1000
        return [first + n for n in range(size)]

    def _plain_file(self, n: int) -> dict[str, Any]:
        return self._file(
            FILE + n,
            f"slides {n}.pdf",
            typeFile="presentation",
            url=f"https://storage.example.com/files/{n}.pdf",
            downloadUrl=f"https://storage.example.com/download/{n}.pdf",
            format="pdf",
            size=1000 + n,
        )

    def file(self, query: Query, file: str) -> Any:
        number = int(file) if file.isdigit() else 0
        s = number - CONVERTED
        if self.org.exists(s) and self.is_converted(s):
            return self.converted_file(s)
        n = number - FILE
        folders = (None, 0, 1, 2, 3)
        if not any(n in self.files_in(f) for f in folders):
            raise ApiError(404, NOT_FOUND)
        return self._plain_file(n) | {"mimeType": "application/pdf", "path": f"./files/{n}.pdf"}

    def converted_file(self, s: int) -> dict[str, Any]:
        """A converted record as a file."""
        return self._file(
            CONVERTED + s,
            f"Вебинар {self.org.event_of(s)}.mp4",
            createAt=stamp(self.org.end(s) + 3600),
            typeFile="ConvertedRecord",
            downloadUrl=self.file_url(CONVERTED + s),
            size=self.size_of(CONVERTED + s),
            format="mp4",
            mimeType="video/mp4",
            state="completed",
            progress=100,
            convertedAt=stamp(self.org.end(s) + 5000),
            eventSession={"id": 6010001 + s, "name": f"Вебинар {self.org.event_of(s)}"},
            cuts=[],
            password="secret",
            isViewable=True,
        )

    def size_of(self, number: int) -> int:
        """Bytes of a file that can be downloaded."""
        return 50_000 + number % 1000

    def converted_files(self, query: Query) -> Any:
        since = instant(query, "from")
        until = instant(query, "to", self.org.clock.now())
        found = [s for s in self.org.session_numbers() if self.is_converted(s)]
        found = [s for s in found if since <= self.org.end(s) + 3600 <= until]
        return by_offset(query, found, self.converted_file, 10, 500)

    def _attachments(self, n: int, at: int) -> list[dict[str, Any]]:
        file = self._plain_file(100 + n % self.org.config.files_per_folder)
        return [{"id": 520001 + n, "isDeleted": False, "createAt": stamp(at), "file": file}]

    def session_files(self, query: Query, session: str) -> Any:
        s = self.session(session)
        return self._attachments(s, self.org.start(s)) if s % 3 == 0 else []

    def series_files(self, query: Query, event: str) -> Any:
        e = self.event(event)
        return self._attachments(500_000 + e, self.org.zero) if e % 2 == 0 else []

    # Tests

    def tests(self, query: Query) -> Any:
        since = instant(query, "startTime", self.org.clock.now() - 183 * DAY)
        until = instant(query, "endTime", self.org.clock.now())
        rows = [self._test(t) for t in range(self.org.config.tests)]
        return [r for r, t in rows if since <= t <= until]

    def _test(self, t: int) -> tuple[dict[str, Any], int]:
        s, made = self.org.test_session(t), self.org.zero + t * DAY
        runs, last = [], None
        if s is not None:
            last = self.org.start(s) + 600
            runs = [self._run(t, s) | {"id": str(TEST_SESSION + t), "eventSessionId": str(6010001 + s)}]
        row = {
            "id": str(TEST + t),
            "userId": str(USER),
            "name": f"Опрос {t}",
            "createAt": naive(made),
            "lastStart": naive(last) if last else None,
            "startsCount": len(runs),
            "testSessions": runs,
        }
        return row, max(made, last or 0)

    def _run(self, t: int, s: int) -> dict[str, Any]:
        at = self.org.start(s) + 600
        return {"id": TEST_SESSION + t, "startTime": naive(at), "endTime": naive(at + 300)}

    def _test_number(self, text: str) -> int:
        t = int(text) - TEST if text.isdigit() else -1
        if not 0 <= t < self.org.config.tests:
            raise ApiError(404, NOT_FOUND)
        return t

    def test(self, query: Query, test: str) -> Any:
        t = self._test_number(test)
        row, _ = self._test(t)
        answers = [{"id": 94001 + t, "isCorrect": True, "points": 1, "order": 1, "answerData": "Да"}]
        question = {
            "id": 93001 + t,
            "allowCustomAnswer": False,
            "order": 1,
            "questionData": "Ясно?",
            "answers": answers,
        }
        return row | {
            "id": TEST + t,
            "type": "poll",
            "minPoints": 1,
            "minAnswers": 1,
            "duration": 300,
            "assessType": "pointsSum",
            "questions": [question | {"answers": answers}],
        }

    def _passing(self, t: int, p: int) -> dict[str, Any]:
        return {
            "isResultSubmitted": True,
            "isTestPassed": (t + p) % 3 > 0,
            "pointsSum": (t + p) % 3,
            "questions": [],
        }

    def results(self, query: Query, test: str) -> Any:
        t = self._test_number(test)
        s = self.org.test_session(t)
        if s is None:
            return []
        people = [
            {"userId": self.org.participant(s, p)[0]} | self._passing(t, p) for p in self.org.test_people(t)
        ]
        passed = sum(r["isTestPassed"] for r in people)
        return [
            self._run(t, s)
            | {"usersCount": len(people), "endedCount": len(people), "passedCount": passed, "users": people}
        ]

    def user_tests(self, query: Query, user: str) -> Any:
        found = []
        for t in range(self.org.config.tests):
            s = self.org.test_session(t)
            for p in self.org.test_people(t):
                if s is not None and str(self.org.participant(s, p)[0]) == user:
                    run = self._run(t, s)
                    times = {"startTime": run["startTime"], "endTime": run["endTime"]}
                    passing = {"testSessionId": TEST_SESSION + t} | times | self._passing(t, p)
                    found.append({"testId": TEST + t, "testPassings": [passing]})
                    break
        return found

    def custom_answers(self, query: Query, test: str) -> Any:
        t = self._test_number(test)
        if self.org.test_session(t) is None or t % 2:
            return []
        text = {"questionData": "Пожелания", "answerData": "Больше примеров"}
        return [
            {"id": 95001 + t, "questionImage": None, "answerImage": None, "isCorrect": None, "points": None}
            | text
        ]

    # Settings

    def brandings(self, query: Query) -> Any:
        return [{"id": 701, "name": "Основная тема", "isDefault": True, "colors": {"primary": "#e30611"}}]

    def organisation_groups(self, query: Query) -> Any:
        return items(
            [{"id": 702, "name": "Отдел данных", "usersCount": 2, "createdAt": "2025-02-01T09:00:00+03:00"}]
        )

    def applications(self, query: Query) -> Any:
        return items(
            [{"id": 1, "clientId": "myapp", "name": "Пример", "isEnabled": 0, "approval": "approved"}]
        )

    def timezones(self, query: Query) -> Any:
        return [
            {"id": 1, "name": "Europe/Moscow", "description": "(UTC+03:00) Москва", "offset": 10800},
            {"id": 2, "name": "Asia/Yekaterinburg", "description": "(UTC+05:00)", "offset": 18000},
        ]
