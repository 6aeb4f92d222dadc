"""The ledger of the scoring service: tokens, tasks, webhooks, batches, the audit log.

The service and Dagster's jobs use it alike. Calls block; each is one transaction. Accepted conversions of the
service come in through `services/scoring_api/intake.py`, many requests in one transaction.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TypeAlias

import sqlalchemy as sa
import sqlalchemy.exc
from sqlalchemy.dialects.postgresql import JSONPATH, insert
from sqlalchemy.engine import URL

from resources.scoring_service import tables as t
from resources.scoring_service.cipher import TokenCipher, new_secret, secret_hash

Row: TypeAlias = sa.RowMapping
TASK_LOCK = 0x5C0E3


@dataclass(frozen=True, slots=True)
class Key:
    """An Idempotency-Key with what it stands for: the same key with another body is a mistake."""

    scope: str
    key: str
    body_hash: bytes


class KeyReused(Exception):
    """The Idempotency-Key came with another body before."""


class Ledger:
    """One operational database. Database errors come out as SQLAlchemy raises them."""

    def __init__(self, url: URL, cipher: TokenCipher) -> None:
        self.engine = sa.create_engine(
            url,
            hide_parameters=True,  # they are what people send us
            pool_size=5,
            max_overflow=10,
            pool_timeout=10,
            pool_pre_ping=True,
            connect_args={"connect_timeout": 10},
        )
        self.cipher = cipher
        self.token_id = lru_cache(10_000)(self._token_id)

    def close(self) -> None:
        self.engine.dispose()

    def ready(self) -> bool:
        """Whether the tables are there."""
        with self.engine.connect() as db:
            return sa.inspect(db).has_table("audit_log", schema=t.SCHEMA)

    # Tokens

    def _token_id(self, token: str) -> int:
        """The number under which the token is kept; stored encrypted when it is new."""
        mark = self.cipher.fingerprint(token)
        with self.engine.begin() as db:
            new = insert(t.tokens).values(fingerprint=mark, cipher=self.cipher.encrypt(token))
            db.execute(new.on_conflict_do_nothing())
            return db.execute(sa.select(t.tokens.c.id).where(t.tokens.c.fingerprint == mark)).scalar_one()

    def token(self, token_id: int) -> str:
        """The token itself. Raises LedgerError when no key fits."""
        with self.engine.connect() as db:
            cipher = db.execute(sa.select(t.tokens.c.cipher).where(t.tokens.c.id == token_id)).scalar_one()
        return self.cipher.decrypt(cipher)

    def rotate_tokens(self) -> int:
        """Encrypt every token anew with the first key; returns how many there are."""
        with self.engine.begin() as db:
            found = db.execute(sa.select(t.tokens.c.id, t.tokens.c.cipher).with_for_update()).all()
            for id_, cipher in found:
                fresh = {"cipher": self.cipher.rotate(cipher)}
                db.execute(sa.update(t.tokens).where(t.tokens.c.id == id_).values(fresh))
        return len(found)

    # Tasks

    def add_task(self, day: str, counter: int, token: str, key: Key | None = None) -> uuid.UUID:
        """A new pending task; that of the same key again. Raises KeyReused."""
        token_id, task = self.token_id(token), uuid.uuid4()
        with self.engine.begin() as db:
            if key and (old := _claim(db, key, task)):
                return old
            values = {"id": task, "params": {"date": day, "counter": counter}, "token_id": token_id}
            db.execute(sa.insert(t.tasks).values(values))
        return task

    def task(self, task_id: uuid.UUID) -> Row | None:
        return self._one(sa.select(t.tasks).where(t.tasks.c.id == task_id))

    def tasks(self, limit: int = 50) -> Sequence[Row]:
        """Newest first."""
        return self._all(sa.select(t.tasks).order_by(t.tasks.c.started_at.desc()).limit(limit))

    def open_tasks(self) -> Sequence[Row]:
        """Not finished, oldest first."""
        open_ = t.tasks.c.finished_at.is_(None)
        return self._all(sa.select(t.tasks).where(open_).order_by(t.tasks.c.started_at, t.tasks.c.id))

    def task_runs(self, task_id: uuid.UUID, run_id: str) -> bool:
        """A run begins to work on the task; False if it is finished already."""
        values = {"status": "running", "progress": 10, "message": "Расчёт начат", "run_id": run_id}
        return self._change_open(task_id, values)

    def task_progress(self, task_id: uuid.UUID, progress: int, message: str) -> bool:
        return self._change_open(task_id, {"progress": progress, "message": message})

    def task_done(self, task_id: uuid.UUID, zone: str, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Keep the result, and finish the task with it; False if it was finished before."""
        done = {"status": "done", "progress": 100, "message": f"Отобрано визитов: {len(rows)}"}
        with self.engine.begin() as db:
            values = {"task_id": task_id, "time_zone": zone, "result_json": list(rows)}
            kept = insert(t.results).values(values)
            db.execute(kept.on_conflict_do_update(index_elements=["task_id"], set_=values))
            return _change_open(db, task_id, {**done, "finished_at": datetime.now(UTC)})

    def task_failed(self, task_id: uuid.UUID, error: str) -> bool:
        """`error` is for the user and holds no secret."""
        values = {"status": "failed", "progress": 100, "message": "Расчёт не удался", "error": error}
        return self._change_open(task_id, {**values, "finished_at": datetime.now(UTC)})

    def _change_open(self, task_id: uuid.UUID, values: Mapping[str, Any]) -> bool:
        with self.engine.begin() as db:
            return _change_open(db, task_id, values)

    def result(self, task_id: uuid.UUID, limit: int, offset: int) -> tuple[list[Any], int] | None:
        """(rows of the page, rows in all); None without a result."""
        rows = t.results.c.result_json
        page = sa.func.jsonb_path_query_array(
            rows,
            sa.cast("$[$from to $to]", JSONPATH),
            sa.func.jsonb_build_object("from", offset, "to", offset + limit - 1),
        )
        found = self._one(
            sa.select(page.label("page"), sa.func.jsonb_array_length(rows).label("total")).where(
                t.results.c.task_id == task_id
            )
        )
        return (found["page"], found["total"]) if found else None

    def whole_result(self, task_id: uuid.UUID) -> tuple[list[Any], str] | None:
        """(all rows, the counter's time zone)."""
        found = self._one(sa.select(t.results).where(t.results.c.task_id == task_id))
        return (found["result_json"], found["time_zone"]) if found else None

    @contextmanager
    def at_work(self, task_id: uuid.UUID) -> Iterator[None]:
        """While a process works on the task: others see it, and see when it is gone, however it went."""
        lock, unlock = (getattr(sa.func, f"pg_advisory_{name}_shared") for name in ("lock", "unlock"))
        with self.engine.connect() as db:
            db.execute(sa.select(lock(*_lock_of(task_id))))
            db.commit()
            try:
                yield
            finally:
                with suppress(sqlalchemy.exc.DBAPIError):  # a server that restarted has let go already
                    db.execute(sa.select(unlock(*_lock_of(task_id))))

    def worked_on(self, task_id: uuid.UUID) -> bool:
        """Whether some process is `at_work` on the task now."""
        with self.engine.begin() as db:
            free = sa.func.pg_try_advisory_xact_lock(*_lock_of(task_id))
            return not db.execute(sa.select(free)).scalar_one()

    # Webhooks

    def add_webhook(
        self, name: str, counter: int, token: str, description: str | None
    ) -> tuple[uuid.UUID, str]:
        """(number, secret); the secret is not kept and cannot be shown again."""
        webhook, secret = uuid.uuid4(), new_secret()
        values = {
            "id": webhook,
            "name": name,
            "counter_id": counter,
            "token_id": self.token_id(token),
            "description": description,
            "secret_hash": secret_hash(secret),
        }
        with self.engine.begin() as db:
            db.execute(sa.insert(t.webhooks).values(values))
        return webhook, secret

    def webhook(self, webhook_id: uuid.UUID) -> Row | None:
        """None also for a deleted one."""
        return self._one(sa.select(t.webhooks).where(_there(webhook_id)))

    def webhooks(self, limit: int = 1000, offset: int = 0) -> Sequence[Row]:
        """Newest first, with `last_at`, when the last batch came."""
        of_webhook = t.batches.c.webhook_id == t.webhooks.c.id
        last = sa.select(sa.func.max(t.batches.c.created_at)).where(of_webhook).scalar_subquery()
        listed = (
            sa.select(t.webhooks, last.label("last_at"))
            .where(t.webhooks.c.deleted_at.is_(None))
            .order_by(t.webhooks.c.created_at.desc(), t.webhooks.c.id)
            .limit(limit)
            .offset(offset)
        )
        return self._all(listed)

    def change_webhook(self, webhook_id: uuid.UUID, changes: Mapping[str, Any]) -> Row | None:
        """`changes`: name, counter_id, token, description, is_active. None if there is no such webhook."""
        values: dict[str, Any] = {"updated_at": datetime.now(UTC), **changes}
        if "token" in values:
            values["token_id"] = self.token_id(values.pop("token"))
        with self.engine.begin() as db:
            changed = sa.update(t.webhooks).where(_there(webhook_id)).values(values)
            return db.execute(changed.returning(*t.webhooks.c)).mappings().first()

    def new_webhook_secret(self, webhook_id: uuid.UUID) -> str | None:
        """A fresh secret, the old one is void; None if there is no such webhook."""
        secret = new_secret()
        found = self.change_webhook(webhook_id, {"secret_hash": secret_hash(secret)})
        return secret if found else None

    def delete_webhook(self, webhook_id: uuid.UUID) -> bool:
        """It takes nothing more; what it accepted is still uploaded."""
        return (
            self.change_webhook(webhook_id, {"deleted_at": datetime.now(UTC), "is_active": False}) is not None
        )

    # Batches

    def batch(self, batch_id: uuid.UUID) -> Row | None:
        """With `metrika_upload_id`, the numbers of its uploads at Metrika, joined by commas."""
        return self._one(_batches().where(t.batches.c.id == batch_id))

    def batches(
        self,
        *,
        webhook_id: uuid.UUID | None = None,
        task_id: uuid.UUID | None = None,
        status: str | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Sequence[Row]:
        """Newest first."""
        listed = _batches().order_by(t.batches.c.created_at.desc(), t.batches.c.id)
        wanted = {"webhook_id": webhook_id, "task_id": task_id, "status": status}
        for name, value in wanted.items():
            if value is not None:
                listed = listed.where(t.batches.c[name] == value)
        return self._all(listed.limit(limit).offset(offset))

    def batch_conversions(self, batch_id: uuid.UUID, limit: int = 100) -> Sequence[Row]:
        """With the state and the error of their upload, in the order of the request."""
        joined = t.conversions.outerjoin(t.uploads, t.conversions.c.upload_id == t.uploads.c.id)
        columns = (t.uploads.c.state, t.uploads.c.metrika_status, t.uploads.c.error)
        listed = sa.select(t.conversions, *columns).select_from(joined)
        return self._all(
            listed.where(t.conversions.c.batch_id == batch_id).order_by(t.conversions.c.id).limit(limit)
        )

    # Audit

    def note(self, actor: str, action: str, subject: object, **details: Any) -> None:
        """One line of the audit log; `details` never hold a token or a secret."""
        with self.engine.begin() as db:
            values = {"actor": actor, "action": action, "subject": str(subject), "details": details}
            db.execute(sa.insert(t.audit_log).values(values))

    def audit(self, limit: int = 100, offset: int = 0) -> Sequence[Row]:
        """Newest first."""
        newest = sa.select(t.audit_log).order_by(t.audit_log.c.id.desc())
        return self._all(newest.limit(limit).offset(offset))

    def _one(self, statement: sa.Select[*tuple[Any, ...]]) -> Row | None:
        with self.engine.connect() as db:
            return db.execute(statement).mappings().first()

    def _all(self, statement: sa.Select[*tuple[Any, ...]]) -> Sequence[Row]:
        with self.engine.connect() as db:
            return db.execute(statement).mappings().all()


def _lock_of(task_id: uuid.UUID) -> tuple[Any, Any]:
    return sa.cast(TASK_LOCK, sa.Integer), sa.func.hashtext(str(task_id))


def _there(webhook_id: uuid.UUID) -> sa.ColumnElement[bool]:
    return sa.and_(t.webhooks.c.id == webhook_id, t.webhooks.c.deleted_at.is_(None))


def _batches() -> sa.Select[Any]:
    ids = sa.func.string_agg(sa.distinct(sa.cast(t.uploads.c.metrika_id, sa.Text)), ",")
    sent = (
        sa.select(ids)
        .select_from(t.conversions.join(t.uploads, t.conversions.c.upload_id == t.uploads.c.id))
        .where(t.conversions.c.batch_id == t.batches.c.id)
        .scalar_subquery()
    )
    return sa.select(t.batches, sent.label("metrika_upload_id"))


def _change_open(db: sa.Connection, task_id: uuid.UUID, values: Mapping[str, Any]) -> bool:
    open_ = sa.and_(t.tasks.c.id == task_id, t.tasks.c.finished_at.is_(None))
    return db.execute(sa.update(t.tasks).where(open_).values(values)).rowcount == 1


def _claim(db: sa.Connection, key: Key, resource: uuid.UUID) -> uuid.UUID | None:
    """Bind the key to a resource; the one it is bound to already. Raises KeyReused."""
    values = {"scope": key.scope, "key": key.key, "body_hash": key.body_hash, "resource_id": resource}
    made = db.execute(insert(t.idempotency_keys).values(values).on_conflict_do_nothing())
    if made.rowcount:
        return None
    keys = t.idempotency_keys.c
    old = db.execute(
        sa.select(keys.body_hash, keys.resource_id).where(keys.scope == key.scope, keys.key == key.key)
    ).one()
    if bytes(old.body_hash) != key.body_hash:
        raise KeyReused
    return old.resource_id
