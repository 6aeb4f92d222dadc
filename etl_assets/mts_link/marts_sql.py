# ruff: noqa: E501 - SQL reads better unbroken
"""What people ask of MTS Link, as SQL over the loaded tables. Days are those of `{zone}`.

Each is a view, so it is as fresh as its tables. Column names are those of the scripts that people had.
"""

from __future__ import annotations

from dataclasses import dataclass

_NAME = "nullIf(trim(concat(ifNull({p}.chatMemberProfile_firstName, ''), ' ', ifNull({p}.chatMemberProfile_lastName, ''))), '')"


@dataclass(frozen=True, slots=True)
class Mart:
    """One view. `about` is the definition that users read; `day` is the column that a plot goes by."""

    name: str
    about: str
    tables: tuple[str, ...]
    sql: str
    day: str = ""
    value: str = "count()"


def _full_name(alias: str) -> str:
    return f"ifNull({_NAME.format(p=alias)}, ifNull({alias}.chatMemberProfile_displayName, ''))"


_MESSAGE_DAY = "toDate(m.createdAtMs, '{zone}')"

# Seconds that a person was in the room: connections of two devices at once count once.
_PRESENCE = """SELECT userId AS user_id, id AS event_session_id, eventId AS event_id, startsAt,
  ifNull(duration, dateDiff('second', startsAt, endsAt)) AS session_s,
  arrayMap(c -> (
    ifNull(toUnixTimestamp64Milli(parseDateTime64BestEffortOrNull(JSONExtractString(c, 'joined'), 3, '{zone}')), 0),
    ifNull(toUnixTimestamp64Milli(parseDateTime64BestEffortOrNull(JSONExtractString(c, 'leaved'), 3, '{zone}')), 0),
    toFloat64OrZero(replaceAll(JSONExtractRaw(c, 'duration'), '"', ''))), JSONExtractArrayRaw(ifNull(connections, '[]'))) AS times,
  length(times) > 0 AS came,
  arraySort(arrayFilter(i -> i.1 > 0 AND i.2 > i.1,
    arrayMap(t -> (t.1 / 1000, if(t.2 > 0, t.2 / 1000, t.1 / 1000 + t.3)), times))) AS stays,
  arrayMap(i -> i.1, stays) AS joins, arrayMap(i -> i.2, stays) AS leaves,
  arraySum((joined, left, n) -> greatest(0., left - greatest(joined, n = 1 ? joined
    : arrayMax(arraySlice(leaves, 1, n - 1)))), joins, leaves, arrayEnumerate(joins)) AS present_s,
  arraySum(t -> if(t.3 > 0, t.3, greatest(0, t.2 - t.1) / 1000), times) AS connected_s,
  length(joins) AS connections_count, actualInvolvement AS involvement_pct,
  actualParticipantActivityPercent AS activity_pct, attentionControl_shownCount AS attention_shown,
  attentionControl_confirmedCount AS attention_confirmed, speechDuration AS speech_s,
  percentOfTotalSpeechDuration AS speech_share_pct, usersReactionClicks AS reactions, rating
FROM bi.users_stats WHERE id != ''"""

_CALLS = """SELECT id, startedAt, finishedAt, eventSession_id, eventSession_name, eventId, createdBy_id, status, name,
  trim(concat(ifNull(createdBy_name, ''), ' ', ifNull(createdBy_secondName, ''))) AS creator,
  intDiv(dateDiff('second', startedAt, finishedAt), 60) AS minutes,
  arrayMap(p -> if(JSONType(p, 'id') = 'String', JSONExtractString(p, 'id'), JSONExtractRaw(p, 'id')),
    JSONExtractArrayRaw(ifNull(participants, '[]'))) AS people
FROM bi.endless_meetings_activities"""

