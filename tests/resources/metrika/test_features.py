"""Features by SQL against the formulas in plain Python, and against the models' own reference vectors."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl_assets.metrika.fields import HITS, VISITS
from etl_assets.metrika.level4_tables import visit_features
from resources.clickhouse import WarehouseResource
from resources.metrika.features import FEATURES, SETTINGS, FeatureRules, Logs, features_sql
from resources.metrika.models import digest, read_model
from tests.resources.metrika.slow_features import Hit, Visit, features, legacy_device, seconds

DAY = date(2026, 10, 7)
ZONE = "Europe/Moscow"
DATABASE = "metrika_features"
LOGS = Logs(f"{DATABASE}.visits FINAL", f"{DATABASE}.hits FINAL")
LATE = 2**64 - 1
_counters = itertools.count(1)


@pytest.fixture
def logs(warehouse: WarehouseResource) -> WarehouseResource:
    """Empty tables of visits and hits in a database of their own."""
    warehouse.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
    for log in (VISITS, HITS):
        table = replace(log.table(ZONE), database=DATABASE)
        warehouse.command(table.create_sql(engine="ReplacingMergeTree(dt_inserted)"))
    return warehouse


def keep(warehouse: WarehouseResource, visits: Sequence[Visit], hits: Sequence[Hit]) -> int:
    """A counter of its own with these visits and hits, rows doubled as they stand in the lists."""
    counter = next(_counters)
    visit_rows = [
        (counter, DAY, v.visit_id, list(v.watch_ids), v.duration, v.page_views, v.bounce, v.device)
        for v in visits
    ]
    hit_rows = [(counter, DAY + timedelta(days=h.day), h.watch_id, h.at, h.device) for h in hits]
    columns = {
        "visits": "counter_id date visit_id watch_ids visit_duration page_views bounce device_category",
        "hits": "counter_id date watch_id date_time device_category",
    }
    with warehouse.session() as client:
        for name, rows in (("visits", visit_rows), ("hits", hit_rows)):
            if rows:
                client.insert(f"{DATABASE}.{name}", rows, column_names=columns[name].split())
    return counter


def computed(
    warehouse: WarehouseResource, counter: int, rules: FeatureRules | None = None
) -> dict[int, dict[str, Any]]:
    """visit id -> row of the features table."""
    with warehouse.session() as client:
        found = client.query(
            features_sql(counter, DAY, rules or FeatureRules(), LOGS), settings=dict(SETTINGS)
        )
        rows = [dict(zip(found.column_names, row, strict=True)) for row in found.result_rows]
    by_id = {row["visit_id"]: row for row in rows}
    assert len(by_id) == len(rows)
    return by_id


def of_model(row: dict[str, Any]) -> dict[str, float]:
    return {name: row[column] for name, column in FEATURES.items()}


def vector(warehouse: WarehouseResource, offsets: Sequence[int], **visit: Any) -> dict[str, float]:
    """Features of one visit with events at these seconds."""
    hits = [Hit(100 + i, at) for i, at in enumerate(seconds(offsets))]
    one = Visit(7, tuple(h.watch_id for h in hits), **visit)
    return of_model(computed(warehouse, keep(warehouse, [one], hits))[7])


@pytest.mark.parametrize(
    ("offsets", "slots", "slot_range", "pauses"),
    [
        ((0, 14, 29, 44, 59), 4, 3, (15.0, 14.75, 0.4330127018922193)),
        ((0, 15, 30, 45, 60), 5, 4, (15.0, 15.0, 0.0)),
        ((0, 5, 900), 2, 60, (450.0, 450.0, 445.0)),
        ((3600,), 1, 0, (0.0, 0.0, 0.0)),
        ((), 0, 0, (0.0, 0.0, 0.0)),
        ((60, 60, 60), 1, 0, (0.0, 0.0, 0.0)),
        ((60, 0, 30), 3, 4, (30.0, 30.0, 0.0)),
    ],
)
def test_slots_and_pauses(
    logs: WarehouseResource,
    offsets: Sequence[int],
    slots: int,
    slot_range: int,
    pauses: tuple[float, ...],
):
    found = vector(logs, offsets, duration=120, page_views=3, bounce=1)
    assert (found["slots"], found["slot_range"]) == (slots, slot_range)
    assert (found["median_pause"], found["mean_pause"], found["std_pause"]) == pytest.approx(pauses, abs=1e-9)
    assert found["slot_density"] == pytest.approx(slots / 3, abs=1e-12)
    assert (found["duration"], found["pageViews"], found["bounce"]) == (120, 3, 1)


def test_doubled_rows_and_ids_count_once(logs: WarehouseResource):
    hits = [Hit(1, at) for at in seconds([0])] + [Hit(2, at) for at in seconds([20])]
    visit = Visit(LATE, (1, 2, 2, 1, 3), 60)
    row = computed(logs, keep(logs, [visit, visit], [*hits, *hits]))[LATE]
    assert (row["slots"], row["mean_pause"], row["listed_hits"], row["known_hits"]) == (2, 20.0, 3, 2)


def test_an_event_of_two_visits_counts_in_both(logs: WarehouseResource):
    visits = [Visit(1, (5,)), Visit(2, (5, 6))]
    rows = computed(logs, keep(logs, visits, [Hit(5, seconds([0])[0]), Hit(6, seconds([40])[0])]))
    assert [rows[i]["slots"] for i in (1, 2)] == [1, 2]


def test_events_of_other_counters_and_days_are_not_seen(logs: WarehouseResource):
    at = seconds([0, 20, 40])
    keep(logs, [], [Hit(1, at[0])])
    hits = [Hit(2, at[1]), Hit(3, at[2], day=1), Hit(4, at[0], day=-1)]
    counter = keep(logs, [Visit(9, (1, 2, 3, 4))], hits)
    assert computed(logs, counter)[9]["known_hits"] == 1
    assert computed(logs, counter, FeatureRules(next_day=True))[9]["known_hits"] == 2


def test_an_empty_day_has_no_rows(logs: WarehouseResource):
    assert computed(logs, keep(logs, [], [])) == {}


@pytest.mark.parametrize(
    ("visit_id", "watch_id", "device"),
    [
        (6511203344556677001, 6511203344556677001, 2),
        (1000000000000000000, 10000000000000000009, 2),  # 20 digits, cut to 19
        (10000000000000000009, 10000000000000000009, 0),  # an id of 20 digits is never the cut one
        (123, 123, 2),
        (123, 1234, 0),
    ],
)
def test_the_old_rule_compares_ids_as_texts_of_19_characters(
    logs: WarehouseResource, visit_id: int, watch_id: int, device: int
):
    visit, hit = Visit(visit_id, (watch_id,), device=1), Hit(watch_id, seconds([0])[0], device=2)
    counter = keep(logs, [visit], [hit])
    assert computed(logs, counter, FeatureRules("legacy"))[visit_id]["device"] == device
    assert legacy_device(visit, [hit]) == device
    assert computed(logs, counter)[visit_id]["device"] == 1


IDS = st.integers(1, 9) | st.integers(10**18, 10**18 + 3) | st.integers(10**19, 10**19 + 30) | st.just(LATE)
VISIT = st.builds(
    Visit,
    visit_id=IDS,
    watch_ids=st.lists(IDS, max_size=12).map(tuple),
    duration=st.integers(0, 100_000),
    page_views=st.integers(0, 500),
    bounce=st.integers(0, 1),
    device=st.integers(0, 4),
)
TIMES = st.lists(
    st.tuples(IDS, st.integers(0, 86_399), st.integers(0, 4)), max_size=30, unique_by=lambda t: t[0]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(visits=st.lists(VISIT, max_size=20, unique_by=lambda v: v.visit_id), times=TIMES)
def test_sql_and_plain_python_agree(
    logs: WarehouseResource, visits: list[Visit], times: list[tuple[int, int, int]]
):
    start = seconds([0])[0].replace(hour=0, minute=0)
    hits = [Hit(watch_id, start + timedelta(seconds=s), device) for watch_id, s, device in times]
    hits.sort(key=lambda h: (h.at, h.watch_id))  # where several ids are cut to one, the earliest event counts
    counter = keep(logs, visits, hits)
    known = {h.watch_id: h.at for h in hits}
    found, legacy = computed(logs, counter), computed(logs, counter, FeatureRules("legacy"))
    assert set(found) == set(legacy) == {v.visit_id for v in visits}
    for visit in visits:
        row = found[visit.visit_id]
        assert of_model(row) == pytest.approx(features(visit, known), rel=1e-12, abs=1e-9)
        assert row["device"] == visit.device
        assert legacy[visit.visit_id]["device"] == legacy_device(visit, hits)


def test_columns_are_those_of_the_table(logs: WarehouseResource):
    counter = keep(logs, [Visit(1)], [])
    own = [name for name, _, _ in visit_features(ZONE).definitions() if name != "dt_inserted"]
    assert sorted(computed(logs, counter)[1]) == sorted(own)


# The two models that came with the old script, where their folder is at hand

SAMPLES = os.environ.get("SVOD_SAMPLES")
REFERENCE = [
    ((0,), 0, 1, 1, 0.000039, 0.007293),
    ((0, 16), 41, 2, 0, 0.085262, 0.025624),
    ((0, 14, 29, 44, 59), 120, 3, 0, 0.344188, 0.288888),
    ((0, 15, 30, 45, 60), 179, 4, 0, 0.833672, 0.855125),
    ((0, 20, 50, 95, 140, 200), 205, 4, 0, 0.033394, 0.900459),
    ((0, 5, 900), 905, 3, 0, 0.015261, 0.357900),
    ((), 60, 2, 0, 0.036388, 0.055449),
]


@pytest.mark.skipif(not SAMPLES, reason="SVOD_SAMPLES does not name the folder of samples")
@pytest.mark.parametrize(("offsets", "duration", "page_views", "bounce", "desktop", "mobile"), REFERENCE)
def test_reference_vectors_of_the_real_models(
    logs: WarehouseResource,
    offsets: Sequence[int],
    duration: int,
    page_views: int,
    bounce: int,
    desktop: float,
    mobile: float,
):
    import numpy as np

    found = vector(logs, offsets, duration=duration, page_views=page_views, bounce=bounce)
    for name, expected in (("desktop", desktop), ("mobile", mobile)):
        file = Path(SAMPLES or "") / "metrika" / "models" / f"level4_{name}_slot.joblib"
        model = read_model(file, frozenset({digest(file.read_bytes())}))
        row = np.array([[found[feature] for feature in model.features]], np.float64)
        assert model.probabilities(row)[0] == pytest.approx(expected, abs=5e-7)
