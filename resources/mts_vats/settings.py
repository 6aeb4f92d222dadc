"""Cabinets from the environment: several by MTS_VATS_CABINETS, or one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from resources.errors import PermanentSourceError
from resources.mts_vats.payloads import FILTERS, Filter
from resources.mts_vats.session import Cabinet

ADDRESS = "vpbx.mts.ru"
ONE = "main"  # what a single cabinet is called
CABINETS, LOGIN, PASSWORD = "MTS_VATS_CABINETS", "MTS_VATS_LOGIN", "MTS_VATS_PASSWORD"
_KEYS = frozenset(("address", "login", "login_env", "password_env", "scope", "pins"))


def cabinets(environ: Mapping[str, str] = os.environ) -> list[Cabinet]:
    """Every cabinet of the settings. Raises PermanentSourceError naming the variable that is wrong."""
    shared = {
        "ca_bundle": environ.get("MTS_VATS_CA_BUNDLE") or None,
        "ciphers": environ.get("MTS_VATS_TLS_CIPHERS", "DEFAULT:@SECLEVEL=1") or None,
        "timeout_s": _number(environ, "MTS_VATS_TIMEOUT_S", 30.0, 1.0),
        "pause_s": _number(environ, "MTS_VATS_PAUSE_S", 0.0, 0.0),
    }
    listed = environ.get(CABINETS, "").strip()
    if not listed:
        scope, address = environ.get("MTS_VATS_SCOPE", ""), environ.get("MTS_VATS_ADDRESS") or ADDRESS
        one = {"address": address, "login_env": LOGIN, "password_env": PASSWORD}
        one |= {"scope": _scope("MTS_VATS_SCOPE", scope), "pins": _object("MTS_VATS_PINS", environ)}
        return [_cabinet(ONE, one, environ, shared)]
    described = _object(CABINETS, environ)
    if not described:
        raise PermanentSourceError(f"{CABINETS} names no cabinet.")
    return [_cabinet(name, about, environ, shared) for name, about in described.items()]


def configured(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether there is a cabinet to ask: without one nothing starts by itself."""
    return bool(environ.get(CABINETS) or (environ.get(LOGIN) and environ.get(PASSWORD)))


def _cabinet(name: str, about: Any, environ: Mapping[str, str], shared: Mapping[str, Any]) -> Cabinet:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", name):
        raise PermanentSourceError(f"{CABINETS}: a cabinet's name has lower case letters, digits and _ only.")
    keys = f"its keys are {', '.join(sorted(_KEYS))}"
    if not isinstance(about, dict):
        raise PermanentSourceError(f"{CABINETS}: {name} must be an object; {keys}.")
    if "password" in about:
        raise PermanentSourceError(f"{CABINETS}: {name} must name the password's variable in password_env.")
    if unknown := sorted(set(about) - _KEYS):
        raise PermanentSourceError(f"{CABINETS}: {name} cannot have {', '.join(unknown)}; {keys}.")
    login = about.get("login") or _secret(name, about, "login_env", environ)
    return Cabinet(
        name=name,
        address=str(about.get("address") or ADDRESS),
        login=str(login),
        password=_secret(name, about, "password_env", environ),
        scope=_scope(f"{CABINETS}: scope of {name}", about.get("scope")),
        pins=about.get("pins") or {},
        **shared,
    )


def _secret(name: str, about: Mapping[str, Any], key: str, environ: Mapping[str, str]) -> str:
    variable = about.get(key)
    if not variable:
        raise PermanentSourceError(f"{CABINETS}: {name} names no variable in {key}.")
    value = environ.get(str(variable))
    if not value:
        raise PermanentSourceError(
            f"{variable} is not set: put it into .env (see .env.example) or the environment."
        )
    return value


def _scope(where: str, value: Any) -> int | None:
    if value in (None, ""):
        return None
    if not re.fullmatch(r"\d{1,18}", str(value), re.ASCII):
        raise PermanentSourceError(f"{where} must be the enterprise's number.")
    return int(value)


def _object(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        found = json.loads(environ.get(name) or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PermanentSourceError(f"{name} must be a JSON object; see .env.example.")
    return found


def _number(environ: Mapping[str, str], name: str, default: float, least: float) -> float:
    text = environ.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value < 1e6:
        raise PermanentSourceError(f"{name} must be a number from {least:g}.")
    return value


def filters(text: str) -> tuple[Filter, ...]:
    """MTS_VATS_FILTERS: four of null, true, false. Raises PermanentSourceError for anything else."""
    if not text:
        return FILTERS
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if (
        not isinstance(found, list)
        or len(found) != 4
        or not all(f is None or f in (True, False) for f in found)
    ):
        raise PermanentSourceError("MTS_VATS_FILTERS must be a list of four, each null, true or false.")
    return tuple(found)
