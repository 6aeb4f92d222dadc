"""The settings of this source, from the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import dagster as dg

from etl_assets.bitrix24.assets import Bitrix24Settings
from etl_assets.bitrix24.entities import ENTITIES
from etl_assets.settings import given, mapping, number, past_day, text, whole, zone
from resources.bitrix24 import Bitrix24Resource
from resources.bitrix24.fields import OVERRIDES


def bitrix24_settings() -> Bitrix24Settings:
    return Bitrix24Settings(
        start_date=past_day("BITRIX24_START_DATE", "2020-01-01"),
        zone=zone("BITRIX24_TIMEZONE", "Europe/Moscow"),
        crons=_crons(mapping("BITRIX24_SCHEDULES")),
        types=_types(mapping("BITRIX24_TYPES")),
        deleted_share_pct=number("BITRIX24_DELETED_SHARE_PCT", 20, least=0, most=100),
        running=configured(),
        history=_history(text("BITRIX24_HISTORY", "") or ""),
    )


_NAMES = frozenset(e.name for e in ENTITIES)


def _known(setting: str, entity: str) -> None:
    if entity not in _NAMES and not re.fullmatch(r"(crm_dynamic_items|lists)(_\d+)?", entity):
        raise dg.Failure(f"{setting}: there is no entity {entity}.", allow_retries=False)


def _history(chosen: str) -> frozenset[str]:
    """Entities whose field history is kept, of a list with commas."""
    names = [name.strip() for name in chosen.split(",") if name.strip()]
    for name in names:
        _known("BITRIX24_HISTORY", name)
    return frozenset(names)


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


WEBHOOK, CLIENT_ID = "BITRIX24_WEBHOOK_URL", "BITRIX24_APP_CLIENT_ID"
CLIENT_SECRET, REFRESH_TOKEN = "BITRIX24_APP_CLIENT_SECRET", "BITRIX24_APP_REFRESH_TOKEN"


def configured() -> bool:
    """Whether the portal can be asked at all."""
    return given(WEBHOOK) or given(CLIENT_ID, CLIENT_SECRET)


def bitrix24_resource(later: bool = False) -> Bitrix24Resource:
    """The portal. Its secrets are read now, or only when a run begins (`later`)."""
    return Bitrix24Resource(
        webhook_url=_secret(WEBHOOK, later),
        client_id=text(CLIENT_ID, "") or "",
        client_secret=_secret(CLIENT_SECRET, later),
        refresh_token=_secret(REFRESH_TOKEN, later),
        auth_url=text("BITRIX24_APP_AUTH_URL", "") or "",
        ca_bundle=text("BITRIX24_CA_BUNDLE", "") or None,
        bucket_capacity=number("BITRIX24_RATE_CAPACITY", 50, least=0),
        bucket_per_second=number("BITRIX24_RATE_PER_SECOND", 2, above=0),
        bucket_reserve=number("BITRIX24_RATE_RESERVE", 1, least=0),
        in_flight=whole("BITRIX24_IN_FLIGHT", 4, least=1, most=32),
        batch_rows=whole("BITRIX24_BATCH_ROWS", 2500, least=50),
        operating_limit_s=number("BITRIX24_OPERATING_LIMIT_S", 400, least=0),
        state_dir=text("SVOD_STATE_DIR", "") or None,
    )


def _secret(name: str, later: bool) -> Any:
    """A secret, or Dagster's promise of it: then it stands in no run configuration."""
    if not given(name):
        return ""
    return dg.EnvVar(name) if later else text(name)
