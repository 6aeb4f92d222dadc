"""Methods of the small entities: catalog, requisites, tasks, groups, calendar, lists, lines, work time."""

from collections.abc import Callable
from typing import Any

from sandbox.bitrix24.calls import Call, Result, method
from sandbox.bitrix24.errors import RestError, missing
from sandbox.bitrix24.fields import FieldSpec
from sandbox.bitrix24.methods_items import dict_page
from sandbox.bitrix24.params import as_int, as_list, as_map
from sandbox.bitrix24.query import PAGE, FilterRules, compile_filter, parse_moment, sort_key, split_operator
from sandbox.bitrix24.small import Small, camel

Row = dict[str, Any]
_DATES = ("DATE", "TIME", "CREATED", "timestampX", "At")


def _dated(name: str) -> bool:
    return any(part in name for part in _DATES) and not name.endswith("_ID")


def _comparable(value: Any, name: str, offset: int) -> Any:
    if _dated(name) and isinstance(value, str):
        return parse_moment(value, offset)
    return int(value) if isinstance(value, str) and value.isdigit() else value


def chosen(call: Call, table: Small, raw: Row, *, upper: bool = False) -> list[Row]:
    """The rows that a filter leaves; with `upper` its names are those of the field list."""
    offset = call.portal.wire.offset
    names: dict[str, FieldSpec] = {}
    keys: dict[str, str] = {}
    for key in raw:
        name = split_operator(key)[1]
        keys[name] = camel(name) if upper else name
        number = any(isinstance(_comparable(row.get(keys[name]), name, offset), int) for row in table.live())
        kind = "datetime" if _dated(name) else "integer" if number or name.upper() == "ID" else "string"
        names[name] = FieldSpec(name, kind, name, name)
    group = compile_filter(raw, FilterRules(names, strict=False, logic=False, offset=offset))
    return [
        row
        for row in table.live()
        if group.test(lambda name, row=row: _comparable(row.get(keys[name]), name, offset))
    ]


def ordered(rows: list[Row], order: Row, *, upper: bool = False) -> list[Row]:
    for name, direction in reversed(order.items()):
        key = camel(name) if upper else name
        down = str(direction).lower().startswith("desc")
        rows = sorted(rows, key=lambda row, key=key: sort_key(_number(row.get(key))), reverse=down)
    return rows


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdigit() else value


def shown(call: Call, rows: list[Row], *, upper: bool = False) -> list[Row]:
    """Rows with the selected keys; keys that begin with `_` belong to the sandbox."""
    select = {str(name) for name in as_list(call.get("select"))}
    wanted = {camel(name) if upper else name for name in select}
    whole = not select or ("*" in select and not call.method.startswith("catalog."))
    return [
        {
            k: v
            for k, v in row.items()
            if not k.startswith("_") and (whole or k in wanted or k in ("ID", "id"))
        }
        for row in rows
    ]


def _list(
    entity: str,
    wrapper: str | None = None,
    *,
    upper: bool = False,
    check: Callable[[Call], None] = lambda call: None,
) -> Callable[[Call], Result]:
    def handler(call: Call) -> Result:
        check(call)
        table = call.portal.small[entity]
        sort = call.get("sort")
        order = {str(sort): call.get("order") or "ASC"} if isinstance(sort, str) else call.map("order")
        rows = ordered(chosen(call, table, call.map("filter"), upper=upper), order, upper=upper)
        return dict_page(call, shown(call, rows, upper=upper), wrapper)

    return handler


@method(
    "catalog.product.getFieldsByFilter",
    "catalog.product.offer.getFieldsByFilter",
    "catalog.product.service.getFieldsByFilter",
    scope="catalog",
)
def _catalog_fields(call: Call) -> Result:
    """What products of one catalog consist of, their properties too."""
    part = call.method.split(".")[2]
    entity = part if part in ("offer", "service") else "product"
    number = as_int(call.map("filter").get("iblockId"), -1)
    rows = [row for row in call.portal.small[entity].live() if row["iblockId"] == number]
    names = {name for row in rows for name in row}
    return Result({entity: {name: {"type": "string", "name": name} for name in sorted(names)}})


