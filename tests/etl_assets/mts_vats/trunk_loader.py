"""One load of all cabinets, to be killed: `python -m …mts_vats.trunk_loader [before-history]`.

With `before-history` it kills itself when the trunks are in and their history is not.
"""

import os
import signal
import sys
from typing import Any

import dagster as dg

from etl_assets.mts_vats import assets
from etl_assets.mts_vats.settings import mts_vats_resource
from resources.clickhouse import WarehouseResource


def die(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def load() -> bool:
    """Whether it succeeded. Settings are those of the environment."""
    warehouse = WarehouseResource(url=os.environ["CLICKHOUSE_URL"])
    resources = {"mts_vats": mts_vats_resource(), "warehouse": warehouse}
    defs = dg.Definitions(assets=assets.build_assets(), resources=resources)
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(raise_on_error=False).success


if __name__ == "__main__":
    if "before-history" in sys.argv[1:]:
        assets._load_states = die  # type: ignore[assignment]
    sys.exit(0 if load() else 1)
