"""Dagster's own storage, named in dagster.yaml: dagster-postgres with two everyday mistakes taken care of."""

from __future__ import annotations

from typing import Any

import click
from dagster_postgres import DagsterPostgresStorage

from resources.postgres import PostgresError, require_answer, with_driver


class PostgresStorage(DagsterPostgresStorage):
    """Runs, events and schedules in PostgreSQL.

    Plain `postgresql://` gets the driver that is installed, and an embedded server that is not running is one line on
    the terminal instead of a traceback after half a minute of retries.
    """

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> DagsterPostgresStorage:
        try:
            url = with_driver(config_value["postgres_url"])
            require_answer(url)
        except PostgresError as error:
            raise click.ClickException(str(error)) from None
        text = url.render_as_string(hide_password=False)
        return super().from_config_value(inst_data, {**config_value, "postgres_url": text})
