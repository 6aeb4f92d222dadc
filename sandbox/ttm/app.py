"""The HTTP edge: paths, bearer tokens, faults and the control API, as an ASGI application."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

import orjson

from sandbox.ttm.faults import Fault
from sandbox.ttm.query import BadRequest
from sandbox.ttm.system import Call, TicketSystem

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

LOGINS = ("/nttm-task-handler/api/authenticate", "/nttm-web-gateway/api/authenticate/login")
LOGOUT = "/nttm-task-handler/api/logout"
FILTER = re.compile(r"/nttm-user-profile/api/user-filters/([^/]+)")
PAGE = re.compile(r"/nttm-web-gateway/api/(ticket|task)/page")
TICKET = re.compile(r"/nttm-web-gateway/api/ticket/(with-ola/)?(\d+)")
MAX_BODY = 1 << 20
ABORT = "sandbox.abort"


class Broken(Exception):
    """Makes the server cut the connection; it is no defect."""


@dataclass
class Answer:
    """`keep` below 1 sends that share of the body and breaks off."""

    status: int
    body: bytes = b""
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    keep: float = 1.0


def as_json(value: Any, status: int = 200) -> Answer:
    return Answer(status, orjson.dumps(value))


def as_text(text: str, status: int) -> Answer:
    return Answer(status, text.encode(), "text/plain; charset=utf-8")


class App:
    """Serves one TicketSystem."""

    def __init__(self, system: TicketSystem) -> None:
        self._system = system

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return None
        body, more = b"", True
        while more:
            event = await receive()
            if event["type"] == "http.disconnect":
                return None
            body, more = body + event.get("body", b""), event.get("more_body", False)
            if len(body) > MAX_BODY:
                return await self._send(as_text("too large", 413), send)
        path = unquote(scope["path"])
        if path == "/stats":
            return await self._send(as_json(self._system.stats()), send)
        if path.startswith("/control/"):
            return await self._send(self._control(path.removeprefix("/control/"), body), send)
        return await self._logged(scope, path, body, send)

    async def _logged(self, scope: Scope, path: str, body: bytes, send: Send) -> None:
        """A call of the API, with latency and faults; what was asked is kept, what was said is not."""
        system, began, status = self._system, time.monotonic(), None
        token = _bearer(scope)
        user = system.user_of(token)
        system.in_flight += 1
        system.most_in_flight = max(system.most_in_flight, system.in_flight)
        try:
            fault = system.faults.take(path)
            await asyncio.sleep(system.config.latency + (fault.seconds if fault else 0))
            if fault and fault.action == "reset":
                scope[ABORT]()
                raise Broken
            answer = self._answer(scope, path, token, body, fault)
            status = answer.status
            await self._send(answer, send)
        finally:
            system.in_flight -= 1
            system.statuses[status or 0] += 1
            system.calls.append(Call(scope["method"], path, user, status, began, time.monotonic()))

    def _answer(self, scope: Scope, path: str, token: str, body: bytes, fault: Fault | None) -> Answer:
        match fault.action if fault else None:
            case "status":
                assert fault
                answer = as_text(f"fault {fault.status}", fault.status)
                if fault.retry_after is not None:
                    answer.headers["retry-after"] = fault.retry_after
                return answer
            case "html":
                return Answer(200, b"<!doctype html><html><body>Maintenance</body></html>", "text/html")
            case "body":
                assert fault
                return Answer(200, fault.body.encode())
            case "large":
                assert fault
                return as_json({"id": 1, "filler": "x" * int(fault.size_mib * (1 << 20))})
            case "expire":
                self._system.expire()
            case "insert":
                self._system.suspend()
        answer = self._route(scope, path, token, body)
        if fault and fault.action == "drop":
            answer.keep = 0.5
        return answer

    def _route(self, scope: Scope, path: str, token: str, body: bytes) -> Answer:
        system, method = self._system, scope["method"]
        if method == "POST" and path in {*LOGINS, system.config.login_path}:
            status, said = system.login(_parsed(body))
            return as_text(said, status) if isinstance(said, str) else as_json(said, status)
        if system.user_of(token) is None:
            return as_json({"status": 401, "error": "Unauthorized"}, 401)
        if method == "GET" and path == LOGOUT:
            system.logout(token)
            return Answer(200)
        if method == "GET" and (found := FILTER.fullmatch(path)):
            return as_json(system.saved(found[1]))
        if method == "POST" and (found := PAGE.fullmatch(path)):
            try:
                query = dict(parse_qsl(scope["query_string"].decode()))
                return as_json(system.page(found[1], _parsed(body), query))
            except BadRequest as error:
                return as_text(str(error), 400)
        if method == "GET" and (found := TICKET.fullmatch(path)):
            ticket = system.ticket(int(found[2]), bool(found[1]))
            if ticket is not None:
                return as_json(ticket)
        return as_json({"status": 404, "error": "Not Found"}, 404)

    def _control(self, operation: str, body: bytes) -> Answer:
        system, values = self._system, _parsed(body) if body else {}
        if not isinstance(values, dict):
            return as_json({"error": "the body must be an object"}, 400)
        try:
            match operation:
                case "suspend":
                    return as_json({"id": system.suspend(**values)})
                case "resume":
                    system.resume(values["id"])
                case "close":
                    system.close(values["id"])
                case "change":
                    for _ in range(int(values.get("count", 1))):
                        system.change()
                case "expire":
                    system.expire()
                case "add":
                    system.add(*values["tickets"])
                case "filter":
                    system.filters[values["key"]] = values["filter"]
                case "faults":
                    if values.get("clear"):
                        system.faults.clear()
                    system.faults.load(values.get("rules", []))
                case "settings":
                    for name, value in values.items():
                        setattr(system.config, name, type(getattr(system.config, name))(value))
                case "calls":
                    return as_json([vars(call) for call in system.calls])
                case _:
                    return as_json({"error": f"there is no {operation}"}, 404)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return as_json({"error": f"{type(error).__name__}: {error}"}, 400)
        return as_json({"waiting": system.waiting()})

    async def _send(self, answer: Answer, send: Send) -> None:
        headers = {"content-type": answer.kind, "content-length": str(len(answer.body)), **answer.headers}
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )
        kept = answer.body[: int(len(answer.body) * answer.keep)]
        await send({"type": "http.response.body", "body": kept, "more_body": answer.keep < 1})
        if answer.keep < 1:
            raise Broken


def _bearer(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return value.decode("latin-1").removeprefix("Bearer ").strip()
    return ""


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
