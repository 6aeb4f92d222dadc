"""`python -m benchmarks [NAME …]`: run all benchmarks, or the named ones, one after another."""

import subprocess
import sys

ALL = (
    "throughput",
    "full_load",
    "memory",
    "tick",
    "kills",
    "reconcile",
    "history",
    "metrika_stream",
    "metrika_scoring",
    "scoring_api",
    "mts_link",
    "mts_vats",
    "ttm_hub",
    "ttm_night",
)


def main() -> int:
    """Exit status 1 if one of them fails or misses its target."""
    wanted = sys.argv[1:] or ALL
    unknown = sorted(set(wanted) - set(ALL))
    if unknown:
        print(f"No benchmark {', '.join(unknown)}; there are {', '.join(ALL)}")
        return 2
    failed = [
        name for name in wanted if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"]).returncode
    ]
    print(f"missed or failed: {', '.join(failed)}" if failed else "all targets met")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
