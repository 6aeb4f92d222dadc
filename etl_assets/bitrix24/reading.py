"""How each kind of entity is read: one strategy a class, chosen by the entity table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import dagster as dg
import orjson

from etl_assets.bitrix24.entities import OBJECTS, OWNER_CODES, Entity
from etl_assets.bitrix24.facts import RunFacts
from etl_assets.bitrix24.structure import DATABASE, failure, list_call, relations_call
from etl_assets.loading import OVERLAP, Batch, Bounds, Spent
from resources.bitrix24 import CommandError, ListCall, RecordBatch, Window
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.table import LOADED_AT, quote

OWNERS_PER_COMMAND = 50
ROWS_PER_BATCH = 2500
# Answers that mean "this type has no such thing", not "something went wrong".
NOT_HERE = frozenset({"ENTITY_TYPE_NOT_SUPPORTED", "NOT_FOUND"})
NO_RIGHT = frozenset({"ACCESS_DENIED"})


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
        return self.client.server_time()

    def spent(self) -> Spent:
        used = self.client.stats.since(self._before)
        return Spent(used.requests, used.commands, used.waited_rate_s + used.waited_operating_s, used.api_s)

    def calls(self) -> list[ListCall]:
        """The scans that this reader will make; their opening pages can be fetched together with others'."""
        return []

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        raise NotImplementedError

    def chosen(self, ids: Sequence[int], ranges: Sequence[tuple[int, int | None]] = ()) -> Iterator[Batch]:
        """The rows with these ids and those of the id ranges (lo, hi], whenever they changed."""
        raise NotImplementedError

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
        if self.unknown_keys or not body or not self.structure.fields:
            return
        first = orjson.loads(body.split(b"\n", 1)[0].rstrip(b","))
        self.unknown_keys = frozenset(first) - {f.key for f in self.structure.fields} - _EXPECTED_EXTRAS

    def _records(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Batch]:
        """Decoded records as batches of bounded size."""
        pending: list[bytes] = []
        at = self.clock()
        for row in rows:
            pending.append(orjson.dumps(row))
            if len(pending) >= ROWS_PER_BATCH:
                yield Batch(b"\n".join(pending), len(pending), at)
                pending = []
        if pending:
            yield Batch(b"\n".join(pending), len(pending), at)


def _batch(found: RecordBatch) -> Batch:
    return Batch(found.body, found.count, found.read_at, found.days, found.progress)


# Universal answers hold these besides the listed fields; their content stands in other columns or tables.
_EXPECTED_EXTRAS = frozenset({"contacts", "fm", "entityTypeId", "isRecurring"})


class ObjectReader(EntityReader):
    """Objects with a field list: one scan of ids inside the window."""

    def calls(self) -> list[ListCall]:
        return [list_call(self.entity, self.structure)]

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        return self._complete(self._scan(self.calls()[0], bounds, resume))

    def chosen(self, ids: Sequence[int], ranges: Sequence[tuple[int, int | None]] = ()) -> Iterator[Batch]:
        call = self.calls()[0]
        yield from self._complete(_batch(found) for found in self.client.by_ids(call, ids))
        for lo, hi in ranges:
            bounds = {f">{call.cursor}": lo} | ({} if hi is None else {f"<={call.cursor}": hi})
            yield from self._complete(self._scan(call.filtered(bounds), Bounds()))

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


class StageHistoryReader(EntityReader):
    """One append-only list a type; types that keep no history say so and are skipped."""

    FIXED: ClassVar = (1, 2, 31)

    def calls(self) -> list[ListCall]:
        types = (*self.FIXED, *self.facts.dynamic_types())
        return [
            ListCall(self.entity.method, {"entityTypeId": t}, items="items", modified="CREATED_TIME")
            for t in types
        ]

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        done, inner = _progress(resume)
        for call in self.calls():
            type_id = call.params["entityTypeId"]
            if type_id in done:
                continue
            try:
                for batch in self._scan(call, bounds, inner):
                    progress = (
                        json.dumps({"done": sorted(done), "inner": batch.progress})
                        if batch.progress
                        else None
                    )
                    context = {"entityTypeId": str(type_id)}
                    yield Batch(batch.body, batch.count, batch.read_at, batch.days, progress, context)
            except dg.Failure as refused:
                if code_of(refused) not in NOT_HERE:
                    raise
                self.log(f"Type {type_id} keeps no stage history")
            done.add(type_id)
            inner = None


def _progress(resume: str | None) -> tuple[set[int], str | None]:
    if not resume:
        return set(), None
    state = json.loads(resume)
    return set(state["done"]), state["inner"]


def code_of(error: dg.Failure) -> str:
    """The portal's error code that a failure carries."""
    value = error.metadata.get("bitrix24/code")
    return str(value.value if value is not None else "")


