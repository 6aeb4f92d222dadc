"""The raw logs through Dagster: days become exactly what the API says, whatever happens on the way."""

import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pytest

from etl_assets.metrika.level4 import COUNTERS_TAG
from etl_assets.metrika.level4_settings import level4_settings
from etl_assets.metrika.settings import metrika_resource, metrika_settings
from sandbox.metrika import TOKEN
from tests.etl_assets.metrika.counter_house import (
    COUNTER,
    QUIET,
    CounterHouse,
    checks,
    counter_house,
    day,
    failures,
    small,
)

EAST, WEST = 100002, 100003


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CounterHouse]:
    with counter_house(tmp_path_factory.mktemp("metrika"), small(visits_per_day=15)) as house:
        yield house


@pytest.fixture
def house(shared: CounterHouse) -> Iterator[CounterHouse]:
    """The shared one, without rows and as it was configured."""
    before = {**vars(shared.metrika.config)}
    yield shared
    shared.metrika.faults.clear()
    for name, value in before.items():
        setattr(shared.metrika.config, name, value)
    shared.metrika.logs.requests.clear()
    for table in ("visits", "hits"):
        shared.warehouse.command(f"TRUNCATE TABLE IF EXISTS metrika.{table}")


def differences(house: CounterHouse, *ago: int, counter: int = COUNTER) -> list[str]:
    """Tables and days whose ids are not exactly those of the source."""
    found = []
    for table in ("visits", "hits"):
        for n in ago:
            here, there = house.ids(table, n, counter), house.there(table, n, counter)
            if here != there:
                found.append(f"{table} {n} days ago: {len(here)} rows, {len(there)} at the source")
    return found


def test_a_range_is_one_log_request_and_every_check_passes(house: CounterHouse):
    result = house.load("visits", "hits", ago=(3, 1), checks=True)
    assert differences(house, 1, 2, 3) == []
    assert all(checks(result).values())
    requests = house.metrika.logs.requests[COUNTER]
    assert sorted((r.source, r.first, r.last, r.status) for r in requests) == [
        ("hits", day(3), day(1), "cleaned_by_user"),
        ("visits", day(3), day(1), "cleaned_by_user"),
    ]
    told = house.metadata("visits")
    assert told["dagster/partition_row_count"] == len(house.there("visits", 1))
    assert "data:image/png" in told["rows_by_day"]


def test_values_arrive_as_they_are(house: CounterHouse):
    house.load("visits", "hits", ago=(2, 1))
    there = {v["visitID"]: v for n in (1, 2) for v in house.metrika.logs.rows(COUNTER, "visits", day(n))}
    rows = house.rows(
        "SELECT visit_id, client_id, watch_ids, toString(date_time), toString(date_time_msk), "
        "device_category, start_url, goals_id, arrayMap(p -> toInt64(p * 1000), goals_price), purchase_id, "
        "direct_click_order, toString(date), referer, arrayMap(t -> toString(t), goals_date_time), "
        "page_views FROM bi.visits"
    )
    assert len(rows) == len(there)
    for row in rows:
        visit = there[row[0]]
        expected = (
            visit["visitID"],
            visit["clientID"],
            visit["watchIDs"],
            visit["dateTime"],
            visit["dateTimeUTC"],
            int(visit["deviceCategory"] or 0),
            visit["startURL"],
            visit["goalsID"],
            visit.get("goalsPrice", []),
            visit.get("purchaseID", []),
            int(visit["DirectClickOrder"] or 0),
            str(visit["date"]),
            visit["referer"],
            visit["goalsDateTime"],
            visit["pageViews"],
        )
        assert tuple(row) == expected
    titles = {h["title"] for n in (1, 2) for h in house.metrika.logs.rows(COUNTER, "hits", day(n))}
    assert {t for (t,) in house.rows("SELECT DISTINCT title FROM bi.hits")} == titles
    ids = house.rows("SELECT max(watch_id), uniqExact(visit_id) FROM bi.hits")[0]
    assert ids[0] > 2**63
    assert ids[1] > 1


