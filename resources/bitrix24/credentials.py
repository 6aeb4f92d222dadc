"""Who asks: an inbound webhook, or an application with tokens that expire."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from resources.bitrix24 import refresh
from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import redact, register_secret

AUTH_SERVERS = ("https://oauth.bitrix.info", "https://oauth.bitrix24.tech")  # both are documented
EXPIRED = frozenset({"EXPIRED_TOKEN", "INVALID_TOKEN", "NO_AUTH_FOUND"})
LONGEST_REFRESH_S = 300
_WEBHOOK = re.compile(r"^(?P<base>https?://[^/\s?#@]+/rest/\d+/(?P<code>[^/\s?#]+))(?:/[\w.]*)?/?$")
_LOCAL = re.compile(r"^(localhost|127\.\d+\.\d+\.\d+|\[?::1\]?|[\w-]+)$")


class Credential(Protocol):
    """What a portal needs to know of whoever asks it."""

    @property
    def base(self) -> str:
        """Address before the method's name, without a slash at its end. May refresh. Raises source errors."""
        ...

    @property
    def token(self) -> str:
        """The access token in use; empty for a webhook, whose address holds the secret."""
        ...

    def signed(self, payload: Mapping[str, Any] | Sequence[Any]) -> Any:
        """The payload with the access token in it."""
        ...

    def renew(self, used: str) -> bool:
        """Get another token than `used`; False where there is no such thing. Raises source errors."""
        ...


def parse_webhook(url: str) -> tuple[str, str]:
    """(base without a trailing slash, webhook code).

    Raises PermanentSourceError that does not show the value.
    """
    if not url.strip():
        raise PermanentSourceError(
            "BITRIX24_WEBHOOK_URL is not set: put the URL of an inbound webhook of the portal into it."
        )
    match = _WEBHOOK.match(url.strip())
    if not match:
        raise PermanentSourceError(
            "BITRIX24_WEBHOOK_URL is not a webhook URL: it must look like https://<portal>/rest/<user "
            "id>/<code>/."
        )
    base = match["base"]
    if base.startswith("http://") and not _LOCAL.match(urlsplit(base).hostname or ""):
        raise PermanentSourceError(
            "BITRIX24_WEBHOOK_URL must begin with https://: the portal refuses plain HTTP."
        )
    return base, match["code"]


class Webhook:
    """An inbound webhook: the address is the password."""

    token = ""

    def __init__(self, url: str) -> None:
        self.base, code = parse_webhook(url)
        for secret in (url, self.base, code):
            register_secret(secret)

    def signed(self, payload: Mapping[str, Any] | Sequence[Any]) -> Any:
        return payload

    def renew(self, used: str) -> bool:
        return False


class Application:
    """An application: its tokens stand in a file that the processes of a host share."""

    def __init__(
        self,
        client_id: str,
        client_secret: str,
        *,
        refresh_token: str = "",
        auth_url: str = "",
        directory: Path,
        ca_bundle: str | None = None,
        timeout_s: float = 30,
    ) -> None:
        """`refresh_token` is the first one; another one than before replaces the stored pair."""
        for secret in (client_secret, refresh_token):
            register_secret(secret)
        self._path = directory / f"bitrix24-app-{refresh.seed_of(client_id)[:16]}.json"
        servers = [auth_url] if auth_url else list(AUTH_SERVERS)
        self._request = {
            "path": str(self._path),
            "client_id": client_id,
            "client_secret": client_secret,
            "seed": refresh_token,
            "servers": servers,
            "ca_bundle": ca_bundle,
            "timeout_s": timeout_s,
        }
        self._mutex = threading.Lock()
        self._stored: dict[str, Any] = {}
        self._load()

    @property
    def base(self) -> str:
        return str(self._ready()["client_endpoint"]).rstrip("/")

    @property
    def token(self) -> str:
        return str(self._stored.get("access_token") or "")

    def signed(self, payload: Mapping[str, Any] | Sequence[Any]) -> Any:
        return {"auth": self._ready()["access_token"], **dict(payload)}

    def renew(self, used: str) -> bool:
        with self._mutex:
            self._load()
            if self.token in ("", used):
                self._refresh(used)
        return True

    def authorise(self, code: str) -> None:
        """Exchange an authorization code, which lives half a minute, for the first pair."""
        with self._mutex:
            self._refresh(self.token, code)

    def _ready(self) -> dict[str, Any]:
        if not (self.token and self._stored.get("client_endpoint")):
            self.renew("")
        return self._stored

    def _load(self) -> None:
        stored = refresh.read_store(self._path)
        seed = str(self._request["seed"])
        if stored and (not seed or stored.get("seed") == refresh.seed_of(seed)):
            for name in ("access_token", "refresh_token"):
                register_secret(str(stored.get(name) or ""))
            self._stored = stored

    def _refresh(self, known: str, code: str = "") -> None:
        """Let a process of its own do it, which outlives this one."""
        root = Path(__file__).resolve().parents[2]
        done = subprocess.Popen(
            [sys.executable, "-P", str(Path(refresh.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(root)},
            start_new_session=True,
        )
        try:
            request = json.dumps({**self._request, "known": known, "code": code})
            said, _ = done.communicate(request.encode(), timeout=LONGEST_REFRESH_S)
            answer = json.loads(said)
        except (subprocess.TimeoutExpired, ValueError):
            answer = {"error": "unreachable", "description": "the refresh did not end"}
        if answer:
            raise refusal(str(answer["error"]), str(answer.get("description") or ""))
        self._load()


_AGAIN = "authorise the application anew: `svod authorize CODE`, or a new BITRIX24_APP_REFRESH_TOKEN."
_UNKNOWN = "it is not known: check BITRIX24_APP_CLIENT_ID and BITRIX24_APP_CLIENT_SECRET."
_ADVICE = {
    "invalid_grant": f"the refresh token was used up or has expired: {_AGAIN}",
    "no_token": f"there is no token yet: {_AGAIN}",
    "invalid_client": _UNKNOWN,
    "wrong_client": _UNKNOWN,
    "payment_required": "the portal's subscription, or the application's, has ended.",
    "insufficient_scope": "the application lacks a scope: add it in its settings and authorise it anew.",
    "invalid_scope": "the application lacks a scope: add it in its settings and authorise it anew.",
    "store": "the tokens cannot be stored in SVOD_STATE_DIR, so none were asked for",
}


def refusal(code: str, description: str) -> PermanentSourceError | TransientSourceError:
    """The failure of a refresh, in a sentence for the user."""
    if code == "unreachable":
        return TransientSourceError(
            f"Bitrix24: the authorization server does not answer ({redact(description)}); "
            "a later run may succeed."
        )
    advice = _ADVICE.get(code.lower(), f"refused with {redact(code)[:60]}: {redact(description)}")
    return PermanentSourceError(
        f"Bitrix24 application: {advice}" + (f" ({description})" if code == "store" else "")
    )