class ChildReader(EntityReader):
    """Rows that can only be listed by owner: read again for every owner that changed in the window.

    Afterwards the rows of those owners that were not listed again are retired.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._owners: dict[str, list[str]] = {}

    def _changed_owners(self, parent: str, bounds: Bounds, condition: str = "1") -> list[str]:
        """Ids of owners that changed in the window, from the parent's table.

        With an open end, owners count too whose rows have landed since this table was loaded last, whenever
        they changed: the parent may have been late, or have been loaded from its beginning.
        """
        columns = {name for (name,) in self.warehouse.query(_COLUMNS, {"t": parent})}
        if not columns:
            return []
        modified = quote(next(m for m in ("DATE_MODIFY", "UPDATED_TIME") if m in columns))
        either = ["1"] if bounds.since is None else []
        if bounds.since and not bounds.overlap:
            either.append(f"{modified} >= {{since:DateTime64(3)}}")
        landed, mark = self._landed(parent) if bounds.since and not bounds.until else (None, None)
        if landed:
            # Of owners that were here before only changed ones are news: a second full load brings none.
            news = f" AND {modified} >= {{mark:DateTime64(3)}}" if mark else ""
            either.append(f"({LOADED_AT} >= toDateTime({{landed:DateTime64(3)}}){news})")
        if not either:
            return []
        until = f"{modified} < {{until:DateTime64(3)}}" if bounds.until else "1"
        values = {"since": bounds.since, "until": bounds.until, "landed": landed, "mark": mark}
        found = self.warehouse.query(
            f"SELECT ID FROM {DATABASE}.{quote(parent)} FINAL "
            f"WHERE ({' OR '.join(either)}) AND {until} AND {condition} ORDER BY toUInt64OrZero(ID)",
            {name: at for name, at in values.items() if at},
        )
        return [row[0] for row in found]

    def _landed(self, parent: str) -> tuple[datetime | None, datetime | None]:
        """(since when rows of the parent may be new here, since when they must have changed to be news)."""
        own = f"{DATABASE}/{self.entity.name}"
        found = self.warehouse.landed_since(f"{DATABASE}/{parent}", own)
        if found is None:
            return None, None
        landed, mark = found
        return landed, mark - OVERLAP if mark else None

    def after(self, table: Table) -> Callable[[Bounds, datetime], None] | None:
        def retire(bounds: Bounds, source_time: datetime) -> None:
            for owner_type, owners in self._owners.items():
                where = {"ownerType": owner_type} if owner_type else {}
                self.warehouse.retire_children(table, self.entity.owner, owners, source_time, where)

        return retire


_COLUMNS = f"SELECT name FROM system.columns WHERE database = '{DATABASE}' AND table = {{t:String}}"


class LinksReader(ChildReader):
    """`crm.<owner>.<other>.items.get`: one call an owner, 50 in a request."""

    # An owner whose own row names nobody has no links: it need not be asked.
    LINKED: ClassVar = {
        "crm_deal": "notEmpty(CONTACT_IDS)",
        "crm_contact": "ifNull(COMPANY_ID, '0') NOT IN ('', '0')",
    }

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        parent = self.entity.parents[0]
        self._owners = {"": self._changed_owners(parent, bounds)}
        linked = self._changed_owners(parent, bounds, self.LINKED[parent])
        call = ListCall(self.entity.method, paging="single")
        asked = [{"id": int(owner)} for owner in linked]
        yield from self._records(
            {**row, self.entity.owner: linked[i]}
            for i, rows in self.client.children(call, asked)
            for row in rows
        )


class ProductRowsReader(ChildReader):
    """`crm.item.productrow.list`: 50 owners a call, 50 calls a request."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        codes = {**OWNER_CODES, **{f"crm_dynamic_items_{n}": f"T{n:x}" for n in self.facts.dynamic_types()}}
        call = ListCall(self.entity.method, cursor="id", id_key="id", items="productRows")
        for parent, code in codes.items():
            owners = self._changed_owners(parent, bounds)
            self._owners[code] = owners
            asked = [
                {
                    "filter": {
                        "=ownerType": code,
                        "=ownerId": [int(o) for o in owners[at : at + OWNERS_PER_COMMAND]],
                    }
                }
                for at in range(0, len(owners), OWNERS_PER_COMMAND)
            ]
            yield from self._records(row for _, rows in self.client.children(call, asked) for row in rows)


class ListReader(EntityReader):
    """A list that is read whole."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        entity = self.entity
        key = entity.key[0]
        call = ListCall(
            entity.method,
            dict(entity.params),
            cursor=key,
            id_key=key,
            items=entity.items,
            paging=entity.paging,
            sort_style="sort_order" if entity.method == "user.get" else "order",
        )
        if entity.paging == "single":
            yield from self._records(_listed(self.client.call(entity.method, entity.params), entity.items))
        else:
            yield from self._scan(call, bounds)


def _listed(answer: Any, items: str | None) -> list[Mapping[str, Any]]:
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
        return _listed(answer, self.entity.items)

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        asked = self.questions()
        answers = self.client.call_many([call for _, call in asked])
        refused = 0
        for (_, (method, params)), answer in zip(asked, answers, strict=True):
            if isinstance(answer, CommandError):
                if answer.code not in NOT_HERE | NO_RIGHT:
                    raise failure(self.entity, answer)
                refused += answer.code in NO_RIGHT
                self.log(f"{method} {dict(params)}: {answer.message}")
        if refused and refused == sum(isinstance(a, CommandError) for a in answers) == len(answers):
            raise failure(self.entity, next(a for a in answers if isinstance(a, CommandError)))
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


READERS: dict[str, type[EntityReader]] = {
    "object": ObjectReader,
    "stage_history": StageHistoryReader,
    "product_rows": ProductRowsReader,
    "links": LinksReader,
    "list": ListReader,
    "per_type": PerTypeReader,
    "user_fields": UserFieldsReader,
    "enum_labels": EnumLabelsReader,
}

__all__ = ["READERS", "EntityReader"]
