"""Which rows a method is asked for one by one, found in the tables of other methods.

Each `sql` gives the key columns, `state`, `day` and `ended`. A parent is asked about again when its `state`
is another one than at the last read; `ended` puts it into the look-back of the nightly load; a partition
holds the parents of its `day`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from etl_assets.mts_link.fields import Field, Source
from resources.clickhouse import WarehouseResource
from resources.clickhouse.values import TEXT
from resources.errors import PermanentSourceError

DATABASE = "mts_link"
SEPARATOR = "/"  # between the values of a parent of two columns
_NEVER = "CAST(NULL, 'Nullable(DateTime64(3))')"


@dataclass(frozen=True, slots=True)
class Parents:
    """Rows that feed a fan-out. `tables` are read by `sql`, and the first one must be there."""

    columns: tuple[str, ...]
    tables: tuple[str, ...]
    sql: str

    @property
    def asset(self) -> str:
        """The asset whose rows they are."""
        return {"event_sessions": "organization_events_schedule"}.get(self.tables[0], self.tables[0])


@dataclass(frozen=True, slots=True)
class Parent:
    """One of them: the values of its key columns, what it looked like, and its times."""

    values: tuple[str, ...]
    state: str
    day: datetime | None
    ended: datetime | None

    @property
    def key(self) -> str:
        return SEPARATOR.join(self.values)


def aware(value: datetime) -> datetime:
    """A time out of the warehouse, which is UTC."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value


def _hash(columns: str) -> str:
    """SQL: what a row looks like, as a number. As a text first: the hash of anything with a NULL is NULL."""
    return f"cityHash64(toString(tuple({columns})))"


def _untyped(column: str) -> str:
    """SQL: JSON without its quotes, so that an id is the same as a number and as a text."""
    return f"""replaceAll(ifNull({column}, ''), '"', '')"""


def _rows(table: str, key: str, state: str, *, where: str = "1", day: str = "", ended: str = "") -> str:
    return (
        f"SELECT {key}, toString({state}) AS state, {day or _NEVER} AS day, {ended or _NEVER} AS ended "
        f"FROM {DATABASE}.{table} FINAL WHERE is_deleted = 0 AND ({where})"
    )


_OUTLINE = "name, status, type, access, startsAt, endsAt, estimatedAt, recordUrl_id"
_HELD = "status = 'STOP'"


def _sessions(state: str, where: str = "1") -> str:
    return _rows("event_sessions", "id", _hash(state), where=where, day="startsAt", ended="endsAt")


# The sessions out of their own table: an answer holds only those of its period.
_EVENTS = (
    f"SELECT e.id AS id, toString({_hash('e.name, e.status, type, access, startsAt, endsAt, rule, held')}) "
    f"AS state, startsAt AS day, endsAt AS ended FROM {DATABASE}.organization_events_schedule AS e FINAL "
    f"LEFT JOIN (SELECT eventId, arraySort(groupArray(tuple(id, {_hash(_OUTLINE)}))) AS held "
    f"FROM {DATABASE}.event_sessions FINAL WHERE is_deleted = 0 GROUP BY eventId) AS s ON s.eventId = e.id "
    "WHERE e.is_deleted = 0"
)
_ROOMS = _rows("endless_meetings_list", "id", "updatedAt", day="createdAt", ended="updatedAt")
_CHATS = (
    f"SELECT chatId AS id, {{state}} AS state, {_NEVER} AS day, {_NEVER} AS ended "
    f"FROM {DATABASE}.user_channels FINAL WHERE is_deleted = 0 GROUP BY chatId"
)
# Where lists of chats do not tell their newest message, every chat has to be asked.
_NEWEST = (
    "if(count(lastMessage) = 0, '', "
    f"toString(cityHash64(arraySort(groupUniqArray({_untyped('lastMessage')})))))"
)
# What a person did in sessions that are over: when it grows there may be new results.
_PEOPLE = (
    f"SELECT userId AS id, toString({_hash('count(), max(s.endsAt)')}) AS state, "
    f"{_NEVER} AS day, max(s.endsAt) AS ended FROM {DATABASE}.event_participants AS p FINAL "
    f"INNER JOIN {DATABASE}.event_sessions AS s FINAL ON s.id = p.event_session_id AND s.status = 'STOP' "
    "WHERE p.is_deleted = 0 AND s.is_deleted = 0 AND p.userId IS NOT NULL GROUP BY userId"
)
_MEMBERS = f"SELECT id, '' AS state, {_NEVER} AS day, {_NEVER} AS ended FROM {DATABASE}.organization_members"
_TEST = _hash(f"name, lastStart, startsCount, {_untyped('testSessions')}")
_FILE = _hash("name, type, size, state, progress, isDeleted")
_SESSION = ("event_session_id",)

