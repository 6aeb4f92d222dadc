"""The ticket tables: conflict rules, the list that stays current, tables of the original that are kept."""

import json
import os
import random
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory

import resources.ttm
from resources.postgres import EmbeddedPostgres, PostgresError, with_driver
from resources.ttm.analysis import Analysis, ExpiredRow
from resources.ttm.database import HEAD, Attempt, TtmDatabase, operations_url
from resources.ttm.protocol import TtmError
from resources.ttm.suspended import SuspendedRow
from resources.ttm.suspended_list import Plan, plan_sync
from resources.ttm.values import Calendar

MOSCOW = Calendar(ZoneInfo("Europe/Moscow"))
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = date(2026, 3, 10)
LONG = "".join(random.Random(7).choices("абвгдежзиклмнопрстуфхцчшщ0123456789", k=9000))  # no index takes it
BREACHED = Analysis(
    "breached",
    "Линия 1",
    "Результат: SLA превышен",
    90.5,
    counted_seconds=7200,
    overrun_seconds=1770,
    breach_task="5-1",
    breach_unit="Линия 1",
    breach_at=NOON,
    by_unit={"Линия 1": 7200, "Линия 2": 0},
    close_date=DAY,
)


def fact(number: int, day: date = DAY, **changes: Any) -> tuple[ExpiredRow, Analysis]:
    analysis = replace(BREACHED, close_date=day, **changes)
    return ExpiredRow(number, analysis.responsible, analysis.report, day), analysis


def expired(database: TtmDatabase) -> list[dict[str, Any]]:
    return database.rows("select * from expires_tickets order by ticket_number")


def units(database: TtmDatabase) -> dict[tuple[int, str], int]:
    found = database.rows("select ticket_number, unit, seconds from expires_ticket_units")
    return {(row["ticket_number"], row["unit"]): row["seconds"] for row in found}


def test_a_row_has_the_old_columns_first_and_what_is_known_besides(database: TtmDatabase):
    database.save_expired([fact(5)])
    (row,) = expired(database)
    assert row.pop("loaded_at") <= datetime.now(UTC)
    assert list(row)[:4] == ["ticket_number", "responsible", "comment", "add_date"]
    assert list(row.values()) == [
        *(5, "Линия 1", "Результат: SLA превышен", DAY),
        *("breached", 90.5, 7200, 1770, "5-1", "Линия 1", NOON),
    ]
    assert units(database) == {(5, "Линия 1"): 7200, (5, "Линия 2"): 0}


def test_the_same_day_again_gives_the_same_rows(database: TtmDatabase):
    for _ in range(2):
        assert set(database.save_expired([fact(5), fact(6)]).written) == {5, 6}
    assert [row["ticket_number"] for row in expired(database)] == [5, 6]
    assert len(units(database)) == 4


def test_an_older_closing_never_replaces_a_later_one(database: TtmDatabase):
    later = DAY + timedelta(days=3)
    database.save_expired([fact(5, later, by_unit={"Линия 3": 60})])
    assert database.save_expired([fact(5, responsible="Линия 9"), fact(6)]).written == (6,)
    first, _ = expired(database)
    assert (first["responsible"], first["add_date"]) == ("Линия 1", later)
    assert (5, "Линия 3") in units(database)
    assert (5, "Линия 1") not in units(database)


def test_units_that_took_no_part_any_more_go(database: TtmDatabase):
    database.save_expired([fact(5)])
    database.save_expired([fact(5, by_unit={"Линия 2": 30})])
    assert units(database) == {(5, "Линия 2"): 30}


def test_what_the_database_cannot_store_stops_no_other_ticket(database: TtmDatabase):
    saved = database.save_expired(
        [*(fact(n) for n in range(1, 40)), fact(40, responsible="a\x00\ud800b"), fact(41, by_unit={LONG: 1})]
    )
    assert set(saved.written) == set(range(1, 41))
    assert list(saved.refused) == [41]
    assert "index row" in saved.refused[41]
    assert expired(database)[-1]["responsible"] == "a\ufffd\ufffdb"


def row(task: str, ticket: int, **changes: Any) -> SuspendedRow:
    first = SuspendedRow(task, None, NOON, None, "Иванов И.", "ждём", None, None, ticket)
    return replace(first, **changes)


