"""Training: labels, split by time, thresholds, versions, promotion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from etl_assets.metrika.fields import VISITS
from etl_assets.metrika.level4_settings import Level4Settings
from etl_assets.metrika.level4_tables import visit_features
from etl_assets.metrika.training import BY_HAND, TrainingConfig, build_models, build_promotion
from etl_assets.metrika.training_fit import Examples, TooFewExamples, choose_threshold, measure, train
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from resources.metrika import MetrikaResource
from resources.metrika.features import FEATURES
from resources.metrika.models_directory import ModelsDirectory
from tests.etl_assets.house import QUIET, failures

COUNTER, GOAL = 77, 310000001


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl_assets.metrika.training_fit.TREES", 40)


SCORES = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0]), st.integers(0, 1)), min_size=1
)


@settings(deadline=None)
@given(pairs=SCORES, target=st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_the_threshold_selects_most_visits_at_the_target(pairs: list[tuple[float, int]], target: float):
    scores, good = (np.array(column) for column in zip(*pairs, strict=True))
    threshold, reached = choose_threshold(scores, good, target)

    def selected(cut: float) -> tuple[int, float]:
        """(how many visits, their precision) of those greater than a threshold."""
        chosen = scores > cut
        return int(chosen.sum()), float(good[chosen].mean()) if chosen.any() else 0.0

    ways = [selected(cut) for cut in (0.0, *scores) if selected(cut)[0]]  # all that select something
    enough = [count for count, precision in ways if precision >= target]
    count, precision = selected(threshold)
    assert 0 <= threshold <= 1
    assert reached == bool(enough)
    assert count == max(enough) if enough else precision == max((p for _, p in ways), default=0.0)


def test_quality_is_of_visits_greater_than_the_threshold():
    quality = measure(np.array([0.2, 0.5, 0.6, 0.9]), np.array([0, 1, 0, 1]), 0.5)
    assert (quality.precision, quality.recall, quality.roc_auc) == (0.5, 0.5, 0.75)


def some(rows: int, seed: int = 3) -> Examples:
    """Visits that are good when they are long, with some noise."""
    random = np.random.default_rng(seed)
    table = random.random((rows, len(FEATURES))) * 300
    good = (table[:, 6] + random.normal(0, 30, rows) > 200).astype(np.int64)
    return Examples(table, good)


@pytest.mark.parametrize("learner", ["lightgbm", "hist_gradient_boosting"])
def test_a_model_is_measured_on_visits_later_than_those_it_learnt_from(learner: Any):
    examples = some(1000)
    trained = train(examples, learner, 0.9)
    assert trained.quality.visits == 200
    assert trained.quality.good == examples.good[800:].sum()
    np.testing.assert_array_equal(trained.good, examples.good[800:])
    assert trained.quality.roc_auc > 0.85
    assert trained.reached
    turned = Examples(examples.rows, np.concatenate([examples.good[:800], 1 - examples.good[800:]]))
    assert train(turned, learner, 0.9).quality.roc_auc < 0.15


@pytest.mark.parametrize("rows", [0, 60, 200])
def test_too_few_examples_are_counted(rows: int):
    with pytest.raises(TooFewExamples, match="20 of each kind are needed"):
        train(some(rows), "lightgbm", 0.8)


# The asset


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarehouseResource]:
    """Features and goals of 3000 visits: desktop ones of three days, and few of mobile."""
    path = tmp_path_factory.mktemp("training") / "engine"
    made = WarehouseResource(url=f"chdb://{path}")
    patched = pytest.MonkeyPatch()
    patched.setattr("resources.clickhouse.engine.LINGER_S", 600)  # nobody else wants the engine
    made.ensure(VISITS.table("UTC"))
    table, _ = made.ensure(visit_features("UTC"))
    examples, start = some(3000), datetime(2026, 10, 5)
    rows, visits = [], []
    for number, (features, good) in enumerate(zip(examples.rows, examples.good, strict=True)):
        at = start + timedelta(seconds=number * 80)
        row: dict[str, Any] = dict(zip(FEATURES.values(), map(float, features), strict=True))
        row |= {n: int(row[n]) for n in ("visit_duration", "page_views", "slots", "slot_range")}
        row |= {"counter_id": COUNTER, "date": at.date(), "visit_id": number, "date_time": at}
        rows.append(row | {"device": 2 if number % 50 == 0 else 1, "known_hits": 1, "bounce": 0})
        goals = [5, GOAL] if good else [5]
        visits.append((COUNTER, at.date(), number, goals))
    with made.session() as client:
        client.insert(table.full_name, [list(r.values()) for r in rows], column_names=list(rows[0]))
        client.insert("metrika.visits", visits, column_names=["counter_id", "date", "visit_id", "goals_id"])
        client.command("CREATE DATABASE IF NOT EXISTS marts")
        client.command(
            "CREATE TABLE marts.labels ENGINE = MergeTree ORDER BY visit_id AS "
            f"SELECT visit_id, has(goals_id, {GOAL}) AS label FROM metrika.visits WHERE visit_id < 2500"
        )
    yield made
    patched.undo()
    Embedded.at(str(path)).close()


@pytest.fixture
def settings_of(tmp_path: Path) -> Level4Settings:
    return Level4Settings(ModelsDirectory.at(str(tmp_path)), label_goal=str(GOAL), target_precision=0.9)


_instance = dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}})


def run(
    warehouse: WarehouseResource, settings_: Level4Settings, config: TrainingConfig | None = None
) -> dg.ExecuteInProcessResult:
    chosen = {"ops": {"metrika__level4_models": {"config": (config or TrainingConfig()).model_dump()}}}
    return dg.materialize(
        [build_models(settings_)],
        instance=_instance,
        resources={"warehouse": warehouse, "metrika": MetrikaResource()},
        run_config=QUIET | chosen,
        raise_on_error=False,
    )


def told(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    assert result.success, failures(result)
    (event,) = result.get_asset_materialization_events()
    return {n: v.value for n, v in event.materialization.metadata.items()}


def test_the_first_version_is_used_at_once_and_the_next_only_when_promoted(
    warehouse: WarehouseResource, settings_of: Level4Settings
):
    models = settings_of.models
    first = told(run(warehouse, settings_of))
    assert first["in_use"] == first["version"] == models.current()
    assert first["desktop_roc_auc"] > 0.85
    assert first["not_trained"].startswith("mobile: ")
    assert "data:image/png;base64," in first["curves"]
    assert "| desktop | 588 |" in first["quality"]
    second = told(run(warehouse, replace(settings_of, learner="hist_gradient_boosting")))
    assert second["in_use"] == first["version"]
    assert models.versions() == sorted([first["version"], second["version"]])
    third = told(run(warehouse, settings_of, TrainingConfig(promote=True)))
    assert third["in_use"] == third["version"]
    chosen = models.load("desktop")
    assert (chosen.version, chosen.threshold) == (
        third["version"],
        pytest.approx(third["desktop_threshold"], abs=1e-5),
    )
    about = json.loads((models.home / "versions" / third["version"] / "training.json").read_text())
    assert about["label"] == f"goal {GOAL}"


def test_given_models_stay_in_use(warehouse: WarehouseResource, settings_of: Level4Settings):
    (settings_of.models.home / "level4_mobile.joblib").touch()
    found = told(run(warehouse, settings_of))
    assert (found["in_use"], settings_of.models.current()) == ("the given models", None)
    tags = build_models(settings_of).tags_by_key[dg.AssetKey(["metrika", "level4_models"])]
    assert BY_HAND in tags


def test_a_labelled_table_teaches_too(warehouse: WarehouseResource, settings_of: Level4Settings):
    found = told(run(warehouse, replace(settings_of, label_goal="", label_table="marts.labels")))
    assert "| desktop | 490 |" in found["quality"]


def test_days_bound_the_examples(warehouse: WarehouseResource, settings_of: Level4Settings):
    config = TrainingConfig(first_day="2026-10-05", last_day="2026-10-06")
    found = told(run(warehouse, settings_of, config))
    visits = warehouse.query(
        "SELECT count() FROM metrika.visit_features WHERE device = 1 AND date <= '2026-10-06'"
    )
    assert f"| desktop | {round(visits[0][0]) - round(visits[0][0] * 0.8)} |" in found["quality"]


@pytest.mark.parametrize(
    ("changes", "config", "said"),
    [
        ({"label_goal": ""}, {}, "set METRIKA_LABEL_GOAL"),
        ({"label_goal": "1"}, {}, "No model could be trained. desktop: 0 good ones of"),
        ({"label_table": "marts.nothing"}, {}, "marts.nothing has no column label, visit_id"),
        ({"label_table": "labels; DROP TABLE x"}, {}, "METRIKA_LABEL_TABLE must be database.table"),
        ({"label_goal": "4plus"}, {}, "METRIKA_TOKEN is not set"),
        ({}, {"first_day": "yesterday"}, "first_day and last_day must be days"),
    ],
)
def test_what_cannot_be_learnt_from_is_one_line(
    warehouse: WarehouseResource, settings_of: Level4Settings, changes: Any, config: Any, said: str
):
    result = run(warehouse, replace(settings_of, **changes), TrainingConfig(**config))
    assert said in failures(result)["metrika__level4_models"]
    assert settings_of.models.versions() == []


def test_the_job_promotes_a_version_and_goes_back(settings_of: Level4Settings):
    models = settings_of.models
    models.add_version("v1", {}, {})
    job = build_promotion(settings_of)
    for version, current in (("v1", "v1"), ("", None)):
        config = {"ops": {"promote_models": {"config": {"version": version}}}}
        assert job.execute_in_process(run_config=QUIET | config).success
        assert models.current() == current
