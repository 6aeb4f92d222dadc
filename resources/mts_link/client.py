"""One organisation of MTS Link: questions within its rate, answered in full or with the reason."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import Backoff, Clock, HttpAnswer, HttpSession, RateBucket, TransportError
from resources.mts_link.answers import (
    NO_ROUTE,
    BadAnswer,
    Envelope,
    Record,
    error_of,
    is_json,
    read_json,
    server_time,
    text_id,
    unwrap,
)
from resources.mts_link.crowd import Ended, Stopped, crowd
from resources.mts_link.files import FileFetcher
from resources.mts_link.paging import ONCE, Paging

J = TypeVar("J")
DEFAULT_URL = "https://userapi.mts-link.ru/v3"
RATE = 1.95  # the limit is 2: a request that is sent a little early by the server's clock is still in time
CATCH_UP = 0.985  # so much closer may requests be after one that was sent late: not more than 2 in a second
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
REFUSED = frozenset({400, 403, 404, 409})
MOST_RATE_REFUSALS = 12
UNREACHABLE_ATTEMPTS = 3  # a wrong host name should not take half a minute to report
LONGEST_RETRY_AFTER_S = 300.0
MESSAGES = 100  # the most that one call gives
NAP_S = 1.0
_MOST_PAGES = 100_000
_LOCAL = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|::1|[\w-]+)$")


class Refused(Exception):
    """The server answers this question with 400, 403, 404 or 409: asking again will not help.

    `message` is the server's own, without addresses of people.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}".strip())
        self.status, self.message = status, message

    @property
    def no_route(self) -> bool:
        """The method does not exist on this server, as opposed to an entity that does not."""
        return self.status == 404 and NO_ROUTE in self.message


class Exhausted(TransientSourceError):
    """One question was asked as often as sensible; `status` is the last one, 0 without an answer."""

    def __init__(self, description: str, status: int) -> None:
        super().__init__(description)
        self.status = status


class Incomplete(Exhausted):
    """The server answers, and yet this list cannot be read to its end."""

    def __init__(self, description: str) -> None:
        super().__init__(description, 0)


@dataclass(frozen=True, slots=True)
class Call:
    """A question: the path with its values filled in, the query, the way it is paged.

    `whole`: an object with `items` among other things is the record.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    paging: Paging = ONCE
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """Records of one answer, the source's clock when it was asked for, what the server says there is."""

    items: list[Record]
    read_at: datetime
    total: int | None = None


