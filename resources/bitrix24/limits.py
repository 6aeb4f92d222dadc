"""The portal's two other limits: execution time of a method in ten minutes, and 60 seconds of one request."""

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from resources.bitrix24.calls import PAGE
from resources.bitrix24.envelope import Time, number

BATCH = "batch"
FREE_SHARE = 0.5
TARGET_SHARE = 0.9
STOP_SHARE = 0.85
PARK_STEP_S = 60.0
PARK_LIMIT_S = 600.0


@dataclass(slots=True)
class _Use:
    used: float = 0.0
    until: float = 0.0  # local time when the oldest basket drops out
    reported: float = 0.0  # the portal's reset time, which tells baskets apart
    next_start: float = 0.0
    parked_until: float = 0.0
    parks: int = 0


class OperatingBudget:
    """Seconds of execution used per method (and by `batch` itself), as the portal reports them.

    `time.operating` is a running total of the last ten minutes, not the cost of a call: reports replace each
    other and are never added up. Portals charge nested methods, the envelope, only the first nested entry, or
    nothing; keeping a budget for every method and one for `batch`, each the maximum inside one answer, is
    right for all.
    """

    def __init__(self, limit_s: float) -> None:
        """`limit_s` = 0 switches pacing off; refusals are still obeyed."""
        self._limit = limit_s
        self._uses: dict[str, _Use] = {}
        self._lock = threading.Lock()

    def observe(self, envelope: Time, nested: Iterable[tuple[str, Time]], *, owner: str, now: float) -> None:
        """Take in the reports of one answer; `owner` is the method of the envelope, `now` the local time."""
        finish = number(envelope.finish)
        reports: dict[str, tuple[float, float]] = {}
        for method, time in [(owner, envelope), *nested]:
            if time.operating is None:
                continue
            used, reset = reports.get(method, (0.0, 0.0))
            reports[method] = max(used, number(time.operating)), max(reset, number(time.operating_reset_at))
        with self._lock:
            for method, (used, reset) in reports.items():
                use = self._uses.setdefault(method, _Use())
                use.parks = 0
                if now < use.until and (reset <= use.reported or not used):
                    used, reset = max(used, use.used), max(reset, use.reported)
                use.used, use.reported = used, reset
                use.until = now + max(0.0, reset - (finish or now)) if reset else 0.0

    def delay(self, costs: Mapping[str, float], now: float) -> float:
        """Seconds to wait before a request of these expected costs (seconds per method); books the start."""
        total = sum(costs.values())
        with self._lock:
            waits = [self._wait(method, cost, now) for method, cost in [*costs.items(), (BATCH, total)]]
        return max(waits, default=0.0)

    def _wait(self, method: str, cost: float, now: float) -> float:
        use = self._uses.get(method)
        if use is None:
            return 0.0
        parked = max(0.0, use.parked_until - now)
        if not self._limit or now >= use.until or use.used < FREE_SHARE * self._limit:
            return parked
        left = use.until + 1 - now
        if use.used >= STOP_SHARE * self._limit:
            return max(parked, left)
        rate = (TARGET_SHARE * self._limit - use.used) / left
        start = max(now, use.next_start)
        use.next_start = start + max(cost, 0.01) / rate
        return max(parked, min(start - now, left))

    def park(self, method: str, now: float) -> float:
        """The portal refuses `method`: keep it back until its reset, else in steps of a minute.

        Returns the wait.
        """
        with self._lock:
            use = self._uses.setdefault(method, _Use())
            if now < use.parked_until:
                return use.parked_until - now
            use.parks += 1
            until = use.until + 1 if use.until > now else now + min(PARK_LIMIT_S, PARK_STEP_S * use.parks)
            use.parked_until = until
            return until - now

    def parked(self, method: str, now: float) -> float:
        """Seconds for which `method` (or every batch) is kept back."""
        with self._lock:
            uses = [self._uses[name] for name in (method, BATCH) if name in self._uses]
            return max((0.0, *(use.parked_until - now for use in uses)))

    def used(self) -> dict[str, float]:
        """Seconds used per method, as last reported."""
        with self._lock:
            return {method: use.used for method, use in self._uses.items()}


class BatchSizer:
    """How many commands of a method fit one request: a target duration, halved after every failure."""

    def __init__(self, most: int, target_s: float) -> None:
        self._most = max(1, min(PAGE, most))
        self._target = target_s
        self._limit = float(self._most)
        self._cost: dict[str, float] = {}
        self._lock = threading.Lock()

    def size(self, methods: Iterable[str] = ()) -> int:
        """Commands to send in one batch, if all are as slow as the slowest of `methods`."""
        with self._lock:
            worst = max((self._cost.get(method, 0.0) for method in methods), default=0.0)
            fits = self._target / worst if worst > 0 else self._most
            return max(1, int(min(self._limit, fits, self._most)))

    def cost(self, methods: Counter[str]) -> dict[str, float]:
        """Expected seconds per method."""
        with self._lock:
            return {method: self._cost.get(method, 0.0) * count for method, count in methods.items()}

    def failed(self, commands: int) -> None:
        """A request of `commands` was too heavy."""
        with self._lock:
            self._limit = max(1.0, min(self._limit, commands) / 2)

    def succeeded(self, times: Iterable[tuple[str, Time]]) -> None:
        """Learn the durations of an answered request and recover slowly."""
        sums: dict[str, list[float]] = {}
        for method, time in times:
            spent = max(number(time.duration), number(time.processing))
            pair = sums.setdefault(method, [0.0, 0.0])
            pair[0] += spent
            pair[1] += 1
        with self._lock:
            self._limit = min(self._most, self._limit * 1.1 + 0.5)
            for method, (spent, count) in sums.items():
                mean = spent / count
                self._cost[method] = (self._cost.get(method, mean) + mean) / 2
