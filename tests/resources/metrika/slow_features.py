"""The formulas of the features in plain Python, one visit at a time, to compare the SQL with."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Visit:
    """What the features of a visit depend on."""

    visit_id: int
    watch_ids: tuple[int, ...] = ()
    duration: int = 0
    page_views: int = 1
    bounce: int = 0
    device: int = 1


@dataclass(frozen=True, slots=True)
class Hit:
    """An event: `at` is local time, `day` the log that it stands in, days after the visit's."""

    watch_id: int
    at: datetime
    device: int = 1
    day: int = 0


def features(visit: Visit, times: Mapping[int, datetime]) -> dict[str, float]:
    """By the model's names. `times`: when each known event was."""
    seconds = sorted(int(times[w].timestamp()) for w in set(visit.watch_ids) if w in times)
    pauses = [b - a for a, b in pairwise(seconds)]
    slots = {(s - seconds[0]) // 15 for s in seconds}
    return {
        "slots": len(slots),
        "slot_range": max(slots, default=0),
        "slot_density": len(slots) / (visit.duration / 60 + 1),
        "median_pause": statistics.median(pauses) if pauses else 0.0,
        "mean_pause": statistics.fmean(pauses) if pauses else 0.0,
        "std_pause": statistics.pstdev(pauses) if pauses else 0.0,
        "duration": visit.duration,
        "pageViews": visit.page_views,
        "bounce": visit.bounce,
    }


def legacy_device(visit: Visit, hits: Sequence[Hit]) -> int:
    """The device of the first event whose id, cut to 19 characters, is the visit's."""
    return next((h.device for h in hits if str(h.watch_id)[:19] == str(visit.visit_id)), 0)


def seconds(offsets: Sequence[int], start: datetime = datetime(2026, 10, 7, 8, 30)) -> list[datetime]:
    return [start + timedelta(seconds=s) for s in offsets]
