"""What every HTTP client here shares: the session, the secrets it must not print, the rate bucket."""

import contextlib
import fcntl
import hashlib
import http.cookiejar
import json
import logging
import os
import random
import re
import socket
import ssl
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util.ssl_ import create_urllib3_context

USER_AGENT = "svod/1 (+requests)"
HIDDEN = "***"
SHORTEST_SECRET = 4  # shorter ones would blank ordinary words; the URL patterns below still hide them

_secrets: list[str] = []
_secrets_lock = threading.Lock()
_URL_SECRETS = (
    (re.compile(r"/rest/(api/)?\d+/[^/\s\"'?#]+"), rf"/rest/{HIDDEN}/{HIDDEN}"),
    (
        re.compile(r"\b((?:auth|access_token|refresh_token|client_secret)(?:=|%3D))[^&\s\"']+", re.I),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(://)[^/\s@\"']+@"), rf"\1{HIDDEN}@"),
    # a query for a person, as the HTTP library writes it into its own log
    (re.compile(r"((?:\b|%5B)(?:email|phone|phoneMain)(?:\]|%5D)?=)[^&\s\"']+", re.I), rf"\1{HIDDEN}"),
)


class Clock(Protocol):
    """The two functions of module `time` that limits need; tests give a clock of their own."""

    def time(self) -> float:
        """Seconds since the epoch."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Return after `seconds`."""
        ...


def register_secret(value: str) -> None:
    """Hide `value` (and its percent-encoded form) in everything `redact` sees, for this process."""
    with _secrets_lock:
        for form in {value, quote(value, safe="")}:
            if len(form) >= SHORTEST_SECRET and form not in _secrets:
                _secrets.append(form)
        _secrets.sort(key=len, reverse=True)


def redact(text: str) -> str:
    """`text` without registered secrets, webhook codes, `auth=` values and URL passwords."""
    for secret in tuple(_secrets):
        text = text.replace(secret, HIDDEN)
    for pattern, replacement in _URL_SECRETS:
        text = pattern.sub(replacement, text)
    return text


class _Redaction(logging.Filter):
    """Replaces secrets in the message and in the traceback of a record; drops nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # a broken format string is the caller's to report
            return True
        clean = redact(message)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            text = record.exc_text or "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            clean = redact(text)
            if clean != text:
                record.exc_info, record.exc_text = None, clean
        return True


_redaction = _Redaction("svod-redaction")


def install_log_redaction() -> None:
    """Redact every log record of the process; calling it again changes nothing.

    Filters of the root logger do not see records of its children, and handlers may be added later, so the
    record factory is wrapped as well.
    """
    root = logging.getLogger()
    for holder in (root, *root.handlers):
        if _redaction not in holder.filters:
            holder.addFilter(_redaction)
    make = logging.getLogRecordFactory()
    if getattr(make, "redacts", False):
        return

    def redacted(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        _redaction.filter(record)
        return record

    redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(redacted)


class TransportError(Exception):
    """No usable HTTP answer came.

    `kind`: timeout, dns, refused, tls, ca, cut or other; the text holds no secret.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One HTTP answer, whatever its status; `elapsed_s` is wall time from sending to the last byte."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    elapsed_s: float


class HttpSession:
    """One pooled session for a system and process; threads may share it.

    Redirects are not followed (a POST would lose its body), certificates are verified, and cookies are not
    kept, unless a system knows its sessions by them.
    """

    def __init__(
        self,
        *,
        timeout_s: float = 70,
        verify: bool | str = True,
        pool: int = 16,
        secrets: Iterable[str] = (),
        cookies: bool = False,
        ciphers: str | None = None,
    ) -> None:
        """`verify` is True or the path of a CA bundle; `secrets` are hidden in every text of this process.

        `ciphers` is OpenSSL's cipher string for a server that the default one refuses, such as
        `DEFAULT:@SECLEVEL=1`; its certificate is verified all the same.
        """
        for secret in secrets:
            register_secret(secret)
        self._timeout = (min(10.0, timeout_s), timeout_s)
        self._verify = verify
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": USER_AGENT, "Accept": "application/json"})
        if not cookies:
            self._session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(ciphers, pool_connections=4, pool_maxsize=pool)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def post_json(self, url: str, payload: Any) -> HttpAnswer:
        """POST `payload` as JSON. Raises TransportError when no complete answer arrives."""
        body = msgspec.json.encode(payload)
        return self.send("POST", url, body=body, headers={"Content-Type": "application/json"})

    def send(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
    ) -> HttpAnswer:
        """One request; `files` maps a form field to (file name, content, media type).

        Raises TransportError when no complete answer arrives.
        """
        with self.stream(method, url, params=params, headers=headers, body=body, files=files) as answer:
            content = b"".join(answer.chunks)
            return HttpAnswer(answer.status, content, answer.headers, answer.elapsed_s)

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        files: Mapping[str, tuple[str, bytes, str]] | None = None,
        decode: bool = True,
        chunk_bytes: int = 1 << 18,
    ) -> Iterator["HttpStream"]:
        """An answer whose body is read as it comes; with `decode` a content coding is undone.

        Raises TransportError, also while the body is read, and for a body shorter than its Content-Length.
        """
        started = time.perf_counter()
        failed, answer = None, None
        try:
            answer = self._session.request(
                method,
                url,
                params=params,
                data=body,
                files=files,
                headers=headers,
                timeout=self._timeout,
                verify=self._verify,
                allow_redirects=False,
                stream=True,
            )
        except (requests.RequestException, OSError) as error:
            failed = _transport_error(error)
        if failed or answer is None:
            raise failed or TransportError("other", "no answer")  # outside `except`: its text has the URL
        try:
            yield HttpStream(answer, started, decode, chunk_bytes)
        finally:
            answer.close()

    def forget_cookies(self) -> None:
        """Begin a new session at a system that knows its sessions by cookies."""
        self._session.cookies.clear()

    def close(self) -> None:
        """Close pooled connections."""
        self._session.close()


class _Adapter(HTTPAdapter):
    """Connections with the ciphers of one's choice."""

    def __init__(self, ciphers: str | None, **options: Any) -> None:
        self._ciphers = ciphers
        super().__init__(**options)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        if self._ciphers:
            options["ssl_context"] = create_urllib3_context(ciphers=self._ciphers)
        super().init_poolmanager(*args, **options)


class HttpStream:
    """An answer on its way: status and headers are here, the body comes in `chunks`, which end once."""

    def __init__(self, answer: requests.Response, started: float, decode: bool, chunk_bytes: int) -> None:
        self.status = answer.status_code
        self.headers: Mapping[str, str] = answer.headers
        self._answer = answer
        self._started = started
        self.chunks = self._read(decode, chunk_bytes)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request was sent."""
        return time.perf_counter() - self._started

    def _read(self, decode: bool, chunk_bytes: int) -> Iterator[bytes]:
        raw = self._answer.raw.stream(chunk_bytes, decode_content=decode)
        while True:
            chunk, failed = None, None
            try:
                chunk = next(raw, None)
            except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
                failed = _transport_error(error)
            if failed:
                raise failed  # outside `except`: the text of the original has the URL
            if chunk is None:
                return
            yield chunk


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds before another attempt: `first_s`, then twice as long each time up to `most_s`, with jitter.

    No more attempts once `give_up_s` would be waited altogether.
    """

    first_s: float = 1.0
    most_s: float = 60.0
    give_up_s: float = 300.0

    def waits(self, jitter: Callable[[], float] = random.random) -> Iterator[float]:
        """The waits, one before each further attempt; each lies between half of its step and the step."""
        step, waited = self.first_s, 0.0
        while waited < self.give_up_s:
            wait = step * (0.5 + jitter() / 2)
            yield wait
            waited += wait
            step = min(step * 2, self.most_s)


def _transport_error(error: Exception) -> TransportError:
    text = str(error)
    causes = list(_causes(error))
    if (
        any(isinstance(c, ssl.SSLCertVerificationError) for c in causes)
        or "CERTIFICATE_VERIFY_FAILED" in text
    ):
        kind = "tls"
    elif not isinstance(error, requests.RequestException) and "CA certificate bundle" in text:
        kind = "ca"
    elif isinstance(error, requests.Timeout):
        kind = "timeout"
    elif any(isinstance(c, socket.gaierror) for c in causes) or "NameResolutionError" in text:
        kind = "dns"
    elif any(isinstance(c, ConnectionRefusedError) for c in causes):
        kind = "refused"
    elif isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        kind = "other"
    elif isinstance(error, OSError):
        kind = "cut"
    else:
        kind = "other"
    return TransportError(kind, redact(f"{type(error).__name__}: {kind}"))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    queue: list[Any] = [error]
    while queue:
        item = queue.pop()
        if not isinstance(item, BaseException) or id(item) in seen:
            continue
        seen.add(id(item))
        yield item
        queue += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]


