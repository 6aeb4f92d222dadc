"""Universal lists as assets of their own, `lists_<id>`: a list's title changes, its number does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from etl_assets.bitrix24.entity import DICTIONARIES, Entity
from etl_assets.bitrix24.found_assets import FoundAssets, State
from etl_assets.bitrix24.structure import describe
from etl_assets.bitrix24.work_reading import UniversalList, universal_lists
from resources.bitrix24 import Bitrix24Client, CommandError
from resources.bitrix24.faults import failure, is_denied

STATE_KEY = "bitrix24_universal_lists"


def universal_list(known: UniversalList, *, archived: bool = False) -> Entity:
    """One list as an entity."""
    gone = " The portal no longer has the list: the table is kept and nothing loads it." if archived else ""
    return Entity(
        name=f"lists_{known.number}",
        about=f"Elements of the universal list «{known.title}».{gone}",
        method="lists.element.get",
        fields_method="lists.field.get",
        strategy="universal_list",
        cron=DICTIONARIES,
        params=known.params,
        title=known.title,
        archived=archived,
    )


@dataclass
class UniversalLists(FoundAssets):
    """One asset a universal list."""

    STATE_KEY: ClassVar[str] = STATE_KEY

    def found(self, client: Bitrix24Client) -> State:
        lists = universal_lists(client)
        asked = [("lists.field.get", known.params) for known in lists]
        state: State = {}
        for known, answer in zip(lists, client.call_many(asked), strict=True):
            if isinstance(answer, CommandError):
                if is_denied(answer):  # listed, but not to be read
                    continue
                raise failure(answer)
            about = {"kind": known.kind, "title": known.title, "group": known.group}
            structure = describe(universal_list(known), [answer])
            state[str(known.number)] = {**about, "structure": structure.dump()}
        return state

    def entity(self, number: int, about: Mapping[str, Any]) -> Entity:
        known = UniversalList(number, about["kind"], about["title"], about.get("group", ""))
        return universal_list(known, archived=about["archived"])
