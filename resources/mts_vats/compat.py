"""`VATS(...).get_trunks()` as programs of the old client call it, on the client of this package."""

from __future__ import annotations

import re
from typing import Any

from resources.errors import PermanentSourceError
from resources.mts_vats.client import MtsVatsClient, Trunk
from resources.mts_vats.gwt_lexer import decode_long, encode_long
from resources.mts_vats.payloads import FILTERS, Filter
from resources.mts_vats.session import Cabinet

_SCOPE = re.compile(r"\|8\|([A-Za-z0-9$_]{1,11})\|")


class VATS:
    """The old class: positional or by name, with `login` or `user`.

    `contract_url_abonents` is the link of the contract, or the piece of a request that holds it, such as
    `|-2|7|0|8|CaXXXX|0|0|8|{page}|8|Bk|0|`. `x_gwt_permutation` and `count_sim` are taken and not needed: the
    permutation is found, and the list is read to its end.
    """

    def __init__(
        self,
        address: str,
        login: str | None = None,
        password: str = "",
        *more: Any,
        user: str | None = None,
        x_gwt_permutation: str | None = None,
        contract_url_abonents: str | None = None,
        count_sim: int | None = None,
        ca_bundle: str | None = None,
    ) -> None:
        permutation, contract = _positional(more, x_gwt_permutation, contract_url_abonents)
        name = login or user
        if not name or not password:
            raise TypeError("VATS needs a login (login= or user=) and a password")
        self._listed = permutation is not None
        scope, filters = _contract(contract)
        cabinet = Cabinet("vats", address, name, password, scope=scope, ca_bundle=ca_bundle)
        self.client = MtsVatsClient(cabinet, secrets=True, filters=filters)

    def get_trunks(self) -> list[dict[str, Any]] | dict[str, dict[str, Any]]:
        """The old dictionaries, as the revision that is called gave them.

        With `x_gwt_permutation`: a list, with `trunk_phone` of ten digits. Without it: a mapping from the
        phone, eleven digits, to the rest. Trunks without a SIP login are left out, as they were.
        Raises IncompleteError where the old class left out what it could not read.
        """
        try:
            trunks = [t for t in self.client.trunks() if t.form and t.form.login]
        finally:
            self.client.close()
        if self._listed:
            return [{**_values(t), "trunk_phone": _phone(t)} for t in trunks]
        return {t.phone or t.abonent.phone or "": _values(t) for t in trunks}


def _positional(
    more: tuple[Any, ...], permutation: str | None, contract: str | None
) -> tuple[str | None, str | None]:
    """The old revisions: (x_gwt_permutation, contract[, count_sim]), later (contract)."""
    if len(more) == 1:
        return permutation, more[0]
    if len(more) in (2, 3):
        return more[0], more[1]
    if more:
        raise TypeError("VATS takes at most x_gwt_permutation, contract_url_abonents and count_sim besides")
    return permutation, contract


def _contract(text: str | None) -> tuple[int | None, tuple[Filter, ...]]:
    """The scope and the filters that the old piece of a request names."""
    if not text:
        return None, FILTERS
    found = _SCOPE.search(text)
    link = found[1] if found else text.strip()
    try:
        scope = decode_long(link)
    except ValueError:
        raise PermanentSourceError(
            "contract_url_abonents holds no link such as CaXXXX, alone or in |8|CaXXXX|."
        ) from None
    unfiltered = text.startswith(("|0|", "0|"))
    return scope, (None, False, None, None) if unfiltered else FILTERS


def _values(trunk: Trunk) -> dict[str, Any]:
    form = trunk.form
    assert form is not None
    link = encode_long(trunk.abonent.id)
    values = {"trunk_login": form.login, "trunk_password": form.password}
    if form.form == 32:
        return values
    source = (*form.devices, form.template)[0]
    return {
        **values,
        "trunk_sip_device": form.has_device,
        "trunk_sip_enabled": form.enabled,
        "trunk_identify_line": form.line,
        "trunk_sip_obj": encode_long(source.sip_obj) if source and source.sip_obj is not None else None,
        "trunk_inner_link": link,
        "inner_name": link,
    }


def _phone(trunk: Trunk) -> str | None:
    """As the first revisions gave it: the digits of the login, in form 32 those of its own field."""
    form = trunk.form
    return (form.own_phone or form.sip_phone) if form else None
