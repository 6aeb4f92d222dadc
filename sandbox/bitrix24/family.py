"""What belongs to what: rows deleted and restored with their owner, and which of its times they move."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from sandbox.bitrix24.portal import Portal

Member = tuple[str, int]
_TYPES = {1: "lead", 2: "deal", 3: "contact", 4: "company", 7: "quote", 31: "smart_invoice"}


@dataclass(frozen=True)
class Child:
    """Rows of a small entity, which name their owner in `column`; `fixed` tells owners of one id apart.

    `touches`: adding, changing or deleting one moves the owner's change time, or its time of activity.
    """

    entity: str
    column: str
    fixed: tuple[tuple[str, str], ...] = ()
    touches: str = ""

    def owned(self, row: dict[str, Any], owner: int) -> bool:
        same = all(str(row.get(name)) == value for name, value in self.fixed)
        return same and str(row.get(self.column)) == str(owner)


def _comments(kind: str) -> Child:
    return Child("timeline_comment", "ENTITY_ID", (("ENTITY_TYPE", kind),), touches="activity")


def _links(type_id: int) -> Child:
    return Child("requisite_link", "ENTITY_ID", (("ENTITY_TYPE_ID", str(type_id)),))


def _requisites(type_id: int) -> Child:
    return Child("requisite", "ENTITY_ID", (("ENTITY_TYPE_ID", str(type_id)),))


CHILDREN: dict[str, tuple[Child, ...]] = {
    "lead": (_comments("lead"),),
    "deal": (_comments("deal"), _links(2)),
    "contact": (_comments("contact"), _requisites(3)),
    "company": (_comments("company"), _requisites(4)),
    "quote": (_links(7),),
    "smart_invoice": (_links(31),),
    "requisite": (
        Child("requisite_bank", "ENTITY_ID"),
        Child("address", "ENTITY_ID", (("ENTITY_TYPE_ID", "8"),)),
    ),
    "task": (
        Child("elapsed", "TASK_ID", touches="change"),
        Child("task_comment", "_task", touches="change"),
        Child("task_history", "_task"),
        Child("task_result", "_task", touches="change"),
        Child("task_checklist", "_task", touches="change"),
    ),
    "product": (Child("price", "productId"),),
    "offer": (Child("price", "productId"),),
    "service": (Child("price", "productId"),),
    "group": (Child("member", "_group"), Child("stage", "_group")),
    "calendar_section": (Child("calendar_event", "SECT_ID"),),
}


def _children(portal: "Portal") -> dict[str, tuple[Child, ...]]:
    """The children of every entity, items of smart processes too."""
    items = [f"dynamic_{row['entityTypeId']}" for row in portal.processes]
    return CHILDREN | {item: (_comments(item),) for item in items}


def members(portal: "Portal", entity: str, owner: int) -> Iterator[Member]:
    """The live rows that belong to a row: (entity, id). Activities are those of their main owner."""
    for child in _children(portal).get(entity, ()) if portal.has_small else ():
        rows = portal.small[child.entity].rows
        yield from [(child.entity, number) for number, row in rows.items() if child.owned(row, owner)]
    type_id = next((number for number, name in _TYPES.items() if name == entity), 0)
    if type_id and "activity" in portal.tables:
        table = portal.tables["activity"]
        size, owner_id = table.size, cast("Any", table.own("OWNER_ID"))  # of a number or of an array of them
        likely = owner_id(table.ids[:size], table.hashes[:size], 0, 0) == owner
        for position in np.flatnonzero(table.alive[:size] & (likely | table.touched[:size])).tolist():
            of = str(table.value(position, "OWNER_TYPE_ID")), str(table.value(position, "OWNER_ID"))
            if of == (str(type_id), str(owner)):
                yield "activity", int(table.ids[position])


def owner_of(portal: "Portal", entity: str, row: dict[str, Any]) -> tuple[str, int, str] | None:
    """(entity, id, which time moves) of the owner that a change of this row touches."""
    for owner, children in _children(portal).items():
        for child in children:
            number = str(row.get(child.column))
            mine = child.entity == entity and number.isdigit() and child.owned(row, int(number))
            if mine and child.touches:
                return owner, int(number), child.touches
    return None
