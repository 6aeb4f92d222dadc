"""What each error of the portal means for the caller: wait, retry, or tell the user what to change."""

import re
from enum import Enum

from resources.bitrix24.calls import CommandError
from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import TransportError, redact


class Kind(Enum):
    """What to do about an error."""

    RATE = "rate"
    OPERATING = "operating"
    RETRY = "retry"
    FATAL = "fatal"


_KINDS = {
    "QUERY_LIMIT_EXCEEDED": Kind.RATE,
    "OPERATION_TIME_LIMIT": Kind.OPERATING,
    "INTERNAL_SERVER_ERROR": Kind.RETRY,
    "ERROR_UNEXPECTED_ANSWER": Kind.RETRY,
    "MISSING_LABEL": Kind.RETRY,
}

_SCOPES = {
    "crm": "crm",
    "task": "task",
    "tasks": "task",
    "user": "user",
    "department": "department",
    "voximplant": "telephony",
    "lists": "lists",
    "sonet_group": "sonet_group",
    "socialnetwork": "socialnetwork",
    "calendar": "calendar",
    "catalog": "catalog",
    "imopenlines": "imopenlines",
    "im": "im",
    "userfieldconfig": "userfieldconfig",
}

_NEW_WEBHOOK = "create an inbound webhook on the portal and put its URL into BITRIX24_WEBHOOK_URL."
_ADVICE = {
    "QUERY_LIMIT_EXCEEDED": "the portal still refuses for too many requests: other programs on this address "
    "use up its "
    "rate; a later run continues.",
    "OPERATION_TIME_LIMIT": "the portal still refuses because the method's execution time of ten minutes is "
    "used up; "
    "a later run continues.",
    "NO_AUTH_FOUND": f"the portal does not know the webhook code: {_NEW_WEBHOOK}",
    "INVALID_TOKEN": f"the portal does not know the webhook code: {_NEW_WEBHOOK}",
    "INVALID_CREDENTIALS": "the webhook code is wrong, or its owner has too few rights: check the webhook "
    "on the "
    "portal and BITRIX24_WEBHOOK_URL.",
    "EXPIRED_TOKEN": f"the webhook has expired: prolong it, or {_NEW_WEBHOOK}",
    "AUTHORIZATION_ERROR": f"the owner of the webhook is disabled on the portal: as an active user, "
    f"{_NEW_WEBHOOK}",
    "APPLICATION_NOT_FOUND": f"the webhook was removed from the portal: {_NEW_WEBHOOK}",
    "ERROR_OAUTH": f"the portal refuses the credential: {_NEW_WEBHOOK}",
    "ACCESS_DENIED": "access denied: the portal's plan has no REST, or the owner of the webhook may not "
    "read this; "
    "give the owner the right (some methods need an administrator).",
    "USER_ACCESS_ERROR": "the owner of the webhook may not use REST: let the portal's administrator allow "
    "it.",
    "ALLOWED_ONLY_INTRANET_USER": f"the owner of the webhook is an extranet user: as an employee, "
    f"{_NEW_WEBHOOK}",
    "PAYMENT_REQUIRED": "the portal's subscription has ended: pay for it; REST is part of paid plans.",
    "PORTAL_DELETED": "the portal was deleted: put the webhook URL of another portal into "
    "BITRIX24_WEBHOOK_URL.",
    "ERROR_METHOD_NOT_FOUND": "the portal has no such method: its edition or version lacks the feature; "
    "leave this entity out.",
    "OVERLOAD_LIMIT": "the vendor has blocked REST of this portal for overload: ask Bitrix24 support to "
    "lift it.",
    "INVALID_REQUEST": "the portal wants HTTPS: begin BITRIX24_WEBHOOK_URL with https://.",
    "NOT_FOUND": "there is no such type or element on the portal.",
    "ENTITY_TYPE_NOT_SUPPORTED": "the method does not support this type of entity: leave it out.",
}


