"""A ClickHouse server that refuses, breaks off or is away: a clear line, no secret, no row lost or twice."""

import json
import socket
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest

from resources.clickhouse import Column, Table, WarehouseError, WarehouseResource
from resources.clickhouse.values import CALENDAR_DATE, INSTANT, INTEGER
from resources.clickhouse.warehouse import READ_SETTINGS
from tests.resources.clickhouse.conftest import USERS
from tests.support.certificates import private_ca
from tests.support.clickhouse_front import ClickHouseFront, clickhouse_front

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
INTO_INLET = r"^\s*INSERT INTO .*inlet"
ROWS = 2000


def table(name: str, mode: str = "upsert") -> Table:
    columns = (Column("ID", "ID", required=True), Column("V", "V", INTEGER), Column("TEXT", "TEXT"))
    return Table("faults", name, columns, ("ID",), mode=mode)  # type: ignore[arg-type]


def put(warehouse: WarehouseResource, wanted: Table, value: int = 1) -> None:
    rows = [json.dumps({"ID": str(n), "V": value, "TEXT": f"{n * 7919} {'x' * 50}"}) for n in range(ROWS)]
    with warehouse.load(wanted, asset=wanted.name) as load:
        load.add("\n".join(rows).encode(), ROWS, NOON)
        load.finish(kind="full", source_time=NOON, watermark=NOON)


def held(warehouse: WarehouseResource, name: str) -> tuple[int, int, int]:
    return warehouse.query(f"SELECT count(), uniqExact(ID), sum(V) FROM bi.{name}")[0]  # type: ignore[return-value]


def logged(warehouse: WarehouseResource, name: str) -> int:
    return warehouse.query("SELECT count() FROM svod.load_log WHERE asset = {a:String}", {"a": name})[0][0]


class Failed:
    """What a call left behind when it failed: the error, and everything that was printed of it."""

    def __init__(self, call: Callable[[], object], log: pytest.LogCaptureFixture) -> None:
        with log.at_level("DEBUG"), pytest.raises(WarehouseError) as caught:
            call()
        self.error = caught.value
        self.text = str(self.error.description)
        trace = "".join(traceback.format_exception(self.error))
        self.everything = "\n".join([self.text, str(self.error), repr(self.error), trace, log.text])

    def says(self, *parts: str, retry: bool) -> None:
        assert all(p in self.text for p in parts), self.text
        assert "\n" not in self.text
        assert self.error.allow_retries is retry
        for secret in ("not-this-one", *USERS.values()):
            assert secret not in self.everything
            assert quote(secret, safe="") not in self.everything


# Refusals


def test_a_wrong_password(front: ClickHouseFront, caplog: pytest.LogCaptureFixture) -> None:
    warehouse = WarehouseResource(url=front.url("loader", password="not-this-one"), ca_bundle=front.ca_file)
    Failed(lambda: warehouse.query("SELECT 1"), caplog).says("password", "CLICKHOUSE_URL", "516", retry=False)


def test_an_absent_database(front: ClickHouseFront, caplog: pytest.LogCaptureFixture) -> None:
    warehouse = WarehouseResource(url=front.url("loader", database="nowhere"), ca_bundle=front.ca_file)
    Failed(lambda: warehouse.query("SELECT 1"), caplog).says("database", "does not exist", retry=False)


