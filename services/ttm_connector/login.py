"""One login to the ticket system, shared by all calls."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from resources.ttm.protocol import (
    UPSTREAM_AUTH_FAILED,
    UPSTREAM_OK,
    UPSTREAM_UNKNOWN,
    TtmError,
)
from resources.ttm.settings import Redaction
from services.ttm_connector.config import SystemConfig

if TYPE_CHECKING:
    from services.ttm_connector.system import Reply

REFUSALS = 3
"""So many refused logins in a row, and it rests: accounts get locked."""
BEFORE_EXPIRY_S = 60


class Login:
    """Logs in when a token is first needed, again when it is old, and by one caller at a time."""

    def __init__(
        self,
        config: SystemConfig,
        send: Callable[..., Awaitable[Reply]],
        redaction: Redaction,
        changed: Callable[[bool | None], None],
    ) -> None:
        self._config, self._send, self._redaction, self._changed = config, send, redaction, changed
        self._lock = asyncio.Lock()
        self.token: str | None = None
        self.unlocking: asyncio.Task[None] | None = None
        self._since = self._until = 0.0
        self._refused = 0

    @property
    def upstream(self) -> str:
        if self._refused >= REFUSALS:
            return UPSTREAM_AUTH_FAILED
        return UPSTREAM_OK if self.token else UPSTREAM_UNKNOWN

    @property
    def age_s(self) -> int | None:
        """Seconds since the login; None without one."""
        return int(time.monotonic() - self._since) if self.token else None

    async def get(self, after: str | None = None) -> str:
        """A token that should be good; with `after` not that one. Raises TtmError."""
        async with self._lock:
            if self._refused >= REFUSALS:
                raise TtmError("upstream_auth", "The login is refused; the next attempt comes later.")
            if self.token is None or self.token == after or time.monotonic() >= self._until:
                await self._login()
            assert self.token
            return self.token

    async def renew(self) -> None:
        """Log in now. Raises TtmError."""
        async with self._lock:
            await self._login()

    async def _login(self) -> None:
        body = {
            "username": self._config.email,
            "password": self._config.password,
            "force": self._config.force_login,
        }
        if self.token:
            self._redaction.forget(self.token)
            self.token = None
        reply = await self._send("POST", self._config.login_path, None, json.dumps(body).encode())
        if reply.status == 429 or reply.status >= 500:
            raise TtmError("upstream_error", f"The login was answered {reply.status}.", status=reply.status)
        token = _token(reply.body) if reply.status == 200 else None
        if reply.status >= 400:
            self._refuse()
            raise TtmError("upstream_auth", f"The ticket system refused the login ({reply.status}).")
        if token is None:
            raise TtmError("upstream_error", "The login's answer has no id_token.", status=reply.status)
        self._redaction.hide(token)
        self.token, self._since = token, time.monotonic()
        self._until = self._since + min(self._config.login_life_s, life_of(token))
        self._refused = 0
        self._changed(None)

    def _refuse(self) -> None:
        self._refused += 1
        if self._refused >= REFUSALS:
            self._changed(None)
            if self.unlocking is None or self.unlocking.done():
                self.unlocking = asyncio.create_task(self._until_unlocked())

    async def _until_unlocked(self) -> None:
        """Try after 1, 2, 4 ... 15 minutes: the hub gives no tasks that would."""
        wait = self._config.locked_s
        while self._refused >= REFUSALS:
            await asyncio.sleep(wait)
            wait = min(wait * 2, self._config.locked_s * 15)
            try:
                await self.renew()
            except TtmError:
                continue


def _token(body: bytes) -> str | None:
    try:
        token = json.loads(body)["id_token"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    # a line break would end the header
    return token if isinstance(token, str) and token.isascii() and token.isprintable() and token else None


def life_of(token: str) -> float:
    """Seconds for which a JWT is good, less a minute; endless for any other token.

    From its own `iat` where it has one, since our clock may be wrong; if it seems to end at once, the clock
    is, and a 401 will tell.
    """
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        life = float(claims["exp"]) - float(claims.get("iat", time.time()))
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, AttributeError):
        return float("inf")
    return life - BEFORE_EXPIRY_S if life > 2 * BEFORE_EXPIRY_S else float("inf")
