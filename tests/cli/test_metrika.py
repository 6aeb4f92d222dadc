"""`svod metrika`: the old command line against the sandbox, downloaded logs, trust and promotion."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import joblib
import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from typer.testing import CliRunner, Result

from cli.main import app
from etl_assets.definitions import PROJECT
from etl_assets.metrika.fields import LOGS
from resources.metrika import Ask, MetrikaClient
from resources.metrika.features import FEATURES
from resources.metrika.logs import LogReader
from sandbox.metrika import TOKEN, Metrika, MetrikaConfig, serve

COUNTER = 100002  # Vladivostok: neither our zone nor the table's
LINKS = ("workspace.yaml", "pyproject.toml", "dagster.yaml", ".env.example", "etl_assets")


def here(folder: Path, *arguments: str) -> Result:
    """The command in this process, for what starts no run: nothing is imported twice."""
    with patch.dict(os.environ), pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        return CliRunner().invoke(app, arguments)


def svod(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    names = ("METRIKA", "DAGSTER", "SVOD", "CLICKHOUSE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    return subprocess.run(
        [sys.executable, "-c", "from cli.main import app; app()", *arguments],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def metrika() -> Iterator[Metrika]:
    with serve(MetrikaConfig(visits_per_day=80, duplicates=0)) as service:
        yield service


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, metrika: Metrika) -> Path:
    """A project of its own, with two small models that are not yet trusted."""
    folder = tmp_path_factory.mktemp("project")
    for name in LINKS:
        (folder / name).symlink_to(PROJECT / name)
    (folder / "scripts" / "ML").mkdir(parents=True)
    (folder / "ml").mkdir()
    dice = np.random.default_rng(3)
    table = pd.DataFrame(dice.random((300, len(FEATURES))) * 100, columns=list(FEATURES))
    for name, long in (("desktop", 50), ("mobile", 40)):
        model = LGBMClassifier(n_estimators=5, verbose=-1, n_jobs=1).fit(table, table["duration"] > long)
        joblib.dump(model, folder / "ml" / f"level4_{name}_slot.joblib")
    (folder / ".env").write_text(
        f"METRIKA_URL={metrika.url}\nMETRIKA_TOKEN=wrong\nMETRIKA_COUNTERS=100001,100002\nMETRIKA_POLL_S=0.1\n"
        "SVOD_STATE_DIR=.data\nMETRIKA_RATE_PER_SECOND=0\n"
    )
    return folder


def yesterday() -> date:
    """A day that is over in every zone."""
    return datetime.now(UTC).date() - timedelta(days=2)


def test_pickles_are_trusted_one_by_one(project: Path):
    shown = here(project, "metrika", "models")
    assert "is a pickle, which runs" in " ".join(shown.stdout.replace("│", " ").split())
    for name in ("desktop", "mobile"):
        done = here(project, "metrika", "trust", f"ml/level4_{name}_slot.joblib")
        assert done.exit_code == 0, done.stderr
    assert here(project, "metrika", "models").stdout.count("ready") == 2
    assert len((project / "ml" / "models.sha256").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trust", "ml/none.joblib"], "cannot be read"),
        (["promote"], "Give a version, or --given"),
        (["promote", "v7"], "There is no version 'v7'"),
        (["score", "--date", "2026-02-30"], "--date must be a day such as"),
        (["score", "--date", "2026-02-03"], "METRIKA_COUNTERS names several counters: give --counter"),
        (["score", "--date", "2026-02-03", "--counter", "0"], "--counter must be the number of a counter"),
        (["score-files", "--visits", "v.tsv", "--hits", "h.tsv"], "v.tsv cannot be read"),
    ],
)
def test_a_mistake_is_one_line(project: Path, arguments: list[str], said: str):
    done = here(project, "metrika", *arguments)
    assert done.exit_code == 1
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def download(metrika: Metrika, folder: Path, day: date) -> dict[str, Path]:
    """Both logs of a day, as files."""
    client, files = MetrikaClient(metrika.url, TOKEN, per_second=0), {}
    for name, log in LOGS.items():
        ask = Ask(COUNTER, name, day, day, log.fields())
        rows = [p for p in LogReader(client, poll_s=0.1).pieces(ask) if p.event == "rows"]
        files[name] = folder / f"{name}.tsv"
        files[name].write_bytes(b"\n".join([rows[0].header, *(p.lines for p in rows), b""]))
    client.close()
    return files


def test_models_beside_the_caller_are_used(project: Path):
    scripts = project / "scripts"
    for file in (project / "ml").glob("*.joblib"):
        (scripts / "ML" / file.name).write_bytes(file.read_bytes())
        assert here(scripts, "metrika", "trust", f"ML/{file.name}").exit_code == 0
    assert len((scripts / "ML" / "models.sha256").read_text().splitlines()) == 2
    assert here(scripts, "metrika", "models").stdout.count("ready") == 2


def test_the_old_command_line_writes_the_old_file(project: Path, metrika: Metrika, tmp_path: Path):
    """From another folder, with models of its own, where nobody has set up a database."""
    day, scripts = yesterday(), project / "scripts"
    done = svod(scripts, "metrika", "score", "--date", str(day), "--token", TOKEN, "--counter", str(COUNTER))
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr + (project / ".env").read_text()
    rows = json.loads((scripts / f"level4_visits_{day}.json").read_text())
    assert len(rows) > 10
    assert {tuple(row) for row in rows} == {("visitId", "clientId", "dateTime", "visitDuration")}
    assert all(row["dateTime"].startswith(f"{day} ") for row in rows)
    files = download(metrika, tmp_path, day)
    out = tmp_path / "from_files.json"
    again = here(
        scripts,
        *("metrika", "score-files", "--visits", str(files["visits"]), "--hits", str(files["hits"])),
        *("--out", str(out)),
    )
    assert again.exit_code == 0, again.stderr
    assert json.loads(out.read_text()) == rows
