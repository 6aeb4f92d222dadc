"""Lists and single rows: classic and universal methods, stage history, activities, product rows."""

from typing import Any, cast

import orjson

from sandbox.bitrix24.calls import Call, Result, method
from sandbox.bitrix24.data import mix
from sandbox.bitrix24.dictionaries import owner_type_id
from sandbox.bitrix24.errors import RestError, bad_field, missing, not_found
from sandbox.bitrix24.fields import FieldSpec
from sandbox.bitrix24.params import as_int, as_list
from sandbox.bitrix24.portal import CLASSIC
from sandbox.bitrix24.query import (
    PAGE,
    FilterRules,
    Order,
    Page,
    compile_filter,
    compile_order,
    run,
    select_rows,
    split_operator,
)
from sandbox.bitrix24.table import Table
from sandbox.bitrix24.wire import Renderer, dumps, loads

Columns = list[tuple[str, FieldSpec]]
_NEVER_LISTED = {"CONTACT_IDS", "COMPANY_IDS"}
_MULTI_KEYS = ("PHONE", "EMAIL", "WEB", "IM", "LINK")
_ACTIVITY_EXPLICIT = {"BINDINGS", "COMMUNICATIONS", "FILES"}


def classic_columns(call: Call, table: Table, select: list[Any]) -> Columns:
    """`*` has no user and no multiple fields; `UF_*` (strict) no multiple ones; names always work."""
    wanted = frozenset(map(str, select)) or frozenset(("*", "UF_*"))
    strict = call.portal.config.strict_uf_star
    key = ("classic", wanted, strict)
    known = table.cache.get(key)
    if known is not None:
        return known

    def listed(spec: FieldSpec) -> bool:
        if spec.name in _NEVER_LISTED or not spec.classic:
            return False
        if spec.name == "ID" or spec.name in wanted:
            return True
        if spec.user_field:
            return "UF_*" in wanted and not (strict and spec.multiple)
        return "*" in wanted and not spec.multiple

    columns = table.cache[key] = [(spec.name, spec) for spec in table.fields.values() if listed(spec)]
    return columns


def universal_columns(call: Call, table: Table, select: list[Any]) -> Columns:
    """camelCase columns. `useOriginalUfNames=Y` with a select leaves user fields only (observed bug)."""
    wanted = {str(name) for name in select}
    everything = not wanted or "*" in wanted
    original = str(call.get("useOriginalUfNames", "N")).upper() == "Y"
    columns: Columns = []
    for spec in table.fields.values():
        if not spec.universal:
            continue
        named = {spec.camel, spec.name} & wanted
        if original and wanted and not spec.user_field:
            continue
        if everything or named or spec.name == "ID":
            columns.append((spec.name if original and spec.user_field else spec.camel, spec))
    return columns


def renderer(call: Call, table: Table, columns: Columns, universal: bool) -> Renderer:
    """Renderers are kept: templates are made once per list of columns."""
    key = (universal, tuple(name for name, _ in columns))
    found = table.cache.get(key)
    if found is None:
        found = table.cache[key] = Renderer(table, call.portal.wire, columns, universal)
    return found


def _without_ignored(call: Call, raw: dict[str, Any]) -> dict[str, Any]:
    fault = call.fault("ignore_filter")
    if fault is None:
        return raw
    keys = fault.options.get("keys")
    return {
        k: v
        for k, v in raw.items()
        if keys is not None and k not in keys and split_operator(k)[1] not in keys
    }


def fetch(call: Call, table: Table, rules: FilterRules, default_order: Order) -> Page:
    """One page of positions, with the faults and rights that change pages applied."""
    group = compile_filter(_without_ignored(call, call.map("filter")), rules)
    order = compile_order(call.map("order"), rules) or default_order
    page = run(table, group, order, call.start)
    portal = call.portal
    positions = page.positions.tolist()
    if portal.config.post_filtered:
        limit = int(portal.config.post_filtered * 1000)
        positions = [p for p in positions if mix(int(table.ids[p])) % 1000 >= limit]
    if call.fault("repeat_page"):
        positions = portal.last_pages.get(table.key, positions)
    if fault := call.fault("short_page"):
        positions = positions[: max(0, len(positions) - int(fault.options.get("rows", 7)))]
    if call.fault("duplicate_row") and positions:
        positions = [portal.last_pages.get(table.key, positions)[-1], *positions[: PAGE - 1]]
    portal.last_pages[table.key] = positions
    total = None if call.fault("no_total") else page.total
    return Page(positions, total, page.next_start, page.counted)


