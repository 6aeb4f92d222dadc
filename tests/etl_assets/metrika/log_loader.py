"""Load three days of visits: `python -m tests.etl_assets.metrika.log_loader URL FOLDER FIRST LAST`.

Prints a line after every complete part, so that a test knows when to kill it.
"""

import sys
from datetime import date, timedelta
from pathlib import Path

from etl_assets.metrika.fields import VISITS
from etl_assets.metrika.loading import LogLoader
from resources.clickhouse import WarehouseResource
from resources.metrika import MetrikaClient
from sandbox.metrika import TOKEN


def main() -> None:
    """Command line of the module."""
    url, folder, first, last = sys.argv[1:5]
    client = MetrikaClient(url, TOKEN, state_dir=Path(folder), per_second=0)
    warehouse = WarehouseResource(url=f"chdb://{folder}/warehouse")
    begin, end = date.fromisoformat(first), date.fromisoformat(last)
    days = [begin + timedelta(days=n) for n in range((end - begin).days + 1)]

    def tell(text: str, *values: object) -> None:
        print(text % values, flush=True)

    LogLoader(client, warehouse, "Europe/Moscow", "metrika/visits", poll_s=0.01, tell=tell).load(
        VISITS, 100001, days
    )
    print("loaded", flush=True)


if __name__ == "__main__":
    main()
