"""The Grafana dashboard: well formed, and every query of it runs against the tables."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from resources.postgres import EmbeddedPostgres, with_driver
from resources.ttm.analysis import Analysis, ExpiredRow
from resources.ttm.database import Attempt, TtmDatabase
from resources.ttm.suspended import SuspendedRow
from resources.ttm.suspended_list import Plan

DASHBOARD = json.loads((Path(__file__).parents[2] / "deploy/grafana/ttm.json").read_text(encoding="utf-8"))
PANELS = DASHBOARD["panels"]
VARIABLES = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
NOW = datetime.now(UTC)
YESTERDAY = date.today() - timedelta(days=1)
UNIT = "О'Тест «Линия»"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TtmDatabase]:
    server = EmbeddedPostgres(tmp_path_factory.mktemp("grafana") / "postgres")
    server.start()
    found = TtmDatabase(with_driver(server.url_of("operations")))
    analysis = Analysis(
        *("breached", UNIT, "Результат: SLA превышен", 60),
        counted_seconds=7200,
        overrun_seconds=3600,
        breach_unit=UNIT,
        breach_at=NOW,
        by_unit={UNIT: 7200},
    )
    found.save_expired([(ExpiredRow(7, UNIT, analysis.report, YESTERDAY), analysis)])
    row = SuspendedRow("8-1", NOW, NOW, NOW, "Лугов", "ждём", "Линия 2", NOW - timedelta(hours=1), 8)
    found.sync_stopped(Plan({"8-1": row}, {}, {}), Attempt(NOW, 1))
    found.note("expires_tickets", Attempt(NOW, 1), 1, YESTERDAY)
    yield found
    found.close()
    server.stop()


def as_grafana(sql: str) -> str:
    """The query that Grafana would send: macros and variables replaced."""
    since, until = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (NOW - timedelta(days=14), NOW))
    # to Grafana a macro's argument ends at the first bracket
    sql = re.sub(r"\$__timeFilter\(([^)]*)\)", rf"\1 BETWEEN '{since}' AND '{until}'", sql)
    quoted = UNIT.replace("'", "''")
    sql = sql.replace("${responsible:sqlstring}", f"'{quoted}'")
    sql = sql.replace("${zone}", VARIABLES["zone"]["query"])
    assert "$" not in sql, sql
    return sql.replace(":", r"\:")  # no bound parameters here


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["id"]))
def test_every_query_runs_and_finds_what_is_there(database: TtmDatabase, panel: dict[str, Any]):
    (target,) = panel["targets"]
    rows = database.rows(as_grafana(target["rawSql"]))
    assert rows
    if panel["type"] == "stat":
        assert [next(iter(row.values())) is not None for row in rows] == [True]
    if target["format"] == "time_series":
        assert all(isinstance(row["time"], datetime) for row in rows)
    named = {p["matcher"]["options"] for p in panel["fieldConfig"]["overrides"]}
    assert named <= set(rows[0])


def test_the_choice_of_responsible_units_runs(database: TtmDatabase):
    assert database.rows(VARIABLES["responsible"]["query"]) == [{"responsible": UNIT}]


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    taken: set[tuple[int, int]] = set()
    for panel in PANELS:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_panel_asks_the_source_that_is_chosen_at_import():
    (asked,) = DASHBOARD["__inputs"]
    for panel in PANELS:
        assert panel["datasource"]["uid"] == f"${{{asked['name']}}}"
        assert panel["datasource"]["type"] == asked["pluginId"]
        assert panel["targets"][0]["datasource"] == panel["datasource"]
