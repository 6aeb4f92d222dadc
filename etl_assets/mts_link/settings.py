"""The settings of this source, from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from etl_assets.mts_link.endpoints import PRIVACY
from etl_assets.settings import cron, given, mapping, number, past_day, text, whole, zone
from resources.mts_link import DEFAULT_URL, MtsLinkResource
from resources.mts_link.client import RATE

HOURLY, NIGHTLY = "0 * * * *", "30 1 * * *"
TOKEN = "MTS_LINK_API_TOKEN"


@dataclass(frozen=True, slots=True)
class MtsLinkSettings:
    """What definitions need to know before a run. `classes` are the classes of data that are read."""

    start_date: str = "2020-01-01"
    zone: str = "Europe/Moscow"
    classes: frozenset[str] = frozenset(name for name, each in PRIVACY.items() if each.on)
    lookback_days: int = 30
    failed_share: float = 0.5
    message_pages: int = 10_000  # of 100 messages: a million in one chat
    contacts_filter: Mapping[str, str] = field(default_factory=dict)
    retention: Mapping[str, int] = field(default_factory=dict)
    hourly: str = HOURLY
    nightly: str = NIGHTLY


def mts_link_settings() -> MtsLinkSettings:
    return MtsLinkSettings(
        start_date=past_day("MTS_LINK_START_DATE", "2020-01-01"),
        zone=zone("MTS_LINK_TIMEZONE", "Europe/Moscow"),
        classes=_classes(text("MTS_LINK_CLASSES", "")),
        lookback_days=whole("MTS_LINK_LOOKBACK_DAYS", 30, least=1),
        failed_share=number("MTS_LINK_FAILED_SHARE", 0.5, least=0, most=1),
        message_pages=whole("MTS_LINK_MESSAGE_PAGES", 10_000, least=1),
        contacts_filter=_filter(mapping("MTS_LINK_CONTACTS_FILTER")),
        retention=_retention(mapping("MTS_LINK_RETENTION_DAYS")),
        hourly=cron("MTS_LINK_HOURLY_CRON", HOURLY),
        nightly=cron("MTS_LINK_NIGHTLY_CRON", NIGHTLY),
    )


def _classes(value: str) -> frozenset[str]:
    """The classes that are on by themselves and those that the setting names."""
    named = {name.strip() for name in value.split(",") if name.strip()}
    if unknown := sorted(named - PRIVACY.keys()):
        raise dg.Failure(
            f"MTS_LINK_CLASSES: there is no class {unknown[0]!r}; there are {', '.join(PRIVACY)}.",
            allow_retries=False,
        )
    return frozenset(name for name, each in PRIVACY.items() if each.on) | named


def _retention(chosen: Mapping[str, Any]) -> Mapping[str, int]:
    """Days by class; a dagster.Failure that names what is no class or no number of days."""
    for name, days in chosen.items():
        if name not in PRIVACY:
            raise dg.Failure(f"MTS_LINK_RETENTION_DAYS: there is no class {name!r}.", allow_retries=False)
        if not isinstance(days, int) or isinstance(days, bool) or days < 1:
            raise dg.Failure(
                f"MTS_LINK_RETENTION_DAYS: {name} must be a number of days, 1 or more.", allow_retries=False
            )
    return chosen


def _filter(chosen: Mapping[str, Any]) -> Mapping[str, str]:
    for name, value in chosen.items():
        if not isinstance(value, str | int):
            raise dg.Failure(
                f"MTS_LINK_CONTACTS_FILTER: {name} must be a text or a number.", allow_retries=False
            )
    return {name: str(value) for name, value in chosen.items()}


def mts_link_resource(*, later: bool = False) -> MtsLinkResource:
    """The organisation; `later`: its secrets are read when a run begins, and stand in no definition."""

    def secret(name: str) -> str:
        return dg.EnvVar(name) if later and given(name) else "" if later else text(name, "")

    return MtsLinkResource(
        token=secret(TOKEN),
        base_url=text("MTS_LINK_URL", DEFAULT_URL),
        oauth_token=secret("MTS_LINK_OAUTH_TOKEN") or None,
        rate=number("MTS_LINK_RATE", RATE, least=0),
        in_flight=whole("MTS_LINK_IN_FLIGHT", 8, least=1, most=32),
        timeout_s=number("MTS_LINK_TIMEOUT_S", 30, above=0),
        attempts=whole("MTS_LINK_ATTEMPTS", 5, least=1),
        ca_bundle=text("MTS_LINK_CA_BUNDLE", "") or None,
        state_dir=text("SVOD_STATE_DIR", "") or None,
        pseudonym_key=secret("MTS_LINK_PSEUDONYM_KEY") or None,
    )