def test_a_reload_makes_the_day_what_it_is_now(house: CounterHouse):
    house.metrika.config.today = day(0)
    house.load("visits", "hits", ago=(2, 1))
    young = house.ids("visits", 1)
    house.metrika.config.seed += 1  # other visits altogether
    house.metrika.logs._day.cache_clear()
    house.load("visits", "hits", ago=(1, 1))
    assert differences(house, 1) == []
    assert not set(house.ids("visits", 1)) & set(young)
    house.metrika.config.seed -= 1
    house.metrika.logs._day.cache_clear()
    assert differences(house, 2) == [], "the other day is as it was"


def test_a_day_that_the_source_empties_is_empty(house: CounterHouse):
    house.load("visits", ago=(2, 1))
    house.metrika.config.visits_per_day = 0
    result = house.load("visits", ago=(1, 1), checks=True)
    assert house.ids("visits", 1) == []
    assert house.ids("visits", 2) != []
    assert checks(result)["visits/complete"] is False, "a silent site is worth a look"
    assert checks(result)["visits/days_present"] is False


def test_a_rerun_changes_nothing(house: CounterHouse):
    for _ in range(2):
        house.load("visits", ago=(1, 1))
    assert the_same_visits(house)
    assert house.rows("SELECT count() = uniqExact(visit_id) FROM metrika.visits FINAL") == [(1,)]


def the_same_visits(house: CounterHouse) -> bool:
    return house.ids("visits", 1) == house.there("visits", 1)


@pytest.mark.parametrize(
    ("fault", "path", "options"),
    [
        ("truncate", "download", {"share": 0.6}),
        ("corrupt", "download", {}),
        ("bad_row", "part/1/download", {}),
        ("reset", "", {}),
    ],
)
def test_faults_converge(
    house: CounterHouse, monkeypatch: pytest.MonkeyPatch, fault: str, path: str, options: dict
):
    monkeypatch.setattr("resources.metrika.client.MetrikaClient.sleep", lambda self, seconds: None)
    house.metrika.faults.add(fault, path, times=1 if path == "download" else 2, **options)
    house.load("visits", ago=(2, 1))
    assert house.ids("visits", 1) == house.there("visits", 1)
    assert house.ids("visits", 2) == house.there("visits", 2)
    assert house.rows("SELECT count() FROM svod.rejected_rows WHERE table_name = 'metrika.visits'") == [(0,)]


def test_a_log_that_does_not_fit_is_loaded_in_pieces(house: CounterHouse):
    house.metrika.config.max_days = 2
    house.load("visits", ago=(5, 1))
    assert [house.ids("visits", n) for n in range(1, 6)] == [house.there("visits", n) for n in range(1, 6)]
    spans = [(r.first, r.last) for r in house.metrika.logs.requests[COUNTER]]
    assert spans == [(day(5), day(4)), (day(3), day(2)), (day(1), day(1))]
    assert house.metadata("visits")["log_requests"] == 3


def test_a_tick_of_the_feed_reads_only_days_that_may_have_changed(house: CounterHouse):
    house.load("visits", ago=(6, 1), feed=True)
    house.metrika.logs.requests.clear()
    house.load("visits", ago=(6, 1), feed=True)
    assert [(r.first, r.last) for r in house.metrika.logs.requests[COUNTER]] == [(day(3), day(1))]
    house.metrika.logs.requests.clear()
    result = house.load("visits", ago=(6, 4), feed=True)
    assert house.metrika.logs.requests == {}
    assert checks(result)["visits/complete"]
    assert house.metadata("visits")["dagster/partition_row_count"] == len(house.there("visits", 4))


