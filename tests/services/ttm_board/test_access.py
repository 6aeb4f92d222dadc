"""Who sees the board, and what it refuses to start with."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from resources.ttm.database import TtmDatabase
from resources.ttm.settings import SettingError
from services.ttm_board.config import BoardConfig, board_config
from tests.services.ttm_board.board_house import Shown, board

ROOT = Path(__file__).resolve().parents[3]
PASSWORD = "пароль-доски-7"
PAGES = ("/", "/panel", "/events", "/stopped.csv", "/expired.csv", "/static/board.js")


def basic(password: str, name: str = "любой") -> dict[str, str]:
    coded = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {coded}"}


def test_without_the_password_nothing_is_shown(database: TtmDatabase):
    with board(database, BoardConfig(password=PASSWORD)) as shown:
        for path in PAGES:
            answer = shown.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"].startswith("Basic")
        assert shown.get(headers=basic(PASSWORD)).status_code == 200
        assert shown.get("/healthz").text == "ok\n"


@pytest.mark.parametrize("given", ["Basic !!!", "Basic", "Bearer x", "Basic " + "A" * 5000, "Basic /w=="])
def test_a_malformed_password_is_a_wrong_one(database: TtmDatabase, given: str):
    with board(database, BoardConfig(password=PASSWORD)) as shown:
        assert shown.get(headers={"Authorization": given}).status_code == 401


def test_guessing_is_slowed_down(database: TtmDatabase):
    with board(database, BoardConfig(password=PASSWORD)) as shown:
        answers = [shown.get("/panel", headers=basic(f"guess-{n}")).status_code for n in range(12)]
        assert answers == [401] * 10 + [429] * 2
        assert shown.get("/panel", headers=basic(PASSWORD)).status_code == 429


def guesses(shown: Shown, client: str, times: int = 10, password: str = "guess") -> list[int]:
    headers = {**basic(password), "X-Forwarded-For": client}
    return [shown.get("/panel", headers=headers).status_code for _ in range(times)]


def test_behind_a_proxy_guessing_shuts_out_its_author_only(database: TtmDatabase):
    environ = {
        "TTM_BOARD_PASSWORD": PASSWORD,
        "TTM_BOARD_CLIENT_HEADER": "X-Forwarded-For",
        "TTM_BOARD_PROXY": "127.0.0.0/8,10.0.0.0/8",
    }
    with board(database, board_config(environ)) as shown:
        for n in range(10):  # what the client itself wrote before the proxy's word changes nothing
            assert guesses(shown, f"192.0.2.{n}, 198.51.100.7, 10.0.0.1", 1) == [401]
        assert guesses(shown, "198.51.100.7", 1, PASSWORD) == [429]
        assert guesses(shown, "198.51.100.8", 1, PASSWORD) == [200]


@pytest.mark.parametrize(
    "environ", [{"TTM_BOARD_PROXY": "10.0.0.1", "TTM_BOARD_CLIENT_HEADER": "X-Forwarded-For"}, {}]
)
def test_a_header_of_anyone_else_does_not_say_whose_guess_it_is(
    database: TtmDatabase, environ: dict[str, str]
):
    with board(database, board_config({"TTM_BOARD_PASSWORD": PASSWORD, **environ})) as shown:
        assert [guesses(shown, f"192.0.2.{n}", 1) for n in range(11)] == [[401]] * 10 + [[429]]


def proxied(*proxies: str) -> BoardConfig:
    environ = {"TTM_BOARD_USER_HEADER": "X-Remote-User", "TTM_BOARD_PROXY": ",".join(proxies)}
    return board_config(environ)


def test_the_proxy_of_the_company_may_sign_people_in(database: TtmDatabase):
    with board(database, proxied("127.0.0.0/8")) as shown:
        assert shown.get(headers={"X-Remote-User": "ivanov"}).status_code == 200
        assert shown.get().status_code == 403


def test_anyone_else_may_not_say_that_he_is_the_proxy(database: TtmDatabase):
    with board(database, proxied("10.0.0.1")) as shown:
        headers = {"X-Remote-User": "ivanov", "X-Forwarded-For": "10.0.0.1"}
        assert shown.get(headers=headers).status_code == 403


@pytest.mark.parametrize(("host", "status"), [("localhost:8029", 200), ("[::1]", 200), ("evil.example", 403)])
def test_an_open_board_answers_to_this_machines_names_only(database: TtmDatabase, host: str, status: int):
    with board(database) as shown:
        assert shown.get(headers={"Host": host}).status_code == status


def test_every_answer_carries_the_security_headers(database: TtmDatabase):
    with board(database) as shown:
        for path in ("/", "/static/board.css", "/nowhere"):
            headers = shown.get(path).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "frame-ancestors 'none'" in headers["content-security-policy"]
            assert headers["cache-control"] == "no-store"
        assert shown.get("/openapi.json").status_code == 404
        assert httpx.post(f"{shown.url}/", trust_env=False).status_code == 405


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"TTM_BOARD_HOST": "0.0.0.0"}, "TTM_BOARD_PASSWORD"),
        ({"TTM_BOARD_HOST": "board.example.org"}, "TTM_BOARD_PASSWORD"),
        ({"TTM_BOARD_PASSWORD": "short"}, "TTM_BOARD_PASSWORD"),
        ({"TTM_BOARD_PORT": "http"}, "TTM_BOARD_PORT"),
        ({"TTM_BOARD_PROXY": "proxy.example"}, "TTM_BOARD_PROXY"),
        ({"TTM_BUSINESS_TZ": "Mars/Base"}, "TTM_BUSINESS_TZ"),
    ],
)
def test_an_unsafe_or_malformed_setting_is_named(environ: dict[str, str], named: str):
    with pytest.raises(SettingError, match=named):
        board_config(environ)


@pytest.mark.parametrize(
    "environ",
    [{"TTM_BOARD_PASSWORD": PASSWORD}, {"TTM_BOARD_USER_HEADER": "X-Remote-User"}],
)
def test_with_either_the_board_may_be_public(environ: dict[str, str]):
    assert board_config({"TTM_BOARD_HOST": "0.0.0.0", **environ}).host == "0.0.0.0"


def test_the_command_says_what_is_missing_in_one_line(tmp_path: Path):
    settings = {n: v for n, v in os.environ.items() if not n.startswith(("TTM_", "SVOD_", "DB_"))}
    done = subprocess.run(
        [sys.executable, "-m", "services.ttm_board"],
        cwd=tmp_path,
        env={**settings, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("SVOD_POSTGRES_URL is not set")
    assert "Traceback" not in done.stderr
