"""The FastAPI application: routes, errors, limits, the OpenAPI description."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy.exc
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from resources.http import install_log_redaction, redact, register_secret
from resources.scoring_service.cipher import LedgerError
from resources.scoring_service.ledger import KeyReused
from services.scoring_api import conversions, management, pages, reference, tasks, webhooks
from services.scoring_api.intake import StorageAway
from services.scoring_api.limits import BodyLimit
from services.scoring_api.schemas import ConversionsIn
from services.scoring_api.service import Service

ABOUT = """Оценка визитов Яндекс.Метрики уровня 4+ и передача офлайн-конверсий.

Принятое сохраняется до ответа и уходит в Метрику заданием Dagster."""


def create_app(service: Service) -> FastAPI:
    """The application around one service, which starts and stops with it."""
    install_log_redaction()
    for secret in (service.settings.admin_token, service.settings.metrika_token):
        if secret:
            register_secret(secret)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="Metrika Score API",
        version="1.0.0",
        description=ABOUT,
        lifespan=lifespan,
        docs_url=None,  # the usual page loads scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    for each in (tasks, conversions, webhooks, management, pages, reference):
        app.include_router(each.router)
    _handle_errors(app)
    app.add_middleware(BodyLimit)
    _describe(app)
    return app


def _describe(app: FastAPI) -> None:
    """Add to the description what routes read by themselves."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if not app.openapi_schema:
            schema = plain()
            body = ConversionsIn.model_json_schema(ref_template="#/components/schemas/{model}")
            found = {**body.pop("$defs"), "ConversionsIn": body}
            schema["components"]["schemas"] |= found
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = described  # type: ignore[method-assign]


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # without the values: they may be tokens, or text that no JSON can carry
        found = [{name: each[name] for name in ("type", "loc", "msg")} for each in error.errors()]
        return JSONResponse({"detail": found}, 422)

    @app.exception_handler(KeyReused)
    async def reused(_: Request, error: KeyReused) -> JSONResponse:
        return JSONResponse({"detail": "Idempotency-Key was used with another body"}, 409)

    async def away(_: Request, error: Exception) -> JSONResponse:
        detail = "The storage is not available: repeat the request later"
        return JSONResponse({"detail": detail}, 503, {"Retry-After": "5"})

    for kind in (
        StorageAway,
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.InterfaceError,
        sqlalchemy.exc.TimeoutError,
    ):
        app.add_exception_handler(kind, away)

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> JSONResponse:
        # only our own errors have texts that surely hold nothing of the request
        said = redact(str(error)) if isinstance(error, LedgerError) else type(error).__name__
        return JSONResponse({"detail": "Internal server error", "error": said}, 500)
