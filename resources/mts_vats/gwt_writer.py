"""The writer of GWT-RPC: bodies of calls, and responses as a server of either dialect spells them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from resources.mts_vats.gwt_lexer import SURROGATE, DecodeError, encode_long, joined, text_of
from resources.mts_vats.gwt_rpc import (
    COMPONENTS,
    STRING,
    VERSIONS,
    JavaObject,
    Kind,
    Layout,
    UnknownClass,
    shape_of,
)


class Writer:
    """Writes objects as tokens in reading order, with the string table and object numbers that they need."""

    def __init__(self, layouts: Mapping[str, Layout], *, version: int = 7, quote: str = "") -> None:
        """`quote` stands around longs: none in a request, `'` or `"` in a response."""
        self.tokens: list[str] = []
        self.table: dict[str, int] = {}
        self._layouts, self._version, self._quote = layouts, version, quote
        self._numbers: dict[int, int] = {}

    def write(self, kind: Kind, value: Any) -> None:
        """One value. Raises DecodeError for an object of a class without a layout."""
        match kind:
            case "obj":
                self._object(value)
            case "str":
                self.tokens.append(str(self.string(value)))
            case "long" if self._version == 5:
                self.tokens += [f"{value % (1 << 32)}.0", f"{value - value % (1 << 32)}.0"]
            case "long":
                self.tokens.append(f"{self._quote}{encode_long(value)}{self._quote}")
            case "double":
                self.tokens.append(_double_text(float(value)))
            case _:
                self.tokens.append(str(int(value)))

    def string(self, text: str | None) -> int:
        """The index of a string, entered at its first use; 0 is null."""
        return 0 if text is None else self.table.setdefault(text, len(self.table) + 1)

    def _object(self, value: JavaObject | None) -> None:
        if value is None:
            self.tokens.append("0")
            return
        if number := self._numbers.get(id(value)):
            self.tokens.append(str(-number))
            return
        self._numbers[id(value)] = len(self._numbers) + 1
        self.tokens.append(str(self.string(value.signature)))
        shape = shape_of(value.signature, self._layouts)
        if shape is None:
            raise UnknownClass(value.signature, len(self.tokens))
        self._contents(*shape, value.value)

    def _contents(self, form: str, kinds: Layout, value: Any) -> None:
        if form == "value":
            self.write(kinds[0], value)
        elif form == "many":
            self.tokens.append(str(len(value)))
            for item in value:
                self.write(kinds[0], item)
        else:
            if form == "fields" and len(value) != len(kinds):
                raise DecodeError(f"an object has {len(value)} fields, its class {len(kinds)}")
            for kind, item in zip(kinds, value, strict=False):
                self.write(kind, item)
            if form == "map":
                self.tokens.append(str(len(value) - len(kinds)))
                for pair in value[len(kinds) :]:
                    self._object(pair[0])
                    self._object(pair[1])


def _double_text(number: float) -> str:
    return repr(number).replace("inf", "Infinity").replace("nan", "NaN")


_PRIMITIVES: dict[str, Kind] = {**COMPONENTS, STRING: "str"}
_REQUEST_ESCAPES = {ord("\\"): "\\\\", ord("|"): "\\!", 0: "\\0"}


def encode_request(
    base: str,
    policy: str,
    interface: str,
    method: str,
    parameters: list[tuple[str, Any]],
    layouts: Mapping[str, Layout],
) -> bytes:
    """The body of a call; `parameters` are (declared type, value): `Class/CRC`, or `Z`, `I`, `J`."""
    writer = Writer(layouts)
    head = [writer.string(text) for text in (base, policy, interface, method)]
    declared = [writer.string(type_) for type_, _ in parameters]
    for type_, value in parameters:
        writer.write(_PRIMITIVES.get(type_, "obj"), value)
    strings = [_request_string(text) for text in writer.table]
    tokens = [*head, len(parameters), *declared, *writer.tokens]
    return ("|".join(map(str, (7, 0, len(strings), *strings, *tokens))) + "|").encode()


def _request_string(text: str) -> str:
    text = text.translate(_REQUEST_ESCAPES)
    return SURROGATE.sub(lambda m: f"\\u{ord(m[0]):04x}", text)


def split_request(body: bytes | str) -> tuple[list[str], list[str]]:
    """(strings, tokens) of a request of flags 0. Raises DecodeError."""
    parts = text_of(body).split("|")
    if (
        len(parts) < 4
        or parts[-1]
        or not parts[0].isdecimal()
        or int(parts[0]) not in VERSIONS
        or parts[1] != "0"
    ):
        raise DecodeError("not a request of flags 0 with a final |")
    count = int(parts[2]) if parts[2].isdecimal() and len(parts[2]) < 10 else -1
    if not 0 <= count <= len(parts) - 4:
        raise DecodeError("the request has fewer strings than it says")
    strings = [joined(_REQUEST_ESCAPE.sub(_request_character, s)) for s in parts[3 : 3 + count]]
    return strings, parts[3 + count : -1]


_REQUEST_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


def _request_character(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else {"!": "|", "0": "\0"}.get(found[2], found[2])


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a server spells a response: up to 2.7 longs in `'` and `\\xNN`, from 2.8 `"` and `\\u00NN`; arrays
    and strings longer than these are split."""

    quote: Literal["'", '"'] = "'"
    short_escapes: bool = True
    array_part: int = 1 << 15
    string_part: int = 1 << 16


def encode_response(
    value: Any,
    layouts: Mapping[str, Layout],
    *,
    kind: Kind = "obj",
    ok: bool = True,
    version: int = 7,
    dialect: Dialect | None = None,
) -> str:
    """What a server answers: the inverse of `lex` and `Reader`."""
    dialect = dialect or Dialect()
    writer = Writer(layouts, version=version, quote=dialect.quote)
    writer.write(kind, value)
    table = _array_text([_quoted(text, dialect) for text in writer.table], dialect)
    parts = [*reversed(writer.tokens), table, "0", str(version)]
    return ("//OK" if ok else "//EX") + _array_text(parts, dialect)


def _array_text(values: list[str], dialect: Dialect) -> str:
    part = dialect.array_part
    chunks = [f"[{','.join(values[at : at + part])}]" for at in range(0, len(values), part)] or ["[]"]
    return chunks[0] + (f".concat({','.join(chunks[1:])})" if chunks[1:] else "")


_SPELLED = {c: repr(c)[1:-1] for c in "\t\n\r\\"} | {"\b": r"\b", "\f": r"\f", '"': r"\"", "\0": r"\0"}
_TO_ESCAPE = re.compile(
    "[\\x00-\\x1f\\x7f-\\xa0\\xad\"\\\\'&<=>\u2011\u2028\u2029\ud800-\udfff\U00010000-\U0010ffff]"
)


def _quoted(text: str, dialect: Dialect) -> str:
    parts = [text[at : at + dialect.string_part] for at in range(0, len(text), dialect.string_part)] or [""]
    return "+".join(f'"{_TO_ESCAPE.sub(lambda m: _spelled(m[0], dialect), part)}"' for part in parts)


def _spelled(character: str, dialect: Dialect) -> str:
    if character in _SPELLED:
        return _SPELLED[character]
    if ord(character) < 256 and dialect.short_escapes:
        return f"\\x{ord(character):02X}"
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex().upper()}" for at in range(0, len(units), 2))
