"""An application is never locked out: its refresh token works once, and its successor is always kept."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resources.bitrix24 import Bitrix24Resource
from resources.bitrix24.client import Bitrix24Client
from resources.bitrix24.credentials import Application
from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import redact
from sandbox.bitrix24 import Portal, PortalConfig, serve
from sandbox.bitrix24.oauth import AUTHORIZATION_CODE, CLIENT_ID, CLIENT_SECRET

ROOT = Path(__file__).resolve().parents[3]
REFRESHER = f"""
import sys
from pathlib import Path
from resources.bitrix24.credentials import Application
url, folder, seed, times = sys.argv[1:]
app = Application("{CLIENT_ID}", "{CLIENT_SECRET}", refresh_token=seed, auth_url=url, directory=Path(folder))
app.renew("")
for _ in range(int(times)):
    print(app.token, flush=True)
    app.renew(app.token)
"""


@pytest.fixture
def portal() -> Iterator[Portal]:
    config = PortalConfig(deals=60, smart_processes=False, rate_limit=None)
    with serve(config) as portal:
        yield portal


@pytest.fixture
def seed(portal: Portal) -> str:
    return str(portal.tokens.issue(portal.base_url)["refresh_token"])


@pytest.fixture
def application(portal: Portal, seed: str, tmp_path: Path) -> Callable[..., Application]:
    def make(**changes: Any) -> Application:
        options = {"refresh_token": seed, "auth_url": portal.base_url, "directory": tmp_path} | changes
        return Application(CLIENT_ID, CLIENT_SECRET, **options)

    return make


def reads(app: Application) -> bool:
    client = Bitrix24Client(app, bucket_capacity=0)
    try:
        return len(client.call("crm.deal.list", {"start": -1})) == 50
    finally:
        client.close()


def test_the_first_token_is_fetched_and_kept_for_the_owner_only(portal, application, tmp_path):
    assert reads(application())
    (stored,) = tmp_path.glob("*.json")
    assert stat.S_IMODE(stored.stat().st_mode) == 0o600
    assert {"access_token", "refresh_token", "client_endpoint"} <= set(json.loads(stored.read_text()))
    assert reads(application())  # from the file: the first token is used up
    assert portal.stats()["http_requests"] == 2


def test_an_expired_token_is_refreshed_in_the_middle_of_a_scan(portal, application):
    client = Bitrix24Client(application(), bucket_capacity=0)
    client.call("profile")
    portal.tokens.expire_access()
    deals, _ = client.call_many([("crm.deal.list", {"start": -1}), ("profile", {})])
    assert isinstance(deals, list)
    assert len(deals) == 50
    client.close()


def test_a_token_that_another_process_refreshed_is_taken_over(portal, application):
    first, second = application(), application()
    assert reads(first)
    second.renew("")
    assert second.token == first.token
    portal.tokens.expire_access()
    assert reads(first)
    assert reads(second)
    assert second.token == first.token


def test_a_new_first_token_replaces_the_stored_pair(portal, application):
    assert reads(application())
    portal.tokens.revoke()
    portal.tokens.expire_access()
    with pytest.raises(PermanentSourceError, match="authorise the application anew"):
        reads(application())
    fresh = str(portal.tokens.issue(portal.base_url)["refresh_token"])
    assert reads(application(refresh_token=fresh))


def test_an_authorization_code_gives_the_first_pair(application):
    app = application(refresh_token="")
    with pytest.raises(PermanentSourceError, match="no token yet"):
        reads(app)
    app.authorise(AUTHORIZATION_CODE)
    assert reads(app)
    assert reads(application(refresh_token=""))


def test_a_wrong_secret_is_named_and_never_shown(portal, seed, tmp_path):
    options = {"refresh_token": seed, "auth_url": portal.base_url, "directory": tmp_path}
    app = Application(CLIENT_ID, "hush-hush-1", **options)
    with pytest.raises(PermanentSourceError, match="BITRIX24_APP_CLIENT_SECRET") as error:
        reads(app)
    assert "hush-hush-1" not in str(error.value.description)
    assert redact(f"token {seed}") == "token ***"


def test_the_next_server_is_asked_where_one_cannot_be_reached(portal, application, monkeypatch):
    servers = ("http://127.0.0.1:9", portal.base_url)
    monkeypatch.setattr("resources.bitrix24.credentials.AUTH_SERVERS", servers)
    assert reads(application(auth_url=""))


def test_no_server_at_all_is_a_failure_that_may_pass(application):
    with pytest.raises(TransientSourceError, match="authorization server"):
        reads(application(auth_url="http://127.0.0.1:9"))


def test_a_renamed_portal_is_followed_with_the_token(portal, application):
    app = application()
    with serve(PortalConfig(deals=10, smart_processes=False, rate_limit=None)) as moved:
        moved.tokens = portal.tokens
        portal.faults.add("redirect", method="profile", times=1, location=moved.base_url)
        client = Bitrix24Client(app, bucket_capacity=0)
        assert client.call("profile")["ID"] == "1"
        assert len(client.call("crm.deal.list")) == 10
        client.close()


def test_an_application_needs_a_place_that_lasts():
    resource = Bitrix24Resource(client_id="local.app", client_secret="some-secret")
    with pytest.raises(PermanentSourceError, match="SVOD_STATE_DIR"):
        resource.credential()


def refresher(portal: Portal, folder: Path, seed: str, times: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", REFRESHER, portal.base_url, str(folder), seed, str(times)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_two_processes_that_refresh_at_once_never_use_a_token_twice(portal, seed, application, tmp_path):
    both = [refresher(portal, tmp_path, seed, 12) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].split() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [len(tokens) for tokens in said] == [12, 12]
    assert reads(application())


def test_a_process_killed_while_it_refreshes_locks_nobody_out(portal, seed, application, tmp_path):
    for moment in (0.05, 0.15, 0.3, 0.6):
        process = refresher(portal, tmp_path, seed, 10_000)
        assert process.stdout
        process.stdout.readline()
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        portal.tokens.expire_access()
        assert reads(application())
