"""Pages for the admin: webhooks, batches, tasks, the audit log. Rendered here, no script, no third party."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Depends, Form, HTTPException, Query, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.templating import Jinja2Templates
from pydantic import ValidationError

from services.scoring_api import schemas, session
from services.scoring_api.limits import RateWindow
from services.scoring_api.requests import Here, is_admin, number
from services.scoring_api.webhooks import MISSING, PREFIX

FOLDER = Path(__file__).with_name("templates")
PAGE = 50
STATES = {
    "pending": "ожидает отправки",
    "uploaded": "передан в Метрику",
    "processing": "обрабатывается",
    "completed": "обработан",
    "error": "ошибка",
    "running": "считается",
    "done": "готова",
    "failed": "не удалась",
    "ready": "ожидает отправки",
    "sending": "отправляется",
    "sent": "передан в Метрику",
}
SOURCES = {"webhook": "вебхук", "single": "одна", "bulk": "результат задачи", "csv": "файл CSV"}
SAFE = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
templates = Jinja2Templates(FOLDER)
templates.env.globals.update(states=STATES, sources=SOURCES)
router = APIRouter(prefix="/admin", include_in_schema=False)
_logins = RateWindow(10)


class _Away(HTTPException):
    """Whoever has no session is led to the login."""

    def __init__(self) -> None:
        super().__init__(303, headers={"Location": "/admin/login"})


def _session(request: Request, here: Here) -> session.Session:
    found = session.of(here.settings, request)
    if found is None:
        raise _Away
    return found


In = Annotated[session.Session, Depends(_session)]


def _posted(found: In, csrf: Annotated[str, Form()] = "") -> session.Session:
    """A form that comes from our own page."""
    if not hmac.compare_digest(csrf.encode("utf-8", "surrogateescape"), found.csrf.encode()):
        raise HTTPException(403, "Форма устарела: откройте страницу заново")
    return found


Posted = Annotated[session.Session, Depends(_posted)]


def _page(
    request: Request, name: str, found: session.Session | None, status: int = 200, **values: Any
) -> Response:
    values |= {"csrf": found.csrf if found else "", "inside": found is not None}
    return templates.TemplateResponse(request, f"{name}.html", values, status, SAFE)


def _to(path: str) -> Response:
    return RedirectResponse(f"/admin{path}", 303)


def _who(request: Request) -> str:
    return f"page {request.client.host if request.client else '?'}"


@router.get("/style.css")
def style() -> Response:
    """The pages' one style sheet."""
    return FileResponse(FOLDER / "style.css", media_type="text/css")


@router.get("/login")
def login_page(request: Request, here: Here) -> Response:
    """The form; without an admin's token everybody here is in."""
    if here.settings.admin_token:
        return _page(request, "login", None)
    answer = _to("")
    session.keep(answer, session.begin(here.settings), request)
    return answer


@router.post("/login")
def login(request: Request, here: Here, token: Annotated[str, Form()] = "") -> Response:
    """Begin a session; ten attempts a minute from an address."""
    wait = _logins.wait(request.client.host if request.client else "?")
    if wait:
        return _page(request, "login", None, 429, problem=f"Слишком много попыток: подождите {wait} с")
    if not is_admin(here.settings, token):
        here.ledger.note(_who(request), "login.refused", "admin")
        return _page(request, "login", None, 403, problem="Токен не подходит")
    answer = _to("")
    session.keep(answer, session.begin(here.settings), request)
    here.ledger.note(_who(request), "login", "admin")
    return answer


@router.post("/logout")
def logout(_: Posted) -> Response:
    """End the session."""
    answer = _to("/login")
    answer.delete_cookie(session.COOKIE, path="/admin")
    return answer


@router.get("")
def webhooks(request: Request, here: Here, found: In) -> Response:
    """All webhooks, and the form of a new one."""
    return _page(request, "webhooks", found, webhooks=here.ledger.webhooks(), form={})


@router.post("/webhooks")
async def create(request: Request, here: Here, found: Posted) -> Response:
    """A new webhook; its secret is on the answer's page and nowhere else."""
    form = {name: str(value) for name, value in (await request.form()).items() if name != "csrf"}
    try:
        given = schemas.WebhookIn.model_validate({**form, "description": form.get("description") or None})
    except ValidationError as error:
        shown = {**form, "token": ""}
        every = here.ledger.webhooks()
        return _page(request, "webhooks", found, 422, webhooks=every, form=shown, problem=_said(error))
    webhook, secret = here.ledger.add_webhook(given.name, given.counter_id, given.token, given.description)
    here.ledger.note(_who(request), "webhook.create", webhook, name=given.name, counter=given.counter_id)
    return _secret(request, here, found, str(webhook), secret)


def _secret(request: Request, here: Here, found: session.Session, webhook: str, secret: str) -> Response:
    url = f"{here.settings.base_url}{PREFIX}/{webhook}"
    return _page(request, "secret", found, webhook=webhook, secret=secret, url=url)


