"""Offline event queue: bindings, one record per object and event, reserving reads."""

from typing import TYPE_CHECKING, Any

from sandbox.bitrix24.fields import FieldSpec
from sandbox.bitrix24.table import Table

if TYPE_CHECKING:
    from sandbox.bitrix24.portal import Portal

_NAMES = {1: "LEAD", 2: "DEAL", 3: "CONTACT", 4: "COMPANY", 7: "QUOTE"}


class EventQueue:
    """Records of bound events until they are cleared. Nothing is queued for unbound events."""

    def __init__(self, portal: "Portal") -> None:
        self._portal = portal
        self._next_id = 1
        self._next_process = 1
        self.bindings: set[tuple[str, str]] = set()
        """(EVENT_NAME, auth_connector)"""
        self.records: list[dict[str, Any]] = []

    def bind(self, event: str, connector: str = "") -> None:
        self.bindings.add((event.upper(), connector))

    def unbind(self, event: str, connector: str = "") -> bool:
        known = (event.upper(), connector) in self.bindings
        self.bindings.discard((event.upper(), connector))
        return known

    def row_event(self, table: Table, row_id: int, action: str) -> None:
        """ADD, UPDATE or DELETE of a row; smart-process events come in two names."""
        if table.type_id in _NAMES:
            self.push(f"ONCRM{_NAMES[table.type_id]}{action}", row_id)
        elif table.key == "activity":
            self.push(f"ONCRMACTIVITY{action}", row_id)
        elif table.type_id >= 31:
            for suffix in ("", f"_{table.type_id}"):
                self.push(f"ONCRMDYNAMICITEM{action}{suffix}", row_id, table.type_id)

    def field_event(self, table: Table, spec: FieldSpec, action: str) -> None:
        owner = _NAMES.get(table.type_id)
        self.push(f"ONCRM{owner}USERFIELD{action}" if owner else f"ONCRMTYPEUSERFIELD{action}", spec.uf_id)

    def push(self, event: str, object_id: int, type_id: int | None = None) -> None:
        """Queue an event for every binding; a record of the same object and event is replaced."""
        for name, connector in sorted(self.bindings):
            if name != event:
                continue
            key = (event, object_id, connector)
            self.records = [r for r in self.records if r["key"] != key or r["process"]]
            fields: dict[str, Any] = {"ID": object_id}
            if type_id is not None:
                fields["ENTITY_TYPE_ID"] = type_id
            data = False if self._portal.config.event_data == "false" else {"FIELDS": fields}
            record = {"id": self._next_id, "key": key, "data": data, "process": "", "error": 0}
            self.records.append(record | {"stamp": self._portal.stamp(), "connector": connector})
            self._next_id += 1

    def _row(self, record: dict[str, Any]) -> dict[str, Any]:
        return {
            "ID": str(record["id"]),
            "TIMESTAMP_X": record["stamp"],
            "EVENT_NAME": record["key"][0],
            "EVENT_DATA": record["data"],
            "EVENT_ADDITIONAL": False,
            "MESSAGE_ID": str(record["id"]),
        }

    def get(self, limit: int, clear: bool, connector: str) -> dict[str, Any]:
        """Take free records: removed at once with `clear`, else reserved under a process_id."""
        free = [r for r in self.records if not r["process"] and r["connector"] == connector][:limit]
        if clear:
            self.records = [r for r in self.records if r not in free]
            return {"process_id": None, "events": [self._row(r) for r in free]}
        if not free:
            return {"process_id": None, "events": []}
        process = f"sandboxprocess{self._next_process:06d}"
        self._next_process += 1
        for record in free:
            record["process"] = process
        return {"process_id": process, "events": [self._row(r) for r in free]}

    def listing(self) -> list[dict[str, Any]]:
        extra = ({"PROCESS_ID": r["process"], "ERROR": str(r["error"])} for r in self.records)
        return [self._row(record) | more for record, more in zip(self.records, extra, strict=True)]

    def finish(self, process: str, messages: list[str], *, failed: bool) -> bool:
        """Clear (or mark failed) reserved records; all of the process when `messages` is empty."""
        chosen = [
            r for r in self.records if r["process"] == process and (not messages or str(r["id"]) in messages)
        ]
        if failed:
            for record in chosen:
                record["error"] = 1
        else:
            self.records = [r for r in self.records if r not in chosen]
        return bool(process)
