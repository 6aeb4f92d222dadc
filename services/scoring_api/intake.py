"""Accepted conversions into PostgreSQL, committed before the answer, many requests in one transaction.

While one transaction is under way, requests that arrive gather for the next: under load a transaction
carries dozens of them, and without load a request waits for nobody.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg
from sqlalchemy.engine import URL

from resources.scoring_service.conversions import IDENTIFIERS, Conversion
from resources.scoring_service.ledger import Key, KeyReused

MOST_ROWS = 5000  # of one transaction, unless a single request has more
MOST_WAITING = 5000  # requests; more would only be answered after their clients have gone
PATIENCE_S = 10.0
KEYS_LIVE = timedelta(days=2)
# what passes: no connection, a server that stops or lacks memory, disk or connections, a deadlock
_GONE = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
)

_KEYS = """INSERT INTO scoring.idempotency_keys (scope, key, body_hash, resource_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::uuid[])
ON CONFLICT DO NOTHING RETURNING resource_id"""
_OLD = """SELECT k.scope, k.key, k.body_hash, b.id, b.total FROM scoring.idempotency_keys k
JOIN unnest($1::text[], $2::text[]) AS asked(scope, key) USING (scope, key)
JOIN scoring.batches b ON b.id = k.resource_id"""
_BATCHES = """INSERT INTO scoring.batches
(id, source, webhook_id, task_id, counter_id, token_id, total, note, status)
SELECT *, CASE WHEN total = 0 THEN 'completed' ELSE 'pending' END FROM unnest(
  $1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::int[], $6::bigint[], $7::int[], $8::text[])
  AS new(id, source, webhook_id, task_id, counter_id, token_id, total, note)"""
_FIELDS = (*IDENTIFIERS, "target", "date_time", "price", "currency")
_CONVERSIONS = f"""INSERT INTO scoring.conversions (batch_id, {", ".join(_FIELDS)})
SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
  $7::timestamptz[], $8::numeric[], $9::text[])"""
_VISITS = """INSERT INTO scoring.sent_visits (counter_id, target, visit_id)
SELECT $1, target, visit_id FROM unnest($2::text[], $3::text[]) AS new(target, visit_id)
ON CONFLICT DO NOTHING RETURNING visit_id"""
_FORGET = """DELETE FROM scoring.idempotency_keys WHERE ctid IN (
  SELECT ctid FROM scoring.idempotency_keys WHERE created_at < now() - $1::interval LIMIT 10000)"""


class StorageAway(Exception):
    """PostgreSQL cannot take it now; whether it took it is not known. To be repeated with the same key."""


class IntakeError(RuntimeError):
    """A batch that PostgreSQL refuses: a fault of ours, since requests are checked before."""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A request's conversions. `visits`: the scored visit of each, so that none is sent twice."""

    source: str
    counter_id: int
    token_id: int
    conversions: Sequence[Conversion]
    webhook_id: uuid.UUID | None = None
    task_id: uuid.UUID | None = None
    key: Key | None = None
    visits: Sequence[str] = ()
    note: str | None = None
    id: uuid.UUID = field(default_factory=uuid.uuid4)


@dataclass(frozen=True, slots=True)
class Accepted:
    """What was stored; for a repeated Idempotency-Key, what was stored then."""

    batch_id: uuid.UUID
    count: int


