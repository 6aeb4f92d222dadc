"""Faults by script: which calls go wrong, and how."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any

ACTIONS = ("status", "html", "drop", "reset", "large", "delay", "expire", "insert", "body")


@dataclass
class Fault:
    """`action` on calls whose path holds `path`: on every `every`-th of them, after `skip`, `times` times.

    status: answer `status`, with `retry_after` as its header. html: a page with status 200. drop: the body
    ends in the middle. reset: the connection breaks before an answer. large: a body of `size_mib`. delay:
    `seconds` more. expire: all tokens end before the call. insert: a ticket appears before the call. body:
    this text with status 200.
    """

    action: str
    path: str = ""
    every: int = 1
    skip: int = 0
    times: int | None = None
    status: int = 500
    retry_after: str | None = None
    seconds: float = 0.0
    size_mib: float = 1.0
    body: str = ""
    seen: int = 0

    def takes(self, path: str) -> bool:
        """Whether this call is one of them; counts it."""
        if self.path not in path or self.times == 0:
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.seen - self.skip) % self.every:
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Faults:
    """The rules in force; the first that takes a call decides."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._lock = Lock()

    def add(self, action: str, **options: Any) -> Fault:
        """One more rule; ValueError or TypeError for what `Fault` does not know."""
        if action not in ACTIONS:
            raise ValueError(f"no fault {action}: {', '.join(ACTIONS)}")
        rule = Fault(action, **options)
        if rule.every < 1:
            raise ValueError("every must be at least 1")
        with self._lock:
            self._rules.append(rule)
        return rule

    def load(self, rules: list[Mapping[str, Any]]) -> None:
        for rule in rules:
            self.add(**rule)

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()

    def take(self, path: str) -> Fault | None:
        with self._lock:
            return next((rule for rule in self._rules if rule.takes(path)), None)

    def report(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(rule) for rule in self._rules]
