"""Universal lists as assets of their own, `lists_<id>`: a list's title changes, its number does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from etl_assets.bitrix24.entity import DICTIONARIES, Entity
from etl_assets.bitrix24.found_assets import FoundAssets, State
from etl_assets.bitrix24.structure import describe
from etl_assets.bitrix24.work_reading import universal_lists
from resources.bitrix24 import Bitrix24Client, CommandError
from resources.bitrix24.faults import failure

STATE_KEY = "bitrix24_universal_lists"


def universal_list(number: int, kind: str, title: str, *, archived: bool = False) -> Entity:
    """One list. `kind` is its IBLOCK_TYPE_ID."""
    gone = " The portal no longer has the list: the table is kept and nothing loads it." if archived else ""
    return Entity(
        name=f"lists_{number}",
        about=f"Elements of the universal list «{title}».{gone}",
        method="lists.element.get",
        fields_method="lists.field.get",
        strategy="universal_list",
        cron=DICTIONARIES,
        kind=f"{kind}/{number}",
        title=title,
        archived=archived,
    )


@dataclass
class UniversalLists(FoundAssets):
    """One asset a universal list."""

    STATE_KEY: ClassVar[str] = STATE_KEY

    def found(self, client: Bitrix24Client) -> State:
        lists = universal_lists(client)
        asked = [("lists.field.get", {"IBLOCK_TYPE_ID": kind, "IBLOCK_ID": n}) for n, kind, _ in lists]
        state: State = {}
        for (number, kind, title), answer in zip(lists, client.call_many(asked), strict=True):
            if isinstance(answer, CommandError):
                raise failure(answer)
            structure = describe(universal_list(number, kind, title), [answer])
            state[str(number)] = {"kind": kind, "title": title, "structure": structure.dump()}
        return state

    def entity(self, number: int, about: Mapping[str, Any]) -> Entity:
        return universal_list(number, about["kind"], about["title"], archived=about["archived"])