def _needs_catalog(call: Call) -> None:
    if "iblockId" not in {split_operator(key)[1] for key in call.map("filter")}:
        raise missing("filter.iblockId")
    if call.method != "catalog.section.list" and not {"id", "iblockId"} <= set(as_list(call.get("select"))):
        raise missing("select: id, iblockId")


method("crm.invoice.list")(_list("invoice_old"))
method("crm.requisite.list")(_list("requisite"))
method("crm.requisite.bankdetail.list")(_list("requisite_bank"))
method("crm.requisite.preset.list")(_list("requisite_preset"))
method("crm.requisite.link.list")(_list("requisite_link"))
method("crm.address.list")(_list("address"))
method("catalog.catalog.list", scope="catalog")(_list("catalog", "catalogs"))
method("catalog.product.list", scope="catalog")(_list("product", "products", check=_needs_catalog))
method("catalog.product.offer.list", scope="catalog")(_list("offer", "offers", check=_needs_catalog))
method("catalog.product.service.list", scope="catalog")(_list("service", "services", check=_needs_catalog))
method("catalog.section.list", scope="catalog")(_list("section", "sections", check=_needs_catalog))
method("catalog.measure.list", scope="catalog")(_list("measure", "measures"))
method("catalog.vat.list", scope="catalog")(_list("vat", "vats"))
method("catalog.price.list", scope="catalog")(_list("price", "prices"))
method("tasks.task.list", scope="task")(_list("task", "tasks", upper=True))
method("voximplant.statistic.get", scope="telephony")(_list("call"))
method("sonet_group.get", scope="sonet_group")(_list("group"))


def _fields(entity: str, *, wrapped: bool = False) -> Callable[[Call], Result]:
    def handler(call: Call) -> Result:
        types = call.portal.small[entity].types
        found = {name: {"type": kind, "title": name, "isMultiple": False} for name, kind in types.items()}
        return Result({"fields": found} if wrapped else found)

    return handler


method("crm.invoice.fields")(_fields("invoice_old"))
method("crm.requisite.fields")(_fields("requisite"))
method("crm.requisite.bankdetail.fields")(_fields("requisite_bank"))
method("tasks.task.getFields", scope="task")(_fields("task", wrapped=True))


@method("socialnetwork.api.workgroup.list", scope="socialnetwork")
def _workgroups(call: Call) -> Result:
    """Names in UPPER case, answers in camelCase; without a select only the id."""
    table = call.portal.small["group"]
    select = {str(name) for name in as_list(call.get("select"))} | {"ID"}
    rows = ordered(chosen(call, table, call.map("filter")), call.map("order"))
    answered = [{camel(k): v for k, v in row.items() if k in select} for row in rows]
    return dict_page(call, answered, "workgroups")


def _argument(call: Call, position: int, *names: str) -> Any:
    """A parameter by name, or by its place where parameters are positional."""
    for name in (*names, str(position)):
        if (value := call.get(name)) is not None:
            return value
    return None


@method("task.elapseditem.getlist", scope="task")
def _elapsed(call: Call) -> Result:
    """Positional: [TASKID], ORDER, FILTER, SELECT, PARAMS; without NAV_PARAMS only the first page."""
    given = [value for name, value in call.params.items() if name != "auth"]
    if given and not isinstance(given[0], dict | list):
        given.pop(0)
    order, raw, _, more = (as_map(value, "arguments") for value in (*given, *({},) * 4)[:4])
    if not all(name.isidentifier() for name in order):
        raise RestError(
            "ERROR_CORE", "TASKS_ERROR_EXCEPTION_#256; Param #0 (arOrder); 256/TE/WRONG_ARGUMENTS"
        )
    navigation = as_map(more.get("NAV_PARAMS"), "NAV_PARAMS")
    rows = ordered(chosen(call, call.portal.small["elapsed"], raw), order)
    start = (as_int(navigation.get("iNumPage"), 1) - 1) * PAGE
    page = rows[start : start + PAGE]
    return Result(page, len(rows), None, len(page))


_NO_TASK = "TASKS_ERROR_EXCEPTION_#1; Task not found or not accessible; 1/TE/TASK_NOT_FOUND_OR_NOT_ACCESSIBLE"
_GONE = {"_task": ("task", _NO_TASK), "_group": ("group", "Socialnetwork group not found")}


