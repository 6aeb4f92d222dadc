"""One portal behind one credential: sends requests within the limits and retries what can be retried."""

import logging
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlsplit, urlunsplit

from msgspec import Raw

from resources.bitrix24.calls import CommandError
from resources.bitrix24.credentials import EXPIRED, Credential, Webhook
from resources.bitrix24.envelope import (
    Answer,
    BadAnswer,
    BatchAnswer,
    Time,
    moment,
    number,
    read_answer,
    read_batch,
    read_error,
)
from resources.bitrix24.faults import Kind, command_error, failure, kind_of, transport_failure
from resources.bitrix24.limits import BATCH, BatchSizer, OperatingBudget
from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import Clock, HttpAnswer, HttpSession, RateBucket, TransportError, register_secret

T = TypeVar("T")
_REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 3
MOST_RATE_REFUSALS = 12
UNREACHABLE_ATTEMPTS = 3  # a wrong host name should not take half a minute to report
LONGEST_BACKOFF_S = 30.0
NAP_S = 1.0  # the longest sleep between looks at `stop`


class Stopped(Exception):
    """The scan that asked for this request has ended."""


@dataclass(slots=True)
class ClientStats:
    """Counters since the client was made.

    api_s: wall seconds of requests; server_s: the portal's own `duration`.
    """

    requests: int = 0
    commands: int = 0
    rows: int = 0
    retries: int = 0
    waited_rate_s: float = 0.0
    waited_operating_s: float = 0.0
    api_s: float = 0.0
    server_s: float = 0.0
    operating: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **amounts: float) -> None:
        """Add to counters by name; threads may call it at once."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def snapshot(self) -> "ClientStats":
        """A copy to give to `since` later."""
        with self._lock:
            return replace(self, operating=dict(self.operating), _lock=threading.Lock())

    def since(self, earlier: "ClientStats") -> "ClientStats":
        """What was added after `earlier`; `operating` stays as last reported (it is a running total)."""
        now = self.snapshot()
        for item in fields(now):
            if item.name not in ("operating", "_lock"):
                setattr(now, item.name, getattr(now, item.name) - getattr(earlier, item.name))
        return now

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for metadata."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "_lock"}


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a batch: its method and `method?query`."""

    method: str
    text: str


@dataclass(slots=True)
class Outcome:
    """What became of a command: `raw`, or `error`, or neither if it was not executed."""

    raw: Raw | None = None
    error: CommandError | None = None
    next: Any = None
    total: Any = None


@dataclass(slots=True)
class Reply:
    """The outcomes of one batch in the order sent, and the portal's clock when it began (UTC)."""

    outcomes: list[Outcome]
    read_at: datetime


class _Refused(Exception):
    """The request as a whole failed in a way that may pass. `heavy`: with fewer commands it may succeed."""

    def __init__(self, error: CommandError, kind: Kind, *, heavy: bool = False) -> None:
        super().__init__(error.message)
        self.error, self.kind, self.heavy = error, kind, heavy


class _Unreachable(Exception):
    """No answer came."""

    def __init__(self, error: TransportError) -> None:
        super().__init__(str(error))
        self.error = error


