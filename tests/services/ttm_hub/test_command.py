"""`python -m services.ttm_hub` and `python -m services.ttm_connector`: settings, statuses, signals."""

import os
import signal
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from resources.ttm.requester import HubClient
from resources.ttm.settings import SettingError, Settings
from services.ttm_connector.config import connector_config
from services.ttm_hub.config import hub_config

ROOT = Path(__file__).resolve().parents[3]
LOADED = """
import sys, services.{module}.__main__
for name, module in sys.modules.items():
    if getattr(module, "__file__", None):
        print(name, module.__file__)
"""
KEY = "a-key-that-never-travels"
HUB = {"TOKEN": "ttm-main", "KEY": KEY, "PORT": "0"}
CONNECTOR = {
    "SERVER": "ws://127.0.0.1:1",
    "TOKEN": "ttm-main",
    "KEY": KEY,
    "URL": "https://tickets.example",
    "EMAIL": "user@example.org",
    "PASSWORD": "a-password-that-never-shows",
}


def start(module: str, settings: dict[str, str]) -> subprocess.Popen[str]:
    own = {n: v for n, v in os.environ.items() if not n.startswith("TTM_") and n not in {*HUB, *CONNECTOR}}
    return subprocess.Popen(
        [sys.executable, "-m", f"services.{module}"],
        cwd=ROOT,
        env={**own, **settings},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_hub_runs_with_the_old_names_until_it_is_told_to_stop():
    hub = start("ttm_hub", HUB)
    assert hub.stderr
    line = hub.stderr.readline()
    assert "listening on ws://127.0.0.1:" in line
    port = int(line.rsplit(":", 1)[1].split("/")[0])
    with HubClient(f"ws://127.0.0.1:{port}", "ttm-main", KEY, patience_s=5) as client:
        assert client.status()["connectors"] == []
        hub.send_signal(signal.SIGTERM)
        assert hub.wait(20) == 0
    assert KEY not in hub.stderr.read()


@pytest.mark.parametrize("module", ["ttm_hub", "ttm_connector"])
def test_a_missing_setting_is_status_2_and_one_line(module: str):
    child = start(module, {"TOKEN": "t", "SERVER": "ws://127.0.0.1:1"})
    assert child.wait(20) == 2
    assert child.stderr
    assert child.stderr.read() == f"{module.replace('_', '-')}: TTM_KEY (or KEY) is not set.\n"


def test_a_taken_port_is_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        hub = start("ttm_hub", HUB | {"PORT": str(taken.getsockname()[1])})
        assert hub.wait(20) == 1
    assert hub.stderr
    assert len(hub.stderr.read().splitlines()) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "hub.example"])
def test_the_hub_does_not_listen_on_a_network_in_clear(host: str):
    settings = HUB | {"TTM_HOST": host}
    with pytest.raises(SettingError, match="TTM_ALLOW_PLAINTEXT"):
        hub_config(Settings(settings))
    assert hub_config(Settings(settings | {"TTM_ALLOW_PLAINTEXT": "true"})).host == host


def test_several_identities():
    keys = '{"a": {"key": "ka", "roles": ["connector"]}, "b": {"key": "kb"}}'
    config = hub_config(Settings({"TTM_HUB_KEYS": keys}))
    assert config.identities["a"].roles == {"connector"}
    assert config.identities["b"].roles == {"connector", "requester"}
    assert "ka" not in repr(config)


@pytest.mark.parametrize(
    "wrong",
    ["{", "[]", "{}", '{"a": 1}', '{"a": {"key": ""}}', '{"a": {"key": "hidden-key", "roles": ["admin"]}}'],
)
def test_malformed_identities_are_refused_without_being_shown(wrong: str):
    with pytest.raises(SettingError, match="TTM_HUB_KEYS") as error:
        hub_config(Settings({"TTM_HUB_KEYS": wrong}))
    assert "hidden-key" not in str(error.value)


@pytest.mark.parametrize("missing", CONNECTOR)
def test_the_connector_names_what_it_lacks(missing: str):
    with pytest.raises(SettingError, match=f"TTM_{missing} .or {missing}. is not set"):
        connector_config(Settings({n: v for n, v in CONNECTOR.items() if n != missing}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TTM_URL", "tickets.example"),
        ("TTM_URL", "https://user:secret-word@tickets.example"),
        ("TTM_SERVER", "http://hub"),
        ("TTM_INSTANCE", "two words"),
        ("TTM_CAPACITY", "33"),
        ("TTM_FORCE_LOGIN", "perhaps"),
        ("TTM_LOGIN_PATH", "login"),
        ("TTM_TICKET_PATH", "/ticket"),
    ],
)
def test_the_connector_names_what_is_malformed(name: str, value: str):
    with pytest.raises(SettingError, match=name) as error:
        connector_config(Settings(CONNECTOR | {name: value}))
    assert "secret-word" not in str(error.value)


def test_secrets_of_the_configuration_are_not_in_its_text():
    config = connector_config(Settings(CONNECTOR | {"TTM_HUB_PROXY": "http://u:proxy-word@proxy:3128"}))
    assert "never" not in repr(config)
    assert "proxy-word" not in repr(config)
    assert config.system.url == "https://tickets.example"
    assert config.link.server == "ws://127.0.0.1:1/v1/ttm"


def loaded(module: str) -> dict[str, Path]:
    """What the command imports: the file of each module."""
    code = LOADED.format(module=module)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name: Path(path) for name, path in (line.split(" ", 1) for line in done.stdout.splitlines())}


def test_the_connector_needs_its_own_few_dependencies_and_takes_along_all_its_modules():
    folder = ROOT / "services" / "ttm_connector"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    taken = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    modules = loaded("ttm_connector")
    own = {
        path.resolve() for name, path in modules.items() if name.split(".")[0] in ("services", "resources")
    }
    assert own == {(folder / source).resolve() for source in taken}
    assert all((folder / source).resolve() == ROOT / target for source, target in taken.items())
    pinned = {line.split("==")[0] for line in (folder / "requirements.lock").read_text().splitlines()}
    # httpx has a command line of its own, which it imports where its parts are installed
    assert distributions(modules) <= pinned | {"svod", "setuptools", "click", "rich", "pygments"}


def test_the_hub_needs_three_packages():
    wanted = (ROOT / "deploy" / "ttm_hub" / "requirements.in").read_text().splitlines()
    names = {line.split(">=")[0] for line in wanted if not line.startswith("#")}
    assert distributions(loaded("ttm_hub")) <= names | {"svod", "setuptools", "typing-extensions"}


def distributions(modules: dict[str, Path]) -> set[str]:
    """The packages, as installed, of modules outside the standard library."""
    known = packages_distributions()
    tops = {name.split(".")[0] for name, path in modules.items() if "site-packages" in path.parts}
    return {name.lower().replace("_", "-") for top in tops for name in known.get(top, ())}
