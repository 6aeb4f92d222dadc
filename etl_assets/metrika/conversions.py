"""Offline conversions of the selected visits: a dry run unless switched on, and never one visit twice."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import msgspec

from etl_assets.loading import OWNERS, column_schema
from etl_assets.metrika.assets import counters_of
from etl_assets.metrika.fields import DATABASE
from etl_assets.metrika.settings import MetrikaSettings
from etl_assets.partitions import days_of
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.plain import DAY, STRING, UINT32, UINT64, WORD
from resources.clickhouse.plain import plain_column as _c
from resources.errors import PermanentSourceError
from resources.http import Slots
from resources.metrika import MetrikaClient, MetrikaResource, Uploading

CONVERSIONS = dg.AssetKey([DATABASE, "level4_conversions"])
MARK = "svodlevel4x"  # begins the comment of our files, which may hold letters and digits only
MATCHED_DAYS = 21  # older visits are not found by the service any more
PROCESSING_H = 3  # "up to two hours"
SAMPLE = 5


SENT = Table(
    DATABASE,
    "level4_conversions",
    (
        _c("counter_id", UINT32, "Счётчик"),
        _c("target", WORD, "Идентификатор цели"),
        _c("visit_id", UINT64, "Визит"),
        _c("client_id", UINT64, "Посетитель (ClientID Метрики)"),
        _c("date", DAY, "День визита"),
        _c("unix_time", UINT32, "Начало визита, секунды Unix"),
        _c("state", WORD, "sending: решено отправить, sent: отправлено"),
        _c("comment", STRING, "Комментарий файла, по которому он находится"),
        _c("uploading_id", UINT64, "Номер загрузки; 0, пока он неизвестен"),
    ),
    ("counter_id", "target", "visit_id"),
    comment="Офлайн-конверсии отобранных визитов, по одной строке на визит и цель",
)


@dataclass(frozen=True, slots=True)
class Conversion:
    """A selected visit that may be sent."""

    visit_id: int
    client_id: int
    date: date
    unix_time: int


@dataclass(slots=True)
class Outcome:
    """What came of one counter. `goal`: exists, created or missing."""

    counter: int
    waiting: list[Conversion]
    anonymous: int
    old: int
    sent_before: int
    goal: str
    sent: int = 0
    uploading: Uploading | None = None


class Sender:
    """Sends conversions of one target, each visit once.

    What is about to be sent is written down first, with the comment of its file. After a crash the list of
    uploadings tells by that comment whether the file arrived.
    """

    def __init__(
        self,
        client: MetrikaClient,
        warehouse: WarehouseResource,
        settings: MetrikaSettings,
        state_dir: str | None,
        run_id: str = "",
    ) -> None:
        self.client, self.warehouse, self.settings = client, warehouse, settings
        self.table, _ = warehouse.ensure(SENT)
        self._folder = Path(state_dir) if state_dir else None
        self._run_id = run_id

    def look(self, counter: int, days: Sequence[date]) -> Outcome:
        """What would be sent now. Nothing is changed."""
        listed = ", ".join(f"'{day}'" for day in days)
        target = self.settings.target
        rows = self.warehouse.query(
            "SELECT visit_id, client_id, date, toUnixTimestamp(date_time), visit_id IN ("
            f"SELECT visit_id FROM {SENT.sql_name} FINAL WHERE counter_id = {{c:UInt32}} "
            f"AND target = {{t:String}} AND state = 'sent') FROM {DATABASE}.level4_visits FINAL "
            f"WHERE counter_id = {{c:UInt32}} AND date IN ({listed}) ORDER BY visit_id",
            {"c": counter, "t": target},
        )
        oldest = (self.client.now() - timedelta(days=MATCHED_DAYS)).timestamp()
        fresh = [Conversion(*row[:4]) for row in rows if not row[4]]
        named = [c for c in fresh if c.client_id]
        waiting = [c for c in named if c.unix_time >= oldest]
        return Outcome(
            counter,
            waiting,
            anonymous=len(fresh) - len(named),
            old=len(named) - len(waiting),
            sent_before=len(rows) - len(fresh),
            goal="exists" if self._has_goal(counter) else "missing",
        )

    def _has_goal(self, counter: int) -> bool:
        return any(goal.takes(self.settings.target) for goal in self.client.goals(counter))

    def _make_goal(self, counter: int) -> str:
        if not self.settings.create_goal:
            raise PermanentSourceError(
                f"Metrika, counter {counter}: there is no goal of a JavaScript event "
                f"{self.settings.target!r}. Create it, or set METRIKA_CONVERSIONS_CREATE_GOAL=true."
            )
        self.client.create_goal(counter, self.settings.target)
        return "created"

    def send(self, counter: int, days: Sequence[date]) -> Outcome:
        """Send what was not sent yet. Raises PermanentSourceError when there is no such goal."""
        target = self.settings.target
        with Slots(f"metrika conversions {counter} {target}", 1, directory=self._folder).one():
            self._settle(counter)
            outcome = self.look(counter, days)
            if not outcome.waiting:
                return outcome
            if outcome.goal == "missing":
                outcome.goal = self._make_goal(counter)
            comment = _comment(counter, target, outcome.waiting)
            self._write(counter, outcome.waiting, "sending", comment)
            found = self.client.find_uploading(counter, comment)
            body = csv_of(outcome.waiting, target)
            outcome.uploading = found or self.client.upload_conversions(counter, body, comment)
            self._write(counter, outcome.waiting, "sent", comment, outcome.uploading.id)
            outcome.sent = len(outcome.waiting)
        return outcome

    def _settle(self, counter: int) -> None:
        """Find out about files whose upload was interrupted: they arrived, or they may be sent again."""
        rows = self.warehouse.query(
            "SELECT comment, toUnixTimestamp(dt_inserted), visit_id, client_id, date, unix_time "
            f"FROM {SENT.sql_name} FINAL WHERE counter_id = {{c:UInt32}} AND target = {{t:String}} "
            "AND state = 'sending' ORDER BY comment",
            {"c": counter, "t": self.settings.target},
        )
        for comment, begun in sorted({row[:2] for row in rows}):
            there = [Conversion(*row[2:]) for row in rows if row[0] == comment]
            since = datetime.fromtimestamp(begun, UTC)
            if found := self.client.find_uploading(counter, comment, len(there), since):
                self._write(counter, there, "sent", comment, found.id)

    def _write(
        self, counter: int, rows: Sequence[Conversion], state: str, comment: str, uploading: int = 0
    ) -> None:
        common = {
            "counter_id": counter,
            "target": self.settings.target,
            "state": state,
            "comment": comment,
            "uploading_id": uploading,
        }
        body = b"\n".join(msgspec.json.encode(common | _fields(row)) for row in rows)
        asset, now = CONVERSIONS.to_user_string(), datetime.now(UTC)
        with self.warehouse.load(self.table, asset=asset, run_id=self._run_id) as load:
            load.add(body, len(rows), now)
            if state == "sent":
                load.finish(kind="increment", source_time=now)
            else:
                load.flush()

    def unfinished(self) -> int:
        """Files that were sent so lately that the service may still be working on them."""
        since = int((datetime.now(UTC) - timedelta(hours=PROCESSING_H)).timestamp())
        sql = f"SELECT uniqExact(counter_id, uploading_id) FROM {SENT.sql_name} FINAL WHERE state = 'sent'"
        return int(self.warehouse.query(f"{sql} AND dt_inserted > toDateTime({since}, 'UTC')")[0][0])


def _fields(row: Conversion) -> dict[str, Any]:
    return {
        "visit_id": row.visit_id,
        "client_id": row.client_id,
        "date": str(row.date),
        "unix_time": row.unix_time,
    }


def _comment(counter: int, target: str, rows: Sequence[Conversion]) -> str:
    """The same for the same visits, whoever sends them."""
    text = f"{counter} {target} {' '.join(str(row.visit_id) for row in rows)}"
    return f"{MARK}{max(row.date for row in rows):%Y%m%d}x{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def csv_of(rows: Sequence[Conversion], target: str) -> bytes:
    """The file that the service wants: Unix seconds, LF."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("ClientId", "Target", "DateTime"))
    writer.writerows((row.client_id, target, row.unix_time) for row in rows)
    return text.getvalue().encode()


