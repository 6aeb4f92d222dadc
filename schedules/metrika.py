"""Yandex.Metrika by the clock: each morning yesterday, and the days before that may still have changed."""

from datetime import date, timedelta
from typing import Any, TypeAlias

import dagster as dg

from etl_assets.metrika.fields import DATABASE
from etl_assets.metrika.level4 import MODELS_KEY
from etl_assets.metrika.settings import MetrikaSettings
from etl_assets.partitions import today

Job: TypeAlias = Any  # Dagster exports no name for what define_asset_job gives
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
DAILY = "metrika_daily"


def build_schedules(
    settings: MetrikaSettings, *, running: bool
) -> tuple[list[Job], list[dg.ScheduleDefinition]]:
    """The morning's job and its schedule, which runs if the source is configured."""
    # a model is trained when somebody wants one, not because a day has passed
    by_hand = dg.AssetSelection.tag("svod/by_hand", "") | dg.AssetSelection.assets(MODELS_KEY)
    job = dg.define_asset_job(
        DAILY,
        selection=dg.AssetSelection.groups(DATABASE).materializable() - by_hand,
        description="Logs, features and selected visits of the last days; what is by hand is left out.",
    )
    newest = settings.partitions

    @dg.schedule(
        name=DAILY,
        job=job,
        cron_schedule=settings.cron,
        execution_timezone=settings.zone,
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description=f"The last {settings.reload_days} days, replaced: `{settings.cron}`, {settings.zone}.",
    )
    def _schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        last = date.fromisoformat(today(newest))
        first = max(date.fromisoformat(settings.start_date), last - timedelta(days=settings.reload_days - 1))
        return dg.RunRequest(
            run_key=str(last), tags={RANGE_START: str(first), RANGE_END: str(last), "source": DATABASE}
        )

    return [job], [_schedule]
