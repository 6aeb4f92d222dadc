"""One Dagster run in a process of its own: `python -m cli.load '{"run_id": …}'`.

A child of `svod demo` and `svod backfill`, so that the display stays alive, memory goes back to the system
after each run and Ctrl-C ends the run properly. What it does is told by the run's events in Dagster's log.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

import dagster as dg
import typer

from cli.project import fail

PROCESS_TAG = "svod/process"  # of a run: where it runs
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@dataclass(frozen=True)
class Request:
    """What to run: assets by key, an inclusive range of days for the partitioned ones, run config, tags."""

    run_id: str
    assets: list[str]
    first: str = ""
    last: str = ""
    feed: bool = False  # what changed since the last load, whatever the range
    config: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def dump(self) -> str:
        return json.dumps(asdict(self))


def definitions() -> dg.Definitions:
    """The project's definitions. To be called with an instance open: it holds the smart processes.

    A malformed setting ends the command with the line that names it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        try:
            from etl_assets.definitions import defs
        except dg.Failure as failure:
            raise fail(failure.description or "The definitions cannot be read.") from None
    return defs


def is_dead(process: str | None) -> bool:
    """Whether a process that `PROCESS_TAG` names was of this host and is no more."""
    host, _, number = (process or "").rpartition("/")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        pass
    return False


def execute(request: Request) -> bool:
    """Run it here. False when a step failed."""
    tags = {RANGE_START: request.first, RANGE_END: request.last} if request.first else {}
    if request.feed:
        from etl_assets.loading import FEED_TAG

        tags[FEED_TAG] = "true"
    with dg.DagsterInstance.get() as instance:
        result = (
            definitions()
            .resolve_implicit_global_asset_job_def()
            .execute_in_process(
                instance=instance,
                asset_selection=[dg.AssetKey.from_user_string(key) for key in request.assets],
                run_id=request.run_id,
                run_config=request.config,
                tags={**request.tags, **tags, PROCESS_TAG: f"{socket.gethostname()}/{os.getpid()}"},
                raise_on_error=False,
            )
        )
        return result.success


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell may have let its background jobs ignore them
        signal.signal(number, signal.default_int_handler)
    try:
        sys.exit(0 if execute(Request(**json.loads(sys.argv[1]))) else 1)
    except typer.Exit as ended:  # its reason is said
        sys.exit(ended.exit_code)
