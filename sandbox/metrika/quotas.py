"""The three kinds of 429: requests a second, requests at once, requests a day."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sandbox.metrika.config import MetrikaConfig
from sandbox.metrika.errors import ApiError


class Quotas:
    """Counts requests; a request that is refused counts for the second, not for the day."""

    def __init__(self, config: MetrikaConfig) -> None:
        self.config = config
        self.most_at_once = 0
        self._lock = threading.Lock()
        self._recent: dict[tuple[str, bool], deque[float]] = {}
        self._running: Counter[str] = Counter()
        self._today: Counter[str] = Counter()
        self._day = ""

    @contextmanager
    def turn(self, address: str, token: str, counter: int, *, logs: bool) -> Iterator[None]:
        """One request. Raises ApiError 429 of the kind that it exceeds."""
        with self._lock:
            self._per_second(address, logs)
            self._per_day(token, counter)
            if self.config.parallel and self._running[token] >= self.config.parallel:
                raise ApiError(429, "quota_parallel_requests", "Quota exceeded")
            self._running[token] += 1
            self.most_at_once = max(self.most_at_once, self._running[token])
        try:
            yield
        finally:
            with self._lock:
                self._running[token] -= 1

    def _per_second(self, address: str, logs: bool) -> None:
        if not self.config.requests_per_second:
            return
        most = self.config.requests_per_second * (1 if logs else 3)
        recent, now = self._recent.setdefault((address, logs), deque()), time.monotonic()
        while recent and recent[0] <= now - 1:
            recent.popleft()
        recent.append(now)
        if len(recent) > most:
            raise ApiError(429, "quota_requests_by_ip", "Quota exceeded")

    def _per_day(self, token: str, counter: int) -> None:
        day = f"{datetime.now(UTC):%Y-%m-%d}"
        if day != self._day:
            self._day = day
            self._today.clear()
        for name, kind in ((token, "uid"), (str(counter), "counter_id")):
            self._today[name] += 1
            if self.config.requests_per_day and self._today[name] > self.config.requests_per_day:
                raise ApiError(429, f"quota_requests_by_{kind}", "Quota exceeded")
