"""Settings of the hub, the connector and the requester from the environment. Standard library only.

Each is read by its name with the prefix `TTM_`, else by the bare name that the old tool had.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import ssl
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from resources.ttm.protocol import endpoint

BARE = frozenset(
    {"TOKEN", "KEY", "PORT", "SERVER", "EMAIL", "PASSWORD", "URL", "INTERVAL"}
    | {"FILTER_ARREARS", "FILTER_STOPPED"}
)
HIDDEN = "***"


class SettingError(Exception):
    """A setting is missing or malformed. The text names it and never holds its value."""


class Settings:
    """The environment of one process."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def text(self, name: str, default: str | None = None) -> str:
        """The value of `TTM_<name>`, or of `<name>` where the old tool had it; SettingError if none."""
        old = (name,) if name in BARE else ()
        for each in (f"TTM_{name}", *old):
            if value := self._environ.get(each, "").strip():
                return value
        if default is None:
            also = f" (or {name})" if old else ""
            raise SettingError(f"TTM_{name}{also} is not set.")
        return default

    def number(self, name: str, default: float, low: float, high: float) -> float:
        text = self.text(name, str(default))
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise SettingError(f"TTM_{name} must be a number from {low:g} to {high:g}.")
        return value

    def switch(self, name: str, default: bool) -> bool:
        text = self.text(name, "true" if default else "false").lower()
        if text not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
            raise SettingError(f"TTM_{name} must be true or false.")
        return text in ("1", "true", "yes", "on")

    def server(self) -> str:
        """The hub's address, `ws://` or `wss://`, with its path."""
        try:
            return endpoint(self.text("SERVER"))
        except ValueError as error:
            raise SettingError(f"TTM_SERVER {error}.") from None

    def client_tls(self, server: str) -> ssl.SSLContext | None:
        """For `wss://`: verifies the hub against TTM_TLS_CA or the public authorities, and its name."""
        if urlsplit(server).scheme != "wss":
            return None
        return client_tls(
            self.text("TLS_CA", "") or None,
            self.text("TLS_CERT", "") or None,
            self.text("TLS_KEY", "") or None,
        )


def client_tls(ca: str | None, certificate: str | None = None, key: str | None = None) -> ssl.SSLContext:
    """A context that verifies; `certificate` proves the client too. SettingError for unusable files."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError:  # ssl.SSLError too
        raise SettingError("TTM_TLS_CA is not a readable file with certificates.") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate:
        load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    try:
        context.load_cert_chain(certificate, key)
    except OSError:
        raise SettingError("TTM_TLS_CERT and TTM_TLS_KEY are not a certificate and its key.") from None


def loopback(host: str) -> bool:
    """Whether only this machine reaches `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Redaction(logging.Filter):
    """Replaces secrets in log records, in their tracebacks too."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("ttm-redaction")
        self._secrets: list[str] = []
        self.hide(*secrets)

    def hide(self, *secrets: str) -> None:
        known = {s for s in (*self._secrets, *secrets) if len(s) >= 4}
        self._secrets = sorted(known, key=len, reverse=True)

    def forget(self, secret: str) -> None:
        """A bearer token that is no longer used."""
        self._secrets = [s for s in self._secrets if s != secret]

    def clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = self.clean(record.getMessage()), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_info, record.exc_text = None, self.clean(record.exc_text)
        return True


def log_to_stderr(redaction: Redaction) -> None:
    """Lines with time and level; libraries from WARNING up, since they print frames below that."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(redaction)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for library in ("websockets", "httpx", "httpcore", "asyncio"):
        logging.getLogger(library).setLevel(logging.WARNING)
