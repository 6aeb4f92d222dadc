"""The parts that need no server: times, CSV, limits, settings, keys; and the migrations."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st

from resources.postgres import OPERATIONS, EmbeddedPostgres, connect, with_driver
from resources.scoring_service.cipher import (
    LedgerError,
    TokenCipher,
    new_key,
    new_secret,
    same_secret,
    secret_hash,
)
from resources.scoring_service.conversions import Conversion, csv_file, instant, parse_time, read_csv
from resources.scoring_service.tables import metadata
from services.scoring_api.limits import RateWindow
from services.scoring_api.migrate import migrate
from services.scoring_api.settings import Settings

NOW = datetime(2026, 1, 1, tzinfo=UTC)
URL = "postgresql+psycopg2://u:p@h:5432/d"
WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
CONVERSIONS = st.builds(
    Conversion,
    target=WORDS,
    date_time=st.integers(946_684_800, int(NOW.timestamp())).map(lambda s: datetime.fromtimestamp(s, UTC)),
    client_id=WORDS,
    user_id=st.none() | WORDS,
    price=st.none() | st.decimals(0, 10**9, places=2),
    currency=st.none() | st.sampled_from(["RUB", "USD"]),
)


@given(st.lists(CONVERSIONS, min_size=1, max_size=20))
def test_what_is_written_as_csv_reads_back(rows: list[Conversion]):
    lines = list(csv.DictReader(io.StringIO(csv_file("ClientId", rows).decode(), newline="")))
    assert [line["ClientId"] for line in lines] == [row.client_id for row in rows]
    assert [line.get("UserId") or None for line in lines] == [row.user_id for row in rows]
    assert [int(line["DateTime"]) for line in lines] == [int(row.date_time.timestamp()) for row in rows]
    prices = [Decimal(line["Price"]) if line.get("Price") else None for line in lines]
    assert prices == [row.price for row in rows]


def test_columns_that_no_row_fills_are_left_out():
    body = csv_file("Yclid", [Conversion("4plus", NOW, yclid="7")])
    assert body == b"Yclid,Target,DateTime\n7,4plus,1767225600\n"


@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_a_value_error(body: bytes):
    with suppress(ValueError):
        assert all(fields for _, fields in read_csv(body))


@given(st.one_of(st.text(max_size=40), st.integers(), st.floats(), st.booleans(), st.none()))
def test_any_value_is_a_time_of_our_era_or_a_value_error(value: object):
    with suppress(ValueError):
        found = instant(parse_time(value), ZoneInfo("Europe/Moscow"), NOW)
        assert datetime(2000, 1, 1, tzinfo=UTC) <= found <= NOW + timedelta(minutes=1)


@given(
    st.datetimes(datetime(2001, 1, 1), datetime(2025, 12, 1)), st.sampled_from(["UTC", "Asia/Vladivostok"])
)
def test_a_time_without_a_zone_is_in_the_configured_one(time: datetime, name: str):
    zone = ZoneInfo(name)
    expected = time.replace(tzinfo=zone, microsecond=0).astimezone(UTC)
    assert instant(parse_time(time.isoformat()), zone, NOW) == expected


@given(st.lists(st.floats(0, 30), max_size=300), st.integers(1, 60))
def test_no_minute_has_more_requests_than_allowed(pauses: list[float], most: int):
    now, passed = 0.0, list[float]()
    window = RateWindow(most, lambda: now)
    for pause in pauses:
        now += pause
        if wait := window.wait("key"):
            assert 1 <= wait <= 60
        else:
            passed.append(now)
    for at in passed:
        assert len([p for p in passed if at - 60 < p <= at]) <= most


def test_secrets_are_random_hashed_and_compared():
    secret = new_secret()
    assert len(secret) == 43
    assert same_secret(secret, secret_hash(secret))
    assert not same_secret(new_secret(), secret_hash(secret))


def test_the_first_key_encrypts_and_all_decrypt():
    old, new = new_key(), new_key()
    stored = TokenCipher(old).encrypt("token")
    both = TokenCipher(f"{new}, {old}")
    assert both.decrypt(stored) == "token"
    assert TokenCipher(new).decrypt(both.rotate(stored)) == "token"
    with pytest.raises(LedgerError, match="SCORING_ENCRYPTION_KEY"):
        TokenCipher(new).decrypt(stored)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCORING_ENCRYPTION_KEY", ""),
        ("SCORING_ENCRYPTION_KEY", "hunter2"),
        ("SCORING_ADMIN_TOKEN", "hunter2"),
        ("SCORING_WEBHOOK_RATE", "many"),
        ("SCORING_WEBHOOK_RATE", "-1"),
        ("SCORING_TIMEZONE", "Mars/Olympus"),
        ("METRIKA_COUNTER", "hunter2"),
        ("METRIKA_COUNTERS", "0"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not(name: str, value: str):
    environ = {"SVOD_POSTGRES_URL": URL, "SCORING_ENCRYPTION_KEY": new_key(), name: value}
    with pytest.raises(LedgerError, match=name) as error:
        Settings.from_environ(environ)
    assert "hunter2" not in str(error.value)


def test_the_counter_of_the_environment_is_meant_only_if_there_is_one():
    known = {"SVOD_POSTGRES_URL": URL, "SCORING_ENCRYPTION_KEY": new_key()}
    assert Settings.from_environ({**known, "METRIKA_COUNTERS": "7"}).metrika_counter == 7
    assert Settings.from_environ({**known, "METRIKA_COUNTERS": "7,8"}).metrika_counter is None
    several = {**known, "METRIKA_COUNTERS": "7,8", "METRIKA_COUNTER": "8"}
    assert Settings.from_environ(several).metrika_counter == 8


def test_secrets_of_the_settings_are_not_in_their_text():
    environ = {
        "SVOD_POSTGRES_URL": URL.replace(":p@", ":hunter2@"),
        "SCORING_ENCRYPTION_KEY": (key := new_key()),
        "SCORING_ADMIN_TOKEN": "hunter2" * 4,
        "METRIKA_TOKEN": "hunter2",
    }
    text = repr(Settings.from_environ(environ))
    assert "hunter2" not in text
    assert key not in text


def test_migrations_make_the_tables_that_the_code_knows(postgres: EmbeddedPostgres):
    engine = connect(with_driver(postgres.url_of(OPERATIONS)))
    migrate(engine)
    before, now = migrate(engine)
    assert before == now
    with engine.connect() as db:
        ours = {"include_schemas": True, "version_table_schema": "scoring", "include_name": _ours}
        context = MigrationContext.configure(db, opts=ours)
        assert compare_metadata(context, metadata) == []
        assert "scoring" in sa.inspect(db).get_schema_names()
    engine.dispose()


def _ours(name: str | None, kind: str, parents: object) -> bool:
    return kind != "schema" or name == "scoring"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve"], "SVOD_POSTGRES_URL"),
        (["migrate"], "SVOD_POSTGRES_URL"),
        (["rotate"], "SVOD_POSTGRES_URL"),
    ],
)
def test_a_command_without_settings_is_one_line(arguments: list[str], said: str):
    done = _run(arguments, {})
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_public_address_needs_an_admins_token():
    known = {"SVOD_POSTGRES_URL": URL, "SCORING_ENCRYPTION_KEY": new_key()}
    done = _run(["serve", "--host", "0.0.0.0", "--port", "0"], known)
    assert done.returncode == 1
    assert "SCORING_ADMIN_TOKEN" in done.stderr


def test_a_fresh_key_is_one():
    assert TokenCipher(_run(["key"], {}).stdout.strip()).encrypt("x")


def _run(arguments: list[str], environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "services.scoring_api", *arguments],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
