"""The Bitrix24 client: single calls, packed calls, complete scans of list methods."""

import hashlib
import json
import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Raw

from resources.bitrix24.calls import PAGE, CommandError, ListCall, RecordBatch, Window, fingerprint
from resources.bitrix24.encode import DateStyle, ListQuery, bracket, reference
from resources.bitrix24.envelope import (
    BadAnswer,
    BadShape,
    Page,
    decode,
    mark_false,
    read_heads,
    read_page,
    rows_of,
    whole_number,
)
from resources.bitrix24.faults import command_error, failure
from resources.bitrix24.planner import Ask, KeysetPlanner, Mode, OrderIgnored, Slice
from resources.bitrix24.portal import ClientStats, Command, Outcome, Portal, Reply
from resources.errors import PermanentSourceError
from resources.http import Clock

PROGRESS_VERSION = 1
EMPTY_PAGES = 3  # so many empty pages in a row end an offset scan, whatever `next` says
TOLERANCE = timedelta(seconds=1)  # filter literals have whole seconds
ALL = Window()
LOG = logging.getLogger("svod.bitrix24")


class _WindowIgnored(Exception):
    """Rows came that the window's filter should have kept out."""


@dataclass(slots=True)
class _Job:
    """A command with the caller's key for its answer."""

    key: Any
    command: Command
    fails: int = 0


@dataclass(frozen=True, slots=True)
class _Opening:
    """The first page of a scan, the page with the highest ids, and when they were read."""

    first: Outcome
    last: Outcome | None
    read_at: datetime


@dataclass(frozen=True, slots=True)
class _Scan:
    """One scan in one date style."""

    call: ListCall
    window: Window
    query: ListQuery


