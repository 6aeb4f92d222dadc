"""Readers of entities with ways of their own: elapsed time, calendar, work time, universal lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson

from etl_assets.bitrix24.reading import EntityReader, ManyCallsReader, rows_in
from etl_assets.loading import Batch, Bounds
from resources.bitrix24 import PAGE, Bitrix24Client, ListCall
from resources.errors import PermanentSourceError

PAGES = 50  # of one request
CALENDAR_REACH = timedelta(days=365)
LIST_TYPES = ("lists", "bitrix_processes", "lists_socnet")


class ElapsedReader(EntityReader):
    """`task.elapseditem.getlist`: positional arguments (ORDER, FILTER, SELECT, PARAMS), pages by number.

    Each request asks for pages after the last id read. Pages are only believed if the portal counts the same
    rows for each of them: otherwise entries came or went meanwhile, and the request is made again.
    """

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        above, attempts = 0, 0
        while True:
            rows, totals = self._pages(bounds, above)
            ids = [int(r["ID"]) for r in rows]
            if len(set(totals)) > 1 or ids != sorted(set(ids)) or len(ids) != min(totals[0], PAGES * PAGE):
                attempts += 1
                if attempts > 5:
                    raise PermanentSourceError(
                        f"Bitrix24 {self.entity.method}: pages and counts keep disagreeing."
                    )
                continue
            attempts = 0
            yield from self._records(rows)
            if len(rows) >= totals[0]:
                return
            above = ids[-1]

    def _pages(self, bounds: Bounds, above: int) -> tuple[list[dict[str, Any]], list[int]]:
        condition: dict[str, Any] = {">ID": above}
        if bounds.since:
            condition[">=CREATED_DATE"] = bounds.since
        if bounds.until:
            condition["<CREATED_DATE"] = bounds.until
        first, total = self._page(condition, 1)
        rows, totals = list(first), [total]
        wanted = range(2, min(PAGES, -(-total // PAGE)) + 1)
        for page, count in self.client.counted(
            [(self.entity.method, self._arguments(condition, n)) for n in wanted]
        ):
            rows += page
            totals.append(count)
        return rows, totals

    def _page(self, condition: Mapping[str, Any], number: int) -> tuple[list[dict[str, Any]], int]:
        return self.client.counted([(self.entity.method, self._arguments(condition, number))])[0]

    def _arguments(self, condition: Mapping[str, Any], number: int) -> dict[str, Any]:
        paging = {"NAV_PARAMS": {"nPageSize": PAGE, "iNumPage": number}}
        return {"0": {"ID": "asc"}, "1": dict(condition), "2": ["*"], "3": paging}


class CalendarReader(ManyCallsReader):
    """Calendars or their events, owner by owner: employees, groups, the company."""

    def questions(self) -> Sequence[tuple[dict[str, Any], tuple[str, Mapping[str, Any]]]]:
        owners = [
            ("company_calendar", "0"),
            *self._owners("user", "user"),
            *self._owners("group", "sonet_group"),
        ]
        window: dict[str, Any] = {}
        if self.entity.kind == "events":
            today = self.clock().date()
            window = {"from": str(today - CALENDAR_REACH), "to": str(today + CALENDAR_REACH)}
        method = self.entity.method
        return [({}, (method, {"type": kind, "ownerId": owner, **window})) for kind, owner in owners]

    def _owners(self, kind: str, table: str) -> list[tuple[str, str]]:
        sql = "SELECT count() FROM system.tables WHERE database = 'bi' AND name = {t:String}"
        if not self.warehouse.query(sql, {"t": table})[0][0]:
            return []
        rows = self.warehouse.query(f"SELECT ID FROM bi.{table} ORDER BY toUInt64OrZero(ID)")
        return [(kind, row[0]) for row in rows]


class PerKindReader(ManyCallsReader):
    """A list a kind, each over as many pages as it has: kinds of lists, catalogs, open lines."""

    def questions(self) -> Sequence[tuple[dict[str, Any], tuple[str, Mapping[str, Any]]]]:
        method = self.entity.method
        if self.entity.kind == "list types":
            return [({}, (method, {"IBLOCK_TYPE_ID": t, "IBLOCK_ORDER": {"ID": "ASC"}})) for t in LIST_TYPES]
        if self.entity.kind == "catalogs":
            order = {"order": {"id": "ASC"}}
            return [({}, (method, {"filter": {"iblockId": i}, **order})) for i, _ in self.facts.catalogs()]
        return [
            ({}, (method, {"PARAMS": {"select": ["*"], "order": {"ID": "ASC"}, "limit": 200, "offset": 0}}))
        ]

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        if self.entity.kind == "lines":
            yield from self._records(self._lines())
            return
        asked = [call for _, call in self.questions()]
        call = ListCall(self.entity.method, items=self.entity.items, paging="offset")
        for _, rows in self.client.children(call, [params for _, params in asked]):
            yield from self._records(rows)

    def _lines(self) -> Iterator[Mapping[str, Any]]:
        """Pages of 200 by offset, inside PARAMS."""
        (_, (method, params)), offset = self.questions()[0], 0
        while True:
            answer = self.client.call(method, {"PARAMS": {**params["PARAMS"], "offset": offset}})
            rows = rows_in(answer, None)
            yield from rows
            if len(rows) < params["PARAMS"]["limit"]:
                return
            offset += len(rows)


class ListFieldsReader(ManyCallsReader):
    """Fields, or sections, of every universal list."""

    def questions(self) -> Sequence[tuple[dict[str, Any], tuple[str, Mapping[str, Any]]]]:
        return [
            ({"IBLOCK_ID": str(number)}, (self.entity.method, {"IBLOCK_TYPE_ID": kind, "IBLOCK_ID": number}))
            for number, kind, _ in universal_lists(self.client)
        ]

    def rows(self, answer: Any) -> list[Mapping[str, Any]]:
        return rows_in(answer, None)


def universal_lists(client: Bitrix24Client) -> list[tuple[int, str, str]]:
    """(id, type, title) of every universal list, by id. A type that may not be read is left out."""
    call = ListCall("lists.get", paging="offset")
    asked = [{"IBLOCK_TYPE_ID": t, "IBLOCK_ORDER": {"ID": "ASC"}} for t in LIST_TYPES]
    found = [
        (int(row["ID"]), str(row.get("IBLOCK_TYPE_ID") or ""), str(row.get("NAME") or ""))
        for _, rows in client.children(call, asked)
        for row in rows
    ]
    return sorted(set(found))


class UniversalListReader(EntityReader):
    """Elements of one list, by offset in the order of ids. Every property is an object {value id: value}."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        kind, _, number = self.entity.kind.partition("/")
        params = {
            "IBLOCK_TYPE_ID": kind,
            "IBLOCK_ID": int(number),
            "SELECT": [f.name for f in self.structure.fields],
            "ELEMENT_ORDER": {"ID": "ASC"},
        }
        for batch in self._scan(ListCall(self.entity.method, params, paging="offset"), Bounds()):
            rows = (self._plain(orjson.loads(line)) for line in batch.body.split(b"\n"))
            yield replace(batch, body=b"\n".join(map(orjson.dumps, rows)))

    def _plain(self, row: dict[str, Any]) -> dict[str, Any]:
        """Properties without the ids of their values: a list for multiple ones, else the value."""
        for field in self.structure.fields:
            value = row.get(field.key)
            if field.key.startswith("PROPERTY_") and isinstance(value, dict):
                values = [v for v in value.values() if v not in (None, "")]
                row[field.key] = values if field.multiple else next(iter(values), None)
        return row


class WorkTimeReader(EntityReader):
    """`timeman.record.list` of REST 3.0: one list an employee."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        for user in self._users():
            page, rows = 1, self._page(user, 1)
            while rows:
                yield from self._records(rows)
                if len(rows) < PAGE:  # the smallest page that portals are known to cap at
                    break
                page += 1
                rows = self._page(user, page)

    def _page(self, user: str, page: int) -> list[Mapping[str, Any]]:
        answer = self.client.call_v3(
            self.entity.method,
            {
                "filter": [["userId", "=", int(user)]],
                "order": {"id": "ASC"},
                "pagination": {"page": page, "limit": PAGE},
            },
        )
        return rows_in(answer, "items")

    def _users(self) -> list[str]:
        sql = "SELECT count() FROM system.tables WHERE database = 'bi' AND name = 'user'"
        if not self.warehouse.query(sql)[0][0]:
            return []
        return [row[0] for row in self.warehouse.query("SELECT ID FROM bi.user ORDER BY toUInt64OrZero(ID)")]
