"""Execution of commands and batches: checks, limits, costs, envelopes."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson

from sandbox.bitrix24 import methods_items, methods_meta, methods_small, methods_write
from sandbox.bitrix24.calls import METHODS, Call, Method, Result
from sandbox.bitrix24.errors import RestError
from sandbox.bitrix24.params import as_map, lookup, parse_query
from sandbox.bitrix24.portal import Portal
from sandbox.bitrix24.wire import dumps, loads

MODULES = (methods_items, methods_meta, methods_small, methods_write)
"""Importing them registers the methods."""

BATCH_LIMIT = 50
_log = logging.getLogger(__name__)
_REFERENCE = re.compile(r"\$result((?:\[[^\]]*\])+)")
_UNCHARGED = 0.1


@dataclass
class Outcome:
    """An executed command with its simulated cost."""

    result: Result
    seconds: float
    time: dict[str, Any]
    dropped: bool = False
    """The answer leaves its label out (a fault)."""


@dataclass
class Answer:
    """What the HTTP layer sends."""

    status: int
    body: bytes
    content_type: str = "application/json; charset=utf-8"


GATEWAY_HTML = (
    b"<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n<body>\r\n"
    b"<center><h1>504 Gateway Time-out</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)


class Engine:
    """Runs one request at a time against a portal."""

    def __init__(self, portal: Portal) -> None:
        self.portal = portal

    def answer(
        self, method: str, params: dict[str, Any], credential: str, *, is_app: bool, request: int
    ) -> Answer:
        """Execute an authorised request; never raises."""
        portal = self.portal
        run = _Request(portal, credential, is_app, request)
        with portal.lock:
            try:
                body = run.batch(params) if method == "batch" else run.single(method, params)
            except RestError as error:
                return Answer(error.status, dumps(error.body()))
        if run.seconds > portal.config.request_cut:
            return Answer(504, GATEWAY_HTML, "text/html")
        return Answer(200, body)


class _Request:
    """State of one HTTP request: what its commands have cost so far."""

    def __init__(self, portal: Portal, credential: str, is_app: bool, number: int) -> None:
        self._portal, self._credential, self._is_app, self._number = portal, credential, is_app, number
        self._mode = portal.config.operating_mode
        self._began = portal.clock.now()
        self.seconds = 0.0
        self._charged_total = 0.0
        self._first_method = "batch"

    # commands -------------------------------------------------------------------------------------

    def _method(self, name: str) -> Method:
        found = METHODS.get(name)
        if found is None:
            raise RestError("ERROR_METHOD_NOT_FOUND", "Method not found!", 404)
        config = self._portal.config
        if found.scope and found.scope not in config.scopes:
            raise RestError("insufficient_scope", "The request requires higher privileges", 403)
        if found.app_only and not self._is_app:
            raise RestError("WRONG_AUTH_TYPE", "Current authorization type is denied for this method", 403)
        if found.admin_only and not config.admin:
            raise RestError("ACCESS_DENIED", "Access denied! Admin rights required", 403)
        return found

    def _check_budget(self, name: str) -> None:
        portal = self._portal
        if self._mode == "absent":
            return
        used = portal.budget.used(self._credential, name, portal.clock.now())
        if used >= portal.config.operating_limit:
            raise RestError("OPERATION_TIME_LIMIT", "Method is blocked due to operation time limit.", 429)

    def command(self, name: str, params: dict[str, Any], index: int) -> Outcome:
        """Execute one command. Raises RestError."""
        portal = self._portal
        found = self._method(name)
        faults = portal.faults.for_command(self._number, name, index)
        for fault in faults:
            portal.stats_data.faults[fault.action] += 1
            if fault.action == "nested_error":
                options = fault.options
                raise RestError(
                    options.get("code", "INTERNAL_SERVER_ERROR"),
                    options.get("description", "Internal server error"),
                    options.get("status", 500),
                )
        if self._mode != "batch":
            self._check_budget(name)
        call = Call(portal, name, params, self._credential, self._is_app, faults)
        result = self._guarded(found.handler, call)
        portal.between()
        seconds = portal.config.cost.seconds(name, result.rows, result.counted)
        portal.stats_data.command(name, result.rows, seconds)
        timing = self._timing(seconds)
        self.seconds += seconds
        return Outcome(result, seconds, timing, call.fault("drop_label") is not None)

    def _guarded(self, handler: Callable[[Call], Result], call: Call) -> Result:
        """A value the emulator cannot digest is an answer of its own, never a broken connection."""
        try:
            return self._cached(handler, call)
        except (LookupError, ValueError, TypeError) as error:
            _log.exception("%s failed", call.method)
            raise RestError("INTERNAL_SERVER_ERROR", type(error).__name__, 500) from None

    def _cached(self, handler: Callable[[Call], Result], call: Call) -> Result:
        limit = self._portal.config.cache_pages
        if not limit or call.faults or ".list" not in call.method:
            return handler(call)
        cache = self._portal.page_cache
        versions = sum(table.version for table in self._portal.tables.values())
        key = (call.method, repr(call.params), versions, len(self._portal.tables))
        result = cache.get(key)
        if result is None:
            result = handler(call)
            if len(cache) >= limit:
                cache.pop(next(iter(cache)))
            cache[key] = result
        return result

    # time and operating ----------------------------------------------------------------------------

    def _timing(self, seconds: float) -> dict[str, Any]:
        start = self._began + self.seconds
        return self._clock_entry(start, seconds)

    def _clock_entry(self, start: float, seconds: float) -> dict[str, Any]:
        iso = self._portal.wire.iso
        return {
            "start": start,
            "finish": start + seconds,
            "duration": seconds,
            "processing": seconds,
            "date_start": iso(start),
            "date_finish": iso(start + seconds),
        }

    def _charge(self, method: str, seconds: float) -> dict[str, Any]:
        """Charge a budget; returns the operating part of a time entry."""
        if self._mode == "absent":
            return {}
        portal = self._portal
        now = portal.clock.now()
        total = portal.budget.charge(self._credential, method, now, seconds)
        reset = portal.budget.reset_at(self._credential, method, now)
        return {"operating_reset_at": reset, "operating": round(total, 6)}

    def _envelope(self, body: dict[str, Any], operating: dict[str, Any]) -> bytes:
        entry = self._clock_entry(self._began, self.seconds)
        return dumps(body | {"time": entry | operating})

    def single(self, name: str, params: dict[str, Any]) -> bytes:
        if self._mode == "batch":
            self._check_budget(name)
        outcome = self.command(name, params, 0)
        body: dict[str, Any] = {"result": outcome.result.value}
        if outcome.result.next_start is not None:
            body["next"] = outcome.result.next_start
        if outcome.result.total is not None:
            body["total"] = outcome.result.total
        return self._envelope(body, self._charge(name, outcome.seconds))

    # batch ------------------------------------------------------------------------------------------

    def batch_v3(self, params: dict[str, Any]) -> bytes:
        """A list of {"method", "query"} of REST 3.0: the first failure is that of the whole."""
        results = [
            self.command(normalise_method(str(c["method"])), as_map(c.get("query"), "query"), index)
            for index, c in enumerate(params.values())
        ]
        return self._envelope({"result": [r.result.value for r in results]}, {})

    def batch(self, params: dict[str, Any]) -> bytes:
        """All commands in order; failures are inside a 200 answer."""
        if params and all(isinstance(c, dict) and "method" in c for c in params.values()):
            return self.batch_v3(params)
        commands = as_map(lookup(params, "cmd"), "cmd")
        if len(commands) > BATCH_LIMIT:
            raise RestError("ERROR_BATCH_LENGTH_EXCEEDED", "Max batch length exceeded")
        if self._mode == "batch":
            self._check_budget("batch")
        halt = str(lookup(params, "halt", 0)).lower() in ("1", "true", "y")
        parts: dict[str, dict[str, Any]] = {name: {} for name in ("result", "error", "total", "next", "time")}
        results: dict[str, Result] = {}
        for index, (label, text) in enumerate(commands.items()):
            if not self._batch_command(index, label, str(text), results, parts) and halt:
                break
        as_lists = self._portal.config.numeric_labels_as_list
        body = {
            "result": php_map(parts["result"], as_lists),
            "result_error": php_map(parts["error"], as_lists),
            "result_total": php_map(parts["total"], as_lists),
            "result_next": php_map(parts["next"], as_lists),
            "result_time": php_map(parts["time"], as_lists),
        }
        return self._envelope({"result": body}, self._batch_operating(parts["time"]))

    def _batch_command(
        self, index: int, label: str, text: str, results: dict[str, Result], parts: dict[str, dict[str, Any]]
    ) -> bool:
        name, _, query = text.partition("?")
        name = normalise_method(name)
        try:
            if name == "batch":
                raise RestError(
                    "ERROR_BATCH_METHOD_NOT_ALLOWED", "Method is not allowed for batch usage", 405
                )
            outcome = self.command(name, resolve(parse_query(query), results), index)
        except RestError as error:
            self._portal.stats_data.nested_errors[error.code] += 1
            parts["error"][label] = error.body()
            return False
        result = outcome.result
        results[label] = result
        if outcome.dropped:
            return True
        parts["result"][label] = result.value
        if result.total is not None:
            parts["total"][label] = result.total
        if result.next_start is not None:
            parts["next"][label] = result.next_start
        parts["time"][label] = outcome.time | self._nested_operating(name, outcome.seconds, not parts["time"])
        return True

    def _nested_operating(self, name: str, seconds: float, first: bool) -> dict[str, Any]:
        if self._mode == "nested":
            return self._charge(name, seconds)
        if self._mode == "batch":
            charged = seconds / 2 if seconds >= _UNCHARGED else 0.0
            self._charged_total = self._charged_total + charged
            reset = self._portal.budget.reset_at(self._credential, "batch", self._portal.clock.now())
            return {"operating_reset_at": reset, "operating": round(self._charged_total, 6)}
        if self._mode == "first-entry":
            self._first_method = name if first else self._first_method
            return {"operating": 0}
        return {}

    def _batch_operating(self, times: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The operating part of the envelope of a batch."""
        if self._mode == "batch":
            return self._charge("batch", self._charged_total)
        if self._mode == "first-entry" and times:
            charged = self._charge(self._first_method, self.seconds)
            first = next(iter(times.values()))
            first.update(charged)
            return charged
        return {} if self._mode == "absent" else {"operating": 0}


