"""Envelopes and values of answers, and what never reaches storage."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl_assets.mts_link.endpoints import ENDPOINTS, PRIVACY
from etl_assets.mts_link.tables import RowMaker
from resources.mts_link import Scrubber
from resources.mts_link.answers import (
    BadAnswer,
    clean,
    error_of,
    moment_of,
    plain_date,
    read_json,
    text_id,
    unwrap,
)

ZONE = ZoneInfo("Europe/Moscow")
RECORDS = st.lists(st.dictionaries(st.sampled_from(["id", "name"]), st.integers()), max_size=4)


@given(RECORDS)
def test_every_envelope_holds_the_same_records(records: list[dict[str, Any]]):
    forms = (records, {"data": records}, {"data": {"items": records}}, {"items": records})
    assert all(unwrap(form).items == records for form in forms)


def test_an_object_is_one_record_and_nothing_is_none():
    assert unwrap({"data": {"id": 1}}).items == [{"id": 1}]
    assert unwrap({"downloadUrl": "x"}).items == [{"downloadUrl": "x"}]
    assert unwrap({"data": None}).items == unwrap([]).items == unwrap({"data": {"items": None}}).items == []
    whole = {"summary": {}, "items": [1]}
    assert unwrap({"data": whole}, whole=True).items == [whole]


def test_totals_and_cursors_come_along():
    found = unwrap({"data": {"items": [{}], "total": "7", "nextPageCursor": "abc"}})
    assert (found.total, found.cursor) == (7, "abc")
    assert unwrap({"data": {"items": [], "nextPageCursor": None}}).cursor is None


@given(st.binary(max_size=40))
def test_a_body_is_json_or_a_bad_answer(body: bytes):
    with suppress(BadAnswer):
        assert isinstance(read_json(body), dict | list)
    error_of(body)


def test_half_a_character_is_no_reason_to_lose_a_page():
    assert read_json(rb'[{"text": "\ud83d half"}]')[0]["text"].endswith("half")


@pytest.mark.parametrize(
    "written",
    [
        "2018-09-27T19:54:41+0300",
        "2018-09-27T19:54:41+03:00",
        "2018-09-27 19:54:41",
        {"date": "2018-09-27 19:54:41.000000", "timezone_type": 3, "timezone": "Europe/Moscow"},
        {"date": "2018-09-27 19:54:41.000000", "timezone_type": 1, "timezone": "+03:00"},
    ],
)
def test_a_moment_is_the_same_in_every_form(written: Any):
    assert moment_of(written, ZONE) == datetime(2018, 9, 27, 16, 54, 41, tzinfo=UTC)


@pytest.mark.parametrize("written", ["", None, 5, "soon", {"date": "soon", "timezone": "Mars"}])
def test_what_is_no_moment_is_none(written: Any):
    assert moment_of(written, ZONE) is None


def test_a_php_date_that_cannot_be_read_stays_as_it_is():
    assert plain_date({"date": "soon", "timezone": "Europe/Moscow"}) == "soon"


@pytest.mark.parametrize("value", [7001001, "7001001", " 7001001", 7001001.0])
def test_an_id_is_the_same_in_every_type(value: Any):
    assert text_id(value) == "7001001"


def test_messages_of_the_server_name_nobody():
    assert clean("user anna.p@example.com, +7 900 000-00-02 and 12345") == "user ***, *** and 12345"
    assert len(clean("x" * 5000)) == 300


# Privacy


def test_secrets_are_dropped_at_any_depth_and_the_rest_stays():
    record = {"id": 1, "url": "room", "file": {"uploadUrl": "t", "slides": [{"password": "p", "n": 1}]}}
    assert Scrubber().scrub(record, frozenset({"url"})) == {"id": 1, "file": {"slides": [{"n": 1}]}}


def test_pseudonyms_join_and_cannot_be_guessed_without_the_key():
    record = {"email": "Anna@Example.com", "phone": "+7 900 000", "more": [{"value": "anna@example.com"}]}
    one, other = Scrubber("key").scrub(record), Scrubber("an0ther-key").scrub(record)
    assert one["email"] == one["more"][0]["value"] != other["email"]
    assert one["email"].startswith("email:")
    assert one["phone"] == Scrubber("key").scrub({"phone": "7900000"})["phone"] != record["phone"]
    assert "anna" not in json.dumps(one).lower()


@pytest.mark.parametrize("typed", ["+79990001122", "8 (999) 000-11-22", " +7 999 000.11.22 "])
def test_a_phone_typed_into_a_form_is_a_pseudonym_too(typed: str):
    def scrubbed(value: str) -> str:
        return Scrubber("key").scrub({"additionalFieldValues": [{"label": "Связь", "value": value}]})[
            "additionalFieldValues"
        ][0]["value"]

    assert scrubbed(typed).startswith("phone:")
    assert scrubbed("25 человек, 2026-11-21") == "25 человек, 2026-11-21"
    assert Scrubber("key").scrub({"id": "22828342981", "userId": "79990001122"}) == {
        "id": "22828342981",
        "userId": "79990001122",
    }


def test_chats_transcripts_and_contacts_are_off_by_themselves():
    assert {name for name, each in PRIVACY.items() if not each.on} == {"chats", "transcripts", "contacts"}
    off = {e.name for e in ENDPOINTS if not PRIVACY[e.privacy].on}
    assert off >= {
        "channel_messages",
        "event_chat_messages",
        "transcript_list",
        "transcript_summary",
        "contacts_search",
        "contact_details",
        "contact_user_info",
    }


# What the vendor documents


def samples() -> list[Path]:
    folder = os.environ.get("SVOD_SAMPLES")
    return sorted(Path(folder, "mts_link").glob("*.json")) if folder else []


@pytest.mark.skipif(not samples(), reason="SVOD_SAMPLES names no folder with recorded answers")
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
def test_a_recorded_answer_fills_the_columns_and_the_key(endpoint: Any):
    by_name = {p.stem: p for p in samples()}
    path = by_name.get(endpoint.name) or by_name.get(f"extra_{endpoint.name}")
    if path is None:
        pytest.skip("no answer of this method is recorded")
    answer = json.loads(path.read_text(encoding="utf-8"))
    assert answer["request"]["path_template"].count("{") == endpoint.path.count("{")
    records = unwrap(answer["response"]["body"], whole=endpoint.whole).items
    maker = RowMaker(endpoint, Scrubber(), ZONE, frozenset(PRIVACY))
    rows = list(maker.rows(records))
    assert rows
    own = [k for k in endpoint.key if k in {c.column for c in endpoint.columns}]
    assert all(row[k] not in (None, "") for row in rows for k in own)
    assert len({tuple(str(row[k]) for k in own) for row in rows}) == len(rows)
    said = json.dumps(rows)
    assert "UPLOAD_TOKEN" not in said
    assert "3996eb9" not in said
