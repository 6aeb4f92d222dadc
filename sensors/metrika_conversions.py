"""Follow files of offline conversions until the service is done with them."""

import time

import dagster as dg

from etl_assets.metrika.conversions import CONVERSIONS
from etl_assets.metrika.settings import MetrikaSettings
from etl_assets.metrika.uploads import UPLOADS

EVERY_S = 300
NAME = "metrika_conversion_uploads"


def build_sensor(settings: MetrikaSettings, *, running: bool) -> dg.SensorDefinition:
    """The sensor; it runs by itself where conversions are really sent."""
    wanted = running and settings.upload

    @dg.sensor(
        name=NAME,
        target=dg.AssetSelection.assets(UPLOADS),
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.RUNNING if wanted else dg.DefaultSensorStatus.STOPPED,
        description="Asks for the state of sent files while the service works on them, up to two hours.",
    )
    def _sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        """Decided from what the two assets said last; neither the API nor the warehouse is asked."""
        sent_at, sent = _last(context.instance, CONVERSIONS)
        seen_at, seen = _last(context.instance, UPLOADS)
        unfinished = sent if sent_at > seen_at else seen
        if not unfinished:
            return dg.SkipReason("No file of offline conversions is being processed")
        return dg.RunRequest(run_key=f"{sent_at:.0f}-{time.time() // EVERY_S:.0f}")

    return _sensor


def _last(instance: dg.DagsterInstance, asset: dg.AssetKey) -> tuple[float, int]:
    """When the asset was materialized last, and how many unfinished files it told of."""
    event = instance.get_latest_materialization_event(asset)
    if event is None or event.asset_materialization is None:
        return 0.0, 0
    told = event.asset_materialization.metadata.get("uploads_unfinished")
    return event.timestamp, int(str(told.value)) if told else 0
