"""What Dagster does for the scoring service: score a task's day, send conversions to Metrika.

The service stores what it accepts; sensors (`sensors/metrika_scoring_service.py`) start these.
"""

import uuid
from collections import Counter
from datetime import date
from time import monotonic

import dagster as dg

from etl_assets.loading import OWNERS
from etl_assets.metrika.level4 import COUNTERS_TAG, FEATURES_KEY, VISITS_KEY
from etl_assets.settings import switch, text
from resources.clickhouse import WarehouseResource
from resources.errors import PermanentSourceError
from resources.metrika import MetrikaResource
from resources.metrika.scoring import selected_rows
from resources.scoring_service.resource import NO_TABLES, TASK_TAG, ScoringServiceResource
from resources.scoring_service.uploads import Upload

GROUP = "scoring"
RESULT_KEY = dg.AssetKey(["scoring", "results"])
UPLOADS_KEY = dg.AssetKey(["scoring", "uploads"])
TASK_ASSETS = (dg.AssetKey(["metrika", "visits"]), dg.AssetKey(["metrika", "hits"]), FEATURES_KEY, VISITS_KEY)
SEND_FOR_S = 900  # then the next run goes on
SHOWN = 50


def scoring_service_resource() -> ScoringServiceResource:
    """The ledger; its database and key are read when it is used."""
    return ScoringServiceResource(
        metrika_url=text("METRIKA_URL", "https://api-metrika.yandex.net"),
        ca_bundle=text("METRIKA_CA_BUNDLE", "") or None,
        state_dir=text("SVOD_STATE_DIR", "") or None,
        create_goals=switch("SCORING_CREATE_GOALS"),
    )


def build_results(partitions: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    """The asset `scoring/results`: what `GET /tasks/{id}/result` answers."""

    @dg.asset(
        key=RESULT_KEY,
        deps=[VISITS_KEY],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        kinds={"postgres"},
        group_name=GROUP,
        owners=OWNERS,
        tags={"source": "metrika", "svod/by_hand": ""},
        metadata={"dagster/table_name": "scoring.results"},
        description="Результат задачи службы оценки: визиты уровня 4+ счётчика за день.\n\n"
        "**Grain** one row per task.  \n**Started** by the sensor `scoring_tasks`; the task is the run's tag "
        f"`{TASK_TAG}`.  \n**Source** `metrika.level4_visits`.",
    )
    def results(
        context: dg.AssetExecutionContext,
        warehouse: WarehouseResource,
        metrika: MetrikaResource,
        scoring_service: ScoringServiceResource,
    ) -> dg.MaterializeResult:
        task_id = context.run.tags.get(TASK_TAG)
        if not task_id:
            raise PermanentSourceError("This asset works for a task of the scoring service: use POST /tasks.")
        counter = int(context.run.tags[COUNTERS_TAG])
        zone = metrika.client.counter(counter).zone
        rows = selected_rows(warehouse, counter, date.fromisoformat(context.partition_key), zone)
        with scoring_service.available():
            finished = scoring_service.ledger.task_done(uuid.UUID(task_id), zone, rows)
        if not finished:
            context.log.warning("The task was finished before; its result was replaced")
        return dg.MaterializeResult(metadata={"dagster/partition_row_count": len(rows), "task": task_id})

    return results


@dg.asset(
    key=UPLOADS_KEY,
    kinds={"postgres", "metrika"},
    group_name=GROUP,
    owners=OWNERS,
    pool="scoring",
    tags={"source": "metrika", "svod/by_hand": ""},
    metadata={"dagster/table_name": "scoring.uploads"},
    check_specs=[
        dg.AssetCheckSpec(
            "refused_files", asset=UPLOADS_KEY, description="Metrika refused no file of conversions."
        )
    ],
    description="Файлы офлайн-конверсий, переданные в Метрику.\n\n"
    "**Grain** one row per file: counter, token, target, identifier type.  \n"
    "**Started** by the sensor `scoring_uploads` when the service has accepted conversions.  \n"
    "**Source** `scoring.conversions`; sent by `POST /management/v1/counter/{id}/offline_conversions/upload` "
    "after the goal was checked. A file whose fate is unknown is looked for in Metrika's list first.",
)
def uploads(
    context: dg.AssetExecutionContext, scoring_service: ScoringServiceResource
) -> dg.MaterializeResult:
    """Put accepted conversions into files and send what is due."""
    began = monotonic()
    with scoring_service.available() as there:
        if not there:
            raise PermanentSourceError(f"{NO_TABLES}: python -m services.scoring_api migrate.")
        told = _send(context, scoring_service, began + SEND_FOR_S)
    outcomes = Counter(outcome.split()[0] for _, outcome in told)
    refused = outcomes["refused"] + outcomes["given"]
    return dg.MaterializeResult(
        metadata={
            "files": len(told),
            "files_sent": outcomes["sent"] + outcomes["was"],
            "files_postponed": outcomes["postponed"],
            "files_refused": refused,
            "conversions_sent": sum(u.rows for u, outcome in told if "sent as" in outcome),
            "seconds": round(monotonic() - began, 3),
            "files_table": dg.MetadataValue.md(_table(told)),
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="refused_files",
                passed=not refused,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={
                    "files": refused,
                    "look": "SELECT id, target, error FROM scoring.uploads WHERE state = 'failed'",
                },
            )
        ],
    )


def _send(
    context: dg.AssetExecutionContext, service: ScoringServiceResource, until: float
) -> list[tuple[Upload, str]]:
    """What became of each file; nothing while another run is sending."""
    told = list[tuple[Upload, str]]()
    uploads, sender = service.uploads, service.sender
    with uploads.alone() as alone:
        if not alone:
            context.log.info("Another run is sending")
            return told
        context.log.info("%d new files", uploads.assign())
        while due := uploads.due():  # a file that is halved is due again
            for upload in due:
                if monotonic() > until:
                    return told
                told.append((upload, sender.send(upload)))
                context.log.info("%s: %s", _about(upload), told[-1][1])
    return told


def _about(upload: Upload) -> str:
    return f"{upload.rows} conversions of counter {upload.counter_id}, {upload.target} by {upload.id_type}"


def _table(told: list[tuple[Upload, str]]) -> str:
    lines = [
        f"| {u.counter_id} | {u.target.replace('|', ' ')} | {u.id_type} | {u.rows} | {outcome} |"
        for u, outcome in told[:SHOWN]
    ]
    return "\n".join(["| counter | target | identifier | rows | outcome |", "|---|---|---|---|---|", *lines])


task_job = dg.define_asset_job(
    "scoring_task",
    selection=dg.AssetSelection.assets(*TASK_ASSETS, RESULT_KEY),
    description="Задача службы оценки: логи дня счётчика, признаки, отбор, результат.",
)
uploads_job = dg.define_asset_job(
    "scoring_uploads",
    selection=dg.AssetSelection.assets(UPLOADS_KEY),
    executor_def=dg.in_process_executor,
    description="Отправка принятых конверсий в Метрику.",
)
