"""Scoring of downloaded logs against the formulas and the decision in plain Python."""

from __future__ import annotations

import gzip
import os
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier

from etl_assets.metrika.level4_files import score_files
from etl_assets.metrika.level4_settings import Level4Settings
from resources.clickhouse import WarehouseResource
from resources.metrika.features import FEATURES, FeatureRules
from resources.metrika.models_directory import ModelsDirectory
from resources.metrika.scoring import Models
from tests.resources.metrika.slow_features import Hit, Visit, features, legacy_device, seconds

START = seconds([0])[0].replace(hour=0, minute=0)
VISIT_COLUMNS = "visitID clientID watchIDs dateTime visitDuration bounce pageViews deviceCategory startURL"
HIT_COLUMNS = "deviceCategory URL dateTime watchID"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Two small models that select about a third of random visits."""
    folder = tmp_path_factory.mktemp("models")
    random = np.random.default_rng(11)
    table = pd.DataFrame(random.random((400, len(FEATURES))) * 200, columns=list(FEATURES))
    for name, column in (("desktop", "mean_pause"), ("mobile", "duration")):
        model = LGBMClassifier(n_estimators=15, verbose=-1, n_jobs=1).fit(table, table[column] > 60)
        skops.io.dump(model, folder / f"level4_{name}_slot.skops")
    return Models(ModelsDirectory.at(str(folder)))


def visit_log(visits: Sequence[Visit]) -> bytes:
    lines = [
        f"{v.visit_id}\t{v.visit_id + 1}\t[{','.join(map(str, v.watch_ids))}]\t2026-10-07 12:00:01\t"
        f'{v.duration}\t{v.bounce}\t{v.page_views}\t{v.device or ""}\thttps://example.org/?q="\\t'
        for v in visits
    ]
    header = "\t".join(f"ym:s:{name}" for name in VISIT_COLUMNS.split())
    return "".join(f"{line}\n" for line in (header, *lines)).encode()


def hit_log(hits: Sequence[Hit]) -> bytes:
    lines = [f'{h.device or ""}\t"\\n\t{h.at:%Y-%m-%d %H:%M:%S}\t{h.watch_id}' for h in hits]
    header = "\t".join(f"ym:pv:{name}" for name in HIT_COLUMNS.split())
    return "".join(f"{line}\n" for line in (header, *lines)).encode()


def pieces(log: bytes, size: int) -> Iterator[bytes]:
    return (log[at : at + size] for at in range(0, len(log), size))


def parts(*logs: bytes) -> list[list[bytes]]:
    return [[log] for log in logs]


def expected(visits: Sequence[Visit], hits: Sequence[Hit], models: Models, *, legacy: bool) -> list[str]:
    """Ids of the visits that the specification selects, in the order of the file."""
    times, found = {h.watch_id: h.at for h in hits}, []
    for visit in visits:
        row = features(visit, times)
        device = legacy_device(visit, hits) if legacy else visit.device
        if visit.duration >= 180 and visit.page_views >= 5 and row["slots"] >= 5:
            found.append(str(visit.visit_id))
        elif device in (1, 2):
            chosen = models.of("desktop" if device == 1 else "mobile")
            asked = np.array([[row[name] for name in chosen.model.features]], np.float64)
            if chosen.model.probabilities(asked)[0] > chosen.threshold:
                found.append(str(visit.visit_id))
    return found


IDS = st.integers(1, 40) | st.integers(10**18, 10**18 + 2) | st.integers(10**19, 10**19 + 20)
VISITS = st.lists(
    st.builds(
        Visit,
        visit_id=IDS,
        watch_ids=st.lists(IDS, max_size=12).map(tuple),
        duration=st.integers(0, 400),
        page_views=st.integers(0, 9),
        bounce=st.integers(0, 1),
        device=st.integers(0, 4),
    ),
    max_size=40,
    unique_by=lambda v: v.visit_id,
)
HITS = st.lists(
    st.builds(
        Hit,
        watch_id=IDS,
        at=st.integers(0, 600).map(lambda s: START + timedelta(seconds=s)),
        device=st.integers(0, 4),
    ),
    max_size=50,
    unique_by=lambda h: h.watch_id,
)


@pytest.mark.parametrize("rule", ["visit", "legacy"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(visits=VISITS, hits=HITS, size=st.sampled_from([37, 1000, 1 << 20]))
def test_files_and_plain_python_select_the_same_visits_in_the_same_order(
    warehouse: WarehouseResource, models: Models, rule: str, visits: list[Visit], hits: list[Hit], size: int
):
    chosen = Level4Settings(models.directory, FeatureRules("legacy" if rule == "legacy" else "visit"))
    found = score_files(
        warehouse, [pieces(visit_log(visits), size)], [pieces(hit_log(hits), size)], chosen, models
    )
    assert [r["visitId"] for r in found.rows] == expected(visits, hits, models, legacy=rule == "legacy")
    assert (found.visits, found.hits) == (len(visits), len(hits))
    for row in found.rows:
        assert row["clientId"] == str(int(row["visitId"]) + 1)
        assert row["dateTime"] == "2026-10-07 12:00:01"
        assert type(row["visitDuration"]) is int


LONG = Visit(7, tuple(range(100, 105)), duration=200, page_views=5, device=3)
EVENTS = [Hit(100 + i, at) for i, at in enumerate(seconds(range(0, 75, 15)))]


@pytest.fixture
def nothing(tmp_path: Path) -> Level4Settings:
    """No models: for visits that the rule selects."""
    return Level4Settings(ModelsDirectory.at(str(tmp_path)))


def test_doubled_lines_are_one_visit(warehouse: WarehouseResource, nothing: Level4Settings):
    visits = [replace(LONG, visit_id=9), LONG, replace(LONG, visit_id=8), LONG]
    found = score_files(warehouse, parts(visit_log(visits)), parts(hit_log(EVENTS * 2)), nothing)
    assert [r["visitId"] for r in found.rows] == ["9", "7", "8"]
    assert (found.visits, found.hits, found.models) == (4, 10, [])


def test_every_part_has_a_header(warehouse: WarehouseResource, nothing: Level4Settings):
    visits = [visit_log([replace(LONG, visit_id=number)]) for number in (3, 1, 2)]
    hits = [hit_log(EVENTS[:2]), hit_log(EVENTS[2:])]
    found = score_files(warehouse, parts(*visits), parts(*hits), nothing)
    assert [r["visitId"] for r in found.rows] == ["3", "1", "2"]


def test_an_engine_that_closes_when_it_is_idle_keeps_the_logs(
    warehouse: WarehouseResource, models: Models, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("resources.clickhouse.engine.LINGER_S", 0.01)

    def slowly(rows: np.ndarray) -> np.ndarray:
        time.sleep(0.1)  # as the first import of a library does
        return np.ones(len(rows))

    monkeypatch.setattr("resources.metrika.models.Model.probabilities", lambda _, rows: slowly(rows))
    visits = [replace(LONG, duration=0, device=1)]
    chosen = Level4Settings(models.directory)
    found = score_files(warehouse, parts(visit_log(visits)), parts(hit_log(EVENTS)), chosen, models)
    assert [r["visitId"] for r in found.rows] == ["7"]


def test_gzip_is_read_as_it_is(warehouse: WarehouseResource, nothing: Level4Settings):
    found = score_files(
        warehouse, parts(gzip.compress(visit_log([LONG]))), parts(gzip.compress(hit_log(EVENTS))), nothing
    )
    assert found.rows == [
        {"visitId": "7", "clientId": "8", "dateTime": "2026-10-07 12:00:01", "visitDuration": 200}
    ]


def test_an_empty_day_is_an_empty_list(warehouse: WarehouseResource, nothing: Level4Settings):
    assert score_files(warehouse, parts(visit_log([])), parts(hit_log([])), nothing).rows == []


@pytest.mark.parametrize(
    ("visits", "hits", "said"),
    [
        (b"", hit_log([]), "The log of visits, part 0, is not whole: it has no header"),
        (visit_log([LONG])[:-1], hit_log([]), "its last line has no end"),
        (visit_log([LONG]), hit_log([]) + b"1\t2\n", "1 of its lines do not have 4 columns"),
        (visit_log([LONG]).replace(b"clientID", b"someID"), hit_log([]), "it has no column ym:s:clientID"),
        (visit_log([LONG]).replace(b"\t200\t", b"\tlong\t"), hit_log([]), "reading the log of visits"),
        (visit_log([LONG]), hit_log(EVENTS).replace(b"2026-10-07", b"yesterday!"), "reading the log of hits"),
    ],
)
def test_a_log_that_is_not_whole_is_refused(
    warehouse: WarehouseResource, nothing: Level4Settings, visits: bytes, hits: bytes, said: str
):
    with pytest.raises(dg.Failure, match=said) as refusal:
        score_files(warehouse, parts(visits), parts(hits), nothing)
    assert not refusal.value.allow_retries
    left = "SELECT count() FROM system.databases WHERE startsWith(name, 'svod_scratch_')"
    assert warehouse.query(left) == [(0,)]


# The two models that came with the old script, where their folder is at hand

SAMPLES = os.environ.get("SVOD_SAMPLES")


@pytest.mark.skipif(not SAMPLES, reason="SVOD_SAMPLES does not name the folder of samples")
@pytest.mark.parametrize("rule", ["visit", "legacy"])
def test_the_real_models_select_what_plain_python_selects(
    warehouse: WarehouseResource, tmp_path: Path, rule: str
):
    folder = Path(SAMPLES or "") / "metrika" / "models"
    directory = ModelsDirectory.at(str(folder), str(tmp_path / "models.sha256"))
    for file in folder.glob("*.joblib"):
        directory.trust(file)
    dice = random.Random(5)
    visits, hits = [], []
    for number in range(400):
        first = 10**18 + 1000 * number
        offsets = [dice.randrange(600) for _ in range(dice.randrange(0, 14))]
        own = [Hit(first + i, START + timedelta(seconds=s), dice.randrange(4)) for i, s in enumerate(offsets)]
        hits += own
        ids = tuple(h.watch_id for h in own)
        visits.append(
            Visit(first, ids, dice.randrange(500), dice.randrange(9), dice.randrange(2), dice.randrange(5))
        )
    dice.shuffle(hits)
    chosen = Level4Settings(directory, FeatureRules("legacy" if rule == "legacy" else "visit"))
    found = score_files(warehouse, parts(visit_log(visits)), parts(hit_log(hits)), chosen)
    wanted = expected(visits, hits, Models(directory), legacy=rule == "legacy")
    assert [row["visitId"] for row in found.rows] == wanted
    assert 50 < len(wanted) < 350
