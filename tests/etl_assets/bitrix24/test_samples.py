"""Documented answers become rows: each is served over HTTP to the asset that reads its method.

The folder of the answers is named by SVOD_SAMPLES. The server replays an answer and obeys what a reader needs
to come to an end: bounds of ids, their order, and pages after the first, which are empty.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from etl_assets.bitrix24.assets import Bitrix24Settings, build_asset
from etl_assets.bitrix24.entities import ENTITIES, Entity
from etl_assets.bitrix24.universal_lists import universal_list
from etl_assets.bitrix24.work_reading import UniversalList
from etl_assets.loading import FEED_TAG
from resources.bitrix24 import Bitrix24Resource
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from tests.etl_assets.house import QUIET, day

Params = Mapping[str, Any]
Handler = Callable[[Params], Any]
FOLDER = os.environ.get("SVOD_SAMPLES")
NOW = "2026-11-20T12:00:00+03:00"


@dataclass(frozen=True)
class Case:
    """The entity that a sample is served to.

    `fields`: the sample with its field list; without one a list is made up of the record's keys. `owner`: the
    table and id that a record is listed for. `more`: further methods that its reader asks.
    """

    entity: str
    fields: str = ""
    owner: tuple[str, int] | None = None
    more: Mapping[str, Handler] = field(default_factory=dict)


DOCUMENTED_LIST = UniversalList(47, "lists", "Documented")
LIST_FIELDS = {
    "NAME": {"FIELD_ID": "NAME", "TYPE": "NAME", "NAME": "Name", "MULTIPLE": "N"},
    "CODE": {"FIELD_ID": "CODE", "TYPE": "S", "NAME": "Code", "MULTIPLE": "N"},
    "CREATED_BY": {"FIELD_ID": "CREATED_BY", "TYPE": "CREATED_BY", "NAME": "Author", "MULTIPLE": "N"},
    "PROPERTY_951": {"FIELD_ID": "PROPERTY_951", "TYPE": "S:employee", "NAME": "Who", "MULTIPLE": "Y"},
    "PROPERTY_1003": {"FIELD_ID": "PROPERTY_1003", "TYPE": "S:DateTime", "NAME": "When", "MULTIPLE": "N"},
}


def _of_kind(kind: str, *rows: dict[str, Any]) -> Handler:
    return lambda params: list(rows) if params.get("IBLOCK_TYPE_ID") == kind else []


CASES = {
    "crm.deal.list": Case("crm_deal", "crm.deal.fields"),
    "crm.deal.get": Case("crm_deal", "crm.deal.fields"),
    "crm.lead.get": Case("crm_lead", "crm.lead.fields"),
    "crm.contact.list": Case("crm_contact"),
    "crm.contact.get": Case("crm_contact"),
    "crm.company.list": Case("crm_company"),
    "crm.company.get": Case("crm_company"),
    "crm.quote.list": Case("crm_quote"),
    "crm.item.list": Case("crm_smart_invoice", "crm.item.fields"),
    "crm.item.get": Case("crm_smart_invoice", "crm.item.fields"),
    "crm.activity.list": Case("crm_activity", "crm.activity.fields"),
    "crm.item.productrow.list": Case(
        "crm_productrow", "crm.item.productrow.fields", owner=("crm_deal", 13142)
    ),
    "crm.deal.contact.items.get": Case("crm_deal_contact", owner=("crm_deal", 1875)),
    "crm.contact.company.items.get": Case("crm_contact_company", owner=("crm_contact", 54)),
    "crm.timeline.comment.list": Case(
        "crm_timeline_comment",
        owner=("crm_deal", 2),
        more={"crm.item.list": lambda p: {"items": [{"id": 2, "lastActivityTime": NOW}] * _is(p, 2)}},
    ),
    "crm.activity.binding.list": Case("crm_activity_binding", owner=("crm_activity", 999)),
    "crm.stagehistory.list": Case("crm_stage_history"),
    "crm.status.list": Case("crm_status"),
    "crm.category.list": Case("crm_category"),
    "crm.currency.list": Case("crm_currency"),
    "crm.enum.ownertype": Case("crm_owner_type"),
    "crm.deal.userfield.list": Case(
        "crm_userfield",
        more={f"crm.{n}.userfield.list": lambda p: [] for n in ("lead", "contact", "company", "quote")},
    ),
    "crm.type.list": Case("crm_type"),
    "crm.requisite.list": Case("crm_requisite"),
    "crm.requisite.link.list": Case("crm_requisite_link"),
    "crm.address.list": Case("crm_address"),
    "catalog.catalog.list": Case("catalog_catalog"),
    "catalog.product.list": Case(
        "crm_product", more={"catalog.catalog.list": lambda p: {"catalogs": [{"iblockId": 23, "id": 23}]}}
    ),
    "voximplant.statistic.get": Case("voximplant_call"),
    "user.get": Case("user", "user.fields"),
    "department.get": Case("department"),
    "tasks.task.list": Case("task", "tasks.task.getFields"),
    "task.elapseditem.getlist": Case("task_elapsed"),
    "task.commentitem.getlist": Case("task_comment", owner=("task", 8017)),
    "sonet_group.get": Case("sonet_group"),
    "socialnetwork.api.workgroup.list": Case("workgroup"),
    "lists.get": Case("lists_iblock", more={"sonet_group.get": lambda p: [{"ID": "33"}]}),
    "lists.field.get": Case(
        "lists_field",
        more={
            "sonet_group.get": lambda p: [],
            "lists.get": _of_kind("lists", {"ID": "123", "IBLOCK_TYPE_ID": "lists", "NAME": "Projects"}),
        },
    ),
    "lists.element.get": Case("lists_47", more={"lists.field.get": lambda p: LIST_FIELDS}),
}
_FIELDS = "a field list: it is served beside the records of its entity"
WITHOUT_A_TABLE = {
    **dict.fromkeys(
        (
            "crm.deal.fields",
            "crm.lead.fields",
            "crm.activity.fields",
            "crm.item.fields",
            "crm.item.productrow.fields",
            "tasks.task.getFields",
            "user.fields",
        ),
        _FIELDS,
    ),
    "crm_deal.table": "the columns of the old table: tests/resources/bitrix24/test_fields.py compares them",
    "crm.userfield.types": "types of user fields, which field lists name as well",
    "userfieldconfig.list": "crm.<object>.userfield.list gives the same and needs no scope of its own",
    "crm.deal.productrows.get": "deprecated: crm.item.productrow.list gives the same rows for all owners",
    "batch": "an envelope",
    "batch.errors": "an envelope",
    "app.info": "about the application, not the portal's data",
    "oauth.token.refresh": "an answer of the authorization server",
    "profile": "asked by the preflight",
    "server.time": "the portal's clock",
    "events": "names of events",
    "event.offline.get": "the queue of events",
    "event.offline.list": "the queue of events",
}


def _is(params: Params, entity_type_id: int) -> bool:
    return str(params.get("entityTypeId")) == str(entity_type_id)


def documented(name: str) -> dict[str, Any]:
    """A sample: {"request", "response"}."""
    return json.loads((Path(FOLDER or "") / "bitrix24" / f"{name}.json").read_text())


# Replaying


class Replay(ThreadingHTTPServer):
    """Answers methods by handlers: one call a request, or batches."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.handlers: dict[str, Handler] = {}

    @property
    def webhook_url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/rest/1/replayedsecret/"

    def answer(self, method: str, params: Params) -> dict[str, Any]:
        handler = self.handlers.get(method.lower())
        if handler is None:
            return {"error": "ERROR_METHOD_NOT_FOUND", "error_description": "Method not found!"}
        return {"result": handler(params)}

    def batch(self, commands: Mapping[str, str]) -> dict[str, Any]:
        """A command is `method?query`; its answer, or its error, stands under its label."""
        parts: dict[str, dict[str, Any]] = {n: {} for n in ("result", "result_error", "result_time")}
        for label, text in commands.items():
            method, _, query = text.partition("?")
            answer = self.answer(method, _nested(query))
            if "error" in answer:
                parts["result_error"][label] = answer
            else:
                parts["result"][label], parts["result_time"][label] = answer["result"], {}
        return {name: part or [] for name, part in parts.items()}


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        replay = cast(Replay, self.server)
        params = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        method = self.path.rpartition("/")[2].removesuffix(".json")
        if method == "batch":
            answer: dict[str, Any] = {"result": replay.batch(params["cmd"])}
        else:
            answer = replay.answer(method, params)
        body = json.dumps({**answer, "time": {"date_start": NOW}}).encode()
        self.send_response(404 if "error" in answer else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: test output stays readable."""


def _nested(query: str) -> dict[str, Any]:
    """`filter[>ID]=1&select[0]=ID` as nested maps."""
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        head, *rest = re.findall(r"[^\[\]]+", name)
        node = found
        for part, deeper in zip([head, *rest], rest, strict=False):
            node = node.setdefault(part, {})
            head = deeper
        node[head] = value
    return found


def replayed(result: Any, entity: Entity, request: Params) -> Handler:
    """A handler that gives a documented result, or the part of its rows that is asked for."""
    rows, wrapped = rows_of(result, entity)
    wanted = request.get("entityTypeId") if entity.entity_type_id is None else None

    def handler(params: Params) -> Any:
        if rows is None:
            return result
        chosen = _asked(rows, params, entity.id_key or entity.key[0])
        if wanted is not None and "entityTypeId" in params and not _is(params, wanted):
            chosen = []
        if "IBLOCK_TYPE_ID" in request and params.get("IBLOCK_TYPE_ID") != request["IBLOCK_TYPE_ID"]:
            chosen = []
        return {wrapped: chosen} if wrapped else chosen

    return handler


def _asked(rows: list[dict[str, Any]], params: Params, key: str) -> list[dict[str, Any]]:
    """The rows within the bounds of ids, in the order wanted; none on a later page."""
    small = {name.lower(): value for name, value in params.items()}
    if int(small.get("start") or 0) > 0:
        return []
    given = small.get("filter") or small.get("1") or {}
    bounds = {name: int(value) for name, value in given.items() if name.lower() in (">id", "<=id")}
    order = small.get("order") or small.get("0") or {}
    down = "DESC" in str(order).upper()
    if not rows or not str(rows[0].get(key)).isdecimal():
        return rows
    low = next((n for name, n in bounds.items() if name.startswith(">")), -1)
    high = next((n for name, n in bounds.items() if name.startswith("<")), 10**18)
    return sorted((r for r in rows if low < int(r[key]) <= high), key=lambda r: int(r[key]), reverse=down)


def rows_of(result: Any, entity: Entity) -> tuple[list[dict[str, Any]] | None, str]:
    """(the rows of a result, the key that wraps them); (None, "") for a map that is read as it is."""
    if isinstance(result, list):
        return result, ""
    if entity.strategy == "list_fields":
        return None, ""
    for wrapper in (entity.items or "", "items"):
        if wrapper in result:
            return result[wrapper], wrapper
    record = result.get("item", result)  # of a `get`, served as a list of one
    return [record], "items" if entity.universal else ""


# Loading


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    with Replay() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarehouseResource]:
    path = tmp_path_factory.mktemp("samples") / "engine"
    yield WarehouseResource(url=f"chdb://{path}")
    Embedded.at(str(path)).close()


@pytest.fixture
def empty(engine: WarehouseResource, monkeypatch: pytest.MonkeyPatch) -> WarehouseResource:
    """A warehouse without a table; opening a new one takes longer than emptying this one."""
    monkeypatch.setattr("resources.clickhouse.engine.LINGER_S", 600)
    for database in ("bi", "bitrix24", "svod"):
        engine.command(f"DROP DATABASE IF EXISTS {database}")
    return WarehouseResource(url=engine.url)


def entity_named(name: str) -> Entity:
    known = {e.name: e for e in ENTITIES} | {"lists_47": universal_list(DOCUMENTED_LIST)}
    return known[name]


def load(entity: Entity, replay: Replay, warehouse: WarehouseResource) -> None:
    portal = Bitrix24Resource(webhook_url=replay.webhook_url, bucket_capacity=0)
    settings = Bitrix24Settings(start_date=day(3))
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        assert dg.materialize(
            [build_asset(entity, settings)],
            instance=instance,
            resources={"bitrix24": portal, "warehouse": warehouse},
            partition_key=day(0) if entity.modified else None,
            tags={FEED_TAG: "true"},
            run_config=QUIET,
        ).success


def described(record: Mapping[str, Any]) -> dict[str, Any]:
    """A field list made up of a record's keys."""
    types = {"ID": "integer", "PHONE": "crm_multifield", "EMAIL": "crm_multifield"}
    dated = {name: "datetime" for name in record if name.startswith("DATE_")}
    return {name: {"type": (types | dated).get(name, "string"), "isDynamic": False} for name in record}


def serve_owner(replay: Replay, warehouse: WarehouseResource, table: str, number: int) -> None:
    """Load one row of the table that a record belongs to."""
    owner = entity_named(table)
    row: dict[str, Any] = {"ID": str(number), owner.modified or "": NOW}
    if owner.camel:
        row = {"id": str(number), "changedDate": NOW}
        names = {"ID": {"type": "integer"}, "CHANGED_DATE": {"type": "datetime"}}
        replay.handlers = {owner.fields_method.lower(): lambda p: {"fields": names}}
    else:
        replay.handlers = {
            owner.fields_method.lower(): lambda p: (
                described(row) | {owner.modified or "": {"type": "datetime"}}
            )
        }
    replay.handlers[owner.method.lower()] = replayed([row], owner, {})
    if owner.items:
        replay.handlers[owner.method.lower()] = replayed({owner.items: [row]}, owner, {})
    replay.handlers["crm.enum.ownertype"] = lambda p: []
    load(owner, replay, warehouse)


# Comparing


def compare(
    warehouse: WarehouseResource, entity: Entity, records: list[dict[str, Any]], fields: Mapping[str, Any]
) -> None:
    """Each record is the row of its key, with the record's values, each of the column's type."""
    sql = "SELECT name, type FROM system.columns WHERE database = 'bi' AND table = {t:String}"
    types = dict(warehouse.query(sql, {"t": entity.name}))
    shown = warehouse.query(f"SELECT {', '.join(f'`{n}`' for n in types)} FROM bi.{entity.name}")
    rows = [dict(zip(types, row, strict=True)) for row in shown]
    columns = {key: column for key in records[0] if (column := _column(key, fields, entity)) in types}
    keys = {column: key for key, column in columns.items() if column in entity.key}
    assert keys
    # Two documented currencies have the same code: the row is that of either.
    for wanted in {tuple(str(record[key]) for key in keys.values()) for record in records}:
        twins = [r for r in records if tuple(str(r[key]) for key in keys.values()) == wanted]
        found = [row for row in rows if tuple(row[column] for column in keys) == wanted]
        differences = [_differences(r, columns, types, row) for r in twins for row in found]
        assert [] in differences, (wanted, differences)
    values = [k for k in columns if columns[k] not in keys and any(not _empty(r.get(k)) for r in records)]
    told = [k for k in records[0] if k not in keys.values() and not _empty(records[0][k])]
    assert len(values) >= min(2, len(told))


def _column(key: str, fields: Mapping[str, Any], entity: Entity) -> str:
    """The column that a key of an answer goes to."""
    declared = {c.source: c.name for c in reversed(entity.columns)}
    about = fields.get("fields", fields).get(key)
    if key in declared:
        return declared[key]
    if isinstance(about, Mapping) and about.get("upperName"):
        return str(about["upperName"])
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).upper() if entity.camel else key


