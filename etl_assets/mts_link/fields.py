"""The words of MTS Link: what a field of any method means and how its value is read.

A field is called the same in all methods, so it stands here once. Fields that no method documents stay in
the column `raw`.
"""

from __future__ import annotations

from dataclasses import dataclass

from resources.clickhouse.table import Column
from resources.clickhouse.values import FLOAT64, INSTANT, INTEGER, JSON, TEXT, UNIX_SECONDS, Kind, absent

_YES = "('1', 'true', 'True', 'yes')"
_NO = r"('0', 'false', 'False', 'no', '\x1dfalse')"


def _boolean(v: str, zone: str) -> str:
    # true, 1, "1", "true": all of them are met
    return f"multiIf({v} IN {_YES}, true, {v} IN {_NO}, false, CAST(NULL, 'Nullable(Bool)'))"


def _milliseconds(v: str, zone: str) -> str:
    ticks = f"toInt64OrNull({v})"
    known = f"{ticks} >= -2208988800000 AND {ticks} < 10413792000000"
    return f"if({known}, fromUnixTimestamp64Milli(assumeNotNull({ticks}), 'UTC'), NULL)"


def _whole(v: str, zone: str) -> str:
    return f"if({absent(v)}, NULL, {v})"


BOOLEAN = Kind("boolean", "Bool", _boolean)
UNIX_MILLISECONDS = Kind("unix_milliseconds", "DateTime64(3)", _milliseconds)
RAW = Kind("raw", "String", _whole, loose=True)


@dataclass(frozen=True, slots=True)
class Field:
    kind: Kind
    about: str


