"""Settings from the environment, each read in one place and named when it is missing or malformed.

What every source shares is here; each source's own are in its package's `settings.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from resources.clickhouse import WarehouseResource


def given(*names: str) -> bool:
    """Whether all of these have a value: a source without its credentials starts nothing by itself."""
    return all(dg.EnvVar(name).get_value() for name in names)


def text(name: str, default: str | None = None) -> str:
    """A setting; a dagster.Failure that names it if it is missing."""
    value = dg.EnvVar(name).get_value() or default
    if value is None:
        raise dg.Failure(
            f"{name} is not set: put it into .env (see .env.example) or the environment.", allow_retries=False
        )
    return value


def number(
    name: str, default: float, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> float:
    """A finite number from `least` on, greater than `above` and not greater than `most`."""
    value = text(name, str(default))
    try:
        found = float(value)
    except ValueError:
        raise dg.Failure(
            f"{name} must be a number, it is a text of {len(value)} characters.", allow_retries=False
        ) from None
    if not math.isfinite(found):
        raise dg.Failure(f"{name} must be a finite number.", allow_retries=False)
    for wrong, bound in (
        (found < least, f"at least {least:g}"),
        (found <= above, f"greater than {above:g}"),
        (found > most, f"at most {most:g}"),
    ):
        if wrong:
            raise dg.Failure(f"{name} must be {bound}.", allow_retries=False)
    return found


def whole(name: str, default: int, *, least: int, most: float = math.inf) -> int:
    """A whole number from `least` to `most`."""
    found = number(name, default, least=least, most=most)
    if not found.is_integer():
        raise dg.Failure(f"{name} must be a whole number.", allow_retries=False)
    return int(found)


def zone(name: str, default: str) -> str:
    """The IANA name of a time zone."""
    value = text(name, default)
    try:
        return ZoneInfo(value).key
    except (ValueError, OSError, KeyError):  # an unknown zone is a KeyError, a folder of zones an OSError
        raise dg.Failure(
            f"{name} must be an IANA name such as Europe/Moscow, not {value!r}.", allow_retries=False
        ) from None


def cron(name: str, default: str) -> str:
    """A cron schedule."""
    value = text(name, default)
    try:  # Dagster has no other public way to ask
        dg.ScheduleDefinition(name="probe", job_name="probe", cron_schedule=value)
    except dg.DagsterError:
        raise dg.Failure(f"{name} is no cron, such as {default}.", allow_retries=False) from None
    return value


def switch(name: str, default: bool = False) -> bool:
    """A setting that is on (1, true, yes, on) or off (0, false, no, off)."""
    value = text(name, "true" if default else "false").strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise dg.Failure(f"{name} must be true or false.", allow_retries=False)


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


def past_day(name: str, default: str) -> str:
    """A day, ISO, that has begun."""
    value = text(name, default)
    try:
        day = datetime.strptime(value, "%Y-%m-%d").date()
    except ValueError:
        raise dg.Failure(f"{name} must be a day such as {default}.", allow_retries=False) from None
    if day > date.today():
        raise dg.Failure(f"{name} lies in the future.", allow_retries=False)
    return str(day)


def warehouse_resource(url: str | None = None) -> WarehouseResource:
    return WarehouseResource(
        url=url or text("CLICKHOUSE_URL"),
        ca_bundle=text("CLICKHOUSE_CA_BUNDLE", "") or None,
        cluster=text("CLICKHOUSE_CLUSTER", "") or None,
        insert_rows=whole("CLICKHOUSE_INSERT_ROWS", 10_000, least=1),
    )
