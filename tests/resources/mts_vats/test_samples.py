"""Answers of the cabinet as far as they are public: the parses expected of them, and the old client's own
patterns where those were right."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from resources.mts_vats import models
from resources.mts_vats.answers import AbonentPage
from resources.mts_vats.gwt_lexer import lex
from resources.mts_vats.gwt_rpc import DecodeError
from resources.mts_vats.parse import parse_form, parse_list, parse_response

SAMPLES = Path(os.environ["SVOD_SAMPLES"]) / "mts_vats" if "SVOD_SAMPLES" in os.environ else None
needs_samples = pytest.mark.skipif(SAMPLES is None, reason="SVOD_SAMPLES names no folder of samples")


def index() -> dict[str, Any]:
    return json.loads((SAMPLES / "index.json").read_text()) if SAMPLES else {}


def body(name: str) -> str:
    assert SAMPLES
    return (SAMPLES / name).read_text()


RESPONSES = [name for name, about in index().items() if about.get("kind") == "response"]
LISTS = [name for name in RESPONSES if name.startswith("resp_list")]
FORMS = [name for name in RESPONSES if name.startswith("resp_form31")]


@needs_samples
@pytest.mark.parametrize("name", RESPONSES)
def test_a_sample_says_what_is_expected_of_it(name: str):
    assert parse_response(body(name)) == index()[name]["expected"]
    assert parse_response(body(name).encode()) == index()[name]["expected"]


def renamed(text: str) -> str:
    """The same answer after a change of the classes: other checksums."""
    for name in (models.LIST_RESPONSE, models.LIST_ROW, models.DEVICE_FORM, models.DEVICE_RECORD):
        text = text.replace(models.signature(name), f"{name}/1000000007")
    return text


def rows(page: AbonentPage) -> list[Any]:
    return [(a.id, a.marks) for a in page.abonents]


@needs_samples
@pytest.mark.parametrize("name", [n for n in LISTS if "concat" not in n])
def test_a_list_of_changed_classes_is_read_by_scanning_with_the_same_rows(name: str):
    known, changed = parse_list(lex(body(name))), parse_list(lex(renamed(body(name))))
    assert (known.route, changed.route) == ("schema", "scan")
    assert (rows(changed), changed.total) == (rows(known), known.total)
    assert 0 < changed.confidence <= known.confidence


@needs_samples
@pytest.mark.parametrize("name", FORMS)
def test_a_form_of_changed_classes_is_read_by_scanning_with_the_same_values(name: str):
    known, changed = parse_form(lex(body(name))), parse_form(lex(renamed(body(name))))
    assert (known.route, changed.route) == ("schema", "scan")
    for part in ("login", "password", "phone", "line", "has_device", "enabled", "abonent"):
        assert getattr(changed, part) == getattr(known, part), part
    assert [(d.abonent, d.sip_obj, d.contract, d.enabled) for d in changed.devices] == [
        (d.abonent, d.sip_obj, d.contract, d.enabled) for d in known.devices
    ]


@needs_samples
@pytest.mark.parametrize("name", [n for n in LISTS if "concat" not in n])
def test_a_list_of_which_one_row_cannot_be_understood_is_an_error(name: str):
    text = renamed(body(name))
    for damaged in (text.replace(",2,0,0,", ",2,0,1,", 1), text.replace(",2,0,0,1,", ",2,0,0,3,", 1)):
        if damaged != text:
            with pytest.raises(DecodeError):
                parse_list(lex(damaged))


@needs_samples
@pytest.mark.parametrize("name", LISTS)
def test_the_old_patterns_find_what_we_find_where_they_are_valid(name: str):
    text, said = body(name), index()[name]["original"]
    strict = re.findall(r"(Ca.{4})',2,0,0,\d,8,\d,\d,0,\d,0,0,0", text)
    loose = re.findall(r"(C.{5})',2,0,0", text)
    assert (len(strict), len(loose)) == (said["strict"], said["loose"])
    ours = [row["link"] for row in parse_response(text)["abonents"]]
    assert set(strict) | set(loose) <= set(ours)
    if len(strict) == len(ours):
        assert strict[::-1] == ours


OLD_LOGIN = (
    r"(sip_\d+_\w+\",\")((?=.*?[A-Z])(?=.*?[a-z])(?=.*?[0-9])(?=.*?[!@#$%\^&\\{}\[\]()_\-~?+]).{8,16})"
)


@needs_samples
@pytest.mark.parametrize("name", [n for n in FORMS if index()[n].get("original") == "agrees"])
def test_the_old_patterns_read_the_forms_that_they_could_as_we_do(name: str):
    text, ours = body(name), parse_response(body(name))
    login, device = re.search(OLD_LOGIN, text), re.search(r"(Ca.{4})..(\d.\d)..(Ca.{4})", text)
    line = re.search(r'"(mobsip_\d{10})"', text)
    assert login
    assert device
    assert line
    assert login[1].split('"')[0] == ours["sip_login"]
    assert login[2].split('"')[0].encode().decode("unicode_escape") == ours["sip_password"]
    assert line[1] == ours["line"]
    assert ("4" in device[2], "4,1" in device[2]) == (ours["sip_device"], ours["sip_enabled"])
    assert device[3] == ours["abonent_link"]
