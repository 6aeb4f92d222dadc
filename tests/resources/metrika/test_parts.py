"""A part's bytes become whole lines, or it is said that they are not whole: whatever was cut, wherever."""

import gzip
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.metrika.parts import MOST_INFLATED, Block, BrokenPart, Received, blocks, inflate

FIELDS = ("ym:s:visitID", "ym:s:startURL", "ym:s:watchIDs")
HEADER = b"ym:s:visitID\tym:s:startURL\tym:s:watchIDs"
VALUE = st.binary(max_size=12).map(lambda v: v.replace(b"\t", b"\\t").replace(b"\n", b"\\n"))
ROWS = st.lists(st.tuples(VALUE, VALUE, VALUE), max_size=12)


def text_of(rows: list[tuple[bytes, ...]], header: bytes = HEADER) -> bytes:
    return b"".join(line + b"\n" for line in (header, *(b"\t".join(row) for row in rows)))


def cut(body: bytes, seed: int) -> Iterator[bytes]:
    rng, at = random.Random(seed), 0
    while at < len(body):
        step = rng.choice((1, 2, 5, 40, 1000))
        yield body[at : at + step]
        at += step


def read(body: bytes, seed: int = 0) -> tuple[list[Block], Received]:
    received = Received()
    return list(blocks(inflate(cut(body, seed), received), FIELDS, received)), received


@given(ROWS, st.sampled_from(["plain", "gzip", "members"]), st.integers(0, 9))
def test_lines_come_out_as_they_went_in(rows: list[tuple[bytes, ...]], coding: str, seed: int):
    text = text_of(rows)
    half = len(text) // 2
    body = {
        "plain": text,
        "gzip": gzip.compress(text),
        "members": gzip.compress(text[:half]) + gzip.compress(text[half:]),
    }[coding]
    found, received = read(body, seed)
    assert b"".join(b.lines + b"\n" for b in found) == text.removeprefix(HEADER + b"\n")
    assert {b.header for b in found} <= {HEADER}
    assert sum(b.count for b in found) == received.lines == len(rows)
    assert (received.text, received.wire) == (len(text), len(body))


@given(ROWS.filter(bool), st.booleans(), st.data())
def test_what_is_cut_off_inside_a_line_is_noticed(
    rows: list[tuple[bytes, ...]], packed: bool, data: st.DataObject
):
    text = text_of(rows)
    body = gzip.compress(text) if packed else text
    end = data.draw(st.integers(0, len(body) - 1))
    if not packed and body[:end].endswith(b"\n"):
        return  # a whole number of lines: only the announced length tells
    with pytest.raises(BrokenPart):
        read(body[:end])


@given(ROWS.filter(lambda rows: len(rows) > 1), st.integers(0, 10**6))
def test_a_damaged_gzip_stream_is_noticed(rows: list[tuple[bytes, ...]], at: int):
    body = bytearray(gzip.compress(text_of(rows)))
    body[10 + at % (len(body) - 10)] ^= 0x41  # behind the header, whose bytes mean nothing to the text
    with pytest.raises(BrokenPart):
        read(bytes(body))


def test_lines_with_another_number_of_columns_are_counted():
    rows = [(b"1", b"a", b"[]"), (b"2", b"b"), (b"3", b"c", b"[]", b"x")]
    with pytest.raises(BrokenPart, match="2 of its lines do not have 3 columns, the first of them is line 2"):
        list(blocks([text_of(rows)], FIELDS, Received()))


def test_too_many_and_too_few_tabs_do_not_make_up_for_each_other():
    with pytest.raises(BrokenPart):
        read(text_of([(b"2", b"b"), (b"3", b"c", b"[]", b"x")]))


@pytest.mark.parametrize(
    "header",
    [
        b"ym:s:startURL\tym:s:watchIDs\tym:s:visitID",
        b"ym:s:visitId\tYM:S:startURL\tym:s:watchIDs",
        b"ym:s:visitID\tym:s:startURL\tym:s:watchIDs\tym:s:another",
    ],
)
def test_columns_are_known_by_name(header: bytes):
    width = header.count(b"\t") + 1
    found, _ = read(text_of([(b"1",) * width], header))
    names = found[0].header.decode().split("\t")
    assert set(FIELDS) <= set(names)
    assert len(names) == width


def test_the_placeholder_of_the_attribution_is_the_one_that_was_asked_for():
    body = b"ym:s:<attribution>UTMSource\nvk\n"
    found = list(blocks([body], ("ym:s:lastsignUTMSource",), Received()))
    assert found == [Block(b"ym:s:lastsignUTMSource", b"vk", 1)]


@pytest.mark.parametrize("body", [b"", b"ym:s:visitID\tym:s:startURL\n1\ta\n", b"<html>no</html>\n"])
def test_a_part_without_the_columns_is_broken(body: bytes):
    with pytest.raises(BrokenPart, match=r"header|no column"):
        read(body)


def test_a_log_without_rows_is_whole():
    assert read(HEADER + b"\n") == ([], Received(len(HEADER) + 1, len(HEADER) + 1, 0))


def test_memory_is_bounded_however_well_a_part_is_compressed():
    text = HEADER + b"\n" + b"1\ta\t[]\n" * 4_000_000
    body, received = gzip.compress(text, 1), Received()
    largest = max(len(chunk) for chunk in inflate([body], received))
    assert largest <= MOST_INFLATED
    assert received.text == len(text)
