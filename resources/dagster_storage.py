"""Dagster's own storage, named in dagster.yaml: dagster-postgres, fit for years of partitions in one run.

The one module that leans on what dagster-postgres does not document; checked against 0.29.27. Without it a
run over 2,500 partitions spends two minutes on its own bookkeeping, with it about ten seconds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click
import dagster as dg
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage

from resources.postgres import PostgresError, require_answer, socket_dir_of, with_driver

BATCH = "500"  # events in one insert; Dagster's own default is none
IDLE_CONNECTION_S = 300
STATEMENT_TIMEOUT_MS = 60_000


class EventLog(PostgresEventLogStorage):
    """Writes the «planned» events of a range at once; dagster-postgres does so for materializations only."""

    def store_event_batch(self, events: Sequence[dg.EventLogEntry]) -> None:
        planned = [
            e for e in events if e.dagster_event_type == dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        ]
        others = [
            e for e in events if e.dagster_event_type != dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        ]
        if planned:
            self._store_planned(planned)
        if others:
            super().store_event_batch(others)

    def _store_planned(self, events: Sequence[dg.EventLogEntry]) -> None:
        statement = self.prepare_insert_event_batch(events)
        with self._connect() as connection:
            ids = [int(row[0]) for row in connection.execute(statement.returning(statement.table.c.id))]
        last = {e.get_dagster_event().asset_key: (e, number) for e, number in zip(events, ids, strict=True)}
        with self.index_transaction() as connection:
            for event, number in last.values():
                self._store_asset_event(connection, event, number)


class PostgresStorage(DagsterPostgresStorage):
    """Runs, events and schedules in PostgreSQL.

    Plain `postgresql://` gets the driver that is installed; an embedded server that is not running is one
    line on the terminal instead of a traceback after half a minute of retries; connections are kept.
    """

    def __init__(
        self, postgres_url: str, should_autocreate_tables: bool = True, inst_data: Any = None
    ) -> None:
        super().__init__(postgres_url, should_autocreate_tables, inst_data)
        self._event_log_storage = EventLog(postgres_url, should_autocreate_tables)
        for storage in (self._event_log_storage, self._run_storage, self._schedule_storage):
            storage.optimize_for_webserver(STATEMENT_TIMEOUT_MS, IDLE_CONNECTION_S, max_overflow=20)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> PostgresStorage:
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", BATCH)
        try:
            url = with_driver(config_value["postgres_url"])
            require_answer(url)
        except PostgresError as error:
            raise click.ClickException(str(error)) from None
        if socket_dir_of(
            url
        ):  # a power cut may cost the last half second of the log of a laptop, not its consistency
            url = url.update_query_dict({"options": "-c synchronous_commit=off"})
        autocreate = config_value.get("should_autocreate_tables", True)
        return cls(url.render_as_string(hide_password=False), autocreate, inst_data)
