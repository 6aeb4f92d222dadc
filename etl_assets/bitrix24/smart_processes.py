"""Smart processes as assets of their own, made from what the portal says, without a change of code.

The state of the component is the portal's list of types with their field lists. It is refreshed by the
sensor `new_smart_processes`, or by hand: `dg utils refresh-defs-state`. A type that the portal no longer
has stays in the state as archived: its asset and its table are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from etl_assets.bitrix24.entities import Entity, smart_process
from etl_assets.bitrix24.found_assets import FoundAssets, State
from etl_assets.bitrix24.structure import describe
from resources.bitrix24 import PAGE, Bitrix24Client, CommandError
from resources.bitrix24.faults import failure

STATE_KEY = "bitrix24_smart_processes"
REFUSED = frozenset({"ACCESS_DENIED", "ERROR_METHOD_NOT_FOUND", "INSUFFICIENT_SCOPE"})


@dataclass(frozen=True, slots=True)
class PortalType:
    """A smart process as the portal lists it. `revision` changes when its title or a switch does."""

    entity_type_id: int
    title: str
    revision: str = ""


def portal_types(client: Bitrix24Client) -> list[PortalType]:
    """All smart processes, by number.

    `crm.type.list` needs a CRM administrator; for others `crm.enum.ownertype` names the types. Raises the
    portal's failure if both are refused: a failed read is never an empty portal.
    """
    rows: list[dict[str, Any]] = []
    while True:
        (page,) = client.call_many([("crm.type.list", {"order": {"id": "ASC"}, "start": len(rows)})])
        if isinstance(page, CommandError):
            if page.code in REFUSED:
                return _owner_types(client)
            raise failure(page)
        rows += page.get("types", [])
        if len(page.get("types", [])) < PAGE:
            break
    found = [
        PortalType(int(r["entityTypeId"]), str(r.get("title") or ""), str(r.get("updatedTime") or ""))
        for r in rows
    ]
    return sorted(found, key=lambda t: t.entity_type_id)


def _owner_types(client: Bitrix24Client) -> list[PortalType]:
    rows = client.call("crm.enum.ownertype")
    dynamic = [r for r in rows if str(r.get("SYMBOL_CODE", "")).startswith("DYNAMIC_")]
    return sorted(
        (PortalType(int(r["ID"]), str(r.get("NAME") or "")) for r in dynamic), key=lambda t: t.entity_type_id
    )


@dataclass
class SmartProcesses(FoundAssets):
    """One asset a smart process."""

    STATE_KEY: ClassVar[str] = STATE_KEY

    def found(self, client: Bitrix24Client) -> State:
        types = portal_types(client)
        answers = client.call_many([("crm.item.fields", {"entityTypeId": t.entity_type_id}) for t in types])
        state: State = {}
        for known, answer in zip(types, answers, strict=True):
            if isinstance(answer, CommandError):
                raise failure(answer)
            structure = describe(smart_process(known.entity_type_id, known.title), [answer])
            state[str(known.entity_type_id)] = {"title": known.title, "structure": structure.dump()}
        return state

    def entity(self, number: int, about: Mapping[str, Any]) -> Entity:
        return smart_process(number, about["title"], archived=about["archived"])
