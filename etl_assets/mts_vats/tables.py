"""The tables of MTS VATS: what a trunk is now, since when it is so, and what was changed from here."""

from __future__ import annotations

from resources.clickhouse import Column, Table
from resources.clickhouse.values import INSTANT, INTEGER, TEXT

DATABASE = "mts_vats"


def _c(name: str, kind=TEXT, comment: str = "", **options: bool) -> Column:
    return Column(name, name, kind, comment, **options)


def _key(name: str, kind=TEXT, comment: str = "") -> Column:
    return Column(name, name, kind, comment, required=True)


# What is compared to tell whether a trunk has changed, in the order of `changed`.
STATE = (
    _c("state", TEXT, "active, disabled_marked, unknown (a combination nobody explained) or gone"),
    _c("marks", INTEGER, "Numbers w2 w3 w4 w6 … w12 of the list's row, as they came", multiple=True),
    _c("has_device", INTEGER, "1: a SIP device is installed"),
    _c("is_enabled", INTEGER, "1: the SIP device is switched on"),
    _c("line", TEXT, "Line, mobsip_ and ten digits"),
    _c("sip_login", TEXT, "SIP login"),
    _c("phone", TEXT, "Phone number, 7XXXXXXXXXX"),
    _c("password_fingerprint", TEXT, "HMAC of the SIP password; empty if passwords are not read"),
)

TRUNKS = Table(
    database=DATABASE,
    name="trunks",
    columns=(
        _key("cabinet", TEXT, "Cabinet of the settings"),
        _key("abonent_id", INTEGER, "Abonent; `link` is the same number as the cabinet writes it"),
        _c("link", TEXT, "The id in GWT's base 64"),
        _c("scope_id", INTEGER, "Enterprise, whose list it is on"),
        _c("name", TEXT, "Name in the list, where the list's class is known"),
        _c("extension", TEXT, "Short number in the list"),
        _c("group_name", TEXT, "Group in the list"),
        *STATE,
        _c("is_marked_for_deletion", INTEGER, "1: switched off and marked for deletion; empty if unknown"),
        _c("is_on", INTEGER, "1: a call goes through: active, device installed and enabled"),
        _c("devices", INTEGER, "SIP devices installed"),
        _c("sip_obj_id", INTEGER, "SIP object of the device"),
        _c("contract_id", INTEGER, "Contract of the device"),
        Column("sip_password", "sip_password", TEXT, "SIP password, encrypted", private=True),
        _c("form", INTEGER, "31: device form; 32: the one that stands in for it"),
        _c("status", TEXT, "ok, no_form, no_credentials, error"),
        _c("error", TEXT, "Why there is no form"),
        _c("decoded_by", TEXT, "schema: by known classes; scan: by patterns, after the classes changed"),
        _c("read_at", INSTANT, "When the form was read, by the cabinet's clock"),
    ),
    key=("cabinet", "abonent_id"),
    comment="SIP-транки кабинетов МТС ВАТС: номер, логин, линия, устройство, состояние",
    tombstones=True,
)

TRUNK_STATES = Table(
    database=DATABASE,
    name="trunk_states",
    columns=(
        _key("cabinet", TEXT, "Cabinet of the settings"),
        _key("abonent_id", INTEGER, "Abonent"),
        _key("valid_from", INSTANT, "First seen so"),
        _c("valid_to", INSTANT, "Seen otherwise since; empty: it is so now"),
        *STATE,
        _c("is_on", INTEGER, "1: a call goes through"),
        _c("changed", TEXT, "What differs from the row before; empty in the first row", multiple=True),
    ),
    key=("cabinet", "abonent_id", "valid_from"),
    comment="История состояний SIP-транков: строка на каждое изменение",
)

DEVICE_CHANGES = Table(
    database=DATABASE,
    name="device_changes",
    columns=(
        _key("change_id", TEXT, "Run, cabinet and phone"),
        _c("requested_at", INSTANT, "When it was asked for"),
        _c("run_id", TEXT, "Dagster run"),
        _c("cabinet", TEXT, "Cabinet of the settings"),
        _c("abonent_id", INTEGER, "Abonent"),
        _c("phone", TEXT, "Phone number"),
        _c("action", TEXT, "on, off, add or remove"),
        _c("is_dry_run", INTEGER, "1: nothing was sent"),
        _c("outcome", TEXT, "planned, sending, done, unchanged, refused, differs, unknown"),
        _c("detail", TEXT, "What was seen"),
        _c("device_before", INTEGER, "A device was installed"),
        _c("enabled_before", INTEGER, "It was switched on"),
        _c("device_after", INTEGER, "A device is installed, as read back"),
        _c("enabled_after", INTEGER, "It is switched on, as read back"),
    ),
    key=("change_id",),
    comment="Журнал изменений SIP-устройств, сделанных отсюда",
)

TABLES = (TRUNKS, TRUNK_STATES)
