"""Does a load that is killed at any moment, while the portal changes, converge with one rerun?

Twenty times: a fresh warehouse, a full load in a process of its own, SIGKILL at a random moment, one rerun
to its end; then every live row must be there with its current values, and none twice in the `bi` view.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import ROOT, folder, verdict
from resources.clickhouse import WarehouseResource
from sandbox.bitrix24 import Portal, PortalConfig, serve

TRIALS, DEALS = 20, 20_000


def load(url: str, path: Path) -> subprocess.Popen[str]:
    """The asset's own full load, resumable, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.asset", url, str(path)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def wrong_rows(portal: Portal, path: Path) -> int:
    """Live rows that are missing, doubled or stale in the view."""
    warehouse = WarehouseResource(url=f"chdb://{path}/warehouse")
    with warehouse.session() as client:
        found = client.query("SELECT ID, TITLE, toString(OPPORTUNITY) FROM bi.crm_deal").result_rows
    here = {(number, title, _plain(amount)) for number, title, amount in found}
    twice = len(found) - len({number for number, _, _ in found})
    live = [
        (str(row["ID"]), row["TITLE"] or None, _plain(f"{float(row['OPPORTUNITY']):.2f}"))
        for row in portal.expected("deal")
    ]
    warehouse.engine.close()  # type: ignore[union-attr]
    return twice + sum(row not in here for row in live)


def _plain(amount: str | None) -> str:
    """`1.50` and `1.5` are one amount."""
    return f"{float(amount or 0):.2f}"


def main() -> int:
    """Exit status 1 if one row of one trial is wrong."""
    generator = random.Random(7)
    wrong, killed = 0, 0
    config = PortalConfig(
        deals=DEALS, rate_limit=None, latency=0.15, operating_mode="absent", cache_pages=2000
    )
    with serve(config) as portal:
        for trial in range(TRIALS):
            with folder() as path:
                process = load(portal.webhook_url, path)
                assert process.stdout
                process.stdout.readline()  # the load has begun
                delay = generator.random() * 2.5
                end = time.monotonic() + delay
                while time.monotonic() < end and process.poll() is None:
                    portal.mutate(3)
                    time.sleep(0.05)
                killed += process.poll() is None
                process.kill()
                process.wait()
                again = load(portal.webhook_url, path)
                again.communicate(timeout=300)
                bad = wrong_rows(portal, path) if again.returncode == 0 else DEALS
                wrong += bad
                print(f"     trial {trial + 1}: killed after {delay:.2f} s, {bad} wrong rows", flush=True)
    met = verdict("wrong rows in all trials", wrong, 0, at_most=True)
    met &= verdict("trials in which the load was still running", killed, TRIALS / 2, at_most=False)
    return not met


if __name__ == "__main__":
    sys.exit(main())
