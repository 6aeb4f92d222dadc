"""Sessions of the pages: a signed cookie, and a code in every form that only its holder's pages have."""

from __future__ import annotations

import hmac
import secrets
import time
from dataclasses import dataclass

from fastapi import Request, Response

from services.scoring_api.settings import Settings

COOKIE = "scoring_session"
LIVES_S = 12 * 3600


@dataclass(frozen=True, slots=True)
class Session:
    """`csrf` goes into every form and must come back with it."""

    value: str
    csrf: str


def begin(settings: Settings, now: float | None = None) -> Session:
    """A new one. It ends with time, with the admin's token, and with the key."""
    body = f"{int((now or time.time()) + LIVES_S)}.{secrets.token_urlsafe(18)}"
    return _session(settings, f"{body}.{_sign(settings, body)}")


def of(settings: Settings, request: Request, now: float | None = None) -> Session | None:
    """The session of a request, if its cookie is ours and not too old."""
    value = request.cookies.get(COOKIE, "")
    body, _, signature = value.rpartition(".")
    expires = body.partition(".")[0]
    if not value.isascii() or not expires.isdigit() or int(expires[:15]) < (now or time.time()):
        return None
    return _session(settings, value) if hmac.compare_digest(signature, _sign(settings, body)) else None


def keep(response: Response, session: Session, request: Request) -> None:
    """Set the cookie."""
    secure = request.url.scheme == "https"
    response.set_cookie(
        COOKIE, session.value, LIVES_S, path="/admin", secure=secure, httponly=True, samesite="strict"
    )


def _session(settings: Settings, value: str) -> Session:
    return Session(value, settings.cipher.sign(f"csrf {value}"))


def _sign(settings: Settings, body: str) -> str:
    return settings.cipher.sign(f"session {body} {settings.admin_token or ''}")
