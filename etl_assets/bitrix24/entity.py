"""What an entity is: one table of the portal as data. How it is read: the strategies in `readers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from resources.clickhouse.table import Column
from resources.clickhouse.values import TEXT, Kind

FEED = "*/5 * * * *"  # what changed since the last tick
DICTIONARIES = "0 * * * *"
STRUCTURE = "30 2 * * *"

WORK = "*/15 * * * *"  # what changed, of entities that nobody watches by the minute

Strategy = Literal[
    "object",
    "list",
    "stage_history",
    "catalog",
    "product_rows",
    "links",
    "owned",
    "comments",
    "every_owner",
    "per_type",
    "per_kind",
    "user_fields",
    "enum_labels",
    "calendar",
    "open_line_messages",
    "work_time",
    "lists",
    "list_fields",
    "list_sections",
    "universal_list",
]


@dataclass(frozen=True, slots=True)
class OwnerTypes:
    """How a column says what an owner is: table -> what stands there. `smart_process` is the SQL of that for
    a smart process, of its `{number}`."""

    tables: Mapping[str, str]
    smart_process: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a row is: `column` has the owner's id and `table` is where it is; where owners are of several
    tables, `type_column` says which, spelled as `types`."""

    column: str
    table: str = ""
    type_column: str = ""
    types: OwnerTypes | None = None


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity of the portal and the table that it becomes.

    `modified` is the column by which the portal reports change: it makes the entity incremental, with daily
    partitions. Without it the entity is a snapshot. `columns` are declared where the portal has no field
    list for the entity. A row of a `doubtful` entity, whose lists depend on rights row by row, counts as gone
    only when it was gone at the reconciliation before, too.

    `cursor` is the id's name in filters and `id_key` in answers, where they are not the key; `modified_key`
    the same for `modified`. `camel`: answers spell the names of the field list in camelCase. `counted`: rows
    can be counted by id range, so that rows that are gone are found. `lookback`: so far back a tick reads
    again, since rows change without a change time. `backdated`: new rows may carry a time of long ago, so a
    tick also reads those with higher ids than are here. `goes_with`: a row leaves the `bi` view with
    this owner and comes back with it; an entity whose own ids are compared follows those instead. `costly`: a
    first load asks for every owner, so a demo leaves it out. `kind`: what some strategies tell entities apart
    by.
    """

    name: str
    about: str
    method: str
    strategy: Strategy = "object"
    key: tuple[str, ...] = ("ID",)
    cron: str = FEED
    modified: str | None = None
    fields_method: str = ""
    entity_type_id: int | None = None
    universal: bool = False
    select: tuple[str, ...] = ()
    contacts: bool = False
    camel: bool = False
    cursor: str = ""
    id_key: str = ""
    modified_key: str = ""
    sort_style: Literal["order", "sort_order", "positional"] = "order"
    among: Literal["@", "=", ""] = "@"
    counted: bool = False
    lookback: timedelta = timedelta(0)
    backdated: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)
    items: str | None = None
    paging: Literal["keyset", "sequential", "offset", "single"] = "keyset"
    columns: tuple[Column, ...] = ()
    parents: tuple[str, ...] = ()
    owner: str = ""
    title: str = ""
    archived: bool = False
    goes_with: Owner | None = None
    tombstones: bool = False
    doubtful: bool = False
    kind: str = ""
    costly: bool = False

    def __post_init__(self) -> None:
        if self.reconciled and self.goes_with:  # the comparison would find such rows missing night by night
            raise ValueError(f"{self.name}: its own ids are compared, so it goes with nobody")

    @property
    def follows(self) -> bool:
        """Whether it is read by what other tables hold, so that those come first."""
        return bool(self.owner) or self.strategy in ("calendar", "work_time")

    @property
    def reconciled(self) -> bool:
        """Whether its ids can be counted by range, so that rows that are gone are found."""
        return self.strategy == "object" or self.counted


# Short codes of the owners of product rows; a smart process has T and its number in hexadecimal.
OWNER_CODES = {"crm_lead": "L", "crm_deal": "D", "crm_quote": "Q", "crm_smart_invoice": "SI"}
BY_CODE = OwnerTypes(OWNER_CODES, "concat('T', replaceRegexpOne(lower(hex({number})), '^0+', ''))")
BY_NUMBER = OwnerTypes({"crm_lead": "1", "crm_deal": "2", "crm_smart_invoice": "31"}, "toString({number})")
BY_WORD = OwnerTypes(
    {f"crm_{word}": word for word in ("lead", "deal", "contact", "company")},
    "concat('dynamic_', toString({number}))",
)


def column(name: str, kind: Kind = TEXT, comment: str = "", *, source: str = "", **options: Any) -> Column:
    """A declared column; `source` is its key in answers where that is another."""
    return Column(name, source or name, kind, comment, **options)


def key_column(name: str, comment: str = "", **options: Any) -> Column:
    """A column of the key."""
    return column(name, TEXT, comment, required=True, **options)
