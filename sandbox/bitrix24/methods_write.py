"""Writes: add, update, delete of rows, user fields and smart-process types."""

from typing import Any

import orjson

from sandbox.bitrix24.calls import Call, Result, method
from sandbox.bitrix24.errors import RestError, missing, not_found
from sandbox.bitrix24.methods_items import identifier_of, item_rows, item_table, universal_columns
from sandbox.bitrix24.params import as_int, as_list
from sandbox.bitrix24.portal import CLASSIC
from sandbox.bitrix24.processes import SWITCHES
from sandbox.bitrix24.table import Table


def _classic_table(call: Call) -> Table:
    return call.portal.table(call.method.split(".")[1])


def _present(call: Call, table: Table) -> int:
    identifier = identifier_of(call)
    if table.find_live(identifier) < 0:
        raise RestError("", "Not found")
    return identifier


def _classic_add(call: Call) -> Result:
    return Result(call.portal.create(_classic_table(call).key, **call.map("fields")))


def _classic_update(call: Call) -> Result:
    table = _classic_table(call)
    call.portal.change(table.key, _present(call, table), **call.map("fields"))
    return Result(True)


def _classic_delete(call: Call) -> Result:
    table = _classic_table(call)
    call.portal.delete(table.key, _present(call, table))
    return Result(True)


for _name in (*CLASSIC, "activity"):
    method(f"crm.{_name}.add")(_classic_add)
    method(f"crm.{_name}.update")(_classic_update)
    method(f"crm.{_name}.delete")(_classic_delete)


def _upper(call: Call, table: Table) -> dict[str, Any]:
    """Fields of crm.item.* under their UPPER names."""
    names = {camel: spec.name for camel, spec in table.by_camel.items()}
    return {names.get(name, name): value for name, value in call.map("fields").items()}


def _item_answer(call: Call, table: Table, identifier: int) -> Result:
    row = item_rows(call, table, universal_columns(call, table, []), [table.find(identifier)], fm=True)[0]
    return Result(orjson.Fragment(b'{"item":' + row + b"}"))


@method("crm.item.add")
def _item_add(call: Call) -> Result:
    table = item_table(call)
    return _item_answer(call, table, call.portal.create(table.key, **_upper(call, table)))


def _item_id(call: Call, table: Table) -> int:
    identifier = identifier_of(call)
    if table.find_live(identifier) < 0:
        raise not_found("Элемент не найден")
    return identifier


@method("crm.item.update")
def _item_update(call: Call) -> Result:
    table = item_table(call)
    identifier = _item_id(call, table)
    call.portal.change(table.key, identifier, **_upper(call, table))
    return _item_answer(call, table, identifier)


@method("crm.item.delete")
def _item_delete(call: Call) -> Result:
    table = item_table(call)
    call.portal.delete(table.key, _item_id(call, table))
    return Result([])


def _enum_values(items: Any, key: str) -> tuple[str, ...]:
    return tuple(str(item[key]) for item in as_list(items) if isinstance(item, dict) and key in item)


def _label(value: Any) -> str:
    return str(next(iter(value.values()), "")) if isinstance(value, dict) else str(value or "")


def _user_field_add(call: Call) -> Result:
    given = call.map("fields")
    code = str(given.get("FIELD_NAME") or "")
    if not code:
        raise missing("FIELD_NAME")
    options: dict[str, Any] = {}
    if values := _enum_values(given.get("LIST"), "VALUE"):
        options["values"] = values
    spec = _add_field(
        call,
        _classic_table(call),
        code if code.startswith("UF_CRM_") else f"UF_CRM_{code}",
        str(given.get("USER_TYPE_ID") or "string"),
        _label(given.get("EDIT_FORM_LABEL") or given.get("LABEL")),
        multiple=given.get("MULTIPLE") == "Y",
        **options,
    )
    return Result(spec)


def _add_field(call: Call, table: Table, code: str, kind: str, title: str, **options: Any) -> int:
    try:
        return call.portal.add_user_field(table.key, code, kind, title, **options).uf_id
    except ValueError as error:
        raise RestError("ERROR_CORE", str(error)) from None


for _name in CLASSIC:
    method(f"crm.{_name}.userfield.add")(_user_field_add)


@method("userfieldconfig.add", scope="userfieldconfig")
def _config_add(call: Call) -> Result:
    """`field.entityId` is `CRM_<type.id>` (the row id, not entityTypeId) or `CRM_DEAL` and the like."""
    given = call.map("field")
    entity = str(given.get("entityId") or "").removeprefix("CRM_")
    portal = call.portal
    process = next((row for row in portal.processes if str(row["id"]) == entity), None)
    key = f"dynamic_{process['entityTypeId']}" if process else entity.lower()
    if process is None and key not in (*CLASSIC, "smart_invoice"):
        raise RestError("INVALID_ARG_VALUE", "Unknown entityId")
    options: dict[str, Any] = {}
    if values := _enum_values(given.get("enum"), "value"):
        options["values"] = values
    uf_id = _add_field(
        call,
        portal.table(key),
        str(given.get("fieldName") or ""),
        str(given.get("userTypeId") or "string"),
        _label(given.get("editFormLabel")),
        multiple=given.get("multiple") == "Y",
        **options,
    )
    return Result({"field": {"id": str(uf_id), "fieldName": given.get("fieldName")}})


@method("crm.type.add", admin_only=True)
def _type_add(call: Call) -> Result:
    given = call.map("fields")
    enabled = tuple(name for name in SWITCHES if given.get(name) == "Y")
    try:
        row = call.portal.add_smart_process(
            str(given.get("title") or ""), as_int(given.get("entityTypeId")) or None, enabled=enabled
        )
    except ValueError as error:
        raise RestError("INVALID_ARG_VALUE", str(error)) from None
    return Result({"type": row})


def _process_by_id(call: Call) -> dict[str, Any]:
    wanted = as_int(call.get("id"), -1)
    for row in call.portal.processes:
        if row["id"] == wanted:
            return row
    raise not_found("Смарт-процесс не найден")


@method("crm.type.update", admin_only=True)
def _type_update(call: Call) -> Result:
    allowed = {"title", "code", *SWITCHES}
    changes = {name: value for name, value in call.map("fields").items() if name in allowed}
    return Result({"type": call.portal.update_smart_process(_process_by_id(call)["entityTypeId"], **changes)})


@method("crm.type.delete", admin_only=True)
def _type_delete(call: Call) -> Result:
    """Refused while the type has items."""
    try:
        call.portal.delete_smart_process(_process_by_id(call)["entityTypeId"])
    except ValueError as error:
        raise RestError("ERROR_CORE", str(error)) from None
    return Result(None)
