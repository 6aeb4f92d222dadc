"""Control API (`/control/...`, `/stats`): what the command line does to a running portal. Loopback only."""

import json
from collections.abc import Callable
from dataclasses import fields as dataclass_fields
from typing import Any

from sandbox.bitrix24.config import PortalConfig
from sandbox.bitrix24.engine import Answer
from sandbox.bitrix24.oauth import AUTHORIZATION_CODE, CLIENT_ID, CLIENT_SECRET
from sandbox.bitrix24.portal import Portal, UnknownEntity
from sandbox.bitrix24.wire import dumps

_LIVE_SETTINGS = {
    "latency",
    "operating_mode",
    "operating_limit",
    "rate_limit",
    "count_rejected",
    "post_filtered",
    "mutations_per_second",
    "mutations_per_command",
    "request_cut",
    "strict_uf_star",
    "scopes",
    "admin",
    "webhook_code",
    "cache_pages",
    "event_data",
    "item_date_literals",
}


class Control:
    """JSON in, JSON out. Every operation is also a method of Portal."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._operations: dict[str, Callable[..., Any]] = {
            "create": self.create,
            "change": self.change,
            "delete": self.delete,
            "restore": self.restore,
            "purge": lambda: {"purged": portal.purge()},
            "hide": lambda entity, ids=None: {"rows": portal.hide(entity, ids)},
            "unhide": lambda entity, ids=None: {"rows": portal.unhide(entity, ids)},
            "mutate": self.mutate,
            "add-field": self.add_field,
            "delete-field": self.delete_field,
            "add-process": self.add_process,
            "update-process": lambda type_id, changes: portal.update_smart_process(type_id, **changes),
            "delete-process": self.delete_process,
            "faults": self.faults,
            "clock": self.clock,
            "settings": self.settings,
            "expire-token": self.expire_token,
            "issue-token": self.issue_token,
            "reset-stats": self.reset_stats,
            "reset-limits": self.reset_limits,
            "counts": self.counts,
        }

    def answer(self, path: str, params: dict[str, Any]) -> Answer:
        """Run one operation; errors come back as 400 with a text."""
        name = path.strip("/")
        if name == "stats":
            return Answer(200, dumps(self._portal.stats()))
        operation = self._operations.get(name.removeprefix("control/"))
        if operation is None:
            return _error(404, f"unknown operation; known: {', '.join(sorted(self._operations))}")
        try:
            with self._portal.lock:
                return Answer(200, dumps(operation(**params)))
        except (KeyError, ValueError, TypeError, UnknownEntity, json.JSONDecodeError) as error:
            return _error(400, f"{type(error).__name__}: {error}")

    def create(self, entity: str, values: dict[str, Any] | None = None, count: int = 1) -> dict[str, Any]:
        ids = [self._portal.create(entity, **(values or {})) for _ in range(min(int(count), 100_000))]
        return {"ids": ids}

    def change(self, entity: str, id: int, values: dict[str, Any], silent: bool = False) -> dict[str, Any]:
        self._portal.change(entity, int(id), silent=silent, **values)
        return {"id": int(id)}

    def delete(self, entity: str, ids: list[int]) -> dict[str, Any]:
        for number in ids:
            self._portal.delete(entity, int(number))
        return {"deleted": len(ids)}

    def restore(self, entity: str, ids: list[int], new_id: bool = False) -> dict[str, Any]:
        return {"ids": [self._portal.restore(entity, int(number), new_id=new_id) for number in ids]}

    def mutate(self, count: int = 1, entity: str = "deal") -> dict[str, Any]:
        self._portal.mutate(min(int(count), 100_000), entity)
        return {"mutations": count}

    def add_field(self, entity: str, code: str, kind: str = "string", **options: Any) -> dict[str, Any]:
        spec = self._portal.add_user_field(entity, code, kind, **options)
        return {"name": spec.name, "camel": spec.camel, "id": spec.uf_id}

    def delete_field(self, entity: str, name: str) -> dict[str, Any]:
        self._portal.delete_user_field(entity, name)
        return {"name": name}

    def add_process(self, title: str, **options: Any) -> dict[str, Any]:
        return self._portal.add_smart_process(title, **options)

    def delete_process(self, type_id: int) -> dict[str, Any]:
        self._portal.delete_smart_process(type_id)
        return {"type_id": type_id}

    def faults(self, add: list[dict[str, Any]] | None = None, clear: bool = False) -> list[dict[str, Any]]:
        if clear:
            self._portal.faults.clear()
        self._portal.faults.load(add or [])
        return self._portal.faults.report()

    def clock(self, advance: float = 0.0, factor: float | None = None) -> dict[str, Any]:
        clock = self._portal.clock
        if factor is not None:
            clock.set_factor(factor)
        return {"now": clock.advance(advance), "iso": self._portal.stamp(), "factor": clock.factor}

    def settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings that may change while the portal runs; returns the present ones."""
        config = self._portal.config
        unknown = changes.keys() - _LIVE_SETTINGS
        if unknown:
            raise ValueError(f"cannot be changed while running: {', '.join(sorted(unknown))}")
        for name, value in changes.items():
            setattr(config, name, tuple(value) if isinstance(value, list) else value)
        self._portal.page_cache.clear()
        if {"rate_limit", "count_rejected"} & changes.keys():
            self._portal.reset_limits()
        hidden = {"webhook_code", "cost"}
        names = (f.name for f in dataclass_fields(PortalConfig) if f.name not in hidden)
        return {name: getattr(config, name) for name in names}

    def expire_token(self, refresh: bool = False) -> dict[str, Any]:
        """Expire access tokens; with `refresh` also revoke refresh tokens."""
        self._portal.tokens.expire_access()
        if refresh:
            self._portal.tokens.revoke()
        return {"expired": True}

    def issue_token(self) -> dict[str, Any]:
        """A new pair and the invented application it belongs to."""
        answer = self._portal.tokens.issue(self._portal.base_url)
        client = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "code": AUTHORIZATION_CODE}
        return answer | client

    def reset_stats(self) -> dict[str, Any]:
        self._portal.reset_stats()
        return {"reset": True}

    def reset_limits(self) -> dict[str, Any]:
        self._portal.reset_limits()
        return {"reset": True}

    def counts(self) -> dict[str, int]:
        """Live rows of every entity touched so far."""
        return {key: len(table.live()) for key, table in self._portal.tables.items()}


def _error(status: int, text: str) -> Answer:
    return Answer(status, dumps({"error": text}))
