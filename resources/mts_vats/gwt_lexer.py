"""The lexer of GWT-RPC responses, and the text form of longs. gwt_rpc.py says what the format is."""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import msgspec

Token = int | float | str
DEEPEST_ARRAY = 16


class DecodeError(ValueError):
    """The text is not what it should be; no retry will change that."""


class NotRpc(DecodeError):
    """The text is no GWT-RPC answer at all (a login page, say)."""


# Longs

# The digits of base 64 are those of MIME but for the last two; the most significant stands first.
_TO_GWT = bytes.maketrans(b"+/", b"$_")
_DIGITS = {
    letter: value
    for value, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789$_")
}


@lru_cache(maxsize=1024)
def encode_long(number: int) -> str:
    """A signed 64-bit number as GWT writes it: `CbwhyN` is 2613189773.

    Raises ValueError outside of 64 bits.
    """
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("a long has 64 bits")
    digits = binascii.b2a_base64((number % (1 << 64)).to_bytes(9), newline=False)
    return digits.translate(_TO_GWT).lstrip(b"A").decode() or "A"


def decode_long(text: str) -> int:
    """The number behind base-64 text. Raises DecodeError for other text and beyond 64 bits."""
    if not 0 < len(text) < 12:
        raise DecodeError("a long is empty or has more than 64 bits")
    number = 0
    try:
        for letter in text:
            number = number << 6 | _DIGITS[letter]
    except KeyError:
        raise DecodeError("a long has a character outside of its alphabet") from None
    if number >= 1 << 64:
        raise DecodeError("a long has more than 64 bits")
    return number - (1 << 64) if number >= 1 << 63 else number


# Lexer


@dataclass(frozen=True, slots=True)
class Response:
    """What a response holds: tokens as on the wire (reading order is from the end) and the string table."""

    ok: bool
    tokens: list[Any]  # of Token
    table: list[str]
    flags: int
    version: int


# Everything up to the next bracket outside of a string; possessive, so no input makes it slow.
_RUN = re.compile(
    r"""[^"'\[\]()]*+(?:(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|'[^'\\]*+(?:\\.[^'\\]*+)*+')[^"'\[\]()]*+)*+""",
    re.DOTALL,
)
_CONCAT = re.compile(r"\s*\.\s*concat\s*\(\s*")
_NEXT = re.compile(r"\s*([,)])\s*")
_STRING = r"""(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"|'[^'\\]*+(?:\\.[^'\\]*+)*+')"""
_VALUE = re.compile(
    rf"\s*(?:(?P<text>{_STRING}(?:\s*\+\s*{_STRING})*+)"
    r"|(?P<whole>-?\d+)(?![\d.eENI])|(?P<number>-?(?:NaN|Infinity|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)))\s*(?:(,)|$)",
    re.DOTALL | re.ASCII,
)
_PIECE = re.compile(_STRING, re.DOTALL)
_DOUBLE = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
# Strings in single quotes are stepped over: each quote in one would begin a search to the end.
_STRINGS = re.compile(rf"'[^'\\]*+(?:\\.[^'\\]*+)*+'|{_DOUBLE}(?:\s*\+\s*{_DOUBLE})*+", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_NAMED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "v": "\v", "0": "\0"}
SURROGATE = re.compile("[\ud800-\udfff]")
_PLAIN = frozenset((int, float, str))
_json = msgspec.json.Decoder()


def lex(body: bytes | str) -> Response:
    """Split a response into tokens and table, whatever dialect it is in.

    Raises NotRpc when it begins with neither `//OK` nor `//EX`, DecodeError when it is cut or malformed.
    """
    raw = (body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body).lstrip(
        b"\xef\xbb\xbf \t\r\n"
    )
    if not raw.startswith((b"//OK", b"//EX")):
        raise NotRpc("the text begins with neither //OK nor //EX")
    items = _plain(raw[4:])
    if items is None:
        items = _exact(text_of(body if isinstance(body, str) else raw))
    if len(items) < 3:
        raise DecodeError("the array has no string table, flags and version")
    *tokens, table, flags, version = items
    if type(flags) is not int or type(version) is not int:
        raise DecodeError("flags and version at the array's end are not whole numbers")
    if not isinstance(table, list) or not set(map(type, table)) <= {str}:
        raise DecodeError("the third element from the end is not a table of strings")
    if not set(map(type, tokens)) <= _PLAIN:
        raise DecodeError("an array stands among the tokens")
    return Response(raw.startswith(b"//OK"), tokens, table, flags, version)