@dataclass(slots=True)
class Stats:
    """Counters of a client: requests sent, retries, refusals for the rate, seconds waited and of requests."""

    requests: int = 0
    retries: int = 0
    refusals: int = 0
    waited_s: float = 0.0
    api_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **amounts: float) -> None:
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def snapshot(self) -> Stats:
        with self._lock:
            return replace(self, _lock=threading.Lock())

    def since(self, earlier: Stats) -> Stats:
        """What was added after `earlier`."""
        now = self.snapshot()
        for each in fields(now):
            if each.name != "_lock":
                setattr(now, each.name, getattr(now, each.name) - getattr(earlier, each.name))
        return now


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What came of one request: 200 with a payload, or why it may be repeated (0: no usable answer)."""

    status: int
    reason: str = ""
    payload: Any = None
    retry_after_s: float = 0.0

    def __str__(self) -> str:
        if self.status:
            return f"answered {self.status}" + (f" ({self.reason})" if self.reason else "")
        return {**_UNREACHABLE, **_BROKEN}.get(self.reason, self.reason)


_UNREACHABLE = {"dns": "the host name is unknown", "refused": "nobody answers at MTS_LINK_URL"}
_BROKEN = {"timeout": "no answer in time", "cut": "the connection broke", "other": "the connection broke"}


class MtsLinkClient:
    """Reads one organisation; threads may share it. It sends GET and nothing else."""

    def __init__(
        self,
        token: str,
        *,
        base_url: str = DEFAULT_URL,
        oauth_token: str | None = None,
        rate: float = RATE,
        in_flight: int = 8,
        timeout_s: float = 30,
        attempts: int = 5,
        ca_bundle: str | None = None,
        state_dir: Path | None = None,
        clock: Clock = time,
        backoff: Backoff | None = None,
    ) -> None:
        """`rate` is requests per second, 0 for no limit; `oauth_token` is for the one method that needs it.

        Raises PermanentSourceError for a base URL that is none.
        """
        self._base = checked_url(base_url)
        self._headers = {"x-auth-token": _header_value(token, "MTS_LINK_API_TOKEN")}
        self._oauth = _header_value(oauth_token, "MTS_LINK_OAUTH_TOKEN") if oauth_token else None
        secrets = [token, *([oauth_token] if oauth_token else [])]
        self._http = HttpSession(
            timeout_s=timeout_s, verify=ca_bundle or True, pool=in_flight, secrets=secrets
        )
        self._bucket = RateBucket(
            # of the organisation, not of the key: which of the two is limited is not documented
            f"mts_link:{urlsplit(self._base).netloc.lower()}",
            capacity=1 if rate > 0 else 0,  # evenly spaced, so that no window of a second holds three
            per_second=rate or 1,
            directory=state_dir,
            clock=clock,
        )
        self.in_flight = in_flight
        self.stats = Stats()
        self._attempts = attempts
        self._clock = clock
        self._backoff = backoff or Backoff(first_s=1, most_s=30, give_up_s=600)
        self._skew = timedelta(0)
        self._gap_s = CATCH_UP * 2 / rate if rate > 0 else 0.0
        self._sent: deque[float] = deque(maxlen=2)
        self._turn = threading.Lock()

    def close(self) -> None:
        self._http.close()

    def now(self) -> datetime:
        """The source's clock, by its last answer; this host's before the first one. UTC."""
        return datetime.fromtimestamp(self._clock.time(), UTC) + self._skew

    def fetcher(self) -> FileFetcher:
        """What fetches files, outside of the rate of questions."""
        return FileFetcher(self._http, self._base, self._headers, self._clock, self._backoff)

    # Questions

    def get(
        self, call: Call, extra: Mapping[str, str] | None = None, stop: threading.Event | None = None
    ) -> tuple[Envelope, datetime]:
        """One answer as (Envelope, read_at).

        Raises Refused, PermanentSourceError (the key, the tariff, the address) or Exhausted.
        """
        asked_at = self.now()
        payload = self._persist(call.path, {**call.query, **(extra or {})}, stop)
        return unwrap(payload, whole=call.whole), asked_at

    def pages(self, call: Call, stop: threading.Event | None = None) -> Iterator[Page]:
        """All pages of a list, to its end; at least one, maybe empty. Raises as `get`, and Incomplete."""
        received, cursor, before = 0, None, None
        for number in range(1, _MOST_PAGES):
            found, asked_at = self.get(call, call.paging.query(number, received, cursor), stop)
            items, keys = found.items, _keys(found.items)
            if items and keys == before:
                if not call.paging.listed:  # it knows no pages: the first answer was all
                    return
                raise Incomplete(f"MTS Link gives the same page of {_kind(call.path)} twice")
            received, before = received + len(items), keys
            yield Page(items, asked_at, found.total)
            if self._last(call.paging, found, len(items), cursor):
                return
            cursor = found.cursor

    @staticmethod
    def _last(paging: Paging, found: Envelope, count: int, cursor: str | None) -> bool:
        if paging.family == "once":
            return True
        if paging.family == "cursor":
            return not count or found.cursor is None or found.cursor == cursor
        return paging.ends(count)

    def messages(
        self,
        chat_path: str,
        viewer: str,
        since_ms: int | None,
        most_pages: int,
        stop: threading.Event | None = None,
        thread: str = "",
    ) -> Iterator[Page]:
        """Messages of a chat from the newest back to `since_ms`, without doubles; all of them without it.

        The order inside a page is not documented and pages may overlap: the oldest message leads on, and a
        page that brings nothing new is the end. `viewer` is a member (chatUserId), `thread` a message.
        Raises Incomplete when there are more than `most_pages`.
        """
        seen, rising = set[str](), False
        query = {"direction": "Before", "limit": str(MESSAGES)}
        query |= {"viewerId": viewer} if viewer else {}
        query |= {"parrentMessageId": thread} if thread else {}
        for _ in range(most_pages):
            found, asked_at = self.get(Call(chat_path, query), stop=stop)
            there = {_message_id(m) or str(n): m for n, m in enumerate(found.items)}  # one may come twice
            new = [m for key, m in there.items() if key not in seen]
            ended = len(found.items) < MESSAGES
            if not new and not ended and not rising:  # all of one moment: the oldest may stand first
                rising, query["fromMessageId"] = True, _message_id(found.items[0])
                continue
            if not new and not ended:
                raise Incomplete("MTS Link gives the same messages of a chat twice")
            if not new:
                return
            seen = set(there)  # pages overlap at their boundary only
            yield Page(new, asked_at)
            rising = _rising(found.items, rising)
            # of several that came at once the one at the end of the page
            oldest = min(
                found.items if rising else reversed(found.items), key=lambda m: _created_ms(m, default=0)
            )
            if ended or (since_ms is not None and _created_ms(oldest, default=since_ms + 1) < since_ms):
                return
            query["fromMessageId"] = _message_id(oldest)
        raise Incomplete(
            f"A chat has more than {most_pages * MESSAGES:,} messages to read (MTS_LINK_MESSAGE_PAGES)"
        )

    def crowd(
        self, jobs: Iterable[J], read: Callable[[J, threading.Event], Iterator[Page]]
    ) -> Iterator[tuple[J, Page | Ended[Page]]]:
        """Pages of many questions, several on the way at once; what is refused ends only its own job."""
        return crowd(jobs, read, self.in_flight, (Refused, Exhausted))

    # One request

    def _persist(self, path: str, query: Mapping[str, str], stop: threading.Event | None) -> Any:
        """Ask until there is an answer. 429 is waited for longer than a fault."""
        waits, faults, refusals = self._backoff.waits(), 0, 0
        while True:
            tried = self._once(path, query, stop)
            if tried.status == 200:
                return tried.payload
            if tried.status == 429:
                refusals += 1
                self.stats.add(refusals=1)
            else:
                faults += 1
            most = UNREACHABLE_ATTEMPTS if tried.reason in _UNREACHABLE else self._attempts
            wait = next(waits, None)
            if faults >= most or refusals > MOST_RATE_REFUSALS or wait is None:
                raise Exhausted(
                    f"MTS Link {_kind(path)}: {tried}; {faults + refusals} attempts", tried.status
                )
            self.stats.add(retries=1)
            self._sleep(max(wait, tried.retry_after_s), stop)

    def _once(self, path: str, query: Mapping[str, str], stop: threading.Event | None) -> _Attempt:
        """One attempt that was answered or may be repeated; what may not be is raised."""
        waited = self._bucket.book()
        self._sleep(waited, stop)
        self._take_turn(stop)
        self.stats.add(requests=1, waited_s=waited)
        headers = self._headers
        if self._oauth and path == "/profile":
            headers = {"Authorization": f"Bearer {self._oauth}"}
        failed, answer = None, None
        try:
            answer = self._http.send("GET", f"{self._base}{path}", params=query, headers=headers)
        except TransportError as error:
            failed = error
        if answer is None:  # outside `except`: nothing of the original may reach a traceback
            return _unreachable(failed.kind if failed else "other")
        self.stats.add(api_s=answer.elapsed_s)
        self._learn_clock(answer)
        code, message = error_of(answer.body)
        status = code if answer.status == 200 and code and code >= 400 else answer.status
        if status == 200:
            return _decoded(answer.body)
        if status == 204:
            return _Attempt(200, payload=[])
        if status in RETRIED or status >= 500:
            return _Attempt(status, message, retry_after_s=_retry_after(answer))
        if status in REFUSED and not is_json(answer.body):
            return _Attempt(status, "a page that is not the API's")  # of a proxy on the way
        raise _refusal(status, message, path)

    def _take_turn(self, stop: threading.Event | None) -> None:
        """Wait until the second that the last two requests of this process fill is over.

        The bucket spaces requests evenly, but a thread may wake late, and the one after next in time.
        """
        if not self._gap_s:
            return
        with self._turn:  # held while it sleeps: whoever comes next has to wait for this one anyway
            now = self._clock.time()
            wait = self._sent[0] + self._gap_s - now if len(self._sent) == 2 else 0.0
            if wait > 0:
                self._sleep(wait, stop)
                now = self._clock.time()
            self._sent.append(now)

    def _learn_clock(self, answer: HttpAnswer) -> None:
        if at := server_time(answer.headers):
            self._skew = at - datetime.fromtimestamp(self._clock.time(), UTC)

    def _sleep(self, seconds: float, stop: threading.Event | None) -> None:
        """Sleep; whoever stops a crowd waits for a nap at most. Raises Stopped."""
        while True:
            if stop is not None and stop.is_set():
                raise Stopped
            if seconds <= 0:
                return
            self._clock.sleep(min(seconds, NAP_S))
            seconds -= NAP_S


def checked_url(url: str) -> str:
    """The base URL without a slash at its end.

    Raises PermanentSourceError, naming the variable: no URL, plain HTTP to a public host, a password in it.
    """
    text = url.strip().rstrip("/")
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise PermanentSourceError(f"MTS_LINK_URL must look like {DEFAULT_URL}.")
    if parts.scheme == "http" and not _LOCAL.match(parts.hostname):
        raise PermanentSourceError("MTS_LINK_URL must begin with https://: the key would travel in the open.")
    return text


def _header_value(token: str, name: str) -> str:
    value = token.strip()
    if not value or not value.isascii() or not value.isprintable() or " " in value:
        raise PermanentSourceError(f"{name} is not a key: it is empty or holds spaces or odd characters.")
    return value


def _retry_after(answer: HttpAnswer) -> float:
    """Seconds to wait, 0 if nothing is said of them. A moment counts from the server's own clock."""
    text = answer.headers.get("Retry-After", "0")
    try:
        wait = float(text)
    except ValueError:
        until, now = server_time({"Date": text}), server_time(answer.headers)
        wait = (until - now).total_seconds() if until and now else 0.0
    return min(LONGEST_RETRY_AFTER_S, max(0.0, wait))


