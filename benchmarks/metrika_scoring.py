"""How much faster is the level 4+ scoring than the old script, and what do ten million hits cost?

A day of 20,000 visits and 120,000 hits, from the bytes of its logs to the list of selected visits: the old
script's calculation (rebuilt, see metrika_original.py) against ours, in one run on the same bytes and models.
Then the same way, from bytes to list, for a day of 2.5 and of 10 million hits: a process that loads the hits
(as in metrika_stream), another one for features, models and selection, whose own growth is told too.

    python -m benchmarks.metrika_scoring [--visits FILE --hits FILE] [--models FOLDER]

Without files the day is invented; without a folder two models of 300 trees are trained on it.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import joblib
import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier

from benchmarks import metrika_original, metrika_stream
from benchmarks.common import ROOT, folder, verdict
from etl_assets.metrika.fields import HITS, VISITS
from etl_assets.metrika.level4 import FEATURES_KEY, VISITS_KEY, level4_assets
from etl_assets.metrika.level4_files import score_files
from etl_assets.metrika.level4_settings import Level4Settings
from etl_assets.partitions import daily
from resources.clickhouse import WarehouseResource
from resources.clickhouse.engine import Embedded
from resources.metrika import MetrikaResource
from resources.metrika.features import FEATURES
from resources.metrika.models_directory import ModelsDirectory
from resources.metrika.scoring import Models

VISITS_A_DAY, HITS_A_VISIT = 20_000, 6
FASTER, MEMORY_MB, LINEAR = 60, 2048, 1.3
DAY = date(2026, 10, 7)
VISIT_FIELDS = "visitID clientID watchIDs dateTime visitDuration bounce pageViews deviceCategory"
HIT_FIELDS = "watchID dateTime deviceCategory"
NAMES = ("desktop", "mobile")
ROUNDS = 5


def invented_day(visits: int) -> tuple[bytes, bytes]:
    """Logs with the old script's fields: many short visits, some long ones; lines in no order."""
    dice = random.Random(1)
    visit_lines, hit_lines = [], []
    for number in range(visits):
        first_id = 6_511_000_000_000_000_000 + number * 2**36 + dice.randrange(2**30)
        start, device = dice.randrange(80_000), dice.choices("1234", (45, 48, 5, 2))[0]
        gaps = [int(dice.expovariate(1 / 35)) for _ in range(int(dice.expovariate(1 / (HITS_A_VISIT - 0.5))))]
        offsets = [sum(gaps[:i]) for i in range(len(gaps) + 1)]
        ids = [str(first_id + i * 97) for i in range(len(offsets))]
        hit_lines += [f"{i}\t{_clock(start + at)}\t{device}\n" for i, at in zip(ids, offsets, strict=True)]
        duration = offsets[-1] + dice.randrange(20) if gaps else 0
        views = sum(dice.random() < 0.6 for _ in gaps) + 1
        visit_lines.append(
            f"{first_id}\t{10**18 + number}\t[{','.join(ids)}]\t{_clock(start)}\t{duration}\t"
            f"{int(duration < 15)}\t{views}\t{device}\n"
        )
    dice.shuffle(visit_lines)
    dice.shuffle(hit_lines)
    return _log("s", VISIT_FIELDS, visit_lines), _log("pv", HIT_FIELDS, hit_lines)


def _log(prefix: str, fields: str, lines: list[str]) -> bytes:
    header = "\t".join(f"ym:{prefix}:{field}" for field in fields.split())
    return "".join((f"{header}\n", *lines)).encode()


def _clock(second: int) -> str:
    second = min(second, 86_399)
    return f"{DAY} {second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


def models_of(given: Path | None, path: Path) -> ModelsDirectory:
    """A folder with both models, listed as trusted; they are copied from `given`, or trained."""
    path.mkdir()
    for name in NAMES:
        file = path / f"level4_{name}_slot.joblib"
        if given:
            shutil.copy(given / file.name, file)
        else:
            joblib.dump(_trained(name), file)
    found = ModelsDirectory.at(str(path))
    for name in NAMES:
        found.trust(path / f"level4_{name}_slot.joblib")
    return found


def _trained(name: str) -> LGBMClassifier:
    """A model as large as the real ones."""
    dice = np.random.default_rng(NAMES.index(name))
    table = pd.DataFrame(dice.gamma(1, 60, (20_000, len(FEATURES))), columns=list(FEATURES))
    good = table["duration"] + 5 * table["slots"] + dice.normal(0, 60, len(table)) > 500
    return LGBMClassifier(n_estimators=300, learning_rate=0.03, verbose=-1).fit(table, good)


def compare(visit_log: bytes, hit_log: bytes, directory: ModelsDirectory, path: Path) -> bool:
    """Both calculations of the same bytes; the same list, and how many times faster."""
    warehouse = WarehouseResource(url=f"chdb://{path}/warehouse")
    warehouse.query("SELECT 1")  # the engine is open, as it is in a daemon
    settings = Level4Settings(directory)
    ours, ours_s = _best(
        lambda: score_files(warehouse, [[visit_log]], [[hit_log]], settings, Models(directory)).rows
    )
    models = {name: joblib.load(path / f"models/level4_{name}_slot.joblib") for name in NAMES}
    thresholds = {name: directory.threshold(name) for name in NAMES}
    theirs, pandas_s = _timed(lambda: metrika_original.score(visit_log, hit_log, models, thresholds))
    again, strptime_s = _timed(
        lambda: metrika_original.score(visit_log, hit_log, models, thresholds, metrika_original.strptime)
    )
    Embedded.at(f"{path}/warehouse").close()
    print(f"     {len(visit_log) + len(hit_log):,} bytes; selected: {len(ours):,} visits")
    print(f"     ours {ours_s:.3f} s; the old script {pandas_s:.2f} s, with strptime {strptime_s:.2f} s")
    if not ours == theirs == again:
        print("MISS the lists differ")
        return False
    return verdict("times faster than the old script", pandas_s / ours_s, FASTER, at_most=False)


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    return call(), time.perf_counter() - began