def test_a_failed_load_leaves_the_day_and_cleans_up(house: CounterHouse, monkeypatch: pytest.MonkeyPatch):
    house.load("visits", ago=(1, 1))
    before = house.ids("visits", 1)
    monkeypatch.setattr("resources.metrika.client.MetrikaClient.sleep", lambda self, seconds: None)
    house.metrika.faults.add("status", "part/1/download", times=None, status=400, error_type="query_error")
    result = house.run("visits", ago=(1, 1))
    assert "query_error" in failures(result)["metrika__visits"]
    assert house.ids("visits", 1) == before
    assert {r.status for r in house.metrika.logs.requests[COUNTER]} == {"cleaned_by_user"}
    left = "SELECT count() FROM system.tables WHERE database = 'metrika' AND match(name, 'stage|scratch')"
    assert house.rows(left) == [(0,)]


def test_values_that_do_not_fit_are_kept_and_told(house: CounterHouse, monkeypatch: pytest.MonkeyPatch):
    rows = house.metrika.logs.rows
    odd = {"visitDuration": "soon", "watchIDs": ["x"], "dateTime": "2026-99-01 00:00:00"}

    def spoilt(counter: int, source: str, on: date) -> list[dict]:
        return [row | (odd if n == 0 else {}) for n, row in enumerate(rows(counter, source, on))]

    monkeypatch.setattr(house.metrika.logs, "rows", spoilt)
    result = house.load("visits", ago=(1, 1))
    assert checks(result)["visits/rejected_rows"] is False
    assert len(house.ids("visits", 1)) == len(rows(COUNTER, "visits", day(1)))
    reasons, raw = house.rows("SELECT reasons, raw FROM svod.rejected_rows")[0]
    assert {r.split(":")[0] for r in reasons} == {"visit_duration", "watch_ids", "date_time"}
    assert json.loads(raw)["ym:s:visitDuration"] == "soon"
    house.warehouse.command("TRUNCATE TABLE svod.rejected_rows")


def test_a_row_without_a_day_or_an_id_is_kept_aside(house: CounterHouse, monkeypatch: pytest.MonkeyPatch):
    rows = house.metrika.logs.rows
    odd = [{"date": "soon"}, {"date": ""}, {"counterID": "none"}, {"visitID": ""}]

    def spoilt(counter: int, source: str, on: date) -> list[dict]:
        return [row | (odd[n] if n < len(odd) else {}) for n, row in enumerate(rows(counter, source, on))]

    monkeypatch.setattr(house.metrika.logs, "rows", spoilt)
    result = house.load("visits", ago=(1, 1))
    assert checks(result)["visits/rejected_rows"] is False
    whole = sorted(row["visitID"] for row in rows(COUNTER, "visits", day(1))[4:])
    assert house.ids("visits", 1) == [0, *whole]
    found = house.rows(
        "SELECT arraySort(groupArray(splitByChar(':', reasons[1])[1])) FROM svod.rejected_rows"
    )
    assert found == [(["counter_id", "date", "date", "visit_id"],)]
    house.warehouse.command("TRUNCATE TABLE svod.rejected_rows")


def test_a_range_that_ends_before_it_starts_is_refused(house: CounterHouse):
    result = house.run("visits", ago=(1, 3))
    assert "ends before it starts" in failures(result)["metrika__visits"]


# Counters


@pytest.fixture(scope="module")
def counters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CounterHouse]:
    wanted = f"{COUNTER}, {EAST},{WEST},{COUNTER}"
    with counter_house(
        tmp_path_factory.mktemp("many"), small(visits_per_day=8), METRIKA_COUNTERS=wanted
    ) as it:
        it.metrika.config.today = day(0)
        yield it


def test_counters_share_the_tables_each_with_its_own_clock(counters: CounterHouse):
    counters.load("visits", "hits", ago=(3, 3))
    for counter, offset in ((COUNTER, 0), (EAST, 7), (WEST, None)):
        assert differences(counters, 3, counter=counter) == []
        there = {v["visitID"]: v for v in counters.metrika.logs.rows(counter, "visits", day(3))}
        rows = counters.rows(
            "SELECT visit_id, toUnixTimestamp(date_time), toUnixTimestamp(date_time_msk), "
            f"toString(date_time) FROM bi.visits WHERE counter_id = {counter}"
        )
        for visit, local, fixed, shown in rows:
            assert local == fixed, "the local time and the one that is UTC+3 are one instant"
            if offset == 0:
                assert shown == there[visit]["dateTime"]


