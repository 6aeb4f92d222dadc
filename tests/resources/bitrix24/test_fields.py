"""From field lists to columns; the table of deals that users of the old connector know."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from etl_assets.bitrix24.entities import CHILDREN, OBJECTS, SNAPSHOTS, Entity
from etl_assets.bitrix24.structure import Structure, table_of
from resources.bitrix24.envelope import mark_false
from resources.bitrix24.fields import PortalField, columns, parse_fields, universal_keys, upper_name
from resources.clickhouse import Column, Table, WarehouseResource

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)

# `crm.deal.fields` of a portal, in its order: name -> type; `[]` marks a multiple field.
DEAL = {
    "ID": "integer", "TITLE": "string", "TYPE_ID": "crm_status", "CATEGORY_ID": "crm_category",
    "STAGE_ID": "crm_status", "STAGE_SEMANTIC_ID": "string", "IS_NEW": "char", "IS_RECURRING": "char",
    "IS_RETURN_CUSTOMER": "char", "IS_REPEATED_APPROACH": "char", "PROBABILITY": "integer",
    "CURRENCY_ID": "crm_currency", "OPPORTUNITY": "double", "IS_MANUAL_OPPORTUNITY": "char",
    "TAX_VALUE": "double", "COMPANY_ID": "crm_company", "CONTACT_ID": "crm_contact",
    "CONTACT_IDS": "crm_contact[]", "QUOTE_ID": "crm_quote", "BEGINDATE": "date", "CLOSEDATE": "date",
    "OPENED": "char", "CLOSED": "char", "COMMENTS": "string", "ASSIGNED_BY_ID": "user",
    "CREATED_BY_ID": "user", "MODIFY_BY_ID": "user", "MOVED_BY_ID": "user", "DATE_CREATE": "datetime",
    "DATE_MODIFY": "datetime", "MOVED_TIME": "datetime", "SOURCE_ID": "crm_status",
    "SOURCE_DESCRIPTION": "string", "LEAD_ID": "crm_lead", "ADDITIONAL_INFO": "string",
    "LOCATION_ID": "location", "ORIGINATOR_ID": "string", "ORIGIN_ID": "string", "UTM_SOURCE": "string",
    "UTM_MEDIUM": "string", "UTM_CAMPAIGN": "string", "UTM_CONTENT": "string", "UTM_TERM": "string",
    "PARENT_ID_142": "crm_entity", "PARENT_ID_149": "crm_entity", "PARENT_ID_185": "crm_entity",
}  # fmt: skip
DEAL_TYPES = {
    "ID": "String",
    "OPPORTUNITY": "Nullable(Decimal(18, 2))",
    "dt_inserted": "DateTime",
    "PROBABILITY": "Nullable(Int64)",
    "TAX_VALUE": "Nullable(Float32)",
    "CONTACT_IDS": "Array(Nullable(String))",
    **dict.fromkeys(
        ("BEGINDATE", "CLOSEDATE", "DATE_CREATE", "DATE_MODIFY", "MOVED_TIME"), "Nullable(DateTime64(3))"
    ),
}


def described(fields: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    return {
        name: {"type": type_.removesuffix("[]"), "isMultiple": type_.endswith("[]"), "title": f"«{name}»"}
        for name, type_ in fields.items()
    }


def made(
    warehouse: WarehouseResource, name: str, answer: Any, *, upper: bool = False, key: str = "ID"
) -> dict[str, str]:
    """name -> type of the table that a field list gives, as the engine has it."""
    found, position = columns(parse_fields(answer, upper=upper), key=key)
    table, _ = warehouse.ensure(Table("fields", name, found, (key,), loaded_at_position=position))
    return {column: type_ for column, (type_, _) in warehouse.columns(table).items()}


def test_the_table_of_deals(warehouse: WarehouseResource) -> None:
    table = made(warehouse, "crm_deal", described(DEAL))
    order = ["ID", "OPPORTUNITY", "dt_inserted", *(n for n in DEAL if n not in ("ID", "OPPORTUNITY"))]
    assert list(table) == order
    assert table == {name: DEAL_TYPES.get(name, "Nullable(String)") for name in order}


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        ("string", "Nullable(String)"),
        ("char", "Nullable(String)"),
        ("boolean", "Nullable(String)"),
        ("integer", "Nullable(Int64)"),
        ("int", "Nullable(Int64)"),
        ("crm_enum_activitytype", "Nullable(Int64)"),
        ("double", "Nullable(Float32)"),
        ("date", "Nullable(DateTime64(3))"),
        ("datetime", "Nullable(DateTime64(3))"),
        ("timestamp", "Nullable(DateTime64(3))"),
        ("enumeration", "Nullable(String)"),
        ("array", "Array(Nullable(String))"),
        ("crm_multifield", "Array(Nullable(String))"),
        ("file", "Nullable(String)"),
        ("object", "Nullable(String)"),
        ("rest_12_code", "Nullable(String)"),
        ("what_is_this", "Nullable(String)"),
    ],
)
def test_types(type_: str, expected: str) -> None:
    found, position = columns([PortalField("ID", "ID", "integer"), PortalField("X", "x", type_)])
    assert [(c.name, c.source, c.type) for c in found] == [("ID", "ID", "String"), ("X", "x", expected)]
    assert position == 1
    multiple, _ = columns([PortalField("X", "X", type_, multiple=True)])
    assert multiple[0].type.startswith("Array(Nullable(")


def test_money_gets_its_amount_and_currency() -> None:
    found, _ = columns([PortalField("UF_SUM", "ufSum", "money")])
    assert [(c.name, c.source, c.type) for c in found] == [
        ("UF_SUM", "ufSum", "Nullable(String)"),
        ("UF_SUM_AMOUNT", "ufSum", "Nullable(Decimal(18, 2))"),
        ("UF_SUM_CURRENCY", "ufSum", "Nullable(String)"),
    ]


def test_types_can_be_overridden_and_then_stand_behind_the_key() -> None:
    fields = [PortalField(n, n, "double") for n in ("RATE", "PRICE", "ID", "WEIGHT")]
    found, position = columns(fields, overrides={"WEIGHT": "Float64", "PRICE": "String"})
    assert [(c.name, c.type) for c in found] == [
        ("ID", "String"),
        ("PRICE", "Nullable(String)"),
        ("WEIGHT", "Nullable(Float64)"),
        ("RATE", "Nullable(Float32)"),
    ]
    assert position == 3


def test_a_user_field_is_called_by_its_label() -> None:
    answer = {"UF_CRM_1": {"type": "string", "title": "UF_CRM_1", "listLabel": "Регион", "isDynamic": True}}
    [field] = parse_fields(answer, upper=False)
    assert (field.title, field.user_field) == ("Регион", True)


@pytest.mark.parametrize("answer", [[], {}, {"fields": []}, None, "", {"fields": {"id": "x"}}])
def test_an_empty_list_of_fields(answer: Any) -> None:
    assert parse_fields(answer, upper=True) == []


def test_universal_names_come_from_the_portal() -> None:
    answer = {
        "fields": {"ufCrm_3_DIGIT10": {"type": "integer", "upperName": "UF_CRM_3_DIGIT10"}, "parentId142": {}}
    }
    assert [(f.name, f.key) for f in parse_fields(answer, upper=True)] == [
        ("UF_CRM_3_DIGIT10", "ufCrm_3_DIGIT10"),
        ("PARENT_ID_142", "parentId142"),
    ]


@pytest.mark.parametrize(
    ("camel", "upper"),
    [("id", "ID"), ("utmSource", "UTM_SOURCE"), ("parentId142", "PARENT_ID_142"), ("begindate", "BEGINDATE")],
)
def test_upper_names(camel: str, upper: str) -> None:
    assert upper_name(camel) == upper


def test_the_names_that_the_rule_does_not_give() -> None:
    keys = universal_keys(parse_fields({"stageId": {}, "createdTime": {}, "title": {}}, upper=True), 1)
    assert keys["STATUS_ID"] == "stageId"
    assert keys["DATE_CREATE"] == "createdTime"
    assert keys["TITLE"] == "title"


# Against documented answers, where they are at hand


def samples() -> Path:
    place = os.environ.get("SVOD_SAMPLES")
    if not place:
        pytest.skip("SVOD_SAMPLES does not name a directory of documented answers")
    return Path(place) / "bitrix24"


def sample(name: str) -> Any:
    return json.loads((samples() / f"{name}.json").read_text())["response"]["result"]


def test_the_documented_table_of_deals(warehouse: WarehouseResource) -> None:
    parents = described(dict.fromkeys(("PARENT_ID_142", "PARENT_ID_149", "PARENT_ID_185"), "crm_entity"))
    extra = ("LAST_ACTIVITY_TIME", "LAST_ACTIVITY_BY", "LAST_COMMUNICATION_TIME")
    fields = {n: d for n, d in sample("crm.deal.fields").items() if n not in extra}
    wanted = [line.split("\t") for line in (samples() / "crm_deal.table.tsv").read_text().splitlines()]
    assert list(made(warehouse, "crm_deal_documented", {**fields, **parents}).items()) == [
        tuple(w) for w in wanted
    ]


@pytest.mark.parametrize(
    ("fields", "key", "rows"),
    [
        ("crm.deal.fields", "ID", ["crm.deal.list", "crm.deal.get"]),
        ("crm.lead.fields", "ID", ["crm.lead.get"]),
        ("crm.activity.fields", "ID", ["crm.activity.list"]),
        ("crm.item.fields", "ID", ["crm.item.get"]),
        ("crm.item.productrow.fields", "id", ["crm.item.productrow.list"]),
        ("tasks.task.getFields", "ID", []),
    ],
)
def test_documented_rows_fit_the_documented_fields(
    warehouse: WarehouseResource, fields: str, key: str, rows: list[str]
) -> None:
    upper = fields == "crm.item.fields"
    found, position = columns(parse_fields(sample(fields), upper=upper), key=key)
    name = f"contract_{fields.replace('.', '_')}"
    table, _ = warehouse.ensure(Table("fields", name, found, (key,), loaded_at_position=position))
    check_fit(warehouse, table, [row for source in rows for row in rows_of(sample(source))])


DECLARED = [e for e in (*OBJECTS, *CHILDREN, *SNAPSHOTS) if e.columns]


@pytest.mark.parametrize("entity", DECLARED, ids=lambda e: e.name)
def test_documented_rows_fit_the_declared_columns(warehouse: WarehouseResource, entity: Entity) -> None:
    if not (samples() / f"{entity.method}.json").exists():
        pytest.skip(f"there is no documented answer of {entity.method}")
    table = replace(
        table_of(entity, Structure(), "Europe/Moscow", {}), database="fields", name=f"contract_{entity.name}"
    )
    fitted, _ = warehouse.ensure(table)
    check_fit(warehouse, fitted, rows_of(sample(entity.method)))


def rows_of(answer: Any) -> list[dict[str, Any]]:
    """The rows of a documented answer: a list, a list under a name, or one record."""
    if isinstance(answer, list):
        return [r for r in answer if isinstance(r, dict)]
    lists = [v for v in answer.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    if len(answer) <= 2 and lists:
        return lists[0]
    return [answer["item"]] if "item" in answer else [answer]


def check_fit(warehouse: WarehouseResource, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    """Load the rows: none is rejected, and no column lost a value that its row has."""
    lines = [json.dumps(row) for row in rows]
    if not lines:
        return
    with warehouse.load(table, asset=table.name) as load:
        load.add(mark_false("\n".join(lines).encode()), len(lines), NOON)
        load.finish(kind="full", source_time=NOON)
    reasons = "SELECT row_key, reasons FROM svod.rejected_rows WHERE load_id = {l:String}"
    assert warehouse.query(reasons, {"l": load.load_id}) == []
    assert warehouse.query(f"SELECT count() > 0 FROM {table.sql_name}") == [(1,)]


def test_an_unknown_type_keeps_text_and_objects(warehouse: WarehouseResource) -> None:
    found, _ = columns([PortalField("ID", "ID", "integer"), PortalField("X", "X", "what_is_this")])
    table, _ = warehouse.ensure(Table("fields", "unknown_type", found, ("ID",)))
    values = ["text", {"b": False, "a": [1]}, 5, False, None]
    lines = [json.dumps({"ID": str(n), "X": v}) for n, v in enumerate(values)]
    with warehouse.load(table, asset="unknown_type") as load:
        load.add(mark_false("\n".join(lines).encode()), len(lines), NOON)
        load.finish(kind="full", source_time=NOON)
    rows = warehouse.query("SELECT X FROM bi.unknown_type ORDER BY ID")
    assert [r[0] for r in rows] == ["text", '{"a":[1],"b":false}', "5", None, None]


def test_columns_keep_titles_as_comments() -> None:
    [column] = columns(parse_fields({"X": {"type": "string", "title": "Заголовок"}}, upper=False))[0]
    assert column == Column("X", "X", comment="Заголовок")
