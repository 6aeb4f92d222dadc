"""Names beside ids in the `bi` views: stages, statuses, funnels, users, departments, options of lists.

They are looked up when the view is read, so a renamed stage is renamed everywhere at once. They are called
as in the vendor's BI datasets: beside ASSIGNED_BY_ID stand ASSIGNED_BY_NAME and ASSIGNED_BY (`[id] name`),
beside MODIFY_BY_ID MODIFIED_BY_NAME and MODIFIED_BY.

Facts: help centre of the vendor, "Description of datasets and fields for BI Builder".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from etl_assets.bitrix24.entity import Entity
from resources.bitrix24.fields import PortalField
from resources.clickhouse.table import Column, Label, literal, quote

DICTIONARIES = ("crm_status", "crm_category", "crm_userfield_enum", "user", "department")
_STAGES = {
    "crm_deal": "DEAL_STAGE",
    "crm_lead": "STATUS",
    "crm_quote": "QUOTE_STATUS",
    "crm_smart_invoice": "SMART_INVOICE_STAGE",
}
# Columns that hold a user where the portal's field list does not say so, or there is none.
_PEOPLE = frozenset(
    {
        *(
            "AUTHOR_ID",
            "CREATED_BY",
            "CREATED_BY_ID",
            "MODIFY_BY_ID",
            "PORTAL_USER_ID",
            "TOGGLED_BY",
            "USER_ID",
        ),
        *("CHANGED_BY", "CLOSED_BY", "RESPONSIBLE_ID", "STATUS_CHANGED_BY", "ACCOMPLICES", "AUDITORS"),
        *("MEETING_HOST", "SCRUM_MASTER_ID", "createdBy", "modifiedBy", "updatedBy", "userId"),
    }
)
_OWNED_BY_PEOPLE = ("sonet_group", "workgroup")
_WITH_DEPARTMENT = ("ASSIGNED_BY_ID", "RESPONSIBLE_ID", "PORTAL_USER_ID")
_FULL_NAME = "trim(BOTH ' ' FROM concat(ifNull(NAME, ''), ' ', ifNull(LAST_NAME, '')))"
_TYPE_OF_STATUS = (
    "multiIf(ENTITY_ID = 'STATUS', '1', startsWith(ENTITY_ID, 'DEAL_STAGE'), '2', "
    "startsWith(ENTITY_ID, 'SMART_INVOICE_STAGE'), '31', extract(ifNull(ENTITY_ID, ''), '^DYNAMIC_(\\d+)_'))"
)


def labels(entity: Entity, fields: Sequence[PortalField], columns: Sequence[Column]) -> tuple[Label, ...]:
    """The label columns of one entity's view: of its `columns`, which `fields` of the portal describe."""
    if entity.name in DICTIONARIES:
        return ()
    described, taken, found = {f.name: f for f in fields}, {c.name for c in columns}, []
    for column in columns:
        for label in _of_column(entity, column, described.get(column.name)):
            if label.name not in taken:
                taken.add(label.name)
                found.append(label)
    return tuple(found)


def _of_column(entity: Entity, column: Column, field: PortalField | None) -> Iterator[Label]:
    if entity.strategy == "stage_history":
        yield from _of_history(column)
    elif _is_person(entity, column.name, field.type if field else ""):
        yield from _named(column, _pairs("user", "ID", _FULL_NAME))
        if column.name in _WITH_DEPARTMENT and not column.multiple:
            department = _pairs("department", "ID", "NAME")
            people = _pairs("user", "ID", f"ifNull({_find('toString(UF_DEPARTMENT[1])', department)}, '')")
            name = f"{_base(column.name)}_DEPARTMENT"
            yield Label(name, _looked_up(column, people), f"{column.comment or column.name}: department")
    elif pairs := _dictionary(entity, column.name, field):
        yield from _named(column, pairs)


def _is_person(entity: Entity, name: str, kind: str) -> bool:
    if kind in ("user", "employee") or (name == "OWNER_ID" and entity.name in _OWNED_BY_PEOPLE):
        return True
    return name in _PEOPLE and kind in ("", "integer", "array", "string")


def _dictionary(entity: Entity, name: str, field: PortalField | None) -> str:
    """SQL of the dictionary that a column's ids stand in; empty if there is none."""
    if entity.entity_type_id is not None and name in ("STAGE_ID", "STATUS_ID"):
        return _statuses(f"startsWith(ENTITY_ID, {literal(_stage(entity))})")
    if entity.entity_type_id is not None and name == "CATEGORY_ID":
        return _pairs("crm_category", "id", "name", f"entityTypeId = {literal(str(entity.entity_type_id))}")
    if field and field.type == "crm_status" and field.status_type:
        return _statuses(f"ENTITY_ID = {literal(field.status_type)}")
    if field and field.type == "enumeration":
        where = f"ENTITY = {literal(entity.name)} AND FIELD_NAME = {literal(field.name)}"
        return _pairs("crm_userfield_enum", "ID", "VALUE", where)
    return ""


def _of_history(column: Column) -> Iterator[Label]:
    """Stages and funnels of the history, whose ids are those of one type of owner."""
    if column.name in ("STAGE_ID", "STATUS_ID"):
        pairs = _pairs("crm_status", f"concat({_TYPE_OF_STATUS}, '|', ifNull(STATUS_ID, ''))", "NAME")
    elif column.name == "CATEGORY_ID":
        pairs = _pairs("crm_category", "concat(entityTypeId, '|', id)", "name")
    else:
        return
    value = f"concat(ENTITY_TYPE_ID, '|', ifNull({quote(column.name)}, ''))"
    yield from _both(column, _find(value, pairs))


def _named(column: Column, pairs: str) -> Iterator[Label]:
    if column.multiple:
        yield Label(f"{_base(column.name)}_NAME", _looked_up(column, pairs), f"{column.comment}: name")
    else:
        yield from _both(column, _looked_up(column, pairs))


def _both(column: Column, name: str) -> Iterator[Label]:
    """The name, and the id with the name where the id's column leaves that name free."""
    base, about = _base(column.name), column.comment or column.name
    yield Label(f"{base}Name" if base[0].islower() else f"{base}_NAME", name, f"{about}: name")
    if base != column.name:
        joined = f"concat('[', toString({quote(column.name)}), '] ', {name})"
        yield Label(base, joined, f"{about}: id and name")


def _base(name: str) -> str:
    """ASSIGNED_BY_ID -> ASSIGNED_BY."""
    return {"MODIFY_BY_ID": "MODIFIED_BY", "userId": "user"}.get(name, name.removesuffix("_ID"))


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


def _looked_up(column: Column, pairs: str) -> str:
    name = quote(column.name)
    if column.multiple:
        return f"arrayMap(v -> {_find('toString(ifNull(v, ' + chr(39) * 2 + '))', pairs)}, {name})"
    return _find(f"ifNull(toString({name}), '')", pairs)