def plan(*rows: SuspendedRow, failed: tuple[int, ...] = (), partial: bool = False) -> Plan:
    return Plan({r.task_number: r for r in rows}, dict.fromkeys(failed, "timeout"), {}, partial)


def attempt(second: int, **changes: Any) -> Attempt:
    return Attempt(NOON + timedelta(seconds=second), **changes)


def listed(database: TtmDatabase) -> list[str]:
    return [r["task_number"] for r in database.stopped()]


def test_the_list_follows_suspension_resumption_and_suspension_again(database: TtmDatabase):
    database.sync_stopped(plan(row("7-3", 7), row("8-1", 8)), attempt(1))
    database.sync_stopped(plan(row("8-1", 8)), attempt(2))
    assert listed(database) == ["8-1"]
    synced = database.sync_stopped(plan(row("7-5", 7), row("8-1", 8, last_comment="иначе")), attempt(3))
    assert (synced.written, synced.deleted) == (("7-5", "8-1"), ())
    assert [r["last_comment"] for r in database.stopped()] == ["ждём", "иначе"]
    assert database.sync_stopped(plan(), attempt(4)).deleted == ("7-5", "8-1")
    assert listed(database) == []


def test_the_row_of_a_ticket_that_was_not_read_stays(database: TtmDatabase):
    database.sync_stopped(plan(row("7-3", 7), row("8-1", 8)), attempt(1))
    database.sync_stopped(plan(failed=(7,)), attempt(2, complete=False))
    assert listed(database) == ["7-3"]


def test_a_list_that_was_read_in_part_removes_nothing(database: TtmDatabase):
    database.sync_stopped(plan(row("7-3", 7)), attempt(1))
    database.sync_stopped(plan(row("8-1", 8), partial=True), attempt(2, complete=False))
    assert listed(database) == ["7-3", "8-1"]


def test_a_reading_that_was_overtaken_changes_nothing(database: TtmDatabase):
    database.sync_stopped(plan(row("8-1", 8)), attempt(5))
    assert database.sync_stopped(plan(row("7-3", 7)), attempt(4)).superseded
    assert listed(database) == ["8-1"]


def test_a_row_that_is_refused_leaves_the_old_one_of_its_ticket(database: TtmDatabase):
    database.sync_stopped(plan(row("7-3", 7)), attempt(1))
    synced = database.sync_stopped(plan(row(LONG, 7), row("8-1", 8)), attempt(2))
    assert (list(synced.refused), listed(database)) == ([7], ["7-3", "8-1"])
    (load,) = database.rows("select complete_at, failed from ttm_loads")
    assert load == {"complete_at": NOON + timedelta(seconds=1), "failed": 1}


def test_a_failed_attempt_leaves_the_time_of_the_last_complete_one(database: TtmDatabase):
    database.note("expires_tickets", attempt(1, listed=3), rows=2, day=DAY)
    database.note("expires_tickets", attempt(9, problem="хаб молчит", complete=False), day=DAY)
    (load,) = database.rows("select * from ttm_loads")
    assert load["day"] == "2026-03-10"
    assert (load["complete_at"], load["problem"]) == (NOON + timedelta(seconds=1), "хаб молчит")


ORIGINAL = """
create table expires_tickets (
  ticket_number integer primary key, responsible varchar(50), comment varchar, add_date timestamp);
create table stopped_tickets (
  task_number varchar primary key, agreement_pause timestamp, begin_pause timestamp, end_pause timestamp,
  who_paused varchar(50), last_comment varchar, who_ask_pause varchar(50), sla timestamp);
insert into expires_tickets values
  (1, 'Линия 1', null, '2026-03-09 21:30:00'), (2, null, 'x', '2026-03-09 20:59:59');
insert into stopped_tickets (task_number, begin_pause) values
  ('77-2', '2026-03-09 21:30:00'), ('странный', null);
"""


