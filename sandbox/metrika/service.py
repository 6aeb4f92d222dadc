"""The whole emulated service: who may ask, which call it is, what it answers."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import date, datetime, time
from email import message_from_bytes
from email.policy import HTTP
from typing import Any
from zoneinfo import ZoneInfo

from sandbox.metrika.config import LEAD_GOAL, LEAD_TARGET, MetrikaConfig
from sandbox.metrika.conversions import Conversions
from sandbox.metrika.errors import ApiError
from sandbox.metrika.faults import FaultBook
from sandbox.metrika.logs import Logs
from sandbox.metrika.quotas import Quotas

MOST_GOALS = 200
_CALL = re.compile(r"/management/v1/counter/(\d{1,10})(/.*)?")


@dataclass
class Request:
    """A request as it came; header names are lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    address: str = "127.0.0.1"


@dataclass
class Part:
    """The text of a log's part: it may be sent compressed."""

    body: bytes


Answer = dict[str, Any] | Part
Call = Callable[["Metrika", int, Request, "re.Match[str]"], Answer]


@dataclass
class Metrika:
    """An emulated service. `url` is set while it is served; `config`, `faults` may be changed meanwhile."""

    config: MetrikaConfig = field(default_factory=MetrikaConfig)
    url: str = ""

    def __post_init__(self) -> None:
        self.faults = FaultBook()
        self.logs = Logs(self.config)
        self.conversions = Conversions()
        self.quotas = Quotas(self.config)
        self.requests: Counter[str] = Counter()
        self.goals = {counter: [_goal(LEAD_GOAL, "Заявка", LEAD_TARGET)] for counter in self.config.counters}
        self._lock = threading.Lock()

    def stats(self) -> dict[str, Any]:
        """What was asked, as the control API shows it."""
        requests = [{"counter": n, **r.shown()} for n, rs in self.logs.requests.items() for r in rs]
        return {
            "requests": dict(self.requests),
            "most_at_once": self.quotas.most_at_once,
            "log_requests": requests,
            "uploadings": [{"counter": u.counter, **u.shown()} for u in self.conversions.uploadings],
        }

    def change(self, values: dict[str, Any]) -> dict[str, Any]:
        """Set fields of the config. Raises ValueError for an unknown one."""
        known = {f.name for f in fields(self.config)} - {"counters", "tokens"}
        if unknown := set(values) - known:
            raise ValueError(f"unknown settings {sorted(unknown)}")
        if values.get("today"):
            values = values | {"today": date.fromisoformat(str(values["today"]))}
        for name, value in values.items():
            setattr(self.config, name, value)
        shown = asdict(self.config)
        return {k: str(v) if isinstance(v, date) else v for k, v in shown.items() if k in known}

    def answer(self, request: Request) -> Answer:
        """Carry out one call. Raises ApiError."""
        token = self._token(request)
        if request.path.rstrip("/") == "/management/v1/counters":
            with self.quotas.turn(request.address, token, 0, logs=False):
                mine = [self._counter(c) for c in self.config.counters if self._may(token, c)]
                return {"rows": len(mine), "counters": mine}
        found = _CALL.fullmatch(request.path.rstrip("/"))
        if not found:
            raise ApiError(404, "not_found", "Unknown path")
        counter, rest = int(found[1]), found[2] or ""
        with self.quotas.turn(request.address, token, counter, logs="/logrequest" in rest):
            if counter not in self.config.counters or not self._may(token, counter):
                raise ApiError(403, "access_denied", "Access is denied")
            for method, pattern, call in _CALLS:
                if method == request.method and (match := pattern.fullmatch(rest)):
                    with self._lock:
                        self.requests[call.__name__.strip("_")] += 1
                        return call(self, counter, request, match)
        raise ApiError(404, "not_found", "Unknown path")

    def _token(self, request: Request) -> str:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "OAuth" or not token.strip():
            raise ApiError(401, "unauthorized", "Authorization header is absent or malformed")
        if token.strip() not in self.config.tokens:
            raise ApiError(403, "invalid_token", "Invalid oauth_token")
        return token.strip()

    def _may(self, token: str, counter: int) -> bool:
        allowed = self.config.tokens[token]
        return allowed is None or counter in allowed

    def _counter(self, counter: int) -> dict[str, Any]:
        zone = self.config.counters[counter]
        offset = ZoneInfo(zone).utcoffset(datetime.combine(self.logs.today(counter), time(12)))
        return {
            "id": counter,
            "status": "Active",
            "owner_login": "sandbox",
            "name": f"Магазин {counter}",
            "permission": "own",
            "create_time": "2020-01-01T00:00:00+03:00",
            "time_zone_name": zone,
            "time_zone_offset": int(offset.total_seconds() // 60) if offset else 0,
        }


def _goal(number: int, name: str, target: str) -> dict[str, Any]:
    return {
        "id": number,
        "name": name,
        "type": "action",
        "default_price": 0.0,
        "goal_source": "user",
        "is_favorite": 0,
        "status": "Active",
        "conditions": [{"type": "exact", "url": target}],
        "flag": "",
    }


def _evaluate(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return service.logs.evaluate(counter, request.query)


def _create_log(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return service.logs.create(counter, request.query)


def _list_logs(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return service.logs.listed(counter)


def _get_log(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return service.logs.one(counter, int(match[1]))


def _cancel_log(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return service.logs.cancel(counter, int(match[1]))


def _clean_log(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return service.logs.clean(counter, int(match[1]))


def _download(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return Part(service.logs.part(counter, int(match[1]), int(match[2])))


def _get_counter(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return {"counter": service._counter(counter)}


def _list_goals(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return {"goals": service.goals[counter]}


def _create_goal(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    try:
        asked = json.loads(request.body)["goal"]
        condition = asked["conditions"][0]
        name, kind, target = str(asked["name"]), asked["type"], str(condition["url"])
    except (ValueError, KeyError, TypeError, IndexError):
        raise ApiError(400, "invalid_json", "The body is no goal") from None
    if kind != "action" or condition.get("type") != "exact" or not target or len(name) > 255:
        raise ApiError(400, "invalid_parameter", "The sandbox makes goals of type action, condition exact")
    goals = service.goals[counter]
    if len(goals) >= MOST_GOALS:
        raise ApiError(400, "limit_exceeded", "Too many goals")
    goals.append(_goal(LEAD_GOAL + len(goals), name, target))
    return {"goal": goals[-1]}


def _upload(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
    parts = list(message_from_bytes(head + request.body, policy=HTTP).iter_parts())
    named = [p for p in parts if p.get_param("name", header="content-disposition") == "file"]
    if len(named) != 1:
        raise ApiError(400, "invalid_uploading", "Exactly one part named file is needed")
    content = named[0].get_payload(decode=True)
    body = content if isinstance(content, bytes) else b""
    return service.conversions.upload(counter, body, request.query.get("comment", ""))


def _list_uploads(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    limit, offset = (_number(request.query.get(k, d), k) for k, d in (("limit", "10000"), ("offset", "0")))
    return service.conversions.listed(counter, limit, offset)


def _get_upload(service: Metrika, counter: int, request: Request, match: re.Match[str]) -> Answer:
    return service.conversions.one(counter, int(match[1]))


def _number(text: str, name: str) -> int:
    if not text.isdigit():
        raise ApiError(400, "invalid_parameter", f"Not a number: {name}", name)
    return int(text)


_CALLS: list[tuple[str, re.Pattern[str], Call]] = [
    ("GET", re.compile("/logrequests/evaluate"), _evaluate),
    ("POST", re.compile("/logrequests"), _create_log),
    ("GET", re.compile("/logrequests"), _list_logs),
    ("GET", re.compile(r"/logrequest/(\d+)"), _get_log),
    ("POST", re.compile(r"/logrequest/(\d+)/cancel"), _cancel_log),
    ("POST", re.compile(r"/logrequest/(\d+)/clean"), _clean_log),
    ("GET", re.compile(r"/logrequest/(\d+)/part/(\d+)/download"), _download),
    ("GET", re.compile(""), _get_counter),
    ("GET", re.compile("/goals"), _list_goals),
    ("POST", re.compile("/goals"), _create_goal),
    ("POST", re.compile("/offline_conversions/upload"), _upload),
    ("GET", re.compile("/offline_conversions/uploadings"), _list_uploads),
    ("GET", re.compile(r"/offline_conversions/uploading/(\d+)"), _get_upload),
]
