"""The embedded engine: one process at a time, and for no longer than it writes; kills, full disks."""

import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from resources.clickhouse import Column, Table, WarehouseError, WarehouseResource
from resources.clickhouse.engine import Embedded
from resources.clickhouse.values import INTEGER

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
TABLE = Table("processes", "rows", (Column("ID", "ID", required=True), Column("V", "V", INTEGER)), ("ID",))
PRELUDE = """
import sys
from datetime import UTC, datetime
from resources.clickhouse import Column, Table, WarehouseError, WarehouseResource
from resources.clickhouse.values import INTEGER
warehouse = WarehouseResource(url=f"chdb://{sys.argv[1]}", insert_rows=1)
table = Table("processes", "rows", (Column("ID", "ID", required=True), Column("V", "V", INTEGER)), ("ID",))
noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
def say(text):
    print(text, flush=True)
def hear():
    sys.stdin.readline()
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "engine"
    yield where
    Embedded.at(str(where)).close()


@pytest.fixture
def local(path: Path) -> WarehouseResource:
    return WarehouseResource(url=f"chdb://{path}")


@pytest.fixture
def start(path: Path) -> Iterator[Start]:
    """Run code in another process on the same warehouse; its lines come out, ours go in."""
    started: list[subprocess.Popen[str]] = []

    def _start(code: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PRELUDE + textwrap.dedent(code), str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        started.append(process)
        return process

    yield _start
    for process in started:
        process.kill()
        process.communicate()


def hears(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def tell(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def put(warehouse: WarehouseResource, *rows: str) -> None:
    table, _ = warehouse.ensure(TABLE)
    with warehouse.load(table, asset="rows") as load:
        load.add("\n".join(rows).encode(), len(rows), NOON)
        load.finish(kind="full", source_time=NOON)


def test_a_process_that_waits_for_its_source_lets_others_in(local: WarehouseResource, start: Start) -> None:
    other = start(
        """
        table, _ = warehouse.ensure(table)
        with warehouse.load(table, asset="rows") as load:
            load.add(b'{"ID": "1", "V": 1}', 1, noon)
            say("waiting")
            hear()
            load.add(b'{"ID": "3", "V": 3}', 1, noon)
            load.finish(kind="full", source_time=noon)
        say("done")
        """
    )
    assert hears(other) == "waiting"
    put(local, '{"ID": "2", "V": 2}')
    tell(other)
    assert hears(other) == "done"
    assert other.wait(30) == 0
    assert local.query("SELECT ID, V FROM bi.rows ORDER BY ID") == [("1", 1), ("2", 2), ("3", 3)]


def test_an_engine_that_nobody_else_wants_stays_open(
    local: WarehouseResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever it is closed it leaves threads and open files behind: a load of hours ran out of them."""
    monkeypatch.setattr("resources.clickhouse.engine.LINGER_S", 0.01)
    threads = []
    for n in range(12):
        put(local, f'{{"ID": "{n}", "V": 1}}')
        time.sleep(0.3)
        threads.append(len(os.listdir("/proc/self/task")))
    assert threads[-1] - threads[3] < 10
    assert local.query("SELECT count() FROM bi.rows") == [(12,)]


