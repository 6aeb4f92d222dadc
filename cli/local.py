"""What a laptop without servers runs beside Dagster: a sandbox for each source, and services."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The emulator of one source, `python -m sandbox <source> serve`.

    `setting` holds the source's address, `url` its value that leads here. `settings` go into `.env` together
    with it, credentials that the emulator takes; `needs` are those without which the source is not set up.
    `defaults` hold while it is used and the user chose no other. `options` are further arguments of `serve`,
    made from the number of deals that a user asks for; a demo loads the last `days`.
    """

    source: str
    setting: str
    url: str
    needs: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    options: Callable[[int], list[str]] = lambda deals: []
    probe: str = "/stats"
    days: int = 1

    @property
    def configured(self) -> bool:
        """Whether the source can be asked at all, the real one or this."""
        return all(os.environ.get(name) for name in self.needs)

    @property
    def port(self) -> int | None:
        """The port at which the settings expect it; None when they lead to a real system, or nowhere."""
        mine, set_ = urlsplit(self.url), urlsplit(os.environ.get(self.setting, ""))
        same = set_.scheme == mine.scheme and set_.path.rstrip("/") == mine.path.rstrip("/")
        return (set_.port or 80) if same and set_.hostname in LOOPBACK else None

    def command(self, port: int, deals: int) -> list[str]:
        python = [sys.executable, "-m", "sandbox", self.source, "serve", "--port", str(port)]
        return [*python, *self.options(deals)]


@dataclass(frozen=True, slots=True)
class Service:
    """A long-running process of ours that `svod dev` starts when the settings are local.

    `url` answers when it is up; `source` is the sandbox without which it is not started; `demo`: it is needed
    to load that source at all, so `svod demo` starts it too.
    """

    name: str
    source: str
    command: list[str]
    url: str
    demo: bool = False


SANDBOXES = (
    Sandbox(
        "bitrix24",
        setting="BITRIX24_WEBHOOK_URL",
        url="http://127.0.0.1:8024/rest/1/sandbox0secret/",
        needs=("BITRIX24_WEBHOOK_URL",),
        # as on the largest tariff
        defaults={"BITRIX24_RATE_CAPACITY": "250", "BITRIX24_RATE_PER_SECOND": "5"},
        options=lambda deals: ["--deals", str(deals), "--rate", "250/5", "--operating", "absent"],
    ),
    Sandbox(
        "metrika",
        setting="METRIKA_URL",
        url="http://127.0.0.1:8025",
        needs=("METRIKA_TOKEN",),
        settings={"METRIKA_TOKEN": "sandbox0token0of0metrika", "METRIKA_COUNTERS": "100001"},
        # its logs are ready at the second look; no models are given, so the demo trains some
        defaults={
            "METRIKA_POLL_S": "0.5",
            "METRIKA_LABEL_GOAL": "310000001",
            "SCORING_CREATE_GOALS": "true",
        },
        options=lambda deals: ["--visits", str(deals // 10)],
        days=7,
    ),
    Sandbox(
        "mts_link",
        setting="MTS_LINK_URL",
        url="http://127.0.0.1:8026/v3",
        needs=("MTS_LINK_API_TOKEN",),
        settings={"MTS_LINK_API_TOKEN": "sandbox-key"},
        # invented people, and no rate to wait for
        defaults={"MTS_LINK_CLASSES": "chats,transcripts,contacts", "MTS_LINK_RATE": "0"},
        options=lambda deals: ["--rate", "off"],
    ),
    Sandbox(
        "ttm",
        setting="TTM_URL",
        url="http://127.0.0.1:8027",
        needs=("TTM_SERVER", "TTM_TOKEN", "TTM_KEY"),
        settings={
            "TTM_SERVER": "ws://127.0.0.1:8765",
            "TTM_PORT": "8765",
            "TTM_TOKEN": "sandbox",
            "TTM_KEY": "sandbox0key0of0hub",
            "TTM_EMAIL": "sandbox@example.org",
            "TTM_PASSWORD": "sandbox0password",
            "TTM_FILTER_ARREARS": "sandbox-arrears",
            "TTM_FILTER_STOPPED": "sandbox-stopped",
        },
        defaults={"TTM_INTERVAL": "30"},  # so that the board is seen to live
        options=lambda deals: ["--change-every", "15"],
        days=3,
    ),
    Sandbox(
        "mts_vats",
        setting="MTS_VATS_ADDRESS",
        url="http://127.0.0.1:8028",
        needs=("MTS_VATS_LOGIN", "MTS_VATS_PASSWORD"),
        settings={"MTS_VATS_LOGIN": "+7-9990000001", "MTS_VATS_PASSWORD": "sandbox0secret"},
    ),
)
SERVICES: tuple[Service, ...] = (
    Service(
        "scoring",
        source="metrika",
        command=[sys.executable, "-m", "services.scoring_api", "serve", "--port", "8000"],
        url="http://127.0.0.1:8000/healthz",
    ),
    Service(
        "ttm hub",
        source="ttm",
        command=[sys.executable, "-m", "services.ttm_hub"],
        url="http://127.0.0.1:8765/metrics",
        demo=True,
    ),
    Service(
        "ttm link",
        source="ttm",
        command=[sys.executable, "-m", "services.ttm_connector", "--health-port", "8766"],
        url="http://127.0.0.1:8766/",
        demo=True,
    ),
    Service(
        "ttm board",
        source="ttm",
        command=[sys.executable, "-m", "services.ttm_board"],
        url="http://127.0.0.1:8029/healthz",
    ),
)


def sandbox_of(source: str) -> Sandbox:
    return next(s for s in SANDBOXES if s.source == source)


def local_settings() -> dict[str, str]:
    """What leads to the sandboxes; empty as soon as one source is a real one, for theirs must not mix."""
    if any(s.configured and s.port is None for s in SANDBOXES):
        return {}
    return {name: value for s in SANDBOXES for name, value in {s.setting: s.url, **s.settings}.items()}


def take_defaults() -> None:
    """What the sandboxes in use allow, unless the user chose it."""
    for sandbox in SANDBOXES:
        if sandbox.port:
            for name, value in sandbox.defaults.items():
                os.environ.setdefault(name, value)
