"""Keep the list of suspended tickets current: one run every TTM_INTERVAL seconds, never two at a time."""

from typing import Any, TypeAlias

import dagster as dg

from etl_assets.ttm.assets import asset_key
from etl_assets.ttm.settings import TtmSettings, configured
from etl_assets.ttm.tables import STOPPED
from schedules.ttm import UNFINISHED

Job: TypeAlias = Any  # Dagster exports no name for what define_asset_job gives
NAME = "ttm_stopped_tickets"


def build_sensor(settings: TtmSettings) -> tuple[Job, dg.SensorDefinition]:
    """The job and the sensor that starts it; ticks are counted from start to start."""
    job = dg.define_asset_job(
        NAME,
        selection=dg.AssetSelection.assets(asset_key(STOPPED)),
        executor_def=dg.in_process_executor,
        description="The suspended tickets as they are now.",
    )

    @dg.sensor(
        name=NAME,
        job=job,
        minimum_interval_seconds=settings.interval_s,
        default_status=dg.DefaultSensorStatus.RUNNING if configured() else dg.DefaultSensorStatus.STOPPED,
        description=f"Reads the list every {settings.interval_s} s (TTM_INTERVAL), never twice at a time.",
    )
    def _sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        busy = context.instance.get_runs(dg.RunsFilter(job_name=NAME, statuses=UNFINISHED), limit=1)
        if busy:
            return dg.SkipReason(f"Run {busy[0].run_id[:8]} of the last tick is not finished yet")
        return dg.RunRequest()

    return job, _sensor
