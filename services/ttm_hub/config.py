"""What a hub needs to know, from the environment."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from resources.ttm.protocol import ROLES, TOKEN
from resources.ttm.settings import SettingError, Settings, load_certificate, loopback
from services.ttm_hub.state import Limits

DEFAULT_PORT = 8765


@dataclass(frozen=True)
class Identity:
    """Who may connect with a token: the key that both know, and as what."""

    key: str = field(repr=False)
    roles: frozenset[str] = frozenset(ROLES)


@dataclass(frozen=True)
class HubConfig:
    """One hub."""

    identities: Mapping[str, Identity]
    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    tls: ssl.SSLContext | None = None
    limits: Limits = field(default_factory=Limits)
    failures: int = 5
    """Failed handshakes of one address within `failure_window` seconds, after which it is refused as long."""
    failure_window: float = 60


def hub_config(settings: Settings) -> HubConfig:
    """Raises SettingError for what is missing, malformed, or would let tickets be read on the network."""
    config = HubConfig(
        identities=_identities(settings),
        host=settings.text("HOST", "127.0.0.1"),
        port=int(settings.number("PORT", DEFAULT_PORT, 0, 65535)),
        tls=_tls(settings),
    )
    if not loopback(config.host) and config.tls is None and not settings.switch("ALLOW_PLAINTEXT", False):
        raise SettingError(
            f"TTM_HOST={config.host} is reachable from the network: set TTM_TLS_CERT and TTM_TLS_KEY, or "
            "TTM_ALLOW_PLAINTEXT=true if something in front of the hub ends TLS."
        )
    return config


def _identities(settings: Settings) -> dict[str, Identity]:
    text = settings.text("HUB_KEYS", "")
    if not text:
        token = settings.text("TOKEN")
        if not re.match(TOKEN, token):
            raise SettingError("TTM_TOKEN must be a line of at most 256 characters.")
        return {token: Identity(settings.text("KEY"))}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found:
        raise SettingError(
            'TTM_HUB_KEYS must be JSON such as {"token": {"key": "...", "roles": ["connector"]}}.'
        )
    return {token: _identity(number, token, value) for number, (token, value) in enumerate(found.items(), 1)}


def _identity(number: int, token: str, value: object) -> Identity:
    """One entry of TTM_HUB_KEYS; errors count it, for a user may have mistaken the key for the token."""
    key = value.get("key") if isinstance(value, dict) else None
    roles = value.get("roles", list(ROLES)) if isinstance(value, dict) else None
    if not re.match(TOKEN, token) or not isinstance(key, str) or not key:
        raise SettingError(f'TTM_HUB_KEYS: entry {number} needs a "key", a text that is not empty.')
    if not isinstance(roles, list) or not roles or not set(map(str, roles)) <= set(ROLES):
        raise SettingError(f'TTM_HUB_KEYS: "roles" of entry {number} must be among {", ".join(ROLES)}.')
    return Identity(key, frozenset(roles))


def _tls(settings: Settings) -> ssl.SSLContext | None:
    certificate, key = settings.text("TLS_CERT", ""), settings.text("TLS_KEY", "")
    if not certificate and not key:
        return None
    if not certificate:
        raise SettingError("TTM_TLS_KEY is set and TTM_TLS_CERT is not.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    load_certificate(context, certificate, key or None)
    if ca := settings.text("TLS_CA", ""):
        try:
            context.load_verify_locations(ca)
        except OSError:
            raise SettingError("TTM_TLS_CA is not a readable file with certificates.") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context
