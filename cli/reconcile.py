"""`svod reconcile`: rows that are gone from the portal or missing here, now instead of at night."""

from __future__ import annotations

import uuid

import dagster as dg
from rich.table import Table

from cli.load import Request
from cli.project import enter, fail, out
from cli.query import warehouse
from cli.runs import follow
from cli.services import Interrupted, local_systems, postgres, stop_signals

ASSET = "bitrix24/deleted_objects"
GONE = """SELECT entity, countIf(restored_at IS NULL), countIf(restored_at IS NOT NULL), max(detected_at)
FROM bi.deleted_objects GROUP BY entity ORDER BY entity"""


def reconcile(entities: list[str], confirm: bool, sweep: bool, deals: int) -> None:
    """Materialize the asset once and show what is gone."""
    folder = enter()
    chosen = {"entities": entities, "confirm": confirm, "sweep": sweep}
    config = {"ops": {ASSET.replace("/", "__"): {"config": chosen}}}
    request = Request(str(uuid.uuid4()), [ASSET], config=config)
    try:
        with (
            stop_signals(),
            postgres(folder),
            local_systems(deals, ["bitrix24"]),
            dg.DagsterInstance.get() as instance,
        ):
            outcome = follow(request, instance, "comparing")
    except Interrupted:
        raise fail("Stopped. Nothing was marked that was not confirmed by the portal.") from None
    if not outcome.success:
        raise fail(outcome.said or "The comparison failed; the reason is above.")
    table = Table("table", "gone", "come back", "last found gone (UTC)")
    for entity, gone, restored, at in warehouse().query(GONE):
        table.add_row(entity, f"{gone:,}", f"{restored:,}", f"{at:%Y-%m-%d %H:%M:%S}")
    out.print(table)
