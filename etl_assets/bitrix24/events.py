"""What the portal itself tells of deletions: names of events, and the offline queue of an application.

Facts: REST documentation of `event.offline.*`. Reading with `clear=0` reserves records for a process id;
reserved ones do not come again, so a process that dies between reading and clearing would lose them.
Therefore the queue is listed first, which reserves nothing, and what is listed is settled before anything is
reserved.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl_assets.bitrix24.comparing import Compared, Comparer, counted_entities
from etl_assets.bitrix24.deletions import Source
from etl_assets.settings import text
from resources.bitrix24 import PAGE, Bitrix24Client
from resources.bitrix24.inbox import Inbox
from resources.clickhouse import WarehouseResource
from resources.http import default_state_dir

DELETIONS = {
    "ONCRMLEADDELETE": "crm_lead",
    "ONCRMDEALDELETE": "crm_deal",
    "ONCRMCONTACTDELETE": "crm_contact",
    "ONCRMCOMPANYDELETE": "crm_company",
    "ONCRMQUOTEDELETE": "crm_quote",
    "ONCRMINVOICEDELETE": "crm_invoice_old",
    "ONCRMACTIVITYDELETE": "crm_activity",
    "ONCRMREQUISITEDELETE": "crm_requisite",
    "ONCRMBANKDETAILDELETE": "crm_requisite_bank",
    "ONTASKDELETE": "task",
}
DYNAMIC = "ONCRMDYNAMICITEMDELETE"  # of smart invoices too; ENTITY_TYPE_ID says which
SMART_INVOICE = 31
HANDLED = "bitrix24/offline/handled"
MOST_LISTED = 5000


@dataclass(frozen=True, slots=True)
class Deletion:
    """One deletion that the portal told of. Without an id the whole entity has to be compared."""

    entity: str
    id: int | None = None


def deletion_of(name: str, data: Any) -> Deletion | None:
    """What an event says; None for events of other kinds.

    `data` is EVENT_DATA of the offline queue, or `data` of an online event. The queue may hold `false` there,
    and tasks say FIELDS_BEFORE, where other keys may be the text "undefined".
    """
    name = name.upper()
    fields = _fields(data)
    number = _number(fields.get("ID"))
    if name == DYNAMIC or name.startswith(f"{DYNAMIC}_"):
        type_id = _number(fields.get("ENTITY_TYPE_ID")) or _number(name.rpartition("_")[2])
        if type_id is None:
            return Deletion("")
        entity = "crm_smart_invoice" if type_id == SMART_INVOICE else f"crm_dynamic_items_{type_id}"
        return Deletion(entity, number)
    entity = DELETIONS.get(name)
    return Deletion(entity, number) if entity else None


def _fields(data: Any) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        return {}
    found = data.get("FIELDS")
    before = data.get("FIELDS_BEFORE")
    return found if isinstance(found, Mapping) else before if isinstance(before, Mapping) else {}


def _number(value: Any) -> int | None:
    digits = str(value)
    return int(digits) if digits.isascii() and digits.isdigit() and int(digits) > 0 else None


class OfflineQueue:
    """The application's queue on the portal."""

    def __init__(self, client: Bitrix24Client) -> None:
        self._client = client

    def bind(self) -> list[str]:
        """Let deletions be queued that are not yet; the names that were added."""
        bound = {
            str(row.get("event", "")).upper()
            for row in self._client.call("event.get") or []
            if str(row.get("offline", "")) in ("1", "Y", "True", "true")
        }
        missing = [name for name in (*DELETIONS, DYNAMIC) if name not in bound]
        for name in missing:
            self._client.call("event.bind", {"event": name, "event_type": "offline"})
        return missing

    def listed(self) -> list[Mapping[str, Any]]:
        """What is in the queue, reserved or not; nothing is reserved by it."""
        rows: list[Mapping[str, Any]] = []
        while len(rows) < MOST_LISTED:
            page = self._client.call("event.offline.list", {"order": {"ID": "ASC"}, "start": len(rows)}) or []
            rows += page
            if len(page) < PAGE:
                break
        return rows

    def reserved(self) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
        """Batches of records with the process that they are reserved under, until none is free."""
        while True:
            answer = self._client.call(
                "event.offline.get", {"clear": 0, "limit": PAGE, "order": {"ID": "ASC"}}
            )
            rows = answer.get("events") or []
            if not rows:
                return
            yield str(answer["process_id"]), rows

    def clear(self, process_id: str) -> None:
        """Take a reserved batch off the queue for good."""
        self._client.call("event.offline.clear", {"process_id": process_id})


def identity(row: Mapping[str, Any]) -> str:
    """Tells records apart: the same object's next event has another time."""
    return f"{row.get('MESSAGE_ID') or row.get('ID')} {row.get('TIMESTAMP_X')}"


def consume(queue: OfflineQueue, comparer: Comparer, warehouse: WarehouseResource) -> list[Compared]:
    """Settle every record of the queue at least once, and clear it; this may be killed at any moment."""
    noted, _ = warehouse.notes([HANDLED]).get(HANDLED, ("[]", None))
    settled = set(json.loads(noted))  # listed before and never free: reserved by a process that died
    listed = queue.listed()
    done = settle([r for r in listed if identity(r) not in settled], comparer, warehouse)
    settled.update(map(identity, listed))
    cleared: set[str] = set()
    for process_id, rows in queue.reserved():
        done += settle([r for r in rows if identity(r) not in settled], comparer, warehouse)
        queue.clear(process_id)
        cleared.update(map(identity, rows))
    warehouse.note(HANDLED, json.dumps(sorted(set(map(identity, listed)) - cleared)))
    return done


def received_inbox() -> Inbox:
    """Where the receiver of outgoing webhooks keeps events: in SVOD_STATE_DIR."""
    return Inbox(Path(text("SVOD_STATE_DIR", "") or default_state_dir()))


def consume_received(inbox: Inbox, comparer: Comparer, warehouse: WarehouseResource) -> list[Compared]:
    """Settle the events that were received; they stay until all of them are settled."""
    rows = [{"EVENT_NAME": e.get("event"), "EVENT_DATA": e.get("data")} for e in inbox.take()]
    done = settle(rows, comparer, warehouse, "event")
    inbox.done()
    return done


def settle(
    rows: Sequence[Mapping[str, Any]],
    comparer: Comparer,
    warehouse: WarehouseResource,
    source: Source = "offline",
) -> list[Compared]:
    """Mark what these events say is gone, each after asking the portal for it."""
    ids: dict[str, set[int]] = defaultdict(set)
    whole: set[str] = set()
    for row in rows:
        deletion = deletion_of(str(row.get("EVENT_NAME", "")), row.get("EVENT_DATA"))
        if deletion and deletion.id is not None:
            ids[deletion.entity].add(deletion.id)
        elif deletion:
            whole.add(deletion.entity)
    known = {e.name: e for e in counted_entities(warehouse)}
    if "" in whole:  # of some smart process
        whole |= {name for name in known if name.startswith(("crm_dynamic_items_", "crm_smart_invoice"))}
    done = [
        comparer.settle(known[n], sorted(found), source) for n, found in sorted(ids.items()) if n in known
    ]
    return done + [comparer.compare(known[n]) for n in sorted(whole) if n in known]
