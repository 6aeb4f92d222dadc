"""What every table should hold: asked of the emulated organisation itself, without client or network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sandbox.mts_link import Server
from sandbox.mts_link.org import CONTACT, COURSE, EVENT, GROUP, ROOM, SESSION, TEST, TRANSCRIPT, USER
from sandbox.mts_link.routes import answer
from sandbox.mts_link.wire import ApiError

FROM: dict[str, Any] = {"from": "2015-01-01", "to": "2035-01-01"}
PERIOD: dict[str, Any] = {"startTime": "2015-01-01", "endTime": "2035-01-01"}
Key = tuple[str, ...]


class Truth:
    """Tables of the organisation as it is now."""

    def __init__(self, server: Server) -> None:
        self._answers, self.org = server.answers, server.org

    def ask(self, path: str, **query: str) -> list[Any]:
        """All records of a list, or the one record of an object; none where there is no such thing."""
        found: list[Any] = []
        for number in range(1, 10_000):
            page = {"page": str(number), "perPage": "50", "offset": str(len(found)), "limit": "50"}
            page |= {f"pagination[{k}]": page[k] for k in ("offset", "limit")}
            try:
                _, payload = answer(self._answers, path, {**page, **query})
            except ApiError as error:
                if error.status not in (403, 404):
                    raise
                return found
            content = payload.get("data", payload) if isinstance(payload, dict) else payload
            content = content.get("items", content) if isinstance(content, dict) else content
            rows = content if isinstance(content, list) else [content]
            fresh = [r for r in rows if r not in found]
            if not fresh:
                return found
            found += fresh
        raise AssertionError(path)

    @property
    def sessions(self) -> list[int]:
        return [SESSION + s for s in self.org.session_numbers()]

    @property
    def finished(self) -> list[int]:
        return [SESSION + s for s in self.org.session_numbers() if self.org.finished(s)]

    @property
    def events(self) -> list[int]:
        return [EVENT + e for e in self.org.event_numbers()]

    @property
    def members(self) -> list[int]:
        return [USER + i for i in self.org.member_numbers()]

    @property
    def chats(self) -> list[str]:
        return [self.org.chat_id(c) for c in range(self.org.config.channels)]

    def of(
        self, path: str, parents: Iterable[Any], key: Callable[[Any], Any] = lambda r: r["id"], **query: Any
    ) -> list[Key]:
        """(parent, key) of every row of a fan-out."""
        return sorted(
            (str(parent), str(key(row)))
            for parent in parents
            for row in self.ask(path.format(parent), **query)
        )

    def ids(self, path: str, key: str = "id", **query: Any) -> list[Key]:
        return sorted((str(row[key]),) for row in self.ask(path, **query))

    def tables(self) -> dict[str, tuple[tuple[str, ...], list[Key]]]:
        """Table -> (key columns, the keys that it should hold)."""
        own, session, event = ("id",), ("event_session_id", "id"), ("event_id", "id")
        contacts = [CONTACT + n for n in range(self.org.config.contacts)]
        tests = [TEST + t for t in range(self.org.config.tests)]
        talks = [*self.finished, *(ROOM + r for r in range(self.org.config.rooms))]
        found: dict[str, tuple[tuple[str, ...], list[Key]]] = {
            "contacts_search": (own, self.ids("/contacts/search")),
            "contact_details": (("contact_id", "id"), self.of("/contacts/{}", contacts)),
            "contact_user_info": (("contact_id", "id"), self.of("/contacts/{}/user", contacts)),
            "organization_members": (own, self.ids("/organization/members")),
            "chats_organization_members": (
                ("chatUserId",),
                self.ids("/chats/organization/members", "chatUserId"),
            ),
            "organization_events_schedule": (own, self.ids("/organization/events/schedule", **FROM)),
            "event_sessions": (own, sorted((str(s),) for s in self.sessions)),
            "user_events_schedule": (
                ("user_id", "id"),
                self.of("/users/{}/events/schedule", self.members, **FROM),
            ),
            "event_series_data": (event, self.of("/organization/events/{}", self.events)),
            "event_session_details": (session, self.of("/eventsessions/{}", self.sessions)),
            "endless_meetings_list": (own, self.ids("/eventsessions/endless")),
            "endless_meetings_activities": (
                own,
                self.ids("/eventsessions/endless/activities", fromDate="2015-01-01", toDate="2035-01-01"),
            ),
            "event_session_notes": (session, self.of("/eventsessions/{}/agendas", self.sessions)),
            "transcript_list": (session, self.of("/eventsessions/{}/transcript/list", talks)),
            "event_participants": (session, self.of("/eventsessions/{}/participations", self.sessions)),
            "event_series_stats": (event, self.of("/events/{}/participations", self.events)),
            "online_records_list": (own, self.ids("/records", **FROM)),
            "event_chat_messages": (session, self.of("/eventsessions/{}/chat", self.sessions)),
            "event_questions": (session, self.of("/eventsessions/{}/questions", self.sessions)),
            "attention_checkpoints": (
                session,
                self.of("/eventsessions/{}/attention-control/checkpoints", self.finished),
            ),
            "attention_interactions": (
                session,
                self.of("/eventsessions/{}/attention-control/interactions", self.finished),
            ),
            "raising_hands": (session, self.of("/eventsessions/{}/raising-hands", self.finished)),
            "event_likes": (
                ("event_session_id", "participantId"),
                self.of("/eventsessions/{}/likes", self.finished, lambda r: r["participantId"]),
            ),
            "emoji_reactions": (
                ("event_session_id", "participantId"),
                self.of("/eventsessions/{}/emoji-reactions", self.finished, lambda r: r["participantId"]),
            ),
            "converted_records": (
                ("event_session_id", "downloadUrl"),
                self.of("/eventsessions/{}/converted-records", self.finished, lambda r: r["downloadUrl"]),
            ),
            "events_stats": (own, self.ids("/stats/events", **FROM)),
            "event_session_files": (session, self.of("/eventsessions/{}/files", self.sessions)),
            "event_series_files": (event, self.of("/events/{}/files", self.events)),
            "converted_records_list": (own, self.ids("/fileSystem/files/converted-record", **FROM)),
            "converted_records_org": (own, self.ids("/converted-records", **FROM)),
            "tests_list": (own, self.ids("/tests/list", **PERIOD)),
            "test_info": (("test_id", "id"), self.of("/tests/{}", tests)),
            "test_custom_answers": (("test_id", "id"), self.of("/tests/{}/customanswers", tests)),
            "timezones_list": (own, self.ids("/timezones")),
            "brandings_list": (own, self.ids("/brandings")),
            "organization_groups": (own, self.ids("/organization-groups")),
            "partner_applications": (own, self.ids("/partner-applications")),
            "organization_courses": (own, self.ids("/organization/courses")),
            "courses_groups": (own, self.ids("/organization/courses/groups")),
            "chats_teams": (own, self.ids("/chats/teams")),
            "channel_users": (
                ("chat_id", "userId"),
                self.of("/chats/channels/{}/users", self.chats, lambda r: r["userId"]),
            ),
            "channel_info": (("chat_id", "chatId"), sorted((c, c) for c in self.chats)),
        }
        return found | self._cut() | self._listed()

    def _cut(self) -> dict[str, tuple[tuple[str, ...], list[Key]]]:
        """Tables whose rows are cut out of records."""
        org = self.org
        tests = [TEST + t for t in range(org.config.tests)]
        users = self.ask("/stats/users", **FROM)
        seen = {
            str(org.participant(s, p)[0]) for s in org.session_numbers() for p in range(org.participants(s))
        }
        groups = [(COURSE + g // 2, GROUP + g) for g in range(2 * org.config.courses)]
        return {
            "users_stats": (
                ("userId", "id"),
                sorted((str(u["id"]), str(s["id"])) for u in users for s in u["eventSessions"]),
            ),
            "visits_stats": (
                ("user_id", "state", "id"),
                sorted(
                    (str(user), state, str(session["id"]))
                    for user in self.members
                    for found in self.ask(
                        "/stats/users/visits", email=org.person(user - USER)["email"], **FROM
                    )
                    for state, sessions in found.items()
                    for session in sessions
                ),
            ),
            "test_results": (
                ("test_id", "id", "userId"),
                sorted(
                    (str(t), str(run["id"]), str(person.get("userId", "")))
                    for t in tests
                    for run in self.ask(f"/tests/{t}/results")
                    for person in run["users"] or [{}]
                ),
            ),
            "user_tests_stats": (
                ("user_id", "testId", "testSessionId"),
                sorted(
                    (user, str(test["testId"]), str(run["testSessionId"]))
                    for user in seen
                    for test in self.ask(f"/users/{user}/tests/stats")
                    for run in test["testPassings"]
                ),
            ),
            "course_group_info": (
                ("course_id", "group_id"),
                sorted((str(c), str(g)) for c, g in groups),
            ),
            "course_group_statistics": (
                ("course_id", "group_id", "id"),
                sorted(
                    (str(c), str(g), str(row["student"]["id"]))
                    for c, g in groups
                    for row in self.ask(f"/courses/{c}/groups/{g}/statistics")
                ),
            ),
            "user_course_statistics": (
                ("user_id", "id"),
                sorted(
                    (str(u), str(row["student"]["id"]))
                    for u in range(USER, USER + min(org.config.staff, org.config.contacts))
                    for row in self.ask(f"/organization/users/{u}/statistics")
                ),
            ),
        }

    def _listed(self) -> dict[str, tuple[tuple[str, ...], list[Key]]]:
        """Chats, files, transcripts: found through several methods."""
        org = self.org
        members = org.member_numbers()
        files, level = [], self.ask("/fileSystem/files")
        while level:
            files += level
            folders = [r["id"] for r in level if r["type"] == "folder"]
            level = [r for f in folders for r in self.ask("/fileSystem/files", parent=str(f))]
        plain = [str(r["id"]) for r in files if r["type"] == "file"]
        converted = [str(r["id"]) for r in self.ask("/fileSystem/files/converted-record", **FROM)]
        texts = [s for s in org.session_numbers() if org.finished(s) and s % 4 == 0]
        texts += [500_000 + r for r in range(org.config.rooms) if (500_000 + r) % 4 == 0]
        return {
            "user_channels": (
                ("chatId", "user_id"),
                sorted(
                    (row["chatId"], org.chat_user(i))
                    for i in members
                    for row in self.ask(f"/chats/channels/{org.chat_user(i)}")
                ),
            ),
            "channel_messages": (
                ("chat_id", "id"),
                sorted(
                    (org.chat_id(c), org.message_id(c, m))
                    for c in range(org.config.channels)
                    for m in range(org.message_count(c))
                ),
            ),
            "course_details": (
                ("course_id", "id"),
                [(str(COURSE + k),) * 2 for k in range(org.config.courses)],
            ),
            "files_list": (("id",), sorted((str(r["id"]),) for r in files)),
            "file_details": (("file_id", "id"), sorted((f, f) for f in plain)),
            "download_converted_record": (("file_id", "id"), sorted((f, f) for f in converted)),
            "transcript_summary": (("transcript_id",), sorted((str(TRANSCRIPT + t),) for t in texts)),
        }


def differences(place: Any, *only: str, without: Iterable[str] = ()) -> dict[str, str]:
    """Tables, `only` some or all, whose keys are not those of the organisation."""
    wrong = {}
    for table, (columns, wanted) in Truth(place.server).tables().items():
        if table in without or (only and table not in only):
            continue
        found = place.keys(table, *columns)
        if found != wanted:
            missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
            wrong[table] = f"{len(found)} for {len(wanted)}; missing {missing[:3]}, too many {extra[:3]}"
    return wrong
