"""What the models are told of a visit, as ClickHouse SQL over the two raw logs.

The times of a visit's events are T = [t0 … tn-1], sorted, in whole seconds; a slot is `floor((t - t0) / 15)`,
counted from the visit's own first known event. Events at 0, 14, 29, 44, 59 s fill 4 slots, at 0, 15, 30, 45,
60 s they fill 5. A visit none of whose events is known has zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

SLOT_S = 15
# the model's name of a feature -> its column
FEATURES = {
    "slots": "slots",
    "slot_range": "slot_range",
    "slot_density": "slot_density",
    "median_pause": "median_pause",
    "mean_pause": "mean_pause",
    "std_pause": "std_pause",
    "duration": "visit_duration",
    "pageViews": "page_views",
    "bounce": "bounce",
}
DeviceRule = Literal["visit", "legacy"]
DESKTOP, MOBILE = 1, 2
DEVICES = {DESKTOP: "desktop", MOBILE: "mobile"}  # device code -> name of its model

# A sorting merge needs a third of a hash join's memory for large days. What outgrows a gigabyte goes to disk.
SPILL_BYTES = 1 << 30
SETTINGS: Mapping[str, str | int] = {
    "join_algorithm": "full_sorting_merge",
    "join_use_nulls": 0,
    "do_not_merge_across_partitions_select_final": 1,
    "max_bytes_before_external_group_by": SPILL_BYTES,
    "max_bytes_before_external_sort": SPILL_BYTES,
}


@dataclass(frozen=True, slots=True)
class FeatureRules:
    """How a visit is matched with its events and its device.

    `device`: "visit" takes `ym:s:deviceCategory`. "legacy" is what the old script did: the device of the
    first event whose id, cut to 19 characters, spells the visit's id; 0 where there is none. `next_day`:
    also the events of the day after, for visits that run past midnight; the old script saw those of one day.
    """

    device: DeviceRule = "visit"
    next_day: bool = False


@dataclass(frozen=True, slots=True)
class Logs:
    """The tables of both logs, each row once: SQL that stands behind FROM."""

    visits: str = "metrika.visits FINAL"
    hits: str = "metrika.hits FINAL"


def features_sql(counter: int, day: date, rules: FeatureRules, logs: Logs | None = None) -> str:
    """SELECT of one row a visit of a counter's day, by the columns of `metrika.visit_features`.

    To be run with SETTINGS.
    """
    logs = logs or Logs()
    here = f"counter_id = {counter} AND date = '{day}'"
    days = f"date IN ('{day}', '{day + timedelta(days=1)}')" if rules.next_day else f"date = '{day}'"
    pauses = "arrayPopFront(arrayDifference(t))"
    legacy = rules.device == "legacy"
    return f"""
WITH
  listed AS (
    SELECT visit_id, arrayJoin(arrayDistinct(watch_ids)) AS watch_id FROM {logs.visits} WHERE {here}
  ),
  known AS (
    SELECT watch_id, toUInt32(date_time) AS at FROM {logs.hits} WHERE counter_id = {counter} AND {days}
  ),
  timed AS (
    SELECT visit_id, arraySort(groupArray(at)) AS t
    FROM listed INNER JOIN known USING (watch_id)
    GROUP BY visit_id
  ),
  measured AS (
    SELECT
      visit_id,
      length(t) AS known_hits,
      arrayUniq(arrayMap(at -> intDiv(at - t[1], {SLOT_S}), t)) AS slots,
      intDiv(t[-1] - t[1], {SLOT_S}) AS slot_range,
      if(known_hits > 1, arrayReduce('quantileExactInclusive', {pauses}), 0) AS median_pause,
      if(known_hits > 1, arrayAvg({pauses}), 0) AS mean_pause,
      if(known_hits > 1, arrayReduce('stddevPopStable', {pauses}), 0) AS std_pause
    FROM timed
  ){_legacy_devices(logs, here) if legacy else ""}
SELECT
  v.counter_id AS counter_id, v.date AS date, v.visit_id AS visit_id, v.client_id AS client_id,
  v.row_number AS row_number, v.date_time AS date_time, v.visit_duration AS visit_duration,
  v.page_views AS page_views, v.bounce AS bounce,
  {"d.device" if legacy else "v.device_category"} AS device,
  length(arrayDistinct(v.watch_ids)) AS listed_hits, m.known_hits AS known_hits,
  m.slots AS slots, m.slot_range AS slot_range, m.slots / (v.visit_duration / 60 + 1) AS slot_density,
  m.median_pause AS median_pause, m.mean_pause AS mean_pause, m.std_pause AS std_pause
FROM (SELECT * FROM {logs.visits} WHERE {here}) AS v
LEFT JOIN measured AS m ON v.visit_id = m.visit_id
{"LEFT JOIN devices AS d ON v.visit_id = d.visit_id" if legacy else ""}"""


def _legacy_devices(logs: Logs, here: str) -> str:
    """CTE `devices`: the device of the first event whose id, cut to 19 characters, spells a visit's id."""
    cut = "toUInt64(substring(toString(watch_id), 1, 19))"
    return f""",
  devices AS (
    SELECT {cut} AS visit_id, argMin(device_category, (row_number, date_time, watch_id)) AS device
    FROM {logs.hits}
    WHERE {here} AND {cut} IN (SELECT visit_id FROM {logs.visits} WHERE {here})
    GROUP BY visit_id
  )"""
