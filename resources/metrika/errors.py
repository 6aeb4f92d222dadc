"""The API's errors, in one sentence each that says what to do.

Types and statuses: docs of the API, section "Errors"; quotas: section "Limits".
"""

from __future__ import annotations

import json
from typing import Any

from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import redact

_DAILY = {
    "quota_requests_by_uid": "this login's requests of the day (5000)",
    "quota_requests_by_counter_id": "this counter's requests of the day (5000)",
}
_HOURLY = {"quota_delegate_requests", "quota_grants_requests"}
# status -> type, for a body that names none
_UNNAMED = {
    400: "invalid_parameter",
    401: "unauthorized",
    403: "access_denied",
    404: "not_found",
    406: "not_acceptable",
    409: "conflict",
}
_ADVICE = {
    "unauthorized": "METRIKA_TOKEN is missing or malformed: put an OAuth token there",
    "invalid_token": "the OAuth token is not valid (any more): get a new one and put it into METRIKA_TOKEN",
    "access_denied": "the token has no access to this counter, or lacks the scope (metrika:read for logs, "
    "metrika:write for goals and conversions)",
    "counter_in_connect": "the counter belongs to an organisation that this login is not a member of",
    "limit_exceeded": "a limit of the counter is reached",
}


class MetrikaRefusal(PermanentSourceError):
    """The API refused, and will again: `status`, `error_type` and `message` are its own."""

    def __init__(self, text: str, status: int, error_type: str, message: str) -> None:
        super().__init__(redact(text), {"status": status, "error_type": error_type})
        self.status, self.error_type, self.message = status, error_type, redact(message)


class MetrikaBusy(TransientSourceError):
    """The API cannot answer now. `sent` tells whether the request may have been carried out all the same."""

    def __init__(
        self, text: str, status: int = 0, error_type: str = "", message: str = "", *, sent: bool = False
    ) -> None:
        super().__init__(redact(text), {"status": status, "error_type": error_type})
        self.status, self.error_type, self.message, self.sent = status, error_type, redact(message), sent
        self.after: float | None = None  # seconds after which the server wants to be asked again


def failure(what: str, status: int, body: bytes) -> MetrikaRefusal | MetrikaBusy:
    """The error of an answer that is no success; `what` says in a few words what was asked."""
    error_type, message = _said(status, body)
    said = f" ({message})" if message else ""
    if error_type in _DAILY:
        used = f"{_DAILY[error_type]} are used up; they come back at 00:00 GMT"
        text = f"Metrika, {what}: {used}. Run again after that."
        return MetrikaRefusal(text, status, error_type, message)
    if status == 429:
        often = "the hour's" if error_type in _HOURLY else "too many requests at once, the"
        text = f"Metrika, {what}: {often} quota {error_type or '(unnamed)'} is exceeded."
        return MetrikaBusy(text, status, error_type, message)
    if not error_type or status >= 500:
        text = f"Metrika, {what}: the service answered {status}{said}."
        return MetrikaBusy(text, status, error_type or "backend_error", message, sent=True)
    advice = f"; {_ADVICE[error_type]}" if error_type in _ADVICE else ""
    text = f"Metrika, {what}: {error_type} {status}{said}{advice}."
    return MetrikaRefusal(text, status, error_type, message)


def _said(status: int, body: bytes) -> tuple[str, str]:
    """(type, message) of an error body; empty for what is no JSON object, such as a proxy's page."""
    try:
        answer: Any = json.loads(body)
    except ValueError:
        return "", ""
    if not isinstance(answer, dict):
        return "", ""
    errors = answer.get("errors")
    first = errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}
    said = str(answer.get("message") or first.get("message") or "")[:300]
    return str(first.get("error_type") or _UNNAMED.get(status, "")), said
