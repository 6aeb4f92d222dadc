"""MP4 files of converted records: opt-in, one partition a record, to a directory or any fsspec URL."""

import dagster as dg

from etl_assets.loading import OWNERS
from etl_assets.mts_link.parents import DATABASE
from etl_assets.settings import text
from resources.errors import PermanentSourceError
from resources.mts_link import Call, MtsLinkResource, Refused
from resources.mts_link.answers import text_id

SETTING = "MTS_LINK_RECORDS_URL"
records = dg.DynamicPartitionsDefinition(name="mts_link_record")


@dg.asset(
    key=[DATABASE, "record_files"],
    # a file belongs to a record, whatever the day on which the record was loaded
    deps=[
        dg.AssetDep(
            dg.AssetKey([DATABASE, "download_converted_record"]), partition_mapping=dg.AllPartitionMapping()
        )
    ],
    partitions_def=records,
    group_name=DATABASE,
    kinds={DATABASE, "file"},
    owners=OWNERS,
    pool=DATABASE,
    tags={"source": DATABASE, "pii": "", "svod/by_hand": ""},
    retry_policy=dg.RetryPolicy(max_retries=2, delay=60),
    description="MP4 files of converted records, one partition a record (its id). Loaded by hand, or by the "
    f"sensor `mts_link_records`, into {SETTING}: a directory or any fsspec URL.\n\nStreamed, gone on with "
    "after a break, checked by size. The key is sent to the API's own host only.",
)
def record_files(context: dg.AssetExecutionContext, mts_link: MtsLinkResource) -> dg.MaterializeResult:
    """Fetch one record's file; nothing if it is there already."""
    folder = text(SETTING, "").rstrip("/")
    if not folder:
        raise PermanentSourceError(f"{SETTING} is not set: name a directory or an fsspec URL for the files.")
    record = context.partition_key
    try:
        found = mts_link.client.get(Call(f"/fileSystem/file/{record}"))[0].items
    except Refused as refused:
        raise PermanentSourceError(f"MTS Link refuses the record {record} with {refused.status}.") from None
    file = found[0] if found else {}
    url, size = file.get("downloadUrl"), int(text_id(file.get("size")) or 0)
    if not isinstance(url, str) or not url:
        raise PermanentSourceError(f"The record {record} has no address: it is not converted yet.")
    fetched = mts_link.client.fetcher().fetch(url, f"{folder}/{record}.mp4", size, context.log.info)
    return dg.MaterializeResult(
        metadata={
            "bytes": fetched.size,
            "bytes_before": fetched.resumed_at,
            "http_requests": fetched.requests,
            "path": dg.MetadataValue.path(fetched.path),
        }
    )
