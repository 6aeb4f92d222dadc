"""MTS Link by the clock: every hour what shows a change, every night everything, with a look back."""

from typing import Any, TypeAlias

import dagster as dg

from etl_assets.loading import FEED_TAG
from etl_assets.mts_link.assets import BY_HAND, CADENCE, DATABASE, NIGHTLY
from etl_assets.mts_link.settings import TOKEN, MtsLinkSettings
from etl_assets.partitions import daily, today
from etl_assets.settings import given

Job: TypeAlias = Any  # Dagster exports no name for what define_asset_job gives

GROUP = dg.AssetSelection.groups(DATABASE) - dg.AssetSelection.tag(BY_HAND, "")


def build_schedules(settings: MtsLinkSettings) -> tuple[list[Job], list[dg.ScheduleDefinition]]:
    """Two jobs with a schedule each; assets of classes that are off are in neither."""
    built = [
        _scheduled(
            "mts_link_hourly",
            settings.hourly,
            GROUP & dg.AssetSelection.tag(CADENCE, "hourly"),
            "true",
            "What shows a change: schedule, calls, statistics, records, and children of rows that changed.",
            settings,
        ),
        _scheduled(
            "mts_link_nightly",
            settings.nightly,
            GROUP,
            NIGHTLY,
            "Everything: lists without a change time, chats, and children of what ended in the look-back.",
            settings,
        ),
    ]
    return [job for job, _ in built], [schedule for _, schedule in built]


def _scheduled(
    name: str, cron: str, selection: dg.AssetSelection, feed: str, about: str, settings: MtsLinkSettings
) -> tuple[Job, dg.ScheduleDefinition]:
    job = dg.define_asset_job(
        name, selection=selection, executor_def=dg.in_process_executor, description=about
    )
    partitions = daily(settings.start_date, settings.zone)
    running = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.QUEUED]

    @dg.schedule(
        name=name,
        job=job,
        cron_schedule=cron,
        execution_timezone=settings.zone,
        default_status=dg.DefaultScheduleStatus.RUNNING if given(TOKEN) else dg.DefaultScheduleStatus.STOPPED,
        description=f"{about} `{cron}`, {settings.zone}.",
    )
    def _schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        busy = context.instance.get_runs(dg.RunsFilter(job_name=name, statuses=running))
        if busy:
            return dg.SkipReason(f"Run {busy[0].run_id[:8]} of the last tick is not finished yet")
        return dg.RunRequest(partition_key=today(partitions), tags={FEED_TAG: feed})

    return job, _schedule
