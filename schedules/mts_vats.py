"""MTS VATS by the clock: all cabinets, once an hour."""

from typing import Any

import dagster as dg

from etl_assets.mts_vats.assets import CRON
from etl_assets.mts_vats.tables import DATABASE


def build_schedules(*, running: bool) -> tuple[list[Any], list[dg.ScheduleDefinition]]:
    """The job `mts_vats` and its schedule, which runs if there is a cabinet."""
    job = dg.define_asset_job(
        "mts_vats_trunks",
        selection=dg.AssetSelection.groups(DATABASE),
        executor_def=dg.in_process_executor,
        description="Reads the trunks of all cabinets and what has changed in them.",
    )

    @dg.schedule(
        name="mts_vats_trunks",
        job=job,
        cron_schedule=CRON,
        execution_timezone="Europe/Moscow",
        default_status=dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED,
        description=f"Trunks of all cabinets: `{CRON}`.",
    )
    def _schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        going_on = [
            dg.DagsterRunStatus.STARTED,
            dg.DagsterRunStatus.STARTING,
            dg.DagsterRunStatus.QUEUED,
        ]
        busy = context.instance.get_runs(dg.RunsFilter(job_name=job.name, statuses=going_on), limit=1)
        if busy:
            return dg.SkipReason(f"Run {busy[0].run_id[:8]} of the last tick is not finished yet")
        return dg.RunRequest()

    return [job], [_schedule]
