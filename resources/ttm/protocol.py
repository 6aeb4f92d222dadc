"""The hub protocol, version 1: names, limits, codes and the proof of the key. Standard library only.

Connectors (in the customer's network) and requesters connect to the hub at `/v1/ttm`. One message is one
text frame with one JSON object that has a `type`. The handshake proves on both sides that the key is known,
without sending it:

    C->H {"type":"hello","v":[1],"role":"connector","token":"ttm-main","instance":"conn-a1","nonce":"..."}
    H->C {"type":"challenge","v":1,"conn":"k-0123456789abcdef","nonce":"...","alg":"hmac-sha256"}
    C->H {"type":"auth","mac":"136f3965..."}
    H->C {"type":"welcome","conn":"k-0123456789abcdef","mac":"44ea4aae...","hub":"ttm-hub/1.0","limits":{...}}
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

SUBPROTOCOL = "ttm-hub.v1"
VERSION = 1
PATH = "/v1/ttm"
RELEASE = "1.0"

CONNECTOR = "connector"
REQUESTER = "requester"
ROLES = (CONNECTOR, REQUESTER)

TICKET_LIST = "ticket.list"
TICKET_GET = "ticket.get"
PING = "system.ping"
METHODS = (TICKET_LIST, TICKET_GET, PING)
"""All of them only read, hence are safe to repeat."""

TICKET = "ticket"
TASK = "task"
KINDS = (TICKET, TASK)
"""What the rows of a dashboard are."""

UPSTREAM_OK = "ok"
UPSTREAM_AUTH_FAILED = "auth_failed"
UPSTREAM_UNREACHABLE = "unreachable"
UPSTREAM_UNKNOWN = "unknown"
UPSTREAM = (UPSTREAM_OK, UPSTREAM_AUTH_FAILED, UPSTREAM_UNREACHABLE, UPSTREAM_UNKNOWN)
USABLE = (UPSTREAM_OK, UPSTREAM_UNKNOWN)

MAX_MESSAGE = 8 << 20
"""Bytes of one message, each way."""
MAX_CAPACITY = 32
MAX_ATTEMPTS = 10
HANDSHAKE_S = 5.0
PING_S = 20.0
BAD_MESSAGES = 10
"""So many messages that cannot be understood end a connection."""

ID = r"^[A-Za-z0-9._:-]{1,64}\Z"
TOKEN = r"^[^\x00-\x1f\x7f]{1,256}\Z"
NONCE = r"^[\x21-\x7e]{16,128}\Z"

NORMAL = 1000
GOING_AWAY = 1001
SLOW_PEER = 1008
TOO_BIG = 1009
RESTART = 1012
MALFORMED = 4400
UNAUTHORIZED = 4401
FORBIDDEN = 4403
TIMED_OUT = 4408
REPLACED = 4409
NO_COMMON_VERSION = 4426
LEGACY_UNAUTHORIZED = 4001


class Fault(NamedTuple):
    """An error code of the wire: the HTTP status it is closest to, and whether asking again may help."""

    status: int
    retryable: bool


FAULTS = {
    "bad_request": Fault(400, False),
    "unknown_type": Fault(400, False),
    "unknown_method": Fault(400, False),
    "bad_filter": Fault(400, False),
    "unauthorized": Fault(401, False),
    "forbidden": Fault(403, False),
    "version": Fault(426, False),
    "not_found": Fault(404, False),
    "duplicate_id": Fault(409, False),
    "too_large": Fault(413, False),
    "busy": Fault(429, True),
    "cancelled": Fault(499, False),
    "internal": Fault(500, True),
    "upstream_auth": Fault(502, False),
    "upstream_error": Fault(502, True),
    "upstream_unreachable": Fault(502, True),
    "no_connector": Fault(503, True),
    "connector_lost": Fault(503, True),
    "timeout": Fault(504, True),
    "upstream_timeout": Fault(504, True),
}
HUB_UNREACHABLE = "hub_unreachable"
"""Never on the wire: how a requester calls a hub that does not answer."""


class TtmError(Exception):
    """A request ended without a result. `code` is one of FAULTS, `status` an HTTP status."""

    def __init__(
        self, code: str, message: str, *, retryable: bool | None = None, status: int | None = None
    ) -> None:
        """`message` is one sentence without secrets; what is None comes from FAULTS."""
        fault = FAULTS.get(code, Fault(503, True))
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retryable = fault.retryable if retryable is None else retryable
        self.status = status or fault.status

    def wire(self) -> dict[str, Any]:
        """The `error` of a result or response."""
        return {"code": self.code, "message": self.message, "retryable": self.retryable}


@dataclass(frozen=True, slots=True)
class Handshake:
    """What both proofs of one connection cover."""

    role: str
    token: str
    instance: str
    conn: str
    client_nonce: str
    server_nonce: str

    def proof(self, key: str, side: str) -> str:
        """HMAC-SHA256, lower-case hex, of `side` ("client" or "server") and the fields, joined by newlines.

        Raises ValueError for a field that holds a newline: it could stand for two.
        """
        fields = (
            *(SUBPROTOCOL, side, self.role, self.token, self.instance),
            *(self.conn, self.client_nonce, self.server_nonce),
        )
        if any("\n" in field for field in fields):
            raise ValueError("a field of the handshake holds a newline")
        return hmac.new(key.encode(), "\n".join(fields).encode(), hashlib.sha256).hexdigest()

    def proven(self, key: str, side: str, mac: str) -> bool:
        """Whether `mac` is the proof, compared in constant time."""
        return hmac.compare_digest(self.proof(key, side).encode(), mac.encode())


def fresh_nonce() -> str:
    """24 random bytes as text."""
    return secrets.token_urlsafe(24)


def valid_id(text: object) -> bool:
    """Whether `text` may be the id of a request, task, connection or instance."""
    return isinstance(text, str) and re.match(ID, text) is not None


def endpoint(server: str) -> str:
    """The hub's address with the path that it serves; ValueError for anything but ws:// and wss://."""
    parts = urlsplit(server.strip())
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError("must be ws://host:port or wss://host:port")
    if parts.username or parts.password:
        raise ValueError("must not hold a user or a password")
    path = parts.path if parts.path.strip("/") else PATH
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, ""))


def utc_text(when: datetime | None = None) -> str:
    """ISO 8601 in UTC, whole seconds: 2026-11-21T00:05:00Z."""
    return f"{(when or datetime.now(UTC)).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