MARTS = (
    Mart(
        "unique_chats",
        "Chats, each once, with the owner's and the team's name. `discovered_via_user_id` is a member who sees it.",
        ("user_channels", "chats_organization_members", "chats_teams"),
        f"""SELECT c.chatId AS chat_id, any(c.name) AS name, any(c.type) AS type, any(c.isPublic) AS is_public,
  any(c.isReadOnly) AS is_read_only, any(c.ownerID) AS owner_id, any({_full_name("o")}) AS owner_name,
  any(c.organizationId) AS organization_id, any(t.name) AS organization_name, any(c.description) AS description,
  any(c.isNotifiable) AS is_notifiable, max(c.unreadMessageCount) AS unread_message_count,
  any(c.startedWebinarEventId) AS started_webinar_event_id, min(c.user_id) AS discovered_via_user_id
FROM bi.user_channels AS c
LEFT JOIN bi.chats_organization_members AS o ON o.chatUserId = c.ownerID
LEFT JOIN bi.chats_teams AS t ON t.id = c.organizationId
GROUP BY c.chatId""",
    ),
    Mart(
        "combined_messages",
        "Messages with the names of the chat and of the author.",
        ("channel_messages", "user_channels", "chats_organization_members", "chats_teams"),
        f"""SELECT m.chat_id AS chat_id, c.name AS chat_name, c.organization_id AS organization_id,
  c.organization_name AS organization_name, m.authorId AS authorId, {_full_name("a")} AS full_name, m.text AS text,
  m.createdAtMs AS createdAt
FROM bi.channel_messages AS m
LEFT JOIN mts_link_marts.unique_chats AS c ON c.chat_id = m.chat_id
LEFT JOIN bi.chats_organization_members AS a ON a.chatUserId = m.authorId""",
        "createdAt",
    ),
    Mart(
        "messages_by_chat_user_day",
        "Messages by chat, person and day, and their mean length in characters.",
        ("channel_messages", "user_channels", "chats_organization_members", "chats_teams"),
        """SELECT chat_id, chat_name, authorId AS user_id, full_name, toDate(createdAt, '{zone}') AS date,
  count() AS messages_count, round(avg(lengthUTF8(ifNull(text, ''))), 2) AS average_message_length
FROM mts_link_marts.combined_messages GROUP BY ALL""",
        "date",
        "sum(messages_count)",
    ),
    Mart(
        "chat_analyzer",
        "Chats by size: members, messages, people who wrote, mean length of a message in characters, and why a chat "
        "could not be read at the last attempt.",
        ("channel_messages", "user_channels", "channel_users", "chats_organization_members", "chats_teams"),
        """SELECT c.chat_id AS chat_id, c.name AS name, u.users AS users_count, m.messages AS message_count,
  m.length AS average_message_length, m.senders AS unique_message_senders,
  multiIf(r.status IS NULL OR r.status = 200, '', r.status = 404, 'not found', r.status = 403, 'forbidden',
    r.status >= 500, 'server error', 'other') AS error
FROM mts_link_marts.unique_chats AS c
LEFT JOIN (SELECT chat_id, uniqExact(userId) AS users FROM bi.channel_users GROUP BY chat_id) AS u
  ON u.chat_id = c.chat_id
LEFT JOIN (SELECT chat_id, count() AS messages, round(avg(lengthUTF8(ifNull(text, ''))), 2) AS length,
  uniqExact(authorId) AS senders FROM bi.channel_messages GROUP BY chat_id) AS m ON m.chat_id = c.chat_id
LEFT JOIN (SELECT parent, status FROM mts_link.parent_reads FINAL WHERE endpoint = 'channel_messages') AS r
  ON r.parent = c.chat_id""",
    ),
    Mart(
        "daily_active_users",
        "People who wrote at least one message in a chat, by day; days of silence are there with 0.",
        ("channel_messages",),
        f"""SELECT date, toDayOfWeek(date) AS day_of_week, unique_active_users, total_messages,
  if(unique_active_users = 0, 0, round(total_messages / unique_active_users, 1)) AS avg_messages_per_user
FROM (SELECT {_MESSAGE_DAY} AS date, uniqExact(m.authorId) AS unique_active_users, count() AS total_messages
  FROM bi.channel_messages AS m WHERE m.createdAtMs IS NOT NULL GROUP BY date ORDER BY date WITH FILL STEP 1)""",
        "date",
        "sum(unique_active_users)",
    ),
    Mart(
        "daily_active_users_detailed",
        "People who wrote in chats: on how many days, how much on a day on which they wrote, first and last day.",
        ("channel_messages", "chats_organization_members"),
        f"""SELECT m.authorId AS user_id, any({_full_name("a")}) AS full_name, uniqExact({_MESSAGE_DAY}) AS days_active,
  count() AS total_messages, round(total_messages / days_active, 1) AS avg_messages_per_day,
  min({_MESSAGE_DAY}) AS first_message_date, max({_MESSAGE_DAY}) AS last_message_date
FROM bi.channel_messages AS m LEFT JOIN bi.chats_organization_members AS a ON a.chatUserId = m.authorId
WHERE m.createdAtMs IS NOT NULL GROUP BY m.authorId""",
    ),
    Mart(
        "endless_activities",
        "Calls in permanent rooms; the duration is whole minutes between beginning and end.",
        ("endless_meetings_activities",),
        f"""SELECT id AS activity_id, eventSession_id AS event_session_id, eventId AS endless_event_id,
  createdBy_id AS user_id, creator AS user_name, 'call' AS activity_type, status, startedAt AS start_time,
  finishedAt AS end_time, minutes AS duration_minutes, length(people) AS participants_count,
  eventSession_name AS room_name FROM ({_CALLS})""",
        "start_time",
    ),
    Mart(
        "daily_activity",
        "Messages and calls by day. `unique_call_users` counts creators of rooms, as the old script did; "
        "`unique_call_participants` counts who was in calls.",
        ("channel_messages", "endless_meetings_activities"),
        f"""SELECT if(m.date > toDate(0), m.date, c.date) AS date, m.messages AS messages_count,
  m.length AS avg_message_length, m.senders AS unique_senders, m.chats AS active_chats, c.calls AS calls_count,
  ifNull(c.mean, 0) AS avg_call_duration_min, ifNull(c.total, 0) AS total_call_duration_min, c.creators AS unique_call_users,
  c.rooms AS unique_call_rooms, c.seats AS total_call_participants, c.persons AS unique_call_participants,
  m.messages + c.calls AS total_activity_events
FROM (SELECT {_MESSAGE_DAY} AS date, count() AS messages, round(avg(lengthUTF8(ifNull(m.text, ''))), 1) AS length,
  uniqExact(m.authorId) AS senders, uniqExact(m.chat_id) AS chats
  FROM bi.channel_messages AS m WHERE m.createdAtMs IS NOT NULL GROUP BY date) AS m
FULL OUTER JOIN (SELECT assumeNotNull(toDate(startedAt, '{{zone}}')) AS date, count() AS calls,
  round(avg(minutes), 1) AS mean, sum(minutes) AS total, uniqExact(createdBy_id) AS creators,
  uniqExact(eventSession_id) AS rooms, sum(length(people)) AS seats, length(groupUniqArrayArray(people)) AS persons
  FROM ({_CALLS}) WHERE startedAt IS NOT NULL GROUP BY date) AS c ON c.date = m.date""".replace(
            "{{zone}}", "{zone}"
        ),
        "date",
        "sum(total_activity_events)",
    ),
    Mart(
        "participant_attendance",
        "A person in a session: seconds in the room by the connections (`present_s`; two devices at once count once, "
        "`connected_s` adds them up), share of the session, involvement, speech, attention.",
        ("users_stats",),
        f"""SELECT user_id, event_session_id, event_id, startsAt AS starts_at, session_s,
  round(present_s) AS present_s, round(connected_s) AS connected_s, connections_count,
  if(ifNull(session_s, 0) > 0, round(100 * least(present_s, toFloat64(session_s)) / session_s, 1), NULL) AS present_pct,
  involvement_pct, activity_pct, attention_shown, attention_confirmed,
  if(ifNull(attention_shown, 0) > 0, round(100 * attention_confirmed / attention_shown, 1), NULL) AS attention_pct,
  speech_s, speech_share_pct, reactions, rating FROM ({_PRESENCE})""",
        "starts_at",
    ),
    Mart(
        "event_analyzer",
        "Sessions: who was registered, who came (`visited`), how long people stayed by their connections (minutes of "
        "those who came), and what is left of it: records, transcripts, attention checks.",
        (
            "event_sessions",
            "event_participants",
            "users_stats",
            "transcript_list",
            "attention_checkpoints",
            "attention_interactions",
        ),
        f"""SELECT s.id AS event_session_id, s.eventId AS event_id, s.name AS name, s.status AS status,
  s.startsAt AS start_time, s.endsAt AS end_time, intDiv(dateDiff('second', s.startsAt, s.endsAt), 60) AS duration_minutes,
  p.people AS participants_count, p.persons AS unique_participants, p.came AS visited_count,
  if(p.people > 0, round(100 * p.came / p.people, 1), NULL) AS attendance_pct,
  round(d.mean / 60, 1) AS average_participant_duration_minutes, round(d.longest / 60, 1) AS max_participant_duration_minutes,
  round(d.shortest / 60, 1) AS min_participant_duration_minutes,
  toUInt64(s.recordUrl_id IS NOT NULL) AS recordings_count, t.n AS transcripts_count, k.n AS checkpoints_count,
  i.n AS interactions_count, recordings_count > 0 AS has_recordings, t.n > 0 AS has_transcripts,
  k.n > 0 AS has_attention_control
FROM bi.event_sessions AS s
LEFT JOIN (SELECT event_session_id, count() AS people, uniqExact(ifNull(userId, id)) AS persons, countIf(visited) AS came
  FROM bi.event_participants GROUP BY event_session_id) AS p ON p.event_session_id = s.id
LEFT JOIN (SELECT event_session_id, avg(present_s) AS mean, max(present_s) AS longest, min(present_s) AS shortest
  FROM ({_PRESENCE}) WHERE present_s > 0 GROUP BY event_session_id) AS d ON d.event_session_id = s.id
LEFT JOIN (SELECT event_session_id, count() AS n FROM bi.transcript_list GROUP BY event_session_id) AS t
  ON t.event_session_id = s.id
LEFT JOIN (SELECT event_session_id, count() AS n FROM bi.attention_checkpoints GROUP BY event_session_id) AS k
  ON k.event_session_id = s.id
LEFT JOIN (SELECT event_session_id, count() AS n FROM bi.attention_interactions GROUP BY event_session_id) AS i
  ON i.event_session_id = s.id""",
        "start_time",
        "sum(visited_count)",
    ),
    Mart(
        "involvement",
        "Sessions by involvement and attention: means over the people who came; attention is confirmed of shown.",
        ("users_stats",),
        f"""SELECT event_session_id, any(event_id) AS event_id, any(startsAt) AS starts_at, count() AS people,
  round(avg(involvement_pct), 1) AS average_involvement_pct, round(avg(activity_pct), 1) AS average_activity_pct,
  sum(p.attention_shown) AS attention_shown, sum(p.attention_confirmed) AS attention_confirmed,
  if(sum(p.attention_shown) > 0, round(100 * sum(p.attention_confirmed) / sum(p.attention_shown), 1), NULL) AS attention_pct,
  countIf(p.speech_s > 0) AS speakers, sum(p.speech_s) AS speech_s, sum(p.reactions) AS reactions,
  round(avg(p.rating), 2) AS average_rating FROM ({_PRESENCE}) AS p WHERE came GROUP BY event_session_id""",
        "starts_at",
        "avg(average_involvement_pct)",
    ),
    Mart(
        "test_summary",
        "Tests: runs, people who took them, who passed, mean points. A person counts once a run.",
        ("tests_list", "test_results"),
        """SELECT t.id AS test_id, t.name AS name, uniqExactIf(r.id, r.id != '') AS runs,
  countIf(r.userId != '') AS passings, uniqExactIf(r.userId, r.userId != '') AS people,
  countIf(r.userId != '' AND r.isTestPassed) AS passed,
  if(passings > 0, round(100 * passed / passings, 1), NULL) AS pass_rate_pct,
  round(avgIf(r.pointsSum, r.userId != ''), 2) AS average_points, max(r.startTime) AS last_run_at
FROM bi.tests_list AS t LEFT JOIN bi.test_results AS r ON r.test_id = t.id GROUP BY t.id, t.name""",
    ),
    Mart(
        "course_progress",
        "Groups of courses: students, who finished (`successed`), mean progress and score.",
        ("courses_groups", "course_group_statistics"),
        """SELECT g.course_id AS course_id, g.course_name AS course_name, g.id AS group_id, g.startsAt AS starts_at,
  g.endsAt AS ends_at, uniqExactIf(s.id, s.id != '') AS students,
  uniqExactIf(s.id, s.student_status = 'successed') AS finished,
  if(students > 0, round(100 * finished / students, 1), NULL) AS finished_pct,
  round(avg(s.progress), 1) AS average_progress_pct, round(avg(s.score), 1) AS average_score,
  max(s.lastActivityAt) AS last_activity_at
FROM bi.courses_groups AS g LEFT JOIN bi.course_group_statistics AS s ON s.group_id = g.id AND s.course_id = g.course_id
GROUP BY g.course_id, g.course_name, g.id, g.startsAt, g.endsAt""",
    ),
)