PARENTS = {
    "contacts": Parents(
        ("contact_id",),
        ("contacts_search",),
        f"SELECT id, toString(cityHash64({_untyped('raw')})) AS state, {_NEVER} AS day, {_NEVER} AS ended "
        f"FROM {DATABASE}.contacts_search",
    ),
    "contact_users": Parents(
        ("contact_id",),
        ("contacts_search",),
        f"SELECT id, toString(userId) AS state, {_NEVER} AS day, {_NEVER} AS ended "
        f"FROM {DATABASE}.contacts_search WHERE userId IS NOT NULL",
    ),
    "members": Parents(("user_id",), ("organization_members",), _MEMBERS),
    "chat_members": Parents(
        ("user_id",),
        ("chats_organization_members",),
        f"SELECT chatUserId AS id, '' AS state, {_NEVER} AS day, {_NEVER} AS ended "
        f"FROM {DATABASE}.chats_organization_members "
        "WHERE NOT ifNull(isBot, false) AND ifNull(status, 'Active') NOT IN ('Blocked', 'Deleted')",
    ),
    "chats": Parents(("chat_id",), ("user_channels",), _CHATS.format(state="''")),
    "written_chats": Parents(("chat_id",), ("user_channels",), _CHATS.format(state=_NEWEST)),
    "courses": Parents(
        ("course_id",),
        ("organization_courses",),
        f"SELECT id, '' AS state, {_NEVER} AS day, {_NEVER} AS ended FROM {DATABASE}.organization_courses",
    ),
    "course_groups": Parents(
        ("course_id", "group_id"),
        ("courses_groups",),
        f"SELECT course_id, id, '' AS state, {_NEVER} AS day, {_NEVER} AS ended "
        f"FROM {DATABASE}.courses_groups WHERE course_id IS NOT NULL",
    ),
    "sessions": Parents(_SESSION, ("event_sessions",), _sessions(_OUTLINE)),
    "attended": Parents(_SESSION, ("event_sessions",), _sessions(f"{_OUTLINE}, participationsCount")),
    "finished": Parents(_SESSION, ("event_sessions",), _sessions(_OUTLINE, _HELD)),
    "events": Parents(("event_id",), ("organization_events_schedule",), _EVENTS),
    "tests": Parents(("test_id",), ("tests_list",), _rows("tests_list", "id", _TEST)),
    "started_tests": Parents(
        ("test_id",),
        ("tests_list",),
        _rows("tests_list", "id", _TEST, where="ifNull(startsCount, 1) > 0", ended="lastStart"),
    ),
    "files": Parents(
        ("file_id",),
        ("files_list",),
        f"SELECT id, toString({_FILE}) AS state, {_NEVER} AS day, {_NEVER} AS ended "
        f"FROM {DATABASE}.files_list WHERE ifNull(type, 'file') = 'file'",
    ),
    "converted_files": Parents(
        ("file_id",),
        ("converted_records_list",),
        _rows("converted_records_list", "id", _FILE, day="createAt"),
    ),
    "transcripts": Parents(
        ("transcript_id",),
        ("transcript_list",),
        _rows("transcript_list", "id", "status", where="status = 'published'", day="createdAt"),
    ),
    "checked": Parents(
        _SESSION,
        ("attention_checkpoints",),
        f"SELECT event_session_id AS id, toString({_hash('count(), max(endedAt)')}) AS state, "
        "min(startedAt) AS day, max(endedAt) AS ended "
        f"FROM {DATABASE}.attention_checkpoints FINAL WHERE is_deleted = 0 GROUP BY event_session_id",
    ),
}


def _either(*parts: str) -> str:
    return " UNION ALL ".join(f"({part})" for part in parts)


