"""Settings of the board from the environment, and what it refuses to do."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from resources.postgres import PostgresError
from resources.ttm.database import TtmDatabase, operations_url
from resources.ttm.settings import SettingError, Settings, loopback

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SHORTEST_PASSWORD = 8


@dataclass(frozen=True, slots=True)
class BoardConfig:
    """Where the board listens and who may see it. `interval_s`: how often the list should be read."""

    host: str = "127.0.0.1"
    port: int = 8029
    password: str = field(default="", repr=False)
    user_header: str = ""
    client_header: str = ""
    proxies: tuple[Network, ...] = ()
    certificate: str = ""
    certificate_key: str = ""
    zone: str = "Europe/Moscow"
    interval_s: float = 300
    refresh_s: float = 2

    @property
    def open(self) -> bool:
        """Whether anyone who reaches it may see it: on loopback only."""
        return not (self.password or self.user_header)

    @property
    def calendar_zone(self) -> ZoneInfo:
        return ZoneInfo(self.zone)


def board_config(environ: Mapping[str, str] = os.environ) -> BoardConfig:
    """The settings TTM_BOARD_*. Raises SettingError that names what is missing, malformed or unsafe."""
    settings = Settings(environ)
    zone = settings.text("BUSINESS_TZ", "Europe/Moscow")
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, KeyError):  # an unknown zone is a KeyError
        raise SettingError("TTM_BUSINESS_TZ is not a time zone such as Europe/Moscow.") from None
    config = BoardConfig(
        host=settings.text("BOARD_HOST", "127.0.0.1"),
        port=int(settings.number("BOARD_PORT", 8029, 0, 65_535)),
        password=settings.text("BOARD_PASSWORD", ""),
        user_header=settings.text("BOARD_USER_HEADER", ""),
        client_header=settings.text("BOARD_CLIENT_HEADER", ""),
        proxies=_networks(settings.text("BOARD_PROXY", "127.0.0.1,::1")),
        certificate=settings.text("BOARD_TLS_CERT", ""),
        certificate_key=settings.text("BOARD_TLS_KEY", ""),
        zone=zone,
        interval_s=settings.number("INTERVAL", 300, 30, 86_400),
        refresh_s=settings.number("BOARD_REFRESH_S", 2, 0.1, 600),
    )
    if config.password and len(config.password) < SHORTEST_PASSWORD:
        raise SettingError(f"TTM_BOARD_PASSWORD must have at least {SHORTEST_PASSWORD} characters.")
    if config.open and not loopback(config.host):
        raise SettingError(
            "TTM_BOARD_HOST is not this machine only: set TTM_BOARD_PASSWORD, or TTM_BOARD_USER_HEADER if the"
            " company's reverse proxy signs people in."
        )
    return config


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError:
        raise SettingError("TTM_BOARD_PROXY must be addresses or networks, comma-separated.") from None


def board_database(environ: Mapping[str, str] = os.environ) -> TtmDatabase:
    """The ticket tables. Raises SettingError."""
    settings = Settings(environ)
    try:
        return TtmDatabase(
            operations_url(environ),
            settings.text("DB_SCHEMA", "public"),
            settings.text("BUSINESS_TZ", "Europe/Moscow"),
        )
    except PostgresError as error:
        raise SettingError(f"{error}.") from None
