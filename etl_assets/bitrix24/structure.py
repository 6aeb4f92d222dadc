"""What a portal says of an entity's fields, and the table and the list call that follow from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import dagster as dg

from etl_assets.bitrix24.deletions import MARKS, hidden
from etl_assets.bitrix24.entities import ENTITIES, Entity
from etl_assets.bitrix24.labels import DICTIONARIES as LABEL_TABLES
from etl_assets.bitrix24.labels import labels
from resources.bitrix24 import CommandError, ListCall
from resources.bitrix24.fields import (
    PortalField,
    camel_name,
    columns,
    parse_fields,
    parse_list_fields,
    parse_titles,
    universal_keys,
)
from resources.clickhouse import Column, Table
from resources.clickhouse.values import JSON, TEXT

DATABASE = "bitrix24"
HIDDEN = ("CONTACT_IDS", "COMPANY_IDS")  # what classic field lists name and classic list methods never give
SAMPLE = 50  # newest rows that are compared between the classic and the universal method


@dataclass(frozen=True, slots=True)
class Structure:
    """Fields of one entity with the names under which the chosen method answers them.

    `universal`: rows come from `crm.item.list`. `apart`: the classic method is read, which never gives these
    lists of relations, so they are asked for by id; (column, its key in the answers of `crm.item.list`).
    """

    fields: tuple[PortalField, ...] = ()
    universal: bool = False
    apart: tuple[tuple[str, str], ...] = ()

    def dump(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def parse(cls, text: str) -> Structure:
        data = json.loads(text)
        apart = tuple((column, key) for column, key in data.get("apart", ()))
        return cls(tuple(PortalField(**f) for f in data["fields"]), data["universal"], apart)


Call = tuple[str, Mapping[str, Any]]


def questions(entity: Entity) -> list[Call]:
    """The calls whose answers describe the entity; none for one with declared columns."""
    if not entity.fields_method:
        return []
    if entity.universal:
        return [("crm.item.fields", {"entityTypeId": entity.entity_type_id})]
    if entity.strategy == "universal_list":
        return [(entity.fields_method, entity.params)]
    asked: list[Call] = [(entity.fields_method, {})]
    if entity.entity_type_id is not None:
        newest = {"start": -1, "select": ["*", "UF_*"]}
        asked += [
            ("crm.item.fields", {"entityTypeId": entity.entity_type_id}),
            (entity.method, {**newest, "order": {"ID": "DESC"}}),
            (
                "crm.item.list",
                {
                    "entityTypeId": entity.entity_type_id,
                    "start": -1,
                    "select": ["*"],
                    "order": {"id": "DESC"},
                },
            ),
        ]
    return asked


def describe(entity: Entity, answers: Sequence[Any]) -> Structure:
    """Structure from the answers to `questions`.

    Raises the entity's own failure if its field list is refused; the universal sample may be refused
    without harm.
    """
    if not answers:
        return Structure()
    if isinstance(answers[0], CommandError):
        if entity.columns:  # the portal's list would only have added to the declared ones
            return Structure()
        raise failure(entity, answers[0])
    if entity.columns:
        return Structure(tuple(parse_titles(answers[0])))
    of_list = entity.strategy == "universal_list"
    fields = parse_list_fields(answers[0]) if of_list else parse_fields(answers[0], upper=entity.universal)
    if entity.camel:
        # Some names can be selected though the list leaves them out.
        unlisted = [n for n in entity.select if n not in {f.name for f in fields}]
        fields += [PortalField(n, n, "array" if n == "TAGS" else "string") for n in unlisted]
        fields = [replace(f, key=camel_name(f.name), user_field=False) for f in fields]
    if not fields:
        raise dg.Failure(f"{entity.method}: the portal gave no field list", allow_retries=True)
    hidden = [f.name for f in fields if f.name in HIDDEN]
    if entity.universal or len(answers) < 4 or not hidden:
        return Structure(tuple(fields), universal=entity.universal)
    if any(isinstance(a, CommandError) for a in answers[1:]):
        return Structure(tuple(fields))
    keys = universal_keys(parse_fields(answers[1], upper=True), entity.entity_type_id or 0)
    items = answers[3].get("items", []) if isinstance(answers[3], Mapping) else []
    if _covers(fields, keys, _rows(answers[2]), _rows(items)):
        renamed = [replace(f, key=keys[f.name]) for f in fields if f.name in keys]
        return Structure(tuple(renamed), universal=True)
    return Structure(tuple(fields), apart=tuple((n, keys[n]) for n in hidden if n in keys))


def failure(entity: Entity, error: CommandError) -> dg.Failure:
    """The portal's refusal as the failure of this entity alone."""
    return dg.Failure(f"{entity.name}: {error.message}", allow_retries=error.retryable)


