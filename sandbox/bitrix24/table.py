"""Rows of one entity: numpy arrays for ids and times, generated values, an overlay for changes."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from sandbox.bitrix24.data import (
    PROFILES,
    OwnColumn,
    World,
    id_array,
    mix,
    mix_array,
    profile_value,
    salt_of,
    stage_bundle,
    time_arrays,
)
from sandbox.bitrix24.fields import FieldSpec

Row = dict[str, Any]
_BLANK = PROFILES
_NOT_FOUND = -1


class Table:
    """All rows ever created in one entity; position in the arrays is ascending id.

    Deleted rows keep their position (`alive` is False), which is also how they are restored.
    `hidden` rows exist but the webhook user has no right to see them.
    """

    def __init__(
        self,
        key: str,
        type_id: int,
        specs: tuple[FieldSpec, ...],
        own: dict[str, OwnColumn],
        world: World,
        count: int,
        gaps: float,
        *,
        created_field: str,
        modified_field: str,
        categories: tuple[int, ...] = (),
    ) -> None:
        self.key, self.type_id, self.world = key, type_id, world
        self.created_field, self.modified_field = created_field, modified_field
        self.categories = categories
        self._own = own
        self.salt = salt_of(world.seed, key)
        self.ids = id_array(count, gaps, self.salt)
        self.hashes = mix_array(self.ids, self.salt)
        self.created, self.modified = time_arrays(self.ids, self.hashes, world.epoch)
        self.profile = (self.hashes >> 40) % PROFILES
        self.alive = np.ones(count, dtype=bool)
        self.hidden = np.zeros(count, dtype=bool)
        self.touched = np.zeros(count, dtype=bool)
        self.size = count
        self.overlay: dict[int, Row] = {}
        self.version = 0
        self.cache: dict[Any, Any] = {}
        """What callers derive from the metadata; emptied when it changes."""
        self._profiles: dict[str, list[Any]] = {}
        self._profile_salts = [mix(self.salt + number) for number in range(PROFILES)]
        self.set_fields(specs)

    def set_fields(self, specs: tuple[FieldSpec, ...]) -> None:
        """Replace the metadata; values of unchanged fields stay the same."""
        self.fields = {spec.name: spec for spec in specs}
        self.by_camel = {spec.camel: spec for spec in specs if spec.universal}
        self.version += 1
        self._profiles.clear()
        self.cache.clear()

    def add_field(self, spec: FieldSpec) -> FieldSpec:
        if spec.camel in self.by_camel:  # the portal falls back to the original name on a clash
            spec = replace(spec, camel=spec.name)
        self.set_fields((*self.fields.values(), spec))
        return spec

    def remove_field(self, name: str) -> None:
        self.set_fields(tuple(spec for spec in self.fields.values() if spec.name != name))

    def own(self, name: str) -> OwnColumn | None:
        """The function of a column computed from the id; None for profile columns."""
        return self._own.get(name)

    def profile_values(self, name: str) -> list[Any]:
        """Values of a profile column for each profile, the blank one last."""
        values = self._profiles.get(name)
        if values is None:
            values = self._profiles[name] = self._make_profiles(self.fields[name])
        return values

    def _make_profiles(self, spec: FieldSpec) -> list[Any]:
        salts = self._profile_salts
        if spec.name in stage_bundle(self.type_id, self.categories, 0) and not spec.user_field:
            bundles = (stage_bundle(self.type_id, self.categories, salt >> 2) for salt in salts)
            values = [bundle[spec.name] for bundle in bundles]
        else:
            values = [profile_value(self.world, spec, salt) for salt in salts]
        return [*values, [] if spec.multiple else None]

    def value(self, position: int, name: str) -> Any:
        """Canonical value of one column at a position."""
        identifier = int(self.ids[position])
        if self.touched[position]:
            changed = self.overlay[identifier]
            if name in changed:
                return changed[name]
        own = self._own.get(name)
        if own is not None:
            times = int(self.created[position]), int(self.modified[position])
            return own(identifier, int(self.hashes[position]), *times)
        return self.profile_values(name)[self.profile[position]]

    def row(self, position: int) -> Row:
        return {name: self.value(position, name) for name in self.fields}

    def appended(self, position: int) -> bool:
        """Whether the row was created after the start rather than generated."""
        return self.profile[position] == _BLANK

    def find(self, identifier: int) -> int:
        """Position of an id, dead or alive; -1 when there never was such a row."""
        position = int(np.searchsorted(self.ids[: self.size], identifier))
        if position < self.size and self.ids[position] == identifier:
            return position
        return _NOT_FOUND

    def find_live(self, identifier: int) -> int:
        position = self.find(identifier)
        visible = position >= 0 and self.alive[position] and not self.hidden[position]
        return position if visible else _NOT_FOUND

    def live(self) -> np.ndarray:
        """Positions of rows that exist and are visible."""
        return np.flatnonzero(self.alive[: self.size] & ~self.hidden[: self.size])

    def live_ids(self) -> Iterator[int]:
        return iter(self.ids[self.live()].tolist())

    @property
    def max_id(self) -> int:
        return int(self.ids[self.size - 1]) if self.size else 0

    def append(self, values: Row, now: int, identifier: int | None = None) -> int:
        """Add a row; columns not given are blank. Returns its id (greater than any before)."""
        new_id = max(self.max_id + 1, identifier or 0)
        if self.size == len(self.ids):
            self._grow()
        position = self.size
        self.ids[position], self.hashes[position] = new_id, 0
        self.created[position] = self.modified[position] = now
        self.profile[position] = _BLANK
        self.alive[position], self.hidden[position], self.touched[position] = True, False, True
        self.size += 1
        kept = {self.created_field, self.modified_field, "ID"}
        blank = {n: [] if s.multiple else None for n, s in self.fields.items() if n not in kept}
        times = {self.created_field, self.modified_field}
        self.overlay[new_id] = blank | {k: v for k, v in values.items() if k not in times | {"ID"}}
        self.version += 1
        return new_id

    def _grow(self) -> None:
        extra = max(256, len(self.ids) // 8)
        for name in ("ids", "hashes", "created", "modified", "profile", "alive", "hidden", "touched"):
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(extra, dtype=array.dtype)]))

    def change(self, position: int, values: Row, now: int | None) -> None:
        """Set columns; `now=None` keeps the modification time (what the portal does for some changes)."""
        if now is not None:
            self._freeze_derived(position)
            self.modified[position] = now
        skipped = {"ID", self.created_field, self.modified_field}
        changed = self.overlay.setdefault(int(self.ids[position]), {})
        changed.update({name: value for name, value in values.items() if name not in skipped})
        self.touched[position] = True
        self.version += 1

    def _freeze_derived(self, position: int) -> None:
        """Columns derived from the modification time must not move with it."""
        names = ("MOVED_TIME", "DATE_CLOSED", "LAST_ACTIVITY_TIME")
        derived = {n: self.value(position, n) for n in names if n in self.fields}
        self.overlay[int(self.ids[position])] = derived | self.overlay.get(int(self.ids[position]), {})
        self.touched[position] = True

    def set_alive(self, position: int, alive: bool) -> None:
        self.alive[position] = alive
        self.version += 1

    def set_hidden(self, positions: np.ndarray, hidden: bool) -> None:
        self.hidden[positions] = hidden
        self.version += 1
