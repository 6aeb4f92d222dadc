"""Uploads in the ledger: accepted conversions become files, files are sent and watched, batches follow.

An upload is one file for one counter, token, target and identifier type. Its states:

    ready -> sending -> sent -> done
      ^---------'        '----> failed      (sending -> failed when Metrika refuses the file)

`sending` is written before the request, so that a crash in it is seen and the file is looked for at Metrika
before it is sent again.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from resources.scoring_service import tables as t
from resources.scoring_service.conversions import Conversion
from resources.scoring_service.ledger import Ledger

ROWS_PER_FILE = 50_000  # the API has no limit of rows, memory has
ROWS_A_RUN = 1_000_000
SEND_LOCK = 0x5C0E2
# Metrika's status -> ours; what is not here is still on its way
TO_BATCH = {
    "PREPARED": "uploaded",
    "UPLOADED": "uploaded",
    "PROCESSED": "completed",
    "LINKAGE_FAILURE": "error",
}
_ID_TYPE = """CASE WHEN client_id IS NOT NULL THEN 'ClientId' WHEN user_id IS NOT NULL THEN 'UserId'
  WHEN yclid IS NOT NULL THEN 'Yclid' ELSE 'PurchaseId' END"""
_GROUP = "counter_id, token_id, target, id_type"
_ASSIGN = f"""WITH free AS (
  SELECT c.id, b.counter_id, b.token_id, c.target, {_ID_TYPE} AS id_type
  FROM scoring.conversions c JOIN scoring.batches b ON b.id = c.batch_id
  WHERE c.upload_id IS NULL AND c.date_time < now() ORDER BY c.id LIMIT :most
),
parted AS (SELECT *, (row_number() OVER (PARTITION BY {_GROUP} ORDER BY id) - 1) / :rows AS part FROM free),
files AS (
  SELECT gen_random_uuid() AS id, {_GROUP}, part, count(*) AS rows FROM parted GROUP BY {_GROUP}, part
),
made AS (
  INSERT INTO scoring.uploads (id, {_GROUP}, state, rows)
  SELECT id, {_GROUP}, 'ready', rows FROM files RETURNING id
),
taken AS (
  UPDATE scoring.conversions c SET upload_id = f.id
  FROM parted p JOIN files f USING ({_GROUP}, part) WHERE c.id = p.id
)
SELECT count(*) FROM made"""
# A batch may be in several uploads, an upload may hold many batches.
_ROLL_UP = """WITH mine AS (
  SELECT DISTINCT batch_id FROM scoring.conversions WHERE upload_id = ANY(:uploads)
),
parts AS (
  SELECT c.batch_id, c.upload_id, count(*) AS rows
  FROM scoring.conversions c JOIN mine USING (batch_id) GROUP BY 1, 2
),
told AS (
  SELECT p.batch_id,
    coalesce(bool_or(u.state IS NULL OR u.state IN ('ready', 'sending')), false) AS waits,
    coalesce(bool_or(u.state = 'sent' AND coalesce(u.metrika_status, 'UPLOADED') IN ('PREPARED', 'UPLOADED')),
      false) AS sent,
    coalesce(bool_or(u.state = 'sent'), false) AS works,
    coalesce(bool_or(u.state = 'failed'), false) AS failed,
    sum(least(p.rows, coalesce(u.line_quantity, 0))) AS processed,
    jsonb_agg(DISTINCT u.error) FILTER (WHERE u.error IS NOT NULL) AS errors
  FROM parts p LEFT JOIN scoring.uploads u ON u.id = p.upload_id GROUP BY 1
)
UPDATE scoring.batches b SET updated_at = now(), processed = told.processed, errors = told.errors,
  status = CASE WHEN waits THEN 'pending' WHEN sent THEN 'uploaded' WHEN works THEN 'processing'
    WHEN failed THEN 'error' ELSE 'completed' END
