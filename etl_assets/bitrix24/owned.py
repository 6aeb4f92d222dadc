"""Rows that can only be listed by owner, whose tables say which owners changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar

import dagster as dg
import orjson

from etl_assets.bitrix24.entities import OWNER_CODES
from etl_assets.bitrix24.reading import EntityReader, code_of, rows_in
from etl_assets.bitrix24.structure import DATABASE
from etl_assets.loading import OVERLAP, Batch, Bounds
from resources.bitrix24 import CommandError, ListCall, Window
from resources.bitrix24.envelope import whole_number
from resources.bitrix24.faults import is_gone
from resources.clickhouse import Table
from resources.clickhouse.table import LOADED_AT, literal, quote

OWNERS_PER_COMMAND = 50
CONTACTS_PER_QUERY = 5000
CHATS_AT_ONCE = 500  # their messages are in memory together
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

    def _of_owners(
        self,
        type_: str,
        owners: Sequence[str],
        call: ListCall,
        asked: Sequence[Mapping[str, Any]],
        bounds: Bounds,
    ) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Rows of owners of one type. An owner that may not be read keeps the rows that are here."""
        denied: dict[int, CommandError] = {}
        yield from self._of_each(call, asked, bounds, denied)
        kept = {owners[index] for index in denied}
        self._owners[type_] = [owner for owner in self._owners[type_] if owner not in kept]

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
    ONE: ClassVar = "ifNull({}, '0') NOT IN ('', '0')"
    CONTACTS: ClassVar = {"CONTACT_IDS": "notEmpty({})", "CONTACT_ID": ONE}
    NAMES: ClassVar = {
        **dict.fromkeys(("crm_deal", "crm_lead", "crm_quote"), CONTACTS),
        "crm_contact": {"COMPANY_ID": ONE},
    }

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        parent = self.entity.parents[0]
        owners = self._changed_owners(parent, bounds)
        linked = self._changed_owners(parent, bounds, self._names_somebody(parent))
        if parent == "crm_company" and bounds.since:
            owners = linked = sorted({*owners, *self._companies(bounds)}, key=int)
        self._owners = {"": owners}
        call = ListCall(self.entity.method, paging="single")
        asked = [{"id": int(owner)} for owner in linked]
        yield from self._records(
            {**row, self.entity.owner: linked[i]}
            for i, rows in self._of_owners("", linked, call, asked, bounds)
            for row in rows
        )

    def _companies(self, bounds: Bounds) -> set[str]:
        """Companies that contacts joined or left: that changes the contact and not the company."""
        contacts = self._changed_owners("crm_contact", bounds)
        found: set[str] = set()
        for start in range(0, len(contacts), CONTACTS_PER_QUERY):
            listed = ", ".join(map(literal, contacts[start : start + CONTACTS_PER_QUERY]))
            for sql in self._company_queries(listed):
                found |= {
                    company for (company,) in self.warehouse.query(sql) if company not in (None, "", "0")
                }
        return found

    def _company_queries(self, contacts: str) -> Iterator[str]:
        """Where contacts name companies: in their rows, and in links, those of the past too."""
        columns = {name for (name,) in self.warehouse.query(_COLUMNS, {"t": "crm_contact"})}
        own = f"{DATABASE}.crm_contact WHERE ID IN ({contacts})"
        if "COMPANY_ID" in columns:
            yield f"SELECT DISTINCT COMPANY_ID FROM {own}"
        if "COMPANY_IDS" in columns:
            yield f"SELECT DISTINCT arrayJoin(COMPANY_IDS) FROM {own}"
        if self.warehouse.query(_COLUMNS, {"t": "crm_contact_company"}):
            links = f"{DATABASE}.crm_contact_company WHERE CONTACT_ID IN ({contacts})"
            yield f"SELECT DISTINCT COMPANY_ID FROM {links}"

    def _names_somebody(self, parent: str) -> str:
        present = {name for (name,) in self.warehouse.query(_COLUMNS, {"t": parent})}
        tests = self.NAMES.get(parent, {}).items()
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
        yield from self._records(
            {**row, self.entity.owner: owner} for owner, row in self._rows_of(owners, bounds)
        )

    def _rows_of(self, owners: Sequence[str], bounds: Bounds) -> Iterator[tuple[str, dict[str, Any]]]:
        """(owner, row)"""
        entity = self.entity
        key = entity.key[-1]
        call = ListCall(entity.method, items=entity.items, paging=entity.paging, cursor=key, id_key=key)
        asked = [asked_of(entity.params, int(owner)) for owner in owners]
        self._owners = {"": list(owners)}
        for index, rows in self._of_owners("", owners, call, asked, bounds):
            yield from ((owners[index], row) for row in rows)