def _differences(
    record: Mapping[str, Any], columns: Mapping[str, str], types: Mapping[str, str], row: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """(column, what the portal gave, what is shown) of all values that are not the same."""
    given = {columns[key]: _plain(key, value) for key, value in record.items() if key in columns}
    return [(c, value, row[c]) for c, value in given.items() if not _same(value, row[c], types[c])]


def _plain(key: str, value: Any) -> Any:
    """A property of a list element without the ids of its values."""
    if not (key.startswith("PROPERTY_") and isinstance(value, dict)):
        return value
    values = list(value.values())
    return values if len(values) > 1 else values[0]


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _same(given: Any, shown: Any, type_: str) -> bool:
    """Whether a column shows what the portal gave."""
    if type_.startswith("Array"):
        values = given.values() if isinstance(given, dict) else given if isinstance(given, list) else []
        return len(values) == len(shown) and all(map(_same_element, values, shown))
    if _empty(given):
        return shown in (None, "N")
    if "Int64" in type_:
        return shown == int(float(given))
    if "Float" in type_:
        return shown == pytest.approx(float(given))
    if "Decimal" in type_:
        return shown == Decimal(str(given)).quantize(Decimal("0.01"), ROUND_HALF_UP)
    if "DateTime" in type_:
        return shown in set(_moments(str(given)))
    if isinstance(given, bool):
        return shown == "Y"
    if str(given) == "0" and shown is None:  # no other record
        return True
    return _same_element(given, shown)


def _same_element(given: Any, shown: Any) -> bool:
    """A text, the id of a file, the value of a multi-field, or JSON."""
    if not isinstance(given, dict | list):
        return str(shown) == str(given)
    if isinstance(given, dict) and shown in (given.get("id"), given.get("VALUE")):
        return True
    return json.loads(shown) == given


def _moments(text: str) -> Iterator[datetime]:
    """What a date may mean: the instant, in UTC, or the calendar date."""
    for pattern in ("%Y-%m-%dT%H:%M:%S%z", "%m/%d/%Y %I:%M:%S %p", "%d.%m.%Y %H:%M:%S"):
        try:
            read = datetime.strptime(text, pattern)
        except ValueError:
            continue
        aware = read if read.tzinfo else read.replace(tzinfo=ZoneInfo("Europe/Moscow"))
        yield aware.astimezone(UTC).replace(tzinfo=None)
        yield datetime(read.year, read.month, read.day)


@pytest.mark.skipif(not FOLDER, reason="SVOD_SAMPLES does not name a directory of documented answers")
@pytest.mark.parametrize("name", CASES)
def test_a_documented_answer_becomes_rows(name: str, replay: Replay, empty: WarehouseResource) -> None:
    case, sample = CASES[name], documented(name)
    entity = entity_named(case.entity)
    request, result = sample["request"].get("params"), sample["response"]["result"]
    if case.owner:
        serve_owner(replay, empty, *case.owner)
    rows, _ = rows_of(result, entity)
    records = rows if rows is not None else list(result.values())
    fields = documented(case.fields)["response"]["result"] if case.fields else described(records[0])
    method = entity.method if name.endswith(".get") and not entity.method.endswith(".get") else name
    replay.handlers = {
        "crm.enum.ownertype": lambda p: [],
        **({entity.fields_method.lower(): lambda p: fields} if entity.fields_method else {}),
        method.lower(): replayed(result, entity, request if isinstance(request, dict) else {}),
        **{asked.lower(): handler for asked, handler in case.more.items()},
    }
    load(entity, replay, empty)
    compare(empty, entity, records, fields)


@pytest.mark.skipif(not FOLDER, reason="SVOD_SAMPLES does not name a directory of documented answers")
def test_every_documented_answer_is_served_or_has_a_reason() -> None:
    known = {path.name.rsplit(".", 1)[0] for path in (Path(FOLDER or "") / "bitrix24").iterdir()}
    assert known == {*CASES, *WITHOUT_A_TABLE}
    assert not CASES.keys() & WITHOUT_A_TABLE.keys()
