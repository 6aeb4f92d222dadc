"""How much memory does the process that loads 1,000,000 deals need? The embedded ClickHouse is part of
that process."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.common import ROOT, folder, sandbox, verdict

DEALS = 1_000_000


def main() -> int:
    """Exit status 1 if the target is missed."""
    config = {"deals": DEALS, "rate_limit": None, "operating_mode": "absent"}
    with folder() as path, sandbox(**config) as portal:
        options = json.dumps({"bucket_capacity": 0, "ca_bundle": portal.ca})
        command = [sys.executable, "-m", "benchmarks.loader", portal.webhook_url, str(path), options]
        answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    result = json.loads(answer.stdout.splitlines()[-1])
    print(f"     {json.dumps(result)}")
    met = verdict("peak memory of the loading process", result["peak_mb"], 600, at_most=True, unit=" MB")
    met &= verdict("share of the rows", result["rows"] / DEALS, 1, at_most=False)
    return not met


if __name__ == "__main__":
    sys.exit(main())
