"""Materialize `bitrix24/crm_deal` from its beginning: `python -m benchmarks.asset WEBHOOK_URL FOLDER`.

Prints `begun` when the run starts. Exit status 1 if it fails.
"""

import sys
from datetime import datetime
from zoneinfo import ZoneInfo

import dagster as dg

from etl_assets.bitrix24 import Bitrix24Settings, build_asset
from etl_assets.bitrix24.entities import OBJECTS
from etl_assets.loading import FEED_TAG
from resources.bitrix24 import Bitrix24Resource
from resources.clickhouse import WarehouseResource


def main() -> int:
    """Command line of the module."""
    url, folder = sys.argv[1:3]
    resources = {
        "bitrix24": Bitrix24Resource(webhook_url=url, bucket_capacity=0, state_dir=folder),
        "warehouse": WarehouseResource(url=f"chdb://{folder}/warehouse", insert_rows=2500),
    }
    today = f"{datetime.now(ZoneInfo('Europe/Moscow')):%Y-%m-%d}"
    asset = build_asset(OBJECTS[0], Bitrix24Settings())
    with dg.DagsterInstance.ephemeral() as instance:
        print("begun", flush=True)
        result = dg.materialize(
            [asset],
            instance=instance,
            resources=resources,
            partition_key=today,
            tags={FEED_TAG: "true"},
            raise_on_error=False,
        )
    return not result.success


if __name__ == "__main__":
    sys.exit(main())
