"""One login of the Metrika API: every call, within its quotas, repeated while that may help.

Calls and bodies: docs of the Logs API, of offline conversions, goals and counters (API `management/v1`).
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from resources.errors import PermanentSourceError
from resources.http import (
    Backoff,
    Clock,
    HttpAnswer,
    HttpSession,
    HttpStream,
    RateBucket,
    Slots,
    TransportError,
)
from resources.metrika.errors import MetrikaBusy, MetrikaRefusal, failure
from resources.metrika.objects import ATTRIBUTION, Ask, Counter, Evaluation, Goal, LogRequest, Uploading

UPLOADINGS_PAGE = 1000
SKEW = timedelta(seconds=5)  # of the service's own clocks
TIDYING_S = 15  # cleaning up is worth a few attempts, not a long wait at the end of a failed run
_PARALLEL = Backoff(first_s=5, most_s=30)  # a running request must end first
_STAYS = "If it stays so, check METRIKA_URL and the proxy."
_TRANSPORT = {
    "tls": "its TLS certificate is not trusted: for a private CA set METRIKA_CA_BUNDLE",
    "ca": "METRIKA_CA_BUNDLE is not a file with CA certificates",
    "dns": "the host of METRIKA_URL cannot be found",
}


@dataclass(slots=True)
class Usage:
    """What this client's requests have cost."""

    requests: int = 0
    waited_s: float = 0.0
    api_s: float = 0.0


