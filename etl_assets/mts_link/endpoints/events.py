"""Events, their sessions, and who took part in them."""

from etl_assets.mts_link.endpoints.model import (
    BY_100,
    BY_250,
    BY_500,
    BY_1000,
    CURSOR,
    OFFSET_500,
    STATUSES,
    Endpoint,
    Window,
)
from etl_assets.mts_link.shapes import streams, user_sessions, visits

EVENT = (
    "id status access name startsAt endsAt isArchive createUserId type estimatedAt timezoneName image rule "
    "tags files lectors eventSessions"
)
SESSION = (
    "id eventId status access name startsAt endsAt isArchive createUserId type estimatedAt timezoneName "
    "participationsCount image tags files lectors recordUrl.id recordUrl.url"
)
DETAILS = (
    "id name description status access accessSettings additionalFields lang startsAt utcStartsAt endsAt "
    "createUserId timezoneId organizationId type createUser.id createUser.name createUser.secondName "
    "startType lectors tags announceFiles files"
)
PARTICIPATION = (
    "id name secondName email avatar eventId eventSessionId isAccepted role isSeen agreementStatus userId "
    "isOnline registerStatus paymentStatus registerDate additionalFieldValues visited"
)
ROOM_TOKEN = frozenset({"url"})  # a personal entry link
PERIOD = ("from", "to")
SCHEDULE_OPTIONS = (
    *PERIOD,
    "name",
    "status",
    "access",
    "accessSettings[isPasswordRequired]",
    "accessSettings[isRegistrationRequired]",
    "accessSettings[isModerationRequired]",
)
PERSON = (
    "userId=id|person_key email name secondName patrName=pattrName|patrName sex phone organization position "
    "id=event_session_id"
)
OF_SESSION = """eventId startsAt endsAt duration questionCount userQuestionCount chatMessageCount
    userChatMessageCount actualInvolvement speechDuration percentOfTotalSpeechDuration usersReactionClicks
    percentOfTotalReactionClicks actualParticipantActivityPercent rating attentionControl.percent
    attentionControl.shownCount attentionControl.confirmedCount connections additionalFieldValues utms"""
IN_SESSION = "session_name=session.name " + " ".join(
    f"{word.replace('.', '_')}=session.{word}" for word in OF_SESSION.split()
)


def _of_sessions(name: str, about: str, path: str, fields: str, source: str, **options: object) -> Endpoint:
    """A list that is asked for session by session, at once when a session changes."""
    chosen = {"parent": "sessions", "strategy": "fan_out", "hourly": True, "key": ("event_session_id", "id")}
    return Endpoint(name, "events", about, path, fields, source=source, **(chosen | options))  # type: ignore[arg-type]


SCHEDULES = (
    Endpoint(
        "organization_events_schedule",
        "events",
        "Events of the organisation. Their sessions are in mts_link/event_sessions, from the same answers.",
        "/organization/events/schedule",
        EVENT,
        paging=BY_250,
        query=STATUSES,
        options=SCHEDULE_OPTIONS,
        window=Window("startsAt", ahead_days=366),
        strategy="window",
        hourly=True,
        source="GET /organization/events/schedule",
    ),
    Endpoint(
        "user_events_schedule",
        "events",
        "Events of one employee.",
        "/users/{userID}/events/schedule",
        EVENT,
        key=("user_id", "id"),
        paging=BY_250,
        query=STATUSES,
        options=SCHEDULE_OPTIONS,
        parent="members",
        window=Window("startsAt", ahead_days=366),
        strategy="fan_out",
        source="GET /users/{id}/events/schedule",
    ),
    Endpoint(
        "event_series_data",
        "events",
        "One event with its settings and all of its sessions.",
        "/organization/events/{eventID}",
        f"{DETAILS} rule eventSessions",
        parent="events",
        strategy="fan_out",
        hourly=True,
        source="GET /organization/events/{id}",
    ),
    _of_sessions(
        "event_session_details",
        "One session with its settings, registration form and files.",
        "/eventsessions/{eventsessionID}",
        DETAILS,
        "GET /eventsessions/{id}",
        key=("id",),
        options=("viewerId",),
    ),
    Endpoint(
        "endless_meetings_list",
        "events",
        "Permanent rooms.",
        "/eventsessions/endless",
        "id name description eventId status createdAt updatedAt createdByUser.id createdByUser.name "
        "createdByUser.secondName",
        paging=BY_1000,
        options=("status", "updatedFrom", "participantId", "createdBy"),
        window=Window("updatedAt", since="updatedFrom", until="", form="rfc3339", whole_at_night=True),
        strategy="window",
        hourly=True,
        source="GET /eventsessions/endless, help article 22002",
    ),
    Endpoint(
        "endless_meetings_activities",
        "events",
        "Calls in permanent rooms: one is there when at least two people met, and all have left.",
        "/eventsessions/endless/activities",
        "id startedAt=startedAt|createdAt finishedAt=finishedAt|updatedAt name description status "
        "eventSession_id=eventSession.id|eventSessionId "
        "eventSession_name=eventSession.name|name eventId=eventSession.eventId|eventId "
        "createdBy_id=eventSession.createdBy.id|createdByUser.id "
        "createdBy_name=eventSession.createdBy.name|createdByUser.name "
        "createdBy_secondName=eventSession.createdBy.secondName|createdByUser.secondName participants",
        paging=BY_500,
        options=("eventSessionId", "fromDate", "toDate", "participantId", "eventSessionCreatorId"),
        privacy="attendance",
        window=Window("startedAt", since="fromDate", until="toDate", form="rfc3339"),
        identity=("eventSession_id", "startedAt"),
        strategy="window",
        hourly=True,
        source="GET /eventsessions/endless/activities, help article 22010",
    ),
)

