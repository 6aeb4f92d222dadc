"""The settings of this source, from the environment."""

from __future__ import annotations

from dataclasses import dataclass

import dagster as dg

from etl_assets.settings import cron, given, number, past_day, switch, text, whole, zone
from resources.metrika import MetrikaResource

TOKEN, COUNTERS, COUNTER = "METRIKA_TOKEN", "METRIKA_COUNTERS", "METRIKA_COUNTER"
LONGEST_COUNTER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class MetrikaSettings:
    """What definitions need to know before a run. Without counters everything is there and nothing starts."""

    counters: tuple[int, ...] = ()
    start_date: str = "2020-01-01"
    zone: str = "Europe/Moscow"
    cron: str = "0 6 * * *"
    reload_days: int = 3
    target: str = "4plus"
    upload: bool = False
    create_goal: bool = False

    @property
    def partitions(self) -> dg.DailyPartitionsDefinition:
        """Days that are over: the API gives no others."""
        return dg.DailyPartitionsDefinition(start_date=self.start_date, timezone=self.zone)


def metrika_settings() -> MetrikaSettings:
    return MetrikaSettings(
        counters=_counters(),
        start_date=past_day("METRIKA_START_DATE", "2020-01-01"),
        zone=zone("METRIKA_TIMEZONE", "Europe/Moscow"),
        cron=cron("METRIKA_SCHEDULE", "0 6 * * *"),
        reload_days=whole("METRIKA_RELOAD_DAYS", 3, least=1, most=365),
        target=text("METRIKA_CONVERSIONS_TARGET", "4plus"),
        upload=switch("METRIKA_CONVERSIONS_UPLOAD"),
        create_goal=switch("METRIKA_CONVERSIONS_CREATE_GOAL"),
    )


def configured() -> bool:
    """Whether the source has its credentials."""
    return given(TOKEN) and (given(COUNTERS) or given(COUNTER))


def _counters() -> tuple[int, ...]:
    """Numbers of counters, each once, in their order; a dagster.Failure that names the setting."""
    name = COUNTERS if given(COUNTERS) else COUNTER
    found = []
    for each in text(name, "").replace(" ", "").split(",") if given(name) else ():
        if not (each.isascii() and each.isdigit() and 0 < int(each) <= LONGEST_COUNTER):
            raise dg.Failure(f"{name} must be numbers of counters, such as 12345,67890.", allow_retries=False)
        found.append(int(each))
    return tuple(dict.fromkeys(found))


def metrika_resource(token: str | None = None) -> MetrikaResource:
    """The API. Without `token` it is read from the environment now, not when a run begins."""
    return MetrikaResource(
        url=text("METRIKA_URL", "https://api-metrika.yandex.net"),
        token=token if token is not None else text(TOKEN),
        ca_bundle=text("METRIKA_CA_BUNDLE", "") or None,
        state_dir=text("SVOD_STATE_DIR", "") or None,
        per_second=number("METRIKA_RATE_PER_SECOND", 8, least=0),
        parallel=whole("METRIKA_PARALLEL", 3, least=0),
        give_up_s=number("METRIKA_GIVE_UP_S", 300, above=0),
        gzip=switch("METRIKA_GZIP", True),
        poll_s=number("METRIKA_POLL_S", 10, above=0),
        deadline_s=number("METRIKA_DEADLINE_S", 7200, above=0),
        client_id_type=text("METRIKA_CLIENT_ID_TYPE", ""),
    )