def _kind(path: str) -> str:
    """A path without the ids in it: `/eventsessions/{id}/chat`."""
    return re.sub(r"/(?=[^/]*\d)[^/]+", "/{id}", path)


def _refusal(status: int, message: str, path: str) -> Exception:
    if status == 401:
        return PermanentSourceError(
            "MTS Link does not know the key: check MTS_LINK_API_TOKEN (Business → API/Webhooks → API)."
        )
    if status == 403 and "No userapi access" in message:
        return PermanentSourceError("The organisation's MTS Link tariff has no API (No userapi access).")
    if status in REFUSED:
        return Refused(status, message)
    if 300 <= status < 400:
        return PermanentSourceError(
            f"MTS Link {_kind(path)} answers with a redirect: check MTS_LINK_URL; the key is not sent on."
        )
    return PermanentSourceError(f"MTS Link {_kind(path)} answers {status}: {message or 'no reason given'}")


def _decoded(body: bytes) -> _Attempt:
    try:
        return _Attempt(200, payload=read_json(body))
    except BadAnswer as error:
        return _Attempt(0, str(error))


def _unreachable(kind: str) -> _Attempt:
    if kind == "tls":
        raise PermanentSourceError(
            "MTS Link's certificate is not trusted: give the company's CA in MTS_LINK_CA_BUNDLE."
        )
    if kind == "ca":
        raise PermanentSourceError("MTS_LINK_CA_BUNDLE: there is no such file of certificates.")
    return _Attempt(0, kind)


def _keys(items: list[Record]) -> object:
    """What tells one page from another: ids, since other fields may change meanwhile; else all of it."""
    for name in ("id", "chatUserId", "userId"):
        found = {text_id(item.get(name)) for item in items}
        if len(found) == len(items) and "" not in found:
            return found
    return items


def _message_id(message: Record) -> str:
    return text_id(message.get("id") or message.get("messageId"))


def _rising(page: list[Record], before: bool) -> bool:
    """Whether the oldest message of a page stands first; as before if it does not show."""
    first, last = (_created_ms(message, default=0) for message in (page[0], page[-1]))
    return before if first == last else first < last


def _created_ms(message: Record, default: int) -> int:
    try:
        return int(message["createdAtMs"])
    except (KeyError, TypeError, ValueError):
        return default
