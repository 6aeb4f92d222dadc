"""Settings of the ticket system from the environment; old names work too (see .env.example)."""

from __future__ import annotations

from dataclasses import dataclass
from zoneinfo import ZoneInfo

import dagster as dg

from etl_assets.settings import past_day, text, zone
from resources.ttm.resource import TtmDatabaseResource, TtmHubResource
from resources.ttm.settings import SettingError, Settings
from resources.ttm.values import Calendar


@dataclass(frozen=True, slots=True)
class TtmSettings:
    """What definitions need to know before a run."""

    start_date: str = "2020-01-01"
    business_zone: str = "Europe/Moscow"
    source_zone: str = "UTC"
    interval_s: int = 300

    @property
    def calendar(self) -> Calendar:
        return Calendar(ZoneInfo(self.business_zone), ZoneInfo(self.source_zone))


def ttm_settings() -> TtmSettings:
    """Raises dagster.Failure that names a malformed setting."""
    try:
        interval = Settings().number("INTERVAL", 300, 30, 86_400)
    except SettingError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    return TtmSettings(
        start_date=past_day("TTM_START_DATE", "2020-01-01"),
        business_zone=zone("TTM_BUSINESS_TZ", "Europe/Moscow"),
        source_zone=zone("TTM_SOURCE_TZ", "UTC"),
        interval_s=int(interval),
    )


def saved_filter(name: str) -> str:
    """The key of a saved filter, FILTER_ARREARS or FILTER_STOPPED; dagster.Failure if it is not set."""
    try:
        return Settings().text(name)
    except SettingError as error:
        raise dg.Failure(f"{error} Put it into .env (see .env.example).", allow_retries=False) from None


def configured() -> bool:
    """Whether the hub and both filters are known: without them nothing starts by itself."""
    settings = Settings()
    needed = ("SERVER", "TOKEN", "KEY", "FILTER_ARREARS", "FILTER_STOPPED")
    return all(settings.text(name, "") for name in needed)


def hub_resource() -> TtmHubResource:
    return TtmHubResource()


def database_resource(settings: TtmSettings) -> TtmDatabaseResource:
    return TtmDatabaseResource(db_schema=text("TTM_DB_SCHEMA", "public"), zone=settings.business_zone)
