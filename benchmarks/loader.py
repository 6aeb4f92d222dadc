"""Load all deals of a portal into an embedded warehouse with the product's own client, reader and
warehouse.

`python -m benchmarks.loader WEBHOOK_URL FOLDER` does it in a process of its own and prints one line of
JSON: rows, seconds, requests, peak_mb. The settings of the portal's limits come from the environment, as
everywhere.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from etl_assets.bitrix24.entities import OBJECTS
from etl_assets.bitrix24.facts import RunFacts
from etl_assets.bitrix24.readers import READERS
from etl_assets.bitrix24.structure import table_of
from etl_assets.loading import Bounds, begin
from resources.bitrix24 import Bitrix24Client, Window
from resources.clickhouse import WarehouseResource

DEALS = OBJECTS[0]


def load_deals(client: Bitrix24Client, warehouse: WarehouseResource) -> dict[str, Any]:
    """One full load, from the field list to the log row.

    Returns rows, seconds, requests and seconds waited.
    """
    began, before = time.monotonic(), client.stats.snapshot()
    warehouse.warm_up()
    facts = RunFacts(client, warehouse, cached=False)
    facts.learn([DEALS], Window())
    reader = READERS[DEALS.strategy](DEALS, facts, warehouse, print)
    batches = begin(reader, Bounds())
    table, _ = warehouse.ensure(table_of(DEALS, reader.structure, "Europe/Moscow", {}))
    with warehouse.load(table, asset="bitrix24/crm_deal") as load:
        for batch in batches:
            progress = ("full", batch.progress, batch.read_at) if batch.progress else None
            load.add(batch.body, batch.count, batch.read_at, progress=progress)
        result = load.finish(kind="full", source_time=client.server_time())
    used = client.stats.since(before)
    return {
        "rows": result.rows,
        "rejected": result.rejected,
        "seconds": time.monotonic() - began,
        "requests": used.requests,
        "retries": used.retries,
        "waited_s": used.waited_rate_s + used.waited_operating_s,
        "columns": len(table.definitions()),
    }


def main() -> None:
    """Command line of the module."""
    url, folder = sys.argv[1], Path(sys.argv[2])
    options = json.loads(sys.argv[3]) if len(sys.argv) > 3 else {}
    client = Bitrix24Client(url, state_dir=folder, **options)
    result = load_deals(client, WarehouseResource(url=f"chdb://{folder}/warehouse"))
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(result))


if __name__ == "__main__":
    main()