def _plain(array: bytes) -> list[Any] | None:
    """The array by a JSON parser, which nearly every answer is once its quotes and escapes are; None if this
    one is not, or might be read otherwise."""
    first = array.find(b'"')
    head = array if first < 0 else array[:first]
    if b"\\" in head or (first >= 0 and array.find(b"'", first) >= 0):
        return None
    if b"'" in head:
        array = array.replace(b"'", b'"')
    if b"\\" in array:
        # between pairs of backslashes, a backslash always begins an escape
        parts = array.split(b"\\\\")
        parts = [p.replace(b"\\x", b"\\u00").replace(b"\\0", b"\\u0000") for p in parts]
        array = b"\\\\".join(parts)
    try:
        items = _json.decode(array)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    known = isinstance(items, list) and set(map(type, items)) <= {int, float, str, list}
    return items if known else None


def _exact(text: str) -> list[Any]:
    """The array by the grammar: every dialect."""
    items, end = _array(text, _skip(text, text.index("//") + 4), 0)
    if text[end:].strip():
        raise DecodeError(f"something follows the array, at character {end}")
    return items


def text_of(body: bytes | str) -> str:
    if isinstance(body, str):
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError(f"byte {error.start} is not UTF-8") from None


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\t", "\r", "\n"):
        at += 1
    return at


def _array(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    """The array at `at`, with what `.concat(` appends, and the position after it."""
    items, at = _brackets(text, at, depth)
    while found := _CONCAT.match(text, at):
        at = found.end()
        while True:
            more, at = _brackets(text, at, depth)
            items += more
            following = _NEXT.match(text, at)
            if not following:
                raise DecodeError(f"the list of .concat( is not closed, at character {at}")
            at = following.end(1) if following[1] == ")" else following.end()
            if following[1] == ")":
                break
    return items, at


def _brackets(text: str, at: int, depth: int) -> tuple[list[Any], int]:
    if text[at : at + 1] != "[" or depth > DEEPEST_ARRAY:
        raise DecodeError(f"no array at character {at}, or too many inside of each other")
    items: list[Any] = []
    at, nested = at + 1, False
    while True:
        found = _RUN.match(text, at)
        end = found.end() if found else at
        run, stop = text[at:end].strip(), text[end : end + 1]
        if stop not in ("[", "]") or not stop:
            raise DecodeError(f"no value and no bracket at character {end}")
        comma_due = nested
        if nested and run.startswith(","):
            run, comma_due = run[1:].strip(), False
            if not run and stop == "]":
                raise DecodeError(f"a comma without a value at character {end}")
        if comma_due and (run or stop == "["):
            raise DecodeError(f"no comma after an array, at character {at}")
        if stop == "[" and run:
            if not run.endswith(","):
                raise DecodeError(f"no comma before an array, at character {end}")
            run = run[:-1]
        if run:
            items += _values(run, at)
        if stop == "]":
            return items, end + 1
        inner, at = _array(text, end, depth + 1)
        items.append(inner)
        nested = True


def _values(run: str, at: int) -> list[Token]:
    """Flat values between commas."""
    text = _STRINGS.sub(_merged, run) if "+" in run and '"' in run else run
    values = _plain(f"[{text}]".encode("utf-8", "surrogatepass"))
    return _exact_values(run, at) if values is None else values


def _merged(found: re.Match[str]) -> str:
    """A string, or the pieces of one as one."""
    if found[0][0] == "'":
        return found[0]
    pieces = _PIECE.findall(found[0])
    return found[0] if len(pieces) == 1 else f'"{"".join(piece[1:-1] for piece in pieces)}"'


def _exact_values(run: str, start: int) -> list[Token]:
    values: list[Token] = []
    at, more = 0, True
    while more:
        found = _VALUE.match(run, at)
        if not found:
            raise DecodeError(f"no value near character {start + at}")
        if found["text"] is not None:
            values.append("".join(_unescape(piece) for piece in _PIECE.findall(found["text"])))
        elif found["whole"] is not None:
            values.append(_whole(found["whole"], start + at))
        else:
            values.append(float(found["number"].replace("Infinity", "inf")))
        at, more = found.end(), found[4] is not None
    return [joined(v) if isinstance(v, str) else v for v in values]


def _whole(digits: str, at: int) -> int:
    if len(digits) > 40:
        raise DecodeError(f"a number of {len(digits)} digits at character {at}")
    return int(digits)


def _unescape(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted[1:-1]
    return _ESCAPE.sub(_character, quoted[1:-1])


def _character(found: re.Match[str]) -> str:
    code = found[1] or found[2]
    return chr(int(code, 16)) if code else _NAMED.get(found[3], found[3])


def joined(text: str) -> str:
    """Halves of a surrogate pair as the one character they are; a lone half stays."""
    if not SURROGATE.search(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
