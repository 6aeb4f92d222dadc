"""The client's side of the handshake, without a connection. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resources.ttm.protocol import (
    FORBIDDEN,
    LEGACY_UNAUTHORIZED,
    NO_COMMON_VERSION,
    UNAUTHORIZED,
    VERSION,
    Handshake,
    TtmError,
    fresh_nonce,
)


class ClientHandshake:
    """`hello` is sent first, `auth(challenge)` second, `check(welcome)` ends it.

    A reply that is none of these raises TtmError: what the hub said, or `unauthorized` if it does not know
    the key itself.
    """

    def __init__(self, role: str, token: str, key: str, instance: str, client: str, **more: Any) -> None:
        """`more` goes into `hello`: a connector's methods and capacity."""
        self._role, self._token, self._key, self._instance = role, token, key, instance
        self._nonce = fresh_nonce()
        self._proof: Handshake | None = None
        self.hello = {
            "type": "hello",
            "v": [VERSION],
            "role": role,
            "token": token,
            "instance": instance,
            "client": client,
            "nonce": self._nonce,
            **more,
        }

    def auth(self, challenge: Mapping[str, Any]) -> dict[str, Any]:
        _expect(challenge, "challenge")
        conn, nonce = challenge.get("conn"), challenge.get("nonce")
        if challenge.get("v") != VERSION or challenge.get("alg") != "hmac-sha256":
            raise TtmError("version", "The hub chose a version or a proof that this client does not speak.")
        if not isinstance(conn, str) or not isinstance(nonce, str) or nonce == self._nonce:
            raise TtmError("bad_request", "The hub's challenge has no conn or no nonce of its own.")
        self._proof = Handshake(self._role, self._token, self._instance, conn, self._nonce, nonce)
        try:
            return {"type": "auth", "mac": self._proof.proof(self._key, "client")}
        except ValueError as error:
            raise TtmError("bad_request", f"{error}.") from None

    def check(self, welcome: Mapping[str, Any]) -> Mapping[str, Any]:
        """The hub's limits."""
        _expect(welcome, "welcome")
        mac = welcome.get("mac")
        if self._proof is None or not isinstance(mac, str):
            raise TtmError("unauthorized", "The hub did not prove that it knows the key.")
        if not self._proof.proven(self._key, "server", mac):
            raise TtmError(
                "unauthorized", "The hub does not know the key: it is another hub, or a forged one."
            )
        limits = welcome.get("limits")
        return limits if isinstance(limits, dict) else {}


def _expect(message: Mapping[str, Any], kind: str) -> None:
    if message.get("type") == "error":
        raise refusal(message)
    if message.get("type") != kind:
        raise TtmError("bad_request", f"The hub said {str(message.get('type'))[:40]!r} instead of {kind}.")


def refusal(error: Mapping[str, Any]) -> TtmError:
    """An `error` message, or the `error` of a response, as an exception."""
    code, text = error.get("code"), error.get("message")
    retryable, status = error.get("retryable"), error.get("status")
    return TtmError(
        code if isinstance(code, str) else "internal",
        text if isinstance(text, str) else "no reason was given",
        retryable=retryable if isinstance(retryable, bool) else None,
        status=status if isinstance(status, int) else None,
    )


def closing(code: int | None) -> TtmError | None:
    """What a close code says about this client; None for one after which it may connect again at once."""
    if code in (UNAUTHORIZED, LEGACY_UNAUTHORIZED):
        return TtmError("unauthorized", "The hub refused TTM_TOKEN and TTM_KEY.")
    if code == FORBIDDEN:
        return TtmError("forbidden", "The hub does not allow this role to TTM_TOKEN.")
    if code == NO_COMMON_VERSION:
        return TtmError("version", "The hub speaks no version of the protocol that this client knows.")
    return None
