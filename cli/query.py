"""`svod query`: look into the warehouse without a client of its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

from clickhouse_connect.driver.client import Client
from rich.markup import escape
from rich.table import Table

from cli.formats import Format
from cli.project import enter, fail, out
from resources.clickhouse import WarehouseError, WarehouseResource

SHOWN = 1000  # rows of a table on a terminal; csv and json stream all of them
RAW = {Format.json: "JSONEachRow", Format.csv: "CSVWithNames"}
_STREAMS = re.compile(r"[\s(]*(SELECT|WITH)\b", re.IGNORECASE)  # the embedded engine streams nothing else


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
            if form in RAW:
                _write(_raw(client, sql, RAW[form]))
                return
            names, rows = _rows(client, sql)
    except WarehouseError as error:
        raise fail(error.description or "The warehouse did not answer.") from None
    except ValueError as error:
        raise fail(str(error)) from None
    print_rows(names, rows)


def _raw(client: Client, sql: str, form: str) -> Iterator[bytes]:
    if not _STREAMS.match(sql):
        yield client.raw_query(sql, fmt=form)
        return
    stream: Any = client.raw_stream(sql, fmt=form)
    with closing(stream):
        while part := stream.read(1 << 20):
            yield part


def _write(parts: Iterator[bytes]) -> None:
    """All of it; or less when the reader, `head` perhaps, has seen enough."""
    try:
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it once more


def _rows(client: Client, sql: str) -> tuple[Sequence[str], list[Sequence[Any]]]:
    """Names and rows, of a query little more than are shown."""
    if not _STREAMS.match(sql):
        found = client.query(sql)
        return found.column_names, list(found.result_rows)
    rows: list[Sequence[Any]] = []
    with client.query_row_block_stream(sql) as blocks:
        names: Sequence[str] = getattr(blocks.source, "column_names", ())
        for block in blocks:
            rows += block
            if len(rows) > SHOWN:
                break
    return names, rows


def print_rows(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table of the first rows; says so when there are more."""
    table = Table(*(escape(name) for name in names))
    for row in rows[:SHOWN]:
        table.add_row(*("NULL" if value is None else escape(str(value)) for value in row))
    out.print(table)
    if len(rows) > SHOWN:
        out.print(f"First {SHOWN} rows; all of them with --format csv or json.")
