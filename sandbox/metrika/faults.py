"""Faults by script: which requests go wrong, and how."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass, field
from typing import Any

ACTIONS = {"status", "html", "timeout", "reset", "lost", "truncate", "corrupt", "plain", "bad_row", "header"}


@dataclass
class Fault:
    """One rule. `path` is a regular expression; the first `skip` matches pass unharmed; times None: always.

    `status` (options status, error_type, message, retry_after), `html` (status), `timeout` (seconds, then the
    connection closes), `reset` (before anything is done), `lost` (the request is carried out, the answer is
    not sent), `truncate` (share of the body sent, announced whole; announce=false: as if it were whole),
    `corrupt` (one byte of the body is another), `plain` (not compressed), `bad_row` (a row without its last
    column), `header` (the part's columns are in another order).
    """

    action: str
    path: str = ""
    method: str | None = None
    skip: int = 0
    times: int | None = 1
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"unknown fault action {self.action!r}")
        re.compile(self.path)

    def take(self, method: str, path: str) -> bool:
        """Whether the rule strikes now; counts the match."""
        if self.times == 0 or (self.method and self.method != method) or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class FaultBook:
    """The rules in force, in order."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._lock = threading.Lock()

    def add(
        self,
        action: str,
        path: str = "",
        *,
        method: str | None = None,
        skip: int = 0,
        times: int | None = 1,
        **options: Any,
    ) -> None:
        """Add a rule; see `Fault`. Raises ValueError for an unknown action, re.error for a bad path."""
        self._rules.append(Fault(action, path, method, skip, times, options))

    def load(self, rules: list[dict[str, Any]]) -> None:
        """Rules as flat objects: `{"action": "status", "path": "download", "status": 503}`."""
        for rule in rules:
            self.add(**rule)

    def clear(self) -> None:
        self._rules.clear()

    def strike(self, method: str, path: str) -> Fault | None:
        with self._lock:
            return next((rule for rule in self._rules if rule.take(method, path)), None)
