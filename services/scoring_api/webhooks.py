"""Routes of webhooks: conversions from other systems, and the management of who may send them."""

from __future__ import annotations

import uuid
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from resources.scoring_service.cipher import same_secret
from resources.scoring_service.ledger import Row
from services.scoring_api import schemas
from services.scoring_api.intake import NewBatch
from services.scoring_api.requests import (
    Admin,
    Here,
    IdempotencyKey,
    conversions,
    key,
    number,
    parsed,
    problems,
)
from services.scoring_api.service import Service

MISSING = "Webhook not found"
PREFIX = "/webhook/offline-conversions"
router = APIRouter(prefix=PREFIX)
SENDING, MANAGING = "Вебхук", "Управление вебхуками"
Secret = Annotated[str | None, Header(alias="X-Webhook-Secret", description="Секрет вебхука")]
# Read by the route itself, since secrets are checked before bodies; told to the OpenAPI page here.
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ConversionsIn"}}},
    }
}
_BATCH_ID: dict[str, Any] = {
    "parameters": [
        {"name": "batch_id", "in": "query", "required": True, "schema": {"type": "string", "format": "uuid"}}
    ]
}


# For whoever holds a webhook's secret


@router.post(
    "/{webhook_id}",
    response_model=schemas.BatchAccepted,
    openapi_extra=_BODY,
    tags=[SENDING],
    summary="Передать конверсии",
    responses={**problems(400, 401, 403, 404, 409, 422), 429: {"model": schemas.Problem}},
)
async def accept(
    webhook_id: str,
    request: Request,
    here: Here,
    secret: Secret = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """До 1000 конверсий, до 60 запросов в минуту, до 10 МБ. Ответ — после записи в базу.

    Если ответа не было, повторите запрос с тем же Idempotency-Key: конверсии не удвоятся.
    """
    hook = await here.hook(number(webhook_id, MISSING))
    if hook is None:
        raise HTTPException(404, MISSING)
    _authorise(hook.is_active, secret, hook.secret_hash)
    if wait := here.rate.wait(hook.id):
        limit = f"More than {here.settings.webhook_rate} requests a minute"
        raise HTTPException(429, limit, {"Retry-After": str(wait)})
    body = await request.body()
    found = _parse(body)
    if not found.conversions:
        raise HTTPException(400, "No conversions provided")
    batch = NewBatch(
        "webhook",
        hook.counter_id,
        hook.token_id,
        conversions(found.conversions, here, ("body", "conversions")),
        webhook_id=hook.id,
        key=key(f"webhook {hook.id}", idempotency_key, body),
    )
    accepted = await here.intake.add(batch)
    answer = {
        "batch_id": str(accepted.batch_id),
        "status": "accepted",
        "accepted_count": accepted.count,
        "errors": None,
    }
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _authorise(is_active: bool, secret: str | None, stored: bytes) -> None:
    """In this order; 403 or 401."""
    if not is_active:
        raise HTTPException(403, "Webhook is disabled")
    if not secret:
        raise HTTPException(401, "X-Webhook-Secret header is required")
    if not same_secret(secret, stored):
        raise HTTPException(403, "Invalid webhook secret")


def _parse(body: bytes) -> schemas.ConversionsIn:
    try:
        return schemas.ConversionsIn.model_validate_json(body)
    except ValidationError as error:
        raise parsed(error) from None


@router.get(
    "/{webhook_id}/status",
    openapi_extra=_BATCH_ID,
    tags=[SENDING],
    summary="Состояние пакета",
    responses=problems(401, 403, 404, 422),
)
def status(webhook_id: str, request: Request, here: Here, secret: Secret = None) -> schemas.BatchStatus:
    """pending, uploaded, processing, completed или error; о переданном пакете спрашивает Метрику."""
    hook = _webhook(here, webhook_id)
    _authorise(hook["is_active"], secret, bytes(hook["secret_hash"]))
    asked = request.query_params.get("batch_id")
    if asked is None:
        missing = {"type": "missing", "loc": ("query", "batch_id"), "msg": "Field required"}
        raise RequestValidationError([missing])
    batch_id = number(asked, "Batch not found")
    batch = here.ledger.batch(batch_id)
    if batch is None:
        raise HTTPException(404, "Batch not found")
    if batch["webhook_id"] != hook["id"]:
        raise HTTPException(403, "Batch does not belong to this webhook")
    if batch["status"] in ("uploaded", "processing"):
        here.refresh(batch_id)
        batch = here.ledger.batch(batch_id) or batch
    return _batch(batch)


# For the admin


@router.post(
    "",
    response_model=schemas.WebhookCreated,
    tags=[MANAGING],
    summary="Создать вебхук",
    responses=problems(401),
)
def create(body: schemas.WebhookIn, here: Here, admin: Admin) -> schemas.WebhookCreated:
    """Секрет показывается один раз; хранится только его хеш."""
    webhook, secret = here.ledger.add_webhook(body.name, body.counter_id, body.token, body.description)
    here.ledger.note(admin, "webhook.create", webhook, name=body.name, counter=body.counter_id)
    return schemas.WebhookCreated(webhook_id=str(webhook), secret=secret, url=_url(here, webhook))


@router.get("", tags=[MANAGING], summary="Все вебхуки", responses=problems(401))
def every(
    here: Here,
    admin: Admin,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> list[schemas.Webhook]:
    """Новые первыми; без секретов и токенов."""
    return [_shown(here, row) for row in here.ledger.webhooks(limit, offset)]


@router.get("/{webhook_id}", tags=[MANAGING], summary="Один вебхук", responses=problems(401, 404))
def one(webhook_id: str, here: Here, admin: Admin) -> schemas.Webhook:
    """Без секрета и токена."""
    return _shown(here, _webhook(here, webhook_id))


@router.patch("/{webhook_id}", tags=[MANAGING], summary="Изменить вебхук", responses=problems(401, 404))
def change(webhook_id: str, body: schemas.WebhookChange, here: Here, admin: Admin) -> schemas.Webhook:
    """Меняется только то, что передано; null очищает лишь описание."""
    given = body.model_dump(exclude_unset=True)
    changes = {name: value for name, value in given.items() if value is not None or name == "description"}
    return _shown(here, _changed(here, admin, webhook_id, changes))


@router.post("/{webhook_id}/disable", tags=[MANAGING], summary="Отключить", responses=problems(401, 404))
def disable(webhook_id: str, here: Here, admin: Admin) -> schemas.Webhook:
    """Запросы получают 403; принятое отправляется."""
    return _shown(here, _changed(here, admin, webhook_id, {"is_active": False}))


@router.post("/{webhook_id}/enable", tags=[MANAGING], summary="Включить", responses=problems(401, 404))
def enable(webhook_id: str, here: Here, admin: Admin) -> schemas.Webhook:
    """Снова принимает конверсии."""
    return _shown(here, _changed(here, admin, webhook_id, {"is_active": True}))


@router.post("/{webhook_id}/secret", tags=[MANAGING], summary="Новый секрет", responses=problems(401, 404))
def new_secret(webhook_id: str, here: Here, admin: Admin) -> schemas.WebhookSecret:
    """Прежний секрет сразу перестаёт действовать."""
    webhook = number(webhook_id, MISSING)
    secret = here.ledger.new_webhook_secret(webhook)
    here.forget_hook(webhook)
    if secret is None:
        raise HTTPException(404, MISSING)
    here.ledger.note(admin, "webhook.secret", webhook)
    return schemas.WebhookSecret(webhook_id=str(webhook), secret=secret)


@router.delete(
    "/{webhook_id}", status_code=204, tags=[MANAGING], summary="Удалить", responses=problems(401, 404)
)
def delete(webhook_id: str, here: Here, admin: Admin) -> None:
    """Вебхук исчезает; принятые конверсии всё равно отправляются."""
    webhook = number(webhook_id, MISSING)
    found = here.ledger.delete_webhook(webhook)
    here.forget_hook(webhook)
    if not found:
        raise HTTPException(404, MISSING)
    here.ledger.note(admin, "webhook.delete", webhook)


@router.get("/{webhook_id}/batches", tags=[MANAGING], summary="Пакеты вебхука", responses=problems(401, 404))
def batches(
    webhook_id: str,
    here: Here,
    admin: Admin,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> list[schemas.BatchStatus]:
    """Новые первыми."""
    hook = _webhook(here, webhook_id)
    return [_batch(row) for row in here.ledger.batches(webhook_id=hook["id"], limit=limit, offset=offset)]


def _webhook(here: Service, webhook_id: str) -> Row:
    found = here.ledger.webhook(number(webhook_id, MISSING))
    if found is None:
        raise HTTPException(404, MISSING)
    return found


def _changed(here: Service, admin: str, webhook_id: str, changes: dict[str, Any]) -> Row:
    webhook = number(webhook_id, MISSING)
    found = here.ledger.change_webhook(webhook, changes)
    here.forget_hook(webhook)
    if found is None:
        raise HTTPException(404, MISSING)
    told = {name: "***" if name == "token" else value for name, value in changes.items()}
    here.ledger.note(admin, "webhook.change", webhook, **told)
    return found


def _url(here: Service, webhook: uuid.UUID) -> str:
    return f"{here.settings.base_url}{PREFIX}/{webhook}"


def _shown(here: Service, row: Row) -> schemas.Webhook:
    known = {name: row[name] for name in schemas.Webhook.model_fields if name in row}
    return schemas.Webhook(webhook_id=str(row["id"]), url=_url(here, row["id"]), **known)


def _batch(row: Row) -> schemas.BatchStatus:
    known = {name: row[name] for name in schemas.BatchStatus.model_fields if name in row}
    known["webhook_id"] = str(row["webhook_id"])
    return schemas.BatchStatus(batch_id=str(row["id"]), **known)