def _best(call: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the least time of a few."""
    runs = [_timed(call) for _ in range(ROUNDS)]
    return runs[0][0], min(seconds for _, seconds in runs)


def large_day(hits: int, models: Path, path: Path) -> Mapping[str, float]:
    """Processor seconds and peak megabytes of a process that scores a day of so many hits."""
    given = ["--models", str(models), "--path", str(path / f"large_{hits}")]
    for step in ("fill", "score"):  # filling is not measured
        command = [sys.executable, "-m", "benchmarks.metrika_scoring", "--step", step, "--number", str(hits)]
        done = subprocess.run([*command, *given], check=True, capture_output=True, text=True, cwd=ROOT)
    return json.loads(done.stdout.splitlines()[-1])


def score_day(models: Path, path: Path) -> None:
    """Materialize features and selection of an invented day, in its own process; prints JSON."""
    warehouse = WarehouseResource(url=f"chdb://{path}")
    assets = level4_assets(daily(str(DAY), "UTC"), "UTC", Level4Settings(ModelsDirectory.at(str(models))))
    with dg.DagsterInstance.ephemeral(settings={"telemetry": {"enabled": False}}) as instance:
        began = time.process_time()  # of all threads; other processes of the machine do not count
        dg.materialize(
            assets,
            selection=[FEATURES_KEY, VISITS_KEY],
            instance=instance,
            partition_key=str(DAY),
            resources={"warehouse": warehouse, "metrika": MetrikaResource()},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "peak_mb": peak}))


def fill(hits: int, path: Path) -> None:
    """Visits and hits with random ids, made in ClickHouse."""
    warehouse = WarehouseResource(url=f"chdb://{path}")
    for log in (VISITS, HITS):
        warehouse.ensure(log.table("UTC"))
    visits, midnight = hits // HITS_A_VISIT, f"toDateTime('{DAY} 00:00:00', 'UTC')"
    watch_id = "6500000000000000000 + cityHash64({}) % 100000000000000000"
    watch_ids = f"arrayMap(i -> {watch_id.format(f'number * {HITS_A_VISIT} + i')}, range({HITS_A_VISIT}))"
    with warehouse.session() as client:
        client.command(
            "INSERT INTO metrika.visits (counter_id, date, visit_id, client_id, watch_ids, date_time,"
            " visit_duration, page_views, device_category) "
            f"SELECT 1, '{DAY}', number + 1, number, {watch_ids}, {midnight} + number % 80000,"
            f" rand() % 600, 1 + rand() % 8, 1 + rand() % 3 FROM numbers({visits})"
        )
        client.command(
            "INSERT INTO metrika.hits (counter_id, date, watch_id, date_time, device_category) "
            f"SELECT 1, '{DAY}', {watch_id.format('number')}, {midnight} "
            f"+ intDiv(number, {HITS_A_VISIT}) % 80000 + rand() % 600, 1 "
            f"FROM numbers({visits * HITS_A_VISIT})"
        )


def scale(models: Path, path: Path) -> bool:
    """Ten million hits from bytes to list: memory, and time of a hit against that of a quarter of them."""
    few, many = 2_500_000, 10_000_000
    loads = {hits: metrika_stream.measured(hits) for hits in (few, many)}
    scores = {hits: large_day(hits, models, path) for hits in (few, many)}
    for hits, found in scores.items():
        took = f"{found['seconds']:.1f} s of processor, peak {found['peak_mb']:.0f} MB"
        print(f"     {hits:,} hits: features, models, selection {took}")

    def growth(*steps: dict[int, float]) -> float:
        return sum(s[many] for s in steps) / sum(s[few] for s in steps) / (many / few)

    loading = {hits: found["processor_s"] for hits, found in loads.items()}
    scoring = {hits: found["seconds"] for hits, found in scores.items()}
    apart = f"loading {growth(loading):.2f}, the rest {growth(scoring):.2f}"
    print(f"     time of a hit, against a quarter of the hits: {apart}")
    peak = max(loads[many]["peak_mb"], scores[many]["peak_mb"])
    met = verdict("memory of 10 million hits", peak, MEMORY_MB, at_most=True, unit=" MB")
    whole = growth(loading, scoring)
    return met & verdict("time of a hit from bytes to list, against a quarter", whole, LINEAR, at_most=True)


def main() -> int:
    """Exit status 1 if a target is missed."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    for name in ("--visits", "--hits", "--models", "--path"):
        options.add_argument(name, type=Path)
    options.add_argument("--step", choices=("fill", "score"))
    options.add_argument("--number", type=int)
    given = options.parse_args()
    if given.step:
        fill(given.number, given.path) if given.step == "fill" else score_day(given.models, given.path)
        return 0
    with folder() as path:
        directory = models_of(given.models, path / "models")
        logs = [given.visits.read_bytes(), given.hits.read_bytes()] if given.visits else None
        visit_log, hit_log = logs or invented_day(VISITS_A_DAY)
        met = compare(visit_log, hit_log, directory, path)
        return not met & scale(path / "models", path)


if __name__ == "__main__":
    sys.exit(main())
