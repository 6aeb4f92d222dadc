"""Small dictionaries: statuses, funnels, currencies, owner types."""

from typing import Any

from sandbox.bitrix24.data import STATUSES, Stage, stages_of

Category = dict[str, Any]

DEFAULT_CATEGORIES: dict[int, tuple[tuple[int, str], ...]] = {
    2: ((0, "Общая"), (1, "Опт"), (3, "Сервис «24/7»")),
    3: ((0, "Контакты"),),
    4: ((0, "Компании"),),
    31: ((31, "Счета"),),
}
OWNER_TYPES = (
    (1, "Лид", "LEAD", "L"),
    (2, "Сделка", "DEAL", "D"),
    (3, "Контакт", "CONTACT", "C"),
    (4, "Компания", "COMPANY", "CO"),
    (5, "Счёт (старая версия)", "INVOICE", "I"),
    (31, "Счёт", "SMART_INVOICE", "SI"),
    (7, "Предложение", "QUOTE", "Q"),
    (8, "Реквизиты", "REQUISITE", "RQ"),
    (36, "Документ", "SMART_DOCUMENT", "DO"),
)
_SEMANTICS = {"P": ("process", None), "S": ("success", "S"), "F": ("failure", "F")}


def category_rows(type_id: int, names: tuple[tuple[int, str], ...]) -> list[Category]:
    """crm.category.list rows; the default funnel lacks the origin keys, as on the portal."""
    rows = []
    for index, (number, name) in enumerate(names):
        row = {"id": number, "name": name, "sort": 200 + index * 100, "entityTypeId": type_id}
        row["isDefault"] = "Y" if index == 0 else "N"
        rows.append(row if index == 0 else row | {"originId": "", "originatorId": ""})
    return rows


def stage_entity(type_id: int, category: int) -> str:
    """The ENTITY_ID of a stage dictionary."""
    if type_id == 1:
        return "STATUS"
    if type_id == 7:
        return "QUOTE_STATUS"
    if type_id == 2:
        return f"DEAL_STAGE_{category}" if category else "DEAL_STAGE"
    prefix = "SMART_INVOICE" if type_id == 31 else f"DYNAMIC_{type_id}"
    return f"{prefix}_STAGE_{category}"


def _status_row(
    entity: str, code: str, name: str, sort: int, stage: Stage | None, category: Any
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "ENTITY_ID": entity,
        "STATUS_ID": code,
        "NAME": name,
        "NAME_INIT": name if sort == 10 else "",
        "SORT": str(sort),
        "SYSTEM": "Y" if sort == 10 else "N",
        "CATEGORY_ID": category,
    }
    if stage:
        group, semantics = _SEMANTICS[stage.semantics]
        extra = {"SEMANTICS": group, "COLOR": "#39A8EF"}
        row |= {"COLOR": "#39A8EF", "SEMANTICS": semantics, "EXTRA": extra}
    return row


def status_rows(funnels: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """crm.status.list rows of the common dictionaries and of (entityTypeId, category) funnels."""
    rows = []
    for entity, pairs in STATUSES.items():
        rows += [_status_row(entity, c, n, 10 * k, None, None) for k, (c, n) in enumerate(pairs, 1)]
    for type_id, category in funnels:
        entity = stage_entity(type_id, category)
        shown = str(category) if category else None
        for k, stage in enumerate(stages_of(type_id, category), 1):
            rows.append(_status_row(entity, stage.code, stage.name, 10 * k, stage, shown))
    return [{"ID": str(100 + 2 * number), **row} for number, row in enumerate(rows)]


def status_types(funnels: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """crm.status.entity.types rows; dynamic stages name their ENTITY_TYPE_ID and CATEGORY_ID."""
    rows: list[dict[str, Any]] = [{"ID": entity, "NAME": entity, "PARENT_ID": None} for entity in STATUSES]
    for type_id, category in funnels:
        row = {
            "ID": stage_entity(type_id, category),
            "NAME": f"Стадии {type_id}/{category}",
            "PARENT_ID": None,
        }
        rows.append(row | {"ENTITY_TYPE_ID": type_id, "CATEGORY_ID": category})
    return rows


def currency_rows(updated: str) -> list[dict[str, Any]]:
    """crm.currency.list rows."""
    rates = (("RUB", "1.0000", "Y", "Российский рубль"), ("USD", "92.5000", "N", "Доллар США"))
    return [
        {
            "CURRENCY": code,
            "AMOUNT_CNT": "1",
            "AMOUNT": rate,
            "SORT": str(100 * number),
            "BASE": base,
            "FULL_NAME": name,
            "LID": "ru",
            "FORMAT_STRING": "# &#8381;" if code == "RUB" else "# $",
            "DEC_POINT": ".",
            "THOUSANDS_SEP": "&nbsp;",
            "DECIMALS": "2",
            "DATE_UPDATE": updated,
        }
        for number, (code, rate, base, name) in enumerate((*rates, ("EUR", "100.1000", "N", "Евро")), 1)
    ]


def owner_abbreviation(type_id: int) -> str:
    """`D` for deals, `T` + hex of the entityTypeId for smart processes."""
    for number, _, _, short in OWNER_TYPES:
        if number == type_id:
            return short
    return f"T{type_id:x}"


def owner_type_id(abbreviation: str) -> int | None:
    for number, _, _, short in OWNER_TYPES:
        if short == abbreviation:
            return number
    try:
        return int(abbreviation[1:], 16) if abbreviation[:1] == "T" else None
    except ValueError:
        return None