def _rows(answer: Any) -> list[Mapping[str, Any]]:
    return [r for r in answer if isinstance(r, Mapping)] if isinstance(answer, list) else []


def _covers(
    fields: Sequence[PortalField],
    keys: Mapping[str, str],
    classic: Sequence[Mapping[str, Any]],
    universal: Sequence[Mapping[str, Any]],
) -> bool:
    """Whether the universal rows hold every value that the classic rows hold.

    Every classic field needs a universal name, and wherever a classic row of the sample has a value the
    universal one must have the key. One scan then gives everything, lists of relations too.
    """
    if any(f.name not in keys for f in fields):
        return False
    twins = {str(r.get("id")): r for r in universal}
    for row in classic:
        twin = twins.get(str(row.get("ID")))
        if twin is None:
            continue
        for field in fields:
            if row.get(field.name) not in (None, "", False, [], {}, "0") and keys[field.name] not in twin:
                return False
    return True


def table_of(entity: Entity, structure: Structure, zone: str, types: Mapping[str, str]) -> Table:
    """The entity's table. `types` overrides the type of single columns."""
    if entity.columns:
        declared, position = _declared(entity, structure)
    elif entity.strategy == "product_rows":
        declared, position = columns(structure.fields, key="id", overrides={**_PRODUCT_ROW_TYPES, **types})
        declared = tuple(
            replace(c, required=c.required or c.name in ("ownerId", "ownerType")) for c in declared
        )
    else:
        if entity.strategy == "universal_list":  # its numbers have no precision of their own
            types = {f.name: "Float64" for f in structure.fields if f.type == "double"} | dict(types)
        declared, position = columns(structure.fields, key=entity.key[0], overrides=types)
    gone, named = hidden(entity), labels(entity, structure.fields, declared)
    return Table(
        database=DATABASE,
        name=entity.name,
        columns=declared,
        key=entity.key,
        mode="upsert" if entity.modified else "snapshot",
        comment=entity.about,
        zone=zone,
        tombstones=entity.tombstones,
        loaded_at_position=position,
        hidden=gone,
        labels=named,
        needs=(*((MARKS,) if gone else ()), *(dictionaries(zone) if named else ())),
    )


def dictionaries(zone: str) -> tuple[Table, ...]:
    """The tables that labels are looked up in; a view can only be made when they are there."""
    return tuple(table_of(e, Structure(), zone, {}) for e in ENTITIES if e.name in LABEL_TABLES)


_PRODUCT_ROW_TYPES = {"quantity": "Float64", "discountRate": "Float64", "taxRate": "Float64"}


def _declared(entity: Entity, structure: Structure) -> tuple[tuple[Column, ...], int | None]:
    """Declared columns, and behind them the fields that this portal has besides, as text, for they carry no
    type; user fields may hold lists."""
    known = {c.name for c in entity.columns}
    more = tuple(
        Column(f.name, f.key, JSON if f.name.startswith("UF_") else TEXT, f.title)
        for f in structure.fields
        if f.name not in known
    )
    return entity.columns + more, None


def list_call(entity: Entity, structure: Structure) -> ListCall:
    """How the rows of an object are listed."""
    user_fields = [f.key for f in structure.fields if f.user_field]
    if structure.universal:
        modified = next((f.key for f in structure.fields if f.name == entity.modified), "updatedTime")
        params = {"entityTypeId": entity.entity_type_id, "select": ["*", *user_fields]}
        return ListCall("crm.item.list", params, cursor="id", id_key="id", items="items", modified=modified)
    if entity.camel:
        return ListCall(
            entity.method,
            {**entity.params, "select": [f.name for f in structure.fields] or [entity.key[0]]},
            cursor=entity.cursor,
            id_key=entity.id_key,
            items=entity.items,
            modified=entity.modified,
            modified_key=entity.modified_key,
            among=entity.among,
        )
    names = {f.name for f in structure.fields}
    apart = [f.name for f in structure.fields if f.type == "crm_multifield"]
    extra = [n for n in dict.fromkeys((*entity.select, *apart)) if n in names]
    return ListCall(entity.method, {"select": ["*", "UF_*", *user_fields, *extra]}, modified=entity.modified)


def relations_call(entity: Entity, structure: Structure) -> ListCall:
    """Lists of relations of given rows, which the classic list method leaves out."""
    params = {"entityTypeId": entity.entity_type_id, "select": ["id", *(key for _, key in structure.apart)]}
    return ListCall("crm.item.list", params, cursor="id", id_key="id", items="items")