_WORDS: dict[Kind, dict[str, str]] = {
    TEXT: {
        "access": "Access mode, a code",
        "agreementStatus": "Consent to the processing of data",
        "answerData": "Text of an answer",
        "answerImage": "Picture of an answer",
        "approval": "State of approval",
        "assessType": "pointsSum or answerCount",
        "authorId": "Who wrote it; a chatUserId in chats",
        "authorName": "Who wrote it",
        "avatarUrl": "Picture",
        "certSetting": "none, auto or manual",
        "chatId": "Chat, UUID",
        "chatMemberId": "Member record of a chat user, UUID",
        "chatMemberRole": "Admin, Owner or Member",
        "chatUserId": "Person in chats, UUID; not the number of mtsLinkUserId",
        "checkpointId": "Attention check",
        "clientId": "Client of the application",
        "code": "Code",
        "company": "Company",
        "country": "Country",
        "coverFileId": "File of the cover",
        "coverFileUrl": "Address of the cover",
        "createUserId": "Who made it",
        "department": "Department",
        "description": "Description",
        "displayName": "Name shown",
        "downloadUrl": "Address of the bytes; works for a short time and for whoever holds it",
        "email": "E-mail",
        "eventId": "Event",
        "eventSessionId": "Event session",
        "fileType": "presentation, test, testResult, …",
        "firstName": "First name",
        "format": "File format",
        "id": "Id",
        "image": "Picture",
        "lang": "Language",
        "lastName": "Surname",
        "link": "Address of the player",
        "locale": "Language",
        "membershipId": "Membership in the organisation",
        "mimeType": "Media type",
        "mtsLinkUserId": "User, as in organization_members.id",
        "name": "Name",
        "nickname": "Name shown",
        "organization": "Organisation",
        "organizationId": "Organisation",
        "ownerID": "Owner, a chatUserId",
        "parentId": "Parent",
        "participantId": "Participation",
        "path": "Path in the storage",
        "pattrName": "Patronymic, spelled so by this method",
        "patrName": "Patronymic",
        "paymentStatus": "Payment",
        "phone": "Phone",
        "phoneMain": "Phone",
        "position": "Position",
        "presence": "Online or Offline",
        "questionData": "Text of a question",
        "questionImage": "Picture of a question",
        "referrer": "Where the visitor came from",
        "registerStatus": "Registration",
        "role": "Role",
        "rule": "Recurrence, RFC 5545",
        "secondName": "Second name",
        "sex": "m, f or o",
        "startType": "manual, autostart or autowebinar",
        "startedWebinarEventId": "Event started from the chat",
        "state": "State",
        "status": "State",
        "testId": "Test",
        "testSessionId": "Run of a test",
        "text": "Text",
        "thumbnailUrl": "Small picture",
        "timeZone": "Time zone",
        "timezoneId": "Time zone, as in timezones_list.id",
        "timezoneName": "Time zone",
        "title": "Title",
        "trajectory": "close or open",
        "type": "Type",
        "typeFile": "file, video, presentation, slide, test, record or ConvertedRecord",
        "uri": "Address without a scheme",
        "url": "Address",
        "userId": "User",
        "uuid": "UUID",
        "visibilityStatus": "Who sees it",
    },
    INTEGER: {
        "chatMessageCount": "Messages of all in the session's chat",
        "confirmedCount": "Attention checks answered",
        "correctlyAnsweredQuestions": "Questions answered right",
        "cost": "Price",
        "count": "How many",
        "duration": "Seconds",
        "endedCount": "How many finished",
        "invitedCount": "Invited",
        "invitedVisitedCount": "Invited and came",
        "minAnswers": "Answers needed to pass",
        "number": "Position",
        "offset": "Seconds east of UTC",
        "order": "Position",
        "participationsCount": "Participants",
        "passedCount": "How many passed",
        "questionCount": "Questions of all in the session",
        "rating": "Rating given to the event",
        "registeredCount": "Registered",
        "registeredVisitedCount": "Registered and came",
        "rotate": "Degrees",
        "shownCount": "Attention checks shown",
        "size": "Bytes; 0: the record is still being put together",
        "speechDuration": "Seconds of speech",
        "startsCount": "How often it was run",
        "unreadMessageCount": "Unread messages of the member asked for",
        "userChatMessageCount": "Messages of the person in the session's chat",
        "userQuestionCount": "Questions of the person",
        "usersCount": "How many people",
        "usersReactionClicks": "Reactions of the person",
    },
    FLOAT64: {
        "actualInvolvement": "Involvement, percent",
        "actualParticipantActivityPercent": "Activity, percent",
        "attendance": "Who came of those invited and registered, percent",
        "minPoints": "Points needed to pass",
        "passingScore": "Score needed to pass",
        "percent": "Percent",
        "percentOfTotalReactionClicks": "Share of all reactions, percent",
        "percentOfTotalSpeechDuration": "Share of all speech, percent",
        "points": "Points",
        "pointsSum": "Points",
        "progress": "Progress, percent",
        "score": "Score",
    },
    BOOLEAN: {
        "allowCustomAnswer": "Own answers are allowed",
        "complexResultsShared": "The results of all are shown",
        "hasPassword": "Needs a password",
        "individualResultsShared": "Own results are shown",
        "isAccepted": "The participation is accepted",
        "isAnswered": "It was answered",
        "isArchive": "In the archive",
        "isBot": "Not a person",
        "isComplexResultsShared": "The results of all are shown",
        "isConvert": "Can be converted",
        "isCorrect": "Right",
        "isDeleted": "In the bin of the source",
        "isEnabled": "Switched on",
        "isEnded": "Over",
        "isEndless": "Has no end",
        "isHidden": "Hidden",
        "isIndividualResultsShared": "Own results are shown",
        "isModerated": "Passed by a moderator",
        "isNotifiable": "Members are notified",
        "isOnline": "In the room now",
        "isPreModerationEnabled": "Answers are moderated",
        "isPublic": "Public",
        "isPublish": "Published",
        "isReadOnly": "Only admins write",
        "isResultSubmitted": "The result was handed in",
        "isSeen": "The invitation was seen",
        "isSystem": "Made by the system",
        "isTestPassed": "Passed",
        "isViewable": "May be looked at",
        "sentByAdmin": "Written by the organiser",
        "visited": "The person came",
    },
    INSTANT: {
        "confirmedAt": "When it was confirmed, UTC",
        "convertedAt": "When the conversion ended, UTC",
        "createAt": "When it was made, UTC",
        "createdAt": "When it was made, UTC",
        "endTime": "End, UTC",
        "endedAt": "End, UTC",
        "endsAt": "End, UTC: the actual one once it is over",
        "estimatedAt": "Planned start, UTC",
        "eventSessionEndsAt": "End of the session, UTC",
        "finishedAt": "End, UTC",
        "lastActivityAt": "Last activity, UTC",
        "lastStart": "Last run, UTC",
        "loweredAt": "When the hand was lowered, UTC",
        "raisedAt": "When the hand was raised, UTC",
        "reactedAt": "When, UTC",
        "registerDate": "When the person registered, UTC",
        "shownAt": "When it was shown, UTC",
        "startTime": "Start, UTC",
        "startedAt": "Start, UTC",
        "startsAt": "Start, UTC: the actual one once it was held",
        "updateAt": "When it was changed, UTC",
        "updatedAt": "When it was changed, UTC",
    },
    UNIX_SECONDS: {"utcStartsAt": "Start, UTC"},
    UNIX_MILLISECONDS: {"createdAtMs": "When it was written, UTC"},
    JSON: {
        "accessSettings": "What is asked for at the entrance",
        "additionalFieldValues": "Answers of the registration form",
        "additionalFields": "Fields of the registration form",
        "announceFiles": "Files of the announcement",
        "answers": "Answers",
        "attachments": "Attached files",
        "avatar": "Picture",
        "avatarThumbnails": "Pictures",
        "connections": "Times in the room: joined, leaved, duration in seconds, place, platform",
        "cuts": "Cut parts",
        "drawings": "Drawings",
        "eventSessions": "Sessions",
        "files": "Files",
        "firstUnreadMessage": "First unread message",
        "groups": "Groups",
        "lastMessage": "Newest message",
        "lectors": "Speakers",
        "participants": "Who took part",
        "platform": "Platforms",
        "photo": "Picture",
        "questions": "Questions",
        "recordUrl": "The record",
        "slides": "Slides",
        "steps": "Steps of the course",
        "streams": "Streams",
        "studentsCount": "Students by state",
        "summary": "Summary",
        "tags": "Tags",
        "testSessions": "Runs",
        "thumbnails": "Small pictures",
        "users": "People",
        "utms": "Marks of advertising",
    },
}
FIELDS = {name: Field(kind, about) for kind, words in _WORDS.items() for name, about in words.items()}

