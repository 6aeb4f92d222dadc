"""What a method receives and gives, and the registry of methods."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.bitrix24.faults import Fault
from sandbox.bitrix24.params import as_int, as_map, lookup

if TYPE_CHECKING:
    from sandbox.bitrix24.portal import Portal


@dataclass
class Call:
    """One command: a request of its own or a part of a batch."""

    portal: "Portal"
    method: str
    """Lower case."""
    params: dict[str, Any]
    credential: str
    is_app: bool = False
    faults: list[Fault] = field(default_factory=list)

    def get(self, name: str, default: Any = None) -> Any:
        return lookup(self.params, name, default)

    def map(self, name: str) -> dict[str, Any]:
        """A map parameter. Raises RestError when it is a scalar."""
        return as_map(self.get(name), name)

    @property
    def start(self) -> int:
        return as_int(self.get("start"), 0)

    def fault(self, action: str) -> Fault | None:
        return next((fault for fault in self.faults if fault.action == action), None)


@dataclass
class Result:
    """The outcome of a command; `value` may be an orjson.Fragment."""

    value: Any
    total: int | None = None
    next_start: int | None = None
    rows: int = 0
    counted: int = 0
    ids: list[int] | None = None
    """Ids of the rows, so that batch references to `[n][ID]` need no parsing."""
    wrapper: str | None = None
    """Key that wraps the list: `items`, or None for a bare list."""


Handler = Callable[[Call], Result]


@dataclass(frozen=True)
class Method:
    name: str
    handler: Handler
    scope: str | None
    app_only: bool = False
    admin_only: bool = False


METHODS: dict[str, Method] = {}
"""Keyed by lower-case name: method names are case-insensitive."""


def method(
    *names: str, scope: str | None = "crm", app_only: bool = False, admin_only: bool = False
) -> Callable[[Handler], Handler]:
    """Register a handler under one or several names."""

    def register(handler: Handler) -> Handler:
        for name in names:
            METHODS[name.lower()] = Method(name, handler, scope, app_only, admin_only)
        return handler

    return register
