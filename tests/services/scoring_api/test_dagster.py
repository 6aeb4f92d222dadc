"""The service and Dagster together: a task through a run, conversions through sensors, lost runs."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression

from resources.metrika.features import FEATURES
from resources.postgres import EmbeddedPostgres
from resources.scoring_service.ledger import Ledger
from resources.scoring_service.resource import TASK_TAG
from resources.scoring_service.uploads import Uploads
from sandbox.metrika import TOKEN
from sensors.metrika_scoring_service import SILENCE_S
from tests.etl_assets.metrika.counter_house import CounterHouse, counter_house, day, failures
from tests.services.scoring_api.scoring_house import Running, item, ledger_of, make_hook

VLADIVOSTOK = 100002  # not the counter of the settings, and in another zone
YESTERDAY = 3


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models that select about half of the visits."""
    folder = tmp_path_factory.mktemp("models")
    table = pd.DataFrame(np.random.default_rng(3).random((60, len(FEATURES))), columns=list(FEATURES))
    model = LogisticRegression().fit(table, table["slots"] > 0.5)
    for name in ("desktop", "mobile"):
        skops.io.dump(model, folder / f"level4_{name}_slot.skops")
    return folder


@pytest.fixture(scope="module")
def place(service: Running, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CounterHouse]:
    """Dagster with the service's database and no token of its own; the service has the same Metrika."""
    settings = {
        "METRIKA_MODELS_DIR": str(models),
        "METRIKA_TOKEN": "",
        "SCORING_CREATE_GOALS": "true",
        **{name: service.environ[name] for name in ("SVOD_POSTGRES_URL", "SCORING_ENCRYPTION_KEY")},
    }
    with counter_house(tmp_path_factory.mktemp("house"), None, **settings) as found:
        yield found


@pytest.fixture
def ledger(service: Running) -> Iterator[Ledger]:
    found = ledger_of(service)
    with found.engine.begin() as db:  # what other tests left open
        db.exec_driver_sql(
            "UPDATE scoring.tasks SET finished_at = now(), status = 'failed' WHERE finished_at IS NULL"
        )
        db.exec_driver_sql("UPDATE scoring.uploads SET state = 'done'")
        db.exec_driver_sql("DELETE FROM scoring.conversions WHERE upload_id IS NULL")
    yield found
    found.close()


def tick(place: CounterHouse, name: str) -> Any:
    """What a sensor decides now."""
    repository = place.defs.get_repository_def()
    sensor = repository.get_sensor_def(name)
    used = {"scoring_service": (place.defs.resources or {})["scoring_service"]}
    with dg.build_sensor_context(
        instance=place.instance, repository_def=repository, resources=used
    ) as context:
        return sensor.evaluate_tick(context)


