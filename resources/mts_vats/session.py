"""One login to one cabinet: its cookie, its protocol, and calls that survive what passes.

A session may end and the cabinet may be redeployed at any moment. A call that met either was not executed, so
it is repeated once after a new login and once after a new discovery; what fails then fails for the caller.
"""

from __future__ import annotations

import logging
import re
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote, urljoin, urlsplit

from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import Clock, HttpAnswer, HttpSession, TransportError, redact
from resources.mts_vats import models
from resources.mts_vats.answers import RemoteException
from resources.mts_vats.discovery import PINNED, Protocol, permutations, policies, protocol
from resources.mts_vats.gwt_lexer import Response, lex
from resources.mts_vats.gwt_rpc import DecodeError, NotRpc, may_be_shown
from resources.mts_vats.parse import is_login_page, parse_exception

_log = logging.getLogger(__name__)
LEGACY_CIPHERS = "DEFAULT:@SECLEVEL=1"  # the cabinet's server is older than OpenSSL 3's default level
REDIRECTS = 6
RETRIES_S = (1.0, 2.0, 4.0)
SHOWN_BYTES = 16  # of an answer that cannot be read
DEFERRED_SCRIPTS = 200
REDISCOVER_AFTER = timedelta(days=1)
LONGEST_ANSWER = 64 << 20
T = TypeVar("T")
_ENTERPRISE = re.compile(r"/enterprise/(\d+)(?:/|$)")
_DRIFT = re.compile(r"type signature|serialization policy|interface|unknown type|out of date", re.I)


@dataclass(frozen=True)
class Cabinet:
    """Where a cabinet is and who logs in. `name` is what tables and messages call it.

    `scope` is the enterprise's id where the page after login does not show it. `pins` replace what discovery
    finds: {"permutation", "policies": {endpoint: policy}, "checksums": {class: CRC}, "ordinals": [31, 32]}.
    """

    name: str
    address: str = field(repr=False)
    login: str = field(repr=False)
    password: str = field(repr=False)
    scope: int | None = None
    ca_bundle: str | None = None
    ciphers: str | None = LEGACY_CIPHERS
    timeout_s: float = 30.0
    pause_s: float = 0.0
    pins: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def origin(self) -> str:
        """`https://host[:port]`; an address without a scheme is https."""
        split = urlsplit(self.address if "://" in self.address else f"https://{self.address}")
        return f"{split.scheme}://{split.netloc}"


class RemoteError(PermanentSourceError):
    """The cabinet executed the call and threw an exception."""

    def __init__(self, description: str, thrown: RemoteException) -> None:
        super().__init__(redact(description))
        self.thrown = thrown


class BadAnswer(PermanentSourceError):
    """An answer came that cannot be read; the text says what was seen of it."""


class ProtocolDrift(PermanentSourceError):
    """The cabinet speaks another protocol than was discovered, also after a new discovery."""


@dataclass
class Counters:
    """What a session has cost."""

    requests: int = 0
    retries: int = 0
    logins: int = 0
    discoveries: int = 0
    waited_s: float = 0.0
    api_s: float = 0.0
    bytes: int = 0


class _SessionExpired(Exception):
    pass


class _NotYet(Exception):
    """Another attempt may succeed; the text says what was seen."""


