"""The state of one emulated portal and what a player or a test does to it."""

import random
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

from sandbox.bitrix24 import data, dictionaries, family, fields, processes
from sandbox.bitrix24.clock import PortalClock
from sandbox.bitrix24.config import PortalConfig
from sandbox.bitrix24.events import EventQueue
from sandbox.bitrix24.faults import FaultBook
from sandbox.bitrix24.fields import FieldSpec
from sandbox.bitrix24.limits import LeakyBucket, OperatingBudget, Stats
from sandbox.bitrix24.oauth import TokenStore
from sandbox.bitrix24.people import make_department, make_user
from sandbox.bitrix24.products import product_rows
from sandbox.bitrix24.query import parse_moment
from sandbox.bitrix24.small import Maker, Small
from sandbox.bitrix24.table import Row, Table
from sandbox.bitrix24.wire import Renderer, Wire, loads

CLASSIC = {"lead": 1, "deal": 2, "contact": 3, "company": 4, "quote": 7}
ENTITY_OF_TYPE = {number: name for name, number in CLASSIC.items()} | {31: "smart_invoice"}
_CLASSIC_FIELDS = {
    1: fields.LEAD_FIELDS,
    2: fields.DEAL_FIELDS,
    3: fields.CONTACT_FIELDS,
    4: fields.COMPANY_FIELDS,
    7: fields.QUOTE_FIELDS,
}
_HISTORY_TYPES = (1, 2, 31)
_DERIVED_IDS = {"CONTACT_IDS": "CONTACT_ID", "COMPANY_IDS": "COMPANY_ID"}


class UnknownEntity(LookupError):
    """There is no such entity on this portal."""


