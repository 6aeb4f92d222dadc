"""Names beside ids in the `bi` views: stages, statuses, funnels, users, departments, options of lists.

They are looked up when the view is read, so a renamed stage is renamed everywhere at once. A column
ASSIGNED_BY_ID gets ASSIGNED_BY_NAME, as in the vendor's BI datasets.
"""

from __future__ import annotations

from collections.abc import Iterator

from etl_assets.bitrix24.entity import Entity
from resources.bitrix24.fields import PortalField
from resources.clickhouse.table import Label, literal, quote

DICTIONARIES = ("crm_status", "crm_category", "crm_userfield_enum", "user", "department")
_STAGES = {
    "crm_deal": "DEAL_STAGE",
    "crm_lead": "STATUS",
    "crm_quote": "QUOTE_STATUS",
    "crm_smart_invoice": "SMART_INVOICE_STAGE",
}
_FULL_NAME = "trim(BOTH ' ' FROM concat(ifNull(NAME, ''), ' ', ifNull(LAST_NAME, '')))"


def labels(entity: Entity, fields: tuple[PortalField, ...]) -> tuple[Label, ...]:
    """The label columns of one entity's view."""
    known = {f.name for f in fields}
    found = [label for field in fields for label in _of_field(entity, field)]
    return tuple(label for label in found if label.name not in known)


def _of_field(entity: Entity, field: PortalField) -> Iterator[Label]:
    name = f"{field.name.removesuffix('_ID')}_NAME"
    about = field.title or field.name
    if field.type in ("user", "employee"):
        yield Label(name, _looked_up(field, _pairs("user", "ID", _FULL_NAME)), f"{about}: name")
        if field.name == "ASSIGNED_BY_ID" and not field.multiple:
            department = _pairs("department", "ID", "NAME")
            people = _pairs("user", "ID", f"ifNull({_find('toString(UF_DEPARTMENT[1])', department)}, '')")
            yield Label("ASSIGNED_BY_DEPARTMENT", _looked_up(field, people), f"{about}: department")
    elif field.name in ("STAGE_ID", "STATUS_ID") and entity.entity_type_id is not None:
        yield Label(
            name, _looked_up(field, _statuses(f"startsWith(ENTITY_ID, {literal(_stage(entity))})")), about
        )
    elif field.name == "CATEGORY_ID" and entity.entity_type_id is not None:
        where = f"entityTypeId = {literal(str(entity.entity_type_id))}"
        yield Label(name, _looked_up(field, _pairs("crm_category", "id", "name", where)), about)
    elif field.type == "crm_status" and field.status_type:
        yield Label(name, _looked_up(field, _statuses(f"ENTITY_ID = {literal(field.status_type)}")), about)
    elif field.type == "enumeration":
        where = f"ENTITY = {literal(entity.name)} AND FIELD_NAME = {literal(field.name)}"
        yield Label(name, _looked_up(field, _pairs("crm_userfield_enum", "ID", "VALUE", where)), about)


def _stage(entity: Entity) -> str:
    return _STAGES.get(entity.name, f"DYNAMIC_{entity.entity_type_id}_STAGE")


def _statuses(where: str) -> str:
    return _pairs("crm_status", "STATUS_ID", "NAME", where)


def _pairs(table: str, key: str, value: str, where: str = "1") -> str:
    """SQL of a constant: (key, name) pairs of a dictionary, one of them for nothing."""
    pairs = f"arraySort(groupArray((toString(ifNull({key}, '')), toString(ifNull({value}, '')))))"
    return f"(SELECT arrayPushFront({pairs}, ('', '')) FROM bitrix24.{table} FINAL WHERE {where})"


def _find(value: str, pairs: str) -> str:
    """SQL: the name that belongs to a key; NULL where there is none."""
    return f"nullIf(transform({value}, tupleElement({pairs}, 1), tupleElement({pairs}, 2), ''), '')"


def _looked_up(field: PortalField, pairs: str) -> str:
    column = quote(field.name)
    if field.multiple:
        return f"arrayMap(v -> {_find('toString(ifNull(v, ' + chr(39) * 2 + '))', pairs)}, {column})"
    return _find(f"ifNull(toString({column}), '')", pairs)
