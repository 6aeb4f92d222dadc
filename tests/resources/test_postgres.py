"""The embedded PostgreSQL: outlives its starter, comes back after kill -9, and says how to start it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import dagster as dg
import pytest
import sqlalchemy as sa
import sqlalchemy.exc

from resources.dagster_storage import EventLog, PostgresStorage
from resources.postgres import (
    EmbeddedPostgres,
    PostgresError,
    connect,
    database_url,
    require_answer,
    with_driver,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("data") / "postgres")
    postgres.start()
    yield postgres
    postgres.stop()


def select_one(server: EmbeddedPostgres) -> int:
    engine = connect(with_driver(server.url))
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT 1")).scalar_one()
    engine.dispose()
    return found


def test_starting_twice_changes_nothing(server: EmbeddedPostgres):
    assert not server.start()
    assert select_one(server) == 1


def test_it_outlives_the_process_that_started_it(server: EmbeddedPostgres):
    server.stop()
    code = (
        "import sys; from pathlib import Path; from resources.postgres import EmbeddedPostgres;"
        "print(EmbeddedPostgres(Path(sys.argv[1])).start())"
    )
    started = subprocess.run(
        [sys.executable, "-c", code, server.home], capture_output=True, text=True, check=True
    )
    assert started.stdout.strip() == "True"
    assert select_one(server) == 1


def test_it_starts_again_after_kill_9(server: EmbeddedPostgres):
    engine = connect(with_driver(server.url))
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE kept AS SELECT 7 AS number"))
    engine.dispose()
    lock = server.home / "data" / "postmaster.pid"
    os.kill(int(lock.read_text().splitlines()[0]), signal.SIGKILL)
    with suppress(sqlalchemy.exc.OperationalError):
        select_one(server)
    assert server.start() or server.running()
    engine = connect(with_driver(server.url))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT number FROM kept")).scalar_one() == 7
    engine.dispose()


def test_a_lock_file_whose_number_is_another_programs_is_cleared(server: EmbeddedPostgres):
    server.stop()
    lock = server.home / "data" / "postmaster.pid"
    lock.write_text(f"{os.getpid()}\n{server.home / 'data'}\n1\n5432\n{server.socket_dir}\n\n0 0\nready\n")
    assert server.start()
    assert select_one(server) == 1


def test_others_cannot_enter_the_folder_of_the_socket(server: EmbeddedPostgres):
    assert server.socket_dir.stat().st_mode & 0o077 == 0


def test_a_long_path_moves_the_socket_and_keeps_the_data(tmp_path: Path):
    deep = EmbeddedPostgres(tmp_path / ("d" * 120) / "postgres")
    assert not deep.socket_dir.is_relative_to(tmp_path)
    assert deep.socket_dir == EmbeddedPostgres(deep.home).socket_dir
    assert deep.serves(with_driver(deep.url))


def test_a_stopped_server_is_one_line_that_says_how_to_start_it(tmp_path: Path):
    url = EmbeddedPostgres(tmp_path / "postgres").url
    with pytest.raises(PostgresError, match="make up"):
        require_answer(with_driver(url))
    with pytest.raises(click.ClickException, match="make up"):
        PostgresStorage.from_config_value(None, {"postgres_url": url})


def test_stopping_what_never_ran_is_no_error(tmp_path: Path):
    assert not EmbeddedPostgres(tmp_path / "postgres").stop()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_the_driver_is_named_whatever_the_user_wrote(scheme: str):
    assert with_driver(f"{scheme}://u:p@h:5432/d").drivername == "postgresql+psycopg2"


@pytest.mark.parametrize(
    "text", ["", "mysql://u:hunter2@h/d", "postgresql+asyncpg://u:hunter2@h/d", "u:hunter2@h"]
)
def test_a_wrong_setting_is_named_and_its_password_is_not(text: str):
    with pytest.raises(PostgresError, match="DAGSTER_POSTGRES_URL") as error:
        database_url({"DAGSTER_POSTGRES_URL": text})
    assert "hunter2" not in str(error.value)


DAYS = dg.DailyPartitionsDefinition("2025-01-01", end_date="2026-01-01")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def many_days() -> None:
    """A year of partitions."""


def test_dagster_keeps_every_partition_of_a_range_in_it(server: EmbeddedPostgres):
    storage = PostgresStorage.from_config_value(None, {"postgres_url": server.url})
    assert isinstance(storage.event_log_storage, EventLog)
    first, last = "2025-01-01", "2025-12-31"
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    with dg.instance_for_test(overrides=_storage(server)) as instance:
        result = dg.materialize([many_days], instance=instance, tags=tags)
        assert result.success
        planned = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
        assert len(planned) == 365
        assert len(instance.get_materialized_partitions(many_days.key)) == 365
        assert many_days.key in instance.get_asset_keys()


def _storage(server: EmbeddedPostgres) -> dict[str, object]:
    config = {"postgres_url": server.url.replace("postgresql+psycopg2", "postgresql")}
    return {
        "storage": {
            "custom": {"module": "resources.dagster_storage", "class": "PostgresStorage", "config": config}
        }
    }


def test_an_error_does_not_repeat_what_was_bound(server: EmbeddedPostgres):
    engine = connect(with_driver(server.url))
    try:
        with engine.connect() as connection, pytest.raises(sqlalchemy.exc.DataError) as error:
            connection.execute(sa.text("SELECT 1 / length(:name) - 1 / 0"), {"name": "Иванова Анна"})
    finally:
        engine.dispose()
    assert "division by zero" in str(error.value)
    assert "Иванова" not in str(error.value)
