"""From a portal's field lists to the columns of a table. Pure: no network, no Dagster.

Facts: REST documentation of `crm.<entity>.fields`, `crm.item.fields` and `crm.item.productrow.fields`. The
type rules give the column list that users of the old connector know: the key is a String, sums are Decimal,
everything else nullable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from resources.clickhouse.table import Column
from resources.clickhouse.values import (
    CALENDAR_DATE,
    DECIMAL2,
    FILE_ID,
    FLOAT32,
    FLOAT64,
    INSTANT,
    INTEGER,
    JSON,
    MONEY_AMOUNT,
    MONEY_CURRENCY,
    MULTIFIELD_VALUE,
    RELATION,
    TEXT,
    UNIX_SECONDS,
    YES_NO,
    Kind,
)

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("integer", "int"), INTEGER),
    "double": FLOAT32,
    "boolean": YES_NO,
    "date": CALENDAR_DATE,
    "datetime": INSTANT,
    "timestamp": UNIX_SECONDS,
    **dict.fromkeys(("file", "diskfile", "disk_file", "attached_diskfile", "product_file"), FILE_ID),
    **dict.fromkeys(
        (
            *("string", "text", "char", "enumeration", "enum", "array", "url", "address", "location"),
            *("user", "employee", "crm", "iblock_element", "iblock_section", "hlblock", "resourcebooking"),
            *("crm_status", "crm_currency", "crm_category", "crm_dynamic_type"),
        ),
        TEXT,
    ),
    **dict.fromkeys(
        ("crm_lead", "crm_deal", "crm_contact", "crm_company", "crm_quote", "crm_entity"), RELATION
    ),
    "crm_multifield": MULTIFIELD_VALUE,
}
OVERRIDES: dict[str, Kind] = {
    "Decimal(18,2)": DECIMAL2,
    "Float64": FLOAT64,
    "Float32": FLOAT32,
    "Int64": INTEGER,
    "String": TEXT,
}

# Sums whose metadata type is `double`, which Float32 would round.
SUMS = re.compile(
    r"^(OPPORTUNITY|REVENUE|ANNUAL_?REVENUE|PRICE.*|DISCOUNT_?SUM|RESULT_SUM|COST|PURCHASING_?PRICE)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class PortalField:
    """One field as the portal describes it.

    `name` is the column name; `key` the name in the answers of the method that the entity is read by.
    """

    name: str
    key: str
    type: str
    multiple: bool = False
    title: str = ""
    user_field: bool = False
    status_type: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def parse_fields(answer: Any, *, upper: bool) -> list[PortalField]:
    """The fields of a `*.fields` answer, in the portal's order.

    `upper=False`: classic methods, whose keys are the column names. `upper=True`: universal methods; the
    column is named by the descriptor's `upperName`, since the camelCase of user fields cannot be computed.
    """
    described = answer.get("fields", answer) if isinstance(answer, Mapping) else answer
    if not isinstance(described, Mapping):
        return []  # PHP writes an empty map as []
    return [_field(key, d, upper) for key, d in described.items() if isinstance(d, Mapping)]


def parse_titles(answer: Any) -> list[PortalField]:
    """The fields of `user.fields`, which tells their titles and nothing else."""
    titles = answer if isinstance(answer, Mapping) else {}
    return [PortalField(name, name, "string", title=str(title)) for name, title in titles.items()]


def _field(key: str, described: Mapping[str, Any], upper: bool) -> PortalField:
    title = next((str(described[k]) for k in ("listLabel", "formLabel", "title") if described.get(k)), "")
    # A user field's `title` is its code; its label is what people know it by.
    return PortalField(
        name=str(described.get("upperName") or upper_name(key)) if upper else key,
        key=key,
        type=str(described.get("type") or "string"),
        multiple=_true(described.get("isMultiple")),
        title=title,
        user_field=_true(described.get("isDynamic")),
        status_type=str(described.get("statusType") or ""),
    )


# Types of `lists.field.get` (REST documentation) whose values are no plain text.
_LIST_TYPES = {
    **dict.fromkeys(("N", "N:Sequence"), "double"),
    "SORT": "integer",
    "S:Date": "date",
    **dict.fromkeys(("S:DateTime", "DATE_CREATE", "TIMESTAMP_X", "ACTIVE_FROM", "ACTIVE_TO"), "datetime"),
}


def parse_list_fields(answer: Any) -> list[PortalField]:
    """The fields of a universal list, its id first; they come as a map by type code or field id."""
    described = answer.values() if isinstance(answer, Mapping) else answer if isinstance(answer, list) else []
    found = [
        PortalField(
            name=str(d["FIELD_ID"]),
            key=str(d["FIELD_ID"]),
            type=_LIST_TYPES.get(str(d.get("TYPE")), "string"),
            multiple=_true(d.get("MULTIPLE")),
            title=str(d.get("NAME") or ""),
        )
        for d in described
        if isinstance(d, Mapping) and d.get("FIELD_ID")
    ]
    section = PortalField("IBLOCK_SECTION_ID", "IBLOCK_SECTION_ID", "string", title="Section")
    more = [] if any(f.name == section.name for f in found) else [section]
    return [PortalField("ID", "ID", "integer"), *(f for f in found if f.name != "ID"), *more] if found else []


def _true(value: Any) -> bool:
    return value is True or str(value).upper() in ("Y", "1", "TRUE")


def upper_name(camel: str) -> str:
    """`parentId142` -> `PARENT_ID_142`: an underscore before each capital and before a group of digits."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Za-z])(?=[0-9])", "_", camel).upper()