class Session:
    """Calls of one cabinet, from any number of threads: `concurrency` of them at a time."""

    def __init__(self, cabinet: Cabinet, *, concurrency: int = 1, clock: Clock = time) -> None:
        self.cabinet = cabinet
        self.counters = Counters()
        self.enterprise: int | None = cabinet.scope
        self._clock = clock
        self._slots = threading.BoundedSemaphore(concurrency)
        self._lock = threading.RLock()
        self._counting = threading.Lock()
        self._epoch = 0  # of the login
        self._protocol: Protocol | None = None
        self._discovered_at = 0.0
        self._skew = timedelta(0)
        try:
            self._http = HttpSession(
                timeout_s=cabinet.timeout_s,
                verify=cabinet.ca_bundle or True,
                pool=concurrency,
                secrets=[cabinet.password, cabinet.login],
                cookies=True,
                ciphers=cabinet.ciphers,
            )
        except ssl.SSLError:
            raise PermanentSourceError("MTS_VATS_TLS_CIPHERS is no cipher string of OpenSSL.") from None

    @property
    def base(self) -> str:
        """The module base, with its final slash."""
        return f"{self.cabinet.origin}/vpbxGwt/"

    def now(self) -> datetime:
        """The cabinet's clock, by the Date of its last answer."""
        return datetime.now(UTC) + self._skew

    def close(self) -> None:
        self._http.close()

    # Logging in

    def log_in(self) -> None:
        """Begin a session. Raises PermanentSourceError for a refusal, which is never repeated by itself."""
        with self._lock:
            self._log_in()

    def _log_in(self) -> None:
        self._http.forget_cookies()
        login, password = (quote(text, safe="") for text in (self.cabinet.login, self.cabinet.password))
        form = f"j_username={login}&j_password={password}"
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        path, answer = self._walk("POST", "/j_spring_security_check", form.encode(), headers)
        self._require_login(path, answer)
        found = _ENTERPRISE.search(path)
        if not found:
            path, answer = self._walk("GET", "/")
            self._require_login(path, answer)
            found = _ENTERPRISE.search(path)
        if found and self.cabinet.scope is None:
            self.enterprise = int(found[1])
        self._epoch += 1
        self.counters.logins += 1

    def _require_login(self, path: str, answer: HttpAnswer) -> None:
        if path.startswith("/login") or is_login_page(answer.body):
            raise PermanentSourceError(
                f"Cabinet {self.cabinet.name}: the login was refused. Check the login (+7-9XXXXXXXXX) and "
                "the password; it is not tried again by itself, since that may lock the account."
            )
        if answer.status >= 400 or (answer.status < 300 and b"<form" in answer.body.lower()):
            title = re.search(rb"<title>(.{0,80}?)</title>", answer.body, re.S | re.I)
            shown = f", titled {title[1].decode('utf-8', 'replace').strip()!r}" if title else ""
            said = f"after the login came an unknown page, status {answer.status}{shown}"
            raise PermanentSourceError(
                redact(f"Cabinet {self.cabinet.name}: {said}. Log in by hand and see what it asks for.")
            )

    def _walk(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[str, HttpAnswer]:
        """Follow redirects inside of the cabinet: (path of the last page, its answer)."""
        for _ in range(REDIRECTS):
            once = partial(self._ask, method, path, body, headers)
            answer = self._patiently(f"{method} {path.partition(';')[0]}", once)
            location = answer.headers.get("Location")
            if answer.status not in (301, 302, 303, 307, 308) or not location:
                return path, answer
            target = urlsplit(urljoin(self.cabinet.origin + path, location))
            if target.hostname != urlsplit(self.cabinet.origin).hostname:
                if _ENTERPRISE.search(target.path) or target.path.startswith("/login"):
                    return target.path, answer  # a cabinet behind another name: the address says enough
                raise PermanentSourceError(
                    f"Cabinet {self.cabinet.name}: it redirects to {target.hostname}, where nothing is sent. "
                    "Check the address."
                )
            path, method, body, headers = target.path.partition(";")[0] or "/", "GET", None, None
        raise PermanentSourceError(f"Cabinet {self.cabinet.name}: it redirects without end.")

    # Discovery

    @property
    def protocol(self) -> Protocol:
        """What requests must say; found at first use, and anew once a day."""
        with self._lock:
            age = self._clock.time() - self._discovered_at
            if self._protocol is None or age > REDISCOVER_AFTER.total_seconds():
                self._discover()
            assert self._protocol is not None
            return self._protocol

    def learned_ordinals(self, ordinals: tuple[int, int]) -> None:
        """Forms were found at these constants of an enum whose names are hidden."""
        with self._lock:
            self._protocol = replace(self.protocol, ordinals=ordinals, ordinals_known=True)

    def _discover(self) -> None:
        if self._epoch == 0:
            self._log_in()
        try:
            names, found = self._read_scripts()
        except _SessionExpired:
            self._log_in()
            try:
                names, found = self._read_scripts()
            except _SessionExpired:
                names, found = [], None
        pins = self.cabinet.pins
        if found is None and not pins.get("policies"):
            raise ProtocolDrift(
                f"Cabinet {self.cabinet.name}: vpbxGwt.nocache.js names {len(names)} permutations, and none "
                "of them can be read. See docs/mts_vats.md on pins."
            )
        self._protocol = _pinned(found or PINNED, pins)
        self._discovered_at = self._clock.time()
        self.counters.discoveries += 1

    def _read_scripts(self) -> tuple[list[str], Protocol | None]:
        """Names of permutations, and what the first one that can be read tells."""
        names = permutations(self._script("vpbxGwt.nocache.js") or "")
        for name in names:
            script = self._script(f"{name}.cache.js") or self._script(f"{name}.cache.html")
            if script is not None:
                return names, protocol(name, self._with_deferred(name, script))
        return names, None

    def _with_deferred(self, name: str, script: str) -> str:
        """The script and, where services are missing in it, its split parts."""
        parts, wanted = [script], set(PINNED.policies)
        for number in range(1, DEFERRED_SCRIPTS):
            if wanted <= set(policies("\n".join(parts))):
                break
            part = self._script(f"deferredjs/{name}/{number}.cache.js")
            if part is None:
                break
            parts.append(part)
        return "\n".join(parts)

    def _script(self, name: str) -> str | None:
        path = f"/vpbxGwt/{name}"
        answer = self._patiently(f"GET {name}", lambda: self._ask("GET", path))
        if answer.status in range(300, 400) or is_login_page(answer.body):
            raise _SessionExpired
        return None if answer.status != 200 else answer.body.decode("utf-8", "replace")

    # Calls

    def call(
        self, doing: str, endpoint: str, build: Callable[[Protocol], bytes], *, repeat: bool = True
    ) -> Response:
        """The result of a remote call.

        `build` makes the body for the protocol of the moment. `repeat=False` is for writes: nothing of which
        it is not certain that it was not executed is sent again. Raises RemoteError for an exception of the
        cabinet's own, ProtocolDrift, TransientSourceError, PermanentSourceError.
        """
        doing = f"Cabinet {self.cabinet.name}, {doing}"
        again = {"login", "discovery"}
        while True:
            if self._epoch == 0:
                self._log_in_after(0)
            epoch, spoken = self._epoch, self.protocol
            try:
                response = self._exchange(doing, endpoint, build(spoken), spoken, repeat=repeat)
            except _SessionExpired:
                if "login" not in again:
                    said = "the session ended again right after a new login"
                    raise TransientSourceError(f"{doing}: {said}.") from None
                again.remove("login")
                self._log_in_after(epoch)
                continue
            if response.ok:
                return response
            thrown = parse_exception(response)
            if not _is_drift(thrown):
                said = f"{thrown.name or 'an exception'}{f': {thrown.message}' if thrown.message else ''}"
                raise RemoteError(f"{doing}: the cabinet answered {said}", thrown)
            if "discovery" not in again:
                said = "the cabinet rejects the request also after a new discovery"
                raise ProtocolDrift(redact(f"{doing}: {said}: {thrown.message}"))
            again.remove("discovery")
            self._discover_after(spoken)

    def _log_in_after(self, epoch: int) -> None:
        with self._lock:
            if self._epoch == epoch:  # no other thread has done it meanwhile
                self._log_in()

    def _discover_after(self, spoken: Protocol) -> None:
        with self._lock:
            if self._protocol is spoken:
                self._discover()

    def _exchange(
        self, doing: str, endpoint: str, body: bytes, spoken: Protocol, *, repeat: bool
    ) -> Response:
        headers = {
            "Content-Type": "text/x-gwt-rpc; charset=utf-8",
            "X-GWT-Module-Base": self.base,
            "X-GWT-Permutation": spoken.permutation,
        }

        def once() -> Response:
            answer = self._ask("POST", f"/vpbxGwt/{endpoint}", body, headers)
            if answer.status in range(300, 400) or (answer.status < 400 and is_login_page(answer.body)):
                raise _SessionExpired
            if answer.status in (401, 403):
                raise _SessionExpired
            if answer.status != 200:
                raise BadAnswer(f"{doing}: status {answer.status}; check the cabinet's address.")
            try:
                return lex(answer.body)
            except NotRpc:
                raise _NotYet(f"no answer of the service but {beginning(answer.body)}") from None
            except DecodeError as error:
                said = f"{doing}: the answer is malformed, {error}; it is {beginning(answer.body)}"
                raise BadAnswer(redact(f"{said}.")) from None

        return self._patiently(doing, once, repeat=repeat)

    def _patiently(self, doing: str, once: Callable[[], T], *, repeat: bool = True) -> T:
        """`once`, again while the fault may pass, if it may be repeated at all."""
        waits = iter(RETRIES_S if repeat else ())
        while True:
            try:
                return once()
            except _NotYet as fault:
                seen = str(fault)
            wait = next(waits, None)
            if wait is None:
                raise TransientSourceError(f"{self._named(doing)}: {seen}; the cabinet keeps failing.")
            with self._counting:
                self.counters.retries += 1
                self.counters.waited_s += wait
            self._clock.sleep(wait)

    def _named(self, doing: str) -> str:
        return doing if doing.startswith("Cabinet ") else f"Cabinet {self.cabinet.name}, {doing}"

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """One request. Raises _NotYet when no usable answer came."""
        with self._slots:
            try:
                answer = self._receive(method, path, body, {"Accept": "*/*", **(headers or {})})
            except TransportError as error:
                raise self._transport_fault(error) from None
            finally:
                if self.cabinet.pause_s:
                    self._clock.sleep(self.cabinet.pause_s)
        self._note(answer)
        _log.debug(
            "%s %s: %d, %d bytes, %.0f ms",
            *(method, path, answer.status, len(answer.body), answer.elapsed_s * 1000),
        )
        if answer.status >= 500 or answer.status == 429:
            raise _NotYet(f"status {answer.status}")
        return answer

    def _receive(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> HttpAnswer:
        with self._http.stream(method, self.cabinet.origin + path, body=body, headers=headers) as answer:
            content = bytearray()
            for chunk in answer.chunks:
                content += chunk
                if len(content) > LONGEST_ANSWER:
                    raise PermanentSourceError(
                        f"Cabinet {self.cabinet.name}: an answer has more than {LONGEST_ANSWER >> 20} MB."
                    )
            return HttpAnswer(answer.status, bytes(content), answer.headers, answer.elapsed_s)

    def _transport_fault(self, error: TransportError) -> Exception:
        match error.kind:
            case "tls":
                said = "its certificate is not trusted: set MTS_VATS_CA_BUNDLE, or the name is another's"
            case "ca":
                said = "the file of MTS_VATS_CA_BUNDLE cannot be read"
            case "dns":
                return _NotYet("the host name is unknown: check the address")
            case "refused":
                return _NotYet("the host refuses connections: check the address")
            case kind:
                return _NotYet(f"no complete answer ({kind})")
        return PermanentSourceError(f"Cabinet {self.cabinet.name}: {said}.")

    def _note(self, answer: HttpAnswer) -> None:
        with self._counting:
            self.counters.requests += 1
            self.counters.api_s += answer.elapsed_s
            self.counters.bytes += len(answer.body)
        try:
            date = parsedate_to_datetime(answer.headers.get("Date", ""))
        except ValueError:
            return
        if date.tzinfo is not None:
            self._skew = date - datetime.now(UTC)


def _is_drift(thrown: RemoteException) -> bool:
    """Whether the request itself was not understood: a redeployed cabinet answers so to an old policy."""
    name = thrown.name or ""
    from_gwt = name.startswith("com.google.gwt.user.")
    return name == models.INCOMPATIBLE or (
        from_gwt and bool(name.endswith("SerializationException") or _DRIFT.search(thrown.message or ""))
    )


def _pinned(found: Protocol, pins: Mapping[str, Any]) -> Protocol:
    """What was discovered, with the user's pins over it."""
    ordinals = pins.get("ordinals")
    return replace(
        found,
        permutation=str(pins.get("permutation") or found.permutation),
        policies={**found.policies, **pins.get("policies", {})},
        checksums={**found.checksums, **pins.get("checksums", {})},
        ordinals=(int(ordinals[0]), int(ordinals[1])) if ordinals else found.ordinals,
        ordinals_known=found.ordinals_known or bool(ordinals),
    )


def what_was_seen(response: Response) -> str:
    """The shape of an answer for an error message: classes and counts, no other string."""
    classes = [text for text in response.table if may_be_shown(text)][:6]
    return (
        f"{len(response.tokens)} tokens, {len(response.table)} strings, version {response.version}, "
        f"classes: {', '.join(classes) or 'none'}"
    )


def beginning(body: bytes) -> str:
    """`575 bytes that begin with '//OK[-4,0,14,18,'`: too few to hold a password, which stands at the end."""
    first = body[:SHOWN_BYTES].decode("ascii", "replace")
    return redact(f"{len(body)} bytes that begin with {first!a}")
