"""How close is a full load of 200,000 deals to what the portal's limits allow?

Limits as on a real portal: a burst of 50 requests, then 2 a second, and 0.3 s of latency. The floor is the
time that the requests alone need at 2,500 rows each. Peers in the same run, each with a fresh bucket:
`b24pysdk` (`as_list_fast`) and `fast_bitrix24` (`get_all`), published clients for the same API.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from benchmarks.common import ROOT, Sandbox, folder, sandbox, verdict

DEALS, BURST, RATE, LATENCY, GAPS = 200_000, 50, 2, 0.3, 0.0
FLOOR = (DEALS / 2500 - BURST) / RATE


def svod(portal: Sandbox) -> tuple[int, float]:
    """(rows, seconds) of the product, in a process of its own."""
    with folder() as path:
        options = json.dumps({"ca_bundle": portal.ca})
        command = [sys.executable, "-m", "benchmarks.loader", portal.webhook_url, str(path), options]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(answer.stdout.splitlines()[-1])
    return result["rows"], result["seconds"]


def peer(name: str, portal: Sandbox) -> tuple[int, float]:
    """(rows, seconds) of a published client; zero rows where it fails or is not done in ten minutes."""
    began = time.monotonic()
    command = [sys.executable, "-m", "benchmarks.peers", name, portal.webhook_url]
    trusted = {**os.environ, "REQUESTS_CA_BUNDLE": portal.ca, "SSL_CERT_FILE": portal.ca}
    try:
        done = subprocess.run(command, cwd=ROOT, env=trusted, capture_output=True, text=True, timeout=600)
    except subprocess.TimeoutExpired:
        return 0, time.monotonic() - began
    lines = done.stdout.split()
    return int(lines[-1]) if done.returncode == 0 and lines else 0, time.monotonic() - began


def main() -> int:
    """Exit status 1 if a target is missed."""
    met, seconds_of = True, {}
    config = {
        "deals": DEALS,
        "gaps": GAPS,
        "rate_limit": [BURST, RATE],
        "latency": LATENCY,
        "cache_pages": 40_000,
    }
    with sandbox(**config) as portal:
        # The first pass lets the portal render its pages, which takes longer than sending them.
        for name in ("warm-up", "svod", "b24pysdk", "fast_bitrix24"):
            portal.control("reset-limits")
            portal.control("reset-stats")
            rows, seconds = svod(portal) if name in ("warm-up", "svod") else peer(name, portal)
            stats = portal.get("stats")
            seconds_of[name] = seconds
            print(
                f"     {name}: {rows:,} of {DEALS:,} rows, {seconds:.1f} s = {seconds / FLOOR:.2f} x "
                f"the floor of {FLOOR:.0f} s, {stats['http_requests']} requests, "
                f"{stats['rejected_503']} refused",
                flush=True,
            )
            if name == "svod":
                met &= verdict("full load, x the floor", seconds / FLOOR, 1.15, at_most=True)
                met &= verdict("requests refused", stats["rejected_503"], 0, at_most=True)
                met &= verdict("share of the rows", rows / DEALS, 1, at_most=False)
    met &= verdict(
        "b24pysdk's seconds / svod's", seconds_of["b24pysdk"] / seconds_of["svod"], 1, at_most=False
    )
    return not met


if __name__ == "__main__":
    sys.exit(main())
