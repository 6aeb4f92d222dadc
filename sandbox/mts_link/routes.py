"""Which path is which method; static paths stand before patterns."""

import re
from collections.abc import Callable
from typing import Any

from sandbox.mts_link.answers import Answers
from sandbox.mts_link.wire import ApiError, Query

Method = Callable[..., Any]
_ROUTES: tuple[tuple[str, Callable[[Answers], Method]], ...] = (
    ("/contacts/search", lambda a: a.contacts),
    ("/contacts/{}/user", lambda a: a.contact_user),
    ("/contacts/{}", lambda a: a.contact),
    ("/organization/members", lambda a: a.members),
    ("/profile", lambda a: a.profile),
    ("/chats/organization/members", lambda a: a.chat_members),
    ("/chats/organization", lambda a: a.chat_organisation),
    ("/chats/teams", lambda a: a.teams),
    ("/chats/channels/{}/users", lambda a: a.channel_users),
    ("/chats/channels/{}", lambda a: a.user_channels),
    ("/chats/channel/{}/messages", lambda a: a.messages),
    ("/chats/channel/{}", lambda a: a.channel_info),
    ("/organization/courses/groups", lambda a: a.groups),
    ("/organization/courses", lambda a: a.courses),
    ("/courses/{}/groups/{}/statistics", lambda a: a.group_statistics),
    ("/courses/{}/groups/{}", lambda a: a.group),
    ("/courses/{}", lambda a: a.course),
    ("/organization/users/{}/statistics", lambda a: a.user_statistics),
    ("/organization/events/schedule", lambda a: a.schedule),
    ("/organization/eventsessions/streamFilesUrls", lambda a: a.streams),
    ("/organization/events/{}", lambda a: a.series),
    ("/users/{}/events/schedule", lambda a: a.user_schedule),
    ("/users/{}/tests/stats", lambda a: a.user_tests),
    ("/eventsessions/endless/activities", lambda a: a.activities),
    ("/eventsessions/endless", lambda a: a.rooms),
    ("/eventsessions/{}/agendas", lambda a: a.agendas),
    ("/eventsessions/{}/transcript/list", lambda a: a.transcripts),
    ("/eventsessions/{}/participations", lambda a: a.participations),
    ("/eventsessions/{}/converted-records", lambda a: a.converted_of_session),
    ("/eventsessions/{}/chat", lambda a: a.chat),
    ("/eventsessions/{}/questions", lambda a: a.questions),
    ("/eventsessions/{}/attention-control/checkpoints", lambda a: a.checkpoints),
    ("/eventsessions/{}/attention-control/interactions", lambda a: a.interactions),
    ("/eventsessions/{}/raising-hands", lambda a: a.hands),
    ("/eventsessions/{}/likes", lambda a: a.likes),
    ("/eventsessions/{}/emoji-reactions", lambda a: a.emoji),
    ("/eventsessions/{}/files", lambda a: a.session_files),
    ("/eventsessions/{}", lambda a: a.details),
    ("/events/{}/participations", lambda a: a.series_participations),
    ("/events/{}/files", lambda a: a.series_files),
    ("/transcript/{}", lambda a: a.transcript),
    ("/stats/users/visits", lambda a: a.visits),
    ("/stats/users", lambda a: a.users_stats),
    ("/stats/events", lambda a: a.events_stats),
    ("/records", lambda a: a.records),
    ("/converted-records", lambda a: a.conversions),
    ("/fileSystem/files/converted-record", lambda a: a.converted_files),
    ("/fileSystem/files", lambda a: a.files),
    ("/fileSystem/file/{}", lambda a: a.file),
    ("/brandings", lambda a: a.brandings),
    ("/organization-groups", lambda a: a.organisation_groups),
    ("/partner-applications", lambda a: a.applications),
    ("/timezones", lambda a: a.timezones),
    ("/tests/list", lambda a: a.tests),
    ("/tests/{}/results", lambda a: a.results),
    ("/tests/{}/customanswers", lambda a: a.custom_answers),
    ("/tests/{}", lambda a: a.test),
)
_COMPILED = [(re.compile(path.replace("{}", "([^/]+)")), path, pick) for path, pick in _ROUTES]


def answer(answers: Answers, path: str, query: Query) -> tuple[str, Any]:
    """(route, payload) of a path below `/v3`. Raises ApiError."""
    for pattern, route, pick in _COMPILED:
        if found := pattern.fullmatch(path):
            return route, pick(answers)(query, *found.groups())
    raise ApiError(404, f'No route found for "GET /userapi{path}"')