def finish(call: Call, table: Table, page: Page, rows: list[bytes], wrapper: str | None) -> Result:
    """Join rendered rows into a result."""
    if call.fault("odd_empties") or call.fault("locale_dates"):
        rows = [dumps(_spoil(call, table, loads(row))) for row in rows]
    body = b"[" + b",".join(rows) + b"]"
    if wrapper:
        body = b'{"%b":%b}' % (wrapper.encode(), body)
    ids = table.ids[page.positions].tolist() if len(page.positions) else []
    return Result(orjson.Fragment(body), page.total, page.next_start, len(rows), page.counted, ids, wrapper)


def _spoil(call: Call, table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """Odd empties and locale dates, where a client expects neither."""
    specs = table.fields | table.by_camel
    for number, (name, value) in enumerate(row.items()):
        spec = specs.get(name)
        if spec is None or spec.name == "ID":
            continue
        if call.fault("odd_empties") and value in (None, "", [], False, "0"):
            row[name] = ({}, [], False, "")[number % 4]
        dated = spec.type in ("date", "datetime") and isinstance(value, str) and len(value) > 18
        if call.fault("locale_dates") and dated:
            text = str(value)
            row[name] = f"{text[8:10]}.{text[5:7]}.{text[:4]} {text[11:19]}"
    return row


def mutate_after(call: Call, table: Table) -> None:
    count = call.portal.config.mutations_per_command
    if count and table.key in CLASSIC:
        call.portal.mutate(count, table.key)


def _rules(call: Call, table: Table, *, universal: bool) -> FilterRules:
    config, wire = call.portal.config, call.portal.wire
    if not universal:
        names = table.cache.get("classic names")
        if names is None:
            names = {name: spec for name, spec in table.fields.items() if spec.classic}
            table.cache["classic names"] = names
        return FilterRules(names, strict=False, logic=False, offset=wire.offset)
    # UPPER names are accepted too: widely used clients sort crm.item.list by ID
    originals = {spec.name: spec for spec in table.fields.values() if spec.universal}
    server = config.item_date_literals == "server"
    return FilterRules(
        table.by_camel | originals, strict=True, logic=True, offset=wire.offset, server_dates=server
    )


def _classic_list(call: Call) -> Result:
    table = call.portal.table(call.method.split(".")[1])
    page = fetch(call, table, _rules(call, table, universal=False), [])
    columns = classic_columns(call, table, as_list(call.get("select")))
    result = finish(
        call, table, page, renderer(call, table, columns, universal=False).rows(page.positions), None
    )
    mutate_after(call, table)
    return result


for _name in CLASSIC:
    method(f"crm.{_name}.list")(_classic_list)


@method("crm.activity.list")
def _activity_list(call: Call) -> Result:
    """Ordered by START_TIME unless asked otherwise; bindings, files and communications only by name."""
    table = call.portal.table("activity")
    page = fetch(call, table, _rules(call, table, universal=False), [(table.fields["START_TIME"], False)])
    columns = classic_columns(call, table, as_list(call.get("select")))
    return finish(
        call, table, page, renderer(call, table, columns, universal=False).rows(page.positions), None
    )


def identifier_of(call: Call) -> int:
    for name in ("id", "ID"):
        value = call.get(name)
        if value not in (None, ""):
            return as_int(value, -1)
    raise RestError("", "ID is not defined or invalid.")


def _classic_get(call: Call) -> Result:
    table = call.portal.table(call.method.split(".")[1])
    position = table.find_live(identifier_of(call))
    if position < 0:
        raise RestError("", "Not found")
    columns = [(n, s) for n, s in table.fields.items() if n not in _NEVER_LISTED]
    if table.key == "activity":
        columns = [(n, s) for n, s in columns if n not in _ACTIVITY_EXPLICIT]
    row = loads(renderer(call, table, columns, universal=False).rows([position])[0])
    for name in _MULTI_KEYS:
        if name in row and not row[name]:
            del row[name]
    return Result(orjson.Fragment(dumps(row)), rows=1)


for _name in (*CLASSIC, "activity"):
    method(f"crm.{_name}.get")(_classic_get)


def item_table(call: Call) -> Table:
    """The table of `entityTypeId`. Raises RestError for unknown and unsupported types."""
    value = call.get("entityTypeId")
    if value in (None, ""):
        raise missing("entityTypeId")
    type_id = as_int(value, -1)
    if type_id in (5, 8, 36):
        raise RestError("ENTITY_TYPE_NOT_SUPPORTED", f"Entity type {type_id} is not supported")
    table = call.portal.by_type(type_id)
    if table is None:
        raise not_found("Смарт-процесс не найден")
    return table


def _multi_entries(table: Table, position: int) -> list[dict[str, Any]]:
    """The `fm` array of crm.item.*."""
    names = [name for name in _MULTI_KEYS if name in table.fields]
    entries = [entry for name in names for entry in cast("list[dict[str, Any]]", table.value(position, name))]
    return [
        {"id": e["ID"], "valueType": e["VALUE_TYPE"], "value": e["VALUE"], "typeId": e["TYPE_ID"]}
        for e in entries
    ]


def item_rows(call: Call, table: Table, columns: Columns, positions: Any, *, fm: bool) -> list[bytes]:
    if not columns:
        return [b"[]"] * len(positions)
    rows = renderer(call, table, columns, universal=True).rows(positions)
    if fm and "PHONE" in table.fields:
        rows = [
            row[:-1] + b',"fm":' + dumps(_multi_entries(table, int(p))) + b"}"
            for row, p in zip(rows, positions, strict=True)
        ]
    return rows


@method("crm.item.list")
def _item_list(call: Call) -> Result:
    table = item_table(call)
    select = as_list(call.get("select"))
    page = fetch(call, table, _rules(call, table, universal=True), [])
    columns = universal_columns(call, table, select)
    rows = item_rows(call, table, columns, page.positions, fm="*" in select)
    result = finish(call, table, page, rows, "items")
    mutate_after(call, table)
    return result


@method("crm.item.get")
def _item_get(call: Call) -> Result:
    table = item_table(call)
    position = table.find_live(identifier_of(call))
    if position < 0:
        raise not_found("Элемент не найден")
    row = item_rows(call, table, universal_columns(call, table, []), [position], fm=True)[0]
    tail = b',"entityTypeId":%d}' % table.type_id
    return Result(orjson.Fragment(b'{"item":' + row[:-1] + tail + b"}"), rows=1)


@method("crm.stagehistory.list")
def _stage_history(call: Call) -> Result:
    """Append-only; types 1, 2, 5, 31 and smart processes with stages."""
    type_id = as_int(call.get("entityTypeId"), 0)
    if not type_id:
        raise missing("entityTypeId")
    portal = call.portal
    if not portal.has_history(type_id):
        raise RestError("ENTITY_TYPE_NOT_SUPPORTED", f"Entity type {type_id} is not supported")
    table = portal.table(f"stagehistory_{type_id}")
    rules = FilterRules(table.fields, strict=True, logic=False, offset=portal.wire.offset)
    page = fetch(call, table, rules, [])
    select = {str(name) for name in as_list(call.get("select"))}
    columns = [
        (n, s) for n, s in table.fields.items() if not select or "*" in select or n in select or n == "ID"
    ]
    rows = renderer(call, table, columns, universal=True).rows(page.positions)
    return finish(call, table, page, rows, "items")


@method("crm.item.productrow.list")
def _product_rows(call: Call) -> Result:
    """The filter must name `=ownerType` and `=ownerId` (a number or an array)."""
    raw = call.map("filter")
    plain = {split_operator(key)[1]: value for key, value in raw.items() if split_operator(key)[0] == "="}
    if "ownerType" not in plain or "ownerId" not in plain:
        raise RestError("ERROR_REQUIRED_PARAMETERS_MISSING", "Required filter: =ownerType, =ownerId")
    type_id = owner_type_id(str(plain["ownerType"]))
    if type_id is None:
        raise bad_field("ownerType", "filter")
    owners = sorted({as_int(value) for value in as_list(plain["ownerId"])})
    found = [row for owner in owners for row in call.portal.product_rows(type_id, owner)]
    rest = {
        key: value for key, value in raw.items() if split_operator(key)[1] not in ("ownerType", "ownerId")
    }
    return dict_page(call, select_rows(found, rest, call.map("order") or {"id": "ASC"}), "productRows")


def dict_page(
    call: Call, rows: list[dict[str, Any]], wrapper: str | None = None, *, total: int | None = -1
) -> Result:
    """A page of plain dictionaries. `total=-1` means the number of rows."""
    start = call.start
    if start < 0:
        page, counted, following = rows[:PAGE], None, None
    else:
        page = rows[start : start + PAGE]
        counted = len(rows) if total == -1 else total
        following = start + PAGE if start + PAGE < len(rows) else None
    value = {wrapper: page} if wrapper else page
    return Result(value, counted, following, len(page))


_LINKS = {
    "crm.deal.contact.items.get": (2, "CONTACT_IDS", "CONTACT_ID"),
    "crm.lead.contact.items.get": (1, "CONTACT_IDS", "CONTACT_ID"),
    "crm.quote.contact.items.get": (7, "CONTACT_IDS", "CONTACT_ID"),
    "crm.contact.company.items.get": (3, "COMPANY_IDS", "COMPANY_ID"),
}


def _link_rows(key: str, ids: list[int]) -> list[dict[str, Any]]:
    return [
        {key: number, "SORT": 10 * n, "ROLE_ID": 0, "IS_PRIMARY": "Y" if n == 1 else "N"}
        for n, number in enumerate(ids, 1)
    ]


@method(*_LINKS)
def _links(call: Call) -> Result:
    type_id, field_name, key = _LINKS[call.method]
    table = call.portal.table(type_id)
    position = table.find_live(identifier_of(call))
    if position < 0:
        raise RestError("", "Not found")
    rows = _link_rows(key, table.value(position, field_name))
    return Result(rows, rows=len(rows))


@method("crm.company.contact.items.get")
def _company_contacts(call: Call) -> Result:
    """The inverse of a contact's companies."""
    identifier = identifier_of(call)
    if call.portal.table(4).find_live(identifier) < 0:
        raise RestError("", "Not found")
    contacts = call.portal.table(3)
    found = [
        int(contacts.ids[p]) for p in contacts.live() if identifier in contacts.value(int(p), "COMPANY_IDS")
    ]
    rows = _link_rows("CONTACT_ID", found)
    return Result(rows, rows=len(rows))


@method("crm.deal.productrows.get", "crm.lead.productrows.get", "crm.quote.productrows.get")
def _old_product_rows(call: Call) -> Result:
    """Deprecated form: UPPER names, strings and numbers mixed."""
    type_id = CLASSIC[call.method.split(".")[1]]
    rows = [
        {
            "ID": str(row["id"]),
            "OWNER_ID": str(row["ownerId"]),
            "OWNER_TYPE": row["ownerType"],
            "PRODUCT_ID": row["productId"],
            "PRODUCT_NAME": row["productName"],
            "PRICE": row["price"],
            "PRICE_ACCOUNT": row["priceAccount"],
            "QUANTITY": row["quantity"],
        }
        for row in call.portal.product_rows(type_id, identifier_of(call))
    ]
    return Result(rows, rows=len(rows))
