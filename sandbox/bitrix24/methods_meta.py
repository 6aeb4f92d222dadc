"""Metadata, dictionaries, users, portal facts, smart-process types, events."""

from typing import Any

from sandbox.bitrix24 import dictionaries
from sandbox.bitrix24.calls import METHODS, Call, Result, method
from sandbox.bitrix24.errors import RestError, missing, not_found
from sandbox.bitrix24.fields import FieldSpec
from sandbox.bitrix24.methods_items import dict_page, item_table
from sandbox.bitrix24.params import as_int, as_list
from sandbox.bitrix24.people import DEPARTMENT_TITLES, USER_TITLES
from sandbox.bitrix24.portal import CLASSIC
from sandbox.bitrix24.products import PRODUCT_ROW_FIELDS
from sandbox.bitrix24.query import select_rows
from sandbox.bitrix24.table import Table


def _classic_fields(call: Call) -> Result:
    table = call.portal.table(call.method.split(".")[1])
    return Result({n: s.descriptor(universal=False) for n, s in table.fields.items() if s.classic})


for _name in (*CLASSIC, "activity"):
    method(f"crm.{_name}.fields")(_classic_fields)


@method("crm.item.fields")
def _item_fields(call: Call) -> Result:
    """Multi-fields of leads, contacts and companies appear as one `fm`."""
    table = item_table(call)
    original = str(call.get("useOriginalUfNames", "N")).upper() == "Y"
    specs = table.by_camel.values()
    result = {s.name if original and s.user_field else s.camel: s.descriptor(universal=True) for s in specs}
    if "PHONE" in table.fields:
        fm = FieldSpec("FM", "crm_multifield", "Множественные поля", "fm", multiple=True)
        result["fm"] = fm.descriptor(universal=True)
    return Result({"fields": result})


@method("crm.item.productrow.fields")
def _product_row_fields(call: Call) -> Result:
    specs = (FieldSpec(name, kind, name, name, read_only=name == "id") for name, kind in PRODUCT_ROW_FIELDS)
    return Result({"fields": {spec.name: spec.descriptor(universal=False) for spec in specs}})


def _entity_id(call: Call, table: Table) -> str:
    process = call.portal.process_of(table.type_id)
    if process is not None:
        return f"CRM_{process['id']}"
    return "CRM_SMART_INVOICE" if table.type_id == 31 else f"CRM_{table.key.upper()}"


def _settings(spec: FieldSpec) -> dict[str, Any]:
    if spec.type == "enumeration":
        return {"DISPLAY": "LIST", "LIST_HEIGHT": 1, "CAPTION_NO_VALUE": "", "SHOW_NO_VALUE": "Y"}
    if spec.type == "crm_status":
        return {"ENTITY_TYPE": spec.status_type}
    if spec.type == "crm":
        return {"LEAD": "Y", "CONTACT": "Y", "COMPANY": "Y", "DEAL": "Y"}
    return {"SIZE": 20, "ROWS": 1, "REGEXP": "", "MIN_LENGTH": 0, "MAX_LENGTH": 0, "DEFAULT_VALUE": ""}


def _enum_list(spec: FieldSpec) -> list[dict[str, Any]]:
    return [
        {"ID": str(number), "SORT": str(10 * n), "VALUE": text, "DEF": "N", "XML_ID": f"xml{number}"}
        for n, (number, text) in enumerate(spec.items, 1)
    ]


def _user_field_row(call: Call, table: Table, spec: FieldSpec, lang: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "ID": str(spec.uf_id),
        "ENTITY_ID": _entity_id(call, table),
        "FIELD_NAME": spec.name,
        "USER_TYPE_ID": spec.type,
        "XML_ID": None,
        "SORT": "100",
        "MULTIPLE": "Y" if spec.multiple else "N",
        "MANDATORY": "N",
        "SHOW_FILTER": "E",
        "SHOW_IN_LIST": "Y",
        "EDIT_IN_LIST": "Y",
        "IS_SEARCHABLE": "N",
        "SETTINGS": _settings(spec),
    }
    if lang:
        row |= {
            "EDIT_FORM_LABEL": spec.title,
            "LIST_COLUMN_LABEL": spec.title,
            "LIST_FILTER_LABEL": spec.title,
        }
    if spec.items:
        row["LIST"] = _enum_list(spec)
    return row


