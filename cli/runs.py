"""A run as the terminal shows it: started in a child, followed in Dagster's event log."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field

import dagster as dg
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli.load import PROCESS_TAG, Request, is_dead
from cli.project import err, out
from resources.http import redact

POLL_S = 0.5
STOP_S = 5  # for the step on its way: Dagster takes an interruption for a reason to repeat it, and goes on
Event = dg.DagsterEventType


@dataclass
class Outcome:
    """How a run ended. `failures` maps an asset to the first line of its error."""

    success: bool = False
    failures: dict[str, str] = field(default_factory=dict)
    said: str = ""  # the child's last line, for a run that did not even begin


@dataclass
class Follower:
    """Reads the events of one run and keeps a progress display in step."""

    instance: dg.DagsterInstance
    run_id: str
    progress: Progress
    total: int
    failures: dict[str, str] = field(default_factory=dict)
    _cursor: str | None = None
    _step: str = ""

    def __post_init__(self) -> None:
        self.task = self.progress.add_task("starting Dagster", total=self.total)

    def read(self) -> None:
        """Take what has been logged since the last call."""
        while True:
            page = self.instance.get_records_for_run(self.run_id, cursor=self._cursor, limit=500)
            self._cursor = page.cursor
            for record in page.records:
                self._take(record.event_log_entry)
            if not page.has_more:
                return

    def _take(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        step = _asset_of(entry.step_key)
        if event is None:
            if step:
                self.progress.update(self.task, description=f"{step}: {escape(redact(entry.user_message))}")
            return
        if event.event_type == Event.STEP_START:
            self._step = step
            self.progress.update(self.task, description=step)
        elif event.event_type in (Event.STEP_SUCCESS, Event.STEP_SKIPPED):
            self.progress.advance(self.task)
        elif event.event_type == Event.STEP_UP_FOR_RETRY:
            self.progress.update(self.task, description=f"{step}: will be tried again")
        elif event.event_type == Event.STEP_FAILURE:
            reason = _reason(event)
            self.failures[step] = reason
            self.progress.console.print(f"[red]{step}[/]: {escape(reason)}")
            self.progress.advance(self.task)


def follow(request: Request, instance: dg.DagsterInstance, title: str) -> Outcome:
    """Run it in a child and show how it goes. An interruption ends the child before it goes on."""
    bury(instance)
    columns = (
        SpinnerColumn(),
        TextColumn(escape(title)),
        BarColumn(bar_width=24),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
    )
    with (
        tempfile.TemporaryFile("w+", errors="replace") as said,
        Progress(
            *columns, TimeElapsedColumn(), TextColumn("{task.description}"), console=out, transient=True
        ) as progress,
    ):
        follower = Follower(instance, request.run_id, progress, len(request.assets))
        child = subprocess.Popen(
            [sys.executable, "-m", "cli.load", request.dump()],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            while child.poll() is None:
                time.sleep(POLL_S)
                follower.read()
        finally:
            _end(child)
            bury(instance)
        follower.read()
        said.seek(0)
        lines = [line for line in said.read().splitlines() if line.strip()]
    begun = instance.get_run_by_id(request.run_id) is not None
    return Outcome(child.returncode == 0, follower.failures, "" if begun or not lines else redact(lines[-1]))


def _end(child: subprocess.Popen[bytes]) -> None:
    """Interrupt the step on its way, then end the run."""
    if child.poll() is not None:
        return
    err.print("Stopping the run …", style="yellow")
    child.send_signal(signal.SIGINT)
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def bury(instance: dg.DagsterInstance) -> None:
    """End the runs of killed processes of this host, and give back the places in pools that ended runs hold.

    Otherwise such a run is shown as running for a day, and the next one waits for its place: for ever, where
    no daemon runs.
    """
    alive = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
    for run in instance.get_runs(alive):
        if is_dead(run.tags.get(PROCESS_TAG)):
            instance.report_run_failed(run, "The process of the run was killed.")
    pools = instance.event_log_storage
    for run_id in pools.get_concurrency_run_ids() if pools.supports_global_concurrency_limits else ():
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            pools.free_concurrency_slots_for_run(run_id)


def _asset_of(step_key: str | None) -> str:
    return (step_key or "").replace("__", "/", 1)


def _reason(event: dg.DagsterEvent) -> str:
    failure = event.step_failure_data
    if failure.user_failure_data and failure.user_failure_data.description:
        return redact(failure.user_failure_data.description)
    error = failure.error
    while error and error.cause:
        error = error.cause
    return redact(error.message.strip().splitlines()[0]) if error and error.message.strip() else "failed"
