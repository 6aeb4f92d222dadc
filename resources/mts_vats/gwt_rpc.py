"""GWT-RPC, stream versions 5 to 7 (and what 8 shares with them): lexer, typed reader, writer. No network.

A response is `//OK` or `//EX` and one JavaScript array: tokens in reverse, the string table, flags, version.

    //OK['B',2,1,1,["java.util.ArrayList/4159755760","java.lang.Long/4227064769"],0,7]

Read from the end of the tokens: an object of type 1, ArrayList, of size 1; its element of type 2, Long; `B`,
which is 1. The stream has no field names, no field counts and no types of primitives, so it can be read only
with the layouts of its classes. Sources: GWT's own
`ServerSerializationStreamWriter`, `ClientSerializationStreamReader`, `Base64Utils`, tags 2.5 to 2.12.

Errors are DecodeError; their text tells position and kind, never a value: that may be a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any, Literal

from resources.mts_vats.gwt_lexer import DecodeError, NotRpc, Response, Token, decode_long, encode_long, lex

Kind = Literal["obj", "str", "bool", "int", "long", "double", "enum", "token"]
Layout = tuple[Kind, ...]  # of a class: its own fields by name, then those of the superclass
ENUM: Layout = ("enum",)  # an enum's contents are its ordinal
VERSIONS = range(5, 9)
DEEPEST = 100  # objects inside of objects

STRING = "java.lang.String/2004016611"
LONG = "java.lang.Long/4227064769"
INTEGER = "java.lang.Integer/3438268394"
BOOLEAN = "java.lang.Boolean/476441737"
DOUBLE = "java.lang.Double/858496421"
ARRAY_LIST = "java.util.ArrayList/4159755760"
HASH_MAP = "java.util.HashMap/1797211028"
SIGNATURE = re.compile(r"(?=.{3,512}$)\[*[\w.$]+;?/\d+")  # one so long is no class, and costs time to look at
_IN_A_PACKAGE = re.compile(r"\[*L?[a-z]\w*(?:\.[\w$]+){2,};?/\d+")


def may_be_shown(text: str) -> bool:
    """Whether a string of the table is surely a class: a password may look like one without a package."""
    return bool(SIGNATURE.fullmatch(text) and _IN_A_PACKAGE.fullmatch(text))


class UnknownClass(DecodeError):
    """An object of a class without a layout: the rest of the stream cannot be read."""

    def __init__(self, signature: str, position: int) -> None:
        name = signature if may_be_shown(signature) else "a string that is no class"
        super().__init__(f"token {position} begins an object of {name}, whose layout is not known")
        self.signature = name


@dataclass(slots=True)
class JavaObject:
    """An object of the stream: its `Class/CRC` and its contents.

    Boxes and String: the value; enum: the ordinal; collections: a list of objects; maps: a list of pairs;
    a class with a layout: a list of its fields. Objects seen twice are one object here too.
    """

    signature: str
    value: Any = None

    @property
    def name(self) -> str:
        """The class without its CRC."""
        return self.signature.partition("/")[0]


_BOXES: dict[str, Kind] = {
    "java.lang.Long": "long",
    "java.lang.Integer": "int",
    "java.lang.Short": "int",
    "java.lang.Byte": "int",
    "java.lang.Character": "int",
    "java.lang.Boolean": "bool",
    "java.lang.Double": "double",
    "java.lang.Float": "double",
    "java.lang.String": "str",
    "java.math.BigDecimal": "str",
    "java.math.BigInteger": "str",
    "java.util.Date": "long",
    "java.sql.Date": "long",
    "java.sql.Time": "long",
}
_LISTS = frozenset(
    f"java.util.{n}" for n in ("ArrayList", "LinkedList", "HashSet", "LinkedHashSet", "Vector")
)
_MAPS: dict[str, Layout] = {  # what stands before the size
    "java.util.HashMap": (),
    "java.util.IdentityHashMap": (),
    "java.util.TreeMap": ("obj",),
    "java.util.LinkedHashMap": ("bool",),
}
_JRE_FIELDS: dict[str, Layout] = {"java.lang.Object": (), "java.sql.Timestamp": ("long", "int")}
COMPONENTS: dict[str, Kind] = {
    **dict.fromkeys("BCIS", "int"),
    **dict.fromkeys("DF", "double"),
    "J": "long",
    "Z": "bool",
}


def shape_of(signature: str, layouts: Mapping[str, Layout]) -> tuple[str, Layout] | None:
    """How the contents of a class are written: one value, its fields, many of a kind, or a map (with what
    stands before its size); None for a class that nobody described."""
    layout = layouts.get(signature) or layouts.get(signature.partition("/")[0])
    if layout is not None:
        return ("value" if layout == ENUM else "fields"), layout
    return _jre_shape(signature)


@lru_cache(maxsize=512)
def _jre_shape(signature: str) -> tuple[str, Layout] | None:
    name = signature.partition("/")[0]
    if name in _BOXES:
        return "value", (_BOXES[name],)
    if name in _LISTS:
        return "many", ("obj",)
    if name in _MAPS:
        return "map", _MAPS[name]
    if name in _JRE_FIELDS:
        return "fields", _JRE_FIELDS[name]
    if name.startswith("["):
        return "many", ("str" if name == "[Ljava.lang.String;" else COMPONENTS.get(name[1:], "obj"),)
    return None


_FLAT = frozenset(("str", "token"))  # kinds of one token each that are read many at a time
_WHOLE = {int}
Contents = Callable[["Reader"], Any]


class Reader:
    """Reads the objects of one response by the layouts of their classes (`Class/CRC`, or the class alone).

    `read` gives the root, and every token must be used up. Raises DecodeError, UnknownClass.
    """

    def __init__(self, response: Response, layouts: Mapping[str, Layout]) -> None:
        if response.flags != 0 or response.version not in VERSIONS:
            said = f"flags {response.flags}, version {response.version}"
            raise DecodeError(f"{said}: only flags 0, versions 5 to 8 can be read")
        self._table: list[str | None] = [None, *response.table]
        self._layouts = layouts
        self._tokens: list[Any] = response.tokens[::-1]
        self._at = 0
        self._seen: list[JavaObject] = []
        self._contents: dict[int, Contents] = {}
        self._depth = 0
        self._long_is_two_doubles = response.version == 5

    def read(self, kind: Kind = "obj") -> Any:
        """The root value."""
        try:
            value = _READ[kind](self)
        except IndexError:
            raise DecodeError("the tokens end in the middle of an object") from None
        if self._at < len(self._tokens):
            raise DecodeError(f"{len(self._tokens) - self._at} tokens are left over")
        return value

    def _wrong(self, what: str) -> DecodeError:
        return DecodeError(f"token {self._at} is {what}")

    def _object(self) -> JavaObject | None:
        token = self._tokens[self._at]
        self._at += 1
        if token == 0:
            return None
        if token.__class__ is not int:
            raise self._wrong("no object")
        if token < 0:
            if -token > len(self._seen):
                raise self._wrong("a reference to an object that is not there")
            return self._seen[-token - 1]
        contents = self._contents.get(token) or self._resolve(token)
        made = JavaObject(self._table[token])  # type: ignore[arg-type]
        self._seen.append(made)  # it takes its number before its contents
        self._depth += 1
        if self._depth > DEEPEST:
            raise DecodeError(f"more than {DEEPEST} objects inside of each other")
        made.value = contents(self)
        self._depth -= 1
        return made

    def _resolve(self, token: int) -> Contents:
        if token >= len(self._table):
            raise self._wrong("beyond the string table")
        signature = self._table[token] or ""
        shape = shape_of(signature, self._layouts)
        if shape is None:
            raise UnknownClass(signature, self._at)
        self._contents[token] = contents = _compiled(*shape)
        return contents

    def _run(self, count: int, strings: list[int]) -> list[Any]:
        """`count` fields of one token each; those at `strings` are indexes of the table."""
        at = self._at
        self._at = end = at + count
        values = self._tokens[at:end]
        if len(values) < count:
            raise IndexError
        if set(map(type, values)) != _WHOLE or min(values) < 0:
            raise self._wrong("the end of fields of which one is no index or number")
        for i in strings:
            values[i] = self._string_at(values[i])
        return values

    def _string_at(self, index: int) -> str | None:
        try:
            return self._table[index]
        except IndexError:
            raise self._wrong("no index of the string table") from None

    def _pairs(self) -> list[Any]:
        return [(self._object(), self._object()) for _ in range(self._size())]

    def _many(self, read: Contents) -> list[Any]:
        return [read(self) for _ in range(self._size())]

    def _size(self) -> int:
        size = self._int()
        if not 0 <= size <= len(self._tokens) - self._at:  # every element has a token
            raise self._wrong("the size of a collection that cannot be there")
        return size

    def _int(self) -> int:
        token = self._tokens[self._at]
        self._at += 1
        if token.__class__ is not int:
            raise self._wrong("not a whole number")
        return token

    def _string(self) -> str | None:
        index = self._int()
        if index < 0:
            raise self._wrong("no index of the string table")
        return self._string_at(index)

    def _bool(self) -> bool:
        token = self._tokens[self._at]
        self._at += 1
        if token.__class__ is not int or token not in (0, 1):
            raise self._wrong("neither 0 nor 1")
        return token == 1

    def _long(self) -> int:
        if self._long_is_two_doubles:
            return self._two_doubles()
        token = self._tokens[self._at]
        self._at += 1
        if token.__class__ is not str:
            raise self._wrong("no long")
        return decode_long(token)

    def _two_doubles(self) -> int:
        parts = self._double(), self._double()
        try:
            number = sum(int(part) for part in parts)
        except (ValueError, OverflowError):
            raise self._wrong("no half of a long") from None
        if not -(1 << 63) <= number < 1 << 63:
            raise self._wrong("a long of more than 64 bits")
        return number

    def _double(self) -> float:
        token = self._tokens[self._at]
        self._at += 1
        if token in ("NaN", "Infinity", "-Infinity"):  # version 8
            return float(token.replace("Infinity", "inf"))
        if token.__class__ is str:
            raise self._wrong("no number")
        try:
            return float(token)
        except OverflowError:
            raise self._wrong("no number") from None


_READ: dict[Kind, Contents] = {
    "obj": Reader._object,
    "str": Reader._string,
    "bool": Reader._bool,
    "int": Reader._int,
    "long": Reader._long,
    "double": Reader._double,
    "enum": Reader._int,
    "token": Reader._int,
}


@lru_cache(maxsize=512)
def _compiled(form: str, kinds: Layout) -> Contents:
    """The function that reads contents of this shape."""
    if form == "value":
        return _READ[kinds[0]]
    if form == "many":
        read = _READ[kinds[0]]
        return lambda reader: reader._many(read)
    fields = _fields(kinds)
    return (lambda reader: [*fields(reader), *reader._pairs()]) if form == "map" else fields


def _fields(kinds: Layout) -> Contents:
    """Fields one after the other; neighbours of one token each are read together."""
    steps: list[tuple[bool, Contents]] = []
    for flat, group in groupby(kinds, key=_FLAT.__contains__):
        neighbours = tuple(group)
        steps += [(True, _run(neighbours))] if flat else [(False, _READ[kind]) for kind in neighbours]
    if len(steps) == 1 and steps[0][0]:
        return steps[0][1]

    def read(reader: Reader) -> list[Any]:
        values: list[Any] = []
        for many, step in steps:
            if many:
                values += step(reader)
            else:
                values.append(step(reader))
        return values

    return read


def _run(kinds: Layout) -> Contents:
    strings = [i for i, kind in enumerate(kinds) if kind == "str"]
    return lambda reader: reader._run(len(kinds), strings)


__all__ = [
    "DecodeError",
    "JavaObject",
    "NotRpc",
    "Reader",
    "Response",
    "Token",
    "UnknownClass",
    "encode_long",
    "lex",
    "may_be_shown",
]
