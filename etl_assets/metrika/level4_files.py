"""Scoring of logs that are at hand as files: the calculation of the daily assets on the bytes of a day.

The rows live in a scratch database of the warehouse for as long as it takes; nothing is kept.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any

from clickhouse_connect.driver.client import Client

from etl_assets.metrika.level4_settings import Level4Settings
from etl_assets.metrika.level4_tables import level4_visits, visit_features, visit_scores
from resources.clickhouse import Table, WarehouseResource
from resources.clickhouse.table import quote
from resources.errors import PermanentSourceError
from resources.metrika.features import SETTINGS, Logs, features_sql
from resources.metrika.parts import BrokenPart, Received, blocks, inflate
from resources.metrika.scoring import Models, scored, selected_rows, selection_sql

ZONE = "UTC"  # times stay as they are written: nothing here depends on the counter's zone
COUNTER, DAY = 1, date(2000, 1, 1)  # a file is one day of one counter, whichever
VISITS = {
    "ym:s:visitID": ("visit_id", "UInt64"),
    "ym:s:clientID": ("client_id", "UInt64"),
    "ym:s:watchIDs": ("watch_ids", "Array(UInt64)"),
    "ym:s:dateTime": ("date_time", f"DateTime('{ZONE}')"),
    "ym:s:visitDuration": ("visit_duration", "UInt32"),
    "ym:s:bounce": ("bounce", "UInt8"),
    "ym:s:pageViews": ("page_views", "Int32"),
    "ym:s:deviceCategory": ("device_category", "UInt8"),
}
HITS = {
    "ym:pv:watchID": ("watch_id", "UInt64"),
    "ym:pv:dateTime": ("date_time", f"DateTime('{ZONE}')"),
    "ym:pv:deviceCategory": ("device_category", "UInt8"),
}
READING = {"input_format_skip_unknown_fields": 1, "input_format_tsv_empty_as_default": 1}


@dataclass(frozen=True, slots=True)
class FileScoring:
    """What came of two files: the selected visits as documented, counts, the models that were asked."""

    rows: list[dict[str, Any]]
    visits: int
    hits: int
    models: list[str]


def score_files(
    warehouse: WarehouseResource,
    visits: Iterable[Iterable[bytes]],
    hits: Iterable[Iterable[bytes]],
    settings: Level4Settings,
    models: Models | None = None,
) -> FileScoring:
    """Select the visits of level 4 or higher of one day.

    `visits` and `hits` are the parts of the logs, each a header and lines, as bytes in pieces of any size,
    gzip or not; other columns than those needed are passed over. Raises PermanentSourceError for a part that
    is not whole, WarehouseError for a value that does not fit, ModelError.
    """
    models = models or Models(settings.models)
    # one session over all: a scratch database lives in the memory of an engine that closes when it is idle
    with warehouse.session("scoring logs"), _scratch(warehouse) as database:
        visit_lines = _fill(warehouse, database, "visits", VISITS, visits)
        hit_lines = _fill(warehouse, database, "hits", HITS, hits)
        logs = Logs(_once(database, "visits", VISITS), _once(database, "hits", HITS))
        _insert(warehouse, database, visit_features(ZONE), features_sql(COUNTER, DAY, settings.rules, logs))
        for batch in scored(
            warehouse, COUNTER, DAY, models, without_hits=settings.score_without_hits, database=database
        ):
            columns = batch.columns(COUNTER, DAY)
            with warehouse.session("keeping scores") as client:
                client.insert(
                    f"{database}.visit_scores",
                    list(columns.values()),
                    column_names=list(columns),
                    column_oriented=True,
                )
        _insert(warehouse, database, level4_visits(ZONE), selection_sql(COUNTER, DAY, database))
        rows = selected_rows(warehouse, COUNTER, DAY, ZONE, database)
    return FileScoring(rows, visit_lines, hit_lines, [chosen.label for chosen in models.used()])


@contextmanager
def _scratch(warehouse: WarehouseResource) -> Iterator[str]:
    """A database with empty tables in memory; dropped at the end."""
    database = f"svod_scratch_{secrets.token_hex(6)}"
    with warehouse.session("preparing a scratch database") as client:
        client.command(f"CREATE DATABASE {database} ENGINE = Memory")
    try:
        with warehouse.session("preparing a scratch database") as client:
            for name, columns in (("visits", VISITS), ("hits", HITS)):
                shape = ", ".join(f"{quote(field)} {type_}" for field, (_, type_) in columns.items())
                client.command(f"CREATE TABLE {database}.{name} ({shape}) ENGINE = Memory")
            for table in (visit_features(ZONE), visit_scores(), level4_visits(ZONE)):
                _create(client, database, table)
        yield database
    finally:
        with warehouse.session("clearing up") as client:
            client.command(f"DROP DATABASE IF EXISTS {database}")


def _create(client: Client, database: str, table: Table) -> None:
    shape = ", ".join(f"{quote(column.name)} {column.type}" for column in table.columns)
    client.command(f"CREATE TABLE {database}.{table.name} ({shape}) ENGINE = Memory")


def _fill(
    warehouse: WarehouseResource,
    database: str,
    name: str,
    columns: dict[str, tuple[str, str]],
    parts: Iterable[Iterable[bytes]],
) -> int:
    """Insert a log; how many lines it has."""
    lines = 0
    for number, chunks in enumerate(parts):
        received = Received()
        try:
            for block in blocks(inflate(chunks, received), list(columns), received):
                body = b"\n".join((block.header, block.lines))
                with warehouse.session(f"reading the log of {name}") as client:
                    client.raw_insert(
                        f"{database}.{name}", insert_block=body, fmt="TabSeparatedWithNames", settings=READING
                    )
        except BrokenPart as error:
            raise PermanentSourceError(f"The log of {name}, part {number}, is not whole: {error}.") from None
        lines += received.lines
    return lines


def _once(database: str, name: str, columns: dict[str, tuple[str, str]]) -> str:
    """SQL behind FROM: the rows of a log under our names, the first of each id, with their place."""
    chosen = ", ".join(f"{quote(field)} AS {column}" for field, (column, _) in columns.items())
    key = next(iter(columns.values()))[0]
    return (
        f"(SELECT {chosen}, toUInt32({COUNTER}) AS counter_id, toDate('{DAY}') AS date, "
        f"toUInt32(rowNumberInAllBlocks()) AS row_number FROM {database}.{name} LIMIT 1 BY {key} "
        "SETTINGS max_threads = 1)"
    )


def _insert(warehouse: WarehouseResource, database: str, table: Table, select: str) -> None:
    names = ", ".join(quote(column.name) for column in table.columns)
    with warehouse.session(f"computing {table.name}") as client:
        client.command(
            f"INSERT INTO {database}.{table.name} ({names}) SELECT {names} FROM ({select})",
            settings=dict(SETTINGS),
        )
