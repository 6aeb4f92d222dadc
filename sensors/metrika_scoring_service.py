"""The scoring service's work, noticed in its ledger: tasks to be scored, conversions to be sent, files to be
asked about."""

import time
from collections.abc import Sequence

import dagster as dg

from etl_assets.metrika.level4 import COUNTERS_TAG
from etl_assets.metrika.service_jobs import RESULT_KEY, TASK_ASSETS, task_job, uploads_job
from resources.http import redact
from resources.scoring_service.cipher import LedgerError
from resources.scoring_service.ledger import Ledger, Row
from resources.scoring_service.resource import NO_TABLES, TASK_TAG, ScoringServiceResource

RUNS_A_TICK = 10
STEPS = len(TASK_ASSETS) + 1
SILENCE_S = 600  # of a run whose process nobody sees; steps say something more often
LOST_TEXT = "The run's process is gone"
ASK_FOR_S = 40  # a tick may take a minute
BUSY = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
LOST = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def build_sensors(*, running: bool) -> list[dg.SensorDefinition]:
    """All of them; `running` where the service can be set up at all."""
    status = dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED
    return [
        dg.sensor(
            job=task_job,
            minimum_interval_seconds=10,
            default_status=status,
            description="Запускает расчёт задач службы оценки и возвращает им ход и ошибки запусков.",
        )(scoring_tasks),
        dg.sensor(
            job=uploads_job,
            minimum_interval_seconds=30,
            default_status=status,
            description="Запускает отправку, когда есть принятые конверсии или пора повторить попытку.",
        )(scoring_uploads),
        dg.sensor(
            minimum_interval_seconds=60,
            default_status=status,
            description="Спрашивает Метрику о переданных файлах, пока она их обрабатывает, до трёх часов.",
        )(scoring_upload_statuses),
    ]


def scoring_tasks(
    context: dg.SensorEvaluationContext, scoring_service: ScoringServiceResource
) -> dg.SensorResult | dg.SkipReason:
    """One run for each open task; a task whose run is over without a result fails with the run's words."""
    wanted = list[dg.RunRequest]()
    with scoring_service.available() as there:
        if not there:
            return dg.SkipReason(NO_TABLES)
        open_ = scoring_service.ledger.open_tasks()
        for task in open_:
            run = _run_of(context.instance, task)
            if run is not None:
                _sync(context.instance, scoring_service.ledger, task, run)
            elif problem := _problem(context, task):
                scoring_service.ledger.task_failed(task["id"], problem)
            elif len(wanted) < RUNS_A_TICK:
                wanted.append(_request(task))
    if not wanted:
        return dg.SkipReason(f"{len(open_)} tasks are not finished, none is new")
    return dg.SensorResult(run_requests=wanted)


def _request(task: Row) -> dg.RunRequest:
    params = task["params"]
    tags = {TASK_TAG: str(task["id"]), COUNTERS_TAG: str(params["counter"])}
    return dg.RunRequest(run_key=f"task {task['id']}", partition_key=params["date"], tags=tags)


def _run_of(instance: dg.DagsterInstance, task: Row) -> dg.DagsterRun | None:
    """The newest run of the task: a lost process is followed by another run with the same tags."""
    runs = instance.get_runs(dg.RunsFilter(tags={TASK_TAG: str(task["id"])}), limit=1)
    return runs[0] if runs else None


def _problem(context: dg.SensorEvaluationContext, task: Row) -> str | None:
    """Why no run can be started for a task."""
    if task["run_id"]:
        return f"Run {task['run_id'][:8]} of the task was deleted"
    graph = context.repository_def.asset_graph if context.repository_def else None
    partitions = graph.get(RESULT_KEY).partitions_def if graph else None
    if partitions and not partitions.has_partition_key(task["params"]["date"]):
        return "This day cannot be loaded: it is not over yet, or lies before METRIKA_START_DATE"
    return None