class MetrikaClient:
    """Speaks to the API with one OAuth token. Threads may share it.

    Raises MetrikaRefusal (it will not work like this) or MetrikaBusy (it may later). Processes of this host
    share the login's quotas: requests a second, and requests at the same time.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        ca_bundle: str | None = None,
        state_dir: Path | None = None,
        per_second: float = 8,
        parallel: int = 3,
        timeout_s: float = 120,
        give_up_s: float = 300,
        gzip: bool = True,
        client_id_type: str = "",
        clock: Clock = time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`give_up_s` bounds the waits between attempts at one call; `per_second` 0 = no limit."""
        if not token.strip():
            raise PermanentSourceError(
                "METRIKA_TOKEN is not set: put an OAuth token into .env (see .env.example)."
            )
        if not token.isascii() or any(c.isspace() for c in token.strip()):
            raise PermanentSourceError(
                "METRIKA_TOKEN is malformed: it holds a space or a character that no token has."
            )
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise PermanentSourceError(
                "METRIKA_URL must be an address such as https://api-metrika.yandex.net"
            )
        self._base = f"{url.rstrip('/')}/management/v1"
        self._token = token.strip()
        self._http = HttpSession(timeout_s=timeout_s, verify=ca_bundle or True, secrets=[self._token])
        # the quota counts whole seconds: a burst and a second's refill together stay below it
        self._bucket = RateBucket(
            f"metrika {parts.netloc}",
            capacity=2 if per_second else 0,
            per_second=per_second or 1,
            directory=state_dir,
            clock=clock,
        )
        self._slots = Slots(
            f"metrika {parts.netloc} {self._token}", parallel, directory=state_dir, clock=clock
        )
        self._give_up_s, self._gzip, self._client_id_type = give_up_s, gzip, client_id_type
        self._clock, self._jitter = clock, jitter
        self._lock = threading.Lock()
        self._usage = Usage()
        self._skew_s = 0.0

    # What it costs, what time it is

    def usage(self) -> Usage:
        """The cost so far."""
        with self._lock:
            return Usage(self._usage.requests, self._usage.waited_s, self._usage.api_s)

    def now(self) -> datetime:
        """The API's clock, by its last answer; this host's before the first."""
        return datetime.fromtimestamp(self._clock.time() + self._skew_s, UTC)

    def sleep(self, seconds: float) -> None:
        """Wait, and count it."""
        self._clock.sleep(seconds)
        self._spent(waited_s=seconds)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    # Logs API

    def evaluate(self, ask: Ask) -> Evaluation:
        """Whether the counter has room for these logs, and for how many days. Also validates the fields."""
        found = self._get(
            f"counter/{ask.counter}/logrequests/evaluate", ask.query(), "evaluating a log request"
        )
        answer = _object(found, "log_request_evaluation")
        return Evaluation(bool(answer.get("possible")), int(answer.get("max_possible_day_quantity") or 0))

    def log_requests(self, counter: int) -> list[LogRequest]:
        """Every log request of the counter, by any login."""
        found = self._get(f"counter/{counter}/logrequests", {}, "listing log requests")
        return [LogRequest.of(each) for each in _objects(found, "requests")]

    def log_request(self, counter: int, request_id: int) -> LogRequest:
        """One log request as it is now."""
        return self._log_request(
            "GET", f"counter/{counter}/logrequest/{request_id}", "asking for a log request"
        )

    def create_log_request(self, ask: Ask) -> LogRequest:
        """Order logs. Not repeated when it may have been carried out: list the requests first."""
        query = {**ask.query(), "attribution": ATTRIBUTION}
        path, what = f"counter/{ask.counter}/logrequests", "ordering a log"
        found = self._call("POST", path, what, query=query, once=True)
        return LogRequest.of(_object(found, "log_request"))

    def cancel_log_request(self, counter: int, request_id: int) -> LogRequest:
        """Only a request that is not processed yet can be cancelled."""
        path = f"counter/{counter}/logrequest/{request_id}/cancel"
        return self._log_request("POST", path, "cancelling a log request", TIDYING_S)

    def clean_log_request(self, counter: int, request_id: int) -> LogRequest:
        """Only a processed request can be cleaned."""
        path = f"counter/{counter}/logrequest/{request_id}/clean"
        return self._log_request("POST", path, "cleaning a log request", TIDYING_S)

    @contextmanager
    def part(self, counter: int, request_id: int, number: int) -> Iterator[HttpStream]:
        """A part's body as it comes, compressed or not. One attempt; TransportError when it breaks."""
        path = f"counter/{counter}/logrequest/{request_id}/part/{number}/download"
        headers = self._headers() | {"Accept-Encoding": "gzip" if self._gzip else "identity"}
        with self._turn(), self._http.stream("GET", self._url(path), headers=headers, decode=False) as answer:
            try:
                self._note_clock(answer.headers)
                if answer.status != 200:
                    lost = failure(f"downloading part {number}", answer.status, _beginning(answer))
                    if isinstance(lost, MetrikaBusy):
                        lost.after = self._retry_after(answer.headers)
                    raise lost
                yield answer
            finally:
                self._spent(api_s=answer.elapsed_s)

    # Counters and goals

    def counter(self, counter: int) -> Counter:
        """The counter's name and time zone."""
        found = self._get(f"counter/{counter}", {}, f"asking for counter {counter}")
        return Counter.of(_object(found, "counter"))

    def goals(self, counter: int) -> list[Goal]:
        """The counter's goals, without deleted ones."""
        found = self._get(f"counter/{counter}/goals", {"useDeleted": "false"}, "listing goals")
        return [Goal.of(each) for each in _objects(found, "goals")]

    def create_goal(self, counter: int, target: str, name: str | None = None) -> Goal:
        """A goal that offline conversions with this target reach; the one that is there already, if any."""
        goal = {"name": name or target, "type": "action", "conditions": [{"type": "exact", "url": target}]}
        body = msgspec.json.encode({"goal": goal})
        path, waits = f"counter/{counter}/goals", self._waits()
        while True:
            if found := next((g for g in self.goals(counter) if g.takes(target)), None):
                return found
            try:
                answer = self._call("POST", path, "creating a goal", body=body, once=True)
                return Goal.of(_object(answer, "goal"))
            except MetrikaBusy:
                if (wait := next(waits, None)) is None:
                    raise
            self.sleep(wait)

    # Offline conversions

    def upload_conversions(self, counter: int, csv: bytes, comment: str = "") -> Uploading:
        """Send a file of offline conversions: columns of the docs, header first, comma, LF, UTF-8.

        With a `comment` that no other file has, it is never sent twice: when an answer is lost, the list of
        uploadings tells whether the file arrived. Without one a lost answer raises MetrikaBusy with `sent`.
        """
        path, what = f"counter/{counter}/offline_conversions/upload", "uploading conversions"
        query = {"comment": comment} if comment else {}
        if self._client_id_type:
            query["client_id_type"] = self._client_id_type
        files = {"file": ("conversions.csv", csv, "text/csv")}
        rows, since = csv.count(b"\n") - 1, self.now()
        waits = self._waits()
        while True:
            try:
                answer = self._call("POST", path, what, query=query, files=files, once=True)
                return Uploading.of(_object(answer, "uploading"))
            except MetrikaBusy:
                if not comment or (wait := next(waits, None)) is None:
                    raise
            self.sleep(wait)
            if found := self.find_uploading(counter, comment, rows, since):
                return found

    def uploading(self, counter: int, uploading_id: int) -> Uploading:
        """An uploading as it is now."""
        path = f"counter/{counter}/offline_conversions/uploading/{uploading_id}"
        found = self._get(path, {}, "asking for an uploading")
        return Uploading.of(_object(found, "uploading"))

    def uploadings(self, counter: int) -> Iterator[Uploading]:
        """All uploadings of the counter, in the API's order."""
        path, offset = f"counter/{counter}/offline_conversions/uploadings", 0
        while True:
            query = {"limit": str(UPLOADINGS_PAGE), "offset": str(offset)}
            page = _objects(self._get(path, query, "listing uploadings"), "uploadings")
            yield from map(Uploading.of, page)
            if len(page) < UPLOADINGS_PAGE:
                return
            offset += len(page)

    def find_uploading(
        self, counter: int, comment: str, rows: int = 0, since: datetime | None = None
    ) -> Uploading | None:
        """The uploading with exactly this comment, if there is one.

        Where the API tells no comments, the one of so many `rows` that was made after `since`, if both are
        given: real answers have been seen that lack most fields.
        """
        silent = None
        for found in self.uploadings(counter):
            if found.comment == comment:
                return found
            at = found.created_at
            if since and at and not found.comment and found.source_quantity == rows and at >= since - SKEW:
                silent = found
        return silent

    # One call

    def _get(self, path: str, query: Mapping[str, str], what: str) -> Mapping[str, Any]:
        return self._call("GET", path, what, query=query)

    def _log_request(self, method: str, path: str, what: str, give_up_s: float | None = None) -> LogRequest:
        return LogRequest.of(_object(self._call(method, path, what, give_up_s=give_up_s), "log_request"))

    def _call(
        self,
        method: str,
        path: str,
        what: str,
        *,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        once: bool = False,
        give_up_s: float | None = None,
    ) -> Mapping[str, Any]:
        """The JSON object of a 200; `once`: not repeated where it may have been carried out."""
        waits, crowded, waited = self._waits(), _PARALLEL.waits(self._jitter), 0.0
        limit = min(self._give_up_s, give_up_s or self._give_up_s)
        headers = self._headers() | ({"Content-Type": "application/json"} if body else {})
        while True:
            try:
                with self._turn():
                    answer = self._http.send(
                        method, self._url(path), params=query, headers=headers, body=body, files=files
                    )
                self._spent(api_s=answer.elapsed_s)
                return self._read(what, answer)
            except TransportError as error:
                lost = _unreachable(what, error)
            except (MetrikaRefusal, MetrikaBusy) as error:
                lost = error
            wait = next(waits, None)
            if not isinstance(lost, MetrikaBusy) or (once and lost.sent) or wait is None:
                raise lost
            if lost.error_type == "quota_requests_by_ip":
                wait = 1 + self._jitter()
            elif lost.error_type == "quota_parallel_requests":
                wait = next(crowded, wait)
            wait = wait if lost.after is None else lost.after
            if (waited := waited + wait) > limit:
                raise lost
            self.sleep(wait)

    def _read(self, what: str, answer: HttpAnswer) -> Mapping[str, Any]:
        self._note_clock(answer.headers)
        if answer.status != 200:
            lost = failure(what, answer.status, answer.body)
            if isinstance(lost, MetrikaBusy):
                lost.after = self._retry_after(answer.headers)
            raise lost
        try:
            found = msgspec.json.decode(answer.body)
        except msgspec.DecodeError:
            found = None
        if not isinstance(found, dict):
            text = f"Metrika, {what}: the answer is no JSON object. {_STAYS}"
            raise MetrikaBusy(text, 200, "backend_error", sent=True)
        return found

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One request's share of the quotas."""
        with self._slots.one() as waited:
            waited += self._bucket.reserve()
            self._spent(requests=1, waited_s=waited)
            yield

    def _waits(self) -> Iterator[float]:
        return Backoff(give_up_s=self._give_up_s).waits(self._jitter)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"OAuth {self._token}"}

    def _url(self, path: str) -> str:
        return f"{self._base}/{path}"

    def _spent(self, requests: int = 0, waited_s: float = 0.0, api_s: float = 0.0) -> None:
        with self._lock:
            self._usage.requests += requests
            self._usage.waited_s += waited_s
            self._usage.api_s += api_s

    def _retry_after(self, headers: Mapping[str, str]) -> float | None:
        """Seconds; the header is a number of them or a date."""
        said = headers.get("Retry-After", "")
        try:
            after = float(said)
        except ValueError:
            try:
                after = parsedate_to_datetime(said).timestamp() - self.now().timestamp()
            except (ValueError, TypeError, OverflowError):
                return None
        return max(0.0, after) if math.isfinite(after) else None

    def _note_clock(self, headers: Mapping[str, str]) -> None:
        try:
            said = parsedate_to_datetime(headers.get("Date", "")).timestamp()
        except (ValueError, TypeError):
            return
        self._skew_s = said - self._clock.time()


def _unreachable(what: str, error: TransportError) -> MetrikaRefusal | MetrikaBusy:
    if error.kind in _TRANSPORT and error.kind != "dns":
        return MetrikaRefusal(f"Metrika, {what}: {_TRANSPORT[error.kind]}.", 0, error.kind, "")
    text = _TRANSPORT.get(error.kind, f"no complete answer came ({error.kind})")
    return MetrikaBusy(f"Metrika, {what}: {text}.", 0, error.kind, sent=error.kind not in ("dns", "refused"))


def _object(answer: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = answer.get(key)
    return found if isinstance(found, dict) else {}


def _objects(answer: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = answer.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise MetrikaBusy(f"Metrika: the answer has no list {key!r}. {_STAYS}")
    return found


def _beginning(answer: HttpStream, most: int = 65536) -> bytes:
    """The start of an error's body, which is small."""
    body = b""
    for chunk in answer.chunks:
        body += chunk
        if len(body) >= most:
            break
    return body
