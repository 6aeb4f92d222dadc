"""Routes of conversions that are not a webhook's: a task's result, a single one, a CSV file."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Form, HTTPException, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from resources.scoring_service.conversions import Conversion, instant, read_csv
from resources.scoring_service.ledger import Key, Row
from services.scoring_api import schemas
from services.scoring_api.intake import NewBatch
from services.scoring_api.requests import (
    MOST_PROBLEMS,
    Admin,
    Bearer,
    Here,
    IdempotencyKey,
    conversion,
    conversions,
    credentials,
    invalid,
    key,
    number,
    problems,
    without_token,
)
from services.scoring_api.service import Service

MISSING = "Conversion upload not found"
MOST_CSV_ROWS = 50_000
TO_UPLOAD = {
    "uploaded": "pending",
    "completed": "processed",
    "error": "failed",
}  # the other names are the same
router = APIRouter(prefix="/conversions", tags=["Конверсии"])


@router.post(
    "/bulk",
    response_model=schemas.UploadCreated,
    summary="Отправить результат задачи",
    responses={
        **problems(400, 401, 404, 409),
        202: {"model": schemas.Problem, "description": "Ещё не готово"},
    },
)
async def bulk(
    body: schemas.BulkIn, here: Here, bearer: Bearer, idempotency_key: IdempotencyKey = None
) -> schemas.UploadCreated | JSONResponse:
    """Каждый визит с ClientID становится конверсией; принятые раньше для той же цели не повторяются."""
    task = await run_in_threadpool(here.ledger.task, number(body.task_id, "Task not found"))
    if task is None:
        raise HTTPException(404, "Task not found")
    if task["status"] in ("pending", "running"):
        return JSONResponse({"detail": "Task not finished yet"}, 202)
    token, counter = credentials(here, bearer, body.token, body.counter)
    result = await run_in_threadpool(here.ledger.whole_result, task["id"])
    if result is None:
        raise HTTPException(404, "Task results not found")
    visits, found, left = await run_in_threadpool(_of_result, *result, body.target)
    return await _accept(
        here,
        "bulk",
        token,
        counter,
        found,
        await _key(here, token, idempotency_key, without_token(body)),
        task_id=task["id"],
        visits=visits,
        note=f"визитов без ClientID: {left}" if left else None,
    )


def _of_result(rows: Sequence[Any], zone: str, target: str) -> tuple[list[str], list[Conversion], int]:
    """(visit ids, their conversions, how many visits have no ClientID)."""
    counter_zone, now = ZoneInfo(zone), datetime.now(UTC)
    visits, found = [], []
    for row in rows:
        if row["clientId"].strip("0"):
            when = instant(datetime.fromisoformat(row["dateTime"]), counter_zone, now)
            visits.append(row["visitId"])
            found.append(Conversion(target, when, client_id=row["clientId"]))
    return visits, found, len(rows) - len(found)


@router.post("/single", summary="Отправить одну конверсию", responses=problems(400, 401, 409))
async def single(
    body: schemas.SingleIn, here: Here, bearer: Bearer, idempotency_key: IdempotencyKey = None
) -> schemas.UploadCreated:
    """Сохраняется до ответа; отправляет её задание Dagster."""
    token, counter = credentials(here, bearer, body.token, body.counter)
    try:
        found = conversion(body, here)
    except ValueError as error:
        raise RequestValidationError([invalid(("body", "date_time"), str(error))]) from None
    kept = await _key(here, token, idempotency_key, without_token(body))
    return await _accept(here, "single", token, counter, [found], kept)


@router.post("/csv", summary="Отправить файл CSV", responses=problems(400, 401, 409))
async def csv(
    here: Here,
    bearer: Bearer,
    file: UploadFile,
    counter: Annotated[schemas.Counter | None, Form()] = None,
    token: Annotated[schemas.MaybeToken | None, Form()] = None,
    target: Annotated[schemas.Target | None, Form()] = None,
    idempotency_key: IdempotencyKey = None,
) -> schemas.CsvAccepted:
    """Файл с заголовком: ClientId, UserId, Yclid или PurchaseId, Target, DateTime, Price, Currency.

    Запятая или точка с запятой, UTF-8, до 50 000 строк. Принимается целиком или не принимается: ошибки
    называют строку и поле. Target можно задать один на весь файл.
    """
    token, counter = credentials(here, bearer, token, counter)
    body = await file.read()
    found = await run_in_threadpool(_of_csv, body, here, target)
    digest = hashlib.sha256(f"{counter} {target} ".encode() + body).digest()
    kept = await _key(here, token, idempotency_key, digest)
    made = await _accept(here, "csv", token, counter, found, kept)
    return schemas.CsvAccepted(upload_id=made.upload_id, accepted_count=len(found))


def _of_csv(body: bytes, here: Service, target: str | None) -> list[Conversion]:
    items, wrong = [], []
    try:
        for line, fields in read_csv(body):
            if len(items) == MOST_CSV_ROWS:
                wrong.append(invalid(("body", "file"), f"the file has more than {MOST_CSV_ROWS} rows"))
                break
            given = {name: text for name, text in fields.items() if text.strip()}
            if target:
                given.setdefault("target", target)
            try:
                items.append(schemas.ConversionIn.model_validate(given))
            except ValidationError as error:
                for each in error.errors(include_url=False, include_context=False, include_input=False):
                    wrong.append({**each, "loc": ("body", "file", line, *each["loc"])})
            if len(wrong) >= MOST_PROBLEMS:
                break
    except ValueError as error:
        wrong.append(invalid(("body", "file"), str(error)))
    if not items and not wrong:
        wrong.append(invalid(("body", "file"), "the file has no rows"))
    if wrong:
        raise RequestValidationError(wrong[:MOST_PROBLEMS])
    return conversions(items, here, ("body", "file"))


@router.get("/{upload_id}/status", summary="Состояние отправки", responses=problems(404))
def status(upload_id: str, here: Here) -> schemas.UploadStatus:
    """pending, processing, processed или failed; о переданном файле спрашивает Метрику."""
    batch_id = number(upload_id, MISSING)
    batch = here.ledger.batch(batch_id)
    if batch is None:
        raise HTTPException(404, MISSING)
    if batch["status"] in ("uploaded", "processing"):
        here.refresh(batch_id)
        batch = here.ledger.batch(batch_id) or batch
    return upload_status(batch)


@router.post("/{upload_id}/retry", summary="Повторить неудавшуюся отправку", responses=problems(401, 404))
def retry(upload_id: str, here: Here, admin: Admin) -> schemas.Retried:
    """Отказанные файлы отправки или пакета вебхука уйдут снова."""
    batch_id = number(upload_id, MISSING)
    if here.ledger.batch(batch_id) is None:
        raise HTTPException(404, MISSING)
    files = here.uploads.retry(batch_id)
    here.ledger.note(admin, "batch.retry", batch_id, files=files)
    return schemas.Retried(upload_id=str(batch_id), files=files)


async def _key(here: Service, token: str, given: str | None, body: bytes) -> Key | None:
    """Keys belong to a token, so that nobody meets another's."""
    return key(f"upload {await run_in_threadpool(here.ledger.token_id, token)}", given, body)


async def _accept(
    here: Service,
    source: str,
    token: str,
    counter: int,
    found: Sequence[Conversion],
    kept: Key | None,
    *,
    task_id: uuid.UUID | None = None,
    visits: Sequence[str] = (),
    note: str | None = None,
) -> schemas.UploadCreated:
    token_id = await run_in_threadpool(here.ledger.token_id, token)
    batch = NewBatch(source, counter, token_id, found, task_id=task_id, key=kept, visits=visits, note=note)
    accepted = await here.intake.add(batch)
    return schemas.UploadCreated(upload_id=str(accepted.batch_id))


def upload_status(batch: Row) -> schemas.UploadStatus:
    said = [*(batch["errors"] or []), *([batch["note"]] if batch["note"] else [])]
    return schemas.UploadStatus.model_validate(
        {
            "upload_id": str(batch["id"]),
            "status": TO_UPLOAD.get(batch["status"], batch["status"]),
            "errors": said or None,
            "processed": batch["processed"],
            "total": batch["total"],
        }
    )
