"""What the views should show: the portal's live rows, entity by entity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import requests

from etl_assets.bitrix24.assets import entity_of
from sandbox.bitrix24 import Portal
from sandbox.bitrix24.small import camel
from tests.etl_assets.house import House, key

Row = Mapping[str, Any]

TABLES = {  # table -> (entity of the sandbox)
    "crm_deal": "deal",
    "crm_lead": "lead",
    "crm_contact": "contact",
    "crm_company": "company",
    "crm_quote": "quote",
    "crm_smart_invoice": "smart_invoice",
    "crm_dynamic_items_177": "dynamic_177",
    "crm_dynamic_items_1038": "dynamic_1038",
    "crm_activity": "activity",
}
SMALL = {
    "crm_invoice_old": "invoice_old",
    "crm_requisite": "requisite",
    "crm_requisite_bank": "requisite_bank",
    "crm_requisite_preset": "requisite_preset",
    "crm_requisite_link": "requisite_link",
    "crm_address": "address",
    "crm_timeline_comment": "timeline_comment",
    "crm_product": "product",
    "crm_product_offer": "offer",
    "crm_product_service": "service",
    "catalog_catalog": "catalog",
    "catalog_price": "price",
    "catalog_section": "section",
    "catalog_measure": "measure",
    "catalog_vat": "vat",
    "voximplant_call": "call",
    "task": "task",
    "task_elapsed": "elapsed",
    "task_comment": "task_comment",
    "task_history": "task_history",
    "task_result": "task_result",
    "task_checklist": "task_checklist",
    "sonet_group": "group",
    "workgroup": "group",
    "sonet_group_user": "member",
    "task_stage": "stage",
    "calendar_section": "calendar_section",
    "calendar_event": "calendar_event",
    "lists_iblock": "list",
    "lists_31": "list_31",
    "lists_32": "list_32",
    "lists_section": "list_section",
    "openline_config": "line",
    "timeman_record": "work_day",
}
LINKS = {
    "crm_deal_contact": ("deal", "DEAL_ID", "CONTACT_IDS", "CONTACT_ID"),
    "crm_lead_contact": ("lead", "LEAD_ID", "CONTACT_IDS", "CONTACT_ID"),
    "crm_quote_contact": ("quote", "QUOTE_ID", "CONTACT_IDS", "CONTACT_ID"),
    "crm_contact_company": ("contact", "CONTACT_ID", "COMPANY_IDS", "COMPANY_ID"),
}
LISTED = {  # table -> (method, parameters, wrapper): read from the portal as they are
    "crm_status": ("crm.status.list", {}, None),
    "crm_status_type": ("crm.status.entity.types", {}, None),
    "crm_currency": ("crm.currency.list", {}, None),
    "crm_owner_type": ("crm.enum.ownertype", {}, None),
    "crm_type": ("crm.type.list", {}, "types"),
    "department": ("department.get", {}, None),
}
SOLD = ("deal", "lead", "quote", "smart_invoice", "dynamic_177", "dynamic_1038")
OWNERS = {"_task": "TASK_ID", "_group": "GROUP_ID", "_list": "IBLOCK_ID"}
ODD = {"detailPicture", "TIMESTAMP_X", "STARTED_AT", "ENDED_AT", "PROPERTY_103"}  # spelled quite differently
ODD |= {"BANK_DETAIL_ID", "MC_REQUISITE_ID", "MC_BANK_DETAIL_ID"}  # «0» is none
ODD |= {"LAST_ACTIVITY_TIME"}  # of a row restored by itself, as of its last change: README


@dataclass(frozen=True)
class Difference:
    table: str
    key: tuple[str, ...]
    here: Row | None
    there: Row | None

    def __str__(self) -> str:
        if self.here is None or self.there is None:
            return f"{self.table} {self.key}: {'missing here' if self.here is None else 'not on the portal'}"
        names = [n for n in self.there if self.there[n] != self.here.get(n)]
        told = ", ".join(f"{n} {self.here.get(n)!r}, there {self.there[n]!r}" for n in names)
        return f"{self.table} {self.key}: {told}"


def plain(value: Any) -> Any:
    """A value as both sides spell it."""
    if value in (None, "", [], {}):
        return None
    match value:
        case bool():
            return "Y" if value else "N"
        case datetime():
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()[:19]
        case date():
            return f"{value}T00:00:00"
        case int() | float():
            return f"{value:.2f}"
        case list() | tuple():
            return [plain(v) for v in value] or None
        case dict() if "VALUE_TYPE" in value:
            return plain(value["VALUE"])
        case dict():
            return {str(k): plain(v) for k, v in sorted(value.items())}
    return _text(str(value))


def _text(text: str) -> Any:
    with suppress(ValueError):
        return f"{float(text):.2f}"
    if text[:1] in ("{", "["):
        with suppress(ValueError):
            return plain(json.loads(text))
    if len(text) > 18 and text[4:5] == "-" and text[10:11] in ("T", " "):
        return plain(datetime.fromisoformat(text))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _rows(portal: Portal, table: str) -> Iterator[Row]:
    """The portal's live rows, named as the table's columns."""
    if table in TABLES:
        yield from portal.expected(TABLES[table], "raw")
    elif table in LINKS:
        entity, owner, many, one = LINKS[table]
        for row in portal.expected(entity, "raw"):
            for n, number in enumerate(row[many], 1):
                yield {owner: row["ID"], one: number, "SORT": 10 * n, "IS_PRIMARY": n == 1}
    elif table in LISTED:
        method, params, wrapper = LISTED[table]
        answer = requests.post(f"{portal.webhook_url}{method}", json=params, timeout=10).json()["result"]
        yield from answer[wrapper] if wrapper else answer
    elif table == "crm_productrow":
        for entity in SOLD:
            for owner in portal.expected(entity, "id"):
                yield from portal.product_rows(portal.table(entity).type_id, owner["ID"])
    elif table == "crm_activity_binding":
        for row in portal.expected("activity", "raw"):
            if row["OWNER_TYPE_ID"] and row["OWNER_ID"]:
                named = {"entityTypeId": row["OWNER_TYPE_ID"], "entityId": row["OWNER_ID"]}
                yield {"ACTIVITY_ID": row["ID"], **named}
    elif table == "user":
        yield from ({n: row[n] for n in ("ID", "NAME", "ACTIVE", "EMAIL")} for row in portal.users)
    else:
        yield from _small(portal, table)


def _small(portal: Portal, table: str) -> Iterator[Row]:
    entity = entity_of(key(table))
    for row in portal.small[SMALL[table]].live():
        named = {OWNERS.get(name, name): value for name, value in row.items()}
        if table == "task_stage":
            named.setdefault("ENTITY_ID", named["GROUP_ID"])
        if table == "crm_requisite_link":
            named["REQUISITE_ID"] = named["REQUISITE_ID"].strip("0") and named["REQUISITE_ID"]
        if table == "task":
            names = {camel(n): n for n in portal.small["task"].types}
            yield {names[n]: v for n, v in named.items() if n in names and n not in ("tags", "ufCrmTask")}
        elif table.startswith("lists_3"):
            yield {n: _property(v) for n, v in named.items() if n != "DATE_CREATE"}
        else:
            spelled = {camel(n): v for n, v in named.items()} if table == "workgroup" else named
            columns = entity.columns if entity else ()
            yield spelled | {c.name: spelled[c.source] for c in columns if c.source in spelled}


def _property(value: Any) -> Any:
    """Values of a property of a list, without their ids."""
    if not isinstance(value, dict):
        return value
    values = list(value.values())
    return values if len(values) > 1 else values[0]


def _key_of(table: str) -> tuple[str, ...]:
    entity = entity_of(key(table))
    return entity.key if entity else ("ID",)


def differences(place: House, tables: Iterable[str]) -> list[Difference]:
    """How the views differ from the portal: rows that are only on one side, and columns that disagree."""
    return [found for table in tables for found in _compare(place, table)]


def _compare(place: House, table: str) -> Iterator[Difference]:
    columns = [
        n
        for (n,) in place.rows(
            "SELECT name FROM system.columns WHERE database = 'bi' AND table = {t:String}", t=table
        )
    ]
    names = _key_of(table)

    def by_key(rows: Iterable[Row]) -> dict[tuple[str, ...], Row]:
        shown = ({n: plain(v) for n, v in row.items() if n in columns and n not in ODD} for row in rows)
        return {tuple(str(row.get(n)) for n in names): row for row in shown}

    listed = ", ".join(f"`{c}`" for c in columns)
    found = place.rows(f"SELECT {listed} FROM bi.{table}")
    here = by_key(dict(zip(columns, row, strict=True)) for row in found)
    assert len(here) == len(found), f"{table} shows a key twice"
    there = by_key(_rows(place.portal, table))
    for number in sorted(here.keys() | there.keys()):
        ours, theirs = here.get(number), there.get(number)
        if ours is None or theirs is None or any(ours.get(n) != v for n, v in theirs.items()):
            yield Difference(table, number, ours, theirs)


def history_differences(place: House) -> list[str]:
    """Stage history of live owners is complete, and nothing is there that the portal has not."""
    found = []
    for type_id, entity in ((1, "lead"), (2, "deal"), (31, "smart_invoice"), (177, "dynamic_177")):
        here = {
            n
            for (n,) in place.rows(
                "SELECT toInt64(ID) FROM bi.crm_stage_history WHERE ENTITY_TYPE_ID = {t:String}",
                t=str(type_id),
            )
        }
        rows = list(place.portal.expected(f"stagehistory_{type_id}", "raw"))
        live = {row["ID"] for row in place.portal.expected(entity, "id")}
        if missing := {row["ID"] for row in rows if row["OWNER_ID"] in live} - here:
            found.append(f"history of type {type_id}: {sorted(missing)} are missing")
        if strange := here - {row["ID"] for row in rows}:
            found.append(f"history of type {type_id}: {sorted(strange)} are not on the portal")
    return found


OF_THE_FEED = (*TABLES, "crm_deal_contact", "crm_contact_company", "crm_productrow")
EVERY = (*TABLES, *SMALL, *LINKS, *LISTED, "crm_productrow", "crm_activity_binding", "user")
