"""The daily scoring end to end: raw logs in the warehouse, assets, selected visits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from shutil import copy
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import skops.io
from lightgbm import LGBMClassifier

from etl_assets.loading import FEED_TAG
from etl_assets.metrika.fields import HITS, VISITS
from etl_assets.metrika.level4 import COUNTERS_TAG, level4_assets
from etl_assets.metrika.level4_settings import Level4Settings
from etl_assets.partitions import daily
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from resources.metrika import MetrikaResource
from resources.metrika.features import FEATURES, FeatureRules
from resources.metrika.models_directory import ModelsDirectory
from tests.etl_assets.house import QUIET, RANGE_END, RANGE_START, failures
from tests.resources.metrika.slow_features import Hit, Visit, features, seconds

ZONE = "Europe/Moscow"
FIRST, SECOND = date(2026, 10, 7), date(2026, 10, 8)
DAILY = daily("2026-10-01", ZONE)
FAR = 10**19  # ids may be greater than a signed 64-bit number
EVERY_15_S = tuple(range(0, 75, 15))


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarehouseResource]:
    """A warehouse with the two raw logs, still empty."""
    path = tmp_path_factory.mktemp("level4") / "engine"
    made = WarehouseResource(url=f"chdb://{path}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("resources.clickhouse.engine.LINGER_S", 600)  # nobody else wants the engine
        for log in (VISITS, HITS):
            made.ensure(log.table(ZONE))
        yield made
        Embedded.at(str(path)).close()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> ModelsDirectory:
    """Two small models with different opinions."""
    folder = tmp_path_factory.mktemp("models")
    random = np.random.default_rng(7)
    table = pd.DataFrame(random.random((400, len(FEATURES))) * 300, columns=list(FEATURES))
    for name, column in (("desktop", "duration"), ("mobile", "slots")):
        good = (table[column] > 100).astype(int)
        model = LGBMClassifier(n_estimators=20, verbose=-1, n_jobs=1).fit(table, good)
        skops.io.dump(model, folder / f"level4_{name}_slot.skops")
    return ModelsDirectory.at(str(folder))


class Runs:
    """Logs as they were downloaded, and runs of the assets over them."""

    def __init__(self, warehouse: WarehouseResource, settings: Level4Settings, counter: int) -> None:
        self.warehouse, self.counter = warehouse, counter
        self.assets = level4_assets(DAILY, ZONE, settings)
        self.instance = dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}})

    def put(
        self, day: date, visits: Sequence[tuple[Visit, Sequence[int]]], counter: int | None = None
    ) -> None:
        """Visits of a day, each with the seconds of its events."""
        counter = counter or self.counter
        rows, hits, now = [], [], datetime.now(UTC)
        for visit, offsets in visits:
            start = datetime(day.year, day.month, day.day, 12)
            own = [Hit(visit.visit_id + i, at, visit.device) for i, at in enumerate(seconds(offsets, start))]
            hits += [(counter, day, h.watch_id, h.at, h.device, now) for h in own]
            watch_ids = [h.watch_id for h in own]
            told = (visit.duration, visit.page_views, visit.device, now)
            rows.append((counter, day, visit.visit_id, 5, watch_ids, start, *told))
        names = (
            "counter_id date visit_id client_id watch_ids date_time visit_duration page_views "
            "device_category dt_inserted"
        )
        with self.warehouse.session() as client:
            for name in ("visits", "hits"):
                client.command(f"ALTER TABLE metrika.{name} DROP PARTITION ID '{day:%Y%m%d}-{counter}'")
            if rows:
                client.insert("metrika.visits", rows, column_names=names.split())
            if hits:
                columns = ["counter_id", "date", "watch_id", "date_time", "device_category", "dt_inserted"]
                client.insert("metrika.hits", hits, column_names=columns)

    def age(self, seconds: int, *tables: str) -> None:
        """As if the rows had come so much earlier."""
        own, aged = f"counter_id = {self.counter}", f"toDateTime(now('UTC') - {seconds}, 'UTC')"
        for table in tables:
            for sql in (
                f"CREATE TABLE metrika.aged ENGINE = Memory AS SELECT * REPLACE ({aged} AS dt_inserted) "
                f"FROM metrika.{table} WHERE {own}",
                f"ALTER TABLE metrika.{table} DELETE WHERE {own} SETTINGS mutations_sync = 1",
                f"INSERT INTO metrika.{table} SELECT * FROM metrika.aged",
                "DROP TABLE metrika.aged",
            ):
                self.warehouse.command(sql)

    def run(
        self,
        first: date = FIRST,
        last: date | None = None,
        counters: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        names = ["visit_features", "level4_visits"]
        days = {RANGE_START: str(first), RANGE_END: str(last or first)}
        chosen = {COUNTERS_TAG: str(self.counter) if counters is None else counters}
        return dg.materialize(
            self.assets,
            selection=[dg.AssetKey(["metrika", n]) for n in names],
            instance=self.instance,
            resources={"warehouse": self.warehouse, "metrika": MetrikaResource()},
            tags=days | {tag: value for tag, value in chosen.items() if value} | (dict(tags) if tags else {}),
            run_config=QUIET,
            raise_on_error=False,
        )

    def load(
        self, first: date = FIRST, last: date | None = None, counters: str | None = None
    ) -> dg.ExecuteInProcessResult:
        result = self.run(first, last, counters)
        assert result.success, failures(result)
        return result

    def selected(self, *days: date) -> list[tuple[int, str]]:
        """(visit, reason) of the days."""
        listed = ", ".join(f"'{d}'" for d in days or (FIRST,))
        sql = "SELECT visit_id, reason FROM metrika.level4_visits WHERE "
        where = f"counter_id = {self.counter} AND date IN ({listed}) ORDER BY visit_id"
        return self.warehouse.query(sql + where)

    def metadata(self, name: str, day: date = FIRST) -> dict[str, Any]:
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(["metrika", name]), asset_partitions=[str(day)]), limit=1
        ).records
        materialization = records[0].asset_materialization
        assert materialization is not None
        return {n: v.value for n, v in materialization.metadata.items()}


_counters = iter(range(100, 10_000))


@pytest.fixture
def settings(models: ModelsDirectory) -> Level4Settings:
    return Level4Settings(models)


@pytest.fixture
def runs(warehouse: WarehouseResource, settings: Level4Settings) -> Runs:
    return Runs(warehouse, settings, next(_counters))


def test_the_rule_asks_no_model_and_needs_none(warehouse: WarehouseResource, tmp_path: Path):
    runs = Runs(warehouse, Level4Settings(ModelsDirectory.at(str(tmp_path))), next(_counters))
    chosen = Visit(FAR, duration=180, page_views=5, device=3)
    runs.put(
        FIRST,
        [
            (chosen, EVERY_15_S),
            (replace(chosen, visit_id=FAR + 100, duration=179), EVERY_15_S),
            (replace(chosen, visit_id=FAR + 200, page_views=4), EVERY_15_S),
            (replace(chosen, visit_id=FAR + 300), EVERY_15_S[:4]),
            (replace(chosen, visit_id=FAR + 400, device=1), EVERY_15_S),
        ],
    )
    runs.load()
    assert runs.selected() == [(FAR, "rule"), (FAR + 400, "rule")]


def test_a_model_that_is_needed_and_missing_is_one_line(warehouse: WarehouseResource, tmp_path: Path):
    runs = Runs(warehouse, Level4Settings(ModelsDirectory.at(str(tmp_path))), next(_counters))
    runs.put(FIRST, [(Visit(1, device=2), (0,))])
    result = runs.run()
    assert list(failures(result)) == ["metrika__level4_visits"]
    assert "There is no mobile model in" in failures(result)["metrika__level4_visits"]


@pytest.mark.parametrize("tag", ["dagster/schedule_name", FEED_TAG])
def test_raw_logs_alone_are_no_red_run_each_morning(warehouse: WarehouseResource, tmp_path: Path, tag: str):
    runs = Runs(warehouse, Level4Settings(ModelsDirectory.at(str(tmp_path))), next(_counters))
    runs.put(FIRST, [(Visit(1, device=2), (0,))])
    result = runs.run(tags={tag: "metrika_daily"})
    assert result.success, failures(result)
    done = {
        e.asset_key
        for e in result.get_asset_materialization_events()
        if e.asset_key and e.asset_key.path[0] != "bi"
    }
    assert done == {dg.AssetKey(["metrika", "visit_features"])}, "what was not scored is not shown as such"
    noted = [e for e in result.all_events if e.event_type == dg.DagsterEventType.ASSET_OBSERVATION]
    assert "Put models into METRIKA_MODELS_DIR, or train some" in str(noted[0].event_specific_data)


def test_one_model_of_two_is_a_mistake_that_is_told(
    warehouse: WarehouseResource, models: ModelsDirectory, tmp_path: Path
):
    copy(models.home / "level4_desktop_slot.skops", tmp_path)
    runs = Runs(warehouse, Level4Settings(ModelsDirectory.at(str(tmp_path))), next(_counters))
    runs.put(FIRST, [(Visit(1, device=2), (0,))])
    result = runs.run(tags={"dagster/schedule_name": "metrika_daily"})
    assert "There is no mobile model in" in failures(result)["metrika__level4_visits"]


def test_the_feed_computes_only_days_whose_logs_came_anew(runs: Runs, models: ModelsDirectory):
    def fed() -> list[tuple[str, str]]:
        """(asset, first day) of what was computed."""
        done = runs.run(FIRST, SECOND, tags={FEED_TAG: "true"})
        assert done.success, failures(done)
        sql = "SELECT asset, toString(toDate(window_from)) FROM svod.load_log WHERE run_id = {r:String}"
        return sorted(runs.warehouse.query(sql, {"r": done.run_id}))

    tables = ["metrika/level4_visits", "metrika/visit_features", "metrika/visit_scores"]
    before, after = many(60, seed=8), many(60, seed=9)
    runs.put(FIRST, before)
    runs.put(SECOND, before)
    runs.age(7200, "visits", "hits")
    assert fed() == [(table, str(FIRST)) for table in tables]
    runs.age(3600, "visit_features")
    assert fed() == []
    assert runs.metadata("visit_features")["dagster/partition_row_count"] == len(before)
    runs.put(SECOND, after)
    assert fed() == [(table, str(SECOND)) for table in tables]
    assert runs.selected(FIRST) == expected(models, before)
    assert runs.selected(SECOND) == expected(models, after)


def many(count: int, seed: int) -> list[tuple[Visit, Sequence[int]]]:
    random = np.random.default_rng(seed)
    return [
        (
            Visit(
                FAR + 1000 * i,
                duration=int(random.integers(0, 300)),
                page_views=int(random.integers(1, 9)),
                bounce=int(random.integers(0, 2)),
                device=int(random.integers(0, 5)),
            ),
            sorted(int(s) for s in random.integers(0, 400, random.integers(0, 12))),
        )
        for i in range(count)
    ]


def expected(models: ModelsDirectory, visits: Sequence[tuple[Visit, Sequence[int]]]) -> list[tuple[int, str]]:
    """The decision as the specification has it, one visit at a time."""
    chosen = {1: models.load("desktop"), 2: models.load("mobile")}
    found = []
    for visit, offsets in visits:
        times = {visit.visit_id + i: at for i, at in enumerate(seconds(offsets))}
        row = features(replace(visit, watch_ids=tuple(times), bounce=0), times)
        if visit.duration >= 180 and visit.page_views >= 5 and row["slots"] >= 5:
            found.append((visit.visit_id, "rule"))
        elif model := chosen.get(visit.device):
            probability = model.model.probabilities(np.array([[row[f] for f in model.model.features]]))
            if probability[0] > model.threshold:
                found.append((visit.visit_id, "model"))
    return found


def test_selection_is_rule_or_model_of_the_device(
    runs: Runs, models: ModelsDirectory, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resources.metrika.scoring.BATCH_ROWS", 37)
    visits = many(300, seed=1)
    runs.put(FIRST, visits)
    runs.load()
    wanted = expected(models, visits)
    assert runs.selected() == wanted
    assert {reason for _, reason in wanted} == {"rule", "model"}
    told = runs.metadata("level4_visits")
    assert told["selected_by_rule"] + told["selected_by_model"] == len(wanted)
    assert told["dagster/partition_row_count"] == len(wanted)
    assert 0 < runs.metadata("visit_features")["hits_known_share"] <= 1
    sql = "SELECT count(), countIf(score > threshold) FROM metrika.visit_scores WHERE counter_id = "
    scores = runs.warehouse.query(f"{sql}{runs.counter}")[0]
    by_rule = sum(v.device in (1, 2) for v, _ in visits) - scores[0]
    assert scores[1] == len([r for _, r in wanted if r == "model"])
    assert by_rule > 0
    assert runs.metadata("visit_scores")["dagster/partition_row_count"] == scores[0]


def test_a_threshold_is_not_enough(warehouse: WarehouseResource, tmp_path: Path, models: ModelsDirectory):
    visit = (Visit(1, duration=50, page_views=2, device=1), (0, 20))
    own = ModelsDirectory.at(str(tmp_path))
    for file in models.home.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    runs = Runs(warehouse, Level4Settings(own), next(_counters))
    runs.put(FIRST, [visit])
    runs.load()
    (score,) = warehouse.query(f"SELECT score FROM metrika.visit_scores WHERE counter_id = {runs.counter}")[0]
    for threshold, selected in ((score, []), (float(np.nextafter(score, 0)), [(1, "model")])):
        (tmp_path / "level4_thresholds.json").write_text(f'{{"desktop": {threshold!r}}}')
        runs.load()
        assert runs.selected() == selected


def test_the_old_device_rule(warehouse: WarehouseResource, models: ModelsDirectory, settings: Level4Settings):
    counter = next(_counters)
    old = Runs(warehouse, replace(settings, rules=FeatureRules("legacy")), counter)
    old.put(FIRST, [(Visit(10**18, device=1), (0, 1)), (Visit(FAR, device=1), (0, 1))])
    old.load()
    devices = f"SELECT device FROM metrika.visit_features WHERE counter_id = {counter} ORDER BY visit_id"
    assert warehouse.query(devices) == [(1,), (0,)]


def test_visits_without_events_may_be_left_to_the_rule(
    warehouse: WarehouseResource, settings: Level4Settings
):
    counter = next(_counters)
    for wanted, scored in ((True, 2), (False, 1)):
        runs = Runs(warehouse, replace(settings, score_without_hits=wanted), counter)
        runs.put(FIRST, [(Visit(1), ()), (Visit(200), (0,))])
        runs.load()
        sql = f"SELECT count() FROM metrika.visit_scores WHERE counter_id = {counter}"
        assert warehouse.query(sql) == [(scored,)]
        assert runs.metadata("visit_features")["visits_without_known_hits"] == 1


def test_a_range_is_scored_day_by_day_and_a_rerun_replaces(runs: Runs, models: ModelsDirectory):
    days = {FIRST: many(40, seed=2), SECOND: many(50, seed=3)}
    for day, visits in days.items():
        runs.put(day, visits)
    for _ in range(2):
        runs.load(FIRST, SECOND)
        for day, visits in days.items():
            assert runs.selected(day) == expected(models, visits)
            rows = runs.metadata("level4_visits", day)["dagster/partition_row_count"]
            assert rows == len(runs.selected(day))
    runs.put(SECOND, days[SECOND][:5])
    runs.load(SECOND)
    assert runs.selected(FIRST) == expected(models, days[FIRST])
    assert runs.selected(SECOND) == expected(models, days[SECOND][:5])


def test_a_day_that_became_empty_has_no_results(runs: Runs):
    chosen, day = Visit(FAR, duration=180, page_views=5), date(2026, 10, 2)
    runs.put(day, [(chosen, EVERY_15_S)])
    runs.load(day)
    assert runs.selected(day) == [(FAR, "rule")]
    runs.put(day, [])
    runs.load(day, counters="")
    assert runs.selected(day) == []


def test_counters_do_not_touch_each_other(runs: Runs):
    visits = [(Visit(FAR, duration=180, page_views=5), EVERY_15_S)]
    other = next(_counters)
    runs.put(FIRST, visits)
    runs.put(FIRST, visits, other)
    runs.load()
    sql = "SELECT counter_id FROM metrika.level4_visits WHERE counter_id IN ({}, {}) ORDER BY counter_id"
    assert runs.warehouse.query(sql.format(runs.counter, other)) == [(runs.counter,)]
    runs.load(counters=f"{other}")
    assert runs.warehouse.query(sql.format(runs.counter, other)) == [(runs.counter,), (other,)]


def test_a_reversed_range_fails(runs: Runs):
    runs.put(FIRST, [])
    result = runs.run(SECOND, FIRST)
    assert "The partition range ends before it starts" in next(iter(failures(result).values()))


def test_without_raw_logs_it_says_what_to_load(tmp_path: Path, settings: Level4Settings):
    empty = WarehouseResource(url=f"chdb://{tmp_path}/engine")
    try:
        result = Runs(empty, settings, 1).run()
        assert "materialize metrika/visits first" in failures(result)["metrika__visit_features"]
    finally:
        Embedded.at(f"{tmp_path}/engine").close()


def test_drift_between_days_is_a_warning_with_a_histogram(runs: Runs):
    same, other = many(900, seed=4), many(900, seed=5)
    runs.put(FIRST, same)
    runs.put(SECOND, other)
    third = SECOND + timedelta(days=1)
    runs.put(third, [(replace(v, duration=1 + v.duration // 100, device=1), (0,)) for v, _ in other])
    runs.load(FIRST)
    assert checks(runs) == [(True, "No two days with 100 scored visits to compare")]
    runs.load(SECOND)
    assert checks(runs)[-1] == (True, None)
    runs.load(third)
    passed, said = checks(runs)[-1]
    assert not passed
    assert f"{third} (desktop)" in (said or "")


def checks(runs: Runs) -> list[tuple[bool, str | None]]:
    """(passed, description) of the checks of drift, oldest first."""
    found = []
    for run in reversed(runs.instance.get_runs()):
        for record in runs.instance.get_records_for_run(run.run_id).records:
            event = record.event_log_entry.dagster_event
            if event and event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
                evaluation: Any = event.event_specific_data
                found.append((evaluation.passed, evaluation.description))
    return found
