"""Bodies of requests and answers, as the OpenAPI page shows them."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    model_validator,
)
from pydantic.config import JsonDict

from resources.scoring_service.conversions import IDENTIFIERS, parse_time
from services.scoring_api.limits import MOST_CONVERSIONS
from services.scoring_api.settings import MOST_INT32

TARGET = "4plus"
_SOMEBODY: JsonDict = {"anyOf": [{"required": [name]} for name in IDENTIFIERS]}
BatchState = Literal["pending", "uploaded", "processing", "completed", "error"]
EXAMPLE: JsonDict = {
    "client_id": "1750856904411275036",
    "target": TARGET,
    "date_time": "2025-02-03T10:15:00Z",
}


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LAYOUT = str.maketrans("", "", "\n\r\t")


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("control characters are not allowed")
    return text


def _paragraph(text: str) -> str:
    _printable(text.translate(_LAYOUT))
    return text


def _as_text(value: object) -> object:
    """Identifiers are often sent as JSON numbers: an integer keeps all of its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def _blank_is_none(text: str | None) -> str | None:
    return text or None


Counter = Annotated[
    int, Field(gt=0, le=MOST_INT32, description="Номер счётчика Метрики", examples=[12345678])
]
Line = Annotated[str, StringConstraints(strip_whitespace=True, max_length=255), AfterValidator(_printable)]
Name = Annotated[Line, Field(min_length=1)]
Text = Annotated[str, StringConstraints(max_length=2000), AfterValidator(_paragraph)]
# what fits into a header: OAuth tokens are URL-safe ASCII
_TOKEN = r"^[\x21-\x7e]+$"
Token = Annotated[
    str, Field(min_length=1, max_length=2048, pattern=_TOKEN, examples=["y0_AgAAAA..."], description="OAuth")
]
MaybeToken = Annotated[str, Field(max_length=2048, pattern=r"^[\x21-\x7e]*$", examples=["y0_AgAAAA..."])]
Target = Annotated[Line, Field(min_length=1, description="Идентификатор цели «JavaScript-событие»")]
Identifier = Annotated[
    Line | None,
    BeforeValidator(_as_text),
    AfterValidator(_blank_is_none),
    WithJsonSchema({"anyOf": [{"type": "string", "maxLength": 255}, {"type": "integer"}, {"type": "null"}]}),
]
Time = Annotated[
    datetime,
    BeforeValidator(parse_time),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer", "minimum": 946684800}],
            "description": "ISO 8601 или секунды Unix; без зоны — UTC или SCORING_TIMEZONE; в прошлом",
        }
    ),
]
Price = Annotated[
    Decimal | None, Field(ge=0, lt=10**15, max_digits=36, allow_inf_nan=False, examples=["1990.50"])
]
Currency = Annotated[
    Annotated[str, StringConstraints(strip_whitespace=True, to_upper=True, pattern=r"^[A-Za-z]{3}$")] | None,
    Field(description="ISO 4217", examples=["RUB"]),
]


class ConversionIn(BaseModel):
    """An offline conversion: at least one identifier."""

    model_config = ConfigDict(
        json_schema_extra={
            **_SOMEBODY,
            "example": EXAMPLE,
        }
    )

    client_id: Annotated[Identifier, Field(description="ClientID Метрики")] = None
    user_id: Annotated[Identifier, Field(description="UserID сайта")] = None
    yclid: Annotated[Identifier, Field(description="Клик Директа")] = None
    purchase_id: Annotated[Identifier, Field(description="Номер покупки e-commerce")] = None
    target: Target
    date_time: Time
    price: Price = None
    currency: Currency = None

    @model_validator(mode="after")
    def _somebody(self) -> ConversionIn:
        if not any(getattr(self, name) for name in IDENTIFIERS):
            raise ValueError(f"at least one of {', '.join(IDENTIFIERS)} is required")
        return self


class ConversionsIn(BaseModel):
    """What a webhook takes: up to 1000 conversions."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "conversions": [{**EXAMPLE, "purchase_id": "order-1001", "price": 1990.5, "currency": "RUB"}]
            }
        }
    )
    conversions: Annotated[list[ConversionIn], Field(max_length=MOST_CONVERSIONS)]


class _WithToken(BaseModel):
    token: MaybeToken | None = None
    counter: Counter | None = None


class TaskIn(_WithToken):
    """Score one day of a counter; without token or counter those of the environment."""

    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", examples=["2025-02-03"])]


class TaskCreated(BaseModel):
    task_id: str


class TaskStatus(BaseModel):
    """progress: 0 to 100."""

    status: Literal["pending", "running", "done", "failed"]
    progress: int
    message: str
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None


class Visit(BaseModel):
    """A selected visit; numbers as text, the time in the counter's zone, the duration in seconds."""

    visitId: str
    clientId: str
    dateTime: str
    visitDuration: int


class Pagination(BaseModel):
    total: int
    limit: int
    offset: int
    has_more: bool


class TaskResult(BaseModel):
    data: list[Visit]
    pagination: Pagination


class BulkIn(_WithToken):
    """Send the visits that a task selected as conversions; those that were sent before are left out."""

    task_id: str
    target: Target = TARGET


class SingleIn(ConversionIn, _WithToken):
    """Send one conversion."""

    model_config = ConfigDict(
        json_schema_extra={
            **_SOMEBODY,
            "example": {**EXAMPLE, "counter": 12345678, "token": "y0_AgAAAA..."},
        }
    )


class UploadCreated(BaseModel):
    upload_id: str
    status: Literal["pending"] = "pending"


class CsvAccepted(UploadCreated):
    accepted_count: int


class UploadStatus(BaseModel):
    """processed: rows that Metrika took, of `total`."""

    upload_id: str
    status: Literal["pending", "processing", "processed", "failed"]
    errors: list[str] | None
    processed: int
    total: int


class WebhookIn(BaseModel):
    name: Name
    counter_id: Counter
    token: Token
    description: Text | None = None


class WebhookChange(BaseModel):
    """Only what is given changes."""

    name: Name | None = None
    counter_id: Counter | None = None
    token: Token | None = None
    description: Text | None = None
    is_active: bool | None = None


class WebhookCreated(BaseModel):
    """The secret is shown this once."""

    webhook_id: str
    secret: str
    url: str


class WebhookSecret(BaseModel):
    webhook_id: str
    secret: str


class Webhook(BaseModel):
    webhook_id: str
    name: str
    counter_id: int
    description: str | None
    is_active: bool
    created_at: datetime
    updated_at: datetime
    url: str


class BatchAccepted(BaseModel):
    batch_id: str
    status: Literal["accepted"] = "accepted"
    accepted_count: int
    errors: list[str] | None = None


class BatchStatus(BaseModel):
    batch_id: str
    status: BatchState
    webhook_id: str
    counter_id: int
    created_at: datetime
    updated_at: datetime
    metrika_upload_id: str | None
    total: int
    processed: int
    errors: list[str] | None


class GoalIn(_WithToken):
    """A goal by the identifier of its JavaScript event; token and counter may be those of a webhook."""

    target: Target = TARGET
    name: Name | None = None
    webhook_id: str | None = None


class GoalFound(BaseModel):
    exists: bool
    goal_id: int | None = None
    name: str | None = None
    created: bool = False


class Retried(BaseModel):
    """How many files are to be sent, or asked about, again."""

    upload_id: str
    files: int


class AuditLine(BaseModel):
    at: datetime
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


class Problem(BaseModel):
    detail: str