class ParentRows:
    """Reads them. Some parents depend on what else has been loaded, and on which classes of data are on."""

    def __init__(self, warehouse: WarehouseResource, classes: frozenset[str]) -> None:
        self._warehouse = warehouse
        self._classes = classes

    def read(self, name: str) -> list[Parent]:
        """All parents of a fan-out, ordered by key.

        Raises PermanentSourceError if the table that they stand in has never been loaded.
        """
        found = self._found(name)
        self._require(found.tables[0], found.asset)
        rows = self._warehouse.query(f"SELECT * FROM ({found.sql}) ORDER BY ALL")
        width = len(found.columns)
        parents = [Parent(tuple(map(str, r[:width])), *r[width:]) for r in rows]
        return list({parent.key: parent for parent in parents}.values())

    def _require(self, table: str, asset: str) -> None:
        if not self._there(table):
            raise PermanentSourceError(
                f"The rows of mts_link/{asset} are not there yet: materialize it first.",
            )

    def _there(self, table: str) -> bool:
        sql = "SELECT count() FROM system.tables WHERE database = {d:String} AND name = {t:String}"
        return bool(self._warehouse.query(sql, {"d": DATABASE, "t": table})[0][0])

    def _loaded(self, asset: str) -> bool:
        return self._there(asset) and self._warehouse.watermark(f"{DATABASE}/{asset}") is not None

    def _found(self, name: str) -> Parents:
        chosen = {
            "speakers": self._speakers,
            "converted": self._converted,
            "participants": self._participants,
            "visitors": self._visitors,
            "learners": self._learners,
        }.get(name)
        return chosen() if chosen else PARENTS[name]

    def _speakers(self) -> Parents:
        """Sessions that are over, and permanent rooms."""
        sessions = PARENTS["finished"].sql
        rooms = [_ROOMS] if self._there("endless_meetings_list") else []
        return Parents(_SESSION, ("event_sessions",), _either(sessions, *rooms))

    def _converted(self) -> Parents:
        """Sessions with a finished conversion; all that are over where conversions cannot be listed."""
        if not self._loaded("converted_records_org"):
            return self._speakers()
        lists = ["converted_records_org"]
        if self._there("converted_records_list"):
            lists.append("converted_records_list")
        listed = _either(
            *(
                "SELECT eventSession_id AS session, id AS record, ifNull(state, 'completed') AS step, "
                f"createAt AS made, convertedAt AS done FROM {DATABASE}.{table} FINAL WHERE is_deleted = 0"
                for table in lists
            )
        )
        sql = (
            "SELECT session AS id, toString(cityHash64(arraySort(groupUniqArray(record)))) AS state, "
            f"min(made) AS day, max(done) AS ended FROM ({listed}) "
            "WHERE session IS NOT NULL AND step = 'completed' GROUP BY session"
        )
        return Parents(_SESSION, ("converted_records_org",), sql)

    def _participants(self) -> Parents:
        """People who took part in sessions that are over; employees where participations were not loaded."""
        if self._loaded("event_participants"):
            return Parents(("user_id",), ("event_participants", "event_sessions"), _PEOPLE)
        return PARENTS["members"]

    def _visitors(self) -> Parents:
        """Employees; what they took part in tells whether their visits may have changed."""
        if not self._loaded("event_participants"):
            return PARENTS["members"]
        sql = (
            f"SELECT m.id AS id, p.state AS state, p.day AS day, p.ended AS ended "
            f"FROM {DATABASE}.organization_members AS m LEFT JOIN ({_PEOPLE}) AS p ON p.id = m.id"
        )
        return Parents(("user_id",), ("organization_members",), sql)

    def _learners(self) -> Parents:
        """Users behind contacts, for students are often no employees; else employees."""
        if "contacts" in self._classes and self._there("contacts_search"):
            sql = (
                "SELECT DISTINCT assumeNotNull(userId) AS id, "
                f"'' AS state, {_NEVER} AS day, {_NEVER} AS ended "
                f"FROM {DATABASE}.contacts_search WHERE userId IS NOT NULL"
            )
            return Parents(("user_id",), ("contacts_search",), sql)
        return PARENTS["members"]


COLUMNS = {
    "speakers": _SESSION,
    "converted": _SESSION,
    "participants": ("user_id",),
    "visitors": ("user_id",),
    "learners": ("user_id",),
} | {name: parents.columns for name, parents in PARENTS.items()}
ASSETS = {
    "speakers": "organization_events_schedule",
    "converted": "organization_events_schedule",
    "participants": "event_participants",
    "visitors": "organization_members",
    "learners": "organization_members",
} | {name: parents.asset for name, parents in PARENTS.items()}


def parent_columns(name: str) -> Sequence[Source]:
    """The columns that a fan-out adds to its rows: its parent's key."""
    return [Source(c, ((c,),), Field(TEXT, "The row that it was asked for")) for c in COLUMNS.get(name, ())]
