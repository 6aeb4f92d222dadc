"""People at work: rows of all kinds are made, changed, deleted and restored while they are read."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from sandbox.bitrix24 import Portal

OBJECTS = ("deal", "lead", "contact", "company", "quote", "smart_invoice", "dynamic_177", "activity")
SOLD = ("deal", "lead", "quote", "smart_invoice")
NAMES = {"contact": "NAME", "activity": "SUBJECT"}  # others have a TITLE

# entity -> the key of a text that people change; what such a row is called on the portal
SMALL = {
    "invoice_old": "ORDER_TOPIC",
    "requisite": "NAME",
    "requisite_bank": "NAME",
    "requisite_preset": "NAME",
    "requisite_link": "REQUISITE_ID",
    "address": "CITY",
    "timeline_comment": "COMMENT",
    "product": "name",
    "offer": "name",
    "service": "name",
    "price": "price",
    "section": "name",
    "measure": "measureTitle",
    "vat": "name",
    "call": "CALL_VOTE",
    "task": "title",
    "elapsed": "SECONDS",
    "task_comment": "POST_MESSAGE",
    "task_result": "text",
    "task_checklist": "TITLE",
    "group": "NAME",
    "member": "ROLE",
    "stage": "TITLE",
    "calendar_section": "NAME",
    "calendar_event": "NAME",
    "list": "NAME",
    "list_31": "NAME",
    "list_section": "NAME",
    "line": "LINE_NAME",
    "work_day": "status",
}
NUMBERS = {"price", "call", "elapsed", "requisite_link"}  # their text is a number
KEPT = {"list", "call", "requisite_link", "address"}  # never made anew: their key is more than a number
GONE_FOR_GOOD = {"timeline_comment", "elapsed", "task_comment", "task_result", "task_checklist", "member"}
# Without a change time: only what was made lately is changed, since no more is read again.
RECENT = {"call": "CALL_START_DATE", "elapsed": "CREATED_DATE"}


class Life:
    """Random changes by a seed, one after every few commands that the portal answers."""

    def __init__(self, portal: Portal, seed: int, every: int = 2) -> None:
        self.portal, self.random, self.every = portal, random.Random(seed), every
        self.told: list[str] = []
        self._gone: list[tuple[str, int]] = []
        self._count = 0
        self._row = 90_000_000_000

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Changes happen between the commands of the block."""
        self.portal.between = self._beat
        try:
            yield
        finally:
            self.portal.between = lambda: None

    def _beat(self) -> None:
        self._count += 1
        if self._count % self.every == 0:
            self.step()

    def step(self) -> None:
        """One change of something."""
        self.portal.clock.advance(self.random.choice((0, 0, 1, 2, 5)))
        acts: list[tuple[int, Callable[[], str]]] = [
            (8, self._change_object),
            (3, self._make_object),
            (3, self._delete_object),
            (3, self._sell),
            (3, self._link),
            (2, self._move_activity),
            (6, self._change_small),
            (4, self._make_small),
            (4, self._delete_small),
            (5, self._restore),
            (1, self._chat),
            (1, self._person),
        ]
        act = self.random.choices([a for _, a in acts], [w for w, _ in acts])[0]
        self.told.append(f"{self.portal.stamp()} {act()}")

    def quietly(self, steps: int) -> None:
        """Changes between runs."""
        for _ in range(steps):
            self.step()

    def _word(self) -> str:
        return f"слово {self.random.randrange(10**6)}"

    def _live(self, entity: str) -> int | None:
        ids = [row["ID"] for row in self.portal.expected(entity, "id")]
        return self.random.choice(ids) if ids else None

    def _pick(self) -> tuple[str, int] | None:
        entity = self.random.choice(OBJECTS)
        number = self._live(entity)
        return None if number is None else (entity, number)

    def _change_object(self) -> str:
        if not (found := self._pick()):
            return "nothing"
        entity, number = found
        values: dict[str, Any] = {NAMES.get(entity, "TITLE"): self._word()}
        if entity not in ("activity",):
            values |= {"OPPORTUNITY": self.random.randrange(10**5), "COMMENTS": self._word()}
        if entity == "deal" and self.random.random() < 0.3:
            values["STAGE_ID"] = self.random.choice(("NEW", "PREPARATION", "WON", "LOSE"))
            values["CATEGORY_ID"] = 0
        self.portal.change(entity, number, **values)
        return f"change {entity} {number}"

    def _make_object(self) -> str:
        entity = self.random.choice(OBJECTS)
        values: dict[str, Any] = {NAMES.get(entity, "TITLE"): self._word()}
        if entity == "activity":
            values |= {"OWNER_TYPE_ID": 2, "OWNER_ID": self._live("deal"), "PROVIDER_ID": "CRM_TODO"}
        return f"make {entity} {self.portal.create(entity, **values)}"

    def _delete_object(self) -> str:
        if not (found := self._pick()):
            return "nothing"
        self.portal.delete(*found)
        self._gone.append(found)
        return f"delete {found}"

    def _sell(self) -> str:
        entity = self.random.choice(SOLD)
        if (owner := self._live(entity)) is None:
            return "nothing"
        type_id = self.portal.table(entity).type_id
        rows = [dict(row) for row in self.portal.product_rows(type_id, owner)]
        code = {2: "D", 1: "L", 7: "Q", 31: "SI"}[type_id]
        if rows and self.random.random() < 0.4:
            rows.pop(self.random.randrange(len(rows)))
        if rows and self.random.random() < 0.5:
            rows[0]["quantity"] = self.random.randrange(1, 50)
        if self.random.random() < 0.6:
            self._row += 1
            row = {"id": self._row, "ownerId": owner, "ownerType": code, "productName": self._word()}
            rows.append({**row, "price": self.random.randrange(1000) / 4, "quantity": 2, "sort": 10})
        self.portal.set_products(entity, owner, rows)
        return f"sell {entity} {owner}: {[row['id'] for row in rows]}"

    def _link(self) -> str:
        entity = self.random.choice(("deal", "lead", "quote", "contact"))
        if (number := self._live(entity)) is None:
            return "nothing"
        of, name = ("company", "COMPANY_IDS") if entity == "contact" else ("contact", "CONTACT_IDS")
        known = [row["ID"] for row in self.portal.expected(of, "id")]
        chosen = self.random.sample(known, min(len(known), self.random.randrange(4)))
        links: dict[str, Any] = {name: chosen}
        self.portal.change(entity, number, **links)
        return f"link {entity} {number}: {chosen}"

    def _move_activity(self) -> str:
        number, kind = self._live("activity"), self.random.choice(("deal", "lead", "contact"))
        owner = self._live(kind)
        if number is None or owner is None:
            return "nothing"
        type_id = self.portal.table(kind).type_id
        self.portal.change("activity", number, OWNER_TYPE_ID=type_id, OWNER_ID=owner)
        return f"bind activity {number} to {kind} {owner}"

    def _value(self, entity: str) -> Any:
        return str(self.random.randrange(1, 500)) if entity in NUMBERS else self._word()

    def _recent(self, entity: str) -> int | None:
        """A row that may be changed."""
        rows = self.portal.small[entity].rows
        times = RECENT.get(entity)
        day = (self.portal.clock.now(), timedelta(days=5).total_seconds())
        oldest = self.portal.wire.iso(day[0] - day[1])
        found = [n for n, row in rows.items() if not times or str(row.get(times)) >= oldest]
        return self.random.choice(found) if found else None

    def _change_small(self) -> str:
        entity = self.random.choice(list(SMALL))
        if (number := self._recent(entity)) is None:
            return "nothing"
        self.portal.change(entity, number, **{SMALL[entity]: self._value(entity)})
        return f"change {entity} {number}"

    def _make_small(self) -> str:
        entity = self.random.choice([e for e in SMALL if e not in KEPT])
        table = self.portal.small[entity]
        rows = table.live()
        if not rows:
            return "nothing"
        like = {k: v for k, v in self.random.choice(rows).items() if k not in (table.id_key, table.created)}
        if entity == "member":
            like["USER_ID"] = str(self.random.randrange(1, 2000))
        number = self.portal.create(entity, **like | {SMALL[entity]: self._value(entity)})
        return f"make {entity} {number}"

    def _delete_small(self) -> str:
        entity = self.random.choice([e for e in SMALL if e != "list"])
        rows = self.portal.small[entity].rows
        if len(rows) < 4:
            return "nothing"
        number = self.random.choice(list(rows))
        self.portal.delete(entity, number)
        if entity not in GONE_FOR_GOOD:
            self._gone.append((entity, number))
        return f"delete {entity} {number}"

    def _restore(self) -> str:
        if not self._gone:
            return "nothing"
        entity, number = self._gone.pop(self.random.randrange(len(self._gone)))
        new_id = entity in OBJECTS and self.random.random() < 0.3
        restored = self.portal.restore(entity, number, new_id=new_id)
        return f"restore {entity} {number} as {restored}"

    def _chat(self) -> str:
        """A message in an open line, which the activity of the dialog notices."""
        table = self.portal.table("activity")
        dialogs = [p for p in table.live().tolist() if table.value(p, "PROVIDER_ID") == "IMOPENLINES_SESSION"]
        if not dialogs:
            return "nothing"
        position = self.random.choice(dialogs)
        chat = str(1 + int(table.value(position, "OWNER_ID") or 0) % 40)
        said = {"chatid": chat, "senderid": "1", "date": self.portal.stamp(), "text": self._word()}
        message = self.portal.create("line_message", **said, params={})
        self.portal.change("activity", int(table.ids[position]), SUBJECT=self._word())
        return f"say {message} in chat {chat}"

    def _person(self) -> str:
        if self.random.random() < 0.3:
            return f"hire {self.portal.add_user(NAME=self._word())}"
        number = self.random.randrange(2, len(self.portal.users) + 1)
        change: dict[str, Any] = {"NAME": self._word()} if self.random.random() < 0.7 else {"ACTIVE": False}
        self.portal.change_user(number, **change)
        return f"change user {number}"
