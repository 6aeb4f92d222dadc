"""Reading the portal's answers: envelopes, batches and pages of rows, without building rows."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from resources.bitrix24.calls import FALSE_MARK, ListCall

FALSE_JSON = json.dumps(FALSE_MARK).encode()


class BadAnswer(Exception):
    """The body is not the JSON the protocol promises (cut short, HTML, another shape)."""


class BadShape(BadAnswer):
    """Rows came in a shape that no repetition will change."""


class Time(msgspec.Struct):
    """The `time` block; everything is optional, and its types vary between portals."""

    duration: Any = 0.0
    processing: Any = None
    operating: Any = None
    operating_reset_at: Any = None
    date_start: Any = None
    finish: Any = None


class _Batch(msgspec.Struct):
    result: dict[str, Raw] | list[Raw] | None = None
    result_error: dict[str, Raw] | list[Raw] | None = None
    result_total: dict[str, Any] | list[Any] | None = None
    result_next: dict[str, Any] | list[Any] | None = None
    result_time: dict[str, Time] | list[Any] | None = None


class _BatchEnvelope(msgspec.Struct):
    result: _Batch
    time: Time = msgspec.field(default_factory=Time)


class _Envelope(msgspec.Struct):
    result: Raw = msgspec.field(default_factory=lambda: Raw(b"null"))
    error: Any = None
    error_description: Any = None
    next: Any = None
    total: Any = None
    time: Any = None


class Page(msgspec.Struct):
    """Rows of one page: their ids, raw JSON objects and modification literals, in the order received."""

    ids: list[int]
    rows: list[Raw]
    modified: list[Any]

    @property
    def increasing(self) -> bool:
        """True if ids grow strictly."""
        return all(a < b for a, b in zip(self.ids, self.ids[1:], strict=False))

    @property
    def decreasing(self) -> bool:
        """True if ids fall strictly."""
        return all(a > b for a, b in zip(self.ids, self.ids[1:], strict=False))


@dataclass(slots=True)
class Answer:
    """A single call's envelope: `result` undecoded."""

    result: Raw
    time: Time
    next: int | None
    total: int | None


@dataclass(slots=True)
class BatchAnswer:
    """A batch envelope: raw results and errors by label; what is in neither was not answered."""

    results: Mapping[str, Raw]
    errors: Mapping[str, tuple[str, str]]
    times: Mapping[str, Time]
    next: Mapping[str, Any]
    total: Mapping[str, Any]
    time: Time


_batch_decoder = msgspec.json.Decoder(_BatchEnvelope)
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_any_decoder = msgspec.json.Decoder()
_rows_decoder = msgspec.json.Decoder(list[Raw])
_map_decoder = msgspec.json.Decoder(dict[str, Raw])


