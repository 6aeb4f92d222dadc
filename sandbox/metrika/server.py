"""Serves an emulated Metrika on loopback, a thread a connection, and breaks what faults tell it to."""

from __future__ import annotations

import gzip
import io
import json
import logging
import random
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from sandbox.loopback import require_loopback
from sandbox.metrika.config import MetrikaConfig
from sandbox.metrika.errors import ApiError
from sandbox.metrika.faults import Fault
from sandbox.metrika.service import Metrika, Part, Request

MOST_BODY = 64 << 20
_log = logging.getLogger(__name__)


class Server(ThreadingHTTPServer):
    """One service behind a socket."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, service: Metrika, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        require_loopback(host)
        super().__init__((host, port), Handler)
        self.service = service
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        name = f"https://localhost:{self.server_port}" if tls else f"http://{host}:{self.server_port}"
        service.url = name

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is no error of ours; a defect shows in the log."""
        _log.debug("connection of %s ended", client_address, exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait for each other
    disable_nagle_algorithm = True

    @property
    def service(self) -> Metrika:
        assert isinstance(self.server, Server)
        return self.server.service

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: requests hold tokens."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        split = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        if length > MOST_BODY:
            self.close_connection = True
            return self._json(413, {"message": "too large for the sandbox"})
        request = Request(
            self.command,
            split.path,
            dict(parse_qsl(split.query, keep_blank_values=True)),
            {k.lower(): v for k, v in self.headers.items()},
            self.rfile.read(length),
            self.client_address[0],
        )
        if split.path.startswith(("/stats", "/control/")):
            return self._control(request)
        time.sleep(self.service.config.latency)
        fault = self.service.faults.strike(request.method, request.path)
        return self._answer(request, fault)

    def _answer(self, request: Request, fault: Fault | None) -> None:
        action = fault.action if fault else ""
        options = fault.options if fault else {}
        if action == "status":
            error = ApiError(
                int(options.get("status", 503)),
                options.get("error_type", "backend_error"),
                options.get("message", "Backend error"),
            )
            after = {"Retry-After": str(options["retry_after"])} if "retry_after" in options else {}
            return self._json(error.status, error.body(), after)
        if action == "html":
            page = b"<html><body><h1>Bad gateway</h1></body></html>"
            return self._send(int(options.get("status", 502)), page, "text/html")
        if action in ("timeout", "reset"):
            time.sleep(float(options.get("seconds", 3600)) if action == "timeout" else 0)
            return self._break()
        try:
            answer = self.service.answer(request)
        except ApiError as error:
            return self._json(error.status, error.body())
        except Exception:
            _log.exception("request failed")
            return self._json(500, {"message": "sandbox defect, see its log"})
        if action == "lost":
            return self._break()
        if isinstance(answer, Part):
            return self._part(request, answer.body, action, options)
        body = json.dumps(answer, ensure_ascii=False).encode()
        return self._body(200, body, "application/x-yametrika+json; charset=utf-8", {}, action, options)

    def _part(self, request: Request, text: bytes, action: str, options: dict[str, Any]) -> None:
        """A log's part, spoilt if a fault says so."""
        if action == "bad_row":
            lines = text.split(b"\n")
            lines[-2] = lines[-2].rpartition(b"\t")[0]
            text = b"\n".join(lines)
        if action == "header":
            text = b"\n".join(b"\t".join(reversed(line.split(b"\t"))) for line in text.split(b"\n"))
        headers = {}
        accepted = "gzip" in request.headers.get("accept-encoding", "")
        if accepted and self.service.config.gzip and action != "plain":
            text, headers = gzip.compress(text, 1), {"Content-Encoding": "gzip"}
            if options.get("unnamed"):
                headers = {}
        if action == "corrupt":
            at = random.Random(len(text)).randrange(len(text) // 2, len(text))
            text = text[:at] + bytes([text[at] ^ 0x20]) + text[at + 1 :]
        return self._body(200, text, "text/tab-separated-values", headers, action, options)

    def _body(
        self,
        status: int,
        body: bytes,
        kind: str,
        headers: dict[str, str],
        action: str,
        options: dict[str, Any],
    ) -> None:
        if action != "truncate":
            return self._send(status, body, kind, headers)
        kept = body[: int(len(body) * float(options.get("share", 0.5)))]
        announced = len(body) if options.get("announce", True) else len(kept)
        return self._send(status, kept, kind, headers | {"Connection": "close"}, announced)

    def _json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), "application/x-yametrika+json", headers)

    def _send(
        self,
        status: int,
        body: bytes,
        kind: str,
        headers: dict[str, str] | None = None,
        announced: int | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _break(self) -> None:
        """Close with RST instead of FIN."""
        self.close_connection = True
        self.wfile = io.BytesIO()  # nothing more is written
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def _control(self, request: Request) -> None:
        service = self.service
        try:
            values = json.loads(request.body or b"{}")
            if request.path == "/control/faults":
                service.faults.load(values)
            elif request.path == "/control/clear":
                service.faults.clear()
            elif request.path == "/control/settings":
                return self._json(200, service.change(values))
            elif request.path == "/control/age":
                service.logs.clean(values["counter"], values["request"], "cleaned_automatically_as_too_old")
            elif not request.path.startswith("/stats"):
                return self._json(404, {"message": "no such control"})
        except (ValueError, TypeError, KeyError, ApiError) as error:
            return self._json(400, {"message": str(error)})
        return self._json(200, service.stats())


@contextmanager
def serve(
    config: MetrikaConfig | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certfile: str | Path | None = None,
    keyfile: str | Path | None = None,
) -> Iterator[Metrika]:
    """A running service on a free port (or `port`), in background threads.

    With a certificate it speaks https as `localhost`. Raises OSError when the port is taken and ValueError
    for a host that is not loopback.
    """
    service = Metrika(config or MetrikaConfig())
    tls = None
    if certfile:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certfile, keyfile)
    server = Server(service, host, port, tls)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="sandbox-metrika", daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
