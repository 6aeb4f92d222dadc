"""`svod metrika score`: a day scored by the daily assets, and its result in the old script's file."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dagster as dg

from cli.load import Request
from cli.metrika_models import enter_with_models
from cli.project import ensure_local, fail, out
from cli.query import warehouse
from cli.runs import follow
from cli.services import Interrupted, local_systems, postgres, stop_signals
from etl_assets.metrika.level4 import COUNTERS_TAG
from etl_assets.metrika.level4_files import score_files as score_parts
from etl_assets.metrika.level4_settings import level4_settings
from etl_assets.metrika.settings import LONGEST_COUNTER, TOKEN, metrika_resource, metrika_settings
from resources.errors import PermanentSourceError
from resources.http import register_secret
from resources.metrika.scoring import selected_rows

ASSETS = ["metrika/visits", "metrika/hits", "metrika/visit_features", "metrika/level4_visits"]
CHUNK = 8 << 20


def score(day_text: str, token: str, counter: int | None, folder: Path) -> None:
    """Run the assets for one counter and day, then write what they selected.

    Works from any folder, as cron calls it: what is not set is the embedded PostgreSQL and warehouse.
    """
    project = enter_with_models()
    day, chosen = _day(day_text), _counter(counter)
    _set_token(token)
    ensure_local(project)
    os.environ["METRIKA_COUNTERS"] = str(chosen)
    try:
        os.environ["METRIKA_START_DATE"] = min(metrika_settings().start_date, str(day))
        with (
            stop_signals(),
            postgres(project),
            local_systems(20_000, ["metrika"]),
            dg.DagsterInstance.get() as instance,
        ):
            request = Request(str(uuid.uuid4()), ASSETS, str(day), str(day), tags={COUNTERS_TAG: str(chosen)})
            outcome = follow(request, instance, f"counter {chosen}, {day}")
            if not outcome.success:
                reason = next(iter(outcome.failures.values()), outcome.said) or "the run failed"
                raise fail(reason)
            metrika = metrika_resource()
            rows = selected_rows(warehouse(), chosen, day, metrika.client.counter(chosen).zone)
    except Interrupted:
        raise fail("Stopped. Nothing was written; run the same command again.") from None
    except dg.Failure as error:
        raise fail(error.description or "The day could not be scored.") from None
    _write(folder / f"level4_visits_{day}.json", rows)


def score_files(visits: Sequence[Path], hits: Sequence[Path], target: Path) -> None:
    """Score the parts of two logs."""
    enter_with_models()
    with TemporaryDirectory(prefix="svod-") as scratch:  # without a warehouse of one's own
        os.environ.setdefault("CLICKHOUSE_URL", f"chdb://{scratch}/warehouse")
        try:
            found = score_parts(warehouse(), map(_chunks, visits), map(_chunks, hits), level4_settings())
        except dg.Failure as error:
            raise fail(error.description or "The logs could not be scored.") from None
    out.print(f"{found.visits:,} lines of visits, {found.hits:,} of hits.", highlight=False)
    _write(target, found.rows)


def _day(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise fail(f"--date must be a day such as 2026-11-20, not {text!r}.") from None


def _counter(given: int | None) -> int:
    try:
        counters = (given,) if given is not None else metrika_settings().counters
    except dg.Failure as error:
        raise fail(error.description or "METRIKA_COUNTERS is malformed.") from None
    if len(counters) != 1:
        said = "METRIKA_COUNTERS names several counters" if counters else "METRIKA_COUNTERS is not set"
        raise fail(f"{said}: give --counter.")
    if not 0 < counters[0] <= LONGEST_COUNTER:
        raise fail("--counter must be the number of a counter.")
    return counters[0]


def _set_token(given: str) -> None:
    """For the run's process, which reads the environment: never as an argument, nor in the run's config."""
    token = given or os.environ.get(TOKEN, "")
    if not token:
        raise fail(f"{TOKEN} is not set: give --token, or put it into .env (see .env.example).")
    register_secret(token)
    os.environ[TOKEN] = token


def _chunks(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as log:
            while chunk := log.read(CHUNK):
                yield chunk
    except OSError as error:
        raise PermanentSourceError(f"{file} cannot be read: {error.strerror}.") from None


def _write(file: Path, rows: Sequence[dict[str, Any]]) -> None:
    """The whole file, or none."""
    fresh = file.with_name(f".{file.name}.new")
    try:
        fresh.write_text(json.dumps(rows, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        fresh.replace(file)
    except OSError as error:
        raise fail(f"{file} cannot be written: {error.strerror}.") from None
    out.print(f"{file.name}: {len(rows):,} visits of level 4 or higher.", highlight=False)
