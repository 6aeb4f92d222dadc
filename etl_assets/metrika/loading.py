"""Days of one counter's log, from the API into its table: each day becomes exactly what the API says now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from etl_assets.loading import Bounds, Loaded, Spent
from etl_assets.metrika.fields import REQUEST_ID, Log
from resources.clickhouse import Load, LoadResult, Table, WarehouseResource
from resources.clickhouse.load import BY_PARTITION
from resources.clickhouse.warehouse import SchemaChange
from resources.errors import PermanentSourceError
from resources.metrika import Ask, MetrikaClient
from resources.metrika.logs import Downloaded, LogReader, Piece

FINAL_AFTER = timedelta(days=4)  # from a day's beginning: sessions are complete three days after its end
Tell = Callable[..., None]


@dataclass(frozen=True, slots=True)
class LogLoader:
    """Loads logs of counters with one client. `shown` is the zone in which tables show times.

    `asset` and `run_id` go to the load log; `tell` takes lines for the run's log, as `logging` does.
    """

    client: MetrikaClient
    warehouse: WarehouseResource
    shown: str
    asset: str
    run_id: str = ""
    poll_s: float = 10
    deadline_s: float = 7200
    tell: Tell = lambda *_: None

    def load(self, log: Log, counter: int, days: Sequence[date]) -> LogLoad:
        """Replace these consecutive days of one counter; those that are not over in its zone are left out.

        Raises PermanentSourceError when none is over.
        """
        home = self.client.counter(counter)
        if home.zone != self.shown:
            self.tell("Counter %d lives in %s; its times are shown in %s", counter, home.zone, self.shown)
        table, change = self.warehouse.ensure(log.table(self.shown, home.zone))
        done = LogLoad(counter, table, change, self.client.now())
        left = self._over(counter, home.zone, days)
        reader = LogReader(self.client, poll_s=self.poll_s, deadline_s=self.deadline_s, tell=self.tell)
        while left:
            ask = reader.fitting(Ask(counter, log.name, left[0], left[-1], log.fields()), log.optional)
            now = [day for day in left if day <= ask.last]
            self._put(table, ask, reader, now, ZoneInfo(home.zone), done)
            left = left[len(now) :]
        done.downloaded = reader.downloaded
        return done

    def _over(self, counter: int, zone: str, days: Sequence[date]) -> list[date]:
        # the later of two clocks: where ours is fast, the API itself refuses
        today = max(self.client.now(), datetime.now(UTC)).astimezone(ZoneInfo(zone)).date()
        over = [day for day in days if day < today]
        if not over:
            raise PermanentSourceError(
                f"Metrika, counter {counter}: {days[0]} is not over yet in {zone}; the API gives no such day."
            )
        if len(over) < len(days):
            self.tell("Counter %d: %s is not over yet in %s and is left out", counter, days[-1], zone)
        return over

    def _put(
        self, table: Table, ask: Ask, reader: LogReader, days: Sequence[date], zone: ZoneInfo, done: LogLoad
    ) -> None:
        """One log request: its rows gather in a stage, then the days are swapped in."""
        used = self.client.usage()
        bounds = Bounds(_midnight(ask.first, zone), _midnight(ask.last + timedelta(days=1), zone))
        with (
            self.warehouse.load(
                table, asset=self.asset, run_id=self.run_id, owner=ask.counter, revocable=True
            ) as load,
            closing(reader.pieces(ask)) as pieces,
        ):
            _fill(load, pieces)
            cost = self.client.usage()
            result = load.finish(
                kind="window",
                source_time=done.source_time,
                window=(bounds.since, bounds.until),
                requests=cost.requests - used.requests,
                commands=cost.requests - used.requests,
                waited_s=cost.waited_s - used.waited_s,
                api_s=cost.api_s - used.api_s,
                days=days,
            )
        done.results.append(result)
        done.days.update(load.days)


def _fill(load: Load, pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        if piece.event == "rows":
            context = {REQUEST_ID: str(piece.request_id)}
            load.add(piece.lines, piece.count, piece.read_at, context=context, header=piece.header)
        elif piece.event == "kept":
            load.keep()
        else:
            load.void(everything=piece.event == "anew")


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


@dataclass(slots=True)
class LogLoad:
    """What came of one counter: a result for each log request, rows of each day, what was downloaded."""

    counter: int
    table: Table
    change: SchemaChange
    source_time: datetime
    results: list[LoadResult] = field(default_factory=list)
    days: Counter[str] = field(default_factory=Counter)
    downloaded: Downloaded = field(default_factory=Downloaded)

    @property
    def duplicates(self) -> int:
        """Lines that came more than once."""
        return self.downloaded.lines - self.days.total()


def together(loads: Sequence[LogLoad], loader: LogLoader, log: Log, days: Sequence[date]) -> Loaded:
    """The loads of a run's counters as one, for the asset's metadata; `days` are those of its partitions."""
    results = [result for load in loads for result in load.results]
    used, local = loader.client.usage(), ZoneInfo(loader.shown)
    table, change = loader.warehouse.ensure(log.table(loader.shown))
    return Loaded(
        result=LoadResult(
            load_id="', '".join(r.load_id for r in results),
            rows=sum(r.rows for r in results),
            rejected=sum(r.rejected for r in results),
            duration_s=sum(r.duration_s for r in results),
        ),
        table=table,
        change=next((load.change for load in loads if load.change), change),
        spent=Spent(used.requests, used.requests, used.waited_s, used.api_s),
        days=_rows_of(loader.warehouse, table, days),
        bounds=Bounds(_midnight(days[0], local), _midnight(days[-1] + timedelta(days=1), local)),
        kind="window",
        source_time=loads[0].source_time if loads else loader.client.now(),
        watermark=None,
        resumed=False,
    )


def _rows_of(warehouse: WarehouseResource, table: Table, days: Sequence[date]) -> Counter[str]:
    """Rows of each day, of all counters: a run may have loaded some of them only."""
    found = warehouse.query(
        f"SELECT toString(date), count() FROM {table.sql_name} FINAL "
        f"WHERE date BETWEEN '{days[0]}' AND '{days[-1]}' GROUP BY date SETTINGS {BY_PARTITION}"
    )
    return Counter({day: int(rows) for day, rows in found})


def stale_days(
    warehouse: WarehouseResource, log: Log, counters: Sequence[int], days: Sequence[date], zone: str
) -> list[date]:
    """Of consecutive days, those from the first on that a counter lacks or had before it was final."""
    local, found = ZoneInfo(zone), set[tuple[int, date]]()
    there = "SELECT count() FROM system.tables WHERE database = 'metrika' AND name = {t:String}"
    if warehouse.query(there, {"t": log.name})[0][0]:
        rows = warehouse.query(
            f"SELECT counter_id, date, toUnixTimestamp(min(dt_inserted)) FROM metrika.{log.name} "
            f"WHERE date BETWEEN '{days[0]}' AND '{days[-1]}' GROUP BY counter_id, date"
        )
        found = {
            (int(counter), day)
            for counter, day, read in rows
            if read >= (_midnight(day, local) + FINAL_AFTER).timestamp()
        }
    missing = [day for day in days if any((counter, day) not in found for counter in counters)]
    return [day for day in days if missing and day >= missing[0]]