def _of_owner(
    entity: str, owner: str, *names: str, position: int = 0, wrapper: str | None = None
) -> Callable[[Call], Result]:
    """Rows of one owner; an owner that is gone is an error. The planner of the user itself has number 0."""

    def handler(call: Call) -> Result:
        number = as_int(_argument(call, position, *names), -1)
        if number < 0:
            raise missing(names[0])
        if number in call.portal.small[entity].denied:
            raise RestError("0", "Access denied.")
        kind, said = _GONE.get(owner, ("", ""))
        if kind and number and number not in call.portal.small[kind].rows:
            raise RestError("ERROR_CORE", said)
        rows = [row for row in call.portal.small[entity].live() if row.get(owner) == number]
        found = shown(call, rows) or call.portal.small[entity].nothing
        return Result({wrapper: found} if wrapper else found, len(rows), None, len(rows))

    return handler


method("task.commentitem.getlist", scope="task")(_of_owner("task_comment", "_task", "TASKID"))
method("task.checklistitem.getlist", scope="task")(_of_owner("task_checklist", "_task", "TASKID"))
method("tasks.task.history.list", scope="task")(_of_owner("task_history", "_task", "taskId", wrapper="list"))
method("tasks.task.result.list", scope="task")(_of_owner("task_result", "_task", "taskId"))
method("task.stages.get", scope="task")(_of_owner("stage", "_group", "entityId"))
method("sonet_group.user.get", scope="sonet_group")(_of_owner("member", "_group", "ID"))


def _list_number(call: Call) -> int:
    """The list that is asked for. A group's list is told to those only who name the group."""
    number = as_int(call.get("IBLOCK_ID"), -1)
    group = call.portal.small["list"].rows.get(number, {}).get("SOCNET_GROUP_ID")
    if number in call.portal.small["list"].denied or (group and str(call.get("SOCNET_GROUP_ID")) != group):
        raise RestError("ACCESS_DENIED", "Access denied", 403)
    return number


@method("lists.section.get", scope="lists")
def _sections(call: Call) -> Result:
    number = _list_number(call)
    rows = [row for row in call.portal.small["list_section"].live() if row["_list"] == number]
    return dict_page(call, shown(call, rows))


@method("lists.field.get", scope="lists")
def _list_fields(call: Call) -> Result:
    """A map by type code or field id."""
    number = _list_number(call)
    rows = [row for row in call.portal.small["list_field"].live() if row["_list"] == number]
    return Result({row["FIELD_ID"]: row for row in shown(call, rows)})


@method("lists.get", scope="lists")
def _lists(call: Call) -> Result:
    kind = str(call.get("IBLOCK_TYPE_ID") or "")
    if not kind:
        raise missing("IBLOCK_TYPE_ID")
    group = call.get("SOCNET_GROUP_ID")
    if kind == "lists_socnet" and not group:
        raise RestError("ACCESS_DENIED", "Access denied", 403)
    rows = [row for row in call.portal.small["list"].live() if row["IBLOCK_TYPE_ID"] == kind]
    rows = [row for row in rows if not group or row["SOCNET_GROUP_ID"] == str(group)]
    return dict_page(call, rows)


@method("lists.element.get", scope="lists")
def _elements(call: Call) -> Result:
    table = call.portal.small.get(f"list_{_list_number(call)}")
    if table is None:
        raise RestError("ERROR_IBLOCK_NOT_FOUND", "Iblock not found")
    rows = ordered(table.live(), as_map(call.get("ELEMENT_ORDER"), "ELEMENT_ORDER"))
    kept = [{k: v for k, v in row.items() if v is not None} for row in rows]
    return dict_page(call, kept)


@method("crm.timeline.comment.list")
def _comments(call: Call) -> Result:
    wanted = {split_operator(key)[1]: value for key, value in call.map("filter").items()}
    if not wanted.get("ENTITY_ID") or not wanted.get("ENTITY_TYPE"):
        raise missing("filter: ENTITY_ID, ENTITY_TYPE")
    rows = chosen(call, call.portal.small["timeline_comment"], call.map("filter"))
    return dict_page(call, shown(call, ordered(rows, call.map("order"))))


