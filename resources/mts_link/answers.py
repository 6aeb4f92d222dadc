"""What MTS Link answers: envelopes, errors, and values that are written in more than one way.

Pure functions. The forms are those of the vendor's help pages and of the answers that public clients read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any
from zoneinfo import ZoneInfo

import orjson

from resources.clickhouse.values import whole_characters
from resources.http import redact

Record = dict[str, Any]

NO_ROUTE = "No route found"
_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_PHONE = re.compile(r"\+?\d[\d\s()-]{8,}\d")
_ADDRESS = re.compile(r"\bhttps?://[^\s\"'<>]+")
_OFFSET = re.compile(r"([+-]\d\d)(\d\d)$")
_LONGEST_MESSAGE = 300


class BadAnswer(Exception):
    """The body is not JSON: a proxy's page, or an answer that was cut."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """An answer taken out of its envelope. `total` and `cursor` come with lists that are paged."""

    content: Any
    total: int | None = None
    cursor: str | None = None

    @property
    def items(self) -> list[Record]:
        """The records: a list as it is, one object as a list of one, nothing as an empty list."""
        found = self.content if isinstance(self.content, list) else [self.content] if self.content else []
        return [item for item in found if isinstance(item, dict)]


def read_json(body: bytes) -> Any:
    """The decoded body. Raises BadAnswer for anything that is not a JSON object or list."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = _second_reading(body)
    if not isinstance(found, dict | list):
        raise BadAnswer("the answer is neither an object nor a list")
    return found


def _second_reading(body: bytes) -> Any:
    """JSON with half a character (a cut emoji) in a text, which is JSON and yet no Unicode."""
    try:
        return orjson.loads(whole_characters(body))
    except orjson.JSONDecodeError:
        raise BadAnswer("the answer is not JSON") from None


def is_json(body: bytes) -> bool:
    """Whether an answer may be the API's own."""
    try:
        read_json(body)
    except BadAnswer:
        return False
    return True


def unwrap(payload: Any, *, whole: bool = False) -> Envelope:
    """The content of `{"data": …}` and of `{"items": [..]}`; the envelope of several methods is undocumented.

    With `whole` an object that has `items` among other things stays one object (a transcript, say).
    """
    outer = payload if isinstance(payload, dict) else {}
    content = payload["data"] if isinstance(payload, dict) and "data" in payload else payload
    if whole or not (isinstance(content, dict) and "items" in content):
        return Envelope(content, _count(outer.get("total")), _cursor(outer))
    inner, total = content, content.get("total", outer.get("total"))
    return Envelope(inner["items"] or [], _count(total), _cursor(inner) or _cursor(outer))


def _count(value: Any) -> int | None:
    try:
        return None if isinstance(value, bool) else int(value)
    except (TypeError, ValueError):
        return None


def _cursor(holder: Mapping[str, Any]) -> str | None:
    value = holder.get("nextPageCursor")
    return str(value) if value not in (None, "", False) else None


def error_of(body: bytes) -> tuple[int | None, str]:
    """(code, message) of `{"error": {"code", "message"}}`; (None, "") for any other body, HTML too."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None, ""
    error = found.get("error") if isinstance(found, dict) else None
    if isinstance(error, str):
        return None, clean(error)
    if not isinstance(error, dict):
        return None, ""
    return _count(error.get("code")), clean(str(error.get("message") or ""))


def clean(text: str) -> str:
    """A server's message without keys, links, addresses and numbers of people, at most 300 characters."""
    return _PHONE.sub("***", _EMAIL.sub("***", _ADDRESS.sub("***", redact(text))))[:_LONGEST_MESSAGE]


def server_time(headers: Mapping[str, str]) -> datetime | None:
    """The source's clock by the `Date` header, to the second; None without one."""
    try:
        return parsedate_to_datetime(headers["Date"])
    except (KeyError, TypeError, ValueError):
        return None


# Values


def is_php_date(value: Any) -> bool:
    """Whether it is a serialised DateTime, `{"date", "timezone_type", "timezone"}`."""
    return isinstance(value, dict) and "date" in value and "timezone" in value


def plain_date(value: Mapping[str, Any]) -> str:
    """A serialised PHP DateTime as ISO 8601 with its offset; as it is written if it cannot be read.

    >>> plain_date({"date": "2019-04-15 22:39:19.000000", "timezone_type": 3, "timezone": "Europe/Moscow"})
    '2019-04-15T22:39:19+03:00'
    """
    text, zone = str(value["date"]), str(value["timezone"])
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and not re.fullmatch(r"[+-]\d\d:\d\d", zone):
            moment = moment.replace(tzinfo=ZoneInfo("UTC" if zone in ("Z", "UTC") else zone))
        elif moment.tzinfo is None:
            moment = datetime.fromisoformat(f"{text}{zone}")
    except (ValueError, KeyError, OSError):
        return text
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds")


def moment_of(value: Any, zone: ZoneInfo) -> datetime | None:
    """An instant in any of the forms of answers, aware; None where there is none.

    `2018-09-27T19:54:41+0300`, `2025-04-03T10:00:00+03:00`, `2019-04-30 12:02:14` (of `zone`), a PHP object.
    """
    text = plain_date(value) if is_php_date(value) else value
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(_OFFSET.sub(r"\1:\2", text.strip()) if "T" in text else text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)


def text_id(value: Any) -> str:
    """An id as text: the same one is a number in one method and a string in another."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if value is None or isinstance(value, bool | dict | list) else str(value).strip()
