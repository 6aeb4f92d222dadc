"""Rows that can only be listed by owner, whose tables say which owners changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import dagster as dg
import orjson

from etl_assets.bitrix24.entities import OWNER_CODES
from etl_assets.bitrix24.reading import EntityReader, code_of, rows_in
from etl_assets.bitrix24.structure import DATABASE, failure
from etl_assets.loading import OVERLAP, Batch, Bounds
from resources.bitrix24 import CommandError, ListCall, Window
from resources.clickhouse import Table
from resources.clickhouse.table import LOADED_AT, quote

OWNERS_PER_COMMAND = 50
CHANGE_TIMES = ("DATE_MODIFY", "UPDATED_TIME", "LAST_UPDATED", "CHANGED_DATE", "DATE_UPDATE")
OWNER = "$owner"  # stands for the owner's id in an entity's parameters


class ChildReader(EntityReader):
    """Rows that can only be listed by owner: read again for every owner that changed in the window.

    Afterwards the rows of those owners that were not listed again are retired.
    """

    TYPE_COLUMN = "ownerType"  # names the owner's type, where owners are of several

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
        modified = quote(next(m for m in CHANGE_TIMES if m in columns))
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
                where = {self.TYPE_COLUMN: owner_type} if owner_type else {}
                self.warehouse.retire_children(table, self.entity.owner, owners, source_time, where)

        return retire


_COLUMNS = f"SELECT name FROM system.columns WHERE database = '{DATABASE}' AND table = {{t:String}}"


class LinksReader(ChildReader):
    """`crm.<owner>.<other>.items.get`: one call an owner, 50 in a request."""

    # An owner whose own row names nobody has no links: it need not be asked. The first of these columns that
    # the owner's table has tells.
    NAMES: ClassVar = {
        "CONTACT_ID": {"CONTACT_IDS": "notEmpty({})", "CONTACT_ID": "ifNull({}, '0') NOT IN ('', '0')"},
        "COMPANY_ID": {"COMPANY_ID": "ifNull({}, '0') NOT IN ('', '0')"},
    }

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        parent = self.entity.parents[0]
        self._owners = {"": self._changed_owners(parent, bounds)}
        linked = self._changed_owners(parent, bounds, self._names_somebody(parent))
        call = ListCall(self.entity.method, paging="single")
        asked = [{"id": int(owner)} for owner in linked]
        yield from self._records(
            {**row, self.entity.owner: linked[i]}
            for i, rows in self.client.children(call, asked)
            for row in rows
        )

    def _names_somebody(self, parent: str) -> str:
        present = {name for (name,) in self.warehouse.query(_COLUMNS, {"t": parent})}
        tests = self.NAMES[self.entity.key[-1]].items()
        return next((test.format(quote(column)) for column, test in tests if column in present), "1")


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


def asked_of(params: Any, owner: int) -> Any:
    """The parameters with the owner's id in its place."""
    if isinstance(params, Mapping):
        return {key: asked_of(value, owner) for key, value in params.items()}
    return owner if params == OWNER else params


class OwnedReader(ChildReader):
    """One list an owner, 50 owners in a request."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        owners = self._changed_owners(self.entity.parents[0], bounds)
        self._owners = {"": owners}
        yield from self._records(self._rows_of(owners))

    def _rows_of(self, owners: Sequence[str]) -> Iterator[dict[str, Any]]:
        entity = self.entity
        key = entity.key[-1]
        call = ListCall(entity.method, items=entity.items, paging=entity.paging, cursor=key, id_key=key)
        asked = [asked_of(entity.params, int(owner)) for owner in owners]
        for index, rows in self.client.children(call, asked):
            yield from ({**row, entity.owner: owners[index]} for row in rows)


class EveryOwnerReader(OwnedReader):
    """A snapshot of the lists of all owners; with `kind` «and 0» also of an owner 0."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        parent = self.entity.parents[0]
        found = self.warehouse.query(_COLUMNS, {"t": parent})
        rows = (
            self.warehouse.query(f"SELECT ID FROM bi.{quote(parent)} ORDER BY toUInt64OrZero(ID)")
            if found
            else []
        )
        owners = [row[0] for row in rows] + (["0"] if self.entity.kind else [])
        yield from self._records(self._rows_of(owners))


