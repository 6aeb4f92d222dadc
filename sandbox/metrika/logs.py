"""Log requests of the counters: their states, their room, their parts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from sandbox.metrika.catalogue import MODELS, field_of, written
from sandbox.metrika.config import MetrikaConfig
from sandbox.metrika.errors import ApiError
from sandbox.metrika.visitors import Day, as_of, invent

BYTES_A_DAY = {"visits": 500, "hits": 2400}  # of one visit, roughly: what evaluate reckons with
MOST_FIELDS = 3000
MOST_DAYS = 366


@dataclass
class LogRequest:
    """One log request; `looks` counts how often it was looked at."""

    request_id: int
    counter: int
    source: str
    first: date
    last: date
    fields: list[str]
    attribution: str
    status: str = "created"
    fails: bool = False
    retries: int = 0
    looks: int = 0
    parts: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "request_id": self.request_id,
            "counter_id": self.counter,
            "source": self.source,
            "date1": str(self.first),
            "date2": str(self.last),
            "fields": self.fields,
            "status": self.status,
            "attribution": self.attribution,
        }
        if self.sizes:
            answer["size"] = sum(self.sizes)
            if self.status == "processed":
                answer["parts"] = [{"part_number": n, "size": s} for n, s in enumerate(self.sizes)]
        return answer


class Logs:
    """The log requests of all counters."""

    def __init__(self, config: MetrikaConfig) -> None:
        self.config = config
        self.requests: dict[int, list[LogRequest]] = {}
        self._day = lru_cache(maxsize=64)(self._invent)

    def _invent(self, counter: int, day: date, visits: int) -> Day:
        return invent(self.config.seed, counter, day, visits, self.config.counters[counter])

    # What there is

    def today(self, counter: int) -> date:
        return self.config.today or datetime.now(ZoneInfo(self.config.counters[counter])).date()

    def day(self, counter: int, day: date) -> Day:
        """The visits of a day, as they are shown today."""
        made = self._day(counter, day, self.config.visits_per_day)
        age = (self.today(counter) - day).days if self.config.settling else 9
        return as_of(made, age, self.config.seed)

    def rows(self, counter: int, source: str, day: date) -> list[dict[str, Any]]:
        """The rows of a day's log: hits also of visits that began the day before."""
        if source == "visits":
            return self.day(counter, day).visits
        return [
            hit
            for d in (day - timedelta(days=1), day)
            for hit in self.day(counter, d).hits
            if hit["date"] == day
        ]

    # The calls

    def evaluate(self, counter: int, query: Mapping[str, str]) -> dict[str, Any]:
        source, first, last, _ = self._checked(counter, query)
        most = self._room(counter) // max(1, BYTES_A_DAY[source] * self.config.visits_per_day)
        if self.config.max_days is not None:
            most = self.config.max_days
        possible = (last - first).days + 1 <= most
        return {"log_request_evaluation": {"possible": possible, "max_possible_day_quantity": most}}

    def create(self, counter: int, query: Mapping[str, str]) -> dict[str, Any]:
        source, first, last, fields = self._checked(counter, query)
        if not self.evaluate(counter, query)["log_request_evaluation"]["possible"]:
            raise ApiError(400, "limit_exceeded", "Not enough space for logs of the counter")
        mine = self.requests.setdefault(counter, [])
        request = LogRequest(
            len(mine) + 1 + counter % 1000 * 1000,
            counter,
            source,
            first,
            last,
            fields,
            query.get("attribution", "LASTSIGN").upper(),
            fails=self.config.failures > 0,
            retries=self.config.retries,
        )
        if request.attribution.lower() not in (*MODELS, "cross_device_last_significant"):
            raise ApiError(400, "invalid_parameter", "Unknown attribution", "attribution")
        self.config.failures = max(0, self.config.failures - 1)
        mine.append(request)
        return {"log_request": request.shown()}

    def listed(self, counter: int) -> dict[str, Any]:
        for request in self.requests.get(counter, []):
            self._look(request)
        return {"requests": [r.shown() for r in self.requests.get(counter, [])]}

    def one(self, counter: int, request_id: int) -> dict[str, Any]:
        request = self._found(counter, request_id)
        self._look(request)
        return {"log_request": request.shown()}

    def cancel(self, counter: int, request_id: int) -> dict[str, Any]:
        request = self._found(counter, request_id)
        if request.status not in ("created", "awaiting_retry"):
            raise ApiError(
                400, "invalid_parameter", "Only log of requests in status 'created' can be canceled"
            )
        request.status = "canceled"
        return {"log_request": request.shown()}

    def clean(self, counter: int, request_id: int, status: str = "cleaned_by_user") -> dict[str, Any]:
        request = self._found(counter, request_id)
        if request.status != "processed":
            raise ApiError(
                400, "invalid_parameter", "Only log of requests in status 'processed' can be cleaned"
            )
        request.status, request.parts = status, []
        return {"log_request": request.shown()}

    def part(self, counter: int, request_id: int, number: int) -> bytes:
        """The plain text of a part."""
        request = self._found(counter, request_id)
        if request.status != "processed":
            raise ApiError(
                400, "invalid_parameter", "Only log of requests in status 'processed' can be downloaded"
            )
        if not 0 <= number < len(request.parts):
            raise ApiError(400, "invalid_parameter", "Incorrect part number")
        return request.parts[number]

    # Inside

    def _found(self, counter: int, request_id: int) -> LogRequest:
        for request in self.requests.get(counter, []):
            if request.request_id == request_id:
                return request
        raise ApiError(404, "not_found", "Entity not found")

    def _look(self, request: LogRequest) -> None:
        """Every look brings a request one step further."""
        if request.status not in ("created", "awaiting_retry"):
            return
        request.looks += 1
        if request.retries:
            if request.status == "awaiting_retry":
                request.retries, request.status = request.retries - 1, "created"
            elif request.looks >= self.config.polls:
                request.status = "awaiting_retry"
        elif request.looks >= self.config.polls:
            request.status = "processing_failed" if request.fails else "processed"
            if not request.fails:
                request.parts = self._render(request)
                request.sizes = [len(p) for p in request.parts]

    def _room(self, counter: int) -> int:
        kept = sum(sum(r.sizes) for r in self.requests.get(counter, []) if r.status == "processed")
        return self.config.room - kept

    def _checked(self, counter: int, query: Mapping[str, str]) -> tuple[str, date, date, list[str]]:
        for name in ("date1", "date2", "fields", "source"):
            if not query.get(name):
                raise ApiError(400, "missing_parameter", f"Missing parameter: {name}", name)
        source, fields = query["source"], query["fields"].split(",")
        if source not in ("visits", "hits"):
            raise ApiError(400, "invalid_parameter", "Wrong source", "source")
        if len(query["fields"]) > MOST_FIELDS:
            raise ApiError(400, "invalid_parameter", "The list of fields is too long", "fields")
        for name in fields:
            missing = name == "ym:pv:visitID" and not self.config.visit_id_in_hits
            if missing or field_of(source, name) is None:
                raise ApiError(400, "invalid_parameter", f"Unknown field: {name}", "fields")
        first, last = _date(query, "date1"), _date(query, "date2")
        if first > last or (last - first).days + 1 > MOST_DAYS:
            raise ApiError(400, "invalid_parameter", "Wrong period", "date1")
        if last >= self.today(counter):
            raise ApiError(400, "invalid_parameter", "date2 must be before the current date", "date2")
        return source, first, last, fields

    def _render(self, request: LogRequest) -> list[bytes]:
        """The parts: rows in no order, the header in each, some rows twice."""
        known = [found for name in request.fields if (found := field_of(request.source, name))]
        days = (request.first + timedelta(days=n) for n in range((request.last - request.first).days + 1))
        lines = [
            "\t".join(written(kind, row.get(key)) for key, kind in known)
            for day in days
            for row in self.rows(request.counter, request.source, day)
        ]
        rng = random.Random(f"{self.config.seed}/{request.first}/{request.last}")
        lines += rng.sample(lines, round(len(lines) * self.config.duplicates))
        rng.shuffle(lines)
        header = "\t".join(request.fields)
        size = max(1, -(-len(lines) // self.config.parts))
        chunks = [lines[at : at + size] for at in range(0, len(lines), size)] or [[]]
        return [("\n".join([header, *chunk]) + "\n").encode() for chunk in chunks]


def _date(query: Mapping[str, str], name: str) -> date:
    try:
        return datetime.strptime(query[name], "%Y-%m-%d").date()
    except ValueError:
        raise ApiError(400, "invalid_parameter", f"Wrong date: {name}", name) from None