class Intake:
    """Writes batches in the order in which they come. `start` and `stop` belong to one event loop."""

    def __init__(self, database: URL) -> None:
        # asyncpg reads the same URL, but knows no SQLAlchemy driver name
        self._dsn = database.set(drivername="postgresql").render_as_string(hide_password=False)
        self._pool: asyncpg.Pool | None = None
        self._waiting: list[tuple[NewBatch, asyncio.Future[Accepted]]] = []
        self._news = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises StorageAway."""
        if self._pool is None:
            try:
                self._pool = await asyncpg.create_pool(
                    self._dsn,
                    min_size=1,
                    max_size=4,
                    timeout=PATIENCE_S,
                    command_timeout=PATIENCE_S,
                    server_settings={"synchronous_commit": "on", "application_name": "scoring_api"},
                )
            except _GONE as error:
                raise StorageAway(type(error).__name__) from None
            self._writer = asyncio.create_task(self._write())

    async def stop(self) -> None:
        if self._writer:
            self._writer.cancel()
            with suppress(asyncio.CancelledError):
                await self._writer
        if self._pool:
            self._pool.terminate()
            self._pool = None

    async def alive(self) -> bool:
        """Whether the database answers now."""
        with suppress(StorageAway):
            return await self.fetchrow("SELECT 1") is not None
        return False

    async def fetchrow(self, sql: str, *values: Any) -> asyncpg.Record | None:
        """One row of a quick query. Raises StorageAway."""
        if self._pool is None:
            raise StorageAway("not started")
        try:
            return await self._pool.fetchrow(sql, *values)
        except _GONE as error:
            raise StorageAway(type(error).__name__) from None

    async def forget_keys(self) -> None:
        """Drop idempotency keys that nobody repeats any more."""
        while self._pool and await self._pool.execute(_FORGET, KEYS_LIVE) == "DELETE 10000":
            await asyncio.sleep(0)

    async def add(self, batch: NewBatch) -> Accepted:
        """Return when the batch is committed. Raises KeyReused or StorageAway."""
        if self._pool is None or len(self._waiting) >= MOST_WAITING:
            raise StorageAway("not started" if self._pool is None else "too many requests wait")
        done: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, done))
        self._news.set()
        return await done

    async def _write(self) -> None:
        while True:
            await self._news.wait()
            taken, self._waiting = _share(self._waiting)
            if not self._waiting:
                self._news.clear()
            try:
                answers = await self._store([batch for batch, _ in taken])
            except _GONE as error:
                answers = [StorageAway(type(error).__name__)] * len(taken)
            except asyncio.CancelledError:
                _answer(taken, [StorageAway("stopped")] * len(taken))
                raise
            except Exception:  # one request's fault must not be that of the others
                answers = [await self._store_alone(batch) for batch, _ in taken]
            _answer(taken, answers)

    async def _store(self, batches: Sequence[NewBatch]) -> Sequence[Accepted | Exception]:
        assert self._pool
        async with self._pool.acquire(timeout=PATIENCE_S) as db, db.transaction():
            new, answers = await _new_ones(db, batches)
            new = [await _without_sent(db, batch) if batch.visits else batch for batch in new]
            await _insert(db, new)
            answers |= {batch.id: Accepted(batch.id, len(batch.conversions)) for batch in new}
        return [answers[batch.id] for batch in batches]

    async def _store_alone(self, batch: NewBatch) -> Accepted | Exception:
        try:
            return (await self._store([batch]))[0]
        except _GONE as error:
            return StorageAway(type(error).__name__)
        except Exception as error:  # its text would repeat the values
            return IntakeError(type(error).__name__)


def _share(waiting: list[Any]) -> tuple[list[Any], list[Any]]:
    """(those of the next transaction, the others)."""
    rows = 0
    for number, (batch, _) in enumerate(waiting):
        rows += len(batch.conversions)
        if rows > MOST_ROWS and number:
            return waiting[:number], waiting[number:]
    return waiting, []


def _answer(
    taken: Sequence[tuple[NewBatch, asyncio.Future[Accepted]]], answers: Sequence[Accepted | Exception]
) -> None:
    for (_, done), answer in zip(taken, answers, strict=True):
        if done.done():  # its client has gone
            continue
        if isinstance(answer, Exception):
            done.set_exception(answer)
        else:
            done.set_result(answer)


async def _new_ones(
    db: Any, batches: Sequence[NewBatch]
) -> tuple[list[NewBatch], dict[uuid.UUID, Accepted | Exception]]:
    """(batches to be stored, answers of those whose key was used before)."""
    keyed = sorted(
        ((b.key, b) for b in batches if b.key), key=lambda found: (found[0].scope, found[0].key)
    )  # in one order in all processes: no deadlock
    if not keyed:
        return list(batches), {}
    scopes, keys, hashes, ids = zip(*((k.scope, k.key, k.body_hash, b.id) for k, b in keyed), strict=True)
    won = {row[0] for row in await db.fetch(_KEYS, scopes, keys, hashes, ids)}
    lost = [(k, b) for k, b in keyed if b.id not in won]
    new = [b for b in batches if b.key is None or b.id in won]
    if not lost:
        return new, {}
    # those of this very transaction are not in `batches` yet
    first = {(b.key.scope, b.key.key): (b.key.body_hash, b.id, len(b.conversions)) for b in new if b.key}
    stored = await db.fetch(_OLD, [k.scope for k, _ in lost], [k.key for k, _ in lost])
    first |= {(row[0], row[1]): (row[2], row[3], row[4]) for row in stored}
    answers: dict[uuid.UUID, Accepted | Exception] = {}
    for key, batch in lost:
        body_hash, batch_id, count = first[key.scope, key.key]
        answers[batch.id] = Accepted(batch_id, count) if body_hash == key.body_hash else KeyReused()
    return new, answers


async def _without_sent(db: Any, batch: NewBatch) -> NewBatch:
    """The batch without visits whose conversion was accepted before."""
    targets = [c.target for c in batch.conversions]
    fresh = {row[0] for row in await db.fetch(_VISITS, batch.counter_id, targets, batch.visits)}
    kept = []
    for visit, conversion in zip(batch.visits, batch.conversions, strict=True):
        if visit in fresh:
            kept.append(conversion)
            fresh.discard(visit)
    left = len(batch.conversions) - len(kept)
    said = f"визитов, принятых к отправке раньше: {left}" if left else None
    note = "; ".join(text for text in (batch.note, said) if text) or None
    return NewBatch(
        source=batch.source,
        counter_id=batch.counter_id,
        token_id=batch.token_id,
        conversions=kept,
        task_id=batch.task_id,
        key=batch.key,
        note=note,
        id=batch.id,
    )


async def _insert(db: Any, batches: Sequence[NewBatch]) -> None:
    if not batches:
        return
    rows = [
        (b.id, b.source, b.webhook_id, b.task_id, b.counter_id, b.token_id, len(b.conversions), b.note)
        for b in batches
    ]
    await db.execute(_BATCHES, *zip(*rows, strict=True))
    lines = [(b.id, *(getattr(c, name) for name in _FIELDS)) for b in batches for c in b.conversions]
    if lines:
        await db.execute(_CONVERSIONS, *zip(*lines, strict=True))
