"""A webserver, a daemon and the command line, as in production: the clock, new smart processes, backfills."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from etl_assets.bitrix24.entities import ENTITIES
from resources.clickhouse import WarehouseResource
from resources.postgres import EmbeddedPostgres
from sandbox.bitrix24 import Portal, serve
from tests.etl_assets.house import day, small_portal

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DAYS = 8
COLUMNS = """query($k: AssetKeyInput!) { assetOrError(assetKey: $k) { ... on Asset { definition {
  metadataEntries {
  label ... on TableSchemaMetadataEntry { schema { columns { name } } } } } } } }"""
PATIENCE_S = 240  # two cores, everything starting at once
OFFERED = (
    "etl_assets",
    "resources",
    "schedules",
    "sensors",
    "cli",
    "sandbox",
    "workspace.yaml",
    "pyproject.toml",
)


@dataclass
class Live:
    """A project folder of its own with everything running."""

    folder: Path
    portal: Portal
    warehouse: WarehouseResource
    environment: dict[str, str]
    url: str

    def graphql(self, query: str, **variables: Any) -> Any:
        answer = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=60
        )
        return answer.json()["data"]

    def assets(self) -> set[str]:
        nodes = self.graphql("{ assetNodes { assetKey { path } } }")["assetNodes"]
        return {"/".join(node["assetKey"]["path"]) for node in nodes}

    def runs(self) -> list[dict[str, Any]]:
        """All runs with their tags, newest first."""
        fields = "runId status jobName tags { key value } assetSelection { path }"
        found = self.graphql(f"{{ runsOrError {{ ... on Runs {{ results {{ {fields} }} }} }} }}")
        runs = found["runsOrError"]["results"]
        return [{**run, "tags": {t["key"]: t["value"] for t in run["tags"]}} for run in runs]

    def cli(self, *words: str) -> str:
        """Output of a command of the virtual environment; it must succeed."""
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
        )
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout[-3000:]}"
        return done.stdout

    def ids(self, table: str) -> list[int]:
        exists = "SELECT count() FROM system.tables WHERE database = 'bi' AND name = {t:String}"
        if not self.warehouse.query(exists, {"t": table})[0][0]:
            return []
        return [r[0] for r in self.warehouse.query(f"SELECT toInt64(ID) AS i FROM bi.{table} ORDER BY i")]

    def live(self, entity: str | int) -> list[int]:
        return sorted(row["ID"] for row in self.portal.expected(entity, "id"))


def until(what: Callable[[], Any], message: Callable[[], str]) -> Any:
    """The first true value of `what`."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        with suppress(requests.RequestException):
            if found := what():
                return found
        time.sleep(1)
    pytest.fail(message())


@contextmanager
def process(live_folder: Path, environment: dict[str, str], name: str, *words: str) -> Iterator[Path]:
    """A child with its log in the folder, ended with all of its children."""
    log = live_folder / f"{name}.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            [str(BIN / words[0]), *words[1:]],
            cwd=live_folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield log
        finally:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(20)
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """Quotes are loaded every minute, companies by the usual feed, nothing else by the clock."""
    folder = tmp_path_factory.mktemp("live")
    for name in OFFERED:
        (folder / name).symlink_to(ROOT / name)
    home, port = folder / "home", free_port()
    home.mkdir()
    (home / "dagster.yaml").symlink_to(ROOT / "dagster.yaml")
    postgres = EmbeddedPostgres(folder / ".data" / "postgres")
    postgres.home.parent.mkdir()
    postgres.start()
    crons = {e.name: "" for e in ENTITIES} | {"crm_dynamic_items": "", "crm_quote": "* * * * *"}
    del crons["crm_company"]  # so that the job of the change feed is there
    with serve(small_portal(smart_processes=False)) as portal:
        environment = os.environ | {
            "BITRIX24_WEBHOOK_URL": portal.webhook_url,
            "BITRIX24_RATE_CAPACITY": "0",
            "BITRIX24_SCHEDULES": json.dumps(crons),
            "BITRIX24_START_DATE": day(DAYS),
            "CLICKHOUSE_URL": f"chdb://{folder}/warehouse",
            "DAGSTER_HOME": str(home),
            "DAGSTER_POSTGRES_URL": postgres.url,
            "DAGSTER_WEBSERVER_URL": f"http://127.0.0.1:{port}",
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder),
            "SVOD_STATE_DIR": str(folder),
        }
        warehouse = WarehouseResource(url=environment["CLICKHOUSE_URL"])
        found = Live(folder, portal, warehouse, environment, environment["DAGSTER_WEBSERVER_URL"])
        server = ("dagster-webserver", "-h", "127.0.0.1", "-p", str(port), "-w", "workspace.yaml")
        try:
            with process(folder, environment, "webserver", *server) as log:
                until(found.assets, log.read_text)
                with process(folder, environment, "daemon", "dagster-daemon", "run", "-w", "workspace.yaml"):
                    yield found
        finally:
            postgres.stop()