IN_SESSIONS = (
    _of_sessions(
        "event_session_notes",
        "Agendas of a session. Not documented: servers without them have no rows here.",
        "/eventsessions/{eventSessionId}/agendas",
        "id title text createdAt updatedAt",
        "GET /eventsessions/{id}/agendas, seen in public clients",
        absent=frozenset({403, 404}),
        optional=True,
    ),
    _of_sessions(
        "transcript_list",
        "Transcripts of sessions and of permanent rooms.",
        "/eventsessions/{eventSessionId}/transcript/list",
        "id status createdAt",
        "GET /eventsessions/{id}/transcript/list, help article 20038",
        key=("id",),
        paging=CURSOR,
        parent="speakers",
        privacy="transcripts",
    ),
    _of_sessions(
        "event_participants",
        "Participations of a session. Times in the room are not here, but in users_stats.",
        "/eventsessions/{eventsessionID}/participations",
        PARTICIPATION,
        "GET /eventsessions/{id}/participations, help article 19666",
        paging=BY_500,
        parent="attended",
        privacy="attendance",
        dropped=ROOM_TOKEN,
    ),
    Endpoint(
        "event_series_stats",
        "events",
        "Participations of a whole event: only people who registered for all of its sessions.",
        "/events/{eventID}/participations",
        PARTICIPATION,
        key=("event_id", "id"),
        paging=BY_500,
        parent="events",
        privacy="attendance",
        strategy="fan_out",
        dropped=ROOM_TOKEN,
        hourly=True,
        source="GET /events/{id}/participations, help article 19665",
    ),
    _of_sessions(
        "converted_records",
        "Addresses of a session's converted records, in their order.",
        "/eventsessions/{eventSessionId}/converted-records",
        "position=order downloadUrl",
        "GET /eventsessions/{id}/converted-records, help article 19454",
        key=("event_session_id", "position"),
        parent="converted",
        privacy="files",
    ),
    _of_sessions(
        "event_chat_messages",
        "Messages in the chat of an event, as far as moderation let them through.",
        "/eventsessions/{eventsessionID}/chat",
        "id authorName text isModerated sentByAdmin avatarUrl authorId createAt updateAt attachments",
        "GET /eventsessions/{id}/chat, help article 19627",
        query={"limit": "10000"},
        options=("isModerated", "limit", "authorId", "privateChat"),
        privacy="chats",
    ),
    _of_sessions(
        "event_questions",
        "Questions of the audience with their answers.",
        "/eventsessions/{eventsessionID}/questions",
        "id createAt text user.id user.nickname answers isModerated isAnswered",
        "GET /eventsessions/{id}/questions, help article 19623",
        options=("questionId", "userId", "onlyOnModeration"),
    ),
    _of_sessions(
        "attention_checkpoints",
        "Attention checks of a session.",
        "/eventsessions/{eventSessionId}/attention-control/checkpoints",
        "id startedAt endedAt isEnded",
        "GET /eventsessions/{id}/attention-control/checkpoints, help article 23708",
        parent="finished",
        privacy="attendance",
    ),
    _of_sessions(
        "attention_interactions",
        "Attention checks as people met them.",
        "/eventsessions/{id}/attention-control/interactions",
        "id participantId checkpointId shownAt confirmedAt",
        "GET /eventsessions/{id}/attention-control/interactions, help article 23707",
        paging=BY_100,
        options=("checkpointId",),
        parent="checked",
        privacy="attendance",
    ),
    _of_sessions(
        "raising_hands",
        "Raised hands.",
        "/eventsessions/{id}/raising-hands",
        "id participantId raisedAt loweredAt",
        "GET /eventsessions/{id}/raising-hands, help article 23836",
        paging=BY_100,
        parent="finished",
        privacy="attendance",
    ),
    _of_sessions(
        "event_likes",
        "Likes.",
        "/eventsessions/{id}/likes",
        "id participantId count reactedAt",
        "GET /eventsessions/{id}/likes, help article 23838",
        paging=BY_100,
        parent="finished",
        privacy="attendance",
    ),
    _of_sessions(
        "emoji_reactions",
        "Reactions.",
        "/eventsessions/{id}/emoji-reactions",
        "id participantId code reactedAt count",
        "GET /eventsessions/{id}/emoji-reactions, help article 23842",
        paging=BY_100,
        parent="finished",
        privacy="attendance",
    ),
    _of_sessions(
        "transcript_summary",
        "What was said: the text of a published transcript and its summary.",
        "/transcript/{transcriptId}",
        "status=summary.status text=summary.text eventSessionId eventSessionEndsAt",
        "GET /transcript/{id}, seen in public clients",
        key=("transcript_id",),
        parent="transcripts",
        privacy="transcripts",
        whole=True,
    ),
)

