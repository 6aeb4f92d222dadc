"""Daily windows of the field by which a source reports change."""

from __future__ import annotations

from datetime import datetime, timedelta

import dagster as dg


def daily(start_date: str, timezone: str) -> dg.DailyPartitionsDefinition:
    """Days of the source's own zone; the newest partition is today's, which is still filling."""
    return dg.DailyPartitionsDefinition(start_date=start_date, timezone=timezone, end_offset=1)


def days_of(context: dg.AssetExecutionContext) -> list[str]:
    """The partitions of a run, oldest first. Raises dagster.Failure when the range ends before it starts:
    Dagster would make it a green run of nothing."""
    keys = sorted(context.partition_keys)
    if not keys:
        raise dg.Failure(
            "The partition range ends before it starts: give the earlier day first.", allow_retries=False
        )
    return keys


def window_of(context: dg.AssetExecutionContext) -> tuple[datetime | None, datetime | None]:
    """The half-open window [since, until) of a run's partitions, as aware datetimes.

    The first partition has no lower bound, so that what is older than the start date is not left out, and
    today's has no upper bound. Raises as `days_of` does.
    """
    keys = days_of(context)
    definition = context.assets_def.partitions_def
    assert isinstance(definition, dg.TimeWindowPartitionsDefinition)
    first, last = definition.get_first_partition_key(), definition.get_last_partition_key()
    since = definition.time_window_for_partition_key(min(keys)).start
    until = definition.time_window_for_partition_key(max(keys)).end
    return (None if min(keys) == first else since), (None if max(keys) == last else until)


def today(definition: dg.TimeWindowPartitionsDefinition) -> str:
    """Key of the newest partition."""
    key = definition.get_last_partition_key()
    if key is None:
        raise dg.Failure("The start date of the partitions lies in the future.", allow_retries=False)
    return key


DAY = timedelta(days=1)