def test_a_reload_of_one_counter_leaves_the_others(counters: CounterHouse):
    counters.load("visits", ago=(4, 4))
    counters.load("visits", ago=(4, 4), tags={COUNTERS_TAG: str(EAST)})
    assert {r.status for r in counters.metrika.logs.requests[EAST]} == {"cleaned_by_user"}
    for counter in (COUNTER, EAST, WEST):
        assert counters.ids("visits", 4, counter) == counters.there("visits", 4, counter)


def test_a_counter_that_fails_does_not_stop_the_others(counters: CounterHouse):
    counters.metrika.faults.add(
        "status",
        f"counter/{EAST}$",
        times=None,
        status=403,
        error_type="access_denied",
        message="Access is denied",
    )
    result = counters.run("visits", ago=(5, 5))
    counters.metrika.faults.clear()
    assert not result.success
    assert "access_denied" in failures(result)["metrika__visits"]
    assert counters.ids("visits", 5, EAST) == []
    for counter in (COUNTER, WEST):
        assert counters.ids("visits", 5, counter) == counters.there("visits", 5, counter)


# What people meet


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"METRIKA_TOKEN": ""}, "METRIKA_TOKEN is not set"),
        ({"METRIKA_COUNTERS": ""}, "METRIKA_COUNTERS is not set"),
    ],
)
def test_without_credentials_a_run_says_which_variable(tmp_path: Path, settings: dict[str, str], says: str):
    with counter_house(tmp_path, None, **settings) as house:
        result = house.run("visits")
        assert says in failures(result)["metrika__visits"]
        repository = house.defs.get_repository_def()
        schedule = repository.get_schedule_def("metrika_daily")
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("METRIKA_COUNTERS", v) for v in ("a", "1;2", "-5", "0", "1.5", str(2**31), "१२")),
        ("METRIKA_COUNTER", "x"),
        ("METRIKA_SCHEDULE", "daily"),
        ("METRIKA_RELOAD_DAYS", "0"),
        ("METRIKA_RELOAD_DAYS", "2.5"),
        ("METRIKA_START_DATE", "soon"),
        ("METRIKA_TIMEZONE", "Moscow"),
        ("METRIKA_CONVERSIONS_UPLOAD", "perhaps"),
    ],
)
def test_a_malformed_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv("METRIKA_COUNTERS", "")
    monkeypatch.setenv(name, value)
    with pytest.raises(dg.Failure, match=value if name.endswith("ZONE") else name):
        metrika_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((f"METRIKA_{name}", v) for name in ("RATE_PER_SECOND", "PARALLEL") for v in ("-1", "nan", "x")),
        *((f"METRIKA_{name}_S", v) for name in ("GIVE_UP", "POLL", "DEADLINE") for v in ("-1", "0", "nan")),
        *(("METRIKA_DRIFT_LIMIT", v) for v in ("-0.1", "0", "inf")),
        *(("METRIKA_TARGET_PRECISION", v) for v in ("-1", "0", "1.5")),
        ("METRIKA_RELOAD_DAYS", "inf"),
    ],
)
def test_a_number_out_of_its_range_is_one_line(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv("METRIKA_COUNTERS", "")
    monkeypatch.setenv(name, value)
    with pytest.raises(dg.Failure, match=rf"{name} must be .*\.") as failure:
        _ = (metrika_settings(), level4_settings(), metrika_resource("token"))
    assert "\n" not in (failure.value.description or "\n")


def test_the_old_name_of_the_counter_works(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METRIKA_COUNTERS", "")
    monkeypatch.setenv("METRIKA_COUNTER", "17")
    assert metrika_settings().counters == (17,)
    monkeypatch.setenv("METRIKA_COUNTERS", "5, 4,5")
    assert metrika_settings().counters == (5, 4)


def test_the_schedule_asks_for_the_last_three_days_in_one_run(house: CounterHouse):
    schedule = house.defs.get_repository_def().get_schedule_def("metrika_daily")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    context = dg.build_schedule_context(
        instance=house.instance, repository_def=house.defs.get_repository_def()
    )
    (request,) = schedule.evaluate_tick(context).run_requests or []
    start, end = (request.tags[f"dagster/asset_partition_range_{n}"] for n in ("start", "end"))
    assert (date.fromisoformat(start), date.fromisoformat(end)) == (day(3), day(1))
    job = house.defs.resolve_job_def("metrika_daily")
    keys = {k.path[-1] for k in job.asset_layer.selected_asset_keys}
    assert {"visits", "hits", "level4_visits", "level4_conversions"} <= keys
    assert not {"level4_models", "conversion_uploads"} & keys
    logs = {dg.AssetKey(["metrika", n]) for n in ("visits", "hits")}
    result = job.get_subset(asset_selection=logs).execute_in_process(
        instance=house.instance, tags=request.tags
    )
    assert result.success
    assert differences(house, 1, 2, 3) == []


def test_the_token_is_nowhere_in_what_a_run_leaves(house: CounterHouse, caplog: pytest.LogCaptureFixture):
    house.metrika.faults.add(
        "status", "download", times=None, status=403, error_type="access_denied", message=TOKEN
    )
    result = house.run("visits", ago=(1, 1), quiet=False)
    assert not result.success
    events = house.instance.all_logs(result.run_id)
    run = house.instance.get_run_by_id(result.run_id)
    assert run
    left = "".join(map(str, events)) + str(run.run_config) + str(run.tags) + caplog.text
    assert TOKEN not in left
    assert "access_denied" in left


def test_a_day_that_is_not_over_in_the_counters_zone_is_told(tmp_path: Path):
    """A counter west of the partitions' zone may still be in yesterday."""
    with counter_house(tmp_path, METRIKA_TIMEZONE="Pacific/Kiritimati", METRIKA_COUNTERS=str(WEST)) as house:
        last = house.defs.get_repository_def().get_schedule_def("metrika_daily")
        context = dg.build_schedule_context(instance=house.instance)
        newest = (last.evaluate_tick(context).run_requests or [])[0].tags["dagster/asset_partition_range_end"]
        ago = (day(0) - date.fromisoformat(newest)) // timedelta(days=1)
        result = house.run("visits", ago=(ago, ago))
        if not result.success:  # most hours of the day
            assert "is not over yet in America/New_York" in failures(result)["metrika__visits"]


def test_checks_of_tables_see_what_is_wrong(house: CounterHouse, monkeypatch: pytest.MonkeyPatch):
    house.load("visits", "hits", ago=(2, 1))
    house.warehouse.command(f"ALTER TABLE metrika.hits DELETE WHERE date = '{day(1)}' AND watch_id % 3 = 0")
    house.warehouse.command(
        "INSERT INTO metrika.visits (counter_id, date, visit_id) "
        f"SELECT counter_id, toDate('{day(3)}'), visit_id FROM metrika.visits WHERE date = '{day(1)}'"
    )
    job = house.defs.resolve_implicit_global_asset_job_def()
    graph = house.defs.resolve_asset_graph()
    keys = graph.get_check_keys_for_assets({dg.AssetKey(["metrika", "visits"])})
    wanted = {k for k in keys if k.name in ("unique_key", "known_events", "days_present")}
    for most in (10**6, 20):  # all ids, and a sample of them
        monkeypatch.setattr("etl_assets.metrika.checks.MOST_IDS", most)
        result = job.get_subset(asset_selection=set(), asset_check_selection=wanted).execute_in_process(
            instance=house.instance, run_config=QUIET
        )
        assert checks(result) == {
            "visits/unique_key": False,
            "visits/known_events": False,
            "visits/days_present": True,
        }