def _user_field_list(call: Call) -> Result:
    """Labels only when filter.LANG is given."""
    table = call.portal.table(call.method.split(".")[1])
    raw = call.map("filter")
    lang = raw.pop("LANG", None)
    rows = [_user_field_row(call, table, s, lang) for s in table.fields.values() if s.user_field]
    rows = select_rows(rows, raw, call.map("order"))
    return Result(rows, total=len(rows), rows=len(rows))


for _name in CLASSIC:
    method(f"crm.{_name}.userfield.list")(_user_field_list)


def _config_row(entity_id: str, spec: FieldSpec) -> dict[str, Any]:
    label = {"ru": spec.title}
    return {
        "id": str(spec.uf_id),
        "entityId": entity_id,
        "fieldName": spec.name,
        "userTypeId": spec.type,
        "xmlId": None,
        "sort": "100",
        "multiple": "Y" if spec.multiple else "N",
        "mandatory": "N",
        "showFilter": "N",
        "showInList": "Y",
        "editInList": "Y",
        "isSearchable": "N",
        "settings": _settings(spec),
        "languageId": {"ru": "ru"},
        "editFormLabel": label,
        "listColumnLabel": label,
        "listFilterLabel": label,
        "errorMessage": None,
        "helpMessage": None,
    }


def _all_user_fields(call: Call) -> list[tuple[Table, FieldSpec]]:
    portal = call.portal
    types = (*CLASSIC.values(), 31, *(row["entityTypeId"] for row in portal.processes))
    tables = (portal.table(number) for number in types)
    return [(table, spec) for table in tables for spec in table.fields.values() if spec.user_field]


def _require_crm_module(call: Call) -> None:
    if call.get("moduleId") != "crm":
        raise missing("moduleId")


@method("userfieldconfig.list", scope="userfieldconfig")
def _config_list(call: Call) -> Result:
    _require_crm_module(call)
    rows = [_config_row(_entity_id(call, table), spec) for table, spec in _all_user_fields(call)]
    return dict_page(
        call, select_rows(rows, call.map("filter"), call.map("order") or {"id": "ASC"}), "fields"
    )


@method("userfieldconfig.get", scope="userfieldconfig")
def _config_get(call: Call) -> Result:
    """One field with its `enum` options."""
    _require_crm_module(call)
    for table, spec in _all_user_fields(call):
        if spec.uf_id == as_int(call.get("id"), -1):
            row = _config_row(_entity_id(call, table), spec)
            if spec.items:
                row["enum"] = [
                    {key.lower(): value for key, value in item.items()} for item in _enum_list(spec)
                ]
            return Result({"field": row})
    raise not_found("Поле не найдено")


@method("crm.enum.ownertype")
def _owner_types(call: Call) -> Result:
    rows = [
        {"ID": number, "NAME": name, "SYMBOL_CODE": code, "SYMBOL_CODE_SHORT": short}
        for number, name, code, short in dictionaries.OWNER_TYPES
    ]
    for row in call.portal.processes:
        number = row["entityTypeId"]
        code = {"SYMBOL_CODE": f"DYNAMIC_{number}", "SYMBOL_CODE_SHORT": f"T{number:x}"}
        rows.append({"ID": number, "NAME": row["title"], **code})
    return Result(rows, rows=len(rows))


def _funnels(call: Call) -> list[tuple[int, int]]:
    funnels = [(1, 0), (7, 0)]
    for type_id, rows in call.portal.categories.items():
        if type_id in (2, 31) or (type_id > 31 and call.portal.has_history(type_id)):
            funnels += [(type_id, row["id"]) for row in rows]
    return funnels


