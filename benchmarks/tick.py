"""What does a tick of the change feed cost when nothing has changed, from launch to success?

All entities of the feed in one run, launched by Dagster's own command line with its PostgreSQL instance, on
a portal with 0.3 s of latency. API time is the portal's own: the seconds that it worked on the requests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from benchmarks.common import ROOT, Sandbox, folder, sandbox, verdict
from etl_assets.loading import FEED_TAG
from resources.postgres import EmbeddedPostgres


def environment(portal: Sandbox, path: Path, postgres: EmbeddedPostgres) -> dict[str, str]:
    """Settings of a machine of its own below `path`."""
    home = path / "home"
    home.mkdir()
    (home / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
    return {
        **os.environ,
        "BITRIX24_WEBHOOK_URL": portal.webhook_url,
        "BITRIX24_CA_BUNDLE": portal.ca,
        "CLICKHOUSE_URL": f"chdb://{path}/warehouse",
        "DAGSTER_HOME": str(home),
        "DAGSTER_POSTGRES_URL": postgres.url,
        "SVOD_STATE_DIR": str(path),
        "PYTHONPATH": str(ROOT),
    }


def tick(portal: Sandbox, path: Path, settings: dict[str, str]) -> tuple[float, float, int]:
    """(wall seconds, API seconds, HTTP requests) of one run."""
    portal.control("reset-stats")
    today = f"{datetime.now(ZoneInfo('Europe/Moscow')):%Y-%m-%d}"
    tags = json.dumps({FEED_TAG: "true", "dagster/partition": today})
    program = str(Path(sys.executable).with_name("dagster"))
    command = [
        program,
        "job",
        "execute",
        "-m",
        "etl_assets.definitions",
        "-j",
        "bitrix24_change_feed",
        "--tags",
        tags,
    ]
    began = time.monotonic()
    subprocess.run(command, cwd=path / "project", env=settings, check=True, capture_output=True, text=True)
    stats = portal.get("stats")
    return time.monotonic() - began, stats["simulated_seconds"], stats["http_requests"]


def main() -> int:
    """Exit status 1 if a target is missed."""
    with folder() as path, sandbox(latency=0.3) as portal:
        # The command line reads .env of the folder that it runs in: this one has none.
        project = path / "project"
        project.mkdir()
        (project / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
        (project / "etl_assets").symlink_to(ROOT / "etl_assets")
        postgres = EmbeddedPostgres(path / "postgres")
        postgres.start()
        try:
            settings = environment(portal, path, postgres)
            first = tick(portal, path, settings)
            print(f"     first tick, which loads everything: {first[0]:.1f} s, {first[2]} requests")
            ticks = [tick(portal, path, settings) for _ in range(3)]
        finally:
            postgres.stop()
    for wall, api, requests in ticks:
        print(f"     nothing changed: {wall:.1f} s, API {api:.2f} s, {requests} requests")
    met = verdict("API time", max(api for _, api, _ in ticks), 3, at_most=True, unit=" s")
    met &= verdict(
        "launch to success, median", sorted(wall for wall, _, _ in ticks)[1], 20, at_most=True, unit=" s"
    )
    return not met


if __name__ == "__main__":
    sys.exit(main())
