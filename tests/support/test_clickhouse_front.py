"""The stand-in answers clickhouse-connect's own HTTP client as a ClickHouse server does."""

import gzip
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import clickhouse_connect
import lz4.frame
import pandas as pd
import pytest
import requests
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DatabaseError, OperationalError
from clickhouse_connect.driver.httpclient import HttpClient
from clickhouse_connect.driver.summary import QuerySummary

from tests.support.certificates import Certificates, private_ca
from tests.support.clickhouse_front import ClickHouseFront, clickhouse_front, parse

USERS = {"loader": "p@ss/w:rd", "reader": "look"}
Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return private_ca(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> Iterator[ClickHouseFront]:
    path = tmp_path_factory.mktemp("engine") / "data"
    with clickhouse_front(path, USERS, tls=certificates, readonly_users={"reader"}) as server:
        yield server


@pytest.fixture
def server(running: ClickHouseFront) -> ClickHouseFront:
    running.faults.clear()
    running.forget_requests()
    return running


@pytest.fixture
def connect(server: ClickHouseFront) -> Iterator[Connect]:
    clients: list[Client] = []

    def _connect(user: str = "loader", **options: Any) -> Client:
        options = {"secure": True, "ca_cert": server.ca_file, "autogenerate_session_id": False, **options}
        clients.append(clickhouse_connect.get_client(dsn=server.url(user), **options))
        return clients[-1]

    yield _connect
    for client in clients:
        client.close()


@pytest.fixture
def loader(connect: Connect) -> Client:
    return connect()


@pytest.fixture
def table(loader: Client, request: pytest.FixtureRequest) -> Iterator[str]:
    name = request.node.name.split("[")[0]
    loader.command(f"CREATE OR REPLACE TABLE {name} (id UInt64, title String) ENGINE = MergeTree ORDER BY id")
    yield name
    loader.command(f"DROP TABLE {name}")


def rows(client: Client, table: str) -> list[Sequence[Any]]:
    return list(client.query(f"SELECT * FROM {table} ORDER BY ALL").result_rows)


def ids(table: str, count: int) -> dict[str, Any]:
    return {"table": table, "data": [[n, f"№ {n}"] for n in range(count)], "column_names": ["id", "title"]}


# ------------------------------------------------------------------------------------------------- the way in


def test_plain_http_serves_the_same_client(tmp_path: Path) -> None:
    with (
        clickhouse_front(tmp_path / "data", USERS) as server,
        closing(clickhouse_connect.get_client(dsn=server.url("loader"))) as client,
    ):
        assert server.url("loader").startswith("http://loader:p%40ss%2Fw%3Ard@127.0.0.1:")
        assert client.ping()
        assert client.command("SELECT currentDatabase()") == "default"


def test_a_client_without_the_private_ca_does_not_get_in(server: ClickHouseFront, tmp_path: Path) -> None:
    with pytest.raises(OperationalError, match="certificate verify failed"):
        clickhouse_connect.get_client(dsn=server.url("loader"), secure=True)
    other = str(private_ca(tmp_path).ca_file)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        clickhouse_connect.get_client(dsn=server.url("loader"), secure=True, ca_cert=other)


@pytest.mark.parametrize("user", ["loader", "nobody"])
def test_a_wrong_password_is_code_516(server: ClickHouseFront, user: str) -> None:
    url = server.url(user, password="wrong")
    with pytest.raises(DatabaseError, match="Authentication failed") as error:
        clickhouse_connect.get_client(dsn=url, secure=True, ca_cert=server.ca_file)
    assert error.value.code == 516
    assert "wrong" not in str(error.value)
    assert [(r.user, r.status, r.code) for r in server.requests()] == [(user, 403, 516)]


def test_credentials_in_headers_and_parameters_are_taken_too(server: ClickHouseFront) -> None:
    address = f"https://127.0.0.1:{server.port}/"
    user, password = "loader", USERS["loader"]
    by_headers = {"X-ClickHouse-User": user, "X-ClickHouse-Key": password}
    by_parameters = {"user": user, "password": password}
    for headers, params in ((by_headers, {}), ({}, by_parameters)):
        answer = requests.post(
            address,
            data="SELECT currentDatabase()",
            headers=headers,
            params=params,
            verify=server.ca_file,
            timeout=30,
        )
        assert (answer.status_code, answer.text) == (200, "default\n")


def test_an_unknown_database_is_code_81(server: ClickHouseFront, connect: Connect) -> None:
    client = connect()
    client.database = "absent"
    with pytest.raises(DatabaseError) as error:
        client.query("SELECT 1")
    assert (error.value.code, error.value.name) == (81, "UNKNOWN_DATABASE")
    assert server.requests()[-1].status == 404


def test_ping_needs_no_password(server: ClickHouseFront) -> None:
    answer = requests.get(f"https://127.0.0.1:{server.port}/ping", verify=server.ca_file, timeout=30)
    assert (answer.status_code, answer.text) == (200, "Ok.\n")


# ---------------------------------------------------------------------------------------- queries and inserts


@pytest.mark.parametrize("compress", [False, "lz4", "zstd", "gzip"])
def test_rows_survive_every_compression_both_ways(connect: Connect, table: str, compress: str | bool) -> None:
    client = connect(compress=compress)
    written = client.insert(**ids(table, 5000), settings={"max_insert_block_size": 1000})
    assert written.written_rows == 5000
    assert rows(client, table) == [(n, f"№ {n}") for n in range(5000)]


@pytest.mark.parametrize(
    ("encoding", "pack"), [("", bytes), ("gzip", gzip.compress), ("lz4", lz4.frame.compress)]
)
def test_raw_insert_of_json_lines(
    server: ClickHouseFront, loader: Client, table: str, encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    lines = b"".join(b'{"id": %d, "title": "a;\\n\xd0\xb1", "odd": 1}\n' % n for n in range(3))
    loader.raw_insert(
        table,
        ["id", "title"],
        pack(lines),
        fmt="JSONEachRow",
        compression=encoding or None,
        settings={"input_format_skip_unknown_fields": 1, "log_comment": "it's \\ a «run»"},
    )
    assert rows(loader, table) == [(n, "a;\nб") for n in range(3)]
    seen = next(r for r in server.requests() if r.statement.startswith("INSERT"))
    assert seen.statement == f"INSERT INTO {table} (`id`, `title`) FORMAT JSONEachRow"
    assert (seen.encoding, seen.settings["log_comment"]) == (encoding, "it's \\ a «run»")


def test_raw_insert_of_a_stream_goes_in_chunks(server: ClickHouseFront, loader: Client, table: str) -> None:
    loader.raw_insert(table, ["id", "title"], (f"{n}\tx\n".encode() for n in range(4)), fmt="TabSeparated")
    assert rows(loader, table) == [(n, "x") for n in range(4)]
    assert any(r.chunked for r in server.requests())


def test_one_insert_is_one_part(loader: Client, table: str) -> None:
    loader.raw_insert(table, None, b"".join(b'{"id":%d}\n' % n for n in range(200_000)), fmt="JSONEachRow")
    parts = f"SELECT count(), sum(rows) FROM system.parts WHERE active AND table = '{table}'"
    assert loader.query(parts).result_rows == [(1, 200_000)]


def test_frames_and_types_come_back(loader: Client) -> None:
    sql = "SELECT number AS n, toDateTime64('2026-11-21 08:00:00.123', 3, 'Asia/Tokyo') AS at FROM numbers(3)"
    frame = loader.query_df(sql)
    assert frame["n"].tolist() == [0, 1, 2]
    assert frame["at"].iloc[0] == pd.Timestamp("2026-11-21 08:00:00.123", tz="Asia/Tokyo")
    assert loader.query("SELECT * FROM numbers(5) LIMIT 0").column_names == ("number",)
    assert json.loads(loader.raw_query("SELECT 1 AS x", fmt="JSONEachRow")) == {"x": 1}
    assert loader.query_arrow("SELECT 7 AS x").to_pydict() == {"x": [7]}


def test_parameters_are_bound_by_the_server(loader: Client) -> None:
    odd = "tab\t quote' back\\slash\nline {x} №"
    assert loader.query("SELECT {s:String}, {n:UInt8}", {"s": odd, "n": 7}).result_rows == [(odd, 7)]
    long = "я" * 20_000
    assert loader.query("SELECT {s:String} AS s", {"s": long}).result_rows == [(long,)]


def test_materialized_views_of_a_null_table_read_the_settings_of_the_insert(
    loader: Client, table: str
) -> None:
    loader.command("CREATE TABLE gate (id UInt64) ENGINE = Null")
    loader.command(
        f"CREATE MATERIALIZED VIEW gate_view TO {table} AS "
        "SELECT id, getSetting('log_comment') AS title FROM gate"
    )
    loader.insert("gate", [[1]], column_names=["id"], settings={"log_comment": "native"})
    loader.raw_insert("gate", ["id"], b'{"id": 2}', fmt="JSONEachRow", settings={"log_comment": "json"})
    loader.command("INSERT INTO gate VALUES", data="(3)", settings={"log_comment": "values"})
    assert rows(loader, table) == [(1, "native"), (2, "json"), (3, "values")]
    assert loader.command("SELECT getSetting('log_comment')") == ""
    loader.command("DROP TABLE gate_view")
    loader.command("DROP TABLE gate")


def test_an_insert_may_transform_its_input(loader: Client, table: str) -> None:
    structure = "'x UInt64, y String'"
    query = f"INSERT INTO {table} SELECT x * 2, upper(y) FROM input({structure}) FORMAT JSONEachRow"
    loader.command(query, data='{"x": 4, "y": "q"}')
    assert rows(loader, table) == [(8, "Q")]


def test_commands_tell_a_result_from_none(loader: Client, table: str) -> None:
    assert loader.command(f"SELECT title FROM {table}") == ""
    assert isinstance(loader.command("SYSTEM FLUSH LOGS"), QuerySummary)
    assert loader.command(f"EXISTS TABLE {table}") == 1
    assert loader.server_tz is not None


def test_settings_reach_the_engine_and_unknown_ones_are_refused(
    server: ClickHouseFront, loader: Client
) -> None:
    settings = {"insert_deduplication_token": "t1", "async_insert": 0, "max_threads": 1}
    assert loader.command("SELECT getSetting('insert_deduplication_token')", settings=settings) == "t1"
    assert {"insert_deduplication_token", "max_threads"} <= server.requests()[-1].settings.keys()
    with pytest.raises(DatabaseError) as error:
        loader.command("SELECT 1", settings={"no_such_setting": 1})
    assert error.value.code == 115


def test_several_statements_in_one_request_are_refused(loader: Client) -> None:
    with pytest.raises(DatabaseError, match="Multi-statements") as error:
        loader.command("SELECT 1; SELECT 2")
    assert error.value.code == 62
    assert loader.command("SELECT ';' -- ; \n ; ") == ";"


def test_a_value_that_does_not_fit_is_an_error_and_inserts_nothing(loader: Client, table: str) -> None:
    with pytest.raises(DatabaseError) as error:
        loader.raw_insert(table, ["id"], b'{"id": 1}\n{"id": "x"}', fmt="JSONEachRow")
    assert error.value.code == 27
    assert rows(loader, table) == []


def test_requests_run_side_by_side(connect: Connect, table: str) -> None:
    client = connect()

    def load(n: int) -> None:
        client.insert(table, [[n, ""]], column_names=["id", "title"], settings={"log_comment": str(n)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load, range(40)))
    assert [row[0] for row in rows(client, table)] == list(range(40))


def test_a_session_serves_one_request_at_a_time(server: ClickHouseFront, connect: Connect) -> None:
    first, second = connect(session_id="s"), connect(session_id="s")
    server.faults.delay(60, match="held")
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(first.command, "SELECT 'held'")
        assert server.faults.spent(20)
        with pytest.raises(DatabaseError) as error:
            second.command("SELECT 1")
        server.faults.clear()
        assert held.result() == "held"
    assert error.value.code == 373
    assert second.command("SELECT 1") == 1


# ----------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("compress", [False, "lz4"])
def test_a_cut_in_mid_insert_leaves_nothing(
    server: ClickHouseFront, connect: Connect, table: str, compress: bool | str
) -> None:
    client = connect(compress=compress)
    assert isinstance(client, HttpClient)
    client.http_retries = 0  # else urllib3 sends what is left of the body as a request of its own
    server.faults.cut_insert(after_bytes=50_000, times=None, match=f"INSERT INTO `{table}`")
    with pytest.raises(OperationalError):
        client.insert(**ids(table, 200_000))
    server.faults.clear()
    cut = [r for r in server.requests() if r.status == 0]
    assert cut
    assert all(50_000 <= r.received < 1_000_000 for r in cut)
    assert rows(client, table) == []


def test_after_a_lost_answer_the_client_sends_the_rows_again(
    server: ClickHouseFront, loader: Client, table: str
) -> None:
    server.faults.cut_reply(match=f"INSERT INTO `{table}`")
    loader.insert(**ids(table, 2))
    assert [r[0] for r in rows(loader, table)] == [0, 0, 1, 1]


def test_a_lost_answer_is_an_error_though_the_rows_are_there(
    server: ClickHouseFront, loader: Client, table: str
) -> None:
    server.faults.cut_reply(times=None, match=f"INSERT INTO {table}")
    with pytest.raises(OperationalError):
        loader.raw_insert(table, ["id"], (line for line in [b'{"id": 1}']), fmt="JSONEachRow")
    assert rows(loader, table) == [(1, "")]


@pytest.mark.parametrize(("executed", "expected"), [(False, []), (True, [(0, "№ 0")])])
def test_a_gateway_error_before_or_after_the_insert(
    server: ClickHouseFront, loader: Client, table: str, executed: bool, expected: list[tuple[Any, ...]]
) -> None:
    server.faults.answer(500, match=f"INSERT INTO `{table}`", executed=executed)
    with pytest.raises(DatabaseError, match="HTTP status 500"):
        loader.insert(**ids(table, 1))
    assert rows(loader, table) == expected


def test_a_server_that_is_busy_twice_is_asked_three_times(server: ClickHouseFront, loader: Client) -> None:
    server.faults.answer(503, times=2)
    assert loader.query("SELECT 1").result_rows == [(1,)]
    assert [r.status for r in server.requests()][-3:] == [503, 503, 200]


@pytest.mark.parametrize(("arm", "code"), [("disk_full", 243), ("read_only", 164)])
def test_a_server_that_cannot_write_still_reads(
    server: ClickHouseFront, loader: Client, table: str, arm: str, code: int
) -> None:
    getattr(server.faults, arm)(match=f"INSERT INTO `{table}`")
    with pytest.raises(DatabaseError) as error:
        loader.insert(**ids(table, 1))
    assert error.value.code == code
    assert rows(loader, table) == []


def test_a_reader_reads_and_does_not_write(connect: Connect, table: str) -> None:
    reader = connect("reader")
    assert rows(reader, table) == []
    for write in (
        lambda: reader.insert(**ids(table, 1)),
        lambda: reader.raw_insert(table, ["id"], b'{"id": 1}', fmt="JSONEachRow"),
        lambda: reader.command(f"TRUNCATE TABLE {table}"),
    ):
        with pytest.raises(DatabaseError) as error:
            write()
        assert (error.value.code, error.value.name) == (164, "READONLY")


def test_a_get_does_not_write(server: ClickHouseFront, table: str) -> None:
    address = f"https://127.0.0.1:{server.port}/"
    login, bundle = ("loader", USERS["loader"]), server.ca_file
    query = {"query": f"TRUNCATE TABLE {table}"}
    refused = requests.get(address, params=query, auth=login, verify=bundle, timeout=30)
    assert (refused.status_code, refused.headers["X-ClickHouse-Exception-Code"]) == (500, "164")
    assert refused.text.startswith("Code: 164. DB::Exception: ")
    read = {"query": f"SELECT count() FROM {table}"}
    assert requests.get(address, params=read, auth=login, verify=bundle, timeout=30).text == "0\n"


def test_a_killed_server_comes_back_with_its_rows(tmp_path: Path) -> None:
    with (
        clickhouse_front(tmp_path / "data", USERS) as server,
        closing(clickhouse_connect.get_client(dsn=server.url("loader"))) as client,
    ):
        client.command("CREATE TABLE kept (id UInt64) ENGINE = MergeTree ORDER BY id")
        client.insert("kept", [[1]], column_names=["id"])
        server.kill()
        assert not client.ping()
        server.start()
        assert rows(client, "kept") == [(1,)]


# -------------------------------------------------------------------------------------------------------- SQL


@pytest.mark.parametrize(
    ("sql", "kind", "named", "data"),
    [
        (b"INSERT INTO t (`a`) FORMAT Native\n\x01\x00\n;", "INSERT", "Native", b"\x01\x00\n;"),
        (
            b"-- FORMAT X\ninsert into `FORMAT` (format)\nSETTINGS a = 'FORMAT Y' format  TSV\n\nx",
            "INSERT",
            "TSV",
            b"\nx",
        ),
        (b"INSERT INTO t FORMAT JSONEachRow", "INSERT", "JSONEachRow", b""),
        (b"INSERT INTO t VALUES (1, ';')", "INSERT", None, None),
        (b"INSERT INTO t SELECT 1", "INSERT", None, None),
        (b"SELECT format FROM t", "SELECT", None, None),
        (b"/* x */ (SELECT ';') FORMAT JSON SETTINGS max_threads = 1;", "SELECT", "JSON", None),
    ],
)
def test_statements_are_told_from_their_data(
    sql: bytes, kind: str, named: str | None, data: bytes | None
) -> None:
    statement = parse(sql)
    assert (statement.kind, statement.format, statement.data) == (kind, named, data)
    assert not statement.several
