"""The Bitrix24 client: single calls, packed calls, complete scans of list methods."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from resources.bitrix24.calls import PAGE, CommandError, ListCall, RecordBatch, Window, fingerprint
from resources.bitrix24.credentials import Credential, Webhook
from resources.bitrix24.encode import DateStyle, ListQuery, bracket
from resources.bitrix24.envelope import BadAnswer, BadShape, decode, rows_of, whole_number
from resources.bitrix24.faults import failure, is_denied, is_gone
from resources.bitrix24.packing import Job, Packer
from resources.bitrix24.planner import Slice
from resources.bitrix24.portal import ClientStats, Command, Outcome, Portal
from resources.bitrix24.scanning import ALL, Opening, Scan, Scanner
from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import Clock

V3_SINGLES = 3  # so few calls of REST 3.0 are not worth a batch that may fail
NOTHING = (b"null", b"false", b'""')  # how a parent without rows may be answered, besides [] and {}
ODD_PAGES = 4  # so many pages in a row that disagree with their count end the reading
LOG = logging.getLogger("svod.bitrix24")


# What is counted: a list, what changed of it in a window, or any method with its parameters.
Counted = ListCall | tuple[ListCall, Window] | tuple[str, Mapping[str, Any]]


class OddCounts(TransientSourceError):
    """Pages and the portal's counts of their rows keep disagreeing: nothing can be concluded from them."""


class Uncounted(OddCounts):
    """The portal lists rows and does not count them."""


