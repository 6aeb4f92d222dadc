"""Answers of the documented API, as recorded: `SVOD_SAMPLES` names their folder."""

import json
import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from etl_assets.metrika.fields import HITS, VISITS
from resources.clickhouse import WarehouseResource
from resources.metrika.errors import MetrikaBusy, MetrikaRefusal, failure
from resources.metrika.objects import Goal, LogRequest, Uploading
from resources.metrika.parts import Received, blocks

FOLDER = os.environ.get("SVOD_SAMPLES", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="SVOD_SAMPLES names no folder with recorded answers")
NOON = datetime(2026, 10, 8, 12, tzinfo=UTC)


def response(name: str) -> Any:
    return json.loads((Path(FOLDER) / "metrika" / f"{name}.json").read_text())["response"]


def body(name: str) -> Any:
    return response(name)["body"]


@pytest.mark.parametrize("name", ["create", "get", "cancel", "clean"])
def test_log_requests_are_read(name: str):
    found = LogRequest.of(body(f"logs_{name}")["log_request"])
    assert (found.source, found.parts) == ("string", ((0, 0),))


def test_the_life_of_a_request_is_read():
    bodies = response("worked_example_lifecycle")["bodies"]
    found = [LogRequest.of(each["log_request"]) for each in bodies]
    assert [r.status for r in found] == ["created", "created", "processed", "cleaned_by_user"]
    assert [r.source for r in found] == ["visits"] * 4
    assert found[2].parts == ((0, 5242880), (1, 2097152))


def test_lists_are_read():
    assert len([LogRequest.of(each) for each in body("logs_list")["requests"]]) == 1
    assert len([Uploading.of(each) for each in body("offline_conversions_list")["uploadings"]]) == 1
    assert len([Goal.of(each) for each in body("goals_list")["goals"]]) == 12
    assert Uploading.of(body("offline_conversions_upload")["uploading"]).client_id_type == "USER_ID"


def test_every_error_of_the_catalogue_is_known():
    for error_type, status in response("errors_catalogue")["types"].items():
        answer = {"errors": [{"error_type": error_type, "message": "m"}], "code": status, "message": "m"}
        found = failure("asking", status, json.dumps(answer).encode())
        busy = status >= 500 or (
            status == 429 and error_type not in ("quota_requests_by_uid", "quota_requests_by_counter_id")
        )
        assert isinstance(found, MetrikaBusy if busy else MetrikaRefusal), error_type
        assert found.error_type == error_type


def load(warehouse: WarehouseResource, log: Any, text: bytes, counter: int) -> str:
    """The part in a table of its own; the sample has neither counter nor day, so they are put before."""
    lines = text.rstrip(b"\n").split(b"\n")
    prefix = b"ym:s:" if log is VISITS else b"ym:pv:"
    head = prefix + b"counterID\t" + prefix + b"date\t" + lines[0]
    whole = b"\n".join([head, *(b"%d\t2026-10-07\t%s" % (counter, line) for line in lines[1:])]) + b"\n"
    table, _ = warehouse.ensure(replace(log.table("Europe/Moscow"), name=f"sample_{log.name}"))
    names = head.decode().split("\t")
    with warehouse.load(table, asset="sample", owner=counter, revocable=True) as got:
        for block in blocks([whole], names, Received()):
            got.add(block.lines, block.count, NOON, context={"request_id": "777"}, header=block.header)
        result = got.finish(kind="window", source_time=NOON, days=[date(2026, 10, 7)])
    assert result.rejected == 0
    return table.sql_name


def test_the_parts_are_loaded(warehouse: WarehouseResource):
    folder = Path(FOLDER) / "metrika"
    name = load(warehouse, VISITS, (folder / "logs_visits_part0.tsv").read_bytes(), 2215573)
    rows = warehouse.query(
        "SELECT visit_id, client_id, length(watch_ids), toString(date_time), device_category, start_url, "
        f"arrayMap(t -> toString(t), goals_date_time), goals_id FROM {name} ORDER BY visit_id"
    )
    assert rows[0] == (
        6511203344556677001,
        1759812345678901234,
        3,
        "2026-10-07 08:30:26",
        1,
        "https://example.org/d'arc/",
        ["2026-10-07 08:31:02", "2026-10-07 08:31:05"],
        [310000001, 310000002],
    )
    assert rows[1][5] == 'https://example.org/?q="quoted"'
    assert rows[2][1] == 17598123456789012345
    name = load(warehouse, HITS, (folder / "logs_hits_part0.tsv").read_bytes(), 2215573)
    titles = warehouse.query(f"SELECT title, device_category FROM {name} ORDER BY watch_id")
    assert titles == [("", 1), ("Tab\there", 1), ('"Quoted" title', 1), ("", 0)]