@method("crm.status.list")
def _status_list(call: Call) -> Result:
    rows = dictionaries.status_rows(_funnels(call))
    rows = select_rows(rows, call.map("filter"), call.map("order"))
    return Result(rows, total=len(rows), rows=len(rows))


@method("crm.status.entity.types")
def _status_types(call: Call) -> Result:
    return Result(dictionaries.status_types(_funnels(call)))


@method("crm.category.list")
def _category_list(call: Call) -> Result:
    type_id = as_int(call.get("entityTypeId"), -1)
    portal = call.portal
    process = portal.process_of(type_id)
    if type_id > 31 and process is None:
        raise not_found("Смарт-процесс не найден")
    if type_id not in portal.categories or (process and process["isCategoriesEnabled"] != "Y"):
        raise RestError("ENTITY_TYPE_NOT_SUPPORTED", f"Entity type {type_id} is not supported")
    rows = portal.categories[type_id]
    return Result({"categories": rows}, total=len(rows), rows=len(rows))


@method("crm.currency.list")
def _currency_list(call: Call) -> Result:
    """`total` is always 0 (documented)."""
    rows = dictionaries.currency_rows(call.portal.wire.iso(call.portal.world.epoch))
    return Result(select_rows(rows, {}, call.map("order")), total=0, rows=len(rows))


@method("crm.type.list", admin_only=True)
def _type_list(call: Call) -> Result:
    rows = select_rows(call.portal.processes, call.map("filter"), call.map("order"), call.portal.wire.offset)
    return dict_page(call, rows, "types")


@method("crm.type.get", admin_only=True)
def _type_get(call: Call) -> Result:
    wanted = as_int(call.get("id"), -1)
    for row in call.portal.processes:
        if row["id"] == wanted:
            return Result({"type": row})
    raise not_found("Смарт-процесс не найден")


@method("crm.type.getByEntityTypeId", admin_only=True)
def _type_get_by_entity(call: Call) -> Result:
    row = call.portal.process_of(as_int(call.get("entityTypeId"), -1))
    if row is None:
        raise not_found("Смарт-процесс не найден")
    return Result({"type": row})


@method("user.get", "user.search", scope="user")
def _user_get(call: Call) -> Result:
    """`sort` and `order` are top-level strings; conditions also work at the top level."""
    reserved = {"filter", "sort", "order", "start", "select", "admin_mode", "auth"}
    conditions = {k: v for k, v in call.params.items() if k.lower() not in reserved} | call.map("filter")
    order = call.get("order")
    direction = order if isinstance(order, str) else "ASC"
    users = [{**row, "ACTIVE": "Y" if row["ACTIVE"] else "N"} for row in call.portal.users]
    for key in [k for k in conditions if k.lstrip("=").upper() == "ACTIVE"]:
        conditions[key] = "Y" if conditions[key] in (True, 1, "1", "Y", "true") else "N"
    shadows = [_user_shadow(row) for row in users]
    found = select_rows(
        shadows, conditions, {str(call.get("sort") or "ID"): direction}, call.portal.wire.offset
    )
    by_id = {row["ID"]: row for row in call.portal.users}
    rows = [by_id[str(row["ID"])] for row in found]
    select = {str(name) for name in as_list(call.get("select"))}
    if select and "*" not in select:
        rows = [{k: v for k, v in row.items() if k in select or k == "ID"} for row in rows]
    return dict_page(call, rows)


def _user_shadow(row: dict[str, Any]) -> dict[str, Any]:
    """The comparable form of a user: numeric id, no `{}`."""
    return {key: None if value == {} else value for key, value in row.items()} | {"ID": int(row["ID"])}


@method("user.current", scope="user")
def _user_current(call: Call) -> Result:
    row = next(
        (u for u in call.portal.users if u["ID"] == str(call.portal.config.user_id)), call.portal.users[0]
    )
    return Result(row)


@method("user.fields", scope="user")
def _user_fields(call: Call) -> Result:
    return Result(USER_TITLES)