@method("crm.activity.binding.list")
def _bindings(call: Call) -> Result:
    table = call.portal.table("activity")
    position = table.find_live(as_int(call.get("activityId"), -1))
    if position < 0:
        raise RestError("NOT_FOUND", "Element not found")
    owner = {
        "entityTypeId": table.value(position, "OWNER_TYPE_ID"),
        "entityId": table.value(position, "OWNER_ID"),
    }
    rows = [owner] if all(owner.values()) else []
    return Result(rows, rows=len(rows))


@method("calendar.section.get", "calendar.event.get", scope="calendar")
def _calendar(call: Call) -> Result:
    """Of one owner, not paged."""
    entity = "calendar_event" if "event" in call.method else "calendar_section"
    owner = str(call.get("type") or ""), str(call.get("ownerId") or "0")
    if owner[0] == "user" and as_int(owner[1]) in call.portal.small[entity].denied:
        raise RestError("", "Access denied")
    rows = [r for r in call.portal.small[entity].live() if (r["CAL_TYPE"], r["OWNER_ID"]) == owner]
    return Result(rows, rows=len(rows))


@method("imopenlines.config.list.get", scope="imopenlines")
def _lines(call: Call) -> Result:
    params = call.map("PARAMS")
    start, limit = as_int(params.get("offset"), 0), min(200, as_int(params.get("limit"), 50))
    rows = call.portal.small["line"].live()[start : start + limit]
    return Result(rows, rows=len(rows))


@method("imopenlines.crm.chat.get", scope="imopenlines")
def _chats(call: Call) -> Result:
    if call.get("CRM_ENTITY_TYPE") not in ("lead", "deal", "contact", "company"):
        raise RestError("ERROR_ARGUMENT", "CRM_ENTITY_TYPE")
    number = as_int(call.get("CRM_ENTITY"), 0)
    return Result([{"CHAT_ID": str(1 + number % 40), "CONNECTOR_ID": "livechat"}], rows=1)


@method("imopenlines.session.history.get", scope="imopenlines")
def _history(call: Call) -> Result:
    """Messages as a map by id. A session may be read by those, too, who are no members of its chat."""
    chat = str(call.get("CHAT_ID") or as_int(call.get("SESSION_ID")) % 100)
    if call.get("CHAT_ID") and as_int(chat) in call.portal.small["line_message"].denied:
        raise RestError("ACCESS_DENIED", "You cannot open this conversation", 403)
    rows = [row for row in call.portal.small["line_message"].live() if row["chatid"] == chat]
    return Result({"chatId": chat, "sessionId": chat, "message": {row["id"]: row for row in rows}})


@method("user.userfield.list", scope="user.userfield", admin_only=True)
def _user_fields(call: Call) -> Result:
    row = {
        "ID": "9",
        "ENTITY_ID": "USER",
        "FIELD_NAME": "UF_USR_BADGE",
        "USER_TYPE_ID": "string",
        "MULTIPLE": "N",
    }
    return dict_page(call, [row])


@method("timeman.record.list", scope="timeman")
def _work_time(call: Call) -> Result:
    """REST 3.0: conditions are triples, pages have numbers."""
    wanted = {triple[0]: triple[2] for triple in as_list(call.get("filter"))}
    if "userId" not in wanted:
        raise RestError("BITRIX_REST_V3_EXCEPTION_VALIDATION", "filter: userId is required")
    if as_int(wanted["userId"], -1) in call.portal.small["work_day"].denied:
        raise RestError("BITRIX_REST_V3_EXCEPTION_ACCESSDENIEDEXCEPTION", "Access denied", 403)
    pages = call.map("pagination")
    limit = as_int(pages.get("limit"), PAGE)
    start = (as_int(pages.get("page"), 1) - 1) * limit
    rows = [r for r in call.portal.small["work_day"].live() if r["userId"] == as_int(wanted["userId"], -1)]
    select = {str(name) for name in as_list(call.get("select"))} or {"id", "startTime", "endTime"}
    page = [{k: v for k, v in row.items() if k in select} for row in rows[start : start + limit]]
    return Result({"items": page}, rows=len(page))