class RateBucket:
    """A leaky bucket of one credential, shared by all processes of this user on the host.

    Grants a burst of `capacity`, then `per_second` for ever: every grant is booked under a file lock before
    the request is sent, and whoever books a later one sleeps until it is due. `capacity=0` means unlimited.
    """

    def __init__(
        self,
        name: str,
        *,
        capacity: float,
        per_second: float,
        directory: Path | None = None,
        clock: Clock = time,
    ) -> None:
        """`name` is anything that identifies the limit; only its hash is stored (in `directory`)."""
        self._capacity = capacity
        self._per_second = per_second
        self._clock = clock
        self._path = (
            directory or default_state_dir()
        ) / f"bucket-{hashlib.sha256(name.encode()).hexdigest()[:24]}"

    def reserve(self, sleep: Callable[[float], None] | None = None) -> float:
        """Block until a request may be sent; returns the seconds waited. `sleep` replaces the clock's."""
        wait = self.book()
        if wait > 0:
            (sleep or self._clock.sleep)(wait)
        return wait

    def book(self) -> float:
        """Book the next grant and return in how many seconds it is due."""
        if self._capacity <= 0:
            return 0.0
        with self._level() as state:
            state[0] += 1
            return max(0.0, (state[0] - self._capacity) / self._per_second)

    def penalise(self) -> None:
        """The server said the bucket overflows: count it as full from now."""
        if self._capacity <= 0:
            return
        with self._level() as state:
            state[0] = max(state[0], self._capacity)

    @contextlib.contextmanager
    def _level(self) -> Iterator[list[float]]:
        """The level now, in a one-element list that is stored back; a clock that went back leaks nothing."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
            text = file.read()
            now = self._clock.time()
            level, at = self._parse(text, now)
            state = [max(0.0, level - max(0.0, now - at) * self._per_second)]
            yield state
            file.seek(0)
            file.write(json.dumps([state[0], now]).encode())
            file.truncate()

    def _parse(self, text: bytes, now: float) -> tuple[float, float]:
        if not text:
            return 0.0, now
        try:
            level, at = json.loads(text)
            return float(level), float(at)
        except (ValueError, TypeError):  # a write cut short: assume the worst
            return self._capacity, now


class Slots:
    """At most `count` of something at a time, over all threads and processes of this user on the host.

    A slot is a locked file: the system frees it when its holder dies.
    """

    def __init__(
        self,
        name: str,
        count: int,
        *,
        directory: Path | None = None,
        clock: Clock = time,
        pause_s: float = 0.05,
    ) -> None:
        """`name` identifies what is limited; only its hash is stored (in `directory`). 0 = no limit."""
        stem = f"slot-{hashlib.sha256(name.encode()).hexdigest()[:24]}"
        self._paths = [(directory or default_state_dir()) / f"{stem}-{i}" for i in range(count)]
        self._clock = clock
        self._pause_s = pause_s

    @contextlib.contextmanager
    def one(self) -> Iterator[float]:
        """Hold a slot for the block; gives the seconds that were waited for it."""
        if not self._paths:
            yield 0.0
            return
        began = self._clock.time()
        while (descriptor := self._take()) is None:
            self._clock.sleep(self._pause_s * (0.5 + random.random()))
        try:
            yield max(0.0, self._clock.time() - began)
        finally:
            os.close(descriptor)

    def _take(self) -> int | None:
        for path in self._paths:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except OSError:  # another holds it
                os.close(descriptor)
        return None


def default_state_dir() -> Path:
    """Where processes of this user meet when no directory is configured."""
    return Path(tempfile.gettempdir()) / f"svod-{os.getuid()}"