def _sync(instance: dg.DagsterInstance, ledger: Ledger, task: Row, run: dg.DagsterRun) -> None:
    if run.status in LOST:
        if run.tags.get("dagster/will_retry") != "true":
            ledger.task_failed(task["id"], _error_of(instance, run))
    elif run.status == dg.DagsterRunStatus.SUCCESS:
        ledger.task_failed(task["id"], f"Run {run.run_id[:8]} ended without a result")  # unless it is done
    elif run.status == dg.DagsterRunStatus.STARTED and _process_lost(
        instance, run, ledger.worked_on(task["id"])
    ):
        instance.report_run_failed(run, LOST_TEXT)  # Dagster's run retries begin another with the same tags
    elif run.status == dg.DagsterRunStatus.STARTED:
        if task["run_id"] != run.run_id:
            ledger.task_runs(task["id"], run.run_id)
        done = len(_events(instance, run, dg.DagsterEventType.STEP_SUCCESS))
        text = f"Запуск {run.run_id[:8]}: шагов {done} из {STEPS}"
        ledger.task_progress(task["id"], 10 + 80 * done // STEPS, text)


def _process_lost(instance: dg.DagsterInstance, run: dg.DagsterRun, at_work: bool) -> bool:
    """Nobody works on a run that calls itself started: Dagster itself would notice after a day."""
    if at_work:
        return False
    newest = instance.get_records_for_run(run.run_id, limit=1, ascending=False).records
    return not newest or time.time() - newest[0].event_log_entry.timestamp > SILENCE_S


def _error_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What the first failed step said, else what became of the run."""
    for entry in _events(instance, run, dg.DagsterEventType.STEP_FAILURE):
        event = entry.dagster_event
        data = event.step_failure_data if event else None
        if event and data:
            said = data.user_failure_data.description if data.user_failure_data else None
            said = said or (data.error.message if data.error else "")
            return redact(f"{event.step_key}: {said}".strip()[:2000])
    ended = [e.dagster_event for e in _events(instance, run, dg.DagsterEventType.RUN_FAILURE)]
    said = next((event.message for event in ended if event and event.message), "see its log in Dagster")
    return redact(f"Run {run.run_id[:8]} ended as {run.status.value}: {said}"[:2000])


def _events(
    instance: dg.DagsterInstance, run: dg.DagsterRun, kind: dg.DagsterEventType
) -> Sequence[dg.EventLogEntry]:
    return instance.all_logs(run.run_id, of_type=kind)


def scoring_uploads(
    context: dg.SensorEvaluationContext, scoring_service: ScoringServiceResource
) -> dg.RunRequest | dg.SkipReason:
    """One run at a time."""
    with scoring_service.available() as there:
        if not there:
            return dg.SkipReason(NO_TABLES)
        free, due, sent = scoring_service.uploads.waiting()
        sending = scoring_service.uploads.sending()
    if not free and not due:
        return dg.SkipReason(f"Nothing to send; Metrika processes {sent} files")
    for run in context.instance.get_runs(dg.RunsFilter(job_name=uploads_job.name, statuses=BUSY)):
        if run.status != dg.DagsterRunStatus.STARTED or not _process_lost(context.instance, run, sending):
            return dg.SkipReason(f"Run {run.run_id[:8]} is sending")
        context.instance.report_run_failed(run, LOST_TEXT)
    return dg.RunRequest()


def scoring_upload_statuses(
    context: dg.SensorEvaluationContext, scoring_service: ScoringServiceResource
) -> dg.SkipReason:
    """Those that were asked about longest ago first; one that cannot be asked about does not stop others."""
    began, answers, failed = time.monotonic(), 0, 0
    with scoring_service.available() as there:
        if not there:
            return dg.SkipReason(NO_TABLES)
        sender, sent = scoring_service.sender, scoring_service.uploads.sent()
        for upload in sent:
            if time.monotonic() - began > ASK_FOR_S:
                break
            try:
                status = sender.ask(upload)
            except (dg.Failure, LedgerError) as error:
                failed += 1
                said = error.description if isinstance(error, dg.Failure) else str(error)
                context.log.warning("File %s: %s", upload.metrika_id, redact(said or ""))
                continue
            answers += 1
            context.log.info("File %s of counter %d: %s", upload.metrika_id, upload.counter_id, status)
    return dg.SkipReason(f"{answers} of {len(sent)} files were asked about, {failed} without an answer")
