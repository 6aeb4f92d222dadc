"""One business day: the tickets that the dashboard calls overdue, analysed and written.

The day's facts go to PostgreSQL, for the dashboards, and to the warehouse, for history. Everything is an
upsert, so a day may be loaded again at any time; a load that was killed is simply made again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from etl_assets.loading import Bounds, Loaded, Spent
from etl_assets.ttm.reading import BATCH_TICKETS, Answer, ahead, batches, checked, failed_table, failed_text
from etl_assets.ttm.settings import TtmSettings, saved_filter
from etl_assets.ttm.tables import DATABASE, EXPIRED, TICKETS, UNITS, lines, raw_record, unit_records
from resources.clickhouse import Load, Table, WarehouseResource
from resources.clickhouse.warehouse import SchemaChange
from resources.errors import TransientSourceError
from resources.postgres import PostgresError
from resources.ttm.analysis import MalformedTicket, Verdict, examine
from resources.ttm.database import Attempt, TtmDatabase, expired_record
from resources.ttm.protocol import TICKET, TtmError
from resources.ttm.requester import HubClient
from resources.ttm.resource import failure_of
from resources.ttm.suspended_list import GONE


@dataclass(slots=True)
class DayResult:
    """What one day brought. `failed` says why, by ticket; `outcomes` count rows, `warned` tickets.

    `closings`: numbers of the tickets that were written, by their date, until the day is done.
    """

    day: date
    listed: int = 0
    gone: int = 0
    partial: bool = False
    failed: dict[int, str] = field(default_factory=dict)
    warned: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    breaches: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    closings: dict[date, list[str]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.partial and not self.failed

    @property
    def seen(self) -> int:
        """Tickets that were answered."""
        return self.rows["read"] + self.gone + len(self.failed)

    @property
    def problem(self) -> str | None:
        """Why the day is not complete, in one sentence."""
        if self.partial:
            return f"{self.day}: the list of tickets changed while it was read and some may lack"
        if self.failed:
            what = f"{len(self.failed)} of {self.listed} tickets are not loaded"
            return f"{self.day}: {what}: {failed_text(self.failed)}"
        return None


class DayLoader:
    """Loads days into the chosen tables; one for a run. Use as a context manager, then `finish`."""

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        settings: TtmSettings,
        warehouse: WarehouseResource,
        database: TtmDatabase,
        tables: Collection[Table],
    ) -> None:
        self._context, self._settings = context, settings
        self._warehouse, self._database = warehouse, database
        self._chosen = tables
        self._began = datetime.now(UTC)
        self._loads: dict[str, tuple[Load, Table, SchemaChange]] = {}
        self._stack = ExitStack()
        self.requests = 0
        self.days = {table.name: Counter[str]() for table in tables}

    def __enter__(self) -> DayLoader:
        for table in self._chosen:
            fitted, change = self._warehouse.ensure(table)
            asset = dg.AssetKey([DATABASE, table.name]).to_user_string()
            load = self._warehouse.load(fitted, asset=asset, run_id=self._context.run.run_id)
            self._loads[table.name] = self._stack.enter_context(load), fitted, change
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def load(self, client: HubClient, day: date, concurrency: int) -> DayResult:
        """Read a day and write it. What cannot be read of single tickets is in the result.

        Raises dagster.Failure when there is no list, or when a database cannot be written.
        """
        started, result = datetime.now(UTC), DayResult(day)
        try:
            key, zone = saved_filter("FILTER_ARREARS"), self._settings.business_zone
            self.requests += 1
            listed = client.ticket_list(key, TICKET, day.isoformat(), zone)
            result.listed, result.partial = len(listed.ids), listed.partial
            self.requests += len(listed.ids)
            answers = checked(client.tickets(listed.ids, concurrency))
            with closing(ahead(batches(answers))) as read:
                for batch in read:
                    self._take(batch, result, started)
                    if result.listed > BATCH_TICKETS:
                        self._context.log.info("%s: %d of %d tickets", day, result.seen, result.listed)
        except TtmError as error:
            self._note(started, result, f"{day}: {error}")
            raise failure_of(error, f"The overdue tickets of {day} could not be listed") from None
        except PostgresError as error:
            raise failure_of(error, f"The overdue tickets of {day} could not be written") from None
        self._retire_units(result, started)
        result.closings.clear()
        self._note(started, result, result.problem)
        self._tell(result)
        return result

    def _tell(self, result: DayResult) -> None:
        counts = (result.day, result.listed, result.gone, len(result.failed), dict(result.outcomes))
        self._context.log.info("%s: %d tickets listed, %d gone, %d failed, rows %s", *counts)

    def _note(self, started: datetime, result: DayResult, problem: str | None) -> None:
        """Keep how it went, for the board and the checks."""
        if EXPIRED.name not in self._loads:
            return
        attempt = Attempt(started, result.listed, len(result.failed), problem, problem is None)
        try:
            self._database.note(EXPIRED.name, attempt, result.rows["written"], result.day)
        except PostgresError as error:
            raise failure_of(error, "The state of the load could not be kept") from None

    def _take(self, batch: list[Answer], result: DayResult, read_at: datetime) -> None:
        """Analyse and write a batch: PostgreSQL first, since it may refuse a row and the history must not
        say otherwise."""
        read: list[tuple[int, Any, Verdict]] = []
        for number, answer in batch:
            if isinstance(answer, TtmError):
                if answer.code == GONE:
                    result.gone += 1
                else:
                    result.failed[number] = str(answer)
            elif verdict := self._examined(number, answer, result):
                read.append((number, answer, verdict))
        result.rows["read"] += len(read)
        day, calendar = result.day, self._settings.calendar
        self._add(TICKETS, [raw_record(n, day, ticket, calendar) for n, ticket, _ in read], read_at, day)
        due = [verdict for _, _, verdict in read if verdict.arrears_row]
        if EXPIRED.name in self._loads or UNITS.name in self._loads:
            self._write(due, result, read_at)

    def _examined(self, number: int, ticket: Any, result: DayResult) -> Verdict | None:
        try:
            verdict = examine(ticket, self._settings.calendar, result.day)
        except MalformedTicket as error:
            result.failed[number] = f"malformed: {error}"
            return None
        except Exception as error:  # a fault of the rules: this ticket is loud, the others go on
            self._context.log.exception("Ticket %d could not be analysed", number)
            result.failed[number] = f"analysis: {type(error).__name__}"
            return None
        if verdict.warnings:
            result.warned += 1
            self._context.log.info("Ticket %d: %s", number, ", ".join(verdict.warnings))
        return verdict

    def _write(self, due: list[Verdict], result: DayResult, read_at: datetime) -> None:
        if EXPIRED.name in self._loads:
            facts = [(verdict.arrears_row, verdict.analysis) for verdict in due if verdict.arrears_row]
            saved = self._database.save_expired(facts)
            result.failed.update({number: f"database: {why}" for number, why in saved.refused.items()})
            due = [verdict for verdict in due if verdict.number not in saved.refused]
            result.rows["written"] += len(due)
        for verdict in due:
            result.outcomes[verdict.analysis.outcome] += 1
            if verdict.analysis.outcome == "breached":
                result.breaches[verdict.analysis.responsible] += 1
        expired = [
            {**expired_record(row, verdict.analysis), "warnings": verdict.warnings}
            for verdict in due
            if (row := verdict.arrears_row)
        ]
        units = [record for verdict in due for record in unit_records(verdict)]
        self._add(EXPIRED, expired, read_at, result.day)
        self._add(UNITS, units, read_at, result.day)
        for row in (verdict.arrears_row for verdict in due):
            if row:
                result.closings.setdefault(row.add_date, []).append(str(row.ticket_number))

    def _add(self, table: Table, records: list[dict[str, Any]], read_at: datetime, day: date) -> None:
        if table.name in self._loads and records:
            self._loads[table.name][0].add(lines(records), len(records), read_at)
            self.days[table.name][str(day)] += len(records)

    def _retire_units(self, result: DayResult, read_at: datetime) -> None:
        """Units that took no part any more, after a ticket was corrected, go from the closing."""
        if UNITS.name not in self._loads:
            return
        load, table, _ = self._loads[UNITS.name]
        load.flush()
        for day, numbers in result.closings.items():
            where = {"add_date": str(day)}
            self._warehouse.retire_children(table, "ticket_number", numbers, read_at, where)

    def finish(self, bounds: Bounds) -> dict[str, Loaded]:
        """Insert what is left and write the load log; table name -> what was loaded."""
        now, done = datetime.now(UTC), dict[str, Loaded]()
        for name, (load, table, change) in self._loads.items():
            result = load.finish(
                kind="window",
                source_time=self._began,
                window=(bounds.since, bounds.until),
                requests=self.requests,
                commands=self.requests,
                api_s=(now - self._began).total_seconds(),
            )
            spent = Spent(self.requests, self.requests, 0.0, round((now - self._began).total_seconds(), 3))
            done[name] = Loaded(
                *(result, table, change, spent, self.days[name], bounds, "window", self._began, None, False)
            )
        return done


def incomplete(results: Sequence[DayResult]) -> TransientSourceError:
    """The failure of a run some of whose days are not complete."""
    problems = "; ".join(result.problem for result in results if result.problem)
    failed = {number: why for result in results for number, why in result.failed.items()}
    return TransientSourceError(
        f"{problems}. What could be read is written; the next attempt reads the day again.",
        metadata={"failed_tickets": dg.MetadataValue.md(failed_table(failed))} if failed else None,
    )
