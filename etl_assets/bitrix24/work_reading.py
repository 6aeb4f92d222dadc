"""Readers of entities with ways of their own: calendar, work time, universal lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

import orjson

from etl_assets.bitrix24.reading import EntityReader, ManyCallsReader, rows_in
from etl_assets.loading import Batch, Bounds
from resources.bitrix24 import PAGE, Bitrix24Client, CommandError, ListCall
from resources.bitrix24.faults import failure
from resources.errors import PermanentSourceError

CALENDAR_REACH = timedelta(days=365)
LIST_TYPES = ("lists", "bitrix_processes")
GROUP_LISTS = "lists_socnet"


class CalendarReader(EntityReader):
    """Calendars or their events, owner by owner: employees, groups, the company."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        owners = [
            ("company_calendar", "0"),
            *self._owners("user", "user"),
            *self._owners("group", "sonet_group"),
        ]
        window: dict[str, Any] = {}
        if self.entity.kind == "events":
            today = self.clock().date()
            window = {"from": str(today - CALENDAR_REACH), "to": str(today + CALENDAR_REACH)}
        call = ListCall(self.entity.method, window, paging="single")
        asked = [{"type": kind, "ownerId": owner} for kind, owner in owners]
        yield from self._records(row for _, rows in self._of_each(call, asked, bounds) for row in rows)

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
        """Pages of at most 200 by offset, inside PARAMS, until one brings nothing new."""
        (_, (method, params)), offset, seen = self.questions()[0], 0, set[str]()
        while True:
            answer = self.client.call(method, {"PARAMS": {**params["PARAMS"], "offset": offset}})
            rows = [row for row in rows_in(answer, None) if str(row.get("ID")) not in seen]
            if not rows:
                return
            yield from rows
            seen |= {str(row.get("ID")) for row in rows}
            offset += len(rows)


class ListFieldsReader(ManyCallsReader):
    """Fields of every universal list, which come as a map."""

    def questions(self) -> Sequence[tuple[dict[str, Any], tuple[str, Mapping[str, Any]]]]:
        return [
            ({"IBLOCK_ID": str(known.number)}, (self.entity.method, known.params))
            for known in universal_lists(self.client)
        ]


class ListSectionsReader(EntityReader):
    """Sections of every universal list."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        lists = universal_lists(self.client)
        call = ListCall(self.entity.method, paging="single")
        found = self._of_each(call, [known.params for known in lists], bounds)
        yield from self._records(
            {"IBLOCK_ID": str(lists[index].number), **row} for index, rows in found for row in rows
        )


class ListsReader(EntityReader):
    """Universal lists of all kinds."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        yield from self._records(row for _, row in listed_lists(self.client))


class UniversalList(NamedTuple):
    """A universal list. `group`: the group that it belongs to, without which the portal refuses it."""

    number: int
    kind: str
    title: str
    group: str = ""

    @property
    def params(self) -> dict[str, Any]:
        """How methods are told which list is meant."""
        group = {"SOCNET_GROUP_ID": self.group} if self.group else {}
        return {"IBLOCK_TYPE_ID": self.kind, "IBLOCK_ID": self.number, **group}


def universal_lists(client: Bitrix24Client) -> list[UniversalList]:
    """Every universal list that may be read, by id."""
    found = {
        UniversalList(int(row["ID"]), str(row.get("IBLOCK_TYPE_ID") or ""), str(row.get("NAME") or ""), group)
        for group, row in listed_lists(client)
    }
    return sorted(found)


def listed_lists(client: Bitrix24Client) -> Iterator[tuple[str, dict[str, Any]]]:
    """(group or nothing, the list as the portal tells of it).

    Lists of groups are only told group by group. What may not be read is left out, but if that is everything,
    the refusal is raised.
    """
    groups = ListCall("sonet_group.get", {"ORDER": {"ID": "ASC"}, "IS_ADMIN": "Y"}, paging="offset")
    try:
        numbers = [str(row["ID"]) for _, rows in client.children(groups, [{}]) for row in rows]
    except PermanentSourceError:  # without groups, or the right to them, there still are the other lists
        numbers = []
    asked: list[dict[str, Any]] = [{"IBLOCK_TYPE_ID": kind} for kind in LIST_TYPES]
    asked += [{"IBLOCK_TYPE_ID": GROUP_LISTS, "SOCNET_GROUP_ID": number} for number in numbers]
    denied: dict[int, CommandError] = {}
    call = ListCall("lists.get", {"IBLOCK_ORDER": {"ID": "ASC"}}, paging="offset")
    for index, rows in client.children(call, asked, denied.__setitem__):
        yield from ((asked[index].get("SOCNET_GROUP_ID", ""), row) for row in rows)
    if len(denied) == len(asked):
        raise failure(denied[0])


class UniversalListReader(EntityReader):
    """Elements of one list, by offset in the order of ids. Every property is an object {value id: value}."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        params = {
            **self.entity.params,
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
            if field.key.startswith("PROPERTY_") and isinstance(value, dict | list):
                given = value.values() if isinstance(value, dict) else value
                values = [v for v in given if v not in (None, "")]
                row[field.key] = values if field.multiple else next(iter(values), None)
        return row


class WorkTimeReader(EntityReader):
    """`timeman.record.list` of REST 3.0: one list an employee, many employees in a request."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        users, page, denied = self._users(), 1, list[CommandError]()
        asked = len(users)
        while users:
            answers = self.client.call_v3_many([(self.entity.method, self._page(u, page)) for u in users])
            going_on: list[str] = []
            for user, answer in zip(users, answers, strict=True):
                if isinstance(answer, CommandError):
                    denied.append(self._refused(answer))
                    continue
                rows = rows_in(answer, "items")
                yield from self._records({"userId": user, **row} for row in rows)
                if len(rows) >= PAGE:
                    going_on.append(user)
            users, page = going_on, page + 1
        self._tell_denied(denied, asked, bounds)

    def _page(self, user: str, page: int) -> dict[str, Any]:
        return {
            "filter": [["userId", "=", int(user)]],
            "select": [column.source for column in self.entity.columns],
            "order": {"id": "ASC"},
            "pagination": {"page": page, "limit": PAGE},
        }

    def _users(self) -> list[str]:
        sql = "SELECT count() FROM system.tables WHERE database = 'bi' AND name = 'user'"
        if not self.warehouse.query(sql)[0][0]:
            return []
        return [row[0] for row in self.warehouse.query("SELECT ID FROM bi.user ORDER BY toUInt64OrZero(ID)")]