def normalise_method(name: str) -> str:
    """Case-insensitive, optional `.json`, optional slashes around."""
    return name.strip("/ ").lower().removesuffix(".json")


def php_map(values: dict[str, Any], numeric_as_list: bool) -> Any:
    """PHP serialises an empty map as a list, and also a map whose keys are exactly 0..n-1."""
    if not values:
        return []
    if numeric_as_list and all(key == str(n) for n, key in enumerate(values)):
        return list(values.values())
    return values


def resolve(params: dict[str, Any], results: dict[str, Result]) -> dict[str, Any]:
    """Substitute `$result[label][path]` in decoded values; what does not resolve becomes empty."""

    def value_of(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: value_of(item) for key, item in value.items()}
        if not isinstance(value, str) or "$result" not in value:
            return value
        whole = _REFERENCE.fullmatch(value)
        if whole:
            return _dig(whole.group(1), results)
        return _REFERENCE.sub(lambda match: str(_dig(match.group(1), results)), value)

    return value_of(params)


def _dig(path_text: str, results: dict[str, Result]) -> Any:
    label, *path = re.findall(r"\[([^\]]*)\]", path_text)
    result = results.get(label)
    if result is None:
        return ""
    if path and result.wrapper is not None and path[0] == result.wrapper and result.ids is not None:
        short = path[1:]
    else:
        short = path if result.wrapper is None else []
    if result.ids is not None and len(short) == 2 and short[1] in ("ID", "id") and short[0].isdigit():
        return str(result.ids[int(short[0])]) if int(short[0]) < len(result.ids) else ""
    value = result.value
    if isinstance(value, orjson.Fragment):
        value = loads(bytes(orjson.dumps(value)))
    for part in path:
        if isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            return ""
    return value if value is not None else ""
