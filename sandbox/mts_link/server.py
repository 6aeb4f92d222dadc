"""The server: limits, faults, statistics, and operations that change the organisation."""

import json
import re
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from sandbox.mts_link.answers import Answers
from sandbox.mts_link.config import OrgConfig
from sandbox.mts_link.org import CONVERTED, RECORD, SESSION, USER, Org
from sandbox.mts_link.routes import answer
from sandbox.mts_link.wire import ApiError, with_text_ids

LIMIT = "I only allow 2 requests per second. Try again."
ACTIONS = frozenset({"status", "html", "reset", "truncate", "timeout", "empty"})


@dataclass
class Fault:
    """One rule: requests whose path matches `path` (a pattern) go wrong, `times` of them after `skip`.

    `status` (status, message), `html` (status), `reset`, `truncate`, `timeout` (seconds), `empty` (200).
    """

    action: str
    path: str = ".*"
    times: int | None = 1
    skip: int = 0
    status: int = 500
    message: str = "Internal Server Error"
    seconds: float = 60.0
    retry_after: float | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"unknown fault {self.action!r}; there are {', '.join(sorted(ACTIONS))}")

    def strikes(self, path: str) -> bool:
        """Whether it applies to a request now; counts it."""
        if not re.search(self.path, path) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass
class Stats:
    """Requests by status and route, and when they came by the server's clock."""

    requests: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    routes: Counter[str] = field(default_factory=Counter)
    arrivals: list[float] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        span = self.arrivals[-1] - self.arrivals[0] if len(self.arrivals) > 1 else 0.0
        return {
            "requests": self.requests,
            "statuses": {str(s): n for s, n in sorted(self.statuses.items())},
            "routes": dict(self.routes),
            "span_s": round(span, 3),
            "per_second": round((len(self.arrivals) - 1) / span, 4) if span else None,
        }