class EveryOwnerReader(OwnedReader):
    """A snapshot of the lists of all owners; with `kind` «and 0» also of an owner 0. Rows that name their
    owner keep that name: the planner of owner 0 belongs to the credential's user."""

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        parent = self.entity.parents[0]
        found = self.warehouse.query(_COLUMNS, {"t": parent})
        rows = (
            self.warehouse.query(f"SELECT ID FROM bi.{quote(parent)} ORDER BY toUInt64OrZero(ID)")
            if found
            else []
        )
        owners = [row[0] for row in rows] + (["0"] if self.entity.kind else [])
        yield from self._records(
            {self.entity.owner: owner, **row} for owner, row in self._rows_of(owners, bounds)
        )


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
            yield from self._records(
                row for _, rows in self._of_owners(kind, owners, call, asked, bounds) for row in rows
            )

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
    TYPE = (
        "transform(toInt64OrZero(toString(OWNER_TYPE_ID)), "
        "[1, 2, 3, 4], ['LEAD', 'DEAL', 'CONTACT', 'COMPANY'], '')"
    )

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        chosen = f"PROVIDER_ID = '{self.PROVIDER}'"
        objects = self._objects(self._changed_owners("crm_activity", bounds, chosen))
        chats = self._chats(objects)
        denied: dict[int, CommandError] = {}
        read = set[int]()
        for chat, answer in self._history([{"CHAT_ID": chat} for chat in chats]):
            if isinstance(answer, CommandError):
                denied[chat["CHAT_ID"]] = self._refused(answer)
            else:
                yield from self._records(self._messages(answer, chat["CHAT_ID"], *chats[chat["CHAT_ID"]]))
        for _, answer in self._history([{"SESSION_ID": n} for n in self._sessions(chats[c] for c in denied)]):
            chat = whole_number(answer.get("chatId")) if isinstance(answer, Mapping) else None
            if chat in denied:
                read.add(chat)
                yield from self._records(self._messages(answer, chat, *chats[chat]))
        self._tell_denied([e for c, e in denied.items() if c not in read], len(chats), bounds)

    def _history(self, asked: Sequence[dict[str, int]]) -> Iterator[tuple[dict[str, int], Any]]:
        """(what was asked, its answer)."""
        for start in range(0, len(asked), CHATS_AT_ONCE):
            part = asked[start : start + CHATS_AT_ONCE]
            answers = self.client.call_many([(self.entity.method, params) for params in part])
            yield from zip(part, answers, strict=True)

    def _messages(self, answer: Any, chat: int, kind: str, number: str) -> Iterator[dict[str, Any]]:
        session = answer.get("sessionId") if isinstance(answer, Mapping) else None
        fixed = {
            "CHAT_ID": str(chat),
            "SESSION_ID": session,
            "CRM_ENTITY_TYPE": kind,
            "CRM_ENTITY": number,
        }
        yield from ({**row, **fixed} for row in rows_in(answer, "message"))

    def _sessions(self, objects: Iterable[tuple[str, str]]) -> list[int]:
        """Sessions of the objects: who is no member of a chat may still read its sessions. The activity of a
        session names it."""
        listed = ", ".join(f"({literal(kind)}, {literal(number)})" for kind, number in sorted(set(objects)))
        if not listed or ("ASSOCIATED_ENTITY_ID",) not in self.warehouse.query(
            _COLUMNS, {"t": "crm_activity"}
        ):
            return []
        found = self.warehouse.query(
            "SELECT DISTINCT toInt64OrZero(toString(ASSOCIATED_ENTITY_ID)) AS session FROM bi.crm_activity "
            f"WHERE PROVIDER_ID = '{self.PROVIDER}' AND session > 0 "
            f"AND ({self.TYPE}, toString(OWNER_ID)) IN ({listed}) ORDER BY session"
        )
        return [int(session) for (session,) in found]

    def _objects(self, activities: Sequence[str]) -> list[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for start in range(0, len(activities), 5000):
            listed = ", ".join(f"'{int(a)}'" for a in activities[start : start + 5000])
            sql = (
                f"SELECT DISTINCT {self.TYPE}, toString(OWNER_ID) FROM bi.crm_activity WHERE ID IN ({listed})"
            )
            found |= {(kind, number) for kind, number in self.warehouse.query(sql) if kind and number}
        return sorted(found)

    def _chats(self, objects: Sequence[tuple[str, str]]) -> dict[int, tuple[str, str]]:
        asked = [
            (
                "imopenlines.crm.chat.get",
                {"CRM_ENTITY_TYPE": kind.lower(), "CRM_ENTITY": int(n), "ACTIVE_ONLY": "N"},
            )
            for kind, n in objects
        ]
        chats: dict[int, tuple[str, str]] = {}
        for source, answer in zip(objects, self.client.call_many(asked), strict=True):
            if isinstance(answer, CommandError):
                if not is_gone(answer):
                    self._refused(answer)
                continue
            chats.update({int(row["CHAT_ID"]): source for row in rows_in(answer, None)})
        return chats
