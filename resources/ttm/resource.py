"""What Dagster's assets are given: the hub of the ticket system, and the database of the ticket tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from pydantic import Field, PrivateAttr

from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import register_secret
from resources.postgres import PostgresError, with_driver
from resources.ttm.database import TtmDatabase, operations_url
from resources.ttm.protocol import HUB_UNREACHABLE, TtmError
from resources.ttm.requester import HubClient
from resources.ttm.settings import SettingError, Settings


class TtmHubResource(dg.ConfigurableResource):
    """The hub, as the environment names it: TTM_SERVER, TTM_TOKEN, TTM_KEY, TTM_TLS_*."""

    concurrency: int = Field(default=64, ge=1, le=64, description="Tickets that are asked for at a time.")
    timeout_s: float = Field(default=120, gt=0, le=600, description="Seconds, for one ticket or list.")
    patience_s: float = Field(default=120, gt=0, description="Seconds to wait for a hub that is away.")

    @contextmanager
    def client(self) -> Iterator[HubClient]:
        """A connection for one step. PermanentSourceError names a setting that is missing or malformed."""
        settings = Settings()
        try:
            register_secret(settings.text("KEY"))
            client = HubClient.from_settings(settings, timeout_s=self.timeout_s, patience_s=self.patience_s)
        except SettingError as error:
            raise PermanentSourceError(f"{error} Put it into .env (see .env.example).") from None
        with client:
            yield client


class TtmDatabaseResource(dg.ConfigurableResource):
    """The PostgreSQL of the ticket tables."""

    url: str | None = Field(
        default=None, repr=False, description="From DB_PATH, SVOD_POSTGRES_URL or DB_USER … if not given."
    )
    db_schema: str = Field(default="public", description="Schema of the tables.")
    zone: str = Field(default="Europe/Moscow", description="Business zone.")
    _database: TtmDatabase | None = PrivateAttr(default=None)

    @property
    def tables(self) -> TtmDatabase:
        """The tables, reached at first use. A setting that is missing or malformed is a dagster.Failure."""
        if self._database is None:
            try:
                url = with_driver(self.url) if self.url else operations_url()
                self._database = TtmDatabase(url, self.db_schema, self.zone)
            except PostgresError as error:
                raise PermanentSourceError(f"{error}.") from None
        return self._database

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._database:
            self._database.close()


def failure_of(error: TtmError | PostgresError, doing: str) -> dg.Failure:
    """The error as what Dagster retries, or does not."""
    hopeless = isinstance(error, TtmError) and not error.retryable and error.code != HUB_UNREACHABLE
    return (PermanentSourceError if hopeless else TransientSourceError)(f"{doing}: {error}")