def build_conversions(settings: MetrikaSettings) -> dg.AssetsDefinition:
    """The asset `metrika/level4_conversions`."""

    @dg.asset(
        key=CONVERSIONS,
        deps=[dg.AssetKey([DATABASE, "level4_visits"])],
        partitions_def=settings.partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=DATABASE,
        kinds={"metrika", "clickhouse"},
        owners=OWNERS,
        pool=DATABASE,
        tags={"source": DATABASE},
        metadata={"dagster/table_name": SENT.full_name, "dagster/column_schema": column_schema(SENT)},
        check_specs=[
            dg.AssetCheckSpec("accepted", asset=CONVERSIONS, description="The service took every row.")
        ],
        description="Отправка отобранных визитов в Метрику как офлайн-конверсий цели "
        f"`{settings.target}`. Пока METRIKA_CONVERSIONS_UPLOAD не включён, только показывает, что было бы "
        "отправлено.\n\n"
        "**Grain** one row per counter_id, target, visit_id; what is here is not sent again.  \n"
        "**Partition** day of the visit in the counter's zone.  \n"
        "**Source** `metrika.level4_visits`, sent by `offline_conversions/upload`.",
        retry_policy=dg.RetryPolicy(max_retries=2, delay=60, backoff=dg.Backoff.EXPONENTIAL),
    )
    def _asset(
        context: dg.AssetExecutionContext, metrika: MetrikaResource, warehouse: WarehouseResource
    ) -> dg.MaterializeResult:
        days = [date.fromisoformat(key) for key in days_of(context)]
        _require_selection(warehouse)
        sender = Sender(metrika.client, warehouse, settings, metrika.state_dir, context.run.run_id)
        act = sender.send if settings.upload else sender.look
        outcomes = [act(counter, days) for counter in counters_of(context, settings)]
        return dg.MaterializeResult(
            metadata=_told(outcomes, settings, sender.unfinished()), check_results=[_accepted(outcomes)]
        )

    return _asset


