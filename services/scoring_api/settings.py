"""The service's settings, from the environment, read once at its start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from sqlalchemy.engine import URL

from resources.postgres import OPERATIONS_SETTING, PostgresError, database_url
from resources.scoring_service.cipher import LedgerError, TokenCipher

METRIKA = "https://api-metrika.yandex.net"
MOST_INT32 = 2**31 - 1
UTC = ZoneInfo("UTC")


@dataclass(frozen=True)
class Settings:
    """Everything that the service is told. Secrets are not in its repr."""

    database: URL = field(repr=False)
    cipher: TokenCipher = field(repr=False)
    admin_token: str | None = field(default=None, repr=False)
    base_url: str = "http://0.0.0.0:8000"
    webhook_rate: int = 60
    zone: ZoneInfo = UTC
    metrika_url: str = METRIKA
    metrika_ca_bundle: str | None = None
    metrika_token: str | None = field(default=None, repr=False)
    metrika_counter: int | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Raises LedgerError or PostgresError with one line that names the setting."""

        def text(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        admin = text("SCORING_ADMIN_TOKEN")
        if admin and len(admin) < 16:
            raise LedgerError("SCORING_ADMIN_TOKEN must have at least 16 characters.")
        return cls(
            database=database_url(environ, OPERATIONS_SETTING),
            cipher=TokenCipher(text("SCORING_ENCRYPTION_KEY") or ""),
            admin_token=admin,
            base_url=(text("API_BASE_URL") or cls.base_url).rstrip("/"),
            webhook_rate=_whole("SCORING_WEBHOOK_RATE", text("SCORING_WEBHOOK_RATE"), 60, least=0),
            zone=_zone("SCORING_TIMEZONE", text("SCORING_TIMEZONE") or "UTC"),
            metrika_url=text("METRIKA_URL") or METRIKA,
            metrika_ca_bundle=text("METRIKA_CA_BUNDLE"),
            metrika_token=text("METRIKA_TOKEN"),
            metrika_counter=_counter(text("METRIKA_COUNTER"), text("METRIKA_COUNTERS")),
        )


def _counter(one: str | None, several: str | None) -> int | None:
    """The counter of requests that name none; of several counters none can be meant."""
    listed = [part for part in (several or "").split(",") if part.strip()]
    text = one or (listed[0].strip() if len(listed) == 1 else None)
    if text is None:
        return None
    name = "METRIKA_COUNTER" if one else "METRIKA_COUNTERS"
    return _whole(name, text, 0, least=1)


def _whole(name: str, text: str | None, default: int, *, least: int) -> int:
    try:
        value = default if text is None else int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= MOST_INT32:
        raise LedgerError(f"{name} must be a whole number from {least}.")
    return value


def _zone(name: str, key: str) -> ZoneInfo:
    try:
        return ZoneInfo(key)
    except (KeyError, ValueError, OSError):
        raise LedgerError(f"{name} must be an IANA time zone such as Europe/Moscow.") from None


__all__ = ["OPERATIONS_SETTING", "LedgerError", "PostgresError", "Settings", "database_url"]