def test_an_engine_that_rests_for_long_is_closed(
    local: WarehouseResource, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resources.clickhouse.engine.REST_S", 0.7)
    put(local, '{"ID": "1", "V": 1}')
    held = Path(f"{local.url.removeprefix('chdb://')}.lock")
    with held.open("a") as file:  # without telling the engine that it is wanted
        fcntl.flock(file, fcntl.LOCK_EX)
    assert local.query("SELECT count() FROM bi.rows") == [(1,)]


def test_a_process_waits_for_the_one_that_writes(
    local: WarehouseResource, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = start(
        """
        with warehouse.session():
            say("inside")
            hear()
        say("outside")
        """
    )
    assert hears(other) == "inside"
    with monkeypatch.context() as patch:
        patch.setattr("resources.clickhouse.engine.LOCK_TIMEOUT_S", 0)
        with pytest.raises(WarehouseError, match="in use by another process") as busy:
            local.query("SELECT 1")
    assert "CLICKHOUSE_URL" in str(busy.value.description)
    tell(other)
    assert local.query("SELECT 1") == [(1,)]
    assert hears(other) == "outside"


def test_what_a_killed_process_left_is_good_and_a_rerun_completes_it(
    local: WarehouseResource, start: Start
) -> None:
    other = start(
        """
        table, _ = warehouse.ensure(table)
        with warehouse.load(table, asset="rows") as load:
            for n in range(10_000):
                load.add(b'{"ID": "%d", "V": 1}' % n, 1, noon)
                say(n)
        """
    )
    while hears(other) != "20":
        pass
    other.send_signal(signal.SIGKILL)
    assert other.wait(30) == -signal.SIGKILL
    [(rows, distinct)] = local.query("SELECT count(), uniqExact(ID) FROM bi.rows")
    assert rows == distinct >= 20
    assert local.watermark("rows") is None
    put(local, *(f'{{"ID": "{n}", "V": 1}}' for n in range(500)))
    assert local.query("SELECT count(), uniqExact(ID), sum(V) FROM bi.rows") == [(500, 500, 500)]


def test_a_full_disk_is_one_line_and_loses_nothing(local: WarehouseResource, start: Start) -> None:
    put(local, '{"ID": "1", "V": 1}')
    local.engine.close()  # type: ignore[union-attr]
    other = start(
        """
        import os, resource, signal
        table, _ = warehouse.ensure(table)
        body = b"\\n".join(b'{"ID": "%s", "V": 1}' % os.urandom(200).hex().encode() for _ in range(4000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            with warehouse.load(table, asset="rows") as load:
                load.add(body, 4000, noon)
        except WarehouseError as error:
            say(f"{error.allow_retries} {error.description}")
        os._exit(0)
        """
    )
    said = hears(other)
    assert said.startswith("False ")
    assert "disk space" in said
    assert other.wait(30) == 0
    assert local.query("SELECT ID FROM bi.rows") == [("1",)]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Kolkata"])
def test_instants_are_right_in_every_zone_of_the_host(
    local: WarehouseResource, start: Start, zone: str
) -> None:
    other = start(
        """
        from resources.clickhouse.values import CALENDAR_DATE, INSTANT
        at, day = Column("AT", "AT", INSTANT), Column("DAY", "AT", CALENDAR_DATE)
        columns = (Column("ID", "ID", required=True), at, day)
        table = Table("processes", "times", columns, ("ID",), zone="Europe/Moscow")
        table, _ = warehouse.ensure(table)
        with warehouse.load(table, asset="times") as load:
            load.add(b'{"ID": "1", "AT": "2024-08-30T14:29:00+02:00"}', 1, noon)
            load.add(b'{"ID": "2", "AT": "30.08.2024 15:29:00"}', 1, noon)
            load.add(b'{"ID": "3", "AT": "2024-03-10"}', 1, noon)
            load.finish(kind="full", source_time=noon, watermark=noon)
        warehouse.note_progress("times", "full", "open", "1", noon)
        assert warehouse.watermark("times") == noon, warehouse.watermark("times")
        assert warehouse.unfinished("times", "full").source_time == noon
        say(warehouse.query("SELECT timezone()"))
        """,
        env={**os.environ, "TZ": zone},
    )
    assert hears(other) == f"[('{zone}',)]"
    assert other.wait(30) == 0
    moment = "toUnixTimestamp64Milli"
    found = local.query(
        f"SELECT ID, {moment}(AT), {moment}(DAY), toUnixTimestamp(dt_inserted) FROM bi.times ORDER BY ID"
    )
    day = 1724976000000
    assert found == [
        ("1", 1725020940000, day, int(NOON.timestamp())),
        ("2", 1725020940000, day, int(NOON.timestamp())),
        ("3", 1710018000000, 1710028800000, int(NOON.timestamp())),
    ]
    assert local.watermark("times") == NOON


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where in (tmp_path / "file" / "engine", Path("/proc/svod/engine")):
        with pytest.raises(WarehouseError, match=f"opening the embedded warehouse {where}") as failed:
            WarehouseResource(url=f"chdb://{where}").query("SELECT 1")
        assert failed.value.allow_retries is False
        assert "\n" not in str(failed.value.description)


def test_a_directory_that_only_another_user_may_write(tmp_path: Path) -> None:
    place = tmp_path / "closed"
    place.mkdir(mode=0o555)
    if os.access(place, os.W_OK):
        pytest.skip("root may write everywhere")
    with pytest.raises(WarehouseError, match="cannot be written") as failed:
        WarehouseResource(url=f"chdb://{place}/engine").query("SELECT 1")
    assert failed.value.allow_retries is False
