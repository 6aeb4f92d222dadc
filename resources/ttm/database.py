"""The ticket tables in PostgreSQL: the old names and columns, so that existing dashboards keep working.

Nothing here knows Dagster or the network. Every write is one transaction and may be repeated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.engine import URL

from resources.postgres import DRIVER, OPERATIONS_SETTING, PostgresError, connect, require_answer, with_driver
from resources.ttm.analysis import Analysis, ExpiredRow
from resources.ttm.suspended import SuspendedRow
from resources.ttm.suspended_list import Plan

VERSION_TABLE = "ttm_alembic_version"
HEAD = "0001"  # the newest migration
Fact: TypeAlias = tuple[ExpiredRow, Analysis]
Row = TypeVar("Row")
LOCK = 0x54544D  # first half of the advisory lock's number; the other half is the schema
ROWS = 500  # of one insert
_NOT_STORABLE = re.compile("[\x00\ud800-\udfff]")

_tables = sa.MetaData()
EXPIRED = sa.Table(
    "expires_tickets",
    _tables,
    sa.Column("ticket_number", sa.BigInteger, primary_key=True),
    *(sa.Column(name, sa.Text) for name in ("responsible", "comment")),
    sa.Column("add_date", sa.Date),
    sa.Column("outcome", sa.Text),
    sa.Column("sla_minutes", sa.Numeric(asdecimal=False)),
    *(sa.Column(name, sa.BigInteger) for name in ("counted_seconds", "overrun_seconds")),
    *(sa.Column(name, sa.Text) for name in ("breach_task", "breach_unit")),
    *(sa.Column(name, sa.DateTime(timezone=True)) for name in ("breach_at", "loaded_at")),
)
UNITS = sa.Table(
    "expires_ticket_units",
    _tables,
    sa.Column("ticket_number", sa.BigInteger, primary_key=True),
    sa.Column("unit", sa.Text, primary_key=True),
    sa.Column("seconds", sa.BigInteger),
)
STOPPED = sa.Table(
    "stopped_tickets",
    _tables,
    sa.Column("task_number", sa.Text, primary_key=True),
    *(
        sa.Column(name, sa.DateTime(timezone=True))
        for name in ("agreement_pause", "begin_pause", "end_pause", "sla", "synced_at")
    ),
    *(sa.Column(name, sa.Text) for name in ("who_paused", "last_comment", "who_ask_pause")),
    sa.Column("ticket_number", sa.BigInteger),
)
LOADS = sa.Table(
    "ttm_loads",
    _tables,
    sa.Column("table_name", sa.Text, primary_key=True),
    sa.Column("day", sa.Text, primary_key=True),
    *(sa.Column(name, sa.DateTime(timezone=True)) for name in ("started_at", "complete_at")),
    *(sa.Column(name, sa.Integer) for name in ("listed", "row_count", "failed")),
    sa.Column("problem", sa.Text),
)


@dataclass(frozen=True, slots=True)
class Saved:
    """Tickets that were written, and those whose rows the database refused, with its words."""

    written: tuple[int, ...]
    refused: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Synced:
    """What a reading of the list changed: task numbers that were written, and those that left.

    `refused` is as in Saved. `superseded`: a newer reading was there already, so nothing was changed.
    """

    written: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    refused: Mapping[int, str] = field(default_factory=dict)
    superseded: bool = False


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to load a table: when it began, how many tickets were listed, and what went wrong."""

    started_at: datetime
    listed: int = 0
    failed: int = 0
    problem: str | None = None
    complete: bool = True


def operations_url(environ: Mapping[str, str] = os.environ) -> URL:
    """The database of the ticket tables: DB_PATH, else SVOD_POSTGRES_URL, else DB_USER … of the old tool.

    Raises PostgresError that names the setting which is missing or malformed.
    """
    for setting in ("DB_PATH", OPERATIONS_SETTING):
        if text := environ.get(setting, "").strip():
            # the old tool may have named another driver
            return with_driver(re.sub(r"^postgresql\+\w+://", "postgresql://", text), setting)
    user, name = environ.get("DB_USER", ""), environ.get("DB_NAME", "")
    if not (user and name):
        raise PostgresError(
            f"{OPERATIONS_SETTING} is not set: run `make env` for local use, or see .env.example"
            " (the old DB_PATH, or DB_USER, DB_PASSWORD and DB_NAME, work too)"
        )
    port = environ.get("DB_PORT", "5432")
    if not port.isdecimal():
        raise PostgresError("DB_PORT must be a number")
    password = environ.get("DB_PASSWORD") or None
    host = environ.get("DB_HOST", "localhost")
    return URL.create(DRIVER, user, password, host, int(port), name)