# Of these only the named part is a value; the word before it says whose.
_PARTS = {
    "file": "file",
    "user": "user",
    "createUser": "who made it",
    "createdBy": "who made it",
    "createdByUser": "who made it",
    "owner": "owner",
    "course": "course",
    "contact": "contact",
    "student": "student",
    "group": "group",
    "parent": "parent folder",
    "recordFile": "record",
    "eventSession": "event session",
    "attentionControl": "attention control",
    "chatMemberProfile": "profile",
    "lastMessage": "newest message",
    "recordUrl": "record",
    "summary": "summary",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A column and where its value stands in a record: paths, the first of which that is there counts."""

    column: str
    paths: tuple[tuple[str, ...], ...]
    field: Field

    def of(self, record: dict[str, object]) -> object:
        """The value; None if no path leads to one."""
        for path in self.paths:
            found: object = record
            for part in path:
                found = found.get(part) if isinstance(found, dict) else None
            if found is not None:
                return found
        return None

    def as_column(self, *, required: bool) -> Column:
        return Column(self.column, self.column, self.field.kind, self.field.about, required=required)


def sources(text: str) -> tuple[Source, ...]:
    """Columns from words: `name`, `createUser.id` (column `createUser_id`), `authorId|senderId` (either).

    Raises ValueError for a word that no field explains.
    """
    return tuple(_source(word) for word in text.split())


def _source(word: str) -> Source:
    column, _, paths = word.rpartition("=")
    alternatives = tuple(tuple(path.split(".")) for path in paths.split("|"))
    first = alternatives[0]
    names = [*(path[-1] for path in alternatives), column]
    field = next((FIELDS[name] for name in names if name in FIELDS), None)
    if field is None:
        raise ValueError(f"no field is called {' or '.join(names)}")
    if len(first) > 1 and first[-2] in _PARTS:
        field = Field(field.kind, f"{_PARTS[first[-2]].capitalize()}: {field.about}")
    return Source(column or "_".join(first), alternatives, field)