class Bitrix24Client:
    """Reads one portal through an inbound webhook; complete or it raises.

    Raises TransientSourceError (limits, faults, timeouts that outlast the retries) and PermanentSourceError
    (credential, scope, rights, unknown method), whose texts never hold the webhook.
    """

    def __init__(
        self,
        webhook_url: str,
        *,
        bucket_capacity: float = 50,
        bucket_per_second: float = 2.0,
        bucket_reserve: float = 1,
        in_flight: int = 4,
        batch_rows: int = 2500,
        operating_limit_s: float = 400,
        operating_wait_s: float = 1800,
        request_target_s: float = 20,
        timeout_s: float = 70,
        ca_bundle: str | None = None,
        state_dir: Path | None = None,
        max_attempts: int = 6,
        date_style: DateStyle = "iso",
        timezone: str | None = None,
        clock: Clock = time,
        log: logging.Logger = LOG,
    ) -> None:
        """Sends nothing. Seconds, rows and requests as in Bitrix24Resource, which describes each setting."""
        self._portal = Portal(
            webhook_url,
            bucket_capacity=bucket_capacity,
            bucket_per_second=bucket_per_second,
            bucket_reserve=bucket_reserve,
            most_commands=max(1, batch_rows // PAGE),
            operating_limit_s=operating_limit_s,
            operating_wait_s=operating_wait_s,
            request_target_s=request_target_s,
            timeout_s=timeout_s,
            ca_bundle=ca_bundle,
            state_dir=state_dir,
            max_attempts=max_attempts,
            pool=in_flight + 4,
            clock=clock,
            log=log,
        )
        self._in_flight = max(1, in_flight)
        self._max_attempts = max_attempts
        self._style: DateStyle = date_style
        self._timezone = ZoneInfo(timezone) if timezone else None
        self._log = log
        self._prefetched: dict[str, _Opening] = {}

    @property
    def stats(self) -> ClientStats:
        """Counters since the client was made."""
        return self._portal.stats

    def call(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """The decoded `result` of one method; parameters travel as JSON."""
        return decode(self._portal.call(method, params or {}).result)

    def call_many(
        self,
        calls: Sequence[tuple[str, Mapping[str, Any]]],
        openings: Iterable[tuple[ListCall, Window]] = (),
    ) -> list[Any | CommandError]:
        """Results in the order of `calls`, packed into batches; a command refused for good is a CommandError.

        The opening pages of `openings` come along in the same requests; each is used by one later scan of the
        same call and window.
        """
        jobs = [
            _Job(index, Command(method, f"{method}?{bracket(params)}"))
            for index, (method, params) in enumerate(calls)
        ]
        jobs += [
            _Job((fingerprint(call, window), part), command)
            for call, window in openings
            if call.paging != "sequential"
            for part, command in enumerate(
                self._opening_commands(call, window, self._query(call, window, self._style))
            )
        ]
        answers: list[Any] = [None] * len(calls)
        found: dict[str, dict[int, tuple[Outcome, datetime]]] = {}
        for settled, read_at in self._stream(iter(jobs), len(jobs)):
            for job, outcome in settled:
                if isinstance(job.key, int):
                    answers[job.key] = outcome.error if outcome.raw is None else decode(outcome.raw)
                else:
                    found.setdefault(job.key[0], {})[job.key[1]] = outcome, read_at
        for name, parts in found.items():
            last = parts[1][0] if 1 in parts else None
            self._prefetched[name] = _Opening(parts[0][0], last, min(at for _, at in parts.values()))
        return answers

    def totals(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[int | CommandError]:
        """How many rows the portal counts for each call, in its order; the rows themselves are not read.

        Counting is slow on large lists (minutes for millions of rows), so this is for checks, never for
        reading.
        """
        jobs = (
            _Job(index, Command(method, f"{method}?{bracket({**params, 'start': 0})}"))
            for index, (method, params) in enumerate(calls)
        )
        answers: list[int | CommandError] = [0] * len(calls)
        for settled, _ in self._stream(jobs, len(calls)):
            for job, outcome in settled:
                answers[job.key] = outcome.error if outcome.error else int(outcome.total or 0)
        return answers

    def server_time(self) -> datetime:
        """The portal's clock at its last answer, aware; asks `server.time` if there was none."""
        if self._portal.portal_time is None:
            result = self.call("server.time")
            if self._portal.portal_time is None:
                return datetime.fromisoformat(str(result))
        return self._portal.portal_time

    def close(self) -> None:
        """Close the connections."""
        self._portal.http.close()

    def prefetch(self, asks: Mapping[str, tuple[ListCall, Window]]) -> None:
        """Read the opening pages of many scans in few requests; each is used by one later scan."""
        self.call_many([], asks.values())

    def scan(
        self, call: ListCall, window: Window = ALL, *, resume: str | None = None
    ) -> Iterator[RecordBatch]:
        """Yield every row of `call` whose modification lies in `window`, at least once, in no global order.

        `resume` is the `progress` of a batch of an earlier scan of the same call and window; anything else
        starts afresh with a warning. Up to `in_flight` requests run ahead of the consumer.
        """
        bounded = call.modified and (window.since or window.until)
        styles: list[DateStyle] = [self._style]
        if bounded and self._style == "iso":
            styles.append("sql")
        for style in styles:
            scan = _Scan(call, window, self._query(call, window, style))
            try:
                yield from self._scan(scan, resume, use_prefetched=style == styles[0])
            except _WindowIgnored:
                self._log.warning(
                    "Bitrix24 %s: rows outside the window with %s date literals", call.method, style
                )
                continue
            self._style = style if bounded else self._style
            return
        raise PermanentSourceError(
            f"Bitrix24 {call.method}: the portal ignores the filter on `{call.modified}`, so changes cannot "
            "be read: "
            "check the name of the field and the date style."
        )

    def _query(self, call: ListCall, window: Window, style: DateStyle) -> ListQuery:
        zone: tzinfo | None = self._timezone
        if style == "sql" and zone is None:
            zone = self.server_time().tzinfo
        return ListQuery(call, window, style, zone)

    def _scan(self, scan: _Scan, resume: str | None, *, use_prefetched: bool) -> Iterator[RecordBatch]:
        opening = self._prefetched.pop(fingerprint(scan.call, scan.window), None) if use_prefetched else None
        if scan.call.paging in ("single", "offset"):
            yield from self._scan_by_offset(scan, opening)
            return
        try:
            yield from self._scan_by_id(scan, resume, opening)
        except OrderIgnored:
            self._log.warning("Bitrix24 %s: rows do not come in id order, paging by offset", scan.call.method)
            yield from self._scan_by_offset(scan, None)

    def _scan_by_id(self, scan: _Scan, resume: str | None, opening: _Opening | None) -> Iterator[RecordBatch]:
        planner = self._restore(scan, resume)
        if planner is None and scan.call.paging == "sequential":
            planner = KeysetPlanner([(0, None)], mode="singles", in_flight=1, spread=False)
        if planner is None:
            opening = opening or self._open(scan)
            first = self._page(scan, opening.first)
            if not first.increasing:  # ask again once: a fault is not a habit
                opening = self._open(scan)
                first = self._page(scan, opening.first)
            if not first.increasing:
                raise OrderIgnored
            planner = self._plan(scan, first, opening.last)
            if first.ids:
                yield self._records(
                    [Slice(first, len(first.ids))], opening.read_at, self._progress(scan, planner)
                )
        if not planner.done:
            yield from self._drain(scan, planner)

    def _opening_commands(self, call: ListCall, window: Window, query: ListQuery) -> list[Command]:
        if call.paging == "single":
            return [Command(call.method, query.offset(None))]
        if call.paging == "offset":
            return [Command(call.method, query.offset(0))]
        return [Command(call.method, query.page()), Command(call.method, query.last())]

    def _open(self, scan: _Scan) -> _Opening:
        commands = self._opening_commands(scan.call, scan.window, scan.query)
        found: dict[int, Outcome] = {}
        moments = []
        for settled, read_at in self._stream(
            iter([_Job(i, c) for i, c in enumerate(commands)]), len(commands)
        ):
            found.update({job.key: outcome for job, outcome in settled})
            moments.append(read_at)
        return _Opening(found[0], found.get(1), min(moments))

    def _page(self, scan: _Scan, outcome: Outcome) -> Page:
        """The page of a settled outcome, checked against the window. Raises the failure it holds."""
        if outcome.raw is None:
            assert outcome.error is not None
            raise failure(outcome.error)
        try:
            page = read_page(scan.call, outcome.raw)
        except BadAnswer as error:
            text = str(error)
        else:
            _check_window(scan, page.modified)
            return page
        raise PermanentSourceError(f"Bitrix24 {text}")

    def _plan(self, scan: _Scan, first: Page, last: Outcome | None) -> KeysetPlanner:
        """Segments that are left after the opening pages."""
        start = first.ids[-1] if first.ids else 0
        top = self._top(scan, first, last)
        if top is None:
            rest: list[tuple[int, int | None]] = [(start, None)]
            return KeysetPlanner(rest, mode="chains", in_flight=self._in_flight)
        if not top.ids or top.ids[0] <= start:
            return KeysetPlanner([], mode="chains")
        first_span = first.ids[-1] - first.ids[0] + 1 if first.ids else 1
        span = first_span + top.ids[0] - top.ids[-1] + 1
        density = min(1.0, (len(first.ids) + len(top.ids)) / span)
        full = len(first.ids) == len(top.ids) == PAGE
        mode: Mode = "windows" if full and density == 1.0 else "chains"
        segments = [(start, top.ids[0]), (top.ids[0], None)]
        return KeysetPlanner(segments, mode=mode, density=density, in_flight=self._in_flight)

    def _top(self, scan: _Scan, first: Page, last: Outcome | None) -> Page | None:
        """The page with the highest ids; None if it did not come in falling order, so proves nothing."""
        if last is None or last.raw is None:
            return None
        try:
            page = read_page(scan.call, last.raw)
        except BadAnswer:
            return None
        provable = len(page.ids) > 1 or len(first.ids) <= 1
        return page if provable and page.decreasing and (page.ids or not first.ids) else None

    def _restore(self, scan: _Scan, resume: str | None) -> KeysetPlanner | None:
        if resume is None:
            return None
        try:
            saved = json.loads(resume)
            if saved["v"] == PROGRESS_VERSION and saved["f"] == fingerprint(scan.call, scan.window):
                segments = [(int(lo), None if hi is None else int(hi)) for lo, hi in saved["left"]]
                sequential = scan.call.paging == "sequential"
                return KeysetPlanner(
                    segments,
                    mode=saved["m"],
                    density=float(saved["d"]),
                    in_flight=self._in_flight,
                    spread=not sequential,
                )
        except (ValueError, TypeError, KeyError):
            pass
        self._log.warning(
            "Bitrix24 %s: saved progress belongs to another scan, starting afresh", scan.call.method
        )
        return None

    def _progress(self, scan: _Scan, planner: KeysetPlanner) -> str:
        state = {
            "v": PROGRESS_VERSION,
            "f": fingerprint(scan.call, scan.window),
            "m": planner.mode,
            "d": round(planner.density, 6),
            "left": planner.remaining(),
        }
        return json.dumps(state, separators=(",", ":"))

    def _drain(self, scan: _Scan, planner: KeysetPlanner) -> Iterator[RecordBatch]:
        """Read all segments of `planner`; rows count as done when their batch is yielded."""
        slots = 1 if scan.call.paging == "sequential" else self._in_flight
        pending: dict[Future[tuple[list[Page | None], list[CommandError | None], datetime]], list[Ask]] = {}
        with self._workers(slots) as (pool, stop):
            while not planner.done:
                self._fill(scan, planner, pool, stop, pending, slots)
                ready, _ = wait(pending, return_when=FIRST_COMPLETED)
                future = next(iter(ready))
                asks = pending.pop(future)
                pages, errors, read_at = future.result()
                slices = planner.absorb(asks, pages, [error is not None for error in errors])
                self._judge(planner, errors)
                for note in planner.notes:
                    self._log.warning("Bitrix24 %s: %s", scan.call.method, note)
                planner.notes.clear()
                self._fill(scan, planner, pool, stop, pending, slots)
                if slices:
                    yield self._records(slices, read_at, self._progress(scan, planner))

    def _fill(
        self,
        scan: _Scan,
        planner: KeysetPlanner,
        pool: ThreadPoolExecutor,
        stop: threading.Event,
        pending: dict[Future[tuple[list[Page | None], list[CommandError | None], datetime]], list[Ask]],
        slots: int,
    ) -> None:
        while len(pending) < slots:
            room = 1 if scan.call.paging == "sequential" else self._portal.sizer.size([scan.call.method])
            asks = planner.plan(room, len(pending))
            if not asks:
                return
            pending[pool.submit(self._read, scan, asks, stop)] = asks

    def _judge(self, planner: KeysetPlanner, errors: Iterable[CommandError | None]) -> None:
        """Raise for a refusal that is final or has lasted too long; the planner repeats the others."""
        for error in errors:
            if error is not None and (not error.retryable or planner.most_fails() > self._max_attempts):
                raise failure(error)

    def _read(
        self, scan: _Scan, asks: Sequence[Ask], stop: threading.Event
    ) -> tuple[list[Page | None], list[CommandError | None], datetime]:
        """Send one planned batch; pages after the first that is not full are left out of a chain."""
        reply = self._portal.batch(self._commands(scan, asks), stop)
        pages: list[Page | None] = []
        errors: list[CommandError | None] = []
        broken = False
        for ask, outcome in zip(asks, reply.outcomes, strict=True):
            broken = broken and ask.lo is None
            page, error = (None, None) if broken else self._settle(scan, outcome)
            broken = broken or page is None or len(page.ids) < PAGE
            pages.append(page)
            errors.append(error)
        return pages, errors, reply.read_at

    def _settle(self, scan: _Scan, outcome: Outcome) -> tuple[Page | None, CommandError | None]:
        if outcome.raw is None:
            return None, outcome.error
        try:
            page = read_page(scan.call, outcome.raw)
        except BadShape as error:
            return None, CommandError(scan.call.method, "BAD_SHAPE", str(error), f"Bitrix24 {error}")
        except BadAnswer as error:
            return None, command_error(scan.call.method, "INTERNAL_SERVER_ERROR", str(error))
        _check_window(scan, page.modified)
        return page, None

    def _commands(self, scan: _Scan, asks: Sequence[Ask]) -> list[Command]:
        method = scan.call.method
        return [
            Command(
                method,
                scan.query.page(reference(f"c{i - 1:03d}", scan.call) if ask.lo is None else ask.lo, ask.hi),
            )
            for i, ask in enumerate(asks)
        ]

    def _records(self, slices: Sequence[Slice], read_at: datetime, progress: str | None) -> RecordBatch:
        rows = [b"\n".join(item.page.rows[: item.count]) for item in slices]
        literals = [item.page.modified[: item.count] for item in slices]
        return self._record_batch(rows, sum(item.count for item in slices), literals, read_at, progress)

    def _record_batch(
        self,
        rows: Iterable[bytes],
        count: int,
        literals: Iterable[Sequence[Any]],
        read_at: datetime,
        progress: str | None,
    ) -> RecordBatch:
        self.stats.add(rows=count)
        days = Counter(
            text[:10] for page in literals for text in page if isinstance(text, str) and len(text) >= 10
        )
        return RecordBatch(b"\n".join(map(mark_false, rows)), count, read_at, days, progress)

    def _scan_by_offset(self, scan: _Scan, opening: _Opening | None) -> Iterator[RecordBatch]:
        """Follow `next`. A page that brings nothing new is not followed further: `start` is ignored there."""
        seen: set[bytes] = set()
        paged = scan.call.paging != "single"
        starts: list[int | None] = [0 if paged else None]
        barren = total = 0
        while starts:
            outcomes, read_at = self._offsets(scan, starts, opening)
            opening = None
            upcoming: int | None = None
            for outcome in outcomes:
                rows, literals, repeated = self._new_rows(scan, outcome, seen)
                total = max(total, whole_number(outcome.total) or 0)
                upcoming = whole_number(outcome.next)
                if rows:
                    yield self._record_batch([b"\n".join(rows)], len(rows), [literals], read_at, None)
                barren = 0 if rows else barren + 1
                if repeated and upcoming is not None and len(seen) < total:
                    raise PermanentSourceError(
                        f"Bitrix24 {scan.call.method}: the portal repeats a page, so the list cannot be "
                        "read to its end."
                    )
                if upcoming is None or barren >= EMPTY_PAGES or repeated:
                    upcoming = None
                    break
            starts = self._next_starts(scan, upcoming, total)

    def _next_starts(self, scan: _Scan, upcoming: int | None, total: int) -> list[int | None]:
        if upcoming is None:
            return []
        pages = max(1, min(self._portal.sizer.size([scan.call.method]), -(-(total - upcoming) // PAGE)))
        return [upcoming + PAGE * index for index in range(pages)]

    def _offsets(
        self, scan: _Scan, starts: Sequence[int | None], opening: _Opening | None
    ) -> tuple[list[Outcome], datetime]:
        if opening is not None:
            return [opening.first], opening.read_at
        found: dict[int, Outcome] = {}
        moments: list[datetime] = []
        jobs = [
            _Job(i, Command(scan.call.method, scan.query.offset(start))) for i, start in enumerate(starts)
        ]
        for settled, read_at in self._stream(iter(jobs), len(jobs)):
            found.update({job.key: outcome for job, outcome in settled})
            moments.append(read_at)
        return [found[index] for index in range(len(starts))], min(moments)

    def _new_rows(self, scan: _Scan, outcome: Outcome, seen: set[bytes]) -> tuple[list[Raw], list[Any], bool]:
        """(rows not seen before, their modification literals, whether a page with rows brought none)."""
        if outcome.raw is None:
            assert outcome.error is not None
            raise failure(outcome.error)
        try:
            rows = rows_of(scan.call, outcome.raw)
            heads = read_heads(scan.call, rows)
        except BadAnswer as error:
            text = str(error)
        else:
            _check_window(scan, [literal for _, literal in heads])
            fresh: list[Raw] = []
            literals: list[Any] = []
            for row, (identity, literal) in zip(rows, heads, strict=True):
                key = (
                    str(identity).encode()
                    if identity is not None
                    else hashlib.blake2b(row, digest_size=16).digest()
                )
                if key not in seen:
                    seen.add(key)
                    fresh.append(row)
                    literals.append(literal)
            return fresh, literals, bool(rows) and not fresh
        raise PermanentSourceError(f"Bitrix24 {text}")

    def by_ids(self, call: ListCall, ids: Sequence[int]) -> Iterator[RecordBatch]:
        """Yield the rows with these ids; ids that no longer exist are simply absent."""
        scan = _Scan(call, ALL, ListQuery(call, ALL))
        chunks = [ids[start : start + PAGE] for start in range(0, len(ids), PAGE)]
        jobs = (_Job(chunk, Command(call.method, scan.query.among(chunk))) for chunk in chunks)
        for settled, read_at in self._stream(jobs, len(chunks)):
            slices = []
            for job, outcome in settled:
                page = self._page(scan, outcome)
                if not set(page.ids) <= set(job.key):
                    raise PermanentSourceError(
                        f"Bitrix24 {call.method}: the portal ignores the filter `@{call.cursor}`: rows were "
                        "not asked for."
                    )
                slices.append(Slice(page, len(page.ids)))
            if any(item.count for item in slices):
                yield self._records(slices, read_at, None)

    def children(
        self, call: ListCall, parents: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield (index of the parent, all its rows), in order of completion.

        A parent is merged into the call's parameters. Lists over a page go on by id (`keyset`) or by `next`.
        An element that is gone has no rows.
        """
        partial: dict[int, list[dict[str, Any]]] = {}
        more: deque[_Job] = deque()
        jobs = (self._child_job(call, parents, index, None) for index in range(len(parents)))
        for settled, _ in self._stream(jobs, len(parents), more):
            for job, outcome in settled:
                index = job.key
                rows = self._child_rows(call, outcome)
                known = partial.setdefault(index, [])
                goes_on = self._goes_on(call, known, rows, outcome)
                known += rows
                if goes_on is None:
                    yield index, partial.pop(index)
                else:
                    more.append(self._child_job(call, parents, index, goes_on))

    def _child_job(
        self, call: ListCall, parents: Sequence[Mapping[str, Any]], index: int, after: int | None
    ) -> _Job:
        query = ListQuery(replace(call, params=_merged(call.params, parents[index])), ALL)
        text = query.page(after) if call.paging in ("keyset", "sequential") else query.offset(after)
        return _Job(index, Command(call.method, text))

    def _child_rows(self, call: ListCall, outcome: Outcome) -> list[dict[str, Any]]:
        if outcome.raw is None:
            assert outcome.error is not None
            gone = outcome.error.code == "NOT_FOUND" or outcome.error.description.lower().startswith(
                "not found"
            )
            if gone:
                return []
            raise failure(outcome.error)
        try:
            return [_mapping(call, decode(row)) for row in rows_of(call, outcome.raw)]
        except BadAnswer as error:
            text = str(error)
        raise PermanentSourceError(f"Bitrix24 {text}")

    def _goes_on(
        self,
        call: ListCall,
        known: Sequence[Mapping[str, Any]],
        rows: Sequence[Mapping[str, Any]],
        outcome: Outcome,
    ) -> int | None:
        """Where the list of a parent continues; None at its end."""
        if call.paging not in ("keyset", "sequential"):
            upcoming = whole_number(outcome.next)
            return upcoming if upcoming is not None and upcoming > len(known) else None
        ended = not rows if call.paging == "sequential" else len(rows) < PAGE
        if ended:
            return None
        first, last = int(rows[0][call.id_key]), int(rows[-1][call.id_key])
        if known and first <= int(known[-1][call.id_key]):
            raise PermanentSourceError(
                f"Bitrix24 {call.method}: the portal ignores the filter `>{call.cursor}`."
            )
        return last

    def _stream(
        self, jobs: Iterator[_Job], expected: int, more: deque[_Job] | None = None
    ) -> Iterator[tuple[list[tuple[_Job, Outcome]], datetime]]:
        """Send jobs packed into batches; yield settled ones batch by batch, repeat what may succeed later.

        The consumer may append to `more` while it handles a batch.
        """
        again = deque[_Job]() if more is None else more
        slots = self._in_flight if expected > self._portal.sizer.size() else 1
        pending: dict[Future[Reply], list[_Job]] = {}
        with self._workers(slots) as (pool, stop):
            while True:
                while len(pending) < slots:
                    packed = self._pack(jobs, again, waiting=bool(pending))
                    if not packed:
                        break
                    pending[pool.submit(self._portal.batch, [job.command for job in packed], stop)] = packed
                if not pending:
                    return
                ready, _ = wait(pending, return_when=FIRST_COMPLETED)
                future = next(iter(ready))
                packed = pending.pop(future)
                reply = future.result()
                settled = self._sort_out(packed, reply, again)
                if settled:
                    yield settled, reply.read_at

    def _pack(self, jobs: Iterator[_Job], again: deque[_Job], *, waiting: bool) -> list[_Job]:
        """Commands for one batch; those of a method that is kept back wait while others can go."""
        size = self._portal.sizer.size()
        now = self._portal.clock.time()
        packed: list[_Job] = []
        held: list[_Job] = []
        while len(packed) < size:
            job = again.popleft() if again else next(jobs, None)
            if job is None:
                break
            kept_back = self._portal.operating.parked(job.command.method, now) > 0
            (held if kept_back else packed).append(job)
            if len(held) >= size:
                break
            size = self._portal.sizer.size({item.command.method for item in packed})
        if not packed and not waiting:
            packed, held = held[:size], held[size:]
        if waiting and len(packed) < size:
            again.extendleft(reversed([*packed, *held]))
            return []
        again.extendleft(reversed(held))
        return packed

    def _sort_out(
        self, packed: Sequence[_Job], reply: Reply, again: deque[_Job]
    ) -> list[tuple[_Job, Outcome]]:
        settled: list[tuple[_Job, Outcome]] = []
        for job, outcome in zip(packed, reply.outcomes, strict=True):
            if outcome.error is not None and outcome.error.retryable:
                job.fails += 1
                if job.fails > self._max_attempts:
                    raise failure(outcome.error)
                again.append(job)
            elif outcome.raw is None and outcome.error is None:
                again.append(job)
            else:
                settled.append((job, outcome))
        return settled

    @contextmanager
    def _workers(self, slots: int) -> Iterator[tuple[ThreadPoolExecutor, threading.Event]]:
        """A pool that is stopped and joined when the block ends, also by an error or a closed generator."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(slots, thread_name_prefix="bitrix24")
        try:
            yield pool, stop
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _check_window(scan: _Scan, literals: Iterable[Any]) -> None:
    """Raise _WindowIgnored if a modification literal lies outside the window; odd ones are passed over."""
    since, until = scan.window.since, scan.window.until
    if not scan.call.modified or (since is None and until is None):
        return
    low = since - TOLERANCE if since else datetime.min.replace(tzinfo=UTC)
    high = until + TOLERANCE if until else datetime.max.replace(tzinfo=UTC)
    for text in literals:
        try:
            moment = datetime.fromisoformat(text)
        except (TypeError, ValueError):
            continue
        if moment.tzinfo is not None and not low <= moment <= high:
            raise _WindowIgnored


def _merged(base: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """`extra` laid over `base`; maps inside are merged too."""
    merged = dict(base)
    for key, value in extra.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            value = _merged(below, value)
        merged[key] = value
    return merged


def _mapping(call: ListCall, row: Any) -> dict[str, Any]:
    if isinstance(row, dict):
        return row
    raise BadShape(f"{call.method}: a row that is not an object")
