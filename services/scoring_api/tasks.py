"""Routes of tasks: score one day of a counter. The work is a Dagster run; here it is ordered and told."""

from __future__ import annotations

from datetime import date
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse

from resources.scoring_service.ledger import Row
from services.scoring_api import schemas
from services.scoring_api.conversions import upload_status
from services.scoring_api.requests import (
    Bearer,
    Here,
    IdempotencyKey,
    actor,
    credentials,
    key,
    number,
    problems,
    without_token,
)
from services.scoring_api.service import Service

MISSING = "Task not found"
router = APIRouter(tags=["Задачи"])


@router.post("/tasks", status_code=202, summary="Оценить визиты за день", responses=problems(400, 401, 409))
def add_task(
    request: Request,
    body: schemas.TaskIn,
    here: Here,
    bearer: Bearer,
    idempotency_key: IdempotencyKey = None,
) -> schemas.TaskCreated:
    """Ставит расчёт в очередь Dagster; ход виден в статусе задачи и в интерфейсе Dagster."""
    token, counter = credentials(here, bearer, body.token, body.counter)
    try:
        day = date.fromisoformat(body.date)
    except ValueError:
        raise HTTPException(400, "date does not exist") from None
    found = key(f"task {here.ledger.token_id(token)}", idempotency_key, without_token(body))
    task = here.ledger.add_task(str(day), counter, token, found)
    here.ledger.note(actor(request, here, bearer), "task.create", task, date=str(day), counter=counter)
    return schemas.TaskCreated(task_id=str(task))


@router.get("/tasks/{task_id}/status", summary="Состояние задачи", responses=problems(404))
def task_status(task_id: str, here: Here) -> schemas.TaskStatus:
    """pending, running, done или failed с текстом ошибки."""
    return schemas.TaskStatus.model_validate(dict(_task(here, task_id)), extra="ignore")


@router.get(
    "/tasks/{task_id}/result",
    response_model=schemas.TaskResult,
    summary="Отобранные визиты",
    responses={**problems(404, 409), 202: {"model": schemas.Problem, "description": "Ещё не готово"}},
)
def task_result(
    task_id: str,
    here: Here,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> schemas.TaskResult | JSONResponse:
    """Страница результата в порядке лога; номера — строками, время — в зоне счётчика."""
    task = _task(here, task_id)
    if task["status"] == "failed":
        raise HTTPException(409, f"Task failed: {task['error']}")
    if task["status"] != "done":
        return JSONResponse({"detail": "Task not finished"}, 202)
    found = here.ledger.result(task["id"], limit, offset)
    if found is None:
        raise HTTPException(404, "Result not found")
    rows, total = found
    page = schemas.Pagination(total=total, limit=limit, offset=offset, has_more=offset + limit < total)
    return schemas.TaskResult(data=rows, pagination=page)


@router.get("/tasks/{task_id}/conversions", summary="Отправки результата задачи", responses=problems(404))
def task_conversions(task_id: str, here: Here) -> list[schemas.UploadStatus]:
    """Все отправки, созданные из результата этой задачи."""
    task = _task(here, task_id)
    batches = here.ledger.batches(task_id=task["id"], limit=1000)
    return [upload_status(batch) for batch in reversed(batches)]


def _task(here: Service, task_id: str) -> Row:
    task = here.ledger.task(number(task_id, MISSING))
    if task is None:
        raise HTTPException(404, MISSING)
    return task
