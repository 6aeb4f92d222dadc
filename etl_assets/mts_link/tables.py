"""Tables of MTS Link: the columns of a method, the key of its parent, and the whole record beside them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from etl_assets.loading import Batch
from etl_assets.mts_link.endpoints import Endpoint
from etl_assets.mts_link.endpoints.events import SESSION
from etl_assets.mts_link.fields import RAW, Source
from etl_assets.mts_link.parents import DATABASE, Parent, aware, parent_columns
from etl_assets.mts_link.shapes import event_sessions, fingerprint
from resources.clickhouse import Table
from resources.clickhouse.table import Column
from resources.clickhouse.values import INSTANT, INTEGER, TEXT
from resources.mts_link import Scrubber
from resources.mts_link.answers import is_php_date, moment_of, plain_date, text_id

SESSIONS = Endpoint(
    "event_sessions",
    "events",
    "Sessions of events, one row each, from the answers of organization_events_schedule.",
    "/organization/events/schedule",
    SESSION,
    strategy="window",
    shape=event_sessions,
)
# Only these of a message say nothing about what was written.
_OUTLINE_OF_MESSAGE = ("id", "messageId", "createdAtMs")
_MESSAGES = ("lastMessage", "firstUnreadMessage")

READS = Table(
    DATABASE,
    "parent_reads",
    (
        Column("endpoint", "endpoint", TEXT, "Method", required=True),
        Column("parent", "parent", TEXT, "Key of the row that it was asked for", required=True),
        Column("state", "state", TEXT, "What the row looked like; empty: ask again", required=True),
        Column("status", "status", INTEGER, "200, or the status of the refusal; 0: no answer"),
        Column("message", "message", TEXT, "The server's reason"),
        Column("rows", "rows", INTEGER, "Rows that came"),
        Column("cursor", "cursor", TEXT, "How far a list without an end was read"),
        Column("read_at", "read_at", INSTANT, "When, UTC"),
    ),
    ("endpoint", "parent"),
    comment="What each fan-out has asked for, so that a killed load goes on and unchanged rows cost nothing",
)
ERRORS = Table(
    DATABASE,
    "_errors",
    (
        Column("endpoint", "endpoint", TEXT, "Method", required=True),
        Column("parent", "parent", TEXT, "Key of the row that it was asked for", required=True),
        Column("status", "status", INTEGER, "Status of the refusal; 0: no answer"),
        Column("message", "message", TEXT, "The server's reason"),
        Column("failed_at", "failed_at", INSTANT, "When, UTC", required=True),
    ),
    ("endpoint", "parent", "failed_at"),
    comment="Rows of a fan-out that could not be read",
)


def table_of(endpoint: Endpoint, zone: str) -> Table:
    """The raw table of a method."""
    key = endpoint.key
    columns = [*parent_columns(endpoint.parent), *endpoint.columns]
    whole = endpoint.strategy in ("list", "folders")
    return Table(
        DATABASE,
        endpoint.name,
        (
            *(c.as_column(required=c.column in key) for c in columns),
            Column("raw", "raw", RAW, "The whole record as the source gave it, without secrets"),
        ),
        key,
        "snapshot" if whole else "upsert",
        endpoint.about,
        zone=zone,
        tombstones=not whole,
    )


@dataclass
class RowMaker:
    """Makes a table's rows of a method's records. `unknown` gathers fields that only `raw` holds.

    `oldest`: by class, what is older is not stored. `floor`: rows count as read then at the earliest, see
    `newer_than_all`.
    """

    endpoint: Endpoint
    scrubber: Scrubber
    zone: ZoneInfo
    classes: frozenset[str]
    oldest: Mapping[str, datetime] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    floor: datetime | None = None

    def __post_init__(self) -> None:
        self._columns = self.endpoint.columns
        self._parent = parent_columns(self.endpoint.parent)
        self._known = {path[0] for c in self._columns for path in c.paths}
        self._hashed = "id" in self.endpoint.key

    def batch(
        self, records: Iterable[Mapping[str, Any]], read_at: datetime, parent: Parent | None = None
    ) -> Batch:
        """One batch of the table's rows. Counts them by the day of `parent`, else by their own."""
        lines, days = [], Counter[str]()
        oldest = self.oldest.get(self.endpoint.privacy)
        for row in self.rows(records, parent):
            if oldest and (at := self._age(row, parent)) and at < oldest:
                continue
            lines.append(orjson.dumps(row))
            day = _day(parent) if parent else moment_of(row.get(self.endpoint.day or ""), self.zone)
            if day is not None:
                days[f"{day.astimezone(self.zone):%Y-%m-%d}"] += 1
        return Batch(b"\n".join(lines), len(lines), self.read_at(read_at), days)

    def _age(self, row: Mapping[str, Any], parent: Parent | None) -> datetime | None:
        """When a row was last in use, by its own columns, else by its parent."""
        own = (_moment(row.get(name), self.zone) for name in self.endpoint.ages)
        return next((at for at in own if at), None) or (_day(parent) if parent else None)

    def read_at(self, at: datetime) -> datetime:
        """When rows of an answer count as read."""
        return max(at, self.floor) if self.floor else at

    def rows(
        self, records: Iterable[Mapping[str, Any]], parent: Parent | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows as they go into the inlet."""
        named = [c.column for c in self._parent]
        owner = dict(zip(named, parent.values, strict=True)) if parent else {}
        for order, record in enumerate(records):
            clean = self._without_messages(self.scrubber.scrub(record, self.endpoint.dropped))
            for piece in self.endpoint.shape(clean) if self.endpoint.shape else (clean,):
                self.unknown |= piece.keys() - self._known
                row = {c.column: _value(c, piece, order) for c in self._columns}
                if self._hashed and row.get("id") is None:
                    row["id"] = fingerprint(self._identity(row) or piece)
                owned = owner or {c.column: _value(c, piece, order) for c in self._parent}
                yield {**row, **owned, "raw": orjson.dumps(piece).decode()}

    def _identity(self, row: Mapping[str, Any]) -> dict[str, str]:
        """What stands for an id, in one spelling; nothing if not all of it is there."""
        found = {name: row.get(name) for name in self.endpoint.identity}
        if None in found.values():
            return {}
        moments = {name: moment_of(value, self.zone) for name, value in found.items()}
        return {name: str(at.timestamp() if (at := moments[name]) else found[name]) for name in found}

    def _without_messages(self, record: dict[str, Any]) -> dict[str, Any]:
        oldest = self.oldest.get("chats")
        for name in _MESSAGES:
            if not isinstance(message := record.get(name), dict):
                continue
            at = _moment(message.get("createdAtMs"), self.zone)
            if "chats" not in self.classes or (oldest and at and at < oldest):
                record[name] = {k: message[k] for k in _OUTLINE_OF_MESSAGE if k in message}
        return record


def _day(parent: Parent) -> datetime | None:
    return aware(parent.day) if parent.day else None


def _moment(value: Any, zone: ZoneInfo) -> datetime | None:
    """An instant as text or in milliseconds."""
    if isinstance(value, int) or (isinstance(value, str) and value.isdigit()):
        try:
            return datetime.fromtimestamp(int(value) / 1000, UTC)
        except (OverflowError, OSError, ValueError):
            return None
    return moment_of(value, zone)


def _value(source: Source, record: dict[str, Any], order: int) -> Any:
    if source.paths == (("order",),) and "order" not in record:
        return order
    value: Any = source.of(record)
    if is_php_date(value):
        return plain_date(value)
    if source.field.kind is TEXT and isinstance(value, int | float) and not isinstance(value, bool):
        return text_id(value)
    return value
