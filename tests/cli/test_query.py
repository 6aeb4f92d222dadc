"""`svod query` against the embedded engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def svod(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "from cli.main import app; app()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "workspace.yaml").touch()
    (folder / ".env").write_text(f"CLICKHOUSE_URL=chdb://{folder}/warehouse\n")
    return folder


@pytest.mark.parametrize(
    ("form", "expected"),
    [("csv", '"n","text"\n0,"[x]"\n1,"[x]"\n'), ("json", '{"n":0,"text":"[x]"}\n{"n":1,"text":"[x]"}\n')],
)
def test_rows_are_streamed_for_other_programs(project: Path, form: str, expected: str):
    done = svod(
        project, "query", "SELECT toUInt8(number) AS n, '[x]' AS text FROM numbers(2)", "--format", form
    )
    assert done.stdout == expected, done.stderr


def test_a_table_shows_names_rows_and_null(project: Path):
    done = svod(project, "query", "SELECT 1 AS one, NULL AS nothing, '[bold]' AS text")
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("one", "nothing", "NULL", "[bold]"))


@pytest.mark.parametrize("form", ["table", "json"])
def test_statements_that_the_engine_does_not_stream_are_shown_too(project: Path, form: str):
    done = svod(project, "query", "SHOW TABLES FROM svod", "--format", form)
    assert done.returncode == 0, done.stderr
    assert "load_log" in done.stdout


def test_a_statement_without_rows_succeeds(project: Path):
    done = svod(project, "query", "CREATE TABLE default.kept (a Int8) ENGINE = Log")
    assert done.returncode == 0, done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(project: Path):
    code = "from cli.main import app; app()"
    query = ["query", "SELECT number FROM numbers(1000000)", "--format", "csv"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *query], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout
        assert child.stderr
        assert child.stdout.readline()
        child.stdout.close()
        assert child.stderr.read() == b""


def test_a_mistake_is_one_line_without_a_traceback(project: Path):
    done = svod(project, "query", "SELEC 1")
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "yntax error" in done.stderr


def test_json_lines_parse(project: Path):
    done = svod(project, "query", "SELECT 'a\"b' AS text", "--format", "json")
    assert json.loads(done.stdout) == {"text": 'a"b'}
