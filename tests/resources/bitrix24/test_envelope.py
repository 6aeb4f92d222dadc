"""Answers are read exactly, in all the shapes PHP gives them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from resources.bitrix24.calls import FALSE_MARK, ListCall
from resources.bitrix24.envelope import (
    BadAnswer,
    BadShape,
    decode,
    mark_false,
    read_answer,
    read_batch,
    read_error,
    read_page,
)

texts = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=8),
    st.sampled_from(
        [":false", '":false', '\\":false', "\\", 'a":false', ",", "{", '": false', "false", "[", " "]
    ),
)
trees = st.recursive(
    st.one_of(st.booleans(), st.none(), st.integers(), texts),
    lambda below: st.one_of(st.lists(below, max_size=3), st.dictionaries(texts, below, max_size=4)),
    max_leaves=15,
)


def marked(value: Any) -> Any:
    """What `mark_false` must do, said in Python objects."""
    if isinstance(value, dict):
        return {key: FALSE_MARK if item is False else marked(item) for key, item in value.items()}
    return [marked(item) for item in value] if isinstance(value, list) else value


@settings(max_examples=300)
@given(
    st.lists(st.dictionaries(texts, trees, max_size=5), max_size=4),
    st.sampled_from([(",", ":"), (", ", ": "), (",", " : "), (",", ":\t"), (",", ":  ")]),
    st.booleans(),
)
def test_every_structural_false_and_nothing_else_is_marked(rows, separators, ascii_only):
    text = "\n".join(json.dumps(row, separators=separators, ensure_ascii=ascii_only) for row in rows)
    lines = [json.loads(line) for line in mark_false(text.encode()).decode().split("\n")] if text else []
    assert lines == [marked(row) for row in rows]


def batch(result: str, error: str = "[]", rest: str = "") -> bytes:
    return f'{{"result":{{"result":{result},"result_error":{error}{rest}}},"time":{{}}}}'.encode()


def test_empty_maps_may_be_lists_and_blocks_may_be_absent():
    answer = read_batch(batch("[]", rest=',"result_time":[],"result_next":[],"result_total":[]'))
    assert (answer.results, answer.errors, answer.times) == ({}, {}, {})
    assert read_batch(b'{"result":{"result":{"c000":null}}}').results["c000"] is not None


def test_times_of_any_type_do_not_break_an_answer():
    times = ',"result_time":{"c000":{"operating":"1.5","duration":null}},"result_next":{"c000":"50"}'
    answer = read_batch(batch('{"c000":[]}', rest=times))
    assert answer.times["c000"].operating == "1.5"
    assert read_batch(batch('{"c000":[]}', rest=',"result_time":{"c000":7}')).times["c000"].operating is None


def test_errors_are_normalised():
    answer = read_batch(batch("[]", '{"c000":{"error":"expired_token"},"c001":"oops","c002":{"error":100}}'))
    assert answer.errors == {"c000": ("EXPIRED_TOKEN", ""), "c001": ("", "oops"), "c002": ("100", "")}
    assert read_error(b'{"error":"","error_description":"Access denied."}') == ("", "Access denied.")
    assert read_error(b'{"result":[]}') is None


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"result":{"result":{"c000":[{"ID":"1"', b"[]", b"null"])
def test_what_is_not_an_envelope_is_refused(body):
    with pytest.raises(BadAnswer):
        read_batch(body)


DEALS = ListCall("crm.deal.list", modified="DATE_MODIFY")
ITEMS = ListCall("crm.item.list", items="items", id_key="id", cursor="id")


@pytest.mark.parametrize(
    ("call", "raw", "ids"),
    [
        (DEALS, b'[{"ID":"7","DATE_MODIFY":null},{"ID":8}]', [7, 8]),
        (DEALS, b"[]", []),
        (DEALS, b"{}", []),
        (DEALS, b'{"2":{"ID":"9"},"0":{"ID":"3"},"10":{"ID":"11"}}', [3, 9, 11]),
        (ITEMS, b'{"items":[{"id":5}]}', [5]),
        (ITEMS, b'{"items":{"1":{"id":5}}}', [5]),
        (ITEMS, b"[]", []),
        (ITEMS, b"{}", []),
        (ITEMS, b'{"items":[]}', []),
    ],
)
def test_pages_come_in_many_shapes(call, raw, ids):
    assert read_page(call, Raw(raw)).ids == ids


@pytest.mark.parametrize(
    ("call", "raw"),
    [(DEALS, b'{"ID":"7"}'), (ITEMS, b'{"types":[]}'), (ITEMS, b'[{"id":5}]'), (ITEMS, b'{"items":[[],[]]}')],
)
def test_other_shapes_are_errors_not_empty_pages(call, raw):
    with pytest.raises(BadShape):
        read_page(call, Raw(raw))


def test_rows_are_passed_on_as_they_came():
    rows = [b'{"ID": "1", "A": [1, {"x": "},{"}] }', b'{"B":1.10,"ID":2}']
    page = read_page(DEALS, Raw(b"[" + b" , ".join(rows) + b"]"))
    assert [bytes(row) for row in page.rows] == rows


def test_lone_surrogates_and_control_characters_do_not_stop_a_page():
    text = (
        rb'{"result":{"result":{"c000":[{"ID":"1","T":"a\ud83d b\\ud83d \ud83d\ude00 \ude00' + b'\x01"}]}}}'
    )
    row = decode(read_page(DEALS, read_batch(text).results["c000"]).rows[0])
    assert row["T"] == "a\ufffd b\\ud83d \U0001f600 \ufffd "
    assert decode(read_answer(rb'{"result":"\ud800"}').result) == "\ufffd"