def carry_out(place: CounterHouse, job: str, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """The run that a sensor asks for, as the daemon would start it."""
    definition = place.defs.resolve_job_def(job)
    return definition.execute_in_process(
        instance=place.instance,
        partition_key=request.partition_key,
        tags=dict(request.tags),
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )


def ask_for_task(http: httpx.Client, **values: Any) -> str:
    body = {"date": str(day(YESTERDAY)), "token": TOKEN, "counter": VLADIVOSTOK, **values}
    return http.post("/tasks", json=body).json()["task_id"]


def test_a_task_is_scored_by_a_run_and_its_result_is_served(
    place: CounterHouse, http: httpx.Client, ledger: Ledger
):
    task = ask_for_task(http)
    (request,) = tick(place, "scoring_tasks").run_requests
    assert (request.run_key, request.partition_key) == (f"task {task}", str(day(YESTERDAY)))
    assert TOKEN not in repr(request)
    result = carry_out(place, "scoring_task", request)
    assert result.success, failures(result)
    status = http.get(f"/tasks/{task}/status").json()
    assert (status["status"], status["progress"], status["error"]) == ("done", 100, None)
    found = http.get(f"/tasks/{task}/result", params={"limit": 1000}).json()
    there = {
        str(row["visitID"]): row for row in place.metrika.logs.rows(VLADIVOSTOK, "visits", day(YESTERDAY))
    }
    assert 0 < found["pagination"]["total"] < len(there)
    for row in found["data"]:
        visit = there[row["visitId"]]
        assert row["clientId"] == str(visit["clientID"])
        assert row["visitDuration"] == visit["visitDuration"]
        assert row["dateTime"] == str(visit["dateTime"])[:19]
    assert len({row["visitId"] for row in found["data"]}) == found["pagination"]["total"]
    assert tick(place, "scoring_tasks").skip_message
    stored = place.instance.get_run_by_id(result.run_id)
    assert stored
    assert TOKEN not in repr(stored)
    assert all(TOKEN not in entry.to_json() for entry in place.instance.all_logs(result.run_id))


def test_the_error_of_a_run_becomes_that_of_the_task(place: CounterHouse, http: httpx.Client, ledger: Ledger):
    task = ask_for_task(http, token="nobody-knows-it")
    (request,) = tick(place, "scoring_tasks").run_requests
    result = carry_out(place, "scoring_task", request)
    assert not result.success
    assert tick(place, "scoring_tasks").skip_message
    status = http.get(f"/tasks/{task}/status").json()
    assert status["status"] == "failed"
    assert "Metrika" in status["error"]
    assert "nobody-knows-it" not in status["error"]


def test_a_run_under_way_shows_its_progress_and_a_lost_one_fails(
    place: CounterHouse, http: httpx.Client, ledger: Ledger
):
    task = ask_for_task(http)
    job = place.defs.resolve_job_def("scoring_task")
    run = place.instance.create_run_for_job(
        job_def=job, tags={TASK_TAG: task}, status=dg.DagsterRunStatus.STARTED
    )
    assert tick(place, "scoring_tasks").skip_message
    status = http.get(f"/tasks/{task}/status").json()
    assert (status["status"], status["progress"]) == ("running", 10)
    place.instance.report_run_failed(run)
    tick(place, "scoring_tasks")
    assert http.get(f"/tasks/{task}/status").json()["status"] == "failed"


def test_a_run_whose_process_was_killed_is_noticed(
    place: CounterHouse, http: httpx.Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    task = ask_for_task(http)
    job = place.defs.resolve_job_def("scoring_task")
    run = place.instance.create_run_for_job(
        job_def=job, tags={TASK_TAG: task}, status=dg.DagsterRunStatus.STARTED
    )
    place.instance.report_engine_event("Started", run)
    silent = time.time() + SILENCE_S + 1
    monkeypatch.setattr("sensors.metrika_scoring_service.time.time", lambda: silent)
    with ledger.at_work(uuid.UUID(task)):
        tick(place, "scoring_tasks")
        assert http.get(f"/tasks/{task}/status").json()["status"] == "running"
    tick(place, "scoring_tasks")
    found = place.instance.get_run_by_id(run.run_id)
    assert found
    assert found.status == dg.DagsterRunStatus.FAILURE
    tick(place, "scoring_tasks")  # where Dagster retries no run, that is the end
    assert "process is gone" in http.get(f"/tasks/{task}/status").json()["error"]


def test_a_day_that_is_not_over_fails_the_task_at_once(
    place: CounterHouse, http: httpx.Client, ledger: Ledger
):
    task = ask_for_task(http, date=str((datetime.now(UTC) + timedelta(days=3)).date()))
    assert tick(place, "scoring_tasks").skip_message
    assert "not over" in http.get(f"/tasks/{task}/status").json()["error"]


def test_accepted_conversions_reach_metrika_and_the_status_tells(
    place: CounterHouse, http: httpx.Client, ledger: Ledger
):
    known = place.metrika.logs.rows(VLADIVOSTOK, "visits", day(YESTERDAY))[0]["clientID"]
    hook = make_hook(http, counter_id=VLADIVOSTOK, token=TOKEN)
    batch = hook.send(item(client_id=str(known), target="lead")).json()["batch_id"]
    (request,) = tick(place, "scoring_uploads").run_requests
    result = carry_out(place, "scoring_uploads", request)
    assert result.success, failures(result)
    assert hook.status(batch).json()["status"] == "uploaded"
    assert "Metrika processes 1" in tick(place, "scoring_uploads").skip_message
    seen = set()
    for _ in range(6):
        assert "1 of 1" in tick(place, "scoring_upload_statuses").skip_message or seen
        seen.add(ledger.batch(uuid.UUID(batch))["status"])  # type: ignore[index]
    assert seen >= {"processing", "completed"}
    told = hook.status(batch).json()
    assert (told["status"], told["processed"], told["total"]) == ("completed", 1, 1)
    assert told["metrika_upload_id"]
    event = place.instance.get_latest_materialization_event(dg.AssetKey(["scoring", "uploads"]))
    assert event
    assert event.asset_materialization
    assert event.asset_materialization.metadata["conversions_sent"].value == 1


def test_a_run_that_is_sending_is_not_joined_by_another_unless_its_process_is_gone(
    place: CounterHouse, http: httpx.Client, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    make_hook(http, counter_id=VLADIVOSTOK, token=TOKEN).send(item())
    job = place.defs.resolve_job_def("scoring_uploads")
    run = place.instance.create_run_for_job(job_def=job, status=dg.DagsterRunStatus.STARTED)
    place.instance.report_engine_event("Started", run)
    assert "is sending" in tick(place, "scoring_uploads").skip_message
    silent = time.time() + SILENCE_S + 1
    monkeypatch.setattr("sensors.metrika_scoring_service.time.time", lambda: silent)
    with Uploads(ledger).alone():
        assert "is sending" in tick(place, "scoring_uploads").skip_message
    assert tick(place, "scoring_uploads").run_requests
    found = place.instance.get_run_by_id(run.run_id)
    assert found
    assert found.status == dg.DagsterRunStatus.FAILURE


def test_a_service_that_never_ran_is_no_error(
    place: CounterHouse, postgres: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SVOD_POSTGRES_URL", postgres.url)  # a database without its tables
    for name in ("scoring_tasks", "scoring_uploads", "scoring_upload_statuses"):
        assert "has not been started" in tick(place, name).skip_message


def test_a_missing_key_is_one_line(place: CounterHouse, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SCORING_ENCRYPTION_KEY")
    with pytest.raises(dg.Failure, match="SCORING_ENCRYPTION_KEY"):
        tick(place, "scoring_uploads")
