"""Request rate (leaky bucket), operating budget, statistics."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

BASKET = 60.0
WINDOW = 600.0


class LeakyBucket:
    """Counter per source address: +1 a request, minus Y a second, requests above X are refused."""

    def __init__(self, limit: tuple[float, float] | None, count_rejected: bool) -> None:
        self.limit, self.count_rejected = limit, count_rejected
        self.peak = 0.0
        self._levels: dict[str, tuple[float, float]] = {}

    def admit(self, address: str, now: float) -> bool:
        """Count one request; False when it is to be answered QUERY_LIMIT_EXCEEDED."""
        if self.limit is None:
            return True
        threshold, drain = self.limit
        level, seen = self._levels.get(address, (0.0, now))
        level = max(0.0, level - (now - seen) * drain)
        admitted = level + 1 <= threshold
        if admitted or self.count_rejected:
            level += 1
        self._levels[address] = (level, now)
        self.peak = max(self.peak, level)
        return admitted


class OperatingBudget:
    """Execution seconds per (credential, method) in one-minute baskets.

    A basket drops out 600 s after its first call.
    """

    def __init__(self) -> None:
        self._baskets: dict[tuple[str, str], list[list[float]]] = defaultdict(list)

    def _live(self, credential: str, method: str, now: float) -> list[list[float]]:
        baskets = self._baskets[credential, method]
        while baskets and baskets[0][0] + WINDOW <= now:
            baskets.pop(0)
        return baskets

    def used(self, credential: str, method: str, now: float) -> float:
        return sum(used for _, used in self._live(credential, method, now))

    def charge(self, credential: str, method: str, now: float, seconds: float) -> float:
        """Add the cost of a call that began at `now`; returns the running total."""
        baskets = self._live(credential, method, now)
        if not baskets or now >= baskets[-1][0] + BASKET:
            baskets.append([now, 0.0])
        baskets[-1][1] += seconds
        return sum(used for _, used in baskets)

    def reset_at(self, credential: str, method: str, now: float) -> int:
        """Unix time when the oldest basket drops out."""
        baskets = self._live(credential, method, now)
        return int((baskets[0][0] if baskets else now) + WINDOW)

    def totals(self, now: float) -> dict[str, float]:
        """Seconds in use by method, all credentials together."""
        result: dict[str, float] = defaultdict(float)
        for credential, method in list(self._baskets):
            result[method] += self.used(credential, method, now)
        return {method: round(used, 4) for method, used in result.items()}


@dataclass
class Stats:
    """What `/stats` shows; times are those of the portal clock."""

    http_requests: int = 0
    commands: int = 0
    rows: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    nested_errors: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    rows_by_method: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    simulated_seconds: float = 0.0
    first: float | None = None
    last: float | None = None

    def request(self, now: float) -> int:
        """Count an HTTP request; returns its number from 1."""
        self.http_requests += 1
        self.first = now if self.first is None else self.first
        self.last = now
        return self.http_requests

    def command(self, method: str, rows: int, seconds: float) -> None:
        self.commands += 1
        self.rows += rows
        self.calls[method] += 1
        self.rows_by_method[method] += rows
        self.simulated_seconds += seconds

    def report(self) -> dict[str, Any]:
        span = (self.last or 0.0) - (self.first or 0.0)
        return {
            "http_requests": self.http_requests,
            "commands": self.commands,
            "rows": self.rows,
            "rejected_503": self.statuses[503],
            "rejected_429": self.statuses[429] + self.nested_errors["OPERATION_TIME_LIMIT"],
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "nested_errors": dict(self.nested_errors),
            "calls": dict(self.calls),
            "rows_by_method": dict(self.rows_by_method),
            "faults": dict(self.faults),
            "simulated_seconds": round(self.simulated_seconds, 4),
            "span_seconds": round(span, 3),
        }
