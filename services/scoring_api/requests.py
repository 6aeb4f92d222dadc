"""What routes have in common: the service, who asks, credentials, numbers, keys, conversions checked."""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ValidationError

from resources.scoring_service.conversions import IDENTIFIERS, Conversion, instant
from resources.scoring_service.ledger import Key
from services.scoring_api.intake import StorageAway
from services.scoring_api.schemas import ConversionIn, Problem
from services.scoring_api.service import Service
from services.scoring_api.settings import Settings

MOST_PROBLEMS = 100
_bearer = HTTPBearer(
    auto_error=False, scheme_name="admin", description="SCORING_ADMIN_TOKEN; без него служба открыта"
)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route: these statuses with a `detail`, and what every route may answer."""
    return {status: {"model": Problem} for status in (*statuses, 413, 503)}


def the_service(request: Request) -> Service:
    """The service of this process. Raises StorageAway until the database has answered once."""
    service: Service = request.app.state.service
    if not service.ready:
        raise StorageAway("not started")
    return service


Here = Annotated[Service, Depends(the_service)]


def is_admin(settings: Settings, given: str | None) -> bool:
    """Whether `given` is the admin's token, in constant time. Everybody's, where there is none."""
    if settings.admin_token is None:
        return True
    return hmac.compare_digest(
        (given or "").encode("utf-8", "surrogateescape"), settings.admin_token.encode()
    )


def actor(request: Request, here: Here, bearer: HTTPAuthorizationCredentials | None) -> str:
    """Who asks, for the audit log."""
    address = request.client.host if request.client else "?"
    named = here.settings.admin_token and is_admin(here.settings, bearer.credentials if bearer else None)
    return f"{'admin' if named else 'anonymous'} {address}"


Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _admin(request: Request, here: Here, bearer: Bearer) -> str:
    if not is_admin(here.settings, bearer.credentials if bearer else None):
        raise HTTPException(401, "The admin token is required", {"WWW-Authenticate": "Bearer"})
    return actor(request, here, bearer)


Admin = Annotated[str, Depends(_admin)]


def credentials(here: Service, bearer: Bearer, token: str | None, counter: int | None) -> tuple[str, int]:
    """Token and counter of a request, or those of the environment; 400 where there are none.

    Where there is an admin, only the admin works with the environment's token.
    """
    if token == "":
        raise HTTPException(400, "token must be non-empty")
    settings = here.settings
    if token is None and settings.metrika_token:
        if not is_admin(settings, bearer.credentials if bearer else None):
            raise HTTPException(401, "The admin token is required to use the service's own token")
        token = settings.metrika_token
    if token is None:
        raise HTTPException(400, "token is required (in body or env)")
    counter = counter or settings.metrika_counter
    if counter is None:
        raise HTTPException(400, "counter is required (in body or env)")
    return token, counter


def number(text: str, missing: str) -> uuid.UUID:
    """A UUID of a path; 404 with `missing` for anything else, since nothing can have it."""
    try:
        return uuid.UUID(text)
    except ValueError:
        raise HTTPException(404, missing) from None


IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Повтор с тем же ключом и телом даёт тот же ответ, без дубля; ключ живёт двое суток",
        examples=["order-1001"],
    ),
]


def key(scope: str, given: str | None, body: bytes) -> Key | None:
    """The key of a request; 400 for one that is no key."""
    if given is None:
        return None
    if not re.fullmatch(r"[\x21-\x7e]{1,255}", given):
        raise HTTPException(400, "Idempotency-Key must be 1 to 255 printable ASCII characters without spaces")
    return Key(scope, given, hashlib.sha256(body).digest())


def without_token(body: BaseModel) -> bytes:
    """What an idempotency key stands for."""
    return body.model_dump_json(exclude={"token"}).encode()


def invalid(loc: Sequence[str | int], message: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": tuple(loc), "msg": message}


def parsed(error: ValidationError) -> RequestValidationError:
    """pydantic's findings about a body, without the values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in found[:MOST_PROBLEMS]])


def conversion(item: ConversionIn, here: Service, now: datetime | None = None) -> Conversion:
    """Raises ValueError for a time that Metrika cannot take."""
    when = instant(item.date_time, here.settings.zone, now or datetime.now(UTC))
    named = {name: getattr(item, name) for name in IDENTIFIERS}
    return Conversion(item.target, when, **named, price=item.price, currency=item.currency)


def conversions(
    items: Sequence[ConversionIn], here: Service, within: Sequence[str | int]
) -> list[Conversion]:
    """All items, or 422 that names those whose time Metrika cannot take."""
    now, found, wrong = datetime.now(UTC), [], []
    for position, item in enumerate(items):
        try:
            found.append(conversion(item, here, now))
        except ValueError as error:
            wrong.append(invalid((*within, position, "date_time"), str(error)))
    if wrong:
        raise RequestValidationError(wrong[:MOST_PROBLEMS])
    return found
