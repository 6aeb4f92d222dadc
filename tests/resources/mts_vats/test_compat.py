"""The call of the old client, in each of its revisions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from resources.errors import PermanentSourceError
from resources.mts_vats import VATS
from resources.mts_vats.gwt_lexer import encode_long
from sandbox.mts_vats import CabinetConfig, VirtualCabinet, serve

LINK = "CaV5y0"  # 2589433012


@pytest.fixture
def cabinet() -> Iterator[VirtualCabinet]:
    with serve(CabinetConfig(trunks=30)) as cabinet:
        yield cabinet


def expected(cabinet: VirtualCabinet) -> dict[str, dict[str, Any]]:
    found = {}
    for t in cabinet.trunks.values():
        values: dict[str, Any] = {"trunk_login": f"sip_{t.phone}_1", "trunk_password": t.password}
        if t.form == 31:
            values |= {
                "trunk_sip_device": t.has_device,
                "trunk_sip_enabled": t.has_device and t.enabled,
                "trunk_identify_line": f"mobsip_{t.phone}" if t.line else None,
                "trunk_sip_obj": encode_long(t.sip_obj),
                "trunk_inner_link": encode_long(t.id),
                "inner_name": encode_long(t.id),
            }
        if t.form:
            found[t.phone] = values
    return found


@pytest.mark.parametrize(
    "contract", ["|-2|7|0|8|CaV5y0|0|0|8|{page}|8|Bk|0|", "|-2|7|0|0|8|CaV5y0|0|8|{page}|8|Bk|0|", LINK, None]
)
def test_with_a_permutation_it_gives_the_list_of_the_first_revisions(cabinet: VirtualCabinet, contract: str):
    vats = VATS(
        address=cabinet.base_url,
        login=cabinet.config.login,
        password=cabinet.config.password,
        x_gwt_permutation="02DC99360471CAF1F0FDC34C0A47D87E",
        contract_url_abonents=contract,
    )
    trunks = vats.get_trunks()
    assert isinstance(trunks, list)
    assert {t.pop("trunk_phone"): t for t in trunks} == expected(cabinet)


def test_without_one_it_gives_the_mapping_of_the_later_ones(cabinet: VirtualCabinet):
    for vats in (
        VATS(cabinet.base_url, cabinet.config.login, cabinet.config.password, LINK),
        VATS(cabinet.base_url, user=cabinet.config.login, password=cabinet.config.password),
    ):
        assert vats.get_trunks() == {f"7{phone}": t for phone, t in expected(cabinet).items()}


def test_positional_arguments_are_those_of_the_first_revisions(cabinet: VirtualCabinet):
    config = cabinet.config
    vats = VATS(cabinet.base_url, config.login, config.password, "02DC", f"|0|7|0|8|{LINK}|0|0|8|A|", 301)
    assert len(vats.get_trunks()) == len(expected(cabinet))


@pytest.mark.parametrize("contract", ["|-2|7|0|8|!|0|", "not a link", "-"])
def test_a_contract_without_a_link_is_named(contract: str):
    with pytest.raises(PermanentSourceError, match="contract_url_abonents"):
        VATS("vpbx.example", "+7-9990000001", "secret", contract_url_abonents=contract)


def test_the_address_of_old_settings_has_no_scheme_and_means_https():
    assert VATS("vpbx.example", "l", "secret").client.session.base == "https://vpbx.example/vpbxGwt/"
