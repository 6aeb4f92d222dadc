"""`svod query`: look into the warehouse without a client of its own."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from typing import Any

from rich.markup import escape
from rich.table import Table

from cli.formats import Format
from cli.project import enter, fail, out
from resources.clickhouse import WarehouseError, WarehouseResource

SHOWN = 1000  # rows of a table on a terminal; csv and json stream all of them


STREAMED = {Format.json: "JSONEachRow", Format.csv: "CSVWithNames"}


def warehouse() -> WarehouseResource:
    """The warehouse of the settings."""
    url = os.environ.get("CLICKHOUSE_URL", "")
    if not url:
        raise fail("CLICKHOUSE_URL is not set: run `make env` for local use, or see .env.example.")
    return WarehouseResource(
        url=url,
        ca_bundle=os.environ.get("CLICKHOUSE_CA_BUNDLE") or None,
        cluster=os.environ.get("CLICKHOUSE_CLUSTER") or None,
    )


def query(sql: str, form: Format) -> None:
    """Run one statement and print its rows."""
    enter()
    try:
        with warehouse().session("running the query") as client:
            if form in STREAMED:
                stream: Any = client.raw_stream(sql, fmt=STREAMED[form])
                with closing(stream):
                    while part := stream.read(1 << 20):
                        sys.stdout.buffer.write(part)
                sys.stdout.flush()
                return
            rows: list[tuple[Any, ...]] = []
            with client.query_row_block_stream(sql) as blocks:
                names: tuple[str, ...] = getattr(blocks.source, "column_names", ())
                for block in blocks:
                    rows += block
                    if len(rows) > SHOWN:
                        break
    except WarehouseError as error:
        raise fail(error.description or "The warehouse did not answer.") from None
    except ValueError as error:
        raise fail(str(error)) from None
    print_rows(names, rows)


def print_rows(names: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """A table of the first rows; says so when there are more."""
    table = Table(*(escape(name) for name in names))
    for row in rows[:SHOWN]:
        table.add_row(*("NULL" if value is None else escape(str(value)) for value in row))
    out.print(table)
    if len(rows) > SHOWN:
        out.print(f"First {SHOWN} rows; all of them with --format csv or json.")