def camel_name(upper: str) -> str:
    """`CHANGED_DATE` -> `changedDate`, as the tasks' methods spell the names of their field list."""
    first, *rest = upper.lower().split("_")
    return first + "".join(part.capitalize() for part in rest)


# universal name -> classic name, where the rule does not hold (REST documentation, object field lists).
_CLASSIC_NAMES = {
    "createdTime": "DATE_CREATE",
    "updatedTime": "DATE_MODIFY",
    "createdBy": "CREATED_BY_ID",
    "updatedBy": "MODIFY_BY_ID",
    "movedBy": "MOVED_BY_ID",
}
_CLASSIC_BY_TYPE = {
    1: {"stageId": "STATUS_ID", "stageSemanticId": "STATUS_SEMANTIC_ID"},
    4: {"typeId": "COMPANY_TYPE", "contactIds": "CONTACT_ID"},
    7: {"stageId": "STATUS_ID"},
}


def universal_keys(universal: Iterable[PortalField], entity_type_id: int) -> dict[str, str]:
    """Classic column name -> key in `crm.item.list` answers, for one of the five old entities."""
    exceptions = {**_CLASSIC_NAMES, **_CLASSIC_BY_TYPE.get(entity_type_id, {})}
    keys: dict[str, str] = {}
    for field in universal:
        keys.setdefault(field.name, field.key)
    keys.update({exceptions[f.key]: f.key for f in universal if f.key in exceptions})
    return keys


def columns(
    fields: Iterable[PortalField], *, key: str = "ID", overrides: Mapping[str, str] | None = None
) -> tuple[tuple[Column, ...], int]:
    """Columns in table order, and the position of `dt_inserted` among them.

    Order: the key, the overridden columns, `dt_inserted`, then the portal's order. `overrides` maps a
    column to a type of `OVERRIDES`; the sums are overridden to Decimal(18, 2) without being named.
    """
    wanted = dict(overrides or {})
    first: list[Column] = []
    special: list[Column] = []
    rest: list[Column] = []
    for field in fields:
        override = wanted.get(field.name) or (
            "Decimal(18,2)" if field.type == "double" and SUMS.match(field.name) else None
        )
        if field.name == key:
            first.append(Column(field.name, field.key, TEXT, field.title, required=True))
        elif override:
            special.append(
                Column(field.name, field.key, OVERRIDES[override], field.title, multiple=field.multiple)
            )
        else:
            rest.extend(_columns_of(field))
    taken: set[str] = set()
    ordered = [c for c in (*first, *special, *rest) if not (c.name in taken or taken.add(c.name))]
    return tuple(ordered), len(first) + len(special)


def _columns_of(field: PortalField) -> list[Column]:
    if field.type == "money":
        amount = Column(
            f"{field.name}_AMOUNT", field.key, MONEY_AMOUNT, f"{field.title}: amount", multiple=field.multiple
        )
        currency = Column(
            f"{field.name}_CURRENCY",
            field.key,
            MONEY_CURRENCY,
            f"{field.title}: currency",
            multiple=field.multiple,
        )
        return [Column(field.name, field.key, TEXT, field.title, multiple=field.multiple), amount, currency]
    if field.type == "array":
        return [Column(field.name, field.key, TEXT, field.title, multiple=True)]
    # A type that nobody told us of may hold objects: JSON keeps plain text as it is.
    kind = INTEGER if field.type.startswith("crm_enum_") else _KINDS.get(field.type, JSON)
    return [
        Column(
            field.name,
            field.key,
            kind,
            field.title,
            multiple=field.multiple or field.type == "crm_multifield",
        )
    ]
