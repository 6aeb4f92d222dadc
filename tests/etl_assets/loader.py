"""Load tables in a process of its own, to be killed: `python -m tests.etl_assets.loader NAME…`."""

import sys

import dagster as dg

from etl_assets.definitions import build_defs
from etl_assets.loading import FEED_TAG
from tests.etl_assets.house import QUIET, day, key


def main() -> int:
    """Status 1 if the run failed; prints `begun` when it starts."""
    job = build_defs().resolve_implicit_global_asset_job_def()
    job = job.get_subset(asset_selection={key(name) for name in sys.argv[1:]}, asset_check_selection=None)
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        print("begun", flush=True)
        result = job.execute_in_process(
            instance=instance,
            partition_key=day(0),
            tags={FEED_TAG: "true"},
            run_config=QUIET,
            raise_on_error=False,
        )
    return not result.success


if __name__ == "__main__":
    sys.exit(main())