class Portal:
    """One portal. Every public method may be called from any thread: a lock serialises it with requests."""

    def __init__(self, config: PortalConfig | None = None) -> None:
        self.config = config or PortalConfig()
        self.lock = threading.RLock()
        self.clock = PortalClock(self.config.clock_start, self.config.clock_factor)
        self.faults = FaultBook()
        self.wire = Wire(self.config)
        self.bucket = LeakyBucket(self.config.rate_limit, self.config.count_rejected)
        self.budget = OperatingBudget()
        self.stats_data = Stats()
        self.tokens = TokenStore(self.config, self.clock)
        self.base_url = ""
        self.between: Callable[[], object] = lambda: None
        """Called after every command, so that a test may change rows while somebody reads them."""
        self._random = random.Random(self.config.seed)
        self.events = EventQueue(self)
        self._reset_data()

    def _reset_data(self) -> None:
        config = self.config
        sizes = {1: config.leads, 2: config.deals, 3: config.contacts, 4: config.companies, 7: config.quotes}
        self.world = data.World(config.seed, int(self.clock.now()), max(1, config.users), sizes)
        self.processes: list[dict[str, Any]] = []
        self.categories = {
            number: dictionaries.category_rows(number, names)
            for number, names in dictionaries.DEFAULT_CATEGORIES.items()
        }
        self.tables: dict[str, Table] = {}
        self.products: dict[tuple[int, int], list[dict[str, Any]]] = {}
        self.uf_ids: Iterator[int] = iter(range(501, 1_000_000))
        self.users = [
            make_user(self.world, self.wire, number, config.departments)
            for number in range(1, config.users + 1)
        ]
        self.departments = [make_department(number) for number in range(1, config.departments + 1)]
        self.page_cache: dict[Any, Any] = {}
        self.last_pages: dict[str, Any] = {}
        self.bin: dict[tuple[str, int], float] = {}
        self._went: dict[tuple[str, int], list[family.Member]] = {}
        """What went to the recycle bin together with a row, and comes back with it."""
        self._small: dict[str, Small] | None = None
        if config.smart_processes:
            stamp = self.wire.iso(self.world.epoch - 900 * data.DAY)
            for row_id, type_id, title, enabled in processes.DEFAULT_PROCESSES:
                self._register(processes.process_row(row_id, type_id, title, enabled, stamp))

    # entities -----------------------------------------------------------------------------------

    @property
    def webhook_url(self) -> str:
        return f"{self.base_url}/rest/{self.config.user_id}/{self.config.webhook_code}/"

    def key_of(self, entity: str | int) -> str:
        """Table key of `deal`, `2`, `"177"` or `dynamic_177`."""
        text = str(entity).lower()
        if text.isdigit():
            number = int(text)
            return ENTITY_OF_TYPE.get(number, f"dynamic_{number}")
        return text

    def table(self, entity: str | int) -> Table:
        """Rows of an entity, made on first use. Raises UnknownEntity."""
        key = self.key_of(entity)
        if key not in self.tables:
            self.tables[key] = self._make_table(key)
        return self.tables[key]

    @property
    def small(self) -> dict[str, Small]:
        """The entities of some dozens of rows, made on first use."""
        if self._small is None:
            self._small = {table.name: table for table in Maker(self).all()}
        return self._small

    @property
    def has_small(self) -> bool:
        """Whether the small entities were asked for already."""
        return self._small is not None

    def small_table(self, entity: str | int) -> Small | None:
        """A small entity by name; None for the others."""
        return None if entity in CLASSIC or str(entity).isdigit() else self.small.get(str(entity))

    def by_type(self, type_id: int) -> Table | None:
        """Rows of an entityTypeId that crm.item.* serves; None when there is no such type."""
        if type_id not in ENTITY_OF_TYPE and self.process_of(type_id) is None:
            return None
        return self.table(type_id)

    def _make_table(self, key: str) -> Table:
        config = self.config
        if key in CLASSIC:
            type_id = CLASSIC[key]
            specs = _CLASSIC_FIELDS[type_id] + self._user_fields("")
            return self._crm_table(
                key, type_id, specs, self.world.sizes[type_id], "DATE_CREATE", "DATE_MODIFY"
            )
        if key == "smart_invoice":
            specs = fields.INVOICE_FIELDS + self._user_fields("SMART_INVOICE_")
            return self._crm_table(key, 31, specs, config.invoices, "CREATED_TIME", "UPDATED_TIME")
        if key == "activity":
            return Table(
                key,
                0,
                fields.ACTIVITY_FIELDS,
                data.activity_columns(self.world),
                self.world,
                config.activities,
                config.gaps,
                created_field="CREATED",
                modified_field="LAST_UPDATED",
            )
        prefix, _, number = key.partition("_")
        if prefix == "stagehistory" and number.isdigit():
            return self._make_history(int(number))
        process = self.process_of(int(number)) if prefix == "dynamic" and number.isdigit() else None
        if process is None:
            raise UnknownEntity(key)
        return self._make_dynamic(key, process, 0)

    def _make_dynamic(self, key: str, process: dict[str, Any], count: int) -> Table:
        type_id, row_id = process["entityTypeId"], process["id"]
        default = any(type_id == known for _, known, _, _ in processes.DEFAULT_PROCESSES)
        count = self.config.process_items if default and not count else count
        switches = processes.enabled_switches(process)
        specs = fields.dynamic_fields(type_id, switches, processes.process_category(row_id))
        specs += self._user_fields(f"{row_id}_") if default else ()
        return self._crm_table(key, type_id, specs, count, "CREATED_TIME", "UPDATED_TIME")

    def _user_fields(self, prefix: str) -> tuple[FieldSpec, ...]:
        if not self.config.user_fields:
            return ()
        made = fields.demo_user_fields(prefix, next(self.uf_ids))
        for _ in made[1:]:
            next(self.uf_ids)
        return made

    def _crm_table(
        self, key: str, type_id: int, specs: tuple[FieldSpec, ...], count: int, created: str, modified: str
    ) -> Table:
        return Table(
            key,
            type_id,
            specs,
            data.own_columns(self.world, type_id),
            self.world,
            count,
            self.config.gaps,
            created_field=created,
            modified_field=modified,
            categories=tuple(row["id"] for row in self.categories.get(type_id, ())),
        )

    def _make_history(self, type_id: int) -> Table:
        """Two records per owner present at the start: creation and the move to its stage."""
        lead = type_id == 1
        specs = fields.LEAD_HISTORY_FIELDS if lead else fields.STAGE_HISTORY_FIELDS
        owner = self.table(type_id) if type_id != 5 else None
        count = owner.size if owner else 0
        positions = np.arange(count)
        created = owner.created[:count].copy() if owner else positions
        moved = created + (owner.modified[:count] - created) // 2 if owner else positions
        table = Table(
            f"stagehistory_{type_id}",
            0,
            specs,
            self._history_columns(type_id, owner),
            self.world,
            2 * count,
            0.0,
            created_field="CREATED_TIME",
            modified_field="CREATED_TIME",
        )
        table.created[0::2], table.created[1::2] = created, moved
        table.modified = table.created
        return table

    def _history_columns(self, type_id: int, owner: Table | None) -> dict[str, data.OwnColumn]:
        stage_field = "STATUS_ID" if type_id in (1, 7) else "STAGE_ID"

        def place(i: int) -> int:
            """Position of the owner; of records that were added, which have values of their own, any."""
            return min((i - 1) // 2, owner.size - 1) if owner else 0

        def at(i: int, name: str) -> Any:
            assert owner is not None
            return owner.profile_values(name)[owner.profile[place(i)]]

        def stage(i: int) -> data.Stage:
            category = at(i, "CATEGORY_ID") if "CATEGORY_ID" in (owner.fields if owner else ()) else 0
            stages = data.stages_of(type_id, category)
            code = at(i, stage_field)
            return stages[0] if i % 2 else next((s for s in stages if s.code == code), stages[0])

        kinds = {"P": 2, "S": 3, "F": 3}
        return {
            "ID": lambda i, h, c, m: i,
            "TYPE_ID": lambda i, h, c, m: 1 if i % 2 else kinds[stage(i).semantics],
            "OWNER_ID": lambda i, h, c, m: int(owner.ids[place(i)]) if owner else 0,
            "CREATED_TIME": lambda i, h, c, m: c,
            "CATEGORY_ID": lambda i, h, c, m: at(i, "CATEGORY_ID"),
            "STAGE_ID": lambda i, h, c, m: stage(i).code,
            "STATUS_ID": lambda i, h, c, m: stage(i).code,
            "STAGE_SEMANTIC_ID": lambda i, h, c, m: stage(i).semantics,
            "STATUS_SEMANTIC_ID": lambda i, h, c, m: stage(i).semantics,
        }

    def has_history(self, type_id: int) -> bool:
        if type_id in _HISTORY_TYPES or type_id == 5:
            return True
        process = self.process_of(type_id)
        return process is not None and process["isStagesEnabled"] == "Y"

    # smart processes ----------------------------------------------------------------------------

    def process_of(self, type_id: int) -> dict[str, Any] | None:
        return next((row for row in self.processes if row["entityTypeId"] == type_id), None)

    def _register(self, row: dict[str, Any]) -> None:
        self.processes.append(row)
        names = ((processes.process_category(row["id"]), "Общее направление"),)
        self.categories[row["entityTypeId"]] = dictionaries.category_rows(row["entityTypeId"], names)

    def add_smart_process(
        self,
        title: str,
        type_id: int | None = None,
        *,
        items: int = 0,
        enabled: tuple[str, ...] | None = None,
    ) -> dict[str, Any]:
        """Create a smart process with `items` generated rows. Returns its crm.type.list row."""
        with self.lock:
            taken = {row["entityTypeId"] for row in self.processes}
            number = type_id or processes.free_type_id(taken)
            if number in taken or not processes.valid_type_id(number):
                raise ValueError(f"entityTypeId {number} is taken or out of range")
            row_id = max((row["id"] for row in self.processes), default=0) + 1
            chosen = (
                ("isStagesEnabled", "isClientEnabled", "isCategoriesEnabled") if enabled is None else enabled
            )
            row = processes.process_row(row_id, number, title, chosen, self.stamp())
            self._register(row)
            key = f"dynamic_{number}"
            self.tables[key] = self._make_dynamic(key, row, items)
            self.events.push("ONCRMTYPEADD", row_id)
            return row

    def update_smart_process(self, type_id: int, **changes: Any) -> dict[str, Any]:
        """Change the title or switches (`isSourceEnabled="Y"`); fields follow the switches."""
        with self.lock:
            row = self._process(type_id)
            row.update(changes, updatedTime=self.stamp())
            table = self.table(type_id)
            kept = tuple(spec for spec in table.fields.values() if spec.user_field)
            switches = processes.enabled_switches(row)
            table.set_fields(
                fields.dynamic_fields(type_id, switches, processes.process_category(row["id"])) + kept
            )
            self.events.push("ONCRMTYPEUPDATE", row["id"])
            return row

    def delete_smart_process(self, type_id: int) -> None:
        """Remove a type. Raises ValueError while it has items."""
        with self.lock:
            row = self._process(type_id)
            if len(self.table(type_id).live()):
                raise ValueError("the smart process still has items")
            self.processes.remove(row)
            self.page_cache.clear()
            self.tables.pop(f"dynamic_{type_id}", None)
            self.tables.pop(f"stagehistory_{type_id}", None)
            self.categories.pop(type_id, None)
            self.events.push("ONCRMTYPEDELETE", row["id"])

    def _process(self, type_id: int) -> dict[str, Any]:
        row = self.process_of(type_id)
        if row is None:
            raise UnknownEntity(f"dynamic_{type_id}")
        return row

    # rows ---------------------------------------------------------------------------------------

    def now(self) -> int:
        return int(self.clock.now())

    def stamp(self) -> str:
        return self.wire.iso(self.clock.now())

    def create(self, entity: str | int, **values: Any) -> int:
        """Add a row with classic UPPER names (those of the answers, for small entities); returns its id."""
        with self.lock:
            if small := self.small_table(entity):
                number = small.add(values, self.stamp())
                self._touch_owner(small, number)
                return number
            table = self.table(entity)
            history = self._history_for(table)
            user = self.config.user_id
            defaults = {
                "TITLE": f"Новый элемент №{table.max_id + 1}",
                "ASSIGNED_BY_ID": user,
                "CREATED_BY_ID": user,
                "MODIFY_BY_ID": user,
                "CREATED_BY": user,
                "UPDATED_BY": user,
                "OPPORTUNITY": 0.0,
                "CURRENCY_ID": "RUB",
                "MOVED_TIME": self.now(),
                "LAST_ACTIVITY_TIME": self.now(),
                "NAME": "Без имени",
            }
            defaults |= self._stage_columns(table, values)
            row = {name: value for name, value in defaults.items() if name in table.fields}
            new_id = table.append(row | self._canonical(table, values), self.now())
            self._touch_timeline(table, table.size - 1)
            self._record_history(table, history, table.size - 1, 1)
            self.events.row_event(table, new_id, "ADD")
            return new_id

    def _stage_columns(self, table: Table, values: Row) -> Row:
        """Funnel, stage and what follows from them, for given or default values."""
        category = int(values.get("CATEGORY_ID") or (table.categories or (0,))[0])
        stages = data.stages_of(table.type_id, category)
        code = values.get("STAGE_ID") or values.get("STATUS_ID") or stages[0].code
        semantics = next((s.semantics for s in stages if s.code == code), "P")
        return {
            "CATEGORY_ID": category,
            "STAGE_ID": code,
            "STATUS_ID": code,
            "STAGE_SEMANTIC_ID": semantics,
            "STATUS_SEMANTIC_ID": semantics,
            "CLOSED": "N" if semantics == "P" else "Y",
            "OPENED": "Y" if table.type_id in CLASSIC.values() else True,
        }

    def change(self, entity: str | int, row_id: int, *, silent: bool = False, **values: Any) -> None:
        """Change columns of a live row; `silent` keeps the modification time. Raises KeyError."""
        with self.lock:
            if small := self.small_table(entity):
                self._touch_owner(small, row_id)
                small.change(row_id, values, None if silent else self.stamp())
                self._touch_owner(small, row_id)
                return
            table = self.table(entity)
            position = self._position(table, row_id)
            canonical = self._canonical(table, values)
            moved = {"STAGE_ID", "STATUS_ID", "CATEGORY_ID"} & canonical.keys()
            history = self._history_for(table) if moved else None
            if moved:
                current = {
                    n: table.value(position, n)
                    for n in ("CATEGORY_ID", "STAGE_ID", "STATUS_ID")
                    if n in table.fields
                }
                derived = self._stage_columns(table, current | canonical)
                derived.pop("OPENED")
                canonical = {n: v for n, v in derived.items() if n in table.fields} | canonical
                if "MOVED_TIME" in table.fields:
                    canonical["MOVED_TIME"] = self.now()
            table.change(position, canonical, None if silent else self.now())
            self._touch_timeline(table, position)
            if moved:
                final = table.value(position, "STAGE_ID" if "STAGE_ID" in table.fields else "STATUS_ID")
                semantics = self._stage_columns(table, {"STAGE_ID": final, **canonical})["STAGE_SEMANTIC_ID"]
                self._record_history(table, history, position, 2 if semantics == "P" else 3)
            self.events.row_event(table, row_id, "UPDATE")

    def _history_for(self, table: Table) -> Table | None:
        """The stage history of a table, made before the table changes."""
        return self.table(f"stagehistory_{table.type_id}") if self.has_history(table.type_id) else None

    def _record_history(self, table: Table, history: Table | None, position: int, kind: int) -> None:
        if history is None:
            return
        source = {"TYPE_ID": kind, "OWNER_ID": int(table.ids[position])}
        for name in history.fields.keys() - source.keys() - {"ID", "CREATED_TIME"}:
            if name in table.fields:
                source[name] = table.value(position, name)
        history.append(source, self.now())

    def delete(self, entity: str | int, row_id: int) -> None:
        """Move a live row to the recycle bin, and with it what belongs to it. Raises KeyError."""
        with self.lock:
            key = self.key_of(entity)
            if small := self.small_table(entity):
                self._touch_owner(small, row_id)
                small.delete(row_id)
            else:
                table = self.table(entity)
                table.set_alive(self._position(table, row_id), alive=False)
                self.bin[table.key, row_id] = self.clock.now()
                self.events.row_event(table, row_id, "DELETE")
            went = self._went[key, row_id] = list(family.members(self, key, row_id))
            for member in went:
                self.delete(*member)

    def restore(self, entity: str | int, row_id: int, *, new_id: bool = False) -> int:
        """Take a row back from the recycle bin; returns its id.

        Under its own id its times stay and what went with it comes back; under a new one both times are now
        and product rows come along.
        """
        with self.lock:
            if small := self.small_table(entity):
                restored = self._restore_small(small, row_id, new_id)
            else:
                restored = self._restore_row(self.table(entity), row_id, new_id)
            for member in self._went.pop((self.key_of(entity), row_id), ()):
                if restored == row_id:
                    self.restore(*member)
            return restored

    def _restore_small(self, small: Small, row_id: int, new_id: bool) -> int:
        if new_id:
            return small.add(small.bin.pop(row_id), self.stamp())
        small.restore(row_id)
        return row_id

    def _restore_row(self, table: Table, row_id: int, new_id: bool) -> int:
        if self.bin.pop((table.key, row_id), None) is None:
            raise KeyError(f"{table.key} {row_id} is not in the recycle bin")
        position = table.find(row_id)
        if not new_id:
            table.set_alive(position, alive=True)
            return row_id
        fresh = table.append(table.row(position), self.now())
        rows = self._stored_products(table, row_id)
        self.products[table.type_id, fresh] = [{**row, "ownerId": fresh} for row in rows]
        return fresh

    def _touch_owner(self, small: Small, number: int) -> None:
        """Move the time of the row that this one belongs to. Raises KeyError for a row that is not there."""
        owner = family.owner_of(self, small.name, small.rows[number])
        if owner is None:
            return
        entity, row_id, time = owner
        if above := self.small_table(entity):
            if row_id in above.rows:
                above.change(row_id, {}, self.stamp())
            return
        table = self.table(entity)
        position = table.find_live(row_id)
        if position < 0:
            return
        if time == "activity" and "LAST_ACTIVITY_TIME" in table.fields:
            table.change(position, {"LAST_ACTIVITY_TIME": self.now()}, None)
        else:
            table.change(position, {}, self.now())

    def _touch_timeline(self, table: Table, position: int) -> None:
        """An activity that is made or changed moves its owner's time of activity, and nothing else of it."""
        if table.key != "activity":
            return
        type_id, owner_id = (table.value(position, name) for name in ("OWNER_TYPE_ID", "OWNER_ID"))
        owner = self.by_type(int(type_id or 0))
        at = owner.find_live(int(owner_id or 0)) if owner else -1
        if owner and at >= 0 and "LAST_ACTIVITY_TIME" in owner.fields:
            owner.change(at, {"LAST_ACTIVITY_TIME": self.now()}, None)

    def set_products(
        self, entity: str | int, owner: int, rows: list[dict[str, Any]], *, silent: bool = False
    ) -> None:
        """Replace the product rows of a live row; its sum and change time follow unless `silent`."""
        with self.lock:
            table = self.table(entity)
            position = self._position(table, owner)
            self.products[table.type_id, owner] = rows
            if not silent:
                total = sum(float(row["price"]) * float(row["quantity"]) for row in rows)
                table.change(position, self._canonical(table, {"OPPORTUNITY": total}), self.now())

    def add_user(self, **values: Any) -> int:
        """Hire somebody; returns the id."""
        with self.lock:
            number = len(self.users) + 1
            user = make_user(self.world, self.wire, number, self.config.departments)
            self.users.append(user | {"ACTIVE": True} | values)
            return number

    def change_user(self, number: int, **values: Any) -> None:
        """Change somebody; `ACTIVE=False` dismisses them."""
        with self.lock:
            self.users[number - 1] |= values | {"TIMESTAMP_X": self.stamp()}

    def purge(self) -> int:
        """Empty the recycle bin for good; returns how many rows went."""
        with self.lock:
            count = len(self.bin)
            self.bin.clear()
            self._went.clear()
            return count

    def hide(self, entity: str | int, ids: list[int] | None = None) -> int:
        """Take away the right to see rows (all when `ids` is None): they vanish without deletion."""
        return self._set_hidden(entity, ids, hidden=True)

    def unhide(self, entity: str | int, ids: list[int] | None = None) -> int:
        return self._set_hidden(entity, ids, hidden=False)

    def _set_hidden(self, entity: str | int, ids: list[int] | None, *, hidden: bool) -> int:
        with self.lock:
            table = self.table(entity)
            found = range(table.size) if ids is None else (table.find(number) for number in ids)
            positions = np.array([p for p in found if p >= 0], dtype=np.int64)
            table.set_hidden(positions, hidden)
            return len(positions)

    def _position(self, table: Table, row_id: int) -> int:
        position = table.find(row_id)
        if position < 0 or not table.alive[position]:
            raise KeyError(f"no {table.key} with id {row_id}")
        return position

    def _canonical(self, table: Table, values: Row) -> Row:
        """Wire or Python values of known, writable-or-not columns in canonical form; others are dropped."""
        result = {n: self._value(table.fields[n], v) for n, v in values.items() if n in table.fields}
        for many, first in _DERIVED_IDS.items():
            if many in result and first in table.fields:
                result[first] = result[many][0] if result[many] else None
            elif first in result and many in table.fields:
                result[many] = [] if result[first] is None else [result[first]]
        return result

    def _value(self, spec: FieldSpec, value: Any) -> Any:
        if spec.multiple:
            items = list(value.values()) if isinstance(value, dict) else value
            items = (
                items if isinstance(items, list | tuple) else [] if items in (None, "", False) else [items]
            )
            return [self._single(spec, item) for item in items]
        return self._single(spec, value)

    def _single(self, spec: FieldSpec, value: Any) -> Any:
        if value is None or value == "":
            return None
        match spec.type:
            case "datetime":
                return self._moment(value)
            case "date":
                return (
                    value
                    if isinstance(value, int)
                    else date.fromisoformat(str(value)[:10]).toordinal() - 719163
                )
            case "boolean":
                return value in (True, 1, "1", "Y")
            case "double":
                return float(value)
            case "char":
                return value if isinstance(value, str) else "Y" if value else "N"
            case "integer" | "user" | "employee" | "enumeration" | "crm_category" | "file" | "crm_entity":
                return int(value)
            case "crm_lead" | "crm_deal" | "crm_contact" | "crm_company" | "crm_quote":
                return int(value) or None
            case "crm_multifield":
                return self._multifield(spec, value)
        return value if isinstance(value, str | dict) else str(value)

    def _moment(self, value: Any) -> int | None:
        if isinstance(value, datetime):
            return int(value.timestamp())
        if isinstance(value, int):
            return value
        moment = parse_moment(str(value), self.wire.offset)
        return None if moment is None else int(moment)

    def _multifield(self, spec: FieldSpec, value: Any) -> dict[str, Any]:
        text = value.get("VALUE", "") if isinstance(value, dict) else str(value)
        kind = value.get("VALUE_TYPE", "WORK") if isinstance(value, dict) else "WORK"
        return {"ID": 9_000_000 + next(self.uf_ids), "VALUE_TYPE": kind, "VALUE": text, "TYPE_ID": spec.name}

    # fields -------------------------------------------------------------------------------------

    def add_user_field(
        self,
        entity: str | int,
        code: str,
        kind: str = "string",
        title: str = "",
        *,
        multiple: bool = False,
        fill: bool = False,
        values: tuple[str, ...] = fields.ENUM_VALUES,
    ) -> FieldSpec:
        """Create a user field. `fill` gives old rows values without moving their modification time."""
        with self.lock:
            table = self.table(entity)
            prefix = self.user_field_prefix(table.type_id)
            spec = fields.make_user_field(
                prefix,
                code.upper(),
                kind,
                title or code,
                uf_id=next(self.uf_ids),
                multiple=multiple,
                filled=fill,
                values=values,
            )
            if spec.name in table.fields:
                raise ValueError(f"{spec.name} already exists")
            self.page_cache.clear()
            spec = table.add_field(spec)
            self.events.field_event(table, spec, "ADD")
            return spec

    def user_field_prefix(self, type_id: int) -> str:
        """`3_` for the smart process with row id 3, empty for classic entities."""
        process = self.process_of(type_id)
        if process is not None:
            return f"{process['id']}_"
        return "SMART_INVOICE_" if type_id == 31 else ""

    def delete_user_field(self, entity: str | int, name: str) -> None:
        with self.lock:
            table = self.table(entity)
            spec = table.fields[name]
            table.remove_field(name)
            self.page_cache.clear()
            self.events.field_event(table, spec, "DELETE")

    # reading back -------------------------------------------------------------------------------

    def expected(self, entity: str | int, form: str = "wire") -> Iterator[Row]:
        """Live rows in id order, for comparisons.

        `form="wire"`: as crm.<entity>.list with `["*", "UF_*"]` and all multiple fields named would answer
        (crm.item.list for other entities). `form="raw"`: UPPER names; None, int, float, str, bool, lists,
        aware datetime in UTC, date. `form="id"`: only `{"ID": n}`.
        """
        with self.lock:
            if small := self.small_table(entity):
                return iter([{"ID": n} for n in sorted(small.rows)] if form == "id" else small.live())
            table = self.table(entity)
            positions = table.live()
            if form == "id":
                return iter([{"ID": number} for number in table.ids[positions].tolist()])
            if form == "raw":
                return iter([self._raw(table, int(p)) for p in positions])
            return iter([loads(row) for row in self.full_renderer(table).rows(positions)])

    def full_renderer(self, table: Table) -> Renderer:
        """All columns a list answer may carry."""
        history = table.key.startswith("stagehistory")
        universal = table.type_id >= 31 or history
        skipped = set(_DERIVED_IDS) if not universal else set()
        columns = [
            (spec.camel if universal and not history else spec.name, spec)
            for spec in table.fields.values()
            if spec.name not in skipped and (spec.universal if universal else spec.classic)
        ]
        return Renderer(table, self.wire, columns, universal)

    def _raw(self, table: Table, position: int) -> Row:
        return {name: self._python(table.fields[name], value) for name, value in table.row(position).items()}

    def _python(self, spec: FieldSpec, value: Any) -> Any:
        if isinstance(value, list):
            return [self._python(spec, item) for item in value]
        if spec.type == "datetime" and value is not None:
            return datetime.fromtimestamp(value, UTC)
        if spec.type == "date" and value is not None:
            return date(1970, 1, 1) + timedelta(days=int(value))
        return value

    def product_rows(self, type_id: int, owner: int) -> list[dict[str, Any]]:
        """Product rows of one owner (empty when the owner is gone)."""
        table = self.by_type(type_id)
        position = table.find_live(owner) if table else -1
        if table is None or position < 0:
            return []
        return self._stored_products(table, owner)

    def _stored_products(self, table: Table, owner: int) -> list[dict[str, Any]]:
        known = self.products.get((table.type_id, owner))
        if known is not None:
            return known
        generated = not table.appended(table.find(owner))
        return product_rows(self.config.seed, table.type_id, owner) if generated else []

    # mutation, clock, statistics ----------------------------------------------------------------

    def mutate(self, count: int = 1, entity: str | int = "deal") -> None:
        """Random inserts, updates and deletes (3 : 5 : 2), reproducible by seed."""
        with self.lock:
            table = self.table(entity)
            for _ in range(count):
                dice, target = self._random.random(), self._random_live(table)
                if dice < 0.3 or target is None:
                    self.create(entity, TITLE=f"Мутация {self._random.randrange(10**6)}")
                    continue
                if dice < 0.8:
                    self.change(entity, target, COMMENTS=f"изменено {self._random.randrange(10**6)}")
                else:
                    self.delete(entity, target)

    def _random_live(self, table: Table) -> int | None:
        """Id of a random visible row; None when luck runs out (few rows are left)."""
        for _ in range(100 if table.size else 0):
            position = self._random.randrange(table.size)
            if table.alive[position] and not table.hidden[position]:
                return int(table.ids[position])
        return None

    def stats(self) -> dict[str, Any]:
        """Counters since the start or the last reset; see `/stats`."""
        with self.lock:
            report = self.stats_data.report()
            report["operating"] = self.budget.totals(self.clock.now())
            report["peak_bucket"] = round(self.bucket.peak, 2)
            report["portal_time"] = self.stamp()
            return report

    def reset_stats(self) -> None:
        with self.lock:
            self.stats_data = Stats()
            self.bucket.peak = 0.0

    def reset_limits(self) -> None:
        """Forget bucket levels and operating budgets."""
        with self.lock:
            self.bucket = LeakyBucket(self.config.rate_limit, self.config.count_rejected)
            self.budget = OperatingBudget()
