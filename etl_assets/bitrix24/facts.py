"""What one run knows of the portal: field lists and types, asked once for all entities of the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from etl_assets.bitrix24.entities import Entity
from etl_assets.bitrix24.structure import Structure, describe, list_call, questions
from resources.bitrix24 import Bitrix24Client, CommandError, ListCall, Window
from resources.bitrix24.faults import failure
from resources.clickhouse import WarehouseResource

STRUCTURE_KEPT = timedelta(hours=1)  # a tick of the change feed is content with field lists that are no older
TYPES_METHOD = "crm.enum.ownertype"  # lists all types, smart processes among them, to any user


class RunFacts:
    """Field lists of the run's entities and the portal's types.

    With `cached`, field lists that the warehouse noted within `STRUCTURE_KEPT` are taken from there. What
    must be asked goes into one request; a refusal is raised only for the entity that it concerns.
    """

    def __init__(self, client: Bitrix24Client, warehouse: WarehouseResource, *, cached: bool) -> None:
        self.client, self._warehouse, self._cached = client, warehouse, cached
        self._answers: dict[str, list[Any]] = {}
        self._structures: dict[str, Structure] = {}
        self._types: Any = None
        self._unkept: dict[str, str] = {}
        self._catalogs: list[tuple[int, int | None]] | None = None
        self._opened: dict[str, datetime] = {}

    def learn(self, entities: Iterable[Entity], window: Window | None = None) -> None:
        """Ask for everything that `entities` need and is not known yet, in as few requests as possible.

        With a `window` the first pages of objects come along in the same request. Their call follows from the
        answer, so it is guessed from the last known field list; a wrong guess costs two commands.
        """
        wanted = [e for e in entities if e.fields_method and e.name not in self._structures | self._answers]
        if self._cached:
            self._recall(wanted)
            wanted = [e for e in wanted if e.name not in self._structures]
        asked = [(e, call) for e in wanted for call in questions(e)]
        objects = [e for e in wanted if e.strategy == "object"] if window else []
        openings = [(list_call(e, self.last_known(e)), window or Window()) for e in objects]
        first = [(TYPES_METHOD, {})] if self._types is None else []
        answers = (
            self.client.call_many([*first, *(call for _, call in asked)], openings) if first or asked else []
        )
        if first:
            self._types = answers.pop(0)
        for (entity, _), answer in zip(asked, answers, strict=True):
            self._answers.setdefault(entity.name, []).append(answer)

    def prefetch(self, asks: Mapping[str, tuple[Sequence[ListCall], Window]]) -> None:
        """Read the opening pages of entities, given by name, in as few requests as possible."""
        self._opened.update(dict.fromkeys(asks, self.client.server_time()))
        openings = (
            (name, i, call, window) for name, (calls, window) in asks.items() for i, call in enumerate(calls)
        )
        self.client.prefetch({f"{name} {i}": (call, window) for name, i, call, window in openings})

    def clock(self, entity: Entity) -> datetime:
        """The portal's clock; for an entity whose opening pages were read beforehand, as it was then."""
        return self._opened.get(entity.name) or self.client.server_time()

    def _recall(self, entities: Iterable[Entity]) -> None:
        noted = self._warehouse.notes([_note(e) for e in entities])
        fresh = datetime.now(UTC) - STRUCTURE_KEPT
        for entity in entities:
            text, at = noted.get(_note(entity), ("", fresh))
            if text and at > fresh:
                self._structures[entity.name] = Structure.parse(text)

    def last_known(self, entity: Entity) -> Structure:
        """The structure as it was last, or that of a portal without user fields."""
        if self._warehouse.engine.blank:
            return Structure(universal=entity.universal or entity.contacts)
        text, _ = self._warehouse.notes([_note(entity)]).get(_note(entity), ("", None))
        return Structure.parse(text) if text else Structure(universal=entity.universal or entity.contacts)

    def structure(self, entity: Entity) -> Structure:
        """The entity's fields. Raises the portal's refusal of them."""
        if not entity.fields_method:
            return Structure()
        if entity.name not in self._structures:
            if entity.name not in self._answers:
                self.learn([entity])
            if entity.name in self._structures:  # noted lately
                return self._structures[entity.name]
            found = describe(entity, self._answers[entity.name])
            self._structures[entity.name] = found
            self._unkept[_note(entity)] = found.dump()
        return self._structures[entity.name]

    def catalogs(self) -> list[tuple[int, int | None]]:
        """(information block, that of the products whose offers it holds) of every product catalog, by id."""
        if self._catalogs is None:
            order = {"order": {"id": "ASC"}}
            call = ListCall("catalog.catalog.list", order, items="catalogs", paging="offset")
            ((_, rows),) = self.client.children(call, [{}])
            parents = ((int(r["iblockId"]), int(r.get("productIblockId") or 0) or None) for r in rows)
            self._catalogs = sorted(parents)
        return self._catalogs

    def keep(self) -> None:
        """Note what was learned for later runs; learning itself should not wait for the warehouse."""
        for name, text in self._unkept.items():
            self._warehouse.note(name, text)
        self._unkept.clear()

    def dynamic_types(self) -> dict[int, str]:
        """entityTypeId -> title of every smart process."""
        if self._types is None:
            self.learn([])
        if isinstance(self._types, CommandError):
            raise failure(self._types)
        found: dict[int, str] = {}
        for row in self._types if isinstance(self._types, list) else []:
            code = str(row.get("SYMBOL_CODE", "")) if isinstance(row, Mapping) else ""
            if code.startswith("DYNAMIC_") and code.removeprefix("DYNAMIC_").isdigit():
                found[int(code.removeprefix("DYNAMIC_"))] = str(row.get("NAME") or "")
        return dict(sorted(found.items()))


def _note(entity: Entity) -> str:
    return f"bitrix24/structure/{entity.name}"
