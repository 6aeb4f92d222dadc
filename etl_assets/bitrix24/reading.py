"""How each kind of entity is read: one strategy a class, chosen by the entity table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar

import dagster as dg
import orjson

from etl_assets.bitrix24.entities import OBJECTS, Entity
from etl_assets.bitrix24.facts import RunFacts
from etl_assets.bitrix24.structure import DATABASE, failure, list_call, relations_call
from etl_assets.loading import Batch, Bounds, Spent
from resources.bitrix24 import CommandError, ListCall, RecordBatch, Window
from resources.bitrix24.envelope import mark_false
from resources.bitrix24.faults import is_denied, is_gone
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.table import literal, quote
from resources.errors import PermanentSourceError

ROWS_PER_BATCH = 2500
# Answers that mean "this type has no such thing", not "something went wrong".
NOT_HERE = frozenset({"ENTITY_TYPE_NOT_SUPPORTED", "NOT_FOUND"})


class EntityReader:
    """Reads one entity; the base holds what all strategies share."""

    def __init__(
        self,
        entity: Entity,
        facts: RunFacts,
        warehouse: WarehouseResource,
        log: Callable[[str], None],
    ) -> None:
        self.entity, self.facts, self.client = entity, facts, facts.client
        self.warehouse, self.log = warehouse, log
        self._before = self.client.stats.snapshot()
        self.structure = facts.structure(entity)
        self.unknown_keys: frozenset[str] = frozenset()

    def clock(self) -> datetime:
        return self.facts.clock(self.entity)

    def spent(self) -> Spent:
        used = self.client.stats.since(self._before)
        return Spent(used.requests, used.commands, used.waited_rate_s + used.waited_operating_s, used.api_s)

    def calls(self) -> list[ListCall]:
        """The scans that this reader will make; their opening pages can be fetched together with others'."""
        return []

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        raise NotImplementedError

    def parts(self) -> list[tuple[ListCall, str]]:
        """The lists that make the table up, each with the SQL condition of its rows."""
        return [(call, "1") for call in self.calls()]

    def chosen(self, ids: Sequence[int], ranges: Sequence[tuple[int, int | None]] = ()) -> Iterator[Batch]:
        """The rows with these ids and those of the id ranges (lo, hi], whenever they changed."""
        for call, _ in self.parts():
            yield from self._complete(_batch(found) for found in self.client.by_ids(call, ids))
            for lo, hi in ranges:
                bounds = {f">{call.cursor}": lo} | ({} if hi is None else {f"<={call.cursor}": hi})
                yield from self._complete(self._scan(call.filtered(bounds), Bounds()))

    def _complete(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return batches

    def after(self, table: Table) -> Callable[[Bounds, datetime], None] | None:
        """What is to be done when all rows of the window are in; None for nothing."""
        return None

    def _scan(self, call: ListCall, bounds: Bounds, resume: str | None = None) -> Iterator[Batch]:
        for found in self.client.scan(call, Window(bounds.since, bounds.until), resume=resume):
            self._look_for_unknown(found.body)
            yield _batch(found)

    def _look_for_unknown(self, body: bytes) -> None:
        """Keys that answers hold and no column reads.

        Seen on the first row, so that nothing goes missing unnoticed.
        """
        if self.unknown_keys or not body:
            return
        known = {f.key for f in self.structure.fields} | {c.source for c in self.entity.columns}
        first = orjson.loads(body.split(b"\n", 1)[0].rstrip(b","))
        extras = (
            {k for k in first if k.startswith("property")} if self.entity.strategy == "catalog" else set()
        )
        self.unknown_keys = frozenset(first) - known - extras - _EXPECTED_EXTRAS

    def _records(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Batch]:
        """Decoded records as batches of bounded size."""
        pending: list[bytes] = []
        at = self.clock()
        for row in rows:
            pending.append(orjson.dumps(row))
            if len(pending) >= ROWS_PER_BATCH:
                yield Batch(mark_false(b"\n".join(pending)), len(pending), at)
                pending = []
        if pending:
            yield Batch(mark_false(b"\n".join(pending)), len(pending), at)

    def _of_each(
        self,
        call: ListCall,
        owners: Sequence[Mapping[str, Any]],
        bounds: Bounds,
        denied: dict[int, CommandError] | None = None,
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield (index of the owner, all its rows); owners that may not be read are noted in `denied`."""
        denied = {} if denied is None else denied
        yield from self.client.children(call, owners, denied.__setitem__)
        self._tell_denied(list(denied.values()), len(owners), bounds)

    def _refused(self, error: CommandError) -> CommandError:
        """The error, if it concerns what was asked for and nothing else; any other is raised."""
        if is_denied(error):
            return error
        raise failure(self.entity, error)

    def _tell_denied(self, denied: Sequence[CommandError], asked: int, bounds: Bounds) -> None:
        """One owner that may not be read must not keep the others back; a full load of which nothing may be
        read is a failure."""
        if not denied:
            return
        if len(denied) == asked and bounds.since is None:
            raise failure(self.entity, denied[0])
        self.log(f"{len(denied)} of {asked} may not be read and are left as they are: {denied[0].message}")


def _batch(found: RecordBatch) -> Batch:
    return Batch(found.body, found.count, found.read_at, found.days, found.progress)


# Universal answers hold these besides the listed fields; their content stands in other columns or tables.
_EXPECTED_EXTRAS = frozenset({"contacts", "fm", "entityTypeId", "isRecurring"})


class ObjectReader(EntityReader):
    """Objects with a field list: one scan of ids inside the window.

    What happens in the timeline moves the time of activity and not the change time, so the change feed has
    another scan for it. Partitions are days of the change time: their windows have none.
    """

    ACTIVITY = "LAST_ACTIVITY_TIME"

    def calls(self) -> list[ListCall]:
        changed = list_call(self.entity, self.structure)
        times = [f.key for f in self.structure.fields if f.name == self.ACTIVITY]
        return [changed, *(replace(changed, modified=time) for time in times)]

    def parts(self) -> list[tuple[ListCall, str]]:
        return super().parts()[:1]

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        changed, *active = self.calls()
        yield from self._complete(self._scan(changed, bounds, resume))
        if bounds.since and not bounds.until:
            for call in active:
                yield from self._complete(self._active(call, bounds, changed.modified or ""))

    def _active(self, call: ListCall, bounds: Bounds, change_time: str) -> Iterator[Batch]:
        """Rows that were not changed, and in whose timeline something happened; none where the portal cannot
        tell."""
        try:
            for batch in self._scan(call, bounds):
                rows = batch.body.split(b"\n")
                kept = [row for row in rows if not _reaches(orjson.loads(row).get(change_time), bounds.since)]
                if kept:
                    yield Batch(b"\n".join(kept), len(kept), batch.read_at)
        except PermanentSourceError as refused:
            self.log(f"{self.ACTIVITY} stays as it was when a row changed last: {refused.description}")

    def _complete(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return map(self._with_relations, batches) if self.structure.apart else batches

    def _with_relations(self, batch: Batch) -> Batch:
        rows = [orjson.loads(line) for line in batch.body.split(b"\n")]
        call, apart = relations_call(self.entity, self.structure), self.structure.apart
        relations: dict[str, Any] = {}
        for found in self.client.by_ids(call, [int(r["ID"]) for r in rows]):
            for item in map(orjson.loads, found.body.split(b"\n")):
                relations[str(item["id"])] = {column: item.get(key) or [] for column, key in apart}
        nothing = {column: [] for column, _ in apart}
        body = b"\n".join(orjson.dumps(row | relations.get(str(row["ID"]), nothing)) for row in rows)
        return Batch(body, batch.count, batch.read_at, batch.days, batch.progress)


def _reaches(text: Any, since: datetime | None) -> bool:
    """Whether a moment of the portal is at or after another."""
    try:
        return since is not None and datetime.fromisoformat(text) >= since
    except (TypeError, ValueError):
        return False


class VariantsReader(EntityReader):
    """One list for each value of something (a type, a catalog), read one after another into one table."""

    CONTEXT = ""  # the context column that the value goes to, if any

    def variants(self) -> list[tuple[str, ListCall]]:
        """(the value, its call)."""
        raise NotImplementedError

    def row(self, body: bytes) -> bytes:
        """The records of a batch as the table reads them."""
        return body

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        done, inner = _progress(resume)
        for value, call in self.variants():
            if value in done:
                continue
            try:
                for batch in self._scan(call, bounds, inner):
                    state = {"done": sorted(done), "inner": batch.progress}
                    progress = json.dumps(state) if batch.progress else None
                    context: dict[str, str] = {self.CONTEXT: value} if self.CONTEXT else {}
                    body = self.row(batch.body)
                    yield Batch(body, batch.count, batch.read_at, batch.days, progress, context)
            except dg.Failure as refused:
                if code_of(refused) not in NOT_HERE:
                    raise
                self.log(f"{value} has no {self.entity.name}")
            done.add(value)
            inner = None


class StageHistoryReader(VariantsReader):
    """One append-only list a type; types that keep no history say so and are skipped."""

    CONTEXT = "entityTypeId"
    FIXED: ClassVar = (1, 2, 31)

    def calls(self) -> list[ListCall]:
        return [call for _, call in self.variants()]

    def variants(self) -> list[tuple[str, ListCall]]:
        types = (*self.FIXED, *self.facts.dynamic_types())
        method = self.entity.method
        return [
            (str(t), ListCall(method, {"entityTypeId": t}, items="items", modified="CREATED_TIME"))
            for t in types
        ]


class CatalogReader(VariantsReader):
    """Products, offers or services: one list a catalog. Properties become one JSON column."""

    def variants(self) -> list[tuple[str, ListCall]]:
        return self._variants

    @cached_property
    def _variants(self) -> list[tuple[str, ListCall]]:
        offers = self.entity.kind == "offers"
        catalogs = [number for number, parent in self.facts.catalogs() if offers == bool(parent)]
        names = [c.source for c in self.entity.columns if c.source != "properties"]
        method = f"{self.entity.method.removesuffix('list')}getFieldsByFilter"
        described = self.client.call_many([(method, {"filter": {"iblockId": n}}) for n in catalogs])
        return [
            (str(number), listed(self.entity, {"select": names + properties, "filter": {"iblockId": number}}))
            for number, properties in zip(catalogs, map(self._properties, described), strict=True)
        ]

    def _properties(self, described: Any) -> list[str]:
        """Names of a catalog's properties, each of which has to be asked for."""
        if isinstance(described, CommandError):
            self.log(f"{self.entity.name}: its properties are not known: {described.message}")
            return ["property*"]  # not documented, but honoured by some portals
        wrapper = (self.entity.items or "").removesuffix("s")
        fields = described.get(wrapper, described) if isinstance(described, Mapping) else {}
        return [name for name in fields if _PROPERTY.fullmatch(name)]

    def parts(self) -> list[tuple[ListCall, str]]:
        return [(call, f"iblockId = {literal(value)}") for value, call in self.variants()]

    def row(self, body: bytes) -> bytes:
        return b"\n".join(orjson.dumps(_with_properties(orjson.loads(line))) for line in body.split(b"\n"))

    def chosen(self, ids: Sequence[int], ranges: Sequence[tuple[int, int | None]] = ()) -> Iterator[Batch]:
        for found in super().chosen(ids, ranges):
            yield replace(found, body=self.row(found.body))


_PROPERTY = re.compile(r"property\d+")


def _with_properties(row: dict[str, Any]) -> dict[str, Any]:
    properties = {k: row.pop(k) for k in [k for k in row if _PROPERTY.fullmatch(k)]}
    return {**row, "properties": properties}


def _progress(resume: str | None) -> tuple[set[str], str | None]:
    if not resume:
        return set(), None
    state = json.loads(resume)
    return set(map(str, state["done"])), state["inner"]


def code_of(error: dg.Failure) -> str:
    """The portal's error code that a failure carries."""
    value = error.metadata.get("bitrix24/code")
    return str(value.value if value is not None else "")


def listed(entity: Entity, params: Mapping[str, Any] | None = None) -> ListCall:
    """The list call that the entity's row of the table describes. Rows with a key of several columns have no
    id: none of the columns tells them apart."""
    key = entity.key[0] if len(entity.key) == 1 else ""
    return ListCall(
        entity.method,
        dict(entity.params if params is None else params),
        cursor=entity.cursor or key,
        id_key=entity.id_key or key,
        items=entity.items,
        modified=entity.modified,
        modified_key=entity.modified_key or None,
        paging=entity.paging,
        sort_style=entity.sort_style,
        among=entity.among,
    )


class ListReader(EntityReader):
    """A list with declared columns: read whole, or by changes if it has a change time."""

    def calls(self) -> list[ListCall]:
        return [] if self.entity.paging == "single" else [listed(self.entity)]

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        entity = self.entity
        if entity.paging == "single":
            yield from self._records(rows_in(self.client.call(entity.method, entity.params), entity.items))
            return
        call = self.calls()[0]
        newer = bool(entity.backdated and bounds.since and not bounds.until)
        highest = self._highest() if newer else 0
        yield from self._scan(call, bounds, resume if entity.modified else None)
        if newer:
            yield from self._scan(call.filtered({f">{call.cursor}": highest}), Bounds())

    def _highest(self) -> int:
        """The highest id that is here."""
        key, table = quote(self.entity.key[0]), f"{DATABASE}.{quote(self.entity.name)}"
        return int(self.warehouse.query(f"SELECT max(toInt64OrZero({key})) FROM {table}")[0][0])


def rows_in(answer: Any, items: str | None) -> list[Mapping[str, Any]]:
    found = answer.get(items, []) if items and isinstance(answer, Mapping) else answer
    if isinstance(found, Mapping):
        found = list(found.values())
    return [r for r in found or [] if isinstance(r, Mapping)]


class ManyCallsReader(EntityReader):
    """A small table gathered from several calls in one request."""

    def questions(self) -> Sequence[tuple[dict[str, Any], tuple[str, Mapping[str, Any]]]]:
        """(values that every row of the answer gets, the call)."""
        raise NotImplementedError

    def rows(self, answer: Any) -> Iterable[Mapping[str, Any]]:
        return rows_in(answer, self.entity.items)

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        asked = self.questions()
        answers = self.client.call_many([call for _, call in asked])
        errors = [answer for answer in answers if isinstance(answer, CommandError)]
        for error in errors:
            if not (error.code in NOT_HERE or is_gone(error) or is_denied(error)):
                raise failure(self.entity, error)
        self._tell_denied([e for e in errors if is_denied(e)], len(asked), bounds)
        yield from self._records(
            {**fixed, **row}
            for (fixed, _), answer in zip(asked, answers, strict=True)
            if not isinstance(answer, CommandError)
            for row in self.rows(answer)
        )


class PerTypeReader(ManyCallsReader):
    """Funnels: one call a type."""

    def questions(self) -> Sequence[tuple[dict[str, Any], tuple[str, Mapping[str, Any]]]]:
        types = [2, 1, 3, 4, 7, 31, *self.facts.dynamic_types()]
        return [({"entityTypeId": t}, (self.entity.method, {"entityTypeId": t})) for t in types]


CLASSIC_OBJECTS = tuple(e for e in OBJECTS if e.entity_type_id and not e.universal)


class UserFieldsReader(ManyCallsReader):
    """User fields of the five old objects, with their labels in Russian."""

    def questions(self) -> Sequence[tuple[dict[str, Any], tuple[str, Mapping[str, Any]]]]:
        return [
            (
                {},
                (
                    e.method.replace(".list", ".userfield.list"),
                    {"order": {"ID": "ASC"}, "filter": {"LANG": "ru"}},
                ),
            )
            for e in CLASSIC_OBJECTS
        ]


class EnumLabelsReader(ManyCallsReader):
    """Options of list fields, which the field lists carry."""

    def questions(self) -> Sequence[tuple[dict[str, Any], tuple[str, Mapping[str, Any]]]]:
        universal = [
            ("crm_smart_invoice", 31),
            *((f"crm_dynamic_items_{n}", n) for n in self.facts.dynamic_types()),
        ]
        return [
            *(({"ENTITY": e.name}, (e.fields_method, {})) for e in CLASSIC_OBJECTS),
            *(({"ENTITY": name}, ("crm.item.fields", {"entityTypeId": n})) for name, n in universal),
        ]

    def rows(self, answer: Any) -> Iterable[Mapping[str, Any]]:
        described = answer.get("fields", answer) if isinstance(answer, Mapping) else {}
        for key, field in described.items() if isinstance(described, Mapping) else ():
            for option in (field.get("items") or []) if isinstance(field, Mapping) else []:
                yield {
                    "FIELD_NAME": field.get("upperName") or key,
                    "ID": option.get("ID"),
                    "VALUE": option.get("VALUE"),
                }
