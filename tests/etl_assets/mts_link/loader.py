"""Load MTS Link in a process of its own: `python -m tests.etl_assets.mts_link.loader FEED [NAME…]`.

FEED is the value of the feed's tag; `asked` is a load without it. No names are all that the schedules load.
"""

import sys

import dagster as dg

from etl_assets.loading import FEED_TAG
from etl_assets.mts_link import fan_out
from etl_assets.mts_link.assets import BY_HAND
from tests.etl_assets.house import QUIET, RANGE_END, RANGE_START
from tests.etl_assets.mts_link.org_house import DAYS, day, definitions

FLUSH_PARENTS = 4  # a small organisation's parents are marked in parts, as a large one's are


def main(feed: str, *names: str) -> int:
    """Status 1 if the run failed."""
    fan_out.FLUSH_PARENTS = FLUSH_PARENTS
    defs = definitions()
    graph = defs.resolve_asset_graph()
    keys = {dg.AssetKey(["mts_link", name]) for name in names} or {
        k for k in graph.materializable_asset_keys if BY_HAND not in graph.get(k).tags
    }
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=keys)
    tags = {} if feed == "asked" else {FEED_TAG: feed}
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        result = job.execute_in_process(
            instance=instance,
            tags={RANGE_START: day(DAYS), RANGE_END: day(0), **tags},
            run_config=QUIET,
            raise_on_error=False,
        )
    return not result.success


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
