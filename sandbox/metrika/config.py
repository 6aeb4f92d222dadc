"""What an emulated Metrika is like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

TOKEN = "sandbox0token0of0metrika"
COUNTERS = {100001: "Europe/Moscow", 100002: "Asia/Vladivostok", 100003: "America/New_York"}
LEAD_GOAL = 310000001
LEAD_TARGET = "lead"


@dataclass
class MetrikaConfig:
    """Sizes, limits and habits; tests and the command line change them while it runs."""

    seed: int = 1
    visits_per_day: int = 300
    counters: Mapping[int, str] = field(default_factory=lambda: dict(COUNTERS))
    """Counter -> time zone."""
    tokens: Mapping[str, frozenset[int] | None] = field(default_factory=lambda: {TOKEN: None})
    """Token -> the counters that it may read and write; None: all."""
    today: date | None = None
    """The day that is not over yet; None: the present day of each counter's zone."""
    settling: bool = True
    """Visits of the last three days still change."""
    parts: int = 2
    """Parts of a log request."""
    duplicates: float = 0.002
    """Share of rows that a log holds twice."""
    polls: int = 2
    """Looks at a log request until it is processed."""
    retries: int = 0
    """How often a new log request passes through awaiting_retry."""
    failures: int = 0
    """How many of the next log requests end in processing_failed."""
    max_days: int | None = None
    """Days that fit into one log request; None: what the room allows."""
    room: int = 10_000_000_000
    """Bytes of prepared logs that a counter may keep."""
    visit_id_in_hits: bool = True
    """Whether the counter knows ym:pv:visitID."""
    gzip: bool = True
    """Compress parts for those who accept it."""
    requests_per_second: int = 10
    """Of the Logs API, per address; other calls three times as many; 0: no limit."""
    parallel: int = 3
    """Requests of a token at the same time; 0: no limit."""
    requests_per_day: int = 5000
    """Of a token, and of a counter; 0: no limit."""
    latency: float = 0.0
    """Real seconds added to every request."""
