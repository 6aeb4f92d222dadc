"""What a connector needs to know, from the environment."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from resources.ttm.protocol import ID, MAX_CAPACITY, MAX_MESSAGE
from resources.ttm.settings import SettingError, Settings

LOGIN_PATH = "/nttm-task-handler/api/authenticate"
TICKET_PATH = "/nttm-web-gateway/api/ticket/{id}"


@dataclass(frozen=True)
class SystemConfig:
    """The ticket system and how patiently it is asked. Times are seconds."""

    url: str
    email: str
    password: str = field(repr=False)
    login_path: str = LOGIN_PATH
    ticket_path: str = TICKET_PATH
    date_field: str = "closeDate"
    force_login: bool = True
    ca_file: str | None = None
    proxy: str | None = field(default=None, repr=False)
    connect_s: float = 15
    ticket_s: float = 10
    page_s: float = 90
    login_life_s: float = 6 * 3600
    retry_s: float = 1.0
    """Before the second attempt at a call; twice as long before the third."""
    most_wait_s: float = 30
    locked_s: float = 60
    """Before the next login after three refused ones; doubles up to fifteen times as long."""
    probe_s: float = 15
    """Between attempts to reach a system that could not be reached."""


@dataclass(frozen=True)
class LinkConfig:
    """The connection to the hub."""

    server: str
    token: str
    key: str = field(repr=False)
    instance: str = "ttm-connector"
    capacity: int = 4
    tls: ssl.SSLContext | None = None
    proxy: str | None = field(default=None, repr=False)
    max_message: int = MAX_MESSAGE
    reconnect_s: float = 1.0
    """Before the second attempt to connect; doubles up to a minute."""
    refused_s: float = 30.0
    """After refused credentials; doubles up to ten minutes."""
    keep_result_s: float = 30.0
    finish_s: float = 20.0
    """For tasks at work when it is told to stop."""


@dataclass(frozen=True)
class ConnectorConfig:
    """One connector."""

    link: LinkConfig
    system: SystemConfig
    health_port: int | None = None

    @property
    def secrets(self) -> list[str]:
        hidden = (self.link.key, self.system.password, self.link.proxy, self.system.proxy)
        return [secret for secret in hidden if secret]


def connector_config(settings: Settings) -> ConnectorConfig:
    """Raises SettingError for what is missing or malformed."""
    server = settings.server()
    instance = settings.text("INSTANCE", _own_name())
    if not re.match(ID, instance):
        raise SettingError("TTM_INSTANCE must be 1 to 64 letters, digits or ._:- characters.")
    link = LinkConfig(
        server=server,
        token=settings.text("TOKEN"),
        key=settings.text("KEY"),
        instance=instance,
        capacity=int(settings.number("CAPACITY", 4, 1, MAX_CAPACITY)),
        tls=settings.client_tls(server),
        proxy=settings.text("HUB_PROXY", "") or None,
    )
    system = SystemConfig(
        url=_address(settings.text("URL")),
        email=settings.text("EMAIL"),
        password=settings.text("PASSWORD"),
        login_path=_path(settings, "LOGIN_PATH", LOGIN_PATH),
        ticket_path=_path(settings, "TICKET_PATH", TICKET_PATH),
        date_field=settings.text("DATE_FIELD", "closeDate"),
        force_login=settings.switch("FORCE_LOGIN", True),
        ca_file=settings.text("CA_FILE", "") or None,
        proxy=settings.text("URL_PROXY", "") or None,
    )
    if "{id}" not in system.ticket_path:
        raise SettingError("TTM_TICKET_PATH must hold {id}.")
    health = int(settings.number("HEALTH_PORT", 0, 0, 65535))
    return ConnectorConfig(link, system, health or None)


def _own_name() -> str:
    return re.sub(r"[^A-Za-z0-9._:-]", "-", socket.gethostname())[:64] or "ttm-connector"


def _address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingError("TTM_URL must be http://host or https://host, perhaps with a port and a path.")
    if parts.username or parts.password:
        raise SettingError("TTM_URL must not hold a user or a password: they are TTM_EMAIL and TTM_PASSWORD.")
    return text.rstrip("/")


def _path(settings: Settings, name: str, default: str) -> str:
    path = settings.text(name, default)
    if not path.startswith("/"):
        raise SettingError(f"TTM_{name} must begin with a slash.")
    return path
