"""The codec: writer and reader are inverse, every dialect is read, and no text does more than raise."""

from __future__ import annotations

import contextlib
import random
import zlib
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resources.mts_vats.gwt_lexer import decode_long, encode_long, lex
from resources.mts_vats.gwt_rpc import (
    ARRAY_LIST,
    BOOLEAN,
    DOUBLE,
    ENUM,
    HASH_MAP,
    INTEGER,
    LONG,
    STRING,
    DecodeError,
    JavaObject,
    NotRpc,
    Reader,
    UnknownClass,
)
from resources.mts_vats.gwt_writer import Dialect, encode_request, encode_response, split_request
from resources.mts_vats.parse import parse_list

COLOUR, POINT, PAIR = "ru.example.Color/123456789", "ru.example.Point/1", "ru.example.Pair/2"
LAYOUTS: dict[str, Any] = {
    COLOUR: ENUM,
    POINT: ("int", "bool", "str", "long", "double"),
    PAIR: ("obj", "str", "str", "token", "obj", "token"),
}
LONGS = st.integers(-(1 << 63), (1 << 63) - 1)
TEXT = st.text(st.characters(exclude_categories=[])) | st.sampled_from(
    ["", "О'Нил №5", 'a"b\\c', "\\x41", "😀", "\ud83d", "//OK[", "],[", '"+"', "a\0b", "a\\\\x41'"]
)
NUMBERS = st.floats(allow_nan=False, width=32)


def boxed() -> st.SearchStrategy[JavaObject | None]:
    pairs = [(STRING, TEXT), (LONG, LONGS), (INTEGER, st.integers(-(1 << 31), (1 << 31) - 1))]
    pairs += [(BOOLEAN, st.booleans()), (DOUBLE, NUMBERS), (COLOUR, st.integers(0, 40))]
    point = st.tuples(st.integers(-9, 9), st.booleans(), st.none() | TEXT, LONGS, NUMBERS).map(list)
    pairs += [
        (POINT, point),
        ("java.util.Date/3385151746", LONGS),
        ("[I/1586289025", st.lists(st.integers())),
    ]
    pairs += [("[Ljava.lang.String;/2600011424", st.lists(TEXT))]
    return st.none() | st.one_of(*(st.builds(JavaObject, st.just(s), v) for s, v in pairs))


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pair = st.tuples(inner, st.none() | TEXT, st.none() | TEXT, st.integers(0, 9), inner, st.integers(0, 9))
    kinds = [(ARRAY_LIST, st.lists(inner)), (HASH_MAP, st.lists(st.tuples(inner, inner)))]
    kinds += [
        (
            "java.util.TreeMap/1493889780",
            st.builds(lambda c, p: [c, *p], inner, st.lists(st.tuples(inner, inner))),
        )
    ]
    kinds += [(PAIR, pair.map(list))]
    return st.one_of(*(st.builds(JavaObject, st.just(s), v) for s, v in kinds))


@st.composite
def graphs(draw: st.DrawFn) -> JavaObject | None:
    """Object graphs in which some objects stand in several places."""
    shared = draw(st.lists(boxed(), min_size=1, max_size=3))
    return draw(st.recursive(boxed() | st.sampled_from(shared), nested, max_leaves=20))


DIALECTS = st.builds(
    Dialect,
    quote=st.sampled_from(["'", '"']),
    short_escapes=st.booleans(),
    array_part=st.integers(1, 40),
    string_part=st.integers(1, 40),
)


def shape(value: Any) -> Any:
    """A graph with the number of each object at its first appearance: equal for equal sharing."""
    numbers: dict[int, int] = {}

    def walk(item: Any) -> Any:
        if isinstance(item, JavaObject):
            if id(item) in numbers:
                return ("seen", numbers[id(item)])
            numbers[id(item)] = len(numbers)
            return (item.signature, walk(item.value))
        return [walk(i) for i in item] if isinstance(item, list | tuple) else item

    return walk(value)