def storable(value: Any) -> Any:
    """The value; in a text what PostgreSQL cannot store (NUL, half a character) is U+FFFD."""
    return _NOT_STORABLE.sub("\ufffd", value) if isinstance(value, str) else value


class TtmDatabase:
    """The tables in one schema. Errors of the database come out as PostgresError, without the password."""

    def __init__(self, url: URL, schema: str = "public", zone: str = "Europe/Moscow") -> None:
        """`zone` is the business zone, for the days of rows that the original stored as UTC stamps."""
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", schema):
            raise PostgresError("TTM_DB_SCHEMA must be a name of latin letters, digits and underscores")
        self.url, self.schema, self.zone = url, schema, zone
        self._migrated = False

    @cached_property
    def _engine(self) -> sa.Engine:
        require_answer(self.url)
        return connect(self.url)

    def close(self) -> None:
        if "_engine" in self.__dict__:
            self._engine.dispose()
            del self._engine

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A transaction with the tables in place, in whose search path they are."""
        self.migrate()
        with self._begin() as connection:
            yield connection

    @contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                connection.execute(sa.text(f'set local search_path to "{self.schema}"'))
                yield connection
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise PostgresError(f"The database of tickets refused: {_sentence(error)}") from None

    def rows(self, sql: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a SELECT as dictionaries."""
        with self.transaction() as connection:
            return [dict(row) for row in connection.execute(sa.text(sql), parameters).mappings()]

    # Structure

    def migrate(self) -> bool:
        """Create the tables or bring those of the original up to date. False if there was nothing to do."""
        if self._migrated:
            return False
        with self._begin() as connection:
            changed = self._version(connection) != HEAD and self._upgrade(connection)
        self._migrated = True
        return changed

    def _version(self, connection: sa.Connection) -> str | None:
        table = f'"{self.schema}".{VERSION_TABLE}'
        if connection.execute(sa.text("select to_regclass(:t)"), {"t": table}).scalar() is None:
            return None
        return connection.execute(sa.text(f"select version_num from {table}")).scalar()

    def _upgrade(self, connection: sa.Connection) -> bool:
        from alembic import command
        from alembic.config import Config

        self._lock(connection)
        connection.execute(sa.text(f'create schema if not exists "{self.schema}"'))
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes.update(connection=connection, schema=self.schema, zone=self.zone)
        command.upgrade(config, "head")
        return True

    def _lock(self, connection: sa.Connection) -> None:
        """One writer of the list, or of the structure, at a time; until the transaction ends."""
        connection.execute(
            sa.text("select pg_advisory_xact_lock(:lock, hashtext(:schema))"),
            {"lock": LOCK, "schema": self.schema},
        )

    # Overdue tickets

    def save_expired(self, facts: Iterable[Fact]) -> Saved:
        """Upsert rows with the units of their tickets.

        A row of an older closing never replaces that of a later one, so a backfill harms nothing.
        """
        found = {fact[0].ticket_number: fact for fact in facts}
        written: list[int] = []
        with self.transaction() as connection:
            refused = _each(
                connection,
                [found[number] for number in sorted(found)],
                lambda part: written.extend(self._upsert_expired(connection, part)),
            )
        return Saved(tuple(written), {row.ticket_number: why for (row, _), why in refused})

    def _upsert_expired(self, connection: sa.Connection, facts: Sequence[Fact]) -> list[int]:
        now = datetime.now(UTC)
        statement = insert(EXPIRED).values([{**expired_record(*fact), "loaded_at": now} for fact in facts])
        older = EXPIRED.c.add_date.is_(None) | (statement.excluded.add_date >= EXPIRED.c.add_date)
        upsert = statement.on_conflict_do_update(
            index_elements=["ticket_number"], set_=_new(EXPIRED, statement), where=older
        )
        written = list(connection.execute(upsert.returning(EXPIRED.c.ticket_number)).scalars())
        connection.execute(sa.delete(UNITS).where(UNITS.c.ticket_number.in_(written)))
        by_unit = {row.ticket_number: analysis.by_unit for row, analysis in facts}
        units = [
            {"ticket_number": number, "unit": storable(unit), "seconds": seconds}
            for number in written
            for unit, seconds in by_unit[number].items()
        ]
        for part in _parts(units, ROWS):
            connection.execute(insert(UNITS).values(part))
        return written

    # Suspended tickets

    def sync_stopped(self, plan: Plan, attempt: Attempt) -> Synced:
        """Make the list what the plan says, in one transaction; an older reading changes nothing."""
        keep: list[str] = []
        with self.transaction() as connection:
            self._lock(connection)
            last = sa.select(LOADS.c.started_at).where(LOADS.c.table_name == STOPPED.name, LOADS.c.day == "")
            newest = connection.execute(last).scalar()
            if newest and newest > attempt.started_at:
                return Synced(superseded=True)
            refused = _each(
                connection,
                list(plan.rows.values()),
                lambda rows: keep.extend(self._upsert_stopped(connection, rows, attempt.started_at)),
            )
            unwritten = {row.ticket_number: why for row, why in refused}
            failed = [*plan.failed, *unwritten]
            deleted = [] if plan.partial else self._delete_stopped(connection, keep, failed)
            if unwritten:
                attempt = replace(attempt, complete=False, failed=attempt.failed + len(unwritten))
            self._note(connection, STOPPED.name, "", attempt, len(keep))
        return Synced(tuple(keep), tuple(deleted), unwritten)

    def _upsert_stopped(
        self, connection: sa.Connection, rows: Sequence[SuspendedRow], at: datetime
    ) -> list[str]:
        records = [{name: storable(value) for name, value in asdict(row).items()} for row in rows]
        unique = {record["task_number"]: {**record, "synced_at": at} for record in records}
        statement = insert(STOPPED).values(list(unique.values()))
        new = _new(STOPPED, statement)
        connection.execute(statement.on_conflict_do_update(index_elements=["task_number"], set_=new))
        return list(unique)

    def _delete_stopped(self, connection: sa.Connection, keep: list[str], failed: list[int]) -> list[str]:
        left = sa.delete(STOPPED).where(
            STOPPED.c.task_number != sa.all_(sa.literal(keep, sa.ARRAY(sa.Text))),
            STOPPED.c.ticket_number != sa.all_(sa.literal(failed, sa.ARRAY(sa.BigInteger))),
        )
        return sorted(connection.execute(left.returning(STOPPED.c.task_number)).scalars())

    def stopped(self) -> list[dict[str, Any]]:
        """The current list, by task number."""
        with self.transaction() as connection:
            found = connection.execute(sa.select(STOPPED).order_by(STOPPED.c.task_number))
            return [dict(row) for row in found.mappings()]

    # How the tables were loaded

    def note(self, table: str, attempt: Attempt, rows: int = 0, day: date | None = None) -> None:
        """Keep how an attempt went; what was complete before stays so until the next complete one."""
        with self.transaction() as connection:
            self._note(connection, table, str(day or ""), attempt, rows)

    def _note(self, connection: sa.Connection, table: str, day: str, attempt: Attempt, rows: int) -> None:
        record = {
            "table_name": table,
            "day": day,
            "started_at": attempt.started_at,
            "complete_at": attempt.started_at if attempt.complete else None,
            "listed": attempt.listed,
            "row_count": rows,
            "failed": attempt.failed,
            "problem": storable(attempt.problem),
        }
        statement = insert(LOADS).values(record)
        new = _new(LOADS, statement)
        new["complete_at"] = sa.func.coalesce(statement.excluded.complete_at, LOADS.c.complete_at)
        connection.execute(statement.on_conflict_do_update(index_elements=["table_name", "day"], set_=new))


