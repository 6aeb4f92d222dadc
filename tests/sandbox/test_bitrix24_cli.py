"""The command line serves a portal and changes it while it runs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from sandbox.cli import app

ROOT = Path(__file__).parents[2]
Player = Callable[..., Any]


@pytest.fixture(scope="module")
def webhook() -> Iterator[str]:
    arguments = ["bitrix24", "serve", "--port", "0", "--deals", "120", "--rate", "off"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "sandbox", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    process.stdout.close()


@pytest.fixture
def player(webhook: str) -> Player:
    """Run a player command against the served portal; returns the parsed answer."""
    port = webhook.split(":")[2].split("/")[0]

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, ["bitrix24", *arguments, "--port", port])
        assert result.exit_code == 0, result.output
        return json.loads(result.output)

    return run


def test_rows_fields_and_processes(webhook: str, player: Player) -> None:
    ids = player("create", "deal", "--set", "TITLE=Проба", "--set", "OPPORTUNITY=5.5", "--count", "2")["ids"]
    player("change", "deal", str(ids[0]), "--set", "TITLE=Другое")
    player("add-field", "deal", "COLOUR", "--kind", "string", "--fill")
    player("delete", "deal", str(ids[1]))
    body = {"filter": {">=ID": ids[0]}, "select": ["TITLE", "UF_CRM_COLOUR"]}
    rows = requests.post(webhook + "crm.deal.list", json=body, timeout=10).json()["result"]
    assert [row["TITLE"] for row in rows] == ["Другое"]
    assert player("restore", "deal", str(ids[1]))["ids"] == [ids[1]]
    process = player("add-process", "Заявки", "--items", "3")
    assert player("counts")[f"dynamic_{process['entityTypeId']}"] == 3


def test_settings_faults_clock_and_statistics(webhook: str, player: Player) -> None:
    player("reset-stats")
    player("faults", "--rule", '{"action": "html", "request": 1}')
    assert requests.post(webhook + "profile", timeout=10).status_code == 502
    assert player("stats")["faults"] == {"html": 1}
    assert player("settings", "--set", "rate_limit=[250, 5]")["rate_limit"] == [250, 5]
    before = player("advance-clock", "0")["now"]
    assert player("advance-clock", "600")["now"] >= before + 600
    assert player("issue-token")["expires_in"] == 3600


def test_mistakes_are_explained(webhook: str) -> None:
    port = webhook.split(":")[2].split("/")[0]
    result = CliRunner().invoke(app, ["bitrix24", "delete", "deal", "100500", "--port", port])
    assert result.exit_code == 1
    assert "no deal with id 100500" in result.output
    assert "start it with `serve`" in CliRunner().invoke(app, ["bitrix24", "stats", "--port", "1"]).output
    assert CliRunner().invoke(app, ["bitrix24", "create", "deal", "--set", "oops"]).exit_code == 2


def test_help_lists_every_command() -> None:
    output = CliRunner().invoke(app, ["bitrix24", "--help"]).output
    assert all(
        name in output for name in ("serve", "create", "restore", "advance-clock", "add-process", "stats")
    )