def whole(value: Any) -> Any:
    """Halves of a surrogate pair that met are one character."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    return type(value)(whole(v) for v in value) if isinstance(value, list | tuple) else value


@settings(max_examples=60)
@given(graphs(), DIALECTS, st.sampled_from([5, 6, 7]))
def test_what_was_written_is_read_again(graph: JavaObject | None, dialect: Dialect, version: int):
    text = encode_response(graph, LAYOUTS, dialect=dialect, version=version)
    for body in (text, text.encode("utf-8", "surrogatepass")):
        response = lex(body)
        assert (response.ok, response.flags, response.version) == (True, 0, version)
        assert whole(shape(Reader(response, LAYOUTS).read())) == whole(shape(graph))


@given(TEXT, st.lists(LONGS, max_size=3))
def test_a_request_can_be_split_into_what_it_was_made_of(text: str, longs: list[int]):
    ids = JavaObject(ARRAY_LIST, [JavaObject(LONG, n) for n in longs])
    body = encode_request(
        "http://h/m/", "P|\\", "a.Service", "call", [(STRING, text), (ARRAY_LIST, ids)], LAYOUTS
    )
    strings, tokens = split_request(body)
    assert strings[:4] == ["http://h/m/", "P|\\", "a.Service", "call"]
    assert whole(text) in strings
    assert tokens[:7] == ["1", "2", "3", "4", "2", "5", "6"]
    tail = tokens[len(tokens) - 2 * len(longs) :]
    assert [decode_long(t) for t in tail[1::2]] == longs


@given(LONGS)
@example(0)
@example(-1)
def test_a_long_is_read_as_it_was_written(number: int):
    assert decode_long(encode_long(number)) == number


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *(
            (0, "A"),
            (1, "B"),
            (10, "K"),
            (25, "Z"),
            (26, "a"),
            (63, "_"),
            (64, "BA"),
            (70, "BG"),
            (100, "Bk"),
        ),
        *((2588689985, "CaTEZB"), (2590311068, "CaZQKc"), (2613189773, "CbwhyN"), (421608456, "ZITwI")),
        *((-1, "P__________"), (1234567890123, "R9x$wTL")),
    ],
)
def test_longs_of_the_format(number: int, text: str):
    assert encode_long(number) == text
    assert decode_long(text) == number


@pytest.mark.parametrize("text", ["", "Ca-", "C+A/", "Ca=", "A" * 12, "Q__________", "Ы"])
def test_another_text_is_no_long(text: str):
    with pytest.raises(DecodeError):
        decode_long(text)


def test_the_collections_of_the_format_with_their_shared_objects():
    body = (
        "//OK[2,10,7,9,8,2,1,7,'R9x$wTL',6,-4,1,5,0,-2,4,2,3,2,9,1,"
        '["java.util.ArrayList/4159755760","java.lang.String/2004016611","a","b","java.lang.Boolean/476441737",'
        '"java.util.Date/3385151746","java.util.HashMap/1797211028","k","java.lang.Integer/3438268394",'
        '"ru.example.Color/123456789"],0,7]'
    )
    items = Reader(lex(body), LAYOUTS).read().value
    assert [i and i.value for i in items[:7]] == ["a", "b", "a", None, True, True, 1234567890123]
    assert items[0] is items[2]
    assert items[4] is items[5]
    assert [(k.value, v.value) for k, v in items[7].value] == [("k", 7)]
    assert (items[8].signature, items[8].value) == (COLOUR, 2)
    assert encode_response(JavaObject(ARRAY_LIST, items), LAYOUTS) == body


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("[1,-2,3.5,1.0E10,NaN,-Infinity]", [1, -2, 3.5, 1e10, "nan", "-inf"]),
        (r"""['a\'b',"c'd","\x41\u0042\0\q"]""", ["a'b", "c'd", "AB\0q"]),
        (r"""["\\x41","\uD83D\uDE00"+"\x21" + 'z']""", ["\\x41", "😀!z"]),
        ("[1].concat([2,3],[4]).concat([5])", [1, 2, 3, 4, 5]),
        (" [ 1 ,\n 2 ] .concat( [ 3 ] ) ", [1, 2, 3]),
    ],
)
def test_every_spelling_of_a_value_is_read(text: str, values: list[Any]):
    at = text.rstrip().rfind("]")
    body = f'//OK{text[:at]},["t"],0,7{text[at:]}'
    found = [
        str(t) if (isinstance(t, float) and abs(t) in (float("inf"),)) or t != t else t
        for t in lex(body).tokens
    ]
    assert found == values


def test_a_split_table_is_one_table():
    assert lex('//OK[1,["a"].concat(["b","c"],["d"]),0,7]').table == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    "body",
    [
        "//OK",
        "//OK[",
        "//OK[1,2",
        '//OK[1,["a"],0]',
        '//OK[1,["a"],0,7]x',
        '//OK[1,,["a"],0,7]',
        '//OK[1 2,["a"],0,7]',
        '//OK[1,["a"],0,7,]',
        '//OK[1["a"],0,7]',
        '//OK[1,["a"]0,7]',
        "//OK[1,[1],0,7]",
        '//OK[[1],["a"],0,7]',
        '//OK[true,["a"],0,7]',
        '//OK[{"a":1},["a"],0,7]',
        '//OK[1,["a"],0,"7"]',
        '//OK[1,["a].concat([2]),0,7]',
        '//OK[1].concat([2,["a"],0,7]',
        "//OK" + "[" * 100_000,
        "//OK[" + "9" * 100_000 + ',["a"],0,7]',
        b'//OK[1,["\xff"],0,7]',
    ],
)
def test_a_malformed_response_is_an_error_of_its_own(body: str | bytes):
    with pytest.raises(DecodeError):
        lex(body)


@pytest.mark.parametrize("body", ["", "<html>", "OK[1]", b"\x1f\x8b\x08"])
def test_what_is_no_answer_at_all_is_told_apart(body: str | bytes):
    with pytest.raises(NotRpc):
        lex(body)


@pytest.mark.parametrize(
    ("tokens", "table"),
    [
        ("1", [LONG]),  # ends in the middle
        ("0,0", []),  # left over
        ("-1", []),  # refers to nothing
        ("5", [LONG]),  # beyond the table
        ("'B',1.5", [LONG]),
        ("9,1", [STRING]),
        ("-1,1", [STRING]),
        ("2,1", [BOOLEAN]),
        ("1000000000,1", [ARRAY_LIST]),  # a size that cannot be there
        ("-5,1", [ARRAY_LIST]),
        ("'!',1", [LONG]),
    ],
)
def test_tokens_that_do_not_fit_the_classes_are_an_error(tokens: str, table: list[str]):
    quoted = ",".join(f'"{t}"' for t in table)
    with pytest.raises(DecodeError):
        Reader(lex(f"//OK[{tokens},[{quoted}],0,7]"), LAYOUTS).read()


def test_objects_may_not_be_inside_of_each_other_without_end():
    deep = ",".join(["0", "1,1"] + ["1,1"] * 5000)
    with pytest.raises(DecodeError, match="inside of each other"):
        Reader(lex(f'//OK[{deep},["{ARRAY_LIST}"],0,7]'), {}).read()


def test_flags_that_change_the_meaning_of_tokens_are_refused():
    with pytest.raises(DecodeError, match="flags 1"):
        Reader(lex("//OK[0,[],1,7]"), {})


@pytest.mark.parametrize("secret", ["Hush!hush 7", "Hush77/42", "hush.Hush/42"])
def test_an_unknown_class_is_named_but_never_a_string_that_is_none(secret: str):
    with pytest.raises(UnknownClass, match=r"ru\.example\.New/7"):
        Reader(lex('//OK[1,["ru.example.New/7"],0,7]'), {}).read()
    with pytest.raises(UnknownClass) as error:
        Reader(lex(f'//OK[1,["{secret}"],0,7]'), {}).read()
    assert "Hush" not in str(error.value)


SEED = (
    "//OK[-4,0,7,6,'CaV5y0',4,2.5,'CaJxux',4,1,2,1,[\"ru.example.Pair/2\",\"java.util.ArrayList/4159755760\","
    '"mobsip_9990000001","java.lang.Long/4227064769","a\\x26b"+"c","ru.example.Point/1","О\'"],0,7].concat([1])'
)


@settings(max_examples=400)
@given(st.integers(0, 1 << 32), st.integers(1, 12))
def test_a_damaged_response_does_nothing_worse_than_raise(seed: int, times: int):
    """Pieces cut, doubled, swapped and replaced."""
    chance, text = random.Random(seed), SEED
    for _ in range(times):
        at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        piece = chance.choice(
            ["", text[at:to] * 2, "[", "]", ",", "'", '"', "\\", "-1", "999999999", ".concat(", "1e999"]
        )
        text = text[:at] + piece + text[to if chance.random() < 0.3 else at :]
    with contextlib.suppress(DecodeError):
        Reader(lex(text[:20_000]), LAYOUTS).read()


@given(
    st.binary(max_size=200)
    | st.text(alphabet="//OK[],'\"\\+.concat()0123456789-eEaNIx ", max_size=80).map(str.encode)
)
def test_any_bytes_do_nothing_worse_than_raise(noise: bytes):
    for body in (noise, b"//OK[" + noise, b'//OK[1,["a' + noise + b'"],0,7]'):
        with contextlib.suppress(DecodeError):
            lex(body)


LONG_NAME = "a" * 400_000


@pytest.mark.parametrize(
    "body",
    [
        """//OK[1,"a"+"b",'""" + '\\"' * 400_000 + """',["a"],0,7]""",
        "//OK[" + "0,1," * 200_000 + f'["{LONG_NAME}"],0,7]',
        "//OK[" + "9" * 1_000_000 + ',["a"],0,7]',
        "//OK" + "[" * 1_000_000,
    ],
    ids=["escaped quotes", "a class of 400 kB", "a number of a million digits", "arrays"],
)
def test_megabytes_made_to_be_slow_are_refused_like_others(body: str):
    """A quadratic search would take hours."""
    with pytest.raises(DecodeError):
        parse_list(lex(body))


def test_a_signature_is_the_checksum_of_a_name():
    """How GWT makes them; LONG and the others are typed in by hand."""
    for signature in (LONG, BOOLEAN, INTEGER, STRING):
        name, _, crc = signature.partition("/")
        assert zlib.crc32(name.encode()) == int(crc)
