"""Settings from the environment, each read in one place and named when it is missing or malformed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

import dagster as dg

from etl_assets.bitrix24.assets import Bitrix24Settings
from etl_assets.bitrix24.entities import ENTITIES
from etl_assets.loading import local_zone
from resources.bitrix24 import Bitrix24Resource
from resources.bitrix24.fields import OVERRIDES
from resources.clickhouse import WarehouseResource


def text(name: str, default: str | None = None) -> str:
    """A setting; a dagster.Failure that names it if it is missing."""
    value = dg.EnvVar(name).get_value() or default
    if value is None:
        raise dg.Failure(
            f"{name} is not set: put it into .env (see .env.example) or the environment.", allow_retries=False
        )
    return value


def number(name: str, default: float) -> float:
    value = text(name, str(default))
    try:
        return float(value)
    except ValueError:
        raise dg.Failure(
            f"{name} must be a number, it is a text of {len(value)} characters.", allow_retries=False
        ) from None


def mapping(name: str) -> Mapping[str, Any]:
    """A JSON object; empty if it is not set."""
    value = text(name, "{}")
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise dg.Failure(
            f'{name} must be a JSON object, such as {{"crm_deal": "*/2 * * * *"}}.', allow_retries=False
        )
    return found


def bitrix24_settings() -> Bitrix24Settings:
    zone = text("BITRIX24_TIMEZONE", "Europe/Moscow")
    local_zone(zone)
    return Bitrix24Settings(
        start_date=_past_day("BITRIX24_START_DATE", "2020-01-01"),
        zone=zone,
        crons=_crons(mapping("BITRIX24_SCHEDULES")),
        types=_types(mapping("BITRIX24_TYPES")),
    )


def _past_day(name: str, default: str) -> str:
    value = text(name, default)
    try:
        day = datetime.strptime(value, "%Y-%m-%d").date()
    except ValueError:
        raise dg.Failure(f"{name} must be a day such as {default}.", allow_retries=False) from None
    if day > date.today():
        raise dg.Failure(f"{name} lies in the future.", allow_retries=False)
    return str(day)


_NAMES = frozenset(e.name for e in ENTITIES)


def _known(setting: str, entity: str) -> None:
    if entity not in _NAMES and not re.fullmatch(r"crm_dynamic_items(_\d+)?", entity):
        raise dg.Failure(f"{setting}: there is no entity {entity}.", allow_retries=False)


def _crons(chosen: Mapping[str, Any]) -> Mapping[str, str]:
    """Crons of entities, an empty one for none; a dagster.Failure that names the one that is no cron."""
    for entity, cron in chosen.items():
        _known("BITRIX24_SCHEDULES", entity)
        try:
            if cron != "":  # Dagster has no other public way to ask
                dg.ScheduleDefinition(name="probe", job_name="probe", cron_schedule=str(cron))
        except dg.DagsterError:
            raise dg.Failure(
                f"BITRIX24_SCHEDULES: {cron!r} is no cron of {entity}.", allow_retries=False
            ) from None
    return chosen


def _types(chosen: Mapping[str, Any]) -> Mapping[str, Mapping[str, str]]:
    """Types of single columns; a dagster.Failure that names the one that does not exist."""
    for entity, columns in chosen.items():
        _known("BITRIX24_TYPES", entity)
        for column, type_ in columns.items() if isinstance(columns, dict) else ():
            if type_ not in OVERRIDES:
                raise dg.Failure(
                    f"BITRIX24_TYPES: {entity}.{column} must be one of {', '.join(OVERRIDES)}.",
                    allow_retries=False,
                )
        if not isinstance(columns, dict):
            raise dg.Failure(f"BITRIX24_TYPES: {entity} must be an object of columns.", allow_retries=False)
    return chosen


def bitrix24_resource(webhook_url: str | None = None) -> Bitrix24Resource:
    """The portal. Without `webhook_url` it is read from the environment now, not when a run begins."""
    return Bitrix24Resource(
        webhook_url=webhook_url or text("BITRIX24_WEBHOOK_URL"),
        ca_bundle=text("BITRIX24_CA_BUNDLE", "") or None,
        bucket_capacity=number("BITRIX24_RATE_CAPACITY", 50),
        bucket_per_second=number("BITRIX24_RATE_PER_SECOND", 2),
        bucket_reserve=number("BITRIX24_RATE_RESERVE", 1),
        in_flight=int(number("BITRIX24_IN_FLIGHT", 4)),
        batch_rows=int(number("BITRIX24_BATCH_ROWS", 2500)),
        operating_limit_s=number("BITRIX24_OPERATING_LIMIT_S", 400),
        state_dir=text("SVOD_STATE_DIR", "") or None,
    )


def warehouse_resource(url: str | None = None) -> WarehouseResource:
    return WarehouseResource(
        url=url or text("CLICKHOUSE_URL"),
        ca_bundle=text("CLICKHOUSE_CA_BUNDLE", "") or None,
        cluster=text("CLICKHOUSE_CLUSTER", "") or None,
        insert_rows=int(number("CLICKHOUSE_INSERT_ROWS", 10_000)),
    )