@method("department.get", scope="department")
def _department_get(call: Call) -> Result:
    """No filter object: ID, NAME, PARENT, UF_HEAD at the top level."""
    conditions = {
        k.upper(): v for k, v in call.params.items() if k.upper() in ("ID", "NAME", "PARENT", "UF_HEAD")
    }
    sort, order = str(call.get("sort") or "ID").upper(), call.get("order")
    direction = order if isinstance(order, str) else "ASC"
    return dict_page(call, select_rows(call.portal.departments, conditions, {sort: direction}))


@method("department.fields", scope="department")
def _department_fields(call: Call) -> Result:
    return Result(DEPARTMENT_TITLES)


@method("profile", scope=None)
def _profile(call: Call) -> Result:
    user = call.portal.users[call.portal.config.user_id - 1]
    names = {key: user[key] for key in ("NAME", "LAST_NAME", "PERSONAL_GENDER", "TIME_ZONE")}
    return Result({"ID": user["ID"], "ADMIN": call.portal.config.admin, **names})


@method("scope", scope=None)
def _scope(call: Call) -> Result:
    return Result(list(call.portal.config.scopes))


@method("server.time", scope=None)
def _server_time(call: Call) -> Result:
    return Result(call.portal.stamp())


@method("method.get", scope=None)
def _method_get(call: Call) -> Result:
    known = METHODS.get(str(call.get("name", "")).lower())
    scopes = call.portal.config.scopes
    available = known is not None and (known.scope is None or known.scope in scopes)
    return Result({"isExisting": known is not None, "isAvailable": available})


@method("app.info", scope=None, app_only=True)
def _app_info(call: Call) -> Result:
    family = call.portal.config.license_family
    return Result(
        {
            "ID": 5,
            "CODE": "local.sandbox",
            "VERSION": 1,
            "STATUS": "L",
            "INSTALLED": True,
            "PAYMENT_EXPIRED": "N",
            "DAYS": None,
            "LANGUAGE_ID": "ru",
            "LICENSE": f"ru_{family}",
            "LICENSE_TYPE": family,
            "LICENSE_FAMILY": family,
        }
    )


@method("feature.get", scope=None)
def _feature_get(call: Call) -> Result:
    return Result({"value": "Y" if call.get("CODE") == "rest_offline_extended" else "N"})


@method("event.bind", scope=None, app_only=True)
def _event_bind(call: Call) -> Result:
    if str(call.get("event_type", "")).lower() != "offline":
        raise RestError("ERROR_UNSUPPORTED_EVENT_TYPE", "Only offline events are emulated")
    call.portal.events.bind(str(call.get("event", "")), str(call.get("auth_connector") or ""))
    return Result(True)


@method("event.unbind", scope=None, app_only=True)
def _event_unbind(call: Call) -> Result:
    known = call.portal.events.unbind(str(call.get("event", "")), str(call.get("auth_connector") or ""))
    return Result({"count": int(known)})


@method("event.get", scope=None, app_only=True)
def _event_get(call: Call) -> Result:
    bindings = sorted(call.portal.events.bindings)
    return Result(
        [{"event": name, "offline": 1, "auth_connector": connector} for name, connector in bindings]
    )


@method("event.offline.get", scope=None, app_only=True)
def _offline_get(call: Call) -> Result:
    clear = str(call.get("clear", 1)) not in ("0", "False", "N")
    limit = as_int(call.get("limit"), 50)
    return Result(call.portal.events.get(limit, clear, str(call.get("auth_connector") or "")))


@method("event.offline.list", scope=None, app_only=True)
def _offline_list(call: Call) -> Result:
    rows = select_rows(call.portal.events.listing(), call.map("filter"), call.map("order"))
    return dict_page(call, rows)


@method("event.offline.clear", "event.offline.error", scope=None, app_only=True)
def _offline_finish(call: Call) -> Result:
    process = str(call.get("process_id") or "")
    if not process:
        raise missing("process_id")
    messages = [str(value) for value in as_list(call.get("message_id"))]
    return Result(call.portal.events.finish(process, messages, failed=call.method.endswith("error")))
