"""Entities of some dozens of rows, kept as plain dictionaries in the form in which they are answered."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from sandbox.bitrix24.data import DAY, mix, pick, salt_of

if TYPE_CHECKING:
    from sandbox.bitrix24.portal import Portal

Row = dict[str, Any]
_WORDS = ("Договор", "Звонок клиенту", "Смета", "Отчёт", "Поставка", "Совещание", "Акт сверки")


@dataclass
class Small:
    """Rows by id. `id_key`, `changed` and `created` are keys of a row; `dates` are compared as moments.

    `types` is the field list, where the portal gives one: name in the list -> type. `denied`: owners whose
    rows may not be read. `nothing`: the answer for an owner without rows.
    """

    name: str
    id_key: str = "ID"
    changed: str = ""
    created: str = ""
    dates: tuple[str, ...] = ()
    types: dict[str, str] = field(default_factory=dict)
    text_ids: bool = True
    denied: set[int] = field(default_factory=set)
    nothing: Any = field(default_factory=list)
    rows: dict[int, Row] = field(default_factory=dict)
    bin: dict[int, Row] = field(default_factory=dict)

    def live(self) -> list[Row]:
        return [self.rows[number] for number in sorted(self.rows)]

    def put(self, number: int, row: Row) -> int:
        self.rows[number] = {self.id_key: str(number) if self.text_ids else number, **row}
        return number

    def add(self, values: Row, stamp: str) -> int:
        """A new row, its blank fields as in the newest one."""
        number = max([*self.rows, *self.bin], default=0) + 1
        blank: Row = dict.fromkeys(next(iter(self.rows.values()), {}), None)
        times = {name: stamp for name in (self.created, self.changed) if name}
        return self.put(
            number, {**blank, **times, **values, self.id_key: number} | {self.id_key: self._id(number)}
        )

    def _id(self, number: int) -> Any:
        return str(number) if self.text_ids else number

    def change(self, number: int, values: Row, stamp: str | None) -> None:
        """Raises KeyError for a row that is not there. No `stamp`: the change time stays."""
        self.rows[number] |= values | ({self.changed: stamp} if self.changed and stamp else {})

    def delete(self, number: int) -> None:
        self.bin[number] = self.rows.pop(number)

    def restore(self, number: int) -> None:
        self.rows[number] = self.bin.pop(number)


def camel(name: str) -> str:
    """`CHANGED_DATE` -> `changedDate`."""
    first, *rest = name.lower().split("_")
    return first + "".join(part.capitalize() for part in rest)


class Maker:
    """Invents the rows of one portal; the same seed gives the same rows."""

    def __init__(self, portal: "Portal") -> None:
        self._portal, self._wire = portal, portal.wire
        self._epoch = portal.world.epoch
        self._users = len(portal.users) or 1

    def all(self) -> Iterator[Small]:
        makers: tuple[Callable[[], Iterator[Small]], ...] = (
            self._crm,
            self._catalog,
            self._tasks,
            self._groups,
            self._calendar,
            self._lists,
            self._lines,
        )
        for make in makers:
            yield from make()

    def _h(self, *parts: object) -> int:
        return salt_of(self._portal.config.seed, *parts)

    def _at(self, h: int, days: int = 300) -> str:
        return self._wire.iso(self._epoch - mix(h) % (days * DAY))

    def _word(self, h: int) -> str:
        return f"{pick(_WORDS, h)} №{h % 900 + 1}"

    def _user(self, h: int) -> str:
        return str(1 + h % self._users)

    def _crm(self) -> Iterator[Small]:
        types = {"ID": "integer", "ACCOUNT_NUMBER": "string", "ORDER_TOPIC": "string", "STATUS_ID": "string"}
        types |= {
            "PRICE": "double",
            "CURRENCY": "string",
            "DATE_INSERT": "datetime",
            "DATE_UPDATE": "datetime",
        }
        invoices = Small("invoice_old", changed="DATE_UPDATE", created="DATE_INSERT", types=types)
        for n in range(1, 13):
            h = self._h("invoice_old", n)
            invoices.put(
                n,
                {
                    "ACCOUNT_NUMBER": f"{n}/26",
                    "ORDER_TOPIC": self._word(h),
                    "STATUS_ID": pick(("N", "P", "S"), h),
                    "PRICE": f"{h % 900000 / 100:.2f}",
                    "CURRENCY": "RUB",
                    "DATE_INSERT": self._at(h),
                    "DATE_UPDATE": self._at(h >> 3, 200),
                },
            )
        yield invoices
        yield self._requisites("requisite", 16, {"ENTITY_TYPE_ID": "4", "PRESET_ID": "1", "RQ_INN": ""})
        yield self._requisites("requisite_bank", 9, {"ENTITY_TYPE_ID": "8", "RQ_BANK_NAME": "", "RQ_BIK": ""})
        presets = Small("requisite_preset", changed="DATE_MODIFY")
        for n, name in enumerate(("Организация", "ИП", "Физ. лицо"), 1):
            presets.put(
                n, {"ENTITY_TYPE_ID": "8", "COUNTRY_ID": "1", "NAME": name, "ACTIVE": "Y", "SORT": str(n)}
            )
        yield presets
        links = Small("requisite_link", id_key="_")
        addresses = Small("address", id_key="_")
        for n in range(1, 70):
            known = {"REQUISITE_ID": str(n % 16), "BANK_DETAIL_ID": "0", "MC_REQUISITE_ID": "0"}
            owner = {"ENTITY_TYPE_ID": pick(("2", "7", "31"), n), "ENTITY_ID": str(n)}
            links.put(n, {**owner, **known, "MC_BANK_DETAIL_ID": "0"})
            place = {"TYPE_ID": pick(("1", "4", "6"), n), "ENTITY_TYPE_ID": "8", "ENTITY_ID": str(1 + n // 3)}
            addresses.put(n, {**place, "ADDRESS_1": f"ул. Мира, {n}", "CITY": "Казань", "COUNTRY": "Россия"})
        yield links
        yield addresses
        comments = Small("timeline_comment", created="CREATED", dates=("CREATED",))
        for n in range(1, 31):
            h = self._h("comment", n)
            kind = pick(("deal", "lead", "contact", "company"), h)
            ids = list(islice(self._portal.table(kind).live_ids(), 20))
            if ids:
                place = {"ENTITY_ID": str(pick(ids, h >> 4)), "ENTITY_TYPE": kind, "CREATED": self._at(h)}
                comments.put(n, {**place, "COMMENT": self._word(h), "AUTHOR_ID": self._user(h), "FILES": {}})
        yield comments
        calls = Small("call", created="CALL_START_DATE", dates=("CALL_START_DATE",))
        for n in range(1, 61):
            h = self._h("call", n)
            calls.put(
                n,
                {
                    "PORTAL_USER_ID": self._user(h),
                    "PORTAL_NUMBER": "reg1",
                    "PHONE_NUMBER": f"+7999{h % 10**7:07d}",
                    "CALL_ID": f"externalCall.{h:x}",
                    "CALL_DURATION": str(h % 300),
                    "CALL_START_DATE": self._at(h, 100),
                    "CALL_VOTE": None,
                    "COST": "0.0000",
                    "COST_CURRENCY": "RUB",
                    "CALL_FAILED_CODE": pick(("200", "603-S"), h),
                    "CALL_FAILED_REASON": "",
                    "CRM_ENTITY_TYPE": "CONTACT",
                    "CRM_ENTITY_ID": str(h % 40 + 1),
                    "CALL_RECORD_URL": "",
                    "CALL_TYPE": str(1 + h % 3),
                },
            )
        yield calls

    def _requisites(self, name: str, count: int, more: Row) -> Small:
        names = ("ID", "ENTITY_ID", "NAME", *more)
        types = {n: "integer" if n.endswith("ID") else "string" for n in names}
        types |= {"DATE_CREATE": "datetime", "DATE_MODIFY": "datetime"}
        table = Small(name, changed="DATE_MODIFY", created="DATE_CREATE", types=types)
        for n in range(1, count + 1):
            h = self._h(name, n)
            times = {"DATE_CREATE": self._at(h), "DATE_MODIFY": self._at(h >> 2, 90)}
            filled = {k: v or str(10**9 + h % 10**9) for k, v in more.items()}
            table.put(n, {"ENTITY_ID": str(n), "NAME": self._word(h), **filled, **times})
        return table

    def _catalog(self) -> Iterator[Small]:
        catalogs = Small("catalog", id_key="iblockId", text_ids=False)
        for number, parent in ((14, None), (15, 14)):
            row = {
                "id": number,
                "iblockTypeId": "CRM_PRODUCT_CATALOG",
                "lid": "s1",
                "name": f"Каталог {number}",
            }
            catalogs.put(
                number, {**row, "productIblockId": parent, "skuPropertyId": None, "subscription": "N"}
            )
        yield catalogs
        for name, iblock, count, kind in (
            ("product", 14, 70, 1),
            ("offer", 15, 12, 4),
            ("service", 14, 6, 7),
        ):
            table = Small(name, "id", "timestampX", "dateCreate", text_ids=False)
            for n in range(1, count + 1):
                number = {"product": 100, "offer": 1000, "service": 2000}[name] + n
                h = self._h(name, n)
                table.put(
                    number,
                    {
                        "iblockId": iblock,
                        "name": self._word(h),
                        "active": "Y",
                        "code": None,
                        "createdBy": 1,
                        "dateCreate": self._at(h),
                        "timestampX": self._at(h >> 3, 120),
                        "iblockSectionId": 1 + h % 4,
                        "detailPicture": {"id": str(h % 900), "url": "/rest/download"}
                        if h % 3 == 0
                        else None,
                        "purchasingPrice": h % 10**6 / 100,
                        "purchasingCurrency": "RUB",
                        "quantity": h % 50,
                        "sort": 100,
                        "type": kind,
                        "vatIncluded": "Y",
                        "barcodeMulti": "N",
                        "property258": {"value": self._word(h >> 5), "valueId": str(h % 997)},
                        "property259": [{"value": f"v{n}", "valueId": str(n)}] if h % 2 else [],
                    },
                )
            yield table
        sections, measures, vats = (Small(n, "id", text_ids=False) for n in ("section", "measure", "vat"))
        prices = Small("price", "id", "timestampX", text_ids=False)
        for n in range(1, 5):
            sections.put(
                n, {"iblockId": 14, "iblockSectionId": None, "name": f"Раздел {n}", "active": "Y", "sort": n}
            )
        for n, title in enumerate(("Штука", "Метр", "Час"), 1):
            measures.put(n, {"code": 795 + n, "measureTitle": title, "isDefault": "Y" if n == 1 else "N"})
            vats.put(
                n,
                {
                    "name": f"НДС {n * 10}%",
                    "active": "Y",
                    "rate": n * 10,
                    "sort": n,
                    "timestampX": self._at(n),
                },
            )
        for n in range(1, 61):
            h = self._h("price", n)
            row = {"productId": 100 + n, "catalogGroupId": 2, "price": h % 10**6 / 100, "currency": "RUB"}
            prices.put(n, {**row, "quantityFrom": None, "quantityTo": None, "timestampX": self._at(h)})
        yield from (sections, measures, vats, prices)

    def _tasks(self) -> Iterator[Small]:
        types = {
            "ID": "integer",
            "TITLE": "string",
            "DESCRIPTION": "string",
            "STATUS": "enum",
            "PRIORITY": "enum",
        }
        types |= {"GROUP_ID": "integer", "RESPONSIBLE_ID": "integer", "CREATED_BY": "integer"}
        types |= {"CREATED_DATE": "datetime", "CHANGED_DATE": "datetime", "DEADLINE": "datetime"}
        types |= {"ACCOMPLICES": "array", "UF_CRM_TASK": "crm"}
        tasks = Small("task", "id", "changedDate", "createdDate", types=types)
        children = {
            "elapsed": Small("elapsed", created="CREATED_DATE", dates=("CREATED_DATE",)),
            "task_comment": Small("task_comment"),
            "task_history": Small("task_history", "id"),
            "task_result": Small("task_result", "id", text_ids=False),
            "task_checklist": Small("task_checklist"),
        }
        for n in range(1, 61):
            h = self._h("task", n)
            row: Row = {"title": self._word(h), "description": "", "status": str(2 + h % 4), "priority": "1"}
            row |= {"groupId": str(h % 4), "responsibleId": self._user(h), "createdBy": "1", "deadline": None}
            row |= {"createdDate": self._at(h), "changedDate": self._at(h >> 3, 90), "accomplices": []}
            row |= {
                "subStatus": row["status"],
                "tags": {"35": {"id": 35, "title": "срочно"}} if h % 3 == 0 else [],
            }
            tasks.put(n, {**row, "ufCrmTask": [f"D_{h % 9 + 1}"] if h % 2 else False})
            self._of_task(children, n, h)
        yield tasks
        yield from children.values()

    def _of_task(self, children: dict[str, Small], task: int, h: int) -> None:
        owner = {"TASK_ID": str(task)}
        for k in range(h % 3):
            n = task * 10 + k
            at = self._at(h + k)
            spent: Row = {
                **owner,
                "USER_ID": self._user(h),
                "COMMENT_TEXT": "",
                "SECONDS": "3600",
                "MINUTES": "60",
            }
            children["elapsed"].put(
                n, {**spent, "SOURCE": "2", "CREATED_DATE": at, "DATE_START": at, "DATE_STOP": at}
            )
            said = {
                "AUTHOR_ID": self._user(h),
                "AUTHOR_NAME": "Анна",
                "POST_DATE": at,
                "POST_MESSAGE": self._word(h),
            }
            children["task_comment"].put(n, {"_task": task, **said, "ATTACHED_OBJECTS": {}})
            change = {
                "createdDate": at,
                "field": "STATUS",
                "value": {"from": "2", "to": "3"},
                "user": {"id": "1"},
            }
            children["task_history"].put(n, {"_task": task, **change})
            result = {"taskId": task, "text": self._word(h), "createdBy": 1, "createdAt": at, "updatedAt": at}
            children["task_result"].put(
                n, {"_task": task, **result, "status": 0, "commentId": n, "files": None}
            )
            item = {"TITLE": self._word(h), "SORT_INDEX": str(k), "IS_COMPLETE": "N", "CREATED_BY": "1"}
            children["task_checklist"].put(n, {"_task": task, **owner, "PARENT_ID": "0", **item})

    def _groups(self) -> Iterator[Small]:
        groups, members, stages = Small("group", changed="DATE_UPDATE"), Small("member", "_"), Small("stage")
        for n in range(1, 6):
            at = self._at(self._h("group", n))
            row: Row = {"NAME": f"Проект {n}", "DESCRIPTION": None, "DATE_CREATE": at, "DATE_UPDATE": at}
            row |= {
                "ACTIVE": "Y",
                "VISIBLE": "Y",
                "OPENED": "N",
                "CLOSED": "N",
                "PROJECT": "Y",
                "OWNER_ID": "1",
            }
            groups.put(
                n,
                {**row, "SUBJECT_ID": "1", "NUMBER_OF_MEMBERS": "3", "DATE_ACTIVITY": at, "TYPE": "project"},
            )
            for k in range(1, 4):
                members.put(n * 10 + k, {"_group": n, "USER_ID": str(k), "ROLE": "A" if k == 1 else "K"})
            for k, title in enumerate(("Новые", "Выполняются", "Сделаны"), 1):
                whose = {"_group": n, "ENTITY_ID": str(n), "ENTITY_TYPE": "G"}
                stages.put(n * 10 + k, {**whose, "TITLE": title, "SORT": str(k), "COLOR": "00C4FB"})
        planner = {"_group": 0, "ENTITY_ID": "1", "ENTITY_TYPE": "U", "TITLE": "Не спланированы"}
        stages.put(1, {**planner, "SORT": "1", "COLOR": "00C4FB"})
        yield from (groups, members, stages)

    def _calendar(self) -> Iterator[Small]:
        sections, events = Small("calendar_section"), Small("calendar_event")
        owners = [("company_calendar", 0), ("group", 1), *(("user", n) for n in range(1, 4))]
        for n, (kind, owner) in enumerate(owners, 1):
            place = {"CAL_TYPE": kind, "OWNER_ID": str(owner), "NAME": f"Календарь {n}"}
            sections.put(n, {**place, "COLOR": "#9dcf00", "CREATED_BY": "1", "ACTIVE": "Y"})
            for k in range(1, 4):
                start = self._epoch - mix(self._h("event", n, k)) % (60 * DAY) // 60 * 60
                events.put(
                    n * 10 + k, {**self._event(kind, owner, start), "NAME": f"Встреча {k}", "SECT_ID": str(n)}
                )
        yield from (sections, events)

    def _event(self, kind: str, owner: int, start: int) -> Row:
        shown = [datetime.fromtimestamp(at + self._wire.offset, UTC) for at in (start, start + 3600)]
        begin, end = (f"{at:%m/%d/%Y %I:%M:%S} {'pm' if at.hour >= 12 else 'am'}" for at in shown)
        times = {
            "DATE_FROM": begin,
            "DATE_TO": end,
            "DATE_FROM_TS_UTC": str(start),
            "DATE_TO_TS_UTC": str(start + 3600),
        }
        return {
            "CAL_TYPE": kind,
            "OWNER_ID": str(owner),
            **times,
            "DT_LENGTH": 3600,
            "DT_SKIP_TIME": "N",
            "TZ_FROM": "Europe/Moscow",
            "IS_MEETING": True,
            "MEETING": {"HOST_NAME": "Анна", "NOTIFY": False},
            "RRULE": {"FREQ": "WEEKLY", "BYDAY": {"MO": "MO"}},
            "UF_CRM_CAL_EVENT": ["CO_1", "L_5"],
            "UF_WEBDAV_CAL_EVENT": False,
        }

    def _lists(self) -> Iterator[Small]:
        blocks, fields = Small("list"), Small("list_field", "_")
        yield blocks
        yield fields
        sections = Small("list_section")
        for number, title, group in (
            (31, "Договоры аренды", None),
            (32, "Заявки на пропуск", None),
            (33, "Протоколы проекта", "2"),
        ):
            row = {
                "TIMESTAMP_X": "17.05.2026 16:09:23",
                "IBLOCK_TYPE_ID": "lists_socnet" if group else "lists",
                "NAME": title,
                "ACTIVE": "Y",
            }
            blocks.put(
                number, {**row, "CODE": None, "SORT": "500", "DESCRIPTION": "", "SOCNET_GROUP_ID": group}
            )
            for k, (name, label, kind, multiple) in enumerate(_LIST_FIELDS):
                about = {"FIELD_ID": name, "NAME": label, "TYPE": kind, "MULTIPLE": multiple, "SORT": k * 10}
                fields.put(number * 100 + k, {"_list": number, **about, "IS_REQUIRED": "N", "CODE": None})
            for k in range(60 if number == 31 else 1):
                section = {"_list": number, "NAME": f"Раздел {k}", "IBLOCK_SECTION_ID": None}
                sections.put(number * 100 + k, {**section, "SORT": str(k)})
            table = Small(f"list_{number}", created="DATE_CREATE")
            for n in range(1, 61 if number == 31 else 8):
                h = self._h("element", number, n)
                table.put(number * 1000 + n, self._element(h, n))
            yield table
        yield sections

    def _element(self, h: int, n: int) -> Row:
        day = datetime.fromtimestamp(self._epoch - h % (90 * DAY), UTC)
        stamp = f"{day:%d.%m.%Y %H:%M:%S}"
        row: Row = {
            "NAME": self._word(h),
            "IBLOCK_SECTION_ID": None,
            "CREATED_BY": self._user(h),
            "SORT": "500",
        }
        row |= {"DATE_CREATE": stamp, "TIMESTAMP_X": stamp, "MODIFIED_BY": "1", "CODE": None}
        row |= {
            "PROPERTY_101": {str(n * 10): self._word(h >> 3)},
            "PROPERTY_102": {str(n * 10 + 1): str(h % 5000 / 4)},
        }
        row |= {"PROPERTY_103": {str(n * 10 + 2): f"{day:%d.%m.%Y}"}}
        return {**row, "PROPERTY_104": {str(n * 10 + 3): "7", str(n * 10 + 4): "9"} if h % 2 else None}

    def _lines(self) -> Iterator[Small]:
        lines, messages = Small("line"), Small("line_message", "id")
        for n in (1, 2):
            lines.put(n, {"LINE_NAME": f"Линия {n}", "ACTIVE": "Y", "CRM": "Y", "QUEUE_TYPE": "evenly"})
        for n in range(1, 200):
            h = self._h("message", n)
            said = {
                "chatid": str(1 + n % 40),
                "senderid": self._user(h),
                "date": self._at(h),
                "text": self._word(h),
            }
            messages.put(n, {**said, "params": {}})
        yield from (lines, messages)
        work = Small("work_day", "id", text_ids=False)
        for n in range(1, 13):
            start = self._epoch - n * DAY
            times = {"startTime": self._wire.iso(start), "endTime": self._wire.iso(start + 8 * 3600)}
            day = {"duration": 28800, "breakLength": 0, "state": "CLOSED", "isApproved": True}
            work.put(n, {"userId": 1 + n % 4, **times, **day})
        yield work


_LIST_FIELDS = (
    ("NAME", "Название", "NAME", "N"),
    ("SORT", "Сортировка", "SORT", "N"),
    ("CREATED_BY", "Кем создан", "CREATED_BY", "N"),
    ("DATE_CREATE", "Дата создания", "DATE_CREATE", "N"),
    ("TIMESTAMP_X", "Дата изменения", "TIMESTAMP_X", "N"),
    ("PROPERTY_101", "Адрес", "S", "N"),
    ("PROPERTY_102", "Сумма", "N", "N"),
    ("PROPERTY_103", "Дата договора", "S:Date", "N"),
    ("PROPERTY_104", "Ответственные", "S:employee", "Y"),
)