STATISTICS = (
    Endpoint(
        "users_stats",
        "events",
        "People in sessions: time in the room (`connections`), speech, involvement, attention. One row a "
        "person and session.",
        "/stats/users",
        f"{PERSON} {IN_SESSION}",
        key=("userId", "id"),
        options=(*PERIOD, "eventId"),
        privacy="attendance",
        window=Window("startsAt", lookback_days=7, step_days=31),
        strategy="window",
        shape=user_sessions,
        absent=frozenset({404}),  # no event in the period
        hourly=True,
        source="GET /stats/users, help article 19660",
    ),
    Endpoint(
        "visits_stats",
        "events",
        "Sessions that an employee was registered for, missed or visited: one row a person, state and "
        "session.",
        "/stats/users/visits",
        "state=visit_state id=event_session_id name referrer userQuestionCount userChatMessageCount "
        "additionalFieldValues connections",
        key=("user_id", "state", "id"),
        options=(*PERIOD, "email", "contactId", "eventId"),
        parent="visitors",
        privacy="attendance",
        window=Window("", ahead_days=1),
        strategy="fan_out",
        shape=visits,
        whole=True,
        absent=frozenset({404}),
        source="GET /stats/users/visits, help article 19659; the path with a user id has no route",
    ),
    Endpoint(
        "events_stats",
        "events",
        "Sessions with how many were invited, registered and came.",
        "/stats/events",
        "id name startsAt endsAt duration invitedCount invitedVisitedCount registeredCount "
        "registeredVisitedCount attendance createUser.id",
        options=(*PERIOD, "userId", "eventId"),
        privacy="attendance",
        window=Window("startsAt", lookback_days=7, step_days=31),
        strategy="window",
        absent=frozenset({404}),
        hourly=True,
        source="GET /stats/events, help article 3149503",
    ),
    Endpoint(
        "online_records_list",
        "events",
        "Records of events.",
        "/records",
        "id name link isViewable hasPassword size createAt",
        paging=OFFSET_500,
        options=(*PERIOD, "period", "id", "userId"),
        privacy="files",
        window=Window("createAt", lookback_days=7),
        strategy="window",
        hourly=True,
        source="GET /records, help article 19658",
    ),
    Endpoint(
        "stream_files_urls",
        "events",
        "Addresses of the streams of sessions. The answer is documented nowhere: all of it stands in `raw`.",
        "/organization/eventsessions/streamFilesUrls",
        "id streams",
        key=("event_session_id", "id"),
        options=(
            "eventSessionsOwnersEmails[]",
            "eventSessionParticipantsEmails[]",
            "eventSessionsIds[]",
            "streamStart",
            "streamDuration",
        ),
        privacy="files",
        parent="finished",
        strategy="fan_out",
        shape=streams,
        together=50,
        together_as="eventSessionsIds",
        hourly=True,
        optional=True,
        source="GET /organization/eventsessions/streamFilesUrls, help article 19471",
    ),
)

EVENTS = (*SCHEDULES, *IN_SESSIONS, *STATISTICS)