class Portal:
    """Sends single calls and batches; safe to use from several threads."""

    def __init__(
        self,
        credential: Credential,
        *,
        bucket_capacity: float,
        bucket_per_second: float,
        bucket_reserve: float,
        most_commands: int,
        operating_limit_s: float,
        operating_wait_s: float,
        request_target_s: float,
        timeout_s: float,
        ca_bundle: str | None,
        state_dir: Path | None,
        max_attempts: int,
        pool: int,
        clock: Clock,
        log: logging.Logger,
    ) -> None:
        self._credential = credential
        self._moved: tuple[str, str] | None = None  # (address of the credential, where the portal is now)
        self.http = HttpSession(timeout_s=timeout_s, verify=ca_bundle or True, pool=pool)
        self._make_bucket = lambda: RateBucket(
            f"bitrix24:{urlsplit(credential.base).netloc.lower()}",
            capacity=max(1.0, bucket_capacity - bucket_reserve) if bucket_capacity > 0 else 0,
            per_second=bucket_per_second,
            directory=state_dir,
            clock=clock,
        )
        self.operating = OperatingBudget(operating_limit_s)
        self.sizer = BatchSizer(most_commands, request_target_s)
        self.stats = ClientStats()
        self.max_attempts = max_attempts
        self.clock = clock
        self.log = log
        self.portal_time: datetime | None = None
        self._operating_wait_s = operating_wait_s
        self._streak = 0

    @cached_property
    def _bucket(self) -> RateBucket:
        """By the portal's name, which an application knows only when it has a token."""
        return self._make_bucket()

    @property
    def takes_lists(self) -> bool:
        """Whether a body may be a list: an application's token travels in the body, which then is a map."""
        return isinstance(self._credential, Webhook)

    @property
    def _base(self) -> str:
        known = self._credential.base
        return self._moved[1] if self._moved and self._moved[0] == known else known

    def call(
        self, method: str, params: Mapping[str, Any] | Sequence[Any], stop: threading.Event | None = None
    ) -> Answer:
        """One method, parameters as JSON. Raises Permanent- or TransientSourceError."""

        def send(_count: int) -> Answer:
            answer = read_answer(self._post(method, params))
            self._learn(answer.time, [(method, answer.time)], method)
            return answer

        answer, _ = self._persist(send, Counter([method]), 1, stop, method)
        return answer

    def batch(self, commands: Sequence[Command], stop: threading.Event | None = None) -> Reply:
        """Up to 50 commands in one request; nested errors are returned, not raised.

        After a timeout or a server fault only the first half is sent again, and the rest comes back as not
        executed: references point backwards, so the first half is always complete in itself.
        """

        def send(count: int) -> BatchAnswer:
            body = self._post(
                BATCH, {"halt": 0, "cmd": {_label(i): c.text for i, c in enumerate(commands[:count])}}
            )
            answer = read_batch(body)
            times = [
                (c.method, answer.times[_label(i)])
                for i, c in enumerate(commands)
                if _label(i) in answer.times
            ]
            self._learn(answer.time, times, BATCH)
            return answer

        methods = Counter(command.method for command in commands)
        answer, sent = self._persist(send, methods, len(commands), stop, BATCH)
        self.stats.add(commands=sent)
        outcomes = [self._outcome(c, _label(i), answer) for i, c in enumerate(commands[:sent])]
        self._mind_nested(outcomes, stop)
        outcomes += [Outcome() for _ in commands[sent:]]
        return Reply(
            outcomes, (moment(answer.time) or datetime.fromtimestamp(self.clock.time(), UTC)).astimezone(UTC)
        )

    def _outcome(self, command: Command, label: str, answer: BatchAnswer) -> Outcome:
        if label in answer.errors:
            return Outcome(error=command_error(command.method, *answer.errors[label]))
        if label not in answer.results:
            text = "the portal left a command of a batch unanswered"
            return Outcome(error=command_error(command.method, "MISSING_LABEL", text))
        return Outcome(answer.results[label], None, answer.next.get(label), answer.total.get(label))

    def _mind_nested(self, outcomes: Sequence[Outcome], stop: threading.Event | None) -> None:
        """Obey refusals inside a good answer; whoever asked sends those commands again."""
        errors = [o.error for o in outcomes if o.error and o.error.retryable]
        self._streak = self._streak + 1 if errors else 0
        for error in errors:
            if kind_of(error.code) is Kind.OPERATING:
                self._park(error)
        if any(kind_of(error.code) is Kind.RATE for error in errors):
            self._bucket.penalise()
        if any(kind_of(error.code) is not Kind.OPERATING for error in errors):
            self.stats.add(retries=1)
            self.pause(self._backoff(self._streak), stop)

    def _persist(
        self,
        send: Callable[[int], T],
        methods: Counter[str],
        count: int,
        stop: threading.Event | None,
        owner: str,
    ) -> tuple[T, int]:
        """Send until it works or a bound is reached; returns the answer and how many commands it carried."""
        failures = refusals = unreachable = 0
        parked = 0.0
        while True:
            parked += self._admit(methods, stop)
            try:
                return send(count), count
            except _Refused as refused:
                error, kind, heavy = refused.error, refused.kind, refused.heavy
            except BadAnswer:
                text = "the portal's answer was cut short or was not JSON"
                error, kind, heavy = command_error(owner, "INTERNAL_SERVER_ERROR", text), Kind.RETRY, True
            except _Unreachable as lost:
                unreachable += lost.error.kind in ("dns", "refused")
                if (
                    lost.error.kind in ("tls", "ca")
                    or unreachable >= UNREACHABLE_ATTEMPTS
                    or failures + 1 >= self.max_attempts
                ):
                    final = transport_failure(lost.error)
                    self._raise(final)
                error, kind, heavy = (
                    command_error(owner, "INTERNAL_SERVER_ERROR", str(lost)),
                    Kind.RETRY,
                    True,
                )
            self.stats.add(retries=1)
            if kind is Kind.FATAL:
                self._raise(failure(error))
            if kind is Kind.OPERATING:
                self._park(replace(error, method=owner))
                if parked > self._operating_wait_s:
                    self._raise(failure(error))
                continue
            if kind is Kind.RATE:
                refusals += 1
                self._bucket.penalise()
                if refusals > MOST_RATE_REFUSALS:
                    self._raise(failure(error))
                self.pause(self._backoff(refusals), stop)
                continue
            failures += 1
            if failures >= self.max_attempts:
                self._raise(failure(error))
            if heavy:
                self.sizer.failed(count)
                count = max(1, count // 2)
            self.log.warning(
                "Bitrix24 %s: attempt %d failed (%s), next with %d commands",
                owner,
                failures,
                error.description,
                count,
            )
            self.pause(self._backoff(failures), stop)

    def _raise(self, error: PermanentSourceError | TransientSourceError) -> NoReturn:
        raise error from None

    def _admit(self, methods: Counter[str], stop: threading.Event | None) -> float:
        """Wait for the methods' budgets, then for the rate bucket; returns the seconds of the former."""
        waited = self.operating.delay(self.sizer.cost(methods), self.clock.time())
        if waited > self._operating_wait_s:
            raise TransientSourceError(
                f"Bitrix24 {', '.join(methods)}: the portal's execution time budget is used up for another "
                f"{waited:.0f} s; a later run continues."
            )
        if waited > 0:
            self.stats.add(waited_operating_s=waited)
            self.pause(waited, stop)
        rate = self._bucket.reserve(lambda seconds: self.pause(seconds, stop))
        self.stats.add(waited_rate_s=rate)
        return waited

    def _park(self, error: CommandError) -> None:
        wait = self.operating.park(error.method, self.clock.time())
        self.log.warning("Bitrix24 %s: execution time budget used up, waiting %.0f s", error.method, wait)

    def _backoff(self, failures: int) -> float:
        return min(LONGEST_BACKOFF_S, 2.0 ** min(failures - 1, 10)) * (1 + random.random() / 4)

    def pause(self, seconds: float, stop: threading.Event | None = None) -> None:
        """Sleep in short naps. Raises Stopped when `stop` is set."""
        end = self.clock.time() + seconds
        while True:
            if stop is not None and stop.is_set():
                raise Stopped
            left = end - self.clock.time()
            if left <= 0:
                return
            self.clock.sleep(min(left, NAP_S, seconds))

    def _post(self, method: str, payload: Mapping[str, Any] | Sequence[Any]) -> bytes:
        """The body of a 200 answer. Raises _Refused, _Unreachable or BadAnswer."""
        used = self._credential.token
        try:
            return self._answered(method, payload)
        except _Refused as refused:
            if refused.error.code not in EXPIRED or not self._credential.renew(used):
                raise
        return self._answered(method, payload)

    def _answered(self, method: str, payload: Mapping[str, Any] | Sequence[Any]) -> bytes:
        answer = self._follow(method, payload)
        if answer.status == 200 and answer.body.lstrip()[:1] == b"{":
            found = None if method == BATCH else read_error(answer.body)
            if found is None and b'"error"' in answer.body[:200]:
                found = read_error(answer.body)
            if found is None:
                return answer.body
            code, description = found
        else:
            code, description = self._refusal(answer)
        kind = kind_of(code, answer.status)
        error = command_error(method, code, description, answer.status)
        raise _Refused(error, kind, heavy=kind is Kind.RETRY)

    def _refusal(self, answer: HttpAnswer) -> tuple[str, str]:
        """(code, description) of an answer that is an error; a gateway's page counts as a server fault."""
        try:
            found = read_error(answer.body)
        except BadAnswer:
            found = None
        if found is not None:
            return found
        if answer.status < 400:
            raise BadAnswer("not JSON")
        return "", f"HTTP {answer.status} without a JSON body"

    def _follow(self, method: str, payload: Mapping[str, Any] | Sequence[Any]) -> HttpAnswer:
        for _ in range(MOST_REDIRECTS + 1):
            url, body = self._address(method), self._credential.signed(payload)
            self.stats.add(requests=1)
            try:
                answer = self.http.post_json(url, body)
            except TransportError as error:
                raise _Unreachable(error) from None
            self.stats.add(api_s=answer.elapsed_s)
            if answer.status not in _REDIRECTS:
                return answer
            self._move(answer.headers.get("Location", ""))
        raise PermanentSourceError("Bitrix24: the portal redirects in a circle: check BITRIX24_WEBHOOK_URL.")

    def _address(self, method: str) -> str:
        """`api/…` is a method of REST 3.0: its path is /rest/api/<user>/<code>/<method>."""
        version3 = method.removeprefix("api/")
        if version3 != method:
            base = urlsplit(self._base)
            return urlunsplit(base._replace(path=f"{base.path.replace('/rest', '/rest/api', 1)}/{version3}"))
        return f"{self._base}/{method}.json"

    def _move(self, location: str) -> None:
        """Take the new host of a renamed portal; path and body stay."""
        old, new = urlsplit(self._base), urlsplit(location)
        if not new.hostname:
            raise PermanentSourceError(
                "Bitrix24: the portal redirects to nowhere: check BITRIX24_WEBHOOK_URL."
            )
        if old.scheme == "https" and new.scheme != "https":
            raise PermanentSourceError(
                "Bitrix24: the portal redirects to plain HTTP, which would expose the webhook code."
            )
        netloc = new.netloc.rpartition("@")[2]
        if netloc != old.netloc:
            self.log.warning("Bitrix24: the portal has moved to %s: update BITRIX24_WEBHOOK_URL", netloc)
        moved = urlunsplit((new.scheme, netloc, old.path, "", ""))
        self._moved = self._credential.base, moved
        register_secret(moved)

    def _learn(self, envelope: Time, nested: Sequence[tuple[str, Time]], owner: str) -> None:
        self.portal_time = moment(envelope) or self.portal_time
        self.stats.add(server_s=number(envelope.duration))
        self.operating.observe(envelope, nested if owner == BATCH else (), owner=owner, now=self.clock.time())
        self.stats.operating = self.operating.used()
        self.sizer.succeeded(nested)


def _label(index: int) -> str:
    return f"c{index:03d}"
