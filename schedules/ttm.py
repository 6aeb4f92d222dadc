"""The ticket system by the clock: yesterday in the night until it is complete; the checks every hour."""

from datetime import timedelta
from typing import Any, TypeAlias

import dagster as dg

from etl_assets.ttm.assets import DAILY, NIGHT_CRON, asset_key
from etl_assets.ttm.checks import build_checks
from etl_assets.ttm.settings import TtmSettings, configured

Job: TypeAlias = Any  # Dagster exports no name for what define_asset_job gives
CHECKS_CRON = "0 * * * *"
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def build_schedules(settings: TtmSettings) -> tuple[list[Job], list[dg.ScheduleDefinition]]:
    """The jobs and their schedules; they run from the start if the hub is known."""
    status = dg.DefaultScheduleStatus.RUNNING if configured() else dg.DefaultScheduleStatus.STOPPED
    checks = dg.define_asset_job(
        "ttm_checks",
        selection=dg.AssetSelection.checks(*build_checks(settings)),
        executor_def=dg.in_process_executor,
        description="Is yesterday complete, is the list of suspended tickets fresh.",
    )
    hourly = dg.ScheduleDefinition(
        name="ttm_checks",
        job=checks,
        cron_schedule=CHECKS_CRON,
        execution_timezone=settings.business_zone,
        default_status=status,
        description=f"`{CHECKS_CRON}`, {settings.business_zone}.",
    )
    night, nightly = _night(settings, status)
    return [night, checks], [nightly, hourly]


def _night(settings: TtmSettings, status: dg.DefaultScheduleStatus) -> tuple[Job, dg.ScheduleDefinition]:
    job = dg.define_asset_job(
        "ttm_night",
        selection=dg.AssetSelection.assets(*(asset_key(table) for table in DAILY)),
        executor_def=dg.in_process_executor,
        description="Yesterday's overdue tickets: read, analysed, written.",
    )

    @dg.schedule(
        name="ttm_night",
        job=job,
        cron_schedule=NIGHT_CRON,
        execution_timezone=settings.business_zone,
        default_status=status,
        description=f"Yesterday, until it is complete: `{NIGHT_CRON}`, {settings.business_zone}.",
    )
    def _schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        day = str(settings.calendar.day(context.scheduled_execution_time) - timedelta(days=1))
        # the partitions themselves say what is done, so a restart neither repeats nor skips a day
        loaded = (context.instance.get_materialized_partitions(asset_key(table)) for table in DAILY)
        if all(day in keys for keys in loaded):
            return dg.SkipReason(f"{day} is complete")
        of_day = dg.RunsFilter(tags={"dagster/partition": day}, job_name="ttm_night", statuses=UNFINISHED)
        if busy := context.instance.get_runs(of_day, limit=1):
            return dg.SkipReason(f"Run {busy[0].run_id[:8]} is still loading {day}")
        return dg.RunRequest(partition_key=day)

    return job, _schedule