class Server:
    """One organisation behind one key."""

    def __init__(self, config: OrgConfig | None = None) -> None:
        self.config = config or OrgConfig()
        self.org = Org(self.config)
        self.answers = Answers(self.org)
        self.faults: list[Fault] = []
        self.stats = Stats()
        self.url = ""
        self.lock = threading.Lock()
        self.downloads: list[dict[str, str]] = []
        self.watch: Callable[[int], None] | None = None  # told the number of each request before its answer
        self._recent: deque[float] = deque(maxlen=64)

    def add_fault(self, action: str, **options: Any) -> None:
        """See Fault. Raises ValueError for an unknown action."""
        self.faults.append(Fault(action, **options))

    def reset_stats(self) -> None:
        self.stats = Stats()

    def admit(self, now: float) -> bool:
        """Whether one more request fits into the second; refused ones do not count."""
        self.stats.arrivals.append(now)
        if self.config.rate is None:
            return True
        recent = [t for t in self._recent if now - t < 1]
        if len(recent) >= self.config.rate:
            return False
        self._recent.append(now)
        return True

    def authorise(self, path: str, headers: Any) -> None:
        """Raises ApiError 401 or 403."""
        token = headers.get("x-auth-token")
        bearer = headers.get("Authorization", "").removeprefix("Bearer ")
        if path == "/profile" and bearer == self.config.oauth_token:
            return
        if not token:
            raise ApiError(401, "A Token was not found in the TokenStorage.")
        if token != self.config.token:
            raise ApiError(403, "Access denied")
        if path == "/profile":
            raise ApiError(403, "The provided token is not allowed to perform this request")

    # Operations

    def control(self, name: str, values: dict[str, Any]) -> Any:
        """Change the running organisation. Raises KeyError, TypeError or ValueError for what it is not."""
        operations = {
            "advance": self._advance,
            "delete": self._delete,
            "restore": self._restore,
            "change-session": self._change_session,
            "write": self._write,
            "call": self._call,
            "faults": self._faults,
            "settings": self._settings,
            "reset-stats": self.reset_stats,
        }
        return operations[name](**values)

    def _advance(self, seconds: float) -> dict[str, float]:
        return {"now": self.org.clock.advance(seconds)}

    def _delete(self, kind: str, id: int) -> dict[str, int]:
        self.org.deleted[kind].add(id - {"session": SESSION, "member": USER, "record": RECORD}[kind])
        return {"deleted": id}

    def _restore(self, kind: str, id: int) -> dict[str, int]:
        self.org.deleted[kind].discard(id - {"session": SESSION, "member": USER, "record": RECORD}[kind])
        return {"restored": id}

    def _change_session(self, id: int, **values: Any) -> dict[str, Any]:
        """`status`, `name`, `start`, `end` (Unix seconds), `more` (participants)."""
        chosen = self.org.changed.setdefault(id - SESSION, {})
        chosen.update(values)
        return chosen

    def _write(self, chat: int, count: int = 1) -> dict[str, int]:
        """Messages more in a chat, by its number."""
        times = self.org.written.setdefault(chat, [])
        first = max(int(self.org.clock.now() * 1000), times[-1] + 1 if times else 0)
        times += range(first, first + count)
        return {"messages": self.org.message_count(chat)}

    def _call(self, count: int = 1) -> dict[str, int]:
        """Calls more in permanent rooms."""
        self.org.extra_calls += count
        return {"calls": self.answers.calls()}

    def _faults(self, add: list[dict[str, Any]] | None = None, clear: bool = False) -> list[dict[str, Any]]:
        if clear:
            self.faults.clear()
        for rule in add or []:
            self.add_fault(**rule)
        return [vars(f) for f in self.faults]

    def _settings(self, **values: Any) -> dict[str, Any]:
        names = ("rate", "latency", "overlap", "text_ids")
        unknown = values.keys() - set(names)
        if unknown:
            raise ValueError(f"cannot be changed while running: {', '.join(sorted(unknown))}")
        for name, value in values.items():
            setattr(self.config, name, value)
        return {name: getattr(self.config, name) for name in names}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    @property
    def owner(self) -> Server:
        assert isinstance(self.server, _Http)
        return self.server.owner

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests hold addresses of people."""

    def setup(self) -> None:
        super().setup()
        self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if urlsplit(self.path).path == "/stats":
            return self._json(200, self.owner.stats.report())
        return self._operate(body)

    def do_GET(self) -> None:
        owner, path = self.owner, urlsplit(self.path).path
        if path == "/stats":
            return self._json(200, owner.stats.report())
        if path.startswith("/control/"):
            return self._operate(b"{}")
        if path.startswith("/download/"):
            return self._download(path)
        if not path.startswith("/v3/"):
            return self._raw(404, b"<html><body>404</body></html>", "text/html")
        return self._api(path.removeprefix("/v3"))

    def _operate(self, body: bytes) -> None:
        name = urlsplit(self.path).path.removeprefix("/control/")
        try:
            with self.owner.lock:
                found = self.owner.control(name, json.loads(body or b"{}"))
        except (KeyError, TypeError, ValueError) as error:
            return self._json(400, {"error": f"{type(error).__name__}: {error}"})
        return self._json(200, found)

    def _api(self, path: str) -> None:
        owner = self.owner
        arrived = owner.org.clock.now()  # not when its turn comes
        if owner.config.latency:
            time.sleep(owner.config.latency)
        with owner.lock:
            owner.stats.requests += 1
            number = owner.stats.requests
            if owner.watch:
                owner.watch(number)
            admitted = owner.admit(arrived)
            fault = next((f for f in owner.faults if f.strikes(path)), None)
        if number <= owner.config.first_refusals:
            return self._json(owner.config.first_status, ApiError(owner.config.first_status, LIMIT).body())
        if not admitted:
            return self._json(429, ApiError(429, LIMIT).body())
        if fault and fault.action != "truncate":
            return self._fail(fault)
        query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        try:
            owner.authorise(path, self.headers)
            with owner.lock:
                route, payload = answer(owner.answers, path, query)
                owner.stats.routes[route] += 1
        except ApiError as error:
            return self._json(error.status, error.body())
        payload = with_text_ids(payload) if owner.config.text_ids else payload
        return self._json(200, payload, cut=fault is not None)

    def _fail(self, fault: Fault) -> None:
        if fault.action == "reset":
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.request.close()
            return None
        if fault.action == "timeout":
            time.sleep(fault.seconds)
            self.close_connection = True
            return None
        if fault.action == "html":
            return self._raw(fault.status, b"<html><body><h1>Bad gateway</h1></body></html>", "text/html")
        if fault.action == "empty":
            return self._raw(200, b"", "application/json")
        extra = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
        return self._json(fault.status, ApiError(fault.status, fault.message).body(), extra=extra)

    def _json(
        self, status: int, payload: Any, *, cut: bool = False, extra: dict[str, str] | None = None
    ) -> None:
        body = json.dumps(payload, ensure_ascii=False).replace("https://", "https:\\/\\/").encode()
        self._raw(status, body, "application/json", cut=cut, extra=extra)

    def _raw(
        self,
        status: int,
        body: bytes,
        kind: str,
        *,
        cut: bool = False,
        extra: dict[str, str] | None = None,
    ) -> None:
        owner = self.owner
        owner.stats.statuses[status] += 1
        self.send_response_only(status)
        self.send_header("Date", formatdate(owner.org.clock.now(), usegmt=True))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (extra or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if cut:
            self.close_connection = True
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def _download(self, path: str) -> None:
        """Bytes of a converted record, as a storage gives them: with ranges, without asking for a key."""
        owner = self.owner
        number = int(re.sub(r"\D", "", path.rsplit("/", 1)[-1].removesuffix(".mp4")) or 0)
        if number < CONVERTED:
            return self._raw(404, b"no such file", "text/plain")
        owner.downloads.append({k.lower(): v for k, v in self.headers.items()})
        body = content(number, owner.answers.size_of(number))
        first = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        with owner.lock:
            cut = any(f.action == "truncate" and f.strikes(path) for f in owner.faults)
        if first is None:
            return self._raw(200, body, "video/mp4", cut=cut)
        start = int(first.group(1))
        if start >= len(body):
            return self._raw(416, b"", "video/mp4", extra={"Content-Range": f"bytes */{len(body)}"})
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return self._raw(206, body[start:], "video/mp4", cut=cut, extra={"Content-Range": span})


def content(number: int, size: int) -> bytes:
    """The bytes of a converted record: they say which one it is."""
    word = f"record {number} ".encode()
    return (word * (size // len(word) + 1))[:size]


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    owner: Server

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no defect of the server."""


@contextmanager
def serve(config: OrgConfig | None = None, *, port: int = 0, owner: Server | None = None) -> Iterator[Server]:
    """A running server on loopback, in background threads; `url` is its base URL with `/v3`.

    Raises OSError when the port is taken.
    """
    owner = owner or Server(config)
    http = _Http(("127.0.0.1", port), Handler)
    http.owner = owner
    base = f"http://127.0.0.1:{http.server_address[1]}"
    owner.url, owner.answers.base_url = f"{base}/v3", base
    thread = threading.Thread(target=http.serve_forever, args=(0.05,), name="sandbox-mts-link", daemon=True)
    thread.start()
    try:
        yield owner
    finally:
        http.shutdown()
        http.server_close()
        thread.join(timeout=5)