@router.get("/webhooks/{webhook_id}")
def webhook(request: Request, webhook_id: str, here: Here, found: In) -> Response:
    """One webhook with its last batches."""
    return _webhook(request, webhook_id, here, found)


def _webhook(
    request: Request,
    webhook_id: str,
    here: Here,
    found: session.Session,
    status: int = 200,
    problem: str = "",
) -> Response:
    row = here.ledger.webhook(number(webhook_id, MISSING))
    if row is None:
        raise HTTPException(404, MISSING)
    batches = here.ledger.batches(webhook_id=row["id"], limit=PAGE)
    url = f"{here.settings.base_url}{PREFIX}/{row['id']}"
    return _page(request, "webhook", found, status, webhook=row, batches=batches, url=url, problem=problem)


@router.post("/webhooks/{webhook_id}")
async def change(request: Request, webhook_id: str, here: Here, found: Posted) -> Response:
    """Name, counter, description, and the token when one was typed."""
    form = {name: str(value) for name, value in (await request.form()).items() if name != "csrf"}
    form = {name: value for name, value in form.items() if value or name == "description"}
    try:
        given = schemas.WebhookChange.model_validate(form).model_dump(exclude_unset=True)
    except ValidationError as error:
        return _webhook(request, webhook_id, here, found, 422, _said(error))
    _change(request, here, webhook_id, given)
    return _to(f"/webhooks/{webhook_id}")


@router.post("/webhooks/{webhook_id}/toggle")
def toggle(request: Request, webhook_id: str, here: Here, _: Posted) -> Response:
    """Disable an active one, enable a disabled one."""
    row = here.ledger.webhook(number(webhook_id, MISSING))
    _change(request, here, webhook_id, {"is_active": not (row and row["is_active"])})
    return _to(f"/webhooks/{webhook_id}")


def _change(request: Request, here: Here, webhook_id: str, changes: Mapping[str, Any]) -> None:
    key = number(webhook_id, MISSING)
    if here.ledger.change_webhook(key, changes) is None:
        raise HTTPException(404, MISSING)
    here.forget_hook(key)
    told = {name: "***" if name == "token" else value for name, value in changes.items()}
    here.ledger.note(_who(request), "webhook.change", key, **told)


@router.post("/webhooks/{webhook_id}/secret")
def new_secret(request: Request, webhook_id: str, here: Here, found: Posted) -> Response:
    """A new secret instead of the old one."""
    key = number(webhook_id, MISSING)
    secret = here.ledger.new_webhook_secret(key)
    if secret is None:
        raise HTTPException(404, MISSING)
    here.forget_hook(key)
    here.ledger.note(_who(request), "webhook.secret", key)
    return _secret(request, here, found, str(key), secret)


@router.post("/webhooks/{webhook_id}/delete")
def delete(request: Request, webhook_id: str, here: Here, _: Posted) -> Response:
    """Gone; what it accepted is still sent."""
    key = number(webhook_id, MISSING)
    if here.ledger.delete_webhook(key):
        here.ledger.note(_who(request), "webhook.delete", key)
    here.forget_hook(key)
    return _to("")


@router.get("/batches")
def batches(
    request: Request,
    here: Here,
    found: In,
    state: str = "",
    page: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> Response:
    """Everything that was accepted, newest first; reloads itself."""
    status = state if state in get_args(schemas.BatchState) else None
    rows = here.ledger.batches(status=status, limit=PAGE + 1, offset=page * PAGE)
    more = len(rows) > PAGE
    return _page(request, "batches", found, batches=rows[:PAGE], state=status, page=page, more=more)


@router.get("/batches/{batch_id}")
def batch(request: Request, batch_id: str, here: Here, found: In) -> Response:
    """One batch with the conversions in it."""
    row = here.ledger.batch(number(batch_id, "Batch not found"))
    if row is None:
        raise HTTPException(404, "Batch not found")
    rows = here.ledger.batch_conversions(row["id"])
    return _page(request, "batch", found, batch=row, conversions=rows)


@router.post("/batches/{batch_id}/retry")
def retry(request: Request, batch_id: str, here: Here, _: Posted) -> Response:
    """Send refused files again."""
    key = number(batch_id, "Batch not found")
    files = here.uploads.retry(key)
    here.ledger.note(_who(request), "batch.retry", key, files=files)
    return _to(f"/batches/{key}")


@router.get("/tasks")
def tasks(request: Request, here: Here, found: In) -> Response:
    """The last tasks; reloads itself."""
    return _page(request, "tasks", found, tasks=here.ledger.tasks(PAGE))


@router.get("/audit")
def audit(request: Request, here: Here, found: In) -> Response:
    """The last changes."""
    return _page(request, "audit", found, lines=here.ledger.audit(200))


_LABELS = {"name": "Название", "counter_id": "Счётчик", "token": "Токен", "description": "Описание"}


def _said(error: ValidationError) -> str:
    fields = dict.fromkeys(str(each["loc"][0]) for each in error.errors(include_input=False))
    return f"Проверьте поля: {', '.join(_LABELS.get(name, name) for name in fields)}"
