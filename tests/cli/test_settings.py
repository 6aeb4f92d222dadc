""".env for local use: what is empty is filled, what the user wrote stays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from cli.local import SANDBOXES, sandbox_of
from cli.project import ensure_local, enter, local_settings

SANDBOX_WEBHOOK = sandbox_of("bitrix24").url
EXAMPLE = (Path(__file__).parents[2] / ".env.example").read_text()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder, with none of the settings in the environment."""
    (tmp_path / "workspace.yaml").touch()
    (tmp_path / "dagster.yaml").touch()
    (tmp_path / ".env.example").write_text(EXAMPLE)
    for name in local_settings(tmp_path):
        monkeypatch.setenv(name, "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_fresh_folder_gets_every_local_setting(project: Path):
    assert set(ensure_local(project)) == set(local_settings(project))
    written = dotenv_values(project / ".env")
    assert written["BITRIX24_WEBHOOK_URL"] == SANDBOX_WEBHOOK
    assert written["CLICKHOUSE_URL"] == f"chdb://{project}/.data/warehouse"
    assert (project / ".dagster_home" / "dagster.yaml").resolve() == project / "dagster.yaml"


def test_the_file_is_readable_by_its_owner_only(project: Path):
    ensure_local(project)
    assert (project / ".env").stat().st_mode & 0o077 == 0


def test_what_the_user_wrote_stays(project: Path):
    mine = "https://portal.example/rest/7/code/"
    (project / ".env").write_text(f"# mine\nBITRIX24_WEBHOOK_URL={mine}\nCLICKHOUSE_URL=''\n")
    enter()
    assert "BITRIX24_WEBHOOK_URL" not in ensure_local(project)
    written = dotenv_values(project / ".env")
    assert written["BITRIX24_WEBHOOK_URL"] == mine
    assert written["CLICKHOUSE_URL"] == f"chdb://{project}/.data/warehouse"
    assert (project / ".env").read_text().startswith("# mine\n")


def test_rows_of_the_sandboxes_never_join_those_of_a_real_source(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BITRIX24_WEBHOOK_URL", "https://portal.example/rest/7/code/")
    assert not {s.setting for s in SANDBOXES} & set(ensure_local(project))


def test_a_setting_of_the_environment_is_not_shadowed_by_the_file(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CLICKHOUSE_URL", "https://u:p@ch:8443/db")
    assert "CLICKHOUSE_URL" not in ensure_local(project)
    assert not dotenv_values(project / ".env")["CLICKHOUSE_URL"]


def test_filling_twice_changes_nothing(project: Path):
    ensure_local(project)
    before = (project / ".env").read_text()
    assert ensure_local(project) == []
    assert (project / ".env").read_text() == before


@pytest.mark.parametrize(
    ("webhook", "port"),
    [
        (SANDBOX_WEBHOOK, 8024),
        ("http://localhost:9000/rest/1/sandbox0secret", 9000),
        ("https://portal.example/rest/1/sandbox0secret/", None),
        ("http://127.0.0.1:8024/rest/1/another/", None),
        ("", None),
    ],
)
def test_only_the_loopback_sandbox_is_started(
    webhook: str, port: int | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BITRIX24_WEBHOOK_URL", webhook)
    assert sandbox_of("bitrix24").port == port


def test_a_malformed_setting_ends_a_command_with_one_line(tmp_path: Path):
    (tmp_path / "dagster.yaml").touch()
    environ = {**os.environ, "CLICKHOUSE_URL": f"chdb://{tmp_path}/warehouse", "METRIKA_RELOAD_DAYS": "three"}
    request = json.dumps({"run_id": "11111111-2222-3333-4444-555555555555", "assets": []})
    done = subprocess.run(
        [sys.executable, "-m", "cli.load", request],
        env={**environ, "DAGSTER_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["METRIKA_RELOAD_DAYS must be a number, it is a text of 5 characters."]
