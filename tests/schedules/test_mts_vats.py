"""Cabinets are read every hour, if there are any."""

from pathlib import Path

import dagster as dg
import pytest

from schedules.mts_vats import build_schedules


@pytest.mark.parametrize("running", [True, False])
def test_the_schedule_runs_only_where_there_is_a_cabinet(running: bool):
    (job,), (schedule,) = build_schedules(running=running)
    expected = dg.DefaultScheduleStatus.RUNNING if running else dg.DefaultScheduleStatus.STOPPED
    assert schedule.default_status == expected
    assert schedule.job_name == job.name
    assert schedule.cron_schedule == "7 * * * *"


def test_a_tick_is_skipped_while_the_last_run_goes_on(tmp_path: Path):
    _, (schedule,) = build_schedules(running=True)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        assert schedule(dg.build_schedule_context(instance=instance)) is not None
        run = instance.add_run(dg.DagsterRun(job_name="mts_vats_trunks", status=dg.DagsterRunStatus.STARTED))
        skipped = schedule(dg.build_schedule_context(instance=instance))
        assert isinstance(skipped, dg.SkipReason)
        assert run.run_id[:8] in (skipped.skip_message or "")