FROM told WHERE b.id = told.batch_id"""


@dataclass(frozen=True, slots=True)
class Upload:
    """One file. `comment` is how Metrika's list shows it: letters and digits only are allowed there.

    `version` grows when the file is cut or sent again on a user's wish: it is another file for Metrika then.
    """

    id: uuid.UUID
    counter_id: int
    token_id: int
    target: str
    id_type: str
    state: str
    rows: int
    splits: int
    version: int
    attempts: int
    metrika_id: int | None
    created_at: datetime
    sending_at: datetime | None
    sent_at: datetime | None
    polled_at: datetime | None

    @property
    def comment(self) -> str:
        return f"svod{self.id.hex}v{self.version}"


_FIELDS = tuple(Upload.__dataclass_fields__)
_COLUMNS = [t.uploads.c[name] for name in _FIELDS]


class Uploads:
    """What the jobs and the status routes do with uploads; each call is one transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._engine = ledger.engine

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """True while no other process sends; False when one does."""
        with self._engine.connect() as db:
            held = bool(db.execute(sa.select(sa.func.pg_try_advisory_lock(SEND_LOCK))).scalar_one())
            try:
                yield held
            finally:
                if held:
                    db.execute(sa.select(sa.func.pg_advisory_unlock(SEND_LOCK)))

    def sending(self) -> bool:
        """Whether some process is `alone` now."""
        with self._engine.begin() as db:
            return not db.execute(sa.select(sa.func.pg_try_advisory_xact_lock(SEND_LOCK))).scalar_one()

    def waiting(self) -> tuple[int, int, int]:
        """(conversions in no file, files to be sent now, files to be asked about)."""
        now = sa.func.now()
        free = t.conversions.c.upload_id.is_(None) & (t.conversions.c.date_time < now)
        due = t.uploads.c.state.in_(("ready", "sending")) & (t.uploads.c.next_at <= now)
        with self._engine.connect() as db:
            counted = [
                db.execute(sa.select(sa.func.count()).where(condition)).scalar_one()
                for condition in (free, due, t.uploads.c.state == "sent")
            ]
        return counted[0], counted[1], counted[2]

    def assign(self) -> int:
        """Put accepted conversions into files; returns how many files were made."""
        with self._engine.begin() as db:
            sizes = {"most": ROWS_A_RUN, "rows": ROWS_PER_FILE}
            return db.execute(sa.text(_ASSIGN), sizes).scalar_one()

    def due(self) -> Sequence[Upload]:
        """Files to be sent now, oldest first."""
        due = t.uploads.c.state.in_(("ready", "sending")) & (t.uploads.c.next_at <= sa.func.now())
        return self._list(due, t.uploads.c.created_at)

    def sent(self) -> Sequence[Upload]:
        """Files whose fate Metrika has not told yet, the one that was asked about longest ago first."""
        return self._list(
            t.uploads.c.state == "sent", sa.func.coalesce(t.uploads.c.polled_at, t.uploads.c.sent_at)
        )

    def sent_of(self, batch_id: uuid.UUID) -> Sequence[Upload]:
        """The same, of one batch."""
        of_batch = sa.select(t.conversions.c.upload_id).where(t.conversions.c.batch_id == batch_id)
        return self._list(
            (t.uploads.c.state == "sent") & t.uploads.c.id.in_(of_batch), t.uploads.c.created_at
        )

    def _list(self, condition: sa.ColumnElement[bool], order: Any) -> Sequence[Upload]:
        with self._engine.connect() as db:
            found = db.execute(sa.select(*_COLUMNS).where(condition).order_by(order, t.uploads.c.id))
            return [Upload(*row) for row in found]

    def rows_of(self, upload: Upload) -> Sequence[Conversion]:
        names = tuple(Conversion.__dataclass_fields__)
        columns = [t.conversions.c[name] for name in names]
        with self._engine.connect() as db:
            found = db.execute(
                sa.select(*columns).where(t.conversions.c.upload_id == upload.id).order_by(t.conversions.c.id)
            )
            return [Conversion(*row) for row in found]

    # What happened to a file

    def intend(self, upload: Upload) -> None:
        """Written before the request."""
        self._change(upload, state="sending", sending_at=sa.func.now(), attempts=t.uploads.c.attempts + 1)

    def took(self, upload: Upload, metrika_id: int, status: str, lines: int | None) -> None:
        """Metrika has the file."""
        self._change(
            upload,
            state="sent",
            sent_at=sa.func.now(),
            metrika_id=metrika_id,
            metrika_status=status,
            line_quantity=lines,
            error=None,
        )

    def postpone(self, upload: Upload, error: str, wait: timedelta, *, unsent: bool) -> None:
        """Try again after `wait`. `unsent`: Metrika certainly did not take it, no need to look for it."""
        state = {"state": "ready"} if unsent else {}
        self._change(upload, next_at=sa.func.now() + wait, error=error, **state)

    def refuse(self, upload: Upload, error: str) -> None:
        """It will not be sent again by itself."""
        self._change(upload, state="failed", error=error)

    def told(self, upload: Upload, status: str, lines: int | None, error: str | None, state: str) -> None:
        """Metrika's answer about a sent file."""
        known = {} if lines is None else {"line_quantity": lines}
        changes = {
            "metrika_status": status,
            "error": error,
            "state": state,
            "polled_at": sa.func.now(),
            **known,
        }
        self._change(upload, **changes)

    def asked(self, upload: Upload) -> bool:
        """Note that Metrika is being asked about the file; False if somebody did since it was read."""
        seen = t.uploads.c.polled_at.is_not_distinct_from(upload.polled_at)
        with self._engine.begin() as db:
            mine = sa.update(t.uploads).where(t.uploads.c.id == upload.id, seen)
            return db.execute(mine.values(polled_at=sa.func.clock_timestamp())).rowcount == 1

    def _change(self, upload: Upload, **values: Any) -> None:
        with self._engine.begin() as db:
            db.execute(sa.update(t.uploads).where(t.uploads.c.id == upload.id).values(**values))
            roll_up(db, [upload.id])

    def halve(self, upload: Upload) -> None:
        """Two files instead of one, so that the rows which Metrika refuses do not hold up the others."""
        half, mine = uuid.uuid4(), t.conversions.c.upload_id == upload.id
        rows = upload.rows - upload.rows // 2
        group = {name: getattr(upload, name) for name in ("counter_id", "token_id", "target", "id_type")}
        with self._engine.begin() as db:
            new = {
                **group,
                "id": half,
                "state": "ready",
                "rows": upload.rows // 2,
                "splits": upload.splits + 1,
            }
            db.execute(sa.insert(t.uploads).values(new))
            second = sa.select(t.conversions.c.id).where(mine).order_by(t.conversions.c.id).offset(rows)
            db.execute(sa.update(t.conversions).where(t.conversions.c.id.in_(second)).values(upload_id=half))
            kept = {
                "state": "ready",
                "rows": rows,
                "splits": upload.splits + 1,
                "version": upload.version + 1,
            }
            db.execute(sa.update(t.uploads).where(t.uploads.c.id == upload.id).values(kept))
            roll_up(db, [upload.id, half])

    # What a user asks for

    def retry(self, batch_id: uuid.UUID) -> int:
        """Failed files of a batch are to be sent again, as new ones; returns how many.

        One that Metrika has and did not finish within the deadline is asked about again instead.
        """
        of_batch = sa.select(t.conversions.c.upload_id).where(t.conversions.c.batch_id == batch_id)
        failed = (t.uploads.c.state == "failed") & t.uploads.c.id.in_(of_batch)
        unfinished = t.uploads.c.metrika_id.is_not(None) & (t.uploads.c.metrika_status != "LINKAGE_FAILURE")
        again = {
            "state": "ready",
            "version": t.uploads.c.version + 1,
            "attempts": 0,
            "splits": 0,
            "created_at": sa.func.now(),
            "next_at": sa.func.now(),
        }
        with self._engine.begin() as db:
            watched = sa.update(t.uploads).where(failed & unfinished)
            watched = watched.values(state="sent", sent_at=sa.func.now(), error=None)
            found = list(db.execute(watched.returning(t.uploads.c.id)).scalars())
            gone = ("metrika_id", "metrika_status", "line_quantity", "sending_at", "sent_at", "error")
            resent = sa.update(t.uploads).where(failed).values(**dict.fromkeys(gone), **again)
            found += db.execute(resent.returning(t.uploads.c.id)).scalars()
            roll_up(db, found)
        return len(found)

    def wake(self, counter: int, target: str) -> None:
        """What waits for a goal of this name is tried at once."""
        mine = (t.uploads.c.counter_id == counter) & (t.uploads.c.target == target)
        with self._engine.begin() as db:
            waiting = mine & t.uploads.c.state.in_(("ready", "sending"))
            db.execute(sa.update(t.uploads).where(waiting).values(next_at=sa.func.now()))


def roll_up(db: sa.Connection, upload_ids: Sequence[uuid.UUID]) -> None:
    """Status, count and errors of the batches that these uploads carry."""
    if upload_ids:
        db.execute(sa.text(_ROLL_UP), {"uploads": list(upload_ids)})
