"""One question a parent: asked several at a time, resumable at any parent, a refusal ends only its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import dagster as dg

from etl_assets.loading import Bounds, Loaded, LoadKind, Spent
from etl_assets.mts_link.endpoints import Endpoint
from etl_assets.mts_link.marks import OK, Mark, Marks
from etl_assets.mts_link.parents import SEPARATOR, Parent, parent_columns
from etl_assets.mts_link.plan import state_of
from etl_assets.mts_link.tables import RowMaker
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.table import quote
from resources.clickhouse.warehouse import Load, SchemaChange
from resources.errors import PermanentSourceError, TransientSourceError
from resources.mts_link import Exhausted, Incomplete, MtsLinkClient, Page, Refused
from resources.mts_link.client import REFUSED

Job = tuple[Parent, ...]  # what one question is about
Ask = Callable[[Job, threading.Event], Iterator[Page]]
FLUSH_PARENTS = 500
FLUSH_S = 3.0
FEWEST_FAILED = 3  # so few refusals are told of, but are no share
TRIED = 5  # the first refusals that make a missing right likely
TRIED_STRANGERS = 50  # of people some of whom the organisation does not know
STRANGERS = ("participants", "learners")
DOWN = 3  # so many in a row without an answer: the server is down, not a chat
BROKEN = 25  # and so many with a server's error, which it gives for single chats too


@dataclass
class Outcome:
    """What became of the parents that were asked for."""

    asked: int = 0
    answered: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    unserved: int = 0
    unread: int = 0
    first: str = ""

    @property
    def failed(self) -> int:
        return self.refused.total() + self.unread

    def text(self) -> str:
        """What the user reads."""
        told = [f"{count} refused with {status}" for status, count in sorted(self.refused.items())]
        told += [f"{self.unserved} of a kind that is not served"] if self.unserved else []
        told += [f"{self.unread} could not be read"] if self.unread else []
        return f"{self.asked} asked for, {self.answered} answered" + "".join(f", {t}" for t in told)


class FanOut:
    """One load of one method over its parents."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        endpoint: Endpoint,
        client: MtsLinkClient,
        warehouse: WarehouseResource,
        maker: RowMaker,
        ask: Ask,
        failed_share: float,
    ) -> None:
        self._context, self._endpoint, self._client = context, endpoint, client
        self._warehouse, self._maker, self._ask = warehouse, maker, ask
        self._share = failed_share
        self._asset = context.asset_key.to_user_string()
        self.marks = Marks(warehouse, endpoint.name, self._asset, context.run.run_id)
        self.known = self.marks.read()
        self.outcome = Outcome()
        self.days: Counter[str] = Counter()
        self._before = client.stats.snapshot()
        self._done: list[Mark] = []
        self._told: list[Mark] = []
        self._again: list[Parent] = []
        self._rows: Counter[str] = Counter()
        self._cursor: dict[str, int] = {}
        self._first_read: datetime | None = None
        self._silent = 0
        self._owners: set[str] = set()

    def run(
        self,
        table: Table,
        change: SchemaChange,
        due: Sequence[Parent],
        everyone: Sequence[Parent],
        *,
        bounds: Bounds,
        kind: LoadKind,
        began_at: datetime,
        resumed: bool,
    ) -> Loaded:
        """Ask for `due`, take away what is gone, and write the log row.

        Raises PermanentSourceError for a missing right, TransientSourceError for a server that is down or
        when too large a share of the parents could not be read.
        """
        self._context.log.info("%s of %s parents to ask for", f"{len(due):,}", f"{len(everyone):,}")
        whole = bounds.until is None
        self._owners = self._with_rows(table)
        with self._warehouse.load(table, asset=self._asset, run_id=self._context.run.run_id) as load:
            size = self._endpoint.together
            self._read(load, [tuple(due[at : at + size]) for at in range(0, len(due), size)])
            if self._again:  # a moment has passed since, and each is asked for by itself
                again, self._again = self._again, []
                self._read(load, [(parent,) for parent in again], last=True)
            self._judge()
            if everyone and not self._endpoint.kept:
                self._retire_orphans(table, everyone, began_at)
            used = self._client.stats.since(self._before)
            spent = Spent(used.requests, self.outcome.asked, used.waited_s, used.api_s)
            result = load.finish(
                kind=kind,
                source_time=began_at,
                watermark=began_at if whole else None,
                window=(bounds.since, bounds.until),
                requests=spent.requests,
                commands=spent.commands,
                waited_s=spent.waited_s,
                api_s=spent.api_s,
            )
        self.marks.settle(self._settled(due))
        mark = began_at if whole else None
        return Loaded(result, table, change, spent, self.days, bounds, kind, began_at, mark, resumed)

    # Reading

    def _read(self, load: Load, jobs: Sequence[Job], *, last: bool = False) -> None:
        flushed = time.monotonic()
        for job, found in self._client.crowd(jobs, self._ask):
            if isinstance(found, Page):
                self._take(load, job, found)
                continue
            self._end(job, found.error, last=last)
            full = len(self._done) >= FLUSH_PARENTS
            if full or (self._done and time.monotonic() - flushed > FLUSH_S):
                self._flush(load)
                flushed = time.monotonic()
        self._flush(load)

    def _take(self, load: Load, job: Job, page: Page) -> None:
        parent = job[0]
        at = self._maker.read_at(page.read_at)
        self._first_read = min(self._first_read or at, at)
        batch = self._maker.batch(page.items, page.read_at, parent if len(job) == 1 else None)
        load.add(batch.body, batch.count, batch.read_at)
        self.days.update(batch.days)
        self._rows[parent.key] += batch.count
        newest = max((ms for m in page.items if (ms := _milliseconds(m))), default=0)
        if newest:
            self._cursor[parent.key] = max(self._cursor.get(parent.key, 0), newest)

    def _end(self, job: Job, error: Exception | None, *, last: bool) -> None:
        """Count what became of a question and note it; what may still be answered is put off."""
        if isinstance(error, Refused) and error.no_route and not self._endpoint.optional:
            raise PermanentSourceError(f"MTS Link has no method {self._endpoint.path}: check MTS_LINK_URL.")
        lost = error if isinstance(error, Exhausted) and not isinstance(error, Incomplete) else None
        self._silent = self._silent + 1 if lost else 0
        if lost and not last and self._silent >= (BROKEN if lost.status >= 500 else DOWN):
            raise TransientSourceError(str(error))
        if not last and error is not None and (len(job) > 1 or lost):
            self._again += job
            return
        status, message = self._verdict(error)
        for parent in job:
            self._note(parent, status, message)
        self._mind_rights()

    def _verdict(self, error: Exception | None) -> tuple[int, str]:
        """(status, message) for a mark: 200 also where a refusal means that there is nothing."""
        if isinstance(error, Refused) and error.status not in self._endpoint.absent and not error.no_route:
            return error.status, error.message
        if isinstance(error, Exhausted):
            return error.status, error.description or ""
        return OK, ""

    def _note(self, parent: Parent, status: int, message: str) -> None:
        before, newest = self.known.get(parent.key), self._cursor.pop(parent.key, 0)
        mark = Mark(
            parent.key,
            state_of(parent) if status == OK else "",
            status,
            message,
            self._rows.pop(parent.key, 0),
            str(newest) if newest and status == OK else before.cursor if before else "",
            datetime.now(UTC),
        )
        self._done.append(mark)
        self._count(mark)

    def _count(self, mark: Mark) -> None:
        out = self.outcome
        out.asked += 1
        if mark.status == OK:
            out.answered += 1
        elif mark.unserved or (mark.status == 404 and self._endpoint.parent in STRANGERS):
            out.unserved += 1
        elif mark.status in REFUSED:
            out.refused[mark.status] += 1
        else:
            out.unread += 1
        out.first = out.first or mark.message

    def _mind_rights(self) -> None:
        """The key may lack the right to the whole method: then the first answers are all 403."""
        most = TRIED_STRANGERS if self._endpoint.parent in STRANGERS else TRIED
        if self.outcome.refused[403] == self.outcome.asked == most and not self._ever_answered():
            raise self._no_right()

    def _ever_answered(self) -> bool:
        return self.outcome.answered > 0 or any(m.status == OK for m in self.known.values())

    def _no_right(self) -> PermanentSourceError:
        return PermanentSourceError(
            f"MTS Link refuses {self._endpoint.name} to this key: give the key the scope for it in the "
            f"personal cabinet (Business → API/Webhooks). The server's reason: {self.outcome.first or 'none'}"
        )

    def _flush(self, load: Load) -> None:
        """Rows first, then what is gone, then the marks: a kill in between only repeats parents."""
        if not self._done:
            return
        load.flush()
        self._retire(load.table)
        self.marks.write(self._done)
        self._told += [m for m in self._done if m.status != OK]
        self._context.log.info("%s parents, %s rows", f"{self.outcome.asked:,}", f"{load.rows:,}")
        self._done = []

    def _retire(self, table: Table) -> None:
        """Rows of parents read before that were not listed again, and of parents that are gone."""
        if self._endpoint.kept:
            return
        asked = [_owner(m.parent) for m in self._done if m.status in (OK, 404)]
        before = self._first_read or self._maker.read_at(self._client.now())
        again = [owner for owner in asked if owner in self._owners]
        self._warehouse.retire_children(table, self._owner_column, again, before, {})

    def _retire_orphans(self, table: Table, everyone: Sequence[Parent], before: datetime) -> None:
        """Rows of parents that are no longer there at all."""
        there = {parent.key for parent in everyone}
        gone = sorted(self._owners - set(map(_owner, there)))
        self._warehouse.retire_children(table, self._owner_column, gone, self._maker.read_at(before), {})
        # one that comes back is asked for
        lost = [mark for key, mark in sorted(self.known.items()) if key not in there and mark.state]
        self.marks.settle(replace(mark, state="") for mark in lost)

    @property
    def _owner_column(self) -> str:
        return parent_columns(self._endpoint.parent)[-1].column

    def _with_rows(self, table: Table) -> set[str]:
        """Parents that have rows here: their marks do not tell, since a load may have been killed before it
        wrote them."""
        if self._endpoint.kept:
            return set()
        owner = quote(self._owner_column)
        sql = f"SELECT DISTINCT {owner} FROM {table.sql_name} FINAL WHERE {table.alive_sql}"
        return {row[0] for row in self._warehouse.query(sql) if row[0] is not None}

    # Judging

    def _judge(self) -> None:
        out = self.outcome
        if out.refused[403] and out.refused[403] == out.asked and not self._ever_answered():
            raise self._no_right()
        if out.failed >= FEWEST_FAILED and out.failed > self._share * out.asked:
            failure = TransientSourceError if out.unread > out.refused.total() else PermanentSourceError
            raise failure(
                f"{self._endpoint.name}: {out.text()}; more than {self._share:.0%} failed "
                "(MTS_LINK_FAILED_SHARE). What was read is kept; mts_link._errors names the others."
            )

    def _settled(self, due: Sequence[Parent]) -> list[Mark]:
        """Refused parents are not asked for again until they change, once the load as a whole is good."""
        states = {parent.key: state_of(parent) for parent in due}
        return [replace(mark, state=states[mark.parent]) for mark in self._told]


def _owner(key: str) -> str:
    """What rows name their parent by: the last of its values."""
    return key.rpartition(SEPARATOR)[2]


def _milliseconds(message: object) -> int:
    value = message.get("createdAtMs") if isinstance(message, dict) else None
    try:
        return int(value) if value is not None else 0
    except (TypeError, ValueError):
        return 0


__all__ = ["FanOut", "Outcome"]
