"""GWT-RPC as the emulated server speaks it: requests in, responses out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789$_"
LONG = "java.lang.Long/4227064769"
BOOLEAN = "java.lang.Boolean/476441737"
INTEGER = "java.lang.Integer/3438268394"
ARRAY_LIST = "java.util.ArrayList/4159755760"


class Incompatible(Exception):
    """The server does not understand the request: stock GWT says IncompatibleRemoteServiceException."""


def long_text(number: int) -> str:
    digits = ""
    while True:
        digits = ALPHABET[number & 63] + digits
        number >>= 6
        if not number:
            return digits


def long_value(text: str) -> int:
    number = 0
    for letter in text:
        number = number * 64 + ALPHABET.index(letter)
    return number


@dataclass(eq=False)
class Obj:
    """An object: its signature and its fields as (kind, value); kinds are obj, str, int and long."""

    signature: str
    fields: list[tuple[str, Any]]


def boxed(number: int | None) -> Obj | None:
    return None if number is None else Obj(LONG, [("long", number)])


def array_list(items: list[Obj]) -> Obj:
    return Obj(ARRAY_LIST, [("int", len(items)), *(("obj", item) for item in items)])


@dataclass(frozen=True)
class Dialect:
    """Old servers quote longs with ' and write \\xNN; arrays and strings longer than the limits are split."""

    modern: bool = False
    array_part: int = 1 << 15
    string_part: int = 1 << 16


class _Writer:
    def __init__(self, dialect: Dialect) -> None:
        self.dialect, self.tokens = dialect, list[str]()
        self.table: dict[str, int] = {}
        self._seen: dict[int, int] = {}

    def value(self, kind: str, value: Any) -> None:
        quote = '"' if self.dialect.modern else "'"
        if kind == "obj":
            self._object(value)
        elif kind == "str":
            self.tokens.append(str(self._index(value)))
        else:
            self.tokens.append(f"{quote}{long_text(value)}{quote}" if kind == "long" else str(int(value)))

    def _index(self, text: str | None) -> int:
        return 0 if text is None else self.table.setdefault(text, len(self.table) + 1)

    def _object(self, item: Obj | None) -> None:
        if item is None:
            self.tokens.append("0")
        elif id(item) in self._seen:
            self.tokens.append(str(-self._seen[id(item)]))
        else:
            self._seen[id(item)] = len(self._seen) + 1
            self.tokens.append(str(self._index(item.signature)))
            for kind, value in item.fields:
                self.value(kind, value)


def answer(root: Obj, dialect: Dialect, *, ok: bool = True) -> str:
    """`//OK` or `//EX` with the object."""
    writer = _Writer(dialect)
    writer.value("obj", root)
    table = _array([_string(text, dialect) for text in writer.table], dialect)
    return ("//OK" if ok else "//EX") + _array([*reversed(writer.tokens), table, "0", "7"], dialect)


def thrown(class_: str, message: str | None, dialect: Dialect) -> str:
    return answer(
        Obj(class_, [("str", message), ("int", 0)][: 1 if "google" in class_ else 2]), dialect, ok=False
    )


def _array(values: list[str], dialect: Dialect) -> str:
    size = dialect.array_part
    parts = [f"[{','.join(values[i : i + size])}]" for i in range(0, len(values), size)] or ["[]"]
    return parts[0] + (f".concat({','.join(parts[1:])})" if len(parts) > 1 else "")


_SPECIAL = re.compile(r"""[\x00-\x1f"\\'&<=>\xa0\u2011\U00010000-\U0010ffff]""")
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _string(text: str, dialect: Dialect) -> str:
    def spelled(found: re.Match[str]) -> str:
        character = found[0]
        if character in _SHORT:
            return _SHORT[character]
        if ord(character) < 256 and not dialect.modern:
            return f"\\x{ord(character):02X}"
        units = character.encode("utf-16-be")
        return "".join(f"\\u{units[i : i + 2].hex().upper()}" for i in range(0, len(units), 2))

    size = dialect.string_part
    parts = [text[i : i + size] for i in range(0, len(text), size)] or [""]
    return "+".join(f'"{_SPECIAL.sub(spelled, part)}"' for part in parts)


@dataclass(frozen=True)
class Call:
    """A request: what it is for, and its parameters as plain values (objects are [signature, fields])."""

    policy: str
    interface: str
    method: str
    declared: tuple[str, ...]
    parameters: list[Any]


def read_call(body: str, layouts: Mapping[str, int]) -> Call:
    """`layouts` maps a class, with its checksum, to the number of its object fields or a kind's name.

    Raises Incompatible for everything that stock GWT rejects.
    """
    parts = body.split("|")
    try:
        count = int(parts[2])
        if parts[:2] != ["7", "0"] or parts[-1] or len(parts) < 8 + count:
            raise Incompatible("Malformed or old RPC message received")
        strings = [p.replace("\\!", "|").replace("\\\\", "\\") for p in parts[3 : 3 + count]]
        reader = _Reader(strings, parts[3 + count : -1], layouts)
        _, policy, interface, method = (reader.string() for _ in range(4))
        declared = [reader.string() for _ in range(reader.whole())]
        for signature in declared:
            if signature not in layouts and signature != "Z":
                raise Incompatible(f"Invalid type signature for {str(signature).partition('/')[0]}")
        values = [reader.value() for _ in declared]
        if reader.left():
            raise Incompatible("The request has more values than the method has parameters")
    except (IndexError, ValueError) as error:
        raise Incompatible(f"Malformed RPC message ({type(error).__name__})") from None
    return Call(str(policy), str(interface), str(method), tuple(map(str, declared)), values)


class _Reader:
    def __init__(self, strings: list[str], tokens: list[str], layouts: Mapping[str, Any]) -> None:
        self._strings, self._tokens, self._layouts = strings, tokens[::-1], layouts
        self._seen: list[Any] = []

    def left(self) -> int:
        return len(self._tokens)

    def whole(self) -> int:
        return int(self._tokens.pop())

    def string(self) -> str | None:
        index = self.whole()
        return self._strings[index - 1] if index else None

    def value(self) -> Any:
        index = self.whole()
        if index == 0:
            return None
        if index < 0:
            found = self._seen[-index - 1]
            if isinstance(found, list) and found[0] == "unfinished":
                raise Incompatible("A reference to an object that is being read")
            return found
        signature = self._strings[index - 1]
        layout = self._layouts.get(signature)
        if layout is None:
            raise Incompatible(f"Invalid type signature for {signature.partition('/')[0]}")
        place = len(self._seen)
        self._seen.append(["unfinished"])
        self._seen[place] = value = self._contents(signature, layout)
        return value

    def _contents(self, signature: str, layout: Any) -> Any:
        if layout == "long":
            return long_value(self._tokens.pop())
        if layout == "bool":
            return bool(self.whole())
        if layout == "int":
            return self.whole()
        if layout == "list":
            return [self.value() for _ in range(self.whole())]
        readers = {"o": self.value, "s": self.string, "b": lambda: bool(self.whole())}
        return [signature, [readers[kind]() for kind in layout]]
