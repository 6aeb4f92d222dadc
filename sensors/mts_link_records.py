"""Notice converted records and fetch their files; off until somebody switches it on."""

import dagster as dg

from etl_assets.mts_link.parents import DATABASE
from etl_assets.mts_link.record_files import record_files, records
from resources.clickhouse import WarehouseResource

MOST = 50  # runs of one tick
_CONVERTED = (
    f"SELECT id FROM {DATABASE}.download_converted_record FINAL "
    "WHERE is_deleted = 0 AND ifNull(state, 'completed') = 'completed' AND ifNull(size, 0) > 0 "
    "ORDER BY createAt"
)
_THERE = (
    "SELECT count() FROM system.tables WHERE database = {d:String} AND name = 'download_converted_record'"
)


@dg.sensor(
    name="mts_link_records",
    target=[record_files],
    minimum_interval_seconds=600,
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Registers converted records as partitions and fetches the file of each new one.",
)
def new_records(
    context: dg.SensorEvaluationContext, warehouse: WarehouseResource
) -> dg.SensorResult | dg.SkipReason:
    """One run for each record that is no partition yet."""
    if not warehouse.query(_THERE, {"d": DATABASE})[0][0]:
        return dg.SkipReason("No converted records have been loaded yet")
    known = set(records.get_partition_keys(dynamic_partitions_store=context.instance))
    found = [row[0] for row in warehouse.query(_CONVERTED)]
    new = [record for record in found if record not in known][:MOST]
    if not new:
        return dg.SkipReason(f"{len(found)} converted records, none new")
    return dg.SensorResult(
        dynamic_partitions_requests=[records.build_add_request(new)],
        run_requests=[dg.RunRequest(run_key=f"record {r}", partition_key=r) for r in new],
    )
