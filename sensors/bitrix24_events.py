"""Deletions that the portal has queued for the application are taken in soon after they happen."""

import json

import dagster as dg

from etl_assets.bitrix24.deleted import KEY
from etl_assets.bitrix24.events import OfflineQueue, identity, received_inbox
from resources.bitrix24 import Bitrix24Resource

TAG = "svod/offline_events"
INBOX_TAG = "svod/received_events"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.NOT_STARTED,
]


def build_sensor(running: bool) -> dg.SensorDefinition:
    """`running`: there is an application, so that it starts by itself."""
    make = dg.sensor(
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        target=dg.AssetSelection.assets(KEY),
        description="Takes in deletions that the portal has queued for the application (offline events).",
    )
    return make(offline_events)


def build_received_sensor(running: bool) -> dg.SensorDefinition:
    """`running`: the receiver of outgoing webhooks is set up."""
    make = dg.sensor(
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED,
        target=dg.AssetSelection.assets(KEY),
        description="Takes in deletions that the receiver of outgoing webhooks has kept.",
    )
    return make(received_events)


def received_events(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
    """Ask for a run when something has arrived and no run is on its way."""
    if not received_inbox().waiting():
        return dg.SkipReason("No events have arrived")
    if context.instance.get_runs(dg.RunsFilter(tags={INBOX_TAG: "true"}, statuses=UNFINISHED), limit=1):
        return dg.SkipReason("The run of the last events is not finished yet")
    config = {"ops": {"__".join(KEY.path): {"config": {"inbox": True}}}}
    return dg.RunRequest(asset_selection=[KEY], run_config=config, tags={INBOX_TAG: "true"})


def offline_events(
    context: dg.SensorEvaluationContext, bitrix24: Bitrix24Resource
) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run when the queue holds something that no run has seen, or when the last run failed."""
    if not bitrix24.client_id:
        return dg.SkipReason("The offline queue belongs to an application: set BITRIX24_APP_CLIENT_ID")
    before = json.loads(context.cursor or '{"seen": []}')
    queue = OfflineQueue(bitrix24.client)
    if "bound" not in before:
        before["bound"] = len(queue.bind())
    present = [identity(row) for row in queue.listed()]
    runs = context.instance.get_runs(dg.RunsFilter(tags={TAG: "true"}), limit=1)
    last = runs[0].status if runs else None
    new = sorted(set(present) - set(before["seen"]))
    cursor = json.dumps({**before, "seen": sorted(present)})
    if last in UNFINISHED:
        return dg.SkipReason("The run of the last events is not finished yet")
    if not present or (not new and last != dg.DagsterRunStatus.FAILURE):
        return dg.SensorResult(skip_reason=f"{len(present)} events, none new", cursor=cursor)
    config = {"ops": {"__".join(KEY.path): {"config": {"offline": True}}}}
    request = dg.RunRequest(asset_selection=[KEY], run_config=config, tags={TAG: "true"})
    return dg.SensorResult(run_requests=[request], cursor=cursor)
