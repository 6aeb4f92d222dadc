"""How many rows a second come from the socket into ClickHouse when nothing limits the portal?

45 columns, no rate limit, no latency, all normalisation on. Peers in the same run: `dlt` loading the same
pages with merge on ID into DuckDB, and ClickHouse alone taking the same rows as JSONEachRow into the same
typed table.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.common import folder, sandbox, verdict
from benchmarks.loader import load_deals
from resources.bitrix24 import FALSE_MARK, Bitrix24Client, ListCall
from resources.clickhouse import WarehouseResource

DEALS = 200_000
DLT_DEALS = 20_000
EMPTY, FALSE = b':""', f":{json.dumps(FALSE_MARK)}".encode()


def svod(client: Bitrix24Client, path: Path) -> dict[str, Any]:
    """The product's load."""
    return load_deals(client, WarehouseResource(url=f"chdb://{path}/svod"))


def pages(client: Bitrix24Client, limit: int) -> list[bytes]:
    """The same pages, for the peers that get them without a socket.

    Empty texts are null in them: no peer could read those as numbers or dates.
    """
    found, rows = [], 0
    for batch in client.scan(ListCall("crm.deal.list", {"select": ["*"]})):
        found.append(batch.body.replace(EMPTY, b":null").replace(FALSE, b":null"))
        rows += batch.count
        if rows >= limit:
            break
    return found


def clickhouse_alone(bodies: list[bytes], path: Path) -> float:
    """Rows a second of ClickHouse reading JSONEachRow into the typed table, in blocks of the product's
    size."""
    warehouse = WarehouseResource(url=f"chdb://{path}/svod")
    rows = sum(body.count(b"\n") + 1 for body in bodies)
    settings = {
        "date_time_input_format": "best_effort",
        "input_format_null_as_default": 1,
        "input_format_skip_unknown_fields": 1,
    }
    with warehouse.session() as client:
        client.command("CREATE TABLE bitrix24.alone AS bitrix24.crm_deal")
        began = time.monotonic()
        for at in range(0, len(bodies), 4):
            client.raw_insert(
                "bitrix24.alone",
                insert_block=b"\n".join(bodies[at : at + 4]),
                fmt="JSONEachRow",
                settings=settings,
            )
        return rows / (time.monotonic() - began)


def dlt_merge(bodies: list[bytes], path: Path) -> float:
    """Rows a second of dlt, given the pages in memory."""
    import dlt

    logging.getLogger("dlt").setLevel(logging.ERROR)
    rows = sum(body.count(b"\n") + 1 for body in bodies)

    @dlt.resource(name="crm_deal", write_disposition="merge", primary_key="ID")
    def deals() -> Any:
        for body in bodies:
            yield [orjson.loads(line) for line in body.split(b"\n")]

    pipeline = dlt.pipeline(
        "svod_bench",
        destination=dlt.destinations.duckdb(str(path / "dlt.duckdb")),
        dataset_name="crm",
        pipelines_dir=str(path),
    )
    began = time.monotonic()
    pipeline.run(deals())
    return rows / (time.monotonic() - began)


def main() -> int:
    """Exit status 1 if a target is missed."""
    config = {
        "deals": DEALS,
        "gaps": 0.0,
        "rate_limit": None,
        "operating_mode": "absent",
        "cache_pages": 40_000,
    }
    with folder() as path, sandbox(**config) as portal:
        client = Bitrix24Client(portal.webhook_url, bucket_capacity=0, ca_bundle=portal.ca, state_dir=path)
        with folder() as first:
            svod(client, first)  # lets the portal render its pages, which takes longer than sending them
        result = svod(client, path)
        bodies = pages(client, DEALS)
        client.close()
        own = result["rows"] / result["seconds"]
        alone = clickhouse_alone(bodies, path)
        merged = dlt_merge(bodies[: max(1, DLT_DEALS // 2500)], path)
    print(f"     svod: {own:,.0f} rows/s, {result['columns']} columns, socket to table: {json.dumps(result)}")
    print(f"     from memory: ClickHouse alone, JSONEachRow {alone:,.0f} rows/s; dlt {merged:,.0f} rows/s")
    met = verdict("svod / dlt", own / merged, 15, at_most=False)
    met &= verdict("svod / ClickHouse alone", own / alone, 0.2, at_most=False)
    return not met


if __name__ == "__main__":
    sys.exit(main())
