"""Routes for the admin beside webhooks: goals, the audit log. And the health of the service for everybody."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import JSONResponse

from resources.errors import PermanentSourceError, TransientSourceError
from resources.http import redact
from services.scoring_api import schemas
from services.scoring_api.requests import Admin, Bearer, Here, credentials, number, problems
from services.scoring_api.service import Service

router = APIRouter()


@router.post("/goals/check", tags=["Цели"], summary="Есть ли цель", responses=problems(400, 401, 404, 424))
def check_goal(body: schemas.GoalIn, here: Here, bearer: Bearer, admin: Admin) -> schemas.GoalFound:
    """Нужна цель «JavaScript-событие» с условием «совпадает» на этот идентификатор."""
    return _goal(here, body, bearer)


@router.post("/goals", tags=["Цели"], summary="Создать цель", responses=problems(400, 401, 404, 424))
def create_goal(body: schemas.GoalIn, here: Here, bearer: Bearer, admin: Admin) -> schemas.GoalFound:
    """Создаёт цель, если её ещё нет; ожидавшие её конверсии отправляются."""
    return _goal(here, body, bearer, admin)


def _goal(here: Service, body: schemas.GoalIn, bearer: Bearer, admin: str | None = None) -> schemas.GoalFound:
    """The goal, created for `admin` if there is none."""
    from resources.metrika.errors import MetrikaRefusal

    token, counter = _credentials(here, body, bearer)
    try:
        client = here.client_of(token)
        goal = next((g for g in client.goals(counter) if g.takes(body.target)), None)
        created = goal is None and admin is not None
        if created:
            goal = client.create_goal(counter, body.target, body.name)
    except MetrikaRefusal as refusal:
        known = refusal.status if 400 <= refusal.status < 500 else 424
        raise HTTPException(known, f"Metrika API error: {refusal.message or refusal.description}") from None
    except (TransientSourceError, PermanentSourceError) as error:  # no fault of ours
        said = f"Metrika API error: {redact(error.description or '')}"
        raise HTTPException(424, said, {"Retry-After": "30"}) from None
    if created and admin and goal:
        here.uploads.wake(counter, body.target)
        here.ledger.note(admin, "goal.create", goal.id, counter=counter, target=body.target)
    return schemas.GoalFound(
        exists=goal is not None,
        goal_id=goal.id if goal else None,
        name=goal.name if goal else None,
        created=created,
    )


def _credentials(here: Service, body: schemas.GoalIn, bearer: Bearer) -> tuple[str, int]:
    if body.webhook_id is None:
        return credentials(here, bearer, body.token, body.counter)
    hook = here.ledger.webhook(number(body.webhook_id, "Webhook not found"))
    if hook is None:
        raise HTTPException(404, "Webhook not found")
    return here.ledger.token(hook["token_id"]), hook["counter_id"]


@router.get("/audit", tags=["Журнал"], summary="Кто что менял", responses=problems(401))
def audit(
    here: Here,
    admin: Admin,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=2**31 - 1)] = 0,
) -> list[schemas.AuditLine]:
    """Новые первыми; без токенов и секретов."""
    return [schemas.AuditLine.model_validate(dict(row)) for row in here.ledger.audit(limit, offset)]


@router.get(
    "/healthz", tags=["Служба"], summary="Жива ли служба", responses={503: {"model": schemas.Problem}}
)
async def health(request: Request) -> JSONResponse:
    """200, пока принимает запросы; 503, пока недоступна база."""
    here: Service = request.app.state.service
    if here.ready and await here.intake.alive():
        return JSONResponse({"status": "ok"})
    return JSONResponse({"detail": "PostgreSQL is not available"}, 503, {"Retry-After": "5"})
