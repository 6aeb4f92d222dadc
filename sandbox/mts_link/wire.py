"""Parameters, errors and pages as the API has them."""

import base64
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sandbox.mts_link.org import MSK

Query = dict[str, str]
BAD, NOT_FOUND = "Bad request", "Not found"


class ApiError(Exception):
    """An answer `{"error": {"code", "message"}}`."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.status, "message": self.message}}


def whole(query: Query, name: str, default: int | None = None) -> int:
    """A number. Raises ApiError 400 if it is none, or missing without a default."""
    text = query.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError:
        raise ApiError(400, BAD) from None


def instant(query: Query, name: str, default: float | None = None) -> float:
    """A moment in any of the accepted forms, as Unix seconds."""
    text = query.get(name)
    if text is None and default is not None:
        return default
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        raise ApiError(400, BAD) from None
    return (at if at.tzinfo else at.replace(tzinfo=MSK)).timestamp()


def day(query: Query, name: str, default: float) -> float:
    """A day, as the Unix seconds of its beginning."""
    if name not in query:
        return default
    try:
        return datetime.strptime(query[name], "%Y-%m-%d").replace(tzinfo=MSK).timestamp()
    except ValueError:
        raise ApiError(400, BAD) from None


Make = Callable[[Any], Any]


def by_page(
    query: Query,
    found: Sequence[Any],
    make: Make,
    sizes: Sequence[int],
    default: int,
    *,
    strict: bool = False,
) -> list[Any]:
    """Page `page` of `perPage`; a size that is not listed is refused or replaced."""
    size = whole(query, "perPage", default)
    if size not in sizes:
        if strict:
            raise ApiError(400, BAD)
        size = max((s for s in sizes if s <= size), default=default)
    page = max(1, whole(query, "page", 1))
    return [make(x) for x in found[(page - 1) * size : page * size]]


def by_offset(
    query: Query, found: Sequence[Any], make: Make, default: int, most: int, *, form: str = "{}"
) -> list[Any]:
    """`limit` from `offset`; a limit above `most` is replaced."""
    offset = max(0, whole(query, form.format("offset"), 0))
    limit = min(most, max(1, whole(query, form.format("limit"), default)))
    return [make(x) for x in found[offset : offset + limit]]


def by_cursor(query: Query, found: Sequence[Any], make: Make) -> dict[str, Any]:
    """A page with `nextPageCursor`, an opaque text, until the end."""
    size = min(1000, max(1, whole(query, "perPage", 50)))
    cursor = query.get("cursor")
    try:
        at = int(base64.urlsafe_b64decode(cursor.encode())) if cursor else 0
    except ValueError:
        raise ApiError(400, BAD) from None
    page: dict[str, Any] = {"items": [make(x) for x in found[at : at + size]]}
    if at + size < len(found):
        page["nextPageCursor"] = base64.urlsafe_b64encode(str(at + size).encode()).decode()
    return {"data": page}


def items(rows: list[Any], total: int | None = None) -> dict[str, Any]:
    """The envelope of newer methods."""
    return {"data": {"items": rows} | ({} if total is None else {"total": total})}


def with_text_ids(value: Any, name: str = "") -> Any:
    """An answer whose ids are texts at any depth."""
    if isinstance(value, dict):
        return {k: with_text_ids(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [with_text_ids(v, name) for v in value]
    is_id = name == "id" or name.endswith("Id")
    return str(value) if is_id and isinstance(value, int) else value