def expired_record(row: ExpiredRow, analysis: Analysis) -> dict[str, Any]:
    """A row of `expires_tickets` with its extensions, storable."""
    more = ("outcome", "sla_minutes", "counted_seconds", "overrun_seconds")
    breach = ("breach_task", "breach_unit", "breach_at")
    record = asdict(row) | {name: getattr(analysis, name) for name in (*more, *breach)}
    return {name: storable(value) for name, value in record.items()}


def _parts(items: Sequence[Any], size: int) -> Iterator[Any]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _new(table: sa.Table, statement: Insert) -> dict[str, Any]:
    """What an upsert sets: every column but the key."""
    return {c.name: c for c in statement.excluded if not table.c[c.name].primary_key}


def _each(
    connection: sa.Connection, items: Sequence[Row], write: Callable[[Sequence[Row]], None]
) -> list[tuple[Row, str]]:
    """Write items many at once; what is refused alone too is given back with the database's words.

    A ticket may hold what no rule forbids and no index takes (a name of 3 KB, say): it must not stop others.
    """
    refused: list[tuple[Row, str]] = []

    def attempt(part: Sequence[Row]) -> None:
        try:
            with connection.begin_nested():
                write(part)
        except sqlalchemy.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise
            if len(part) == 1:
                refused.append((part[0], _sentence(error)))
                return
            for half in _parts(part, (len(part) + 1) // 2):
                attempt(half)

    for part in _parts(items, ROWS):
        attempt(part)
    return refused


def _sentence(error: sqlalchemy.exc.SQLAlchemyError) -> str:
    """The server's own words, without the statement and its values."""
    original = getattr(error, "orig", None)
    said = getattr(getattr(original, "diag", None), "message_primary", None) or original
    return " ".join(str(said or type(error).__name__).split())
