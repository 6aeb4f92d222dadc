"""The old level 4+ script, rebuilt from its description: whole files as lists of dicts, one date parse a hit.

Its description says that the parses are 95 % of its run time. Of the usual ways to parse one date only that
of pandas is slow enough for that, so that is the one which is compared with; `strptime` is there to see.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

ORDER = ("desktop", "mobile")
Parse = Callable[[str], datetime]


def strptime(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")


def rows_of(log: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(log.decode()), delimiter="\t", quoting=csv.QUOTE_NONE))


def features(visit: Mapping[str, str], times: Mapping[str, datetime]) -> dict[str, float]:
    """One visit's features."""
    ids = visit["ym:s:watchIDs"].strip("[]").split(",")
    known = sorted(times[watch_id] for watch_id in ids if watch_id in times)
    duration = int(visit["ym:s:visitDuration"])
    slots = {int((at - known[0]).total_seconds() // 15) for at in known}
    pauses = [(b - a).total_seconds() for a, b in pairwise(known)]
    return {
        "slots": len(slots),
        "slot_range": max(slots) - min(slots) if slots else 0,
        "slot_density": len(slots) / (duration / 60 + 1),
        "median_pause": float(np.median(pauses)) if pauses else 0.0,
        "mean_pause": float(np.mean(pauses)) if pauses else 0.0,
        "std_pause": float(np.std(pauses)) if pauses else 0.0,
        "duration": duration,
        "pageViews": int(visit["ym:s:pageViews"]),
        "bounce": int(visit["ym:s:bounce"]),
    }


def score(
    visit_log: bytes,
    hit_log: bytes,
    models: Mapping[str, Any],
    thresholds: Mapping[str, float],
    parse: Parse = pd.to_datetime,
) -> list[dict[str, Any]]:
    """The selected visits, with the device of the visit."""
    visits, hits = rows_of(visit_log), rows_of(hit_log)
    times = {hit["ym:pv:watchID"]: parse(hit["ym:pv:dateTime"]) for hit in hits}
    table = pd.DataFrame([features(visit, times) for visit in visits])
    chosen = ((table["duration"] >= 180) & (table["pageViews"] >= 5) & (table["slots"] >= 5)).to_numpy(
        copy=True
    )
    devices = np.array([visit["ym:s:deviceCategory"] for visit in visits])
    for code, name in enumerate(ORDER, 1):
        asked = np.flatnonzero((devices == str(code)) & ~chosen)
        model = models[name]
        rows = table.iloc[asked][model.feature_name_]
        chosen[asked[model.predict_proba(rows)[:, 1] > thresholds[name]]] = True
    return [
        {
            "visitId": visit["ym:s:visitID"],
            "clientId": visit["ym:s:clientID"],
            "dateTime": visit["ym:s:dateTime"],
            "visitDuration": int(visit["ym:s:visitDuration"]),
        }
        for visit, yes in zip(visits, chosen, strict=True)
        if yes
    ]