class CommentsReader(ChildReader):
    """Timeline comments. They move LAST_ACTIVITY_TIME of their owner and nothing else, so the portal is asked
    which owners that is."""

    TYPE_COLUMN = "ENTITY_TYPE"
    OWNERS: ClassVar = {1: "lead", 2: "deal", 3: "contact", 4: "company"}

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        call = ListCall(self.entity.method, {"select": [c.source for c in self.entity.columns]})
        dynamic = {n: f"dynamic_{n}" for n in self.facts.dynamic_types()}
        for number, kind in {**self.OWNERS, **dynamic}.items():
            owners = self._active(number, bounds)
            self._owners[kind] = owners
            asked = [{"filter": {"ENTITY_ID": int(o), "ENTITY_TYPE": kind}} for o in owners]
            yield from self._records(row for _, rows in self.client.children(call, asked) for row in rows)

    def _active(self, number: int, bounds: Bounds) -> list[str]:
        """Owners of one type in whose timeline something happened; where the type keeps no such time, those
        that changed."""
        table = f"crm_{self.OWNERS[number]}" if number in self.OWNERS else f"crm_dynamic_items_{number}"
        call = self._by_activity(number, table)
        found: set[int] = set()
        try:
            for batch in self.client.scan(call, Window(bounds.since, bounds.until)):
                found.update(int(orjson.loads(line)[call.id_key]) for line in batch.body.split(b"\n"))
        except dg.Failure as refused:
            if code_of(refused) != "INVALID_ARG_VALUE":
                raise
            return self._changed_owners(table, bounds)
        return [str(owner) for owner in sorted(found)]

    def _by_activity(self, number: int, table: str) -> ListCall:
        """The classic method only where the field list names the time: it ignores filters it does not know,
        while the universal one refuses them."""
        time = "LAST_ACTIVITY_TIME"
        if number in self.OWNERS and (time,) in self.warehouse.query(_COLUMNS, {"t": table}):
            method = f"crm.{self.OWNERS[number]}.list"
            return ListCall(method, {"select": ["ID", time]}, modified=time)
        params = {"entityTypeId": number, "select": ["id", "lastActivityTime"]}
        return ListCall("crm.item.list", params, "id", "id", "items", modified="lastActivityTime")


class OpenLineReader(ChildReader):
    """Messages of open lines: CRM objects with open-line activities lead to chats, chats to messages."""

    PROVIDER = "IMOPENLINES_SESSION"

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        chosen = f"PROVIDER_ID = '{self.PROVIDER}'"
        activities = self._changed_owners("crm_activity", bounds, chosen)
        objects = self._objects(activities)
        chats = self._chats(objects)
        asked = [(self.entity.method, {"CHAT_ID": chat}) for chat in chats]
        for (chat, (kind, number)), answer in zip(chats.items(), self.client.call_many(asked), strict=True):
            if isinstance(answer, CommandError):
                raise failure(self.entity, answer)
            fixed = {"CHAT_ID": str(chat), "CRM_ENTITY_TYPE": kind, "CRM_ENTITY": number}
            fixed["SESSION_ID"] = answer.get("sessionId") or answer.get("SESSION_ID")
            yield from self._records({**row, **fixed} for row in rows_in(answer, "message"))

    def _objects(self, activities: Sequence[str]) -> list[tuple[str, str]]:
        types = "toInt64OrZero(toString(OWNER_TYPE_ID))"
        names = f"transform({types}, [1, 2, 3, 4], ['LEAD', 'DEAL', 'CONTACT', 'COMPANY'], '')"
        found: set[tuple[str, str]] = set()
        for start in range(0, len(activities), 5000):
            listed = ", ".join(f"'{int(a)}'" for a in activities[start : start + 5000])
            sql = f"SELECT DISTINCT {names}, toString(OWNER_ID) FROM bi.crm_activity WHERE ID IN ({listed})"
            found |= {(kind, number) for kind, number in self.warehouse.query(sql) if kind and number}
        return sorted(found)

    def _chats(self, objects: Sequence[tuple[str, str]]) -> dict[int, tuple[str, str]]:
        asked = [
            ("imopenlines.crm.chat.get", {"CRM_ENTITY_TYPE": kind, "CRM_ENTITY": int(n), "ACTIVE_ONLY": "N"})
            for kind, n in objects
        ]
        chats: dict[int, tuple[str, str]] = {}
        for source, answer in zip(objects, self.client.call_many(asked), strict=True):
            if isinstance(answer, CommandError):
                raise failure(self.entity, answer)
            chats.update({int(row["CHAT_ID"]): source for row in rows_in(answer, None)})
        return chats
