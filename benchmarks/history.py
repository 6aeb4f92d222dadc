"""What does field history cost? The first copy of 100,000 rows, a load that changes 1 %, a quiet one."""

from __future__ import annotations

import sys
import time

from benchmarks.common import folder, verdict
from etl_assets.bitrix24.entities import OBJECTS
from etl_assets.bitrix24.history import CHANGES, record_changes
from etl_assets.bitrix24.structure import Structure, table_of
from resources.bitrix24.fields import PortalField
from resources.clickhouse import WarehouseResource

ROWS = 100_000
FIELDS = 100
DEAL = OBJECTS[0]


def main() -> int:
    """Exit status 1 if a target is missed."""
    texts = tuple(PortalField(f"F{n}", f"F{n}", "string") for n in range(FIELDS))
    fields = (
        PortalField("ID", "ID", "integer"),
        PortalField("DATE_MODIFY", "DATE_MODIFY", "datetime"),
        *texts,
    )
    with folder() as path:
        warehouse = WarehouseResource(url=f"chdb://{path}/warehouse")
        table, _ = warehouse.ensure(table_of(DEAL, Structure(fields), "Europe/Moscow", {}))
        values = ", ".join(f"concat('value {n} of ', toString(number))" for n in range(FIELDS))
        columns = ", ".join(["ID", "DATE_MODIFY", *(f.name for f in texts), "dt_inserted"])
        into = f"INSERT INTO {table.sql_name} ({columns})"
        began = time.monotonic()
        warehouse.command(f"{into} SELECT toString(number), now64(3), {values}, now() FROM numbers({ROWS})")
        load = time.monotonic() - began
        timed = [_timed(warehouse, table)]
        changed = values.replace("'value 7 of '", "'changed to '")
        some = f"SELECT toString(number), now64(3), {changed}, now() + 5 FROM numbers({ROWS // 100})"
        warehouse.command(f"{into} {some}")
        timed += [_timed(warehouse, table), _timed(warehouse, table)]
        kept = warehouse.query(f"SELECT count() FROM {CHANGES.sql_name}")[0][0]
        sizes = dict(
            warehouse.query(
                "SELECT table, sum(bytes_on_disk) FROM system.parts WHERE active "
                "AND table IN ('crm_deal', 'bitrix24_row_state') GROUP BY table"
            )
        )
    print(f"     insert of the rows alone {load:.2f} s; first copy {timed[0]:.2f} s")
    print(f"     1 % changed {timed[1]:.2f} s; nothing changed {timed[2]:.2f} s")
    print(
        f"     disk: rows {sizes['crm_deal'] / 1e6:.1f} MB, copy {sizes['bitrix24_row_state'] / 1e6:.1f} MB"
    )
    met = verdict("changes noted", kept, ROWS / 100, at_most=False)
    met &= verdict("comparison of a day's rows", timed[2], 10, at_most=True, unit=" s")
    return not met


def _timed(warehouse: WarehouseResource, table: object) -> float:
    began = time.monotonic()
    record_changes(warehouse, DEAL, table)  # type: ignore[arg-type]
    return time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main())