def _require_selection(warehouse: WarehouseResource) -> None:
    there = "SELECT count() FROM system.tables WHERE database = {d:String} AND name = 'level4_visits'"
    if not warehouse.query(there, {"d": DATABASE})[0][0]:
        raise PermanentSourceError(
            "There is no table metrika.level4_visits yet: materialize metrika/level4_visits first."
        )


def _told(outcomes: Sequence[Outcome], settings: MetrikaSettings, unfinished: int) -> dict[str, Any]:
    waiting = [(o.counter, row) for o in outcomes for row in o.waiting]
    sample = "\n".join(_sample_row(counter, row) for counter, row in waiting[:SAMPLE])
    return {
        "dry_run": not settings.upload,
        "target": settings.target,
        "goal": ", ".join(f"{o.counter}: {o.goal}" for o in outcomes),
        "rows_to_send": len(waiting),
        "rows_sent": sum(o.sent for o in outcomes),
        "sent_before": sum(o.sent_before for o in outcomes),
        "without_client_id": sum(o.anonymous for o in outcomes),
        "older_than_21_days": sum(o.old for o in outcomes),
        "uploadings": ", ".join(f"{o.counter}: {o.uploading.id}" for o in outcomes if o.uploading),
        "uploads_unfinished": unfinished,
        "sample": dg.MetadataValue.md(
            f"| counter | visit | client | time, UTC |\n|---|---|---|---|\n{sample}"
        ),
    }


def _sample_row(counter: int, row: Conversion) -> str:
    at = datetime.fromtimestamp(row.unix_time, UTC)
    return f"| {counter} | {row.visit_id} | …{row.client_id % 10_000:04} | {at:%F %T} |"


def _accepted(outcomes: Sequence[Outcome]) -> dg.AssetCheckResult:
    """Rows of the files against those that passed the service's validation, where it tells."""
    sent = [o for o in outcomes if o.uploading and o.uploading.line_quantity is not None]
    rows = sum(o.sent for o in sent)
    taken = sum(o.uploading.line_quantity or 0 for o in sent if o.uploading)
    return dg.AssetCheckResult(
        check_name="accepted",
        passed=taken >= rows,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"rows_sent": rows, "rows_accepted": taken},
    )
