"""Complete scans of list methods: by id in windows and chains, or by offset."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from msgspec import Raw

from resources.bitrix24.calls import PAGE, CommandError, ListCall, RecordBatch, Window, fingerprint
from resources.bitrix24.encode import DateStyle, ListQuery, reference
from resources.bitrix24.envelope import (
    BadAnswer,
    BadShape,
    Page,
    mark_false,
    read_heads,
    read_page,
    rows_of,
    whole_number,
)
from resources.bitrix24.faults import command_error, failure
from resources.bitrix24.packing import Job, Packer
from resources.bitrix24.planner import Ask, KeysetPlanner, Mode, OrderIgnored, Slice
from resources.bitrix24.portal import Command, Outcome
from resources.errors import PermanentSourceError

PROGRESS_VERSION = 1
EMPTY_PAGES = 3  # so many empty pages in a row end an offset scan, whatever `next` says
TOLERANCE = timedelta(seconds=1)  # filter literals have whole seconds
ALL = Window()


class _WindowIgnored(Exception):
    """Rows came that the window's filter should have kept out."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The first page of a scan, the page with the highest ids, and when they were read."""

    first: Outcome
    last: Outcome | None
    read_at: datetime


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan in one date style."""

    call: ListCall
    window: Window
    query: ListQuery


class Scanner:
    """Scans of one portal. `prefetched` holds opening pages that were read beforehand, by fingerprint."""

    def __init__(
        self, packer: Packer, *, style: DateStyle, zone: tzinfo | None, clock: Callable[[], datetime]
    ) -> None:
        """`style` is how dates in filters are written first, `clock` the portal's own."""
        self._packer, self._portal = packer, packer.portal
        self._in_flight, self._max_attempts = packer.in_flight, packer.max_attempts
        self._zone, self._clock = zone, clock
        self.style: DateStyle = style
        self.prefetched: dict[str, Opening] = {}

    def scan(
        self, call: ListCall, window: Window = ALL, *, resume: str | None = None
    ) -> Iterator[RecordBatch]:
        """Yield every row of `call` whose modification lies in `window`, at least once, in no global order.

        `resume` is the `progress` of a batch of an earlier scan of the same call and window; anything else
        starts afresh with a warning. Up to `in_flight` requests run ahead of the consumer.
        """
        bounded = call.modified and (window.since or window.until)
        styles: list[DateStyle] = [self.style]
        if bounded and self.style == "iso":
            styles.append("sql")
        for style in styles:
            scan = Scan(call, window, self.query(call, window, style))
            try:
                yield from self._scan(scan, resume, use_prefetched=style == styles[0])
            except _WindowIgnored:
                self._portal.log.warning(
                    "Bitrix24 %s: rows outside the window with %s date literals", call.method, style
                )
                continue
            self.style = style if bounded else self.style
            return
        raise PermanentSourceError(
            f"Bitrix24 {call.method}: the portal ignores the filter on `{call.modified}`, so changes cannot "
            "be read: "
            "check the name of the field and the date style."
        )

    def query(self, call: ListCall, window: Window, style: DateStyle | None = None) -> ListQuery:
        style = style or self.style
        zone: tzinfo | None = self._zone
        if style == "sql" and zone is None:
            zone = self._clock().tzinfo
        return ListQuery(call, window, style, zone)

    def _scan(self, scan: Scan, resume: str | None, *, use_prefetched: bool) -> Iterator[RecordBatch]:
        opening = self.prefetched.pop(fingerprint(scan.call, scan.window), None) if use_prefetched else None
        if scan.call.paging in ("single", "offset"):
            yield from self._scan_by_offset(scan, opening)
            return
        try:
            yield from self._scan_by_id(scan, resume, opening)
        except OrderIgnored:
            self._portal.log.warning(
                "Bitrix24 %s: rows do not come in id order, paging by offset", scan.call.method
            )
            yield from self._scan_by_offset(scan, None)

    def _scan_by_id(self, scan: Scan, resume: str | None, opening: Opening | None) -> Iterator[RecordBatch]:
        planner = self._restore(scan, resume)
        if planner is None and scan.call.paging == "sequential":
            planner = KeysetPlanner([(0, None)], mode="singles", in_flight=1, spread=False)
        if planner is None:
            opening = opening or self._open(scan)
            first = self.page_of(scan, opening.first)
            if not first.increasing:  # ask again once: a fault is not a habit
                opening = self._open(scan)
                first = self.page_of(scan, opening.first)
            if not first.increasing:
                raise OrderIgnored
            planner = self._plan(scan, first, opening.last)
            if first.ids:
                yield self.records(
                    [Slice(first, len(first.ids))], opening.read_at, self._progress(scan, planner)
                )
        if not planner.done:
            yield from self._drain(scan, planner)

    def opening_commands(self, call: ListCall, window: Window, query: ListQuery) -> list[Command]:
        if call.paging == "single":
            return [Command(call.method, query.offset(None))]
        if call.paging == "offset":
            return [Command(call.method, query.offset(0))]
        return [Command(call.method, query.page()), Command(call.method, query.last())]

    def _open(self, scan: Scan) -> Opening:
        commands = self.opening_commands(scan.call, scan.window, scan.query)
        found: dict[int, Outcome] = {}
        moments = []
        for settled, read_at in self._packer.stream(
            iter([Job(i, c) for i, c in enumerate(commands)]), len(commands)
        ):
            found.update({job.key: outcome for job, outcome in settled})
            moments.append(read_at)
        return Opening(found[0], found.get(1), min(moments))

    def page_of(self, scan: Scan, outcome: Outcome) -> Page:
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

    def _plan(self, scan: Scan, first: Page, last: Outcome | None) -> KeysetPlanner:
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

    def _top(self, scan: Scan, first: Page, last: Outcome | None) -> Page | None:
        """The page with the highest ids; None if it did not come in falling order, so proves nothing."""
        if last is None or last.raw is None:
            return None
        try:
            page = read_page(scan.call, last.raw)
        except BadAnswer:
            return None
        provable = len(page.ids) > 1 or len(first.ids) <= 1
        return page if provable and page.decreasing and (page.ids or not first.ids) else None

    def _restore(self, scan: Scan, resume: str | None) -> KeysetPlanner | None:
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
        self._portal.log.warning(
            "Bitrix24 %s: saved progress belongs to another scan, starting afresh", scan.call.method
        )
        return None

    def _progress(self, scan: Scan, planner: KeysetPlanner) -> str:
        state = {
            "v": PROGRESS_VERSION,
            "f": fingerprint(scan.call, scan.window),
            "m": planner.mode,
            "d": round(planner.density, 6),
            "left": planner.remaining(),
        }
        return json.dumps(state, separators=(",", ":"))

    def _drain(self, scan: Scan, planner: KeysetPlanner) -> Iterator[RecordBatch]:
        """Read all segments of `planner`; rows count as done when their batch is yielded."""
        slots = 1 if scan.call.paging == "sequential" else self._in_flight
        pending: dict[Future[tuple[list[Page | None], list[CommandError | None], datetime]], list[Ask]] = {}
        with self._packer.workers(slots) as (pool, stop):
            while not planner.done:
                self._fill(scan, planner, pool, stop, pending, slots)
                ready, _ = wait(pending, return_when=FIRST_COMPLETED)
                future = next(iter(ready))
                asks = pending.pop(future)
                pages, errors, read_at = future.result()
                slices = planner.absorb(asks, pages, [error is not None for error in errors])
                self._judge(planner, errors)
                for note in planner.notes:
                    self._portal.log.warning("Bitrix24 %s: %s", scan.call.method, note)
                planner.notes.clear()
                self._fill(scan, planner, pool, stop, pending, slots)
                if slices:
                    yield self.records(slices, read_at, self._progress(scan, planner))

    def _fill(
        self,
        scan: Scan,
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
        self, scan: Scan, asks: Sequence[Ask], stop: threading.Event
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

    def _settle(self, scan: Scan, outcome: Outcome) -> tuple[Page | None, CommandError | None]:
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

    def _commands(self, scan: Scan, asks: Sequence[Ask]) -> list[Command]:
        method = scan.call.method
        return [
            Command(
                method,
                scan.query.page(reference(f"c{i - 1:03d}", scan.call) if ask.lo is None else ask.lo, ask.hi),
            )
            for i, ask in enumerate(asks)
        ]

    def records(self, slices: Sequence[Slice], read_at: datetime, progress: str | None) -> RecordBatch:
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
        self._portal.stats.add(rows=count)
        days = Counter(
            text[:10] for page in literals for text in page if isinstance(text, str) and len(text) >= 10
        )
        return RecordBatch(b"\n".join(map(mark_false, rows)), count, read_at, days, progress)

    def _scan_by_offset(self, scan: Scan, opening: Opening | None) -> Iterator[RecordBatch]:
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

    def _next_starts(self, scan: Scan, upcoming: int | None, total: int) -> list[int | None]:
        if upcoming is None:
            return []
        pages = max(1, min(self._portal.sizer.size([scan.call.method]), -(-(total - upcoming) // PAGE)))
        return [upcoming + PAGE * index for index in range(pages)]

    def _offsets(
        self, scan: Scan, starts: Sequence[int | None], opening: Opening | None
    ) -> tuple[list[Outcome], datetime]:
        if opening is not None:
            return [opening.first], opening.read_at
        found: dict[int, Outcome] = {}
        moments: list[datetime] = []
        jobs = [Job(i, Command(scan.call.method, scan.query.offset(start))) for i, start in enumerate(starts)]
        for settled, read_at in self._packer.stream(iter(jobs), len(jobs)):
            found.update({job.key: outcome for job, outcome in settled})
            moments.append(read_at)
        return [found[index] for index in range(len(starts))], min(moments)

    def _new_rows(self, scan: Scan, outcome: Outcome, seen: set[bytes]) -> tuple[list[Raw], list[Any], bool]:
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


def _check_window(scan: Scan, literals: Iterable[Any]) -> None:
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
