"""What became of the counters' files of offline conversions."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import dagster as dg
import msgspec

from etl_assets.loading import OWNERS, Batch, Bounds, Spent, check_specs, column_schema, load_snapshot, report
from etl_assets.metrika.assets import counters_of
from etl_assets.metrika.conversions import CONVERSIONS, MARK, PROCESSING_H
from etl_assets.metrika.fields import DATABASE
from etl_assets.metrika.settings import MetrikaSettings
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.plain import STRING, UINT32, UINT64, WORD
from resources.clickhouse.plain import plain_column as _c
from resources.metrika import MetrikaClient, MetrikaResource, Uploading

UPLOADS = dg.AssetKey([DATABASE, "conversion_uploads"])


UPLOADED = Table(
    DATABASE,
    "conversion_uploads",
    (
        _c("counter_id", UINT32, "Счётчик"),
        _c("id", UINT64, "Загрузка"),
        _c("create_time", WORD, "Когда создана, как отвечает API"),
        _c("comment", STRING, "Комментарий"),
        _c("client_id_type", WORD, "Чем названы посетители"),
        _c("source_quantity", UINT32, "Строк в файле"),
        _c("line_quantity", UINT32, "Строк, прошедших проверку"),
        _c("status", WORD, "PREPARED, UPLOADED, EXPORTED, MATCHED, PROCESSED или LINKAGE_FAILURE"),
    ),
    ("counter_id", "id"),
    mode="snapshot",
    comment="Файлы офлайн-конверсий счётчиков и их состояние",
)


class UploadReader:
    """The uploadings of counters; those of ours that are not finished are asked for one by one."""

    def __init__(self, client: MetrikaClient, counters: Sequence[int]) -> None:
        self.client, self.counters = client, counters

    def read(self, bounds: Bounds, resume: str | None) -> Iterator[Batch]:
        for counter in self.counters:
            rows = [msgspec.json.encode(self._row(counter, each)) for each in self.client.uploadings(counter)]
            if rows:
                yield Batch(b"\n".join(rows), len(rows), self.client.now())

    def _row(self, counter: int, found: Uploading) -> dict[str, Any]:
        if found.comment.startswith(MARK) and not found.final:
            found = self.client.uploading(counter, found.id)
        return {"counter_id": counter, **{c.name: getattr(found, c.name) for c in UPLOADED.columns[1:]}}

    def clock(self) -> datetime:
        return self.client.now()

    def spent(self) -> Spent:
        used = self.client.usage()
        return Spent(used.requests, used.requests, used.waited_s, used.api_s)


def build_uploads(settings: MetrikaSettings) -> dg.AssetsDefinition:
    """The asset `metrika/conversion_uploads`."""
    by_hand = {} if settings.upload else {"svod/by_hand": ""}

    @dg.asset(
        key=UPLOADS,
        deps=[CONVERSIONS],
        group_name=DATABASE,
        kinds={"metrika", "clickhouse"},
        owners=OWNERS,
        pool=DATABASE,
        tags={"source": DATABASE, **by_hand},
        metadata={"dagster/table_name": UPLOADED.full_name, "dagster/column_schema": column_schema(UPLOADED)},
        check_specs=[
            *check_specs(UPLOADS),
            dg.AssetCheckSpec(
                "processed",
                asset=UPLOADS,
                description="The service found the visitors of every file of ours.",
            ),
        ],
        description="Файлы офлайн-конверсий счётчиков: сколько строк принято и что с ними стало.\n\n"
        "**Grain** one row per counter_id, id.  \n**Snapshot**: each run replaces the table. Refreshed by a "
        "sensor while files of ours are being processed.  \n**Source** `offline_conversions/uploadings`.",
        retry_policy=dg.RetryPolicy(max_retries=2, delay=60, backoff=dg.Backoff.EXPONENTIAL),
    )
    def _asset(
        context: dg.AssetExecutionContext, metrika: MetrikaResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:
        reader = UploadReader(metrika.client, counters_of(context, settings))
        told = report(context, warehouse, load_snapshot(context, warehouse, UPLOADED, reader))
        unfinished, check = _processed(warehouse)
        return dg.MaterializeResult(
            metadata={**(told.metadata or {}), "uploads_unfinished": unfinished},
            check_results=[*(told.check_results or []), check],
        )

    return _asset


def _processed(warehouse: WarehouseResource) -> tuple[int, dg.AssetCheckResult]:
    """Files of ours that are still being worked on, and whether all others came to a good end."""
    late = f"parseDateTimeBestEffortOrNull(create_time) < now() - INTERVAL {PROCESSING_H} HOUR"
    working, overdue, failed, short = warehouse.query(
        "SELECT countIf(NOT final AND NOT late), countIf(NOT final AND late), "
        "countIf(status = 'LINKAGE_FAILURE'), countIf(final AND line_quantity < source_quantity) FROM ("
        f"SELECT *, status IN ('PROCESSED', 'LINKAGE_FAILURE') AS final, ifNull({late}, 0) AS late "
        f"FROM {UPLOADED.sql_name} FINAL WHERE startsWith(comment, '{MARK}'))"
    )[0]
    return int(working), dg.AssetCheckResult(
        check_name="processed",
        passed=not (overdue or failed or short),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "being_processed": int(working),
            "not_finished_in_3_hours": int(overdue),
            "no_visitor_found": int(failed),
            "with_rows_refused": int(short),
        },
    )
