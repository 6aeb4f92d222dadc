"""`svod ttm analyse`: tickets in, one line of JSON each out."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app

TICKET = {
    "id": 5,
    "status": "Закрыт",
    "closeDate": "2026-03-10T10:00:00Z",
    "ola": {"ksSla": 30},
    "tasks": [
        {
            "taskNumber": "5-1",
            "typeName": "Решение",
            "createTs": "2026-03-10T09:00:00Z",
            "completionDate": "2026-03-10T10:00:00Z",
            "taskExecutorDTO": {"execUnitName": "Линия 1"},
        }
    ],
}


def analyse(tmp_path: Path, given: Any, *options: str) -> tuple[int, list[Any], str]:
    file = tmp_path / "tickets.json"
    file.write_text(given if isinstance(given, str) else json.dumps(given))
    result = CliRunner().invoke(app, ["ttm", "analyse", str(file), *options])
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()], result.stderr


def test_a_ticket_is_told_as_a_record(tmp_path: Path):
    status, (line,), _ = analyse(tmp_path, TICKET, "--day", "2026-03-10")
    assert status == 0
    assert line["analysis"]["outcome"] == "breached"
    assert line["analysis"]["breach_at"] == "2026-03-10T09:30:00Z"
    assert line["arrears_row"]["add_date"] == "2026-03-10"
    assert line["in_window"] is True


def test_without_a_day_there_is_no_row(tmp_path: Path):
    _, (line,), _ = analyse(tmp_path, [TICKET])
    assert (line["in_window"], line["arrears_row"]) == (False, None)


def test_what_is_no_ticket_stops_no_other(tmp_path: Path):
    status, lines, _ = analyse(tmp_path, ["x", TICKET])
    assert status == 1
    assert "not an object" in lines[0]["error"]
    assert lines[1]["analysis"]["outcome"] == "breached"


@pytest.mark.parametrize(
    ("given", "options", "said"),
    [
        ("{", (), "not JSON"),
        ("{}", ("--day", "вчера"), "Give a day"),
        ("{}", ("--business-tz", "Mars/Base"), "zones"),
    ],
)
def test_wrong_input_is_one_line(tmp_path: Path, given: str, options: tuple[str, ...], said: str):
    status, lines, error = analyse(tmp_path, given, *options)
    assert (status, lines) == (1, [])
    assert said in error
