"""Faults by script: which requests or commands go wrong, and how."""

from dataclasses import dataclass, field
from typing import Any

REQUEST_KINDS = {"status", "html", "timeout", "reset", "truncate", "redirect"}
COMMAND_KINDS = {
    "nested_error",
    "drop_label",
    "short_page",
    "no_total",
    "duplicate_row",
    "ignore_filter",
    "repeat_page",
    "odd_empties",
    "locale_dates",
}


@dataclass
class Fault:
    """One rule. Given criteria must all match; the first `skip` matches pass unharmed.

    Request kinds: `status` (options status, code, description), `html` (status), `timeout` (seconds,
    then the connection closes), `reset`, `truncate` (share of the body kept), `redirect` (location).
    Command kinds: `nested_error` (code, description, status), `drop_label`, `short_page` (rows removed),
    `no_total`, `duplicate_row`, `ignore_filter` (keys; all when absent), `repeat_page`, `odd_empties`,
    `locale_dates`.
    """

    action: str
    request: int | None = None
    """Number of the HTTP request since the start or the last reset, from 1."""
    method: str | None = None
    """Outer method for request kinds, the command's own for command kinds."""
    command: int | None = None
    """Number of the command in its batch, from 0."""
    skip: int = 0
    times: int | None = 1
    """How often it applies; None means always."""
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.action not in REQUEST_KINDS | COMMAND_KINDS:
            raise ValueError(f"unknown fault action {self.action!r}")

    def take(self, request: int, method: str, command: int | None) -> bool:
        """Whether the rule strikes now; counts the match."""
        if self.request is not None and self.request != request:
            return False
        if self.method is not None and self.method.lower() != method:
            return False
        if self.command is not None and self.command != command:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            if self.times <= 0:
                return False
            self.times -= 1
        return True


class FaultBook:
    """The rules in force, in order."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []

    def add(
        self,
        action: str,
        *,
        request: int | None = None,
        method: str | None = None,
        command: int | None = None,
        skip: int = 0,
        times: int | None = 1,
        **options: Any,
    ) -> Fault:
        """Add a rule; see `Fault`. Raises ValueError for an unknown action."""
        fault = Fault(action, request, method, command, skip, times, options)
        self._rules.append(fault)
        return fault

    def load(self, rules: list[dict[str, Any]]) -> None:
        """Rules as flat objects: `{"action": "html", "request": 3, "status": 502}`."""
        for rule in rules:
            self.add(**rule)

    def clear(self) -> None:
        self._rules.clear()

    def for_request(self, request: int, method: str) -> Fault | None:
        for rule in self._rules:
            if rule.action in REQUEST_KINDS and rule.take(request, method, None):
                return rule
        return None

    def for_command(self, request: int, method: str, command: int) -> list[Fault]:
        if not self._rules:
            return []
        rules = (rule for rule in self._rules if rule.action in COMMAND_KINDS)
        return [rule for rule in rules if rule.take(request, method, command)]

    def report(self) -> list[dict[str, Any]]:
        return [
            {
                "action": r.action,
                "request": r.request,
                "method": r.method,
                "command": r.command,
                "left": r.times,
            }
            for r in self._rules
        ]