def read_error(body: bytes) -> tuple[str, str] | None:
    """(CODE, description) if `body` is an error object; None if it is JSON without an error.

    BadAnswer if no JSON.
    """
    try:
        envelope = _tolerant(_envelope_decoder, body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(type(error).__name__) from None
    found = {"error": envelope.error, "error_description": envelope.error_description}
    return error_pair(found, whole=True)


def error_pair(value: Any, *, whole: bool = False) -> tuple[str, str] | None:
    """Normalise {"error", "error_description"} (also REST 3.0's nested object) or a bare text."""
    if isinstance(value, str):
        return "", value
    if not isinstance(value, Mapping):
        return None if whole else ("", str(value))
    code, text = value.get("error"), value.get("error_description")
    if isinstance(code, Mapping):
        code, text = code.get("code"), code.get("message")
    if code is None and not text:
        return None if whole else ("", "")
    return str("" if code is None else code).upper(), str(text or "")


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")
_CONTROL = bytes.maketrans(bytes({*range(32)} - set(b"\t\n\r")), b" " * 29)


def scrub(body: bytes) -> bytes:
    """`body` without what JSON readers refuse: lone surrogates, control characters, bytes outside UTF-8."""
    body = _without_lone_surrogates(body).translate(_CONTROL)
    return body if body.isascii() or _is_utf8(body) else body.decode("utf-8", "replace").encode()


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_lone_surrogates(body: bytes) -> bytes:
    """Escapes of half a character become the replacement character; `\\\\ud83d` is text and stays."""
    parts: list[bytes] = []
    done = 0
    for match in _SURROGATE.finditer(body):
        at = match.start()
        if at < done or _escaped(body, at):
            continue
        if pair := _PAIR.match(body, at):
            parts.append(body[done : pair.end()])
            done = pair.end()
        else:
            parts += [body[done:at], b"\\ufffd"]
            done = at + 6
    return b"".join([*parts, body[done:]]) if parts else body


def _escaped(body: bytes, at: int) -> bool:
    """True if the backslash at `at` is itself escaped: an odd number of them stands before it."""
    before = at
    while before and body[before - 1] == 0x5C:
        before -= 1
    return (at - before) % 2 == 1


def read_answer(body: bytes) -> Answer:
    """Decode a single call's answer. Raises BadAnswer."""
    try:
        envelope = _tolerant(_envelope_decoder, body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(type(error).__name__) from None
    return Answer(
        envelope.result, _time(envelope.time), whole_number(envelope.next), whole_number(envelope.total)
    )


T = TypeVar("T")


def _tolerant(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError):
        return decoder.decode(scrub(body))


def read_batch(body: bytes) -> BatchAnswer:
    """Decode a batch answer. Raises BadAnswer."""
    try:
        envelope = _tolerant(_batch_decoder, body)
    except msgspec.ValidationError:
        return _read_odd_batch(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(type(error).__name__) from None
    batch = envelope.result
    errors = {label: error_pair(decode(raw)) or ("", "") for label, raw in _map(batch.result_error).items()}
    times = {label: _time(value) for label, value in _map(batch.result_time).items()}
    return BatchAnswer(
        _map(batch.result), errors, times, _map(batch.result_next), _map(batch.result_total), envelope.time
    )


def _read_odd_batch(body: bytes) -> BatchAnswer:
    """A batch whose maps have unexpected types: slower, tolerant of everything but missing results."""
    try:
        whole = json.loads(scrub(body))
    except ValueError:
        raise BadAnswer("not JSON") from None
    batch = whole.get("result") if isinstance(whole, dict) else None
    if not isinstance(batch, dict):
        raise BadAnswer("a batch without `result`")
    results = {k: Raw(json.dumps(v).encode()) for k, v in _map(batch.get("result")).items()}
    errors = {k: error_pair(v) or ("", "") for k, v in _map(batch.get("result_error")).items()}
    times = {k: _time(v) for k, v in _map(batch.get("result_time")).items()}
    return BatchAnswer(
        results,
        errors,
        times,
        _map(batch.get("result_next")),
        _map(batch.get("result_total")),
        _time(whole.get("time")),
    )


def _map(value: Any) -> Mapping[str, Any]:
    """PHP writes an empty map as `[]`; labels are never numeric, so a filled list answers none of them."""
    return value if isinstance(value, dict) else {}


def _time(value: Any) -> Time:
    if isinstance(value, Time):
        return value
    if not isinstance(value, dict):
        return Time()
    return Time(**{name: value[name] for name in Time.__struct_fields__ if name in value})


def number(value: Any) -> float:
    """A number that may come as text or not at all (then 0)."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return 0.0


def whole_number(value: Any) -> int | None:
    """An integer that may come as text; None for anything else."""
    try:
        return None if value is None or isinstance(value, bool) else int(value)
    except (TypeError, ValueError):
        return None


def moment(time: Time) -> datetime | None:
    """The portal's clock when it began to answer, aware; None if the answer has none."""
    try:
        read = datetime.fromisoformat(time.date_start)
    except (TypeError, ValueError):
        return None
    return read if read.tzinfo else None


def decode(raw: Raw) -> Any:
    """Python objects of a raw result."""
    try:
        return _any_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadAnswer("not JSON") from None


def rows_of(call: ListCall, raw: Raw) -> list[Raw]:
    """The raw rows inside a `result`, unwrapped by the configured key. Raises BadAnswer for another shape."""
    if call.items:
        wrapped = _children(raw)
        if isinstance(wrapped, list):  # an empty map
            if wrapped:
                raise BadShape(f"{call.method}: a list where an object with `{call.items}` was expected")
            return []
        if call.items not in wrapped:
            if wrapped:
                raise BadShape(f"{call.method}: no `{call.items}` in the answer")
            return []
        raw = wrapped[call.items]
    rows = _children(raw)
    if isinstance(rows, list):
        return rows
    if not all(key.isdecimal() for key in rows):
        raise BadShape(f"{call.method}: an object where a list of rows was expected")
    return [rows[key] for key in sorted(rows, key=int)]


def _children(raw: Raw) -> list[Raw] | dict[str, Raw]:
    first = bytes(memoryview(raw)[:1])
    try:
        if first == b"[":
            return _rows_decoder.decode(raw)
        if first == b"{":
            return _map_decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadAnswer(type(error).__name__) from None
    raise BadAnswer("a scalar where rows were expected")


@lru_cache(maxsize=256)
def _head_decoder(id_key: str, modified: str | None) -> Callable[[bytes], list[Any]]:
    fields: list[Any] = [("id", Any, msgspec.field(name=id_key))]
    fields.append(("modified", Any, msgspec.field(default=None, name=modified or " ")))
    return msgspec.json.Decoder(list[msgspec.defstruct("Head", fields, gc=False)]).decode


def read_heads(call: ListCall, rows: list[Raw]) -> list[Any]:
    """(id, modified) of each row, of whatever type they are; None where absent."""
    return [
        (row.get(call.id_key), row.get(call.modified_key or call.modified))
        if isinstance(row, dict)
        else (None, None)
        for row in map(decode, rows)
    ]


def read_page(call: ListCall, raw: Raw) -> Page:
    """Rows of a page with integer ids. Raises BadAnswer when a row has no integer id."""
    rows = rows_of(call, raw)
    if not rows:
        return Page([], [], [])
    try:
        heads = _head_decoder(call.id_key, call.modified_key or call.modified)(b"[" + b",".join(rows) + b"]")
        return Page([int(head.id) for head in heads], rows, [head.modified for head in heads])
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, ValueError):
        raise BadShape(f"{call.method}: a row without an integer `{call.id_key}`") from None


_ODD_COLON = re.compile(rb'"(?:\s+:\s*|:[\t\r\n]\s*|: \s+)false')
_STRING = re.compile(rb'("(?:[^"\\]|\\.)*")(\s*:\s*)?(false)?', re.S)
_DOUBTFUL = frozenset(bytes([before]) for before in b" \t\r\n{[,:\\")


def mark_false(rows: bytes) -> bytes:
    """Replace `false` as the value of a key with FALSE_MARK, exactly; text inside strings stays.

    A closing quote is told from an opening or an escaped one by the byte before it. Where that is not certain
    (a key that ends in punctuation, text such as `":false`), every string of `rows` is walked over.
    """
    unseen = rows.count(b"false")
    marked = rows
    for colon in (b'":', b'": '):
        if not unseen:
            return marked
        parts = marked.split(colon + b"false")
        unseen -= len(parts) - 1
        if any(part[-1:] in _DOUBTFUL for part in parts[:-1]):
            return _STRING.sub(_marked, rows)
        marked = (colon + FALSE_JSON).join(parts)
    return _STRING.sub(_marked, rows) if unseen and _ODD_COLON.search(rows) else marked


def _marked(match: re.Match[bytes]) -> bytes:
    text, colon, value = match.groups()
    return text + (colon or b"") + (FALSE_JSON if value and colon else value or b"")
