"""HTTP/1.1 on asyncio with full control of the connection, so that it can be reset or cut short."""

import asyncio
import json
import logging
import socket
import struct
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

import httptools

from sandbox.bitrix24.control import Control
from sandbox.bitrix24.engine import Answer, Engine, normalise_method
from sandbox.bitrix24.errors import RestError
from sandbox.bitrix24.faults import Fault
from sandbox.bitrix24.params import decode_request, lookup, parse_query
from sandbox.bitrix24.portal import Portal
from sandbox.bitrix24.wire import dumps

_log = logging.getLogger(__name__)
MAX_BODY = 16 * 1024 * 1024
_REASONS = {
    200: "OK",
    302: "Found",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
}


@dataclass
class HttpRequest:
    """A complete request as read from the socket."""

    path: str = "/"
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True


@dataclass
class Reply:
    """What to do with the connection: send an answer, perhaps truncated, or break it."""

    answer: Answer | None
    reset: bool = False
    delay: float = 0.0
    keep: float = 1.0
    location: str | None = None


class Router:
    """Turns requests into replies; the only place that knows URL forms and authorisation."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal
        self._engine = Engine(portal)
        self._control = Control(portal)

    def reply(self, request: HttpRequest, address: str) -> Reply:
        """Serve one request. Blocking work is small: a page or a batch of pages."""
        path = request.path
        if path.startswith(("/stats", "/control")):
            return Reply(
                self._control.answer(path, decode_request(request.query, "application/json", request.body))
            )
        if path.rstrip("/") == "/oauth/token":
            return Reply(self._oauth(request))
        if path.startswith("/rest/"):
            return self._rest(request, address)
        return Reply(Answer(404, b"<html><body>404</body></html>", "text/html"))

    def _oauth(self, request: HttpRequest) -> Answer:
        params = decode_request(request.query, request.headers.get("content-type", ""), request.body)
        try:
            with self.portal.lock:
                return Answer(200, dumps(self.portal.tokens.exchange(params, self.portal.base_url)))
        except RestError as error:
            return Answer(error.status, dumps(error.body()))

    def _rest(self, request: HttpRequest, address: str) -> Reply:
        portal, parts = self.portal, unquote(request.path).strip("/").split("/")[1:]
        method = normalise_method(parts[-1]) if parts else ""
        now = portal.clock.now()
        with portal.lock:
            number = portal.stats_data.request(now)
            fault = portal.faults.for_request(number, method)
            if fault:
                portal.stats_data.faults[fault.action] += 1
            admitted = portal.bucket.admit(address, now)
        if fault and fault.action != "truncate":
            return self._counted(_fault_reply(fault, portal.config.latency, request))
        if not admitted:
            body = dumps({"error": "QUERY_LIMIT_EXCEEDED", "error_description": "Too many requests"})
            return self._counted(Reply(Answer(503, body), delay=portal.config.latency))
        reply = Reply(self._execute(request, parts, method, number), delay=portal.config.latency)
        if fault:
            reply.keep = float(fault.options.get("share", 0.5))
        return self._counted(reply)

    def _counted(self, reply: Reply) -> Reply:
        if reply.answer:
            self.portal.stats_data.statuses[reply.answer.status] += 1
        return reply

    def _execute(self, request: HttpRequest, parts: list[str], method: str, number: int) -> Answer:
        try:
            params = decode_request(request.query, request.headers.get("content-type", ""), request.body)
        except (json.JSONDecodeError, UnicodeDecodeError):
            return Answer(400, dumps({"error": "INVALID_REQUEST", "error_description": "Malformed JSON"}))
        try:
            credential, is_app = self._authorise(parts, params, request)
        except RestError as error:
            return Answer(error.status, dumps(error.body()))
        return self._engine.answer(method, params, credential, is_app=is_app, request=number)

    def _authorise(self, parts: list[str], params: dict[str, Any], request: HttpRequest) -> tuple[str, bool]:
        """(credential name, is an application). Raises RestError 401."""
        config = self.portal.config
        parts = parts[1:] if parts[0] == "api" else parts  # REST 3.0
        if len(parts) == 3:
            if parts[0] == str(config.user_id) and parts[1] == config.webhook_code:
                return "webhook", False
            raise RestError("NO_AUTH_FOUND", "Wrong authorization data", 401)
        token = (
            lookup(params, "auth") or request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        )
        token = token or lookup(parse_query(request.query), "auth")
        if len(parts) != 1 or not token:
            raise RestError("NO_AUTH_FOUND", "Wrong authorization data", 401)
        self.portal.tokens.check(str(token))
        return "app", True


def _fault_reply(fault: Fault, latency: float, request: HttpRequest) -> Reply:
    options = fault.options
    match fault.action:
        case "status":
            code = options.get("code", "INTERNAL_SERVER_ERROR")
            body = dumps({"error": code, "error_description": options.get("description", "")})
            return Reply(Answer(int(options.get("status", 500)), body), delay=latency)
        case "html":
            status = int(options.get("status", 502))
            page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1></body></html>"
            return Reply(Answer(status, page.encode(), "text/html"), delay=latency)
        case "timeout":
            return Reply(None, delay=float(options.get("seconds", 3600)))
        case "redirect":
            location = str(options.get("location", "")).rstrip("/") + request.path
            return Reply(Answer(302, b"", "text/html"), delay=latency, location=location)
    return Reply(None, reset=True, delay=latency)


class Connection(asyncio.Protocol):
    """One client connection; requests on it are answered in order."""

    def __init__(self, router: Router, connections: set["Connection"]) -> None:
        self._router, self._connections = router, connections
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._request = HttpRequest()
        self._url = b""
        self._chunks: list[bytes] = []
        self._size = 0
        self._queue: list[HttpRequest] = []
        self._busy: asyncio.TimerHandle | None = None
        self._address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if peer else ""
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._busy:
            self._busy.cancel()
        self._transport = None

    def close(self) -> None:
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    # parser callbacks

    def on_message_begin(self) -> None:
        self._request, self._url, self._chunks, self._size = HttpRequest(), b"", [], 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        if name.lower() == b"expect" and self._transport:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > MAX_BODY:
            self.close()
            return
        self._chunks.append(body)

    def on_message_complete(self) -> None:
        split = urlsplit(self._url.decode("latin-1"))
        self._request.path, self._request.query = split.path, split.query
        self._request.keep_alive = self._parser.should_keep_alive()
        self._request.body = b"".join(self._chunks)
        self._queue.append(self._request)
        if self._busy is None:
            self._next()

    # answering

    def _next(self) -> None:
        while self._queue and self._transport and self._busy is None:
            request = self._queue.pop(0)
            reply = self._reply(request)
            if reply.delay > 0:
                loop = asyncio.get_running_loop()
                self._busy = loop.call_later(reply.delay, self._later, request, reply)
            else:
                self._send(request, reply)

    def _reply(self, request: HttpRequest) -> Reply:
        """A defect of the emulator is a 500 with a traceback in the log, not a silent close."""
        try:
            return self._router.reply(request, self._address)
        except Exception:
            _log.exception("request failed")
            body = {"error": "INTERNAL_SERVER_ERROR", "error_description": "sandbox defect, see its log"}
            return Reply(Answer(500, dumps(body)))

    def _later(self, request: HttpRequest, reply: Reply) -> None:
        self._busy = None
        self._send(request, reply)
        self._next()

    def _send(self, request: HttpRequest, reply: Reply) -> None:
        transport = self._transport
        if transport is None:
            return
        answer = reply.answer
        if answer is None:
            self._break(transport, hard=reply.reset)
            return
        transport.write(_head(answer, reply, request.keep_alive))
        if reply.keep < 1.0:
            transport.write(answer.body[: int(len(answer.body) * reply.keep)])
            transport.close()
            return
        transport.write(answer.body)
        if not request.keep_alive:
            transport.close()

    @staticmethod
    def _break(transport: asyncio.Transport, *, hard: bool) -> None:
        sock = transport.get_extra_info("socket")
        if hard and sock is not None:  # close with RST instead of FIN
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def _head(answer: Answer, reply: Reply, keep_alive: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Error')}",
        f"Content-Type: {answer.content_type}",
        f"Content-Length: {len(answer.body)}",
        f"Connection: {'keep-alive' if keep_alive and reply.keep >= 1 else 'close'}",
    ]
    if reply.location:
        lines.append(f"Location: {reply.location}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
