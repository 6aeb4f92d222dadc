"""Batch command strings say exactly what the parameters said."""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.bitrix24.calls import ListCall, Window, fingerprint
from resources.bitrix24.encode import ListQuery, bracket, reference

keys = st.text(st.characters(exclude_characters="[]", exclude_categories=("Cs",)), min_size=1, max_size=8)
scalars = st.one_of(st.integers(), st.text(st.characters(exclude_categories=("Cs",)), max_size=12))
trees = st.recursive(
    scalars, lambda below: st.dictionaries(keys, below, min_size=1, max_size=4), max_leaves=12
)


def decode(query: str) -> dict[str, Any]:
    """A reference reader of PHP bracket syntax, lists being maps of their indexes."""
    result: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        head, *rest = [name.split("[", 1)[0], *re.findall(r"\[([^\]]*)\]", name)]
        at = result
        for key in [head, *rest][:-1]:
            at = at.setdefault(key, {})
        at[[head, *rest][-1]] = value
    return result


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return str(value)


@given(st.dictionaries(keys, trees, max_size=5))
def test_decoding_gives_back_what_was_encoded(params):
    assert decode(bracket(params)) == plain(params)


def test_plus_signs_and_references_survive_decoding():
    call = ListCall("crm.item.list", cursor="id", id_key="id", items="items")
    text = bracket({"filter": {">=updatedTime": "2026-01-02T03:04:05+03:00", ">id": reference("c012", call)}})
    assert "+" not in text
    assert decode(text) == {
        "filter": {">=updatedTime": "2026-01-02T03:04:05+03:00", ">id": "$result[c012][items][49][id]"}
    }


def test_a_condition_that_would_vanish_is_refused():
    assert bracket({"filter": {}, "x": 1}) == "x=1"
    with pytest.raises(ValueError, match="@ID"):
        bracket({"filter": {"@ID": []}})


def test_a_cursor_of_the_caller_is_narrowed_never_overwritten():
    call = ListCall("crm.deal.list", {"filter": {">ID": 100, "<=ID": 500, "STAGE_ID": "NEW"}})
    query = ListQuery(call, Window())

    def filter_of(text: str) -> dict[str, str]:
        return decode(text.split("?", 1)[1])["filter"]

    assert filter_of(query.page()) == {">ID": "100", "<=ID": "500", "STAGE_ID": "NEW"}
    assert filter_of(query.page(7, 900)) == {">ID": "100", "<=ID": "500", "STAGE_ID": "NEW"}
    assert filter_of(query.page(300, 350)) == {">ID": "300", "<=ID": "350", "STAGE_ID": "NEW"}
    assert filter_of(query.last()) == {">ID": "100", "<=ID": "500", "STAGE_ID": "NEW"}


def test_upper_case_calls_stay_upper_case():
    call = ListCall("voximplant.statistic.get", {"FILTER": {"CALL_TYPE": 1}}, sort_style="sort_order")
    sent = decode(ListQuery(call, Window()).page(5).split("?", 1)[1])
    assert sent == {"FILTER": {"CALL_TYPE": "1", ">ID": "5"}, "SORT": "ID", "ORDER": "ASC", "start": "-1"}


def test_the_window_is_written_in_either_style():
    since = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    call, window = ListCall("crm.item.list", modified="updatedTime"), Window(since, None)
    zone = timezone(timedelta(hours=3))
    iso, sql = ListQuery(call, window).page(), ListQuery(call, window, "sql", zone).page()
    assert decode(iso.split("?", 1)[1])["filter"] == {">=updatedTime": "2026-01-02T03:04:05+00:00"}
    assert decode(sql.split("?", 1)[1])["filter"] == {">=updatedTime": "2026-01-02 06:04:05"}


def test_the_fingerprint_tells_selects_and_windows_apart():
    call = ListCall("crm.deal.list", {"select": ["*"]})
    since = datetime(2026, 1, 1, tzinfo=UTC)
    moved = since.astimezone(timezone(timedelta(hours=5)))
    assert fingerprint(call, Window(since)) == fingerprint(
        ListCall("crm.deal.list", {"select": ["*"]}), Window(moved)
    )
    assert fingerprint(call, Window(since)) != fingerprint(
        ListCall("crm.deal.list", {"select": ["ID"]}), Window(since)
    )
    assert fingerprint(call, Window(since)) != fingerprint(call, Window())
