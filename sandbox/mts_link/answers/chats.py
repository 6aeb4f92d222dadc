"""Answers about chats and courses."""

from typing import Any

from sandbox.mts_link.answers.base import Base
from sandbox.mts_link.org import CONTACT, COURSE, DAY, GROUP, STUDENT, TEAM, USER, naive, php
from sandbox.mts_link.wire import NOT_FOUND, ApiError, Query, by_offset, by_page, items, whole

NO_CHANNEL = "Channel not found"


class Chats(Base):
    """Methods of chats and courses."""

    # Chats

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

    # Courses

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
