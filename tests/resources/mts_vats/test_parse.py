"""From answers to values: every row or an error, whatever happened to the answer on its way."""

from __future__ import annotations

import contextlib
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.mts_vats import models
from resources.mts_vats.answers import AbonentPage, full_phone
from resources.mts_vats.gwt_lexer import lex
from resources.mts_vats.gwt_rpc import ARRAY_LIST, LONG, DecodeError
from resources.mts_vats.parse import parse_exception, parse_form, parse_form_32, parse_list, parse_response
from sandbox.mts_vats import CabinetConfig, VirtualCabinet
from sandbox.mts_vats.wire import Call

CONFIGS = st.builds(
    CabinetConfig,
    trunks=st.integers(0, 12),
    seed=st.integers(0, 99),
    totals=st.booleans(),
    modern=st.booleans(),
    changed_row=st.booleans(),
    array_part=st.integers(3, 60),
    string_part=st.integers(3, 60),
)


def page_of(cabinet: VirtualCabinet) -> str:
    fields = [None, False, None, False, 0, cabinet.config.enterprise, None, None, 0, 100, None]
    service = "AbonentBrowserGwtService"
    return cabinet.execute(service, Call(cabinet.policies[service], "", "list", (), [["", fields]]))


def forms_of(cabinet: VirtualCabinet) -> dict[int, str]:
    service = "DispatcherGwtService"
    return {
        t.id: cabinet.execute(service, Call(cabinet.policies[service], "", "getForm", (), [t.id, t.form]))
        for t in cabinet.trunks.values()
        if t.form
    }


@settings(max_examples=60)
@given(CONFIGS)
def test_what_a_cabinet_of_any_dialect_writes_is_what_is_read(config: CabinetConfig):
    cabinet = VirtualCabinet(config)
    page: AbonentPage = parse_list(lex(page_of(cabinet)))
    assert [(a.id, tuple(a.flags.values())) for a in page.abonents] == [
        (t.id, t.flags) for t in cabinet.trunks.values()
    ]
    assert page.total == (len(cabinet.trunks) if config.totals else None)
    for id_, text in forms_of(cabinet).items():
        trunk = cabinet.trunks[id_]
        form = parse_form(lex(text), id_) if trunk.form == 31 else parse_form_32(lex(text))
        assert (form.login, form.password) == (f"sip_{trunk.phone}_1", trunk.password)
        if trunk.form == 31:
            assert form.line == (f"mobsip_{trunk.phone}" if trunk.line else None)
            assert (form.has_device, form.enabled) == (trunk.has_device, trunk.has_device and trunk.enabled)


SOURCE = VirtualCabinet(CabinetConfig(trunks=12, fallback_form=0.3, without_form=0))
CHANGED = VirtualCabinet(CabinetConfig(trunks=12, changed_row=True))
SEEDS = [page_of(SOURCE), page_of(CHANGED), *forms_of(SOURCE).values()]
PIECES = ["", "[", "]", ",", "'", '"', "\\", "-1", "0", "1", "4", "99999", ".concat(", "sip_1_1", "/77"]


@settings(max_examples=300)
@given(st.integers(0, 1 << 32), st.integers(1, 6))
def test_a_damaged_answer_is_read_in_full_or_is_an_error(seed: int, times: int):
    chance = random.Random(seed)
    text = chance.choice(SEEDS)
    for _ in range(times):
        at = chance.randrange(len(text) + 1)
        text = text[:at] + chance.choice(PIECES) + text[at + chance.choice([0, 1, 3]) :]
    for read in (parse_list, parse_form, parse_form_32, parse_exception):
        with contextlib.suppress(DecodeError):
            read(lex(text))
    with contextlib.suppress(DecodeError):
        parse_response(text)


def test_rows_cannot_vanish_from_a_scanned_page():
    """Whichever number of a row is changed, the page has as many rows as before, or is an error."""
    text, count = page_of(CHANGED), len(CHANGED.trunks)
    head = text.index('["')
    for at in range(5, head):
        if text[at] in "01" and not text[at - 1].isalnum() and not text[at + 1].isalnum():
            changed = text[:at] + {"0": "1", "1": "0"}[text[at]] + text[at + 1 :]
            with contextlib.suppress(DecodeError):
                assert len(parse_list(lex(changed)).abonents) == count


@pytest.mark.parametrize(
    ("body", "class_", "message"),
    [
        ('//EX[2,1,["a.B/1","said"],0,7]', "a.B", "said"),
        ('//EX[0,1,["a.B/1"],0,7]', "a.B", None),
        ("//EX[0,[],0,7]", None, None),
    ],
)
def test_exceptions(body: str, class_: str | None, message: str | None):
    thrown = parse_exception(lex(body))
    assert (thrown.name, thrown.message) == (class_, message)


@pytest.mark.parametrize(
    ("digits", "phone"),
    [
        *(("9990000001", "79990000001"), ("79990000001", "79990000001"), ("89990000001", "79990000001")),
        *(("123", None), (None, None), ("99900000011234", None), ("49990000001", None)),
    ],
)
def test_a_full_phone_has_eleven_digits_from_seven(digits: str | None, phone: str | None):
    assert full_phone(digits) == phone


@pytest.mark.parametrize("tokens", ["0", "'B',2", "0,3", "0,0,1,3"])
def test_a_page_whose_root_is_something_else_is_an_error(tokens: str):
    table = [models.signature(models.LIST_RESPONSE), LONG, ARRAY_LIST]
    with pytest.raises(DecodeError):
        parse_list(lex(f"//OK[{tokens},{json.dumps(table)},0,7]"))