def test_a_user_who_may_only_read(
    front: ClickHouseFront, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse = WarehouseResource(url=front.url("reader"), ca_bundle=front.ca_file)
    Failed(lambda: warehouse.ensure(table(name)), caplog).says("read-only", "grant", retry=False)


def test_an_untrusted_certificate(
    front: ClickHouseFront, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for bundle in (None, str(private_ca(tmp_path).ca_file)):
        warehouse = WarehouseResource(url=front.url("loader"), ca_bundle=bundle)
        Failed(partial(warehouse.query, "SELECT 1"), caplog).says(
            "certificate", "CLICKHOUSE_CA_BUNDLE", retry=False
        )


def test_a_ca_bundle_that_is_not_there(
    front: ClickHouseFront, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse = WarehouseResource(url=front.url("loader"), ca_bundle=str(tmp_path / "none.pem"))
    Failed(lambda: warehouse.query("SELECT 1"), caplog).says("CLICKHOUSE_CA_BUNDLE", "none.pem", retry=False)


def test_a_host_that_does_not_answer(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    warehouse = WarehouseResource(url=f"http://loader:not-this-one@127.0.0.1:{port}/default")
    Failed(lambda: warehouse.query("SELECT 1"), caplog).says(
        "127.0.0.1", "did not answer (the host refuses connections: check CLICKHOUSE_URL)", retry=True
    )


def test_a_host_without_an_address(caplog: pytest.LogCaptureFixture) -> None:
    warehouse = WarehouseResource(url="https://loader:not-this-one@warehouse.invalid/default")
    Failed(lambda: warehouse.query("SELECT 1"), caplog).says(
        "warehouse.invalid", "did not answer (the host name is unknown", retry=True
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "clickhouse",
        "postgres://u:not-this-one@h/d",
        "http://",
        "chdb://relative",
        "chdb:",
        "https://u:not-this-one@h:port/d",
    ],
)
def test_a_malformed_url(url: str, caplog: pytest.LogCaptureFixture) -> None:
    Failed(lambda: WarehouseResource(url=url).query("SELECT 1"), caplog).says("CLICKHOUSE_URL", retry=False)


def test_a_full_disk(
    server: WarehouseResource, front: ClickHouseFront, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted, _ = server.ensure(table(name))
    front.faults.disk_full()
    Failed(lambda: put(server, wanted), caplog).says("disk space", name, retry=False)
    assert len([r for r in front.requests() if "inlet" in r.statement and r.code == 243]) == 1, (
        "waiting frees no disk"
    )
    front.faults.clear()
    assert logged(server, name) == 0
    put(server, wanted)
    assert held(server, name) == (ROWS, ROWS, ROWS)


def test_a_server_that_became_read_only(
    server: WarehouseResource, front: ClickHouseFront, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted, _ = server.ensure(table(name))
    front.faults.read_only()
    Failed(lambda: put(server, wanted), caplog).says("read-only", retry=False)


def test_the_password_is_in_no_text_of_the_resource(server: WarehouseResource) -> None:
    for secret in USERS.values():
        assert secret not in repr(server) + str(server)
        assert quote(secret, safe="") not in repr(server) + str(server)


# Breakdowns


@pytest.mark.parametrize("after_bytes", [0, 70_000])
def test_a_cut_in_the_middle_of_an_insert_loses_nothing(
    server: WarehouseResource, front: ClickHouseFront, name: str, after_bytes: int
) -> None:
    wanted, _ = server.ensure(table(name))
    put(server, wanted, 0)
    front.faults.cut_insert(after_bytes, times=3, match=INTO_INLET)
    put(server, wanted, 2)
    assert front.faults.spent()
    assert held(server, name) == (ROWS, ROWS, 2 * ROWS)
    assert logged(server, name) == 2


@pytest.mark.parametrize("mode", ["upsert", "snapshot"])
def test_a_lost_answer_doubles_nothing(
    server: WarehouseResource, front: ClickHouseFront, name: str, mode: str
) -> None:
    wanted, _ = server.ensure(table(name, mode))
    front.faults.cut_reply(times=3, match=INTO_INLET)
    put(server, wanted)
    assert front.faults.spent()
    assert held(server, name) == (ROWS, ROWS, ROWS)


def test_a_lost_answer_writes_one_log_row(
    server: WarehouseResource, front: ClickHouseFront, name: str
) -> None:
    wanted, _ = server.ensure(table(name))
    front.faults.cut_reply(times=1, match=r"^\s*INSERT INTO .*load_log")
    put(server, wanted)
    assert front.faults.spent()
    assert logged(server, name) == 1


def test_the_load_log_is_written_through_a_gateway_that_is_down_for_a_moment(
    server: WarehouseResource, front: ClickHouseFront, name: str
) -> None:
    wanted, _ = server.ensure(table(name))
    front.faults.answer(503, times=2, match=r"^\s*INSERT INTO .*load_log")
    put(server, wanted)
    assert logged(server, name) == 1


def test_503_is_tried_again(server: WarehouseResource, front: ClickHouseFront, name: str) -> None:
    wanted, _ = server.ensure(table(name))
    front.faults.answer(503, times=2, match=INTO_INLET)
    front.faults.answer(503, times=1, match=INTO_INLET, executed=True)
    put(server, wanted)
    assert front.faults.spent()
    assert held(server, name) == (ROWS, ROWS, ROWS)


@pytest.mark.parametrize("mode", ["upsert", "snapshot"])
def test_a_server_that_stays_away_fails_the_load_in_one_line(
    server: WarehouseResource, front: ClickHouseFront, name: str, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    wanted, _ = server.ensure(table(name, mode))
    put(server, wanted)
    front.faults.answer(503, times=None, match=INTO_INLET)
    Failed(lambda: put(server, wanted, 5), caplog).says("inserting into", "503", retry=True)
    front.faults.clear()
    assert held(server, name) == (ROWS, ROWS, ROWS)
    assert logged(server, name) == 1


def test_what_went_wrong_is_told_though_the_server_is_gone(
    server: WarehouseResource, front: ClickHouseFront, name: str
) -> None:
    wanted, _ = server.ensure(table(name, "snapshot"))

    def load_from_a_broken_source() -> None:
        with server.load(wanted, asset=name) as load:
            load.add(b'{"ID": "1"}', 1, NOON)
            load.flush()
            front.faults.answer(503, times=None)
            raise RuntimeError("the source")

    with pytest.raises(RuntimeError, match="the source"):
        load_from_a_broken_source()


def test_a_server_that_dies_and_comes_back(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clickhouse_front(tmp_path / "engine", USERS) as server:

        def revive(_: float) -> None:
            monkeypatch.undo()  # it is everybody's sleep, also that of `server` itself
            server.start()

        monkeypatch.setattr("resources.clickhouse.errors.time.sleep", revive)
        warehouse = WarehouseResource(url=server.url("loader"))
        wanted, _ = warehouse.ensure(table(name))
        put(warehouse, wanted)
        server.kill()
        put(warehouse, wanted, 2)
        assert held(warehouse, name) == (ROWS, ROWS, 2 * ROWS)


# The wire


def test_inserts_are_compressed_and_typed_by_the_server(
    server: WarehouseResource, front: ClickHouseFront, name: str
) -> None:
    wanted, _ = server.ensure(table(name))
    put(server, wanted)
    [insert] = [
        r for r in front.requests() if "inlet" in r.statement and r.statement.upper().startswith("INSERT")
    ]
    assert insert.encoding == "lz4"
    assert insert.received < ROWS * 60
    assert insert.user == "loader"


@pytest.mark.parametrize("session_zone", ["", "Asia/Kathmandu"])
def test_instants_are_right_in_every_zone_of_the_server(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, session_zone: str
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    if session_zone:
        monkeypatch.setitem(READ_SETTINGS, "session_timezone", session_zone)
    at, day = Column("AT", "AT", INSTANT), Column("DAY", "AT", CALENDAR_DATE)
    columns = (Column("ID", "ID", required=True), at, day)
    with clickhouse_front(tmp_path / "engine", USERS) as front:
        warehouse = WarehouseResource(url=front.url("loader"))
        assert warehouse.query("SELECT timezone()") == [("America/New_York",)]
        wanted, _ = warehouse.ensure(Table("faults", name, columns, ("ID",), zone="Europe/Moscow"))
        with warehouse.load(wanted, asset=name) as load:
            load.add(b'{"ID": "1", "AT": "2024-08-30T23:29:00+02:00"}', 1, NOON, progress=("full", "1", NOON))
            load.add(b'{"ID": "2", "AT": "31.08.2024 00:29:00"}', 1, NOON)
            load.finish(kind="full", source_time=NOON, watermark=NOON)
        chosen = "toUnixTimestamp(AT), toUnixTimestamp(DAY), toUnixTimestamp(dt_inserted)"
        found = warehouse.query(f"SELECT {chosen} FROM bi.{name} ORDER BY ID")
        moment, read = 1725053340, int(NOON.timestamp())
        assert found == [(moment, 1724976000, read), (moment, 1725062400, read)]
        assert warehouse.watermark(name) == NOON
        left = warehouse.unfinished(name, "full")
        assert left is not None
        assert left.source_time == NOON
