"""Assets that the portal defines: their list is the state of a component, refreshed by a sensor or by hand.

`dg utils refresh-defs-state` refreshes all of them. What the portal no longer has stays in the state as
archived: its asset and its table are kept.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg

# The state that is replaced is needed to know what was there before; Dagster has no public way to read it.
from dagster._core.storage.defs_state.base import DefsStateStorage
from dagster.components import DefsStateConfig, DefsStateConfigArgs

from etl_assets.bitrix24.assets import Bitrix24Settings, build_asset, view_spec
from etl_assets.bitrix24.entity import Entity
from etl_assets.bitrix24.structure import Structure
from resources.bitrix24 import Bitrix24Client, Bitrix24Resource

State = dict[str, dict[str, Any]]
"""Number -> {"title", "structure", "archived", …} of one asset."""


@dataclass
class FoundAssets(dg.StateBackedComponent):
    """One asset a thing that the portal lists, by the same factory as deals."""

    STATE_KEY: ClassVar[str] = ""

    settings: Callable[[], Bitrix24Settings]
    portal: Callable[[], Bitrix24Resource]

    def found(self, client: Bitrix24Client) -> State:
        """What there is now. Raises rather than leave something out."""
        raise NotImplementedError

    def entity(self, number: int, about: Mapping[str, Any]) -> Entity:
        """The entity of one of them."""
        raise NotImplementedError

    @property
    def defs_state_config(self) -> DefsStateConfig:
        args = DefsStateConfigArgs(management_type=_versioned(), refresh_if_dev=False)
        return DefsStateConfig.from_args(args, default_key=self.STATE_KEY)

    def write_state_to_path(self, state_path: Path) -> None:
        """Ask the portal and write the state."""
        client = self.portal().client
        try:
            state_path.write_text(with_archived(self.found(client), previous_state(self.STATE_KEY)))
        finally:
            client.close()

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """No assets where Dagster gives no state storage, as when the module is imported by hand."""
        return super().build_defs(context) if DefsStateStorage.get() else dg.Definitions()

    def build_defs_from_state(
        self, context: dg.ComponentLoadContext, state_path: Path | None
    ) -> dg.Definitions:
        """Assets and views of all of them; none before the first refresh."""
        state: State = json.loads(state_path.read_text()) if state_path else {}
        settings = self.settings()
        entities = {n: self.entity(int(n), about) for n, about in state.items()}
        assets = [
            build_asset(e, settings, Structure.parse(state[n]["structure"])) for n, e in entities.items()
        ]
        return dg.Definitions(assets=[*assets, *(view_spec(e) for e in entities.values())])


def with_archived(found: State, previous: str | None) -> str:
    """The new state as text: what there is, and what was there before as archived."""
    state = {number: {**about, "archived": False} for number, about in found.items()}
    for number, before in (json.loads(previous) if previous else {}).items():
        state.setdefault(number, {**before, "archived": True})
    return json.dumps(dict(sorted(state.items(), key=lambda item: int(item[0]))), ensure_ascii=False)


def previous_state(key: str) -> str | None:
    """The state that is about to be replaced."""
    storage = DefsStateStorage.get()
    version = storage.get_latest_version(key) if storage else None
    if storage is None or version is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        storage.download_state_to_path(key, version, path)
        return path.read_text()


def _versioned() -> Any:
    return DefsStateConfigArgs.versioned_state_storage().management_type
