"""Smart processes as assets of their own, made from what the portal says, without a change of code.

The state of the component is the portal's list of types with their field lists. It is refreshed by the
sensor `new_smart_processes`, or by hand: `dg utils refresh-defs-state`. A type that the portal no longer
has stays in the state as archived: its asset and its table are kept.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg

# The state that is replaced is needed to know what was there before; Dagster has no public way to read it.
from dagster._core.storage.defs_state.base import DefsStateStorage
from dagster.components import DefsStateConfig, DefsStateConfigArgs

from etl_assets.bitrix24.assets import Bitrix24Settings, build_asset, view_spec
from etl_assets.bitrix24.entities import smart_process
from etl_assets.bitrix24.structure import Structure, describe
from resources.bitrix24 import PAGE, Bitrix24Client, Bitrix24Resource, CommandError
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


def read_state(client: Bitrix24Client, previous: str | None) -> str:
    """The component's state: every smart process with its fields, and the archived ones of `previous`."""
    types = portal_types(client)
    answers = client.call_many([("crm.item.fields", {"entityTypeId": t.entity_type_id}) for t in types])
    state: dict[str, Any] = {}
    for known, answer in zip(types, answers, strict=True):
        entity = smart_process(known.entity_type_id, known.title)
        if isinstance(answer, CommandError):
            raise failure(answer)
        state[str(known.entity_type_id)] = {
            "title": known.title,
            "structure": describe(entity, [answer]).dump(),
            "archived": False,
        }
    for number, before in (json.loads(previous) if previous else {}).items():
        state.setdefault(number, {**before, "archived": True})
    return json.dumps(dict(sorted(state.items(), key=lambda item: int(item[0]))), ensure_ascii=False)


@dataclass
class SmartProcesses(dg.StateBackedComponent):
    """One asset a smart process, by the same factory as deals."""

    settings: Callable[[], Bitrix24Settings]
    portal: Callable[[], Bitrix24Resource]

    @property
    def defs_state_config(self) -> DefsStateConfig:
        args = DefsStateConfigArgs(management_type=_versioned(), refresh_if_dev=False)
        return DefsStateConfig.from_args(args, default_key=STATE_KEY)

    def write_state_to_path(self, state_path: Path) -> None:
        """Ask the portal and write the state."""
        client = self.portal().client
        try:
            state_path.write_text(read_state(client, _previous()))
        finally:
            client.close()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """No assets where Dagster gives no state storage, as when the module is imported by hand."""
        return super().build_defs(context) if DefsStateStorage.get() else dg.Definitions()

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        """Assets and views of all smart processes; none before the first refresh."""
        state = json.loads(state_path.read_text()) if state_path else {}
        settings = self.settings()
        entities = {n: smart_process(int(n), t["title"], archived=t["archived"]) for n, t in state.items()}
        return dg.Definitions(
            assets=[
                *(
                    build_asset(e, settings, Structure.parse(state[n]["structure"]))
                    for n, e in entities.items()
                ),
                *(view_spec(e) for e in entities.values()),
            ]
        )


def _versioned() -> Any:
    return DefsStateConfigArgs.versioned_state_storage().management_type


def _previous() -> str | None:
    """The state that is about to be replaced."""
    storage = DefsStateStorage.get()
    version = storage.get_latest_version(STATE_KEY) if storage else None
    if storage is None or version is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        storage.download_state_to_path(STATE_KEY, version, path)
        return path.read_text()