def kind_of(code: str, status: int = 200) -> Kind:
    """Classify by `code` (upper case) first, by HTTP `status` only where the code is unknown."""
    if code in _KINDS:
        return _KINDS[code]
    if code in _ADVICE or code == "INSUFFICIENT_SCOPE":
        return Kind.FATAL
    if status == 429:  # a proxy's; the portal's own has a code
        return Kind.RATE
    return Kind.RETRY if status in (408, 425) or status >= 500 else Kind.FATAL


# How methods that have no code of their own for it say that the one record asked for may not be read
# (documentation of the methods of tasks, catalogs, user fields).
_DENIED = re.compile(
    r"access[ _]denied|not accessible|sufficient rights|ACTION_(FAILED_TO_BE_PROCESSED|NOT_ALLOWED)",
    re.IGNORECASE,
)


def is_gone(error: CommandError) -> bool:
    """Whether the portal does not have the record that was asked for."""
    said = error.description.lower()
    return error.code == "NOT_FOUND" or said.startswith(("not found", "socialnetwork group not found"))


def is_denied(error: CommandError) -> bool:
    """Whether the record that was asked for may not be read; others perhaps may."""
    if error.code in ("ACCESS_DENIED", "BITRIX_REST_V3_EXCEPTION_ACCESSDENIEDEXCEPTION"):
        return True
    uncoded = error.code in ("", "ERROR_CORE") or error.code.isdecimal()
    return uncoded and bool(_DENIED.search(error.description))


def scope_of(method: str) -> str:
    """The webhook scope that `method` needs; its first word where that is not known."""
    if method.lower().startswith("user.userfield."):
        return "user.userfield"
    first = method.lower().split(".", 1)[0]
    return _SCOPES.get(first, first)


def command_error(method: str, code: str, description: str, status: int = 200) -> CommandError:
    """Describe a refusal in one sentence for the user."""
    description = redact(description)[:300]
    if code == "INSUFFICIENT_SCOPE":
        advice = f"the webhook lacks the scope `{scope_of(method)}`: add it in the webhook's settings on "
        "the portal."
    elif code in _ADVICE:
        advice = _ADVICE[code]
    elif is_denied(CommandError(method, code, description, "")):
        advice = _ADVICE["ACCESS_DENIED"]
    elif not code and description.lower().startswith("not found"):
        advice = _ADVICE["NOT_FOUND"]
    elif kind_of(code, status) is Kind.RETRY:
        reason = description or redact(code)[:60] or f"HTTP {status}"
        advice = f"the portal keeps failing ({reason}); a later run may succeed."
    else:
        advice = f"refused with {redact(code)[:60] or f'HTTP {status}'}: {description or 'no description'}"
    retryable = kind_of(code, status) is not Kind.FATAL
    return CommandError(method, code, description, f"Bitrix24 {method}: {advice}", retryable)


def failure(error: CommandError) -> PermanentSourceError | TransientSourceError:
    """The exception for an error that stays."""
    metadata = {"bitrix24/method": error.method, "bitrix24/code": error.code or "(empty)"}
    kind = TransientSourceError if error.retryable else PermanentSourceError
    return kind(error.message, metadata)


_UNREACHABLE = {
    "timeout": "the portal did not answer in time; the next attempt may succeed.",
    "dns": "the portal's host name is unknown: check BITRIX24_WEBHOOK_URL and the network.",
    "refused": "the portal's host refuses connections: check BITRIX24_WEBHOOK_URL and the network.",
    "cut": "the connection to the portal broke off; the next attempt may succeed.",
}


def transport_failure(error: TransportError) -> PermanentSourceError | TransientSourceError:
    """The exception for a portal that cannot be reached."""
    if error.kind == "ca":
        return PermanentSourceError("Bitrix24: the configured CA bundle cannot be read: check its path.")
    if error.kind == "tls":
        return PermanentSourceError(
            "Bitrix24: the portal's TLS certificate is not trusted: check the host in BITRIX24_WEBHOOK_URL, "
            "or give the "
            "company's CA bundle."
        )
    return TransientSourceError(
        f"Bitrix24: {_UNREACHABLE.get(error.kind, 'the request failed: ' + str(error))}"
    )