class Bitrix24Client:
    """Reads one portal through an inbound webhook or as an application; complete or it raises.

    Raises TransientSourceError (limits, faults, timeouts that outlast the retries) and PermanentSourceError
    (credential, scope, rights, unknown method), whose texts never hold the webhook.
    """

    def __init__(
        self,
        credential: Credential | str,
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
        """Sends nothing. A text is a webhook's URL; the rest as in Bitrix24Resource, which describes it."""
        self._portal = Portal(
            Webhook(credential) if isinstance(credential, str) else credential,
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
        self._packer = Packer(self._portal, in_flight=max(1, in_flight), max_attempts=max_attempts)
        zone = ZoneInfo(timezone) if timezone else None
        self._scanner = Scanner(self._packer, style=date_style, zone=zone, clock=self.server_time)

    @property
    def stats(self) -> ClientStats:
        """Counters since the client was made."""
        return self._portal.stats

    def call(self, method: str, params: Mapping[str, Any] | Sequence[Any] | None = None) -> Any:
        """The decoded `result` of one method; parameters travel as JSON, a list where they are positional."""
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
            Job(index, Command(method, f"{method}?{bracket(params)}"))
            for index, (method, params) in enumerate(calls)
        ]
        jobs += [
            Job((fingerprint(call, window), part), command)
            for call, window in openings
            if call.paging != "sequential"
            for part, command in enumerate(
                self._scanner.opening_commands(call, window, self._scanner.query(call, window))
            )
        ]
        answers: list[Any] = [None] * len(calls)
        found: dict[str, dict[int, tuple[Outcome, datetime]]] = {}
        for settled, read_at in self._packer.stream(iter(jobs), len(jobs)):
            for job, outcome in settled:
                if isinstance(job.key, int):
                    answers[job.key] = outcome.error if outcome.raw is None else decode(outcome.raw)
                else:
                    found.setdefault(job.key[0], {})[job.key[1]] = outcome, read_at
        for name, parts in found.items():
            last = parts[1][0] if 1 in parts else None
            self._scanner.prefetched[name] = Opening(parts[0][0], last, min(at for _, at in parts.values()))
        return answers

    def totals(self, calls: Sequence[Counted]) -> list[int | CommandError]:
        """How many rows the portal counts for each call, in its order; the rows themselves are not read.

        Counting is slow on large lists (minutes for millions of rows), so this is for checks, never for
        reading.
        """
        jobs = (Job(index, self._counting(call)) for index, call in enumerate(calls))
        answers: list[int | CommandError] = [0] * len(calls)
        for settled, _ in self._packer.stream(jobs, len(calls)):
            for job, outcome in settled:
                answers[job.key] = outcome.error if outcome.error else int(outcome.total or 0)
        return answers

    def _counting(self, call: Counted) -> Command:
        if isinstance(call, ListCall):
            return Command(call.method, ListQuery(call, ALL).page(counted=True))
        what, within = call
        if isinstance(what, ListCall) and isinstance(within, Window):
            return Command(what.method, self._scanner.query(what, within).page(counted=True))
        assert isinstance(what, str)
        assert isinstance(within, Mapping)
        return Command(what, f"{what}?{bracket({**within, 'start': 0})}")

    def call_v3(self, method: str, params: Mapping[str, Any]) -> Any:
        """The decoded `result` of one method of REST 3.0, whose address and errors differ."""
        return decode(self._portal.call(f"api/{method}", params).result)

    def call_v3_many(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any | CommandError]:
        """Results of REST 3.0 in the order of `calls`; a call refused for good is a CommandError.

        A batch of REST 3.0 fails as a whole, so one that is refused is halved, down to single calls.
        """
        chunks = [calls[start : start + PAGE] for start in range(0, len(calls), PAGE)]
        return [answer for chunk in chunks for answer in self._v3(chunk)]

    def _v3(self, calls: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Any | CommandError]:
        if len(calls) > V3_SINGLES and self._portal.takes_lists:
            body = [{"method": method, "query": params} for method, params in calls]
            try:
                answers = decode(self._portal.call("api/batch", body).result)
            except PermanentSourceError:
                half = len(calls) // 2
                return self._v3(calls[:half]) + self._v3(calls[half:])
            if isinstance(answers, list) and len(answers) == len(calls):
                return answers
        return [self._v3_or_refusal(method, params) for method, params in calls]

    def _v3_or_refusal(self, method: str, params: Mapping[str, Any]) -> Any | CommandError:
        try:
            return self.call_v3(method, params)
        except PermanentSourceError as refused:
            code = refused.metadata.get("bitrix24/code")
            return CommandError(method, str(code.value) if code else "", "", str(refused.description))

    def ids(
        self, call: ListCall, filters: Sequence[Mapping[str, Any]]
    ) -> Iterator[tuple[int, list[int], int]]:
        """Yield (index of the filter, ids of its first page, how many rows the portal counts for it).

        The pages of all filters travel together. A page that does not agree with its count (cut short, or
        changed meanwhile) is asked for again, then OddCounts is raised. Raises the failure of any of them
        that the portal refuses.
        """
        jobs = (self._ids_job(call, filters[i], i) for i in range(len(filters)))
        more: deque[Job] = deque()
        odd: Counter[int] = Counter()
        for settled, _ in self._packer.stream(jobs, len(filters), more):
            for job, outcome in settled:
                page = self._scanner.page_of(Scan(call, ALL, ListQuery(call, ALL)), outcome)
                total = whole_number(outcome.total)
                if len(set(page.ids)) == min(total or 0, PAGE):
                    yield job.key, page.ids, total or 0
                    continue
                odd[job.key] += 1
                if odd[job.key] >= ODD_PAGES:
                    kind = OddCounts if total else Uncounted
                    raise kind(
                        f"Bitrix24 {call.method}: a page and the portal's count of its rows disagree, so "
                        "nothing can be concluded from them."
                    )
                more.append(self._ids_job(call, filters[job.key], job.key))

    def _ids_job(self, call: ListCall, condition: Mapping[str, Any], index: int) -> Job:
        query = ListQuery(call.filtered(condition), ALL)
        return Job(index, Command(call.method, query.page(counted=True)))

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
        return self._scanner.scan(call, window, resume=resume)

    def by_ids(self, call: ListCall, ids: Sequence[int]) -> Iterator[RecordBatch]:
        """Yield the rows with these ids; ids that no longer exist are simply absent."""
        scan = Scan(call, ALL, ListQuery(call, ALL))
        chunks = [ids[start : start + PAGE] for start in range(0, len(ids), PAGE)]
        jobs = (Job(chunk, Command(call.method, scan.query.among(chunk))) for chunk in chunks)
        for settled, read_at in self._packer.stream(jobs, len(chunks)):
            slices = []
            for job, outcome in settled:
                page = self._scanner.page_of(scan, outcome)
                if not set(page.ids) <= set(job.key):
                    raise PermanentSourceError(
                        f"Bitrix24 {call.method}: the portal ignores the filter `@{call.cursor}`: rows were "
                        "not asked for."
                    )
                slices.append(Slice(page, len(page.ids)))
            if any(item.count for item in slices):
                yield self._scanner.records(slices, read_at, None)

    def children(
        self,
        call: ListCall,
        parents: Sequence[Mapping[str, Any]],
        denied: Callable[[int, CommandError], None] | None = None,
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield (index of the parent, all its rows), in order of completion.

        A parent is merged into the call's parameters. Lists over a page go on by id (`keyset`) or by `next`.
        An element that is gone has no rows. `denied` is told of a parent that may not be read, which is then
        not yielded; without it the refusal is raised.
        """
        partial: dict[int, list[dict[str, Any]]] = {}
        more: deque[Job] = deque()
        jobs = (self._child_job(call, parents, index, None) for index in range(len(parents)))
        for settled, _ in self._packer.stream(jobs, len(parents), more):
            for job, outcome in settled:
                index = job.key
                if denied and outcome.error and is_denied(outcome.error):
                    partial.pop(index, None)
                    denied(index, outcome.error)
                    continue
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
    ) -> Job:
        query = ListQuery(replace(call, params=_merged(call.params, parents[index])), ALL)
        text = query.page(after) if call.paging in ("keyset", "sequential") else query.offset(after)
        return Job(index, Command(call.method, text))

    def _child_rows(self, call: ListCall, outcome: Outcome) -> list[dict[str, Any]]:
        if outcome.raw is None:
            assert outcome.error is not None
            if is_gone(outcome.error):
                return []
            raise failure(outcome.error)
        if bytes(outcome.raw) in NOTHING:
            return []
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