def test_tables_of_the_original_keep_their_rows_and_get_our_types(database: TtmDatabase):
    with database._begin() as connection:
        connection.execute(sa.text(f"create schema {database.schema}"))
        connection.execute(sa.text(ORIGINAL))
    assert database.migrate()
    found = [(r["ticket_number"], r["responsible"], r["comment"], r["add_date"]) for r in expired(database)]
    assert found == [(1, "Линия 1", "", date(2026, 3, 10)), (2, "", "x", date(2026, 3, 9))]
    assert [(r["ticket_number"], r["begin_pause"]) for r in database.stopped()] == [
        (77, datetime(2026, 3, 9, 21, 30, tzinfo=UTC)),
        (0, None),
    ]
    database.save_expired([fact(2**40), fact(1)])
    assert [r["ticket_number"] for r in expired(database)] == [1, 2, 2**40]
    types = {
        (r["table_name"], r["column_name"]): r["data_type"]
        for r in database.rows(
            "select table_name, column_name, data_type from information_schema.columns"
            " where table_schema = current_schema()"
        )
    }
    assert types["expires_tickets", "add_date"] == "date"
    assert types["stopped_tickets", "sla"] == "timestamp with time zone"
    assert "character varying" not in {types[key] for key in types if key[0] != "ttm_alembic_version"}


def test_migrating_again_does_nothing(database: TtmDatabase):
    assert database.migrate()
    assert not database.migrate()
    again = TtmDatabase(database.url, database.schema)
    assert not again.migrate()
    again.close()


def test_the_newest_migration_is_the_one_that_is_asked_for():
    config = Config()
    config.set_main_option("script_location", str(Path(resources.ttm.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"DB_PATH": "postgresql+asyncpg://u:p@h:1/d", "SVOD_POSTGRES_URL": "postgres://x/y"}, "u:p@h:1/d"),
        ({"SVOD_POSTGRES_URL": "postgres://a@b/c", "DB_USER": "u", "DB_NAME": "n"}, "a@b/c"),
        ({"DB_USER": "u", "DB_PASSWORD": "p@ss", "DB_NAME": "n"}, "u:p%40ss@localhost:5432/n"),
        ({"DB_USER": "u", "DB_NAME": "n", "DB_HOST": "db", "DB_PORT": "6"}, "u@db:6/n"),
    ],
)
def test_the_address_comes_from_the_new_or_the_old_settings(environ: dict[str, str], url: str):
    assert operations_url(environ).render_as_string(False) == f"postgresql+psycopg2://{url}"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "SVOD_POSTGRES_URL is not set"),
        ({"DB_PATH": "/var/db.sqlite"}, "DB_PATH"),
        ({"DB_USER": "u", "DB_NAME": "n", "DB_PORT": "x"}, "DB_PORT"),
    ],
)
def test_a_missing_or_malformed_address_is_named(environ: dict[str, str], named: str):
    with pytest.raises(PostgresError, match=named):
        operations_url(environ)


def test_a_server_that_refuses_says_so_without_the_password(postgres: EmbeddedPostgres):
    url = with_driver(postgres.url_of("nowhere")).set(password="hunter2-secret")
    with pytest.raises(PostgresError, match="nowhere") as caught:
        TtmDatabase(url).migrate()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


SAMPLES = os.environ.get("SVOD_SAMPLES")
SYNCS = sorted(Path(SAMPLES or ".").glob("ttm/sync-*.json"))
COLUMNS = tuple(SuspendedRow.__dataclass_fields__)


def shown(value: Any) -> Any:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


@pytest.mark.skipif(not SAMPLES, reason="SVOD_SAMPLES names no folder of samples")
@pytest.mark.parametrize("path", SYNCS, ids=lambda path: path.stem)
def test_a_sample_list_becomes_what_is_expected(database: TtmDatabase, path: Path):
    sample = json.loads(path.read_text(encoding="utf-8"))
    stamps = ("agreement_pause", "begin_pause", "end_pause", "sla")
    before = [SuspendedRow(**(r | {s: MOSCOW.parse(r[s]) for s in stamps})) for r in sample["before"]]
    database.sync_stopped(plan(*before), attempt(1))
    deleted, complete, failed = [], False, []
    if sample["dashboard"]["status_code"] == 200:
        replies = {int(n): r for n, r in sample["tickets"].items()}
        refused = TtmError("upstream_error", "the ticket system answered with a fault")
        read = [(n, r["result"] if r["status_code"] == 200 else refused) for n, r in replies.items()]
        found = plan_sync(read, MOSCOW)
        deleted = list(database.sync_stopped(found, attempt(2)).deleted)
        complete, failed = found.complete, list(found.failed)
    rows = [{name: shown(r[name]) for name in COLUMNS} for r in database.stopped()]
    assert {"complete": complete, "rows": rows, "deleted": deleted, "failed": failed} == sample["expected"]