@pytest.fixture(scope="module")
def number(live: Live) -> int:
    """A smart process that is created while everything runs."""
    assert "bitrix24/crm_deal" in live.assets()
    answer = requests.post(
        f"{live.portal.base_url}/control/add-process", json={"title": "Заявки", "items": 9}, timeout=20
    )
    return answer.json()["entityTypeId"]


def logs(live: Live) -> str:
    return "\n".join((live.folder / f"{n}.log").read_text()[-4000:] for n in ("webserver", "daemon"))


def test_days_and_ranges_are_loaded_by_the_lines_of_the_readme(live: Live, number: int):
    lines = readme_lines()
    assert any("dg launch" in line for line in lines)
    for line in lines:
        live.cli(*shlex.split(line))
    changed = {r["ID"] for r in live.portal.expected("deal", "raw") if str(r["DATE_MODIFY"].date()) < day(1)}
    assert changed <= set(live.ids("crm_deal"))

    def queued() -> set[str]:
        """Days of the backfill that the daemon was asked for, once all are loaded."""
        runs = [r for r in live.runs() if "dagster/backfill" in r["tags"]]
        done = all(r["status"] == "SUCCESS" for r in runs)
        return {r["tags"]["dagster/partition"] for r in runs} if done else set()

    assert until(queued, lambda: f"{live.runs()}\n{logs(live)}") == {day(1), day(2)}


def readme_lines() -> list[str]:
    """Command lines of the section about backfills, their days moved to the last week."""
    text = (ROOT / "README.md").read_text().split("## Backfill from the command line")[1].split("\n## ")[0]
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if re.match(r"(dg|dagster|svod) ", line)]
    days = sorted({d for line in lines for d in re.findall(r"\d{4}-\d\d-\d\d", line)})
    moved = {d: day(len(days) - n if n else DAYS) for n, d in enumerate(days)}
    return [re.sub(r"\d{4}-\d\d-\d\d", lambda m: moved[m[0]], line) for line in lines]


def test_the_clock_starts_a_run_that_loads(live: Live, number: int):
    def ticked() -> list[dict[str, Any]]:
        runs = [r for r in live.runs() if r["tags"].get("dagster/schedule_name")]
        return [r for r in runs if r["status"] == "SUCCESS"]

    (run, *_) = until(ticked, lambda: f"{live.runs()}\n{logs(live)}")
    assert run["tags"]["svod/feed"] == "true"
    assert live.ids("crm_quote") == live.live("quote")


def test_a_new_smart_process_appears_and_is_filled_without_a_restart(live: Live, number: int):
    name = f"crm_dynamic_items_{number}"
    until(lambda: f"bitrix24/{name}" in live.assets(), lambda: logs(live))

    def loaded() -> list[dict[str, Any]]:
        runs = [r for r in live.runs() if r["tags"].get("dagster/sensor_name") == "first_load"]
        mine = [r for r in runs if [a["path"] for a in r["assetSelection"]] == [["bitrix24", name]]]
        return [r for r in mine if r["status"] == "SUCCESS"]

    until(loaded, lambda: f"{live.runs()}\n{logs(live)}")
    assert live.ids(name) == live.live(number)
    found = live.graphql(COLUMNS, k={"path": ["bitrix24", name]})["assetOrError"]["definition"]
    entries = found["metadataEntries"]
    (columns,) = [e["schema"]["columns"] for e in entries if e["label"] == "dagster/column_schema"]
    assert {c["name"] for c in columns} >= set(live.portal.table(number).fields)


def test_a_day_of_a_smart_process_is_loaded_by_the_command_line(live: Live, number: int):
    until(lambda: f"bitrix24/crm_dynamic_items_{number}" in live.assets(), lambda: logs(live))
    made = live.portal.create(number, TITLE="of today")
    live.cli("dg", "launch", "--assets", f"key:bitrix24/crm_dynamic_items_{number}", "--partition", day(0))
    assert made in live.ids(f"crm_dynamic_items_{number}")


def test_no_secret_is_in_any_log(live: Live, number: int):
    assert live.portal.config.webhook_code not in logs(live)
