"""Bring the schema `scoring` up to date: `python -m services.scoring_api migrate`, and every start."""

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext

from resources.scoring_service.tables import SCHEMA

LOCK = 0x5C0E1  # two processes that start at once take turns


def migrate(engine: sa.Engine) -> tuple[str | None, str | None]:
    """(version before, version now), the same when nothing was to do."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    with engine.begin() as connection:
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        connection.execute(sa.text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        before = _version(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return before, _version(connection)


def _version(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(
        connection, opts={"version_table_schema": SCHEMA}
    ).get_current_revision()
